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

/** Memory that this process may have, and what is left of it, in bytes: of the machine, of the process's cgroup or of its address space
 *  (host_limits.h), whatever is least. What was handed out above counts as gone. */
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

/** Whether there is such a weight at all. */
static inline bool
dp_weight_exists (const DpHostWeight *weight)
{
  return weight->data || weight->read;
}

/* These read elements [first, first + n) of a weight. False, and a failure latches, if they cannot be read or one is NaN or infinite. Any
 * of the device's threads. */

/** dst = the elements as they are. */
bool dp_weight_read (DpDevice *dev, const DpHostWeight *weight, size_t first, size_t n, void *dst);

/** dst = the elements as float32, first rounded to bfloat16 if `type` is that. */
bool dp_weight_to_f32 (DpDevice *dev, const DpHostWeight *weight, size_t first, size_t n, DpType type, float *dst);

/** The stacked weights [N, K] and biases [N] of a linear layer as float32; zeros where it has no bias. */
bool dp_linear_weights (DpDevice *dev, const DpLinearSpec *spec, float *weights);
bool dp_linear_biases (DpDevice *dev, const DpLinearSpec *spec, float *biases);
