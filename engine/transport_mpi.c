/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One piece, though long: the post's thread, the stage's and those of a GPU's wires all work on one end, under its lock.
 */
#include "transport_mpi.h"
#include "thread.h"
#include "token_wire.h"
#include "wan/device_error.h"

#include <string.h>

#define NO_GPU "it is not on a GPU"
#define NO_NCCL "it was built without NCCL"
#define CLOSE_US (6 * G_USEC_PER_SEC)   /* by then a rank that does not take its block is known to be gone */

/* What is sent of a block beside its tensors. */
typedef struct
{
  DpBlockHeader header;
  char error[512];
  guint8 wired;                 /* the tokens come by wire */
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
  int holds;                    /* who still needs its buffers to send them: MPI, the wire */

  /* -- on a GPU */
  gboolean leaves;              /* it goes to the next end; else it is only given back */
  gboolean wired;               /* its tokens go, or came, by wire */
  DpMark *copied;               /* reached once the host has a copy of what MPI sends */
} Slot;

/* One side of an end on a GPU. */
typedef struct
{
  GThread *thread;              /* NULL: none */
  GQueue slots;                 /* to be sent once they are computed, or whose tokens are to come by wire; under the end's lock */
  DpTokenWire wire;             /* owned by the thread */
  gboolean connected;           /* under the end's lock */
} Side;

typedef struct End
{
  DpTransport base;
  DpTransportMpiSpec spec;

  /* -- owned by the stage's thread -- */
  DpBlockSize size;
  DpDevice *host;               /* a GPU's other end of transfers; NULL where the device is the host */

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
  int leaving;                  /* blocks that are not being sent yet, or not given back yet */
  int under_way;                /* blocks that are being sent */
  int landing;                  /* blocks whose payload has begun to come, and is not in the inbox yet */
  Side out, in;
  DpWireId *id;                 /* of the wire to the next end, once that has named it */
  char *answer;                 /* of the previous end to the name of its wire; "": it has one */
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
  int busy = end->pool.n_blocks - end->pool.n_idle - (int) end->inbox.length - end->landing;
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
release (Slot *slot)
{
  End *end = slot->end;

  if (--slot->holds > 0)
    return;
  end->under_way--;
  make_idle (end, slot->block);
}

static void
sent (gboolean lost, gpointer data)
{
  Slot *slot = data;
  End *end = slot->end;

  g_mutex_lock (&end->lock);
  end->lost |= lost;
  release (slot);
  g_mutex_unlock (&end->lock);
}

static void
send_slot (End *end, Slot *slot)
{
  Body body = { .header = slot->block->header, .wired = slot->wired };

  g_strlcpy (body.error, slot->block->error, sizeof body.error);
  end->credits--;
  end->leaving--;
  end->under_way++;
  slot->holds = 1 + slot->wired;
  dp_post_send_payload (next_of (end), DP_POST_BLOCK, end->spec.session, &body, sizeof body,
      (const void *const[2]) { slot->latents, slot->tokens }, slot->sizes, sent, slot);
}

/* Of a host: what is in the outbox can be sent. */
static void
send_with_credit (End *end)
{
  for (Slot *slot; end->credits > 0 && (slot = g_queue_pop_head (&end->outbox));)
    send_slot (end, slot);
}

/* ---- on the post's thread ---- */

/* A block from the previous end that cannot be one of this ring's. */
static GError *
wrong_block (const End *end, int from, const char *what)
{
  return g_error_new (DP_ERROR, DP_ERROR_FAILED, "%s: the block from rank %d %s; install the same build on every host", end->spec.name, from,
      what);
}

static gboolean
place (const DpLetter *letter, gpointer places[2], gpointer data)
{
  End *end = data;
  DpBlock *block = NULL;
  gboolean fits = TRUE;

  if (letter->kind != DP_POST_BLOCK || letter->from != previous_of (end) || letter->bytes < sizeof (Body))
    return FALSE;
  g_mutex_lock (&end->lock);
  if (!end->down && end->pool.n_blocks > 0) {
    fits = letter->payload[0] <= sizeof (float) * end->size.frames * end->size.latents
        && letter->payload[1] <= sizeof (float) * end->size.frames * end->size.tokens;
    block = fits ? dp_block_pool_take (&end->pool) : NULL;
  }
  if (block) {
    end->arriving = slot_of (end, block);
    places[0] = end->arriving->latents;
    places[1] = end->arriving->tokens;
    end->owed--;
    end->landing++;
  }
  g_mutex_unlock (&end->lock);
  if (!fits)                    /* no block here could carry the error on */
    end->spec.failed (wrong_block (end, letter->from, "is larger than any of this video"), end->spec.user_data);
  return block != NULL;
}

/* Whether a block is as large as its header says, and has room here. */
static gboolean
is_whole (const End *end, const Body *body, const gsize payload[2])
{
  gsize frames = body->header.context + body->header.own;
  gsize tokens = end->spec.rank == 0 || (body->wired && end->in.thread) ? 0 : sizeof (float) * frames * end->size.tokens;

  return body->header.own > 0 && frames <= (gsize) end->size.frames && payload[0] == sizeof (float) * frames * end->size.latents
      && payload[1] == tokens;
}

/* Whether the steps, elements and counts of frames of a header are those of a pass of this ring. */
static gboolean
is_pass (const End *end, const DpBlockHeader *h)
{
  const int steps = end->size.steps, frames = end->size.frames;

  return h->step >= 0 && h->step < steps && h->first_step >= 0 && h->first_step < steps && h->previous_step < steps
      && h->elements >= 1 && h->elements <= 2 && h->element < h->elements && h->next_element <= h->element
      && h->previous_element <= h->element && h->next_cached <= frames && h->previous_cached <= frames && h->to_cache <= h->own
      && h->to_keep <= h->own && h->given <= MIN (end->size.given, h->own);
}

/* The error that came with a block; without an end, or from another version, it may be anything. */
static void
take_error (DpBlock *block, const Body *body)
{
  g_autofree char *said = g_strndup (body->error, sizeof body->error), *sentence = dp_quote (said, DP_QUOTE_SENTENCE);

  block->header.error = 0;
  dp_block_fail (block, g_error_new_literal (DP_ERROR, MIN (body->header.error - 1, DP_ERROR_FAILED), sentence));
}

static void
take_block (End *end, const DpLetter *letter)
{
  Slot *slot = end->arriving;
  const Body *body = letter->body;

  if (letter->from != previous_of (end) || letter->bytes < sizeof *body)
    return;
  if (slot == NULL) {           /* an error comes without payload */
    DpBlock *block = end->pool.n_blocks == 0 ? NULL : dp_block_pool_take (&end->pool);

    if (block == NULL)
      return;
    slot = slot_of (end, block);
    end->owed--;
    end->landing++;
  }
  end->arriving = NULL;
  slot->block->header = body->header;
  *slot->block->error = 0;
  if (body->header.error)
    take_error (slot->block, body);
  else if (!is_whole (end, body, letter->payload))
    dp_block_fail (slot->block, wrong_block (end, letter->from, "is not as large as it says"));
  else if (!is_pass (end, &body->header))
    dp_block_fail (slot->block, wrong_block (end, letter->from, "has steps or frames that this video has not"));
  slot->failed = slot->block->header.error != 0;
  slot->sizes[0] = letter->payload[0];
  slot->sizes[1] = letter->payload[1];
  slot->wired = body->wired && end->in.thread && !slot->failed;
  if (end->in.thread) {         /* it keeps their order */
    g_queue_push_tail (&end->in.slots, slot);
    return;
  }
  end->landing--;
  g_queue_push_tail (&end->inbox, slot);
}

/* A name for a wire to the next end has come, which has no place here. */
static void
refuse_wire (End *end, const char *why)
{
  if (end->id)
    dp_post_send (next_of (end), DP_POST_WIRE, end->spec.session, why, strlen (why));
  g_clear_pointer (&end->id, g_free);
}

/* The next end names a wire, or the previous one answers. */
static void
take_wire (End *end, const DpLetter *letter)
{
  if (letter->from == next_of (end) && letter->bytes == sizeof (DpWireId) && end->id == NULL) {
    end->id = g_memdup2 (letter->body, letter->bytes);
    if (end->pool.n_blocks > 0 && end->out.thread == NULL)
      refuse_wire (end, NO_GPU);
  } else if (letter->from == previous_of (end) && end->answer == NULL)
    end->answer = g_strndup (letter->body, letter->bytes);
}

static void
take_prompt (End *end, const DpLetter *letter)
{
  const ToldBody *body = letter->body;
  const char *at = (const char *) (body + 1);
  gsize sizes[2], left = letter->bytes - sizeof *body;

  if (letter->from != previous_of (end) || letter->bytes < sizeof *body || body->dim < 1)
    return;
  for (int i = 0; i < 2; i++) {
    if (body->n[i] < 0 || (gsize) body->n[i] > left / (sizeof (float) * body->dim))
      return;
    sizes[i] = sizeof (float) * body->n[i] * (gsize) body->dim;
    left -= sizes[i];
  }
  DpConditioning *c = g_new0 (DpConditioning, 1);
  *c = (DpConditioning) { .refs = 1, .id = body->id, .prompt_id = body->prompt_id, .replanned_at = body->replanned_at, .dim = body->dim,
    .n = { body->n[0], body->n[1] } };
  for (int i = 0; i < 2; at += sizes[i++])
    c->embeds[i] = g_memdup2 (at, sizes[i]);
  c->prompt = g_utf8_make_valid (at, left);
  g_queue_push_tail (&end->prompts, c);
}

static void
take_letter (const DpLetter *letter, gpointer data)
{
  End *end = data;
  gboolean other = FALSE;

  g_mutex_lock (&end->lock);
  if (letter->kind == DP_POST_CREDIT && letter->from == next_of (end)) {
    end->credits++;
    if (!end->down)
      send_with_credit (end);
  } else if (letter->kind == DP_POST_BLOCK)
    take_block (end, letter);
  else if (letter->kind == DP_POST_TOLD)
    take_prompt (end, letter);
  else if (letter->kind == DP_POST_WIRE)
    take_wire (end, letter);
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

/* ---- a GPU's wires ---- */

static gboolean
is_down (gpointer data)
{
  End *end = data;

  g_mutex_lock (&end->lock);
  gboolean down = end->down;
  g_mutex_unlock (&end->lock);
  return down;
}

/* Takes or gives the tokens of a block. */
static gboolean
pass_tokens (End *end, Side *side, const DpBlock *block, GError **error)
{
  return dp_token_wire_pass (&side->wire, block->tokens,
      sizeof (float) * (block->header.context + block->header.own) * end->size.tokens, error);
}

/* Makes the wire of a side. Returns how tokens will pass. */
static char *
connect_side (End *end, Side *side, const DpWireId *id)
{
  g_autoptr (GError) error = NULL;
  gboolean begun;

  side->wire = (DpTokenWire) { .dev = end->pool.dev, .is_down = is_down, .data = end };
  begun = dp_token_wire_begin (&side->wire, id, side == &end->in, &error);
  if (side == &end->out)
    dp_post_send (next_of (end), DP_POST_WIRE, end->spec.session, begun ? "" : error->message, begun ? 0 : strlen (error->message));
  if (begun && dp_token_wire_connect (&side->wire, &error)) {
    g_mutex_lock (&end->lock);
    side->connected = TRUE;
    g_mutex_unlock (&end->lock);
    return g_strdup ("by NCCL, from GPU to GPU");
  }
  return g_strdup_printf ("through host memory: %s", error ? error->message : "it was interrupted");
}

/* The receiver's name for a wire, and the sender's answer. NULL: all is to end. */
static char *
agree (End *end, DpWireId *id)
{
  const DpWireOps *ops = dp_device_wires (end->pool.dev);
  char message[256];
  char *answer;

  if (ops == NULL || !ops->id_new (id, message, sizeof message))
    return g_strdup (ops ? message : NO_NCCL);
  dp_post_send (previous_of (end), DP_POST_WIRE, end->spec.session, id, sizeof *id);
  g_mutex_lock (&end->lock);
  while (end->answer == NULL && !end->down)
    g_cond_wait (&end->changed, &end->lock);
  answer = g_strdup (end->answer);
  g_mutex_unlock (&end->lock);
  return answer;
}

static void
say_how (const End *end, const char *how)
{
  g_autofree char *sentence = g_strdup_printf ("tokens from stage %d come %s", previous_of (end), how);

  if (end->spec.connected)
    end->spec.connected (sentence, end->spec.user_data);
}

static gpointer
receiver (gpointer data)
{
  End *end = data;
  DpWireId id;
  g_autofree char *answer = agree (end, &id), *how = NULL;

  if (answer && answer[0] == '\0')
    how = connect_side (end, &end->in, &id);
  else if (answer)
    how = g_strdup_printf ("through host memory: %s", answer);
  if (how)
    say_how (end, how);
  g_mutex_lock (&end->lock);
  while (!end->down) {
    Slot *slot = g_queue_pop_head (&end->in.slots);

    if (slot == NULL) {
      g_cond_wait (&end->changed, &end->lock);
      continue;
    }
    g_mutex_unlock (&end->lock);
    GError *error = NULL;
    if (slot->wired && !pass_tokens (end, &end->in, slot->block, &error) && error)
      dp_block_fail (slot->block, error);
    g_mutex_lock (&end->lock);
    end->landing--;
    g_queue_push_tail (&end->inbox, slot);
    g_cond_broadcast (&end->changed);
  }
  g_mutex_unlock (&end->lock);
  dp_token_wire_clear (&end->in.wire);
  return NULL;
}

/* Waits until the GPU has computed the slot's block, then sends it or gives it back. Called under lock. */
static void
see_off (End *end, Slot *slot)
{
  DpDevice *dev = end->pool.dev;

  g_mutex_unlock (&end->lock);
  dev->ops->mark_wait (dev, slot->leaves ? slot->copied : slot->block->computed);
  g_mutex_lock (&end->lock);
  if (!slot->leaves) {
    end->leaving--;
    make_idle (end, slot->block);
    return;
  }
  while (end->credits == 0 && !end->down)
    g_cond_wait (&end->changed, &end->lock);
  if (end->down)
    return;
  send_slot (end, slot);
  if (!slot->wired)
    return;
  g_mutex_unlock (&end->lock);
  GError *error = NULL;
  if (!pass_tokens (end, &end->out, slot->block, &error) && error)
    end->spec.failed (error, end->spec.user_data);      /* too late for the block's header */
  g_mutex_lock (&end->lock);
  release (slot);
}

static gpointer
sender (gpointer data)
{
  End *end = data;

  g_mutex_lock (&end->lock);
  while (!end->down) {
    DpWireId *id = NULL;
    Slot *slot;

    if (dp_device_wires (end->pool.dev) == NULL)
      refuse_wire (end, NO_NCCL);
    if ((id = g_steal_pointer (&end->id))) {
      g_mutex_unlock (&end->lock);
      g_free (connect_side (end, &end->out, id));       /* the other end says how */
      g_mutex_lock (&end->lock);
      g_free (id);
    } else if ((slot = g_queue_pop_head (&end->out.slots)))
      see_off (end, slot);
    else
      g_cond_wait (&end->changed, &end->lock);
  }
  g_mutex_unlock (&end->lock);
  dp_token_wire_clear (&end->out.wire);
  return NULL;
}

/* ---- the stage's thread ---- */

/* Pinned memory, marks and threads of an end on a GPU. */
static gboolean
open_gpu (End *end, DpDevice *dev, GError **error)
{
  const DpBlockSize *size = &end->size;
  char message[256];
  gboolean ok;

  end->host = dp_device_open ("ref", 1, message, sizeof message);
  ok = end->host != NULL;
  for (int i = 0; i < end->pool.n_blocks; i++) {
    Slot *s = &end->slots[i];

    s->latents = dev->ops->host_alloc (dev, sizeof (float) * size->frames * size->latents);
    s->tokens = dev->ops->host_alloc (dev, sizeof (float) * size->frames * size->tokens);
    s->copied = dev->ops->mark_new (dev);
    s->block->arrived = dev->ops->mark_new (dev);
    ok &= s->latents && s->tokens && s->copied && s->block->arrived;
  }
  if (!ok) {
    dp_error_set (error, DP_ERROR_NO_MEMORY, "%s: there is not enough memory of the host for blocks on their way to other ranks; use a "
        "smaller width, height or block-latents", dev->name);
    return FALSE;
  }
  end->out.thread = dp_thread_new ("dp-sender", sender, end, error);
  if (end->out.thread && end->spec.rank > 0)    /* rank 0 wants nothing but latents */
    end->in.thread = dp_thread_new ("dp-receiver", receiver, end, error);
  return end->out.thread && (end->in.thread || end->spec.rank == 0);
}

static gboolean
mpi_open (DpTransport *transport, DpDevice *dev, const DpBlockSize *size, GError **error)
{
  End *end = (End *) transport;
  gboolean gpu = !dev->host_memory || end->spec.as_gpu, ok;
  DpBlockPool pool;

  if (!dp_block_pool_open (&pool, dev, size, dp_transport_room (end->spec.ranks), error))
    return FALSE;
  g_mutex_lock (&end->lock);
  end->pool = pool;
  end->size = *size;
  for (int i = 0; i < pool.n_blocks; i++)
    end->slots[i] = (Slot) { .end = end, .block = &pool.blocks[i], .latents = pool.blocks[i].latents, .tokens = pool.blocks[i].tokens };
  ok = !gpu || open_gpu (end, dev, error);
  if (!gpu)
    refuse_wire (end, NO_GPU);
  if (ok)
    give_credits (end);
  g_mutex_unlock (&end->lock);
  return ok;
}

static DpBlock *
mpi_take (DpTransport *transport)
{
  End *end = (End *) transport;
  DpBlock *block = NULL;

  g_mutex_lock (&end->lock);
  /* What is idle beyond the credits; else one comes back from MPI soon, or from the ring. */
  while (!end->down && end->pool.n_idle <= end->owed && end->inbox.length == 0 && end->under_way + end->leaving > 0)
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

/* For the sender, in the order of the device's queue. */
static void
see_off_later (End *end, Slot *slot, gboolean leaves)
{
  slot->leaves = leaves;
  g_mutex_lock (&end->lock);
  end->leaving++;
  g_queue_push_tail (&end->out.slots, slot);
  g_cond_broadcast (&end->changed);
  g_mutex_unlock (&end->lock);
}

static void
mpi_give (DpTransport *transport, DpBlock *block)
{
  End *end = (End *) transport;
  DpDevice *dev = end->pool.dev;

  if (end->host) {
    dev->ops->mark (dev, block->computed);
    see_off_later (end, slot_of (end, block), FALSE);
    return;
  }
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

/* Queues the copies of what a slot sends, or of what came, beside the passes. */
static void
copy (DpTransferArgs args, const Slot *slot, gboolean out)
{
  float *const device[2] = { slot->block->latents, slot->block->tokens }, *const host[2] = { slot->latents, slot->tokens };

  for (int i = 0; i < 2; i++) {
    args.src = out ? device[i] : host[i];
    args.dst = out ? host[i] : device[i];
    args.bytes = slot->sizes[i];
    args.from->ops->transfer (args.from, &args);
  }
}

/* Copies what MPI is to send of a block to the host, behind its pass. */
static void
copy_out (End *end, Slot *slot)
{
  DpDevice *dev = end->pool.dev;

  dev->ops->mark (dev, slot->block->computed);
  copy ((DpTransferArgs) { .from = dev, .to = end->host, .after = { slot->block->computed }, .done = slot->copied }, slot, TRUE);
}

/* Copies what MPI brought to the device. */
static void
copy_in (End *end, Slot *slot)
{
  DpDevice *dev = end->pool.dev, *host = end->host;
  DpBlock *block = slot->block;
  GError *error = NULL;

  copy ((DpTransferArgs) { .from = host, .to = dev, .done = block->arrived }, slot, FALSE);
  dev->ops->follow (dev, block->arrived);
  if (block->header.error == 0 && !dp_error_check_latch (host, &error, "a block that came from another rank"))
    dp_block_fail (block, error);
}

static void
send (End *end, DpBlock *block)
{
  Slot *slot = slot_of (end, block);
  gsize frames = block->header.context + block->header.own;

  if (block->header.error && !slot->failed)
    name_stage (end, block);
  block->header.sent_us = g_get_monotonic_time ();
  g_mutex_lock (&end->lock);
  slot->wired = end->out.connected && block->header.error == 0;
  g_mutex_unlock (&end->lock);
  slot->sizes[0] = block->header.error ? 0 : sizeof (float) * frames * end->size.latents;
  slot->sizes[1] = block->header.error || next_of (end) == 0 || slot->wired ? 0 : sizeof (float) * frames * end->size.tokens;
  if (end->host) {
    copy_out (end, slot);
    see_off_later (end, slot, TRUE);
    return;
  }
  g_mutex_lock (&end->lock);
  end->leaving++;
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
  if (slot && end->host)
    copy_in (end, slot);
  return slot ? slot->block : NULL;
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
join (Side *side)
{
  if (side->thread)
    g_thread_join (g_steal_pointer (&side->thread));
}

static void
free_slot (End *end, Slot *s)
{
  DpDevice *dev = end->pool.dev;

  if (end->host == NULL)
    return;
  dev->ops->host_free (dev, s->latents);
  dev->ops->host_free (dev, s->tokens);
  dev->ops->mark_free (dev, s->copied);
  dev->ops->mark_free (dev, s->block->arrived);
}

static void
mpi_close (DpTransport *transport)
{
  End *end = (End *) transport;
  gint64 until = g_get_monotonic_time () + CLOSE_US;

  join (&end->out);
  join (&end->in);
  g_mutex_lock (&end->lock);
  while ((end->under_way > 0 || end->arriving) && !end->lost && g_cond_wait_until (&end->changed, &end->lock, until));
  gboolean lost = end->lost || end->under_way > 0 || end->arriving;
  g_mutex_unlock (&end->lock);
  dp_post_unlisten (end->spec.session);
  if (lost)                     /* MPI has the buffers, so nobody else gets them */
    return;
  for (int i = 0; i < end->pool.n_blocks; i++)
    free_slot (end, &end->slots[i]);
  if (end->pool.n_blocks > 0)
    dp_block_pool_close (&end->pool);
  dp_device_close (end->host);
}

static void
mpi_free (DpTransport *transport)
{
  End *end = (End *) transport;

  g_queue_clear_full (&end->prompts, (GDestroyNotify) dp_conditioning_unref);
  g_queue_clear (&end->inbox);
  g_queue_clear (&end->outbox);
  g_queue_clear (&end->out.slots);
  g_queue_clear (&end->in.slots);
  g_free (end->id);
  g_free (end->answer);
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
