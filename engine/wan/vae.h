/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vae.h: Wan's causal video decoder, a latent frame or some at a time, without end.
 *
 * The decoder is causal in time: each convolution keeps the last frames it saw, so decoding a stream in parts gives the
 * same frames as decoding it at once, in constant memory. The first latent of a stream gives 1 frame, every other 4 (temporal_scale).
 * Source: diffusers' AutoencoderKLWan (decoder, WanCausalConv3d caches).
 */
#pragma once

#include <glib.h>
#include "model_config.h"
#include "weights.h"
#include "kernels/device.h"

/* Thread-safety: one thread at a time, the one that uses its device. */
typedef struct _DpVae DpVae;

/** Packs the decoder's weights and allocates everything for up to `at_once` latents of h x w; the device
 *  knows how many are best, dev->latents_at_once. Errors: DP_ERROR_NOT_FOUND, _BAD_MODEL, _NO_MEMORY. */
DpVae *dp_vae_new (DpDevice *dev, const DpVaeConfig *config, const DpWeights *weights, DpType type, int latent_h, int latent_w, int at_once,
    GError **error);
void dp_vae_free (DpVae *vae);

/** Device memory that it will take. */
gsize dp_vae_bytes (const DpVaeConfig *config, DpType type, int latent_h, int latent_w, int at_once);

/** How many latents the next dp_vae_decode() may have at most: the first of a stream comes alone. */
int dp_vae_takes (const DpVae *vae);

/** Decodes n normalised latent frames [n, h, w, z_dim] (float32, on the device). *frames then points to the device's [f, H, W, 3] of
 *  dp_vae_type() in about -1..1 (not clamped), valid until the next call; returns f. */
int dp_vae_decode (DpVae *vae, const float *latents, int n, const void **frames);
DpType dp_vae_type (const DpVae *vae);

/** Forgets the past: the next latent is the first of a stream. */
void dp_vae_reset (DpVae *vae);
