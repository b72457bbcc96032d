/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparallive.h: the pace of a live video. Frames are made in bursts, a block at a time. One
 * picture leaves at a time, at its time of the pipeline's clock, which is its timestamp. Until then
 * frames wait in the generation's queue, so an interrupted wait loses none.
 *
 * The first frame is due when the prebuffer is full, each other one a frame time after the
 * previous. If there is none at that time, the underrun policy decides. If a picture is asked for
 * so late that a sink would drop it, or after the clock was set back, it leaves at once, with the
 * current time.
 *
 * PAUSED stops the clock and not the generation. A buffer that is ready just then waits in
 * GStreamer 1.22. GStreamer 1.24 and later discards it and asks for another: the position of the
 * base class shows that, and the same picture leaves again.
 */
#pragma once

#include <gst/base/gstbasesrc.h>
#include "gstdualparalgenerator.h"

G_BEGIN_DECLS

typedef enum
{
  GST_DUALPARAL_FRESH,          /* the frame in hand */
  GST_DUALPARAL_REPEATED,       /* the same again */
  GST_DUALPARAL_PLACEHOLDER,
} GstDualParalPicture;

/** What leaves next. */
typedef struct
{
  GstDualParalPicture picture;
  GstClockTime pts, duration;
  gboolean discont;
} GstDualParalRelease;

/** Thread-safety: the streaming thread's, except for the functions that say "any thread". */
typedef struct _GstDualParalLive GstDualParalLive;

GstDualParalLive *gst_dualparal_live_new (GstBaseSrc * src,
    GstDualParalPoster * poster, GstDualParalGenerator * gen,
    GstDualParalSettings * settings);
void gst_dualparal_live_free (GstDualParalLive * live);

/** After the generator's start, without a streaming thread. Begins in PAUSED. */
void gst_dualparal_live_start (GstDualParalLive * live);
/** The framerate of the caps; TRUE when it changes the latency. */
gboolean gst_dualparal_live_set_framerate (GstDualParalLive * live, gint fps_n,
    gint fps_d);
/** Another engine was opened: prebuffers again. */
void gst_dualparal_live_restart (GstDualParalLive * live);
/** Running time is 0 again, at the next picture. */
void gst_dualparal_live_reset_time (GstDualParalLive * live);

/** Before the next picture is asked for: TRUE when the latest was a fresh frame that was not sent,
 *  and will be the next. */
gboolean gst_dualparal_live_take_back (GstDualParalLive * live);
/** Waits for the time of the next picture. */
GstFlowReturn gst_dualparal_live_next (GstDualParalLive * live,
    GstDualParalRelease * release);

/** Before the change to PAUSED (`on_the_way`), after it, and after that to PLAYING. Any thread. */
void gst_dualparal_live_set_paused (GstDualParalLive * live, gboolean paused,
    gboolean on_the_way);
/** Ends the waits for the clock and in PAUSED, and those to come. Any thread. */
void gst_dualparal_live_set_flushing (GstDualParalLive * live,
    gboolean flushing);
/** Whether the caller is on its way to PAUSED, which is no reason to flush. Any thread. */
gboolean gst_dualparal_live_is_pausing (GstDualParalLive * live);

/** The pipeline's latency, from its event. Any thread. */
void gst_dualparal_live_set_latency (GstDualParalLive * live,
    GstClockTime latency);
/** The source's. FALSE if it was never started. Any thread. */
gboolean gst_dualparal_live_get_latency (GstDualParalLive * live,
    GstClockTime * min, GstClockTime * max);
/** Adds what happened since start(). Any thread. */
void gst_dualparal_live_add_stats (GstDualParalLive * live,
    GstStructure * stats);

G_END_DECLS
