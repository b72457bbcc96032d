/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vec.cuh"

#include <assert.h>

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
