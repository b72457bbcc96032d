/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What kernels for compute capability 9.0 need and CUDA C++ has no words for: barriers in shared memory, bulk tensor copies, matrix
 * products of a warp group, and the registers that a warp group has. NVIDIA's PTX ISA describes each instruction.
 */
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <stdint.h>

namespace hopper
{
static __device__ __forceinline__ uint32_t
shared (const void *p)
{
  return (uint32_t) __cvta_generic_to_shared (p);
}

/* ---- barriers: each phase is over once `count` have arrived and the expected bytes have come ---- */

static __device__ __forceinline__ void
barrier_init (uint64_t *barrier, int count)
{
  asm volatile ("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r" (shared (barrier)), "r" (count));
}

static __device__ __forceinline__ void
barrier_arrive (uint64_t *barrier)
{
  asm volatile ("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r" (shared (barrier)) : "memory");
}

static __device__ __forceinline__ void
barrier_expect (uint64_t *barrier, int bytes)
{
  asm volatile ("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r" (shared (barrier)), "r" (bytes) : "memory");
}

static __device__ __forceinline__ void
barrier_wait (uint64_t *barrier, uint32_t phase)
{
  asm volatile ("{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" :: "r" (shared (barrier)), "r" (phase) : "memory");
}

/* ---- named barriers, which hand a turn from one warp group to the next ---- */

static __device__ __forceinline__ void
turn_wait (int id, int threads)
{
  asm volatile ("bar.sync %0, %1;" :: "r" (id), "r" (threads) : "memory");
}

static __device__ __forceinline__ void
turn_give (int id, int threads)
{
  asm volatile ("bar.arrive %0, %1;" :: "r" (id), "r" (threads) : "memory");
}

/* ---- bulk copies of a box from a tensor of three axes ---- */

static __device__ __forceinline__ void
load_box (void *to, const CUtensorMap *map, int x, int y, int z, uint64_t *barrier)
{
  asm volatile ("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
      :: "r" (shared (to)), "l" (map), "r" (x), "r" (y), "r" (z), "r" (shared (barrier)) : "memory");
}

/* ---- matrix products ---- */

/* A matrix in shared memory, in rows of 128 bytes (or 64) that are swizzled in groups of eight: `stride` bytes from one group to the next,
 * and `leading` bytes between two blocks of 64 columns, where a transposed matrix has several. */
static __device__ __forceinline__ uint64_t
matrix (uint32_t address, int leading, int stride, int row_bytes = 128)
{
  return (uint64_t) (address >> 4 & 0x3fff) | (uint64_t) (leading >> 4) << 16 | (uint64_t) (stride >> 4) << 32
      | (uint64_t) (row_bytes == 128 ? 1 : 2) << 62;
}

static __device__ __forceinline__ void
products_begin ()
{
  asm volatile ("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void
products_commit ()
{
  asm volatile ("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until at most N groups of products are under way. */
template<int N> static __device__ __forceinline__ void
products_wait ()
{
  asm volatile ("wgmma.wait_group.sync.aligned %0;" :: "n" (N) : "memory");
}

/* Keeps the compiler from moving what reads or writes registers across products that run. */
template<int N> static __device__ __forceinline__ void
pin (float (&x)[N])
{
#pragma unroll
  for (int i = 0; i < N; i++)
    asm volatile ("" : "+f" (x[i]) :: "memory");
}

template<int N> static __device__ __forceinline__ void
pin (uint32_t (&x)[N])
{
#pragma unroll
  for (int i = 0; i < N; i++)
    asm volatile ("" : "+r" (x[i]) :: "memory");
}

#define DP_F4(x, i) "+f" (x[i]), "+f" (x[i + 1]), "+f" (x[i + 2]), "+f" (x[i + 3])
#define DP_F16(x, i) DP_F4 (x, i), DP_F4 (x, i + 4), DP_F4 (x, i + 8), DP_F4 (x, i + 12)

/* c [64, 80] (+)= a [64, 16] . b [80, 16]^T, bfloat16. */
static __device__ __forceinline__ void
multiply_80 (float (&c)[40], uint64_t a, uint64_t b, int add)
{
  asm volatile ("{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %42, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39}, %40, %41, add, 1, 1, 0, 0;\n"
      "}" : DP_F16 (c, 0), DP_F16 (c, 16), DP_F4 (c, 32), DP_F4 (c, 36) : "l" (a), "l" (b), "r" (add));
}

/* c [64, 128] (+)= a [64, 16] . b [16, 128], bfloat16, a in registers. */
static __device__ __forceinline__ void
multiply_128 (float (&c)[64], const uint32_t *a, uint64_t b, int add)
{
  asm volatile ("{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, add, 1, 1, 1;\n"
      "}" : DP_F16 (c, 0), DP_F16 (c, 16), DP_F16 (c, 32), DP_F16 (c, 48)
      : "r" (a[0]), "r" (a[1]), "r" (a[2]), "r" (a[3]), "l" (b), "r" (add));
}

#define DP_R4(x, i) "+r" (x[i]), "+r" (x[i + 1]), "+r" (x[i + 2]), "+r" (x[i + 3])
#define DP_R16(x, i) DP_R4 (x, i), DP_R4 (x, i + 4), DP_R4 (x, i + 8), DP_R4 (x, i + 12)

/* c [64, 192] (+)= a [64, 32] . b [192, 32]^T, e4m3, c in half precision, two columns in one register. */
static __device__ __forceinline__ void
multiply_192_e4m3 (uint32_t (&c)[48], uint64_t a, uint64_t b, int add)
{
  asm volatile ("{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %50, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k32.f16.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}, "
      "%48, %49, add, 1, 1;\n"
      "}" : DP_R16 (c, 0), DP_R16 (c, 16), DP_R16 (c, 32) : "l" (a), "l" (b), "r" (add));
}

/* c [64, 136] (+)= a [64, 32] . b [136, 32]^T, e4m3, a in registers. */
static __device__ __forceinline__ void
multiply_136_e4m3 (float (&c)[64], float (&last)[4], const uint32_t *a, uint64_t b, int add)
{
  asm volatile ("{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %73, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n136k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67}, {%68, %69, %70, %71}, %72, add, 1, 1;\n"
      "}" : DP_F16 (c, 0), DP_F16 (c, 16), DP_F16 (c, 32), DP_F16 (c, 48), DP_F4 (last, 0)
      : "r" (a[0]), "r" (a[1]), "r" (a[2]), "r" (a[3]), "l" (b), "r" (add));
}

/* ---- arithmetic ---- */

/* Without the compiler seeing a constant, which it would not leave in the registers of products. */
template<int N> static __device__ __forceinline__ void
clear (float (&x)[N])
{
#pragma unroll
  for (int i = 0; i < N; i++)
    asm volatile ("mov.f32 %0, 0f00000000;" : "=f" (x[i]));
}

/* max (0, x * y + z), of two halves each. */
static __device__ __forceinline__ uint32_t
multiply_add_relu (uint32_t x, uint32_t y, uint32_t z)
{
  uint32_t r;

  asm ("fma.rn.relu.f16x2 %0, %1, %2, %3;" : "=r" (r) : "r" (x), "r" (y), "r" (z));
  return r;
}

static __device__ __forceinline__ uint32_t
max_of (uint32_t x, uint32_t y)
{
  uint32_t r;

  asm ("max.f16x2 %0, %1, %2;" : "=r" (r) : "r" (x), "r" (y));
  return r;
}

/* ---- what both kernels of attention have ---- */

/* Position in a ring, and the parity of the round. */
template<int STAGES> struct Ring
{
  int stage;
  uint32_t phase;

  __device__ __forceinline__ void
  next ()
  {
    if (++stage == STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
};

/* The barriers of a block's shared memory: copies fill its rings, and each of the `warps` that compute says when it has done with a stage. */
template<typename Shared> static __device__ __forceinline__ void
open_barriers (Shared &s, int stages, int warps)
{
  barrier_init (&s.q_full, 1);
  barrier_init (&s.q_empty, warps);
  for (int i = 0; i < stages; i++) {
    barrier_init (&s.k_full[i], 1);
    barrier_init (&s.k_empty[i], warps);
    barrier_init (&s.v_full[i], 1);
    barrier_init (&s.v_empty[i], warps);
  }
  asm volatile ("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* Four threads have two columns each of four times eight; afterwards each has one of the four eights. */
static __device__ __forceinline__ void
transpose_quad (uint32_t (&x)[4], int quad)
{
  uint32_t a = __shfl_xor_sync (~0u, quad & 1 ? x[0] : x[1], 1), b = __shfl_xor_sync (~0u, quad & 1 ? x[2] : x[3], 1);

  x[0] = quad & 1 ? a : x[0];
  x[1] = quad & 1 ? x[1] : a;
  x[2] = quad & 1 ? b : x[2];
  x[3] = quad & 1 ? x[3] : b;
  a = __shfl_xor_sync (~0u, quad & 2 ? x[0] : x[2], 2);
  b = __shfl_xor_sync (~0u, quad & 2 ? x[1] : x[3], 2);
  x[0] = quad & 2 ? a : x[0];
  x[1] = quad & 2 ? b : x[1];
  x[2] = quad & 2 ? x[2] : a;
  x[3] = quad & 2 ? x[3] : b;
}
}
