/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * quantized.h: numbers that a file holds in fewer bits than a float: the two fp8 types of safetensors, and GGML's blocks.
 *
 * A block is some numbers next to each other in a row, with a scale of their own. fp8 has blocks of one number; its scales, if it has any,
 * are tensors of their own.
 */
#pragma once

#include <glib.h>

#define DP_QUANTIZED_MAX_BLOCK 256

typedef struct
{
  const char *dtype;            /* safetensors' name of the type, or GGML's */
  int block;                    /* numbers in a block, at most DP_QUANTIZED_MAX_BLOCK */
  int bytes;                    /* of a block */
  void (*unpack) (const guint8 *from, gsize blocks, float *to); /* to: [blocks * block]; gives the bits of GGML's own code */
} DpQuantized;

/** NULL: not a type that is known here. */
const DpQuantized *dp_quantized_find (const char *dtype);
