/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vec.cuh: what the kernels share: elements of either type in vectors, sums over lanes, launch sizes.
 *
 * A kernel for the memory-bound ops is a template over the types and V, the elements a thread moves in one access: 16 bytes of the
 * input where pointers and strides allow, else 1. Arithmetic is float32.
 */
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "cuda.h"

typedef __nv_bfloat16 bf16;

__device__ static inline float to_f32 (float x) { return x; }
__device__ static inline float to_f32 (bf16 x) { return __bfloat162float (x); }
__device__ static inline float to_f32 (__half x) { return __half2float (x); }
__device__ static inline void from_f32 (float f, float *y) { *y = f; }
__device__ static inline void from_f32 (float f, bf16 *y) { *y = __float2bfloat16_rn (f); }

/* V elements as memory sees them. */
template <typename T, int V>
struct alignas (sizeof (T) * V < 16 ? sizeof (T) * V : 16) Vec
{
  T e[V];
};

template <int V, typename T>
__device__ static inline void
load (const T *x, float (&f)[V])
{
  Vec<T, V> v = *reinterpret_cast<const Vec<T, V> *> (x);

#pragma unroll
  for (int i = 0; i < V; i++)
    f[i] = to_f32 (v.e[i]);
}

template <int V, typename T>
__device__ static inline void
store (T *y, const float (&f)[V])
{
  Vec<T, V> v;

#pragma unroll
  for (int i = 0; i < V; i++)
    from_f32 (f[i], &v.e[i]);
  *reinterpret_cast<Vec<T, V> *> (y) = v;
}

static __device__ __forceinline__ float
power_of_two (float x)
{
  float y;

  asm ("ex2.approx.ftz.f32 %0, %1;" : "=f" (y) : "f" (x));
  return y;
}

/* Two floats as bfloat16, the first in the lower half. */
static __device__ __forceinline__ uint32_t
pack (float low, float high)
{
  uint32_t x;

  asm ("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r" (x) : "f" (high), "f" (low));
  return x;
}

/* The sum over the `lanes` (a power of two) lanes that hold neighbouring values. Every lane of the warp takes part. */
__device__ static inline float
lane_sum (float f, int lanes)
{
  for (int i = lanes / 2; i > 0; i /= 2)
    f += __shfl_xor_sync (0xffffffff, f, i);
  return f;
}

/* The sum over the block, a multiple of 32 threads, in the same order whichever row it is. `shared` has 32 floats and may be used again for
 * another sum after the next barrier only: alternate between two. */
__device__ static inline float
block_sum (float f, float *shared)
{
  int warps = blockDim.x / 32;

  f = lane_sum (f, 32);
  if (warps == 1)
    return f;
  if (threadIdx.x % 32 == 0)
    shared[threadIdx.x / 32] = f;
  __syncthreads ();
  f = threadIdx.x % 32 < warps ? shared[threadIdx.x % 32] : 0;
  return lane_sum (f, 32);
}

/* Errors of a few units in the last place of float32: far below what storage in either type shows. */
__device__ static inline float
silu (float x)
{
  return __fdividef (x, 1 + __expf (-x));
}

__device__ static inline float
gelu_tanh (float x)
{
  /* 0.5 (1 + tanh (u)) is 1 / (1 + exp (-2u)). */
  return __fdividef (x, 1 + __expf (-1.5957691216057308f * (x + 0.044715f * x * x * x)));
}

__device__ static inline float
activate (DpActivation act, float x)
{
  return act == DP_ACT_SILU ? silu (x) : act == DP_ACT_GELU_TANH ? gelu_tanh (x) : x;
}

/* Whether pointers and distances (bytes) are all multiples of `bytes`, which is a power of two; 0 fits anything. */
static inline bool
aligned (size_t bytes, size_t a, size_t b = 0, size_t c = 0, size_t d = 0, size_t e = 0)
{
  return ((a | b | c | d | e) & (bytes - 1)) == 0;
}

static inline unsigned
blocks_for (size_t n, size_t per_block)
{
  return (unsigned) ((n + per_block - 1) / per_block);
}
