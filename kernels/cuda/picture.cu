/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: T frames of h x w pixels of C channels.
 */
#include "vec.cuh"

#include <assert.h>

/* ---- upsample: nearest-neighbour x2; a thread per vector of x, which writes it four times ---- */

/* n vectors per pixel of y; blockIdx is (part of a row, row, frame of x). */
template <typename V>
__global__ void
upsample (int h, int w, int n, int frames, const V *x, V *y)
{
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x, per_pixel = n * frames, column = i / per_pixel, c = i % per_pixel;
  size_t row = (size_t) blockIdx.z * h + blockIdx.y, t = (size_t) blockIdx.z * frames + c / n;

  if (column >= w)
    return;
  V v = x[row * w * per_pixel + i];
  V *to = y + ((t * 2 * h + 2 * blockIdx.y) * 2 * w + 2 * column) * n + c % n;

  to[0] = v;
  to[n] = v;
  to += (size_t) 2 * w * n;
  to[0] = v;
  to[n] = v;
}

template <typename V>
static void
run_upsample (DpDeviceCuda *dev, const DpUpsampleArgs *a)
{
  int n = a->channels * dp_type_size (a->type) / sizeof (V), frames = a->temporal ? 2 : 1;
  dim3 blocks (blocks_for ((size_t) a->w * n * frames, 128), a->h, a->t);

  upsample<V><<<blocks, 128, 0, dev->stream>>> (a->h, a->w, n, frames, (const V *) a->x, (V *) a->y);
}

void
upsample_cuda (DpDevice *base, const DpUpsampleArgs *args)
{
  DpDeviceCuda *dev = dp_cuda (base);
  size_t bytes = args->channels * dp_type_size (args->type), x = (size_t) args->x, y = (size_t) args->y;

  if (args->t == 0 || args->h == 0 || args->w == 0 || !dp_cuda_enter (dev))
    return;
  assert (args->t < 65536 && args->h < 65536);
  if (aligned (16, bytes, x, y))
    run_upsample<uint4> (dev, args);
  else if (aligned (4, bytes, x, y))
    run_upsample<unsigned> (dev, args);
  else
    run_upsample<unsigned short> (dev, args);
  dp_cuda_launched (dev, "upsample");
}

/* ---- pixel_shuffle: a thread per element of y; blockIdx is (part of a row, row, frame of y) ---- */

template <typename T>
__global__ void
pixel_shuffle (DpPixelShuffleArgs a, int r, const T *from, T *to)
{
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x, column = i / a.co, o = i % a.co, t = blockIdx.z + a.skip, row = blockIdx.y;

  if (column >= 2 * a.w)
    return;
  unsigned place = a.transposed ? column % 2 * 2 + row % 2 : row % 2 * 2 + column % 2;
  size_t pixel = ((size_t) t / a.frames * a.h + row / 2) * a.w + column / 2;

  to[((size_t) blockIdx.z * 2 * a.h + row) * 2 * a.w * a.co + i] = from[pixel * a.ci + ((o * a.frames + t % a.frames) * 4 + place) / r];
}

void
pixel_shuffle_cuda (DpDevice *base, const DpPixelShuffleArgs *args)
{
  DpDeviceCuda *dev = dp_cuda (base);
  int frames = args->t * args->frames - args->skip, r = 4 * args->frames * args->co / args->ci;
  dim3 blocks (blocks_for ((size_t) 2 * args->w * args->co, 256), 2 * args->h, frames);

  assert (4 * args->frames * args->co % args->ci == 0 && args->skip < args->frames);
  if (args->t == 0 || args->h == 0 || args->w == 0 || !dp_cuda_enter (dev))
    return;
  assert (frames < 65536 && 2 * args->h < 65536);
  if (args->type == DP_TYPE_F32)
    pixel_shuffle<<<blocks, 256, 0, dev->stream>>> (*args, r, (const unsigned *) args->x, (unsigned *) args->y);
  else
    pixel_shuffle<<<blocks, 256, 0, dev->stream>>> (*args, r, (const unsigned short *) args->x, (unsigned short *) args->y);
  dp_cuda_launched (dev, "pixel_shuffle");
}

/* ---- pack_frame: -1..1 to what is shown; a thread per 2 x 2 pixels ---- */

typedef struct
{
  DpPixels format;
  int h, w, x_stride;
  unsigned char *planes[3];
  ptrdiff_t strides[3];
  int red, green, blue, other;  /* 8-bit RGB: which byte of a pixel; other is -1 for none */
} Pack;

/* In 0..1; what is not a number is black. */
__device__ static inline float
level (float f)
{
  f = f * 0.5f + 0.5f;
  return f > 0 ? fminf (f, 1) : 0;
}

__device__ static inline unsigned char
byte (float f)
{
  return (unsigned char) (int) (f + 0.5f);
}

/* ITU-R BT.709, limited range: luma 16..235, chroma 16..240. */
__device__ static inline float
luma (const float *rgb)
{
  return 0.2126f * rgb[0] + 0.7152f * rgb[1] + 0.0722f * rgb[2];
}

__device__ static inline void
pack_yuv (const Pack *a, int y, int x, const float (&p)[2][2][3])
{
  float mean[3], l;
  unsigned char cb, cr;

#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 2; j++)
      a->planes[0][(y + i) * a->strides[0] + x + j] = byte (luma (p[i][j]) * 219 + 16);
#pragma unroll
  for (int k = 0; k < 3; k++)
    mean[k] = (p[0][0][k] + p[0][1][k] + p[1][0][k] + p[1][1][k]) * 0.25f;
  l = luma (mean);
  cb = byte ((mean[2] - l) * (224 / 1.8556f) + 128);
  cr = byte ((mean[0] - l) * (224 / 1.5748f) + 128);
  if (a->format == DP_PIXELS_NV12) {
    a->planes[1][y / 2 * a->strides[1] + x] = cb;
    a->planes[1][y / 2 * a->strides[1] + x + 1] = cr;
  } else {
    a->planes[1][y / 2 * a->strides[1] + x / 2] = cb;
    a->planes[2][y / 2 * a->strides[2] + x / 2] = cr;
  }
}

__device__ static inline void
pack_rgb (const Pack *a, int y, int x, const float (&p)[2][2][3])
{
  int bytes = a->other < 0 ? 3 : 4;

#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 2; j++) {
      unsigned char *to = a->planes[0] + (y + i) * a->strides[0] + (x + j) * bytes;

      to[a->red] = byte (255 * p[i][j][0]);
      to[a->green] = byte (255 * p[i][j][1]);
      to[a->blue] = byte (255 * p[i][j][2]);
      if (a->other >= 0)
        to[a->other] = 255;
    }
}

template <typename T>
__global__ void
pack_frame (Pack a, const T *from)
{
  int x = (blockIdx.x * blockDim.x + threadIdx.x) * 2, y = blockIdx.y * 2;
  float p[2][2][3];

  if (x >= a.w)
    return;
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 6; j++)
      p[i][j / 3][j % 3] = level (to_f32 (from[((size_t) (y + i) * a.x_stride + x) * 3 + j]));
  if (a.format == DP_PIXELS_I420 || a.format == DP_PIXELS_NV12) {
    pack_yuv (&a, y, x, p);
  } else if (a.format == DP_PIXELS_RGB_F32) {
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < 6; j++)
        reinterpret_cast<float *> (a.planes[0] + (y + i) * a.strides[0])[x * 3 + j] = p[i][j / 3][j % 3];
  } else {
    pack_rgb (&a, y, x, p);
  }
}

void
pack_frame_cuda (DpDevice *base, const DpPackFrameArgs *args)
{
  /* Red, green, blue and the byte of no colour. */
  static const signed char order[][4] = {
    { 0 }, { 0 }, { 0 }, { 0, 1, 2, -1 }, { 2, 1, 0, -1 }, { 0, 1, 2, 3 }, { 2, 1, 0, 3 }, { 1, 2, 3, 0 }, { 3, 2, 1, 0 },
  };
  static_assert (DP_PIXELS_RGB == 3 && DP_PIXELS_XBGR == 8, "the table follows the enum");
  DpDeviceCuda *dev = dp_cuda (base);
  const signed char *o = order[args->format];
  Pack a = { args->format, args->h, args->w, args->x_stride, { }, { }, o[0], o[1], o[2], o[3] };
  dim3 blocks (blocks_for (args->w / 2, 128), args->h / 2);

  assert (args->h % 2 == 0 && args->w % 2 == 0 && args->x_stride >= args->w);
  if (args->h == 0 || args->w == 0 || !dp_cuda_enter (dev))
    return;
  for (int i = 0; i < 3; i++) {
    a.planes[i] = (unsigned char *) args->planes[i];
    a.strides[i] = args->strides[i];
  }
  if (args->type == DP_TYPE_F32)
    pack_frame<float><<<blocks, 128, 0, dev->stream>>> (a, (const float *) args->x);
  else
    pack_frame<bf16><<<blocks, 128, 0, dev->stream>>> (a, (const bf16 *) args->x);
  dp_cuda_launched (dev, "pack_frame");
}

/* ---- patches: a thread per V elements of a run. In the latents, row y of token column j is the run 2 j .. 2 j + 1 of pixels; in a token
 * it is the half y % 2. So a run of latents of 2 C is a run of tokens, and only their order differs. ---- */

/* n elements in all; row_size is elements of a row of latents, run 2 C. Where element i of the latents lies among the tokens. */
__device__ static inline size_t
token_index (size_t i, unsigned row_size, unsigned run)
{
  size_t row = i / row_size;
  unsigned at = i % row_size, j = at / run, c = at % run;

  return (row / 2 * (row_size / run) + j) * 2 * run + (row % 2) * run + c;
}

template <typename T, int V>
__global__ void
patchify (size_t n, unsigned row_size, unsigned run, const float *x, T *y)
{
  size_t i = ((size_t) blockIdx.x * blockDim.x + threadIdx.x) * V;
  float f[V];

  if (i >= n)
    return;
  load<V> (x + i, f);
  store<V> (y + token_index (i, row_size, run), f);
}

template <int V>
__global__ void
unpatchify (size_t n, unsigned row_size, unsigned run, const float *x, float *y)
{
  size_t i = ((size_t) blockIdx.x * blockDim.x + threadIdx.x) * V;
  float f[V];

  if (i >= n)
    return;
  load<V> (x + token_index (i, row_size, run), f);
  store<V> (y + i, f);
}

template <typename T>
static void
run_patchify (DpDeviceCuda *dev, size_t n, unsigned row, unsigned run, const float *x, T *y)
{
  if (aligned (4, run) && aligned (16, (size_t) x) && aligned (4 * sizeof (T), (size_t) y))
    patchify<T, 4><<<blocks_for (n, 4 * 256), 256, 0, dev->stream>>> (n, row, run, x, y);
  else
    patchify<T, 1><<<blocks_for (n, 256), 256, 0, dev->stream>>> (n, row, run, x, y);
}

void
patchify_cuda (DpDevice *base, int t, int h, int w, int channels, const float *x, DpType y_type, void *y)
{
  DpDeviceCuda *dev = dp_cuda (base);
  size_t n = (size_t) t * h * w * channels;

  if (n == 0 || !dp_cuda_enter (dev))
    return;
  if (y_type == DP_TYPE_F32)
    run_patchify (dev, n, w * channels, 2 * channels, x, (float *) y);
  else
    run_patchify (dev, n, w * channels, 2 * channels, x, (bf16 *) y);
  dp_cuda_launched (dev, "patchify");
}

void
unpatchify_cuda (DpDevice *base, int t, int h, int w, int channels, const float *x, float *y)
{
  DpDeviceCuda *dev = dp_cuda (base);
  size_t n = (size_t) t * h * w * channels;

  if (n == 0 || !dp_cuda_enter (dev))
    return;
  if (aligned (4, 2 * channels) && aligned (16, (size_t) x, (size_t) y))
    unpatchify<4><<<blocks_for (n, 4 * 256), 256, 0, dev->stream>>> (n, w * channels, 2 * channels, x, y);
  else
    unpatchify<1><<<blocks_for (n, 256), 256, 0, dev->stream>>> (n, w * channels, 2 * channels, x, y);
  dp_cuda_launched (dev, "unpatchify");
}
