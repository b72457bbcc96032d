/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * weights.h: safetensors files as read-only views into a memory map.
 *
 * A DpWeights is one or several .safetensors files (a sharded model with its index.json) seen as one set of named tensors. The
 * header is checked completely before anything is handed out: sizes, offsets, overlaps, types; after that every tensor is
 * a plain pointer into the map; only what lies misaligned there is copied aside. A file that is cut off or lies about itself is refused
 * with one sentence: file, tensor, expected, found.
 */
#pragma once

#include <glib.h>
#include "kernels/ops.h"

#define DP_TENSOR_MAX_DIMS 8

/** A view into the map; valid while its DpWeights lives. */
typedef struct
{
  const char *name;
  DpType type;
  int n_dims;
  gint64 dims[DP_TENSOR_MAX_DIMS];
  const void *data;             /* aligned to its element */
  gsize bytes;
} DpTensor;

/* Thread-safety: immutable after open, so readable from any thread. */
typedef struct _DpWeights DpWeights;

/** Opens `dir`/`stem`.safetensors, or the shards named by `dir`/`stem`.safetensors.index.json. With stem NULL, `dir` is a file.
 *  Accepts F32, BF16 and F16 tensors (others are listed but cannot be got).
 *  Errors: DP_ERROR_NOT_FOUND, DP_ERROR_BAD_MODEL. */
DpWeights *dp_weights_open (const char *dir, const char *stem, GError **error);
void dp_weights_free (DpWeights *weights);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (DpWeights, dp_weights_free)

/** The path it was opened from, for messages. */
const char *dp_weights_path (const DpWeights *weights);

/** The tensor of that name, or NULL without an error. */
const DpTensor *dp_weights_find (const DpWeights *weights, const char *name);

/** The tensor named by the printf-style `format`, checked to have the given shape (n_dims values in dims).
 *  NULL with DP_ERROR_NOT_FOUND (missing) or DP_ERROR_BAD_MODEL (shape or type): file, tensor, expected, found. */
const DpTensor *dp_weights_get (const DpWeights *weights, GError **error, int n_dims, const gint64 *dims, const char *format, ...)
    G_GNUC_PRINTF (5, 6);

/** Whether no element of a tensor of `weights` is NaN or infinite: FALSE with DP_ERROR_BAD_MODEL that names file and tensor. Reads all
 *  of it. Devices find these in what they pack themselves: only what they are not given needs it, and what they refused. */
gboolean dp_weights_check_finite (const DpWeights *weights, const DpTensor *tensor, GError **error);

/** Copies n elements of the tensor's data to float32. */
void dp_tensor_to_f32 (const DpTensor *tensor, gsize first, gsize n, float *out);

/** For writing: a tensor is name, dims and float32 data. Writes `path` atomically (temporary file, then rename). */
typedef struct
{
  const char *name;
  int n_dims;
  gint64 dims[DP_TENSOR_MAX_DIMS];
  const float *data;
} DpTensorOut;
gboolean dp_weights_write (const char *path, const DpTensorOut *tensors, int n, GError **error);
