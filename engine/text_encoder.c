/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * L tokens, D d_model, I = heads * d_kv, F d_ff, H heads, M max_tokens.
 */
#include "text_encoder.h"
#include "arena.h"
#include "dualparal.h"
#include "error.h"

#include <math.h>

typedef struct
{
  DpLinear *qkv, *o, *wi0, *wi1, *wo;
  float *norm0, *norm1;         /* [D], on the device */
  float *bias;                  /* [buckets, H], on the host */
} Layer;

struct _DpTextEncoder
{
  DpDevice *dev;
  DpTextConfig config;
  DpType type;
  int max_tokens;
  const DpTensor *table;        /* [vocab, D], in the weights */
  Layer *layers;
  float *norm;                  /* [D] */
  int *bucket;                  /* [2 M - 1]: of relative position r at r + M - 1 */
  float *host;                  /* staging: [M, D] or [H, 2 M - 1] */

  DpArena arena;
  float *x, *out;               /* [M, D] */
  void *normed;                 /* [M, D] */
  void *qkv;                    /* [M, 3 I] */
  void *att;                    /* [M, I] */
  void *h0, *h1;                /* [M, F] */
  float *bias;                  /* [H, 2 M - 1], of the current layer */
};

/* transformers' T5 buckets, bidirectional: near positions have one each, far ones share them logarithmically. float32 as there. */
static int
bucket_of (int relative, int buckets, int max_distance)
{
  int half = buckets / 2, exact = half / 2, distance = ABS (relative), bucket = distance;

  if (distance >= exact) {
    float share = logf ((float) distance / exact) / (float) log ((double) max_distance / exact);

    bucket = MIN (exact + (int) (share * (half - exact)), half - 1);
  }
  return bucket + (relative > 0 ? half : 0);
}

static void
layout (DpTextEncoder *e)
{
  const DpTextConfig *c = &e->config;
  gsize m = e->max_tokens, d = c->d_model, inner = (gsize) c->heads * c->d_kv, size = dp_type_size (e->type);
  DpArena *a = &e->arena;

  for (int i = 0; i < c->layers; i++) {
    e->layers[i].norm0 = dp_arena_take (a, d * 4);
    e->layers[i].norm1 = dp_arena_take (a, d * 4);
  }
  e->norm = dp_arena_take (a, d * 4);
  e->x = dp_arena_take (a, m * d * 4);
  e->out = dp_arena_take (a, m * d * 4);
  e->normed = dp_arena_take (a, m * d * size);
  e->qkv = dp_arena_take (a, m * 3 * inner * size);
  e->att = dp_arena_take (a, m * inner * size);
  e->h0 = dp_arena_take (a, m * c->d_ff * size);
  e->h1 = dp_arena_take (a, m * c->d_ff * size);
  e->bias = dp_arena_take (a, c->heads * (2 * m - 1) * 4);
}

/* ---- opening ---- */

static gboolean
load_norm (DpTextEncoder *e, const DpWeights *weights, float *norm, const char *name, GError **error)
{
  const DpTensor *t = dp_weights_get (weights, error, 1, (gint64[]) { e->config.d_model }, "%s", name);

  if (t == NULL)
    return FALSE;
  dp_tensor_to_f32 (t, 0, e->config.d_model, e->host);
  e->dev->ops->upload (e->dev, norm, e->host, e->config.d_model * sizeof (float));
  return TRUE;
}

/* Packs tensors [rows, k] named `prefix` + each of names into one product. */
static DpLinear *
load_linear (DpTextEncoder *e, const DpWeights *weights, int layer, const char *const *names, int n, int rows, int k, GError **error)
{
  DpHostWeight pieces[3];
  DpLinear *linear;

  for (int i = 0; i < n; i++) {
    const DpTensor *t = dp_weights_get (weights, error, 2, (gint64[]) { rows, k }, "encoder.block.%d.layer.%s.weight", layer, names[i]);

    if (t == NULL)
      return NULL;
    pieces[i] = (DpHostWeight) { .data = t->data, .type = t->type, .rows = rows };
  }
  linear = e->dev->ops->linear_new (e->dev, &(DpLinearSpec) { .k = k, .type = e->type, .n_weights = n, .weights = pieces });
  if (linear == NULL)
    dp_error_no_room (e->dev, error, (gsize) n * rows * k * dp_type_size (e->type), "use another device for the first stage",
        "layer %d of the text encoder", layer);
  return linear;
}

static gboolean
load_bias (DpTextEncoder *e, const DpWeights *weights, int layer, GError **error)
{
  const DpTextConfig *c = &e->config;
  const DpTensor *t = dp_weights_get (weights, error, 2, (gint64[]) { c->buckets, c->heads },
      "encoder.block.%d.layer.0.SelfAttention.relative_attention_bias.weight", layer);

  if (t == NULL)
    return FALSE;
  e->layers[layer].bias = g_new (float, c->buckets * c->heads);
  dp_tensor_to_f32 (t, 0, c->buckets * c->heads, e->layers[layer].bias);
  return TRUE;
}

static gboolean
load_layer (DpTextEncoder *e, const DpWeights *weights, int i, GError **error)
{
  static const char *const qkv[] = { "0.SelfAttention.q", "0.SelfAttention.k", "0.SelfAttention.v" }, *const o[] = { "0.SelfAttention.o" };
  static const char *const wi0[] = { "1.DenseReluDense.wi_0" }, *const wi1[] = { "1.DenseReluDense.wi_1" };
  static const char *const wo[] = { "1.DenseReluDense.wo" };
  const DpTextConfig *c = &e->config;
  int inner = c->heads * c->d_kv;
  Layer *l = &e->layers[i];
  g_autofree char *norm0 = g_strdup_printf ("encoder.block.%d.layer.0.layer_norm.weight", i);
  g_autofree char *norm1 = g_strdup_printf ("encoder.block.%d.layer.1.layer_norm.weight", i);

  return (l->qkv = load_linear (e, weights, i, qkv, 3, inner, c->d_model, error))
      && (l->o = load_linear (e, weights, i, o, 1, c->d_model, inner, error))
      && (l->wi0 = load_linear (e, weights, i, wi0, 1, c->d_ff, c->d_model, error))
      && (l->wi1 = load_linear (e, weights, i, wi1, 1, c->d_ff, c->d_model, error))
      && (l->wo = load_linear (e, weights, i, wo, 1, c->d_model, c->d_ff, error))
      && load_norm (e, weights, l->norm0, norm0, error) && load_norm (e, weights, l->norm1, norm1, error)
      && load_bias (e, weights, i, error);
}

static gboolean
load (DpTextEncoder *e, const DpWeights *weights, GError **error)
{
  const DpTextConfig *c = &e->config;
  const char *table = dp_weights_find (weights, "encoder.embed_tokens.weight") && !dp_weights_find (weights, "shared.weight")
      ? "encoder.embed_tokens.weight" : "shared.weight";

  e->table = dp_weights_get (weights, error, 2, (gint64[]) { c->vocab, c->d_model }, "%s", table);
  if (e->table == NULL)
    return FALSE;
  layout (e);
  if (!dp_arena_allocate (&e->arena, e->dev, "the text encoder", error))
    return FALSE;
  layout (e);
  for (int i = 0; i < c->layers; i++)
    if (!load_layer (e, weights, i, error))
      return FALSE;
  return load_norm (e, weights, e->norm, "encoder.final_layer_norm.weight", error);
}

DpTextEncoder *
dp_text_encoder_new (DpDevice *dev, const DpTextConfig *config, const DpWeights *weights, DpType type, int max_tokens, GError **error)
{
  DpTextEncoder *e = g_new0 (DpTextEncoder, 1);
  int spread = 2 * max_tokens - 1;

  g_assert (max_tokens > 0 && type != DP_TYPE_F16);
  e->dev = dev;
  e->config = *config;
  e->type = type;
  e->max_tokens = max_tokens;
  e->layers = g_new0 (Layer, config->layers);
  e->host = g_new (float, MAX ((gsize) max_tokens * config->d_model, (gsize) config->heads * spread));
  e->bucket = g_new (int, spread);
  for (int i = 0; i < spread; i++)
    e->bucket[i] = bucket_of (i - (max_tokens - 1), config->buckets, config->max_distance);
  if (!load (e, weights, error)) {
    dp_text_encoder_free (e);
    return NULL;
  }
  return e;
}

void
dp_text_encoder_free (DpTextEncoder *encoder)
{
  const DpOps *ops;

  if (encoder == NULL)
    return;
  ops = encoder->dev->ops;
  for (int i = 0; i < encoder->config.layers; i++) {
    Layer *l = &encoder->layers[i];
    DpLinear *linears[] = { l->qkv, l->o, l->wi0, l->wi1, l->wo };

    for (gsize k = 0; k < G_N_ELEMENTS (linears); k++)
      if (linears[k])
        ops->linear_free (encoder->dev, linears[k]);
    g_free (l->bias);
  }
  dp_arena_free (&encoder->arena);
  g_free (encoder->layers);
  g_free (encoder->bucket);
  g_free (encoder->host);
  g_free (encoder);
}

/* ---- running ---- */

static void
norm (DpTextEncoder *e, int n, const float *weight, void *y, DpType y_type)
{
  e->dev->ops->rms_norm (e->dev, &(DpRmsNormArgs) { .rows = n, .heads = 1, .head_dim = e->config.d_model, .x = e->x, .x_type = DP_TYPE_F32,
          .weight = weight, .eps = e->config.eps, .y = y, .y_type = y_type });
}

/* y = act (x . W^T), or y += x . W^T where y is the residual stream. */
static void
product (DpTextEncoder *e, const DpLinear *linear, int n, const void *x, void *y, DpActivation act)
{
  gboolean residual = y == e->x;

  e->dev->ops->linear (e->dev, linear, &(DpLinearArgs) { .rows = n, .x = x, .y = y, .y_type = residual ? DP_TYPE_F32 : e->type, .act = act,
          .accumulate = residual });
}

/* The layer's bias for n tokens: [H, 2 n - 1]. */
static void
upload_bias (DpTextEncoder *e, const Layer *l, int n)
{
  int heads = e->config.heads, spread = 2 * n - 1;
  const int *bucket = e->bucket + (e->max_tokens - n);

  for (int h = 0; h < heads; h++)
    for (int i = 0; i < spread; i++)
      e->host[(gsize) h * spread + i] = l->bias[bucket[i] * heads + h];
  e->dev->ops->upload (e->dev, e->bias, e->host, (gsize) heads * spread * sizeof (float));
}

static void
run_layer (DpTextEncoder *e, const Layer *l, int n)
{
  const DpTextConfig *c = &e->config;
  gsize inner = (gsize) c->heads * c->d_kv, size = dp_type_size (e->type);
  const char *qkv = e->qkv;

  upload_bias (e, l, n);
  norm (e, n, l->norm0, e->normed, e->type);
  product (e, l->qkv, n, e->normed, e->qkv, DP_ACT_NONE);
  e->dev->ops->attention (e->dev, &(DpAttentionArgs) { .type = e->type, .heads = c->heads, .head_dim = c->d_kv, .q_len = n, .kv_len = n,
          .q = qkv, .k = qkv + inner * size, .v = qkv + 2 * inner * size, .q_stride = 3 * inner, .k_stride = 3 * inner, .v_stride = 3 * inner,
          .out = e->att, .out_stride = inner, .scale = 1, .rel_bias = e->bias });
  product (e, l->o, n, e->att, e->x, DP_ACT_NONE);

  norm (e, n, l->norm1, e->normed, e->type);
  product (e, l->wi0, n, e->normed, e->h0, DP_ACT_GELU_TANH);
  product (e, l->wi1, n, e->normed, e->h1, DP_ACT_NONE);
  e->dev->ops->multiply (e->dev, (gsize) n * c->d_ff, e->type, e->h0, e->h1, e->h0);
  product (e, l->wo, n, e->h0, e->x, DP_ACT_NONE);
}

gboolean
dp_text_encoder_encode (DpTextEncoder *encoder, const gint32 *ids, int n, float *out, GError **error)
{
  gsize d = encoder->config.d_model;
  DpDevice *dev = encoder->dev;

  g_assert (n > 0 && n <= encoder->max_tokens);
  for (int i = 0; i < n; i++) {
    if (ids[i] < 0 || ids[i] >= encoder->config.vocab) {
      g_set_error (error, DP_ERROR, DP_ERROR_BAD_MODEL, "token %d: expected an id below the vocabulary's %d, found %d", i,
          encoder->config.vocab, ids[i]);
      return FALSE;
    }
    dp_tensor_to_f32 (encoder->table, ids[i] * d, d, encoder->host + i * d);
  }
  dev->ops->upload (dev, encoder->x, encoder->host, n * d * sizeof (float));
  for (int i = 0; i < encoder->config.layers; i++)
    run_layer (encoder, &encoder->layers[i], n);
  norm (encoder, n, encoder->norm, encoder->out, DP_TYPE_F32);
  dev->ops->download (dev, out, encoder->out, n * d * sizeof (float));
  return dp_error_check_device (dev, error, "in the text encoder");
}
