/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalgenerator.h"

#include "gstdualparalframe.h"

#include <string.h>

void
gst_dualparal_generator_init (GstDualParalGenerator * gen,
    GstElement * element, GstDualParalSettings * settings)
{
  gen->element = element;
  gen->settings = settings;
  g_mutex_init (&gen->lock);
  g_cond_init (&gen->cond);
  gst_dualparal_progress_init (&gen->progress);
  gst_dualparal_prompts_init (&gen->prompts);
}

void
gst_dualparal_generator_clear (GstDualParalGenerator * gen)
{
  g_mutex_clear (&gen->lock);
  g_cond_clear (&gen->cond);
  gst_dualparal_progress_clear (&gen->progress);
  gst_dualparal_prompts_clear (&gen->prompts);
}

static void
post_error (GstDualParalGenerator * gen, GError * error)
{
  gst_dualparal_post_error (gen->element, error);
  g_error_free (error);
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

/* NULL, which is the model's own, is one */
static gboolean
check_prompts (const gchar * prompt, const gchar * negative_prompt,
    GError ** error)
{
  return (!prompt || dp_prompt_check (prompt, error))
      && (!negative_prompt || dp_prompt_check (negative_prompt, error));
}

/* Takes the reference */
static void
set_plan (GstDualParalGenerator * gen, DpPlan * plan)
{
  dp_plan_unref (gen->plan);
  gen->plan = plan;
  gen->resolved = *dp_plan_settings (plan);
}

/* Once a start. Whoever has a GPU expects it to be used, so that it was not is
 * a warning and not an error: the video is the same, only slower. */
static void
warn_passed_over (GstDualParalGenerator * gen)
{
  const gchar *reason = dp_plan_passed_over (gen->base_plan);

  if (reason)
    GST_ELEMENT_WARNING (gen->element, RESOURCE, NOT_FOUND, ("%s", reason),
        ("set devices to say which to use, and to be told no more"));
}

gboolean
gst_dualparal_generator_start (GstDualParalGenerator * gen)
{
  GError *error = NULL;
  gchar *storyboard, *texts[2];
  gboolean ok;

  gen->storage = g_string_chunk_new (1024);
  gen->reopen = FALSE;
  GST_OBJECT_LOCK (gen->element);
  gst_dualparal_settings_for_engine (gen->settings, &gen->base_settings,
      gen->storage);
  storyboard = g_strdup (gen->settings->storyboard);
  GST_OBJECT_UNLOCK (gen->element);
  copy_prompts (gen, &texts[0], &texts[1]);

  /* What is wrong with model and settings is known now, before any weight is
   * read and whatever the size will be */
  gen->base_plan = dp_plan_new (&gen->base_settings, &error);
  ok = gen->base_plan && check_prompts (texts[0], texts[1], &error);
  if (ok) {
    set_plan (gen, dp_plan_ref (gen->base_plan));
    gen->model = *dp_plan_model (gen->plan);
    gen->model_prompt = gen->resolved.prompt;
    gen->model_negative_prompt = gen->resolved.negative_prompt;
    warn_passed_over (gen);
    g_mutex_lock (&gen->lock);
    ok = gst_dualparal_prompts_start (&gen->prompts, storyboard, &error);
    g_mutex_unlock (&gen->lock);
  }
  g_free (storyboard);
  g_free (texts[0]);
  g_free (texts[1]);
  if (ok)
    return TRUE;
  post_error (gen, error);
  gst_dualparal_generator_stop (gen);
  return FALSE;
}

void
gst_dualparal_generator_stop (GstDualParalGenerator * gen)
{
  gst_dualparal_generator_close (gen);
  g_mutex_lock (&gen->lock);
  gst_dualparal_prompts_stop (&gen->prompts);
  g_mutex_unlock (&gen->lock);
  g_clear_pointer (&gen->storage, g_string_chunk_free);
  g_clear_pointer (&gen->plan, dp_plan_unref);
  g_clear_pointer (&gen->base_plan, dp_plan_unref);
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
  GError *error = NULL;

  gst_dualparal_generator_release (gen);

  g_mutex_lock (&gen->lock);
  engine = g_steal_pointer (&gen->engine);
  g_mutex_unlock (&gen->lock);

  if (engine && !dp_engine_end_trace (engine, &error)) {
    GST_ELEMENT_WARNING (gen->element, RESOURCE, WRITE, ("%s",
            error->message), ("the video is complete, the trace is not"));
    g_error_free (error);
  }
  g_atomic_int_set (&gen->closing, TRUE);
  dp_engine_free (engine);
  g_atomic_int_set (&gen->closing, FALSE);
  /* Whoever shows progress waits for its end */
  gst_dualparal_progress_reset (&gen->progress, gen->element, "load-model");
}

/* What is NULL is the model's own: the engine takes that only when it opens. Under
 * the lock. */
static gboolean
queue_now (GstDualParalGenerator * gen, gchar * const *texts,
    gint transition_blocks, GError ** error)
{
  gboolean low;

  GST_OBJECT_LOCK (gen->element);
  low = gen->settings->prompt_latency == GST_DUALPARAL_PROMPT_LATENCY_LOW;
  GST_OBJECT_UNLOCK (gen->element);
  if (!dp_engine_queue_prompt (gen->engine, &(DpPrompt) {
        .prompt = texts[0] ? texts[0] : gen->model_prompt,.negative_prompt =
          texts[1] ? texts[1] : gen->model_negative_prompt,.at_frame = -1,
          .transition_blocks = transition_blocks,.restart = low},
          error))
    return FALSE;
  gst_dualparal_prompts_queued (&gen->prompts, gen->engine);
  return TRUE;
}

static gboolean
open_engine (GstDualParalGenerator * gen, DpSettings settings,
    const GstVideoInfo * info, guint64 n_frames, GError ** error)
{
  DpEngine *engine = NULL;
  DpPlan *plan;
  gchar *texts[2];
  gboolean opened;

  g_mutex_lock (&gen->lock);
  copy_prompts (gen, &texts[0], &texts[1]);
  gst_dualparal_prompts_open (&gen->prompts, n_frames,
      GST_VIDEO_INFO_FPS_N (info), GST_VIDEO_INFO_FPS_D (info), &texts[0],
      &texts[1]);
  gen->prompt_missed = FALSE;
  g_mutex_unlock (&gen->lock);

  settings.prompt = texts[0];
  settings.negative_prompt = texts[1];
  plan = dp_plan_with (gen->base_plan, &settings, error);
  if (plan)
    set_plan (gen, plan);
  opened = plan && dp_engine_open (&engine, plan, report_progress, gen, error);
  g_free (texts[0]);
  g_free (texts[1]);
  if (!opened)
    return FALSE;

  g_mutex_lock (&gen->lock);
  gen->engine = engine;
  dp_engine_set_flushing (engine, gen->flushing);
  opened = gst_dualparal_prompts_attach (&gen->prompts, engine, error);
  if (opened && gen->prompt_missed) {
    copy_prompts (gen, &texts[0], &texts[1]);
    opened = queue_now (gen, texts, 0, error);
    g_free (texts[0]);
    g_free (texts[1]);
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
  settings.first_frame = n_frames;
  if (settings.num_frames > 0)
    settings.num_frames -= n_frames;
  if (open_engine (gen, settings, info, n_frames, &error))
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

/* Takes the error */
static void
warn (GstDualParalGenerator * gen, GError * error)
{
  GST_ELEMENT_WARNING (gen->element, RESOURCE, SETTINGS, ("%s",
          error->message), ("the prompt stays as it was"));
  g_error_free (error);
}

/* For the next block, and from now on the properties. Under the lock. */
static gboolean
apply_prompts (GstDualParalGenerator * gen, gchar * const *texts,
    gint transition_blocks, GError ** error)
{
  if (!gen->engine)
    gst_dualparal_prompts_queued (&gen->prompts, NULL);
  else if (!queue_now (gen, texts, transition_blocks, error))
    return FALSE;
  GST_OBJECT_LOCK (gen->element);
  gst_dualparal_settings_set_prompts (gen->settings, texts[0], texts[1]);
  GST_OBJECT_UNLOCK (gen->element);
  gen->prompt_missed = gen->engine == NULL;
  return TRUE;
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

  /* What a scheduled one says is not in the properties */
  changed |= gen->prompts.scheduled->len > 0;
  if (changed)
    accepted = apply_prompts (gen, texts, 0, &error);
  g_mutex_unlock (&gen->lock);

  g_free (texts[0]);
  g_free (texts[1]);
  if (!accepted)
    warn (gen, error);
}

gboolean
gst_dualparal_generator_queue_prompt (GstDualParalGenerator * gen,
    const GstDualParalPrompt * prompt)
{
  GError *error = NULL;
  gchar *texts[2];
  gboolean ok;

  ok = prompt->prompt && prompt->transition_blocks >= 0;
  if (!ok)
    g_set_error (&error, DP_ERROR, DP_ERROR_SETTINGS, "a prompt was queued with "
        "%s and a transition of %d blocks; expected a text and at least 0",
        prompt->prompt ? "a text" : "none", prompt->transition_blocks);
  ok = ok && check_prompts (prompt->prompt, prompt->negative_prompt, &error);
  if (!ok) {
    warn (gen, error);
    return FALSE;
  }
  g_mutex_lock (&gen->lock);
  if (prompt->at_frame >= 0) {
    ok = gst_dualparal_prompts_schedule (&gen->prompts, prompt, gen->engine,
        &error);
  } else {
    copy_prompts (gen, &texts[0], &texts[1]);
    g_free (texts[0]);
    texts[0] = g_strdup (prompt->prompt);
    if (prompt->negative_prompt) {
      g_free (texts[1]);
      texts[1] = g_strdup (prompt->negative_prompt);
    }
    ok = apply_prompts (gen, texts, prompt->transition_blocks, &error);
    g_free (texts[0]);
    g_free (texts[1]);
  }
  g_mutex_unlock (&gen->lock);

  if (!ok)
    warn (gen, error);
  else if (prompt->at_frame < 0)
    g_object_notify (G_OBJECT (gen->element), "prompt");
  if (ok && prompt->at_frame < 0 && prompt->negative_prompt)
    g_object_notify (G_OBJECT (gen->element), "negative-prompt");
  return ok;
}

gboolean
gst_dualparal_generator_take_event (GstDualParalGenerator * gen,
    GstEvent * event, gboolean * queued)
{
  const GstStructure *s = gst_event_get_structure (event);
  GstDualParalPrompt prompt = { 0, };
  GError *error = NULL;

  if (GST_EVENT_TYPE (event) != GST_EVENT_CUSTOM_UPSTREAM || !s
      || !gst_structure_has_name (s, "dualparal/set-prompt"))
    return FALSE;
  *queued = gst_dualparal_prompt_parse (s, &prompt, &error);
  if (*queued)
    *queued = gst_dualparal_generator_queue_prompt (gen, &prompt);
  else
    warn (gen, error);
  return TRUE;
}

void
gst_dualparal_generator_prompt_begins (GstDualParalGenerator * gen,
    guint64 frame)
{
  g_mutex_lock (&gen->lock);
  gst_dualparal_prompts_passed (&gen->prompts, frame);
  g_mutex_unlock (&gen->lock);
}

void
gst_dualparal_generator_get_stats (GstDualParalGenerator * gen, DpStats * stats)
{
  memset (stats, 0, sizeof (*stats));
  g_mutex_lock (&gen->lock);
  if (gen->engine)
    dp_engine_get_stats (gen->engine, stats);
  g_mutex_unlock (&gen->lock);
}
