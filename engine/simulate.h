/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * simulate.h: how fast a ring would be, from how long its parts take.
 *
 * A discrete-event simulation that is driven by the engine's own schedule: which pass may start when,
 * and how many are on their way, is decided by the code that decides it when a video is made. Only the
 * clock is not real. So it also answers for more GPUs than there are.
 */
#pragma once

#include "plan.h"

/** Seconds that the parts of a plan take. */
typedef struct
{
  double stage[DP_MAX_STAGES][2];       /* a message of each element through the layers of each stage */
  double hop;                   /* a message from one stage to the next, whatever its size */
  double hop_frame;             /* and its tokens, for each latent frame; one message after the other */
  double decode;                /* a block of B latent frames, on the decoder's stage */
} DpRingTimes;

typedef struct
{
  double first;                 /* from the first pass to the first block's latents */
  double block;                 /* from one finished block to the next, once the queue is full */
  double latency;               /* from a block's admission to its last step: how long a prompt takes to be seen */
  double busy[DP_MAX_STAGES];   /* share of that time that each stage's device computed, decoding included */
} DpRingSpeed;

/** Plays `blocks` blocks (at least twice the depth of the queue). Errors: DP_ERROR_NO_MEMORY. */
gboolean dp_simulate (const DpPlan *plan, const DpRingTimes *times, int blocks, DpRingSpeed *speed, GError **error);
