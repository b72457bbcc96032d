/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * block.h: a pass on its way around the ring, as a message; a guided one is two.
 *
 * A message is a header without pointers and the tensors behind it. The tensors never travel as
 * pointers: each end of a transport has a small pool of blocks on its own device, and sending
 * copies from a block of one pool into a block of the next. So a stage may be a thread of this
 * process or a process of another host.
 */
#pragma once

#include "wan/error.h"
#include "kernels/device.h"

/** What a stage needs to know of the scheme: plain numbers, the same in every process. */
typedef struct
{
  gint64 block, iteration;      /* of the pass, as DpPass has them */
  gint64 sent_us;               /* g_get_monotonic_time() of the sender when it gave it away */
  gint32 step;                  /* sampling step, 0..T-1 */
  gint32 first_step;            /* 0, or the step at which the block restarted: the model sees 0 */
  guint32 prompt;               /* id of its conditioning, told before */
  guint32 oldest_prompt;        /* no later pass asks for a conditioning with a smaller id */
  guint16 context;              /* latent frames of the previous block in front, which go through the layers with the block */
  guint16 own;                  /* latent frames of this block */
  guint16 next_cached;          /* frames of the following block whose keys the stages hold; 0: none */
  guint16 to_cache;             /* first own frames whose keys the previous block's pass will want */
  guint16 previous_cached;      /* last frames of the previous block whose keys the stages hold, in front; 0: none */
  guint16 previous_step;        /*   of the pass of the previous block that made them */
  guint16 to_keep;              /* last own frames whose keys passes of the following block may want */
  guint8 element, elements;     /* a guided pass is two messages: 0 of 2 with the prompt, 1 of 2 with the
                                 * negative prompt, which takes the step; else 0 of 1 */
  guint8 next_element, previous_element;        /* whose keys are read of the neighbours: this one's, or 0 where that is all there is */
  guint8 given;                 /* first own frames that are given, clean: the model is told timestep 0 of them */
  guint32 error;                /* 0; else 1 + the DpError of the stage that failed, and DpBlock.error
                                 * says why: the later stages only pass it on */
} DpBlockHeader;

G_STATIC_ASSERT (sizeof (DpBlockHeader) <= 64);

/** A message and its buffers. The holder of a block owns it; the pool owns the memory. */
typedef struct
{
  DpBlockHeader header;
  char error[512];              /* the sentence that goes with header.error */
  float *latents;               /* [context + own, h, w, C] float32: in; own part stepped: out */
  float *tokens;                /* [L, D] float32, between stages */
  DpMark *computed;             /* of the pool's device: what was queued when it was given away */
  DpMark *arrived;              /* of the transport: what was sent into it is here */
  const DpMark *unused;         /* from then on its buffers may be written to; NULL: at once */
} DpBlock;

/** The step that the model is told of a pass: where a block starts its latents are noise. */
int dp_block_told_step (int step, int first_step);

/** Marks a block as failed with `error`, which is taken. The first failure stays. */
void dp_block_fail (DpBlock *block, GError *error);
/** The failure as an error; the block must have one. */
GError *dp_block_error (const DpBlock *block);

/** What a block has room for. */
typedef struct
{
  int frames;                   /* latent frames of the largest pass */
  gsize latents, tokens;        /* floats a latent frame */
  int steps;                    /* T: what comes from another process is checked against it */
  int given;                    /* most frames that are given: 1, or 0 where the model is not told of them */
} DpBlockSize;

/** Blocks on one device. Thread-safety: none of its own; making and freeing is for the device's
 *  thread; taking and giving need the transport's lock. */
typedef struct
{
  DpDevice *dev;
  DpBlock *blocks;
  DpBlock **idle;
  int n_blocks, n_idle;
} DpBlockPool;

/** Makes n blocks. Errors: DP_ERROR_NO_MEMORY. */
gboolean dp_block_pool_open (DpBlockPool *pool, DpDevice *dev, const DpBlockSize *size, int n, GError **error);
/** Frees every block. What is queued on any device must be done with them. */
void dp_block_pool_close (DpBlockPool *pool);
/** NULL when none is idle. */
DpBlock *dp_block_pool_take (DpBlockPool *pool);
void dp_block_pool_give (DpBlockPool *pool, DpBlock *block);
