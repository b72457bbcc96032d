/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dualparal_testing.h"
#include "plan.h"
#include "ring.h"
#include "trace.h"
#include "part_cache.h"

#include <string.h>

/* What is loaded: the parts of a kind, and the bytes that are read for them. */
typedef struct
{
  DpEngine *engine;
  int parts;

  /* -- protected by the engine's lock */
  int loaded;                   /* parts */
  gsize bytes, read;            /* in all, and so far; 0: not known yet */
} Load;

enum
{
  LOAD_LAYERS,
  LOAD_DECODER,
  LOAD_TEXT,
  LOADS
};

struct _DpEngine
{
  /* -- immutable -- */
  DpPlan *plan;
  DpProgress progress;
  gpointer progress_data;
  gint64 opened_us;
  DpWeights *dit_weights[2], *vae_weights;       /* of the experts; NULL: no second */
  DpConditioner *conditioner;
  DpDecoder *decoder;
  DpPreviewer *previewer;
  DpPicture *picture;           /* or NULL */
  DpRing *ring;
  DpTrace *trace;               /* or NULL */
  int parts;                    /* stages, decoder, text encoder: what has to be loaded */
  gint started;                 /* atomic: the generation is */
  int cancel;                   /* atomic: encoding the picture ends early */

  /* -- protected by lock -- */
  GMutex lock;
  GError *error;                /* the first failure; for good */
  int loaded;                   /* parts; -1 once loading failed */
  Load loads[LOADS];
  int percent;                  /* the last that was reported */
  gboolean closing;             /* dp_engine_free() has begun: the parts may go away */
};

/* ---- what the threads report ---- */

static void
report (DpEngine *e, const char *text, int percent)
{
  if (e->progress)
    e->progress ("load-model", text, percent, e->progress_data);
}

/* How much is loaded, by bytes. A part that was left warm, or is another rank's, is not read here: it counts once it is there. */
static int
percent_loaded (const DpEngine *e)
{
  double done = 0, all = 0;

  if (e->loaded == e->parts)
    return 100;
  for (int i = 0; i < LOADS; i++) {
    const Load *l = &e->loads[i];
    double read = l->bytes > 0 ? MIN (1, (double) l->read / l->bytes) : 0, loaded = (double) l->loaded / l->parts;

    all += l->bytes;
    done += l->bytes * MAX (read, loaded);
  }
  return all > 0 ? MIN (99, 100 * done / all) : 0;
}

/* Reports, where it is a percent more. With the lock, which it releases. */
static void
report_loaded (DpEngine *e)
{
  int percent = e->loaded < 0 || e->closing ? 0 : percent_loaded (e);
  gboolean more = percent > e->percent;

  if (more)
    e->percent = percent;
  g_mutex_unlock (&e->lock);
  if (more)
    report (e, percent == 100 ? "model loaded" : "loading the model", percent);
}

static void
bytes_read (gsize bytes, gpointer data)
{
  Load *l = data;

  g_mutex_lock (&l->engine->lock);
  l->read += bytes;
  report_loaded (l->engine);
}

static void
part_loaded (Load *l)
{
  DpEngine *e = l->engine;

  g_mutex_lock (&e->lock);
  if (e->loaded >= 0 && !e->closing) {
    e->loaded++;
    l->loaded++;
  }
  report_loaded (e);
}

static void
layers_loaded (gpointer data)
{
  part_loaded (&((DpEngine *) data)->loads[LOAD_LAYERS]);
}

static void
decoder_loaded (gpointer data)
{
  part_loaded (&((DpEngine *) data)->loads[LOAD_DECODER]);
}

static void
text_loaded (gpointer data)
{
  part_loaded (&((DpEngine *) data)->loads[LOAD_TEXT]);
}

/* Its table of tokens is read by rows, when they are wanted. Of a streamed one, the first layer is read. */
static void
text_opened (DpWeights *weights, gpointer data)
{
  DpEngine *e = data;
  Load *l = &e->loads[LOAD_TEXT];
  gsize bytes = dp_weights_bytes (weights, "encoder.block.");

  g_mutex_lock (&e->lock);
  l->bytes = e->plan->streamed ? bytes / e->plan->model->config.text.layers : bytes;
  g_mutex_unlock (&e->lock);
  dp_weights_watch (weights, bytes_read, l);
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

static DpBlockFrames
block_frames (const DpPlan *plan)
{
  gint64 scale = plan->info.temporal_scale;
  int B = plan->settings.block_latents;

  return (DpBlockFrames) { plan->settings.first_frame, 1 + (B + plan->context_latents - 1) * scale, B * scale };
}

static gboolean
start_conditioner (DpEngine *e, GError **error)
{
  const DpPlan *plan = e->plan;

  e->conditioner = dp_conditioner_new (&(DpConditionerSpec) {
      .model = plan->model, .device = plan->text_device, .threads = plan->settings.threads, .type = plan->type,
      .streamed = plan->streamed, .text_length = plan->settings.text_length, .frames = block_frames (plan), .trace = e->trace,
      .opened = text_opened, .loaded = text_loaded, .failed = part_failed, .user_data = e }, error);
  return e->conditioner != NULL;
}

static gboolean
start_decoder (DpEngine *e, GError **error)
{
  const DpPlan *plan = e->plan;
  const DpSettings *s = &plan->settings;

  e->decoder = dp_decoder_new (&(DpDecoderSpec) {
      .vae = plan->model->config.vae, .weights = e->vae_weights, .device = plan->decoder_device, .threads = s->threads,
      .type = plan->type, .latent_h = plan->latent_h, .latent_w = plan->latent_w, .width = s->width, .height = s->height,
      .max_own = plan->max_own,
      .max_queue_frames = s->max_queue_frames, .format = s->format, .num_frames = s->num_frames, .trace = e->trace,
      .loaded = decoder_loaded, .failed = part_failed, .user_data = e }, error);
  return e->decoder != NULL;
}

static gboolean
start_ring (DpEngine *e, GError **error)
{
  e->ring = dp_ring_new (&(DpRingSpec) {
      .plan = e->plan, .weights = { e->dit_weights[0], e->dit_weights[1] }, .conditioner = e->conditioner, .decoder = e->decoder,
      .previewer = e->previewer, .picture = e->picture, .trace = e->trace, .loaded = layers_loaded, .failed = part_failed, .user_data = e }, error);
  return e->ring && dp_ring_start (e->ring, error);
}

static void
watch (DpEngine *e, int load, DpWeights *weights, const char *prefix)
{
  e->loads[load].bytes += dp_weights_bytes (weights, prefix);
  dp_weights_watch (weights, bytes_read, &e->loads[load]);
}

static gboolean
open_weights (DpEngine *e, GError **error)
{
  const DpModel *model = e->plan->model;

  for (int i = 0; i < model->config.experts; i++) {
    e->dit_weights[i] = dp_model_weights (model, DP_MODEL_TRANSFORMER + i, error);
    if (e->dit_weights[i] == NULL)
      return FALSE;
    watch (e, LOAD_LAYERS, e->dit_weights[i], "blocks.");
  }
  e->vae_weights = dp_model_weights (model, DP_MODEL_VAE, error);
  if (e->vae_weights)
    watch (e, LOAD_DECODER, e->vae_weights, "decoder.");
  return e->vae_weights != NULL;
}

gboolean
dp_engine_open (DpEngine **engine, DpPlan *plan, DpProgress progress, gpointer user_data, GError **error)
{
  DpEngine *e = g_new0 (DpEngine, 1);
  const DpSettings *s = &plan->settings;

  g_mutex_init (&e->lock);
  e->opened_us = g_get_monotonic_time ();
  e->plan = dp_plan_ref (plan);
  e->progress = progress;
  e->progress_data = user_data;
  e->previewer = dp_previewer_new (plan);
  for (int i = 0; i < LOADS; i++)
    e->loads[i] = (Load) { .engine = e, .parts = i == LOAD_LAYERS ? plan->n_stages : 1 };
  if (!dp_plan_check_address_space (plan, error) || !open_weights (e, error))
    goto fail;
  if ((s->image || s->image_rgb) && (e->picture = dp_picture_open (plan, &e->cancel, error)) == NULL)
    goto fail;
  if (s->trace && (e->trace = dp_trace_new (s->trace, plan->n_stages, DP_TRACE_LIMIT, error)) == NULL)
    goto fail;
  e->parts = plan->n_stages + 2;
  report (e, "loading the model", 0);
  dp_part_cache_begin ();
  g_mutex_lock (&e->lock);      /* what a thread reports waits until all of them are there */
  gboolean ok = start_conditioner (e, error)
      && dp_conditioner_queue (e->conditioner, &(DpPrompt) { s->prompt, s->negative_prompt, s->first_frame }, 0, error)
      && start_decoder (e, error) && start_ring (e, error);
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
  int linger = e->error ? 0 : e->plan->settings.linger;      /* a failure may have left things in any state */
  g_mutex_unlock (&e->lock);
  g_atomic_int_set (&e->cancel, 1);
  if (e->conditioner)
    dp_conditioner_cancel (e->conditioner);
  if (e->decoder)
    dp_decoder_cancel (e->decoder, NULL);
  dp_ring_free (e->ring, linger);
  dp_decoder_free (e->decoder, linger);
  dp_conditioner_free (e->conditioner, linger);
  dp_previewer_free (e->previewer);
  dp_picture_free (e->picture);
  dp_trace_free (e->trace);
  g_mutex_lock (&e->lock);
  gboolean was_loading = e->decoder && e->loaded >= 0 && e->loaded < e->parts;
  g_mutex_unlock (&e->lock);
  if (was_loading)
    report (e, "cancelled", -1);
  dp_weights_free (e->dit_weights[0]);
  dp_weights_free (e->dit_weights[1]);
  dp_weights_free (e->vae_weights);
  g_clear_error (&e->error);
  g_mutex_clear (&e->lock);
  dp_plan_unref (e->plan);
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
  return dp_conditioner_queue (e->conditioner, prompt, 0, error);
}

gboolean
dp_engine_queue_prompt_in (DpEngine *e, const DpPrompt *prompt, gint64 iteration, GError **error)
{
  return dp_conditioner_queue (e->conditioner, prompt, iteration, error);
}

gint64
dp_engine_next_frame (DpEngine *e)
{
  return dp_conditioner_next_frame (e->conditioner);
}

gint64
dp_engine_first_frame (const DpEngine *e, gint64 block)
{
  DpBlockFrames frames = block_frames (e->plan);

  return dp_block_frames_first (&frames, block);
}

/* At the first pull or wait. */
static void
start (DpEngine *e)
{
  if (g_atomic_int_compare_and_exchange (&e->started, FALSE, TRUE))
    dp_conditioner_start (e->conditioner);
}

int
dp_engine_pull (DpEngine *e, DpFrame *frame, gint64 timeout_us, GError **error)
{
  start (e);
  int result = dp_decoder_pull (e->decoder, frame, timeout_us, error);

  if (result == 1)
    frame->index += e->plan->settings.first_frame;
  return result;
}

gboolean
dp_engine_wait (DpEngine *e, guint frames, gint64 timeout_us)
{
  start (e);
  return dp_decoder_wait (e->decoder, frames, timeout_us);
}

void
dp_engine_wake (DpEngine *e)
{
  dp_decoder_wake (e->decoder);
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
  *length = e->plan->settings.text_length;
  *dim = c->dim;
  for (int i = 0; i < 2; i++) {
    *out[i] = g_new0 (float, (gsize) *length * c->dim);
    memcpy (*out[i], c->embeds[i], sizeof (float) * c->n[i] * c->dim);
  }
  dp_conditioning_unref (c);
  return TRUE;
}

gboolean
dp_engine_set_preview (DpEngine *e, DpPreviewCallback callback, gpointer user_data, GError **error)
{
  return dp_previewer_set (e->previewer, callback, user_data, error);
}

void
dp_engine_mark (DpEngine *e, const char *what)
{
  dp_trace_instant (e->trace, DP_TRACE_FRAMES, what, " ");
}

gboolean
dp_engine_check_trace (DpEngine *e, GError **error)
{
  return dp_trace_check (e->trace, error);
}

gboolean
dp_engine_end_trace (DpEngine *e, GError **error)
{
  if (e->trace)
    dp_ring_collect (e->ring);
  return dp_trace_end (e->trace, error);
}

void
dp_engine_get_stats (DpEngine *e, DpStats *stats)
{
  const DpModelInfo *info = &e->plan->info;
  double latent_seconds = (double) info->temporal_scale * info->fps_d / info->fps_n;
  DpDecoderStats d;
  DpRingStats r;

  dp_decoder_get_stats (e->decoder, &d);
  dp_ring_get_stats (e->ring, &r);
  const DpWorkerStats *p = &r.first;
  *stats = (DpStats) { .blocks = p->blocks, .passes = p->passes, .frames = d.frames, .queue_frames = d.queue_frames, .ended = d.ended,
    .stages = e->plan->n_stages, .decoder_bytes = d.device_bytes, .text_bytes = dp_conditioner_device_bytes (e->conditioner),
    .allocations = r.allocations + d.allocations, .block_load_mean = dp_recent_mean (&p->paces) / latent_seconds,
    .block_load_p95 = dp_recent_percentile (&p->paces, 95) / latent_seconds, .block_interval_p50 = dp_recent_percentile (&d.intervals, 50),
    .block_interval_p95 = dp_recent_percentile (&d.intervals, 95) };
  stats->device_bytes = stats->decoder_bytes + stats->text_bytes;
  for (int i = 0; i < stats->stages; i++) {
    stats->device_bytes += stats->stage_bytes[i] = r.bytes[i];
    stats->pass_seconds[i] = r.pass_seconds[i];
  }
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
