/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * prompt_queue.h: which block gets which prompt. The only queue of prompts, and the only place that
 * numbers frames and blocks for them.
 *
 * Prompts come in with a frame of the video, and blocks are asked for one after the other. A prompt
 * for a frame takes effect with the first block none of whose frames comes before that frame. A
 * prompt for the next block takes effect with the next block admitted once it is encoded; a newer
 * one replaces it. A prompt for an iteration becomes one for the next block in that iteration.
 *
 * This is bookkeeping only: it knows no thread and no encoder. Somebody encodes what
 * dp_prompt_queue_next_to_encode() names, and gives the result back.
 */
#pragma once

#include "dualparal.h"

/** How the frames of a video are cut into blocks. */
typedef struct
{
  gint64 first_frame;           /* number of the first frame of block 0 */
  gint64 block_0;               /* frames of block 0 */
  gint64 others;                /* frames of every other block */
} DpBlockFrames;

/** The first frame of a block, 0 to DP_MAX_FRAMES; a later one counts as that. */
gint64 dp_block_frames_first (const DpBlockFrames *frames, gint64 block);
/** The first block none of whose frames comes before `frame`. */
gint64 dp_block_frames_block_from (const DpBlockFrames *frames, gint64 frame);

/** A prompt on its way. The queue owns it. */
typedef struct
{
  char *prompt, *negative;      /* cleaned: what is encoded */
  char *text;                   /* as given */
  gpointer encoded;             /* NULL until dp_prompt_queue_encoded() */
  /* -- the queue's -- */
  gint64 at_block;              /* -1: the next one */
  gint64 restart_in;            /* with at_block -1, blocks in flight restart: in this iteration, -1
                                 * as soon as it is encoded; 0: they do not */
  int transition;
} DpQueuedPrompt;

/** What a block gets. */
typedef struct
{
  gpointer encoded;             /* of its prompt; the queue's, until the next call */
  gboolean begins;              /* the prompt takes effect with this block */
  double weight;                /* share of it; the rest is what the block before `begins` had */
  guint id;                     /* as DpConditioning has it: one a prompt and one a blend */
  guint prompt_id;              /* 0, 1, 2, ...: one a prompt that took effect */
  gint64 restarted_in;          /* the iteration, if it began with a block in flight; else 0 */
} DpPromptUse;

/* Thread-safety: none; the caller's lock. */
typedef struct _DpPromptQueue DpPromptQueue;

/** `free_encoded` frees what dp_prompt_queue_encoded() gives. */
DpPromptQueue *dp_prompt_queue_new (const DpBlockFrames *frames, GDestroyNotify free_encoded);
/** NULL is fine. */
void dp_prompt_queue_free (DpPromptQueue *queue);

/** Adds a prompt, as dp_engine_queue_prompt() documents it. `restart_in` > 0 is the iteration in
 *  which blocks in flight restart with it; 0: what the prompt says. Errors: DP_ERROR_SETTINGS for a
 *  bad text, a block that was already admitted, fields that do not go together. */
gboolean dp_prompt_queue_add (DpPromptQueue *queue, const DpPrompt *prompt, gint64 restart_in, GError **error);

/** The prompt to encode now: the one that is wanted first, of those for the same block the oldest.
 *  NULL if there is none, or enough are encoded ahead. The prompt stays in the queue until
 *  dp_prompt_queue_encoded() has been called for it. */
const DpQueuedPrompt *dp_prompt_queue_next_to_encode (DpPromptQueue *queue);
/** The prompt named last is encoded. Takes `encoded`. */
void dp_prompt_queue_encoded (DpPromptQueue *queue, gpointer encoded);

/** What `block` gets. Blocks are asked for in order from 0; after dp_prompt_queue_poll() has said
 *  so, in order again from any block in flight to the newest. FALSE if a prompt for this block must
 *  be encoded first: ask again once another is encoded. Either way there may be more to encode. */
gboolean dp_prompt_queue_for_block (DpPromptQueue *queue, gint64 block, DpPromptUse *use);
/** At the start of each iteration: whether blocks in flight are to restart with a new prompt. FALSE
 *  if a prompt for this iteration must be encoded first: ask again once another is encoded. */
gboolean dp_prompt_queue_poll (DpPromptQueue *queue, gint64 iteration, gboolean *restart);

/** The earliest frame that a prompt can be queued for: the first of the next block. */
gint64 dp_prompt_queue_next_frame (const DpPromptQueue *queue);
