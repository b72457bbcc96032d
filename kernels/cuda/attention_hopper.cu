/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Attention of bfloat16 heads of 128 channels for compute capability 9.0.
 *
 * A block of threads computes 192 queries of a head, 80 keys at a time, and then takes the next such tile. One warp group only copies:
 * queries, keys and values come in bulk, into rings of two. Three warp groups compute, 64 queries each. They take turns at starting
 * products, so one multiplies while another one is at its exponentials.
 *
 * A softmax needs some number near the maximum of the logits, so that nothing overflows; it need not be the maximum. bfloat16 has the
 * exponents of float32, so here it is the maximum over the first 80 keys: then the loop finds no maximum and rescales nothing. A row
 * whose sum grows too large, since a later logit is some 69 above that, is flagged, and a second kernel, which moves the maximum where it
 * must, redoes the tiles that have such rows and stores just those. It ends at once where there are none. What is done with a row
 * depends on that row alone, so bits never depend on how many there are.
 *
 * Keys come from the last tile to the first: the last one may be partial, and is masked before the loop.
 *
 * Legend: S logits [64, 80], P probabilities, O result [64, 128], of a warp group. A thread has two rows of each, `lane / 4` and that + 8
 * of its warp's 16, and in them, of every eight columns, two: 2 * (lane % 4) and the next.
 */
#include "attention.h"
#include "hopper.cuh"
#include "map.h"
#include "vec.cuh"

#include <stdio.h>

using namespace hopper;

enum
{
  D = 128,
  QUERIES = 64,                 /* of a warp group */
  GROUPS = 3,
  ROWS = QUERIES * GROUPS,
  KEYS = 80,                    /* at a time: what 160 registers of a thread allow */
  STAGES = 2,
  THREADS = 128 * (1 + GROUPS),
  FLAG_WORDS = ROWS / 32,       /* of a tile's rows */
};

#define TOO_LARGE 1e30f
#define LAZY_STEP 8.0f          /* in powers of two: how much larger than the kept maximum a logit may be */

typedef struct
{
  int q_len, kv_len, heads, out_stride;
  float scale;                  /* times log2 (e) */
  float last_key_bias;          /* likewise */
  __nv_bfloat16 *out;
  uint32_t *flags;              /* [tiles][FLAG_WORDS] */
} Job;

/* As bulk copies with a swizzle of 128 bytes leave them: [2][rows][64 channels]. */
struct __align__ (1024) Shared
{
  __nv_bfloat16 q[2][ROWS][64];
  __nv_bfloat16 k[STAGES][2][KEYS][64], v[STAGES][2][KEYS][64];
  uint64_t q_full, q_empty, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL       /* compiled for other GPUs too, whose kernel is empty */

static __device__ __forceinline__ int
tiles_of (const Job &job)
{
  return (job.q_len + ROWS - 1) / ROWS * job.heads;
}

/* Whether this kernel has nothing to do there. */
template<bool AGAIN> static __device__ __forceinline__ bool
skip (const Job &job, int tile)
{
  uint32_t any = 0;

#pragma unroll
  for (int i = 0; i < FLAG_WORDS; i++)
    any |= AGAIN ? job.flags[tile * FLAG_WORDS + i] : 1;
  return any == 0;
}

/* ---- the warp group that copies: one thread of it ---- */

static __device__ __forceinline__ void
load_rows (__nv_bfloat16 *to, const CUtensorMap *map, int rows, int first, int head, uint64_t *full)
{
  barrier_expect (full, rows * D * sizeof (__nv_bfloat16));
  load_box (to, map, 0, first, 2 * head, full);
  load_box (to + rows * 64, map, 0, first, 2 * head + 1, full);
}

template<bool AGAIN> static __device__ __forceinline__ void
produce (Shared &s, const CUtensorMap *q, const CUtensorMap *k, const CUtensorMap *v, const Job &job)
{
  int tiles = tiles_of (job), steps = (job.kv_len + KEYS - 1) / KEYS, per_head = tiles / job.heads;
  Ring<STAGES> at_k = { 0, 0 }, at_v = { 0, 0 };
  uint32_t q_phase = 0;

  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    int head = tile / per_head;

    if (skip<AGAIN> (job, tile))
      continue;
    barrier_wait (&s.q_empty, q_phase ^ 1);
    load_rows (&s.q[0][0][0], q, ROWS, tile % per_head * ROWS, head, &s.q_full);
    q_phase ^= 1;
    for (int i = steps - 1; i >= -1; i--) {     /* keys are one step ahead of values */
      if (i >= 0) {
        barrier_wait (&s.k_empty[at_k.stage], at_k.phase ^ 1);
        load_rows (&s.k[at_k.stage][0][0][0], k, KEYS, i * KEYS, head, &s.k_full[at_k.stage]);
        at_k.next ();
      }
      if (i < steps - 1) {
        barrier_wait (&s.v_empty[at_v.stage], at_v.phase ^ 1);
        load_rows (&s.v[at_v.stage][0][0][0], v, KEYS, (i + 1) * KEYS, head, &s.v_full[at_v.stage]);
        at_v.next ();
      }
    }
  }
}

/* ---- the warp groups that compute ---- */

/* S = q . k^T. */
static __device__ __forceinline__ void
multiply_qk (float (&s)[KEYS / 2], uint64_t q, uint64_t k)
{
#pragma unroll
  for (int i = 0; i < D / 16; i++)
    multiply_80 (s, q + (i / 4 * ROWS * 128 + i % 4 * 32) / 16, k + (i / 4 * KEYS * 128 + i % 4 * 32) / 16, i > 0);
}

/* O (+)= p . v. */
static __device__ __forceinline__ void
multiply_pv (float (&o)[D / 2], const uint32_t (&p)[KEYS / 4], uint64_t v, int add)
{
#pragma unroll
  for (int i = 0; i < KEYS / 16; i++)
    multiply_128 (o, p + 4 * i, v + i * 16 * 128 / 16, i > 0 || add);
}

/* The largest of each of the thread's two rows, over the four threads that share them. */
static __device__ __forceinline__ void
row_max (const float (&s)[KEYS / 2], float (&most)[2])
{
#pragma unroll
  for (int r = 0; r < 2; r++) {
    most[r] = -INFINITY;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
      most[r] = fmaxf (most[r], fmaxf (s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
    most[r] = fmaxf (most[r], __shfl_xor_sync (~0u, most[r], 1));
    most[r] = fmaxf (most[r], __shfl_xor_sync (~0u, most[r], 2));
  }
}

/* Logits become 2^(scale s - max); their sums grow. max is scaled. */
static __device__ __forceinline__ void
exponentials (float (&s)[KEYS / 2], float scale, const float (&max)[2], float (&sum)[2])
{
#pragma unroll
  for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      s[4 * j + i] = power_of_two (fmaf (s[4 * j + i], scale, -max[i / 2]));
      sum[i / 2] += s[4 * j + i];
    }
}

/* P as the products take it: S in the same registers, two columns in one. */
static __device__ __forceinline__ void
round_p (const float (&s)[KEYS / 2], uint32_t (&p)[KEYS / 4])
{
#pragma unroll
  for (int i = 0; i < KEYS / 4; i++)
    p[i] = pack (s[2 * i], s[2 * i + 1]);
}

/* No key beyond the last one, and the last one's bias. */
static __device__ __forceinline__ void
mask (float (&s)[KEYS / 2], const Job &job, int first, int lane)
{
  int keys = job.kv_len - first, column = 2 * (lane % 4);

#pragma unroll
  for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int key = 8 * j + column + i % 2;

      if (key == keys - 1 && job.last_key_bias != 0)
        s[4 * j + i] += job.last_key_bias / job.scale;
      if (key >= keys)
        s[4 * j + i] = -INFINITY;
    }
}

/* Moves the maximum of a row that some logit exceeds by much. Returns by what the row so far is to be multiplied. */
static __device__ __forceinline__ void
move_max (const float (&s)[KEYS / 2], float scale, float (&max)[2], float (&sum)[2], float (&factor)[2])
{
  float most[2];

  row_max (s, most);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float top = most[r] * scale;

    factor[r] = 1;
    if (top > max[r] + LAZY_STEP) {
      factor[r] = power_of_two (max[r] - top);
      max[r] = top;
      sum[r] *= factor[r];
    }
  }
}

static __device__ __forceinline__ void
rescale (float (&o)[D / 2], const float (&factor)[2])
{
  if (!__any_sync (~0u, factor[0] != 1 || factor[1] != 1))
    return;
#pragma unroll
  for (int i = 0; i < D / 2; i++)
    o[i] *= factor[i / 2 % 2];
}

/* Divides by the sums and stores. `row`: the thread's first one in the tile. */
template<bool AGAIN> static __device__ __forceinline__ void
store (const Job &job, int tile, int first, int head, int row, int lane, const float (&o)[D / 2], float (&sum)[2])
{
#pragma unroll
  for (int r = 0; r < 2; r++) {
    int in_tile = row + 8 * r, query = first + in_tile;
    uint32_t *flags = job.flags + tile * FLAG_WORDS + in_tile / 32, flag = 1u << in_tile % 32;

    sum[r] += __shfl_xor_sync (~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync (~0u, sum[r], 2);
    bool wanted = query < job.q_len && (!AGAIN || *flags & flag);
    if (!AGAIN && wanted && !(sum[r] < TOO_LARGE) && lane % 4 == 0)
      atomicOr (flags, flag);
    float inverse = 1 / sum[r];
    uint4 *out = (uint4 *) (job.out + (int64_t) query * job.out_stride + head * D) + lane % 4;
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
      uint32_t x[4];

#pragma unroll
      for (int j = 0; j < 4; j++)
        x[j] = pack (o[16 * i + 4 * j + 2 * r] * inverse, o[16 * i + 4 * j + 2 * r + 1] * inverse);
      transpose_quad (x, lane % 4);
      if (wanted)
        out[4 * i] = make_uint4 (x[0], x[1], x[2], x[3]);
    }
  }
}

template<bool AGAIN> static __device__ __forceinline__ void
consume (Shared &sh, const Job &job, int group)
{
  int tiles = tiles_of (job), steps = (job.kv_len + KEYS - 1) / KEYS, per_head = tiles / job.heads;
  int thread = threadIdx.x % 128, lane = thread % 32, row = group * QUERIES + thread / 32 * 16 + lane / 4;
  int turn = 1 + group, next = 1 + (group + 1) % GROUPS;
  uint64_t q = matrix (shared (&sh.q[0][group * QUERIES][0]), 16, 1024);
  Ring<STAGES> at_k = { 0, 0 }, at_v = { 0, 0 };
  uint32_t q_phase = 0;
  float s[KEYS / 2], o[D / 2];
  uint32_t p[KEYS / 4];

  clear (o);
  if (group == GROUPS - 1)
    turn_give (next, 256);
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    int head = tile / per_head, first = tile % per_head * ROWS;
    float max[2], sum[2] = { 0, 0 };

    if (skip<AGAIN> (job, tile))
      continue;
    barrier_wait (&sh.q_full, q_phase);
    q_phase ^= 1;
    barrier_wait (&sh.k_full[at_k.stage], at_k.phase);
    turn_wait (turn, 256);
    products_begin ();
    multiply_qk (s, q, matrix (shared (&sh.k[at_k.stage][0][0][0]), 16, 1024));
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
    mask (s, job, (steps - 1) * KEYS, lane);
    row_max (s, max);
    max[0] *= job.scale;
    max[1] *= job.scale;
    exponentials (s, job.scale, max, sum);
    round_p (s, p);
    for (int step = 1; step < steps; step++) {
      float factor[2];

      barrier_wait (&sh.k_full[at_k.stage], at_k.phase);
      turn_wait (turn, 256);
      pin (p);
      products_begin ();
      multiply_qk (s, q, matrix (shared (&sh.k[at_k.stage][0][0][0]), 16, 1024));
      products_commit ();
      barrier_wait (&sh.v_full[at_v.stage], at_v.phase);
      multiply_pv (o, p, matrix (shared (&sh.v[at_v.stage][0][0][0]), KEYS * 128, 1024), step > 1);
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
      if (AGAIN)
        move_max (s, job.scale, max, sum, factor);
      exponentials (s, job.scale, max, sum);
      products_wait<0> ();
      pin (o);
      pin (p);
      if (lane == 0)
        barrier_arrive (&sh.v_empty[at_v.stage]);
      at_v.next ();
      round_p (s, p);
      if (AGAIN)
        rescale (o, factor);
    }
    barrier_wait (&sh.v_full[at_v.stage], at_v.phase);
    turn_wait (turn, 256);
    pin (p);
    products_begin ();
    multiply_pv (o, p, matrix (shared (&sh.v[at_v.stage][0][0][0]), KEYS * 128, 1024), steps > 1);
    products_commit ();
    turn_give (next, 256);
    products_wait<0> ();
    pin (o);
    if (lane == 0)
      barrier_arrive (&sh.v_empty[at_v.stage]);
    at_v.next ();
    store<AGAIN> (job, tile, first, head, row, lane, o, sum);
  }
  if (group == 0)               /* the last turn given */
    turn_wait (turn, 256);
}

#endif

template<bool AGAIN> static __global__ void __launch_bounds__ (THREADS, 1)
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
    asm volatile ("setmaxnreg.dec.sync.aligned.u32 32;");
    if (threadIdx.x == 0)
      produce<AGAIN> (s, &q, &k, &v, job);
  } else {
    asm volatile ("setmaxnreg.inc.sync.aligned.u32 160;");
    consume<AGAIN> (s, job, group - 1);
  }
#endif
}

/* ---- the host's side ---- */

/* Row r, head h, half of its channels c at [r * stride + h * 128 + c * 64], in boxes of `box` rows. Rows beyond the last come as zeros. */
static bool
map_rows (DpDeviceCuda *dev, CUtensorMap *map, const void *x, int rows, int heads, int stride, int box)
{
  const DpCudaMap tensor = { x, 2, 128, { 64, rows, 2 * heads }, { (size_t) stride * 2, 128 }, { 64, box, 1 } };

  return dp_cuda_map (dev, map, &tensor);
}

size_t
dp_attention_hopper_workspace (const DpAttentionArgs *a)
{
  return (size_t) (a->q_len + ROWS - 1) / ROWS * a->heads * FLAG_WORDS * sizeof (uint32_t);
}

void
dp_attention_hopper (DpDeviceCuda *dev, const DpAttentionArgs *a, void *workspace)
{
  int tiles = (a->q_len + ROWS - 1) / ROWS * a->heads, blocks = tiles < dev->sm_count ? tiles : dev->sm_count;
  size_t bytes = sizeof (Shared) + 1024;
  float log2_e = 1.44269504f;
  Job job = { a->q_len, a->kv_len, a->heads, a->out_stride, a->scale * log2_e, a->last_key_bias * log2_e, (__nv_bfloat16 *) a->out,
    (uint32_t *) workspace };
  CUtensorMap q, k, v;

  if (!map_rows (dev, &q, a->q, a->q_len, a->heads, a->q_stride, ROWS) || !map_rows (dev, &k, a->k, a->kv_len, a->heads, a->k_stride, KEYS)
      || !map_rows (dev, &v, a->v, a->kv_len, a->heads, a->v_stride, KEYS)
      || !dp_cuda_ok (dev, cudaFuncSetAttribute (attend<false>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "attention")
      || !dp_cuda_ok (dev, cudaFuncSetAttribute (attend<true>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "attention")
      || !dp_cuda_ok (dev, cudaMemsetAsync (workspace, 0, dp_attention_hopper_workspace (a), dev->stream), "attention"))
    return;
  attend<false> <<<blocks, THREADS, bytes, dev->stream>>> (q, k, v, job);
  attend<true> <<<blocks, THREADS, bytes, dev->stream>>> (q, k, v, job);
  dp_cuda_launched (dev, "attention");
}
