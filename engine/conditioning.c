/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "conditioning.h"
#include "wan/arena.h"
#include "wan/text_encoder.h"
#include "wan/tokenizer.h"
#include "part_cache.h"
#include "thread.h"

#include <string.h>

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
  DpPromptQueue *prompts;       /* of DpConditioning */
  DpConditioning *first;
  DpConditioning *from;         /* what the blocks of a transition blend from; or NULL */
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

/* Both texts in one sweep over the layers; a negative one that is the last prompt's has been encoded already. */
static DpConditioning *
encode (DpConditioner *c, const DpQueuedPrompt *p, GError **error)
{
  DpConditioning *out = g_new0 (DpConditioning, 1);
  const char *texts[2] = { p->prompt, p->negative };
  g_autofree gint32 *ids = g_new (gint32, 2 * c->spec.text_length);
  DpTokens tokens[2];
  gboolean known = c->encoded && strcmp (p->negative, c->encoded_negative) == 0;
  gsize row = sizeof (float) * c->spec.model->config.text.d_model;

  out->refs = 1;
  out->dim = c->spec.model->config.text.d_model;
  out->prompt = g_strdup (p->text);
  for (int i = 0; i < (known ? 1 : 2); i++) {
    tokens[i].ids = ids + i * c->spec.text_length;
    out->n[i] = tokens[i].n = dp_tokenizer_encode (c->loaded->tokenizer, texts[i], ids + i * c->spec.text_length, c->spec.text_length,
        error);
    if (out->n[i] < 0)
      goto fail;
    out->embeds[i] = tokens[i].out = dp_arena_host_new (out->n[i] * row, "an encoded prompt", error);
    if (tokens[i].out == NULL)
      goto fail;
  }
  if (!dp_text_encoder_encode (c->loaded->encoder, tokens, known ? 1 : 2, error))
    goto fail;
  if (known) {
    out->n[1] = c->encoded->n[1];
    out->embeds[1] = dp_arena_host_new (out->n[1] * row, "an encoded prompt", error);
    if (out->embeds[1] == NULL)
      goto fail;
    memcpy (out->embeds[1], c->encoded->embeds[1], out->n[1] * row);
  }
  dp_conditioning_unref (c->encoded);
  c->encoded = dp_conditioning_ref (out);
  g_free (c->encoded_negative);
  c->encoded_negative = g_strdup (p->negative);
  return out;

fail:
  dp_conditioning_unref (out);
  return NULL;
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
  if (spec->opened)
    spec->opened (loaded->weights, spec->user_data);
  loaded->encoder = dp_text_encoder_new (loaded->warm.dev, config, loaded->weights, spec->type, spec->text_length, spec->streamed,
      error);
  dp_weights_watch (loaded->weights, NULL, NULL);       /* they may outlive this engine */
  if (loaded->encoder)
    dp_part_cache_loaded (&loaded->warm);
  return loaded->encoder != NULL;
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
    const DpQueuedPrompt *p = dp_prompt_queue_next_to_encode (c->prompts);

    if (p == NULL) {
      g_cond_wait (&c->changed, &c->lock);
      continue;
    }
    g_mutex_unlock (&c->lock);
    g_autoptr (GError) error = NULL;
    start = g_get_monotonic_time ();
    DpConditioning *encoded = encode (c, p, &error);
    if (encoded)
      dp_trace_span (c->spec.trace, DP_TRACE_TEXT, "encode", -1, start, g_get_monotonic_time (), "\"tokens\":%d,\"negative_tokens\":%d",
          encoded->n[0], encoded->n[1]);
    g_mutex_lock (&c->lock);
    c->device_bytes = c->loaded->warm.dev->bytes;
    if (encoded)
      dp_prompt_queue_encoded (c->prompts, encoded);
    else
      c->error = g_steal_pointer (&error);
    if (encoded && c->first == NULL)
      c->first = dp_conditioning_ref (encoded);
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
dp_conditioner_new (const DpConditionerSpec *spec, GError **error)
{
  DpConditioner *c = g_new0 (DpConditioner, 1);

  g_mutex_init (&c->lock);
  g_cond_init (&c->changed);
  c->spec = *spec;
  c->device = g_strdup (spec->device);
  c->prompts = dp_prompt_queue_new (&spec->frames, (GDestroyNotify) dp_conditioning_unref);
  c->loaded = dp_part_cache_take (sizeof (Loaded), loaded_key (c), free_loaded);
  c->thread = dp_thread_new ("dp-text", encoding_thread, c, error);
  if (c->thread == NULL)
    dp_conditioner_free (g_steal_pointer (&c), 0);
  return c;
}

void
dp_conditioner_free (DpConditioner *c, int linger)
{
  if (c == NULL)
    return;
  dp_conditioner_cancel (c);
  if (c->thread)
    g_thread_join (c->thread);
  dp_part_cache_give (&c->loaded->warm, linger);
  dp_prompt_queue_free (c->prompts);
  dp_conditioning_unref (c->first);
  dp_conditioning_unref (c->encoded);
  dp_conditioning_unref (c->from);
  g_clear_error (&c->error);
  g_free (c->encoded_negative);
  g_free (c->device);
  g_mutex_clear (&c->lock);
  g_cond_clear (&c->changed);
  g_free (c);
}

gboolean
dp_conditioner_queue (DpConditioner *c, const DpPrompt *prompt, gint64 restart_in, GError **error)
{
  gboolean ok;

  g_mutex_lock (&c->lock);
  ok = dp_prompt_queue_add (c->prompts, prompt, restart_in, error);
  g_cond_broadcast (&c->changed);
  g_mutex_unlock (&c->lock);
  return ok;
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

/* What a block is conditioned on, a new reference. */
static DpConditioning *
condition (DpConditioner *c, const DpPromptUse *use, DpConditioning *previous)
{
  DpConditioning *current = use->encoded;

  if (use->begins) {
    current->prompt_id = use->prompt_id;
    current->replanned_at = use->restarted_in;
    dp_conditioning_unref (c->from);
    c->from = use->weight < 1 ? dp_conditioning_ref (previous) : NULL;
  }
  if (use->weight < 1) {
    DpConditioning *blend = dp_conditioning_blend (c->from, current, use->weight);

    blend->id = use->id;
    return blend;
  }
  dp_conditioning_unref (g_steal_pointer (&c->from));
  if (current->id != use->id)   /* once: others read it from then on */
    current->id = use->id;
  return dp_conditioning_ref (current);
}

DpConditioning *
dp_conditioner_for_block (DpConditioner *c, gint64 block, DpConditioning *previous, GError **error)
{
  DpConditioning *result = NULL;
  DpPromptUse use;

  g_mutex_lock (&c->lock);
  while (result == NULL && check (c, error)) {
    if (c->started && dp_prompt_queue_for_block (c->prompts, block, &use))
      result = condition (c, &use, previous);
    g_cond_broadcast (&c->changed);     /* another may be encoded */
    if (result == NULL)
      g_cond_wait (&c->changed, &c->lock);
  }
  g_mutex_unlock (&c->lock);
  return result;
}

gboolean
dp_conditioner_poll (DpConditioner *c, gint64 iteration, gboolean *replan, GError **error)
{
  gboolean ok;

  *replan = FALSE;
  g_mutex_lock (&c->lock);
  while ((ok = check (c, error)) && !dp_prompt_queue_poll (c->prompts, iteration, replan))
    g_cond_wait (&c->changed, &c->lock);
  g_mutex_unlock (&c->lock);
  return ok;
}

gint64
dp_conditioner_next_frame (DpConditioner *c)
{
  gint64 frame;

  g_mutex_lock (&c->lock);
  frame = dp_prompt_queue_next_frame (c->prompts);
  g_mutex_unlock (&c->lock);
  return frame;
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
