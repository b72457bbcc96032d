/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * dit.h: a contiguous range of the layers of Wan's diffusion transformer on one device.
 *
 * It knows no block, thread or peer: tokens come in, tokens go out. The first range also embeds latents into tokens, the last one also
 * turns tokens into a velocity. What depends only on the step (timestep embedding) or only on the prompt (keys and
 * values of the text) is computed once, not per pass.
 *
 * Shapes: S batch (1, or 2 with classifier-free guidance: conditional first), L tokens of the input, K cached tokens,
 * D = heads * head_dim, C latent channels. Tokens are [S * L, D] float32 (the residual stream).
 * Source: diffusers' WanTransformer3DModel.
 */
#pragma once

#include <glib.h>
#include "model_config.h"
#include "weights.h"
#include "kernels/device.h"

/* Thread-safety: one thread at a time, the one that uses its device. */
typedef struct _DpDit DpDit;
typedef struct _DpDitText DpDitText;

/** Everything the range must be sized for. */
typedef struct
{
  int first, last;              /* layers [first, last) */
  const DpDit *lender;          /* NULL, or one of the same sizes on the same device in whose scratch this one works; it must outlive this
                                 * one */
  DpType type;                  /* of weights and activations between the float32 parts */
  gboolean fp8;                 /* the layers' products and self-attention in e4m3 */
  int latent_h, latent_w;       /* even */
  int max_input, max_cached;    /* latent frames: of an input, and of a neighbour's cache */
  int batch;                    /* S */
  int steps;
  const float *timesteps;       /* [steps] */
} DpDitSpec;

/** Packs the weights, computes the timestep table, allocates all scratch. Errors: DP_ERROR_NOT_FOUND, _BAD_MODEL, _NO_MEMORY, _SETTINGS. */
DpDit *dp_dit_new (DpDevice *dev, const DpDitConfig *config, const DpWeights *weights, const DpDitSpec *spec, GError **error);
void dp_dit_free (DpDit *dit);
int dp_dit_tokens_per_frame (const DpDit *dit);

/** Device memory that such a range will take, once or with a second expert that works in its scratch, and a cache of it. */
gsize dp_dit_bytes (const DpDitConfig *config, const DpDitSpec *spec, int experts);
gsize dp_dit_cache_bytes (const DpDitConfig *config, const DpDitSpec *spec);

/** The text as this range's layers see it. embeds: S pointers to [n[s], text_dim] float32 host rows, the real tokens; the text is padded to
 *  `length` with zero rows, which are folded into one row whose logit gets log (length - n). */
DpDitText *dp_dit_text_new (DpDit *dit, const float *const *embeds, const int *n, int length, GError **error);
void dp_dit_text_free (DpDit *dit, DpDitText *text);

/** Keys (normed, not rotated) and values of a neighbour, for every layer of the range: [S, frames * tokens_per_frame, D] of the spec's
 *  type. */
typedef struct _DpDitCache DpDitCache;
DpDitCache *dp_dit_cache_new (DpDit *dit, GError **error);      /* room for max_cached frames */
void dp_dit_cache_free (DpDit *dit, DpDitCache *cache);

/** Latents [frames, h, w, C] float32 on the device -> tokens [S * L, D] (each of the S the same). Only where first == 0. */
void dp_dit_embed (DpDit *dit, int frames, const float *latents, float *tokens);

/** One run of the range, in place. */
typedef struct
{
  int frames;                   /* of the input, context included */
  int step;                     /* index into the spec's timesteps */
  const DpDitText *text;
  float *tokens;                /* [S * L, D], in and out */
  const DpDitCache *cache_in;   /* the following block's keys and values, or NULL: nothing behind the input */
  int cache_in_frames;
  DpDitCache *cache_out;        /* receives keys and values of frames [cache_out_first, + cache_out_frames), or NULL */
  int cache_out_first, cache_out_frames;
} DpDitPass;
void dp_dit_run (DpDit *dit, const DpDitPass *pass);

/** tokens [S * L, D] -> velocity [S, frames - first_frame, h, w, C] float32, of frames [first_frame, frames) only. Only where last ==
 *  layers. */
void dp_dit_head (DpDit *dit, int frames, int first_frame, int step, const float *tokens, float *velocity);
