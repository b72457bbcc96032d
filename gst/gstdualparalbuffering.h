/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalbuffering.h: the pace of a video that is not live. Frames leave as soon as downstream
 * takes them. If playback is faster than the generation, every video sink drops late frames, so the
 * source has to ask for a pause: it posts BUFFERING below 100, the application goes to PAUSED, and
 * at 100 back to PLAYING.
 *
 * Buffering begins when the next frame is not ready shortly before it has to be shown; an empty
 * queue alone is no reason. Then the streaming thread, which runs in PAUSED too, holds frames back
 * until enough are ready.
 *
 * A recording must not be paused. It is recognised by its sink: one that keeps time sends QoS
 * events, or at least never asks for frames long before their time.
 */
#pragma once

#include "gstdualparalgenerator.h"

G_BEGIN_DECLS

/** Thread-safety: the streaming thread's, except for the functions that say "any thread". */
typedef struct _GstDualParalBuffering GstDualParalBuffering;

GstDualParalBuffering *gst_dualparal_buffering_new (GstElement * element,
    GstDualParalPoster * poster, GstDualParalGenerator * gen);
void gst_dualparal_buffering_free (GstDualParalBuffering * buffering);

/** Without a streaming thread. Forgets everything; stop() keeps the statistics. */
void gst_dualparal_buffering_start (GstDualParalBuffering * buffering);
void gst_dualparal_buffering_stop (GstDualParalBuffering * buffering);

/** The video starts again: ends buffering, and playback is taken to begin. Without a streaming
 *  thread. */
void gst_dualparal_buffering_rewind (GstDualParalBuffering * buffering);

/** Waits until the generator has a frame in hand that may leave: frame `n` of the video, shown at
 *  running time `due` for `duration`. No more than `left` frames are to come. */
GstFlowReturn gst_dualparal_buffering_next (GstDualParalBuffering * buffering,
    guint64 n, guint64 left, GstClockTime due, GstClockTime duration);

/** The element came to PLAYING, or leaves it. Any thread. */
void gst_dualparal_buffering_set_playing (GstDualParalBuffering * buffering,
    gboolean playing);
/** A QoS event came from downstream. Any thread. */
void gst_dualparal_buffering_saw_qos (GstDualParalBuffering * buffering);
/** Ends it with the frames there are; no-op when not buffering. Posts a message. Any thread. */
void gst_dualparal_buffering_finish (GstDualParalBuffering * buffering);

/** Adds what happened since start(). Any thread. */
void gst_dualparal_buffering_add_stats (GstDualParalBuffering * buffering,
    GstStructure * stats);

G_END_DECLS
