/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Legend: t frames, h x w pixels of the current level, c channels; activations are [t, h, w, c].
 *
 * Work buffers serve every level: X holds the residual stream, Y what X becomes, N the input of a convolution with two frames of the
 * past in front, B what lies between the two convolutions of a residual block, S the input of an up block that adds it to its output.
 * Only the past is kept per convolution.
 */
#include "vae.h"
#include "arena.h"
#include "device_error.h"

#include <math.h>
#include <string.h>

#define PAST 2                  /* frames a kernel of 3 looks back */

/* A convolution over three frames, and the last two frames it has seen. */
typedef struct
{
  DpConv *conv;
  int ci, co;
  int h, w;
  void *past;                   /* [PAST, h, w, ci] */
} CausalConv;

typedef struct
{
  int ci, co;
  float *norm1, *norm2;         /* gamma [ci], [co] */
  CausalConv conv1, conv2;
  DpConv *shortcut;             /* ci -> co, NULL where they are equal */
} ResBlock;

typedef struct
{
  int n_res;
  ResBlock *res;
  gboolean up, temporal;
  CausalConv time_conv;         /* 3x1x1, c -> 2c */
  DpConv *resample;             /* 1x3x3, c -> c/2, or c -> c in a residual block, after x2 in space */
} UpBlock;

struct _DpVae
{
  DpDevice *dev;
  const DpOps *ops;
  DpVaeConfig config;
  DpType type;
  int latent_h, latent_w;
  int at_once;                  /* most latents of a call */
  gboolean first;               /* the next latent is the first of its stream */

  DpConv *post_quant;           /* 1x1x1 in float32; takes normalised latents */
  CausalConv conv_in;
  ResBlock mid[2];
  float *attn_norm;
  DpConv *attn_qkv, *attn_proj;
  UpBlock up[DP_VAE_MAX_LEVELS];
  float *norm_out;
  CausalConv conv_out;

  DpArena past;                 /* what is carried from latent to latent */
  DpArena params;
  DpArena work;
  void *X, *Y, *N, *B, *S;
  gsize x_size, y_size, n_size, b_size, s_size; /* elements */

  /* while decoding: the shape of X */
  int t, h, w;
};

/* ---- loading ---- */

typedef struct
{
  DpVae *vae;
  const DpWeights *weights;
  GError **error;
  gboolean failed;
  gboolean upload;              /* FALSE: only lays out the arenas and adds up the convolutions */
  gsize conv_bytes;
} Loader;

static DpConv *
load_conv (Loader *l, int kt, int k, int ci, int co, const char *name, gboolean two_d)
{
  DpVae *v = l->vae;
  g_autofree char *weight = g_strconcat ("decoder.", name, ".weight", NULL);
  g_autofree char *bias = g_strconcat ("decoder.", name, ".bias", NULL);
  const DpTensor *tw, *tb;

  if (!l->upload)
    l->conv_bytes += dp_type_size (v->type) * kt * k * k * ci * co;
  if (l->failed || !l->upload)
    return NULL;
  tw = two_d ? dp_weights_get (l->weights, l->error, 4, (gint64[]) { co, ci, k, k }, "%s", weight)
      : dp_weights_get (l->weights, l->error, 5, (gint64[]) { co, ci, kt, k, k }, "%s", weight);
  tb = tw ? dp_weights_get (l->weights, l->error, 1, (gint64[]) { co }, "%s", bias) : NULL;
  if (tb == NULL) {
    l->failed = TRUE;
    return NULL;
  }
  DpConv *conv = v->ops->conv_new (v->dev, &(DpConvSpec) { .ci = ci, .co = co, .kt = kt, .kh = k, .kw = k, .type = v->type,
      .weight = dp_tensor_weight (tw, co), .bias = dp_tensor_weight (tb, co) });
  if (conv == NULL) {
    if (dp_weights_check_finite (l->weights, tw, l->error) && dp_weights_check_finite (l->weights, tb, l->error))
      dp_error_no_room (v->dev, l->error, (gsize) co * ci * kt * k * k * dp_type_size (v->type), "use another device for the last stage",
          "the decoder's %s", name);
    l->failed = TRUE;
  }
  return conv;
}

static void
take_gamma (Loader *l, float **gamma, int channels, int n_dims, const char *name)
{
  DpVae *v = l->vae;

  if (!l->upload) {
    *gamma = dp_arena_take (&v->params, sizeof (float) * channels);
    return;
  }
  g_autofree char *full = g_strconcat ("decoder.", name, NULL);
  const gint64 dims[4] = { channels, 1, 1, 1 };
  const DpTensor *t = l->failed ? NULL : dp_weights_get (l->weights, l->error, n_dims, dims, "%s", full);
  g_autofree float *host = g_new (float, channels);
  if (t == NULL || !dp_weights_read_finite (l->weights, t, host, l->error)) {
    l->failed = TRUE;
    return;
  }
  v->ops->upload (v->dev, *gamma, host, sizeof (float) * channels);
}

/* Grows the work buffers to what this convolution's input and output need at the level's size and frames. */
static void
make_room (DpVae *v, int t, int h, int w, int ci, int co)
{
  gsize pixels = (gsize) h * w;

  v->n_size = MAX (v->n_size, (t + PAST) * pixels * ci);
  v->x_size = MAX (v->x_size, t * pixels * MAX (ci, co));
  v->y_size = MAX (v->y_size, t * pixels * MAX (ci, co));
  v->b_size = MAX (v->b_size, t * pixels * co);
}

static void
setup_causal (Loader *l, CausalConv *c, int t, int h, int w, int k, int ci, int co, const char *name)
{
  DpVae *v = l->vae;

  c->conv = load_conv (l, 3, k, ci, co, name, FALSE);
  if (l->upload)
    return;
  c->ci = ci;
  c->co = co;
  c->h = h;
  c->w = w;
  c->past = dp_arena_take (&v->past, dp_type_size (v->type) * PAST * h * w * ci);
  make_room (v, t, h, w, ci, co);
}

static void
setup_res (Loader *l, ResBlock *r, int t, int h, int w, int ci, int co, const char *prefix)
{
  g_autofree char *norm1 = g_strconcat (prefix, ".norm1.gamma", NULL), *norm2 = g_strconcat (prefix, ".norm2.gamma", NULL);
  g_autofree char *conv1 = g_strconcat (prefix, ".conv1", NULL), *conv2 = g_strconcat (prefix, ".conv2", NULL);
  g_autofree char *shortcut = g_strconcat (prefix, ".conv_shortcut", NULL);

  r->ci = ci;
  r->co = co;
  take_gamma (l, &r->norm1, ci, 4, norm1);
  take_gamma (l, &r->norm2, co, 4, norm2);
  setup_causal (l, &r->conv1, t, h, w, 3, ci, co, conv1);
  setup_causal (l, &r->conv2, t, h, w, 3, co, co, conv2);
  if (ci != co)
    r->shortcut = load_conv (l, 1, 1, ci, co, shortcut, FALSE);
}

/* Channels that an up block hands on. */
static int
up_out (const DpVaeConfig *c, const UpBlock *u, int co)
{
  return u->up && !c->residual ? co / 2 : co;
}

static void
setup_up (Loader *l, UpBlock *u, int index, int *t, int *h, int *w, int ci, int co)
{
  DpVae *v = l->vae;

  u->n_res = v->config.res_blocks + 1;
  u->up = index < v->config.levels - 1;
  u->temporal = u->up && v->config.temporal_upsample[index];
  if (u->res == NULL)
    u->res = g_new0 (ResBlock, u->n_res);
  for (int i = 0; i < u->n_res; i++) {
    g_autofree char *prefix = g_strdup_printf ("up_blocks.%d.resnets.%d", index, i);
    setup_res (l, &u->res[i], *t, *h, *w, i == 0 ? ci : co, co, prefix);
  }
  if (!u->up)
    return;
  const char *upsampler = v->config.residual ? "upsampler" : "upsamplers.0";
  g_autofree char *time_conv = g_strdup_printf ("up_blocks.%d.%s.time_conv", index, upsampler);
  g_autofree char *resample = g_strdup_printf ("up_blocks.%d.%s.resample.1", index, upsampler);
  if (v->config.residual)
    v->s_size = MAX (v->s_size, (gsize) *t * *h * *w * ci);
  if (u->temporal)
    setup_causal (l, &u->time_conv, *t, *h, *w, 1, co, 2 * co, time_conv);
  *t *= u->temporal ? 2 : 1;
  *h *= 2;
  *w *= 2;
  u->resample = load_conv (l, 1, 3, co, up_out (&v->config, u, co), resample, TRUE);
  v->y_size = MAX (v->y_size, (gsize) *t * *h * *w * co);
}

/* The model's shape, walked twice: once to lay out memory, once to load into it. */
static void
setup (Loader *l)
{
  DpVae *v = l->vae;
  const DpVaeConfig *c = &v->config;
  int t = v->at_once, h = v->latent_h, w = v->latent_w, top = c->base_dim * c->dim_mult[c->levels - 1], ci = top;

  setup_causal (l, &v->conv_in, t, h, w, 3, c->z_dim, top, "conv_in");
  setup_res (l, &v->mid[0], t, h, w, top, top, "mid_block.resnets.0");
  take_gamma (l, &v->attn_norm, top, 3, "mid_block.attentions.0.norm.gamma");
  v->attn_qkv = load_conv (l, 1, 1, top, 3 * top, "mid_block.attentions.0.to_qkv", TRUE);
  v->attn_proj = load_conv (l, 1, 1, top, top, "mid_block.attentions.0.proj", TRUE);
  v->b_size = MAX (v->b_size, (gsize) t * h * w * 3 * top);
  setup_res (l, &v->mid[1], t, h, w, top, top, "mid_block.resnets.1");
  for (int i = 0; i < c->levels; i++) {
    int co = c->base_dim * c->dim_mult[c->levels - 1 - i];
    setup_up (l, &v->up[i], i, &t, &h, &w, ci, co);
    ci = up_out (c, &v->up[i], co);
  }
  take_gamma (l, &v->norm_out, ci, 4, "norm_out.gamma");
  setup_causal (l, &v->conv_out, t, h, w, 3, ci, c->out_channels, "conv_out");
}

/* z = latent * std + mean comes first in the reference; it is folded into the 1x1x1 convolution that follows. */
static void
load_post_quant (Loader *l)
{
  DpVae *v = l->vae;
  int z = v->config.z_dim;
  const DpTensor *tw, *tb;

  if (l->failed)
    return;
  tw = dp_weights_get (l->weights, l->error, 5, (gint64[]) { z, z, 1, 1, 1 }, "post_quant_conv.weight");
  tb = tw ? dp_weights_get (l->weights, l->error, 1, (gint64[]) { z }, "post_quant_conv.bias") : NULL;
  g_autofree float *w = g_new (float, (gsize) z * z), *b = g_new (float, z);
  if (tb == NULL || !dp_weights_read_finite (l->weights, tw, w, l->error) || !dp_weights_read_finite (l->weights, tb, b, l->error)) {
    l->failed = TRUE;
    return;
  }
  for (int o = 0; o < z; o++) {
    double shift = b[o];
    for (int i = 0; i < z; i++) {
      shift += (double) w[o * z + i] * v->config.mean[i];
      w[o * z + i] *= v->config.std[i];
    }
    b[o] = (float) shift;
  }
  v->post_quant = v->ops->conv_new (v->dev, &(DpConvSpec) { .ci = z, .co = z, .kt = 1, .kh = 1, .kw = 1, .type = DP_TYPE_F32,
      .weight = { w, DP_TYPE_F32, z }, .bias = { b, DP_TYPE_F32, z } });
  if (v->post_quant == NULL) {
    dp_error_no_room (v->dev, l->error, sizeof (float) * z * z, "use another device for the last stage", "the decoder's post_quant_conv");
    l->failed = TRUE;
  }
}

static void
layout_work (DpVae *v)
{
  gsize e = dp_type_size (v->type);

  v->X = dp_arena_take (&v->work, e * v->x_size);
  v->Y = dp_arena_take (&v->work, e * v->y_size);
  v->N = dp_arena_take (&v->work, e * v->n_size);
  v->B = dp_arena_take (&v->work, e * v->b_size);
  v->S = dp_arena_take (&v->work, e * v->s_size);
}

/* Runs setup() over fresh arenas. */
static void
measure (Loader *l)
{
  DpVae *v = l->vae;

  setup (l);
  /* X and Y change places as the stream passes through; post_quant writes float32 into B */
  v->x_size = v->y_size = MAX (v->x_size, v->y_size);
  v->b_size = MAX (v->b_size, (gsize) v->at_once * v->latent_h * v->latent_w * v->config.z_dim * 2);
  layout_work (v);
}

gsize
dp_vae_bytes (const DpVaeConfig *config, DpType type, int latent_h, int latent_w, int at_once)
{
  g_autofree DpVae *v = g_new0 (DpVae, 1);
  Loader l = { .vae = v };

  *v = (DpVae) { .config = *config, .type = type, .latent_h = latent_h, .latent_w = latent_w, .at_once = at_once };
  measure (&l);
  for (int i = 0; i < config->levels; i++)
    g_free (v->up[i].res);
  return v->past.used + v->params.used + v->work.used + l.conv_bytes;
}

DpVae *
dp_vae_new (DpDevice *dev, const DpVaeConfig *config, const DpWeights *weights, DpType type, int latent_h, int latent_w, int at_once,
    GError **error)
{
  DpVae *v = g_new0 (DpVae, 1);
  Loader l = { .vae = v, .weights = weights, .error = error };

  *v = (DpVae) { .dev = dev, .ops = dev->ops, .config = *config, .type = type, .latent_h = latent_h, .latent_w = latent_w,
      .at_once = at_once };
  measure (&l);
  if (!dp_arena_allocate (&v->past, dev, "the decoder's past frames", error)
      || !dp_arena_allocate (&v->params, dev, "the decoder's norms", error)
      || !dp_arena_allocate (&v->work, dev, "the decoder's working memory", error))
    goto fail;
  layout_work (v);
  setup (&l);                   /* again: hands out memory */
  l.upload = TRUE;
  load_post_quant (&l);
  setup (&l);
  if (l.failed)
    goto fail;
  dp_vae_reset (v);
  if (!dp_error_check_device (dev, error, "while the decoder was loaded") || !dp_weights_check_unchanged (weights, error))
    goto fail;
  return v;

fail:
  dp_vae_free (v);
  return NULL;
}

static void
free_res (DpVae *v, ResBlock *r)
{
  v->ops->conv_free (v->dev, r->conv1.conv);
  v->ops->conv_free (v->dev, r->conv2.conv);
  v->ops->conv_free (v->dev, r->shortcut);
}

void
dp_vae_free (DpVae *v)
{
  if (v == NULL)
    return;
  DpConv *all[] = { v->post_quant, v->conv_in.conv, v->attn_qkv, v->attn_proj, v->conv_out.conv };
  for (guint i = 0; i < G_N_ELEMENTS (all); i++)
    v->ops->conv_free (v->dev, all[i]);
  free_res (v, &v->mid[0]);
  free_res (v, &v->mid[1]);
  for (int i = 0; i < v->config.levels; i++) {
    for (int j = 0; j < v->up[i].n_res; j++)
      free_res (v, &v->up[i].res[j]);
    v->ops->conv_free (v->dev, v->up[i].time_conv.conv);
    v->ops->conv_free (v->dev, v->up[i].resample);
    g_free (v->up[i].res);
  }
  dp_arena_free (&v->past);
  dp_arena_free (&v->params);
  dp_arena_free (&v->work);
  g_free (v);
}

DpType
dp_vae_type (const DpVae *v)
{
  return v->type;
}

void
dp_vae_reset (DpVae *v)
{
  v->first = TRUE;
  v->ops->fill (v->dev, v->past.memory, 0, v->past.size);
}

/* ---- decoding ---- */

static void *
frame_at (const DpVae *v, void *buffer, int frame, int channels)
{
  return (char *) buffer + dp_type_size (v->type) * frame * v->h * v->w * channels;
}

static void
swap_xy (DpVae *v)
{
  void *x = v->X;

  v->X = v->Y;
  v->Y = x;
}

/* N = [past | what the caller put behind it]; y = conv (N) + add; the past moves on by t frames. */
static void
run_causal (DpVae *v, CausalConv *c, const void *add, void *y)
{
  gsize frame = dp_type_size (v->type) * v->h * v->w * c->ci;

  v->ops->copy (v->dev, v->N, c->past, PAST * frame);
  v->ops->conv (v->dev, c->conv, &(DpConvArgs) { .t = v->t + PAST, .h = v->h, .w = v->w, .x = v->N, .add = add, .y = y });
  v->ops->copy (v->dev, c->past, (char *) v->N + v->t * frame, PAST * frame);
}

static void
norm_silu (DpVae *v, const void *x, const float *gamma, int channels)
{
  v->ops->channel_norm (v->dev, &(DpChannelNormArgs) { .type = v->type, .rows = v->t * v->h * v->w, .channels = channels, .x = x,
      .gamma = gamma, .act = DP_ACT_SILU, .y = frame_at (v, v->N, PAST, channels) });
}

static void
run_res (DpVae *v, ResBlock *r)
{
  norm_silu (v, v->X, r->norm1, r->ci);
  run_causal (v, &r->conv1, NULL, v->B);
  norm_silu (v, v->B, r->norm2, r->co);
  if (r->shortcut) {
    v->ops->conv (v->dev, r->shortcut, &(DpConvArgs) { .t = v->t, .h = v->h, .w = v->w, .x = v->X, .y = v->Y });
    swap_xy (v);
  }
  run_causal (v, &r->conv2, v->X, v->X);
}

/* One head over all pixels of a frame. */
static void
run_attention (DpVae *v)
{
  int c = v->mid[0].co, pixels = v->h * v->w;
  gsize e = dp_type_size (v->type);

  v->ops->channel_norm (v->dev, &(DpChannelNormArgs) { .type = v->type, .rows = v->t * pixels, .channels = c, .x = v->X,
      .gamma = v->attn_norm, .y = v->Y });
  v->ops->conv (v->dev, v->attn_qkv, &(DpConvArgs) { .t = v->t, .h = v->h, .w = v->w, .x = v->Y, .y = v->B });
  for (int i = 0; i < v->t; i++) {
    char *qkv = frame_at (v, v->B, i, 3 * c);

    v->ops->attention (v->dev, &(DpAttentionArgs) { .type = v->type, .heads = 1, .head_dim = c, .q_len = pixels, .kv_len = pixels,
        .q = qkv, .k = qkv + e * c, .v = qkv + e * 2 * c, .q_stride = 3 * c, .k_stride = 3 * c, .v_stride = 3 * c,
        .out = frame_at (v, v->Y, i, c), .scale = 1 / sqrtf (c) });
  }
  v->ops->conv (v->dev, v->attn_proj, &(DpConvArgs) { .t = v->t, .h = v->h, .w = v->w, .x = v->Y, .add = v->X, .y = v->X });
}

static void
run_up (DpVae *v, UpBlock *u)
{
  int c = u->res[0].co;
  gboolean temporal = u->temporal && !v->first; /* the first latent is one frame, and the time convolution never sees it */
  gboolean residual = u->up && v->config.residual;

  if (residual)
    v->ops->copy (v->dev, v->S, v->X, dp_type_size (v->type) * v->t * v->h * v->w * u->res[0].ci);
  for (int i = 0; i < u->n_res; i++)
    run_res (v, &u->res[i]);
  if (!u->up)
    return;
  if (temporal) {
    v->ops->copy (v->dev, frame_at (v, v->N, PAST, c), v->X, dp_type_size (v->type) * v->t * v->h * v->w * c);
    run_causal (v, &u->time_conv, NULL, v->B);
  }
  v->ops->upsample (v->dev, &(DpUpsampleArgs) { .type = v->type, .t = v->t, .h = v->h, .w = v->w, .channels = c, .temporal = temporal,
      .x = temporal ? v->B : v->X, .y = v->Y });
  if (residual)                 /* of the first latent, which becomes one frame, the last one is taken */
    v->ops->pixel_shuffle (v->dev, &(DpPixelShuffleArgs) { .type = v->type, .t = v->t, .h = v->h, .w = v->w, .ci = u->res[0].ci, .co = c,
        .frames = u->temporal ? 2 : 1, .skip = u->temporal && v->first, .x = v->S, .y = v->X });
  v->t *= temporal ? 2 : 1;
  v->h *= 2;
  v->w *= 2;
  v->ops->conv (v->dev, u->resample, &(DpConvArgs) { .t = v->t, .h = v->h, .w = v->w, .x = v->Y, .add = residual ? v->X : NULL,
      .y = v->X });
}

int
dp_vae_takes (const DpVae *v)
{
  return v->first ? 1 : v->at_once;
}

int
dp_vae_decode (DpVae *v, const float *latents, int n, const void **frames)
{
  int z = v->config.z_dim;

  g_assert (n >= 1 && n <= dp_vae_takes (v));
  v->t = n;
  v->h = v->latent_h;
  v->w = v->latent_w;
  v->ops->conv (v->dev, v->post_quant, &(DpConvArgs) { .t = n, .h = v->h, .w = v->w, .x = latents, .y = v->B });
  v->ops->convert (v->dev, (gsize) n * v->h * v->w * z, DP_TYPE_F32, v->B, v->type, frame_at (v, v->N, PAST, z));
  run_causal (v, &v->conv_in, NULL, v->X);
  run_res (v, &v->mid[0]);
  run_attention (v);
  run_res (v, &v->mid[1]);
  for (int i = 0; i < v->config.levels; i++)
    run_up (v, &v->up[i]);
  norm_silu (v, v->X, v->norm_out, v->conv_out.ci);
  run_causal (v, &v->conv_out, NULL, v->Y);
  if (v->config.patch == 2)     /* a patch is stored by columns */
    v->ops->pixel_shuffle (v->dev, &(DpPixelShuffleArgs) { .type = v->type, .t = v->t, .h = v->h, .w = v->w, .ci = v->config.out_channels,
        .co = 3, .frames = 1, .transposed = true, .x = v->Y, .y = v->X });
  v->first = FALSE;
  *frames = v->config.patch == 2 ? v->X : v->Y;
  return v->t;
}
