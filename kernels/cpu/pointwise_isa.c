/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The loops of the pointwise ops. Compiled once per instruction set (cpu.h): everything here is static but the table at the end.
 *
 * Shapes: L rows, D width, H heads of d channels, C channels. A function named x_row or x_rows does one item of a job; type
 * arguments are constants at every call, so each combination becomes a loop of its own.
 */
#include "../numeric.h"
#include "pointwise.h"
#include "vec.h"

/* ---- vectors ---- */

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

/* 0, 1, 2 ... */
DP_INLINE VecInt
lane_numbers (void)
{
  VecInt lanes;

  for (int i = 0; i < VEC; i++)
    lanes[i] = i;
  return lanes;
}

/* Every lane becomes the sum of its group of `group` neighbours, a power of 2 up to VEC; all lanes of a group get the same bits. */
DP_INLINE Vec
sum_groups (Vec v, int group)
{
  const VecInt lanes = lane_numbers ();

  for (int i = 1; i < group; i *= 2)
    v += __builtin_shuffle (v, lanes ^ i);
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

/* x / (1 + e^-x), by an exponential that cannot overflow; `coarse` where it is rounded to bfloat16. */
DP_INLINE Vec
silu (Vec x, bool coarse)
{
  Vec e = vec_exp2 ((Vec) ((VecInt) x | INT32_MIN) * LOG2E, coarse);

  return vec_blend (x > 0, x, x * e) / (1 + e);
}

/* The items of one chunk. */
typedef struct
{
  size_t from, to;
} Range;

DP_INLINE Range
range (const DpPointwiseJob *job, int chunk)
{
  size_t from = chunk * job->per_chunk, left = job->n - from;

  return (Range) { from, from + (left < job->per_chunk ? left : job->per_chunk) };
}

DP_INLINE const void *
at (DpType type, const void *x, size_t i)
{
  return type == DP_TYPE_F32 ? (const void *) ((const float *) x + i) : (const void *) ((const uint16_t *) x + i);
}

/* ---- norms ---- */

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
  const DpPointwiseJob *job = arg;
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
  const VecInt lanes = lane_numbers ();
  Vec swapped = __builtin_shuffle (x, lanes ^ 1);
  Vec cosine = __builtin_shuffle (rope, lanes & ~1), sine = __builtin_shuffle (rope, lanes | 1);
  /* The even lanes subtract: their sign bit is flipped. */
  sine = (Vec) ((VecInt) sine ^ (~lanes << 31));

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
  const DpPointwiseJob *job = arg;
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
    store (type, a->y, i, n, act ? silu (v, type == DP_TYPE_BF16) : v);
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

    store (type, y, i, n, act ? silu (v, type == DP_TYPE_BF16) : v);
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
  const DpPointwiseJob *job = arg;
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

/* ---- pictures ---- */

/* Each of w pixels of `bytes` bytes, `step` bytes apart, twice. */
DP_INLINE void
double_pixels (const char *x, size_t step, size_t bytes, size_t w, char *y)
{
  for (size_t i = 0; i < w; i++, x += step, y += 2 * bytes) {
    memcpy (y, x, bytes);
    memcpy (y + bytes, x, bytes);
  }
}

static void
upsample (void *arg, int chunk, int thread)
{
  const DpPointwiseJob *job = arg;
  const DpUpsampleArgs *a = job->args;
  Range r = range (job, chunk);
  size_t frames = a->temporal ? 2 : 1, bytes = a->channels * (a->type == DP_TYPE_F32 ? 4 : 2), row_bytes = bytes * 2 * a->w;

  for (size_t item = r.from; item < r.to; item++) {
    size_t t = item / a->h, h = item % a->h;
    const char *x = (const char *) a->x + (((t / frames) * a->h + h) * a->w * frames + t % frames) * bytes;
    char *y = (char *) a->y + item * 2 * row_bytes;

    switch (bytes) {
      case 16:
        double_pixels (x, bytes * frames, 16, a->w, y);
        break;
      case 32:
        double_pixels (x, bytes * frames, 32, a->w, y);
        break;
      case 64:
        double_pixels (x, bytes * frames, 64, a->w, y);
        break;
      default:
        double_pixels (x, bytes * frames, bytes, a->w, y);
    }
    memcpy (y + row_bytes, y, row_bytes);
  }
}

#define BLOCK 64                /* pixels of a row that go through the stack at once; even */

/* Planes of a block of one row, 0..1. */
typedef struct
{
  float r[BLOCK], g[BLOCK], b[BLOCK];
} Pixels;

DP_INLINE float
level (float f)
{
  f = f * 0.5f + 0.5f;
  f = f < 1 ? f : 1;            /* a NaN becomes 1 here ... */
  return f > 0 ? f : 0;
}

DP_INLINE float
clamp_level (float f)
{
  return f == f ? level (f) : 0;        /* ... so it is made black first */
}

/* n pixels from x [n, 3]; the loops run over the whole block, so what is behind n is made from zeros. */
DP_INLINE void
get_pixels (DpType type, const void *x, int n, Pixels *p)
{
  float values[3 * BLOCK];

  if (n < BLOCK)
    memset (values, 0, sizeof values);
  if (type == DP_TYPE_F32)
    memcpy (values, x, 3 * n * sizeof (float));
  else
    for (int i = 0; i < 3 * n; i++)
      values[i] = dp_f32_from_bf16 (((const uint16_t *) x)[i]);
  for (int i = 0; i < 3 * BLOCK; i++)
    values[i] = clamp_level (values[i]);
  for (int i = 0; i < BLOCK; i++) {
    p->r[i] = values[3 * i];
    p->g[i] = values[3 * i + 1];
    p->b[i] = values[3 * i + 2];
  }
}

DP_INLINE float
luma (float r, float g, float b)
{
  return 0.2126f * r + 0.7152f * g + 0.0722f * b;
}

DP_INLINE void
put_luma (const Pixels *p, int n, uint8_t *y)
{
  uint8_t bytes[BLOCK];

  for (int i = 0; i < BLOCK; i++)
    bytes[i] = (int) (luma (p->r[i], p->g[i], p->b[i]) * 219 + 16.5f);
  memcpy (y, bytes, n);
}

/* Chroma of BLOCK / 2 pairs of columns of two rows. */
DP_INLINE void
get_chroma (const Pixels *top, const Pixels *bottom, uint8_t *cb, uint8_t *cr)
{
  for (int i = 0; i < BLOCK / 2; i++) {
    float r = (top->r[2 * i] + top->r[2 * i + 1] + bottom->r[2 * i] + bottom->r[2 * i + 1]) * 0.25f;
    float g = (top->g[2 * i] + top->g[2 * i + 1] + bottom->g[2 * i] + bottom->g[2 * i + 1]) * 0.25f;
    float b = (top->b[2 * i] + top->b[2 * i + 1] + bottom->b[2 * i] + bottom->b[2 * i + 1]) * 0.25f;
    float l = luma (r, g, b);

    cb[i] = (int) ((b - l) * (224 / 1.8556f) + 128.5f);
    cr[i] = (int) ((r - l) * (224 / 1.5748f) + 128.5f);
  }
}

DP_INLINE uint8_t *
plane_row (const DpPackFrameArgs *a, int plane, size_t y)
{
  return (uint8_t *) a->planes[plane] + (ptrdiff_t) y * a->strides[plane];
}

DP_INLINE void
pack_yuv (const DpPackFrameArgs *a, size_t y, int x, int n, DpType type)
{
  Pixels p[2];
  uint8_t cb[BLOCK / 2], cr[BLOCK / 2];

  for (int i = 0; i < 2; i++) {
    get_pixels (type, at (type, a->x, ((y + i) * a->w + x) * 3), n, &p[i]);
    put_luma (&p[i], n, plane_row (a, 0, y + i) + x);
  }
  get_chroma (&p[0], &p[1], cb, cr);
  if (a->format == DP_PIXELS_I420) {
    memcpy (plane_row (a, 1, y / 2) + x / 2, cb, n / 2);
    memcpy (plane_row (a, 2, y / 2) + x / 2, cr, n / 2);
  } else {
    uint8_t *out = plane_row (a, 1, y / 2) + x;

    for (int i = 0; i < n / 2; i++) {
      out[2 * i] = cb[i];
      out[2 * i + 1] = cr[i];
    }
  }
}

/* Four bytes a pixel: r, g, b and the filler go to the bit positions given; three bytes: the filler's is never stored. */
DP_INLINE void
pack_rgb (const DpPackFrameArgs *a, size_t y, int x, int n, DpType type, int r, int g, int b, int filler)
{
  Pixels p;
  uint32_t words[BLOCK];
  uint8_t *out = plane_row (a, 0, y);

  get_pixels (type, at (type, a->x, (y * a->w + x) * 3), n, &p);
  for (int i = 0; i < BLOCK; i++)
    words[i] = (uint32_t) (int) (p.r[i] * 255 + 0.5f) << r | (uint32_t) (int) (p.g[i] * 255 + 0.5f) << g
        | (uint32_t) (int) (p.b[i] * 255 + 0.5f) << b | (filler < 32 ? 255u << (filler & 31) : 0);
  if (filler < 32) {
    uint8_t bytes[4 * BLOCK];

    for (int i = 0; i < BLOCK; i++)
      for (int j = 0; j < 4; j++)
        bytes[4 * i + j] = words[i] >> 8 * j;
    memcpy (out + 4 * x, bytes, 4 * n);
  } else {
    uint8_t bytes[3 * BLOCK];

    for (int i = 0; i < BLOCK; i++) {
      bytes[3 * i] = words[i];
      bytes[3 * i + 1] = words[i] >> 8;
      bytes[3 * i + 2] = words[i] >> 16;
    }
    memcpy (out + 3 * x, bytes, 3 * n);
  }
}

DP_INLINE void
pack_f32 (const DpPackFrameArgs *a, size_t y, int x, int n, DpType type)
{
  const void *from = at (type, a->x, (y * a->w + x) * 3);
  float *to = (float *) plane_row (a, 0, y) + 3 * x;

  for (int i = 0; i < 3 * n; i++)
    to[i] = clamp_level (type == DP_TYPE_F32 ? ((const float *) from)[i] : dp_f32_from_bf16 (((const uint16_t *) from)[i]));
}

/* n pixels of the rows y and y + 1 from column x on. */
DP_INLINE void
pack_block (const DpPackFrameArgs *a, size_t y, int x, int n, DpType type)
{
  if (a->format == DP_PIXELS_I420 || a->format == DP_PIXELS_NV12) {
    pack_yuv (a, y, x, n, type);
    return;
  }
  for (size_t i = y; i < y + 2; i++)
    switch (a->format) {
      case DP_PIXELS_RGB:
        pack_rgb (a, i, x, n, type, 0, 8, 16, 32);
        break;
      case DP_PIXELS_BGR:
        pack_rgb (a, i, x, n, type, 16, 8, 0, 32);
        break;
      case DP_PIXELS_RGBX:
        pack_rgb (a, i, x, n, type, 0, 8, 16, 24);
        break;
      case DP_PIXELS_BGRX:
        pack_rgb (a, i, x, n, type, 16, 8, 0, 24);
        break;
      case DP_PIXELS_XRGB:
        pack_rgb (a, i, x, n, type, 8, 16, 24, 0);
        break;
      case DP_PIXELS_XBGR:
        pack_rgb (a, i, x, n, type, 24, 16, 8, 0);
        break;
      default:
        pack_f32 (a, i, x, n, type);
    }
}

static void
pack_frame (void *arg, int chunk, int thread)
{
  const DpPointwiseJob *job = arg;
  const DpPackFrameArgs *a = job->args;
  Range r = range (job, chunk);

  for (size_t pair = r.from; pair < r.to; pair++)
    for (int x = 0; x < a->w; x += BLOCK) {
      int n = a->w - x < BLOCK ? a->w - x : BLOCK;

      if (a->type == DP_TYPE_F32)
        pack_block (a, 2 * pair, x, n, DP_TYPE_F32);
      else
        pack_block (a, 2 * pair, x, n, DP_TYPE_BF16);
    }
}

/* ---- elements ---- */

static void
multiply (void *arg, int chunk, int thread)
{
  const DpPointwiseJob *job = arg;
  const DpMultiplyArgs *a = job->args;
  Range r = range (job, chunk);

  if (a->type == DP_TYPE_F32)
    for (size_t i = r.from; i < r.to; i += VEC)
      store (DP_TYPE_F32, a->y, i, r.to, load (DP_TYPE_F32, a->a, i, r.to) * load (DP_TYPE_F32, a->b, i, r.to));
  else
    for (size_t i = r.from; i < r.to; i += VEC)
      store (DP_TYPE_BF16, a->y, i, r.to, load (DP_TYPE_BF16, a->a, i, r.to) * load (DP_TYPE_BF16, a->b, i, r.to));
}

static void
combine (void *arg, int chunk, int thread)
{
  const DpPointwiseJob *job = arg;
  const DpCombineArgs *a = job->args;
  Range r = range (job, chunk);

  for (size_t i = r.from; i < r.to; i += VEC) {
    Vec sum = a->coef[0] * load (DP_TYPE_F32, a->x[0], i, r.to);

    for (int j = 1; j < a->terms; j++)
      sum += a->coef[j] * load (DP_TYPE_F32, a->x[j], i, r.to);
    store (DP_TYPE_F32, a->y, i, r.to, sum);
  }
}

static void
convert_row (size_t n, DpType x_type, const void *x, DpType y_type, void *y)
{
  if (x_type == y_type)
    memcpy (y, x, n * dp_type_size (x_type));
  else if (x_type == DP_TYPE_F16)
    for (size_t i = 0; i < n; i++)
      dp_store (y_type, y, i, dp_load (DP_TYPE_F16, x, i));
  else if (x_type == DP_TYPE_F32)     /* not store(), which may flush subnormal numbers */
    for (size_t i = 0; i < n; i++)
      dp_store (DP_TYPE_BF16, y, i, dp_load (DP_TYPE_F32, x, i));
  else
    for (size_t i = 0; i < n; i += VEC)
      store (DP_TYPE_F32, y, i, n, load (DP_TYPE_BF16, x, i, n));
}

static void
convert (void *arg, int chunk, int thread)
{
  const DpPointwiseJob *job = arg;
  const DpConvertArgs *a = job->args;
  Range r = range (job, chunk);

  convert_row (r.to - r.from, a->x_type, at (a->x_type, a->x, r.from), a->y_type, (void *) at (a->y_type, a->y, r.from));
}

static void
accumulate_row (size_t n, const float *x, const float *gate, float *y)
{
  for (size_t i = 0; i < n; i += VEC) {
    Vec v = load (DP_TYPE_F32, x, i, n);

    if (gate)
      v *= load (DP_TYPE_F32, gate, i, n);
    store (DP_TYPE_F32, y, i, n, load (DP_TYPE_F32, y, i, n) + v);
  }
}

/* A row of tokens is two rows of latents: token j has the channels of (0, 2j), (0, 2j + 1), (1, 2j), (1, 2j + 1), and the two of
 * one latent row lie together, so a token is two runs of 2 C. */
static void
patchify (void *arg, int chunk, int thread)
{
  const DpPointwiseJob *job = arg;
  const DpPatchArgs *a = job->args;
  Range r = range (job, chunk);
  size_t run = 2 * a->channels, tokens = a->w / 2;

  for (size_t item = r.from; item < r.to; item++)
    for (size_t half = 0; half < 2 * tokens; half++) {
      const float *x = a->x + ((item * 2 + half % 2) * tokens + half / 2) * run;
      void *y = (void *) at (a->y_type, a->y, (item * 2 * tokens + half) * run);

      if (a->y_type == DP_TYPE_F32)
        memcpy (y, x, run * sizeof (float));
      else
        for (size_t i = 0; i < run; i += VEC)
          store (DP_TYPE_BF16, y, i, run, load (DP_TYPE_F32, x, i, run));
    }
}

static void
unpatchify (void *arg, int chunk, int thread)
{
  const DpPointwiseJob *job = arg;
  const DpPatchArgs *a = job->args;
  Range r = range (job, chunk);
  size_t run = 2 * a->channels, tokens = a->w / 2;

  for (size_t item = r.from; item < r.to; item++)
    for (size_t half = 0; half < 2 * tokens; half++)
      memcpy ((float *) a->y + ((item * 2 + half % 2) * tokens + half / 2) * run, a->x + (item * 2 * tokens + half) * run,
          run * sizeof (float));
}

const DpPointwise DP_ISA (dp_pointwise) = {
  .layer_norm = layer_norm,
  .rms_norm = rms_norm,
  .channel_norm = channel_norm,
  .upsample = upsample,
  .pack_frame = pack_frame,
  .multiply = multiply,
  .combine = combine,
  .convert = convert,
  .patchify = patchify,
  .unpatchify = unpatchify,
  .convert_row = convert_row,
  .accumulate_row = accumulate_row,
};
