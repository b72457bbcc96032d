/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * L tokens, D d_model, I = heads * d_kv, F d_ff, H heads, M max_tokens.
 */
#include "text_encoder.h"
#include "arena.h"
#include "device_error.h"
#include "kernels/host.h"

#include <math.h>

/* The matrix products of a layer, and the tensors they are made of. */
enum { QKV, O, WI0, WI1, WO, PRODUCTS };

enum { TENSORS = 7 };

typedef struct
{
  DpHostWeight weights[TENSORS];        /* q, k, v, o, wi_0, wi_1, wo: in the file */
  const DpTensor *tensors[TENSORS];     /* the same */
  float *norm0, *norm1;         /* [D], on the device */
  float *bias;                  /* [buckets, H], on the host */
} Layer;

struct _DpTextEncoder
{
  DpDevice *dev;
  DpTextConfig config;
  DpType type;
  int max_tokens;
  const DpWeights *weights;
  const DpTensor *table;        /* [vocab, D], in the weights */
  gboolean streamed;
  Layer *layers;
  DpLinear *(*linears)[PRODUCTS];       /* of each layer; streamed: one, filled with each layer in turn */
  float *norm;                  /* [D] */
  int *bucket;                  /* [2 M - 1]: of relative position r at r + M - 1 */
  float *host;                  /* staging: [M, D] or [H, 2 M - 1] */

  DpArena arena;
  float *x[DP_TEXT_ENCODER_TEXTS];      /* [M, D]: the residual stream of each text */
  float *out;                   /* [M, D] */
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
  for (int i = 0; i < DP_TEXT_ENCODER_TEXTS; i++)
    e->x[i] = dp_arena_take (a, m * d * 4);
  e->out = dp_arena_take (a, m * d * 4);
  e->normed = dp_arena_take (a, m * d * size);
  e->qkv = dp_arena_take (a, m * 3 * inner * size);
  e->att = dp_arena_take (a, m * inner * size);
  e->h0 = dp_arena_take (a, m * c->d_ff * size);
  e->h1 = dp_arena_take (a, m * c->d_ff * size);
  e->bias = dp_arena_take (a, c->heads * (2 * m - 1) * 4);
}

gsize
dp_text_encoder_bytes (const DpTextConfig *c, DpType type, int max_tokens, gboolean streamed)
{
  g_autofree Layer *layers = g_new0 (Layer, c->layers);
  DpTextEncoder e = { .config = *c, .type = type, .max_tokens = max_tokens, .layers = layers };
  gsize layer = dp_type_size (type) * c->d_model * (4 * (gsize) c->heads * c->d_kv + 3 * (gsize) c->d_ff);

  layout (&e);
  return e.arena.used + layer * (streamed ? 1 : c->layers);
}

/* ---- opening ---- */

static gboolean
load_norm (DpTextEncoder *e, const DpWeights *weights, float *norm, const char *name, GError **error)
{
  const DpTensor *t = dp_weights_get (weights, error, 1, (gint64[]) { e->config.d_model }, "%s", name);

  if (t == NULL || !dp_weights_read_finite (weights, t, e->host, error))
    return FALSE;
  e->dev->ops->upload (e->dev, norm, e->host, e->config.d_model * sizeof (float));
  return TRUE;
}

/* How to pack a product of a layer. */
static DpLinearSpec
spec_of (const DpTextEncoder *e, const Layer *layer, int product)
{
  static const int first[] = { 0, 3, 4, 5, 6 };
  const DpTextConfig *c = &e->config;
  const int k[] = { c->d_model, c->heads * c->d_kv, c->d_model, c->d_model, c->d_ff };

  return (DpLinearSpec) { .k = k[product], .type = e->type, .n_weights = product == QKV ? 3 : 1,
      .weights = layer->weights + first[product] };
}

static gboolean
find_weights (DpTextEncoder *e, const DpWeights *weights, int layer, GError **error)
{
  const DpTextConfig *c = &e->config;
  int inner = c->heads * c->d_kv;
  const struct { const char *name; int rows, k; } tensors[TENSORS] = {
    { "0.SelfAttention.q", inner, c->d_model }, { "0.SelfAttention.k", inner, c->d_model }, { "0.SelfAttention.v", inner, c->d_model },
    { "0.SelfAttention.o", c->d_model, inner }, { "1.DenseReluDense.wi_0", c->d_ff, c->d_model },
    { "1.DenseReluDense.wi_1", c->d_ff, c->d_model }, { "1.DenseReluDense.wo", c->d_model, c->d_ff },
  };

  for (int i = 0; i < TENSORS; i++) {
    const DpTensor *t = dp_weights_get (weights, error, 2, (gint64[]) { tensors[i].rows, tensors[i].k }, "encoder.block.%d.layer.%s.weight",
        layer, tensors[i].name);

    if (t == NULL)
      return FALSE;
    e->layers[layer].weights[i] = dp_tensor_weight (t, tensors[i].rows);
    e->layers[layer].tensors[i] = t;
  }
  return TRUE;
}

/* Of what the device did not pack. */
static gboolean
layer_is_finite (const DpTextEncoder *e, int layer, GError **error)
{
  for (int i = 0; i < TENSORS; i++)
    if (!dp_weights_check_finite (e->weights, e->layers[layer].tensors[i], error))
      return FALSE;
  return TRUE;
}

static gboolean
no_room (DpTextEncoder *e, const DpLinearSpec *spec, int layer, GError **error)
{
  gsize bytes = 0;

  if (!layer_is_finite (e, layer, error))
    return FALSE;
  for (int i = 0; i < spec->n_weights; i++)
    bytes += (gsize) spec->weights[i].rows * spec->k * dp_type_size (e->type);
  dp_error_no_room (e->dev, error, bytes, e->streamed ? "use another device for the first stage" : "text-encoder=streamed needs less",
      "layer %d of the text encoder", layer);
  return FALSE;
}

static gboolean
load_linears (DpTextEncoder *e, int layer, GError **error)
{
  for (int i = 0; i < PRODUCTS; i++) {
    DpLinearSpec spec = spec_of (e, &e->layers[layer], i);

    e->linears[layer][i] = e->dev->ops->linear_new (e->dev, &spec);
    if (e->linears[layer][i] == NULL)
      return no_room (e, &spec, layer, error);
  }
  return TRUE;
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
  return dp_weights_read_finite (weights, t, e->layers[layer].bias, error);
}

static gboolean
load_layer (DpTextEncoder *e, const DpWeights *weights, int i, GError **error)
{
  Layer *l = &e->layers[i];
  g_autofree char *norm0 = g_strdup_printf ("encoder.block.%d.layer.0.layer_norm.weight", i);
  g_autofree char *norm1 = g_strdup_printf ("encoder.block.%d.layer.1.layer_norm.weight", i);

  return find_weights (e, weights, i, error) && load_norm (e, weights, l->norm0, norm0, error)
      && load_norm (e, weights, l->norm1, norm1, error)
      && load_bias (e, weights, i, error) && ((e->streamed && i > 0) || load_linears (e, i, error));
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
  return load_norm (e, weights, e->norm, "encoder.final_layer_norm.weight", error) && dp_weights_check_unchanged (weights, error);
}

DpTextEncoder *
dp_text_encoder_new (DpDevice *dev, const DpTextConfig *config, const DpWeights *weights, DpType type, int max_tokens, gboolean streamed,
    GError **error)
{
  DpTextEncoder *e = g_new0 (DpTextEncoder, 1);
  int spread = 2 * max_tokens - 1;

  g_assert (max_tokens > 0 && type != DP_TYPE_F16);
  e->dev = dev;
  e->config = *config;
  e->type = type;
  e->max_tokens = max_tokens;
  e->streamed = streamed;
  e->weights = weights;
  e->layers = g_new0 (Layer, config->layers);
  e->linears = g_malloc0_n (streamed ? 1 : config->layers, sizeof *e->linears);
  e->host = dp_arena_host_new (sizeof (float) * MAX ((gsize) max_tokens * config->d_model, (gsize) config->heads * spread),
      "the text encoder's staging memory", error);
  e->bucket = g_new (int, spread);
  for (int i = 0; i < spread; i++)
    e->bucket[i] = bucket_of (i - (max_tokens - 1), config->buckets, config->max_distance);
  if (e->host == NULL || !load (e, weights, error)) {
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
  for (int i = 0; i < (encoder->streamed ? 1 : encoder->config.layers); i++)
    for (int k = 0; k < PRODUCTS; k++)
      ops->linear_free (encoder->dev, encoder->linears[i][k]);
  for (int i = 0; i < encoder->config.layers; i++)
    g_free (encoder->layers[i].bias);
  dp_arena_free (&encoder->arena);
  g_free (encoder->linears);
  g_free (encoder->layers);
  g_free (encoder->bucket);
  g_free (encoder->host);
  g_free (encoder);
}

/* ---- running ---- */

static void
norm (DpTextEncoder *e, int n, const float *x, const float *weight, void *y, DpType y_type)
{
  e->dev->ops->rms_norm (e->dev, &(DpRmsNormArgs) { .rows = n, .heads = 1, .head_dim = e->config.d_model, .x = x, .x_type = DP_TYPE_F32,
          .weight = weight, .eps = e->config.eps, .y = y, .y_type = y_type });
}

/* y = act (x . W^T) */
static void
product (DpTextEncoder *e, const DpLinear *linear, int n, const void *x, void *y, DpActivation act)
{
  e->dev->ops->linear (e->dev, linear, &(DpLinearArgs) { .rows = n, .x = x, .y = y, .y_type = e->type, .act = act });
}

/* y += x . W^T, y the residual stream */
static void
add_product (DpTextEncoder *e, const DpLinear *linear, int n, const void *x, float *y)
{
  e->dev->ops->linear (e->dev, linear, &(DpLinearArgs) { .rows = n, .x = x, .y = y, .y_type = DP_TYPE_F32, .accumulate = true });
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
run_layer (DpTextEncoder *e, const Layer *l, DpLinear *const *linears, int n, float *x)
{
  const DpTextConfig *c = &e->config;
  gsize inner = (gsize) c->heads * c->d_kv, size = dp_type_size (e->type);
  const char *qkv = e->qkv;

  upload_bias (e, l, n);
  norm (e, n, x, l->norm0, e->normed, e->type);
  product (e, linears[QKV], n, e->normed, e->qkv, DP_ACT_NONE);
  e->dev->ops->attention (e->dev, &(DpAttentionArgs) { .type = e->type, .heads = c->heads, .head_dim = c->d_kv, .q_len = n, .kv_len = n,
          .q = qkv, .k = qkv + inner * size, .v = qkv + 2 * inner * size, .q_stride = 3 * inner, .k_stride = 3 * inner,
          .v_stride = 3 * inner, .out = e->att, .out_stride = inner, .scale = 1, .rel_bias = e->bias });
  add_product (e, linears[O], n, e->att, x);

  norm (e, n, x, l->norm1, e->normed, e->type);
  product (e, linears[WI0], n, e->normed, e->h0, DP_ACT_GELU_TANH);
  product (e, linears[WI1], n, e->normed, e->h1, DP_ACT_NONE);
  e->dev->ops->multiply (e->dev, (gsize) n * c->d_ff, e->type, e->h0, e->h1, e->h0);
  add_product (e, linears[WO], n, e->h0, x);
}

/* The layer's products on the device: its own, or those that are filled with it now. NULL with an error latched, or no memory. */
static DpLinear *const *
linears_of (DpTextEncoder *e, int layer)
{
  if (!e->streamed)
    return e->linears[layer];
  for (int i = 0; i < PRODUCTS; i++) {
    DpLinearSpec spec = spec_of (e, &e->layers[layer], i);

    if (!e->dev->ops->linear_refill (e->dev, e->linears[0][i], &spec))
      return NULL;
  }
  return e->linears[0];
}

/* The text's rows of the table, into its residual stream. */
static gboolean
embed (DpTextEncoder *e, const DpTokens *text, float *x, GError **error)
{
  gsize d = e->config.d_model;

  g_assert (text->n > 0 && text->n <= e->max_tokens);
  for (int i = 0; i < text->n; i++) {
    if (text->ids[i] < 0 || text->ids[i] >= e->config.vocab) {
      dp_error_set (error, DP_ERROR_BAD_MODEL, "token %d: expected an id below the vocabulary's %d, found %d", i, e->config.vocab,
          text->ids[i]);
      return FALSE;
    }
    if (!dp_weights_read (e->weights, e->table, text->ids[i] * d, d, e->host + i * d, error))
      return FALSE;
    if (!dp_all_finite (DP_TYPE_F32, e->host + i * d, d)) {
      dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s, row %d: expected finite numbers, found NaN or infinity; fetch the "
          "file again",
          dp_weights_path (e->weights), e->table->name, text->ids[i]);
      return FALSE;
    }
  }
  e->dev->ops->upload (e->dev, x, e->host, text->n * d * sizeof (float));
  return TRUE;
}

/* What a weight that is finite may still overflow to. */
static gboolean
result_is_finite (const DpTextEncoder *e, const DpTokens *text, GError **error)
{
  gsize d = e->config.d_model;

  for (int i = 0; i < text->n; i++)
    if (!dp_all_finite (DP_TYPE_F32, text->out + i * d, d)) {
      dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: the text encoder makes NaN or infinity of token %d of %d, which is number %d of the "
          "vocabulary; the weights are damaged, or not made for this precision", dp_weights_path (e->weights), i + 1, text->n,
          text->ids[i]);
      return FALSE;
    }
  return TRUE;
}

gboolean
dp_text_encoder_encode (DpTextEncoder *e, const DpTokens *texts, int n_texts, GError **error)
{
  gboolean ok = TRUE;

  g_assert (n_texts > 0 && n_texts <= DP_TEXT_ENCODER_TEXTS);
  if (!dp_weights_check_unchanged (e->weights, error))
    return FALSE;
  for (int t = 0; t < n_texts; t++)
    if (!embed (e, &texts[t], e->x[t], error))
      return FALSE;
  for (int i = 0; i < e->config.layers && ok; i++) {
    DpLinear *const *linears = linears_of (e, i);

    ok = linears != NULL;
    if (!ok && !layer_is_finite (e, i, error))
      return FALSE;
    for (int t = 0; t < n_texts && ok; t++)
      run_layer (e, &e->layers[i], linears, texts[t].n, e->x[t]);
  }
  for (int t = 0; t < n_texts && ok; t++) {
    norm (e, texts[t].n, e->x[t], e->norm, e->out, DP_TYPE_F32);
    e->dev->ops->download (e->dev, texts[t].out, e->out, sizeof (float) * texts[t].n * e->config.d_model);
  }
  if (!dp_error_check_device (e->dev, error, "in the text encoder") || !dp_weights_check_unchanged (e->weights, error))
    return FALSE;
  if (!ok)
    dp_error_set (error, DP_ERROR_NO_MEMORY, "the text encoder on %s: not enough memory to load a layer", e->dev->name);
  for (int t = 0; t < n_texts && ok && !dp_device_cancelled (e->dev); t++)
    ok = result_is_finite (e, &texts[t], error);
  return ok;
}
