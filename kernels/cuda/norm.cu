/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: L rows, D width, H heads of d channels, C channels. Every kernel reads its input once and writes its output once.
 */
#include "e4m3.cuh"

#include <assert.h>

#define PER 4                   /* vectors of a row or pixel that a thread holds in registers */
#define RMS_PER 2               /* likewise of a row that may turn */
#define MAX_THREADS 1024

/* Threads for a row of n vectors held in registers, `per` in each at most; 0 if the row is too long for that. */
static int
row_threads (size_t n, int per)
{
  size_t threads = ((n + per - 1) / per + 31) / 32 * 32;

  return threads <= MAX_THREADS ? (int) threads : 0;
}

/* ---- layer norm: y = (x - mean) / sqrt (var + eps) * gain + shift; a block per row, the row in registers ---- */

/* In e4m3 with a scale for the row, whose inverse is stored too. */
__device__ static inline void
store_row (int cols, const float (&v)[PER][4], __nv_fp8_e4m3 *y, float *inverse)
{
  __shared__ unsigned most[32];
  unsigned m = 0;

#pragma unroll
  for (int j = 0; j < PER; j++)
    if ((j * blockDim.x + threadIdx.x) * 4 < cols)
      m = magnitude (v[j], m);
  float scale = dp_e4m3_scale (block_magnitude (m, most));
#pragma unroll
  for (int j = 0; j < PER; j++)
    if (int i = (j * blockDim.x + threadIdx.x) * 4; i < cols)
      store_scaled (y + i, v[j], scale);
  if (threadIdx.x == 0)
    *inverse = 1 / scale;
}

template <typename T, int V>
__device__ static inline void
store_row (int cols, const float (&v)[PER][V], T *y, float *)
{
#pragma unroll
  for (int j = 0; j < PER; j++)
    if (int i = (j * blockDim.x + threadIdx.x) * V; i < cols)
      store<V> (y + i, v[j]);
}

template <typename T, int V>
__global__ void __launch_bounds__ (MAX_THREADS, 1)
layer_norm (int cols, const float *x, const float *gain, const float *shift, float eps, T *y, float *inverse)
{
  __shared__ float sums[2][32];
  size_t row = blockIdx.x;
  float v[PER][V], sum = 0, squares = 0, mean, scale;

  x += row * cols;
#pragma unroll
  for (int j = 0; j < PER; j++)
    if (int i = (j * blockDim.x + threadIdx.x) * V; i < cols)
      load<V> (x + i, v[j]);
#pragma unroll
  for (int j = 0; j < PER; j++)
    if ((j * blockDim.x + threadIdx.x) * V < cols)
#pragma unroll
      for (int k = 0; k < V; k++)
        sum += v[j][k];
  mean = block_sum (sum, sums[0]) / cols;
#pragma unroll
  for (int j = 0; j < PER; j++)
    if ((j * blockDim.x + threadIdx.x) * V < cols)
#pragma unroll
      for (int k = 0; k < V; k++) {
        v[j][k] -= mean;
        squares += v[j][k] * v[j][k];
      }
  scale = 1 / sqrtf (block_sum (squares, sums[1]) / cols + eps);
#pragma unroll
  for (int j = 0; j < PER; j++)
    if (int i = (j * blockDim.x + threadIdx.x) * V; i < cols) {
      float g[V], s[V];

      if (gain)
        load<V> (gain + i, g);
      if (shift)
        load<V> (shift + i, s);
#pragma unroll
      for (int k = 0; k < V; k++)
        v[j][k] = v[j][k] * scale * (gain ? g[k] : 1) + (shift ? s[k] : 0);
    }
  store_row (cols, v, y + row * cols, inverse + row);
}

/* A row of any length, read three times. */
template <typename T>
__global__ void __launch_bounds__ (MAX_THREADS, 1)
layer_norm_long (int cols, const float *x, const float *gain, const float *shift, float eps, T *y)
{
  __shared__ float sums[2][32];
  float sum = 0, squares = 0, mean, scale;

  x += (size_t) blockIdx.x * cols;
  y += (size_t) blockIdx.x * cols;
  for (int i = threadIdx.x; i < cols; i += blockDim.x)
    sum += x[i];
  mean = block_sum (sum, sums[0]) / cols;
  for (int i = threadIdx.x; i < cols; i += blockDim.x)
    squares += (x[i] - mean) * (x[i] - mean);
  scale = 1 / sqrtf (block_sum (squares, sums[1]) / cols + eps);
  for (int i = threadIdx.x; i < cols; i += blockDim.x)
    from_f32 ((x[i] - mean) * scale * (gain ? gain[i] : 1) + (shift ? shift[i] : 0), &y[i]);
}

template <typename T>
static void
run_layer_norm (DpDeviceCuda *dev, const DpLayerNormArgs *a)
{
  T *y = (T *) a->y;
  bool vector = aligned (16, (size_t) a->x, (size_t) a->gain, (size_t) a->shift, a->cols * 4) && aligned (4 * sizeof (T), (size_t) y);
  int threads = row_threads (vector ? a->cols / 4 : a->cols, PER);

  if (threads == 0)
    layer_norm_long<T><<<a->rows, MAX_THREADS, 0, dev->stream>>> (a->cols, a->x, a->gain, a->shift, a->eps, y);
  else if (vector)
    layer_norm<T, 4><<<a->rows, threads, 0, dev->stream>>> (a->cols, a->x, a->gain, a->shift,
        a->eps, y, NULL);
  else
    layer_norm<T, 1><<<a->rows, threads, 0, dev->stream>>> (a->cols, a->x, a->gain, a->shift,
        a->eps, y, NULL);
}

static void
run_layer_norm_e4m3 (DpDeviceCuda *dev, const DpLayerNormArgs *a)
{
  int threads = row_threads (a->cols / 4, PER);

  assert (dp_layer_norm_fits_e4m3 (a->cols) && aligned (16, (size_t) a->x, (size_t) a->gain, (size_t) a->shift, (size_t) a->y));
  layer_norm<__nv_fp8_e4m3, 4><<<a->rows, threads, 0, dev->stream>>> (a->cols, a->x, a->gain,
      a->shift, a->eps, (__nv_fp8_e4m3 *) a->y, a->inverse);
}

void
layer_norm_cuda (DpDevice *base, const DpLayerNormArgs *args)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (args->rows == 0 || !dp_cuda_enter (dev))
    return;
  if (args->inverse)
    run_layer_norm_e4m3 (dev, args);
  else if (args->y_type == DP_TYPE_F32)
    run_layer_norm<float> (dev, args);
  else
    run_layer_norm<bf16> (dev, args);
  dp_cuda_launched (dev, "layer_norm");
}

/* ---- rms norm and rotation: y = rope (x / sqrt (mean (x^2) + eps) * weight), of each part of a row ---- */

typedef struct
{
  int width, head_dim;
  size_t x_stride, y_stride;
  const float *weight, *rope;
  float eps;
} Rms;

/* The row of this block, and the part of it. */
template <typename X, typename Y>
__device__ static inline void
take_part (Rms *a, const X **x, Y **y)
{
  size_t row = blockIdx.x;
  size_t part = blockIdx.y * (size_t) a->width;

  *x += row * a->x_stride + part;
  *y += row * a->y_stride + part;
  if (a->weight)
    a->weight += part;
  if (a->rope)
    a->rope += row * a->head_dim;
}

/* Pairs (f, g) become (f cos - g sin, f sin + g cos). V is even: pairs never cross vectors. */
template <int V>
__device__ static inline void
turn (float (&v)[V], const float (&rope)[V])
{
#pragma unroll
  for (int k = 0; k + 1 < V; k += 2) {
    float f = v[k];

    v[k] = f * rope[k] - v[k + 1] * rope[k + 1];
    v[k + 1] = f * rope[k + 1] + v[k + 1] * rope[k];
  }
}

/* SAME: all vectors of a thread are at the same place of a head, so they turn by the same angles, and those are there early. A block per
 * row and part, which is in registers. */
template <typename X, typename Y, int V, bool SAME>
__global__ void __launch_bounds__ (MAX_THREADS, 1)
rms_norm (Rms a, const X *x, Y *y)
{
  __shared__ float sums[32];
  float v[RMS_PER][V], angles[V], squares = 0, inverse = 1;

  take_part (&a, &x, &y);
#pragma unroll
  for (int j = 0; j < RMS_PER; j++)
    if (int i = (j * blockDim.x + threadIdx.x) * V; i < a.width)
      load<V> (x + i, v[j]);
  if (SAME && a.rope)
    load<V> (a.rope + threadIdx.x * V % a.head_dim, angles);
#pragma unroll
  for (int j = 0; j < RMS_PER; j++)
    if ((j * blockDim.x + threadIdx.x) * V < a.width)
#pragma unroll
      for (int k = 0; k < V; k++)
        squares += v[j][k] * v[j][k];
  if (a.weight)
    inverse = 1 / sqrtf (block_sum (squares, sums) / a.width + a.eps);
#pragma unroll
  for (int j = 0; j < RMS_PER; j++)
    if (int i = (j * blockDim.x + threadIdx.x) * V; i < a.width) {
      if (a.weight) {
        float w[V];

        load<V> (a.weight + i, w);
#pragma unroll
        for (int k = 0; k < V; k++)
          v[j][k] *= inverse * w[k];
      }
      if (a.rope) {
        if (!SAME)
          load<V> (a.rope + i % a.head_dim, angles);
        turn<V> (v[j], angles);
      }
      store<V> (y + i, v[j]);
    }
}

/* A row of any length and alignment, read twice, a pair at a time; more than one warp, so that the sum is a barrier between the readings
 * (y may be x). */
template <typename X, typename Y>
__global__ void __launch_bounds__ (MAX_THREADS, 1)
rms_norm_any (Rms a, const X *x, Y *y)
{
  __shared__ float sums[32];
  float squares = 0, inverse = 1;

  take_part (&a, &x, &y);
  if (a.weight) {
    for (int i = threadIdx.x; i < a.width; i += blockDim.x)
      squares += to_f32 (x[i]) * to_f32 (x[i]);
    inverse = 1 / sqrtf (block_sum (squares, sums) / a.width + a.eps);
  }
  for (int i = 2 * threadIdx.x; i < a.width; i += 2 * blockDim.x) {
    bool pair = i + 1 < a.width;
    float c = a.rope ? a.rope[i % a.head_dim] : 1, s = a.rope ? a.rope[i % a.head_dim + 1] : 0;
    float f = to_f32 (x[i]) * inverse * (a.weight ? a.weight[i] : 1);
    float g = pair ? to_f32 (x[i + 1]) * inverse * (a.weight ? a.weight[i + 1] : 1) : 0;

    from_f32 (f * c - g * s, &y[i]);
    if (pair)
      from_f32 (f * s + g * c, &y[i + 1]);
  }
}

template <typename X, typename Y>
static void
run_rms_norm (DpDeviceCuda *dev, const DpRmsNormArgs *args)
{
  const int V = 16 / sizeof (X);
  int width = args->heads * args->head_dim, parts = args->parts ? args->parts : 1;
  Rms a = { width, args->head_dim, (size_t) (args->x_stride ? args->x_stride : parts * width),
    (size_t) (args->y_stride ? args->y_stride : parts * width), args->weight, args->rope, args->eps };
  const X *x = (const X *) args->x;
  Y *y = (Y *) args->y;
  size_t bytes = V * sizeof (Y) < 16 ? V * sizeof (Y) : 16;
  bool vector = aligned (V, width, a.x_stride, a.y_stride, args->rope ? args->head_dim : 0) && aligned (16, (size_t) x,
      (size_t) args->weight, (size_t) args->rope) && aligned (bytes, (size_t) y);
  int threads = vector ? row_threads (width / V, RMS_PER) : 0;

  if (threads > 0 && threads * V % args->head_dim == 0)
    rms_norm<X, Y, V, true><<<dim3 (args->rows, parts), threads, 0, dev->stream>>> (a, x, y);
  else if (threads > 0)
    rms_norm<X, Y, V, false><<<dim3 (args->rows, parts), threads, 0, dev->stream>>> (a, x, y);
  else
    rms_norm_any<X, Y><<<dim3 (args->rows, parts), width > 512 ? MAX_THREADS : 128, 0, dev->stream>>> (a, x, y);
}

void
rms_norm_cuda (DpDevice *base, const DpRmsNormArgs *args)
{
  DpDeviceCuda *dev = dp_cuda (base);

  assert (args->rope == NULL || args->head_dim % 2 == 0);
  if (args->rows == 0 || !dp_cuda_enter (dev))
    return;
  if (args->x_type == DP_TYPE_F32 && args->y_type == DP_TYPE_F32)
    run_rms_norm<float, float> (dev, args);
  else if (args->x_type == DP_TYPE_F32)
    run_rms_norm<float, bf16> (dev, args);
  else if (args->y_type == DP_TYPE_F32)
    run_rms_norm<bf16, float> (dev, args);
  else
    run_rms_norm<bf16, bf16> (dev, args);
  dp_cuda_launched (dev, "rms_norm");
}

/* ---- channel norm: y = act (x / max (||x||, 1e-12) * sqrt (C) * gamma);
 * `lanes` neighbouring lanes per pixel, the pixel in registers ---- */

template <typename T, int V, int N>
__global__ void
channel_norm (int rows, int channels, int lanes, const T *x, const float *gamma, DpActivation act, T *y)
{
  size_t row = ((size_t) blockIdx.x * blockDim.x + threadIdx.x) / lanes;
  int lane = threadIdx.x & (lanes - 1);
  float v[N][V], squares = 0, scale;

  x += row * channels;
  y += row * channels;
#pragma unroll
  for (int j = 0; j < N; j++) {
    int i = (j * lanes + lane) * V;

    if (row < rows && i < channels) {
      load<V> (x + i, v[j]);
#pragma unroll
      for (int k = 0; k < V; k++)
        squares += v[j][k] * v[j][k];
    }
  }
  scale = sqrtf ((float) channels) / fmaxf (sqrtf (lane_sum (squares, lanes)), 1e-12f);
#pragma unroll
  for (int j = 0; j < N; j++) {
    int i = (j * lanes + lane) * V;

    if (row < rows && i < channels) {
      float g[V];

      load<V> (gamma + i, g);
#pragma unroll
      for (int k = 0; k < V; k++)
        v[j][k] = activate (act, v[j][k] * scale * g[k]);
      store<V> (y + i, v[j]);
    }
  }
}

/* Any number of channels: a warp per pixel, read twice. */
template <typename T>
__global__ void
channel_norm_any (int rows, int channels, const T *x, const float *gamma, DpActivation act, T *y)
{
  size_t row = ((size_t) blockIdx.x * blockDim.x + threadIdx.x) / 32;
  float squares = 0, scale;

  if (row >= rows)
    return;
  x += row * channels;
  y += row * channels;
  for (int i = threadIdx.x % 32; i < channels; i += 32)
    squares += to_f32 (x[i]) * to_f32 (x[i]);
  scale = sqrtf ((float) channels) / fmaxf (sqrtf (lane_sum (squares, 32)), 1e-12f);
  for (int i = threadIdx.x % 32; i < channels; i += 32)
    from_f32 (activate (act, to_f32 (x[i]) * scale * gamma[i]), &y[i]);
}

template <typename T>
static void
run_channel_norm (DpDeviceCuda *dev, const DpChannelNormArgs *a)
{
  const int V = 16 / sizeof (T);
  const T *x = (const T *) a->x;
  T *y = (T *) a->y;
  int n = a->channels / V, lanes = 1;
  bool vector = a->channels % V == 0 && aligned (16, (size_t) x, (size_t) y, (size_t) a->gamma);

  while (vector && lanes < 32 && (n + lanes - 1) / lanes > PER)
    lanes *= 2;
  n = (n + lanes - 1) / lanes;
  if (!vector || n > PER) {
    channel_norm_any<T><<<blocks_for (a->rows, 8), 256, 0, dev->stream>>> (a->rows, a->channels, x, a->gamma, a->act, y);
    return;
  }
  unsigned blocks = blocks_for ((size_t) a->rows * lanes, 256);
  switch (n) {
    case 1:
      channel_norm<T, V, 1><<<blocks, 256, 0, dev->stream>>> (a->rows, a->channels, lanes, x, a->gamma, a->act, y);
      break;
    case 2:
      channel_norm<T, V, 2><<<blocks, 256, 0, dev->stream>>> (a->rows, a->channels, lanes, x, a->gamma, a->act, y);
      break;
    case 3:
      channel_norm<T, V, 3><<<blocks, 256, 0, dev->stream>>> (a->rows, a->channels, lanes, x, a->gamma, a->act, y);
      break;
    default:
      channel_norm<T, V, 4><<<blocks, 256, 0, dev->stream>>> (a->rows, a->channels, lanes, x, a->gamma, a->act, y);
  }
}

void
channel_norm_cuda (DpDevice *base, const DpChannelNormArgs *args)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (args->rows == 0 || !dp_cuda_enter (dev))
    return;
  if (args->type == DP_TYPE_F32)
    run_channel_norm<float> (dev, args);
  else
    run_channel_norm<bf16> (dev, args);
  dp_cuda_launched (dev, "channel_norm");
}
