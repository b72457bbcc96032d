/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "settings.h"
#include "wan/tokenizer.h"
#include "kernels/device.h"

#include <math.h>
#include <string.h>

#define MAX_TEXT_LENGTH 4096
#define DEFAULT_TEXT_LENGTH 512

G_STATIC_ASSERT (DP_MAX_THREADS <= DP_DEVICE_MAX_THREADS);

gboolean
dp_settings_refuse (GError **error, const char *format, ...)
{
  g_autofree char *sentence = NULL;
  va_list args;

  va_start (args, format);
  sentence = dp_error_sentence (format, args);
  va_end (args);
  g_set_error_literal (error, DP_ERROR, DP_ERROR_SETTINGS, sentence);
  return FALSE;
}

static gboolean
check_range (GError **error, const char *name, gint64 value, gint64 min, gint64 max)
{
  return (value >= min && value <= max) || dp_settings_refuse (error, "%s is %" G_GINT64_FORMAT "; it must be from %" G_GINT64_FORMAT
      " to %" G_GINT64_FORMAT, name, value, min, max);
}

static gboolean
check_size (const char *name, int value, GError **error)
{
  return (value >= DP_MIN_SIZE && value <= DP_MAX_SIZE && value % 2 == 0) || dp_settings_refuse (error,
      "%s is %d; it must be an even number from %d to %d", name, value, DP_MIN_SIZE, DP_MAX_SIZE);
}

static gboolean
check_guidance (const char *name, double value, GError **error)
{
  return (isfinite (value) && value >= 0 && value <= DP_MAX_SCALE) || dp_settings_refuse (error,
      "%s is %g; it must be above 0 and at most %d (up to 1: no guidance)", name, value, DP_MAX_SCALE);
}

static gboolean
check_interval (double low, double high, GError **error)
{
  const double values[] = { low, high };
  static const char *const names[] = { "guidance-interval-low", "guidance-interval-high" };

  for (int i = 0; i < 2; i++)
    if (!(values[i] >= 0 && values[i] <= 1))
      return dp_settings_refuse (error, "%s is %g; it must be a noise level, from 0 (clean) to 1 (pure noise)", names[i], values[i]);
  return low <= high || dp_settings_refuse (error, "guidance-interval-low is %g, above guidance-interval-high (%g); exchange them", low,
      high);
}

/* `words`: those it may be, and as a sentence. */
static gboolean
check_word (const char *name, const char *value, const char *const *words, const char *sentence, GError **error)
{
  return g_strv_contains (words, value) || dp_settings_refuse (error, "%s is \"%s\"; it must be %s", name, value, sentence);
}

/* A launch line can only set "" to say none. */
static const char *
keep_file (GStringChunk *storage, const char *name)
{
  return name && *name ? g_string_chunk_insert (storage, name) : NULL;
}

static void
fill_defaults (DpSettings *s, const DpModel *model, GStringChunk *storage)
{
  const DpDefaults *d = &model->config.defaults;
  const DpSchedulerConfig *scheduler = &model->config.scheduler;

  s->model = g_string_chunk_insert (storage, model->dir);
  s->prompt = g_string_chunk_insert (storage, s->prompt ? s->prompt : d->prompt);
  s->negative_prompt = g_string_chunk_insert (storage, s->negative_prompt ? s->negative_prompt : d->negative_prompt);
  s->devices = g_string_chunk_insert (storage, s->devices ? s->devices : "auto");
  s->ranks = g_string_chunk_insert (storage, s->ranks ? s->ranks : "none");
  s->sampler = g_string_chunk_insert (storage, s->sampler ? s->sampler : d->sampler[0] ? d->sampler : scheduler->sampler);
  s->precision = g_string_chunk_insert (storage, s->precision ? s->precision : "auto");
  s->text_encoder = g_string_chunk_insert (storage, s->text_encoder ? s->text_encoder : "auto");
  s->context_mode = g_string_chunk_insert (storage, s->context_mode ? s->context_mode : "auto");
  s->transformer = keep_file (storage, s->transformer);
  s->transformer_2 = keep_file (storage, s->transformer_2);
  s->vae = keep_file (storage, s->vae);
  s->text_encoder_file = keep_file (storage, s->text_encoder_file);
  s->tokenizer = keep_file (storage, s->tokenizer);
  s->lora = keep_file (storage, s->lora);
  s->image = keep_file (storage, s->image);
  s->times = keep_file (storage, s->times);
  s->trace = keep_file (storage, s->trace);
  s->width = s->width ? s->width : d->width;
  s->height = s->height ? s->height : d->height;
  s->steps = s->steps ? s->steps : d->steps;
  /* A default follows what was asked for: it never makes a setting of the caller's invalid or
   * ineffective. */
  if (s->guidance_scale_2 == 0 && model->config.experts == 2)
    s->guidance_scale_2 = s->guidance_scale != 0 ? s->guidance_scale : d->guidance_scale_2 != 0 ? d->guidance_scale_2 : d->guidance_scale;
  s->guidance_scale = s->guidance_scale != 0 ? s->guidance_scale : d->guidance_scale;
  if (s->guidance_interval_low == 0 && s->guidance_interval_high == 0) {
    s->guidance_interval_low = d->guidance_interval_low;
    s->guidance_interval_high = d->guidance_interval_high;
  }
  s->guidance_interval_high = s->guidance_interval_high != 0 ? s->guidance_interval_high : 1;
  s->flow_shift = s->flow_shift != 0 ? s->flow_shift : d->flow_shift > 0 ? d->flow_shift : scheduler->flow_shift;
  s->block_latents = s->block_latents ? s->block_latents : d->block_latents;
  s->context_latents = s->context_latents ? s->context_latents : MIN (d->context_latents, s->block_latents);
  s->queue_blocks = s->queue_blocks ? s->queue_blocks : d->queue_blocks ? MIN (d->queue_blocks, s->steps) : s->steps;
  s->text_length = s->text_length ? s->text_length : DEFAULT_TEXT_LENGTH;
  /* Two blocks and a frame: one block is shown while the next one comes in. A block size that will be
   * refused must not overflow here. */
  s->max_queue_frames = s->max_queue_frames ? s->max_queue_frames
      : 2 * CLAMP (s->block_latents, 1, DP_MAX_BLOCK_LATENTS) * model->config.vae.temporal_scale + 1;
}

static gboolean
check_values (const DpSettings *s, const DpModel *model, GError **error)
{
  static const char *const samplers[] = { "unipc", "euler", NULL }, *const rank_words[] = { "none", "mpi", NULL };
  static const char *const precisions[] = { "auto", "float32", "bfloat16", "fp8", NULL };
  static const char *const text_encoders[] = { "auto", "resident", "streamed", NULL }, *const modes[] = { "auto", "recomputed",
    "cached", NULL };

  if (!check_size ("width", s->width, error) || !check_size ("height", s->height, error)
      || !check_range (error, "steps", s->steps, 1, DP_MAX_STEPS)
      || !check_range (error, "block-latents", s->block_latents, 1, DP_MAX_BLOCK_LATENTS)
      || !check_range (error, "context-latents", s->context_latents, -1, DP_MAX_BLOCK_LATENTS)
      || !check_range (error, "queue-blocks", s->queue_blocks, 1, s->steps)
      || !check_range (error, "max-queue-frames", s->max_queue_frames, 1, DP_MAX_QUEUE_FRAMES)
      || !check_range (error, "text-length", s->text_length, 1, MAX_TEXT_LENGTH)
      || !check_range (error, "linger", s->linger, 0, G_MAXINT)
      || (s->threads != 0 && !check_range (error, "threads", s->threads, 1, DP_MAX_THREADS)))
    return FALSE;
  if (s->context_latents > s->block_latents)
    return dp_settings_refuse (error, "context-latents is %d, more than block-latents (%d); a block can lend at most the latents it owns",
        s->context_latents, s->block_latents);
  if (s->num_frames < -1 || s->num_frames == 0 || s->num_frames > DP_MAX_FRAMES)
    return dp_settings_refuse (error, "num-frames is %" G_GINT64_FORMAT "; it must be at least 1, or -1 for an endless video",
        s->num_frames);
  if (s->seed < -1)
    return dp_settings_refuse (error, "seed is %" G_GINT64_FORMAT "; it must be at least 0, or -1 to draw one", s->seed);
  if (s->first_frame < 0 || s->first_frame > DP_MAX_FRAMES)
    return dp_settings_refuse (error, "first-frame is %" G_GINT64_FORMAT "; it must be at least 0", s->first_frame);
  if (!check_guidance ("guidance-scale", s->guidance_scale, error) || !check_guidance ("guidance-scale-2", s->guidance_scale_2, error)
      || !check_interval (s->guidance_interval_low, s->guidance_interval_high, error))
    return FALSE;
  if (s->guidance_scale_2 != 0 && model->config.experts == 1)
    return dp_settings_refuse (error, "guidance-scale-2 is %g, but the model has no second transformer (transformer_2); leave it out",
        s->guidance_scale_2);
  if (!isfinite (s->flow_shift) || s->flow_shift <= 0 || s->flow_shift > DP_MAX_SCALE)
    return dp_settings_refuse (error, "flow-shift is %g; it must be above 0 and at most %d", s->flow_shift, DP_MAX_SCALE);
  if ((guint) s->format > DP_FORMAT_XBGR)
    return dp_settings_refuse (error, "format %d is not one of DpFormat", s->format);
  return check_word ("sampler", s->sampler, samplers, "unipc or euler", error)
      && check_word ("ranks", s->ranks, rank_words, "none or mpi", error)
      && check_word ("precision", s->precision, precisions, "auto, float32, bfloat16 or fp8", error)
      && check_word ("text-encoder", s->text_encoder, text_encoders, "auto, resident or streamed", error)
      && check_word ("context-mode", s->context_mode, modes, "auto, recomputed or cached", error)
      && dp_prompt_check (s->prompt, error) && dp_prompt_check (s->negative_prompt, error);
}

/* With a small lag the kept keys are as noisy as the block that reads them, and the video suffers. */
static gboolean
is_cached (const DpSettings *s)
{
  return s->context_latents > 0 && (s->steps + s->queue_blocks - 1) / s->queue_blocks >= DP_CACHED_LAG;
}

gboolean
dp_prompt_check (const char *prompt, GError **error)
{
  g_autofree char *cleaned = dp_prompt_clean (prompt, error);

  return cleaned != NULL;
}

DpModel *
dp_settings_model (const DpSettings *s, GError **error)
{
  const char *const named[] = { s->transformer, s->transformer_2, s->vae, s->text_encoder_file, s->tokenizer };
  static const DpModelPart parts[] = { DP_MODEL_TRANSFORMER, DP_MODEL_TRANSFORMER_2, DP_MODEL_VAE, DP_MODEL_TEXT_ENCODER,
    DP_MODEL_TOKENIZER };
  DpModelFiles files = { NULL };

  for (guint i = 0; i < G_N_ELEMENTS (named); i++)
    files[parts[i]] = named[i] && *named[i] ? named[i] : NULL;
  DpModel *model = dp_model_open (s->model, files, error);
  if (model == NULL || s->lora == NULL || *s->lora == 0)
    return model;
  model->lora = g_strdup (s->lora);
  if (model->config.experts == 1)
    return model;
  dp_settings_refuse (error, "lora is \"%s\", but the model has two transformers, which need a LoRA each; this is not supported", s->lora);
  dp_model_unref (model);
  return NULL;
}

gboolean
dp_settings_fill (DpSettings *settings, const DpModel *model, GStringChunk *storage, GError **error)
{
  fill_defaults (settings, model, storage);
  if (!check_values (settings, model, error))
    return FALSE;
  if (settings->seed == -1)
    settings->seed = g_random_int ();
  if (strcmp (settings->context_mode, "auto") == 0)
    settings->context_mode = is_cached (settings) ? "cached" : "recomputed";
  return TRUE;
}
