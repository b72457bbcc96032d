/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * elements.h: arrays of either type as vectors, for isa sources; and the items of a chunk of dp_cpu_run().
 *
 * Types are constants at every call, so each combination becomes a loop of its own.
 */
#pragma once

#include "../numeric.h"
#include "cpu.h"
#include "vec.h"

/* Elements [i, i + VEC) of an array of n, zeros behind its end. */
DP_INLINE Vec
load (DpType type, const void *x, size_t i, size_t n)
{
  int lanes = vec_lanes (n - i);

  return type == DP_TYPE_F32 ? vec_load_first ((const float *) x + i, lanes) : vec_load_first_bf16 ((const uint16_t *) x + i, lanes);
}

/* The way back; nothing is written behind the end. */
DP_INLINE void
store (DpType type, void *y, size_t i, size_t n, Vec v)
{
  int lanes = vec_lanes (n - i);

  if (type == DP_TYPE_F32)
    vec_store_first ((float *) y + i, v, lanes);
  else
    vec_store_first_bf16 ((uint16_t *) y + i, v, lanes);
}

/* x / (1 + e^-u), u of x's sign, by an exponential that cannot overflow; `coarse` where it is rounded to bfloat16. SiLU where u is x. */
DP_INLINE Vec
sigmoid_product (Vec x, Vec u, bool coarse)
{
  Vec e = vec_exp2 ((Vec) ((VecInt) u | INT32_MIN) * LOG2E, coarse);

  return vec_blend (x > 0, x, x * e) / (1 + e);
}

/* 0, 1, 2 ... */
DP_INLINE VecInt
lane_numbers (void)
{
  VecInt lanes;

  for (int i = 0; i < VEC; i++)
    lanes[i] = i;
  return lanes;
}

/* The items of one chunk. */
typedef struct
{
  size_t from, to;
} Range;

DP_INLINE Range
range (const DpCpuJob *job, int chunk)
{
  size_t from = chunk * job->per_chunk, left = job->n - from;

  return (Range) { from, from + (left < job->per_chunk ? left : job->per_chunk) };
}

DP_INLINE const void *
at (DpType type, const void *x, size_t i)
{
  return type == DP_TYPE_F32 ? (const void *) ((const float *) x + i) : (const void *) ((const uint16_t *) x + i);
}
