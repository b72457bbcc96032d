/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stage.h"
#include "wan/arena.h"
#include "dualparal.h"
#include "wan/device_error.h"
#include "part_cache.h"

#include <string.h>

/* A prompt whose blocks are on their way. */
typedef struct
{
  DpConditioning *conditioning;
  DpDitText *texts[2][2];       /* by expert and element; NULL until a pass wants it */
} Prompt;

/* Keys and values that a pass left, and which pass it was. */
typedef struct
{
  DpDitCache *cache;            /* its own; what was kept may lie elsewhere */
  const DpDitCache *at;
  gint64 block, iteration;
  int step;
  guint32 prompt;
} Kept;

/* The feature cache of one element of guidance. */
typedef struct
{
  Kept heads[2];                /* one is read (the following block's), one is written (this block's) */
  int written;                  /* index of the one the last pass wrote */
  Kept *tails;                  /* [kept_blocks] by block number, of each block's latest pass */
} Element;

/* What is loaded. */
typedef struct
{
  DpPart warm;
  DpDit *dits[2];               /* the experts; they work in the scratch of the first */
} Layers;

struct _DpStage
{
  DpStageSpec spec;
  const char *device;
  const DpWeights *weights[2];
  int threads;
  DpHalves halves[2];           /* of each element */
  Layers *layers;
  DpDit *const *dits;           /* the layers' */
  DpDevice *dev;                /* the same, once they are loaded */

  Element elements[2];
  GArray *prompts;              /* of Prompt */

  /* -- only on the last stage -- */
  DpArena arena;
  float *velocities[2];         /* of each element [own, h, w, C] */
  DpSamplerState *states;       /* [depth], by block number */
};

static gsize
latent_size (const DpStage *s)
{
  return (gsize) s->spec.latent_h * s->spec.latent_w * s->spec.latent_channels;
}

/* The last stage is so for all elements. */
static gboolean
is_last (const DpStage *s)
{
  return s->halves[0].last == 2 * s->spec.dit.layers;
}

static gboolean
setup_sampling (DpStage *s, GError **error)
{
  gsize n = s->spec.max_own * latent_size (s), state_bytes = dp_sampler_state_bytes (s->spec.sampler, n);

  s->states = g_new0 (DpSamplerState, s->spec.depth);
  for (int i = 0; i < 2; i++) {
    for (int e = 0; e < s->spec.elements; e++)
      s->velocities[e] = dp_arena_take (&s->arena, sizeof (float) * n);
    for (int b = 0; b < s->spec.depth; b++) {
      void *memory = dp_arena_take (&s->arena, state_bytes);
      if (i == 1)
        dp_sampler_state_init (s->spec.sampler, &s->states[b], memory, n);
    }
    if (i == 0 && !dp_arena_allocate (&s->arena, s->dev, "the samplers' history", error))
      return FALSE;
  }
  return TRUE;
}

/* Behind those of the steps, that of what is clean. */
static int
n_timesteps (const DpStageSpec *spec)
{
  return dp_sampler_steps (spec->sampler) + spec->expand_timesteps;
}

/* All but what is there only once it is loaded: lender and timesteps. */
static DpDitSpec
dit_spec (const DpStageSpec *spec, const DpHalves halves[2])
{
  DpHalves all = { MIN (halves[0].first, halves[1].first), MAX (halves[0].last, halves[1].last) };

  return (DpDitSpec) { .halves = all, .type = spec->type, .fp8 = spec->fp8, .latent_h = spec->latent_h,
    .latent_w = spec->latent_w, .max_input = spec->max_input, .max_keys = spec->max_input + spec->max_cached,
    .max_cached = spec->max_cached, .steps = n_timesteps (spec) };
}

gsize
dp_stage_block_bytes (const DpStageSpec *spec)
{
  gsize pixels = (gsize) spec->max_input * spec->latent_h * spec->latent_w;

  return sizeof (float) * pixels * (spec->latent_channels + (gsize) spec->dit.heads * spec->dit.head_dim / 4);
}

gsize
dp_stage_kept_bytes (const DpStageSpec *spec, const DpHalves halves[2])
{
  DpDitSpec dit = dit_spec (spec, halves);
  gsize bytes = 0;

  for (int e = 0; e < spec->elements; e++)
    bytes += spec->kept_blocks * dp_dit_cache_bytes (&spec->dit, &dit, halves[e]);
  return bytes;
}

gsize
dp_stage_bytes (const DpStageSpec *spec, const DpHalves halves[2])
{
  DpDitSpec dit = dit_spec (spec, halves);
  gsize n = (gsize) spec->max_own * spec->latent_h * spec->latent_w * spec->latent_channels;
  gsize bytes = dp_dit_bytes (&spec->dit, &dit, spec->experts) + dp_stage_kept_bytes (spec, halves);

  for (int e = 0; e < spec->elements; e++)
    bytes += 2 * dp_dit_cache_bytes (&spec->dit, &dit, halves[e])
      + spec->experts * dp_dit_text_bytes (&spec->dit, &dit, halves[e], spec->text_length);
  if (halves[0].last == 2 * spec->dit.layers)
    bytes += sizeof (float) * spec->elements * n + spec->depth * dp_sampler_state_bytes (spec->sampler, n);
  return bytes;
}

static void
free_layers (DpPart *warm)
{
  Layers *layers = (Layers *) warm;

  dp_dit_free (layers->dits[1]);        /* before its lender */
  dp_dit_free (layers->dits[0]);
}

static float *
timesteps_of (const DpStage *s)
{
  int steps = dp_sampler_steps (s->spec.sampler);
  float *timesteps = g_new0 (float, steps + 1);

  for (int i = 0; i < steps; i++)
    timesteps[i] = dp_sampler_timestep (s->spec.sampler, i);
  return timesteps;
}

/* All that the part is made from. */
static GString *
layers_key (const DpStage *s)
{
  const DpStageSpec *spec = &s->spec;
  g_autofree float *timesteps = timesteps_of (s);
  GString *key = g_string_new (NULL);
  DpHalves h = dit_spec (spec, s->halves).halves;

  g_string_printf (key, "halves %d-%d, %s, %d threads, type %d, fp8 %d, %d x %d, %d and %d latent frames", h.first, h.last, s->device,
      s->threads, spec->type, spec->fp8, spec->latent_h, spec->latent_w, spec->max_input, spec->max_cached);
  dp_part_cache_key_add_numbers (key, &spec->dit, sizeof spec->dit);
  dp_part_cache_key_add_numbers (key, timesteps, sizeof *timesteps * n_timesteps (spec));
  for (int i = 0; i < 2 && s->weights[i]; i++)
    dp_part_cache_key_add_weights (key, s->weights[i]);
  return key;
}

DpStage *
dp_stage_new (const DpStageSpec *spec, const char *device, int threads, const DpWeights *const weights[2],
    const DpHalves halves[2])
{
  DpStage *s = g_new0 (DpStage, 1);

  s->spec = *spec;
  s->device = device;
  s->threads = threads;
  s->weights[0] = weights[0];
  s->weights[1] = weights[1];
  memcpy (s->halves, halves, sizeof s->halves);
  s->prompts = g_array_new (FALSE, FALSE, sizeof (Prompt));
  s->layers = dp_part_cache_take (sizeof (Layers), layers_key (s), free_layers);
  s->dits = s->layers->dits;
  return s;
}

static gboolean
load_layers (DpStage *s, GError **error)
{
  const DpStageSpec *spec = &s->spec;
  Layers *layers = s->layers;
  g_autofree float *timesteps = timesteps_of (s);
  DpDitSpec dit = dit_spec (spec, s->halves);

  dit.timesteps = timesteps;
  if (!dp_part_cache_open_device (&layers->warm, s->device, s->threads, error))
    return FALSE;
  layers->warm.dev->cancel = spec->cancel;
  for (int i = 0; i < 2 && s->weights[i]; i++) {
    dit.lender = layers->dits[0];
    layers->dits[i] = dp_dit_new (layers->warm.dev, &spec->dit, s->weights[i], &dit, error);
    if (layers->dits[i] == NULL)
      return FALSE;
  }
  dp_part_cache_loaded (&layers->warm);
  return TRUE;
}

static gboolean
kept_open (DpStage *s, int element, Kept *kept, GError **error)
{
  *kept = (Kept) { .cache = dp_dit_cache_new (s->dits[0], s->halves[element], error), .block = -1 };
  return kept->cache != NULL;
}

static gboolean
open_caches (DpStage *s, int element, GError **error)
{
  Element *e = &s->elements[element];

  e->tails = g_new0 (Kept, s->spec.kept_blocks);
  for (int i = 0; i < 2; i++)
    if (!kept_open (s, element, &e->heads[i], error))
      return FALSE;
  for (int i = 0; i < s->spec.kept_blocks; i++)
    if (!kept_open (s, element, &e->tails[i], error))
      return FALSE;
  return TRUE;
}

gboolean
dp_stage_load (DpStage *s, GError **error)
{
  if (!s->layers->warm.loaded && !load_layers (s, error))
    return FALSE;
  s->dev = s->layers->warm.dev;
  s->dev->cancel = s->spec.cancel;
  for (int i = 0; i < s->spec.elements && s->spec.max_cached > 0; i++)
    if (!open_caches (s, i, error))
      return FALSE;
  return !is_last (s) || setup_sampling (s, error);
}

static void
prompt_clear (DpStage *s, Prompt *p)
{
  dp_conditioning_unref (p->conditioning);
  for (int i = 0; i < 4; i++)
    dp_dit_text_free (s->dits[i / 2], p->texts[i / 2][i % 2]);
}

void
dp_stage_free (DpStage *s, int linger)
{
  if (s == NULL)
    return;
  for (guint i = 0; i < s->prompts->len; i++)
    prompt_clear (s, &g_array_index (s->prompts, Prompt, i));
  g_array_unref (s->prompts);
  for (int i = 0; i < 2; i++) {
    Element *e = &s->elements[i];

    for (int j = 0; j < 2; j++)
      dp_dit_cache_free (s->dits[0], e->heads[j].cache);
    for (int j = 0; j < s->spec.kept_blocks && e->tails; j++)
      dp_dit_cache_free (s->dits[0], e->tails[j].cache);
    g_free (e->tails);
  }
  dp_arena_free (&s->arena);
  dp_part_cache_give (&s->layers->warm, linger);
  g_free (s->states);
  g_free (s);
}

DpDevice *
dp_stage_device (DpStage *s)
{
  return s->dev;
}

DpHalves
dp_stage_halves (const DpStage *s, int element)
{
  return s->halves[element];
}

void
dp_stage_block_size (const DpStage *s, DpBlockSize *size)
{
  *size = (DpBlockSize) { .frames = s->spec.max_input, .latents = latent_size (s),
    .tokens = (gsize) dp_dit_tokens_per_frame (s->dits[0]) * s->spec.dit.heads * s->spec.dit.head_dim,
    .given = s->spec.expand_timesteps, .steps = dp_sampler_steps (s->spec.sampler) };
}

/* ---- prompts ---- */

void
dp_stage_tell (DpStage *s, DpConditioning *conditioning)
{
  for (guint i = 0; i < s->prompts->len; i++)
    if (g_array_index (s->prompts, Prompt, i).conditioning->id == conditioning->id)
      return;
  g_array_append_val (s->prompts, ((Prompt) { .conditioning = dp_conditioning_ref (conditioning) }));
}

static int
expert_of (const DpStage *s, const DpBlockHeader *h)
{
  return dp_block_told_step (h->step, h->first_step) >= s->spec.switch_step;
}

/* The keys and values of the element's text for this stage's layers of the pass's expert, made when the first such pass of the prompt
 * comes by and dropped behind its last block. */
static DpDitText *
text_of (DpStage *s, const DpBlockHeader *h, GError **error)
{
  int expert = expert_of (s, h);
  Prompt *found = NULL;

  for (guint i = 0; i < s->prompts->len;) {
    Prompt *p = &g_array_index (s->prompts, Prompt, i);

    if (p->conditioning->id < h->oldest_prompt) {
      prompt_clear (s, p);
      g_array_remove_index (s->prompts, i);
      continue;
    }
    if (p->conditioning->id == h->prompt)
      found = p;
    i++;
  }
  g_assert (found);             /* told before */
  DpDitText **text = &found->texts[expert][h->element];
  if (*text == NULL)
    *text = dp_dit_text_new (s->dits[expert], s->halves[h->element], found->conditioning->embeds[h->element], found->conditioning->n[h->element],
        s->spec.text_length, error);
  return *text;
}

/* ---- running ---- */

static void
step_sampler (DpStage *s, DpBlock *b, const int *steps)
{
  const DpOps *ops = s->dev->ops;
  const DpBlockHeader *h = &b->header;
  gsize n = h->own * latent_size (s);
  float *own = b->latents + h->context * latent_size (s);
  int expert = expert_of (s, h);
  float g = (float) s->spec.guidance_scales[expert];    /* above 1 where there are two elements */

  dp_dit_head (s->dits[expert], h->context + h->own, h->context, steps, b->tokens, s->velocities[h->element]);
  if (h->element < h->elements - 1)
    return;
  if (h->elements == 2)         /* uncond + g * (cond - uncond); else cond */
    ops->combine (s->dev, n, 2, (const float *const *) s->velocities, (const float[]) { g, 1 - g }, s->velocities[0]);
  dp_sampler_step (s->spec.sampler, s->dev, &s->states[h->block % s->spec.depth], h->step, h->first_step, s->velocities[0], own, n);
}

/* What the previous block's latest pass before this iteration kept. Where that was without guidance, what it has for the prompt stands for
 * the negative prompt too; likewise below. */
static DpDitKept
previous_of (const DpStage *s, const DpBlockHeader *h)
{
  const Kept *kept;

  if (h->previous_cached == 0)
    return (DpDitKept) { 0 };
  g_assert (s->spec.kept_blocks > 0);
  kept = &s->elements[h->previous_element].tails[(h->block - 1) % s->spec.kept_blocks];
  g_assert (kept->block == h->block - 1 && kept->step == h->previous_step && kept->prompt == h->prompt);
  return (DpDitKept) { kept->cache, h->previous_cached };
}

/* What the following block's pass of this iteration kept. If it is another element's, this block's own pass of that one has come in
 * between. */
static DpDitKept
next_of (const DpStage *s, const DpBlockHeader *h)
{
  const Element *e = &s->elements[h->next_element];
  const Kept *kept = &e->heads[h->next_element == h->element ? e->written : !e->written];

  if (h->next_cached == 0)
    return (DpDitKept) { 0 };
  g_assert (kept->block == h->block + 1 && kept->iteration == h->iteration);
  return (DpDitKept) { kept->at, h->next_cached };
}

static DpDitKeep
keep (Kept *kept, const DpBlockHeader *h, int first, int frames)
{
  kept->at = kept->cache;
  kept->block = h->block;
  kept->iteration = h->iteration;
  kept->step = h->step;
  kept->prompt = h->prompt;
  return (DpDitKeep) { kept->cache, first, frames };
}

/* What the neighbours will read. Where all of a block is the context of either, head and tail are the same frames, and are kept once. */
static void
keep_both (DpStage *s, Element *e, const DpBlockHeader *h, DpDitPass *pass)
{
  Kept *head = &e->heads[!e->written], *tail = h->to_keep > 0 ? &e->tails[h->block % s->spec.kept_blocks] : NULL;

  pass->keep_head = keep (head, h, h->context, h->to_cache);
  if (tail)
    pass->keep_tail = keep (tail, h, pass->frames - h->to_keep, h->to_keep);
  if (tail == NULL || h->to_keep < h->own || h->to_cache < h->own)
    return;
  head->at = tail->cache;
  pass->keep_head = (DpDitKeep) { 0 };
}

gboolean
dp_stage_run (DpStage *s, DpBlock *b, GError **error)
{
  const DpBlockHeader *h = &b->header;
  DpDitText *text = text_of (s, h, error);
  DpDit *dit = s->dits[expert_of (s, h)];
  Element *e = &s->elements[h->element];
  int frames = h->context + h->own, *steps = g_newa (int, frames);

  if (text == NULL)
    return FALSE;
  if (s->halves[h->element].first == 0)
    dp_dit_embed (dit, frames, b->latents, b->tokens);
  for (int i = 0; i < frames; i++)      /* the context is told the same step as the block */
    steps[i] = dp_block_told_step (h->step, h->first_step);
  for (int i = 0; i < h->given; i++)
    steps[h->context + i] = dp_sampler_steps (s->spec.sampler);

  DpDitPass pass = { .halves = s->halves[h->element], .frames = frames, .steps = steps, .text = text, .tokens = b->tokens,
    .before = previous_of (s, h), .behind = next_of (s, h) };
  keep_both (s, e, h, &pass);
  dp_dit_run (dit, &pass);
  e->written = !e->written;
  if (is_last (s))
    step_sampler (s, b, steps);
  return TRUE;
}
