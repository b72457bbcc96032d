/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The loops of the norms. Compiled once per instruction set (cpu.h): everything here is static but the table at the end.
 *
 * Shapes: L rows, D width, H heads of d channels, C channels. A function named x_row does one item of a job.
 */
#include "norm.h"
#include "elements.h"

/* For VEC_SHUFFLE (): the lane that lane i takes. */
#define SWAP_1(i) ((i) ^ 1)
#define SWAP_2(i) ((i) ^ 2)
#define SWAP_4(i) ((i) ^ 4)
#define SWAP_8(i) ((i) ^ 8)
#define FIRST_OF_PAIR(i) ((i) & ~1)
#define SECOND_OF_PAIR(i) ((i) | 1)

/* Every lane becomes the sum of its group of `group` neighbours, a power of 2 up to VEC; all lanes of a group get the same bits. */
DP_INLINE Vec
sum_groups (Vec v, int group)
{
  if (group > 1)
    v += VEC_SHUFFLE (v, SWAP_1);
  if (group > 2)
    v += VEC_SHUFFLE (v, SWAP_2);
  if (group > 4)
    v += VEC_SHUFFLE (v, SWAP_4);
  if (group > 8)
    v += VEC_SHUFFLE (v, SWAP_8);
  return v;
}

/* Sum of squares of (x - mean) over a row. Four accumulators hide the latency of the additions. */
DP_INLINE float
sum_squares (DpType type, const void *x, size_t n, float mean)
{
  Vec acc[4] = { 0 };
  size_t i = 0;

  for (; i + 4 * VEC <= n; i += 4 * VEC)
    for (int j = 0; j < 4; j++) {
      Vec v = load (type, x, i + j * VEC, n) - mean;

      acc[j] += v * v;
    }
  for (int j = 0; i < n; i += VEC, j = (j + 1) & 3) {
    Vec v = load (type, x, i, n) - mean;

    /* The lanes behind the end hold -mean. */
    v = (Vec) ((VecInt) v & (lane_numbers () < vec_lanes (n - i)));
    acc[j] += v * v;
  }
  return vec_reduce_add ((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

DP_INLINE float
sum (const float *x, size_t n)
{
  Vec acc[4] = { 0 };
  size_t i = 0;

  for (; i + 4 * VEC <= n; i += 4 * VEC)
    for (int j = 0; j < 4; j++)
      acc[j] += load (DP_TYPE_F32, x, i + j * VEC, n);
  for (int j = 0; i < n; i += VEC, j = (j + 1) & 3)
    acc[j] += load (DP_TYPE_F32, x, i, n);
  return vec_reduce_add ((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

/* y = (x - mean) / sqrt (var + eps) * gain + shift. */
DP_INLINE void
layer_norm_row (const DpLayerNormArgs *a, size_t row, DpType y_type)
{
  size_t n = a->cols;
  const float *x = a->x + row * n;
  float mean = sum (x, n) / n;
  float inverse = 1 / sqrtf (sum_squares (DP_TYPE_F32, x, n, mean) / n + a->eps);
  void *y = (void *) at (y_type, a->y, row * n);

  for (size_t i = 0; i < n; i += VEC) {
    Vec v = (load (DP_TYPE_F32, x, i, n) - mean) * inverse;

    if (a->gain)
      v *= load (DP_TYPE_F32, a->gain, i, n);
    if (a->shift)
      v += load (DP_TYPE_F32, a->shift, i, n);
    store (y_type, y, i, n, v);
  }
}

static void
layer_norm (void *arg, int chunk, int thread)
{
  const DpCpuJob *job = arg;
  const DpLayerNormArgs *a = job->args;
  Range r = range (job, chunk);

  if (a->y_type == DP_TYPE_F32)
    for (size_t row = r.from; row < r.to; row++)
      layer_norm_row (a, row, DP_TYPE_F32);
  else
    for (size_t row = r.from; row < r.to; row++)
      layer_norm_row (a, row, DP_TYPE_BF16);
}

/* Each pair (x0, x1) of x becomes (x0 cos - x1 sin, x0 sin + x1 cos); rope holds (cos, sin) pairs. */
DP_INLINE Vec
rotate (Vec x, Vec rope)
{
  Vec swapped = VEC_SHUFFLE (x, SWAP_1);
  Vec cosine = VEC_SHUFFLE (rope, FIRST_OF_PAIR), sine = VEC_SHUFFLE (rope, SECOND_OF_PAIR);
  /* The even lanes subtract: their sign bit is flipped. */
  sine = (Vec) ((VecInt) sine ^ (~lane_numbers () << 31));

  return x * cosine + swapped * sine;
}

DP_INLINE void
rms_norm_row (const DpRmsNormArgs *a, size_t row, DpType x_type, DpType y_type)
{
  size_t width = (size_t) a->heads * a->head_dim, d = a->rope ? (size_t) a->head_dim : width;
  const float *rope = a->rope ? a->rope + row * d : NULL;

  for (int part = 0; part < a->parts; part++) {
    const void *x = at (x_type, a->x, row * a->x_stride + part * width);
    void *y = (void *) at (y_type, a->y, row * a->y_stride + part * width);
    const float *weight = a->weight ? a->weight + part * width : NULL;
    float inverse = weight ? 1 / sqrtf (sum_squares (x_type, x, width, 0) / width + a->eps) : 1;

    for (size_t head = 0; head < width; head += d)
      for (size_t i = 0; i < d; i += VEC) {
        Vec v = load (x_type, x, head + i, head + d);

        if (weight)
          v *= inverse * load (DP_TYPE_F32, weight, head + i, head + d);
        if (rope)
          v = rotate (v, load (DP_TYPE_F32, rope, i, d));
        store (y_type, y, head + i, head + d, v);
      }
  }
}

static void
rms_norm (void *arg, int chunk, int thread)
{
  const DpCpuJob *job = arg;
  const DpRmsNormArgs *a = job->args;
  Range r = range (job, chunk);

  for (size_t row = r.from; row < r.to; row++) {
    if (a->x_type == DP_TYPE_F32 && a->y_type == DP_TYPE_F32)
      rms_norm_row (a, row, DP_TYPE_F32, DP_TYPE_F32);
    else if (a->x_type == DP_TYPE_F32)
      rms_norm_row (a, row, DP_TYPE_F32, DP_TYPE_BF16);
    else if (a->y_type == DP_TYPE_F32)
      rms_norm_row (a, row, DP_TYPE_BF16, DP_TYPE_F32);
    else
      rms_norm_row (a, row, DP_TYPE_BF16, DP_TYPE_BF16);
  }
}

/* sqrt (C) / max (sqrt (s), 1e-12) in every lane. */
DP_INLINE Vec
channel_scale (Vec s, float root)
{
  return root / vec_max (vec_sqrt (s), vec_set (1e-12f));
}

/* C divides VEC: a vector holds VEC / C whole pixels, so the job's rows run as one long array. */
DP_INLINE void
channel_norm_packed (const DpChannelNormArgs *a, Range r, int channels, DpType type, bool act)
{
  float root = sqrtf (channels);
  Vec gamma;

  for (int i = 0; i < VEC; i++)
    gamma[i] = a->gamma[i % channels];
  for (size_t i = r.from * channels, n = r.to * channels; i < n; i += VEC) {
    Vec v = load (type, a->x, i, n);

    v *= channel_scale (sum_groups (v * v, channels), root) * gamma;
    store (type, a->y, i, n, act ? sigmoid_product (v, v, type == DP_TYPE_BF16) : v);
  }
}

DP_INLINE void
channel_norm_row (const DpChannelNormArgs *a, size_t row, DpType type, bool act)
{
  size_t n = a->channels;
  const void *x = at (type, a->x, row * n);
  void *y = (void *) at (type, a->y, row * n);
  float scale = sqrtf (n) / fmaxf (sqrtf (sum_squares (type, x, n, 0)), 1e-12f);

  for (size_t i = 0; i < n; i += VEC) {
    Vec v = load (type, x, i, n) * (scale * load (DP_TYPE_F32, a->gamma, i, n));

    store (type, y, i, n, act ? sigmoid_product (v, v, type == DP_TYPE_BF16) : v);
  }
}

DP_INLINE void
channel_norm_range (const DpChannelNormArgs *a, Range r, DpType type, bool act)
{
  if (VEC >= 16 && a->channels == 16)
    channel_norm_packed (a, r, 16, type, act);
  else if (VEC >= 8 && a->channels == 8)
    channel_norm_packed (a, r, 8, type, act);
  else if (a->channels == 4)
    channel_norm_packed (a, r, 4, type, act);
  else
    for (size_t row = r.from; row < r.to; row++)
      channel_norm_row (a, row, type, act);
}

static void
channel_norm (void *arg, int chunk, int thread)
{
  const DpCpuJob *job = arg;
  const DpChannelNormArgs *a = job->args;
  Range r = range (job, chunk);
  bool act = a->act == DP_ACT_SILU;

  if (a->type == DP_TYPE_F32 && act)
    channel_norm_range (a, r, DP_TYPE_F32, true);
  else if (a->type == DP_TYPE_F32)
    channel_norm_range (a, r, DP_TYPE_F32, false);
  else if (act)
    channel_norm_range (a, r, DP_TYPE_BF16, true);
  else
    channel_norm_range (a, r, DP_TYPE_BF16, false);
}

const DpNorms DP_ISA (dp_norms) = {
  .layer_norm = layer_norm,
  .rms_norm = rms_norm,
  .channel_norm = channel_norm,
};
