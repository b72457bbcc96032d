/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shapes.h"
#include "error.h"
#include "published.h"

#include <string.h>

#define MAX_WIDTH 16384
#define MAX_HIDDEN 65536
#define MAX_LAYERS 256

/* The first thing wrong latches in `error`; from then on every call returns 1, which is harmless. */
typedef struct
{
  const DpWeights *weights;
  GError **error;
  gboolean failed;
} Shapes;

static void G_GNUC_PRINTF (2, 3)
refuse (Shapes *s, const char *format, ...)
{
  g_autofree char *sentence = NULL;
  va_list args;

  if (s->failed)
    return;
  va_start (args, format);
  sentence = dp_error_sentence (format, args);
  va_end (args);
  dp_error_set (s->error, DP_ERROR_BAD_MODEL, "%s: %s", dp_weights_path (s->weights), sentence);
  s->failed = TRUE;
}

/* Size `dim` of a tensor of n_dims dimensions. */
static int
size_of (Shapes *s, const char *name, int n_dims, int dim, gint64 max)
{
  const DpTensor *t = s->failed ? NULL : dp_weights_find (s->weights, name);

  if (s->failed)
    return 1;
  if (t == NULL) {
    dp_error_set (s->error, DP_ERROR_NOT_FOUND, "%s: tensor %s: missing, and no config file says what it should be; the download is not "
        "complete, or this is another kind of model", dp_weights_path (s->weights), name);
    s->failed = TRUE;
    return 1;
  }
  if (t->n_dims == n_dims && t->dims[dim] >= 1 && t->dims[dim] <= max)
    return t->dims[dim];
  refuse (s, "tensor %s: expected %d dimensions, of which number %d is from 1 to %" G_GINT64_FORMAT ", found %d%s", name, n_dims, dim + 1,
      max, t->n_dims, t->n_dims == n_dims ? ", but another size" : "");
  return 1;
}

/* How many there are in a row from 0 on of tensors with a number in their names. */
static int
count (const Shapes *s, const char *before, const char *behind, int max)
{
  int n = 0;

  for (; n <= max; n++) {
    g_autofree char *name = g_strdup_printf ("%s%d%s", before, n, behind);

    if (dp_weights_find (s->weights, name) == NULL)
      break;
  }
  return n;
}

gboolean
dp_shapes_transformer (DpDitConfig *c, const DpWeights *weights, int heads, GError **error)
{
  Shapes s = { weights, error, FALSE };
  int dim = size_of (&s, "patch_embedding.weight", 5, 0, MAX_WIDTH);

  *c = (DpDitConfig) {
    .layers = count (&s, "blocks.", ".scale_shift_table", MAX_LAYERS), .heads = heads ? heads : dim / 128,
    .ffn = size_of (&s, "blocks.0.ffn.net.0.proj.weight", 2, 0, MAX_HIDDEN),
    .in_channels = size_of (&s, "patch_embedding.weight", 5, 1, DP_VAE_MAX_CHANNELS),
    .text_dim = size_of (&s, "condition_embedder.text_embedder.linear_1.weight", 2, 1, MAX_WIDTH),
    .freq_dim = size_of (&s, "condition_embedder.time_embedder.linear_1.weight", 2, 1, MAX_WIDTH),
    .rope_max = 1024, .cross_attn_norm = dp_weights_find (weights, "blocks.0.norm2.weight") != NULL, .eps = 1e-6 };
  c->out_channels = c->in_channels;
  if (c->layers < 1 || c->layers > MAX_LAYERS)
    refuse (&s, "blocks.N.scale_shift_table (blocks.N.modulation): expected 1 to %d layers, found %s", MAX_LAYERS, c->layers ? "more" : "none");
  if (c->heads < 1 || dim % c->heads || dim / c->heads % 2 || dim / c->heads < 6 || dim / c->heads > 512 || c->freq_dim % 2)
    refuse (&s, "patch_embedding.weight: expected as many features as heads of 128 have, or as num_heads of a config.json beside it says, "
        "found %d", dim);
  c->head_dim = c->heads ? dim / c->heads : 1;
  return !s.failed;
}

gboolean
dp_shapes_vae (DpVaeConfig *c, const DpWeights *weights, GError **error)
{
  Shapes s = { weights, error, FALSE };
  int channels[DP_VAE_MAX_LEVELS];

  *c = (DpVaeConfig) {
    .z_dim = size_of (&s, "decoder.conv_in.weight", 5, 1, DP_VAE_MAX_CHANNELS),
    .base_dim = size_of (&s, "decoder.norm_out.gamma", 4, 0, 1024),
    .levels = count (&s, "decoder.up_blocks.", ".resnets.0.norm1.gamma", DP_VAE_MAX_LEVELS),
    .res_blocks = count (&s, "decoder.up_blocks.0.resnets.", ".norm1.gamma", 17) - 1,
    .residual = dp_weights_find (weights, "decoder.up_blocks.0.upsampler.resample.1.weight") != NULL,
    .out_channels = size_of (&s, "decoder.conv_out.weight", 5, 0, 12), .temporal_scale = 1 };
  c->patch = c->out_channels == 12 ? 2 : 1;
  c->encoder_base_dim = dp_weights_find (weights, "encoder.conv_in.weight") ? size_of (&s, "encoder.conv_in.weight", 5, 0, 1024)
      : c->base_dim;
  if (c->levels < 2 || c->levels > DP_VAE_MAX_LEVELS || c->res_blocks < 1 || c->res_blocks > 16 || c->out_channels != 3 * c->patch * c->patch)
    refuse (&s, "expected a decoder of 2 to %d levels, of 2 to 17 residual blocks each, that makes 3 or 12 channels, found %d, %d and %d",
        DP_VAE_MAX_LEVELS, c->levels, c->res_blocks + 1, c->out_channels);
  for (int i = 0; i < c->levels && !s.failed; i++) {
    g_autofree char *conv = g_strdup_printf ("decoder.up_blocks.%d.resnets.0.conv1.weight", i);
    g_autofree char *time_conv = g_strdup_printf ("decoder.up_blocks.%d.%s.time_conv.weight", i, c->residual ? "upsampler" : "upsamplers.0");

    channels[i] = size_of (&s, conv, 5, 0, 8192);
    c->dim_mult[c->levels - 1 - i] = channels[i] / c->base_dim;
    c->temporal_upsample[i] = i < c->levels - 1 && dp_weights_find (weights, time_conv) != NULL;
    c->temporal_scale <<= c->temporal_upsample[i];
    if (channels[i] % c->base_dim || channels[i] / c->base_dim > 64)
      refuse (&s, "tensor %s: expected up to 64 times the last level's %d channels, found %d", conv, c->base_dim, channels[i]);
  }
  /* What its blocks add to their outputs goes together for these */
  if (!s.failed && c->residual && (c->levels != 4 || memcmp (c->dim_mult, (const int[]) { 1, 2, 4, 4 }, 4 * sizeof (int)) != 0))
    refuse (&s, "expected a decoder of four levels with 4, 4, 2 and 1 times the last one's channels, as Wan2.2-TI2V-5B has, found another");
  c->spatial_scale = c->patch << (MAX (c->levels, 1) - 1);
  if (!s.failed && !dp_published_latents (c))
    refuse (&s, "expected a VAE of 16 or 48 latent channels, whose mean and standard deviation are known, found %d; give the VAE as a "
        "directory in diffusers layout, which has a config.json with them", c->z_dim);
  return !s.failed;
}

gboolean
dp_shapes_text_encoder (DpTextConfig *c, const DpWeights *weights, GError **error)
{
  static const char bias[] = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
  Shapes s = { weights, error, FALSE };
  const char *tokens = dp_weights_find (weights, "shared.weight") ? "shared.weight" : "encoder.embed_tokens.weight";
  int inner = size_of (&s, "encoder.block.0.layer.0.SelfAttention.q.weight", 2, 0, MAX_HIDDEN);

  *c = (DpTextConfig) {
    .layers = count (&s, "encoder.block.", ".layer.0.layer_norm.weight", MAX_LAYERS), .d_model = size_of (&s, tokens, 2, 1, MAX_WIDTH),
    .d_ff = size_of (&s, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 2, 0, MAX_HIDDEN),
    .heads = size_of (&s, bias, 2, 1, 1024), .vocab = size_of (&s, tokens, 2, 0, 1 << 20), .buckets = size_of (&s, bias, 2, 0, 1024),
    .max_distance = 128, .eps = 1e-6 };
  c->d_kv = inner / c->heads;
  if (c->layers < 1 || c->layers > MAX_LAYERS || inner % c->heads || c->d_kv < 1 || c->d_kv > 1024 || inner > MAX_WIDTH || c->vocab < 3
      || c->buckets % 4 || c->buckets / 4 >= c->max_distance)
    refuse (&s, "expected 1 to %d layers, 3 tokens or more, queries of at most %d features in heads of 1 to 1024, and a multiple of 4 "
        "buckets below 512, found %d layers, %d tokens, %d features in %d heads, and %d buckets", MAX_LAYERS, MAX_WIDTH, c->layers, c->vocab,
        inner, c->heads, c->buckets);
  return !s.failed;
}
