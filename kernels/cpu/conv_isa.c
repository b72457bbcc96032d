/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "conv.h"
#include "vec.h"

/* A register tile is GROUP (or 4, or 3) output channels x some vectors of pixels: 24 accumulators of 16 lanes, or 12. */
enum
{
  WIDE = VEC == 16,
  GROUP = WIDE ? 8 : 4,
  VECS_8 = 3, VECS_4 = WIDE ? 6 : 3, VECS_3 = WIDE ? 8 : 4,
  MAX_PIXELS = (WIDE ? 8 : 4) * VEC,
};

/* Output channels of a tile for a layer of co. */
static int
group_of (int co)
{
  return co <= 3 ? 3 : co <= 4 ? 4 : GROUP;
}

static int
groups_of (int co)
{
  return (co + group_of (co) - 1) / group_of (co);
}

static int
lanes_of (const DpConvSpec *spec, bool pairs)
{
  return pairs ? (spec->ci + 1) / 2 : spec->ci;
}

static size_t
weights_size (const DpConvSpec *spec, bool pairs)
{
  return (size_t) groups_of (spec->co) * group_of (spec->co) * spec->kt * spec->kh * spec->kw * lanes_of (spec, pairs);
}

static uint32_t
weight_bits (const DpConvSpec *spec, const float *weights, int co, int ci, int tap, bool half)
{
  int taps = spec->kt * spec->kh * spec->kw;
  uint32_t bits = 0;

  if (co < spec->co && ci < spec->ci)
    memcpy (&bits, weights + ((size_t) co * spec->ci + ci) * taps + tap, 4);
  return half ? bits >> 16 : bits;
}

/* packed [groups][kt * kh][lanes][kw][group], zeros past co and ci */
static void
pack (const DpConvSpec *spec, bool pairs, const float *weights, float *packed)
{
  int group = group_of (spec->co), lanes = lanes_of (spec, pairs);
  Lane *to = (Lane *) packed;

  for (int g = 0; g < groups_of (spec->co); g++)
    for (int row = 0; row < spec->kt * spec->kh; row++)
      for (int lane = 0; lane < lanes; lane++)
        for (int k = 0; k < spec->kw; k++)
          for (int c = 0; c < group; c++) {
            int co = g * group + c, tap = row * spec->kw + k;

            *to++ = pairs ? weight_bits (spec, weights, co, 2 * lane, tap, true)
                | weight_bits (spec, weights, co, 2 * lane + 1, tap, true) << 16
                : weight_bits (spec, weights, co, lane, tap, false);
          }
}

static size_t
plan (DpConvJob *job)
{
  const DpConvSpec *spec = job->spec;
  size_t lines;

  /* Whole tiles are read, so the last one reaches past the strip. An odd number of cache lines, so that the planes do not all
   * meet in the same sets of a cache. */
  lines = ((size_t) (job->strip + spec->kh - 1) * job->pitch + MAX_PIXELS + spec->kw + 15) / 16 | 1;
  job->plane = (int) lines * 16;
  return ((size_t) spec->kt * job->lanes * job->plane + (size_t) MAX_PIXELS * (groups_of (spec->co) * GROUP + 4)) * sizeof (float);
}

/* ---- the strip into planes ---- */

DP_INLINE uint32_t
lane_bits (const DpConvJob *job, const void *pixel, int lane)
{
  const uint16_t *half = pixel;

  if (job->spec->type == DP_TYPE_F32)
    return ((const Lane *) pixel)[lane];
  if (!job->pairs)
    return (uint32_t) half[lane] << 16;
  return half[2 * lane] | (2 * lane + 1 < job->spec->ci ? (uint32_t) half[2 * lane + 1] << 16 : 0);
}

/* One row of w pixels [w, ci] to its place in the planes. */
static void
pack_row (const DpConvJob *job, const char *x, Lane *to)
{
  int w = job->args->w, pixel = job->spec->ci * (int) dp_type_size (job->spec->type), lane = 0, i;

  if (pixel == job->lanes * 4)
    for (; lane + 4 <= job->lanes; lane += 4) {
      Lane *at = to + (size_t) lane * job->plane;

      for (i = 0; i + 4 <= w; i += 4) {
        Four four[4];

        for (int k = 0; k < 4; k++)
          four[k] = *(const Four *) (x + (size_t) (i + k) * pixel + lane * 4);
        vec_transpose4 (four);
        for (int k = 0; k < 4; k++)
          *(Four *) (at + (size_t) k * job->plane + i) = four[k];
      }
      for (; i < w; i++)
        for (int k = 0; k < 4; k++)
          at[(size_t) k * job->plane + i] = lane_bits (job, x + (size_t) i * pixel, lane + k);
    }
  for (; lane < job->lanes; lane++)
    for (i = 0; i < w; i++)
      to[(size_t) lane * job->plane + i] = lane_bits (job, x + (size_t) i * pixel, lane);
}

/* Rows [first, first + rows) of one frame, some of them perhaps outside, and the zeros beside them. */
static void
pack_frame (const DpConvJob *job, int frame, int first, int rows, float *planes)
{
  const DpConvArgs *a = job->args;
  size_t row_bytes = (size_t) a->w * job->spec->ci * dp_type_size (job->spec->type);
  int pad = job->spec->kw / 2;

  for (int y = 0; y < rows; y++) {
    int from = first + y;
    Lane *to = (Lane *) planes + y * job->pitch;

    if (from >= 0 && from < a->h) {
      pack_row (job, (const char *) a->x + ((size_t) frame * a->h + from) * row_bytes, to + pad);
      for (int lane = 0; lane < job->lanes; lane++)
        memset (to + (size_t) lane * job->plane, 0, pad * 4);
    } else {
      for (int lane = 0; lane < job->lanes; lane++)
        memset (to + (size_t) lane * job->plane, 0, job->pitch * 4);
    }
  }
  for (int lane = 0; lane < job->lanes; lane++)
    memset ((Lane *) planes + (size_t) lane * job->plane + rows * job->pitch, 0, pad * 4);
}

/* ---- the register tile ---- */

/* out[group][vecs * VEC] = bias + sum over taps and lanes of planes[q + tap] * weights; frame[] are the kt frames' planes. */
DP_INLINE void
tile (const bool pairs, const int group, const int vecs, const DpConvJob *job, const float *const *frame, int q,
    const float *weights, const float *bias, float *out)
{
  const DpConvSpec *spec = job->spec;
  Vec acc[8][8];

  UNROLL
  for (int c = 0; c < group; c++)
    UNROLL
    for (int v = 0; v < vecs; v++)
      acc[c][v] = vec_set (bias[c]);
  for (int t = 0; t < spec->kt; t++)
    for (int y = 0; y < spec->kh; y++) {
      const float *row = frame[t] + q + y * job->pitch;

      for (int lane = 0; lane < job->lanes; lane++, row += job->plane)
        for (int k = 0; k < spec->kw; k++, weights += group) {
          Vec x[8];

          UNROLL
          for (int v = 0; v < vecs; v++)
            x[v] = vec_load (row + k + v * VEC);
          UNROLL
          for (int c = 0; c < group; c++) {
            Vec w = vec_set (weights[c]);

            UNROLL
            for (int v = 0; v < vecs; v++)
              acc[c][v] = vec_multiply_add (pairs, w, x[v], acc[c][v]);
          }
        }
    }
  UNROLL
  for (int c = 0; c < group; c++)
    UNROLL
    for (int v = 0; v < vecs; v++)
      vec_store (out + (c * vecs + v) * VEC, acc[c][v]);
}

/* ---- from channel rows back to pixels ---- */

/* ThreadSanitizer need not watch tiles, which cost it more than all else of a test: they read
 * weights that nothing writes after loading, and what they read and write besides is this thread's
 * scratch. What is shared with other threads is read by pack_frame() and written by store_tile().
 * Both are watched, because a function is not inlined into one that is watched less. */
#define UNWATCHED __attribute__ ((no_sanitize ("thread")))

/* to[pixels][stride] from planes[group][pixels], pixels a multiple of 4. Writes whole fours of channels, pixel after pixel: with
 * stride < 4 the next pixel overwrites what is too much. */
UNWATCHED static void
interleave (const float *planes, int group, int pixels, float *to, int stride)
{
  for (int c = 0; c < group; c += 4)
    for (int i = 0; i < pixels; i += 4) {
      Four four[4];

      for (int k = 0; k < 4; k++)
        four[k] = *(const Four *) (planes + (c + k < group ? c + k : c) * pixels + i);
      vec_transpose4 (four);
      for (int k = 0; k < 4; k++)
        *(Four *) (to + (size_t) (i + k) * stride + c) = four[k];
    }
}

/* y[VEC] = x + add as bfloat16; add may be NULL. */
DP_INLINE void
store_half (const float *x, const uint16_t *add, uint16_t *y)
{
  Vec sum = vec_load (x);

  if (add != NULL)
    sum += vec_load_bf16 (add);
  vec_store_bf16 (y, sum);
}

/* y[n] = x + add, in the layer's type. */
static void
store_run (DpType type, const float *x, const void *add, void *y, size_t n)
{
  size_t i = 0;

  if (type == DP_TYPE_F32) {
    for (; i < n; i++)
      ((float *) y)[i] = x[i] + (add != NULL ? ((const float *) add)[i] : 0);
    return;
  }
  for (; i + VEC <= n; i += VEC)
    store_half (x + i, add != NULL ? (const uint16_t *) add + i : NULL, (uint16_t *) y + i);
  if (i < n) {
    float rest[VEC] = { 0 };
    uint16_t more[VEC] = { 0 };

    memcpy (rest, x + i, (n - i) * 4);
    if (add != NULL)
      memcpy (more, (const uint16_t *) add + i, (n - i) * 2);
    store_half (rest, add != NULL ? more : NULL, more);
    memcpy ((uint16_t *) y + i, more, (n - i) * 2);
  }
}

/* Positions [q, q + pixels) of pixels [pixels][stride] to y, those between rows and below the strip left out. */
static void
store_tile (const DpConvJob *job, int frame, int row0, int rows, int q, int pixels, const float *x, int stride)
{
  const DpConvArgs *a = job->args;
  size_t es = dp_type_size (job->spec->type);
  int co = job->spec->co, end = q + pixels;

  while (q < end && q / job->pitch < rows) {
    int column = q % job->pitch, n = a->w - column < end - q ? a->w - column : end - q;
    size_t at = (((size_t) frame * a->h + row0 + q / job->pitch) * a->w + column) * co * es;
    const char *add = a->add != NULL ? (const char *) a->add + at : NULL;
    char *y = (char *) a->y + at;

    if (n > 0 && stride == co)
      store_run (job->spec->type, x, add, y, (size_t) n * co);
    else
      for (int i = 0; i < n; i++)
        store_run (job->spec->type, x + (size_t) i * stride, add ? add + (size_t) i * co * es : NULL, y + (size_t) i * co * es, co);
    n += n < 0 || column + n == a->w ? job->pitch - column - n : 0;
    x += (size_t) n * stride;
    q += n;
  }
}

/* ---- a chunk ---- */

DP_INLINE void
tiles (const bool pairs, const int group, const int vecs, const DpConvJob *job, const float *const *frame, int out_frame,
    int row0, int rows, float *out)
{
  const DpConvSpec *spec = job->spec;
  const int pixels = vecs * VEC;
  int n = (rows - 1) * job->pitch + job->args->w, groups = groups_of (spec->co);
  int stride = spec->co <= 4 || spec->co % 4 == 0 ? spec->co : groups * group;
  size_t group_size = (size_t) spec->kt * spec->kh * spec->kw * job->lanes * group;
  float planes[8 * 8 * VEC];

  for (int q = 0; q < n; q += pixels) {
    for (int g = 0; g < groups; g++) {
      tile (pairs, group, vecs, job, frame, q, job->weights + g * group_size, job->bias + g * group, planes);
      interleave (planes, group, pixels, out + g * group, stride);
    }
    store_tile (job, out_frame, row0, rows, q, pixels, out, stride);
  }
}

DP_INLINE void
chunk_of (const bool pairs, const DpConvJob *job, int chunk, float *planes)
{
  const DpConvSpec *spec = job->spec;
  const DpConvArgs *a = job->args;
  int row0 = chunk * job->strip, rows = a->h - row0 < job->strip ? a->h - row0 : job->strip;
  size_t slot = (size_t) job->lanes * job->plane;
  float *out = planes + spec->kt * slot;
  int packed = 0, group = group_of (spec->co);

  for (int t = 0; t + spec->kt <= a->t; t++) {
    const float *frame[DP_CONV_MAX_KT];

    for (; packed < t + spec->kt; packed++)
      pack_frame (job, packed, row0 - spec->kh / 2, rows + spec->kh - 1, planes + packed % spec->kt * slot);
    for (int k = 0; k < spec->kt; k++)
      frame[k] = planes + (t + k) % spec->kt * slot;
    if (group == 3)
      tiles (pairs, 3, VECS_3, job, frame, t, row0, rows, out);
    else if (group == 4)
      tiles (pairs, 4, VECS_4, job, frame, t, row0, rows, out);
    else
      tiles (pairs, GROUP, WIDE ? VECS_8 : VECS_4, job, frame, t, row0, rows, out);
  }
}

UNWATCHED static void
chunk (const DpConvJob *job, int chunk, void *scratch)
{
#if defined (__AVX512BF16__)
  if (job->pairs) {
    chunk_of (true, job, chunk, scratch);
    return;
  }
#endif
  chunk_of (false, job, chunk, scratch);
}

const DpConvTable DP_ISA (dp_conv_table) = {
#if defined (__AVX512BF16__)
  .pairs = true,
#endif
  .weights_size = weights_size,
  .pack = pack,
  .plan = plan,
  .chunk = chunk,
};
