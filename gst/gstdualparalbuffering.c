/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalbuffering.h"

#include "gstdualparalmessages.h"

#define GST_CAT_DEFAULT gst_dualparal_src_debug

/* A sink that keeps time asks for a frame when it has shown the one before; elements on the way may
 * keep a few */
#define AHEAD_FRAMES 4
/* Applications need this long to pause; but never ask when half of a frame's time is left to make
 * it */
#define PAUSE_TIME (40 * GST_MSECOND)
/* Latent frames after the first that are decoded before the first is shown */
#define START_LATENTS 2

struct _GstDualParalBuffering
{
  GstElement *element;
  GstDualParalPoster *poster;
  GstDualParalGenerator *gen;

  gint playing;                 /* atomic */
  gint active;                  /* atomic */
  gint keeps_time;              /* atomic: a QoS event was seen */
  gint episodes;                /* atomic: how often it began */

  /* -- owned by the streaming thread */
  gboolean ran_ahead;
  gint percent;
};

GstDualParalBuffering *
gst_dualparal_buffering_new (GstElement * element,
    GstDualParalPoster * poster, GstDualParalGenerator * gen)
{
  GstDualParalBuffering *buffering = g_new0 (GstDualParalBuffering, 1);

  buffering->element = element;
  buffering->poster = poster;
  buffering->gen = gen;
  return buffering;
}

void
gst_dualparal_buffering_free (GstDualParalBuffering * buffering)
{
  g_free (buffering);
}

void
gst_dualparal_buffering_start (GstDualParalBuffering * buffering)
{
  gst_dualparal_buffering_stop (buffering);
  g_atomic_int_set (&buffering->episodes, 0);
}

void
gst_dualparal_buffering_stop (GstDualParalBuffering * buffering)
{
  g_atomic_int_set (&buffering->active, FALSE);
  g_atomic_int_set (&buffering->keeps_time, FALSE);
  buffering->ran_ahead = FALSE;
}

void
gst_dualparal_buffering_set_playing (GstDualParalBuffering * buffering,
    gboolean playing)
{
  g_atomic_int_set (&buffering->playing, playing);
  gst_dualparal_generator_wake (buffering->gen);
}

void
gst_dualparal_buffering_saw_qos (GstDualParalBuffering * buffering)
{
  if (!g_atomic_int_compare_and_exchange (&buffering->keeps_time, FALSE, TRUE))
    return;
  GST_DEBUG_OBJECT (buffering->element, "QoS: a sink keeps time");
  gst_dualparal_generator_wake (buffering->gen);
}

void
gst_dualparal_buffering_add_stats (GstDualParalBuffering * buffering,
    GstStructure * stats)
{
  gst_structure_set (stats, "buffering-episodes", G_TYPE_UINT64,
      (guint64) g_atomic_int_get (&buffering->episodes), NULL);
}

static void
gst_dualparal_buffering_post (GstDualParalBuffering * buffering, gint percent)
{
  GST_DEBUG_OBJECT (buffering->element, "buffering %d%%", percent);
  gst_dualparal_poster_post (buffering->poster,
      gst_message_new_buffering (GST_OBJECT (buffering->element), percent));
}

void
gst_dualparal_buffering_finish (GstDualParalBuffering * buffering)
{
  if (g_atomic_int_compare_and_exchange (&buffering->active, TRUE, FALSE))
    gst_dualparal_buffering_post (buffering, 100);
}

void
gst_dualparal_buffering_rewind (GstDualParalBuffering * buffering)
{
  gst_dualparal_buffering_finish (buffering);
  buffering->ran_ahead = FALSE;
}

/* Time left before it is too late to pause for a frame; G_MAXINT64 if there is no need to */
static GstClockTimeDiff
gst_dualparal_buffering_slack (GstDualParalBuffering * buffering,
    GstClockTime due, GstClockTime duration)
{
  GstClockTimeDiff slack;
  GstClockTime now;

  /* While paused the clock says nothing about what is being shown */
  if (g_atomic_int_get (&buffering->active)
      || !g_atomic_int_get (&buffering->playing))
    return G_MAXINT64;

  now = gst_element_get_current_running_time (buffering->element);
  if (!GST_CLOCK_TIME_IS_VALID (now) || !GST_CLOCK_TIME_IS_VALID (due))
    return G_MAXINT64;

  slack = GST_CLOCK_DIFF (now, due);
  if (!buffering->ran_ahead
      && slack / AHEAD_FRAMES > (GstClockTimeDiff) duration) {
    GST_DEBUG_OBJECT (buffering->element, "frames are taken %" GST_STIME_FORMAT
        " ahead: no pause unless a sink sends QoS", GST_STIME_ARGS (slack));
    buffering->ran_ahead = TRUE;
  }
  if (buffering->ran_ahead && !g_atomic_int_get (&buffering->keeps_time))
    return G_MAXINT64;
  return slack - (GstClockTimeDiff) MIN (PAUSE_TIME, duration / 2);
}

/* How many frames are enough to play on: a block, because the generation makes blocks. To start, a
 * few: so the picture is there soon and does not stop at the second frame; and a sink that takes
 * them all at once is seen to be a recorder. */
static guint
gst_dualparal_buffering_wanted (GstDualParalBuffering * buffering, guint64 n,
    guint64 left)
{
  const DpPlan *plan = gst_dualparal_generator_plan (buffering->gen);
  guint frames, most;

  gst_dualparal_generator_get_queue (buffering->gen, &frames, &most);
  if (n == 0)
    frames = MIN (1 + START_LATENTS * dp_plan_model (plan)->temporal_scale,
        (gint) most);
  return CLAMP (frames, 1, MAX (left, 1));
}

/* Holds the frame in hand back until enough others are ready */
static GstFlowReturn
gst_dualparal_buffering_refill (GstDualParalBuffering * buffering, guint64 n,
    guint64 left)
{
  const guint want = gst_dualparal_buffering_wanted (buffering, n, left);
  gboolean ended;
  guint have;
  gint percent;

  while (n == 0 || g_atomic_int_get (&buffering->active)) {
    have = 1 + gst_dualparal_generator_level (buffering->gen, &ended);
    if (ended || have >= want) {
      gst_dualparal_buffering_finish (buffering);
      break;
    }
    percent = gst_util_uint64_scale_int (have, 100, want);
    if (n > 0 && percent != buffering->percent) {
      buffering->percent = percent;
      gst_dualparal_buffering_post (buffering, percent);
    }
    if (!gst_dualparal_generator_wait (buffering->gen, have, -1))
      return GST_FLOW_FLUSHING;
  }
  return GST_FLOW_OK;
}

GstFlowReturn
gst_dualparal_buffering_next (GstDualParalBuffering * buffering, guint64 n,
    guint64 left, GstClockTime due, GstClockTime duration)
{
  GstDualParalGenerator *gen = buffering->gen;
  GstFlowReturn flow = GST_FLOW_OK;
  GstClockTimeDiff slack;
  gboolean got;

  /* A frame that was taken stays, whatever interrupts us, so that none is lost */
  while (!gst_dualparal_generator_frame (gen)) {
    flow = gst_dualparal_generator_pull (gen, &got);
    if (flow == GST_FLOW_EOS)
      gst_dualparal_buffering_finish (buffering);
    if (flow != GST_FLOW_OK)
      return flow;
    if (got)
      break;

    /* Before the first frame the pipeline prerolls, which waits by itself */
    slack = n == 0 ? G_MAXINT64 : gst_dualparal_buffering_slack (buffering, due,
        duration);
    if (slack <= 0) {
      GST_DEBUG_OBJECT (buffering->element, "frame %" G_GUINT64_FORMAT ", due at "
          "%" GST_TIME_FORMAT ", is not ready", n, GST_TIME_ARGS (due));
      gst_dualparal_generator_mark (gen, "buffering");
      buffering->percent = 0;
      g_atomic_int_inc (&buffering->episodes);
      g_atomic_int_set (&buffering->active, TRUE);
      gst_dualparal_buffering_post (buffering, 0);
      continue;
    }
    if (!gst_dualparal_generator_wait (gen, 1, slack == G_MAXINT64 ? -1 :
            GST_TIME_AS_USECONDS (slack)))
      return GST_FLOW_FLUSHING;
  }
  return gst_dualparal_buffering_refill (buffering, n, left);
}
