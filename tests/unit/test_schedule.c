/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The schedule alone, without stages: a pass adds 1 to its block's latents, so that a latent says
 * which block it is of and how many steps it has taken. Passes come back at random moments.
 */
#include "engine/schedule.h"
#include "engine/wan/model_config.h"
#include "tests/unit/devices.h"

#define B 3
#define C 2
#define SIZE 4                  /* floats of a latent frame */
#define BASE 1000               /* latents of block b begin as b * BASE */
#define MAX_BLOCKS 40

typedef struct
{
  gint64 asked;                 /* the last block that was asked for */
  gint64 change_at;             /* block from which the prompt is another one */
  gint64 replan_in;             /* iteration in which blocks in flight take the new prompt; 0: none */
  DpConditioning *prompts[2];
  gboolean fails;
} Prompts;

static DpConditioning *
conditioning_new (guint id)
{
  DpConditioning *c = g_new0 (DpConditioning, 1);

  c->refs = 1;
  c->id = id;
  return c;
}

static DpConditioning *
condition (gpointer data, gint64 block, DpConditioning *previous, GError **error)
{
  Prompts *p = data;

  if (p->fails) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_FLUSHING, "cancelled");
    return NULL;
  }
  g_assert_cmpint (block, <=, p->asked + 1);
  g_assert_true ((previous == NULL) == (block == 0));
  p->asked = MAX (p->asked, block);
  return dp_conditioning_ref (p->prompts[block >= p->change_at]);
}

static gboolean
poll_prompts (gpointer data, gint64 iteration, gboolean *replan, GError **error)
{
  Prompts *p = data;

  *replan = p->replan_in > 0 && iteration == p->replan_in;
  if (*replan)
    p->change_at = 0;           /* every block asked for from now on has the new one */
  return TRUE;
}

typedef struct
{
  int steps, queue_blocks, messages;
  gint64 latents, replan_in;
  int guided_first, guided_end;
  gboolean cached;
} Case;

/* Noise that says which block it is for. */
static float *
noise_new (gint64 latents)
{
  float *noise = g_new (float, latents * SIZE);

  for (gint64 l = 0; l < latents; l++)
    for (int i = 0; i < SIZE; i++)
      noise[l * SIZE + i] = l < B + C ? 0 : (l - C) / B * BASE;
  return noise;
}

static void
check_frames (DpDevice *dev, const float *at, int frames, float expected)
{
  float host[(B + C) * SIZE];

  dev->ops->download (dev, host, at, sizeof (float) * frames * SIZE);
  for (int i = 0; i < frames * SIZE; i++)
    g_assert_cmpfloat (host[i], ==, expected);
}

/* As the last stage does: the own latents move by one step. */
static void
take_step (DpDevice *dev, DpBlock *b)
{
  float host[(B + C) * SIZE], *own = b->latents + b->header.context * SIZE;

  dev->ops->download (dev, host, own, sizeof (float) * b->header.own * SIZE);
  for (int i = 0; i < b->header.own * SIZE; i++)
    host[i]++;
  dev->ops->upload (dev, own, host, sizeof (float) * b->header.own * SIZE);
}

/* A block that restarted has the noise of its beginning again; what it has in the end shows from where. */
static int restarted[MAX_BLOCKS];

/* What a stage keeps for a cached context: of which pass, by block number. */
typedef struct
{
  gint64 block;
  int step, frames, elements;
  guint prompt;
} Kept;

/* Where the prompt of a block is another one than that of the block before it, and behind a block that restarted, the context goes through
 * the layers all the same. Else what is kept must be of the pass that the scheme names. */
static void
check_context (const Case *t, const DpBlockHeader *h, int lag, Kept *kept, int slots)
{
  gint64 first_restarted = 0;
  while (first_restarted < MAX_BLOCKS && restarted[first_restarted] == 0)
    first_restarted++;
  gint64 change = t->replan_in ? first_restarted : 5;
  gboolean recomputed = !t->cached || h->block == change || (h->block > 0 && restarted[h->block - 1] > 0);

  g_assert_cmpint (h->context, ==, h->block && recomputed ? C : 0);
  g_assert_cmpint (h->previous_cached, ==, h->block && !recomputed ? C : 0);
  if (h->previous_cached) {
    const Kept *k = &kept[(h->block - 1) % slots];

    g_assert_cmpint (k->block, ==, h->block - 1);
    g_assert_cmpint (k->frames, ==, h->previous_cached);
    g_assert_cmpint (k->step, ==, h->previous_step);
    g_assert_cmpint (k->step, ==, MIN (h->step + lag, t->steps) - 1);
    g_assert_cmpuint (k->prompt, ==, h->prompt);
    g_assert_cmpint (h->previous_element, ==, MIN (h->element, k->elements - 1));
  }
  if (h->to_keep) {
    g_assert_true (t->cached);
    g_assert_cmpint (h->to_keep, ==, MIN (C, h->own));
    kept[h->block % slots] = (Kept) { h->block, h->step, h->to_keep, h->elements, h->prompt };
  }
}

/* A pass is guided by the noise that the model is told, which is most where a block restarted. A neighbour that is not has keys of the
 * prompt alone. `next`: of the pass before, the following block's where there is one. */
static void
check_elements (const Case *t, const DpBlockHeader *h, const DpBlockHeader *next)
{
  int told = h->step == h->first_step ? 0 : h->step;

  g_assert_cmpint (h->elements, ==, told >= t->guided_first && told < t->guided_end ? 2 : 1);
  if (h->next_cached == 0)
    return;
  g_assert_cmpint (next->block, ==, h->block + 1);
  g_assert_cmpint (next->iteration, ==, h->iteration);
  g_assert_cmpint (h->next_element, ==, MIN (h->element, next->elements - 1));
}

static void
check_pass (const Case *t, DpDevice *dev, const DpBlock *b, int lag)
{
  const DpBlockHeader *h = &b->header;
  gint64 left = t->latents - (h->block ? C + h->block * B : 0);

  g_assert_cmpint (h->iteration, ==, h->block * lag + h->step);
  g_assert_cmpint (h->own, ==, MIN (left, h->block ? B : B + C));
  for (gint64 i = 0; i <= h->block && t->replan_in && h->iteration == t->replan_in; i++)
    restarted[i] = t->replan_in - i * lag;
  g_assert_cmpint (h->first_step, ==, restarted[h->block]);
  check_frames (dev, b->latents + h->context * SIZE, h->own, h->block * BASE + h->step - h->first_step);
  if (h->context)               /* the previous block as the iteration before left it */
    check_frames (dev, b->latents, C, (h->block - 1) * BASE + MIN (h->step + lag, t->steps) - restarted[h->block - 1]);
}

static void
run_case (const Case *t, guint seed)
{
  DpSchedulerConfig config = { .sampler = "euler", .train_timesteps = 1000, .flow_shift = 3 };
  GError *error = NULL;
  DpSampler *sampler = dp_sampler_new ("euler", t->steps, 3, &config, &error);
  Prompts prompts = { .asked = -1, .change_at = t->replan_in ? G_MAXINT64 : 5, .replan_in = t->replan_in,
    .prompts = { conditioning_new (7), conditioning_new (9) } };
  g_autofree float *noise = noise_new (t->latents);
  DpDevice *dev = open_device (test_device (0));
  gsize bytes = dev->bytes;
  DpSchedule *s;
  DpBlockPool pool;
  GQueue way = G_QUEUE_INIT;
  g_autoptr (GRand) rand = g_rand_new_with_seed (seed);
  gint64 left = 0, blocks = dp_blocks_of (t->latents, B, C);
  int lag = (t->steps + t->queue_blocks - 1) / t->queue_blocks, told = 0, passes = 0, more;
  Kept kept[MAX_BLOCKS] = { { 0 } };
  DpBlockHeader last = { 0 };
  guint oldest = 0;

  g_assert_no_error (error);
  g_assert_cmpint (blocks, <=, MAX_BLOCKS);
  for (int i = 0; i < MAX_BLOCKS; i++)
    restarted[i] = 0;
  s = dp_schedule_new (&(DpScheduleSpec) {
      .sampler = sampler, .block_latents = B, .context_latents = C, .queue_blocks = t->queue_blocks, .latents = t->latents,
      .max_own = B + C, .latent_size = SIZE, .messages = t->messages, .guided_first = t->guided_first, .guided_end = t->guided_end,
      .cached = t->cached, .noise = noise, .noise_latents = t->latents,
      .condition = condition, .poll = poll_prompts, .conditioner = &prompts }, &error);
  g_assert_no_error (error);
  g_assert_true (dp_schedule_open (s, dev, &error));
  g_assert_true (dp_block_pool_open (&pool, dev, &(DpBlockSize) { B + 2 * C, SIZE, 1 }, t->messages, &error));

  more = dp_schedule_next (s, &error);
  while (more > 0 || dp_schedule_on_the_way (s) > 0) {
    g_assert_no_error (error);
    if (more > 0 && dp_schedule_is_ready (s) && g_rand_boolean (rand)) {
      told += dp_schedule_tell (s) != NULL;
      g_assert_null (dp_schedule_tell (s));
      DpBlockHeader next = last;

      for (int e = 0, elements = dp_schedule_elements (s); e < elements; e++) {
        DpBlock *b = dp_block_pool_take (&pool);

        dp_schedule_compose (s, e, b);
        last = b->header;
        check_pass (t, dev, b, lag);
        check_context (t, &b->header, lag, kept, MIN (t->steps / lag + 1, MAX (blocks - 1, 1)));
        check_elements (t, &b->header, &next);
        g_assert_cmpint (b->header.element, ==, e);
        g_assert_cmpint (b->header.elements, ==, elements);
        g_assert_cmpuint (b->header.oldest_prompt, >=, oldest);
        g_assert_cmpuint (b->header.prompt, >=, b->header.oldest_prompt);
        oldest = b->header.oldest_prompt;
        if (e < elements - 1) { /* the last stage keeps its velocity */
          dp_block_pool_give (&pool, b);
          continue;
        }
        take_step (dev, b);
        g_queue_push_tail (&way, b);
      }
      passes++;
      more = dp_schedule_next (s, &error);
    } else if (!g_queue_is_empty (&way) && g_rand_boolean (rand)) {
      DpBlock *b = g_queue_pop_head (&way);
      DpFinished f;

      if (dp_schedule_absorb (s, b, &f)) {
        g_assert_cmpint (f.block, ==, left++);
        check_frames (dev, f.latents, f.n, f.block * BASE + t->steps - restarted[f.block]);
      }
      dp_block_pool_give (&pool, b);
    } else
      g_assert_true (!g_queue_is_empty (&way) || dp_schedule_is_ready (s));   /* else it would wait for ever */
  }
  g_assert_no_error (error);
  g_assert_cmpint (left, ==, blocks);
  g_assert_cmpint (passes, ==, blocks * t->steps);
  g_assert_cmpint (told, ==, blocks > 5 || (t->replan_in && blocks > 1) ? 2 : 1);

  dp_schedule_close (s);
  dp_schedule_free (s);
  dp_block_pool_close (&pool);
  for (int i = 0; i < 2; i++) {
    g_assert_cmpint (prompts.prompts[i]->refs, ==, 1);
    dp_conditioning_unref (prompts.prompts[i]);
  }
  dp_sampler_free (sampler);
  g_assert_cmpuint (dev->bytes, ==, bytes);
  dp_device_close (dev);
}

static void
test_states (void)
{
  static const Case cases[] = {
    { 6, 3, 1, B + C + 9 * B }, { 6, 3, 6, B + C + 9 * B, 0, 0, 6 }, { 6, 6, 6, B + C + 7 * B + 1 },
    { 5, 2, 4, B + C + 4 * B, 0, 0, 5 }, { 1, 1, 1, B + C + 20 * B }, { 7, 1, 2, B + C + 3 * B - 1, 0, 0, 7 }, { 4, 4, 3, 2 },
    { 8, 3, 3, B + C + 8 * B },
    /* guided in some steps */
    { 8, 3, 5, B + C + 8 * B, 0, 2, 6 }, { 6, 6, 2, B + C + 7 * B, 0, 1, 4 }, { 7, 2, 3, B + C + 4 * B, 0, 0, 3 },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    for (guint seed = 0; seed < 20; seed++) {
      Case t = cases[i];

      t.cached = seed % 2;
      run_case (&t, seed);
    }
}

/* With a shift of 3 and eight steps, blocks that have done at most three steps restart. */
static void
test_restart (void)
{
  for (guint seed = 0; seed < 20; seed++)
    run_case (&(Case) { 8, 4, 6, B + C + 6 * B, 3, seed % 2, seed / 2 % 2 * 6, seed / 4 % 2 }, seed);
}

/* An endless video, one message a pass. */
static DpSchedule *
endless_new (DpSampler *sampler, int queue_blocks, gboolean cached, Prompts *prompts, DpDevice *dev)
{
  GError *error = NULL;
  DpSchedule *s = dp_schedule_new (&(DpScheduleSpec) {
      .sampler = sampler, .block_latents = B, .context_latents = C, .queue_blocks = queue_blocks, .latents = -1, .max_own = B + C,
      .latent_size = SIZE, .messages = 4, .cached = cached, .condition = condition, .poll = poll_prompts,
      .conditioner = prompts }, &error);

  g_assert_no_error (error);
  g_assert_true (dp_schedule_open (s, dev, &error));
  return s;
}

/* With a cached context a pass waits for its own block alone, else for the previous one too: two blocks, and nothing ever comes back. */
static void
test_waiting (void)
{
  DpSchedulerConfig config = { .sampler = "euler", .train_timesteps = 1000, .flow_shift = 3 };
  DpSampler *sampler = dp_sampler_new ("euler", 4, 3, &config, NULL);
  Prompts prompts = { .asked = -1, .change_at = G_MAXINT64, .prompts = { conditioning_new (0), NULL } };
  DpDevice *dev = open_device (test_device (0));

  for (int cached = 0; cached < 2; cached++) {
    GError *error = NULL;
    DpSchedule *s = endless_new (sampler, 4, cached, &prompts, dev);
    DpBlockPool pool;
    DpBlock *first, *b;
    DpFinished f;

    prompts.asked = -1;
    g_assert_true (dp_block_pool_open (&pool, dev, &(DpBlockSize) { B + 2 * C, SIZE, 1 }, 3, &error));
    g_assert_cmpint (dp_schedule_next (s, &error), ==, 1);      /* block 0, step 0 */
    dp_schedule_compose (s, 0, first = dp_block_pool_take (&pool));
    g_assert_cmpint (dp_schedule_next (s, &error), ==, 1);      /* block 1, step 0 */
    g_assert_cmpint (dp_schedule_is_ready (s), ==, cached);
    if (cached)
      dp_schedule_compose (s, 0, b = dp_block_pool_take (&pool));
    dp_schedule_absorb (s, first, &f);
    if (!cached)
      dp_schedule_compose (s, 0, b = dp_block_pool_take (&pool));
    g_assert_cmpint (b->header.context, ==, cached ? 0 : C);
    g_assert_cmpint (b->header.previous_cached, ==, cached ? C : 0);
    dp_schedule_close (s);
    dp_schedule_free (s);
    dp_block_pool_close (&pool);
  }
  dp_conditioning_unref (prompts.prompts[0]);
  dp_sampler_free (sampler);
  dp_device_close (dev);
}

/* However many messages may be on their way: a queue of one block at a time. */
static void
test_depth (void)
{
  DpSchedulerConfig config = { .sampler = "euler", .train_timesteps = 1000, .flow_shift = 3 };
  DpSampler *sampler = dp_sampler_new ("euler", 1, 3, &config, NULL);
  Prompts prompts = { .asked = -1, .change_at = G_MAXINT64, .prompts = { conditioning_new (0), NULL } };
  DpDevice *dev = open_device (test_device (0));
  DpSchedule *s = endless_new (sampler, 1, TRUE, &prompts, dev);
  DpBlockPool pool;
  DpFinished f;

  g_assert_true (dp_block_pool_open (&pool, dev, &(DpBlockSize) { B + 2 * C, SIZE, 1 }, 1, NULL));
  DpBlock *b = dp_block_pool_take (&pool);
  g_assert_cmpint (dp_schedule_next (s, NULL), ==, 1);  /* block 0 */
  g_assert_true (dp_schedule_is_ready (s));
  dp_schedule_compose (s, 0, b);
  g_assert_cmpint (dp_schedule_next (s, NULL), ==, 1);  /* block 1 */
  g_assert_false (dp_schedule_is_ready (s));
  g_assert_true (dp_schedule_absorb (s, b, &f));
  g_assert_cmpint (f.block, ==, 0);
  g_assert_true (dp_schedule_is_ready (s));
  dp_schedule_close (s);
  dp_schedule_free (s);
  dp_block_pool_close (&pool);
  dp_conditioning_unref (prompts.prompts[0]);
  dp_sampler_free (sampler);
  dp_device_close (dev);
}

static void
test_refusals (void)
{
  DpSchedulerConfig config = { .sampler = "euler", .train_timesteps = 1000, .flow_shift = 3 };
  DpSampler *sampler = dp_sampler_new ("euler", 2, 3, &config, NULL);
  Prompts prompts = { .asked = -1, .change_at = G_MAXINT64, .prompts = { conditioning_new (0), NULL } };
  g_autofree float *noise = noise_new (B + C);
  DpDevice *dev = open_device (test_device (0));
  DpScheduleSpec spec = { .sampler = sampler, .block_latents = B, .context_latents = C, .queue_blocks = 2, .latents = -1,
    .max_own = B + C, .latent_size = SIZE, .messages = 1, .noise = noise, .noise_latents = B + C - 1, .condition = condition,
    .poll = poll_prompts, .conditioner = &prompts };

  for (int i = 0; i < 2; i++) {
    g_autoptr (GError) error = NULL;
    DpSchedule *s = dp_schedule_new (&spec, &error);

    g_assert_true (dp_schedule_open (s, dev, &error));
    g_assert_cmpint (dp_schedule_next (s, &error), ==, -1);
    g_assert_true (g_error_matches (error, DP_ERROR, i == 0 ? DP_ERROR_SETTINGS : DP_ERROR_FLUSHING));
    dp_schedule_close (s);
    dp_schedule_free (s);
    prompts.fails = TRUE;
  }
  dp_conditioning_unref (prompts.prompts[0]);
  dp_sampler_free (sampler);
  dp_device_close (dev);
}

int
main (int argc, char **argv)
{
  test_devices_init (&argc, argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/schedule/states", test_states);
  g_test_add_func ("/schedule/restart", test_restart);
  g_test_add_func ("/schedule/waiting", test_waiting);
  g_test_add_func ("/schedule/depth", test_depth);
  g_test_add_func ("/schedule/refusals", test_refusals);
  return g_test_run ();
}
