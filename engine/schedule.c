/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "schedule.h"
#include "noise.h"
#include "wan/arena.h"
#include "kernels/host.h"

#include <string.h>

#define REPLAN_NOISE 0.8        /* least noise level of a block in flight that restarts with a new prompt: docs/design.md, "Choices" */

/* A block in flight, or the one that left last. */
typedef struct
{
  float *latents;               /* [n, h, w, C] on the device, as they were after `steps_done` */
  int n;
  int steps_done;
  int first_step;               /* 0, or where it restarted */
  gboolean fresh;               /* its latents must become noise again */
  gboolean told;                /* the stages know its conditioning */
  int *pool_frames;             /* [B + C], what its noise is made of */
  DpConditioning *conditioning;
} Slot;

struct _DpSchedule
{
  DpScheduleSpec spec;
  DpDevice *dev;
  int replan_steps;             /* a block that has done at most so many restarts with a prompt that replans */
  DpBlockQueue queue;
  DpPass pass;                  /* the one at hand */
  int on_the_way, passes;       /* messages, and passes that they belong to */
  DpNoisePool *pool;
  float *noise;                 /* host, [B + C, h, w, C] */
  float *picture;               /* host, [h, w, C]: the first latent frame of the video, if it is given; else NULL */
  float *picture_noise;         /* likewise: what it would have begun with */
  Slot *slots;
  int n_slots;
  DpArena arena;
};

int
dp_schedule_depth (int steps, int queue_blocks)
{
  DpBlockQueue queue;

  dp_block_queue_init (&queue, steps, queue_blocks, G_MAXINT64);
  return dp_block_queue_depth (&queue);
}

/* One more than are in flight: the one that left last. */
static int
slots_for (int depth)
{
  return depth + 1;
}

gsize
dp_schedule_bytes (int depth, int max_own, gsize latent_size)
{
  return sizeof (float) * slots_for (depth) * max_own * latent_size;
}

DpSchedule *
dp_schedule_new (const DpScheduleSpec *spec, GError **error)
{
  int n = spec->block_latents + spec->context_latents;
  float *noise = dp_arena_host_new (sizeof (float) * n * spec->latent_size, "a block's noise", error);
  DpSchedule *s;

  if (noise == NULL)
    return NULL;
  s = g_new0 (DpSchedule, 1);
  s->spec = *spec;
  s->noise = noise;
  dp_block_queue_init (&s->queue, dp_sampler_steps (spec->sampler), spec->queue_blocks,
      spec->latents < 0 ? G_MAXINT64 : dp_blocks_of (spec->latents, spec->block_latents, spec->context_latents));
  while (dp_sampler_sigma (spec->sampler, s->replan_steps + 1) >= REPLAN_NOISE)
    s->replan_steps++;
  s->n_slots = slots_for (dp_block_queue_depth (&s->queue));
  s->slots = g_new0 (Slot, s->n_slots);
  for (int i = 0; i < s->n_slots; i++)
    s->slots[i].pool_frames = g_new (int, n);
  s->pool = dp_noise_pool_new (spec->seed, spec->block_latents, spec->context_latents);
  return s;
}

gboolean
dp_schedule_open (DpSchedule *s, DpDevice *dev, GError **error)
{
  s->dev = dev;
  for (int pass = 0; pass < 2; pass++) {
    for (int i = 0; i < s->n_slots; i++)
      s->slots[i].latents = dp_arena_take (&s->arena, sizeof (float) * s->spec.max_own * s->spec.latent_size);
    if (pass == 0 && !dp_arena_allocate (&s->arena, dev, "the blocks in flight", error))
      return FALSE;
  }
  return TRUE;
}

void
dp_schedule_close (DpSchedule *s)
{
  dp_arena_free (&s->arena);
}

void
dp_schedule_free (DpSchedule *s)
{
  if (s == NULL)
    return;
  for (int i = 0; i < s->n_slots; i++) {
    dp_conditioning_unref (s->slots[i].conditioning);
    g_free (s->slots[i].pool_frames);
  }
  dp_noise_pool_free (s->pool);
  g_free (s->noise);
  g_free (s->picture);
  g_free (s->picture_noise);
  g_free (s->slots);
  g_free (s);
}

static Slot *
slot_of (const DpSchedule *s, gint64 block)
{
  return &s->slots[block % s->n_slots];
}

const float *
dp_schedule_latents (const DpSchedule *s, gint64 block)
{
  return slot_of (s, block)->latents;
}

/* ---- admitting ---- */

static void
draw_noise (DpSchedule *s, gint64 block)
{
  const DpScheduleSpec *spec = &s->spec;
  Slot *slot = slot_of (s, block);
  const float *from = s->noise;

  if (spec->noise)
    from = spec->noise + dp_block_first (block, spec->block_latents, spec->context_latents) * spec->latent_size;
  for (int i = 0; i < slot->n && spec->noise == NULL; i++)
    dp_noise_fill (spec->seed, 0, slot->pool_frames[i] * spec->latent_size, spec->latent_size, s->noise + i * spec->latent_size);
  if (block == 0 && s->picture)
    memcpy (s->picture_noise, from, sizeof (float) * spec->latent_size);
  s->dev->ops->upload (s->dev, slot->latents, from, sizeof (float) * slot->n * spec->latent_size);
  slot->fresh = FALSE;
}

static gboolean
condition (DpSchedule *s, gint64 block, GError **error)
{
  Slot *slot = slot_of (s, block);
  DpConditioning *previous = block > 0 ? slot_of (s, block - 1)->conditioning : NULL;

  dp_conditioning_unref (slot->conditioning);
  slot->conditioning = s->spec.condition (s->spec.conditioner, block, previous, error);
  slot->told = FALSE;
  return slot->conditioning != NULL;
}

static gboolean
take_picture (DpSchedule *s, GError **error)
{
  const DpScheduleSpec *spec = &s->spec;
  gsize bytes = sizeof (float) * spec->latent_size;

  s->picture = dp_arena_host_new (bytes, "the picture's latents", error);
  s->picture_noise = s->picture ? dp_arena_host_new (bytes, "the picture's noise", error) : NULL;
  return s->picture_noise && spec->picture (spec->picture_data, s->picture, error);
}

/* The given frame as the model is to see it in a pass of `step`: clean, or with as much of its noise as the rest of the block has. */
static void
put_picture (DpSchedule *s, int step, float *latents)
{
  const DpScheduleSpec *spec = &s->spec;
  float sigma = spec->expand_timesteps ? 0 : (float) dp_sampler_sigma (spec->sampler, step), *noisy = s->noise;

  for (gsize i = 0; i < spec->latent_size; i++)
    noisy[i] = (1 - sigma) * s->picture[i] + sigma * s->picture_noise[i];
  s->dev->ops->upload (s->dev, latents, noisy, sizeof (float) * spec->latent_size);
}

static gboolean
admit (DpSchedule *s, gint64 block, GError **error)
{
  const DpScheduleSpec *spec = &s->spec;
  Slot *slot = slot_of (s, block);

  if (!condition (s, block, error) || (block == 0 && spec->picture && !take_picture (s, error)))
    return FALSE;
  slot->n = dp_block_latents (block, spec->latents, spec->block_latents, spec->context_latents);
  slot->steps_done = slot->first_step = 0;
  gint64 end = dp_block_first (block, spec->block_latents, spec->context_latents) + slot->n;
  if (spec->noise && end > spec->noise_latents) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "the noise given has %" G_GINT64_FORMAT " latent frames, but the video needs at least "
        "%" G_GINT64_FORMAT "; give more noise or ask for fewer frames", spec->noise_latents, end);
    return FALSE;
  }
  if (spec->noise && !dp_all_finite (DP_TYPE_F32, spec->noise + (end - slot->n) * spec->latent_size, slot->n * spec->latent_size)) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "the noise given has NaN or infinity in latent frames %" G_GINT64_FORMAT " to %"
        G_GINT64_FORMAT "; expected finite numbers", end - slot->n, end - 1);
    return FALSE;
  }
  dp_noise_pool_next (s->pool, slot->pool_frames);
  draw_noise (s, block);
  return TRUE;
}

/* Blocks in flight that have not come far restart with the new prompt; the others are all in front of them. Which those are follows
 * from the iteration, however far the passes on their way have come. They keep their places in the schedule: the steps that they
 * lose are made up for by one long one. */
static gboolean
replan (DpSchedule *s, GError **error)
{
  const DpPass *pass = &s->pass;
  gint64 end = pass->block + (pass->step > 0), first = end;
  gboolean wanted;

  if (!s->spec.poll (s->spec.conditioner, pass->iteration, &wanted, error))
    return FALSE;
  while (wanted && first > 0 && pass->iteration - (first - 1) * s->queue.lag <= s->replan_steps)
    first--;
  for (gint64 block = first; block < end; block++) {
    Slot *slot = slot_of (s, block);

    if (!condition (s, block, error))
      return FALSE;
    slot->first_step = pass->iteration - block * s->queue.lag;
    slot->fresh = TRUE;         /* once its pass of the iteration before is back */
  }
  return TRUE;
}

int
dp_schedule_next (DpSchedule *s, GError **error)
{
  if (!dp_block_queue_next (&s->queue, &s->pass))
    return 0;
  if (!s->pass.has_next && !replan (s, error))  /* the first pass of an iteration */
    return -1;
  return s->pass.step > 0 || admit (s, s->pass.block, error) ? 1 : -1;
}

/* ---- passes ---- */

/* Whether the stages hold what the pass at hand needs of the previous block. They hold keys and values that have seen that block's prompt
 * and, if it restarted, what it was before: where it matters, the context is recomputed in all steps of the block. */
static gboolean
is_cached (const DpSchedule *s)
{
  const Slot *own = slot_of (s, s->pass.block), *previous;

  if (!s->spec.cached || s->pass.block == 0)
    return FALSE;
  previous = slot_of (s, s->pass.block - 1);
  return own->conditioning->id == previous->conditioning->id && previous->first_step == 0;
}

/* Messages of a block's pass of a step: whether it is guided follows from the noise that the model is told. */
static int
elements_of (const DpSchedule *s, gint64 block, int step)
{
  int told = dp_block_told_step (step, slot_of (s, block)->first_step);

  return told >= s->spec.guided_first && told < s->spec.guided_end ? 2 : 1;
}

int
dp_schedule_elements (const DpSchedule *s)
{
  return elements_of (s, s->pass.block, s->pass.step);
}

/* Its own block's state, and the previous block's as the iteration before this one left it. What the stages hold of the previous block is
 * right when the pass gets there, because passes do not overtake each other. There are no slots for more passes than blocks in flight: with
 * a cached context and a queue of one step, nothing else would stop them. */
gboolean
dp_schedule_is_ready (const DpSchedule *s)
{
  const DpPass *pass = &s->pass;

  if (s->on_the_way + dp_schedule_elements (s) > s->spec.messages || s->passes == dp_block_queue_depth (&s->queue)
      || slot_of (s, pass->block)->steps_done != pass->step)
    return FALSE;
  return pass->block == 0 || is_cached (s) || slot_of (s, pass->block - 1)->steps_done == MIN (pass->step + s->queue.lag, s->queue.steps);
}

void
dp_schedule_compose (DpSchedule *s, int element, DpBlock *b)
{
  const DpScheduleSpec *spec = &s->spec;
  const DpPass *pass = &s->pass;
  Slot *own = slot_of (s, pass->block), *previous = pass->block > 0 ? slot_of (s, pass->block - 1) : NULL;
  int C = spec->context_latents, T = s->queue.steps, lag = s->queue.lag, in_front = previous ? MIN (C, previous->n) : 0;
  gboolean cached = is_cached (s), kept = spec->cached && pass->step >= lag - 1 && pass->block < s->queue.blocks - 1;
  int previous_step = dp_block_queue_previous_step (&s->queue, pass->step);
  gint64 head = MAX (0, (pass->iteration - T + lag) / lag);
  gsize frame = sizeof (float) * spec->latent_size;

  g_assert (element > 0 || dp_schedule_is_ready (s));
  if (own->fresh)
    draw_noise (s, pass->block);
  if (previous && previous->fresh && !cached)
    draw_noise (s, pass->block - 1);
  b->header = (DpBlockHeader) {
    .block = pass->block, .iteration = pass->iteration, .step = pass->step, .first_step = own->first_step, .own = own->n,
    .context = cached ? 0 : in_front,
    .previous_cached = cached ? in_front : 0, .previous_step = previous_step,
    .previous_element = cached ? MIN (element, elements_of (s, pass->block - 1, previous_step) - 1) : 0,
    .to_keep = kept ? MIN (C, own->n) : 0,
    .next_cached = pass->has_next ? MIN (C, dp_block_latents (pass->block + 1, spec->latents, spec->block_latents, C)) : 0,
    .next_element = pass->has_next ? MIN (element, elements_of (s, pass->block + 1, pass->step - lag) - 1) : 0,
    .to_cache = previous && pass->step + lag < T ? MIN (C, own->n) : 0, /* the previous block is next, unless it has left */
    .given = s->picture && pass->block == 0 && spec->expand_timesteps,
    .element = element, .elements = dp_schedule_elements (s), .prompt = own->conditioning->id,
    .oldest_prompt = slot_of (s, head)->conditioning->id };
  if (b->header.context)
    s->dev->ops->copy (s->dev, b->latents, previous->latents + (previous->n - b->header.context) * spec->latent_size,
        frame * b->header.context);
  s->dev->ops->copy (s->dev, b->latents + b->header.context * spec->latent_size, own->latents, frame * own->n);
  if (s->picture && pass->block == 0)
    put_picture (s, dp_block_told_step (pass->step, own->first_step), b->latents);
  s->on_the_way++;
  s->passes += element == 0;
}

DpConditioning *
dp_schedule_tell (DpSchedule *s)
{
  Slot *slot = slot_of (s, s->pass.block);

  for (int i = 0; i < s->n_slots; i++)
    if (s->slots[i].conditioning == slot->conditioning)
      slot->told |= s->slots[i].told;
  if (slot->told)
    return NULL;
  slot->told = TRUE;
  return slot->conditioning;
}

gboolean
dp_schedule_absorb (DpSchedule *s, const DpBlock *b, DpFinished *finished)
{
  const DpBlockHeader *h = &b->header;
  Slot *slot = slot_of (s, h->block);

  g_assert (slot->steps_done == h->step && s->on_the_way >= h->elements);
  s->dev->ops->copy (s->dev, slot->latents, b->latents + h->context * s->spec.latent_size,
      sizeof (float) * h->own * s->spec.latent_size);
  slot->steps_done++;
  if (s->picture && h->block == 0 && slot->steps_done == s->queue.steps)
    put_picture (s, slot->steps_done, slot->latents);   /* for the decoder: noise level 0 */
  s->on_the_way -= h->elements;
  s->passes--;
  *finished = (DpFinished) { h->block, slot->latents, slot->n, slot->conditioning };
  return slot->steps_done == s->queue.steps;
}

int
dp_schedule_on_the_way (const DpSchedule *s)
{
  return s->on_the_way;
}
