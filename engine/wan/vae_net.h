/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vae_net.h: what Wan's video decoder (vae.h) and encoder (vae_encoder.h) are both made of. Only these two include it.
 *
 * A net's shape is walked twice, by the same code: once to lay out memory, once to load into it. While it runs, its work
 * buffers serve every level: X holds the residual stream, Y what X becomes, N the input of a convolution with two frames of the past in
 * front, B what lies between the two convolutions of a residual block, S what a block that adds its own input to its output
 * began with. Only the past is kept per convolution.
 */
#pragma once

#include <glib.h>
#include "arena.h"
#include "model_config.h"
#include "weights.h"
#include "kernels/device.h"

#define DP_VAE_PAST 2           /* frames a kernel of 3 looks back */

typedef struct
{
  const char *part;             /* "decoder": so its tensors' names begin, and so it is called in errors */
  const char *advice;           /* what helps where it does not fit */
  DpDevice *dev;
  const DpOps *ops;
  DpVaeConfig config;
  DpType type;
  gboolean once;                /* it runs once: there is no past, and none is kept */

  DpArena past;                 /* what is carried from call to call */
  DpArena params;
  DpArena work;
  void *X, *Y, *N, *B, *S;
  gsize x_size, y_size, n_size, b_size, s_size; /* elements */

  /* while it runs: the shape of X */
  int t, h, w;
} DpVaeNet;

/** A convolution over three frames, and the last two frames it has seen. */
typedef struct
{
  DpConv *conv;
  int ci, co;
  int h, w;
  void *past;                   /* [DP_VAE_PAST, h, w, ci]; NULL where the net runs once */
} DpCausalConv;

typedef struct
{
  int ci, co;
  float *norm1, *norm2;         /* gamma [ci], [co] */
  DpCausalConv conv1, conv2;
  DpConv *shortcut;             /* ci -> co, NULL where they are equal */
} DpResBlock;

/** The middle, where the picture is smallest. */
typedef struct
{
  DpResBlock res[2];
  float *attn_norm;
  DpConv *attn_qkv, *attn_proj;
} DpVaeMid;

/* ---- loading ---- */

typedef struct
{
  DpVaeNet *net;
  const DpWeights *weights;
  GError **error;
  gboolean failed;
  gboolean upload;              /* FALSE: only lays out the arenas and adds up the convolutions */
  gsize conv_bytes;
} DpVaeLoader;

/** Names are those behind the part's: "mid_block". A `two_d` weight has no dimension for time in its file. */
DpConv *dp_vae_load_conv (DpVaeLoader *l, int kt, int k, int ci, int co, const char *name, gboolean two_d);
void dp_vae_load_gamma (DpVaeLoader *l, float **gamma, int channels, int n_dims, const char *name);
/** For t frames of h x w pixels. */
void dp_vae_load_causal (DpVaeLoader *l, DpCausalConv *c, int t, int h, int w, int k, int ci, int co, const char *name);
void dp_vae_load_res (DpVaeLoader *l, DpResBlock *r, int t, int h, int w, int ci, int co, const char *prefix);
void dp_vae_load_mid (DpVaeLoader *l, DpVaeMid *mid, int t, int h, int w, int channels);
/** A 1x1x1 convolution in float32 of these host weights, [co, ci] and [co]. */
DpConv *dp_vae_load_mixing (DpVaeLoader *l, int ci, int co, const float *weight, const float *bias, const char *name);

/** Measuring: makes X and Y alike, as they change places, and lays out the work buffers. */
void dp_vae_net_measured (DpVaeNet *net);
/** Allocates what was measured, and lays the work buffers out in it. Errors: DP_ERROR_NO_MEMORY. */
gboolean dp_vae_net_allocate (DpVaeNet *net, GError **error);
void dp_vae_net_free (DpVaeNet *net);
void dp_vae_free_res (DpVaeNet *net, DpResBlock *r);
void dp_vae_free_mid (DpVaeNet *net, DpVaeMid *mid);

/* ---- running ---- */

/** Forgets the past. */
void dp_vae_net_reset (DpVaeNet *net);
/** Where frame `frame` of `channels` channels begins in a buffer. */
void *dp_vae_frame_at (const DpVaeNet *net, void *buffer, int frame, int channels);
/** N = [past | what the caller put behind it]; y = conv (N) + add; the past moves on by t frames. */
void dp_vae_run_causal (DpVaeNet *net, DpCausalConv *c, const void *add, void *y);
/** Into N, behind the past. */
void dp_vae_run_norm_silu (DpVaeNet *net, const void *x, const float *gamma, int channels);
void dp_vae_run_res (DpVaeNet *net, DpResBlock *r);
void dp_vae_run_mid (DpVaeNet *net, DpVaeMid *mid);
