/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Rounding to e4m3 and back. Scales are powers of two (e4m3.h); what is kept of one is its inverse, which a product is multiplied with.
 */
#include "e4m3.cuh"
#include "quantize.h"

/* Eight bfloat16 make 16 bytes, eight e4m3 make 8. */
#define V 8

/* ---- rows: each by its own scale; a block per row, which the cache holds for the second reading ---- */

__global__ void
round_rows (int cols, size_t stride, const bf16 *x, __nv_fp8_e4m3 *y, float *inverse)
{
  __shared__ unsigned most[32];
  unsigned m = 0;
  float f[V], scale;

  x += blockIdx.x * stride;
  y += (size_t) blockIdx.x * cols;
  for (int i = threadIdx.x * V; i < cols; i += blockDim.x * V) {
    load<V> (x + i, f);
    m = magnitude (f, m);
  }
  scale = dp_e4m3_scale (block_magnitude (m, most));
  for (int i = threadIdx.x * V; i < cols; i += blockDim.x * V) {
    load<V> (x + i, f);
    store_scaled (y + i, f, scale);
  }
  if (threadIdx.x == 0)
    inverse[blockIdx.x] = 1 / scale;
}

void
dp_cuda_round_rows (DpDeviceCuda *dev, int rows, int cols, const void *x, size_t stride, void *y, float *inverse)
{
  int threads = cols / V >= 512 ? 512 : (cols / V + 31) / 32 * 32;

  round_rows<<<rows, threads, 0, dev->stream>>> (cols, stride, (const bf16 *) x, (__nv_fp8_e4m3 *) y, inverse);
  dp_cuda_launched (dev, "linear");
}

__global__ void
gate_rows (int n, const float *inverse, const bf16 *bias, const float *gate, float *gated_inverse, bf16 *gated_bias)
{
  int i = blockIdx.x * blockDim.x + threadIdx.x;

  if (i >= n)
    return;
  gated_inverse[i] = inverse[i] * gate[i];
  if (bias)
    gated_bias[i] = __float2bfloat16_rn (__bfloat162float (bias[i]) * gate[i]);
}

void
dp_cuda_gate_rows (DpDeviceCuda *dev, int n, const float *inverse, const void *bias, const float *gate, float *gated_inverse,
    void *gated_bias)
{
  gate_rows<<<blocks_for (n, 256), 256, 0, dev->stream>>> (n, inverse, (const bf16 *) bias, gate, gated_inverse, (bf16 *) gated_bias);
  dp_cuda_launched (dev, "linear");
}

/* ---- q, k and v: each by one scale; blockIdx.y says which ---- */

typedef struct
{
  const bf16 *x[3];
  size_t stride[3];
  int rows[3];
  __nv_fp8_e4m3 *y[3];
} Matrices;

__global__ void
find_most (Matrices m, int vectors, DpAttentionScales *scales)
{
  size_t n = (size_t) m.rows[blockIdx.y] * vectors;
  unsigned most = 0;

  for (size_t i = (size_t) blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t) gridDim.x * blockDim.x) {
    float f[V];

    load<V> (m.x[blockIdx.y] + i / vectors * m.stride[blockIdx.y] + i % vectors * V, f);
    most = magnitude (f, most);
  }
  most = __reduce_max_sync (0xffffffff, most);
  if (threadIdx.x % 32 == 0)
    atomicMax (&scales->most[blockIdx.y], most);        /* the order does not matter */
}

__global__ void
round_matrices (Matrices m, int vectors, DpAttentionScales *scales)
{
  size_t n = (size_t) m.rows[blockIdx.y] * vectors;
  float scale = dp_e4m3_scale (__uint_as_float (scales->most[blockIdx.y]));

  if (blockIdx.x == 0 && threadIdx.x == 0) {
    scales->inverse[blockIdx.y][0] = 1 / scale;
    if (blockIdx.y == 2) {      /* a mean of values is no larger than they are; probabilities are at most 1 */
      scales->out[0] = scale;
      scales->p[0] = 256;
      scales->inverse_p[0] = 1 / 256.f;
    }
  }
  for (size_t i = (size_t) blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t) gridDim.x * blockDim.x) {
    float f[V];

    load<V> (m.x[blockIdx.y] + i / vectors * m.stride[blockIdx.y] + i % vectors * V, f);
    store_scaled (m.y[blockIdx.y] + i * V, f, scale);
  }
}

void
dp_cuda_round_attention (DpDeviceCuda *dev, const DpAttentionArgs *a, void *q, void *k, void *v, DpAttentionScales *scales)
{
  Matrices m = {
    { (const bf16 *) a->q, (const bf16 *) a->k, (const bf16 *) a->v },
    { (size_t) a->q_stride, (size_t) a->k_stride, (size_t) a->v_stride }, { a->q_len, a->kv_len, a->kv_len },
    { (__nv_fp8_e4m3 *) q, (__nv_fp8_e4m3 *) k, (__nv_fp8_e4m3 *) v },
  };
  dim3 grid (8 * dev->sm_count, 3);
  int vectors = a->heads * a->head_dim / V;

  if (!dp_cuda_ok (dev, cudaMemsetAsync (scales, 0, sizeof *scales, dev->stream), "attention"))
    return;
  find_most<<<grid, 256, 0, dev->stream>>> (m, vectors, scales);
  round_matrices<<<grid, 256, 0, dev->stream>>> (m, vectors, scales);
  dp_cuda_launched (dev, "attention");
}

__global__ void
widen (size_t n, int vectors, const __nv_fp8_e4m3 *x, const float *scale, size_t stride, bf16 *y)
{
  float inverse = 1 / *scale;

  for (size_t i = (size_t) blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t) gridDim.x * blockDim.x) {
    Vec<__nv_fp8_e4m3, V> v = reinterpret_cast<const Vec<__nv_fp8_e4m3, V> *> (x)[i];
    float f[V];

#pragma unroll
    for (int k = 0; k < V; k++)
      f[k] = float (v.e[k]) * inverse;
    store<V> (y + i / vectors * stride + i % vectors * V, f);
  }
}

void
dp_cuda_widen_attention (DpDeviceCuda *dev, const DpAttentionArgs *a, const void *out, const DpAttentionScales *scales)
{
  int vectors = a->heads * a->head_dim / V;

  widen<<<8 * dev->sm_count, 256, 0, dev->stream>>> ((size_t) a->q_len * vectors, vectors, (const __nv_fp8_e4m3 *) out, scales->out,
      a->out_stride, (bf16 *) a->out);
  dp_cuda_launched (dev, "attention");
}
