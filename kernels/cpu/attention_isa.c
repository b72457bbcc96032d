/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "attention.h"
#include "vec.h"

/* Shapes: d head dimension, s steps (lanes along a sum), ROWS x TILE the register tile: 24 accumulators of 16 lanes, or 12. */
enum
{
  ROWS = 6,
  TILE_VECS = VEC == 16 ? 4 : 2,
  TILE = TILE_VECS * VEC,
  PANEL = DP_ATTN_PANEL,
  UNIT = 16,                    /* what key counts and channels are rounded up to */
  BLOCK_STEPS = 128,            /* of v: a panel of values (32 KiB) stays in the first cache for all rows of a task */
  PART = 64,                    /* steps of q that lie together: a fixed distance from row to row */
};

#define LOWEST -1e30f           /* stands for minus infinity, but LOWEST - LOWEST is a number */

/* Per thread: one task's queries, logits of a block, sums, and softmax state. */
typedef struct
{
  float *q;                     /* [GROUPS][parts of steps_k][ROWS][PART] lanes */
  float *s;                     /* [GROUPS][ROWS][s_stride]: logits, then weights (bfloat16 in the front half, if pairs) */
  float *o;                     /* [GROUPS][panels_v][ROWS][PANEL] */
  float *top, *sum, *rescale;   /* [DP_ATTN_TASK] */
  int s_stride;
} Scratch;

DP_INLINE int
block_keys (const bool pairs)
{
  return pairs ? 2 * BLOCK_STEPS : BLOCK_STEPS;
}

static int
round_up (int n, int unit)
{
  return (n + unit - 1) / unit * unit;
}

static int
parts_of (int steps)
{
  return (steps + PART - 1) / PART;
}

static Scratch
scratch_layout (const DpAttnJob *job, float *base, size_t *bytes)
{
  Scratch scratch = { .s_stride = block_keys (job->pairs) + UNIT };
  size_t at = 0;

  scratch.q = base + at;
  at += (size_t) DP_ATTN_TASK * parts_of (job->steps_k) * PART;
  scratch.s = base + at;
  at += (size_t) DP_ATTN_TASK * scratch.s_stride;
  scratch.o = base + at;
  at += (size_t) DP_ATTN_TASK * job->panels_v * PANEL;
  scratch.top = base + at;
  scratch.sum = scratch.top + DP_ATTN_TASK;
  scratch.rescale = scratch.sum + DP_ATTN_TASK;
  at += 3 * DP_ATTN_TASK;
  *bytes = at * sizeof (float);
  return scratch;
}

static size_t
scratch_size (const DpAttnJob *job)
{
  static float base[1];
  size_t bytes;

  scratch_layout (job, base, &bytes);
  return bytes;
}

/* ---- packing ---- */

/* Lane `step` of a row of d values: a float32, or two bfloat16 (zero past the end). */
DP_INLINE uint32_t
lane (const DpAttnJob *job, const void *row, int step)
{
  uint32_t bits;

  if (job->args->type == DP_TYPE_F32) {
    memcpy (&bits, (const float *) row + step, 4);
  } else if (!job->pairs) {
    bits = (uint32_t) ((const uint16_t *) row)[step] << 16;
  } else if (2 * step + 1 < job->args->head_dim) {
    memcpy (&bits, (const uint16_t *) row + 2 * step, 4);
  } else {
    bits = ((const uint16_t *) row)[2 * step];
  }
  return bits;
}

static const void *
head_row (const DpAttentionArgs *a, const void *x, int stride, int row, int head)
{
  return (const char *) x + ((size_t) row * stride + (size_t) head * a->head_dim) * dp_type_size (a->type);
}

static void
pack_keys (const DpAttnJob *job, int head, int panel)
{
  const DpAttentionArgs *a = job->args;
  Lane *to = (Lane *) job->keys + ((size_t) head * job->panels_k + panel) * job->steps_k * PANEL;
  int first = panel * PANEL, n = a->kv_len - first < PANEL ? a->kv_len - first : PANEL;
  int whole = a->type == DP_TYPE_F32 ? a->head_dim / 4 * 4 : job->pairs ? a->head_dim / 8 * 4 : 0;

  for (int j = 0; j < n; j += 4) {
    const char *row[4];
    int s, rows = n - j < 4 ? n - j : 4;

    for (int i = 0; i < 4; i++)
      row[i] = head_row (a, a->k, a->k_stride, first + (i < rows ? j + i : j), head);
    for (s = 0; s < whole; s += 4) {
      Four four[4];

      for (int i = 0; i < 4; i++)
        four[i] = *(const Four *) (row[i] + s * 4);
      vec_transpose4 (four);
      for (int i = 0; i < 4; i++)
        *(Four *) (to + (s + i) * PANEL + j) = four[i];
    }
    for (; s < job->steps_k; s++)
      for (int i = 0; i < 4; i++)
        to[s * PANEL + j + i] = lane (job, row[i], s);
  }
  for (int j = round_up (n, 4); j < round_up (n, UNIT); j += 4)
    for (int s = 0; s < job->steps_k; s++)
      memset (to + s * PANEL + j, 0, 16);
}

/* One step of one panel of values, n channels of it real: rows a and (pairs) b, b NULL past the last key. */
static void
pack_value_step (const DpAttnJob *job, Lane *to, const void *a, const void *b, int n)
{
  const uint16_t *ha = a, *hb = b;

  if (job->args->type == DP_TYPE_F32)
    memcpy (to, a, n * 4);
  else if (!job->pairs || b == NULL)
    for (int c = 0; c < n; c++)
      to[c] = job->pairs ? ha[c] : (uint32_t) ha[c] << 16;
  else
    for (int c = 0; c < n; c++)
      to[c] = ha[c] | (uint32_t) hb[c] << 16;
  for (int c = n; c < round_up (n, UNIT); c++)
    to[c] = 0;
}

static void
pack_values (const DpAttnJob *job, int head, int first)
{
  const DpAttentionArgs *a = job->args;
  int last = first + PANEL < a->kv_len ? first + PANEL : a->kv_len, per_step = job->pairs ? 2 : 1;

  for (int panel = 0; panel < job->panels_v; panel++) {
    size_t at = (size_t) panel * PANEL * dp_type_size (a->type);
    int n = a->head_dim - panel * PANEL < PANEL ? a->head_dim - panel * PANEL : PANEL;
    Lane *to = (Lane *) job->values + ((size_t) head * job->panels_v + panel) * job->steps_v * PANEL;

    for (int j = first; j < last; j += per_step) {
      const char *row = head_row (a, a->v, a->v_stride, j, head);
      const char *next = j + 1 < last ? head_row (a, a->v, a->v_stride, j + 1, head) : NULL;

      pack_value_step (job, to + (size_t) (j / per_step) * PANEL, row + at, next ? next + at : NULL, n);
    }
  }
}

static void
pack (const DpAttnJob *job, int head, int panel)
{
  pack_keys (job, head, panel);
  pack_values (job, head, panel * PANEL);
}

/* Queries of one task; rows past q_len are zeros. */
static void
pack_queries (const DpAttnJob *job, int head, int first, int rows, float *q)
{
  const DpAttentionArgs *a = job->args;
  int parts = parts_of (job->steps_k), whole = a->type == DP_TYPE_F32 ? a->head_dim : job->pairs ? a->head_dim / 2 : 0;

  for (int r = 0; r < round_up (rows, ROWS); r++)
    for (int part = 0; part < parts; part++) {
      Lane *to = (Lane *) q + (((size_t) (r / ROWS) * parts + part) * ROWS + r % ROWS) * PART;
      int first_step = part * PART, n = job->steps_k - first_step < PART ? job->steps_k - first_step : PART;
      int direct = whole - first_step < n ? (whole > first_step ? whole - first_step : 0) : n;

      if (r < rows) {
        const char *row = head_row (a, a->q, a->q_stride, first + r, head);

        memcpy (to, row + first_step * 4, direct * 4);
        for (int s = direct; s < n; s++)
          to[s] = lane (job, row, first_step + s);
      } else {
        memset (to, 0, n * 4);
      }
    }
}

/* ---- register tiles ---- */

/* c[ROWS][vecs] += sum over steps of a[row][step] * b[step][...]; rows of a are a_row lanes apart, steps of b PANEL. */
DP_INLINE void
tile_multiply (const bool pairs, const int vecs, int steps, const float *a, const int a_row, const float *b,
    Vec c[ROWS][TILE_VECS])
{
  for (int s = 0; s < steps; s++, a++, b += PANEL) {
    Vec columns[TILE_VECS];

    UNROLL
    for (int v = 0; v < vecs; v++)
      columns[v] = vec_load (b + v * VEC);
    UNROLL
    for (int r = 0; r < ROWS; r++) {
      Vec x = vec_set (a[r * a_row]);

      UNROLL
      for (int v = 0; v < vecs; v++)
        c[r][v] = vec_multiply_add (pairs, x, columns[v], c[r][v]);
    }
  }
}

/* s[ROWS][vecs] = Q K^T over one tile of keys. */
DP_INLINE void
tile_logits (const bool pairs, const int vecs, int steps, const float *q, const float *k, float *s, const int s_stride)
{
  Vec c[ROWS][TILE_VECS] = { 0 };

  for (int done = 0; done < steps; done += PART)
    tile_multiply (pairs, vecs, steps - done < PART ? steps - done : PART, q + done * ROWS, PART, k + done * PANEL, c);
  UNROLL
  for (int r = 0; r < ROWS; r++)
    UNROLL
    for (int v = 0; v < vecs; v++)
      vec_store (s + r * s_stride + v * VEC, c[r][v]);
}

/* o[ROWS][vecs] = o * rescale[row] + P V over one tile of channels. */
DP_INLINE void
tile_output (const bool pairs, const int vecs, int steps, const float *p, const int s_stride, const float *v, float *o,
    const float *rescale)
{
  Vec c[ROWS][TILE_VECS];

  UNROLL
  for (int r = 0; r < ROWS; r++)
    UNROLL
    for (int i = 0; i < vecs; i++)
      c[r][i] = vec_load (o + r * PANEL + i * VEC) * rescale[r];
  tile_multiply (pairs, vecs, steps, p, s_stride, v, c);
  UNROLL
  for (int r = 0; r < ROWS; r++)
    UNROLL
    for (int i = 0; i < vecs; i++)
      vec_store (o + r * PANEL + i * VEC, c[r][i]);
}

/* A panel of `lanes` (a multiple of UNIT, at most PANEL) columns, tile by tile. */
DP_INLINE void
panel_logits (const bool pairs, int lanes, int steps, const float *q, const float *k, float *s, const int s_stride)
{
  if (TILE == PANEL) {
    switch (lanes / UNIT) {
      case 1: tile_logits (pairs, 1, steps, q, k, s, s_stride); return;
      case 2: tile_logits (pairs, 2, steps, q, k, s, s_stride); return;
      case 3: tile_logits (pairs, TILE_VECS - 1, steps, q, k, s, s_stride); return;
      default: tile_logits (pairs, TILE_VECS, steps, q, k, s, s_stride); return;
    }
  }
  for (int c = 0; c < lanes; c += TILE)
    tile_logits (pairs, TILE_VECS, steps, q, k + c, s + c, s_stride);
}

DP_INLINE void
panel_output (const bool pairs, int lanes, int steps, const float *p, const int s_stride, const float *v, float *o,
    const float *rescale)
{
  if (TILE == PANEL) {
    switch (lanes / UNIT) {
      case 1: tile_output (pairs, 1, steps, p, s_stride, v, o, rescale); return;
      case 2: tile_output (pairs, 2, steps, p, s_stride, v, o, rescale); return;
      case 3: tile_output (pairs, TILE_VECS - 1, steps, p, s_stride, v, o, rescale); return;
      default: tile_output (pairs, TILE_VECS, steps, p, s_stride, v, o, rescale); return;
    }
  }
  for (int c = 0; c < lanes; c += TILE)
    tile_output (pairs, TILE_VECS, steps, p, s_stride, v + c, o + c, rescale);
}

/* ---- softmax ---- */

/* The largest logit of a row of a block, width >= 16 of them. */
DP_INLINE float
row_top (const float *s, int width)
{
  Vec most = vec_load (s);

  for (int j = VEC; j < width; j += VEC)
    most = vec_max (most, vec_load (s + j));
  return vec_reduce_max (most);
}

/* p = 2^(scale s - top) in place of a row; returns its sum. */
DP_INLINE float
row_weights (const bool pairs, float *s, int width, float scale, float top)
{
  Vec total = { 0 };
  uint16_t *half = (uint16_t *) s;

  for (int j = 0; j < width; j += VEC) {
    Vec p = vec_exp2 (vec_load (s + j) * scale - top, pairs);

    total += p;
    if (pairs)
      vec_store_bf16 (half + j, p);
    else
      vec_store (s + j, p);
  }
  return vec_reduce_add (total);
}

/* Logits of a block to weights, rows a multiple of ROWS: with them the running maxima and sums, and the factors by which the older
 * sums shrink. */
DP_INLINE void
softmax (const bool pairs, const Scratch *scratch, int rows, int width, float scale)
{
  const int s_stride = block_keys (pairs) + UNIT;
  float found[DP_ATTN_TASK] = { 0 };

  for (int r = 0; r < rows; r++)
    found[r] = row_top (scratch->s + (size_t) r * s_stride, width);
  for (int r = 0; r < rows; r += VEC) {
    Vec before = vec_load (scratch->top + r), now = vec_max (vec_load (found + r) * scale, before);

    vec_store (scratch->rescale + r, vec_exp2 (before - now, false));
    vec_store (scratch->top + r, now);
  }
  for (int r = 0; r < rows; r++)
    scratch->sum[r] = scratch->sum[r] * scratch->rescale[r]
        + row_weights (pairs, scratch->s + (size_t) r * s_stride, width, scale, scratch->top[r]);
}

/* The rarely used biases, before the softmax: logits [0, keys) of query row `row` from key `first` on, in units of log2. */
static void
add_biases (const DpAttentionArgs *a, int head, int row, int first, int keys, float *s)
{
  const float scale = a->scale * LOG2E;

  if (a->rel_bias != NULL && row < a->q_len) {
    const float *bias = a->rel_bias + (size_t) head * (2 * a->rel_bias_keys - 1) + first - row + a->rel_bias_keys - 1;

    for (int j = 0; j < keys; j++)
      s[j] = s[j] * scale + bias[j] * LOG2E;
  } else {
    for (int j = 0; j < keys; j++)
      s[j] *= scale;
  }
  if (first + keys == a->kv_len)
    s[keys - 1] += a->last_key_bias * LOG2E;
}

/* ---- a task ---- */

/* Takes the task's rows through keys [first, first + keys). */
DP_INLINE void
block (const bool pairs, const DpAttnJob *job, const Scratch *scratch, int head, int row0, int groups, int first, int keys)
{
  const DpAttentionArgs *a = job->args;
  const int s_stride = block_keys (pairs) + UNIT;
  int width = round_up (keys, UNIT), steps = pairs ? (keys + 1) / 2 : keys;
  bool biased = a->rel_bias != NULL || (a->last_key_bias != 0 && first + keys == a->kv_len);

  for (int j = 0; j < width; j += PANEL) {
    int lanes = width - j < PANEL ? width - j : PANEL;
    const float *k = (const float *) job->keys
        + ((size_t) head * job->panels_k + (first + j) / PANEL) * job->steps_k * PANEL;

    for (int g = 0; g < groups; g++)
      panel_logits (pairs, lanes, job->steps_k, scratch->q + (size_t) g * parts_of (job->steps_k) * ROWS * PART, k,
          scratch->s + (size_t) g * ROWS * s_stride + j, s_stride);
  }
  if (biased || keys < width)
    for (int r = 0; r < groups * ROWS; r++) {
      float *s = scratch->s + (size_t) r * s_stride;

      if (biased)
        add_biases (a, head, row0 + r, first, keys, s);
      for (int j = keys; j < width; j++)
        s[j] = LOWEST;
    }
  softmax (pairs, scratch, groups * ROWS, width, biased ? 1 : a->scale * LOG2E);
  for (int panel = 0; panel < job->panels_v; panel++) {
    int channels = a->head_dim - panel * PANEL;
    const float *v = (const float *) job->values
        + (((size_t) head * job->panels_v + panel) * job->steps_v + first / (pairs ? 2 : 1)) * PANEL;

    for (int g = 0; g < groups; g++)
      panel_output (pairs, channels < PANEL ? round_up (channels, UNIT) : PANEL, steps,
          scratch->s + (size_t) g * ROWS * s_stride, s_stride, v,
          scratch->o + ((size_t) g * job->panels_v + panel) * ROWS * PANEL, scratch->rescale + g * ROWS);
  }
}

static void
store_row (const DpAttnJob *job, const Scratch *scratch, int head, int row0, int r)
{
  const DpAttentionArgs *a = job->args;
  float scale = 1 / scratch->sum[r];

  for (int panel = 0; panel < job->panels_v; panel++) {
    const float *o = scratch->o + (((size_t) (r / ROWS) * job->panels_v + panel) * ROWS + r % ROWS) * PANEL;
    size_t at = (size_t) (row0 + r) * a->out_stride + (size_t) head * a->head_dim + panel * PANEL;
    int n = a->head_dim - panel * PANEL < PANEL ? a->head_dim - panel * PANEL : PANEL;

    for (int c = 0; c < n; c += VEC) {
      Vec x = vec_load (o + c) * scale;
      int lanes = vec_lanes (n - c);

      if (a->type == DP_TYPE_F32)
        vec_store_first ((float *) a->out + at + c, x, lanes);
      else
        vec_store_first_bf16 ((uint16_t *) a->out + at + c, x, lanes);
    }
  }
}

DP_INLINE void
task_of (const bool pairs, const DpAttnJob *job, int head, int task, void *memory)
{
  const DpAttentionArgs *a = job->args;
  int row0 = task * DP_ATTN_TASK, rows = a->q_len - row0 < DP_ATTN_TASK ? a->q_len - row0 : DP_ATTN_TASK;
  int groups = round_up (rows, ROWS) / ROWS, keys = block_keys (pairs);
  size_t bytes;
  Scratch scratch = scratch_layout (job, memory, &bytes);

  pack_queries (job, head, row0, rows, scratch.q);
  memset (scratch.o, 0, (size_t) groups * job->panels_v * ROWS * PANEL * sizeof (float));
  for (int r = 0; r < DP_ATTN_TASK; r++) {
    scratch.top[r] = LOWEST;
    scratch.sum[r] = 0;
  }
  for (int first = 0; first < a->kv_len; first += keys)
    block (pairs, job, &scratch, head, row0, groups, first, a->kv_len - first < keys ? a->kv_len - first : keys);
  for (int r = 0; r < rows; r++)
    store_row (job, &scratch, head, row0, r);
}

static void
task (const DpAttnJob *job, int head, int task, void *scratch)
{
#if defined (__AVX512BF16__)
  if (job->pairs) {
    task_of (true, job, head, task, scratch);
    return;
  }
#endif
  task_of (false, job, head, task, scratch);
}

const DpAttnTable DP_ISA (dp_attn_table) = {
#if defined (__AVX512BF16__)
  .pairs = true,
#endif
  .pack = pack,
  .task = task,
  .scratch_size = scratch_size,
};
