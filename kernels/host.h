/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * host.h: memory and facts of the host, for all backends: the memory ops of those whose memory is the host's, and what every backend
 * needs to read weights.
 *
 * Thread-safety: what takes a device, as the device; the rest from anywhere.
 */
#pragma once

#include "device.h"

/* -- the ops; they call the other device's where a mark or one end of a transfer is not of the host -- */

DP_MEMORY_OPS (DP_OP_PROTOTYPE, host)

/* -- host memory, counted in dev->bytes -- */

/** 64-byte aligned; NULL if the machine has not that much available. alloc_host() is the op: it counts in dev->allocations too. */
void *dp_host_memory_new (DpDevice *dev, size_t bytes);
void dp_host_memory_free (DpDevice *dev, void *ptr);

/* -- facts -- */

/** Physical memory of this machine, and what is left of it, in bytes; what was handed out above counts as gone. */
void dp_host_memory_size (size_t *total, size_t *available);

/** What the processor calls itself, "AMD EPYC 9355"; falls back to the machine's architecture. */
void dp_host_processor_name (char *name, size_t size);

/** CLOCK_MONOTONIC in microseconds. */
int64_t dp_host_now (void);

/* -- packing -- */

/** Rows of all pieces together: N. */
int dp_linear_rows (const DpLinearSpec *spec);

/** Whether none of n elements is NaN or infinite. */
bool dp_all_finite (DpType type, const void *data, size_t n);

/** The same of a weight of n elements, or of all that a layer is packed from. If one is not, false, and a failure latches. */
bool dp_weight_is_finite (DpDevice *dev, const DpHostWeight *weight, size_t n);
bool dp_linear_is_finite (DpDevice *dev, const DpLinearSpec *spec);
bool dp_conv_is_finite (DpDevice *dev, const DpConvSpec *spec);

/** dst = the n elements of a file's array as float32, first rounded to bfloat16 if `type` is that. */
void dp_weight_to_f32 (const DpHostWeight *weight, size_t n, DpType type, float *dst);

/** The stacked weights [N, K] and biases [N] of a linear layer as float32. False if it has no bias (bias untouched). */
void dp_linear_weights (const DpLinearSpec *spec, float *weights);
bool dp_linear_biases (const DpLinearSpec *spec, float *biases);
