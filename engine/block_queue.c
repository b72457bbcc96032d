/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block_queue.h"

/* The blocks of an iteration are [oldest, newest]. */
static gint64
newest (const DpBlockQueue *queue, gint64 iteration)
{
  return MIN (iteration / queue->lag, queue->blocks - 1);
}

static gint64
oldest (const DpBlockQueue *queue, gint64 iteration)
{
  return iteration < queue->steps ? 0 : (iteration - queue->steps) / queue->lag + 1;
}

void
dp_block_queue_init (DpBlockQueue *queue, int steps, int queue_blocks, gint64 blocks)
{
  g_assert (steps > 0 && queue_blocks > 0 && queue_blocks <= steps && blocks >= 0);
  *queue = (DpBlockQueue) { .steps = steps, .lag = (steps + queue_blocks - 1) / queue_blocks, .blocks = blocks };
}

int
dp_block_queue_depth (const DpBlockQueue *queue)
{
  return (queue->steps + queue->lag - 1) / queue->lag;
}

/* Block b's are written in iterations b lag + lag - 1 to b lag + T - 1 and last read in b lag + lag + T - 1: T + 1 iterations, from the
 * first to the last. */
int
dp_block_queue_kept (const DpBlockQueue *queue)
{
  return MIN (queue->steps / queue->lag + 1, queue->blocks - 1);
}

int
dp_block_queue_previous_step (const DpBlockQueue *queue, int step)
{
  return MIN (step + queue->lag, queue->steps) - 1;
}

gboolean
dp_block_queue_next (DpBlockQueue *queue, DpPass *pass)
{
  gint64 i = queue->iteration, b = queue->block;

  if (oldest (queue, i) > newest (queue, i))
    return FALSE;
  *pass = (DpPass) { .block = b, .iteration = i, .step = i - b * queue->lag, .has_next = b < newest (queue, i) };
  if (b > oldest (queue, i)) {
    queue->block--;
  } else {
    queue->iteration++;
    queue->block = newest (queue, queue->iteration);
  }
  return TRUE;
}

gint64
dp_blocks_of (gint64 latents, int block_latents, int context_latents)
{
  gint64 first = block_latents + context_latents;

  if (latents < 0)
    return G_MAXINT64;
  if (latents <= first)
    return latents > 0;
  return 1 + (latents - first - 1) / block_latents + 1;
}

gint64
dp_block_first (gint64 block, int block_latents, int context_latents)
{
  return block == 0 ? 0 : context_latents + block * block_latents;
}

int
dp_block_latents (gint64 block, gint64 latents, int block_latents, int context_latents)
{
  int full = block_latents + (block == 0 ? context_latents : 0);
  gint64 left = latents - dp_block_first (block, block_latents, context_latents);

  return latents < 0 ? full : CLAMP (left, 0, full);
}
