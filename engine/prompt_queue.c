/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "prompt_queue.h"
#include "wan/tokenizer.h"

#define ENCODED_AHEAD 32        /* most prompts for later blocks that are encoded already */

struct _DpPromptQueue
{
  DpBlockFrames frames;
  GDestroyNotify free_encoded;
  GQueue prompts;               /* of DpQueuedPrompt, in the order they were added */
  DpQueuedPrompt *encoding;     /* named by dp_prompt_queue_next_to_encode(), or NULL */
  char *negative;               /* cleaned, of the last prompt */
  gint64 last_block;            /* newest that was asked for; -1: none */
  gint64 iteration;             /* last polled */

  DpQueuedPrompt *current;
  gboolean begins;              /* it has taken effect since a block was last answered */
  gint64 since;                 /* its first block */
  gint64 restarted_in;
  guint prompt_id;
  gboolean numbered;            /* it has its id, without a blend */
  guint id;
  guint next_id, next_prompt_id;
};

gint64
dp_block_frames_first (const DpBlockFrames *f, gint64 block)
{
  gint64 others = MIN (block, DP_MAX_FRAMES) - 1;       /* does not overflow */

  return f->first_frame + (block == 0 ? 0 : f->block_0 + others * f->others);
}

gint64
dp_block_frames_block_from (const DpBlockFrames *f, gint64 frame)
{
  gint64 second = dp_block_frames_first (f, 1);

  if (frame <= second)
    return frame > f->first_frame;
  return 2 + (frame - second - 1) / f->others;
}

static void
prompt_free (DpPromptQueue *q, DpQueuedPrompt *p)
{
  if (p == NULL)
    return;
  if (p->encoded)
    q->free_encoded (p->encoded);
  g_free (p->prompt);
  g_free (p->negative);
  g_free (p->text);
  g_free (p);
}

DpPromptQueue *
dp_prompt_queue_new (const DpBlockFrames *frames, GDestroyNotify free_encoded)
{
  DpPromptQueue *q = g_new0 (DpPromptQueue, 1);

  g_assert (frames->block_0 > 0 && frames->others > 0);
  q->frames = *frames;
  q->free_encoded = free_encoded;
  q->last_block = -1;
  return q;
}

void
dp_prompt_queue_free (DpPromptQueue *q)
{
  DpQueuedPrompt *p;

  if (q == NULL)
    return;
  while ((p = g_queue_pop_head (&q->prompts)))
    prompt_free (q, p);
  prompt_free (q, q->current);
  g_free (q->negative);
  g_free (q);
}

/* ---- coming in ---- */

/* Whether it is for the next block, whichever that is; else a block or an iteration was given. */
static gboolean
is_for_next (const DpQueuedPrompt *p)
{
  return p->at_block < 0 && p->restart_in <= 0;
}

/* Frees the prompts for the next block before `last` (NULL: all) that no block can get any more:
 * with `encoded` those that are encoded, else those that are not. However many are added, two stay. */
static void
drop_superseded (DpPromptQueue *q, const DpQueuedPrompt *last, gboolean encoded)
{
  for (GList *l = q->prompts.head, *next; l && l->data != last; l = next) {
    DpQueuedPrompt *p = l->data;

    next = l->next;
    if (!is_for_next (p) || p == q->encoding || (p->encoded != NULL) != encoded)
      continue;
    g_queue_delete_link (&q->prompts, l);
    prompt_free (q, p);
  }
}

static gboolean
check (const DpPromptQueue *q, const DpPrompt *prompt, gint64 restart_in, GError **error)
{
  if (prompt->transition_blocks < 0) {
    dp_error_set (error, DP_ERROR_SETTINGS, "a prompt was queued with a transition of %d blocks; it must be at least 0",
        prompt->transition_blocks);
    return FALSE;
  }
  if (prompt->at_frame >= 0 && (prompt->restart || restart_in > 0)) {
    dp_error_set (error, DP_ERROR_SETTINGS, "a prompt was queued for frame %" G_GINT64_FORMAT
        " and to restart blocks; only a prompt for frame -1 can restart blocks", prompt->at_frame);
    return FALSE;
  }
  if (prompt->at_frame >= 0 && dp_block_frames_block_from (&q->frames, prompt->at_frame) <= q->last_block) {
    dp_error_set (error, DP_ERROR_SETTINGS, "a prompt was queued for frame %" G_GINT64_FORMAT
        ", but its block has already started; the earliest frame now is %" G_GINT64_FORMAT ", or use -1 for as soon as possible",
        prompt->at_frame, dp_prompt_queue_next_frame (q));
    return FALSE;
  }
  return TRUE;
}

gboolean
dp_prompt_queue_add (DpPromptQueue *q, const DpPrompt *prompt, gint64 restart_in, GError **error)
{
  g_autofree char *cleaned = dp_prompt_clean (prompt->prompt, error);
  g_autofree char *negative = NULL;
  DpQueuedPrompt *p;

  if (cleaned == NULL || (prompt->negative_prompt && (negative = dp_prompt_clean (prompt->negative_prompt, error)) == NULL)
      || !check (q, prompt, restart_in, error))
    return FALSE;
  if (negative) {
    g_free (q->negative);
    q->negative = g_steal_pointer (&negative);
  }
  p = g_new0 (DpQueuedPrompt, 1);
  p->prompt = g_steal_pointer (&cleaned);
  p->negative = g_strdup (q->negative ? q->negative : "");
  p->text = g_strdup (prompt->prompt);
  p->at_block = prompt->at_frame < 0 ? -1 : dp_block_frames_block_from (&q->frames, prompt->at_frame);
  p->restart_in = restart_in > 0 ? restart_in : prompt->restart ? -1 : 0;
  p->transition = prompt->transition_blocks;
  if (is_for_next (p))
    drop_superseded (q, NULL, FALSE);
  g_queue_push_tail (&q->prompts, p);
  return TRUE;
}

gint64
dp_prompt_queue_next_frame (const DpPromptQueue *q)
{
  return dp_block_frames_first (&q->frames, q->last_block + 1);
}

/* ---- encoding ---- */

/* The first block that may need it. */
static gint64
wanted_at (const DpPromptQueue *q, const DpQueuedPrompt *p)
{
  return p->at_block < 0 ? q->last_block + 1 : p->at_block;
}

const DpQueuedPrompt *
dp_prompt_queue_next_to_encode (DpPromptQueue *q)
{
  DpQueuedPrompt *next = NULL;
  int before = 0;

  for (GList *l = q->prompts.head; l; l = l->next) {
    DpQueuedPrompt *p = l->data;
    if (p->encoded == NULL && (next == NULL || wanted_at (q, p) < wanted_at (q, next)))
      next = p;
  }
  for (GList *l = q->prompts.head; l && next; l = l->next) {
    DpQueuedPrompt *p = l->data;
    before += p->encoded && wanted_at (q, p) <= wanted_at (q, next);
  }
  return q->encoding = before < ENCODED_AHEAD ? next : NULL;
}

void
dp_prompt_queue_encoded (DpPromptQueue *q, gpointer encoded)
{
  DpQueuedPrompt *p = g_steal_pointer (&q->encoding);

  g_assert (p && encoded);
  p->encoded = encoded;
  if (is_for_next (p))
    drop_superseded (q, p, TRUE);
}

/* ---- what blocks get ---- */

/* The oldest prompt that is due at `block`, or NULL. */
static GList *
due (DpPromptQueue *q, gint64 block)
{
  for (GList *l = q->prompts.head; l; l = l->next) {
    DpQueuedPrompt *p = l->data;
    if (p->at_block >= 0 ? p->at_block <= block : p->encoded && is_for_next (p))
      return l;
  }
  return NULL;
}

static void
take (DpPromptQueue *q, DpQueuedPrompt *p, gint64 block)
{
  prompt_free (q, q->current);
  q->current = p;
  q->restarted_in = p->restart_in != 0 && block <= q->last_block ? q->iteration : 0;
  q->since = block;
  q->begins = TRUE;
  q->numbered = FALSE;
}

gboolean
dp_prompt_queue_for_block (DpPromptQueue *q, gint64 block, DpPromptUse *use)
{
  GList *l;

  while ((l = due (q, block))) {
    DpQueuedPrompt *p = l->data;

    if (p->encoded == NULL)
      return FALSE;
    g_queue_delete_link (&q->prompts, l);
    take (q, p, block);
  }
  g_assert (q->current);
  if (q->begins)                /* one that another replaced for the same block uses up no number */
    q->prompt_id = q->next_prompt_id++;

  gint64 i = block - q->since;
  int transition = q->since > 0 ? q->current->transition : 0;   /* nothing comes before block 0 */
  gboolean blends = i < transition;
  if (blends || !q->numbered)
    q->id = q->next_id++;
  q->numbered = !blends;
  *use = (DpPromptUse) { .encoded = q->current->encoded, .begins = q->begins, .weight = blends ? (i + 1.0) / (transition + 1.0) : 1,
    .id = q->id, .prompt_id = q->prompt_id, .restarted_in = q->restarted_in };
  q->begins = FALSE;
  q->last_block = MAX (q->last_block, block);
  return TRUE;
}

/* The oldest prompt for this iteration, or one that missed its own. */
static DpQueuedPrompt *
due_in (DpPromptQueue *q, gint64 iteration)
{
  for (GList *l = q->prompts.head; l; l = l->next) {
    DpQueuedPrompt *p = l->data;
    if (p->restart_in > 0 && p->restart_in <= iteration)
      return p;
  }
  return NULL;
}

gboolean
dp_prompt_queue_poll (DpPromptQueue *q, gint64 iteration, gboolean *restart)
{
  DpQueuedPrompt *p;

  *restart = FALSE;
  q->iteration = iteration;
  while ((p = due_in (q, iteration))) {
    if (p->encoded == NULL)
      return FALSE;
    p->restart_in = -1;         /* from now on it is for the next block */
  }
  for (GList *l = q->prompts.head; l; l = l->next) {
    p = l->data;
    *restart |= p->restart_in < 0 && p->encoded;
  }
  return TRUE;
}
