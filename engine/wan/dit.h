/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * dit.h: a contiguous range of the layers, or half layers, of Wan's diffusion transformer on one device.
 *
 * It knows no block, thread or peer: tokens come in, tokens go out. The first range also embeds latents into tokens, the last one also
 * turns tokens into a velocity. What depends only on the step (timestep embedding) or only on the prompt (keys and
 * values of the text) is computed once, not per pass.
 * Every frame of the input has a step of its own, and the input may see keys and values of neighbours on
 * both sides of it, which earlier passes kept.
 *
 * Shapes: L tokens of the input, K tokens of all keys that a pass sees, D = heads * head_dim,
 * C latent channels. Tokens are [L, D] float32 (the residual stream).
 * Classifier-free guidance is two passes, each with a text and with caches of its own.
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

/** A range of layers, counted in halves: half 2 i is layer i's self-attention, half 2 i + 1 the rest of it, which is its cross-attention
 *  and its feed-forward. Between any two halves, tokens are all that passes on. */
typedef struct
{
  int first, last;              /* halves [first, last) */
} DpHalves;

/** Whole layers [first, last). */
static inline DpHalves
dp_halves_of_layers (int first, int last)
{
  return (DpHalves) { 2 * first, 2 * last };
}

/** Everything the range must be sized for. */
typedef struct
{
  DpHalves halves;
  const DpDit *lender;          /* NULL, or one of the same sizes on the same device in whose scratch this one works; it must outlive this
                                 * one */
  DpType type;                  /* of weights and activations between the float32 parts */
  gboolean fp8;                 /* the layers' products and self-attention in e4m3 */
  int latent_h, latent_w;       /* even */
  /* Latent frames: of an input; of the keys of a pass (before, input and behind together); of a cache. */
  int max_input, max_keys, max_cached;
  int steps;
  const float *timesteps;       /* [steps] */
} DpDitSpec;

/** Packs the weights, computes the timestep table, allocates all scratch. Errors: DP_ERROR_NOT_FOUND, _BAD_MODEL, _NO_MEMORY, _SETTINGS. */
DpDit *dp_dit_new (DpDevice *dev, const DpDitConfig *config, const DpWeights *weights, const DpDitSpec *spec, GError **error);
void dp_dit_free (DpDit *dit);
int dp_dit_tokens_per_frame (const DpDit *dit);
/** All that it has. */
DpHalves dp_dit_halves (const DpDit *dit);

/** Device memory that such a range will take, once or with a second expert that works in its scratch, and a cache of it. */
gsize dp_dit_bytes (const DpDitConfig *config, const DpDitSpec *spec, int experts);
gsize dp_dit_cache_bytes (const DpDitConfig *config, const DpDitSpec *spec, DpHalves halves);
/** Of a text of `length` rows. */
gsize dp_dit_text_bytes (const DpDitConfig *config, const DpDitSpec *spec, DpHalves halves, int length);

/** The text as the layers of `halves`, a part of the range, see it. embeds: [n, text_dim] float32 host rows, the real tokens; the text is
 *  padded to `length` with zero rows, which are folded into one row whose logit gets log (length - n). */
DpDitText *dp_dit_text_new (DpDit *dit, DpHalves halves, const float *embeds, int n, int length, GError **error);
void dp_dit_text_free (DpDit *dit, DpDitText *text);

/** Keys (normed, not rotated) and values of a neighbour, for every self-attention of a part of the range:
 *  [frames * tokens_per_frame, D] of the spec's type. */
typedef struct _DpDitCache DpDitCache;
DpDitCache *dp_dit_cache_new (DpDit *dit, DpHalves halves, GError **error);     /* room for max_cached frames */
void dp_dit_cache_free (DpDit *dit, DpDitCache *cache);

/** Latents [frames, h, w, C] float32 on the device -> tokens [L, D]. Only where the range begins with the first layer. */
void dp_dit_embed (DpDit *dit, int frames, const float *latents, float *tokens);

/** The first `frames` frames that a cache holds. No cache: none. */
typedef struct
{
  const DpDitCache *cache;
  int frames;
} DpDitKept;

/** A cache that receives keys and values of the input's frames [first, + frames). No cache: nothing is kept. */
typedef struct
{
  DpDitCache *cache;
  int first, frames;
} DpDitKeep;

/** One pass through a part of the range, in place. Positions in time count from the first frame in front: those of `before`, then the
 *  input's, then those of `behind`. A cache is read or written in a pass, not both. */
typedef struct
{
  DpHalves halves;              /* caches and text must have been made for just these */
  int frames;                   /* of the input */
  const int *steps;             /* [frames] indices into the spec's timesteps. Frames in a row with the same step cost nothing extra */
  const DpDitText *text;
  float *tokens;                /* [L, D], in and out */
  DpDitKept before, behind;     /* what the input sees in front of its first frame and after its last */
  DpDitKeep keep_head, keep_tail;       /* for the neighbour in front, which reads it behind its input, and for the one that follows */
} DpDitPass;
void dp_dit_run (DpDit *dit, const DpDitPass *pass);

/** tokens [L, D] -> velocity [frames - first_frame, h, w, C] float32, of frames [first_frame, frames) only; frames and steps are
 *  those of the pass. Only where the range ends with the last layer. */
void dp_dit_head (DpDit *dit, int frames, int first_frame, const int *steps, const float *tokens, float *velocity);
