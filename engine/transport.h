/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * transport.h: how blocks move from stage to stage.
 *
 * Stages form a ring: 0 -> 1 -> ... -> N-1 -> 0. A DpBlock is the message: a fixed header, and the tensors that travel with it. A
 * stage gives away what it has finished and takes what comes next in one call, so that a transport can overlap the two.
 */
#pragma once

#include <glib.h>
#include "block_queue.h"
#include "conditioning.h"

/** One pass on its way. The counts of latent frames are all a stage needs to know of the scheme. */
typedef struct
{
  DpPass pass;
  int first_step;               /* 0; or the step at which the block began anew, which the model sees as step 0 */
  int context;                  /* latent frames of the previous block in front */
  int own;                      /* latent frames of this block */
  int next_cached;              /* frames of the following block whose keys the stages hold, 0: none */
  int to_cache;                 /* first own frames whose keys the previous block's pass will want, 0: none */
  gint64 sent_us;               /* g_get_monotonic_time() when it was given away last */
  guint oldest_prompt;          /* no pass from here on asks for a conditioning with a smaller id */
  DpConditioning *conditioning; /* a reference */
  float *latents;               /* [context + own, h, w, C] float32: in; the own part stepped by the last stage: out */
  float *tokens;                /* [S * L, D] float32, between stages */
} DpBlock;

typedef struct _DpTransport DpTransport;

/** What one stage sees of the ring. Thread-safety: exchange() by the stage's own thread, shut_down() by any. */
struct _DpTransport
{
  /** Sends `block` (NULL: nothing to send) to the next stage and returns the next block from the previous one: waits for it with `wait`,
   *  else NULL when none is there yet. NULL with `wait` means the ring was shut down. The block given away is the receiver's from then
   *  on. */
  DpBlock *(*exchange) (DpTransport *transport, DpBlock *block, gboolean wait);
  /** Makes every wait on the ring return NULL, now and later. */
  void (*shut_down) (DpTransport *transport);
  void (*free) (DpTransport *transport);
};

/** N ends of a ring inside this process; blocks move as pointers. `capacity`: most blocks in circulation, so that sending never waits.
 *  Fills ends[0..stages). */
void dp_transport_local_new (int stages, int capacity, DpTransport **ends);
