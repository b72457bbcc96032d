/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * web-viewers.h: all viewers by WebRTC. The video is encoded once, and each
 * viewer has a webrtcbin behind a queue that leaks: one that does not get on loses its
 * own pictures and holds nobody up. A viewer sees nothing before a key frame. Signalling
 * is WHEP's: the viewer's offer, our answer with all candidates in it.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/** Thread-safety: the thread of the default main context, which also has to run. */
typedef struct _Viewers Viewers;

/** Once. With `id`, `text` is the answer; without, the sentence that says what is wrong. */
typedef void (*ViewersAnswer) (guint status, const gchar * id, const gchar * text,
    gpointer user_data);

/** H.264 of one encoder comes to `tee`, in `pipeline`. `address`: where media comes from. */
Viewers *viewers_new (GstElement * pipeline, GstElement * tee,
    const gchar * address, guint most);
/** NULL is nothing. Removes all that are left. */
void viewers_free (Viewers * viewers);

/** Takes `offer`, SDP. `answer` is called later, in 5 seconds at most, with a status of HTTP:
 *  201, 400 not an offer, 406 nothing that we send, 503 too many, 500. */
void viewers_add (Viewers * viewers, const gchar * offer, ViewersAnswer answer,
    gpointer user_data);
/** FALSE: there is none of that name. */
gboolean viewers_remove (Viewers * viewers, const gchar * id);
guint viewers_count (Viewers * viewers);
/** Whether a message of `object` is about a viewer's connection; if it is an `error`, that ends. */
gboolean viewers_failed (Viewers * viewers, GstObject * object, gboolean error);

G_END_DECLS
