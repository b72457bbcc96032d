/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which block gets which prompt. Nothing is encoded here: "encoded" is a copy of the text, and the
 * test says when it is there. Block 0 has 5 frames, the others 4, and the first frame is number 100
 * unless a test says otherwise: block 1 begins with frame 105, block 2 with 109.
 */
#include "engine/prompt_queue.h"

#include <string.h>

#define FIRST(block) (105 + 4 * ((block) - 1))

static guint freed;

static void
free_encoded (gpointer encoded)
{
  freed++;
  g_free (encoded);
}

static DpPromptQueue *
queue_new (void)
{
  freed = 0;
  return dp_prompt_queue_new (&(DpBlockFrames) { 100, 5, 4 }, free_encoded);
}

static void
add (DpPromptQueue *q, const char *text, gint64 at_frame)
{
  g_assert_true (dp_prompt_queue_add (q, &(DpPrompt) { .prompt = text, .at_frame = at_frame }, 0, NULL));
}

/* Encodes what is wanted next, which must be this text; NULL: nothing is wanted. */
static void
encode (DpPromptQueue *q, const char *text)
{
  const DpQueuedPrompt *p = dp_prompt_queue_next_to_encode (q);

  g_assert_cmpstr (p ? p->text : NULL, ==, text);
  if (p)
    dp_prompt_queue_encoded (q, g_strdup (text));
}

static void
encode_all (DpPromptQueue *q)
{
  const DpQueuedPrompt *p;

  while ((p = dp_prompt_queue_next_to_encode (q)))
    dp_prompt_queue_encoded (q, g_strdup (p->text));
}

static DpPromptUse
check_block (DpPromptQueue *q, gint64 block, const char *text, guint prompt_id)
{
  DpPromptUse use;

  g_assert_true (dp_prompt_queue_for_block (q, block, &use));
  g_assert_cmpstr (use.encoded, ==, text);
  g_assert_cmpuint (use.prompt_id, ==, prompt_id);
  return use;
}

static void
check_waits (DpPromptQueue *q, gint64 block)
{
  DpPromptUse use;

  g_assert_false (dp_prompt_queue_for_block (q, block, &use));
}

static void
check_refused (DpPromptQueue *q, const DpPrompt *prompt, gint64 restart_in, const char *says)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (dp_prompt_queue_add (q, prompt, restart_in, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_SETTINGS);
  if (strstr (error->message, says) == NULL)
    g_test_fail_printf ("\"%s\" does not say \"%s\"", error->message, says);
}

/* Against counting frames one by one. */
static void
test_numbers (void)
{
  static const DpBlockFrames cuts[] = { { 0, 29, 16 }, { 100, 5, 4 }, { 7, 1, 4 }, { 0, 1, 1 } };

  for (gsize i = 0; i < G_N_ELEMENTS (cuts); i++) {
    const DpBlockFrames *f = &cuts[i];
    gint64 frame = f->first_frame;

    for (gint64 block = 0; block < 20; block++) {
      g_assert_cmpint (dp_block_frames_first (f, block), ==, frame);
      for (gint64 end = frame + (block ? f->others : f->block_0), first = frame; frame < end; frame++)
        g_assert_cmpint (dp_block_frames_block_from (f, frame), ==, block + (frame > first));
    }
    g_assert_cmpint (dp_block_frames_block_from (f, f->first_frame - 1), ==, 0);
    g_assert_cmpint (dp_block_frames_block_from (f, G_MAXINT64), >, G_GINT64_CONSTANT (1) << 50);
    g_assert_cmpint (dp_block_frames_first (f, G_MAXINT64), >, G_GINT64_CONSTANT (1) << 47);
  }
}

/* Added in any order, each takes effect at its frame or with the first block after it, and waits. */
static void
test_at_frame (void)
{
  DpPromptQueue *q = queue_new ();

  add (q, "first", 0);
  add (q, "at 4", FIRST (4));
  add (q, "inside 2", FIRST (2) + 1);
  add (q, "at 1", FIRST (1));
  g_assert_cmpint (dp_prompt_queue_next_frame (q), ==, 100);
  check_waits (q, 0);
  encode (q, "first");
  check_block (q, 0, "first", 0);
  g_assert_cmpint (dp_prompt_queue_next_frame (q), ==, FIRST (1));
  check_waits (q, 1);
  encode (q, "at 1");
  g_assert_true (check_block (q, 1, "at 1", 1).begins);
  g_assert_false (check_block (q, 2, "at 1", 1).begins);
  check_waits (q, 3);
  encode (q, "inside 2");
  check_block (q, 3, "inside 2", 2);
  encode (q, "at 4");
  encode (q, NULL);
  check_block (q, 4, "at 4", 3);
  check_block (q, 5, "at 4", 3);
  dp_prompt_queue_free (q);
  g_assert_cmpuint (freed, ==, 4);
}

/* Of two for one block the later wins, and the other uses up no number. */
static void
test_same_block (void)
{
  DpPromptQueue *q = queue_new ();

  add (q, "first", 0);
  add (q, "unseen", FIRST (1) - 3);
  add (q, "seen", FIRST (1));
  encode_all (q);
  check_block (q, 0, "first", 0);
  check_block (q, 1, "seen", 1);
  dp_prompt_queue_free (q);
  g_assert_cmpuint (freed, ==, 3);
}

/* One for the next block makes none wait, and only the last two of many are kept. */
static void
test_next_block (void)
{
  DpPromptQueue *q = queue_new ();

  add (q, "first", 0);
  encode_all (q);
  check_block (q, 0, "first", 0);
  add (q, "a", -1);
  check_block (q, 1, "first", 0);
  add (q, "b", -1);
  const DpQueuedPrompt *p = dp_prompt_queue_next_to_encode (q);
  g_assert_cmpstr (p->text, ==, "b");
  add (q, "c", -1);             /* b is being encoded: it stays */
  add (q, "d", -1);
  dp_prompt_queue_encoded (q, g_strdup ("b"));
  check_block (q, 2, "b", 1);
  add (q, "e", -1);
  encode (q, "e");
  add (q, "f", -1);
  encode (q, "f");
  encode (q, NULL);
  check_block (q, 3, "f", 2);
  dp_prompt_queue_free (q);
  g_assert_cmpuint (freed, ==, 4);      /* first, b, e, f were encoded */
}

/* However many come, no prompt for a frame is lost between those for the next block. */
static void
test_next_block_and_frames (void)
{
  DpPromptQueue *q = queue_new ();

  add (q, "first", 0);
  add (q, "at 2", FIRST (2));
  add (q, "now", -1);
  encode_all (q);
  check_block (q, 0, "now", 0); /* it came in time for the first */
  check_block (q, 1, "now", 0);
  check_block (q, 2, "at 2", 1);
  dp_prompt_queue_free (q);
}

/* What is wanted first is encoded first; at most 32 wait encoded for what is wanted before it. */
static void
test_encoding_order (void)
{
  DpPromptQueue *q = queue_new ();
  int n = 0;

  for (int block = 100; block > 0; block--) {
    g_autofree char *text = g_strdup_printf ("at %d", block);
    add (q, text, FIRST (block));
  }
  add (q, "first", 0);
  encode (q, "first");
  for (const DpQueuedPrompt *p; (p = dp_prompt_queue_next_to_encode (q)); n++) {
    g_autofree char *text = g_strdup_printf ("at %d", n + 1);
    g_assert_cmpstr (p->text, ==, text);
    dp_prompt_queue_encoded (q, g_steal_pointer (&text));
  }
  g_assert_cmpint (n, ==, 31);  /* and the first */
  add (q, "now", -1);           /* is wanted before all but the first */
  encode (q, "now");
  encode (q, NULL);
  check_block (q, 0, "now", 0);
  encode (q, "at 32");          /* two were taken, one of those replaced */
  encode (q, NULL);
  check_block (q, 1, "at 1", 1);
  encode (q, "at 33");
  encode (q, NULL);
  dp_prompt_queue_free (q);
}

/* A blend a block, each with an id of its own; the prompt has one id from then on. */
static void
test_transition (void)
{
  static const double weights[] = { 1 / 4.0, 2 / 4.0, 3 / 4.0, 1, 1 };
  static const guint ids[] = { 1, 2, 3, 4, 4 };
  DpPromptQueue *q = queue_new ();

  g_assert_true (dp_prompt_queue_add (q, &(DpPrompt) { "first", NULL, 0, 9 }, 0, NULL));  /* from nothing: none */
  g_assert_true (dp_prompt_queue_add (q, &(DpPrompt) { "slow", NULL, FIRST (1), 3 }, 0, NULL));
  encode_all (q);
  g_assert_cmpfloat (check_block (q, 0, "first", 0).weight, ==, 1);
  for (int i = 0; i < 5; i++) {
    DpPromptUse use = check_block (q, i + 1, "slow", 1);

    g_assert_cmpfloat (use.weight, ==, weights[i]);
    g_assert_cmpuint (use.id, ==, ids[i]);
    g_assert_cmpint (use.begins, ==, i == 0);
  }
  /* another one cuts it short */
  g_assert_true (dp_prompt_queue_add (q, &(DpPrompt) { "long", NULL, FIRST (6), 1000 }, 0, NULL));
  add (q, "cut", FIRST (7));
  encode_all (q);
  g_assert_cmpuint (check_block (q, 6, "long", 2).id, ==, 5);
  DpPromptUse use = check_block (q, 7, "cut", 3);
  g_assert_cmpuint (use.id, ==, 6);
  g_assert_cmpfloat (use.weight, ==, 1);
  dp_prompt_queue_free (q);
}

static gboolean
poll_queue (DpPromptQueue *q, gint64 iteration)
{
  gboolean restart;

  g_assert_true (dp_prompt_queue_poll (q, iteration, &restart));
  return restart;
}

/* Blocks in flight get it again, in order; new ones are not said to have restarted. */
static void
check_restart (DpPromptQueue *q, gint64 iteration)
{
  DpPromptUse use = check_block (q, 2, "now", 1);

  g_assert_cmpint (use.restarted_in, ==, iteration);
  g_assert_true (use.begins);
  g_assert_false (check_block (q, 3, "now", 1).begins);
  g_assert_false (poll_queue (q, iteration + 1));
  g_assert_cmpint (check_block (q, 4, "now", 1).restarted_in, ==, iteration);
}

static void
make_four_blocks (DpPromptQueue *q)
{
  add (q, "first", 0);
  encode_all (q);
  for (int block = 0; block < 4; block++)
    check_block (q, block, "first", 0);
}

/* As soon as it is encoded. */
static void
test_restart (void)
{
  DpPromptQueue *q = queue_new ();

  make_four_blocks (q);
  g_assert_true (dp_prompt_queue_add (q, &(DpPrompt) { "now", NULL, -1, 0, TRUE }, 0, NULL));
  g_assert_false (poll_queue (q, 6));
  encode (q, "now");
  g_assert_true (poll_queue (q, 7));
  check_restart (q, 7);
  dp_prompt_queue_free (q);
}

/* In a certain iteration, which waits for it; not before, and not with a block before. */
static void
test_restart_in (void)
{
  DpPromptQueue *q = queue_new ();
  gboolean restart;

  make_four_blocks (q);
  g_assert_true (dp_prompt_queue_add (q, &(DpPrompt) { "now", NULL, -1 }, 9, NULL));
  g_assert_false (poll_queue (q, 8));
  g_assert_false (dp_prompt_queue_poll (q, 9, &restart));
  encode (q, "now");
  g_assert_true (poll_queue (q, 9));
  check_restart (q, 9);
  dp_prompt_queue_free (q);

  /* encoded early, it waits for its iteration; without blocks in flight none has restarted */
  q = queue_new ();
  make_four_blocks (q);
  g_assert_true (dp_prompt_queue_add (q, &(DpPrompt) { "now", NULL, -1 }, 9, NULL));
  encode (q, "now");
  g_assert_false (poll_queue (q, 8));
  check_block (q, 4, "first", 0);
  g_assert_true (poll_queue (q, 9));
  g_assert_cmpint (check_block (q, 5, "now", 1).restarted_in, ==, 0);
  dp_prompt_queue_free (q);
}

static void
test_refused (void)
{
  DpPromptQueue *q = queue_new ();
  g_autofree char *huge = g_strnfill (20000, 'a');

  make_four_blocks (q);
  check_refused (q, &(DpPrompt) { "late", NULL, FIRST (3) }, 0, "frame 113");
  check_refused (q, &(DpPrompt) { "late", NULL, FIRST (3) }, 0, "the earliest frame now is 117,");
  check_refused (q, &(DpPrompt) { "late", NULL, 0 }, 0, "frame 0");
  check_refused (q, &(DpPrompt) { "a", NULL, -1, -1 }, 0, "transition");
  check_refused (q, &(DpPrompt) { "a", NULL, 500, 0, TRUE }, 0, "restart");
  check_refused (q, &(DpPrompt) { "a", NULL, 500 }, 7, "restart");
  check_refused (q, &(DpPrompt) { huge, NULL, -1 }, 0, "16384");
  check_refused (q, &(DpPrompt) { "a", huge, -1 }, 0, "16384");
  check_refused (q, &(DpPrompt) { "\377", NULL, -1 }, 0, "UTF-8");
  encode (q, NULL);             /* none of them is in the queue */
  add (q, "in time", FIRST (3) + 1);    /* whose block is the next one */
  encode_all (q);
  check_block (q, 4, "in time", 1);
  dp_prompt_queue_free (q);
}

/* NULL keeps the negative one of the prompt that was added before; both are cleaned. */
static void
test_texts (void)
{
  static const struct { const char *negative, *expected; } steps[] = { { NULL, "" }, { " b  c ", "b c" }, { NULL, "b c" }, { "", "" },
    { NULL, "" } };
  DpPromptQueue *q = queue_new ();

  for (gsize i = 0; i < G_N_ELEMENTS (steps); i++) {
    g_assert_true (dp_prompt_queue_add (q, &(DpPrompt) { " a &amp; b", steps[i].negative, FIRST (i + 1) }, 0, NULL));
    const DpQueuedPrompt *p = dp_prompt_queue_next_to_encode (q);
    g_assert_cmpstr (p->text, ==, " a &amp; b");
    g_assert_cmpstr (p->prompt, ==, "a & b");
    g_assert_cmpstr (p->negative, ==, steps[i].expected);
    dp_prompt_queue_encoded (q, g_strdup (""));
  }
  dp_prompt_queue_free (q);
  dp_prompt_queue_free (NULL);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/prompt-queue/numbers", test_numbers);
  g_test_add_func ("/prompt-queue/at-frame", test_at_frame);
  g_test_add_func ("/prompt-queue/same-block", test_same_block);
  g_test_add_func ("/prompt-queue/next-block", test_next_block);
  g_test_add_func ("/prompt-queue/next-block-and-frames", test_next_block_and_frames);
  g_test_add_func ("/prompt-queue/encoding-order", test_encoding_order);
  g_test_add_func ("/prompt-queue/transition", test_transition);
  g_test_add_func ("/prompt-queue/restart", test_restart);
  g_test_add_func ("/prompt-queue/restart-in", test_restart_in);
  g_test_add_func ("/prompt-queue/refused", test_refused);
  g_test_add_func ("/prompt-queue/texts", test_texts);
  return g_test_run ();
}
