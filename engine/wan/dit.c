/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Legend: L tokens of the input, K tokens of all keys, D width, F feed-forward width, C latent channels.
 * A run is a number of frames in a row with the same step; there, modulation is the same.
 *
 * Long, because loading, text and running share one layer's and one model's private fields; in two files those would need a header.
 */
#include "dit.h"
#include "arena.h"
#include "device_error.h"

#include <math.h>
#include <string.h>

/* Rows of the feed-forward's inner activation held at a time: it is the widest buffer, and nothing is gained by more. */
#define FFN_ROWS 16384

typedef struct
{
  DpLinear *qkv, *out;          /* self-attention */
  DpLinear *cross_q, *cross_kv, *cross_out;
  DpLinear *ffn_in, *ffn_out;
  float *modulation;            /* [6, D]: shift, 1 + scale, gate of attention, then of the feed-forward */
  float *norm_qk;               /* [2, D] */
  float *cross_norm_q, *cross_norm_k;   /* [D] */
  float *norm2_weight, *norm2_bias;     /* [D], or NULL without cross_attn_norm */
} Layer;

struct _DpDit
{
  DpDevice *dev;
  const DpOps *ops;
  DpDitConfig config;
  DpDitSpec spec;
  int D, tokens_per_frame;
  int first_layer, n_layers;    /* of which it has a half at least */

  Layer *layers;
  DpLinear *patch_embedding;    /* where the first half is the model's */
  DpLinear *text_in, *text_out;
  DpLinear *proj_out;           /* where the last half is the model's */

  /* One array per prompt-independent thing, all in two arenas. */
  DpArena params;
  float *time_proj;             /* [T, 6, D] */
  float *head_gain, *head_shift;        /* [T, D] */
  float *rope;                  /* [max_keys * tokens_per_frame, head_dim] (cos, sin) */

  DpArena scratch;
  void *normed;                 /* [L, D] */
  void *qkv;                    /* [K, 3 D]; or cross-attention's queries [L, D] */
  void *attended;               /* [L, D] */
  void *inner;                  /* [FFN_ROWS, F] */
  void *patches;                /* [L, 4 C] */
  float *patches_out;           /* [L, 4 C] */
  float *modulation;            /* [6, D] of the layer being run and of the step `modulated` */
  int modulated;                /* -1: of none */
};

struct _DpDitText
{
  DpHalves halves;
  int n_keys;
  float last_key_bias;
  void *memory;                 /* [layers with a cross-attention][keys, values][n_keys, D] */
};

struct _DpDitCache
{
  DpHalves halves;
  void *memory;                 /* [layers with a self-attention][keys, values][rows, D] */
  gsize rows;                   /* that a layer has room for */
  int frames;                   /* that the last pass kept here */
};

/* ---- halves ---- */

/* Layers whose self-attention, or whose rest, is among the halves: [first, + n). */
typedef struct
{
  int first, n;
} LayerRange;

static LayerRange
self_attentions (DpHalves h)
{
  return (LayerRange) { (h.first + 1) / 2, (h.last + 1) / 2 - (h.first + 1) / 2 };
}

static LayerRange
rests (DpHalves h)
{
  return (LayerRange) { h.first / 2, h.last / 2 - h.first / 2 };
}

static gboolean
has (DpHalves h, int half)
{
  return half >= h.first && half < h.last;
}

static gboolean
begins (const DpDit *d)
{
  return d->spec.halves.first == 0;
}

static gboolean
ends (const DpDit *d)
{
  return d->spec.halves.last == 2 * d->config.layers;
}

/* ---- loading ---- */

typedef struct
{
  DpDit *dit;
  const DpWeights *weights;
  GError **error;
  gboolean failed;
} Loader;

static const DpTensor *
get (Loader *l, int n_dims, const gint64 *dims, const char *name)
{
  const DpTensor *t = l->failed ? NULL : dp_weights_get (l->weights, l->error, n_dims, dims, "%s", name);

  l->failed |= t == NULL;
  return t;
}

/* Why the device packed no linear layer of these tensors. */
static void
not_packed (Loader *l, const DpTensor *const *tensors, int n, gsize bytes, const char *prefix, const char *name)
{
  l->failed = TRUE;
  for (int i = 0; i < n; i++)
    if (!dp_weights_check_finite (l->weights, tensors[i], l->error))
      return;
  dp_error_no_room (l->dit->dev, l->error, bytes, "use more devices, or a smaller model", "%s%s", prefix, name);
}

/* A linear layer of n outputs a part, each part "<prefix><part>.weight" and ".bias", stacked. */
static DpLinear *
load_linear (Loader *l, DpType type, gboolean fp8, int n, int k, const char *prefix, const char *const *parts)
{
  const DpTensor *tensors[6];
  DpHostWeight w[3], b[3];
  int count = 0;

  for (; parts[count] && !l->failed; count++) {
    g_autofree char *weight = g_strconcat (prefix, parts[count], ".weight", NULL);
    g_autofree char *bias = g_strconcat (prefix, parts[count], ".bias", NULL);
    const DpTensor *tw = get (l, 2, (gint64[]) { n, k }, weight);
    const DpTensor *tb = get (l, 1, (gint64[]) { n }, bias);

    if (l->failed)
      return NULL;
    w[count] = dp_tensor_weight (tw, n);
    b[count] = dp_tensor_weight (tb, n);
    tensors[2 * count] = tw;
    tensors[2 * count + 1] = tb;
  }
  if (l->failed)
    return NULL;

  DpLinear *linear = l->dit->ops->linear_new (l->dit->dev, &(DpLinearSpec) {
      .k = k, .type = type, .n_weights = count, .weights = w, .biases = b, .fp8 = fp8 });
  if (linear == NULL)
    not_packed (l, tensors, 2 * count, (gsize) count * n * k * dp_type_size (type), prefix, parts[0]);
  return linear;
}

/* n numbers of the host's memory, or NULL. */
static float *
new_floats (Loader *l, gsize n)
{
  float *out = l->failed ? NULL : g_try_new (float, n);

  if (out == NULL && !l->failed) {
    dp_error_set (l->error, DP_ERROR_NO_MEMORY, "the transformer: no %" G_GSIZE_FORMAT " bytes of host memory to load weights with",
        n * sizeof (float));
    l->failed = TRUE;
  }
  return out;
}

/* A small tensor as float32, in host memory. */
static float *
load_host (Loader *l, int n_dims, const gint64 *dims, const char *name)
{
  const DpTensor *t = get (l, n_dims, dims, name);
  gsize n = 1;

  if (t == NULL)
    return NULL;
  for (int i = 0; i < n_dims; i++)
    n *= dims[i];
  g_autofree float *out = new_floats (l, n);
  if (out == NULL)
    return NULL;
  if (!dp_weights_read_finite (l->weights, t, out, l->error)) {
    l->failed = TRUE;
    return NULL;
  }
  return g_steal_pointer (&out);
}

static void
load_vector (Loader *l, float *dst, int n, const char *prefix, const char *name)
{
  g_autofree char *full = g_strconcat (prefix, name, NULL);
  g_autofree float *host = load_host (l, 1, (gint64[]) { n }, full);

  if (host)
    l->dit->ops->upload (l->dit->dev, dst, host, sizeof (float) * n);
}

/* Cross-attention and feed-forward. */
static void
load_rest (Loader *l, Layer *layer, const char *p)
{
  DpType type = l->dit->spec.type;
  gboolean fp8 = l->dit->spec.fp8;
  int D = l->dit->D, F = l->dit->config.ffn;

  layer->cross_q = load_linear (l, type, fp8, D, D, p, (const char *[]) { "attn2.to_q", NULL });
  layer->cross_kv = load_linear (l, type, FALSE, D, D, p, (const char *[]) { "attn2.to_k", "attn2.to_v", NULL });
  layer->cross_out = load_linear (l, type, fp8, D, D, p, (const char *[]) { "attn2.to_out.0", NULL });
  layer->ffn_in = load_linear (l, type, fp8, F, D, p, (const char *[]) { "ffn.net.0.proj", NULL });
  layer->ffn_out = load_linear (l, type, fp8, D, F, p, (const char *[]) { "ffn.net.2", NULL });

  load_vector (l, layer->cross_norm_q, D, p, "attn2.norm_q.weight");
  load_vector (l, layer->cross_norm_k, D, p, "attn2.norm_k.weight");
  if (layer->norm2_weight) {
    load_vector (l, layer->norm2_weight, D, p, "norm2.weight");
    load_vector (l, layer->norm2_bias, D, p, "norm2.bias");
  }
}

static void
load_layer (Loader *l, Layer *layer, int index)
{
  DpDit *d = l->dit;
  DpType type = d->spec.type;
  gboolean fp8 = d->spec.fp8;
  int D = d->D;
  g_autofree char *p = g_strdup_printf ("blocks.%d.", index);
  g_autofree char *table_name = g_strconcat (p, "scale_shift_table", NULL);

  if (has (d->spec.halves, 2 * index)) {
    layer->qkv = load_linear (l, type, fp8, D, D, p, (const char *[]) { "attn1.to_q", "attn1.to_k", "attn1.to_v", NULL });
    layer->out = load_linear (l, type, fp8, D, D, p, (const char *[]) { "attn1.to_out.0", NULL });
    load_vector (l, layer->norm_qk, D, p, "attn1.norm_q.weight");
    load_vector (l, layer->norm_qk + D, D, p, "attn1.norm_k.weight");
  }
  if (has (d->spec.halves, 2 * index + 1))
    load_rest (l, layer, p);

  g_autofree float *table = load_host (l, 3, (gint64[]) { 1, 6, D }, table_name);
  if (table) {
    /* Modulation multiplies by 1 + scale: the 1 is put in here, once. */
    for (int i = 0; i < D; i++) {
      table[D + i] += 1;
      table[4 * D + i] += 1;
    }
    d->ops->upload (d->dev, layer->modulation, table, sizeof (float) * 6 * D);
  }
}

/* The convolution over 1x2x2 patches is a linear layer once its inputs are ordered as patchify() orders them. */
static void
load_patch_embedding (Loader *l)
{
  DpDit *d = l->dit;
  int C = d->config.in_channels, D = d->D;
  g_autofree float *file = load_host (l, 5, (gint64[]) { D, C, 1, 2, 2 }, "patch_embedding.weight");
  const DpTensor *bias = get (l, 1, (gint64[]) { D }, "patch_embedding.bias");

  if (l->failed)
    return;
  const DpHostWeight b = dp_tensor_weight (bias, D);
  g_autofree float *w = new_floats (l, (gsize) D * 4 * C);
  if (w == NULL)
    return;
  for (int o = 0; o < D; o++)
    for (int c = 0; c < C; c++)
      for (int p = 0; p < 4; p++)
        w[((gsize) o * 4 + p) * C + c] = file[((gsize) o * C + c) * 4 + p];
  d->patch_embedding = d->ops->linear_new (d->dev, &(DpLinearSpec) {
      .k = 4 * C, .type = d->spec.type, .n_weights = 1,
      .weights = &(DpHostWeight) { w, DP_TYPE_F32, D }, .biases = &b });
  if (d->patch_embedding == NULL)
    not_packed (l, &bias, 1, (gsize) 4 * C * D * dp_type_size (d->spec.type), "", "patch_embedding");
}

/* The reference makes the sinusoid in float32; at timesteps near 1000 that rounding is visible, so it is repeated here. */
static void
timestep_sinusoid (float timestep, int n, float *out)
{
  int half = n / 2;

  for (int i = 0; i < half; i++) {
    float freq = expf (-(float) log (10000.0) * (float) i / (float) half);
    out[i] = cosf (timestep * freq);
    out[half + i] = sinf (timestep * freq);
  }
}

/* Timesteps are known in advance: their embeddings are computed here for all T, and the wide projection is not kept. */
static void
compute_timesteps (Loader *l)
{
  DpDit *d = l->dit;
  const DpOps *ops = d->ops;
  DpDevice *dev = d->dev;
  int T = d->spec.steps, D = d->D, R = d->config.freq_dim;
  const char *p = "condition_embedder.";
  DpLinear *in = load_linear (l, DP_TYPE_F32, FALSE, D, R, p, (const char *[]) { "time_embedder.linear_1", NULL });
  DpLinear *out = load_linear (l, DP_TYPE_F32, FALSE, D, D, p, (const char *[]) { "time_embedder.linear_2", NULL });
  DpLinear *proj = load_linear (l, DP_TYPE_F32, FALSE, 6 * D, D, p, (const char *[]) { "time_proj", NULL });
  DpArena arena = { 0 };
  float *sinusoid, *hidden, *embedding;
  g_autofree float *host = new_floats (l, (gsize) T * MAX (R, D));

  for (int i = 0; i < 2 && !l->failed; i++) {
    sinusoid = dp_arena_take (&arena, sizeof (float) * T * R);
    hidden = dp_arena_take (&arena, sizeof (float) * T * D);
    embedding = dp_arena_take (&arena, sizeof (float) * T * D);
    if (i == 0)
      l->failed |= !dp_arena_allocate (&arena, dev, "the timestep embedding", l->error);
  }
  if (l->failed)
    goto done;

  for (int t = 0; t < T; t++)
    timestep_sinusoid (d->spec.timesteps[t], R, host + (gsize) t * R);
  ops->upload (dev, sinusoid, host, sizeof (float) * T * R);
  ops->linear (dev, in, &(DpLinearArgs) { .rows = T, .x = sinusoid, .y = hidden, .act = DP_ACT_SILU });
  ops->linear (dev, out, &(DpLinearArgs) { .rows = T, .x = hidden, .y = embedding, .act = DP_ACT_SILU });
  ops->linear (dev, proj, &(DpLinearArgs) { .rows = T, .x = embedding, .y = d->time_proj });

  if (ends (d)) {
    g_autofree float *table = load_host (l, 3, (gint64[]) { 1, 2, D }, "scale_shift_table");
    if (table) {
      g_autofree float *gain = new_floats (l, (gsize) T * D), *shift = new_floats (l, (gsize) T * D);
      if (l->failed)
        goto done;
      ops->linear (dev, out, &(DpLinearArgs) { .rows = T, .x = hidden, .y = embedding });
      ops->download (dev, host, embedding, sizeof (float) * T * D);
      for (int t = 0; t < T; t++)
        for (int i = 0; i < D; i++) {
          shift[(gsize) t * D + i] = table[i] + host[(gsize) t * D + i];
          gain[(gsize) t * D + i] = 1 + (table[D + i] + host[(gsize) t * D + i]);
        }
      ops->upload (dev, d->head_shift, shift, sizeof (float) * T * D);
      ops->upload (dev, d->head_gain, gain, sizeof (float) * T * D);
    }
  }
  ops->sync (dev);

done:
  ops->linear_free (dev, in);
  ops->linear_free (dev, out);
  ops->linear_free (dev, proj);
  dp_arena_free (&arena);
}

/* [positions, dims] (cos, sin) pairs along one axis. */
static float *
axis_angles (int positions, int dims)
{
  float *out = g_new (float, (gsize) positions * dims);

  for (int p = 0; p < positions; p++)
    for (int i = 0; i < dims; i += 2) {
      double angle = p * pow (10000.0, -(double) i / dims);
      out[(gsize) p * dims + i] = (float) cos (angle);
      out[(gsize) p * dims + i + 1] = (float) sin (angle);
    }
  return out;
}

/* Angles are relative to the pass: its first frame of keys is 0. Axes t, h, w share a head's pairs. */
static void
compute_rope (DpDit *d)
{
  int d_hw = 2 * (d->config.head_dim / 6), d_t = d->config.head_dim - 2 * d_hw;
  int frames = d->spec.max_keys, h = d->spec.latent_h / 2, w = d->spec.latent_w / 2;
  gsize n = (gsize) h * w * d->config.head_dim;
  g_autofree float *frame = g_new (float, n), *along_t = axis_angles (frames, d_t), *along_h = axis_angles (h, d_hw),
      *along_w = axis_angles (w, d_hw);

  for (int f = 0; f < frames && !dp_device_cancelled (d->dev); f++) {
    float *out = frame;
    for (int y = 0; y < h; y++)
      for (int x = 0; x < w; x++, out += d->config.head_dim) {
        memcpy (out, along_t + (gsize) f * d_t, sizeof (float) * d_t);
        memcpy (out + d_t, along_h + (gsize) y * d_hw, sizeof (float) * d_hw);
        memcpy (out + d_t + d_hw, along_w + (gsize) x * d_hw, sizeof (float) * d_hw);
      }
    d->ops->upload (d->dev, d->rope + f * n, frame, sizeof (float) * n);
  }
}

static void
layout_params (DpDit *d)
{
  DpArena *a = &d->params;
  gsize D = d->D, T = d->spec.steps;

  for (int i = 0; i < d->n_layers; i++) {
    Layer *layer = &d->layers[i];

    layer->modulation = dp_arena_take (a, sizeof (float) * 6 * D);
    layer->norm_qk = dp_arena_take (a, sizeof (float) * 2 * D);
    layer->cross_norm_q = dp_arena_take (a, sizeof (float) * D);
    layer->cross_norm_k = dp_arena_take (a, sizeof (float) * D);
    if (d->config.cross_attn_norm) {
      layer->norm2_weight = dp_arena_take (a, sizeof (float) * D);
      layer->norm2_bias = dp_arena_take (a, sizeof (float) * D);
    }
  }
  d->time_proj = dp_arena_take (a, sizeof (float) * T * 6 * D);
  d->head_gain = dp_arena_take (a, sizeof (float) * T * D);
  d->head_shift = dp_arena_take (a, sizeof (float) * T * D);
  d->rope = dp_arena_take (a, sizeof (float) * d->spec.max_keys * d->tokens_per_frame * d->config.head_dim);
}

static void
layout_scratch (DpDit *d)
{
  DpArena *a = &d->scratch;
  gsize e = dp_type_size (d->spec.type), D = d->D;
  gsize L = (gsize) d->spec.max_input * d->tokens_per_frame, K = (gsize) d->spec.max_keys * d->tokens_per_frame;

  d->normed = dp_arena_take (a, e * L * D);
  d->qkv = dp_arena_take (a, e * K * 3 * D);
  d->attended = dp_arena_take (a, e * L * D);
  d->inner = dp_arena_take (a, e * MIN (L, FFN_ROWS) * d->config.ffn);
  d->patches = dp_arena_take (a, e * L * 4 * MAX (d->config.in_channels, d->config.out_channels));
  d->patches_out = dp_arena_take (a, sizeof (float) * L * 4 * d->config.out_channels);
  d->modulation = dp_arena_take (a, sizeof (float) * 6 * D);
}

static DpDit
describe (const DpDitConfig *config, const DpDitSpec *spec)
{
  DpHalves h = spec->halves;

  return (DpDit) { .config = *config, .spec = *spec, .D = config->heads * config->head_dim,
    .tokens_per_frame = (spec->latent_h / 2) * (spec->latent_w / 2), .first_layer = h.first / 2,
    .n_layers = (h.last + 1) / 2 - h.first / 2 };
}

gsize
dp_dit_bytes (const DpDitConfig *config, const DpDitSpec *spec, int experts)
{
  DpDit d = describe (config, spec);
  g_autofree Layer *layers = g_new0 (Layer, d.n_layers);
  gsize e = dp_type_size (spec->type), product = spec->fp8 ? 1 : e, D = d.D, F = config->ffn, weights;

  d.layers = layers;
  layout_params (&d);
  layout_scratch (&d);
  weights = self_attentions (spec->halves).n * product * 4 * D * D + rests (spec->halves).n * (2 * e * D * D + product * 2 * D * (D + F))
      + sizeof (float) * D * (config->text_dim + D);
  if (begins (&d))
    weights += e * 4 * config->in_channels * D;
  if (ends (&d))
    weights += e * 4 * config->out_channels * D;
  return experts * (d.params.used + weights) + d.scratch.used;
}

static gsize
cache_bytes (const DpDit *d, DpHalves halves)
{
  return dp_type_size (d->spec.type) * self_attentions (halves).n * 2 * d->spec.max_cached * d->tokens_per_frame * d->D;
}

gsize
dp_dit_cache_bytes (const DpDitConfig *config, const DpDitSpec *spec, DpHalves halves)
{
  DpDit d = describe (config, spec);

  return cache_bytes (&d, halves);
}

gsize
dp_dit_text_bytes (const DpDitConfig *config, const DpDitSpec *spec, DpHalves halves, int length)
{
  return dp_type_size (spec->type) * rests (halves).n * 2 * length * config->heads * config->head_dim;
}

static gboolean
allocate (DpDit *d, GError **error)
{
  layout_params (d);
  if (!dp_arena_allocate (&d->params, d->dev, "the transformer's tables", error))
    return FALSE;
  layout_params (d);
  if (d->spec.lender) {
    d->scratch = d->spec.lender->scratch;
    d->scratch.used = 0;
  } else {
    layout_scratch (d);
    if (!dp_arena_allocate (&d->scratch, d->dev, "the transformer's working memory", error))
      return FALSE;
  }
  layout_scratch (d);
  return TRUE;
}

DpDit *
dp_dit_new (DpDevice *dev, const DpDitConfig *config, const DpWeights *weights, const DpDitSpec *spec, GError **error)
{
  DpDit *d = g_new0 (DpDit, 1);
  Loader l = { d, weights, error, FALSE };

  g_assert (spec->halves.first >= 0 && spec->halves.first < spec->halves.last && spec->halves.last <= 2 * config->layers);
  g_assert (spec->max_input >= 1 && spec->max_cached >= 0);
  g_assert (spec->max_keys >= spec->max_input);
  *d = describe (config, spec);
  d->dev = dev;
  d->ops = dev->ops;
  d->spec.timesteps = NULL;
  d->layers = g_new0 (Layer, d->n_layers);

  if (spec->max_keys > config->rope_max || spec->latent_h / 2 > config->rope_max || spec->latent_w / 2 > config->rope_max) {
    dp_error_set (error, DP_ERROR_SETTINGS,
        "%d latent frames of %dx%d tokens are more than the %d positions per axis the model knows; use a smaller size, block-latents or "
          "context-latents",
        spec->max_keys, spec->latent_w / 2, spec->latent_h / 2, config->rope_max);
    goto fail;
  }
  if (!allocate (d, error))
    goto fail;

  d->spec.timesteps = spec->timesteps;
  compute_timesteps (&l);
  d->spec.timesteps = NULL;     /* the caller's, and not needed any more */
  d->text_in = load_linear (&l, DP_TYPE_F32, FALSE, d->D, config->text_dim, "condition_embedder.text_embedder.",
      (const char *[]) { "linear_1", NULL });
  d->text_out = load_linear (&l, DP_TYPE_F32, FALSE, d->D, d->D, "condition_embedder.text_embedder.",
      (const char *[]) { "linear_2", NULL });
  if (begins (d))
    load_patch_embedding (&l);
  for (int i = 0; i < d->n_layers && !l.failed; i++)
    load_layer (&l, &d->layers[i], d->first_layer + i);
  if (ends (d))
    d->proj_out = load_linear (&l, spec->type, FALSE, 4 * config->out_channels, d->D, "", (const char *[]) { "proj_out", NULL });
  if (l.failed)
    goto fail;
  compute_rope (d);
  if (!dp_error_check_device (dev, error, "while the transformer was loaded") || !dp_weights_check_unchanged (weights, error))
    goto fail;
  return d;

fail:
  dp_dit_free (d);
  return NULL;
}

void
dp_dit_free (DpDit *d)
{
  if (d == NULL)
    return;
  for (int i = 0; i < d->n_layers; i++) {
    Layer *layer = &d->layers[i];
    DpLinear *all[] = { layer->qkv, layer->out, layer->cross_q, layer->cross_kv, layer->cross_out, layer->ffn_in, layer->ffn_out };

    for (guint j = 0; j < G_N_ELEMENTS (all); j++)
      d->ops->linear_free (d->dev, all[j]);
  }
  d->ops->linear_free (d->dev, d->patch_embedding);
  d->ops->linear_free (d->dev, d->text_in);
  d->ops->linear_free (d->dev, d->text_out);
  d->ops->linear_free (d->dev, d->proj_out);
  dp_arena_free (&d->params);
  if (d->spec.lender == NULL)
    dp_arena_free (&d->scratch);
  g_free (d->layers);
  g_free (d);
}

int
dp_dit_tokens_per_frame (const DpDit *d)
{
  return d->tokens_per_frame;
}

DpHalves
dp_dit_halves (const DpDit *d)
{
  return d->spec.halves;
}

/* ---- text ---- */

/* Every padded row of the text is the same zero row, so it is kept once and weighs as many. */
static int
text_rows (int n, int length)
{
  return n < length ? n + 1 : n;
}

/* Keys (part 0) or values (part 1) of a layer. */
static void *
text_part (const DpDit *d, const DpDitText *text, int layer, int part)
{
  return (char *) text->memory + ((gsize) (layer - rests (text->halves).first) * 2 + part) * text->n_keys * d->D
      * dp_type_size (d->spec.type);
}

static void
text_keys (DpDit *d, DpDitText *text, const float *embeds, int n, DpArena *arena)
{
  const DpOps *ops = d->ops;
  DpDevice *dev = d->dev;
  LayerRange layers = rests (text->halves);
  int rows = text->n_keys;
  gsize D = d->D, e = dp_type_size (d->spec.type);
  float *in = dp_arena_take (arena, sizeof (float) * rows * d->config.text_dim);
  float *hidden = dp_arena_take (arena, sizeof (float) * rows * D);
  float *context = dp_arena_take (arena, sizeof (float) * rows * D);
  void *typed = dp_arena_take (arena, e * rows * D);
  char *kv = dp_arena_take (arena, e * rows * 2 * D);

  if (arena->memory == NULL)
    return;
  ops->upload (dev, in, embeds, sizeof (float) * n * d->config.text_dim);
  ops->fill (dev, in + (gsize) n * d->config.text_dim, 0, sizeof (float) * (rows - n) * d->config.text_dim);
  ops->linear (dev, d->text_in, &(DpLinearArgs) { .rows = rows, .x = in, .y = hidden, .act = DP_ACT_GELU_TANH });
  ops->linear (dev, d->text_out, &(DpLinearArgs) { .rows = rows, .x = hidden, .y = context });
  ops->convert (dev, rows * D, DP_TYPE_F32, context, d->spec.type, typed);

  DpRmsNormArgs norm = { .rows = rows, .heads = d->config.heads, .head_dim = d->config.head_dim, .x_type = d->spec.type, .x_stride = 2 * D,
    .eps = d->config.eps, .y_type = d->spec.type };
  for (int i = layers.first; i < layers.first + layers.n; i++) {
    const Layer *layer = &d->layers[i - d->first_layer];

    ops->linear (dev, layer->cross_kv, &(DpLinearArgs) { .rows = rows, .x = typed, .y = kv, .y_type = d->spec.type });
    norm.x = kv;
    norm.weight = layer->cross_norm_k;
    norm.y = text_part (d, text, i, 0);
    ops->rms_norm (dev, &norm);
    norm.x = kv + e * D;
    norm.weight = NULL;
    norm.y = text_part (d, text, i, 1);
    ops->rms_norm (dev, &norm);
  }
}

DpDitText *
dp_dit_text_new (DpDit *d, DpHalves halves, const float *embeds, int n, int length, GError **error)
{
  DpDitText *text = g_new0 (DpDitText, 1);
  gsize total = dp_dit_text_bytes (&d->config, &d->spec, halves, text_rows (n, length));
  DpArena arena = { 0 };
  gboolean ok;

  g_assert (n >= 1 && n <= length);
  text->halves = halves;
  text->n_keys = text_rows (n, length);
  text->last_key_bias = n < length ? (float) log (length - n) : 0;
  text->memory = d->ops->alloc (d->dev, MAX (total, 64));
  if (text->memory == NULL) {
    dp_error_no_room (d->dev, error, total, "use more devices", "a prompt");
    dp_dit_text_free (d, text);
    return NULL;
  }
  text_keys (d, text, embeds, n, &arena);       /* measures */
  ok = dp_arena_allocate (&arena, d->dev, "encoding a prompt", error);
  if (ok)
    text_keys (d, text, embeds, n, &arena);
  d->ops->sync (d->dev);
  dp_arena_free (&arena);
  if (!ok) {
    dp_dit_text_free (d, text);
    return NULL;
  }
  return text;
}

void
dp_dit_text_free (DpDit *d, DpDitText *text)
{
  if (text == NULL)
    return;
  d->ops->free (d->dev, text->memory);
  g_free (text);
}

/* ---- feature cache ---- */

DpDitCache *
dp_dit_cache_new (DpDit *d, DpHalves halves, GError **error)
{
  DpDitCache *cache = g_new0 (DpDitCache, 1);
  gsize bytes = cache_bytes (d, halves);

  cache->halves = halves;
  cache->rows = (gsize) d->spec.max_cached * d->tokens_per_frame;
  cache->memory = d->ops->alloc (d->dev, MAX (bytes, 64));
  if (cache->memory == NULL) {
    dp_error_no_room (d->dev, error, bytes, "a smaller context-latents needs less, and so does context-mode=recomputed",
        "the feature cache");
    g_free (cache);
    return NULL;
  }
  return cache;
}

void
dp_dit_cache_free (DpDit *d, DpDitCache *cache)
{
  if (cache == NULL)
    return;
  d->ops->free (d->dev, cache->memory);
  g_free (cache);
}

static void *
cache_part (const DpDit *d, const DpDitCache *cache, int layer, int part)
{
  return (char *) cache->memory + ((gsize) (layer - self_attentions (cache->halves).first) * 2 + part) * cache->rows * d->D
      * dp_type_size (d->spec.type);
}

/* ---- running ---- */

void
dp_dit_embed (DpDit *d, int frames, const float *latents, float *tokens)
{
  const DpOps *ops = d->ops;

  g_assert (d->patch_embedding && frames <= d->spec.max_input);
  ops->patchify (d->dev, frames, d->spec.latent_h, d->spec.latent_w, d->config.in_channels, latents, d->spec.type, d->patches);
  ops->linear (d->dev, d->patch_embedding, &(DpLinearArgs) { .rows = frames * d->tokens_per_frame, .x = d->patches, .y = tokens });
}

/* Frames of the run that begins at `first`. */
static int
run_length (const int *steps, int frames, int first)
{
  int n = 1;

  while (first + n < frames && steps[first + n] == steps[first])
    n++;
  return n;
}

/* The layer's modulation at a step [6, D], valid until another one is asked for: the device runs what it was told in order. */
static const float *
modulation (DpDit *d, const Layer *layer, int step)
{
  gsize n = 6 * (gsize) d->D;

  if (step != d->modulated)
    d->ops->combine (d->dev, n, 2, (const float *[]) { layer->modulation, d->time_proj + step * n }, (const float[]) { 1, 1 },
        d->modulation);
  d->modulated = step;
  return d->modulation;
}

static DpRmsNormArgs
rows_of (const DpDit *d, int frames)
{
  return (DpRmsNormArgs) { .rows = frames * d->tokens_per_frame, .heads = d->config.heads, .head_dim = d->config.head_dim,
    .x_type = d->spec.type, .y_type = d->spec.type, .eps = d->config.eps };
}

/* own: the input's rows of q, k and v, as the product made them. */
static void
keep (DpDit *d, const DpDitKeep *k, int index, char *own)
{
  gsize e = dp_type_size (d->spec.type), D = d->D;
  DpRmsNormArgs part = rows_of (d, k->frames);

  if (k->frames == 0)
    return;
  own += e * k->first * d->tokens_per_frame * 3 * D;
  part.x_stride = 3 * D;
  part.x = own + e * D;
  part.weight = d->layers[index - d->first_layer].norm_qk + D;   /* normed, but not turned: the reader turns to its own positions */
  part.y = cache_part (d, k->cache, index, 0);
  d->ops->rms_norm (d->dev, &part);
  part.x = own + 2 * e * D;
  part.weight = NULL;
  part.y = cache_part (d, k->cache, index, 1);
  d->ops->rms_norm (d->dev, &part);
}

/* Kept keys, turned to the positions from `frame` on, and values to that frame's rows of d->qkv. */
static void
put (DpDit *d, const DpDitKept *k, int index, int frame)
{
  gsize e = dp_type_size (d->spec.type), D = d->D, row = (gsize) frame * d->tokens_per_frame;
  char *to = (char *) d->qkv + e * row * 3 * D;
  DpRmsNormArgs part = rows_of (d, k->frames);

  if (k->frames == 0)
    return;
  part.y_stride = 3 * D;
  part.x = cache_part (d, k->cache, index, 0);
  part.rope = d->rope + row * d->config.head_dim;
  part.y = to + e * D;
  d->ops->rms_norm (d->dev, &part);
  part.x = cache_part (d, k->cache, index, 1);
  part.rope = NULL;
  part.y = to + 2 * e * D;
  d->ops->rms_norm (d->dev, &part);
}

static void
self_attention (DpDit *d, const DpDitPass *pass, int index)
{
  const DpOps *ops = d->ops;
  const Layer *layer = &d->layers[index - d->first_layer];
  DpType type = d->spec.type;
  gsize e = dp_type_size (type), D = d->D, tpf = d->tokens_per_frame, L = pass->frames * tpf;
  int frames = pass->frames, in_front = pass->before.frames, keys = in_front + frames + pass->behind.frames;
  char *k = (char *) d->qkv + e * D, *v = k + e * D, *own = (char *) d->qkv + e * in_front * tpf * 3 * D;
  DpRmsNormArgs turn = rows_of (d, frames);

  for (int first = 0, n; first < frames; first += n) {
    n = run_length (pass->steps, frames, first);
    const float *m = modulation (d, layer, pass->steps[first]);
    ops->layer_norm (d->dev, &(DpLayerNormArgs) { .rows = n * tpf, .cols = D, .x = pass->tokens + first * tpf * D, .gain = m + D,
        .shift = m, .eps = d->config.eps, .y = (char *) d->normed + e * first * tpf * D, .y_type = type });
  }
  ops->linear (d->dev, layer->qkv, &(DpLinearArgs) { .rows = L, .x = d->normed, .y = own, .y_type = type });
  keep (d, &pass->keep_head, index, own);
  keep (d, &pass->keep_tail, index, own);
  turn.parts = 2;
  turn.x = turn.y = own;
  turn.x_stride = turn.y_stride = 3 * D;
  turn.weight = layer->norm_qk;
  turn.rope = d->rope + in_front * tpf * d->config.head_dim;
  ops->rms_norm (d->dev, &turn);
  put (d, &pass->before, index, 0);
  put (d, &pass->behind, index, in_front + frames);
  ops->attention (d->dev, &(DpAttentionArgs) { .type = type, .heads = d->config.heads, .head_dim = d->config.head_dim,
      .q_len = L, .kv_len = keys * tpf, .fp8 = d->spec.fp8, .q = own, .k = k, .v = v, .q_stride = 3 * D, .k_stride = 3 * D,
      .v_stride = 3 * D, .out = d->attended, .scale = 1 / sqrtf (d->config.head_dim) });
  for (int first = 0, n; first < frames; first += n) {
    n = run_length (pass->steps, frames, first);
    const float *m = modulation (d, layer, pass->steps[first]);
    ops->linear (d->dev, layer->out, &(DpLinearArgs) { .rows = n * tpf, .x = (char *) d->attended + e * first * tpf * D,
        .y = pass->tokens + first * tpf * D, .accumulate = true, .gate = m + 2 * D });
  }
}

static void
cross_attention (DpDit *d, const DpDitPass *pass, int index)
{
  const DpOps *ops = d->ops;
  const Layer *layer = &d->layers[index - d->first_layer];
  DpType type = d->spec.type;
  gsize D = d->D, L = (gsize) pass->frames * d->tokens_per_frame;

  if (layer->norm2_weight)
    ops->layer_norm (d->dev, &(DpLayerNormArgs) { .rows = L, .cols = D, .x = pass->tokens, .gain = layer->norm2_weight,
        .shift = layer->norm2_bias, .eps = d->config.eps, .y = d->normed, .y_type = type });
  else
    ops->convert (d->dev, L * D, DP_TYPE_F32, pass->tokens, type, d->normed);
  ops->linear (d->dev, layer->cross_q, &(DpLinearArgs) { .rows = L, .x = d->normed, .y = d->qkv, .y_type = type });
  ops->rms_norm (d->dev, &(DpRmsNormArgs) { .rows = L, .heads = d->config.heads, .head_dim = d->config.head_dim, .x = d->qkv,
      .x_type = type, .weight = layer->cross_norm_q, .eps = d->config.eps, .y = d->qkv, .y_type = type });
  ops->attention (d->dev, &(DpAttentionArgs) { .type = type, .heads = d->config.heads, .head_dim = d->config.head_dim,
      .q_len = L, .kv_len = pass->text->n_keys, .q = d->qkv, .k = text_part (d, pass->text, index, 0),
      .v = text_part (d, pass->text, index, 1), .out = d->attended, .scale = 1 / sqrtf (d->config.head_dim),
      .last_key_bias = pass->text->last_key_bias });
  ops->linear (d->dev, layer->cross_out, &(DpLinearArgs) { .rows = L, .x = d->attended, .y = pass->tokens, .accumulate = true });
}

static void
feed_forward (DpDit *d, const DpDitPass *pass, int index)
{
  const DpOps *ops = d->ops;
  const Layer *layer = &d->layers[index - d->first_layer];
  DpType type = d->spec.type;
  gsize e = dp_type_size (type), D = d->D, tpf = d->tokens_per_frame;

  for (int first = 0, n; first < pass->frames; first += n) {
    n = run_length (pass->steps, pass->frames, first);
    const float *m = modulation (d, layer, pass->steps[first]);
    float *tokens = pass->tokens + first * tpf * D;
    gsize rows = n * tpf;

    ops->layer_norm (d->dev, &(DpLayerNormArgs) { .rows = rows, .cols = D, .x = tokens, .gain = m + 4 * D, .shift = m + 3 * D,
        .eps = d->config.eps, .y = d->normed, .y_type = type });
    for (gsize done = 0; done < rows; done += FFN_ROWS) {
      int some = MIN (rows - done, FFN_ROWS);

      ops->linear (d->dev, layer->ffn_in, &(DpLinearArgs) { .rows = some, .x = (char *) d->normed + e * done * D, .y = d->inner,
          .y_type = type, .act = DP_ACT_GELU_TANH });
      ops->linear (d->dev, layer->ffn_out, &(DpLinearArgs) { .rows = some, .x = d->inner, .y = tokens + done * D, .accumulate = true,
          .gate = m + 5 * D });
    }
  }
}

static void
check_steps (const DpDit *d, int frames, const int *steps)
{
  g_assert (frames >= 1 && frames <= d->spec.max_input);
  for (int i = 0; i < frames; i++)
    g_assert (steps[i] >= 0 && steps[i] < d->spec.steps);
}

static gboolean
same (DpHalves a, DpHalves b)
{
  return a.first == b.first && a.last == b.last;
}

static void
check_kept (const DpDitPass *pass, const DpDitKept *k)
{
  g_assert (k->cache ? k->frames >= 0 && k->frames <= k->cache->frames && same (k->cache->halves, pass->halves) : k->frames == 0);
}

static void
start_keeping (const DpDit *d, const DpDitPass *pass, const DpDitKeep *k)
{
  if (k->cache == NULL) {
    g_assert (k->frames == 0);
    return;
  }
  g_assert (k->cache != pass->before.cache && k->cache != pass->behind.cache);
  g_assert (k->first >= 0 && k->frames >= 0 && k->first <= pass->frames - k->frames);
  g_assert (k->frames <= d->spec.max_cached && same (k->cache->halves, pass->halves));
  k->cache->frames = k->frames;
}

void
dp_dit_run (DpDit *d, const DpDitPass *pass)
{
  DpHalves h = d->spec.halves;

  g_assert (pass->halves.first >= h.first && pass->halves.last <= h.last && same (pass->halves, pass->text->halves));
  check_steps (d, pass->frames, pass->steps);
  check_kept (pass, &pass->before);
  check_kept (pass, &pass->behind);
  g_assert (pass->before.frames + pass->frames + pass->behind.frames <= d->spec.max_keys);
  g_assert (pass->keep_head.cache == NULL || pass->keep_head.cache != pass->keep_tail.cache);
  start_keeping (d, pass, &pass->keep_head);
  start_keeping (d, pass, &pass->keep_tail);
  for (int half = pass->halves.first; half < pass->halves.last; half++) {
    if (half == pass->halves.first || half % 2 == 0)
      d->modulated = -1;
    if (half % 2 == 0) {
      self_attention (d, pass, half / 2);
    } else {
      cross_attention (d, pass, half / 2);
      feed_forward (d, pass, half / 2);
    }
  }
}

void
dp_dit_head (DpDit *d, int frames, int first_frame, const int *steps, const float *tokens, float *velocity)
{
  const DpOps *ops = d->ops;
  DpType type = d->spec.type;
  gsize e = dp_type_size (type), D = d->D, tpf = d->tokens_per_frame;

  check_steps (d, frames, steps);
  g_assert (d->proj_out && first_frame >= 0 && first_frame < frames);
  for (int first = first_frame, n; first < frames; first += n) {
    n = run_length (steps, frames, first);
    ops->layer_norm (d->dev, &(DpLayerNormArgs) { .rows = n * tpf, .cols = D, .x = tokens + first * tpf * D,
        .gain = d->head_gain + steps[first] * D, .shift = d->head_shift + steps[first] * D, .eps = d->config.eps,
        .y = (char *) d->normed + e * (first - first_frame) * tpf * D, .y_type = type });
  }
  ops->linear (d->dev, d->proj_out, &(DpLinearArgs) { .rows = (frames - first_frame) * tpf, .x = d->normed, .y = d->patches_out });
  ops->unpatchify (d->dev, frames - first_frame, d->spec.latent_h, d->spec.latent_w, d->config.out_channels, d->patches_out, velocity);
}
