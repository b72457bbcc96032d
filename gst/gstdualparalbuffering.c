/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalbuffering.h"

/* A sink that keeps time asks for a frame when it has shown the one before;
 * elements on the way may keep a few */
#define AHEAD_FRAMES 4
/* Applications need this long to pause; but never ask when half of a frame's
 * time is left to make it */
#define PAUSE_TIME (40 * GST_MSECOND)

void
gst_dualparal_buffering_reset (GstDualParalBuffering * buffering)
{
  g_atomic_int_set (&buffering->active, FALSE);
  g_atomic_int_set (&buffering->keeps_time, FALSE);
  buffering->ran_ahead = FALSE;
}

void
gst_dualparal_buffering_start (GstDualParalBuffering * buffering)
{
  gst_dualparal_buffering_reset (buffering);
  g_atomic_int_set (&buffering->episodes, 0);
}

void
gst_dualparal_buffering_add_stats (GstDualParalBuffering * buffering,
    GstStructure * stats)
{
  gst_structure_set (stats, "buffering-episodes", G_TYPE_UINT64,
      (guint64) g_atomic_int_get (&buffering->episodes), NULL);
}

void
gst_dualparal_buffering_saw_qos (GstDualParalBuffering * buffering)
{
  g_atomic_int_set (&buffering->keeps_time, TRUE);
}

gboolean
gst_dualparal_buffering_active (GstDualParalBuffering * buffering)
{
  return g_atomic_int_get (&buffering->active);
}

GstClockTimeDiff
gst_dualparal_buffering_slack (GstDualParalBuffering * buffering,
    GstElement * element, GstClockTime due, GstClockTime duration)
{
  GstClockTimeDiff slack;
  GstClockTime now;

  /* While paused the clock says nothing about what is being shown */
  if (gst_dualparal_buffering_active (buffering)
      || GST_STATE (element) != GST_STATE_PLAYING
      || GST_STATE_PENDING (element) != GST_STATE_VOID_PENDING)
    return G_MAXINT64;

  now = gst_element_get_current_running_time (element);
  if (!GST_CLOCK_TIME_IS_VALID (now) || !GST_CLOCK_TIME_IS_VALID (due))
    return G_MAXINT64;

  slack = GST_CLOCK_DIFF (now, due);
  if (slack / AHEAD_FRAMES > (GstClockTimeDiff) duration)
    buffering->ran_ahead = TRUE;
  if (buffering->ran_ahead && !g_atomic_int_get (&buffering->keeps_time))
    return G_MAXINT64;
  return slack - (GstClockTimeDiff) MIN (PAUSE_TIME, duration / 2);
}

static void
post (GstElement * element, gint percent)
{
  GST_DEBUG_OBJECT (element, "buffering %d%%", percent);
  gst_element_post_message (element,
      gst_message_new_buffering (GST_OBJECT (element), percent));
}

void
gst_dualparal_buffering_begin (GstDualParalBuffering * buffering,
    GstElement * element)
{
  buffering->percent = 0;
  g_atomic_int_inc (&buffering->episodes);
  g_atomic_int_set (&buffering->active, TRUE);
  post (element, 0);
}

void
gst_dualparal_buffering_update (GstDualParalBuffering * buffering,
    GstElement * element, guint have, guint want)
{
  gint percent;

  if (have >= want) {
    gst_dualparal_buffering_finish (buffering, element);
    return;
  }
  percent = gst_util_uint64_scale_int (have, 100, want);
  if (percent == buffering->percent)
    return;
  buffering->percent = percent;
  post (element, percent);
}

void
gst_dualparal_buffering_finish (GstDualParalBuffering * buffering,
    GstElement * element)
{
  if (g_atomic_int_compare_and_exchange (&buffering->active, TRUE, FALSE))
    post (element, 100);
}
