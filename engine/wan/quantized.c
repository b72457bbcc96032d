/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The layouts are those of ggml-common.h, and the order of the operations is that of ggml-quants.c. A product of a half and a few bits is
 * exact in float32. So it makes no difference whether the compiler fuses it with the subtraction behind it.
 */
#include "quantized.h"
#include "kernels/e4m3.h"
#include "kernels/numeric.h"

#include <pthread.h>
#include <string.h>

static float
half (const guint8 *p)
{
  guint16 bits;

  memcpy (&bits, p, 2);         /* little endian, as weights.c asserts of this machine */
  return dp_f32_from_f16 (bits);
}

/* ---- fp8 ---- */

static float e4m3_values[256];

static void
fill_e4m3_values (void)
{
  for (int i = 0; i < 256; i++)
    e4m3_values[i] = dp_e4m3_value (i);
}

static void
unpack_e4m3 (const guint8 *from, gsize blocks, float *to)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;       /* which ThreadSanitizer sees, unlike GLib's */

  pthread_once (&once, fill_e4m3_values);
  for (gsize i = 0; i < blocks; i++)
    to[i] = e4m3_values[from[i]];
}

/* The upper half of a half. */
static void
unpack_e5m2 (const guint8 *from, gsize blocks, float *to)
{
  for (gsize i = 0; i < blocks; i++)
    to[i] = dp_f32_from_f16 (from[i] << 8);
}

/* ---- blocks of 32: a half, perhaps a minimum, perhaps 32 fifth bits, and 16 bytes: lower halves first, then upper halves ---- */

static inline void
unpack_32 (const guint8 *b, int fifth, gboolean minimum, float *to)
{
  const guint8 *high = b + (minimum ? 4 : 2), *low = high + (fifth ? 4 : 0);
  float d = half (b), m = minimum ? half (b + 2) : 0;

  for (int i = 0; i < 32; i++) {
    int q = low[i % 16] >> i / 16 * 4 & 15;

    if (fifth)
      q |= (high[i / 8] >> i % 8 & 1) << 4;
    to[i] = minimum ? d * q + m : d * (q - (fifth ? 16 : 8));
  }
}

#define UNPACK_32(name, bytes, fifth, minimum) \
static void \
name (const guint8 *from, gsize blocks, float *to) \
{ \
  for (gsize i = 0; i < blocks; i++) \
    unpack_32 (from + i * (bytes), fifth, minimum, to + i * 32); \
}

UNPACK_32 (unpack_q4_0, 18, FALSE, FALSE)
UNPACK_32 (unpack_q4_1, 20, FALSE, TRUE)
UNPACK_32 (unpack_q5_0, 22, TRUE, FALSE)
UNPACK_32 (unpack_q5_1, 24, TRUE, TRUE)

static void
unpack_q8_0 (const guint8 *from, gsize blocks, float *to)
{
  for (; blocks > 0; blocks--, from += 34, to += 32) {
    float d = half (from);

    for (int i = 0; i < 32; i++)
      to[i] = d * (gint8) from[2 + i];
  }
}

/* ---- blocks of 256: scales of 16 or 32 numbers, which have one or two halves as their scales ---- */

/* The pairs of bits of 64 bytes: 32 bytes have 128 numbers, the lowest bits of all of them first. */
static inline int
two_bits (const guint8 *p, int i)
{
  return p[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

static void
unpack_q2_k (const guint8 *from, gsize blocks, float *to)
{
  for (; blocks > 0; blocks--, from += 84, to += 256) {
    float d = half (from + 80), m = half (from + 82);

    for (int i = 0; i < 256; i++) {
      guint8 scale = from[i / 16];

      to[i] = d * (scale & 15) * two_bits (from + 16, i) - m * (scale >> 4);
    }
  }
}

static void
unpack_q3_k (const guint8 *from, gsize blocks, float *to)
{
  for (; blocks > 0; blocks--, from += 110, to += 256) {
    const guint8 *scales = from + 96;   /* 16 of six bits: four of each in 8 bytes, then two of each in 4 */
    float d = half (from + 108);

    for (int s = 0; s < 16; s++) {
      int scale = (scales[s % 8] >> s / 8 * 4 & 15) | (scales[8 + s % 4] >> s / 4 * 2 & 3) << 4;

      for (int i = s * 16; i < s * 16 + 16; i++) {
        int high = from[i % 32] >> i / 32 & 1;

        to[i] = d * (scale - 32) * (two_bits (from + 32, i) - (high ? 0 : 4));
      }
    }
  }
}

/* The j-th of 8 pairs of a scale and a minimum, of six bits each, in 12 bytes. */
static inline void
scale_and_minimum (const guint8 *p, int j, int *scale, int *minimum)
{
  *scale = j < 4 ? p[j] & 63 : (p[j + 4] & 15) | p[j - 4] >> 6 << 4;
  *minimum = j < 4 ? p[j + 4] & 63 : p[j + 4] >> 4 | p[j] >> 6 << 4;
}

/* Q4_K, and with fifth bits in 32 bytes in front of the others Q5_K. */
static inline void
unpack_k (const guint8 *b, gboolean fifth, float *to)
{
  const guint8 *high = b + 16, *low = high + (fifth ? 32 : 0);
  float d = half (b), m = half (b + 2);

  for (int j = 0; j < 8; j++) {
    int scale, minimum;

    scale_and_minimum (b + 4, j, &scale, &minimum);
    for (int i = 0; i < 32; i++) {
      int q = low[j / 2 * 32 + i] >> j % 2 * 4 & 15;

      if (fifth)
        q |= (high[i] >> j & 1) << 4;
      to[j * 32 + i] = d * scale * q - m * minimum;
    }
  }
}

static void
unpack_q4_k (const guint8 *from, gsize blocks, float *to)
{
  for (; blocks > 0; blocks--, from += 144, to += 256)
    unpack_k (from, FALSE, to);
}

static void
unpack_q5_k (const guint8 *from, gsize blocks, float *to)
{
  for (; blocks > 0; blocks--, from += 176, to += 256)
    unpack_k (from, TRUE, to);
}

static void
unpack_q6_k (const guint8 *from, gsize blocks, float *to)
{
  for (; blocks > 0; blocks--, from += 210, to += 256) {
    float d = half (from + 208);

    for (int i = 0; i < 256; i++) {
      int low = from[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;

      to[i] = d * (gint8) from[192 + i / 16] * ((low | two_bits (from + 128, i) << 4) - 32);
    }
  }
}

static const DpQuantized known[] = {
  { "F8_E4M3", 1, 1, unpack_e4m3 }, { "F8_E5M2", 1, 1, unpack_e5m2 },
  { "Q4_0", 32, 18, unpack_q4_0 }, { "Q4_1", 32, 20, unpack_q4_1 }, { "Q5_0", 32, 22, unpack_q5_0 }, { "Q5_1", 32, 24, unpack_q5_1 },
  { "Q8_0", 32, 34, unpack_q8_0 }, { "Q2_K", 256, 84, unpack_q2_k }, { "Q3_K", 256, 110, unpack_q3_k }, { "Q4_K", 256, 144, unpack_q4_k },
  { "Q5_K", 256, 176, unpack_q5_k }, { "Q6_K", 256, 210, unpack_q6_k },
};

const DpQuantized *
dp_quantized_find (const char *dtype)
{
  for (gsize i = 0; i < G_N_ELEMENTS (known); i++)
    if (strcmp (dtype, known[i].dtype) == 0)
      return &known[i];
  return NULL;
}
