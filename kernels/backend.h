/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * backend.h: what a backend shows to device.c, and what backends whose memory is the host's share (host.c).
 */
#pragma once

#include "device.h"

/** Thread-safety: all from anywhere, as in device.h. */
typedef struct
{
  const char *name;             /* "cpu": the part of a device's name before the colon */
  DpDevice *(*open) (const char *name, int threads, char *error, size_t error_size);    /* threads >= 1 */
  void (*close) (DpDevice *dev);
  bool (*info) (const char *name, DpDeviceInfo *info, char *error, size_t error_size);
} DpBackend;

extern const DpBackend dp_backend_ref, dp_backend_cpu;

/** Every backend's mark begins with this; one of the host is no more. */
struct DpMark
{
  DpDevice *dev;                /* it was made on */
  int64_t time;                 /* atomic; of the host: when it was set, or 0 */
};

/** What "cuda:N" says on a machine without a driver; %s is its name. */
#define DP_NO_DRIVER "device %s: there is no NVIDIA driver here (libcuda.so.1); install it, or use devices=cpu"

/* -- host memory, counted in dev->bytes -- */

/** 64-byte aligned; NULL when the machine has not that much available. dp_host_alloc() is the op: it counts in dev->allocations too. */
void *dp_host_memory_new (DpDevice *dev, size_t bytes);
void dp_host_memory_free (DpDevice *dev, void *ptr);

void *dp_host_alloc (DpDevice *dev, size_t bytes);
void dp_host_free (DpDevice *dev, void *ptr);
void dp_host_upload (DpDevice *dev, void *dst, const void *host, size_t bytes);
void dp_host_download (DpDevice *dev, void *host, const void *src, size_t bytes);
void dp_host_copy (DpDevice *dev, void *dst, const void *src, size_t bytes);
void dp_host_fill (DpDevice *dev, void *dst, int byte, size_t bytes);
void dp_host_sync (DpDevice *dev);

/* -- marks and transfers: ops, which call the other device's where a mark or an end is not of the host -- */

DpMark *dp_host_mark_new (DpDevice *dev);
void dp_host_mark_free (DpDevice *dev, DpMark *mark);
void dp_host_mark (DpDevice *dev, DpMark *mark);
void dp_host_mark_wait (DpDevice *dev, const DpMark *mark);
int64_t dp_host_mark_time (DpDevice *dev, const DpMark *mark);
void dp_host_follow (DpDevice *dev, const DpMark *mark);
void dp_host_transfer (DpDevice *dev, const DpTransferArgs *args);

/** CLOCK_MONOTONIC in microseconds. */
int64_t dp_host_now (void);

/** Physical memory of this machine, and what is left of it, in bytes; what was handed out above counts as gone. */
void dp_host_memory_size (size_t *total, size_t *available);

/** What the processor calls itself, "AMD EPYC 9355"; falls back to the machine's architecture. */
void dp_host_processor_name (char *name, size_t size);

/* -- packing -- */

/** Rows of all pieces together: N. */
int dp_linear_rows (const DpLinearSpec *spec);

/** dst = the n elements of a file's array as float32, first rounded to bfloat16 if `type` is that. */
void dp_weight_to_f32 (const DpHostWeight *weight, size_t n, DpType type, float *dst);

/** The stacked weights [N, K] and biases [N] of a linear layer as float32. False if it has no bias (bias untouched). */
void dp_linear_weights (const DpLinearSpec *spec, float *weights);
bool dp_linear_biases (const DpLinearSpec *spec, float *biases);
