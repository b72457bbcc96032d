/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport.h"

/* A bounded FIFO of pointers: nothing is allocated while it runs. */
typedef struct
{
  DpBlock **blocks;
  int first, count;
  GCond arrived;
} Inbox;

typedef struct
{
  gint refs;
  int stages, capacity;

  /* -- protected by lock -- */
  GMutex lock;
  gboolean down;
  Inbox *inboxes;
} Ring;

typedef struct
{
  DpTransport base;
  Ring *ring;
  int index;
} End;

static DpBlock *
local_exchange (DpTransport *transport, DpBlock *block, gboolean wait)
{
  End *end = (End *) transport;
  Ring *ring = end->ring;
  Inbox *mine = &ring->inboxes[end->index], *next = &ring->inboxes[(end->index + 1) % ring->stages];
  DpBlock *received = NULL;

  g_mutex_lock (&ring->lock);
  if (block) {
    g_assert (next->count < ring->capacity);
    next->blocks[(next->first + next->count++) % ring->capacity] = block;
    g_cond_signal (&next->arrived);
  }
  while (wait && mine->count == 0 && !ring->down)
    g_cond_wait (&mine->arrived, &ring->lock);
  if (mine->count > 0 && !ring->down) {
    received = mine->blocks[mine->first];
    mine->first = (mine->first + 1) % ring->capacity;
    mine->count--;
  }
  g_mutex_unlock (&ring->lock);
  return received;
}

static void
local_shut_down (DpTransport *transport)
{
  Ring *ring = ((End *) transport)->ring;

  g_mutex_lock (&ring->lock);
  ring->down = TRUE;
  for (int i = 0; i < ring->stages; i++)
    g_cond_broadcast (&ring->inboxes[i].arrived);
  g_mutex_unlock (&ring->lock);
}

static void
local_free (DpTransport *transport)
{
  Ring *ring = ((End *) transport)->ring;

  g_free (transport);
  if (!g_atomic_int_dec_and_test (&ring->refs))
    return;
  for (int i = 0; i < ring->stages; i++) {
    g_cond_clear (&ring->inboxes[i].arrived);
    g_free (ring->inboxes[i].blocks);
  }
  g_mutex_clear (&ring->lock);
  g_free (ring->inboxes);
  g_free (ring);
}

void
dp_transport_local_new (int stages, int capacity, DpTransport **ends)
{
  Ring *ring = g_new0 (Ring, 1);

  ring->refs = ring->stages = stages;
  ring->capacity = capacity;
  ring->inboxes = g_new0 (Inbox, stages);
  g_mutex_init (&ring->lock);
  for (int i = 0; i < stages; i++) {
    End *end = g_new0 (End, 1);

    ring->inboxes[i].blocks = g_new0 (DpBlock *, capacity);
    g_cond_init (&ring->inboxes[i].arrived);
    *end = (End) { { local_exchange, local_shut_down, local_free }, ring, i };
    ends[i] = &end->base;
  }
}
