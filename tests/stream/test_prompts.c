/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_prompts.c: prompts that change while the video runs.
 */
#include "stream.h"
#include "memory.h"

#include <string.h>

#define FRAMES 77               /* blocks 0..3: 8 latents, then 4 each */

typedef struct
{
  const char *prompt, *negative;
  gint64 at_block;
} Change;

typedef struct
{
  char *sum[8];                 /* of the frames of each block */
  guint id[8];
  char *prompt[8];
  int changed[8];               /* frames with prompt_changed set */
  gboolean first_changed[8];    /* the block's first frame has it */
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
  gint64 next = 0, block = -1;
  g_autoptr (GError) error = NULL;
  DpFrame frame;

  memset (out, 0, sizeof *out);
  for (int i = 0; i < n; i++)
    g_assert_true (dp_engine_queue_prompt (engine, changes[i].prompt, changes[i].negative, changes[i].at_block, &error));
  while (stream_pull (engine, &frame, &next)) {
    g_assert_cmpint (frame.block, <, 8);
    if (frame.block != block) {
      g_assert_cmpint (frame.block, ==, block + 1);
      block = frame.block;
      g_checksum_reset (sum);
      out->id[block] = frame.prompt_id;
      out->prompt[block] = g_strdup (frame.prompt);
      out->first_changed[block] = frame.prompt_changed;
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
  g_assert_cmpint (next, ==, settings->num_frames);
}

static DpSettings
settings_of_this (void)
{
  DpSettings s = stream_small ();

  s.num_frames = FRAMES;
  s.steps = 4;
  s.queue_blocks = 2;
  s.prompt = "a red ball bouncing over a green meadow";
  return s;
}

/* Exactly where it was asked for. */
static void
test_at_block (void)
{
  static const Change changes[] = { { "a blue heart drifting to the right", NULL, 2 } };
  DpSettings s = settings_of_this ();
  Blocks plain, changed, again, stages;

  run (&s, NULL, 0, &plain);
  run (&s, changes, 1, &changed);
  run (&s, changes, 1, &again);
  s.devices = "cpu,cpu";
  run (&s, changes, 1, &stages);
  for (int b = 0; plain.sum[b]; b++) {
    g_assert_cmpuint (changed.id[b], ==, b >= 2);
    g_assert_cmpint (changed.changed[b], ==, b == 2);
    g_assert_cmpint (changed.first_changed[b], ==, b == 2);
    g_assert_cmpstr (changed.prompt[b], ==, b >= 2 ? changes[0].prompt : s.prompt);
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
  static const Change changes[] = { { "three", NULL, 3 }, { "never seen", NULL, 1 }, { "one", NULL, 1 }, { "late", NULL, 100 } };
  DpSettings s = settings_of_this ();
  Blocks a, b;

  run (&s, changes, 4, &a);
  s.devices = "cpu,cpu,cpu";
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
  static const Change keeps[] = { { "a blue heart", NULL, 1 } }, sets[] = { { "a blue heart", "a green meadow", 1 } };
  static const Change clears[] = { { "a blue heart", "", 1 } };
  DpSettings s = settings_of_this ();
  Blocks with, without, kept, set, cleared;

  s.num_frames = 45;
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
  static const Change changes[] = { { "a blue heart", NULL, 1 }, { "a blue heart", "a green meadow", 2 }, { "a red ball", NULL, 3 } };
  DpSettings s = settings_of_this ();
  Blocks resident, streamed;

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
  g_autoptr (GStringChunk) storage = g_string_chunk_new (256);
  g_autoptr (GError) error = NULL;
  DpSettings s = stream_small ();
  gsize bytes[2];

  g_assert_true (dp_settings_resolve (&s, NULL, storage, &error));
  g_assert_no_error (error);
  g_assert_cmpstr (s.text_encoder, ==, "resident");

  /* a video that no machine has room for */
  const DpSettings large = { .width = 8192, .height = 8192, .block_latents = 1024, .context_latents = 1024, .num_frames = -1 };
  s = large;
  g_assert_true (dp_settings_resolve (&s, NULL, storage, &error));
  g_assert_no_error (error);
  g_assert_cmpstr (s.text_encoder, ==, "streamed");
  s = large;
  s.text_encoder = "resident";  /* what was asked for is kept */
  g_assert_true (dp_settings_resolve (&s, NULL, storage, &error));
  g_assert_cmpstr (s.text_encoder, ==, "resident");

  /* and it takes less memory */
  for (int i = 0; i < 2; i++) {
    s = stream_small ();
    s.text_encoder = i ? "streamed" : "resident";
    g_autoptr (DpEngine) engine = stream_open (&s);
    gint64 next = 0;
    DpFrame frame;
    DpStats stats;

    g_autofree DpResolved *r = g_new (DpResolved, 1);

    stream_pull_until_block (engine, 3, &next, &frame);
    dp_engine_get_stats (engine, &stats);
    bytes[i] = stats.device_bytes;
    g_assert_true (dp_settings_read (r, &s, storage, &error));
    gsize planned = dp_memory_of_video (r, "cpu") + dp_memory_of_text (r, i);
    g_assert_true (planned >= bytes[i] * 0.7 && planned <= bytes[i] * 1.6);     /* scratch, and prompts shorter than they may be */
    g_test_message ("planned %" G_GSIZE_FORMAT ", held %" G_GSIZE_FORMAT, planned, bytes[i]);
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
      g_assert_true (dp_engine_queue_prompt (engine, "a blue heart", NULL, -1, NULL));
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

/* A thousand prompts from another thread while it runs: ids go up by one, the last one wins in the end, and nobody waits for the others. */
static gpointer
storm (gpointer data)
{
  DpEngine *engine = data;

  for (int i = 0; i < 1000; i++) {
    g_autofree char *prompt = g_strdup_printf ("prompt %d", i);
    g_autoptr (GError) error = NULL;

    g_assert_true (dp_engine_queue_prompt (engine, prompt, i % 2 ? "negative" : NULL, -1, &error));
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
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/prompts/at-block", test_at_block);
  g_test_add_func ("/prompts/many-at-blocks", test_many_at_blocks);
  g_test_add_func ("/prompts/cleaning", test_cleaning);
  g_test_add_func ("/prompts/negative", test_negative);
  g_test_add_func ("/prompts/text-encoder", test_text_encoder);
  g_test_add_func ("/prompts/auto", test_auto);
  g_test_add_func ("/prompts/next-block", test_next_block);
  g_test_add_func ("/prompts/storm", test_storm);
  g_test_add_func ("/prompts/embeds", test_embeds);
  return g_test_run ();
}
