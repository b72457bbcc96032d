/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * schedule.h: stage 0's part of the scheme: which pass is next, what it is made of, what comes back.
 *
 * It walks the block queue and keeps the latents of every block in flight, and of the one that left
 * last. For each pass it says whether the blocks that the pass needs are back in the state the
 * scheme asks for, composes the message, and takes the result in. Which states are used follows
 * from the schedule, never from timing: one stage and eight give the same bits.
 *
 * It knows no thread, stage or transport: somebody carries the messages.
 * Source: DualParal, algorithm 1, made deterministic.
 */
#pragma once

#include "block.h"
#include "block_queue.h"
#include "conditioning.h"
#include "wan/sampler.h"

typedef struct
{
  const DpSampler *sampler;     /* must outlive it, like noise */
  int block_latents, context_latents, queue_blocks;     /* B, C, Q */
  gint64 latents;               /* latent frames of the video, -1: endless */
  int max_own;                  /* most latent frames of a block */
  gsize latent_size;            /* floats of a latent frame */
  int messages;                 /* most of them on their way at a time, at least those of a pass */
  int guided_first, guided_end; /* the steps that have guidance: a pass of such a step is two messages, any other one */
  gboolean cached;              /* the stages keep what a pass needs of the previous block; see design.md, "The scheme" */
  guint64 seed;
  const float *noise;           /* [noise_latents, latent_size] in place of the pool, or NULL */
  gint64 noise_latents;
  /** If not NULL: the first latent frame of the video is given, a picture. Writes its latents [latent_size], normalised, to host
   *  memory; called once, for the first pass, on the schedule's thread. FALSE with an error. */
  gboolean (*picture) (gpointer picture_data, float *latents, GError **error);
  gpointer picture_data;
  gboolean expand_timesteps;    /* the model is told which frame is given, and sees it clean; else as noisy as the rest of its block */
  /** dp_conditioner_for_block() and dp_conditioner_poll(), of `conditioner`. */
  DpConditioning *(*condition) (gpointer conditioner, gint64 block, DpConditioning *previous, GError **error);
  gboolean (*poll) (gpointer conditioner, gint64 iteration, gboolean *replan, GError **error);
  gpointer conditioner;
} DpScheduleSpec;

/** A block that has taken its last step. Its latents stay valid until the next pass is composed. */
typedef struct
{
  gint64 block;
  const float *latents;         /* [n, latent_size] on the device */
  int n;
  DpConditioning *conditioning; /* the schedule's reference */
} DpFinished;

/* Thread-safety: one thread at a time, the device's. */
typedef struct _DpSchedule DpSchedule;

/** Most blocks in flight: the depth of the queue. */
int dp_schedule_depth (int steps, int queue_blocks);
/** Device memory that dp_schedule_open() will take. */
gsize dp_schedule_bytes (int depth, int max_own, gsize latent_size);

/** Errors: DP_ERROR_NO_MEMORY. */
DpSchedule *dp_schedule_new (const DpScheduleSpec *spec, GError **error);
/** Makes room for the blocks in flight on stage 0's device. Errors: DP_ERROR_NO_MEMORY. */
gboolean dp_schedule_open (DpSchedule *schedule, DpDevice *dev, GError **error);
/** The latents of a block in flight, [own, latent_size] on the device, as they were after its last step that was absorbed. */
const float *dp_schedule_latents (const DpSchedule *schedule, gint64 block);
/** Frees that room; nothing may be queued any more that uses it. */
void dp_schedule_close (DpSchedule *schedule);
/** NULL is fine. */
void dp_schedule_free (DpSchedule *schedule);

/** Goes to the next pass; admits a block where it is one's first, which may wait for its prompt.
 *  1 with a pass, 0 when every block has left or is on its last way, -1 with `error`. */
int dp_schedule_next (DpSchedule *schedule, GError **error);
/** Whether what the pass needs is back. */
gboolean dp_schedule_is_ready (const DpSchedule *schedule);
/** How many messages the pass is. */
int dp_schedule_elements (const DpSchedule *schedule);
/** Fills in header and latents of the pass's message `element`; all of them, in order, one after the other. */
void dp_schedule_compose (DpSchedule *schedule, int element, DpBlock *block);
/** The conditioning of the pass, if the stages have not been told of it yet; else NULL. Counts as
 *  told from then on. */
DpConditioning *dp_schedule_tell (DpSchedule *schedule);
/** Takes in a pass, with its last element, that has gone through all stages. TRUE when that was its block's last step. */
gboolean dp_schedule_absorb (DpSchedule *schedule, const DpBlock *block, DpFinished *finished);
/** How many messages are on their way. */
int dp_schedule_on_the_way (const DpSchedule *schedule);
