/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * device.h: where ops run.
 *
 * A DpDevice is one execution context: a queue of work with its own threads (CPU) or stream (GPU), scratch memory and error
 * latch. Two stages on the same hardware open it twice. Names: "cpu" (fast, oneDNN and vector code picked at run time),
 * "ref" (plain C, the yardstick of the tests), "cuda:N" (a module opened at run time).
 *
 * Thread-safety: open and close from anywhere; an open device is used by one thread at a time.
 */
#pragma once

#include "ops.h"

#define DP_DEVICE_MAX_THREADS 1024

/* Every backend's device begins with this. */
struct DpDevice
{
  const DpOps *ops;
  char name[32];                /* as it was asked for: "cpu", "cuda:1" */
  int threads;                  /* host threads it computes with, >= 1 */
  size_t allocations;           /* calls of alloc, linear_new and conv_new so far, and primitives built on first use:
                                 * a test asserts that it stands still after the first block */
  size_t bytes;                 /* device memory held now */
  bool host_memory;             /* its memory is the host's */
  int latents_at_once;          /* how many latent frames a decoder should take at a time here, >= 1 */
  bool no_peer;                 /* for tests: transfers to another GPU go through host memory even if the two reach each other */
  const int *cancel;            /* the owner's flag, or NULL; read atomically. Once it is non-zero it stays so: ops return early and what
                                 * they leave is undefined, and packing may return NULL. For other work the owner points elsewhere */

  /* -- the latch: set from any thread, taken by the device's own */
  int failed;                   /* atomic; 0: no, 1: `error` is being written, 2: yes */
  char error[256];              /* the first failure since the last take */
  bool no_memory;               /* the latest failure was that something did not fit: dp_device_fail_memory() */
};

/* Every backend's mark begins with this; a mark of a host device has nothing else. */
struct DpMark
{
  DpDevice *dev;                /* it was made on */
  int64_t time;                 /* atomic; of a host device: when it was set, or 0 */
};

/** For backends, from any of their threads. */
static inline bool
dp_device_cancelled (const DpDevice *dev)
{
  return dev->cancel && __atomic_load_n (dev->cancel, __ATOMIC_RELAXED);
}

/** Whether a failure waits to be taken. Any thread; never blocks. */
static inline bool
dp_device_failed (const DpDevice *dev)
{
  return __atomic_load_n (&dev->failed, __ATOMIC_ACQUIRE) == 2;
}

/** A mark that can be DpTransferArgs.done between these two: the sender's, or the receiver's if only that is a GPU. Else as mark_new. */
static inline DpMark *
dp_device_link_mark_new (DpDevice *from, DpDevice *to)
{
  DpDevice *dev = from->host_memory ? to : from;

  return dev->ops->mark_new (dev);
}

/** Facts of a device, for people and for planning. */
typedef struct
{
  char name[32];                /* "cpu", "cuda:0" */
  char description[128];        /* "AMD EPYC 9355, 2 threads, AVX-512 BF16" */
  char libraries[128];          /* "oneDNN 2.6.3" */
  size_t memory_total, memory_free;     /* bytes */
  bool fast_bf16;               /* bfloat16 is worth using here */
  double speed;                 /* products (of a multiplication and an addition) a second in bfloat16, roughly: to compare devices */
  bool fp8;                     /* DpLinearSpec.fp8 can be used */
  bool host_memory;             /* as in DpDevice */
  int latents_at_once;          /* likewise */
  int gpus;                     /* of "cuda:N": how many there are, N = 0 ... gpus - 1; also where this one cannot be used */
  bool broken;                  /* only where it cannot be used: a GPU is here, or a driver and the module for one, so
                                 * something is wrong. Not where a GPU, its driver or the module is simply missing */
} DpDeviceInfo;

/** Opens `name` with `threads` host threads (0: one per processor this process may use).
 *  Returns NULL and a sentence in `error` (what was wrong, what would help): unknown name, no such hardware, missing module. */
DpDevice *dp_device_open (const char *name, int threads, char *error, size_t error_size);

/** Frees the device; everything made on it must be freed before. NULL is fine. Waits for queued work. */
void dp_device_close (DpDevice *dev);

/** Describes `name` without keeping it open. False and a sentence in `error` when it cannot be opened; of *info only `gpus`,
 *  `broken` and latents_at_once are set then. */
bool dp_device_info (const char *name, DpDeviceInfo *info, char *error, size_t error_size);

/** Latches the first error, printf style; returns whether this was it. For backends, from any thread. */
bool dp_device_fail (DpDevice *dev, const char *format, ...) __attribute__ ((format (printf, 2, 3)));

/** The same where something did not fit: dev->no_memory is set with it. */
void dp_device_fail_memory (DpDevice *dev, const char *format, ...) __attribute__ ((format (printf, 2, 3)));

/** Returns false and moves the latched message to `error` if anything has failed since the last take. Does not wait for queued
 *  work, so a later failure of that work shows in a later call. */
bool dp_device_take_error (DpDevice *dev, char *error, size_t error_size);

/** Waits for queued work, then takes the error. */
bool dp_device_check (DpDevice *dev, char *error, size_t error_size);

/** Processors this process may run on, or that its cgroup's quota of processor time is worth, if that is less; >= 1. */
int dp_device_processors (void);
