/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: q_len queries, kv_len keys, H heads of d channels.
 */
#include "attention.h"
#include "vec.cuh"

#include <math.h>

/* ---- bfloat16, d <= 128: one block has 64 queries of one head, a warp 16 of them; keys and values pass by in tiles of 64 ---- */

enum { TILE = 64, WARPS = 4 };

struct Flash
{
  const bf16 *q, *k, *v;
  bf16 *out;
  int64_t q_stride, k_stride, v_stride, out_stride;
  int q_len, kv_len, d, rel_bias_keys;
  float scale, last_key_bias;   /* times log2 (e), as everything before the exponential */
  const float *rel_bias;
  bool vectors;                 /* everything is a multiple of 16 bytes */
};

static constexpr float LOG2E = 1.4426950408889634f;

/* Where channels [8 * chunk, +8) of a row of a tile are, in elements: rows are swizzled so that 8 of them can be read at once. */
template<int D> static __device__ __forceinline__ int
tile_at (int row, int chunk)
{
  return row * D + ((chunk ^ (row & 7)) * 8);
}

static __device__ __forceinline__ uint32_t
shared_address (const void *ptr)
{
  return (uint32_t) __cvta_generic_to_shared (ptr);
}

static __device__ __forceinline__ void
load_matrices (uint32_t (&r)[4], const bf16 *at)
{
  asm volatile ("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r" (r[0]), "=r" (r[1]), "=r" (r[2]), "=r" (r[3]) : "r" (shared_address (at)));
}

static __device__ __forceinline__ void
load_matrices_transposed (uint32_t (&r)[4], const bf16 *at)
{
  asm volatile ("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r" (r[0]), "=r" (r[1]), "=r" (r[2]), "=r" (r[3]) : "r" (shared_address (at)));
}

/* c[16, 8] += a[16, 16] . b[16, 8] */
static __device__ __forceinline__ void
multiply (float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
  asm ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f" (c[0]), "+f" (c[1]), "+f" (c[2]), "+f" (c[3]) : "r" (a[0]), "r" (a[1]), "r" (a[2]), "r" (a[3]), "r" (b0), "r" (b1));
}

/* Rows [first, first + N) of a head into a tile: zeros behind the last row and the last channel. */
template<int D, int N = TILE> static __device__ void
load_tile (bf16 *tile, const bf16 *head, int64_t stride, int first, int rows, int d, bool vectors)
{
  constexpr int CHUNKS = D / 8;

  for (int i = threadIdx.x; i < N * CHUNKS; i += WARPS * 32) {
    int row = i / CHUNKS, chunk = i % CHUNKS;
    bf16 *to = tile + tile_at<D> (row, chunk);
    const bf16 *from = head + (first + row) * stride + chunk * 8;
    bool inside = first + row < rows;

    if (vectors) {
      int bytes = inside && chunk * 8 < d ? 16 : 0;

      asm volatile ("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r" (shared_address (to)), "l" (bytes ? from : head), "r" (bytes));
    } else {
      for (int c = 0; c < 8; c++)
        to[c] = inside && chunk * 8 + c < d ? from[c] : __float2bfloat16 (0);
    }
  }
}

static __device__ __forceinline__ void
loads_commit (void)
{
  asm volatile ("cp.async.commit_group;");
}

static __device__ __forceinline__ void
loads_wait (void)
{
  asm volatile ("cp.async.wait_group 0;");
}

/* Logits of a tile, s: scaled, biased, and nothing for what is no key. Thread (g, t) of a warp has queries g and g + 8, and of every 8
 * keys 2t and 2t + 1. */
template<int M> static __device__ __forceinline__ void
finish_logits (const Flash &f, float (&s)[M][4], const float *rel, int query, int key)
{
  bool plain = rel == NULL && key + 8 * M < f.kv_len;

#pragma unroll
  for (int j = 0; j < M; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float x = s[j][i] * f.scale;

      if (!plain) {
        int row = min (query + (i / 2) * 8, f.q_len - 1), col = key + j * 8 + (threadIdx.x % 4) * 2 + i % 2;

        if (rel != NULL && col < f.kv_len)
          x += rel[col - row + f.rel_bias_keys - 1] * LOG2E;
        if (col == f.kv_len - 1)
          x += f.last_key_bias;
        if (col >= f.kv_len)
          x = -INFINITY;
      }
      s[j][i] = x;
    }
}

/* s becomes the probabilities of a tile under the running maximum; what was summed so far shrinks to the new one. */
template<int M, int N> static __device__ __forceinline__ void
softmax_tile (float (&s)[M][4], float (&o)[N][4], float (&max)[2], float (&sum)[2])
{
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float top = max[r], shrink, total = 0;

#pragma unroll
    for (int j = 0; j < M; j++)
      top = fmaxf (top, fmaxf (s[j][2 * r], s[j][2 * r + 1]));
    top = fmaxf (top, __shfl_xor_sync (~0u, top, 1));
    top = fmaxf (top, __shfl_xor_sync (~0u, top, 2));
    shrink = power_of_two (max[r] - top);
#pragma unroll
    for (int j = 0; j < M; j++)
#pragma unroll
      for (int i = 0; i < 2; i++)
        total += s[j][2 * r + i] = power_of_two (s[j][2 * r + i] - top);
    max[r] = top;
    sum[r] = sum[r] * shrink + total;
#pragma unroll
    for (int n = 0; n < N; n++) {
      o[n][2 * r] *= shrink;
      o[n][2 * r + 1] *= shrink;
    }
  }
}

/* The 16 rows of queries that a warp has in a tile. */
template<int D> static __device__ __forceinline__ void
load_queries (uint32_t (&a)[D / 16][4], const bf16 *tile, int warp, int lane)
{
#pragma unroll
  for (int c = 0; c < D / 16; c++)
    load_matrices (a[c], tile + tile_at<D> (warp * 16 + lane % 16, c * 2 + lane / 16));
}

/* s = q . k^T for a tile of 8 M keys. */
template<int D, int M> static __device__ __forceinline__ void
multiply_qk (float (&s)[M][4], const uint32_t (&a)[D / 16][4], const bf16 *keys, int lane)
{
#pragma unroll
  for (int c = 0; c < D / 16; c++)
#pragma unroll
    for (int j = 0; j < M / 2; j++) {
      uint32_t b[4];

      load_matrices (b, keys + tile_at<D> (j * 16 + lane / 16 * 8 + lane % 8, c * 2 + lane / 8 % 2));
      multiply (s[2 * j], a[c], b[0], b[1]);
      multiply (s[2 * j + 1], a[c], b[2], b[3]);
    }
}

/* o += p . v, p being the numbers in s, rounded. */
template<int D, int M> static __device__ __forceinline__ void
multiply_pv (float (&o)[D / 8][4], const float (&s)[M][4], const bf16 *values, int lane)
{
#pragma unroll
  for (int j = 0; j < M / 2; j++) {
    uint32_t p[4] = { pack (s[2 * j][0], s[2 * j][1]), pack (s[2 * j][2], s[2 * j][3]), pack (s[2 * j + 1][0], s[2 * j + 1][1]),
      pack (s[2 * j + 1][2], s[2 * j + 1][3]) };

#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];

      load_matrices_transposed (b, values + tile_at<D> (j * 16 + lane % 16, n * 2 + lane / 16));
      multiply (o[2 * n], p, b[0], b[1]);
      multiply (o[2 * n + 1], p, b[2], b[3]);
    }
  }
}

/* Divides the warp's 16 rows by their sums and stores them, from query `first` on, in whole vectors: by way of its rows of a tile. */
template<int D> static __device__ __forceinline__ void
store_rows (const Flash &f, float (&o)[D / 8][4], float (&sum)[2], bf16 *tile, int first, int warp, int lane)
{
  const int64_t head = (int64_t) blockIdx.y * f.d;

#pragma unroll
  for (int r = 0; r < 2; r++) {
    sum[r] += __shfl_xor_sync (~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync (~0u, sum[r], 2);
    sum[r] = 1 / sum[r];
  }
#pragma unroll
  for (int n = 0; n < D / 8; n++)
#pragma unroll
    for (int r = 0; r < 2; r++)
      *(uint32_t *) (tile + tile_at<D> (warp * 16 + lane / 4 + r * 8, n) + lane % 4 * 2) = pack (o[n][2 * r] * sum[r],
          o[n][2 * r + 1] * sum[r]);
  __syncwarp ();
  for (int i = lane; i < 16 * (D / 8); i += 32) {
    int row = warp * 16 + i / (D / 8), chunk = i % (D / 8);
    const bf16 *from = tile + tile_at<D> (row, chunk);
    bf16 *to = f.out + (first + row) * f.out_stride + head + chunk * 8;

    if (first + row >= f.q_len)
      break;
    if (f.vectors) {
      if (chunk * 8 < f.d)
        *(uint4 *) to = *(const uint4 *) from;
    } else {
      for (int c = 0; c < 8 && chunk * 8 + c < f.d; c++)
        to[c] = from[c];
    }
  }
}

/* So few keys that all are one tile: a block keeps it, while queries pass by, a tile of them every gridDim.x. */
template<int D, int KEYS> static __global__ void __launch_bounds__ (WARPS * 32, 3)
few_keys (const Flash f)
{
  extern __shared__ __align__ (128) bf16 shared[];
  bf16 *const keys = shared, *const values = keys + KEYS * D, *const queries = values + KEYS * D;       /* two tiles of queries */
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, step = gridDim.x * TILE;
  const int64_t head = (int64_t) blockIdx.y * f.d;
  const bf16 *q = f.q + head;

  load_tile<D, KEYS> (keys, f.k + head, f.k_stride, 0, f.kv_len, f.d, f.vectors);
  load_tile<D, KEYS> (values, f.v + head, f.v_stride, 0, f.kv_len, f.d, f.vectors);
  load_tile<D> (queries, q, f.q_stride, blockIdx.x * TILE, f.q_len, f.d, f.vectors);
  loads_commit ();
  for (int first = blockIdx.x * TILE, now = 0; first < f.q_len; first += step, now ^= TILE * D) {
    uint32_t a[D / 16][4];
    float s[KEYS / 8][4] = { }, o[D / 8][4] = { }, max[2] = { -INFINITY, -INFINITY }, sum[2] = { };

    loads_wait ();
    __syncthreads ();           /* this tile is complete, and no thread is at work in the other one any more */
    if (first + step < f.q_len) {
      load_tile<D> (queries + (now ^ TILE * D), q, f.q_stride, first + step, f.q_len, f.d, f.vectors);
      loads_commit ();
    }
    load_queries<D> (a, queries + now, warp, lane);
    multiply_qk<D> (s, a, keys, lane);
    finish_logits (f, s, NULL, first + warp * 16 + lane / 4, 0);
    softmax_tile (s, o, max, sum);
    multiply_pv<D> (o, s, values, lane);
    __syncwarp ();              /* the warp's queries are read no more */
    store_rows<D> (f, o, sum, queries + now, first, warp, lane);
  }
}

template<int D> static __global__ void __launch_bounds__ (WARPS * 32, 3)
flash (const Flash f)
{
  extern __shared__ __align__ (128) bf16 shared[];
  bf16 *const keys = shared, *const values = shared + 2 * TILE * D;   /* two tiles each */
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * TILE;
  const int64_t head = (int64_t) blockIdx.y * f.d;
  const bf16 *q = f.q + head, *k = f.k + head, *v = f.v + head;
  const float *rel = f.rel_bias ? f.rel_bias + (int64_t) blockIdx.y * (2 * f.rel_bias_keys - 1) : NULL;
  uint32_t a[D / 16][4];
  float o[D / 8][4] = { }, max[2] = { -INFINITY, -INFINITY }, sum[2] = { };

  load_tile<D> (keys + TILE * D, q, f.q_stride, first, f.q_len, f.d, f.vectors);
  load_tile<D> (keys, k, f.k_stride, 0, f.kv_len, f.d, f.vectors);
  load_tile<D> (values, v, f.v_stride, 0, f.kv_len, f.d, f.vectors);
  loads_commit ();
  loads_wait ();
  __syncthreads ();
  load_queries<D> (a, keys + TILE * D, warp, lane);

  for (int key = 0, now = 0, next = TILE * D; key < f.kv_len; key += TILE, now ^= TILE * D, next ^= TILE * D) {
    float s[TILE / 8][4] = { };

    loads_wait ();
    __syncthreads ();           /* this tile is complete, and no thread reads the other one any more */
    if (key + TILE < f.kv_len) {
      load_tile<D> (keys + next, k, f.k_stride, key + TILE, f.kv_len, f.d, f.vectors);
      load_tile<D> (values + next, v, f.v_stride, key + TILE, f.kv_len, f.d, f.vectors);
      loads_commit ();
    }
    multiply_qk<D> (s, a, keys + now, lane);
    finish_logits (f, s, rel, first + warp * 16 + lane / 4, key);
    softmax_tile (s, o, max, sum);
    multiply_pv<D> (o, s, values + now, lane);
  }
  __syncthreads ();             /* keys are read no more */
  store_rows<D> (f, o, sum, keys, first, warp, lane);
}

static void
launch (DpDeviceCuda *dev, void (*kernel) (Flash), const Flash *f, int tiles, int heads, size_t bytes)
{
  if (!dp_cuda_ok (dev, cudaFuncSetAttribute (kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "attention"))
    return;
  kernel<<<dim3 (tiles, heads), WARPS * 32, bytes, dev->stream>>> (*f);
  dp_cuda_launched (dev, "attention");
}

template<int D, int KEYS> static void
launch_few_keys (DpDeviceCuda *dev, const Flash *f, int tiles, int heads)
{
  int resident = (dev->sm_count * 4 + heads - 1) / heads;       /* blocks of a head that are at work at a time, about */

  launch (dev, few_keys<D, KEYS>, f, tiles < resident ? tiles : resident, heads, 2 * (TILE + KEYS) * D * sizeof (bf16));
}

template<int D> static void
launch_flash (DpDeviceCuda *dev, const Flash *f, int heads)
{
  int tiles = (f->q_len + TILE - 1) / TILE;

  if (f->kv_len > TILE || f->rel_bias)
    launch (dev, flash<D>, f, tiles, heads, 4 * TILE * D * sizeof (bf16));
  else if (f->kv_len > 32)
    launch_few_keys<D, 64> (dev, f, tiles, heads);
  else if (f->kv_len > 16)
    launch_few_keys<D, 32> (dev, f, tiles, heads);
  else
    launch_few_keys<D, 16> (dev, f, tiles, heads);
}

void
dp_attention_flash (DpDeviceCuda *dev, const DpAttentionArgs *args)
{
  Flash f = { };

  f.q = (const bf16 *) args->q;
  f.k = (const bf16 *) args->k;
  f.v = (const bf16 *) args->v;
  f.out = (bf16 *) args->out;
  f.q_stride = args->q_stride;
  f.k_stride = args->k_stride;
  f.v_stride = args->v_stride;
  f.out_stride = args->out_stride;
  f.q_len = args->q_len;
  f.kv_len = args->kv_len;
  f.d = args->head_dim;
  f.scale = args->scale * LOG2E;
  f.last_key_bias = args->last_key_bias * LOG2E;
  f.rel_bias = args->rel_bias;
  f.rel_bias_keys = args->rel_bias_keys;
  f.vectors = aligned (8, args->head_dim, args->q_stride, args->k_stride, args->v_stride, args->out_stride)
      && aligned (16, (size_t) args->q, (size_t) args->k, (size_t) args->v, (size_t) args->out);
  if (args->head_dim <= 64)
    launch_flash<64> (dev, &f, args->heads);
  else
    launch_flash<128> (dev, &f, args->heads);
}

/* ---- any type: a warp has R queries, its lanes 32 keys, then 32 channels at a time ---- */

static __device__ float
warp_max (float x)
{
  for (int i = 16; i > 0; i /= 2)
    x = fmaxf (x, __shfl_xor_sync (~0u, x, i));
  return x;
}

/* The biases of logit (i, j) of a head. */
static __device__ float
bias_of (const DpAttentionArgs &a, int head, int i, int j)
{
  float bias = j == a.kv_len - 1 ? a.last_key_bias : 0;

  if (a.rel_bias != NULL)
    bias += a.rel_bias[(int64_t) head * (2 * a.rel_bias_keys - 1) + j - i + a.rel_bias_keys - 1];
  return bias;
}

/* d <= 32 N */
template<typename T, int R, int N> static __global__ void __launch_bounds__ (WARPS * 32)
simple (const DpAttentionArgs a)
{
  __shared__ float keys[32][33], queries[WARPS * R][32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y, first = (blockIdx.x * WARPS + warp) * R, d = a.head_dim;
  const T *q = (const T *) a.q + (int64_t) head * d, *k = (const T *) a.k + (int64_t) head * d, *v = (const T *) a.v + (int64_t) head * d;
  float o[R][N] = { }, max[R], sum[R] = { };

  for (int r = 0; r < R; r++)
    max[r] = -INFINITY;
  for (int key = 0; key < a.kv_len; key += 32) {
    float s[R] = { };
    int n_keys = min (32, a.kv_len - key);

    for (int c0 = 0; c0 < d; c0 += 32) {
      __syncthreads ();
      for (int j = warp; j < 32; j += WARPS)
        keys[j][lane] = j < n_keys && c0 + lane < d ? to_f32 (k[(key + j) * (int64_t) a.k_stride + c0 + lane]) : 0;
      for (int r = 0; r < R; r++)
        queries[warp * R + r][lane] = first + r < a.q_len && c0 + lane < d ? to_f32 (q[(first + r) * (int64_t) a.q_stride + c0 + lane]) : 0;
      __syncthreads ();
#pragma unroll 8
      for (int c = 0; c < 32; c++)
#pragma unroll
        for (int r = 0; r < R; r++)
          s[r] += queries[warp * R + r][c] * keys[lane][c];
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
      float logit = lane < n_keys ? s[r] * a.scale + bias_of (a, head, min (first + r, a.q_len - 1), key + lane) : -INFINITY;
      float top = fmaxf (max[r], warp_max (logit)), shrink = expf (max[r] - top);

      s[r] = expf (logit - top);
      sum[r] = sum[r] * shrink + lane_sum (s[r], 32);
      max[r] = top;
#pragma unroll
      for (int n = 0; n < N; n++)
        o[r][n] *= shrink;
    }
    for (int j = 0; j < n_keys; j++)
#pragma unroll
      for (int n = 0; n < N; n++) {
        float x = n * 32 + lane < d ? to_f32 (v[(key + j) * (int64_t) a.v_stride + n * 32 + lane]) : 0;

#pragma unroll
        for (int r = 0; r < R; r++)
          o[r][n] += __shfl_sync (~0u, s[r], j) * x;
      }
  }
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int n = 0; n < N; n++)
      if (first + r < a.q_len && n * 32 + lane < d)
        from_f32 (o[r][n] / sum[r], (T *) a.out + (first + r) * (int64_t) a.out_stride + (int64_t) head * d + n * 32 + lane);
}

template<typename T, int R, int N> static void
launch_simple (DpDeviceCuda *dev, const DpAttentionArgs *args)
{
  simple<T, R, N> <<<dim3 ((args->q_len + WARPS * R - 1) / (WARPS * R), args->heads), WARPS * 32, 0, dev->stream>>> (*args);
  dp_cuda_launched (dev, "attention");
}

template<typename T> static void
pick_simple (DpDeviceCuda *dev, const DpAttentionArgs *args)
{
  if (args->head_dim <= 64)
    launch_simple<T, 4, 2> (dev, args);
  else if (args->head_dim <= 128)
    launch_simple<T, 4, 4> (dev, args);
  else if (args->head_dim <= 384)
    launch_simple<T, 4, 12> (dev, args);
  else
    launch_simple<T, 1, DP_ATTENTION_SIMPLE_MAX / 32> (dev, args);
}

void
dp_attention_simple (DpDeviceCuda *dev, const DpAttentionArgs *args)
{
  if (args->type == DP_TYPE_F32)
    pick_simple<float> (dev, args);
  else
    pick_simple<bf16> (dev, args);
}

/* ---- the softmax between two matrix products: one block has a row ---- */

enum { SOFTMAX_THREADS = 256 };

/* The result of a reduction over the block, for every thread of it. */
template<bool MAX> static __device__ float
block_reduce (float x)
{
  __shared__ float parts[SOFTMAX_THREADS / 32];
  int lane = threadIdx.x % 32;

  x = MAX ? warp_max (x) : lane_sum (x, 32);
  __syncthreads ();
  if (lane == 0)
    parts[threadIdx.x / 32] = x;
  __syncthreads ();
  x = lane < SOFTMAX_THREADS / 32 ? parts[lane] : MAX ? -INFINITY : 0;
  return MAX ? warp_max (x) : lane_sum (x, 32);
}

template<typename T> static __global__ void __launch_bounds__ (SOFTMAX_THREADS)
softmax (const DpAttentionArgs a, int head, int first, int pitch, const float *s, T *p)
{
  const int i = blockIdx.x;
  float max = -INFINITY, sum = 0;

  s += (int64_t) i * pitch;
  p += (int64_t) i * pitch;
  for (int j = threadIdx.x; j < a.kv_len; j += SOFTMAX_THREADS)
    max = fmaxf (max, s[j] + bias_of (a, head, first + i, j));
  max = block_reduce<true> (max);
  for (int j = threadIdx.x; j < a.kv_len; j += SOFTMAX_THREADS)
    sum += expf (s[j] + bias_of (a, head, first + i, j) - max);
  sum = 1 / block_reduce<false> (sum);
  for (int j = threadIdx.x; j < a.kv_len; j += SOFTMAX_THREADS)
    from_f32 (expf (s[j] + bias_of (a, head, first + i, j) - max) * sum, p + j);
}

void
dp_attention_softmax (DpDeviceCuda *dev, const DpAttentionArgs *args, int head, int first, int rows, int pitch, const float *s, void *p)
{
  if (args->type == DP_TYPE_F32)
    softmax<<<rows, SOFTMAX_THREADS, 0, dev->stream>>> (*args, head, first, pitch, s, (float *) p);
  else
    softmax<<<rows, SOFTMAX_THREADS, 0, dev->stream>>> (*args, head, first, pitch, s, (bf16 *) p);
  dp_cuda_launched (dev, "attention's softmax");
}
