/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * numeric.h: bfloat16 and half as bits. Static inline, so that each instruction set's compilation gets its own copy.
 */
#pragma once

#include "ops.h"

#include <string.h>

static inline float
dp_f32_from_bits (uint32_t bits)
{
  float f;

  memcpy (&f, &bits, 4);
  return f;
}

static inline uint32_t
dp_bits_from_f32 (float f)
{
  uint32_t bits;

  memcpy (&bits, &f, 4);
  return bits;
}

static inline float
dp_f32_from_bf16 (uint16_t h)
{
  return dp_f32_from_bits ((uint32_t) h << 16);
}

/** Round to nearest even; a NaN stays one (quiet). */
static inline uint16_t
dp_bf16_from_f32 (float f)
{
  uint32_t u = dp_bits_from_f32 (f);
  uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  uint32_t quiet = (u >> 16) | 0x40;

  return (uint16_t) ((u & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

static inline float
dp_f32_from_f16 (uint16_t h)
{
  uint32_t sign = (uint32_t) (h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff;

  if (exponent == 31)
    return dp_f32_from_bits (sign | 0x7f800000 | mantissa << 13);
  if (exponent != 0)
    return dp_f32_from_bits (sign | (exponent + 112) << 23 | mantissa << 13);
  /* Subnormal: mantissa * 2^-24, exact in float. */
  return dp_f32_from_bits (sign | dp_bits_from_f32 ((float) mantissa * 0x1p-24f));
}

/** Element i of an array of `type`, as float32. */
static inline float
dp_load (DpType type, const void *data, size_t i)
{
  switch (type) {
    case DP_TYPE_F32:
      return ((const float *) data)[i];
    case DP_TYPE_BF16:
      return dp_f32_from_bf16 (((const uint16_t *) data)[i]);
    default:
      return dp_f32_from_f16 (((const uint16_t *) data)[i]);
  }
}

/** Stores f as element i of an array of `type` (float32 or bfloat16). */
static inline void
dp_store (DpType type, void *data, size_t i, float f)
{
  if (type == DP_TYPE_F32)
    ((float *) data)[i] = f;
  else
    ((uint16_t *) data)[i] = dp_bf16_from_f32 (f);
}
