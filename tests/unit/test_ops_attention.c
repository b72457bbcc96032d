/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Attention on every backend against the reference: test_ops.c's cases of it, and data with structure.
 */
#include "ops_harness.h"
#include "tests/attention_data.h"

void test_attention (void);
void bench_attention (void);

static float *pool;             /* of attention_data_pool() */

/* By kind of data. In bfloat16 probabilities are rounded, and the result; normal numbers also come with logits of 20, where that shows. In
 * e4m3 it is 1.3 to 2 times what was measured for all heads (docs/performance.md): outliers make logits of a size that is wrong by half. */
static const double f32_tolerances[DATA_KINDS] = { 2e-5, 2e-5, 2e-5, 2e-5, 2e-5 };
static const double bf16_tolerances[DATA_KINDS] = { 1e-2, 4e-3, 4e-3, 4e-3, 4e-3 };
static const double fp8_tolerances[DATA_KINDS] = { 8e-2, 4e-3, 8e-2, 1.6e-1, 6e-1 };

typedef struct
{
  int heads, head_dim, q_len, kv_len;
  DpType type;
  bool rel_bias;
  int rel_bias_keys;
  float last_key_bias;
  int pad;
  float spread;                 /* of the logits; 0 is 1 */
  bool fp8;
  AttentionData data;           /* with structure: without pad and spread */
} AttentionParams;

/* Of all numbers of a part, packed. */
static void *
structured (Case *c, const AttentionParams *p, int part, int rows)
{
  int width = p->heads * p->head_dim;
  float *values = g_new (float, (size_t) rows * width);
  void *data;

  if (pool == NULL)
    pool = attention_data_pool (harness_seed + 2);
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < width; i++)
      values[(size_t) r * width + i] = attention_data_number (pool, p->data, width, r, part, i);
  data = in_values (c, rows, width, p->type, values);
  g_free (values);
  return data;
}

static void *
input (Case *c, const AttentionParams *p, int part, int rows)
{
  int width = p->heads * p->head_dim;

  if (p->data != DATA_NORMAL)
    return structured (c, p, part, rows);
  return in (c, rows, width, p->pad ? width + p->pad : 0, p->type, part == 0 && p->spread ? p->spread : 1);
}

static void
attention_body (Case *c, const void *params)
{
  const AttentionParams *p = params;
  int width = p->heads * p->head_dim, stride = p->pad ? width + p->pad : 0;
  DpAttentionArgs args = {
    .type = p->type, .heads = p->heads, .head_dim = p->head_dim, .q_len = p->q_len, .kv_len = p->kv_len,
    .q = input (c, p, 0, p->q_len), .q_stride = stride, .k = input (c, p, 1, p->kv_len), .k_stride = stride,
    .v = input (c, p, 2, p->kv_len), .v_stride = stride,
    .out = out (c, p->q_len, width, stride, p->type), .out_stride = stride,
    .scale = 1 / sqrtf (p->head_dim), .last_key_bias = p->last_key_bias, .fp8 = p->fp8,
  };

  if (p->rel_bias)
    args.rel_bias = in (c, p->heads, 2 * (p->rel_bias_keys ? p->rel_bias_keys : p->kv_len) - 1, 0, F32, 2);
  RUN (c, c->dev->ops->attention (c->dev, &args));
}

static void
attention_case (AttentionParams p)
{
  const double *tolerances = p.fp8 ? fp8_tolerances : p.type == F32 ? f32_tolerances : bf16_tolerances;
  Case c = { .tolerance = tolerances[p.data], .type = p.type, .flops = 4.0 * p.heads * p.head_dim * p.q_len * p.kv_len };

  snprintf (c.name, sizeof c.name, "attention %dx%d %dx%d %s%s%s%s%s%s", p.heads, p.head_dim, p.q_len, p.kv_len, type_name (p.type),
      p.fp8 ? " fp8" : p.rel_bias ? " rel_bias" : "", p.last_key_bias ? " last_key_bias" : "", p.pad ? " strided" : "",
      p.data ? " " : "", p.data ? attention_data_names[p.data] : "");
  run_case (&c, attention_body, &p);
}

/* Data with structure: one tile of queries and a few, several, and a number of keys that no tile divides. On a GPU as many keys as a block
 * of 832x480 sees: what is lost in a long sum is lost there. */
static void
test_attention_structured (void)
{
  for (AttentionData data = DATA_NORMAL + 1; data < DATA_KINDS; data++) {
    for (DpType type = F32; type <= BF16; type++) {
      attention_case ((AttentionParams) { 2, 64, 97, 1003, type, .data = data });
      attention_case ((AttentionParams) { 1, 128, 33, 2049, type, .data = data });
      attention_case ((AttentionParams) { 3, 40, 5, 259, type, .data = data });
    }
    for (int fp8 = 0; fp8 <= harness_fp8 () && harness_gpu (); fp8++) {
      attention_case ((AttentionParams) { 1, 128, 200, 37440, BF16, .data = data, .fp8 = fp8 });
      attention_case ((AttentionParams) { 2, 128, 193, 4103, BF16, .data = data, .fp8 = fp8 });
    }
  }
}

/* The ways a GPU has for long rows of keys and for wide heads, in more than one piece: too slow for the reference otherwise. */
static void
test_attention_gpu (void)
{
  attention_case ((AttentionParams) { 3, 64, 130, 4096, BF16, .pad = 384 });
  attention_case ((AttentionParams) { 2, 128, 70, 4203, BF16 });
  attention_case ((AttentionParams) { 2, 128, 257, 4100, BF16, .pad = 512, .spread = 10 });
  attention_case ((AttentionParams) { 1, 40, 33, 5000, BF16 });
  attention_case ((AttentionParams) { 1, 72, 9, 4100, BF16, .last_key_bias = 3 });
  attention_case ((AttentionParams) { 12, 128, 200, 513, BF16, .last_key_bias = logf (2) });
  for (int keys = 13; keys <= 64; keys += 17)   /* so many queries that a block has several tiles of them */
    attention_case ((AttentionParams) { 12, 128, 3000, keys, BF16, .last_key_bias = logf (512 - keys), .pad = keys == 30 ? 3 : 0 });
  for (int pad = 0; pad <= 512 && harness_fp8 (); pad += 512) { /* its roundings, which the reference does without, cost some percent */
    attention_case ((AttentionParams) { 2, 128, 257, 4100, BF16, .pad = pad, .fp8 = true });
    attention_case ((AttentionParams) { 12, 128, 64, 4096, BF16, .pad = pad, .fp8 = true });
    attention_case ((AttentionParams) { 3, 64, 130, 5003, BF16, .pad = pad, .fp8 = true });
  }
  attention_case ((AttentionParams) { 4, 64, 512, 512, BF16, .rel_bias = true });
  attention_case ((AttentionParams) { 4, 64, 100, 100, BF16, .rel_bias = true, .rel_bias_keys = 512 });
  for (DpType type = F32; type <= BF16; type++) {
    attention_case ((AttentionParams) { 1, 384, 390, 390, type, .pad = 768 });
    attention_case ((AttentionParams) { 3, 136, 70, 91, type, .last_key_bias = 2, .pad = 8 });
    attention_case ((AttentionParams) { 2, 200, 65, 65, type, .rel_bias = true });
    attention_case ((AttentionParams) { 1, 1000, 9, 20, type, .pad = 1 });
    attention_case ((AttentionParams) { 1, 136, 140, 90000, type });
  }
}

void
test_attention (void)
{
  for (DpType type = F32; type <= BF16; type++) {
    attention_case ((AttentionParams) { 3, 64, 70, 1728, type });
    attention_case ((AttentionParams) { 3, 64, 1, 1, type });
    attention_case ((AttentionParams) { 3, 64, 129, 21, type, .last_key_bias = logf (491), .pad = 32 });
    attention_case ((AttentionParams) { 12, 128, 50, 77, type, .pad = 2 * 1536 });
    attention_case ((AttentionParams) { 2, 20, 7, 33, type, .pad = 3 });
    attention_case ((AttentionParams) { 2, 32, 33, 7, type });
    attention_case ((AttentionParams) { 1, 80, 33, 130, type, .spread = 20 });
    attention_case ((AttentionParams) { 1, 384, 40, 40, type });
    attention_case ((AttentionParams) { 1, 5, 3, 600, type });
    attention_case ((AttentionParams) { 4, 64, 31, 31, type, .rel_bias = true });
    attention_case ((AttentionParams) { 3, 20, 130, 130, type, .rel_bias = true, .last_key_bias = 1, .pad = 5 });
    attention_case ((AttentionParams) { 2, 64, 1, 1, type, .rel_bias = true });
    attention_case ((AttentionParams) { 3, 20, 70, 70, type, .rel_bias = true, .rel_bias_keys = 131 });
    /* Across tasks of 96 queries, and blocks of 128 and 256 keys with something left over. */
    attention_case ((AttentionParams) { 2, 64, 193, 300, type, .last_key_bias = 2 });
    attention_case ((AttentionParams) { 1, 96, 97, 129, type });
    attention_case ((AttentionParams) { 3, 33, 5, 513, type, .pad = 1 });
  }
  test_attention_structured ();
  if (harness_gpu ())
    test_attention_gpu ();
  g_clear_pointer (&pool, g_free);
}

/* Self-attention of 81 frames and of a block with its context, 1.3B and 14B; cross-attention of a short and of a long prompt; the text
 * encoder; the middle of the VAE. */
static void
bench_attention_gpu (void)
{
  attention_case ((AttentionParams) { 12, 128, 32760, 32760, BF16 });
  attention_case ((AttentionParams) { 12, 128, 32760, 32760, BF16, .pad = 3072 });
  attention_case ((AttentionParams) { 12, 128, 24960, 37440, BF16 });
  attention_case ((AttentionParams) { 12, 128, 12480, 24960, BF16 });
  attention_case ((AttentionParams) { 40, 128, 32760, 32760, BF16 });
  attention_case ((AttentionParams) { 12, 128, 32760, 32760, BF16, .pad = 3072, .fp8 = harness_fp8 () });
  attention_case ((AttentionParams) { 12, 128, 32760, 21, BF16, .last_key_bias = 6 });
  attention_case ((AttentionParams) { 12, 128, 32760, 512, BF16 });
  attention_case ((AttentionParams) { 64, 64, 512, 512, BF16, .rel_bias = true });
  attention_case ((AttentionParams) { 1, 384, 6240, 6240, BF16 });
}

void
bench_attention (void)
{
  if (harness_gpu ()) {
    bench_attention_gpu ();
    return;
  }
  for (DpType type = F32; type <= BF16; type++) {
    attention_case ((AttentionParams) { 3, 64, 1152, 1728, type, .pad = 384 });
    attention_case ((AttentionParams) { 3, 64, 1152, 24, type, .last_key_bias = 6 });
    attention_case ((AttentionParams) { 1, 64, 1536, 1536, type });
  }
  attention_case ((AttentionParams) { 12, 128, 256, 1024, BF16 });
}
