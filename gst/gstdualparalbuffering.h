/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalbuffering.h: when playing is faster than making. Late frames are
 * dropped by every video sink, so a source that cannot keep up has to ask for a
 * pause: it posts BUFFERING below 100, the application pauses, and at 100 it
 * plays on.
 *
 * It begins when the next frame is not there shortly before it has to be shown;
 * a queue that is empty for a moment is no reason. From then on frames are held back
 * until there are enough of them, by the streaming thread itself, which runs in
 * PAUSED as well: no second thread is needed to see the queue fill. All
 * functions post messages, so none is called under a lock.
 *
 * Who only records is not to be paused, and is told apart by this: a sink that
 * keeps time sends QoS events, or at least never asks for frames long before
 * their time.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/** Thread-safety: the streaming thread's, but for the functions that say so. */
typedef struct
{
  gint active;                  /* atomic */
  gint keeps_time;              /* atomic: a QoS event was seen */
  gint episodes;                /* atomic: how often it began */
  gboolean ran_ahead;
  gint percent;
} GstDualParalBuffering;

/** Not while the streaming thread runs. Posts nothing, and forgets all but the
 *  statistics, which begin with start(). */
void gst_dualparal_buffering_reset (GstDualParalBuffering * buffering);
void gst_dualparal_buffering_start (GstDualParalBuffering * buffering);

/** Adds what happened since the element was started. Any thread. */
void gst_dualparal_buffering_add_stats (GstDualParalBuffering * buffering,
    GstStructure * stats);

/** A QoS event came from downstream. Any thread. */
void gst_dualparal_buffering_saw_qos (GstDualParalBuffering * buffering);

/** Time left before it is too late to pause for the next frame, which is due at
 *  running time `due`; G_MAXINT64 when nobody would notice. */
GstClockTimeDiff gst_dualparal_buffering_slack (GstDualParalBuffering *
    buffering, GstElement * element, GstClockTime due, GstClockTime duration);

gboolean gst_dualparal_buffering_active (GstDualParalBuffering * buffering);
void gst_dualparal_buffering_begin (GstDualParalBuffering * buffering,
    GstElement * element);
/** `have` of `want` frames are there; with all of them it is over. */
void gst_dualparal_buffering_update (GstDualParalBuffering * buffering,
    GstElement * element, guint have, guint want);
/** Over, with what is there. No-op when it is over already. Any thread. */
void gst_dualparal_buffering_finish (GstDualParalBuffering * buffering,
    GstElement * element);

G_END_DECLS
