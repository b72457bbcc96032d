/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * key-frames.h: an encoder that makes a key frame for each viewer that joins, or that
 * lost a picture, and not for each request. A key frame is many times larger than other
 * pictures, and everybody gets it.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/** Thread-safety: all functions. */
typedef struct _KeyFrames KeyFrames;

/** Requests that reach `element` from downstream, at its pad "src", pass every 500 ms at
 *  most. Of those that come earlier the last one waits. Needs a default main loop. */
KeyFrames *key_frames_limit (GstElement * element);
/** NULL is nothing. When nothing comes through the element any more. */
void key_frames_free (KeyFrames * keys);

/** A request as any viewer's. */
void key_frames_ask (KeyFrames * keys);

G_END_DECLS
