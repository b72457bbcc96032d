/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Attention in e4m3 of heads of 128 channels for compute capability 9.0. Its frame is that of attention_hopper.cu; here two warp groups
 * compute 64 queries each, 192 keys at a time.
 *
 * The tensor cores add products of e4m3 in fewer bits than a float has: addends far below the sum vanish. So sums that grow are taken out
 * of their registers every second tile: the results, and the sum of the probabilities, which is the product with a column of ones. And the
 * mean of the values is subtracted before they are rounded, and added to the result; that of the keys is subtracted too, which changes no
 * softmax. A mean is a multiple of the largest steps of e4m3 that occur: a bfloat16 is often just between two of e4m3, and less a tiny mean
 * all of those would be rounded in the same direction, which is more than what is left of independent values over many keys.
 *
 * The logits come as halves, S. A probability 2^x, with x = c S - m + BITS / 8, is wanted as a code of e4m3, which is 8 (x + 7), but for the
 * mantissa being the power's first-order approximation: an error as large as that of the rounding itself. A subnormal half *is* an integer
 * in units of 2^-24; so one multiplication and addition, 8 c S + (offset - 8 m), in these units, rounds to the code and clamps it at 0. 8 c
 * must be a power of two in them; the other factors are in the scales of queries and keys. Queries have a scale for each row, so that a
 * row's bits depend on no other row; keys and values have one for each head.
 *
 * m is lazy: it moves when a tile exceeds it by 2^3, which leaves the codes below e4m3's end.
 *
 * Legend as there, but a register of S has two columns, and P is in the order of S: V's keys are stored in the order that this asks for.
 */
#include "attention.h"
#include "hopper.cuh"
#include "e4m3.cuh"
#include "map.h"

#include <stdio.h>

using namespace hopper;

enum
{
  D = 128,
  QUERIES = 64,                 /* of a warp group */
  GROUPS = 2,
  ROWS = QUERIES * GROUPS,
  KEYS = 192,                   /* at a time */
  CHUNK = 64,                   /* keys that lie side by side in a tile of values */
  V_ROWS = D + 8,               /* channels, and ones */
  STAGES = 2,
  DRAIN = 2,                    /* tiles whose results are added up in the products' registers */
  THREADS = 128 * (1 + GROUPS),
  TOP = 96,                     /* the code of the largest probability: 2^5 */
  LAZY = 24,                    /* and how much more it may be: 2^3 */
  CHUNK_ROWS = 128,             /* rows that a block sums up for the means */
  SUMMERS = 8,                  /* threads that share a channel when these sums are added up */
};

#define MOST_KEY 4.0f           /* largest magnitudes after scaling: 128 * 4 * 120 fits into a half */
#define MOST_QUERY 120.0f
#define MOST_VALUE 128.0f

/* Of a head, by the host's workspace. */
typedef struct
{
  float mean_k[D], mean_v[D];
  float scale_k, scale_v;       /* powers of two */
} Head;

typedef struct
{
  int q_len, kv_len, heads, out_stride;
  const uint16_t *factors;      /* [heads][q_len]: 8 c, a half in units of 2^-24 */
  const Head *head;             /* [heads] */
  bf16 *out;
} Job;

struct __align__ (1024) Shared
{
  uint8_t q[ROWS][D];
  uint8_t k[STAGES][KEYS][D];
  uint8_t v[STAGES][26 * 1024]; /* [KEYS / CHUNK][V_ROWS][CHUNK], and what aligns the next */
  uint64_t q_full, q_empty, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
};

/* ---- means and scales ---- */

/* Sum, least and largest of each channel, over CHUNK_ROWS rows of k (blockIdx.y 0) or v: parts[chunk][matrix][3][width]. */
static __global__ void
sum_rows (const bf16 *k, const bf16 *v, size_t k_stride, size_t v_stride, int rows, int width, float *parts)
{
  const bf16 *x = blockIdx.y ? v : k;
  size_t stride = blockIdx.y ? v_stride : k_stride;
  int first = blockIdx.x * CHUNK_ROWS, last = min (first + CHUNK_ROWS, rows), column = threadIdx.x * 8;
  float sum[8] = { 0 }, least[8], most[8];

  for (int i = 0; i < 8; i++) {
    least[i] = INFINITY;
    most[i] = -INFINITY;
  }
#pragma unroll 4
  for (int r = first; r < last; r++) {
    float f[8];

    load<8> (x + r * stride + column, f);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      sum[i] += f[i];
      least[i] = fminf (least[i], f[i]);
      most[i] = fmaxf (most[i], f[i]);
    }
  }
  parts += ((size_t) blockIdx.x * 2 + blockIdx.y) * 3 * width + column;
  store<8> (parts, sum);
  store<8> (parts + width, least);
  store<8> (parts + 2 * width, most);
}

/* A power of two that brings `most` to at most `limit`, and above half of it. */
static __device__ __forceinline__ float
scale_to (float most, float limit)
{
  int e;

  if (!(most > 0 && most < INFINITY))
    return 1;
  frexpf (limit / most, &e);
  return ldexpf (1, min (max (e - 1, -100), 100));
}

/* One block a head and matrix. */
static __global__ void __launch_bounds__ (D * SUMMERS)
sum_up (const float *parts, int chunks, int rows, int width, Head *heads)
{
  __shared__ float sums[SUMMERS][3][D], far[D / 32];
  Head *head = &heads[blockIdx.x];
  int channel = blockIdx.x * D + threadIdx.x;
  float sum = 0, least = INFINITY, most = -INFINITY;

#pragma unroll 4
  for (int c = threadIdx.y; c < chunks; c += SUMMERS) {
    const float *p = parts + ((size_t) c * 2 + blockIdx.y) * 3 * width + channel;

    sum += p[0];
    least = fminf (least, p[width]);
    most = fmaxf (most, p[2 * width]);
  }
  sums[threadIdx.y][0][threadIdx.x] = sum;
  sums[threadIdx.y][1][threadIdx.x] = least;
  sums[threadIdx.y][2][threadIdx.x] = most;
  __syncthreads ();
  if (threadIdx.y > 0)
    return;
#pragma unroll
  for (int i = 1; i < SUMMERS; i++) {
    sum += sums[i][0][threadIdx.x];
    least = fminf (least, sums[i][1][threadIdx.x]);
    most = fmaxf (most, sums[i][2][threadIdx.x]);
  }
  float mean = sum / rows, away = fmaxf (most - mean, mean - least);
  for (int i = 16; i > 0; i /= 2)
    away = fmaxf (away, __shfl_xor_sync (~0u, away, i));
  if (threadIdx.x % 32 == 0)
    far[threadIdx.x / 32] = away;
  turn_wait (1, D);             /* for the threads that are left */
  away = fmaxf (fmaxf (far[0], far[1]), fmaxf (far[2], far[3]));
  float limit = blockIdx.y ? MOST_VALUE : MOST_KEY, scale = scale_to (away, limit), step = limit / 16 / scale;
  (blockIdx.y ? head->mean_v : head->mean_k)[threadIdx.x] = rintf (mean / step) * step;
  if (threadIdx.x == 0)
    *(blockIdx.y ? &head->scale_v : &head->scale_k) = scale;
}

/* ---- rounding ---- */

/* Sixteen threads a row and head. `unit`: 8 log2 (e) times the logits' scale. */
static __global__ void
round_queries (const bf16 *q, size_t stride, int rows, int heads, float unit, const Head *head, __nv_fp8_e4m3 *y, uint16_t *factors)
{
  size_t i = (size_t) blockIdx.x * blockDim.x + threadIdx.x;
  int part = i % 16, h = i / 16 % heads, row = i / 16 / heads, power;
  float f[8] = { 0 }, most = 0, scale;

  if (row < rows)
    load<8> (q + row * stride + h * D + part * 8, f);
#pragma unroll
  for (int j = 0; j < 8; j++)
    most = fmaxf (most, fabsf (f[j]));
  for (int j = 8; j > 0; j /= 2)
    most = fmaxf (most, __shfl_xor_sync (~0u, most, j));
  if (row >= rows)
    return;
  scale = unit / head[h].scale_k;
  power = most * scale > MOST_QUERY ? min (ilogbf (most * scale / MOST_QUERY) + 1, 30) : 0;
  store_scaled (y + ((size_t) h * rows + row) * D + part * 8, f, ldexpf (scale, -power));
  if (part == 0)
    factors[(size_t) h * rows + row] = __half_as_ushort (__float2half (ldexpf (1, power - 24)));
}

static __global__ void
round_keys (const bf16 *k, size_t stride, int rows, int heads, const Head *head, __nv_fp8_e4m3 *y)
{
  size_t i = (size_t) blockIdx.x * blockDim.x + threadIdx.x;
  int part = i % 16, h = i / 16 % heads, row = i / 16 / heads;
  float f[8];

  if (row >= rows)
    return;
  load<8> (k + row * stride + h * D + part * 8, f);
#pragma unroll
  for (int j = 0; j < 8; j++)
    f[j] -= head[h].mean_k[part * 8 + j];
  store_scaled (y + ((size_t) h * rows + row) * D + part * 8, f, head[h].scale_k);
}

/* Values of a head, 64 keys a block: y[head][V_ROWS][pitch], in groups of 16 keys position 4 q + i has key 8 (i / 2) + 2 q + i % 2. */
static __global__ void __launch_bounds__ (256)
round_values (const bf16 *v, size_t stride, int rows, const Head *head, int pitch, uint8_t *y)
{
  __shared__ uint8_t tile[V_ROWS][CHUNK + 4];
  int h = blockIdx.y, first = blockIdx.x * CHUNK;

  for (int i = threadIdx.x; i < CHUNK * D / 8; i += 256) {
    int key = i / (D / 8), channel = i % (D / 8) * 8, in = key % 16, q = in % 8 / 2;
    int position = key / 16 * 16 + 4 * q + in / 8 * 2 + in % 2;
    float f[8] = { 0 };

    if (first + key < rows) {
      load<8> (v + (first + key) * stride + h * D + channel, f);
#pragma unroll
      for (int j = 0; j < 8; j++)
        f[j] = (f[j] - head[h].mean_v[channel + j]) * head[h].scale_v;
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
      tile[channel + j][position] = __nv_cvt_float_to_fp8 (f[j], __NV_SATFINITE, __NV_E4M3);
  }
  for (int i = threadIdx.x; i < 8 * CHUNK; i += 256)
    tile[D + i / CHUNK][i % CHUNK] = 0x38;      /* 1 */
  __syncthreads ();
  for (int i = threadIdx.x; i < V_ROWS * CHUNK / 4; i += 256) {
    int row = i / (CHUNK / 4), four = i % (CHUNK / 4);

    *(uint32_t *) (y + ((size_t) h * V_ROWS + row) * pitch + first + 4 * four) = *(uint32_t *) &tile[row][4 * four];
  }
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL       /* compiled for other GPUs too, whose kernel is empty */

/* ---- the warp group that copies: one thread of it ---- */

static __device__ __forceinline__ void
produce (Shared &s, const CUtensorMap *q, const CUtensorMap *k, const CUtensorMap *v, const Job &job)
{
  int per_head = (job.q_len + ROWS - 1) / ROWS, tiles = per_head * job.heads, steps = (job.kv_len + KEYS - 1) / KEYS;
  Ring<STAGES> at_k = { 0, 0 }, at_v = { 0, 0 };
  uint32_t q_phase = 0;

  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x, q_phase ^= 1) {
    int head = tile / per_head;

    barrier_wait (&s.q_empty, q_phase ^ 1);
    barrier_expect (&s.q_full, ROWS * D);
    load_box (s.q, q, 0, tile % per_head * ROWS, head, &s.q_full);
    for (int i = steps - 1; i >= -1; i--) {     /* keys are one step ahead of values */
      if (i >= 0) {
        barrier_wait (&s.k_empty[at_k.stage], at_k.phase ^ 1);
        barrier_expect (&s.k_full[at_k.stage], KEYS * D);
        load_box (s.k[at_k.stage], k, 0, i * KEYS, head, &s.k_full[at_k.stage]);
        at_k.next ();
      }
      if (i < steps - 1) {
        barrier_wait (&s.v_empty[at_v.stage], at_v.phase ^ 1);
        barrier_expect (&s.v_full[at_v.stage], KEYS * V_ROWS);
        load_box (s.v[at_v.stage], v, 0, head * V_ROWS, (i + 1) * (KEYS / CHUNK), &s.v_full[at_v.stage]);
        at_v.next ();
      }
    }
  }
}

/* ---- the warp groups that compute ---- */

static __device__ __forceinline__ void
multiply_qk (uint32_t (&s)[KEYS / 4], uint64_t q, uint64_t k)
{
#pragma unroll
  for (int i = 0; i < D / 32; i++)
    multiply_192_e4m3 (s, q + i * 32 / 16, k + i * 32 / 16, i > 0);
}

static __device__ __forceinline__ void
multiply_pv (float (&o)[D / 2], float (&ones)[4], const uint32_t (&p)[KEYS / 8], uint64_t v, int add)
{
#pragma unroll
  for (int i = 0; i < KEYS / 32; i++)
    multiply_136_e4m3 (o, ones, p + 4 * i, v + (i / 2 * V_ROWS * CHUNK + i % 2 * 32) / 16, i > 0 || add);
}

static __device__ __forceinline__ uint32_t
twice (uint16_t half)
{
  return half | (uint32_t) half << 16;
}

static __device__ __forceinline__ float
half_value (uint32_t x)
{
  return __half2float (__ushort_as_half ((uint16_t) x));
}

/* No key beyond the last one. */
static __device__ __forceinline__ void
mask (uint32_t (&s)[KEYS / 4], int keys, int lane)
{
#pragma unroll
  for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      int key = 8 * j + 2 * (lane % 4);
      uint32_t gone = (key >= keys ? 0xfc00 : 0) | (key + 1 >= keys ? 0xfc000000 : 0), keep = (key >= keys ? 0 : 0xffff)
          | (key + 1 >= keys ? 0 : 0xffff0000);

      s[2 * j + r] = (s[2 * j + r] & keep) | gone;
    }
}

/* A row's maximum, its m and what that makes of logits. */
struct Row
{
  uint32_t factor;              /* 8 c twice, in units of 2^-24 */
  uint32_t offset;              /* TOP - 8 m twice, likewise */
  float sum;

  /* 8 m in codes. */
  __device__ __forceinline__ float
  reach () const
  {
    return TOP - half_value (offset) * 16777216.0f;
  }

  __device__ __forceinline__ void
  set (float codes)
  {
    offset = twice (__half_as_ushort (__float2half ((TOP - codes) / 16777216.0f)));
  }
};

/* The largest logit of each row, in codes, over the four threads that share it. */
static __device__ __forceinline__ void
row_max (const uint32_t (&s)[KEYS / 4], const Row (&row)[2], float (&most)[2])
{
#pragma unroll
  for (int r = 0; r < 2; r++) {
    uint32_t m = s[r];

#pragma unroll
    for (int j = 1; j < KEYS / 8; j++)
      m = max_of (m, s[2 * j + r]);
    m = max_of (m, m >> 16 | m << 16);
    m = max_of (m, __shfl_xor_sync (~0u, m, 1));
    m = max_of (m, __shfl_xor_sync (~0u, m, 2));
    most[r] = half_value (m) * half_value (row[r].factor) * 16777216.0f;
  }
}

/* S becomes codes. */
static __device__ __forceinline__ void
encode (uint32_t (&s)[KEYS / 4], const Row (&row)[2])
{
#pragma unroll
  for (int i = 0; i < KEYS / 4; i++)
    s[i] = multiply_add_relu (s[i], row[i % 2].factor, row[i % 2].offset);
}

/* P as the products take it: the low bytes of four codes of a row in one register. */
static __device__ __forceinline__ void
gather (const uint32_t (&s)[KEYS / 4], uint32_t (&p)[KEYS / 8])
{
#pragma unroll
  for (int i = 0; i < KEYS / 32; i++)
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
      for (int r = 0; r < 2; r++)
        p[4 * i + 2 * half + r] = __byte_perm (s[8 * i + 4 * half + r], s[8 * i + 4 * half + 2 + r], 0x6420);
}

/* Moves m where a tile exceeds it by much, and scales what the row has so far. */
static __device__ __forceinline__ void
move_max (const uint32_t (&s)[KEYS / 4], Row (&row)[2], float (&factor)[2])
{
  float most[2];

  row_max (s, row, most);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float old = row[r].reach ();

    factor[r] = 1;
    if (most[r] > old + LAZY) {
      row[r].set (most[r]);
      factor[r] = power_of_two ((old - row[r].reach ()) / 8);
    }
  }
}

/* The registers of the products begin anew behind this. */
static __device__ __forceinline__ void
drain (const float (&o)[D / 2], const float (&ones)[4], float (&total)[D / 2], Row (&row)[2])
{
  row[0].sum += ones[0];
  row[1].sum += ones[2];
#pragma unroll
  for (int i = 0; i < D / 2; i++)
    total[i] += o[i];
}

static __device__ __forceinline__ void
rescale (float (&o)[D / 2], float (&ones)[4], float (&total)[D / 2], Row (&row)[2], const float (&factor)[2])
{
  if (!__any_sync (~0u, factor[0] != 1 || factor[1] != 1))
    return;
  row[0].sum *= factor[0];
  row[1].sum *= factor[1];
#pragma unroll
  for (int i = 0; i < 4; i++)
    ones[i] *= factor[i / 2];
#pragma unroll
  for (int i = 0; i < D / 2; i++) {
    total[i] *= factor[i / 2 % 2];
    o[i] *= factor[i / 2 % 2];
  }
}

static __device__ __forceinline__ void
begin_rows (const Job &job, int head, int query, Row (&row)[2])
{
#pragma unroll
  for (int r = 0; r < 2; r++) {
    row[r].factor = query + 8 * r < job.q_len ? twice (job.factors[(size_t) head * job.q_len + query + 8 * r]) : 0;
    row[r].sum = 0;
  }
}

/* Divides by the sums, adds the mean and stores. */
static __device__ __forceinline__ void
store_tile (const Job &job, int head, int query, int lane, const float (&total)[D / 2], const Row (&row)[2])
{
  const Head *h = &job.head[head];

#pragma unroll
  for (int r = 0; r < 2; r++) {
    float inverse = 1 / (row[r].sum * h->scale_v);
    uint4 *out = (uint4 *) (job.out + (int64_t) (query + 8 * r) * job.out_stride + head * D) + lane % 4;

#pragma unroll
    for (int i = 0; i < D / 32; i++) {
      uint32_t x[4];

#pragma unroll
      for (int j = 0; j < 4; j++) {
        float2 mean = *(const float2 *) &h->mean_v[32 * i + 8 * j + 2 * (lane % 4)];

        x[j] = pack (fmaf (total[16 * i + 4 * j + 2 * r], inverse, mean.x), fmaf (total[16 * i + 4 * j + 2 * r + 1], inverse, mean.y));
      }
      transpose_quad (x, lane % 4);
      if (query + 8 * r < job.q_len)
        out[4 * i] = make_uint4 (x[0], x[1], x[2], x[3]);
    }
  }
}

static __device__ __forceinline__ void
consume (Shared &sh, const Job &job, int group)
{
  int per_head = (job.q_len + ROWS - 1) / ROWS, tiles = per_head * job.heads, steps = (job.kv_len + KEYS - 1) / KEYS;
  int thread = threadIdx.x % 128, lane = thread % 32;
  int turn = 1 + group, next = 1 + (group + 1) % GROUPS;
  Ring<STAGES> at_k = { 0, 0 }, at_v = { 0, 0 };
  uint64_t q = matrix (shared (sh.q[group * QUERIES]), 16, 1024);
  uint32_t s[KEYS / 4], p[KEYS / 8], q_phase = 0;
  float o[D / 2], ones[4], total[D / 2];

  clear (o);
  clear (ones);
  if (group == GROUPS - 1)
    turn_give (next, 256);
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    int head = tile / per_head, query = tile % per_head * ROWS + group * QUERIES + thread / 32 * 16 + lane / 4;
    float most[2];
    Row row[2];

    begin_rows (job, head, query, row);
#pragma unroll
    for (int i = 0; i < D / 2; i++)
      total[i] = 0;
    barrier_wait (&sh.q_full, q_phase);
    q_phase ^= 1;
    barrier_wait (&sh.k_full[at_k.stage], at_k.phase);
    turn_wait (turn, 256);
    products_begin ();
    multiply_qk (s, q, matrix (shared (sh.k[at_k.stage]), 16, 1024));
    products_commit ();
    turn_give (next, 256);
    products_wait<0> ();
    pin (s);
    if (lane == 0) {
      barrier_arrive (&sh.k_empty[at_k.stage]);
      if (steps == 1)
        barrier_arrive (&sh.q_empty);
    }
    at_k.next ();
    mask (s, job.kv_len - (steps - 1) * KEYS, lane);
    row_max (s, row, most);
    row[0].set (most[0]);
    row[1].set (most[1]);
    encode (s, row);
    gather (s, p);
    for (int step = 1; step < steps; step++) {
      float factor[2];

      barrier_wait (&sh.k_full[at_k.stage], at_k.phase);
      barrier_wait (&sh.v_full[at_v.stage], at_v.phase);
      turn_wait (turn, 256);
      pin (p);
      products_begin ();
      multiply_qk (s, q, matrix (shared (sh.k[at_k.stage]), 16, 1024));
      products_commit ();
      multiply_pv (o, ones, p, matrix (shared (sh.v[at_v.stage]), 16, 512, CHUNK), (step - 1) % DRAIN);
      products_commit ();
      turn_give (next, 256);
      products_wait<1> ();
      pin (s);
      if (lane == 0) {
        barrier_arrive (&sh.k_empty[at_k.stage]);
        if (step == steps - 1)
          barrier_arrive (&sh.q_empty);
      }
      at_k.next ();
      move_max (s, row, factor);
      encode (s, row);
      products_wait<0> ();
      pin (o);
      pin (ones);
      pin (p);
      if (lane == 0)
        barrier_arrive (&sh.v_empty[at_v.stage]);
      at_v.next ();
      if (step % DRAIN == 0)
        drain (o, ones, total, row);
      gather (s, p);
      rescale (o, ones, total, row, factor);
    }
    barrier_wait (&sh.v_full[at_v.stage], at_v.phase);
    turn_wait (turn, 256);
    pin (p);
    products_begin ();
    multiply_pv (o, ones, p, matrix (shared (sh.v[at_v.stage]), 16, 512, CHUNK), (steps - 1) % DRAIN);
    products_commit ();
    turn_give (next, 256);
    products_wait<0> ();
    pin (o);
    pin (ones);
    if (lane == 0)
      barrier_arrive (&sh.v_empty[at_v.stage]);
    at_v.next ();
    drain (o, ones, total, row);
    store_tile (job, head, query, lane, total, row);
  }
  if (group == 0)               /* the last turn given */
    turn_wait (turn, 256);
}

#endif

static __global__ void __launch_bounds__ (THREADS, 1)
attend (const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k, const __grid_constant__ CUtensorMap v, const Job job)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint8_t memory[];
  Shared &s = *(Shared *) (((uintptr_t) memory + 1023) / 1024 * 1024);
  int group = __shfl_sync (~0u, threadIdx.x / 128, 0);  /* the same for a warp, and the compiler knows */

  if (threadIdx.x == 0)
    open_barriers (s, STAGES, 4 * GROUPS);
  __syncthreads ();
  if (group == 0) {
    asm volatile ("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x == 0)
      produce (s, &q, &k, &v, job);
  } else {
    asm volatile ("setmaxnreg.inc.sync.aligned.u32 240;");
    consume (s, job, group - 1);
  }
#endif
}

/* ---- the host's side ---- */

static size_t
align (size_t bytes)
{
  return (bytes + 1023) / 1024 * 1024;
}

/* What lies where in the workspace. Returns its size. */
typedef struct
{
  Head *heads;
  float *parts;
  __nv_fp8_e4m3 *q, *k;
  uint8_t *v;
  uint16_t *factors;
  int chunks, pitch;            /* of v: keys of whole tiles */
} Layout;

static size_t
lay_out (const DpAttentionArgs *a, char *at, Layout *l)
{
  size_t width = (size_t) a->heads * D, start = (size_t) at;

  l->chunks = (a->kv_len + CHUNK_ROWS - 1) / CHUNK_ROWS;
  l->pitch = (a->kv_len + KEYS - 1) / KEYS * KEYS;
  l->heads = (Head *) at;
  at += align (a->heads * sizeof (Head));
  l->parts = (float *) at;
  at += align (l->chunks * 6 * width * sizeof (float));
  l->factors = (uint16_t *) at;
  at += align ((size_t) a->heads * a->q_len * sizeof (uint16_t));
  l->q = (__nv_fp8_e4m3 *) at;
  at += align (a->q_len * width);
  l->k = (__nv_fp8_e4m3 *) at;
  at += align (a->kv_len * width);
  l->v = (uint8_t *) at;
  at += align ((size_t) a->heads * V_ROWS * l->pitch);
  return (size_t) at - start;
}

size_t
dp_attention_e4m3_workspace (const DpAttentionArgs *a)
{
  Layout l;

  return lay_out (a, NULL, &l);
}

static int
blocks (size_t n, int threads)
{
  return (n + threads - 1) / threads;
}

static void
round_all (DpDeviceCuda *dev, const DpAttentionArgs *a, const Layout *l)
{
  int width = a->heads * D;
  float unit = 8 * 1.44269504f * a->scale;

  sum_rows<<<dim3 (l->chunks, 2), width / 8, 0, dev->stream>>> ((const bf16 *) a->k, (const bf16 *) a->v, a->k_stride, a->v_stride,
      a->kv_len, width, l->parts);
  sum_up<<<dim3 (a->heads, 2), dim3 (D, SUMMERS), 0, dev->stream>>> (l->parts, l->chunks, a->kv_len, width, l->heads);
  round_queries<<<blocks ((size_t) a->q_len * a->heads * 16, 256), 256, 0, dev->stream>>> ((const bf16 *) a->q, a->q_stride, a->q_len,
      a->heads, unit, l->heads, l->q, l->factors);
  round_keys<<<blocks ((size_t) a->kv_len * a->heads * 16, 256), 256, 0, dev->stream>>> ((const bf16 *) a->k, a->k_stride, a->kv_len,
      a->heads, l->heads, l->k);
  round_values<<<dim3 (l->pitch / CHUNK, a->heads), 256, 0, dev->stream>>> ((const bf16 *) a->v, a->v_stride, a->kv_len, l->heads,
      l->pitch, l->v);
}

void
dp_attention_e4m3 (DpDeviceCuda *dev, const DpAttentionArgs *a, void *workspace)
{
  int tiles = (a->q_len + ROWS - 1) / ROWS * a->heads;
  size_t bytes = sizeof (Shared) + 1024;
  CUtensorMap q, k, v;
  Layout l;

  lay_out (a, (char *) workspace, &l);
  Job job = { a->q_len, a->kv_len, a->heads, a->out_stride, l.factors, l.heads, (bf16 *) a->out };
  const DpCudaMap queries = { l.q, 1, D, { D, a->q_len, a->heads }, { D, (size_t) a->q_len * D }, { D, ROWS, 1 } };
  const DpCudaMap keys = { l.k, 1, D, { D, a->kv_len, a->heads }, { D, (size_t) a->kv_len * D }, { D, KEYS, 1 } };
  const DpCudaMap values = { l.v, 1, CHUNK, { CHUNK, a->heads * V_ROWS, l.pitch / CHUNK }, { (size_t) l.pitch, CHUNK },
    { CHUNK, V_ROWS, KEYS / CHUNK } };
  if (!dp_cuda_map (dev, &q, &queries) || !dp_cuda_map (dev, &k, &keys) || !dp_cuda_map (dev, &v, &values)
      || !dp_cuda_ok (dev, cudaFuncSetAttribute (attend, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "attention"))
    return;
  round_all (dev, a, &l);
  attend<<<tiles < dev->sm_count ? tiles : dev->sm_count, THREADS, bytes, dev->stream>>> (q, k, v, job);
  dp_cuda_launched (dev, "attention");
}
