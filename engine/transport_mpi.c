/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport_mpi.h"

#include <string.h>

#define CLOSE_US (6 * G_USEC_PER_SEC)   /* by then a rank that does not take its block is known to be gone */

/* What is sent of a block beside its tensors. */
typedef struct
{
  DpBlockHeader header;
  char error[512];
} Body;

G_STATIC_ASSERT (sizeof (((DpBlock *) NULL)->error) == sizeof (((Body *) NULL)->error));

/* What is sent of a conditioning; behind it the embeddings, then the prompt. */
typedef struct
{
  gint64 replanned_at;
  guint32 id, prompt_id;
  gint32 dim, n[2];
} ToldBody;

typedef struct
{
  struct End *end;
  DpBlock *block;
  float *latents, *tokens;      /* of the host: the block's own, or what stands for them */
  gsize sizes[2];               /* bytes that were sent */
  gboolean failed;              /* it came with an error */
} Slot;

typedef struct End
{
  DpTransport base;
  DpTransportMpiSpec spec;

  /* -- owned by the stage's thread -- */
  DpBlockSize size;

  /* -- protected by lock -- */
  GMutex lock;
  GCond changed;
  DpBlockPool pool;             /* n_blocks is 0 until it is open */
  Slot slots[DP_TRANSPORT_MOST_BLOCKS];      /* by block */
  GQueue inbox, outbox;         /* of Slot; the outbox waits for credits */
  Slot *arriving;
  GQueue prompts;               /* of DpConditioning, references */
  int credits;                  /* for blocks to the next end */
  int owed;                     /* credits that the previous end has */
  int under_way;                /* blocks that MPI is sending */
  gboolean down, lost;          /* lost: MPI may keep some buffers forever */
} End;

static int
next_of (const End *end)
{
  return (end->spec.rank + 1) % end->spec.ranks;
}

static int
previous_of (const End *end)
{
  return (end->spec.rank + end->spec.ranks - 1) % end->spec.ranks;
}

static Slot *
slot_of (End *end, const DpBlock *block)
{
  return &end->slots[block - end->pool.blocks];
}

/* ---- under lock ---- */

/* Gives credits for idle blocks. Stage 0 keeps one to fill in, unless it has one already. */
static void
give_credits (End *end)
{
  int busy = end->pool.n_blocks - end->pool.n_idle - (int) end->inbox.length - (end->arriving != NULL);
  int kept = end->spec.rank == 0 && busy == 0;

  for (; end->pool.n_idle - kept > end->owed && end->owed < 2; end->owed++)
    dp_post_send (previous_of (end), DP_POST_CREDIT, end->spec.session, NULL, 0);
}

static void
make_idle (End *end, DpBlock *block)
{
  dp_block_pool_give (&end->pool, block);
  if (!end->down)
    give_credits (end);
  g_cond_broadcast (&end->changed);
}

static void
sent (gboolean lost, gpointer data)
{
  Slot *slot = data;
  End *end = slot->end;

  g_mutex_lock (&end->lock);
  end->under_way--;
  end->lost |= lost;
  make_idle (end, slot->block);
  g_mutex_unlock (&end->lock);
}

static void
send_with_credit (End *end)
{
  for (Slot *slot; end->credits > 0 && (slot = g_queue_pop_head (&end->outbox)); end->credits--) {
    Body body = { .header = slot->block->header };

    g_strlcpy (body.error, slot->block->error, sizeof body.error);
    end->under_way++;
    dp_post_send_payload (next_of (end), DP_POST_BLOCK, end->spec.session, &body, sizeof body,
        (const void *const[2]) { slot->latents, slot->tokens }, slot->sizes, sent, slot);
  }
}

/* ---- on the post's thread ---- */

static gboolean
place (const DpLetter *letter, gpointer places[2], gpointer data)
{
  End *end = data;
  DpBlock *block = NULL;

  if (letter->kind != DP_POST_BLOCK || letter->from != previous_of (end) || letter->bytes < sizeof (Body))
    return FALSE;
  g_mutex_lock (&end->lock);
  if (!end->down && end->pool.n_blocks > 0 && letter->payload[0] <= sizeof (float) * end->size.frames * end->size.latents
      && letter->payload[1] <= sizeof (float) * end->size.frames * end->size.tokens)
    block = dp_block_pool_take (&end->pool);
  if (block) {
    end->arriving = slot_of (end, block);
    places[0] = end->arriving->latents;
    places[1] = end->arriving->tokens;
    end->owed--;
  }
  g_mutex_unlock (&end->lock);
  return block != NULL;
}

static void
take_block (End *end, const DpLetter *letter)
{
  Slot *slot = end->arriving;
  const Body *body = letter->body;

  if (slot == NULL) {           /* an error comes without payload */
    DpBlock *block = letter->bytes < sizeof *body || end->pool.n_blocks == 0 ? NULL : dp_block_pool_take (&end->pool);

    if (block == NULL)
      return;
    slot = slot_of (end, block);
    end->owed--;
  }
  end->arriving = NULL;
  slot->block->header = body->header;
  g_strlcpy (slot->block->error, body->error, sizeof slot->block->error);
  slot->failed = body->header.error != 0;
  slot->sizes[0] = letter->payload[0];
  slot->sizes[1] = letter->payload[1];
  g_queue_push_tail (&end->inbox, slot);
}

static void
take_prompt (End *end, const DpLetter *letter)
{
  const ToldBody *body = letter->body;
  const char *at = (const char *) (body + 1);
  gsize sizes[2];

  if (letter->bytes < sizeof *body || body->dim < 1 || body->n[0] < 0 || body->n[1] < 0)
    return;
  for (int i = 0; i < 2; i++)
    sizes[i] = sizeof (float) * body->n[i] * (gsize) body->dim;
  if (letter->bytes < sizeof *body + sizes[0] + sizes[1])
    return;
  DpConditioning *c = g_new0 (DpConditioning, 1);
  *c = (DpConditioning) { .refs = 1, .id = body->id, .prompt_id = body->prompt_id, .replanned_at = body->replanned_at, .dim = body->dim,
    .n = { body->n[0], body->n[1] } };
  for (int i = 0; i < 2; at += sizes[i++])
    c->embeds[i] = g_memdup2 (at, sizes[i]);
  c->prompt = g_strndup (at, letter->bytes - (at - (const char *) letter->body));
  g_queue_push_tail (&end->prompts, c);
}

static void
take_letter (const DpLetter *letter, gpointer data)
{
  End *end = data;
  gboolean other = FALSE;

  g_mutex_lock (&end->lock);
  if (letter->kind == DP_POST_CREDIT) {
    end->credits++;
    if (!end->down)
      send_with_credit (end);
  } else if (letter->kind == DP_POST_BLOCK)
    take_block (end, letter);
  else if (letter->kind == DP_POST_TOLD)
    take_prompt (end, letter);
  else
    other = TRUE;
  g_cond_broadcast (&end->changed);
  g_mutex_unlock (&end->lock);
  if (other)
    end->spec.letter (letter, end->spec.user_data);
}

static void
lose (int rank, const char *why, gpointer data)
{
  End *end = data;

  /* The others end too, and may do so before they have taken what they were sent: close() waits for none of them. */
  g_mutex_lock (&end->lock);
  end->lost = TRUE;
  g_cond_broadcast (&end->changed);
  g_mutex_unlock (&end->lock);
  end->spec.gone (rank, why, end->spec.user_data);
}

/* ---- the stage's thread ---- */

static gboolean
mpi_open (DpTransport *transport, DpDevice *dev, const DpBlockSize *size, GError **error)
{
  End *end = (End *) transport;
  DpBlockPool pool;

  if (!dp_block_pool_open (&pool, dev, size, dp_transport_room (end->spec.ranks), error))
    return FALSE;
  g_mutex_lock (&end->lock);
  end->pool = pool;
  end->size = *size;
  for (int i = 0; i < pool.n_blocks; i++)
    end->slots[i] = (Slot) { .end = end, .block = &pool.blocks[i], .latents = pool.blocks[i].latents, .tokens = pool.blocks[i].tokens };
  for (int i = 0; i < pool.n_blocks && !dev->host_memory; i++) {
    end->slots[i].latents = dev->ops->host_alloc (dev, sizeof (float) * size->frames * size->latents);
    end->slots[i].tokens = dev->ops->host_alloc (dev, sizeof (float) * size->frames * size->tokens);
  }
  gboolean ok = TRUE;
  for (int i = 0; i < pool.n_blocks; i++)
    ok &= end->slots[i].latents != NULL && end->slots[i].tokens != NULL;
  if (ok)
    give_credits (end);
  g_mutex_unlock (&end->lock);
  if (!ok)
    g_set_error (error, DP_ERROR, DP_ERROR_NO_MEMORY, "%s: there is not enough memory of the host for blocks on their way to other ranks; "
        "use a smaller width, height or block-latents", dev->name);
  return ok;
}

static DpBlock *
mpi_take (DpTransport *transport)
{
  End *end = (End *) transport;
  DpBlock *block = NULL;

  g_mutex_lock (&end->lock);
  /* What is idle beyond the credits; else one comes back from MPI soon, or from the ring. */
  while (!end->down && end->pool.n_idle <= end->owed && end->inbox.length == 0 && end->under_way + end->outbox.length > 0)
    g_cond_wait (&end->changed, &end->lock);
  if (!end->down && end->pool.n_idle > end->owed)
    block = dp_block_pool_take (&end->pool);
  if (block) {
    slot_of (end, block)->failed = FALSE;
    give_credits (end);
  }
  g_mutex_unlock (&end->lock);
  return block;
}

static void
mpi_give (DpTransport *transport, DpBlock *block)
{
  End *end = (End *) transport;

  /* What is queued on the device and uses the block's buffers comes before an upload into them; a host's is done. */
  g_mutex_lock (&end->lock);
  make_idle (end, block);
  g_mutex_unlock (&end->lock);
}

/* An error that began here says where that is. */
static void
name_stage (const End *end, DpBlock *block)
{
  g_autofree char *message = g_strdup_printf ("%s: %s", end->spec.name, block->error);
  GError *error = g_error_new_literal (DP_ERROR, block->header.error - 1, message);

  block->header.error = 0;
  dp_block_fail (block, error);
}

static void
send (End *end, DpBlock *block)
{
  DpDevice *dev = end->pool.dev;
  Slot *slot = slot_of (end, block);
  gsize frames = block->header.context + block->header.own;

  if (block->header.error && !slot->failed)
    name_stage (end, block);
  block->header.sent_us = g_get_monotonic_time ();
  slot->sizes[0] = block->header.error ? 0 : sizeof (float) * frames * end->size.latents;
  slot->sizes[1] = block->header.error || next_of (end) == 0 ? 0 : sizeof (float) * frames * end->size.tokens;
  if (!dev->host_memory) {
    dev->ops->download (dev, slot->latents, block->latents, slot->sizes[0]);
    dev->ops->download (dev, slot->tokens, block->tokens, slot->sizes[1]);
  }
  g_mutex_lock (&end->lock);
  g_queue_push_tail (&end->outbox, slot);
  if (!end->down)
    send_with_credit (end);
  g_mutex_unlock (&end->lock);
}

static DpBlock *
receive (End *end, gboolean wait)
{
  GQueue prompts = G_QUEUE_INIT;
  Slot *slot = NULL;

  g_mutex_lock (&end->lock);
  while (wait && end->inbox.length == 0 && !end->down)
    g_cond_wait (&end->changed, &end->lock);
  if (!end->down && (slot = g_queue_pop_head (&end->inbox))) {
    prompts = end->prompts;
    g_queue_init (&end->prompts);
  }
  g_mutex_unlock (&end->lock);
  for (DpConditioning *c; (c = g_queue_pop_head (&prompts)); dp_conditioning_unref (c))
    end->base.told (c, end->base.user_data);
  if (slot == NULL)
    return NULL;
  DpDevice *dev = end->pool.dev;
  if (!dev->host_memory) {
    dev->ops->upload (dev, slot->block->latents, slot->latents, slot->sizes[0]);
    dev->ops->upload (dev, slot->block->tokens, slot->tokens, slot->sizes[1]);
  }
  return slot->block;
}

static DpBlock *
mpi_exchange (DpTransport *transport, DpBlock *out, gboolean wait)
{
  End *end = (End *) transport;

  if (out)
    send (end, out);
  return receive (end, wait);
}

static void
mpi_tell (DpTransport *transport, DpConditioning *c)
{
  End *end = (End *) transport;
  ToldBody body = { .replanned_at = c->replanned_at, .id = c->id, .prompt_id = c->prompt_id, .dim = c->dim, .n = { c->n[0], c->n[1] } };
  GByteArray *bytes = g_byte_array_new ();

  g_byte_array_append (bytes, (const guint8 *) &body, sizeof body);
  for (int i = 0; i < 2; i++)
    if (c->n[i] > 0)
      g_byte_array_append (bytes, (const guint8 *) c->embeds[i], sizeof (float) * c->n[i] * c->dim);
  if (c->prompt)
    g_byte_array_append (bytes, (const guint8 *) c->prompt, strlen (c->prompt));
  dp_post_send (next_of (end), DP_POST_TOLD, end->spec.session, bytes->data, bytes->len);
  g_byte_array_unref (bytes);
}

static void
mpi_shut_down (DpTransport *transport)
{
  End *end = (End *) transport;

  g_mutex_lock (&end->lock);
  end->down = TRUE;
  g_cond_broadcast (&end->changed);
  g_mutex_unlock (&end->lock);
}

static void
mpi_close (DpTransport *transport)
{
  End *end = (End *) transport;
  gint64 until = g_get_monotonic_time () + CLOSE_US;

  g_mutex_lock (&end->lock);
  while ((end->under_way > 0 || end->arriving) && !end->lost && g_cond_wait_until (&end->changed, &end->lock, until));
  gboolean lost = end->lost || end->under_way > 0 || end->arriving;
  g_mutex_unlock (&end->lock);
  dp_post_unlisten (end->spec.session);
  if (lost)                     /* MPI has the buffers, so nobody else gets them */
    return;
  for (int i = 0; i < end->pool.n_blocks; i++) {
    Slot *s = &end->slots[i];

    if (s->latents != s->block->latents)
      end->pool.dev->ops->host_free (end->pool.dev, s->latents);
    if (s->tokens != s->block->tokens)
      end->pool.dev->ops->host_free (end->pool.dev, s->tokens);
  }
  if (end->pool.n_blocks > 0)
    dp_block_pool_close (&end->pool);
}

static void
mpi_free (DpTransport *transport)
{
  End *end = (End *) transport;

  g_queue_clear_full (&end->prompts, (GDestroyNotify) dp_conditioning_unref);
  g_queue_clear (&end->inbox);
  g_queue_clear (&end->outbox);
  if (end->under_way > 0)       /* what MPI gives back later is told to it */
    return;
  g_cond_clear (&end->changed);
  g_mutex_clear (&end->lock);
  g_free (end);
}

void
dp_transport_mpi_listen (DpTransport *transport)
{
  static const DpPostListener listener = { .place = place, .letter = take_letter, .gone = lose };
  End *end = (End *) transport;

  dp_post_listen (end->spec.session, &listener, end);
}

DpTransport *
dp_transport_mpi_new (const DpTransportMpiSpec *spec)
{
  static const DpTransport base = {
    .open = mpi_open, .take = mpi_take, .give = mpi_give, .exchange = mpi_exchange, .tell = mpi_tell,
    .shut_down = mpi_shut_down, .close = mpi_close, .free = mpi_free };
  End *end = g_new0 (End, 1);

  *end = (End) { .base = base, .spec = *spec };
  g_mutex_init (&end->lock);
  g_cond_init (&end->changed);
  return &end->base;
}
