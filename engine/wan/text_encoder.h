/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * text_encoder.h: token ids -> prompt embeds, the UMT5 encoder (transformers' UMT5EncoderModel).
 *
 * Each layer has its own relative-position bias; RMS-norm; gated gelu; attention without 1/sqrt(d). Only the real tokens are
 * run: with the attention mask of the reference the padded ones cannot be seen, and their embeddings are zeroed anyway.
 *
 * All layers have one shape. Resident, each has its weights on the device. Streamed, the device has room for one layer's, and every
 * encoding fills it with each layer in turn from the file: little memory for more time, and the same bits.
 */
#pragma once

#include <glib.h>
#include "model_config.h"
#include "weights.h"
#include "kernels/device.h"

/* Thread-safety: one thread at a time. */
typedef struct _DpTextEncoder DpTextEncoder;

/** Packs the weights onto `dev`, or makes room for one layer's where `streamed`. `max_tokens`: the most that a text has. The token table
 *  (and all that is streamed) stays in `weights`, which must outlive it. */
DpTextEncoder *dp_text_encoder_new (DpDevice *dev, const DpTextConfig *config, const DpWeights *weights, DpType type, int max_tokens,
    gboolean streamed, GError **error);
void dp_text_encoder_free (DpTextEncoder *encoder);

/** Device memory an encoder takes, in bytes. */
gsize dp_text_encoder_bytes (const DpTextConfig *config, DpType type, int max_tokens, gboolean streamed);

/** A text to encode: ids[n] -> out[n, d_model] float32 in host memory, 1 <= n <= max_tokens. */
typedef struct
{
  const gint32 *ids;
  int n;
  float *out;
} DpTokens;

#define DP_TEXT_ENCODER_TEXTS 2

/** Encodes up to DP_TEXT_ENCODER_TEXTS texts, independently of each other, in one sweep over the layers. Each id is checked against the
 *  vocabulary. */
gboolean dp_text_encoder_encode (DpTextEncoder *encoder, const DpTokens *texts, int n_texts, GError **error);
