/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dualparal.h"
#include "ring.h"
#include "settings.h"
#include "trace.h"
#include "part_cache.h"

#include <string.h>

struct _DpEngine
{
  /* -- immutable -- */
  GStringChunk *storage;
  DpResolved resolved;
  DpProgress progress;
  gpointer progress_data;
  gint64 opened_us;
  DpWeights *dit_weights[2], *vae_weights;       /* of the experts; NULL: no second */
  DpSampler *sampler;
  DpConditioner *conditioner;
  DpDecoder *decoder;
  DpRing *ring;
  DpTrace *trace;               /* or NULL */
  int parts;                    /* stages, decoder, text encoder: what has to be loaded */
  gint started;                 /* atomic: somebody has pulled */

  /* -- protected by lock -- */
  GMutex lock;
  GError *error;                /* the first failure; for good */
  int loaded;                   /* parts; -1 once loading failed */
  gboolean closing;             /* dp_engine_free() has begun: the parts may go away */
};

/* ---- what the threads report ---- */

static void
report (DpEngine *e, const char *text, int percent)
{
  if (e->progress)
    e->progress ("load-model", text, percent, e->progress_data);
}

static void
part_loaded (gpointer data)
{
  DpEngine *e = data;
  int loaded;

  g_mutex_lock (&e->lock);
  loaded = e->loaded < 0 || e->closing ? -1 : ++e->loaded;
  g_mutex_unlock (&e->lock);
  if (loaded > 0)
    report (e, loaded == e->parts ? "model loaded" : "loading the model", 100 * loaded / e->parts);
}

/* The first error is the one that counts: what fails after it usually fails because of it. */
static void
part_failed (GError *error, gpointer data)
{
  DpEngine *e = data;
  gboolean first, was_loading;

  g_mutex_lock (&e->lock);
  first = e->error == NULL && !e->closing;
  was_loading = e->loaded >= 0 && e->loaded < e->parts;
  if (first) {
    e->error = error;
    if (was_loading)
      e->loaded = -1;
  }
  g_mutex_unlock (&e->lock);
  if (!first) {
    g_error_free (error);
    return;
  }
  if (was_loading)
    report (e, error->message, -1);
  g_mutex_lock (&e->lock);
  if (!e->closing) {
    dp_conditioner_cancel (e->conditioner);
    if (e->decoder)
      dp_decoder_cancel (e->decoder, error);
    if (e->ring)
      dp_ring_cancel (e->ring);
  }
  g_mutex_unlock (&e->lock);
}

/* ---- opening ---- */

static void
start_conditioner (DpEngine *e)
{
  const DpResolved *r = &e->resolved;

  e->conditioner = dp_conditioner_new (&(DpConditionerSpec) {
      .dir = r->settings.model, .config = r->config.text, .device = r->devices[0], .threads = r->settings.threads,
      .bfloat16 = r->bfloat16, .streamed = r->streamed, .text_length = r->settings.text_length, .trace = e->trace, .loaded = part_loaded,
      .failed = part_failed, .user_data = e });
}

static gboolean
start_decoder (DpEngine *e, GError **error)
{
  const DpResolved *r = &e->resolved;
  int scale = r->config.vae.spatial_scale;

  e->decoder = dp_decoder_new (&(DpDecoderSpec) {
      .vae = r->config.vae, .weights = e->vae_weights, .device = r->devices[r->n_devices - 1], .threads = r->settings.threads,
      .bfloat16 = r->bfloat16, .latent_h = r->settings.height / scale, .latent_w = r->settings.width / scale, .max_own = r->max_own,
      .max_queue_frames = r->settings.max_queue_frames, .format = r->settings.format,
      .num_frames = r->settings.num_frames, .trace = e->trace, .loaded = part_loaded, .failed = part_failed, .user_data = e }, error);
  return e->decoder != NULL;
}

/* How many steps the first expert takes: those of the boundary's timestep or more, compared in float32 as the reference does. */
static int
switch_step (const DpEngine *e)
{
  const DpModelConfig *c = &e->resolved.config;
  float boundary = c->boundary_ratio * c->scheduler.train_timesteps;
  int step = 0, steps = dp_sampler_steps (e->sampler);

  while (step < steps && (c->experts == 1 || dp_sampler_timestep (e->sampler, step) >= boundary))
    step++;
  return step;
}

static gboolean
start_ring (DpEngine *e, GError **error)
{
  const DpResolved *r = &e->resolved;
  const DpSettings *s = &r->settings;
  DpStageSpec stage = dp_settings_stage (r, e->sampler);

  stage.switch_step = switch_step (e);
  e->ring = dp_ring_new (&(DpRingSpec) {
      .stage = stage, .weights = { e->dit_weights[0], e->dit_weights[1] }, .n_stages = r->n_devices, .devices = r->devices,
      .threads = MAX (1, s->threads / r->n_devices), .block_latents = s->block_latents, .context_latents = r->context_latents,
      .queue_blocks = s->queue_blocks, .latents = r->latents, .seed = s->seed,
      .noise = s->noise, .noise_latents = s->noise_latents, .conditioner = e->conditioner, .decoder = e->decoder, .trace = e->trace,
      .loaded = part_loaded, .failed = part_failed, .user_data = e }, error);
  return e->ring != NULL;
}

static gboolean
check_noise (const DpSettings *s, gint64 latents, GError **error)
{
  if (s->noise == NULL || s->noise_latents >= MAX (latents, 1))
    return TRUE;
  g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "the noise given has %" G_GINT64_FORMAT " latent frames, but %" G_GINT64_FORMAT
      " frames of video need %" G_GINT64_FORMAT "; give more noise or ask for fewer frames", s->noise_latents, s->num_frames, latents);
  return FALSE;
}

gboolean
dp_engine_open (DpEngine **engine, const DpSettings *settings, DpProgress progress, gpointer user_data, GError **error)
{
  DpEngine *e = g_new0 (DpEngine, 1);
  DpResolved *r = &e->resolved;
  g_autofree char *vae = NULL;

  g_mutex_init (&e->lock);
  e->opened_us = g_get_monotonic_time ();
  e->storage = g_string_chunk_new (1024);
  e->progress = progress;
  e->progress_data = user_data;
  if (!dp_settings_read (r, settings, e->storage, error))
    goto fail;

  const DpSettings *s = &r->settings;
  for (int i = 0; i < r->config.experts; i++) {
    g_autofree char *transformer = g_build_filename (s->model, i == 0 ? "transformer" : "transformer_2", NULL);

    e->dit_weights[i] = dp_weights_open (transformer, "diffusion_pytorch_model", error);
    if (e->dit_weights[i] == NULL)
      goto fail;
  }
  vae = g_build_filename (s->model, "vae", NULL);
  e->vae_weights = dp_weights_open (vae, "diffusion_pytorch_model", error);
  if (e->vae_weights == NULL)
    goto fail;
  e->sampler = dp_sampler_new (s->sampler, s->steps, s->flow_shift, &r->config.scheduler, error);
  if (e->sampler == NULL)
    goto fail;

  if (!check_noise (s, r->latents, error))
    goto fail;
  if (s->trace && (e->trace = dp_trace_new (s->trace, r->n_devices, DP_TRACE_LIMIT, error)) == NULL)
    goto fail;
  e->parts = r->n_devices + 2;
  report (e, "loading the model", 0);
  dp_part_cache_begin ();
  g_mutex_lock (&e->lock);      /* what a thread reports waits until all of them are there */
  start_conditioner (e);
  gboolean ok = dp_conditioner_queue (e->conditioner, &(DpPrompt) { s->prompt, s->negative_prompt }, error) && start_decoder (e, error)
      && start_ring (e, error);
  g_mutex_unlock (&e->lock);
  dp_part_cache_end ();
  if (!ok)
    goto fail;
  *engine = e;
  return TRUE;

fail:
  dp_engine_free (e);
  return FALSE;
}

void
dp_engine_free (DpEngine *e)
{
  if (e == NULL)
    return;
  g_mutex_lock (&e->lock);
  e->closing = TRUE;
  int linger = e->error ? 0 : e->resolved.settings.linger;      /* a failure may have left things in any state */
  g_mutex_unlock (&e->lock);
  if (e->conditioner)
    dp_conditioner_cancel (e->conditioner);
  if (e->decoder)
    dp_decoder_cancel (e->decoder, NULL);
  dp_ring_free (e->ring, linger);
  dp_decoder_free (e->decoder, linger);
  dp_conditioner_free (e->conditioner, linger);
  dp_trace_free (e->trace);
  g_mutex_lock (&e->lock);
  gboolean was_loading = e->decoder && e->loaded >= 0 && e->loaded < e->parts;
  g_mutex_unlock (&e->lock);
  if (was_loading)
    report (e, "cancelled", -1);
  dp_sampler_free (e->sampler);
  dp_weights_free (e->dit_weights[0]);
  dp_weights_free (e->dit_weights[1]);
  dp_weights_free (e->vae_weights);
  g_clear_error (&e->error);
  g_mutex_clear (&e->lock);
  g_string_chunk_free (e->storage);
  g_free (e);
}

/* ---- while it runs ---- */

void
dp_engine_set_latents_callback (DpEngine *e, DpLatentsCallback callback, gpointer user_data)
{
  dp_decoder_set_latents_callback (e->decoder, callback, user_data);
}

gboolean
dp_engine_queue_prompt (DpEngine *e, const DpPrompt *prompt, GError **error)
{
  return dp_conditioner_queue (e->conditioner, prompt, error);
}

gint64
dp_engine_next_block (DpEngine *e)
{
  return dp_conditioner_next_block (e->conditioner);
}

gint64
dp_engine_first_frame (const DpEngine *e, gint64 block)
{
  const DpResolved *r = &e->resolved;
  gint64 latent = dp_block_first (block, r->settings.block_latents, r->context_latents);

  return latent == 0 ? 0 : 1 + (latent - 1) * r->config.vae.temporal_scale;
}

gint64
dp_engine_block_from (const DpEngine *e, gint64 frame)
{
  const DpResolved *r = &e->resolved;
  gint64 block_frames = r->settings.block_latents * (gint64) r->config.vae.temporal_scale, second = dp_engine_first_frame (e, 1);

  if (frame <= second)
    return frame > 0;
  return 2 + (frame - second - 1) / block_frames;
}

int
dp_engine_pull (DpEngine *e, DpFrame *frame, gint64 timeout_us, GError **error)
{
  if (g_atomic_int_compare_and_exchange (&e->started, FALSE, TRUE))
    dp_conditioner_start (e->conditioner);
  return dp_decoder_pull (e->decoder, frame, timeout_us, error);
}

void
dp_engine_release_frame (DpEngine *e, DpFrame *frame)
{
  dp_decoder_release (e->decoder, frame);
}

void
dp_engine_set_flushing (DpEngine *e, gboolean flushing)
{
  dp_decoder_set_flushing (e->decoder, flushing);
}

gboolean
dp_engine_prompt_embeds (DpEngine *e, float **prompt, float **negative, int *length, int *dim, GError **error)
{
  DpConditioning *c = dp_conditioner_first (e->conditioner, error);
  float **out[2] = { prompt, negative };

  if (c == NULL)
    return FALSE;
  *length = e->resolved.settings.text_length;
  *dim = c->dim;
  for (int i = 0; i < 2; i++) {
    *out[i] = g_new0 (float, (gsize) *length * c->dim);
    memcpy (*out[i], c->embeds[i], sizeof (float) * c->n[i] * c->dim);
  }
  dp_conditioning_unref (c);
  return TRUE;
}

void
dp_engine_mark (DpEngine *e, const char *what)
{
  dp_trace_instant (e->trace, DP_TRACE_FRAMES, what, " ");
}

gboolean
dp_engine_end_trace (DpEngine *e, GError **error)
{
  return dp_trace_end (e->trace, error);
}

void
dp_engine_get_stats (DpEngine *e, DpStats *stats)
{
  const DpModelInfo *info = &e->resolved.info;
  double latent_seconds = (double) info->temporal_scale * info->fps_d / info->fps_n;
  DpDecoderStats d;
  DpRingStats r;

  dp_decoder_get_stats (e->decoder, &d);
  dp_ring_get_stats (e->ring, &r);
  const DpWorkerStats *p = &r.first;
  *stats = (DpStats) { .blocks = p->blocks, .passes = p->passes, .frames = d.frames, .queue_frames = d.queue_frames, .ended = d.ended,
    .stages = e->resolved.n_devices, .decoder_bytes = d.device_bytes, .text_bytes = dp_conditioner_device_bytes (e->conditioner),
    .allocations = r.allocations + d.allocations, .block_load_mean = dp_recent_mean (&p->paces) / latent_seconds,
    .block_load_p95 = dp_recent_percentile (&p->paces, 95) / latent_seconds, .block_interval_p50 = dp_recent_percentile (&d.intervals, 50),
    .block_interval_p95 = dp_recent_percentile (&d.intervals, 95) };
  stats->device_bytes = stats->decoder_bytes + stats->text_bytes;
  for (int i = 0; i < stats->stages; i++)
    stats->device_bytes += stats->stage_bytes[i] = r.bytes[i];
  if (d.first_frame_us)
    stats->first_frame_seconds = (d.first_frame_us - e->opened_us) / 1e6;
  if (p->start_us == 0)
    return;
  gint64 until = d.ended ? MAX (MAX (p->end_us, d.last_frame_us), p->start_us) : g_get_monotonic_time ();
  double active = (until - p->start_us - d.held_us) / 1e6;
  if (active <= 0)
    return;
  stats->realtime_factor = (double) d.frames * info->fps_d / info->fps_n / active;
  /* while all is held up, or ends, a part finishes what it has */
  stats->decode_busy = MIN (1, d.busy_us / 1e6 / active);
  for (int i = 0; i < stats->stages; i++)
    stats->stage_busy[i] = MIN (1, r.busy_us[i] / 1e6 / active);
}
