/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pipeline.h"
#include "wan/arena.h"
#include "dualparal.h"
#include "wan/device_error.h"
#include "noise.h"

#define REPLAN_NOISE 0.8        /* least noise level of a block in flight that begins anew with a new prompt: docs/design.md, "Choices" */

/* A block in flight, or the one that left last. */
typedef struct
{
  float *latents;               /* [n, h, w, C] on stage 0's device, as they were after `steps_done` */
  int n;
  int steps_done;
  int first_step;               /* 0, or where it began anew */
  gboolean fresh;               /* and its latents are to be noise again */
  int *pool_frames;             /* [B + C], what its noise is made of */
  DpConditioning *conditioning;
} Slot;

typedef struct
{
  DpPipeline *pipeline;
  int index, first, last;       /* its layers [first, last) */
  DpTransport *transport;
  GThread *thread;
  DpStage *stage;               /* used by the thread */
} Worker;

struct _DpPipeline
{
  /* -- immutable -- */
  DpPipelineSpec spec;
  int replan_steps;             /* a block that has done at most as many begins anew with a prompt that re-plans */
  gsize latent_size;            /* floats of a latent frame */
  Worker workers[DP_MAX_STAGES];
  int cancel;                   /* atomic */

  /* -- owned by stage 0's thread -- */
  DpBlockQueue queue;
  DpNoisePool *pool;
  float *noise;                 /* host, [B + C, h, w, C] */
  Slot *slots;
  int n_slots;
  DpArena arena;
  DpBlock **blocks;             /* messages, all of them */
  DpBlock **idle;               /* those not on their way */
  int n_blocks, n_idle;
  gint64 paced_us;              /* time until the last block was finished, without that in which all was held up */

  /* -- protected by lock -- */
  GMutex lock;
  DpPipelineStats stats;
  guint64 allocations[DP_MAX_STAGES];
};

static void
fail (DpPipeline *p, GError *error)
{
  if (g_atomic_int_get (&p->cancel))
    g_error_free (error);
  else
    p->spec.failed (error, p->spec.user_data);
  dp_pipeline_cancel (p);
}

/* FALSE when the pipeline is to stop. */
static gboolean
run_stage (Worker *w, DpBlock *block)
{
  DpPipeline *p = w->pipeline;
  gint64 start = g_get_monotonic_time ();
  GError *error = NULL;
  gboolean ok = dp_stage_run (w->stage, block, &error);
  gint64 end = g_get_monotonic_time ();
  DpDevice *dev = dp_stage_device (w->stage);

  g_mutex_lock (&p->lock);
  p->stats.busy_us[w->index] += end - start;
  p->stats.bytes[w->index] = dev->bytes;
  p->allocations[w->index] = dev->allocations;
  g_mutex_unlock (&p->lock);
  dp_trace_span (p->spec.trace, DP_TRACE_STAGE + w->index, "pass", block->pass.block, start, end, "\"block\":%" G_GINT64_FORMAT
      ",\"step\":%d,\"iteration\":%" G_GINT64_FORMAT ",\"first_layer\":%d,\"layers\":%d", block->pass.block, block->pass.step,
      block->pass.iteration, w->first, w->last - w->first);
  if (!ok)
    fail (p, error);
  return ok && !g_atomic_int_get (&p->cancel);
}

static DpBlock *
exchange (Worker *w, DpBlock *b, gboolean wait)
{
  DpPipeline *p = w->pipeline;
  int n = p->spec.n_stages;

  if (b)
    b->sent_us = g_get_monotonic_time ();
  b = w->transport->exchange (w->transport, b, wait);
  if (b)
    dp_trace_transfer (p->spec.trace, (w->index + n - 1) % n, w->index, b->pass.block, b->pass.step, b->sent_us, g_get_monotonic_time ());
  return b;
}

/* ---- stage 0 ---- */

static Slot *
slot_of (DpPipeline *p, gint64 block)
{
  return &p->slots[block % p->n_slots];
}

static void
draw_noise (DpPipeline *p, gint64 block)
{
  Slot *slot = slot_of (p, block);
  DpDevice *dev = dp_stage_device (p->workers[0].stage);
  const float *from = p->noise;

  if (p->spec.noise)
    from = p->spec.noise + dp_block_first (block, p->spec.block_latents, p->spec.context_latents) * p->latent_size;
  for (int i = 0; i < slot->n && p->spec.noise == NULL; i++)
    dp_noise_fill (p->spec.seed, 0, slot->pool_frames[i] * p->latent_size, p->latent_size, p->noise + i * p->latent_size);
  dev->ops->upload (dev, slot->latents, from, sizeof (float) * slot->n * p->latent_size);
  slot->fresh = FALSE;
}

static gboolean
condition (DpPipeline *p, gint64 block, GError **error)
{
  Slot *slot = slot_of (p, block);
  DpConditioning *previous = block > 0 ? slot_of (p, block - 1)->conditioning : NULL;

  dp_conditioning_unref (slot->conditioning);
  slot->conditioning = dp_conditioner_for_block (p->spec.conditioner, block, previous, error);
  return slot->conditioning != NULL;
}

static gboolean
admit (DpPipeline *p, gint64 block, GError **error)
{
  Slot *slot = slot_of (p, block);

  if (!condition (p, block, error))
    return FALSE;
  slot->n = dp_block_latents (block, p->spec.latents, p->spec.block_latents, p->spec.context_latents);
  slot->steps_done = slot->first_step = 0;
  gint64 end = dp_block_first (block, p->spec.block_latents, p->spec.context_latents) + slot->n;
  if (p->spec.noise && end > p->spec.noise_latents) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "the noise given has %" G_GINT64_FORMAT " latent frames, but the video needs at least "
        "%" G_GINT64_FORMAT "; give more noise or ask for fewer frames", p->spec.noise_latents, end);
    return FALSE;
  }
  dp_noise_pool_next (p->pool, slot->pool_frames);
  draw_noise (p, block);
  return TRUE;
}

/* Blocks in flight that have not come far begin anew with the new prompt; the others are all in front of them. Which those are follows from
 * the iteration, however far the passes on their way have come. They keep their places in the schedule: the steps that they
 * lose are made up for by one long one. */
static gboolean
replan (DpPipeline *p, const DpPass *first_pass, GError **error)
{
  gint64 end = first_pass->block + (first_pass->step > 0), first = end;
  gboolean wanted;

  if (!dp_conditioner_poll (p->spec.conditioner, first_pass->iteration, &wanted, error))
    return FALSE;
  while (wanted && first > 0 && first_pass->iteration - (first - 1) * p->queue.lag <= p->replan_steps)
    first--;
  for (gint64 block = first; block < end; block++) {
    Slot *slot = slot_of (p, block);

    if (!condition (p, block, error))
      return FALSE;
    slot->first_step = first_pass->iteration - block * p->queue.lag;
    slot->fresh = TRUE;         /* once its pass of the iteration before is back */
  }
  return TRUE;
}

/* A block is finished. */
static void
pace (DpPipeline *p, const Slot *slot, gint64 block, gint64 now)
{
  gint64 us = now - p->stats.start_us - dp_decoder_held_us (p->spec.decoder);

  g_mutex_lock (&p->lock);
  if (block > 0)                /* until the first one the pipeline filled */
    dp_recent_add (&p->stats.paces, (us - p->paced_us) / 1e6 / slot->n);
  g_mutex_unlock (&p->lock);
  p->paced_us = us;
}

/* Takes a block that came back around the ring; hands it to the decoder when it was its last step. */
static gboolean
absorb (DpPipeline *p, DpBlock *b)
{
  Slot *slot = slot_of (p, b->pass.block);
  DpDevice *dev = dp_stage_device (p->workers[0].stage);

  g_assert (slot->steps_done == b->pass.step);
  dev->ops->copy (dev, slot->latents, b->latents + b->context * p->latent_size, sizeof (float) * b->own * p->latent_size);
  slot->steps_done++;
  p->idle[p->n_idle++] = b;

  gint64 end = g_get_monotonic_time ();
  gboolean done = slot->steps_done == p->queue.steps;
  g_mutex_lock (&p->lock);
  p->stats.end_us = end;
  p->stats.passes++;
  p->stats.blocks += done;      /* before its first frame can be pulled */
  g_mutex_unlock (&p->lock);
  if (!done)
    return TRUE;
  pace (p, slot, b->pass.block, end);
  if (!dp_decoder_push (p->spec.decoder, dev, slot->latents, slot->n, b->pass.block, slot->conditioning)) {
    GError *error = NULL;

    if (!dp_error_check_device (dev, &error, "after block %" G_GINT64_FORMAT, b->pass.block))
      fail (p, error);
    return FALSE;
  }
  g_mutex_lock (&p->lock);
  p->stats.end_us = g_get_monotonic_time ();
  g_mutex_unlock (&p->lock);
  dp_trace_span (p->spec.trace, DP_TRACE_STAGE, "to decoder", -1, end, p->stats.end_us, "\"block\":%" G_GINT64_FORMAT, b->pass.block);
  return TRUE;
}

/* The states a pass needs: its own block's, and the previous block's as the iteration before this one left it. */
static gboolean
is_ready (DpPipeline *p, const DpPass *pass)
{
  if (p->n_idle == 0 || slot_of (p, pass->block)->steps_done != pass->step)
    return FALSE;
  return pass->block == 0 || slot_of (p, pass->block - 1)->steps_done == MIN (pass->step + p->queue.lag, p->queue.steps);
}

static DpBlock *
compose (DpPipeline *p, const DpPass *pass)
{
  DpBlock *b = p->idle[--p->n_idle];
  Slot *own = slot_of (p, pass->block), *previous = pass->block > 0 ? slot_of (p, pass->block - 1) : NULL;
  int C = p->spec.context_latents, T = p->queue.steps, lag = p->queue.lag;
  gint64 head = MAX (0, (pass->iteration - T + lag) / lag);
  DpDevice *dev = dp_stage_device (p->workers[0].stage);
  gsize frame = sizeof (float) * p->latent_size;

  if (own->fresh)
    draw_noise (p, pass->block);
  if (previous && previous->fresh)
    draw_noise (p, pass->block - 1);
  b->pass = *pass;
  b->first_step = own->first_step;
  b->own = own->n;
  b->context = previous ? MIN (C, previous->n) : 0;
  b->next_cached = pass->has_next ? MIN (C, dp_block_latents (pass->block + 1, p->spec.latents, p->spec.block_latents, C)) : 0;
  b->to_cache = previous && pass->step + lag < T ? MIN (C, own->n) : 0; /* the previous block is next, unless it has left */
  b->oldest_prompt = slot_of (p, head)->conditioning->id;
  dp_conditioning_unref (b->conditioning);
  b->conditioning = dp_conditioning_ref (own->conditioning);
  if (b->context)
    dev->ops->copy (dev, b->latents, previous->latents + (previous->n - b->context) * p->latent_size, frame * b->context);
  dev->ops->copy (dev, b->latents + b->context * p->latent_size, own->latents, frame * b->own);
  return b;
}

static gboolean
receive (DpPipeline *p, Worker *w)
{
  DpBlock *b = exchange (w, NULL, TRUE);

  return b && absorb (p, b);
}

static gboolean
send (DpPipeline *p, Worker *w, DpBlock *b)
{
  if (!run_stage (w, b))
    return FALSE;
  if (p->spec.n_stages == 1)
    return absorb (p, b);
  b = exchange (w, b, FALSE);
  return b == NULL || absorb (p, b);
}

static gboolean
drive (DpPipeline *p, Worker *w, GError **error)
{
  DpPass pass;

  while (dp_block_queue_next (&p->queue, &pass)) {
    if (!pass.has_next && !replan (p, &pass, error))    /* the first pass of an iteration */
      return FALSE;
    if (pass.step == 0 && !admit (p, pass.block, error))
      return FALSE;
    if (p->stats.start_us == 0) {
      g_mutex_lock (&p->lock);
      p->stats.start_us = g_get_monotonic_time ();
      g_mutex_unlock (&p->lock);
    }
    while (!is_ready (p, &pass))
      if (!receive (p, w))
        return FALSE;
    if (!send (p, w, compose (p, &pass)))
      return FALSE;
  }
  while (p->n_idle < p->n_blocks)
    if (!receive (p, w))
      return FALSE;
  dp_decoder_finish (p->spec.decoder);
  return TRUE;
}

static gboolean
setup_driver (DpPipeline *p, DpStage *stage, GError **error)
{
  p->blocks = g_new0 (DpBlock *, p->n_blocks);
  p->idle = g_new0 (DpBlock *, p->n_blocks);
  for (int i = 0; i < p->n_blocks; i++) {
    p->blocks[i] = p->idle[i] = dp_stage_block_new (stage, error);
    if (p->blocks[i] == NULL)
      return FALSE;
    p->n_idle++;
  }
  for (int pass = 0; pass < 2; pass++) {
    for (int i = 0; i < p->n_slots; i++)
      p->slots[i].latents = dp_arena_take (&p->arena, sizeof (float) * p->spec.stage.max_own * p->latent_size);
    if (pass == 0 && !dp_arena_allocate (&p->arena, dp_stage_device (stage), "the blocks in flight", error))
      return FALSE;
  }
  return TRUE;
}

/* ---- threads ---- */

static void
free_stage (DpPipeline *p, Worker *w, int linger)
{
  if (w->index == 0) {
    for (int i = 0; i < p->n_blocks && p->blocks; i++)
      dp_stage_block_free (w->stage, p->blocks[i]);
    dp_arena_free (&p->arena);
  }
  dp_stage_free (w->stage, linger);
}

static void
serve (DpPipeline *p, Worker *w)
{
  DpBlock *b = NULL;

  while ((b = exchange (w, b, TRUE)) && run_stage (w, b));
}

static gpointer
worker_thread (gpointer data)
{
  Worker *w = data;
  DpPipeline *p = w->pipeline;
  GError *error = NULL;
  gint64 start = g_get_monotonic_time ();

  if (dp_stage_load (w->stage, &error) && (w->index > 0 || setup_driver (p, w->stage, &error))) {
    dp_trace_span (p->spec.trace, DP_TRACE_STAGE + w->index, "load", -1, start, g_get_monotonic_time (), "\"first_layer\":%d,\"layers\":%d",
        w->first, w->last - w->first);
    p->spec.loaded (p->spec.user_data);
    if (w->index == 0)
      drive (p, w, &error);
    else
      serve (p, w);
  }
  if (error)
    fail (p, error);
  return NULL;
}

DpPipeline *
dp_pipeline_new (const DpPipelineSpec *spec, GError **error)
{
  DpPipeline *p;
  DpTransport *ends[DP_MAX_STAGES];
  gsize latent_size = (gsize) spec->stage.latent_h * spec->stage.latent_w * spec->stage.latent_channels;
  int n = spec->block_latents + spec->context_latents;
  float *noise = dp_arena_host_new (sizeof (float) * n * latent_size, "a block's noise", error);

  if (noise == NULL)
    return NULL;
  p = g_new0 (DpPipeline, 1);
  g_assert (spec->n_stages >= 1 && spec->n_stages <= DP_MAX_STAGES);
  p->spec = *spec;
  p->latent_size = latent_size;
  g_mutex_init (&p->lock);
  dp_block_queue_init (&p->queue, dp_sampler_steps (spec->stage.sampler), spec->queue_blocks,
      spec->latents < 0 ? G_MAXINT64 : dp_blocks_of (spec->latents, spec->block_latents, spec->context_latents));
  while (dp_sampler_sigma (spec->stage.sampler, p->replan_steps + 1) >= REPLAN_NOISE)
    p->replan_steps++;
  p->spec.stage.cancel = &p->cancel;
  p->n_slots = spec->stage.depth + 1;
  p->slots = g_new0 (Slot, p->n_slots);
  for (int i = 0; i < p->n_slots; i++)
    p->slots[i].pool_frames = g_new (int, n);
  p->n_blocks = spec->messages;
  p->pool = dp_noise_pool_new (spec->seed, spec->block_latents, spec->context_latents);
  p->noise = noise;

  dp_transport_local_new (spec->n_stages, p->n_blocks, ends);
  for (int i = 0; i < spec->n_stages; i++) {
    Worker *w = &p->workers[i];

    const DpPlanStage *stage = &spec->stages[i];

    *w = (Worker) { .pipeline = p, .index = i, .first = stage->first, .last = stage->last, .transport = ends[i] };
    w->stage = dp_stage_new (&p->spec.stage, stage->device, stage->threads, spec->weights, stage->first, stage->last);
  }
  for (int i = 0; i < spec->n_stages; i++) {
    g_autofree char *name = g_strdup_printf ("dp-stage-%d", i);
    p->workers[i].thread = g_thread_new (name, worker_thread, &p->workers[i]);
  }
  return p;
}

void
dp_pipeline_cancel (DpPipeline *p)
{
  g_atomic_int_set (&p->cancel, 1);
  p->workers[0].transport->shut_down (p->workers[0].transport);
}

void
dp_pipeline_free (DpPipeline *p, int linger)
{
  if (p == NULL)
    return;
  dp_pipeline_cancel (p);
  for (int i = 0; i < p->spec.n_stages; i++)
    g_thread_join (p->workers[i].thread);
  for (int i = p->spec.n_stages - 1; i >= 0; i--) {
    free_stage (p, &p->workers[i], linger);
    p->workers[i].transport->free (p->workers[i].transport);
  }
  for (int i = 0; i < p->n_slots; i++) {
    dp_conditioning_unref (p->slots[i].conditioning);
    g_free (p->slots[i].pool_frames);
  }
  dp_noise_pool_free (p->pool);
  g_mutex_clear (&p->lock);
  g_free (p->noise);
  g_free (p->slots);
  g_free (p->blocks);
  g_free (p->idle);
  g_free (p);
}

void
dp_pipeline_get_stats (DpPipeline *p, DpPipelineStats *stats)
{
  g_mutex_lock (&p->lock);
  *stats = p->stats;
  for (int i = 0; i < p->spec.n_stages; i++)
    stats->allocations += p->allocations[i];
  g_mutex_unlock (&p->lock);
}
