/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalstats.h"

#include <stdio.h>
#include <unistd.h>
#include "gstdualparalmessages.h"

#define GST_CAT_DEFAULT gst_dualparal_src_debug

struct _GstDualParalStats
{
  GstElement *element;
  GstDualParalPoster *poster;
  GThread *thread;              /* between start() and stop(), if any */

  /* -- protected by lock, which is not held while the property is read */
  GMutex lock;
  GCond cond;
  gboolean stopping;
  gint64 interval_us;
  gint64 start_us, first_us;    /* of the first frame that left, 0 until then */
  gdouble model_framerate, framerate;
  gchar *model, *devices, *precision, *plan;    /* of the last plan */
  guint64 seed;
};

GstDualParalStats *
gst_dualparal_stats_new (GstElement * element, GstDualParalPoster * poster)
{
  GstDualParalStats *stats = g_new0 (GstDualParalStats, 1);

  stats->element = element;
  stats->poster = poster;
  stats->model_framerate = stats->framerate = 1;
  g_mutex_init (&stats->lock);
  g_cond_init (&stats->cond);
  return stats;
}

void
gst_dualparal_stats_free (GstDualParalStats * stats)
{
  g_mutex_clear (&stats->lock);
  g_cond_clear (&stats->cond);
  g_free (stats->model);
  g_free (stats->devices);
  g_free (stats->precision);
  g_free (stats->plan);
  g_free (stats);
}

/* If a handler is slow, messages are left out and do not pile up */
static void
gst_dualparal_stats_post (GstDualParalStats * stats)
{
  GstStructure *s;

  if (!gst_dualparal_poster_is_idle (stats->poster))
    return;
  g_object_get (stats->element, "stats", &s, NULL);
  gst_dualparal_poster_post (stats->poster,
      gst_message_new_element (GST_OBJECT (stats->element), s));
}

static gpointer
gst_dualparal_stats_post_regularly (gpointer data)
{
  GstDualParalStats *stats = data;
  gint64 due = stats->start_us + stats->interval_us;

  g_mutex_lock (&stats->lock);
  while (!stats->stopping) {
    if (g_cond_wait_until (&stats->cond, &stats->lock, due))
      continue;
    g_mutex_unlock (&stats->lock);
    gst_dualparal_stats_post (stats);
    g_mutex_lock (&stats->lock);
    /* Missed ones are not made up for */
    due = MAX (due, g_get_monotonic_time () - stats->interval_us) +
        stats->interval_us;
  }
  g_mutex_unlock (&stats->lock);
  return NULL;
}

void
gst_dualparal_stats_start (GstDualParalStats * stats, guint interval,
    const DpPlan * plan)
{
  const DpModelInfo *model = dp_plan_model (plan);
  GError *error = NULL;

  gst_dualparal_stats_set_plan (stats, plan);
  g_mutex_lock (&stats->lock);
  stats->stopping = FALSE;
  stats->interval_us = interval * G_TIME_SPAN_MILLISECOND;
  stats->start_us = g_get_monotonic_time ();
  stats->first_us = 0;
  stats->seed = dp_plan_settings (plan)->seed;
  stats->model_framerate = stats->framerate =
      (gdouble) model->fps_n / model->fps_d;
  g_mutex_unlock (&stats->lock);
  if (interval == 0)
    return;
  stats->thread = g_thread_try_new ("dp-stats",
      gst_dualparal_stats_post_regularly, stats, &error);
  if (!stats->thread) {
    GST_ELEMENT_WARNING (stats->element, RESOURCE, NO_SPACE_LEFT,
        ("stats-interval has no effect: no thread can be started."), ("%s",
            error->message));
    g_error_free (error);
  }
}

void
gst_dualparal_stats_stop (GstDualParalStats * stats)
{
  g_mutex_lock (&stats->lock);
  stats->stopping = TRUE;
  g_cond_signal (&stats->cond);
  g_mutex_unlock (&stats->lock);
  g_clear_pointer (&stats->thread, g_thread_join);
}

void
gst_dualparal_stats_set_plan (GstDualParalStats * stats, const DpPlan * plan)
{
  const DpSettings *settings = dp_plan_settings (plan);
  gchar *text = dp_plan_describe (plan);

  g_mutex_lock (&stats->lock);
  g_free (stats->model);
  g_free (stats->devices);
  g_free (stats->precision);
  g_free (stats->plan);
  stats->model = g_strdup (dp_plan_model (plan)->name);
  stats->devices = g_strdup (settings->devices);
  stats->precision = g_strdup (settings->precision);
  stats->plan = text;
  g_mutex_unlock (&stats->lock);
}

void
gst_dualparal_stats_set_framerate (GstDualParalStats * stats, gint fps_n,
    gint fps_d)
{
  const gdouble framerate = (gdouble) fps_n / fps_d;
  gdouble model;
  gboolean changed;

  g_mutex_lock (&stats->lock);
  model = stats->model_framerate;
  changed = framerate != stats->framerate;
  stats->framerate = framerate;
  g_mutex_unlock (&stats->lock);
  if (changed && framerate != model)
    GST_INFO_OBJECT (stats->element, "the caps have %g frames a second and the "
        "model %g: everything in the video moves %.2f times as fast, and real "
        "time takes %.2f times the work", framerate, model, framerate / model,
        framerate / model);
}

void
gst_dualparal_stats_frame_leaves (GstDualParalStats * stats)
{
  g_mutex_lock (&stats->lock);
  if (stats->first_us == 0)
    stats->first_us = g_get_monotonic_time ();
  g_mutex_unlock (&stats->lock);
}

/* 0 if unknown */
static guint64
gst_dualparal_stats_resident_bytes (void)
{
  unsigned long long pages = 0;
  FILE *file = fopen ("/proc/self/statm", "re");

  if (file && fscanf (file, "%*u %llu", &pages) != 1)
    pages = 0;
  if (file)
    fclose (file);
  return pages * sysconf (_SC_PAGESIZE);
}

/* Under the lock */
static void
gst_dualparal_stats_add_plan (GstDualParalStats * stats, GstStructure * s)
{
  gst_structure_set (s, "model", G_TYPE_STRING, stats->model,
      "devices", G_TYPE_STRING, stats->devices,
      "precision", G_TYPE_STRING, stats->precision,
      "plan", G_TYPE_STRING, stats->plan, NULL);
}

static void
gst_dualparal_stats_set_stages (GstStructure * s, const DpStats * engine)
{
  GValue busy = G_VALUE_INIT, bytes = G_VALUE_INIT;
  GValue share = G_VALUE_INIT, size = G_VALUE_INIT;
  gint i;

  g_value_init (&busy, GST_TYPE_ARRAY);
  g_value_init (&bytes, GST_TYPE_ARRAY);
  g_value_init (&share, G_TYPE_DOUBLE);
  g_value_init (&size, G_TYPE_UINT64);
  for (i = 0; i < engine->stages; i++) {
    g_value_set_double (&share, engine->stage_busy[i]);
    gst_value_array_append_value (&busy, &share);
    g_value_set_uint64 (&size, engine->stage_bytes[i]);
    gst_value_array_append_value (&bytes, &size);
  }
  gst_structure_take_value (s, "stage-busy", &busy);
  gst_structure_take_value (s, "stage-bytes", &bytes);
}

static GstClockTime
gst_dualparal_stats_time_of (gdouble seconds)
{
  return (GstClockTime) (seconds * GST_SECOND);
}

GstStructure *
gst_dualparal_stats_get (GstDualParalStats * stats, const DpStats * engine)
{
  GstStructure *s = gst_structure_new_empty ("application/x-dualparal-stats");
  GstClockTime first = 0;
  guint64 seed;
  gdouble faster;

  g_mutex_lock (&stats->lock);
  gst_dualparal_stats_add_plan (stats, s);
  if (stats->first_us > 0)
    first = (stats->first_us - stats->start_us) * GST_USECOND;
  seed = stats->seed;
  /* Frames are played at the rate of the caps, and the engine knows the model's */
  faster = stats->framerate / stats->model_framerate;
  g_mutex_unlock (&stats->lock);

  gst_structure_set (s, "blocks", G_TYPE_UINT64, engine->blocks,
      "passes", G_TYPE_UINT64, engine->passes,
      "frames", G_TYPE_UINT64, engine->frames,
      "queue-frames", G_TYPE_UINT, engine->queue_frames,
      "first-frame-seconds", G_TYPE_DOUBLE, engine->first_frame_seconds,
      "seed", G_TYPE_UINT64, seed,
      "time-to-first-frame", GST_TYPE_CLOCK_TIME, first,
      "realtime-factor", G_TYPE_DOUBLE, engine->realtime_factor / faster,
      "block-load-mean", G_TYPE_DOUBLE, engine->block_load_mean * faster,
      "block-load-p95", G_TYPE_DOUBLE, engine->block_load_p95 * faster,
      "block-interval-p50", GST_TYPE_CLOCK_TIME,
      gst_dualparal_stats_time_of (engine->block_interval_p50),
      "block-interval-p95", GST_TYPE_CLOCK_TIME,
      gst_dualparal_stats_time_of (engine->block_interval_p95),
      "decode-busy", G_TYPE_DOUBLE, engine->decode_busy,
      "device-bytes", G_TYPE_UINT64, (guint64) engine->device_bytes,
      "decoder-bytes", G_TYPE_UINT64, (guint64) engine->decoder_bytes,
      "text-encoder-bytes", G_TYPE_UINT64, (guint64) engine->text_bytes,
      "resident-bytes", G_TYPE_UINT64, gst_dualparal_stats_resident_bytes (),
      NULL);
  gst_dualparal_stats_set_stages (s, engine);
  return s;
}
