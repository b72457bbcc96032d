/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalmessages.h: errors and progress of the engine as messages of GStreamer, and the debug
 * category of the whole element. What posts on the bus is not called under a lock.
 */
#pragma once

#include <gst/gst.h>
#include "dualparal.h"
#include "gstdualparalposter.h"

G_BEGIN_DECLS

/** `dualparalsrc`; the class of the element initialises it. */
GST_DEBUG_CATEGORY_EXTERN (gst_dualparal_src_debug);

/** An element error with the engine's sentence and the nearest domain and code. */
void gst_dualparal_post_error (GstElement * element, const GError * error);

/** Progress of one operation that the engine reports with the arguments of DpProgress: a start
 *  comes first, then exactly one end. Thread-safety: any thread; messages keep the order of the
 *  reports. */
typedef struct _GstDualParalProgress GstDualParalProgress;

GstDualParalProgress *gst_dualparal_progress_new (GstElement * element,
    GstDualParalPoster * poster);
void gst_dualparal_progress_free (GstDualParalProgress * progress);
void gst_dualparal_progress_report (GstDualParalProgress * progress,
    const gchar * code, const gchar * text, gint percent, gboolean canceled);
/** For the next operation; nothing reports meanwhile. An operation that still runs ends as
 *  cancelled. */
void gst_dualparal_progress_reset (GstDualParalProgress * progress,
    const gchar * code);

G_END_DECLS
