/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The queue's arithmetic against a queue that is really kept.
 */
#include "engine/block_queue.h"

typedef struct
{
  gint64 block;
  int step;
} Standing;

/* As a stage does with a cached context: a pass reads what the previous block's last pass before this iteration kept, then keeps its own.
 * Newer blocks may not have taken the place of what is still to be read. */
static void
keep (const DpBlockQueue *queue, Standing *kept, const DpPass *pass)
{
  int slots = dp_block_queue_kept (queue);

  if (pass->block > 0) {
    const Standing *k = &kept[(pass->block - 1) % slots];

    g_assert_cmpint (k->block, ==, pass->block - 1);
    g_assert_cmpint (k->step, ==, dp_block_queue_previous_step (queue, pass->step));
  }
  if (pass->step >= queue->lag - 1 && pass->block < queue->blocks - 1)
    kept[pass->block % slots] = (Standing) { pass->block, pass->step };
}

/* The paper's loop: admit at the tail, visit from tail to head, let the finished head go. */
static void
simulate (int steps, int queue_blocks, gint64 blocks, int passes)
{
  int lag = (steps + queue_blocks - 1) / queue_blocks, seen = 0;
  g_autoptr (GArray) fifo = g_array_new (FALSE, FALSE, sizeof (Standing));
  DpBlockQueue queue;
  DpPass pass;
  guint deepest = 0;
  gint64 admitted = 0;

  dp_block_queue_init (&queue, steps, queue_blocks, blocks);
  g_autofree Standing *kept = g_new0 (Standing, MAX (dp_block_queue_kept (&queue), 0));
  g_assert_cmpint (dp_block_queue_kept (&queue), <=, dp_block_queue_depth (&queue) + 1);
  for (gint64 i = 0; seen < passes && (fifo->len > 0 || admitted < blocks); i++) {
    if (i % lag == 0 && admitted < blocks) {
      Standing s = { admitted++, 0 };

      g_array_append_val (fifo, s);
    }
    deepest = MAX (deepest, fifo->len);
    for (int k = fifo->len - 1; k >= 0; k--) {
      Standing *s = &g_array_index (fifo, Standing, k);

      g_assert_true (dp_block_queue_next (&queue, &pass));
      g_assert_cmpint (pass.block, ==, s->block);
      g_assert_cmpint (pass.iteration, ==, i);
      g_assert_cmpint (pass.step, ==, s->step++);
      g_assert_cmpint (pass.has_next, ==, k + 1 < (int) fifo->len);
      keep (&queue, kept, &pass);
      seen++;
    }
    if (fifo->len && g_array_index (fifo, Standing, 0).step == steps)
      g_array_remove_index (fifo, 0);
  }
  g_assert_cmpint (deepest, <=, dp_block_queue_depth (&queue));
  g_assert_cmpint (dp_block_queue_depth (&queue), <=, queue_blocks);
  if (seen < passes) {
    g_assert_cmpint (seen, ==, blocks * steps);
    g_assert_false (dp_block_queue_next (&queue, &pass));
    g_assert_false (dp_block_queue_next (&queue, &pass));
  }
}

static void
test_schedule (void)
{
  static const int steps[] = { 1, 2, 3, 6, 7, 50 };
  static const gint64 blocks[] = { 0, 1, 2, 3, 9, G_MAXINT64 };

  for (gsize t = 0; t < G_N_ELEMENTS (steps); t++)
    for (int q = 1; q <= steps[t]; q++)
      for (gsize b = 0; b < G_N_ELEMENTS (blocks); b++)
        simulate (steps[t], q, blocks[b], 3000);
}

/* lag 1, Q = T: the first block is out after T (T + 1) / 2 passes. */
static void
test_first_block (void)
{
  DpBlockQueue queue;
  DpPass pass;
  int passes = 0;

  dp_block_queue_init (&queue, 50, 50, G_MAXINT64);
  do {
    g_assert_true (dp_block_queue_next (&queue, &pass));
    passes++;
  } while (pass.block != 0 || pass.step != 49);
  g_assert_cmpint (passes, ==, 1275);
}

static void
test_cutting (void)
{
  for (int own = 1; own <= 5; own++)
    for (int context = 0; context <= own; context++)
      for (gint64 latents = 0; latents < 40; latents++) {
        gint64 blocks = dp_blocks_of (latents, own, context), at = 0;

        for (gint64 b = 0; b < blocks; b++) {
          int n = dp_block_latents (b, latents, own, context);

          g_assert_cmpint (dp_block_first (b, own, context), ==, at);
          g_assert_cmpint (n, >, 0);
          g_assert_cmpint (n, <=, own + (b == 0 ? context : 0));
          if (b + 1 < blocks)
            g_assert_cmpint (n, ==, own + (b == 0 ? context : 0));
          at += n;
        }
        g_assert_cmpint (at, ==, latents);
      }
  g_assert_cmpint (dp_blocks_of (-1, 8, 8), ==, G_MAXINT64);
  g_assert_cmpint (dp_blocks_of (16, 8, 8), ==, 1);
  g_assert_cmpint (dp_blocks_of (17, 8, 8), ==, 2);
  g_assert_cmpint (dp_block_latents (1, 17, 8, 8), ==, 1);
  g_assert_cmpint (dp_block_latents (0, -1, 8, 8), ==, 16);
  g_assert_cmpint (dp_block_latents (1 << 20, -1, 8, 8), ==, 8);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/block_queue/schedule", test_schedule);
  g_test_add_func ("/block_queue/first_block", test_first_block);
  g_test_add_func ("/block_queue/cutting", test_cutting);
  return g_test_run ();
}
