/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * shapes.h: what a network is by the shapes of its tensors, for files that come without a config file. Names are
 * diffusers', see names.h. What no shape says, as the sampler, is what the published models have.
 *
 * Each value is in the same range as one that was read from a config file. Errors: DP_ERROR_NOT_FOUND (a tensor is missing),
 * DP_ERROR_BAD_MODEL (a shape that no such network has).
 */
#pragma once

#include "model_config.h"
#include "weights.h"

/** `heads` 0: heads of 128, as all published models have. */
gboolean dp_shapes_transformer (DpDitConfig *config, const DpWeights *weights, int heads, GError **error);
/** With the latents' mean and standard deviation of the published VAE of as many channels; DP_ERROR_BAD_MODEL if there is none. */
gboolean dp_shapes_vae (DpVaeConfig *config, const DpWeights *weights, GError **error);
gboolean dp_shapes_text_encoder (DpTextConfig *config, const DpWeights *weights, GError **error);
