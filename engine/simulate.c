/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "simulate.h"
#include "schedule.h"

/* A message on its way: which stage has it, and when it arrives there or is computed. */
typedef struct
{
  DpBlock block;
  int stage;                    /* that computes it, or to which it goes */
  gboolean computing;
  double at;                    /* when it is there, or computed */
} Message;

typedef struct
{
  const DpPlan *plan;
  const DpRingTimes *times;
  DpSchedule *schedule;
  int element;                  /* of the pass at hand, which is next */
  GArray *messages;             /* of Message, in the order in which they were sent */
  float *latents;               /* one block's; nothing looks at them */
  double now;
  double free_at[DP_MAX_STAGES];        /* when each device has done what it has */
  double link_free_at[DP_MAX_STAGES];   /* when tokens may start on the way to each stage */
  double busy[DP_MAX_STAGES];           /* seconds, while blocks [from, to) were the next to finish */
  double *admitted, *finished;  /* [blocks] */
  int blocks, n_finished;
  int from, to;                 /* in between the queue is full: it has filled, and does not empty yet */
} Ring;

static DpConditioning *
condition (gpointer conditioner, gint64 block, DpConditioning *previous, GError **error)
{
  return dp_conditioning_ref (conditioner);
}

static gboolean
poll_prompts (gpointer conditioner, gint64 iteration, gboolean *replan, GError **error)
{
  *replan = FALSE;
  return TRUE;
}

/* The device of a stage takes so many seconds more. Returns when it is done. */
static double
occupy (Ring *r, int stage, double seconds)
{
  r->free_at[stage] = MAX (r->free_at[stage], r->now) + seconds;
  if (r->n_finished >= r->from && r->n_finished < r->to)
    r->busy[stage] += seconds;
  return r->free_at[stage];
}

/* Stage 0 begins with the next message, if it may. Returns FALSE when there is none. */
static gboolean
start_pass (Ring *r, gboolean *more, GError **error)
{
  Message m = { .block.latents = r->latents, .computing = TRUE };

  if (!*more || r->free_at[0] > r->now || (r->element == 0 && !dp_schedule_is_ready (r->schedule)))
    return FALSE;
  dp_schedule_compose (r->schedule, r->element, &m.block);
  if (m.block.header.step == 0 && r->element == 0)
    r->admitted[m.block.header.block] = r->now;
  m.at = occupy (r, 0, r->times->stage[0][r->element]);
  g_array_append_val (r->messages, m);
  r->element = (r->element + 1) % dp_schedule_elements (r->schedule);
  if (r->element == 0)
    *more = dp_schedule_next (r->schedule, error) > 0;
  return TRUE;
}

static void
take_in (Ring *r, const DpBlock *b)
{
  DpFinished f;

  if (!dp_schedule_absorb (r->schedule, b, &f))
    return;
  r->finished[r->n_finished++] = r->now;
  occupy (r, dp_plan_decoder_stage (r->plan), r->times->decode);
}

/* When a message that leaves now for a stage is there. Stage 0 gets latents, which are small. */
static double
arrival (Ring *r, int stage, const DpBlockHeader *h)
{
  double start = MAX (r->now, r->link_free_at[stage]);

  if (r->plan->n_stages == 1)
    return r->now;
  r->link_free_at[stage] = stage > 0 ? start + (h->context + h->own) * r->times->hop_frame : start;
  return r->link_free_at[stage] + r->times->hop;
}

/* What is due now moves on. */
static void
move (Ring *r)
{
  int last = r->plan->n_stages - 1;

  for (guint i = 0; i < r->messages->len; i++) {
    Message *m = &g_array_index (r->messages, Message, i);

    if (m->at > r->now)
      continue;
    if (m->computing && m->stage == last && m->block.header.element < m->block.header.elements - 1) {
      g_array_remove_index (r->messages, i--);  /* its velocity stays here */
    } else if (m->computing) {  /* it leaves; alone, it is back already */
      m->computing = FALSE;
      m->stage = m->stage == last ? 0 : m->stage + 1;
      m->at = arrival (r, m->stage, &m->block.header);
      i--;
    } else if (m->stage == 0) {
      take_in (r, &m->block);
      g_array_remove_index (r->messages, i--);
    } else if (r->free_at[m->stage] <= r->now) {
      m->computing = TRUE;
      m->at = occupy (r, m->stage, r->times->stage[m->stage][m->block.header.element]);
    }
  }
}

/* When something happens next. */
static double
next_time (const Ring *r)
{
  double next = G_MAXDOUBLE;

  for (guint i = 0; i < r->messages->len; i++) {
    const Message *m = &g_array_index (r->messages, Message, i);

    next = MIN (next, m->at > r->now ? m->at : r->free_at[m->stage]);
  }
  return r->free_at[0] > r->now ? MIN (next, r->free_at[0]) : next;
}

static gboolean
play (Ring *r, GError **error)
{
  gboolean more = dp_schedule_next (r->schedule, error) > 0;

  while (more || r->messages->len > 0) {
    while (start_pass (r, &more, error));
    r->now = next_time (r);
    move (r);
  }
  return error == NULL || *error == NULL;
}

static void
sum_up (const Ring *r, DpRingSpeed *speed)
{
  double seconds = r->finished[r->to - 1] - r->finished[r->from - 1];

  *speed = (DpRingSpeed) { .first = r->finished[0], .block = seconds / (r->to - r->from),
    .latency = r->finished[r->to - 1] - r->admitted[r->to - 1] };
  for (int i = 0; i < r->plan->n_stages; i++)
    speed->busy[i] = r->busy[i] / seconds;
}

gboolean
dp_simulate (const DpPlan *plan, const DpRingTimes *times, int blocks, DpRingSpeed *speed, GError **error)
{
  const DpSettings *s = &plan->settings;
  DpConditioning prompt = { .refs = 1 };
  Ring r = { .plan = plan, .times = times, .blocks = MAX (blocks, 4 * plan->depth) };
  char message[256];

  r.from = r.blocks / 2;
  r.to = r.blocks - plan->depth;
  DpDevice *dev = dp_device_open ("ref", 1, message, sizeof message);
  gboolean ok;

  r.schedule = dp_schedule_new (&(DpScheduleSpec) {
      .sampler = plan->sampler, .block_latents = s->block_latents, .context_latents = plan->context_latents,
      .queue_blocks = s->queue_blocks, .latents = plan->context_latents + (gint64) r.blocks * s->block_latents,
      .max_own = s->block_latents + plan->context_latents, .latent_size = 1, .messages = plan->messages,
      .guided_first = plan->guided_first, .guided_end = plan->guided_end,
      .cached = plan->kept_blocks > 0, .condition = condition, .poll = poll_prompts, .conditioner = &prompt }, error);
  ok = dev && r.schedule && dp_schedule_open (r.schedule, dev, error);
  if (ok) {
    r.messages = g_array_new (FALSE, FALSE, sizeof (Message));
    r.latents = g_new0 (float, s->block_latents + 2 * plan->context_latents);
    r.admitted = g_new0 (double, r.blocks);
    r.finished = g_new0 (double, r.blocks);
    ok = play (&r, error);
    if (ok)
      sum_up (&r, speed);
    g_array_unref (r.messages);
  }
  if (r.schedule)
    dp_schedule_close (r.schedule);
  dp_schedule_free (r.schedule);
  dp_device_close (dev);
  g_free (r.latents);
  g_free (r.admitted);
  g_free (r.finished);
  return ok;
}
