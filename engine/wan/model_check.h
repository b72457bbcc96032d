/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * model_check.h: whether a model would load, without loading it.
 */
#pragma once

#include <glib.h>
#include "model.h"

/** Runs all checks of files that loading runs, by loading every part onto a device that keeps and computes nothing: the
 *  tokenizer, and name, shape, type and place of every tensor. Reads headers and small tensors, but no weights through.
 *  `max_keys`, `latent_h`, `latent_w`: latent frames that a pass sees, and their size.
 *  Errors: those of dp_model_weights(), dp_tokenizer_open(), dp_text_encoder_new(), dp_dit_new() and dp_vae_new(). */
gboolean dp_model_check (const DpModel *model, int max_keys, int latent_h, int latent_w, GError **error);
