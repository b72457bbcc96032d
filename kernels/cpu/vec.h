/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vec.h: one float32 vector, as wide as the instruction set of this compilation has it (16, 8 or 4 lanes), for isa sources.
 *
 * Vec is a GCC vector type, so + - * and a * b + c (one fused operation where there is one) are plain C; here is the rest.
 */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined (__AVX2__)
#include <immintrin.h>
#endif

/* e^x is 2^(x LOG2E) */
#define LOG2E 1.44269504088896341f

#define DP_INLINE static inline __attribute__ ((always_inline))

/* In front of a loop over at most 8 vectors that are to stay in registers. clang ignores GCC's pragma without a word. */
#if defined (__clang__)
#define UNROLL _Pragma ("clang loop unroll(full)")
#else
#define UNROLL _Pragma ("GCC unroll 8")
#endif

#if defined (__AVX512F__)
enum { VEC = 16 };
#elif defined (__AVX2__)
enum { VEC = 8 };
#else
enum { VEC = 4 };
#endif

typedef float Vec __attribute__ ((vector_size (VEC * 4), may_alias));
typedef float VecMem __attribute__ ((vector_size (VEC * 4), aligned (4), may_alias));
typedef int32_t VecInt __attribute__ ((vector_size (VEC * 4), may_alias));
typedef uint16_t VecHalf __attribute__ ((vector_size (VEC * 2), aligned (2), may_alias));
/* For 32-bit loads and stores of memory that holds floats or pairs of bfloat16. */
typedef uint32_t Lane __attribute__ ((may_alias));

DP_INLINE Vec
vec_set (float x)
{
#if defined (__AVX512F__)
  return _mm512_set1_ps (x);
#elif defined (__AVX2__)
  return _mm256_set1_ps (x);
#else
  return (Vec) { x, x, x, x };
#endif
}

DP_INLINE Vec
vec_load (const void *p)
{
  return *(const VecMem *) p;
}

DP_INLINE void
vec_store (void *p, Vec x)
{
  *(VecMem *) p = x;
}

DP_INLINE Vec
vec_sqrt (Vec x)
{
#if defined (__AVX512F__)
  return _mm512_sqrt_ps (x);
#elif defined (__AVX2__)
  return _mm256_sqrt_ps (x);
#else
  for (int i = 0; i < VEC; i++)
    x[i] = sqrtf (x[i]);
  return x;
#endif
}

/** a where mask is -1, b where it is 0. */
DP_INLINE Vec
vec_blend (VecInt mask, Vec a, Vec b)
{
  return (Vec) (((VecInt) a & mask) | ((VecInt) b & ~mask));
}

DP_INLINE Vec
vec_max (Vec a, Vec b)
{
#if defined (__AVX512F__)
  return _mm512_max_ps (a, b);
#elif defined (__AVX2__)
  return _mm256_max_ps (a, b);
#else
  return vec_blend (a > b, a, b);
#endif
}

/** bfloat16 to float32. */
DP_INLINE Vec
vec_from_bf16 (VecHalf x)
{
  return (Vec) (__builtin_convertvector (x, VecInt) << 16);
}

/** float32 to bfloat16, to nearest even; NaN stays NaN. What has no normal bfloat16 becomes 0 where the processor does it. */
DP_INLINE VecHalf
vec_to_bf16 (Vec x)
{
#if defined (__AVX512BF16__)
  return (VecHalf) _mm512_cvtneps_pbh (x);
#else
  VecInt bits = (VecInt) x, nan = x != x;
  VecInt rounded = bits + 0x7fff + ((bits >> 16) & 1);

  rounded = (rounded & ~nan) | ((bits | 0x400000) & nan);
  return __builtin_convertvector (rounded >> 16, VecHalf);
#endif
}

DP_INLINE Vec
vec_load_bf16 (const void *p)
{
  return vec_from_bf16 (*(const VecHalf *) p);
}

DP_INLINE void
vec_store_bf16 (void *p, Vec x)
{
  *(VecHalf *) p = vec_to_bf16 (x);
}

/** Lane i of the result is lane LANE (i) of x. LANE is a macro: every compiler wants constants here. */
#define VEC_SHUFFLE(x, LANE) __builtin_shufflevector (x, x, VEC_LANES (LANE))
#define VEC_LANES_4(LANE, i) LANE (i) % VEC, LANE (i + 1) % VEC, LANE (i + 2) % VEC, LANE (i + 3) % VEC
#if defined (__AVX512F__)
#define VEC_LANES(LANE) VEC_LANES_4 (LANE, 0), VEC_LANES_4 (LANE, 4), VEC_LANES_4 (LANE, 8), VEC_LANES_4 (LANE, 12)
#elif defined (__AVX2__)
#define VEC_LANES(LANE) VEC_LANES_4 (LANE, 0), VEC_LANES_4 (LANE, 4)
#else
#define VEC_LANES(LANE) VEC_LANES_4 (LANE, 0)
#endif

/** How many of `left` elements the next vector takes. */
DP_INLINE int
vec_lanes (size_t left)
{
  return left < VEC ? (int) left : VEC;
}

/** The first n lanes, 0 <= n <= VEC, and zeros behind them; nothing else is read. */
DP_INLINE Vec
vec_load_first (const void *p, int n)
{
#if defined (__AVX512F__)
  return _mm512_maskz_loadu_ps ((1u << n) - 1, p);
#else
  Vec x = { 0 };

  if (n == VEC)
    return vec_load (p);
  memcpy (&x, p, n * sizeof (float));
  return x;
#endif
}

DP_INLINE Vec
vec_load_first_bf16 (const void *p, int n)
{
#if defined (__AVX512F__)
  return vec_from_bf16 ((VecHalf) _mm256_maskz_loadu_epi16 ((1u << n) - 1, p));
#else
  VecHalf x = { 0 };

  if (n == VEC)
    return vec_load_bf16 (p);
  memcpy (&x, p, n * sizeof (uint16_t));
  return vec_from_bf16 (x);
#endif
}

/** Only the first n lanes are written. */
DP_INLINE void
vec_store_first (void *p, Vec x, int n)
{
#if defined (__AVX512F__)
  _mm512_mask_storeu_ps (p, (1u << n) - 1, x);
#else
  if (n == VEC)
    vec_store (p, x);
  else
    memcpy (p, &x, n * sizeof (float));
#endif
}

DP_INLINE void
vec_store_first_bf16 (void *p, Vec x, int n)
{
  VecHalf half = vec_to_bf16 (x);

#if defined (__AVX512F__)
  _mm256_mask_storeu_epi16 (p, (1u << n) - 1, (__m256i) half);
#else
  if (n == VEC)
    *(VecHalf *) p = half;
  else
    memcpy (p, &half, n * sizeof (uint16_t));
#endif
}

DP_INLINE float
vec_reduce_add (Vec x)
{
#if defined (__AVX512F__)
  return _mm512_reduce_add_ps (x);
#else
  float lanes[VEC];

  vec_store (lanes, x);
  for (int n = VEC / 2; n > 0; n /= 2)
    for (int i = 0; i < n; i++)
      lanes[i] += lanes[i + n];
  return lanes[0];
#endif
}

DP_INLINE float
vec_reduce_max (Vec x)
{
#if defined (__AVX512F__)
  return _mm512_reduce_max_ps (x);
#else
  float lanes[VEC];

  vec_store (lanes, x);
  for (int n = VEC / 2; n > 0; n /= 2)
    for (int i = 0; i < n; i++)
      lanes[i] = lanes[i] > lanes[i + n] ? lanes[i] : lanes[i + n];
  return lanes[0];
#endif
}

/** c + a * b; with `pairs` every 32-bit lane of a and b is two bfloat16, and their dot product is added. */
DP_INLINE Vec
vec_multiply_add (const int pairs, Vec a, Vec b, Vec c)
{
#if defined (__AVX512BF16__)
  if (pairs)
    return _mm512_dpbf16_ps (c, (__m512bh) a, (__m512bh) b);
#endif
  return a * b + c;
}

typedef uint32_t Four __attribute__ ((vector_size (16), aligned (2), may_alias));

/** Four rows of four lanes become four columns. */
DP_INLINE void
vec_transpose4 (Four x[4])
{
  Four even[2], odd[2];

  for (int i = 0; i < 2; i++) {
    even[i] = __builtin_shufflevector (x[2 * i], x[2 * i + 1], 0, 4, 2, 6);
    odd[i] = __builtin_shufflevector (x[2 * i], x[2 * i + 1], 1, 5, 3, 7);
  }
  x[0] = __builtin_shufflevector (even[0], even[1], 0, 1, 4, 5);
  x[1] = __builtin_shufflevector (odd[0], odd[1], 0, 1, 4, 5);
  x[2] = __builtin_shufflevector (even[0], even[1], 2, 3, 6, 7);
  x[3] = __builtin_shufflevector (odd[0], odd[1], 2, 3, 6, 7);
}

/** 2^x for x <= 0 (0 or about 1e-38 below -126), with relative error under 1e-7, or with `coarse` 1e-4: enough before a
 *  rounding to bfloat16. 2^0 is 1 exactly. Polynomials: near-minimax fits of 2^f with the constant held at 1. */
DP_INLINE Vec
vec_exp2 (Vec x, const int coarse)
{
#if defined (__AVX512F__)
  /* f = x - floor (x) in one instruction; scalef multiplies by 2^floor (x) and flushes what is too small. */
  Vec f = _mm512_reduce_ps (x, _MM_FROUND_TO_NEG_INF), p;

  if (coarse)
    p = vec_set (0.0770692602f) * f + 0.22764197f;
  else
    p = ((vec_set (0.00186601828f) * f + 0.0090193823f) * f + 0.0557984225f) * f + 0.240164652f;
  p = (p * f + (coarse ? 0.695117414f : 0.693151355f)) * f + 1;
  return _mm512_scalef_ps (p, x);
#else
  /* Adding 1.5 * 2^23 leaves the nearest integer in the low bits. */
  const float magic = 12582912.f;
  Vec n, f, p;

  x = vec_max (x, vec_set (-126));
  n = x + magic;
  f = x - (n - magic);
  p = (((vec_set (0.00131707208f) * f + 0.00966911111f) * f + 0.0555102825f) * f + 0.240222901f) * f + 0.693146825f;
  p = p * f + 1;
  return (Vec) ((VecInt) p + ((VecInt) n << 23));
#endif
}
