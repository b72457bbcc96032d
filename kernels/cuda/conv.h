/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * conv.h: the kernels of conv.c, in conv.cu. Each enqueues on the device's stream; a launch that fails is latched.
 * Shapes as in ops.h: ci channels in, co out, kernel kt x kh x kw of `taps` weights a pair of channels.
 */
#pragma once

#include "cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What computes a layer; decided when it is packed. */
typedef enum
{
  DP_CONV_CUDNN,                /* bfloat16, channels in eights */
  DP_CONV_NARROW,               /* bfloat16, co <= DP_CONV_NARROW_MAX: own kernel on tensor cores */
  DP_CONV_PLAIN,                /* float32, and what the others cannot: own kernel in float32 */
} DpConvKind;

enum { DP_CONV_NARROW_MAX = 8 };

/** Channels that the narrow kernel has in shared memory at a time; 0 if the kernel's window is too large for it. */
int dp_conv_narrow_chunk (const DpConvSpec *spec);

/** Bytes of a layer's packed weights. */
size_t dp_conv_packed_size (DpConvKind kind, const DpConvSpec *spec);

/** w: [co, ci, taps] of the spec's type, as in the file. packed, by kind: [co, taps, ci] of that type; the fragments of the matrix
 *  instruction; [taps, ci, co] in float32. */
void dp_conv_pack (DpDeviceCuda *dev, DpConvKind kind, const DpConvSpec *spec, const void *w, void *packed);

/** y = conv (x) + bias + add, for the kinds that are not cuDNN's. bias is [co]. */
void dp_conv_narrow (DpDeviceCuda *dev, const DpConvSpec *spec, const DpConvArgs *args, const void *packed, const float *bias);
void dp_conv_plain (DpDeviceCuda *dev, const DpConvSpec *spec, const DpConvArgs *args, const void *packed, const float *bias);

/** y[n, co] = x + bias + add, bfloat16, co in eights; x and add may be y, add may be NULL. What an engine of cuDNN did not do itself. */
void dp_conv_finish (DpDeviceCuda *dev, size_t n, int co, const void *x, const float *bias, const void *add, void *y);

#ifdef __cplusplus
}
#endif
