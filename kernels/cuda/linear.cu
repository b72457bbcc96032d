/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "linear.h"
#include "vec.cuh"

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
dp_linear_finish (DpDeviceCuda *dev, int n, const float *t, const float *bias, const DpLinearArgs *args)
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
dp_linear_gate (DpDeviceCuda *dev, int n, int k, const void *w, const float *gate, void *y)
{
  size_t size = (size_t) n * k;

  if (k % 8 == 0)
    gate_weights<8><<<blocks_for (size, 8 * 256), 256, 0, dev->stream>>> (size, k, (const bf16 *) w, gate, (bf16 *) y);
  else
    gate_weights<1><<<blocks_for (size, 256), 256, 0, dev->stream>>> (size, k, (const bf16 *) w, gate, (bf16 *) y);
  dp_cuda_launched (dev, "linear");
}
