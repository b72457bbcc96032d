/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cpu.h: what the files of the CPU backend share.
 *
 * Every compute op is a job of the device's team (thread_pool.h), cut into chunks whose sizes depend on shapes only. Matrix products
 * and convolutions are oneDNN primitives run single-threaded inside a chunk; the rest is C that the compiler vectorises.
 * Files listed as `isa_sources` in kernels/meson.build are compiled once per instruction set; each defines the things it exports
 * with DP_ISA (name) and the rest of the backend reaches them through DP_ISA_DECLARE and DP_ISA_PICK. They call nothing
 * that another file defines inline, or the linker might keep the wrong instruction set's copy: static functions only.
 */
#pragma once

#include "../host.h"
#include "../thread_pool.h"

#include <oneapi/dnnl/dnnl.h>

typedef enum
{
  DP_ISA_BASE,                  /* what the compiler targets by default */
  DP_ISA_AVX2,                  /* AVX2 and FMA */
  DP_ISA_AVX512,                /* AVX-512 F, BW, VL, DQ and BF16 */
} DpIsa;

#define DP_ISA_PASTE_(name, suffix) name##_##suffix
#define DP_ISA_PASTE(name, suffix) DP_ISA_PASTE_ (name, suffix)
/** The name of `name` in this compilation of an isa source: DP_ISA_SUFFIX is base, avx2 or avx512. */
#define DP_ISA(name) DP_ISA_PASTE (name, DP_ISA_SUFFIX)

/** DP_ISA_DECLARE (const Table, table) declares all variants; DP_ISA_PICK (isa, table) is the address of the right one. */
#if defined (__x86_64__)
#define DP_ISA_DECLARE(type, name) extern type name##_base, name##_avx2, name##_avx512
#define DP_ISA_PICK(isa, name) ((isa) == DP_ISA_AVX512 ? &name##_avx512 : (isa) == DP_ISA_AVX2 ? &name##_avx2 : &name##_base)
#else
#define DP_ISA_DECLARE(type, name) extern type name##_base
#define DP_ISA_PICK(isa, name) (&name##_base)
#endif

/** Thread-safety: as DpDevice; inside a chunk read it, and write only what belongs to the chunk's thread. */
typedef struct
{
  DpDevice base;
  DpThreadPool *team;
  DpIsa isa;
  bool dnnl_bf16;               /* oneDNN computes bfloat16 with the processor's own instructions */
  dnnl_engine_t engine;
  dnnl_stream_t *streams;       /* [threads]: one per thread of the team */
  struct DpProduct *products;   /* linear.c's */
  void **scratch;               /* [threads]: scratch_size bytes each, 64-byte aligned; see dp_cpu_scratch() */
  size_t scratch_size;
  void *shared;                 /* shared_size bytes for all threads; see dp_cpu_shared() */
  size_t shared_size;
} DpDeviceCpu;

static inline DpDeviceCpu *
dp_cpu (DpDevice *dev)
{
  return (DpDeviceCpu *) dev;
}

/** Makes every thread's scratch at least `bytes` (the caller's thread, before dp_thread_pool_run); contents are undefined. Growing counts
 *  as one allocation and moves all scratch. False, with an error latched, when there is no memory. */
bool dp_cpu_scratch (DpDeviceCpu *dev, size_t bytes);

/** Likewise, one piece for all threads. */
bool dp_cpu_shared (DpDeviceCpu *dev, size_t bytes);

/** Latches "what: <name of the status>" unless status is success; returns whether it is. */
bool dp_cpu_dnnl_ok (DpDevice *dev, dnnl_status_t status, const char *what);

/** A job of dp_cpu_run(): the `arg` of its chunks. Chunk c covers items [c * per_chunk, ...) of n. */
typedef struct
{
  const void *args;             /* the op's argument struct, strides filled in */
  size_t n, per_chunk;
} DpCpuJob;

/** Runs an op of n items, rows or elements as the op says, of `width` elements each; few of them on the caller's thread alone. */
void dp_cpu_run (DpDevice *dev, DpTeamFn fn, const void *args, size_t n, size_t width);

/* -- the ops: contracts in ops.h -- */

DP_COMPUTE_OPS (DP_OP_PROTOTYPE, cpu)
