/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * attention.h: the kernels of attention.c, in attention.cu, attention_hopper.cu and attention_e4m3.cu. Each enqueues on the device's
 * stream; a launch that fails is latched.
 * Strides in the arguments are filled in (never 0). Shapes as in ops.h: H heads of d channels.
 */
#pragma once

#include "cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Attention of bfloat16 heads with d <= 128, on tensor cores: softmax over 64 keys at a time, in float32, the probabilities rounded to
 *  bfloat16 for the product with v. A query's bits depend on no other query. Any alignment; rows of 16-byte multiples are faster. */
void dp_attention_flash (DpDeviceCuda *dev, const DpAttentionArgs *args);

/** Attention of either type, d <= DP_ATTENTION_SIMPLE_MAX, all arithmetic in float32. */
enum { DP_ATTENTION_SIMPLE_MAX = 1024 };
void dp_attention_simple (DpDeviceCuda *dev, const DpAttentionArgs *args);

/** p[i, j] = softmax over j of (s[i, j] + biases), for queries first <= i < first + rows of one head, in place where the types are
 *  alike. s is float32 and scaled already; s and p have `pitch` elements a row. */
void dp_attention_softmax (DpDeviceCuda *dev, const DpAttentionArgs *args, int head, int first, int rows, int pitch, const float *s,
    void *p);

/** Attention of bfloat16 heads of 128 channels on a GPU of compute capability 9.0. Pointers and rows are multiples of 16 bytes; no
 *  rel_bias. The probabilities are rounded to bfloat16 for the product with v. A query's bits depend on no other query. The workspace holds
 *  what dp_attention_hopper_workspace() says. */
void dp_attention_hopper (DpDeviceCuda *dev, const DpAttentionArgs *args, void *workspace);
size_t dp_attention_hopper_workspace (const DpAttentionArgs *args);

/** The same in e4m3, where it may be so (DpAttentionArgs.fp8). A query's bits depend on no other query. */
void dp_attention_e4m3 (DpDeviceCuda *dev, const DpAttentionArgs *args, void *workspace);
size_t dp_attention_e4m3_workspace (const DpAttentionArgs *args);

#ifdef __cplusplus
}
#endif
