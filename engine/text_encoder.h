/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * text_encoder.h: token ids -> prompt embeds, the UMT5 encoder (transformers' UMT5EncoderModel).
 *
 * Each layer has its own relative-position bias; RMS-norm; gated gelu; attention without 1/sqrt(d). Only the real tokens are
 * run: with the attention mask of the reference the padded ones cannot be seen, and their embeddings are zeroed anyway.
 */
#pragma once

#include <glib.h>
#include "config.h"
#include "weights.h"
#include "kernels/device.h"

/* Thread-safety: one thread at a time. */
typedef struct _DpTextEncoder DpTextEncoder;

/** Packs the weights onto `dev`. `max_tokens`: the most that will be encoded at once. The token table stays in `weights`, which must outlive it. */
DpTextEncoder *dp_text_encoder_new (DpDevice *dev, const DpTextConfig *config, const DpWeights *weights, DpType type, int max_tokens,
    GError **error);
void dp_text_encoder_free (DpTextEncoder *encoder);

/** ids[n] -> out[n, d_model] float32 in host memory, n <= max_tokens, each id checked against the vocabulary. */
gboolean dp_text_encoder_encode (DpTextEncoder *encoder, const gint32 *ids, int n, float *out, GError **error);
