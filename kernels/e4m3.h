/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * e4m3.h: the eight-bit float of precision "fp8": 4 bits of exponent, 3 of mantissa, no infinities, 448 at most, 2^-9 the least step.
 *
 * Numbers are scaled into its range by powers of two. This costs up to a bit of range and no precision: a number that was rounded
 * once is not rounded again when it is scaled again, and scaling back is exact in bfloat16.
 */
#pragma once

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define DP_EVERYWHERE __host__ __device__
#else
#define DP_EVERYWHERE
#endif

#define DP_E4M3_MAX 448.f

/** The largest power of two that keeps numbers up to `amax` in range; 1 for 0. */
DP_EVERYWHERE static inline float
dp_e4m3_scale (float amax)
{
  int exponent;
  float mantissa = frexpf (amax, &exponent);    /* amax = mantissa * 2^exponent, 0.5 <= mantissa < 1; 448 = 0.875 * 2^9 */

  if (!(amax > 0))
    return 1;
  exponent = (mantissa <= 0.875f ? 9 : 8) - exponent;
  return ldexpf (1, exponent < -120 ? -120 : exponent > 120 ? 120 : exponent);
}

/** The code of the nearest number to `a`, ties to even; the largest one where `a` is beyond. A NaN stays one. */
static inline uint8_t
dp_e4m3_code (float a)
{
  uint8_t sign = signbit (a) ? 0x80 : 0;
  int exponent = a == 0 ? -6 : fmaxf (ilogbf (a), -6);
  int eighths = (int) rintf (ldexpf (fminf (fabsf (a), DP_E4M3_MAX), 3 - exponent));    /* a normal number has 8 or more */

  if (isnan (a))
    return 0x7f;
  return sign | (eighths < 8 ? eighths : (exponent + 6) * 8 + eighths);
}

/** The number that a code stands for. */
static inline float
dp_e4m3_value (uint8_t code)
{
  int exponent = code >> 3 & 15, eighths = code & 7;
  float a = (code & 0x7f) == 0x7f ? NAN : exponent == 0 ? ldexpf (eighths, -9) : ldexpf (8 + eighths, exponent - 10);

  return code & 0x80 ? -a : a;
}
