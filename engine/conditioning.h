/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * conditioning.h: from prompt text to what a block is conditioned on.
 *
 * A DpConditioning is an encoded prompt with its negative, or a blend of two; blocks hold references
 * to it. A DpConditioner owns the tokenizer, the text encoder and the queue of prompts, and encodes
 * on its own thread. The schedule asks it when a block is admitted, and again when blocks in flight
 * restart with a new prompt. Which block gets which prompt is in prompt_queue.h. A prompt for "the
 * next block" never makes a block wait. One for a certain frame or iteration does, so that the result
 * does not depend on timing.
 */
#pragma once

#include <glib.h>
#include "wan/model.h"
#include "prompt_queue.h"
#include "trace.h"

typedef struct
{
  gint refs;
  guint id;                     /* grows along the queue of blocks: a block never has a smaller one than the block in front */
  guint prompt_id;              /* the same for a prompt and its blends */
  gint64 replanned_at;          /* as DpFrame has it */
  char *prompt;                 /* as given */
  int dim;
  int n[2];                     /* real tokens of prompt and negative prompt */
  float *embeds[2];             /* [n, dim] */
} DpConditioning;

DpConditioning *dp_conditioning_ref (DpConditioning *conditioning);
void dp_conditioning_unref (DpConditioning *conditioning);      /* NULL is fine */

/** Between two prompts, row by row of the padded texts: `from` at weight 0, `to` at 1, exactly. Has the words of `to`, and no id. */
DpConditioning *dp_conditioning_blend (const DpConditioning *from, const DpConditioning *to, double weight);

/* Thread-safety: every function from any thread, dp_conditioner_free() last. */
typedef struct _DpConditioner DpConditioner;

/** Where it reads from and runs. */
typedef struct
{
  const DpModel *model;         /* must outlive it */
  const char *device;
  int threads;
  DpType type;                  /* of weights and activations */
  gboolean streamed;            /* see text_encoder.h */
  int text_length;              /* most tokens of a prompt */
  DpBlockFrames frames;         /* of the video */
  DpTrace *trace;
  void (*opened) (DpWeights *weights, gpointer user_data);      /* called from its thread before the weights are read, for
                                                                 * dp_weights_watch(), which ends once they are; not for what is warm.
                                                                 * May be NULL */
  void (*loaded) (gpointer user_data);  /* called from its thread once the weights are in */
  void (*failed) (GError *error, gpointer user_data);   /* called from its thread; takes the error */
  gpointer user_data;
} DpConditionerSpec;

/** Starts a thread that loads tokenizer and text encoder, where they were not left warm, and then encodes what is queued. Between
 *  dp_part_cache_begin() and dp_part_cache_end(). NULL with DP_ERROR_NO_MEMORY where no thread can be started; what goes wrong later is
 *  told to `failed`, and returned by dp_conditioner_for_block(). The strings are copied. */
DpConditioner *dp_conditioner_new (const DpConditionerSpec *spec, GError **error);
/** What was loaded stays warm for `linger` seconds. NULL is fine. */
void dp_conditioner_free (DpConditioner *conditioner, int linger);

/** Queues a prompt, as dp_prompt_queue_add() documents it. */
gboolean dp_conditioner_queue (DpConditioner *conditioner, const DpPrompt *prompt, gint64 restart_in, GError **error);

/** What block `block` is conditioned on, after `previous` (NULL for block 0). Blocks are asked for in order; after dp_conditioner_poll()
 *  has said so, in order again from any block in flight to the newest. Waits for an encoding only when a prompt was queued for
 *  this block or one before it (the first prompt counts as queued for block 0). A new reference; NULL with `error` after
 *  dp_conditioner_cancel() or when an encoding failed. */
DpConditioning *dp_conditioner_for_block (DpConditioner *conditioner, gint64 block, DpConditioning *previous, GError **error);

/** Called at the start of each iteration: whether a prompt is there for blocks in flight. Waits for an encoding only when one was queued
 *  for this iteration. FALSE with `error` as above. */
gboolean dp_conditioner_poll (DpConditioner *conditioner, gint64 iteration, gboolean *replan, GError **error);

/** The earliest frame that a prompt can be queued for. */
gint64 dp_conditioner_next_frame (DpConditioner *conditioner);

/** Until then no block is admitted: what is queued before it reaches the first blocks whatever the timing. */
void dp_conditioner_start (DpConditioner *conditioner);

/** Wakes and fails every waiter, now and later. */
void dp_conditioner_cancel (DpConditioner *conditioner);

/** The first prompt's conditioning once it is encoded (a new reference); waits for it. NULL with `error` as above. */
DpConditioning *dp_conditioner_first (DpConditioner *conditioner, GError **error);

/** Memory it held on its device when a prompt was last encoded; 0 before. */
gsize dp_conditioner_device_bytes (DpConditioner *conditioner);
