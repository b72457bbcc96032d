/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ref.h: the reference backend: each op as its formula reads, in plain loops on one thread, sums in double. It is the yardstick
 * of the tests, not something to run a model on. Contracts in ops.h.
 */
#pragma once

#include "../backend.h"
#include "../e4m3.h"
#include "../numeric.h"

#include <assert.h>
#include <math.h>

DpLinear *linear_new_ref (DpDevice *dev, const DpLinearSpec *spec);
void linear_free_ref (DpDevice *dev, DpLinear *linear);
bool linear_refill_ref (DpDevice *dev, DpLinear *linear, const DpLinearSpec *spec);
void linear_ref (DpDevice *dev, const DpLinear *linear, const DpLinearArgs *args);

DpConv *conv_new_ref (DpDevice *dev, const DpConvSpec *spec);
void conv_free_ref (DpDevice *dev, DpConv *conv);
void conv_ref (DpDevice *dev, DpConv *conv, const DpConvArgs *args);

void attention_ref (DpDevice *dev, const DpAttentionArgs *args);

void layer_norm_ref (DpDevice *dev, const DpLayerNormArgs *args);
void rms_norm_ref (DpDevice *dev, const DpRmsNormArgs *args);
void channel_norm_ref (DpDevice *dev, const DpChannelNormArgs *args);

void upsample_ref (DpDevice *dev, const DpUpsampleArgs *args);
void pack_frame_ref (DpDevice *dev, const DpPackFrameArgs *args);
void patchify_ref (DpDevice *dev, int t, int h, int w, int channels, const float *x, DpType y_type, void *y);
void unpatchify_ref (DpDevice *dev, int t, int h, int w, int channels, const float *x, float *y);

void multiply_ref (DpDevice *dev, size_t n, DpType type, const void *a, const void *b, void *y);
void combine_ref (DpDevice *dev, size_t n, int terms, const float *const *x, const float *coef, float *y);
void convert_ref (DpDevice *dev, size_t n, DpType x_type, const void *x, DpType y_type, void *y);

/** silu or gelu_tanh of x. */
static inline double
activate_ref (DpActivation act, double x)
{
  if (act == DP_ACT_GELU_TANH)
    return 0.5 * x * (1 + tanh (sqrt (2 / M_PI) * (x + 0.044715 * x * x * x)));
  if (act == DP_ACT_SILU)
    return x / (1 + exp (-x));
  return x;
}
