/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * block_queue.h: which block takes which step when. DualParal's queue, as arithmetic.
 *
 * Blocks stand in a FIFO, oldest and cleanest at the head, newest at the tail. An *iteration* moves every block in the queue one
 * sampling step, from tail to head. Every `lag` iterations a new block is admitted at the tail, so block b takes step
 * i - b * lag in iteration i; after T steps it leaves. The sequence depends on (T, lag, number of blocks) alone: no state but two counters.
 * Source: DualParal, algorithm 1 (lag 1); dualparal with lag > 1 is this project's.
 */
#pragma once

#include <glib.h>

/** One pass: a block going once through all layers. */
typedef struct
{
  gint64 block, iteration;
  int step;                     /* 0..T-1 */
  gboolean has_next;            /* block + 1 was visited just before, in this iteration: its cache is to be used */
} DpPass;

typedef struct
{
  int steps, lag;
  gint64 blocks;                /* of the whole video; G_MAXINT64: endless */
  /* private */
  gint64 iteration, block;
} DpBlockQueue;

/** queue_blocks: most blocks in flight, 1..steps; the lag is ceil (steps / queue_blocks). */
void dp_block_queue_init (DpBlockQueue *queue, int steps, int queue_blocks, gint64 blocks);
/** Most blocks that are in flight at a time: ceil (T / lag). */
int dp_block_queue_depth (const DpBlockQueue *queue);
/** Most blocks at a time whose last latents' keys and values are kept for a cached context: a pass reads what the previous block's latest
 *  pass before this iteration made. From step lag - 1 on, therefore, until the following block leaves. 0 for a single block. */
int dp_block_queue_kept (const DpBlockQueue *queue);
/** The step of that pass of the previous block, for a pass of step `step`. */
int dp_block_queue_previous_step (const DpBlockQueue *queue, int step);
/** The next pass, or FALSE when every block has left. */
gboolean dp_block_queue_next (DpBlockQueue *queue, DpPass *pass);

/** How a video of `latents` latent frames (-1: endless) is cut: block 0 owns B + C, the others B, the last what is left. */
gint64 dp_blocks_of (gint64 latents, int block_latents, int context_latents);
gint64 dp_block_first (gint64 block, int block_latents, int context_latents);
int dp_block_latents (gint64 block, gint64 latents, int block_latents, int context_latents);
