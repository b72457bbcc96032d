/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalstats.h: the structure of the property `stats`, and a thread that posts it at an
 * interval. The streaming thread cannot do that: it may be blocked by downstream or wait for a
 * frame, just when the numbers are wanted.
 */
#pragma once

#include <gst/gst.h>
#include "dualparal.h"
#include "gstdualparalposter.h"

G_BEGIN_DECLS

/** Thread-safety: start and stop from one thread, all others from any. */
typedef struct _GstDualParalStats GstDualParalStats;

GstDualParalStats *gst_dualparal_stats_new (GstElement * element,
    GstDualParalPoster * poster);
void gst_dualparal_stats_free (GstDualParalStats * stats);

/** The element starts. From now on its property `stats` is posted every `interval` milliseconds; 0:
 *  never. */
void gst_dualparal_stats_start (GstDualParalStats * stats, guint interval,
    const DpPlan * plan);
void gst_dualparal_stats_stop (GstDualParalStats * stats);

/** The framerate of the caps. */
void gst_dualparal_stats_set_framerate (GstDualParalStats * stats, gint fps_n,
    gint fps_d);
/** A frame of the video leaves. The first one is recorded. */
void gst_dualparal_stats_frame_leaves (GstDualParalStats * stats);
/** The structure, from the engine's numbers and the times recorded here. */
GstStructure *gst_dualparal_stats_get (GstDualParalStats * stats,
    const DpStats * engine);

G_END_DECLS
