/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The loops of the ops on pictures. Compiled once per instruction set (cpu.h): everything here is static but the table at the end.
 */
#include "picture.h"
#include "elements.h"

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
  const DpCpuJob *job = arg;
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

/* n channels of a pixel of y: those of x at first / r, (first + step) / r, ... */
DP_INLINE void
pick_channels (const char *x, size_t bytes, int first, int step, int r, int n, char *y)
{
  int at = first / r, left = first % r;

  for (int o = 0; o < n; o++, y += bytes) {
    memcpy (y, x + at * bytes, bytes);
    at += step / r;
    left += step % r;
    if (left >= r) {
      left -= r;
      at++;
    }
  }
}

DP_INLINE void
shuffle_rows (const DpPixelShuffleArgs *a, size_t item, size_t bytes)
{
  size_t t = item / a->h + a->skip, h = item % a->h, frame = t % a->frames, pixel = bytes * a->co;
  const char *x = (const char *) a->x + (t / a->frames * a->h + h) * a->w * bytes * a->ci;
  int step = 4 * a->frames, r = step * a->co / a->ci;

  for (int row = 0; row < 2; row++) {
    char *y = (char *) a->y + (2 * item + row) * 2 * a->w * pixel;

    for (int column = 0; column < 2 * a->w; column++, y += pixel) {
      int place = a->transposed ? column % 2 * 2 + row : row * 2 + column % 2;

      pick_channels (x + column / 2 * bytes * a->ci, bytes, 4 * frame + place, step, r, a->co, y);
    }
  }
}

static void
pixel_shuffle (void *arg, int chunk, int thread)
{
  const DpCpuJob *job = arg;
  const DpPixelShuffleArgs *a = job->args;
  Range r = range (job, chunk);

  for (size_t item = r.from; item < r.to; item++)
    if (a->type == DP_TYPE_F32)
      shuffle_rows (a, item, 4);
    else
      shuffle_rows (a, item, 2);
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
    get_pixels (type, at (type, a->x, ((y + i) * a->x_stride + x) * 3), n, &p[i]);
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

  get_pixels (type, at (type, a->x, (y * a->x_stride + x) * 3), n, &p);
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
  const void *from = at (type, a->x, (y * a->x_stride + x) * 3);
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
  const DpCpuJob *job = arg;
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

/* A row of tokens is two rows of latents: token j has the channels of (0, 2j), (0, 2j + 1), (1, 2j), (1, 2j + 1), and the two of
 * one latent row lie together, so a token is two runs of 2 C. */
static void
patchify (void *arg, int chunk, int thread)
{
  const DpCpuJob *job = arg;
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
  const DpCpuJob *job = arg;
  const DpPatchArgs *a = job->args;
  Range r = range (job, chunk);
  size_t run = 2 * a->channels, tokens = a->w / 2;

  for (size_t item = r.from; item < r.to; item++)
    for (size_t half = 0; half < 2 * tokens; half++)
      memcpy ((float *) a->y + ((item * 2 + half % 2) * tokens + half / 2) * run, a->x + (item * 2 * tokens + half) * run,
          run * sizeof (float));
}

const DpPictures DP_ISA (dp_pictures) = {
  .upsample = upsample,
  .pixel_shuffle = pixel_shuffle,
  .pack_frame = pack_frame,
  .patchify = patchify,
  .unpatchify = unpatchify,
};
