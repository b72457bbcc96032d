/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vae_encoder.h: Wan's causal video encoder: pictures that a video begins with become latents.
 *
 * It runs once, before a video begins, on a few pictures. So it is made for devices whose memory is the host's, "cpu" and
 * "ref", and calculates in float32.
 * It is as causal in time as the decoder: the first picture alone gives the first latent, every next temporal_scale ones another.
 * Source: diffusers' AutoencoderKLWan (encoder, WanCausalConv3d caches).
 */
#pragma once

#include <glib.h>
#include "model_config.h"
#include "weights.h"
#include "kernels/device.h"

/* Thread-safety: one thread at a time, the one that uses its device. */
typedef struct _DpVaeEncoder DpVaeEncoder;

/** Packs the encoder's weights and allocates everything for pictures of latent_h x latent_w latents, and for so many latents: one takes
 *  less memory. Errors: DP_ERROR_NOT_FOUND (a file with the decoder only), _BAD_MODEL, _NO_MEMORY. */
DpVaeEncoder *dp_vae_encoder_new (DpDevice *dev, const DpVaeConfig *config, const DpWeights *weights, int latent_h, int latent_w,
    int latents, GError **error);
void dp_vae_encoder_free (DpVaeEncoder *encoder);

/** How many pictures the next dp_vae_encode() takes: 1 for the first latent, then temporal_scale. */
int dp_vae_encoder_takes (const DpVaeEncoder *encoder);

/** Encodes so many pictures, [n, H, W, 3] float32 in -1..1, into one latent: the distribution's mean, normalised as what is denoised,
 *  [latent_h, latent_w, z_dim]. */
void dp_vae_encode (DpVaeEncoder *encoder, const float *pictures, float *latent);
