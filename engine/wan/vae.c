/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Legend: t frames, h x w pixels of the current level, c channels; activations are [t, h, w, c].
 */
#include "vae.h"
#include "device_error.h"
#include "vae_net.h"

typedef struct
{
  int n_res;
  DpResBlock *res;
  gboolean up, temporal;
  DpCausalConv time_conv;       /* 3x1x1, c -> 2c */
  DpConv *resample;             /* 1x3x3, c -> c/2, or c -> c in a residual block, after x2 in space */
} UpBlock;

struct _DpVae
{
  DpVaeNet net;
  int latent_h, latent_w;
  int at_once;                  /* most latents of a call */
  gboolean first;               /* the next latent is the first of its stream */

  DpConv *post_quant;           /* 1x1x1 in float32; takes normalised latents */
  DpCausalConv conv_in;
  DpVaeMid mid;
  UpBlock up[DP_VAE_MAX_LEVELS];
  float *norm_out;
  DpCausalConv conv_out;
};

/* ---- loading ---- */

/* Channels that an up block hands on. */
static int
up_out (const DpVaeConfig *c, const UpBlock *u, int co)
{
  return u->up && !c->residual ? co / 2 : co;
}

static void
setup_up (DpVaeLoader *l, UpBlock *u, int index, int *t, int *h, int *w, int ci, int co)
{
  DpVaeNet *v = l->net;

  u->n_res = v->config.res_blocks + 1;
  u->up = index < v->config.levels - 1;
  u->temporal = u->up && v->config.temporal_upsample[index];
  if (u->res == NULL)
    u->res = g_new0 (DpResBlock, u->n_res);
  for (int i = 0; i < u->n_res; i++) {
    g_autofree char *prefix = g_strdup_printf ("up_blocks.%d.resnets.%d", index, i);
    dp_vae_load_res (l, &u->res[i], *t, *h, *w, i == 0 ? ci : co, co, prefix);
  }
  if (!u->up)
    return;
  const char *upsampler = v->config.residual ? "upsampler" : "upsamplers.0";
  g_autofree char *time_conv = g_strdup_printf ("up_blocks.%d.%s.time_conv", index, upsampler);
  g_autofree char *resample = g_strdup_printf ("up_blocks.%d.%s.resample.1", index, upsampler);
  if (v->config.residual)
    v->s_size = MAX (v->s_size, (gsize) *t * *h * *w * ci);
  if (u->temporal)
    dp_vae_load_causal (l, &u->time_conv, *t, *h, *w, 1, co, 2 * co, time_conv);
  *t *= u->temporal ? 2 : 1;
  *h *= 2;
  *w *= 2;
  u->resample = dp_vae_load_conv (l, 1, 3, co, up_out (&v->config, u, co), resample, TRUE);
  v->y_size = MAX (v->y_size, (gsize) *t * *h * *w * co);
}

/* The model's shape, walked twice: once to lay out memory, once to load into it. */
static void
setup (DpVaeLoader *l, DpVae *v)
{
  const DpVaeConfig *c = &v->net.config;
  int t = v->at_once, h = v->latent_h, w = v->latent_w, top = c->base_dim * c->dim_mult[c->levels - 1], ci = top;

  dp_vae_load_causal (l, &v->conv_in, t, h, w, 3, c->z_dim, top, "conv_in");
  dp_vae_load_mid (l, &v->mid, t, h, w, top);
  for (int i = 0; i < c->levels; i++) {
    int co = c->base_dim * c->dim_mult[c->levels - 1 - i];
    setup_up (l, &v->up[i], i, &t, &h, &w, ci, co);
    ci = up_out (c, &v->up[i], co);
  }
  dp_vae_load_gamma (l, &v->norm_out, ci, 4, "norm_out.gamma");
  dp_vae_load_causal (l, &v->conv_out, t, h, w, 3, ci, c->out_channels, "conv_out");
}

/* z = latent * std + mean comes first in the reference; it is folded into the 1x1x1 convolution that follows. */
static void
load_post_quant (DpVaeLoader *l, DpVae *v)
{
  const DpVaeConfig *c = &v->net.config;
  int z = c->z_dim;
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
      shift += (double) w[o * z + i] * c->mean[i];
      w[o * z + i] *= c->std[i];
    }
    b[o] = (float) shift;
  }
  v->post_quant = dp_vae_load_mixing (l, z, z, w, b, "post_quant_conv");
}

/* Runs setup() over fresh arenas. */
static void
measure (DpVaeLoader *l, DpVae *v)
{
  setup (l, v);
  /* post_quant writes float32 into B */
  v->net.b_size = MAX (v->net.b_size, (gsize) v->at_once * v->latent_h * v->latent_w * v->net.config.z_dim * 2);
  dp_vae_net_measured (&v->net);
}

gsize
dp_vae_bytes (const DpVaeConfig *config, DpType type, int latent_h, int latent_w, int at_once)
{
  g_autofree DpVae *v = g_new0 (DpVae, 1);
  DpVaeLoader l = { .net = &v->net };

  *v = (DpVae) { .net = { .config = *config, .type = type }, .latent_h = latent_h, .latent_w = latent_w, .at_once = at_once };
  measure (&l, v);
  for (int i = 0; i < config->levels; i++)
    g_free (v->up[i].res);
  return v->net.past.used + v->net.params.used + v->net.work.used + l.conv_bytes;
}

DpVae *
dp_vae_new (DpDevice *dev, const DpVaeConfig *config, const DpWeights *weights, DpType type, int latent_h, int latent_w, int at_once,
    GError **error)
{
  DpVae *v = g_new0 (DpVae, 1);
  DpVaeLoader l = { .net = &v->net, .weights = weights, .error = error };

  *v = (DpVae) { .net = { .part = "decoder", .advice = "use another device for the last stage", .dev = dev, .ops = dev->ops,
      .config = *config, .type = type }, .latent_h = latent_h, .latent_w = latent_w, .at_once = at_once };
  measure (&l, v);
  if (!dp_vae_net_allocate (&v->net, error))
    goto fail;
  setup (&l, v);                /* again: hands out memory */
  l.upload = TRUE;
  load_post_quant (&l, v);
  setup (&l, v);
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

void
dp_vae_free (DpVae *v)
{
  if (v == NULL)
    return;
  DpVaeNet *net = &v->net;
  DpConv *all[] = { v->post_quant, v->conv_in.conv, v->conv_out.conv };
  for (guint i = 0; i < G_N_ELEMENTS (all); i++)
    net->ops->conv_free (net->dev, all[i]);
  dp_vae_free_mid (net, &v->mid);
  for (int i = 0; i < net->config.levels; i++) {
    for (int j = 0; j < v->up[i].n_res; j++)
      dp_vae_free_res (net, &v->up[i].res[j]);
    net->ops->conv_free (net->dev, v->up[i].time_conv.conv);
    net->ops->conv_free (net->dev, v->up[i].resample);
    g_free (v->up[i].res);
  }
  dp_vae_net_free (net);
  g_free (v);
}

DpType
dp_vae_type (const DpVae *v)
{
  return v->net.type;
}

void
dp_vae_reset (DpVae *v)
{
  v->first = TRUE;
  dp_vae_net_reset (&v->net);
}

/* ---- decoding ---- */

static void
run_up (DpVaeNet *v, UpBlock *u, gboolean first)
{
  int c = u->res[0].co;
  gboolean temporal = u->temporal && !first;    /* the first latent is one frame, and the time convolution never sees it */
  gboolean residual = u->up && v->config.residual;

  if (residual)
    v->ops->copy (v->dev, v->S, v->X, dp_type_size (v->type) * v->t * v->h * v->w * u->res[0].ci);
  for (int i = 0; i < u->n_res; i++)
    dp_vae_run_res (v, &u->res[i]);
  if (!u->up)
    return;
  if (temporal) {
    v->ops->copy (v->dev, dp_vae_frame_at (v, v->N, DP_VAE_PAST, c), v->X, dp_type_size (v->type) * v->t * v->h * v->w * c);
    dp_vae_run_causal (v, &u->time_conv, NULL, v->B);
  }
  v->ops->upsample (v->dev, &(DpUpsampleArgs) { .type = v->type, .t = v->t, .h = v->h, .w = v->w, .channels = c, .temporal = temporal,
      .x = temporal ? v->B : v->X, .y = v->Y });
  if (residual)                 /* of the first latent, which becomes one frame, the last one is taken */
    v->ops->pixel_shuffle (v->dev, &(DpPixelShuffleArgs) { .type = v->type, .t = v->t, .h = v->h, .w = v->w, .ci = u->res[0].ci, .co = c,
        .frames = u->temporal ? 2 : 1, .skip = u->temporal && first, .x = v->S, .y = v->X });
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
dp_vae_decode (DpVae *vae, const float *latents, int n, const void **frames)
{
  DpVaeNet *v = &vae->net;
  int z = v->config.z_dim;

  g_assert (n >= 1 && n <= dp_vae_takes (vae));
  v->t = n;
  v->h = vae->latent_h;
  v->w = vae->latent_w;
  v->ops->conv (v->dev, vae->post_quant, &(DpConvArgs) { .t = n, .h = v->h, .w = v->w, .x = latents, .y = v->B });
  v->ops->convert (v->dev, (gsize) n * v->h * v->w * z, DP_TYPE_F32, v->B, v->type, dp_vae_frame_at (v, v->N, DP_VAE_PAST, z));
  dp_vae_run_causal (v, &vae->conv_in, NULL, v->X);
  dp_vae_run_mid (v, &vae->mid);
  for (int i = 0; i < v->config.levels; i++)
    run_up (v, &vae->up[i], vae->first);
  dp_vae_run_norm_silu (v, v->X, vae->norm_out, vae->conv_out.ci);
  dp_vae_run_causal (v, &vae->conv_out, NULL, v->Y);
  if (v->config.patch == 2)     /* a patch is stored by columns */
    v->ops->pixel_shuffle (v->dev, &(DpPixelShuffleArgs) { .type = v->type, .t = v->t, .h = v->h, .w = v->w, .ci = v->config.out_channels,
        .co = 3, .frames = 1, .transposed = true, .x = v->Y, .y = v->X });
  vae->first = FALSE;
  *frames = v->config.patch == 2 ? v->X : v->Y;
  return v->t;
}
