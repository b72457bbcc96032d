/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalgenerator.h"

#include "gstdualparalframe.h"

void
gst_dualparal_generator_init (GstDualParalGenerator * gen,
    GstElement * element, GstDualParalSettings * settings)
{
  gen->element = element;
  gen->settings = settings;
  g_mutex_init (&gen->lock);
  g_cond_init (&gen->cond);
  gst_dualparal_progress_init (&gen->progress);
}

void
gst_dualparal_generator_clear (GstDualParalGenerator * gen)
{
  g_mutex_clear (&gen->lock);
  g_cond_clear (&gen->cond);
  gst_dualparal_progress_clear (&gen->progress);
}

static void
post_error (GstDualParalGenerator * gen, GError * error)
{
  gst_dualparal_post_error (gen->element, error);
  g_error_free (error);
}

gboolean
gst_dualparal_generator_start (GstDualParalGenerator * gen)
{
  DpSettings resolved;
  GError *error = NULL;

  gen->storage = g_string_chunk_new (1024);
  gen->resolved_storage = g_string_chunk_new (1024);
  gen->reopen = FALSE;
  GST_OBJECT_LOCK (gen->element);
  gst_dualparal_settings_for_engine (gen->settings, &gen->base_settings,
      gen->storage);
  GST_OBJECT_UNLOCK (gen->element);

  /* What is wrong with model and settings is known now, before any weight is
   * read and whatever the size will be */
  resolved = gen->base_settings;
  if (dp_settings_resolve (&resolved, &gen->model, gen->storage, &error)) {
    gen->resolved = resolved;
    return TRUE;
  }
  post_error (gen, error);
  gst_dualparal_generator_stop (gen);
  return FALSE;
}

void
gst_dualparal_generator_stop (GstDualParalGenerator * gen)
{
  gst_dualparal_generator_close (gen);
  g_clear_pointer (&gen->storage, g_string_chunk_free);
  g_clear_pointer (&gen->resolved_storage, g_string_chunk_free);
}

/* From the engine's threads, which hold no lock */
static void
report_progress (const char *code, const char *text, int percent,
    gpointer user_data)
{
  GstDualParalGenerator *gen = user_data;

  gst_dualparal_progress_report (&gen->progress, gen->element, code, text,
      percent, g_atomic_int_get (&gen->closing));
}

void
gst_dualparal_generator_close (GstDualParalGenerator * gen)
{
  DpEngine *engine;

  gst_dualparal_generator_release (gen);

  g_mutex_lock (&gen->lock);
  engine = g_steal_pointer (&gen->engine);
  g_mutex_unlock (&gen->lock);

  g_atomic_int_set (&gen->closing, TRUE);
  dp_engine_free (engine);
  g_atomic_int_set (&gen->closing, FALSE);
  /* Whoever shows progress waits for its end */
  gst_dualparal_progress_reset (&gen->progress, gen->element, "load-model");
}

static void
copy_prompts (GstDualParalGenerator * gen, gchar ** prompt,
    gchar ** negative_prompt)
{
  GST_OBJECT_LOCK (gen->element);
  *prompt = g_strdup (gen->settings->prompt);
  *negative_prompt = g_strdup (gen->settings->negative_prompt);
  GST_OBJECT_UNLOCK (gen->element);
}

static gboolean
open_engine (GstDualParalGenerator * gen, DpSettings settings, GError ** error)
{
  DpEngine *engine = NULL;
  gchar *prompt, *negative_prompt;
  gboolean opened;

  g_mutex_lock (&gen->lock);
  copy_prompts (gen, &prompt, &negative_prompt);
  gen->prompt_missed = FALSE;
  g_mutex_unlock (&gen->lock);

  settings.prompt = prompt;
  settings.negative_prompt = negative_prompt;
  g_string_chunk_clear (gen->resolved_storage);
  gen->resolved = settings;
  opened = dp_settings_resolve (&gen->resolved, NULL, gen->resolved_storage,
      error) && dp_engine_open (&engine, &settings, report_progress, gen,
      error);
  g_free (prompt);
  g_free (negative_prompt);
  if (!opened)
    return FALSE;

  g_mutex_lock (&gen->lock);
  gen->engine = engine;
  dp_engine_set_flushing (engine, gen->flushing);
  if (gen->prompt_missed) {
    copy_prompts (gen, &prompt, &negative_prompt);
    opened = gst_dualparal_settings_queue_prompt (settings.model, prompt,
        negative_prompt, engine, error);
    g_free (prompt);
    g_free (negative_prompt);
  }
  g_mutex_unlock (&gen->lock);
  return opened;
}

gboolean
gst_dualparal_generator_open (GstDualParalGenerator * gen,
    const GstVideoInfo * info, guint64 n_frames)
{
  DpSettings settings = gen->base_settings;
  GError *error = NULL;

  if (gen->reopen)
    gst_dualparal_generator_close (gen);
  gen->reopen = FALSE;
  if (gen->engine)
    return TRUE;

  settings.width = GST_VIDEO_INFO_WIDTH (info);
  settings.height = GST_VIDEO_INFO_HEIGHT (info);
  gst_dualparal_frame_format (GST_VIDEO_INFO_FORMAT (info), &settings.format);
  /* Frames that went out before a change of size count too */
  if (settings.num_frames > 0)
    settings.num_frames -= n_frames;
  if (open_engine (gen, settings, &error))
    return TRUE;
  post_error (gen, error);
  return FALSE;
}

GstDualParalPull
gst_dualparal_generator_pull (GstDualParalGenerator * gen, gint64 timeout_us)
{
  GError *error = NULL;
  DpFrame frame;
  const gint got = dp_engine_pull (gen->engine, &frame, timeout_us, &error);

  if (got > 0) {
    gst_dualparal_generator_release (gen);
    gen->frame = frame;
    gen->has_frame = TRUE;
    return GST_DUALPARAL_FRAME;
  }
  if (got == 0)
    return GST_DUALPARAL_END;
  if (!error)
    return GST_DUALPARAL_NO_FRAME;
  if (g_error_matches (error, DP_ERROR, DP_ERROR_FLUSHING)) {
    g_error_free (error);
    return GST_DUALPARAL_FLUSHING;
  }
  post_error (gen, error);
  return GST_DUALPARAL_ERROR;
}

void
gst_dualparal_generator_release (GstDualParalGenerator * gen)
{
  if (gen->has_frame)
    dp_engine_release_frame (gen->engine, &gen->frame);
  gen->has_frame = FALSE;
}

guint
gst_dualparal_generator_level (GstDualParalGenerator * gen, gboolean * ended)
{
  DpStats stats;

  dp_engine_get_stats (gen->engine, &stats);
  *ended = stats.ended;
  return stats.queue_frames;
}

gboolean
gst_dualparal_generator_wait (GstDualParalGenerator * gen, gint64 timeout_us)
{
  gboolean flushing;

  g_mutex_lock (&gen->lock);
  if (!gen->flushing)
    g_cond_wait_until (&gen->cond, &gen->lock,
        g_get_monotonic_time () + timeout_us);
  flushing = gen->flushing;
  g_mutex_unlock (&gen->lock);
  return !flushing;
}

void
gst_dualparal_generator_set_flushing (GstDualParalGenerator * gen,
    gboolean flushing)
{
  g_mutex_lock (&gen->lock);
  gen->flushing = flushing;
  if (gen->engine)
    dp_engine_set_flushing (gen->engine, flushing);
  g_cond_broadcast (&gen->cond);
  g_mutex_unlock (&gen->lock);
}

void
gst_dualparal_generator_set_prompt (GstDualParalGenerator * gen, guint prop_id,
    const GValue * value)
{
  const gchar *text = g_value_get_string (value);
  gchar *texts[2], **own;
  gboolean changed, accepted = TRUE;
  GError *error = NULL;

  g_mutex_lock (&gen->lock);
  copy_prompts (gen, &texts[0], &texts[1]);
  own = &texts[prop_id == GST_DUALPARAL_PROP_PROMPT ? 0 : 1];
  changed = g_strcmp0 (text, *own) != 0;
  g_free (*own);
  *own = g_strdup (text);

  if (changed && gen->engine)
    accepted = gst_dualparal_settings_queue_prompt (gen->base_settings.model,
        texts[0], texts[1], gen->engine, &error);
  if (changed && accepted) {
    GST_OBJECT_LOCK (gen->element);
    gst_dualparal_settings_set (gen->settings, prop_id, value);
    GST_OBJECT_UNLOCK (gen->element);
    gen->prompt_missed = gen->engine == NULL;
  }
  g_mutex_unlock (&gen->lock);

  g_free (texts[0]);
  g_free (texts[1]);
  if (error) {
    GST_ELEMENT_WARNING (gen->element, RESOURCE, SETTINGS, ("%s",
            error->message), ("the prompt stays as it was"));
    g_error_free (error);
  }
}

GstStructure *
gst_dualparal_generator_get_stats (GstDualParalGenerator * gen)
{
  DpStats stats = { 0, };

  g_mutex_lock (&gen->lock);
  if (gen->engine)
    dp_engine_get_stats (gen->engine, &stats);
  g_mutex_unlock (&gen->lock);
  return gst_dualparal_stats_new (&stats);
}
