/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "conditioning.h"
#include "wan/text_encoder.h"
#include "wan/tokenizer.h"
#include "part_cache.h"

#include <string.h>

#define ENCODED_AHEAD 32        /* prompts for later blocks that are encoded already, at most */

typedef struct
{
  char *prompt, *negative;      /* cleaned; what is encoded */
  char *text;                   /* as given */
  gint64 at_block, replan_at;   /* as DpPrompt has them */
  int transition;
  DpConditioning *encoded;
} Entry;

/* What is loaded. */
typedef struct
{
  DpPart warm;
  DpTokenizer *tokenizer;
  DpWeights *weights;
  DpTextEncoder *encoder;
} Loaded;

struct _DpConditioner
{
  /* -- immutable -- */
  DpConditionerSpec spec;
  char *device;
  GThread *thread;

  /* -- owned by the encoding thread -- */
  Loaded *loaded;
  DpConditioning *encoded;      /* the last one, for its negative */
  char *encoded_negative;       /* what that was the encoding of */

  /* -- protected by lock -- */
  GMutex lock;
  GCond changed;
  gboolean cancelled, started;
  int cancel;                   /* atomic copy of cancelled */
  GQueue entries;               /* of Entry, in the order they were queued */
  const Entry *encoding;        /* the one the thread reads without the lock */
  char *negative;               /* cleaned, of the last queued prompt */
  DpConditioning *current, *first;
  DpConditioning *from;         /* what blocks since, since + 1, ..., `transition` of them, blend into the current one; or NULL */
  gint64 since;                 /* the first block of the current one */
  int transition;
  gboolean numbered;            /* the current one has its id */
  guint next_id, next_prompt_id;
  gint64 last_block;            /* admitted so far; -1: none */
  gint64 iteration;             /* last polled */
  gsize device_bytes;
  GError *error;                /* of an encoding; for good */
};

DpConditioning *
dp_conditioning_ref (DpConditioning *c)
{
  g_atomic_int_inc (&c->refs);
  return c;
}

void
dp_conditioning_unref (DpConditioning *c)
{
  if (c == NULL || !g_atomic_int_dec_and_test (&c->refs))
    return;
  g_free (c->prompt);
  g_free (c->embeds[0]);
  g_free (c->embeds[1]);
  g_free (c);
}

/* Rows [n, dim]; those behind are zero on either side. A result that ends in zero rows ends before them: that is what padding is. */
static float *
blend_texts (const float *a, int n_a, const float *b, int n_b, int dim, float w, int *n)
{
  gsize size_a = (gsize) n_a * dim, size_b = (gsize) n_b * dim, size = MAX (size_a, size_b);
  float *out = g_new (float, size);

  for (gsize i = 0; i < size; i++) {
    float x = i < size_a ? a[i] : 0, y = i < size_b ? b[i] : 0;
    out[i] = w < 0.5f ? x + w * (y - x) : y - (1 - w) * (y - x);        /* exact at both ends, and where they are equal */
  }
  while (size > (gsize) dim && out[size - 1] == 0)
    size--;
  *n = (size + dim - 1) / dim;
  return out;
}

DpConditioning *
dp_conditioning_blend (const DpConditioning *from, const DpConditioning *to, double weight)
{
  DpConditioning *out = g_new0 (DpConditioning, 1);

  out->refs = 1;
  out->prompt_id = to->prompt_id;
  out->replanned_at = to->replanned_at;
  out->prompt = g_strdup (to->prompt);
  out->dim = to->dim;
  for (int i = 0; i < 2; i++)
    out->embeds[i] = blend_texts (from->embeds[i], from->n[i], to->embeds[i], to->n[i], to->dim, weight, &out->n[i]);
  return out;
}

static void
entry_free (Entry *e)
{
  g_free (e->prompt);
  g_free (e->negative);
  g_free (e->text);
  dp_conditioning_unref (e->encoded);
  g_free (e);
}

/* Both texts in one sweep over the layers; a negative one that is the last entry's has been encoded already. */
static DpConditioning *
encode (DpConditioner *c, const Entry *e, GError **error)
{
  DpConditioning *out = g_new0 (DpConditioning, 1);
  const char *texts[2] = { e->prompt, e->negative };
  g_autofree gint32 *ids = g_new (gint32, 2 * c->spec.text_length);
  DpTokens tokens[2];
  gboolean known = c->encoded && strcmp (e->negative, c->encoded_negative) == 0;
  gsize row = sizeof (float) * c->spec.model->config.text.d_model;

  out->refs = 1;
  out->dim = c->spec.model->config.text.d_model;
  out->prompt = g_strdup (e->text);
  for (int i = 0; i < (known ? 1 : 2); i++) {
    tokens[i].ids = ids + i * c->spec.text_length;
    out->n[i] = tokens[i].n = dp_tokenizer_encode (c->loaded->tokenizer, texts[i], ids + i * c->spec.text_length, c->spec.text_length,
        error);
    if (out->n[i] < 0)
      goto fail;
    out->embeds[i] = tokens[i].out = g_malloc (out->n[i] * row);
  }
  if (!dp_text_encoder_encode (c->loaded->encoder, tokens, known ? 1 : 2, error))
    goto fail;
  if (known) {
    out->n[1] = c->encoded->n[1];
    out->embeds[1] = g_memdup2 (c->encoded->embeds[1], out->n[1] * row);
  }
  dp_conditioning_unref (c->encoded);
  c->encoded = dp_conditioning_ref (out);
  g_free (c->encoded_negative);
  c->encoded_negative = g_strdup (e->negative);
  return out;

fail:
  dp_conditioning_unref (out);
  return NULL;
}

/* Whether it is for the next block, whichever that is; else block or iteration were given. */
static gboolean
is_for_next (const Entry *e)
{
  return e->at_block < 0 && e->replan_at <= 0;
}

/* The block that it may be needed for first. */
static gint64
wanted_at (const DpConditioner *c, const Entry *e)
{
  return e->at_block < 0 ? c->last_block + 1 : e->at_block;
}

/* The one that is wanted first, of those for the same block the oldest. None while enough are encoded that are wanted before it. */
static Entry *
next_to_encode (DpConditioner *c)
{
  Entry *next = NULL;
  int before = 0;

  for (GList *l = c->entries.head; l; l = l->next) {
    Entry *e = l->data;
    if (e->encoded == NULL && (next == NULL || wanted_at (c, e) < wanted_at (c, next)))
      next = e;
  }
  for (GList *l = c->entries.head; l && next; l = l->next) {
    Entry *e = l->data;
    before += e->encoded && wanted_at (c, e) <= wanted_at (c, next);
  }
  return before < ENCODED_AHEAD ? next : NULL;
}

static void
free_loaded (DpPart *warm)
{
  Loaded *loaded = (Loaded *) warm;

  dp_text_encoder_free (loaded->encoder);
  dp_weights_free (loaded->weights);
  dp_tokenizer_free (loaded->tokenizer);
}

/* All that the part is made from. */
static GString *
loaded_key (const DpConditioner *c)
{
  const DpConditionerSpec *spec = &c->spec;
  GString *key = g_string_new (NULL);

  g_string_printf (key, "text, %s, %d threads, type %d, streamed %d, %d tokens", c->device, spec->threads, spec->type,
      spec->streamed, spec->text_length);
  dp_part_cache_key_add_dir (key, spec->model->paths[DP_MODEL_TOKENIZER]);
  dp_part_cache_key_add_dir (key, spec->model->paths[DP_MODEL_TEXT_ENCODER]);
  return key;
}

static gboolean
load (DpConditioner *c, GError **error)
{
  const DpConditionerSpec *spec = &c->spec;
  const DpTextConfig *config = &spec->model->config.text;
  Loaded *loaded = c->loaded;

  loaded->tokenizer = dp_tokenizer_open (spec->model->paths[DP_MODEL_TOKENIZER], config->vocab, error);
  if (loaded->tokenizer == NULL)
    return FALSE;
  loaded->weights = dp_model_weights (spec->model, DP_MODEL_TEXT_ENCODER, error);
  if (loaded->weights == NULL || !dp_part_cache_open_device (&loaded->warm, c->device, spec->threads, error))
    return FALSE;
  loaded->warm.dev->cancel = &c->cancel;
  loaded->encoder = dp_text_encoder_new (loaded->warm.dev, config, loaded->weights, spec->type, spec->text_length, spec->streamed,
      error);
  if (loaded->encoder)
    dp_part_cache_loaded (&loaded->warm);
  return loaded->encoder != NULL;
}

/* Frees the prompts for the next block in front of `last` (NULL: all) that no block can get any more: with `encoded` those that are
 * encoded, without those that are not. However many are queued, two are kept. */
static void
drop_superseded (DpConditioner *c, const Entry *last, gboolean encoded)
{
  for (GList *l = c->entries.head, *next; l && l->data != last; l = next) {
    Entry *e = l->data;

    next = l->next;
    if (!is_for_next (e) || e == c->encoding || (e->encoded != NULL) != encoded)
      continue;
    g_queue_delete_link (&c->entries, l);
    entry_free (e);
  }
}

static gpointer
encoding_thread (gpointer data)
{
  DpConditioner *c = data;
  g_autoptr (GError) failed = NULL;
  GError *report = NULL;
  gint64 start = g_get_monotonic_time ();

  if (c->loaded->warm.loaded || load (c, &failed)) {
    c->loaded->warm.dev->cancel = &c->cancel;
    dp_trace_span (c->spec.trace, DP_TRACE_TEXT, "load", -1, start, g_get_monotonic_time (), " ");
    c->spec.loaded (c->spec.user_data);
  }
  g_mutex_lock (&c->lock);
  if (failed) {
    c->error = g_steal_pointer (&failed);
    g_cond_broadcast (&c->changed);
  }
  while (!c->cancelled && c->error == NULL) {
    Entry *e = next_to_encode (c);

    if (e == NULL) {
      g_cond_wait (&c->changed, &c->lock);
      continue;
    }
    c->encoding = e;
    g_mutex_unlock (&c->lock);
    g_autoptr (GError) error = NULL;
    start = g_get_monotonic_time ();
    DpConditioning *encoded = encode (c, e, &error);
    if (encoded)
      dp_trace_span (c->spec.trace, DP_TRACE_TEXT, "encode", -1, start, g_get_monotonic_time (), "\"tokens\":%d,\"negative_tokens\":%d",
          encoded->n[0], encoded->n[1]);
    g_mutex_lock (&c->lock);
    c->device_bytes = c->loaded->warm.dev->bytes;
    c->encoding = NULL;
    e->encoded = encoded;
    if (encoded == NULL)
      c->error = g_steal_pointer (&error);
    else if (c->first == NULL)
      c->first = dp_conditioning_ref (encoded);
    if (encoded && is_for_next (e))
      drop_superseded (c, e, TRUE);
    g_cond_broadcast (&c->changed);
  }
  if (c->error && !c->cancelled)
    report = g_error_copy (c->error);
  g_mutex_unlock (&c->lock);
  if (report)
    c->spec.failed (report, c->spec.user_data);
  return NULL;
}

DpConditioner *
dp_conditioner_new (const DpConditionerSpec *spec)
{
  DpConditioner *c = g_new0 (DpConditioner, 1);

  g_mutex_init (&c->lock);
  g_cond_init (&c->changed);
  c->spec = *spec;
  c->device = g_strdup (spec->device);
  c->last_block = -1;
  c->loaded = dp_part_cache_take (sizeof (Loaded), loaded_key (c), free_loaded);
  c->thread = g_thread_new ("dp-text", encoding_thread, c);
  return c;
}

void
dp_conditioner_free (DpConditioner *c, int linger)
{
  if (c == NULL)
    return;
  dp_conditioner_cancel (c);
  g_thread_join (c->thread);
  dp_part_cache_give (&c->loaded->warm, linger);
  g_queue_clear_full (&c->entries, (GDestroyNotify) entry_free);
  dp_conditioning_unref (c->current);
  dp_conditioning_unref (c->first);
  dp_conditioning_unref (c->encoded);
  dp_conditioning_unref (c->from);
  g_clear_error (&c->error);
  g_free (c->encoded_negative);
  g_free (c->negative);
  g_free (c->device);
  g_mutex_clear (&c->lock);
  g_cond_clear (&c->changed);
  g_free (c);
}

gboolean
dp_conditioner_queue (DpConditioner *c, const DpPrompt *prompt, GError **error)
{
  g_autofree char *cleaned = dp_prompt_clean (prompt->prompt, error);
  g_autofree char *cleaned_negative = NULL;
  Entry *e;

  if (cleaned == NULL)
    return FALSE;
  if (prompt->negative_prompt && (cleaned_negative = dp_prompt_clean (prompt->negative_prompt, error)) == NULL)
    return FALSE;
  if (prompt->transition_blocks < 0 || (prompt->at_block >= 0 && prompt->replan_at != 0)) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "a prompt was queued for block %"
        G_GINT64_FORMAT " with a transition of %d blocks and re-planning at %"
        G_GINT64_FORMAT "; expected at least 0 blocks, and no re-planning where a block is given", prompt->at_block,
        prompt->transition_blocks, prompt->replan_at);
    return FALSE;
  }

  g_mutex_lock (&c->lock);
  if (prompt->at_block >= 0 && prompt->at_block <= c->last_block) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "a prompt was queued for block %" G_GINT64_FORMAT
        ", but block %" G_GINT64_FORMAT " is already being made; use a later block, or -1 for the next one", prompt->at_block,
        c->last_block);
    g_mutex_unlock (&c->lock);
    return FALSE;
  }
  if (cleaned_negative) {
    g_free (c->negative);
    c->negative = g_strdup (cleaned_negative);
  }
  e = g_new0 (Entry, 1);
  e->prompt = g_steal_pointer (&cleaned);
  e->negative = g_strdup (c->negative ? c->negative : "");
  e->text = g_strdup (prompt->prompt);
  e->at_block = prompt->at_block;
  e->replan_at = prompt->replan_at;
  e->transition = prompt->transition_blocks;
  if (is_for_next (e))
    drop_superseded (c, NULL, FALSE);
  g_queue_push_tail (&c->entries, e);
  g_cond_broadcast (&c->changed);
  g_mutex_unlock (&c->lock);
  return TRUE;
}

/* The oldest entry that is due at `block`, or NULL. */
static GList *
due (DpConditioner *c, gint64 block)
{
  for (GList *l = c->entries.head; l; l = l->next) {
    Entry *e = l->data;
    if (e->at_block >= 0 ? e->at_block <= block : e->encoded && is_for_next (e))
      return l;
  }
  return NULL;
}

static gboolean
check (DpConditioner *c, GError **error)
{
  if (c->error) {
    g_propagate_error (error, g_error_copy (c->error));
    return FALSE;
  }
  if (c->cancelled) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_FLUSHING, "cancelled");
    return FALSE;
  }
  return TRUE;
}

/* The entry's prompt is the current one, from `block` on. */
static void
take (DpConditioner *c, Entry *e, gint64 block, DpConditioning *previous)
{
  dp_conditioning_unref (c->current);
  c->current = g_steal_pointer (&e->encoded);
  c->current->replanned_at = e->replan_at != 0 && block <= c->last_block ? c->iteration : 0;
  c->numbered = FALSE;
  c->since = block;
  c->transition = previous ? e->transition : 0;
  dp_conditioning_unref (c->from);
  c->from = c->transition > 0 ? dp_conditioning_ref (previous) : NULL;
  entry_free (e);
  g_cond_broadcast (&c->changed);       /* another may be encoded */
}

/* What the current prompt means for a block, a new reference. */
static DpConditioning *
current_for (DpConditioner *c, gint64 block)
{
  gint64 i = block - c->since;

  if (i < c->transition) {
    DpConditioning *blend = dp_conditioning_blend (c->from, c->current, (i + 1.0) / (c->transition + 1.0));

    blend->id = c->next_id++;
    return blend;
  }
  dp_conditioning_unref (g_steal_pointer (&c->from));
  if (!c->numbered)
    c->current->id = c->next_id++;
  c->numbered = TRUE;
  return dp_conditioning_ref (c->current);
}

DpConditioning *
dp_conditioner_for_block (DpConditioner *c, gint64 block, DpConditioning *previous, GError **error)
{
  DpConditioning *result = NULL;
  gboolean taken = FALSE;
  GList *l;

  g_mutex_lock (&c->lock);
  while (check (c, error)) {
    if (!c->started) {
      g_cond_wait (&c->changed, &c->lock);
      continue;
    }
    l = due (c, block);
    if (l == NULL) {
      g_assert (c->current);
      if (taken)                /* one that another replaced for the same block never took effect: it uses up no number */
        c->current->prompt_id = c->next_prompt_id++;
      result = current_for (c, block);
      c->last_block = MAX (c->last_block, block);
      break;
    }
    Entry *e = l->data;
    if (e->encoded == NULL) {
      g_cond_wait (&c->changed, &c->lock);
      continue;
    }
    g_queue_delete_link (&c->entries, l);
    take (c, e, block, previous);
    taken = TRUE;
  }
  g_mutex_unlock (&c->lock);
  return result;
}

/* The oldest entry for this iteration, or one that missed its own. */
static Entry *
due_in (DpConditioner *c, gint64 iteration)
{
  for (GList *l = c->entries.head; l; l = l->next) {
    Entry *e = l->data;
    if (e->replan_at > 0 && e->replan_at <= iteration)
      return e;
  }
  return NULL;
}

gboolean
dp_conditioner_poll (DpConditioner *c, gint64 iteration, gboolean *replan, GError **error)
{
  gboolean ok;
  Entry *e;

  *replan = FALSE;
  g_mutex_lock (&c->lock);
  c->iteration = iteration;
  while ((ok = check (c, error)) && (e = due_in (c, iteration))) {
    if (e->encoded)
      e->replan_at = -1;        /* from now on one for the next block */
    else
      g_cond_wait (&c->changed, &c->lock);
  }
  for (GList *l = c->entries.head; l; l = l->next) {
    e = l->data;
    *replan |= e->replan_at < 0 && e->encoded;
  }
  g_mutex_unlock (&c->lock);
  return ok;
}

gint64
dp_conditioner_next_block (DpConditioner *c)
{
  gint64 block;

  g_mutex_lock (&c->lock);
  block = c->last_block + 1;
  g_mutex_unlock (&c->lock);
  return block;
}

void
dp_conditioner_start (DpConditioner *c)
{
  g_mutex_lock (&c->lock);
  c->started = TRUE;
  g_cond_broadcast (&c->changed);
  g_mutex_unlock (&c->lock);
}

DpConditioning *
dp_conditioner_first (DpConditioner *c, GError **error)
{
  DpConditioning *result = NULL;

  g_mutex_lock (&c->lock);
  while (check (c, error)) {
    if (c->first) {
      result = dp_conditioning_ref (c->first);
      break;
    }
    g_cond_wait (&c->changed, &c->lock);
  }
  g_mutex_unlock (&c->lock);
  return result;
}

gsize
dp_conditioner_device_bytes (DpConditioner *c)
{
  gsize bytes;

  g_mutex_lock (&c->lock);
  bytes = c->device_bytes;
  g_mutex_unlock (&c->lock);
  return bytes;
}

void
dp_conditioner_cancel (DpConditioner *c)
{
  g_mutex_lock (&c->lock);
  c->cancelled = TRUE;
  g_atomic_int_set (&c->cancel, 1);
  g_cond_broadcast (&c->changed);
  g_mutex_unlock (&c->lock);
}
