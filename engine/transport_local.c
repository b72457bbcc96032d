/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport.h"

typedef struct
{
  gint refs;
  int stages;
  struct End *ends[DP_MAX_STAGES];

  /* -- protected by lock -- */
  GMutex lock;
  gboolean down;
} Ring;

typedef struct End
{
  DpTransport base;
  Ring *ring;
  int index;
  gboolean linked;              /* the next end's blocks have their marks; owned by the stage's thread */

  /* -- protected by the ring's lock -- */
  DpBlockPool pool;             /* n_blocks is 0 until it is open */
  DpBlockSize size;
  DpBlock **inbox;              /* [n_blocks], a FIFO */
  int first, count;
  GQueue prompts;               /* of DpConditioning, references */
  GCond changed;                /* something came, or a block became idle */
} End;

static End *
next_of (const End *end)
{
  return end->ring->ends[(end->index + 1) % end->ring->stages];
}

static gboolean
local_open (DpTransport *transport, DpDevice *dev, const DpBlockSize *size, GError **error)
{
  End *end = (End *) transport;
  DpBlockPool pool;

  if (!dp_block_pool_open (&pool, dev, size, dp_transport_room (end->ring->stages), error))
    return FALSE;
  g_mutex_lock (&end->ring->lock);
  end->pool = pool;
  end->size = *size;
  end->inbox = g_new0 (DpBlock *, pool.n_blocks);
  g_cond_broadcast (&end->changed);
  g_mutex_unlock (&end->ring->lock);
  return TRUE;
}

static DpBlock *
local_take (DpTransport *transport)
{
  End *end = (End *) transport;
  DpBlock *b;

  g_mutex_lock (&end->ring->lock);
  b = dp_block_pool_take (&end->pool);
  g_mutex_unlock (&end->ring->lock);
  if (b && b->unused)
    end->pool.dev->ops->follow (end->pool.dev, b->unused);
  return b;
}

static void
give_idle (End *end, DpBlock *b, const DpMark *unused)
{
  g_mutex_lock (&end->ring->lock);
  b->unused = unused;
  dp_block_pool_give (&end->pool, b);
  g_cond_broadcast (&end->changed);
  g_mutex_unlock (&end->ring->lock);
}

static void
local_give (DpTransport *transport, DpBlock *b)
{
  End *end = (End *) transport;
  DpDevice *dev = end->pool.dev;

  dev->ops->mark (dev, b->computed);
  give_idle (end, b, b->computed);
}

static void
put (End *end, DpBlock *b)
{
  g_mutex_lock (&end->ring->lock);
  g_assert (end->count < end->pool.n_blocks);
  end->inbox[(end->first + end->count++) % end->pool.n_blocks] = b;
  g_cond_broadcast (&end->changed);
  g_mutex_unlock (&end->ring->lock);
}

static void
transfer (End *end, End *next, const DpBlock *out, DpBlock *in)
{
  DpDevice *dev = end->pool.dev;
  gsize frames = out->header.context + out->header.own;
  DpTransferArgs args = { .from = dev, .to = next->pool.dev, .after = { out->computed, in->unused }, .done = in->arrived };

  args.src = out->latents;
  args.dst = in->latents;
  args.bytes = sizeof (float) * frames * end->size.latents;
  dev->ops->transfer (dev, &args);
  if (next->index == 0)         /* which wants nothing but the latents */
    return;
  args.src = out->tokens;
  args.dst = in->tokens;
  args.bytes = sizeof (float) * frames * end->size.tokens;
  dev->ops->transfer (dev, &args);
}

/* Makes the marks of all blocks of the next end, so that none is made while the ring runs. */
static gboolean
link_ends (End *end, End *next)
{
  for (int i = 0; i < next->pool.n_blocks; i++) {
    DpBlock *in = &next->pool.blocks[i];

    if ((in->arrived = dp_device_link_mark_new (end->pool.dev, next->pool.dev)) == NULL)
      return FALSE;
  }
  return end->linked = TRUE;
}

/* Copies a block to the next end, in a queue of its own beside the device's. */
static void
send (End *end, DpBlock *out)
{
  End *next = next_of (end);
  DpDevice *dev = end->pool.dev;
  DpBlock *in;

  out->header.sent_us = g_get_monotonic_time ();
  if (next == end) {            /* alone: it has come back */
    put (end, out);
    return;
  }
  g_mutex_lock (&end->ring->lock);
  while ((in = dp_block_pool_take (&next->pool)) == NULL && !end->ring->down)
    g_cond_wait (&next->changed, &end->ring->lock);
  g_mutex_unlock (&end->ring->lock);
  if (in == NULL)
    return;
  in->header = out->header;
  g_strlcpy (in->error, out->error, sizeof in->error);
  if (!end->linked && !link_ends (end, next))
    dp_block_fail (in, g_error_new (DP_ERROR, DP_ERROR_DEVICE, "%s failed while a block was sent: %s", dev->name, dev->error));
  dev->ops->mark (dev, out->computed);
  if (in->header.error == 0)
    transfer (end, next, out, in);
  put (next, in);
  give_idle (end, out, in->arrived);
}

static DpBlock *
receive (End *end, gboolean wait)
{
  GQueue prompts = G_QUEUE_INIT;
  DpBlock *b = NULL;

  g_mutex_lock (&end->ring->lock);
  while (wait && end->count == 0 && !end->ring->down)
    g_cond_wait (&end->changed, &end->ring->lock);
  if (end->count > 0 && !end->ring->down) {
    b = end->inbox[end->first];
    end->first = (end->first + 1) % end->pool.n_blocks;
    end->count--;
    prompts = end->prompts;
    g_queue_init (&end->prompts);
  }
  g_mutex_unlock (&end->ring->lock);
  for (DpConditioning *c; (c = g_queue_pop_head (&prompts)); dp_conditioning_unref (c))
    end->base.told (c, end->base.user_data);
  if (b && b->arrived)
    end->pool.dev->ops->follow (end->pool.dev, b->arrived);
  return b;
}

static DpBlock *
local_exchange (DpTransport *transport, DpBlock *out, gboolean wait)
{
  End *end = (End *) transport;

  if (out)
    send (end, out);
  return receive (end, wait);
}

static void
local_tell (DpTransport *transport, DpConditioning *conditioning)
{
  End *end = (End *) transport, *next = next_of (end);

  g_mutex_lock (&end->ring->lock);
  g_queue_push_tail (&next->prompts, dp_conditioning_ref (conditioning));
  g_mutex_unlock (&end->ring->lock);
}

static void
local_shut_down (DpTransport *transport)
{
  Ring *ring = ((End *) transport)->ring;

  g_mutex_lock (&ring->lock);
  ring->down = TRUE;
  for (int i = 0; i < ring->stages; i++)
    g_cond_broadcast (&ring->ends[i]->changed);
  g_mutex_unlock (&ring->lock);
}

static void
local_close (DpTransport *transport)
{
  End *end = (End *) transport;

  for (int i = 0; i < end->pool.n_blocks; i++)
    end->pool.dev->ops->mark_free (end->pool.dev, end->pool.blocks[i].arrived);
  dp_block_pool_close (&end->pool);
}

static void
local_free (DpTransport *transport)
{
  End *end = (End *) transport;
  Ring *ring = end->ring;

  g_queue_clear_full (&end->prompts, (GDestroyNotify) dp_conditioning_unref);
  g_cond_clear (&end->changed);
  g_free (end->inbox);
  g_free (end);
  if (!g_atomic_int_dec_and_test (&ring->refs))
    return;
  g_mutex_clear (&ring->lock);
  g_free (ring);
}

int
dp_transport_room (int stages)
{
  return stages == 1 ? 1 : stages == 2 ? DP_TRANSPORT_MOST_BLOCKS : 3;
}

void
dp_transport_local_new (int stages, DpTransport **ends)
{
  static const DpTransport base = {
    .open = local_open, .take = local_take, .give = local_give, .exchange = local_exchange, .tell = local_tell,
    .shut_down = local_shut_down, .close = local_close, .free = local_free };
  Ring *ring = g_new0 (Ring, 1);

  g_assert (stages >= 1 && stages <= DP_MAX_STAGES);
  ring->refs = ring->stages = stages;
  g_mutex_init (&ring->lock);
  for (int i = 0; i < stages; i++) {
    End *end = g_new0 (End, 1);

    *end = (End) { .base = base, .ring = ring, .index = i };
    g_cond_init (&end->changed);
    ring->ends[i] = end;
    ends[i] = &end->base;
  }
}
