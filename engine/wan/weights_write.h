/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * weights_write.h: a safetensors file of float32 tensors.
 */
#pragma once

#include "weights.h"

/** What is written of a tensor. */
typedef struct
{
  const char *name;
  int n_dims;
  gint64 dims[DP_TENSOR_MAX_DIMS];
  const float *data;
} DpTensorOut;

/** Writes `path` atomically (temporary file, then rename). Errors: DP_ERROR_FAILED. */
gboolean dp_weights_write (const char *path, const DpTensorOut *tensors, int n, GError **error);
