/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_prompts.c: prompts that change while the video runs.
 */
#include "stream.h"
#include "conditioning.h"
#include "dualparal_testing.h"
#include "plan.h"

#include <string.h>

#define FRAMES 77               /* blocks 0..3: 8 latents, then 4 each */
#define FIRST(block) (29 + 16 * ((block) - 1))  /* frame of block 1 and later */

typedef struct
{
  DpPrompt prompt;
  gint64 iteration;             /* in which blocks restart with it; 0: in none that is given */
} Change;

typedef struct
{
  char *sum[8];                 /* of the frames of each block */
  guint id[8];
  char *prompt[8];
  int changed[8];               /* frames with prompt_changed set */
  gboolean first_changed[8];    /* the block's first frame has it */
  gint64 replanned_at[8];
} Blocks;

static void
blocks_clear (Blocks *b)
{
  for (int i = 0; i < 8; i++) {
    g_free (b->sum[i]);
    g_free (b->prompt[i]);
  }
}

/* A finite video, block by block. */
static void
run (const DpSettings *settings, const Change *changes, int n, Blocks *out)
{
  g_autoptr (DpEngine) engine = stream_open (settings);
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  gint64 next = settings->first_frame, block = -1;
  g_autoptr (GError) error = NULL;
  DpFrame frame;

  memset (out, 0, sizeof *out);
  for (int i = 0; i < n; i++)
    g_assert_true (changes[i].iteration > 0 ? dp_engine_queue_prompt_in (engine, &changes[i].prompt, changes[i].iteration, &error)
        : dp_engine_queue_prompt (engine, &changes[i].prompt, &error));
  while (stream_pull (engine, &frame, &next)) {
    g_assert_cmpint (frame.block, <, 8);
    if (frame.block != block) {
      g_assert_cmpint (frame.block, ==, block + 1);
      block = frame.block;
      g_checksum_reset (sum);
      out->id[block] = frame.prompt_id;
      out->prompt[block] = g_strdup (frame.prompt);
      out->first_changed[block] = frame.prompt_changed;
      out->replanned_at[block] = frame.replanned_at;
    }
    g_assert_cmpuint (frame.prompt_id, ==, out->id[block]);
    g_assert_cmpstr (frame.prompt, ==, out->prompt[block]);
    out->changed[block] += frame.prompt_changed;
    stream_hash_frame (sum, &frame);
    dp_engine_release_frame (engine, &frame);
    g_free (out->sum[block]);
    g_autoptr (GChecksum) so_far = g_checksum_copy (sum);
    out->sum[block] = g_strdup (g_checksum_get_string (so_far));
  }
  g_assert_cmpint (next, ==, settings->first_frame + settings->num_frames);
}

static DpSettings
settings_of_this (void)
{
  DpSettings s = stream_small ();

  s.num_frames = FRAMES;
  s.steps = 4;
  s.queue_blocks = 2;
  s.flow_shift = 3;             /* which blocks are still mostly noise depends on it */
  s.prompt = "a red ball bouncing over a green meadow";
  return s;
}

/* Exactly where it was asked for. */
static void
test_at_block (void)
{
  static const Change changes[] = { { { "a blue heart drifting to the right", NULL, FIRST (2) } } };
  DpSettings s = settings_of_this ();
  Blocks plain, changed, again, stages;

  run (&s, NULL, 0, &plain);
  run (&s, changes, 1, &changed);
  run (&s, changes, 1, &again);
  s.devices = stream_devices (2);
  run (&s, changes, 1, &stages);
  for (int b = 0; plain.sum[b]; b++) {
    g_assert_cmpuint (changed.id[b], ==, b >= 2);
    g_assert_cmpint (changed.changed[b], ==, b == 2);
    g_assert_cmpint (changed.first_changed[b], ==, b == 2);
    g_assert_cmpstr (changed.prompt[b], ==, b >= 2 ? changes[0].prompt.prompt : s.prompt);
    g_assert_cmpint (plain.changed[b], ==, 0);
    g_assert_cmpstr (changed.sum[b], ==, again.sum[b]);
    g_assert_cmpstr (changed.sum[b], ==, stages.sum[b]);
    if (b >= 2)
      g_assert_cmpstr (changed.sum[b], !=, plain.sum[b]);
  }
  /* block 0 was done before block 2 was there to be its neighbour's neighbour */
  g_assert_cmpstr (changed.sum[0], ==, plain.sum[0]);
  blocks_clear (&plain);
  blocks_clear (&changed);
  blocks_clear (&again);
  blocks_clear (&stages);
}

/* Several, out of order, two for the same block (the later one wins and is one change), and back to the first. */
static void
test_many_at_blocks (void)
{
  static const Change changes[] = { { { "three", NULL, FIRST (3) } }, { { "never seen", NULL, FIRST (1) } }, { { "one", NULL, FIRST (1) } },
    { { "late", NULL, FIRST (100) } } };
  DpSettings s = settings_of_this ();
  Blocks a, b;

  run (&s, changes, 4, &a);
  s.devices = stream_devices (3);
  run (&s, changes, 4, &b);
  static const char *const expected[] = { "a red ball bouncing over a green meadow", "one", "one", "three" };
  static const guint ids[] = { 0, 1, 1, 2 };
  for (int i = 0; i < 4; i++) {
    g_assert_cmpstr (a.prompt[i], ==, expected[i]);
    g_assert_cmpuint (a.id[i], ==, ids[i]);
    g_assert_cmpint (a.changed[i], ==, i == 1 || i == 3);
    g_assert_cmpstr (a.sum[i], ==, b.sum[i]);
  }
  blocks_clear (&a);
  blocks_clear (&b);
}

/* The text that is encoded is the cleaned one; the frame has it as it was given. */
static void
test_cleaning (void)
{
  DpSettings s = settings_of_this ();
  Blocks a, b;

  s.num_frames = 5;
  s.prompt = "a  red\n ball &amp; more ";
  run (&s, NULL, 0, &a);
  s.prompt = "a red ball & more";
  run (&s, NULL, 0, &b);
  g_assert_cmpstr (a.sum[0], ==, b.sum[0]);
  g_assert_cmpstr (a.prompt[0], ==, "a  red\n ball &amp; more ");
  blocks_clear (&a);
  blocks_clear (&b);
}

static void
test_negative (void)
{
  static const Change keeps[] = { { { "a blue heart", NULL, FIRST (1) } } };
  static const Change sets[] = { { { "a blue heart", "a green meadow", FIRST (1) } } };
  static const Change clears[] = { { { "a blue heart", "", FIRST (1) } } };
  DpSettings s = settings_of_this ();
  Blocks with, without, kept, set, cleared;

  s.num_frames = 45;
  s.guidance_scale = 3;
  s.negative_prompt = "a green meadow";
  run (&s, NULL, 0, &with);
  run (&s, keeps, 1, &kept);
  run (&s, sets, 1, &set);
  run (&s, clears, 1, &cleared);
  s.negative_prompt = "";
  run (&s, NULL, 0, &without);

  g_assert_cmpstr (with.sum[0], !=, without.sum[0]);
  for (int b = 0; b < 2; b++)
    g_assert_cmpstr (kept.sum[b], ==, set.sum[b]);
  g_assert_cmpstr (kept.sum[1], !=, cleared.sum[1]);
  s.guidance_scale = 1;         /* no guidance: a negative prompt changes nothing */
  blocks_clear (&with);
  blocks_clear (&without);
  run (&s, NULL, 0, &without);
  s.negative_prompt = "a green meadow";
  run (&s, NULL, 0, &with);
  g_assert_cmpstr (with.sum[0], ==, without.sum[0]);
  blocks_clear (&with);
  blocks_clear (&without);
  blocks_clear (&kept);
  blocks_clear (&set);
  blocks_clear (&cleared);
}

/* Where the encoder's weights are makes no difference to be seen, whatever changes: a prompt, its negative, neither. */
static void
test_text_encoder (void)
{
  static const Change changes[] = { { { "a blue heart", NULL, FIRST (1) } }, { { "a blue heart", "a green meadow", FIRST (2) } },
    { { "a red ball", NULL, FIRST (3) } } };
  DpSettings s = settings_of_this ();
  Blocks resident, streamed;

  s.guidance_scale = 3;
  s.text_encoder = "resident";
  run (&s, changes, 3, &resident);
  s.text_encoder = "streamed";
  run (&s, changes, 3, &streamed);
  for (int b = 0; b < 4; b++) {
    g_assert_cmpuint (streamed.id[b], ==, b);
    g_assert_cmpstr (streamed.sum[b], ==, resident.sum[b]);
  }
  blocks_clear (&resident);
  blocks_clear (&streamed);
}

/* "auto" is decided by what there is room for, with the settings and before a weight is read. */
static void
test_auto (void)
{
  DpSettings s = stream_small ();
  gsize bytes[2];
  g_autoptr (DpPlan) small = stream_plan (&s);

  g_assert_cmpstr (dp_plan_settings (small)->text_encoder, ==, "resident");

  /* a video that no machine has room for */
  s = (DpSettings) { .width = 8192, .height = 8192, .block_latents = 1024, .context_latents = 1024, .num_frames = -1 };
  g_autoptr (DpPlan) large = stream_plan (&s), grown = dp_plan_with (small, &s, NULL);
  g_assert_cmpstr (dp_plan_settings (large)->text_encoder, ==, "streamed");
  g_assert_cmpstr (dp_plan_settings (grown)->text_encoder, ==, "streamed");     /* it follows the size */
  s.text_encoder = "resident";
  g_autoptr (DpPlan) asked = stream_plan (&s);
  g_assert_cmpstr (dp_plan_settings (asked)->text_encoder, ==, "resident");     /* what was asked for is kept */

  /* and it takes less memory */
  for (int i = 0; i < 2; i++) {
    s = stream_small ();
    s.model = g_getenv ("DUALPARAL_TEST_MODEL");        /* of a small model's memory, most is a backend's own */
    s.text_encoder = i ? "streamed" : "resident";
    s.text_length = 32;         /* not much longer than the prompt is: what is planned is its full length */
    g_autoptr (DpEngine) engine = stream_open (&s);
    gint64 next = 0;
    DpFrame frame;
    DpStats stats;

    stream_pull_until_block (engine, 3, &next, &frame);
    dp_engine_get_stats (engine, &stats);
    bytes[i] = stats.device_bytes;
    g_autoptr (DpPlan) plan = stream_plan (&s);
    gsize planned = dp_plan_bytes (plan, stream_device ());
    g_test_message ("planned %" G_GSIZE_FORMAT ", held %" G_GSIZE_FORMAT, planned, bytes[i]);
    g_assert_true (planned >= bytes[i] * 0.85 && planned <= bytes[i] * 1.15);     /* a backend's own scratch, and how it packs weights */
  }
  g_test_message ("%" G_GSIZE_FORMAT " bytes resident, %" G_GSIZE_FORMAT " streamed", bytes[0], bytes[1]);
  g_assert_cmpuint (bytes[1], <, bytes[0]);
}

/* -1: some later block, from its first frame on. */
static void
test_next_block (void)
{
  DpSettings s = stream_small ();
  g_autoptr (DpEngine) engine = stream_open (&s);
  gint64 next = 0, block = -1, asked = -1, seen = -1;
  DpFrame frame;
  int changes = 0;

  while (block < 12) {
    g_assert_true (stream_pull (engine, &frame, &next));
    gboolean first = frame.block != block;
    block = frame.block;
    if (block == 3 && asked < 0) {
      asked = block;
      g_assert_true (dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = "a blue heart", .at_frame = -1 }, NULL));
    }
    changes += frame.prompt_changed;
    if (frame.prompt_changed) {
      g_assert_true (first);
      seen = block;
    }
    g_assert_cmpuint (frame.prompt_id, ==, seen >= 0);
    g_assert_cmpint (strcmp (frame.prompt, "a blue heart") == 0, ==, seen >= 0);
    dp_engine_release_frame (engine, &frame);
  }
  g_test_message ("asked for in block %" G_GINT64_FORMAT ", seen in block %" G_GINT64_FORMAT, asked, seen);
  g_assert_cmpint (changes, ==, 1);
  g_assert_cmpint (seen, >, asked);
}

/* A blend is between the two, as wide as the longer text, and the pure one at either end. */
static void
test_blend (void)
{
  float a[] = { 1, -2, 3, 4 }, b[] = { 5, 6 }, negative[] = { 7, 0 };
  DpConditioning from = { .refs = 1, .dim = 2, .prompt = (char *) "from", .n = { 2, 1 }, .embeds = { a, negative } };
  DpConditioning to = { .refs = 1, .dim = 2, .prompt = (char *) "to", .prompt_id = 3, .n = { 1, 1 }, .embeds = { b, negative } };
  static const struct { double weight; int n; float rows[4]; } expected[] = {
    { 0, 2, { 1, -2, 3, 4 } }, { 0.25, 2, { 2, 0, 2.25f, 3 } }, { 0.5, 2, { 3, 2, 1.5f, 2 } }, { 1, 1, { 5, 6 } },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (expected); i++) {
    DpConditioning *c = dp_conditioning_blend (&from, &to, expected[i].weight);

    g_assert_cmpstr (c->prompt, ==, "to");
    g_assert_cmpuint (c->prompt_id, ==, 3);
    g_assert_cmpint (c->n[0], ==, expected[i].n);
    g_assert_cmpmem (c->embeds[0], sizeof (float) * 2 * c->n[0], expected[i].rows, sizeof (float) * 2 * expected[i].n);
    g_assert_cmpint (c->n[1], ==, 1);
    g_assert_cmpmem (c->embeds[1], sizeof (float) * 2, negative, sizeof (float) * 2);
    dp_conditioning_unref (c);
  }
}

/* One change, said once, on the first block of the transition; each block of it its own picture; the same on any number of stages. */
static void
test_transition (void)
{
  static const Change sudden[] = { { { "a blue heart", NULL, FIRST (1) } } }, slow[] = { { { "a blue heart", NULL, FIRST (1), 2 } } };
  DpSettings s = settings_of_this ();
  Blocks plain, at_once, blended, stages;

  run (&s, NULL, 0, &plain);
  run (&s, sudden, 1, &at_once);
  run (&s, slow, 1, &blended);
  s.devices = stream_devices (3);
  run (&s, slow, 1, &stages);
  for (int b = 0; b < 4; b++) {
    g_assert_cmpuint (blended.id[b], ==, b >= 1);
    g_assert_cmpint (blended.changed[b], ==, b == 1);
    g_assert_cmpstr (blended.prompt[b], ==, b >= 1 ? "a blue heart" : s.prompt);
    g_assert_cmpstr (blended.sum[b], ==, stages.sum[b]);
    if (b >= 1) {
      g_assert_cmpstr (blended.sum[b], !=, plain.sum[b]);
      g_assert_cmpstr (blended.sum[b], !=, at_once.sum[b]);
    }
  }
  blocks_clear (&plain);
  blocks_clear (&at_once);
  blocks_clear (&blended);
  blocks_clear (&stages);
}

/* From a prompt to itself nothing changes, however slowly; and another that comes in between starts from where it was. */
static void
test_transition_of_none (void)
{
  static const Change none[] = { { { "a red ball bouncing over a green meadow", NULL, FIRST (1), 5 } } };
  static const Change two[] = { { { "a blue heart", NULL, FIRST (1), 5 } }, { { "a yellow star", NULL, FIRST (2), 1 } } },
      one[] = { { { "a yellow star", NULL, FIRST (2), 1 } } };
  DpSettings s = settings_of_this ();
  Blocks plain, same, both, second;

  run (&s, NULL, 0, &plain);
  run (&s, none, 1, &same);
  run (&s, two, 2, &both);
  run (&s, one, 1, &second);
  for (int b = 0; b < 4; b++)
    g_assert_cmpstr (plain.sum[b], ==, same.sum[b]);
  g_assert_cmpuint (both.id[3], ==, 2);
  g_assert_cmpint (both.changed[1] + both.changed[2] + both.changed[3], ==, 2);
  g_assert_cmpstr (both.sum[2], !=, second.sum[2]);
  blocks_clear (&plain);
  blocks_clear (&same);
  blocks_clear (&both);
  blocks_clear (&second);
}

/* Blocks 0, 1, 2, ... are admitted in iterations 0, 3, 6, ...; in 7, block 2 has done one step of 9 and block 1 four. Block 2 restarts,
 * and block 1, which is less noise than that, does not. One in between is replaced before anyone saw it. */
static void
test_replan (void)
{
  static const Change early[] = { { { "a blue heart", NULL, -1 }, 7 } }, blended[] = { { { "a blue heart", NULL, -1, 1 }, 7 } };
  static const Change in_order[] = { { { "a blue heart", NULL, FIRST (3) } } };
  static const Change unseen[] = { { { "never seen", NULL, FIRST (2) } }, { { "a blue heart", NULL, -1 }, 7 } };
  DpSettings s = settings_of_this ();
  Blocks low, smooth, slow, stages, replaced;

  s.steps = 9;
  s.queue_blocks = 3;
  run (&s, in_order, 1, &smooth);
  run (&s, early, 1, &low);
  run (&s, unseen, 2, &replaced);
  run (&s, blended, 1, &slow);
  s.devices = stream_devices (3);
  run (&s, early, 1, &stages);
  g_assert_cmpint (smooth.changed[3], ==, 1);
  for (int b = 0; b < 4; b++) {
    g_assert_cmpint (low.changed[b], ==, b == 2);
    g_assert_cmpint (low.replanned_at[b], ==, b >= 2 ? 7 : 0);
    g_assert_cmpint (smooth.replanned_at[b], ==, 0);
    g_assert_cmpstr (low.prompt[b], ==, b >= 2 ? "a blue heart" : s.prompt);
    g_assert_cmpstr (low.sum[b], ==, stages.sum[b]);
    g_assert_cmpuint (replaced.id[b], ==, b >= 2);
    g_assert_cmpstr (replaced.prompt[b], ==, low.prompt[b]);
    if (b >= 2)
      g_assert_cmpstr (low.sum[b], !=, smooth.sum[b]);
  }
  g_assert_cmpint (slow.changed[2], ==, 1);
  g_assert_cmpstr (slow.sum[2], !=, low.sum[2]);
  Blocks *all[] = { &low, &smooth, &slow, &stages, &replaced };
  for (gsize i = 0; i < G_N_ELEMENTS (all); i++)
    blocks_clear (all[i]);
}

static void
hash_latents (const float *latents, int n, int h, int w, int channels, gpointer data)
{
  g_ptr_array_add (data, g_compute_checksum_for_data (G_CHECKSUM_SHA256, (const guchar *) latents, sizeof (float) * n * h * w * channels));
}

/* Nothing is left of the old prompt in a block that restarted; without neighbours that shows. */
static void
test_replan_forgets (void)
{
  static const char *const before[] = { "a red ball", "a yellow star spinning in a starry night" };
  DpSettings s = settings_of_this ();
  g_autoptr (GPtrArray) sums = g_ptr_array_new_with_free_func (g_free);

  s.steps = 9;
  s.queue_blocks = 3;
  s.context_latents = -1;
  s.num_frames = 61;            /* 4 blocks of 4 latents */
  for (int i = 0; i < 2; i++) {
    s.prompt = before[i];
    g_autoptr (DpEngine) engine = stream_open (&s);
    gint64 next = 0;
    DpFrame frame;

    g_assert_true (dp_engine_queue_prompt_in (engine, &(DpPrompt) { "a blue heart", NULL, -1 }, 7, NULL));
    dp_engine_set_latents_callback (engine, hash_latents, sums);
    while (stream_pull (engine, &frame, &next))
      dp_engine_release_frame (engine, &frame);
  }
  g_assert_cmpuint (sums->len, ==, 8);
  for (int b = 0; b < 4; b++)
    g_assert_true ((b >= 2) == (strcmp (sums->pdata[b], sums->pdata[4 + b]) == 0));
}

/* Whatever a change owed to the clock, it can be repeated: what the frames say of it is enough, on one stage and on three. */
static void
test_repeat (void)
{
  DpSettings s = settings_of_this ();
  g_autoptr (GError) error = NULL;
  g_autofree char *sums[2] = { NULL };
  gint64 next = 0, block = -1, replanned_at = 0;
  DpFrame frame;

  s.steps = 6;
  s.queue_blocks = 1;           /* long between two blocks: it comes in between */
  for (int run = 0; run < 2; run++) {
    g_autoptr (DpEngine) engine = stream_open (&s);
    g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
    DpPrompt prompt = { "a blue heart", NULL, -1, 1, TRUE };

    if (run > 0) {
      prompt.at_frame = replanned_at > 0 ? -1 : dp_engine_first_frame (engine, block);
      prompt.restart = replanned_at > 0;
      g_assert_true (replanned_at > 0 ? dp_engine_queue_prompt_in (engine, &prompt, replanned_at, &error)
          : dp_engine_queue_prompt (engine, &prompt, &error));
    }
    for (next = 0; stream_pull (engine, &frame, &next);) {
      if (run == 0 && frame.index == 5)
        g_assert_true (dp_engine_queue_prompt (engine, &prompt, &error));
      if (frame.prompt_changed && run == 0) {
        block = frame.block;
        replanned_at = frame.replanned_at;
      } else if (frame.prompt_changed) {
        g_assert_cmpint (block, ==, frame.block);
        g_assert_cmpint (replanned_at, ==, frame.replanned_at);
      }
      stream_hash_frame (sum, &frame);
      dp_engine_release_frame (engine, &frame);
    }
    sums[run] = g_strdup (g_checksum_get_string (sum));
    s.devices = stream_devices (3);
  }
  g_test_message ("it took effect with block %" G_GINT64_FORMAT ", by a restart in iteration %" G_GINT64_FORMAT, block, replanned_at);
  g_assert_cmpint (block, >, 0);
  g_assert_cmpstr (sums[0], ==, sums[1]);
  g_free (sums[1]);
}

/* The first frame of a block, and the earliest frame for a prompt, against the frames that come; from frame 0 and from a later one. */
static void
check_numbers (gint64 first_frame)
{
  DpSettings s = settings_of_this ();
  s.first_frame = first_frame;
  g_autoptr (DpEngine) engine = stream_open (&s);
  gint64 next = first_frame, block = -1, changed = -1;
  DpFrame frame;

  g_assert_cmpint (dp_engine_next_frame (engine), ==, first_frame);
  g_assert_true (dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = "snow", .at_frame = first_frame + FIRST (2) + 1 }, NULL));
  while (stream_pull (engine, &frame, &next)) {
    if (frame.block != block)
      g_assert_cmpint (dp_engine_first_frame (engine, frame.block), ==, frame.index);
    block = frame.block;
    if (frame.prompt_changed)
      changed = frame.index;
    g_assert_cmpint (dp_engine_next_frame (engine), >=, dp_engine_first_frame (engine, block + 1));
    dp_engine_release_frame (engine, &frame);
  }
  g_assert_cmpint (next, ==, first_frame + FRAMES);
  g_assert_cmpint (changed, ==, first_frame + FIRST (3));
}

static void
test_numbers (void)
{
  check_numbers (0);
  check_numbers (1000);
}

/* The number of the first frame changes nothing else. */
static void
test_first_frame (void)
{
  static const Change at_0[] = { { { "a blue heart", NULL, FIRST (2) } } };
  static const Change at_1000[] = { { { "a blue heart", NULL, 1000 + FIRST (2) } } };
  DpSettings s = settings_of_this ();
  Blocks plain, later;

  run (&s, at_0, 1, &plain);
  s.first_frame = 1000;
  run (&s, at_1000, 1, &later);
  for (int b = 0; b < 4; b++) {
    g_assert_cmpstr (plain.sum[b], ==, later.sum[b]);
    g_assert_cmpuint (later.id[b], ==, b >= 2);
  }
  blocks_clear (&plain);
  blocks_clear (&later);
}

static void
check_refused (DpEngine *engine, const DpPrompt *prompt, gint64 iteration)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (iteration > 0 ? dp_engine_queue_prompt_in (engine, prompt, iteration, &error)
      : dp_engine_queue_prompt (engine, prompt, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_SETTINGS);
}

static void
test_refused (void)
{
  DpSettings s = stream_small ();
  g_autoptr (DpEngine) engine = stream_open (&s);

  check_refused (engine, &(DpPrompt) { "a", NULL, -1, -1 }, 0);
  check_refused (engine, &(DpPrompt) { "a", NULL, 50, 0, TRUE }, 0);
  check_refused (engine, &(DpPrompt) { "a", NULL, 50 }, 3);
}

/* More prompts for later blocks than are encoded ahead, the last ones first: each is there when its block begins. */
static void
test_many_ahead (void)
{
  DpSettings s = settings_of_this ();
  g_autoptr (DpEngine) engine = stream_open (&s);
  gint64 next = 0, changes = 0;
  DpFrame frame;

  for (int block = 100; block > 0; block--) {
    g_autofree char *text = g_strdup_printf ("a ball and %d more", block);
    g_assert_true (dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = text, .at_frame = FIRST (block) }, NULL));
  }
  while (stream_pull (engine, &frame, &next)) {
    g_autofree char *text = g_strdup_printf ("a ball and %d more", (int) frame.block);
    g_assert_cmpstr (frame.prompt, ==, frame.block > 0 ? text : s.prompt);
    changes += frame.prompt_changed;
    dp_engine_release_frame (engine, &frame);
  }
  g_assert_cmpint (changes, ==, 3);
}

/* A thousand prompts from another thread while it runs: ids go up by one, the last one wins in the end, and nobody waits for the others. */
static gpointer
storm (gpointer data)
{
  DpEngine *engine = data;

  for (int i = 0; i < 1000; i++) {
    g_autofree char *prompt = g_strdup_printf ("prompt %d", i);
    g_autoptr (GError) error = NULL;

    g_assert_true (dp_engine_queue_prompt (engine, &(DpPrompt) { prompt, i % 2 ? "negative" : NULL, -1, i % 3, i % 2 }, &error));
    if (i % 10 == 0)
      g_usleep (1000);
  }
  return NULL;
}

static void
test_storm (void)
{
  DpSettings s = stream_small ();
  g_autoptr (DpEngine) engine = stream_open (&s);
  gint64 next = 0, block = 0, last_block = G_MAXINT64;
  guint id = 0;
  DpFrame frame;
  gboolean won = FALSE;

  stream_pull_until_block (engine, 1, &next, &frame);
  gint64 start = g_get_monotonic_time ();
  GThread *thread = g_thread_new ("storm", storm, engine);
  while (!won && block < 400) {
    g_assert_true (stream_pull (engine, &frame, &next));
    if (frame.prompt_changed)
      g_assert_cmpuint (frame.prompt_id, ==, ++id);
    g_assert_cmpuint (frame.prompt_id, ==, id);
    won = strcmp (frame.prompt, "prompt 999") == 0;
    block = frame.block;
    dp_engine_release_frame (engine, &frame);
    if (thread && g_get_monotonic_time () - start > 150000) {
      g_thread_join (thread);
      thread = NULL;
      last_block = block;
    }
  }
  if (thread)
    g_thread_join (thread);
  g_test_message ("%u of 1000 took effect; the last one in block %" G_GINT64_FORMAT, id, block);
  g_assert_true (won);
  g_assert_cmpuint (id, <=, block);
  if (last_block != G_MAXINT64) /* what was decoded ahead, what was in flight, one being encoded, and it */
    g_assert_cmpint (block - last_block, <=, 12);
}

/* A prompt for the next block may wait for nothing: neither does a block wait for it. */
static void
test_embeds (void)
{
  DpSettings s = stream_small ();
  g_autoptr (GError) error = NULL;
  g_autofree float *prompt = NULL, *negative = NULL;
  int length, dim, real = 0;

  s.model = g_getenv ("DUALPARAL_TEST_MODEL");
  s.prompt = "a red ball";
  g_autoptr (DpEngine) engine = stream_open (&s);
  g_assert_true (dp_engine_prompt_embeds (engine, &prompt, &negative, &length, &dim, &error));
  g_assert_cmpint (length, ==, 512);
  g_assert_cmpint (dim, ==, 128);
  for (int i = 0; i < length; i++) {
    gboolean zero = TRUE;
    for (int j = 0; j < dim; j++)
      zero &= prompt[i * dim + j] == 0;
    if (!zero)
      g_assert_cmpint (real++, ==, i);  /* zeros only behind the text */
  }
  g_test_message ("%d real tokens", real);
  g_assert_cmpint (real, >=, 3);
  g_assert_cmpint (real, <, 40);
}

int
main (int argc, char **argv)
{
  stream_init (&argc, &argv);
  g_test_add_func ("/prompts/at-block", test_at_block);
  g_test_add_func ("/prompts/many-at-blocks", test_many_at_blocks);
  g_test_add_func ("/prompts/cleaning", test_cleaning);
  g_test_add_func ("/prompts/negative", test_negative);
  g_test_add_func ("/prompts/text-encoder", test_text_encoder);
  g_test_add_func ("/prompts/auto", test_auto);
  g_test_add_func ("/prompts/next-block", test_next_block);
  g_test_add_func ("/prompts/blend", test_blend);
  g_test_add_func ("/prompts/transition", test_transition);
  g_test_add_func ("/prompts/transition-of-none", test_transition_of_none);
  g_test_add_func ("/prompts/replan", test_replan);
  g_test_add_func ("/prompts/replan-forgets", test_replan_forgets);
  g_test_add_func ("/prompts/repeat", test_repeat);
  g_test_add_func ("/prompts/numbers", test_numbers);
  g_test_add_func ("/prompts/first-frame", test_first_frame);
  g_test_add_func ("/prompts/refused", test_refused);
  g_test_add_func ("/prompts/many-ahead", test_many_ahead);
  g_test_add_func ("/prompts/storm", test_storm);
  g_test_add_func ("/prompts/embeds", test_embeds);
  return g_test_run ();
}
