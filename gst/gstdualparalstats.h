/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalstats.h: the structure of the property `stats`, and a thread that
 * posts it every so often. It is a thread of its own because the streaming thread
 * may be stuck just when somebody wants to know why: in downstream, or for a
 * frame.
 */
#pragma once

#include <gst/gst.h>
#include "dualparal.h"

G_BEGIN_DECLS

/** Thread-safety: by member. */
typedef struct
{
  GstElement *element;
  GThread *thread;              /* between start() and stop(), if any */

  /* -- protected by lock, which is not held when something is posted */
  GMutex lock;
  GCond cond;
  gboolean stopping;
  gint64 interval_us;
  gint64 start_us, first_us;    /* of the first frame that left, 0 until then */
  gdouble model_framerate, framerate;
} GstDualParalStats;

void gst_dualparal_stats_init (GstDualParalStats * stats, GstElement * element);
void gst_dualparal_stats_clear (GstDualParalStats * stats);

/** The element starts, and with an interval (in ms) its property `stats` is posted
 *  from now on. */
void gst_dualparal_stats_start (GstDualParalStats * stats, guint interval,
    const DpModelInfo * model);
void gst_dualparal_stats_stop (GstDualParalStats * stats);

/** What the caps say. Any thread, as all that follow. */
void gst_dualparal_stats_set_framerate (GstDualParalStats * stats, gint fps_n,
    gint fps_d);
/** A frame of the video leaves; only the first one matters. */
void gst_dualparal_stats_frame_leaves (GstDualParalStats * stats);
/** What is known of the generation. */
GstStructure *gst_dualparal_stats_new (GstDualParalStats * stats,
    const DpStats * engine);

G_END_DECLS
