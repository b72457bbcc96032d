/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * quantize.h: to e4m3 and back, in quantize.cu, for linear.c and attention.c. Each enqueues on the device's stream; a launch that
 * fails is latched. Rows are bfloat16 of multiples of 8, aligned to 16 bytes.
 */
#pragma once

#include "cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/** y[rows, cols] (e4m3, dense) = x scaled and rounded, row by row; inverse[rows] = 1 / scale. */
void dp_cuda_round_rows (DpDeviceCuda *dev, int rows, int cols, const void *x, size_t stride, void *y, float *inverse);

/** gated_inverse[n] = inverse * gate, gated_bias[n] (bfloat16) = bias * gate; bias may be NULL. */
void dp_cuda_gate_rows (DpDeviceCuda *dev, int n, const float *inverse, const void *bias, const float *gate, float *gated_inverse,
    void *gated_bias);

/** What attention in e4m3 multiplies with, in device memory, each number at 16 bytes for cuDNN. */
typedef struct
{
  float inverse[3][4];          /* of the scales of q, k and v */
  float p[4], inverse_p[4];     /* scale of the probabilities */
  float out[4];                 /* scale of the result */
  float most_p[4], most_out[4]; /* cuDNN writes them; they are not read */
  unsigned most[4];             /* largest magnitudes of q, k and v, as bits */
} DpAttentionScales;

/** q, k, v (e4m3, dense) = the arguments' scaled and rounded, and all scales. */
void dp_cuda_round_attention (DpDeviceCuda *dev, const DpAttentionArgs *args, void *q, void *k, void *v, DpAttentionScales *scales);

/** The arguments' out = out (e4m3, dense) scaled back, exactly. */
void dp_cuda_widen_attention (DpDeviceCuda *dev, const DpAttentionArgs *args, const void *out, const DpAttentionScales *scales);

#ifdef __cplusplus
}
#endif
