/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * transport.h: how blocks move from stage to stage.
 *
 * Stages form a ring: 0 -> 1 -> ... -> N-1 -> 0. An end gives away what its stage has finished and
 * takes what comes next in one call, so that a transport can overlap the two. Prompts go around
 * the same way, each once, in front of the first block that names them.
 *
 * Three blocks an end are enough: one arrives, one is computed on, one leaves. The ring never
 * locks up as long as fewer blocks circulate than its ends have room for.
 */
#pragma once

#include "block.h"
#include "conditioning.h"
#include "dualparal.h"

/** Called on the end's own thread, from exchange(): a prompt has come. */
typedef void (*DpTold) (DpConditioning *conditioning, gpointer user_data);

typedef struct _DpTransport DpTransport;

/** What one stage sees of the ring. Thread-safety: the stage's own thread; shut_down() from any. */
struct _DpTransport
{
  DpTold told;                  /* set by the stage's thread before it opens the end */
  gpointer user_data;

  /** Makes room for blocks of that size on the stage's device, once that is open. Those that send
   *  to this end wait for it. Errors: DP_ERROR_NO_MEMORY. */
  gboolean (*open) (DpTransport *transport, DpDevice *dev, const DpBlockSize *size, GError **error);
  /** A block to fill in, or NULL when none is idle: then one has arrived, and is there to be taken. */
  DpBlock *(*take) (DpTransport *transport);
  /** Takes a block back: its buffers are idle once what is queued on the device is done. */
  void (*give) (DpTransport *transport, DpBlock *block);
  /** Sends `out` (NULL: nothing) to the next stage and returns the next block from the previous
   *  one: waits for it with `wait`, else NULL when none is there yet. NULL with `wait` means that
   *  the ring was shut down. Ordered with the device's queue, which it never waits for; it waits
   *  only while the next stage has no idle block. */
  DpBlock *(*exchange) (DpTransport *transport, DpBlock *out, gboolean wait);
  /** Tells the next stage of a prompt, before any block that is given away later. */
  void (*tell) (DpTransport *transport, DpConditioning *conditioning);
  /** Makes every wait on the ring return NULL, now and later. */
  void (*shut_down) (DpTransport *transport);
  /** Frees the end's blocks. All devices of the ring must be idle. */
  void (*close) (DpTransport *transport);
  void (*free) (DpTransport *transport);
};

#define DP_TRANSPORT_MOST_BLOCKS 4

/** Blocks that an end has room for, in a ring of so many stages, at most DP_TRANSPORT_MOST_BLOCKS: one that arrives, one that is computed and
 *  one that leaves. Two stages have one more each, or there would be no room for blocks that wait while the decoder has its turn. */
int dp_transport_room (int stages);

/** Fills ends[0..stages) with the ends of a ring inside this process. */
void dp_transport_local_new (int stages, DpTransport **ends);
