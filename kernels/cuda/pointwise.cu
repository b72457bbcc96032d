/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: L rows, D width, H heads of d channels, C channels. Every kernel reads its input once and writes its output once.
 */
#include "vec.cuh"

#include <assert.h>

#define PER 4                   /* vectors of a row that a thread holds in registers */
#define MAX_THREADS 1024

/* Threads for a row of n vectors held in registers: each has up to PER; 0 if the row is too long for that. */
static int
row_threads (size_t n)
{
  size_t threads = ((n + PER - 1) / PER + 31) / 32 * 32;

  return threads <= MAX_THREADS ? (int) threads : 0;
}

/* ---- layer norm: y = (x - mean) / sqrt (var + eps) * gain + shift; a block per row, the row in registers ---- */

template <typename T, int V>
__global__ void __launch_bounds__ (MAX_THREADS, 1)
layer_norm (int cols, const float *x, const float *gain, const float *shift, float eps, T *y)
{
  __shared__ float sums[2][32];
  float v[PER][V], sum = 0, squares = 0, mean, scale;

  x += (size_t) blockIdx.x * cols;
  y += (size_t) blockIdx.x * cols;
#pragma unroll
  for (int j = 0; j < PER; j++) {
    int i = (j * blockDim.x + threadIdx.x) * V;

    if (i < cols) {
      load<V> (x + i, v[j]);
#pragma unroll
      for (int k = 0; k < V; k++)
        sum += v[j][k];
    }
  }
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
  for (int j = 0; j < PER; j++) {
    int i = (j * blockDim.x + threadIdx.x) * V;

    if (i < cols) {
      float g[V], s[V];

      if (gain)
        load<V> (gain + i, g);
      if (shift)
        load<V> (shift + i, s);
#pragma unroll
      for (int k = 0; k < V; k++)
        v[j][k] = v[j][k] * scale * (gain ? g[k] : 1) + (shift ? s[k] : 0);
      store<V> (y + i, v[j]);
    }
  }
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
  int threads = row_threads (vector ? a->cols / 4 : a->cols);

  if (threads == 0)
    layer_norm_long<T><<<a->rows, MAX_THREADS, 0, dev->stream>>> (a->cols, a->x, a->gain, a->shift, a->eps, y);
  else if (vector)
    layer_norm<T, 4><<<a->rows, threads, 0, dev->stream>>> (a->cols, a->x, a->gain, a->shift, a->eps, y);
  else
    layer_norm<T, 1><<<a->rows, threads, 0, dev->stream>>> (a->cols, a->x, a->gain, a->shift, a->eps, y);
}

void
layer_norm_cuda (DpDevice *base, const DpLayerNormArgs *args)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (args->rows == 0 || !dp_cuda_enter (dev))
    return;
  if (args->y_type == DP_TYPE_F32)
    run_layer_norm<float> (dev, args);
  else
    run_layer_norm<bf16> (dev, args);
  dp_cuda_launched (dev, "layer_norm");
}

/* ---- rms norm and rotation: y = rope (x / sqrt (mean (x^2) + eps) * weight); a block per row and part, which is in registers ---- */

typedef struct
{
  int width, head_dim;
  size_t x_stride, y_stride;
  const float *weight, *rope;
  float eps;
} Rms;

/* V is even where the row turns: pairs never cross vectors. */
template <int V>
__device__ static inline void
scale_and_turn (const Rms *a, const float *rope, int i, float inverse, float (&v)[V])
{
  if (a->weight) {
    float w[V];

    load<V> (a->weight + i, w);
#pragma unroll
    for (int k = 0; k < V; k++)
      v[k] *= inverse * w[k];
  }
  if (rope) {
    float r[V];

    load<V> (rope + i % a->head_dim, r);
#pragma unroll
    for (int k = 0; k + 1 < V; k += 2) {
      float f = v[k];

      v[k] = f * r[k] - v[k + 1] * r[k + 1];
      v[k + 1] = f * r[k + 1] + v[k + 1] * r[k];
    }
  }
}

/* The row of this block, and the part of it. */
template <typename X, typename Y>
__device__ static inline void
take_part (Rms *a, const X **x, Y **y)
{
  size_t part = blockIdx.y * (size_t) a->width;

  *x += blockIdx.x * a->x_stride + part;
  *y += blockIdx.x * a->y_stride + part;
  if (a->weight)
    a->weight += part;
}

template <typename X, typename Y, int V>
__global__ void __launch_bounds__ (MAX_THREADS, 1)
rms_norm (Rms a, const X *x, Y *y)
{
  __shared__ float sums[32];
  const float *rope = a.rope ? a.rope + (size_t) blockIdx.x * a.head_dim : NULL;
  float v[PER][V], squares = 0, inverse = 1;

  take_part (&a, &x, &y);
#pragma unroll
  for (int j = 0; j < PER; j++) {
    int i = (j * blockDim.x + threadIdx.x) * V;

    if (i < a.width) {
      load<V> (x + i, v[j]);
#pragma unroll
      for (int k = 0; k < V; k++)
        squares += v[j][k] * v[j][k];
    }
  }
  if (a.weight)
    inverse = 1 / sqrtf (block_sum (squares, sums) / a.width + a.eps);
#pragma unroll
  for (int j = 0; j < PER; j++) {
    int i = (j * blockDim.x + threadIdx.x) * V;

    if (i < a.width) {
      scale_and_turn<V> (&a, rope, i, inverse, v[j]);
      store<V> (y + i, v[j]);
    }
  }
}

/* A row of any length and alignment, read twice, a pair at a time; more than one warp, so that the sum is a barrier between the readings
 * (y may be x). */
template <typename X, typename Y>
__global__ void __launch_bounds__ (MAX_THREADS, 1)
rms_norm_any (Rms a, const X *x, Y *y)
{
  __shared__ float sums[32];
  const float *rope = a.rope ? a.rope + (size_t) blockIdx.x * a.head_dim : NULL;
  float squares = 0, inverse = 1;

  take_part (&a, &x, &y);
  if (a.weight) {
    for (int i = threadIdx.x; i < a.width; i += blockDim.x)
      squares += to_f32 (x[i]) * to_f32 (x[i]);
    inverse = 1 / sqrtf (block_sum (squares, sums) / a.width + a.eps);
  }
  for (int i = 2 * threadIdx.x; i < a.width; i += 2 * blockDim.x) {
    bool pair = i + 1 < a.width;
    float c = rope ? rope[i % a.head_dim] : 1, s = rope ? rope[i % a.head_dim + 1] : 0;
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
  int threads = vector ? row_threads (width / V) : 0;

  if (threads > 0)
    rms_norm<X, Y, V><<<dim3 (args->rows, parts), threads, 0, dev->stream>>> (a, x, y);
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

/* ---- elements: V at a time, and what is left over one at a time ---- */

template <typename T, int V>
__global__ void
multiply (size_t n, const T *a, const T *b, T *y)
{
  size_t i = ((size_t) blockIdx.x * blockDim.x + threadIdx.x) * V;

  if (i + V <= n) {
    float f[V], g[V];

    load<V> (a + i, f);
    load<V> (b + i, g);
#pragma unroll
    for (int k = 0; k < V; k++)
      f[k] *= g[k];
    store<V> (y + i, f);
  } else {
    for (; i < n; i++)
      from_f32 (to_f32 (a[i]) * to_f32 (b[i]), &y[i]);
  }
}

template <typename T>
static void
run_multiply (DpDeviceCuda *dev, size_t n, const T *a, const T *b, T *y)
{
  if (aligned (16, (size_t) a, (size_t) b, (size_t) y))
    multiply<T, 8><<<blocks_for (n, 8 * 256), 256, 0, dev->stream>>> (n, a, b, y);
  else
    multiply<T, 1><<<blocks_for (n, 256), 256, 0, dev->stream>>> (n, a, b, y);
}

void
multiply_cuda (DpDevice *base, size_t n, DpType type, const void *a, const void *b, void *y)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (n == 0 || !dp_cuda_enter (dev))
    return;
  if (type == DP_TYPE_F32)
    run_multiply (dev, n, (const float *) a, (const float *) b, (float *) y);
  else
    run_multiply (dev, n, (const bf16 *) a, (const bf16 *) b, (bf16 *) y);
  dp_cuda_launched (dev, "multiply");
}

#define MAX_TERMS 8

typedef struct
{
  const float *x[MAX_TERMS];
  float coef[MAX_TERMS];
} Terms;

template <int TERMS, int V>
__global__ void
combine (size_t n, Terms t, float *y)
{
  size_t i = ((size_t) blockIdx.x * blockDim.x + threadIdx.x) * V;
  float f[TERMS][V], sum[V];

  if (i >= n)
    return;
  if (i + V <= n) {
#pragma unroll
    for (int j = 0; j < TERMS; j++)
      load<V> (t.x[j] + i, f[j]);
#pragma unroll
    for (int k = 0; k < V; k++) {
      sum[k] = t.coef[0] * f[0][k];
#pragma unroll
      for (int j = 1; j < TERMS; j++)
        sum[k] += t.coef[j] * f[j][k];
    }
    store<V> (y + i, sum);
  } else {
    for (; i < n; i++) {
      float s = t.coef[0] * t.x[0][i];

#pragma unroll
      for (int j = 1; j < TERMS; j++)
        s += t.coef[j] * t.x[j][i];
      y[i] = s;
    }
  }
}

template <int TERMS>
static void
run_combine (DpDeviceCuda *dev, size_t n, const Terms *t, size_t pointers, float *y)
{
  if (aligned (16, pointers, (size_t) y))
    combine<TERMS, 4><<<blocks_for (n, 4 * 256), 256, 0, dev->stream>>> (n, *t, y);
  else
    combine<TERMS, 1><<<blocks_for (n, 256), 256, 0, dev->stream>>> (n, *t, y);
}

void
combine_cuda (DpDevice *base, size_t n, int terms, const float *const *x, const float *coef, float *y)
{
  static void (*const run[]) (DpDeviceCuda *, size_t, const Terms *, size_t, float *) = {
    run_combine<1>, run_combine<2>, run_combine<3>, run_combine<4>, run_combine<5>, run_combine<6>, run_combine<7>, run_combine<8>,
  };
  DpDeviceCuda *dev = dp_cuda (base);
  Terms t = { };
  size_t pointers = 0;

  assert (terms >= 1 && terms <= MAX_TERMS);
  if (n == 0 || !dp_cuda_enter (dev))
    return;
  for (int i = 0; i < terms; i++) {
    t.x[i] = x[i];
    t.coef[i] = coef[i];
    pointers |= (size_t) x[i];
  }
  run[terms - 1] (dev, n, &t, pointers, y);
  dp_cuda_launched (dev, "combine");
}

template <typename X, typename Y, int V>
__global__ void
convert (size_t n, const X *x, Y *y)
{
  size_t i = ((size_t) blockIdx.x * blockDim.x + threadIdx.x) * V;

  if (i + V <= n) {
    float f[V];

    load<V> (x + i, f);
    store<V> (y + i, f);
  } else {
    for (; i < n; i++)
      from_f32 (to_f32 (x[i]), &y[i]);
  }
}

template <typename X, typename Y>
static void
run_convert (DpDeviceCuda *dev, size_t n, const void *x, void *y)
{
  if (aligned (16, (size_t) x, (size_t) y))
    convert<X, Y, 8><<<blocks_for (n, 8 * 256), 256, 0, dev->stream>>> (n, (const X *) x, (Y *) y);
  else
    convert<X, Y, 1><<<blocks_for (n, 256), 256, 0, dev->stream>>> (n, (const X *) x, (Y *) y);
}

void
convert_cuda (DpDevice *base, size_t n, DpType x_type, const void *x, DpType y_type, void *y)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (n == 0 || !dp_cuda_enter (dev))
    return;
  if (x_type == y_type)
    dp_cuda_ok (dev, cudaMemcpyAsync (y, x, n * dp_type_size (x_type), cudaMemcpyDeviceToDevice, dev->stream), "convert");
  else if (x_type == DP_TYPE_F32)
    run_convert<float, bf16> (dev, n, x, y);
  else if (x_type == DP_TYPE_BF16)
    run_convert<bf16, float> (dev, n, x, y);
  else if (y_type == DP_TYPE_F32)
    run_convert<__half, float> (dev, n, x, y);
  else
    run_convert<__half, bf16> (dev, n, x, y);
  dp_cuda_launched (dev, "convert");
}

/* ---- the end of a linear layer ---- */

template <typename T, int V>
__global__ void
finish_linear (int rows, int n, size_t stride, const float *t, const float *bias, const float *gate, bool accumulate, DpActivation act,
    T *y)
{
  int column = (blockIdx.x * blockDim.x + threadIdx.x) * V;
  float b[V] = { }, g[V];

  if (column >= n)
    return;
  if (bias)
    load<V> (bias + column, b);
  if (gate)
    load<V> (gate + column, g);
  for (int row = blockIdx.y; row < rows; row += gridDim.y) {
    float f[V], old[V];

    load<V> (t + (size_t) row * n + column, f);
    if (accumulate)
      load<V> (y + row * stride + column, old);
#pragma unroll
    for (int k = 0; k < V; k++) {
      f[k] += b[k];
      f[k] = accumulate ? old[k] + (gate ? g[k] * f[k] : f[k]) : activate (act, f[k]);
    }
    store<V> (y + row * stride + column, f);
  }
}

template <typename T>
static void
run_finish_linear (DpDeviceCuda *dev, int n, const float *t, const float *bias, const DpLinearArgs *a)
{
  T *y = (T *) a->y;
  size_t stride = a->y_stride ? a->y_stride : n;
  unsigned rows = a->rows < 4096 ? a->rows : 4096;

  if (aligned (4, n, stride) && aligned (4 * sizeof (T), (size_t) y) && aligned (16, (size_t) t, (size_t) bias, (size_t) a->gate))
    finish_linear<T, 4><<<dim3 (blocks_for (n, 4 * 128), rows), 128, 0, dev->stream>>> (a->rows, n, stride, t, bias, a->gate,
        a->accumulate, a->act, y);
  else
    finish_linear<T, 1><<<dim3 (blocks_for (n, 128), rows), 128, 0, dev->stream>>> (a->rows, n, stride, t, bias, a->gate,
        a->accumulate, a->act, y);
}

void
dp_cuda_finish_linear (DpDeviceCuda *dev, int n, const float *t, const float *bias, const DpLinearArgs *args)
{
  if (args->y_type == DP_TYPE_F32)
    run_finish_linear<float> (dev, n, t, bias, args);
  else
    run_finish_linear<bf16> (dev, n, t, bias, args);
  dp_cuda_launched (dev, "linear");
}

template <int V>
__global__ void
gate_weights (size_t size, int k, const bf16 *w, const float *gate, bf16 *y)
{
  size_t i = ((size_t) blockIdx.x * blockDim.x + threadIdx.x) * V;
  float f[V];

  if (i >= size)
    return;
  load<V> (w + i, f);
#pragma unroll
  for (int j = 0; j < V; j++)
    f[j] *= gate[i / k];
  store<V> (y + i, f);
}

void
dp_cuda_gate_weights (DpDeviceCuda *dev, int n, int k, const void *w, const float *gate, void *y)
{
  size_t size = (size_t) n * k;

  if (k % 8 == 0)
    gate_weights<8><<<blocks_for (size, 8 * 256), 256, 0, dev->stream>>> (size, k, (const bf16 *) w, gate, (bf16 *) y);
  else
    gate_weights<1><<<blocks_for (size, 256), 256, 0, dev->stream>>> (size, k, (const bf16 *) w, gate, (bf16 *) y);
  dp_cuda_launched (dev, "linear");
}

void
dp_cuda_scale_bias (DpDeviceCuda *dev, int n, const float *bias, const float *gate, float *y)
{
  run_multiply (dev, (size_t) n, bias, gate, y);
  dp_cuda_launched (dev, "linear");
}

bool
dp_cuda_probe (DpDeviceCuda *dev)
{
  struct cudaFuncAttributes attributes;
  cudaError_t status = cudaFuncGetAttributes (&attributes, (const void *) multiply<float, 1>);

  if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction || status == cudaErrorUnsupportedPtxVersion) {
    cudaGetLastError ();
    dp_device_fail (&dev->base, "%s: this build has no code for compute capability %d.%d; see the option cuda-archs", dev->base.name,
        dev->capability / 10, dev->capability % 10);
    return false;
  }
  return dp_cuda_ok (dev, status, "looking at the module");
}
