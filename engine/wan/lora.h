/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * lora.h: small files that change a transformer's weights: W + strength * alpha / rank * up . down, in float32, while W is read.
 *
 * The customs of PEFT and diffusers (lora_A, lora_B), of ComfyUI and others (lora_down, lora_up, alpha) and of kohya's scripts (lora_unet_,
 * underscores for dots) are known, and whole differences (diff, diff_b). Every tensor of the file is used, or it is refused with its name.
 */
#pragma once

#include "weights.h"

/** Makes a transformer's weights, with diffusers' names, those that `spec` makes of them: "FILE:strength,FILE", strength 1 if it is not
 *  said. Before any tensor is looked up. Errors: DP_ERROR_SETTINGS (the strength), those of dp_weights_open(), DP_ERROR_BAD_MODEL (a tensor
 *  that belongs to nothing, or has another shape). */
gboolean dp_lora_apply (DpWeights *weights, const char *spec, GError **error);
