/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparallive.h: the pace of a live video. Blocks of frames come in bursts;
 * one picture leaves at a time, at its time of the pipeline's clock, which is its
 * timestamp. Frames wait in the generation's queue until then, so that whatever
 * interrupts the wait loses none.
 *
 * The first frame is due when `prebuffer` of them are there, each other one
 * frame time after the one before. What happens at a time for which there is
 * none, the policies say. Who asks for the next one so late that a sink would
 * drop it, or after the clock was set back, gets it with the time of now.
 *
 * PAUSED stops the clock and not the generation. GStreamer 1.22 lets a buffer
 * that is ready just then wait; 1.24 and later throw it away and ask for another,
 * which is told by the position of the base class, and then it is the same again.
 */
#pragma once

#include <gst/base/gstbasesrc.h>
#include "gstdualparalgenerator.h"

G_BEGIN_DECLS

typedef enum
{
  GST_DUALPARAL_FRESH,          /* the frame in hand */
  GST_DUALPARAL_REPEATED,       /* the same once more */
  GST_DUALPARAL_PLACEHOLDER,
} GstDualParalPicture;

/** What leaves next. */
typedef struct
{
  GstDualParalPicture picture;
  GstClockTime pts, duration;
  gboolean discont;
} GstDualParalRelease;

/** Thread-safety: by member. */
typedef struct
{
  GstBaseSrc *src;
  GstDualParalGenerator *gen;

  /* -- protected by the generator's lock */
  GstClockID clock_id;
  gboolean paused;
  GThread *pausing;             /* is on its way to PAUSED */
  guint64 repeated, placeholders, underruns;
  guint64 in_time, missed;      /* times at which there was a frame, or none */
  GstClockTime stall_time;

  /* -- protected by the object lock; start() and the streaming thread write */
  GstClockTime frame_time;      /* that of the caps */
  guint capacity;               /* of the queue */

  /* -- protected by the object lock */
  GstClockTime latency;         /* of the pipeline: sinks show that much later */

  /* -- set by start() */
  guint prebuffer;

  /* -- owned by the streaming thread; times are running times */
  GstClockTime due;             /* of the next picture; none: when it is there */
  GstClockTime period;          /* frame_time, or longer by the policy slow */
  gboolean primed;              /* the frames to begin with were there */
  gboolean fresh;               /* the frame in hand was not shown */
  gboolean late;                /* what is due is shown when it is there */
  gboolean discont;
  gboolean rewound;             /* due is 0, whatever the clock says */
  GstClockTime reported;        /* the latest that was missed and told */
  gboolean missing;             /* since the last fresh one */
  gboolean is_missed;           /* what is due is counted as missed */
  gboolean out_missed;          /* the same of the latest that left */
  gint in_a_row;                /* repeats */
  guint64 taken;                /* frames, in all */
  guint64 mark_made;            /* taken or waiting at mark_time */
  GstClockTime mark_time;
  GstDualParalRelease out;      /* the latest, due at out_due */
  GstClockTime out_due;
  gboolean is_out;
} GstDualParalLive;

void gst_dualparal_live_init (GstDualParalLive * live, GstBaseSrc * src,
    GstDualParalGenerator * gen);

/** After the generator's start. FALSE with a posted error. Begins in PAUSED. */
gboolean gst_dualparal_live_start (GstDualParalLive * live);
/** The framerate of the caps; TRUE when the latency is another one now. */
gboolean gst_dualparal_live_set_framerate (GstDualParalLive * live, gint fps_n,
    gint fps_d);
/** The pipeline's, from its event. Any thread. */
void gst_dualparal_live_set_latency (GstDualParalLive * live,
    GstClockTime latency);
/** Another engine was opened: begins as at first. Streaming thread. */
void gst_dualparal_live_restart (GstDualParalLive * live);
/** Running time is 0 again, at the next picture. Streaming thread. */
void gst_dualparal_live_reset_time (GstDualParalLive * live);

/** Before the next picture is asked for: TRUE when the latest was a fresh frame
 *  that was not sent, and will be the next. Streaming thread. */
gboolean gst_dualparal_live_take_back (GstDualParalLive * live);
/** Waits for the time of the next picture. Streaming thread. */
GstFlowReturn gst_dualparal_live_next (GstDualParalLive * live,
    GstDualParalRelease * release);

/** Around the change to PAUSED, after that to PLAYING. */
void gst_dualparal_live_pause (GstDualParalLive * live);
void gst_dualparal_live_paused (GstDualParalLive * live);
void gst_dualparal_live_play (GstDualParalLive * live);
/** Whether the caller is on its way to PAUSED, which is no reason to flush. */
gboolean gst_dualparal_live_is_pausing (GstDualParalLive * live);
/** Breaks the wait for the clock; after the generator was set to flushing. Any
 *  thread. */
void gst_dualparal_live_unschedule (GstDualParalLive * live);

/** FALSE when it was never started. Any thread, as the next. */
gboolean gst_dualparal_live_get_latency (GstDualParalLive * live,
    GstClockTime * min, GstClockTime * max);
void gst_dualparal_live_add_stats (GstDualParalLive * live,
    GstStructure * stats);

G_END_DECLS
