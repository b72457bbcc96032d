/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ring.h"
#include "schedule.h"
#include "session.h"

struct _DpRing
{
  /* -- immutable -- */
  DpRingSpec spec;
  int n_stages;                 /* of this process */
  DpSession *session;           /* of the other ranks, or NULL: there are none */
  DpStageSpec stage;
  DpSchedule *schedule;
  DpStage *stages[DP_MAX_STAGES];
  DpTransport *ends[DP_MAX_STAGES];
  DpWorker *workers[DP_MAX_STAGES];
  int cancel;                   /* atomic */
};

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

static void
remote_loaded (gpointer data)
{
  DpRing *ring = data;

  ring->spec.loaded (ring->spec.user_data);
}

DpRing *
dp_ring_new (const DpRingSpec *spec, GError **error)
{
  const DpPlan *plan = spec->plan;
  const DpSettings *s = &plan->settings;
  DpRing *ring = g_new0 (DpRing, 1);

  ring->spec = *spec;
  ring->n_stages = plan->across ? 1 : plan->n_stages;
  ring->stage = dp_plan_stage_spec (plan);
  ring->stage.cancel = &ring->cancel;
  ring->schedule = dp_schedule_new (&(DpScheduleSpec) {
      .sampler = plan->sampler, .block_latents = s->block_latents, .context_latents = plan->context_latents,
      .queue_blocks = s->queue_blocks, .latents = plan->latents, .max_own = plan->max_own, .latent_size = dp_plan_latent_size (plan),
      .messages = plan->messages, .guided_first = plan->guided_first, .guided_end = plan->guided_end, .cached = plan->kept_blocks > 0,
      .seed = s->seed, .noise = s->noise, .noise_latents = s->noise_latents,
      .picture = spec->picture ? dp_picture_encode : NULL, .picture_data = spec->picture,
      .expand_timesteps = plan->model->config.expand_timesteps, .condition = condition, .poll = poll_prompts, .conditioner = spec->conditioner }, error);
  if (ring->schedule && plan->across)
    ring->session = dp_session_new (&(DpSessionSpec) { .plan = plan, .trace = spec->trace, .loaded = remote_loaded, .failed = failed,
        .user_data = ring }, error);
  if (ring->schedule == NULL || (plan->across && ring->session == NULL)) {
    dp_schedule_free (ring->schedule);
    g_free (ring);
    return NULL;
  }
  if (ring->session)
    ring->ends[0] = dp_session_end (ring->session);
  else
    dp_transport_local_new (ring->n_stages, ring->ends);
  for (int i = 0; i < ring->n_stages; i++) {
    const DpPlanStage *stage = &plan->stages[i];

    ring->stages[i] = dp_stage_new (&ring->stage, stage->device, stage->threads, spec->weights, stage->halves);
  }
  return ring;
}

gboolean
dp_ring_start (DpRing *ring, GError **error)
{
  const DpRingSpec *spec = &ring->spec;

  for (int i = 0; i < ring->n_stages; i++) {
    ring->workers[i] = dp_worker_new (&(DpWorkerSpec) {
        .index = i, .stages = spec->plan->n_stages, .stage = ring->stages[i], .transport = ring->ends[i],
        .schedule = i == 0 ? ring->schedule : NULL, .decoder = spec->decoder, .previewer = spec->previewer,
        .trace = spec->trace, .cancel = &ring->cancel, .loaded = spec->loaded, .loaded_data = spec->user_data, .failed = failed, .failed_data = ring }, error);
    if (ring->workers[i] == NULL)
      return FALSE;
  }
  if (ring->session)
    dp_session_start (ring->session);
  return TRUE;
}

void
dp_ring_cancel (DpRing *ring)
{
  g_atomic_int_set (&ring->cancel, 1);
  if (ring->session)
    dp_session_finish (ring->session);
  else
    ring->ends[0]->shut_down (ring->ends[0]);
}

void
dp_ring_collect (DpRing *ring)
{
  if (ring->session && !g_atomic_int_get (&ring->cancel))
    dp_session_collect (ring->session);
}

void
dp_ring_free (DpRing *ring, int linger)
{
  if (ring == NULL)
    return;
  if (ring->spec.trace)
    dp_ring_collect (ring);
  dp_ring_cancel (ring);
  for (int i = 0; i < ring->n_stages; i++)
    dp_worker_join (ring->workers[i]);
  /* only now is nothing queued any more, on any device, that uses what lies on another one */
  for (int i = 0; i < ring->n_stages; i++)
    ring->ends[i]->close (ring->ends[i]);
  dp_schedule_close (ring->schedule);
  for (int i = ring->n_stages - 1; i >= 0; i--) {
    dp_worker_free (ring->workers[i]);
    dp_stage_free (ring->stages[i], linger);
    if (ring->session == NULL)
      ring->ends[i]->free (ring->ends[i]);
  }
  dp_session_free (ring->session);
  dp_schedule_free (ring->schedule);
  g_free (ring);
}

void
dp_ring_get_stats (DpRing *ring, DpRingStats *stats)
{
  *stats = (DpRingStats) { 0 };
  for (int i = 0; i < ring->n_stages; i++) {
    DpWorkerStats s;

    dp_worker_get_stats (ring->workers[i], &s);
    stats->busy_us[i] = s.busy_us;
    stats->pass_seconds[i] = dp_recent_percentile (&s.pass_seconds, 50);
    stats->bytes[i] = s.bytes;
    stats->allocations += s.allocations;
    if (i == 0)
      stats->first = s;
  }
  for (int i = ring->n_stages; i < ring->spec.plan->n_stages; i++) {
    DpRemoteStats s;

    dp_session_get_stats (ring->session, i, &s);
    stats->busy_us[i] = s.busy_us;
    stats->pass_seconds[i] = s.pass_seconds;
    stats->bytes[i] = s.bytes;
    stats->allocations += s.allocations;
  }
}
