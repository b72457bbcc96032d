/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalposter.h: posts messages on a thread that nobody waits for.
 *
 * A synchronous handler of the bus runs on the thread that posts, and may take the element to any
 * state there. Going down joins the engine's threads and that of the statistics, and waits for the
 * streaming thread. So none of these posts by itself.
 *
 * Thread-safety: all functions, gst_dualparal_poster_free() last.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

typedef struct _GstDualParalPoster GstDualParalPoster;

GstDualParalPoster *gst_dualparal_poster_new (GstElement * element);
/** A message that waits keeps the element, so none does. */
void gst_dualparal_poster_free (GstDualParalPoster * poster);

/** Messages keep their order. Takes the message. Never blocks, so it may be called under a lock. */
void gst_dualparal_poster_post (GstDualParalPoster * poster,
    GstMessage * message);
/** Whether nothing waits to be posted. */
gboolean gst_dualparal_poster_is_idle (GstDualParalPoster * poster);
/** Waits until all is posted. A handler that stops the element is not waited for: then the rest is
 *  posted when it returns. */
void gst_dualparal_poster_drain (GstDualParalPoster * poster);

G_END_DECLS
