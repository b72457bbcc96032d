/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * linear.h: the kernels of linear.c, in linear.cu. Each enqueues on the device's stream; a launch that fails is latched.
 * Shapes as in ops.h: L rows, K and N features.
 */
#pragma once

#include "cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/** y[L, N] = act (t[L, N] + bias[N]), or y += gate * (t + bias): the end of a product that the library could not finish itself. t is
 *  dense float32, bias and gate may be NULL; y and its stride as args say. */
void dp_linear_finish (DpDeviceCuda *dev, int n, const float *t, const float *bias, const DpLinearArgs *args);

/** y[n, k] = w[n, k] * gate[n], bfloat16. */
void dp_linear_gate (DpDeviceCuda *dev, int n, int k, const void *w, const float *gate, void *y);

#ifdef __cplusplus
}
#endif
