/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * e4m3.cuh: what the kernels that round to e4m3 share. Scales are powers of two (e4m3.h).
 */
#pragma once

#include "vec.cuh"

#include "../e4m3.h"

#include <cuda_fp8.h>

/* As unsigned numbers, magnitudes are in order, and a NaN is above them all. */
template <int V>
__device__ static inline unsigned
magnitude (const float (&f)[V], unsigned most)
{
#pragma unroll
  for (int k = 0; k < V; k++)
    most = max (most, __float_as_uint (fabsf (f[k])));
  return most;
}

/* The largest over the block, a multiple of 32 threads in x; `shared` has 32 numbers, which are written once. */
__device__ static inline float
block_magnitude (unsigned most, unsigned *shared)
{
  int warps = blockDim.x / 32;

  most = __reduce_max_sync (0xffffffff, most);
  if (warps > 1) {
    if (threadIdx.x % 32 == 0)
      shared[threadIdx.x / 32] = most;
    __syncthreads ();
    most = __reduce_max_sync (0xffffffff, threadIdx.x % 32 < warps ? shared[threadIdx.x % 32] : 0);
  }
  return __uint_as_float (most);
}

/* Saturates, rounds to nearest even; a NaN stays one. */
template <int V>
__device__ static inline void
store_scaled (__nv_fp8_e4m3 *y, const float (&f)[V], float scale)
{
  Vec<__nv_fp8_e4m3, V> v;

#pragma unroll
  for (int k = 0; k < V; k++)
    v.e[k] = __nv_fp8_e4m3 (f[k] * scale);
  *reinterpret_cast<Vec<__nv_fp8_e4m3, V> *> (y) = v;
}
