/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ring.h"
#include "schedule.h"

struct _DpRing
{
  /* -- immutable -- */
  DpRingSpec spec;
  DpSchedule *schedule;
  DpStage *stages[DP_MAX_STAGES];
  DpTransport *ends[DP_MAX_STAGES];
  DpWorker *workers[DP_MAX_STAGES];
  int cancel;                   /* atomic */
};

void
dp_ring_layers (int layers, int stages, int index, int *first, int *last)
{
  int each = layers / stages, more = layers % stages;

  *first = index * each + MIN (index, more);
  *last = *first + each + (index < more);
}

int
dp_ring_messages (int stages, int depth)
{
  return stages == 1 ? 1 : MIN (depth, stages + 1);
}

static DpConditioning *
condition (gpointer conditioner, gint64 block, DpConditioning *previous, GError **error)
{
  return dp_conditioner_for_block (conditioner, block, previous, error);
}

static gboolean
poll_prompts (gpointer conditioner, gint64 iteration, gboolean *replan, GError **error)
{
  return dp_conditioner_poll (conditioner, iteration, replan, error);
}

static void
failed (GError *error, gpointer data)
{
  DpRing *ring = data;

  if (g_atomic_int_get (&ring->cancel))
    g_error_free (error);
  else
    ring->spec.failed (error, ring->spec.user_data);
  dp_ring_cancel (ring);
}

DpRing *
dp_ring_new (const DpRingSpec *spec, GError **error)
{
  DpRing *ring = g_new0 (DpRing, 1);
  int depth = dp_schedule_depth (dp_sampler_steps (spec->stage.sampler), spec->queue_blocks);
  gsize latent_size = (gsize) spec->stage.latent_h * spec->stage.latent_w * spec->stage.dit.in_channels;

  g_assert (spec->n_stages >= 1 && spec->n_stages <= DP_MAX_STAGES);
  ring->spec = *spec;
  ring->spec.stage.depth = depth;
  ring->spec.stage.cancel = &ring->cancel;
  ring->schedule = dp_schedule_new (&(DpScheduleSpec) {
      .sampler = spec->stage.sampler, .block_latents = spec->block_latents, .context_latents = spec->context_latents,
      .queue_blocks = spec->queue_blocks, .latents = spec->latents, .max_own = spec->stage.max_own, .latent_size = latent_size,
      .messages = dp_ring_messages (spec->n_stages, depth), .seed = spec->seed, .noise = spec->noise,
      .noise_latents = spec->noise_latents, .condition = condition, .poll = poll_prompts, .conditioner = spec->conditioner }, error);
  if (ring->schedule == NULL) {
    g_free (ring);
    return NULL;
  }
  dp_transport_local_new (spec->n_stages, ring->ends);
  for (int i = 0; i < spec->n_stages; i++) {
    int first, last;

    dp_ring_layers (spec->stage.dit.layers, spec->n_stages, i, &first, &last);
    ring->stages[i] = dp_stage_new (&ring->spec.stage, spec->devices[i], spec->threads, spec->weights, first, last);
  }
  for (int i = 0; i < spec->n_stages; i++)
    ring->workers[i] = dp_worker_new (&(DpWorkerSpec) {
        .index = i, .stages = spec->n_stages, .stage = ring->stages[i], .transport = ring->ends[i],
        .schedule = i == 0 ? ring->schedule : NULL, .decoder = spec->decoder, .trace = spec->trace, .cancel = &ring->cancel,
        .loaded = spec->loaded, .loaded_data = spec->user_data, .failed = failed, .failed_data = ring });
  return ring;
}

void
dp_ring_cancel (DpRing *ring)
{
  g_atomic_int_set (&ring->cancel, 1);
  ring->ends[0]->shut_down (ring->ends[0]);
}

void
dp_ring_free (DpRing *ring, int linger)
{
  if (ring == NULL)
    return;
  dp_ring_cancel (ring);
  for (int i = 0; i < ring->spec.n_stages; i++)
    dp_worker_join (ring->workers[i]);
  /* only now is nothing queued any more, on any device, that uses what lies on another one */
  for (int i = 0; i < ring->spec.n_stages; i++)
    ring->ends[i]->close (ring->ends[i]);
  dp_schedule_close (ring->schedule);
  for (int i = ring->spec.n_stages - 1; i >= 0; i--) {
    dp_worker_free (ring->workers[i]);
    dp_stage_free (ring->stages[i], linger);
    ring->ends[i]->free (ring->ends[i]);
  }
  dp_schedule_free (ring->schedule);
  g_free (ring);
}

void
dp_ring_get_stats (DpRing *ring, DpRingStats *stats)
{
  *stats = (DpRingStats) { 0 };
  for (int i = 0; i < ring->spec.n_stages; i++) {
    DpWorkerStats s;

    dp_worker_get_stats (ring->workers[i], &s);
    stats->busy_us[i] = s.busy_us;
    stats->bytes[i] = s.bytes;
    stats->allocations += s.allocations;
    if (i == 0)
      stats->first = s;
  }
}
