/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Legend: t frames, h x w pixels of the current level, c channels; activations are [t, h, w, c].
 */
#include "vae_net.h"
#include "device_error.h"

#include <math.h>

/* ---- loading ---- */

DpConv *
dp_vae_load_conv (DpVaeLoader *l, int kt, int k, int ci, int co, const char *name, gboolean two_d)
{
  DpVaeNet *v = l->net;
  g_autofree char *weight = g_strconcat (l->net->part, ".", name, ".weight", NULL);
  g_autofree char *bias = g_strconcat (l->net->part, ".", name, ".bias", NULL);
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
      dp_error_no_room (v->dev, l->error, (gsize) co * ci * kt * k * k * dp_type_size (v->type), v->advice, "the %s's %s", v->part, name);
    l->failed = TRUE;
  }
  return conv;
}

void
dp_vae_load_gamma (DpVaeLoader *l, float **gamma, int channels, int n_dims, const char *name)
{
  DpVaeNet *v = l->net;

  if (!l->upload) {
    *gamma = dp_arena_take (&v->params, sizeof (float) * channels);
    return;
  }
  g_autofree char *full = g_strconcat (l->net->part, ".", name, NULL);
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
make_room (DpVaeNet *v, int t, int h, int w, int ci, int co)
{
  gsize pixels = (gsize) h * w;

  v->n_size = MAX (v->n_size, (t + DP_VAE_PAST) * pixels * ci);
  v->x_size = MAX (v->x_size, t * pixels * MAX (ci, co));
  v->y_size = MAX (v->y_size, t * pixels * MAX (ci, co));
  v->b_size = MAX (v->b_size, t * pixels * co);
}

void
dp_vae_load_causal (DpVaeLoader *l, DpCausalConv *c, int t, int h, int w, int k, int ci, int co, const char *name)
{
  DpVaeNet *v = l->net;

  c->conv = dp_vae_load_conv (l, 3, k, ci, co, name, FALSE);
  if (l->upload)
    return;
  c->ci = ci;
  c->co = co;
  c->h = h;
  c->w = w;
  if (!v->once)
    c->past = dp_arena_take (&v->past, dp_type_size (v->type) * DP_VAE_PAST * h * w * ci);
  make_room (v, t, h, w, ci, co);
}

void
dp_vae_load_res (DpVaeLoader *l, DpResBlock *r, int t, int h, int w, int ci, int co, const char *prefix)
{
  g_autofree char *norm1 = g_strconcat (prefix, ".norm1.gamma", NULL), *norm2 = g_strconcat (prefix, ".norm2.gamma", NULL);
  g_autofree char *conv1 = g_strconcat (prefix, ".conv1", NULL), *conv2 = g_strconcat (prefix, ".conv2", NULL);
  g_autofree char *shortcut = g_strconcat (prefix, ".conv_shortcut", NULL);

  r->ci = ci;
  r->co = co;
  dp_vae_load_gamma (l, &r->norm1, ci, 4, norm1);
  dp_vae_load_gamma (l, &r->norm2, co, 4, norm2);
  dp_vae_load_causal (l, &r->conv1, t, h, w, 3, ci, co, conv1);
  dp_vae_load_causal (l, &r->conv2, t, h, w, 3, co, co, conv2);
  if (ci != co)
    r->shortcut = dp_vae_load_conv (l, 1, 1, ci, co, shortcut, FALSE);
}

void
dp_vae_load_mid (DpVaeLoader *l, DpVaeMid *mid, int t, int h, int w, int channels)
{
  DpVaeNet *v = l->net;

  dp_vae_load_res (l, &mid->res[0], t, h, w, channels, channels, "mid_block.resnets.0");
  dp_vae_load_gamma (l, &mid->attn_norm, channels, 3, "mid_block.attentions.0.norm.gamma");
  mid->attn_qkv = dp_vae_load_conv (l, 1, 1, channels, 3 * channels, "mid_block.attentions.0.to_qkv", TRUE);
  mid->attn_proj = dp_vae_load_conv (l, 1, 1, channels, channels, "mid_block.attentions.0.proj", TRUE);
  v->b_size = MAX (v->b_size, (gsize) t * h * w * 3 * channels);
  dp_vae_load_res (l, &mid->res[1], t, h, w, channels, channels, "mid_block.resnets.1");
}

DpConv *
dp_vae_load_mixing (DpVaeLoader *l, int ci, int co, const float *weight, const float *bias, const char *name)
{
  DpVaeNet *v = l->net;
  DpConv *conv = v->ops->conv_new (v->dev, &(DpConvSpec) { .ci = ci, .co = co, .kt = 1, .kh = 1, .kw = 1, .type = DP_TYPE_F32,
      .weight = { weight, DP_TYPE_F32, co }, .bias = { bias, DP_TYPE_F32, co } });

  if (conv == NULL) {
    dp_error_no_room (v->dev, l->error, sizeof (float) * ci * co, v->advice, "the %s's %s", v->part, name);
    l->failed = TRUE;
  }
  return conv;
}

static void
layout_work (DpVaeNet *v)
{
  gsize e = dp_type_size (v->type);

  v->X = dp_arena_take (&v->work, e * v->x_size);
  v->Y = dp_arena_take (&v->work, e * v->y_size);
  v->N = dp_arena_take (&v->work, e * v->n_size);
  v->B = dp_arena_take (&v->work, e * v->b_size);
  v->S = dp_arena_take (&v->work, e * v->s_size);
}

void
dp_vae_net_measured (DpVaeNet *v)
{
  v->x_size = v->y_size = MAX (v->x_size, v->y_size);
  layout_work (v);
}

gboolean
dp_vae_net_allocate (DpVaeNet *v, GError **error)
{
  g_autofree char *past = g_strdup_printf ("the %s's past frames", v->part), *params = g_strdup_printf ("the %s's norms", v->part);
  g_autofree char *work = g_strdup_printf ("the %s's working memory", v->part);

  if ((!v->once && !dp_arena_allocate (&v->past, v->dev, past, error)) || !dp_arena_allocate (&v->params, v->dev, params, error)
      || !dp_arena_allocate (&v->work, v->dev, work, error))
    return FALSE;
  layout_work (v);
  return TRUE;
}

void
dp_vae_net_free (DpVaeNet *v)
{
  dp_arena_free (&v->past);
  dp_arena_free (&v->params);
  dp_arena_free (&v->work);
}

void
dp_vae_free_res (DpVaeNet *v, DpResBlock *r)
{
  v->ops->conv_free (v->dev, r->conv1.conv);
  v->ops->conv_free (v->dev, r->conv2.conv);
  v->ops->conv_free (v->dev, r->shortcut);
}

void
dp_vae_free_mid (DpVaeNet *v, DpVaeMid *mid)
{
  dp_vae_free_res (v, &mid->res[0]);
  dp_vae_free_res (v, &mid->res[1]);
  v->ops->conv_free (v->dev, mid->attn_qkv);
  v->ops->conv_free (v->dev, mid->attn_proj);
}

/* ---- running ---- */

void
dp_vae_net_reset (DpVaeNet *v)
{
  if (!v->once)
    v->ops->fill (v->dev, v->past.memory, 0, v->past.size);
}

void *
dp_vae_frame_at (const DpVaeNet *v, void *buffer, int frame, int channels)
{
  return (char *) buffer + dp_type_size (v->type) * frame * v->h * v->w * channels;
}

static void
swap_xy (DpVaeNet *v)
{
  void *x = v->X;

  v->X = v->Y;
  v->Y = x;
}

void
dp_vae_run_causal (DpVaeNet *v, DpCausalConv *c, const void *add, void *y)
{
  gsize frame = dp_type_size (v->type) * v->h * v->w * c->ci;

  if (v->once)
    v->ops->fill (v->dev, v->N, 0, DP_VAE_PAST * frame);
  else
    v->ops->copy (v->dev, v->N, c->past, DP_VAE_PAST * frame);
  v->ops->conv (v->dev, c->conv, &(DpConvArgs) { .t = v->t + DP_VAE_PAST, .h = v->h, .w = v->w, .x = v->N, .add = add, .y = y });
  if (!v->once)
    v->ops->copy (v->dev, c->past, (char *) v->N + v->t * frame, DP_VAE_PAST * frame);
}

void
dp_vae_run_norm_silu (DpVaeNet *v, const void *x, const float *gamma, int channels)
{
  v->ops->channel_norm (v->dev, &(DpChannelNormArgs) { .type = v->type, .rows = v->t * v->h * v->w, .channels = channels, .x = x,
      .gamma = gamma, .act = DP_ACT_SILU, .y = dp_vae_frame_at (v, v->N, DP_VAE_PAST, channels) });
}

void
dp_vae_run_res (DpVaeNet *v, DpResBlock *r)
{
  dp_vae_run_norm_silu (v, v->X, r->norm1, r->ci);
  dp_vae_run_causal (v, &r->conv1, NULL, v->B);
  dp_vae_run_norm_silu (v, v->B, r->norm2, r->co);
  if (r->shortcut) {
    v->ops->conv (v->dev, r->shortcut, &(DpConvArgs) { .t = v->t, .h = v->h, .w = v->w, .x = v->X, .y = v->Y });
    swap_xy (v);
  }
  dp_vae_run_causal (v, &r->conv2, v->X, v->X);
}

/* One head over all pixels of a frame. */
static void
run_attention (DpVaeNet *v, DpVaeMid *mid)
{
  int c = mid->res[0].co, pixels = v->h * v->w;
  gsize e = dp_type_size (v->type);

  v->ops->channel_norm (v->dev, &(DpChannelNormArgs) { .type = v->type, .rows = v->t * pixels, .channels = c, .x = v->X,
      .gamma = mid->attn_norm, .y = v->Y });
  v->ops->conv (v->dev, mid->attn_qkv, &(DpConvArgs) { .t = v->t, .h = v->h, .w = v->w, .x = v->Y, .y = v->B });
  for (int i = 0; i < v->t; i++) {
    char *qkv = dp_vae_frame_at (v, v->B, i, 3 * c);

    v->ops->attention (v->dev, &(DpAttentionArgs) { .type = v->type, .heads = 1, .head_dim = c, .q_len = pixels, .kv_len = pixels,
        .q = qkv, .k = qkv + e * c, .v = qkv + e * 2 * c, .q_stride = 3 * c, .k_stride = 3 * c, .v_stride = 3 * c,
        .out = dp_vae_frame_at (v, v->Y, i, c), .scale = 1 / sqrtf (c) });
  }
  v->ops->conv (v->dev, mid->attn_proj, &(DpConvArgs) { .t = v->t, .h = v->h, .w = v->w, .x = v->Y, .add = v->X, .y = v->X });
}

void
dp_vae_run_mid (DpVaeNet *v, DpVaeMid *mid)
{
  dp_vae_run_res (v, &mid->res[0]);
  run_attention (v, mid);
  dp_vae_run_res (v, &mid->res[1]);
}
