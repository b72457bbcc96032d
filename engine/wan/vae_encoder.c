/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Legend: t frames, h x w pixels of the current level, c channels; activations are [t, h, w, c] float32.
 *
 * A convolution of stride 2 is one of stride 1 of which every second result is kept: the ops have no other, these are less
 * than a tenth of all products, and the encoder runs once.
 */
#include "vae_encoder.h"
#include "device_error.h"
#include "vae_net.h"

#include <string.h>

typedef struct
{
  int ci, co;
  DpResBlock *res;
  gboolean down, temporal;
  DpConv *resample;             /* 1x3x3, then half the height and width */
  DpCausalConv time_conv;       /* 3x1x1, then half the frames */
} DownBlock;

struct _DpVaeEncoder
{
  DpVaeNet net;
  int latent_h, latent_w;
  int most_frames;              /* of a call */
  gboolean first;               /* the next latent is the first of its stream */

  DpCausalConv conv_in;
  DownBlock down[DP_VAE_MAX_LEVELS];
  DpVaeMid mid;
  float *norm_out;
  DpCausalConv conv_out;
  DpConv *quant;                /* 1x1x1; gives normalised latents */
};

/* ---- loading ---- */

static void
setup_down (DpVaeLoader *l, DownBlock *d, int index, int *part, int *t, int *h, int *w, int ci, int co)
{
  DpVaeNet *v = l->net;
  const DpVaeConfig *c = &v->config;

  d->ci = ci;
  d->co = co;
  d->down = index < c->levels - 1;
  d->temporal = d->down && c->temporal_upsample[c->levels - 2 - index];
  if (d->res == NULL)
    d->res = g_new0 (DpResBlock, c->res_blocks);
  if (c->residual)
    v->s_size = MAX (v->s_size, (gsize) *t * *h * *w * ci);
  for (int i = 0; i < c->res_blocks; i++) {
    g_autofree char *prefix = c->residual ? g_strdup_printf ("down_blocks.%d.resnets.%d", index, i) :
        g_strdup_printf ("down_blocks.%d", (*part)++);
    dp_vae_load_res (l, &d->res[i], *t, *h, *w, i == 0 ? ci : co, co, prefix);
  }
  if (!d->down)
    return;
  g_autofree char *prefix = c->residual ? g_strdup_printf ("down_blocks.%d.downsampler", index) :
      g_strdup_printf ("down_blocks.%d", (*part)++);
  g_autofree char *resample = g_strconcat (prefix, ".resample.1", NULL), *time_conv = g_strconcat (prefix, ".time_conv", NULL);
  d->resample = dp_vae_load_conv (l, 1, 3, co, co, resample, TRUE);
  *h /= 2;
  *w /= 2;
  if (d->temporal) {
    dp_vae_load_causal (l, &d->time_conv, *t, *h, *w, 1, co, co, time_conv);
    *t = (*t + 1) / 2;
  }
}

/* The model's shape, walked twice: once to lay out memory, once to load into it. */
static void
setup (DpVaeLoader *l, DpVaeEncoder *e)
{
  const DpVaeConfig *c = &e->net.config;
  int t = e->most_frames, h = e->latent_h, w = e->latent_w, ci = c->encoder_base_dim, part = 0;

  for (int i = 0; i < c->levels - 1; i++) {
    h *= 2;
    w *= 2;
  }
  dp_vae_load_causal (l, &e->conv_in, t, h, w, 3, c->out_channels, ci, "conv_in");
  for (int i = 0; i < c->levels; i++) {
    int co = c->encoder_base_dim * c->dim_mult[i];
    setup_down (l, &e->down[i], i, &part, &t, &h, &w, ci, co);
    ci = co;
  }
  dp_vae_load_mid (l, &e->mid, t, h, w, ci);
  dp_vae_load_gamma (l, &e->norm_out, ci, 4, "norm_out.gamma");
  dp_vae_load_causal (l, &e->conv_out, t, h, w, 3, ci, 2 * c->z_dim, "conv_out");
}

/* Of mean and logarithm of the variance only the mean is used; the reference normalises it, which is folded in. */
static void
load_quant (DpVaeLoader *l, DpVaeEncoder *e)
{
  const DpVaeConfig *c = &e->net.config;
  int z = c->z_dim;
  const DpTensor *tw, *tb;

  if (l->failed)
    return;
  tw = dp_weights_get (l->weights, l->error, 5, (gint64[]) { 2 * z, 2 * z, 1, 1, 1 }, "quant_conv.weight");
  tb = tw ? dp_weights_get (l->weights, l->error, 1, (gint64[]) { 2 * z }, "quant_conv.bias") : NULL;
  g_autofree float *w = g_new (float, (gsize) 4 * z * z), *b = g_new (float, 2 * z);
  if (tb == NULL || !dp_weights_read_finite (l->weights, tw, w, l->error) || !dp_weights_read_finite (l->weights, tb, b, l->error)) {
    l->failed = TRUE;
    return;
  }
  for (int o = 0; o < z; o++) {
    b[o] = (b[o] - c->mean[o]) / c->std[o];
    for (int i = 0; i < 2 * z; i++)
      w[o * 2 * z + i] /= c->std[o];
  }
  e->quant = dp_vae_load_mixing (l, 2 * z, z, w, b, "quant_conv");
}

DpVaeEncoder *
dp_vae_encoder_new (DpDevice *dev, const DpVaeConfig *config, const DpWeights *weights, int latent_h, int latent_w, int latents,
    GError **error)
{
  DpVaeEncoder *e = g_new0 (DpVaeEncoder, 1);
  DpVaeLoader l = { .net = &e->net, .weights = weights, .error = error };

  g_assert (dev->host_memory);
  *e = (DpVaeEncoder) { .net = { .part = "encoder", .advice = "use a smaller width or height", .dev = dev, .ops = dev->ops,
      .config = *config, .type = DP_TYPE_F32, .once = latents == 1 }, .latent_h = latent_h, .latent_w = latent_w,
    .most_frames = latents > 1 ? config->temporal_scale : 1, .first = TRUE };
  setup (&l, e);
  dp_vae_net_measured (&e->net);
  if (!dp_vae_net_allocate (&e->net, error))
    goto fail;
  setup (&l, e);                /* again: hands out memory */
  l.upload = TRUE;
  load_quant (&l, e);
  setup (&l, e);
  if (l.failed)
    goto fail;
  dp_vae_net_reset (&e->net);
  if (!dp_error_check_device (dev, error, "while the encoder was loaded") || !dp_weights_check_unchanged (weights, error))
    goto fail;
  return e;

fail:
  dp_vae_encoder_free (e);
  return NULL;
}

void
dp_vae_encoder_free (DpVaeEncoder *e)
{
  if (e == NULL)
    return;
  DpVaeNet *net = &e->net;
  DpConv *all[] = { e->conv_in.conv, e->conv_out.conv, e->quant };
  for (guint i = 0; i < G_N_ELEMENTS (all); i++)
    net->ops->conv_free (net->dev, all[i]);
  dp_vae_free_mid (net, &e->mid);
  for (int i = 0; i < net->config.levels; i++) {
    for (int j = 0; e->down[i].res && j < net->config.res_blocks; j++)
      dp_vae_free_res (net, &e->down[i].res[j]);
    net->ops->conv_free (net->dev, e->down[i].resample);
    net->ops->conv_free (net->dev, e->down[i].time_conv.conv);
    g_free (e->down[i].res);
  }
  dp_vae_net_free (net);
  g_free (e);
}

/* ---- encoding ---- */

/* Of t frames of h x w pixels, those of odd row and column, which is where a kernel of 3 lies that begins at an even one. */
static void
keep_odd_pixels (int t, int h, int w, int c, const float *x, float *y)
{
  for (int i = 0; i < t * (h / 2); i++)
    for (int j = 0; j < w / 2; j++, y += c)
      memcpy (y, x + ((gsize) (2 * i + 1) * w + 2 * j + 1) * c, sizeof (float) * c);
}

/* x [t, h, w, ci] -> added to y [t / frames, h / scale, w / scale, co]: the channels of the pixels and frames that become one are put one
 * behind the other, and each of y gets the mean of as many neighbours of them. A frame that is missing in front is black. */
static void
add_means (int t, int h, int w, int ci, int co, int frames, int scale, const float *x, float *y)
{
  int of_one = frames * scale * scale, group = ci * of_one / co, missing = (frames - t % frames) % frames;
  int out_h = h / scale, out_w = w / scale;

  for (int f = 0; f < (t + missing) / frames; f++)
    for (int i = 0; i < out_h; i++)
      for (int j = 0; j < out_w; j++, y += co)
        for (int k = 0; k < ci * of_one; k++) {
          int from = f * frames + k % of_one / (scale * scale) - missing, row = i * scale + k % (scale * scale) / scale;

          if (from >= 0)
            y[k / group] += x[(((gsize) from * h + row) * w + j * scale + k % scale) * ci + k / of_one] / group;
        }
}

static void
run_down (DpVaeNet *v, DownBlock *d, gboolean first)
{
  int t = v->t, h = v->h, w = v->w;

  if (v->config.residual)
    v->ops->copy (v->dev, v->S, v->X, sizeof (float) * t * h * w * d->ci);
  for (int i = 0; i < v->config.res_blocks; i++)
    dp_vae_run_res (v, &d->res[i]);
  if (d->down) {
    v->ops->conv (v->dev, d->resample, &(DpConvArgs) { .t = t, .h = h, .w = w, .x = v->X, .y = v->Y });
    v->h /= 2;
    v->w /= 2;
    keep_odd_pixels (t, h, w, d->co, v->Y, d->temporal ? dp_vae_frame_at (v, v->N, DP_VAE_PAST, d->co) : v->X);
  }
  if (d->temporal) {
    gsize frame = (gsize) v->h * v->w * d->co;

    /* The first picture passes, and is the past of what follows. Then a window ends with every second frame */
    if (first)
      memcpy (v->X, dp_vae_frame_at (v, v->N, DP_VAE_PAST, d->co), sizeof (float) * frame);
    if (!v->once)
      dp_vae_run_causal (v, &d->time_conv, NULL, v->B);
    v->t = first ? 1 : t / 2;
    for (int i = 0; i < v->t && !first; i++)
      memcpy ((float *) v->X + i * frame, (float *) v->B + (2 * i + 1) * frame, sizeof (float) * frame);
  }
  if (v->config.residual)
    add_means (t, h, w, d->ci, d->co, d->temporal ? 2 : 1, d->down ? 2 : 1, v->S, v->X);
}

int
dp_vae_encoder_takes (const DpVaeEncoder *e)
{
  return e->first ? 1 : e->net.config.temporal_scale;
}

/* Pixels [t, h p, w p, 3] -> [t, h, w, 3 p^2], a patch by columns. */
static void
patchify (int t, int h, int w, int p, const float *x, float *y)
{
  for (int i = 0; i < t * h; i++)
    for (int j = 0; j < w; j++)
      for (int k = 0; k < 3 * p * p; k++)
        *y++ = x[((gsize) (i * p + k % p) * w * p + j * p + k / p % p) * 3 + k / (p * p)];
}

void
dp_vae_encode (DpVaeEncoder *e, const float *pictures, float *latent)
{
  DpVaeNet *v = &e->net;
  int z = v->config.z_dim;

  v->t = dp_vae_encoder_takes (e);
  g_assert (v->t <= e->most_frames);
  v->h = e->conv_in.h;
  v->w = e->conv_in.w;
  patchify (v->t, v->h, v->w, v->config.patch, pictures, dp_vae_frame_at (v, v->N, DP_VAE_PAST, v->config.out_channels));
  dp_vae_run_causal (v, &e->conv_in, NULL, v->X);
  for (int i = 0; i < v->config.levels; i++)
    run_down (v, &e->down[i], e->first);
  dp_vae_run_mid (v, &e->mid);
  dp_vae_run_norm_silu (v, v->X, e->norm_out, e->conv_out.ci);
  dp_vae_run_causal (v, &e->conv_out, NULL, v->B);
  v->ops->conv (v->dev, e->quant, &(DpConvArgs) { .t = 1, .h = v->h, .w = v->w, .x = v->B, .y = v->Y });
  v->ops->sync (v->dev);
  memcpy (latent, v->Y, sizeof (float) * v->h * v->w * z);
  e->first = FALSE;
}
