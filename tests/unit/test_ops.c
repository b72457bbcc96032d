/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_ops.c: every op on every backend against the reference, on shapes that are real, odd and tiny; --bench times them.
 * The reference itself is held to hand-derived properties in test_ops_properties.c; attention is in test_ops_attention.c. Long, because
 * each op's body, its shapes for the tests and its shapes for the benches, of a CPU and of a GPU, stand together.
 *
 * Shapes: L rows, K and N features, H heads of d channels, C channels, T frames.
 */
#include "ops_harness.h"
#include "tests/attention_data.h"

#include <math.h>

/* Storage in bfloat16 costs 2^-9 a value where a rounding falls the other way; what sums in float32 is far closer. */
#define TOLERANCE(y_type) ((y_type) == F32 ? 1e-5 : 4e-3)

void test_properties (void);
void test_transfers (void);
void test_attention (void);
void bench_attention (void);

/* ---- linear ---- */

typedef struct
{
  int rows, k, n;
  DpType type, y_type;
  DpActivation act;
  bool accumulate, gate;
  int x_pad, y_pad;             /* elements between rows */
  int pieces;                   /* the weight comes in this many equal parts; 0 is 1 */
  DpType file_type;
  bool no_bias, fp8;
  bool outliers;                /* a few features of x are ten times as large; without x_pad */
} LinearParams;

static void *
linear_input (Case *c, const LinearParams *p, int stride)
{
  size_t n = (size_t) p->rows * p->k;
  float *values;
  void *x;

  if (!p->outliers)
    return in (c, p->rows, p->k, stride, p->type, 1);
  values = g_memdup2 (host_random (c, n, F32, 1), n * sizeof *values);
  for (size_t i = 0; i < n; i++)
    if (attention_data_is_outlier (i % p->k))
      values[i] *= 10;
  x = in_values (c, p->rows, p->k, p->type, values);
  g_free (values);
  return x;
}

static void
linear_body (Case *c, const void *params)
{
  const LinearParams *p = params;
  const DpOps *ops = c->dev->ops;
  int pieces = p->pieces ? p->pieces : 1;
  DpHostWeight weights[4], biases[4];
  DpLinear *linear;
  DpLinearArgs args = {
    .rows = p->rows, .x_stride = p->x_pad ? p->k + p->x_pad : 0, .y_stride = p->y_pad ? p->n + p->y_pad : 0,
    .y_type = p->y_type, .act = p->act, .accumulate = p->accumulate,
  };

  for (int i = 0; i < pieces; i++) {
    int n = p->n / pieces;

    weights[i] = (DpHostWeight) { host_random (c, (size_t) n * p->k, p->file_type, 1 / sqrtf (p->k)), p->file_type, n };
    biases[i] = (DpHostWeight) { host_random (c, n, F32, 0.5), F32, n };
  }
  linear = ops->linear_new (c->dev, &(DpLinearSpec) { .k = p->k, .type = p->type, .n_weights = pieces, .weights = weights,
          .biases = p->no_bias ? NULL : biases, .fp8 = p->fp8 });
  check (linear != NULL, "%s: linear_new says no", c->name);
  args.x = linear_input (c, p, args.x_stride);
  args.gate = p->gate ? in (c, 1, p->n, 0, F32, 1) : NULL;
  args.y = p->accumulate ? out_like (c, p->rows, p->n, args.y_stride, F32, 1) : out (c, p->rows, p->n, args.y_stride, p->y_type);
  RUN (c, ops->linear (c->dev, linear, &args));
  ops->linear_free (c->dev, linear);
}

static void
linear_case (LinearParams p)
{
  static const char *const acts[] = { "", " gelu", " silu" };
  Case c = { .tolerance = TOLERANCE (p.y_type), .type = p.type, .flops = 2.0 * p.rows * p.k * p.n };

  /* A float32 sum errs by some root of its length; matrix units, which cut where others round, show it first. */
  if (p.k > 8192)
    c.tolerance *= sqrt (p.k / 8192.0);
  /* Weights that were rounded once more: 2^-9 each at worst, 1.7e-3 of the sum on average, and of a single sum three times that is no surprise. */
  if (p.type == BF16 && p.gate && harness_gpu ())
    c.tolerance = p.rows * p.n < 16 ? 8e-3 : 2e-3;
  /* The matrix units keep fewer bits of a sum in e4m3, and the bias is bfloat16. */
  if (p.fp8)
    c.tolerance = 4e-3;
  snprintf (c.name, sizeof c.name, "linear %dx%d->%d %s->%s%s%s%s%s%s%s", p.rows, p.k, p.n, type_name (p.type), type_name (p.y_type),
      acts[p.act], p.accumulate ? " +=" : "", p.gate ? " gated" : "", p.x_pad || p.y_pad ? " strided" : "",
      p.pieces > 1 ? " pieces" : p.fp8 ? " fp8" : "", p.outliers ? " outliers" : "");
  run_case (&c, linear_body, &p);
}

/* The layers that can be in e4m3, and one that is too narrow and stays bfloat16. */
static void
test_linear_fp8 (void)
{
  static const int shapes[][3] = { { 1, 64, 48 }, { 7, 192, 576 }, { 33, 1536, 1536 }, { 130, 1536, 8960 }, { 17, 8960, 1536 },
      { 19, 5120, 13824 },
    { 40, 40, 24 } };

  for (size_t i = 0; i < LENGTH (shapes); i++) {
    LinearParams p = { .rows = shapes[i][0], .k = shapes[i][1], .n = shapes[i][2], .type = BF16, .y_type = BF16, .fp8 = true };

    linear_case (p);
    p.act = DP_ACT_GELU_TANH;
    linear_case (p);
    p.act = DP_ACT_NONE;
    p.outliers = true;
    linear_case (p);
    p.outliers = false;
    p.x_pad = 64;
    p.no_bias = true;
    linear_case (p);
    p.no_bias = false;
    p.y_type = F32;
    p.accumulate = true;
    linear_case (p);
    p.x_pad = 0;
    p.gate = true;
    linear_case (p);
  }
}

/* Layers of Wan 1.3B and 14B and of its text encoder, a few rows of each: the reference is slow. */
static void
test_linear_wan (void)
{
  static const int widths[][2] = { { 1536, 8960 }, { 5120, 13824 } };

  for (size_t i = 0; i < LENGTH (widths); i++) {
    int d = widths[i][0], f = widths[i][1];

    linear_case ((LinearParams) { .rows = 33, .k = d, .n = 3 * d, .type = BF16, .y_type = BF16, .pieces = 3, .file_type = BF16 });
    linear_case ((LinearParams) { .rows = 17, .k = d, .n = f, .type = BF16, .y_type = BF16, .act = DP_ACT_GELU_TANH });
    linear_case ((LinearParams) { .rows = 17, .k = f, .n = d, .type = BF16, .y_type = F32, .accumulate = true, .gate = true });
    linear_case ((LinearParams) { .rows = 17, .k = d, .n = d, .type = BF16, .y_type = F32, .accumulate = true });
    linear_case ((LinearParams) { .rows = 5, .k = d, .n = 64, .type = BF16, .y_type = F32 });
  }
  linear_case ((LinearParams) { .rows = 1, .k = 1536, .n = 9216, .type = F32, .y_type = F32, .act = DP_ACT_SILU });
  linear_case ((LinearParams) { .rows = 16, .k = 10240, .n = 4096, .type = BF16, .y_type = F32, .accumulate = true });
}

static void
test_linear (void)
{
  static const struct
  {
    int rows, k, n;
  } shapes[] = {
    { 1, 20, 24 }, { 7, 20, 33 }, { 33, 96, 20 }, { 1, 96, 1 }, { 64, 1, 5 }, { 65, 33, 65 }, { 130, 192, 576 }, { 1, 256, 192 },
    { 12, 192, 1152 }, { 33, 128, 1030 }, { 97, 768, 192 },
  };

  for (size_t i = 0; i < LENGTH (shapes); i++)
    for (DpType type = F32; type <= BF16; type++) {
      LinearParams p = { .rows = shapes[i].rows, .k = shapes[i].k, .n = shapes[i].n, .type = type, .y_type = type };

      linear_case (p);
      p.x_pad = 3 + i, p.y_pad = 5 + i;
      p.act = DP_ACT_GELU_TANH;
      linear_case (p);
      p.x_pad = 64 - p.k % 64, p.y_pad = 64 - p.n % 64;
      p.act = DP_ACT_SILU;
      p.y_type = F32;
      linear_case (p);
      p.act = DP_ACT_NONE;
      p.accumulate = true;
      linear_case (p);
      p.x_pad = p.y_pad = 0;
      p.gate = true;
      p.no_bias = true;
      linear_case (p);
      p.no_bias = false;
      p.x_pad = 1;
      linear_case (p);
      linear_case ((LinearParams) { .rows = p.rows, .k = p.k, .n = p.n, .type = type, .y_type = type, .outliers = true });
    }
  linear_case ((LinearParams) { .rows = 40, .k = 192, .n = 576, .type = BF16, .y_type = BF16, .pieces = 3, .file_type = BF16 });
  linear_case ((LinearParams) { .rows = 40, .k = 20, .n = 1111, .type = BF16, .y_type = F32, .file_type = BF16 });
  linear_case ((LinearParams) { .rows = 40, .k = 192, .n = 1920, .type = F32, .y_type = F32, .pieces = 3, .file_type = BF16 });
  linear_case ((LinearParams) { .rows = 9, .k = 64, .n = 1500, .type = BF16, .y_type = F32, .pieces = 2, .file_type = DP_TYPE_F16 });
  linear_case ((LinearParams) { .rows = 70, .k = 96, .n = 48, .type = F32, .y_type = BF16, .act = DP_ACT_SILU });
  linear_case ((LinearParams) { .rows = 1152, .k = 192, .n = 576, .type = BF16, .y_type = BF16, .pieces = 3 });
  linear_case ((LinearParams) { .rows = 70, .k = 1536, .n = 1536, .type = BF16, .y_type = F32, .accumulate = true, .gate = true });
  linear_case ((LinearParams) { .rows = 20, .k = 8960, .n = 200, .type = BF16, .y_type = F32, .accumulate = true, .gate = true });
  if (harness_gpu ())
    test_linear_wan ();
  if (harness_fp8 ())
    test_linear_fp8 ();
}

/* The block of each DiT at 480x832 and 81 frames; what runs once a pass; a layer of the text encoder. */
static void
bench_linear_gpu (void)
{
  static const int widths[][2] = { { 1536, 8960 }, { 5120, 13824 } };
  int rows = 32760;

  for (size_t i = 0; i < LENGTH (widths); i++) {
    int d = widths[i][0], f = widths[i][1];

    linear_case ((LinearParams) { .rows = rows, .k = d, .n = 3 * d, .type = BF16, .y_type = BF16, .pieces = 3 });
    linear_case ((LinearParams) { .rows = rows, .k = d, .n = d, .type = BF16, .y_type = BF16 });
    linear_case ((LinearParams) { .rows = rows, .k = d, .n = d, .type = BF16, .y_type = F32 });
    linear_case ((LinearParams) { .rows = rows, .k = d, .n = d, .type = BF16, .y_type = F32, .accumulate = true });
    linear_case ((LinearParams) { .rows = rows, .k = d, .n = d, .type = BF16, .y_type = F32, .accumulate = true, .gate = true });
    linear_case ((LinearParams) { .rows = rows, .k = d, .n = f, .type = BF16, .y_type = BF16 });
    linear_case ((LinearParams) { .rows = rows, .k = d, .n = f, .type = BF16, .y_type = BF16, .act = DP_ACT_GELU_TANH });
    linear_case ((LinearParams) { .rows = rows, .k = f, .n = d, .type = BF16, .y_type = F32, .accumulate = true, .gate = true });
  }
  linear_case ((LinearParams) { .rows = rows, .k = 64, .n = 1536, .type = BF16, .y_type = F32 });
  linear_case ((LinearParams) { .rows = rows, .k = 1536, .n = 64, .type = BF16, .y_type = F32 });
  linear_case ((LinearParams) { .rows = 24960, .k = 1536, .n = 1536, .type = BF16, .y_type = F32, .accumulate = true, .gate = true });
  linear_case ((LinearParams) { .rows = 1, .k = 1536, .n = 9216, .type = BF16, .y_type = F32 });
  linear_case ((LinearParams) { .rows = 1, .k = 1536, .n = 1536, .type = BF16, .y_type = F32, .act = DP_ACT_SILU });
  linear_case ((LinearParams) { .rows = 21, .k = 1536, .n = 3072, .type = BF16, .y_type = BF16, .pieces = 2 });
  linear_case ((LinearParams) { .rows = 512, .k = 4096, .n = 12288, .type = BF16, .y_type = BF16, .pieces = 3 });
  linear_case ((LinearParams) { .rows = 512, .k = 4096, .n = 10240, .type = BF16, .y_type = BF16, .act = DP_ACT_GELU_TANH });
  linear_case ((LinearParams) { .rows = 512, .k = 10240, .n = 4096, .type = BF16, .y_type = F32, .accumulate = true });
}

static void
bench_linear (void)
{
  if (harness_gpu ()) {
    bench_linear_gpu ();
    return;
  }
  for (DpType type = F32; type <= BF16; type++)
    for (int rows = 1152; rows <= 2304; rows *= 2) {
      linear_case ((LinearParams) { .rows = rows, .k = 192, .n = 576, .type = type, .y_type = type, .pieces = 3 });
      linear_case ((LinearParams) { .rows = rows, .k = 192, .n = 192, .type = type, .y_type = type });
      linear_case ((LinearParams) { .rows = rows, .k = 192, .n = 768, .type = type, .y_type = type, .act = DP_ACT_GELU_TANH });
      linear_case ((LinearParams) { .rows = rows, .k = 768, .n = 192, .type = type, .y_type = F32, .accumulate = true, .gate = true });
    }
  linear_case ((LinearParams) { .rows = 1, .k = 192, .n = 1152, .type = F32, .y_type = F32 });
  linear_case ((LinearParams) { .rows = 256, .k = 1536, .n = 1536, .type = BF16, .y_type = BF16 });
  linear_case ((LinearParams) { .rows = 256, .k = 1536, .n = 8960, .type = BF16, .y_type = BF16, .act = DP_ACT_GELU_TANH });
  linear_case ((LinearParams) { .rows = 256, .k = 8960, .n = 1536, .type = BF16, .y_type = F32, .accumulate = true, .gate = true });
}

/* ---- conv ---- */

typedef struct
{
  int t, h, w, ci, co, kt, kh, kw;
  DpType type;
  int add;                      /* 0 no, 1 another picture, 2 y itself */
  bool no_bias;
} ConvParams;

static void
conv_body (Case *c, const void *params)
{
  const ConvParams *p = params;
  const DpOps *ops = c->dev->ops;
  size_t taps = (size_t) p->ci * p->kt * p->kh * p->kw, pixels = (size_t) (p->t - p->kt + 1) * p->h * p->w;
  DpConvSpec spec = {
    .ci = p->ci, .co = p->co, .kt = p->kt, .kh = p->kh, .kw = p->kw, .type = p->type,
    .weight = { host_random (c, taps * p->co, F32, 1 / sqrtf (taps)), F32, p->co },
    .bias = { p->no_bias ? NULL : host_random (c, p->co, F32, 0.5), F32, p->co },
  };
  DpConv *conv = ops->conv_new (c->dev, &spec);
  DpConvArgs args = { .t = p->t, .h = p->h, .w = p->w, .x = in (c, (size_t) p->t * p->h * p->w, p->ci, 0, p->type, 1) };

  check (conv != NULL, "%s: conv_new says no", c->name);
  args.add = p->add == 1 ? in (c, pixels, p->co, 0, p->type, 1) : NULL;
  args.y = p->add == 2 ? out_like (c, pixels, p->co, 0, p->type, 1) : out (c, pixels, p->co, 0, p->type);
  args.add = p->add == 2 ? args.y : args.add;
  RUN (c, ops->conv (c->dev, conv, &args));
  ops->conv_free (c->dev, conv);
}

static void
conv_case (ConvParams p)
{
  Case c = {
    .tolerance = TOLERANCE (p.type), .type = p.type,
    .flops = 2.0 * (p.t - p.kt + 1) * p.h * p.w * p.ci * p.co * p.kt * p.kh * p.kw,
  };

  snprintf (c.name, sizeof c.name, "conv %dx%dx%d %d->%d by %dx%dx%d %s%s", p.t, p.h, p.w, p.ci, p.co, p.kt, p.kh, p.kw,
      type_name (p.type), p.add == 2 ? " += y" : p.add ? " + add" : "");
  run_case (&c, conv_body, &p);
}

static void
test_conv (void)
{
  static const ConvParams shapes[] = {
    { 3, 9, 7, 16, 16, 3, 3, 3 }, { 1, 12, 10, 8, 8, 1, 3, 3 }, { 5, 6, 6, 8, 3, 3, 3, 3 }, { 3, 1, 1, 5, 20, 3, 3, 3 },
    { 4, 8, 5, 3, 8, 3, 3, 3 }, { 2, 7, 9, 16, 16, 1, 1, 1 }, { 3, 8, 8, 64, 64, 3, 3, 3 }, { 4, 6, 10, 32, 64, 3, 1, 1 },
    { 1, 3, 40, 20, 33, 1, 3, 3 }, { 3, 16, 24, 64, 32, 1, 3, 3 }, { 2, 5, 5, 32, 16, 1, 1, 1 }, { 1, 2, 2, 1, 1, 1, 5, 3 },
    { 3, 11, 65, 16, 8, 3, 3, 3 }, { 6, 40, 37, 8, 8, 3, 3, 3 }, { 4, 26, 33, 6, 5, 2, 3, 3 }, { 3, 13, 20, 96, 96, 3, 3, 3 },
    { 2, 30, 20, 96, 3, 1, 3, 3 }, { 2, 27, 9, 7, 7, 1, 1, 1 },
    { 4, 10, 70, 96, 3, 3, 3, 3 }, { 1, 9, 40, 24, 5, 1, 5, 3 }, { 3, 9, 33, 112, 8, 2, 3, 3 }, { 2, 5, 6, 40, 24, 1, 5, 3 },
    { 3, 5, 9, 64, 128, 3, 1, 1 }, { 2, 6, 10, 384, 72, 1, 1, 1 },
  };

  for (size_t i = 0; i < LENGTH (shapes); i++)
    for (DpType type = F32; type <= BF16; type++) {
      ConvParams p = shapes[i];

      p.type = type;
      conv_case (p);
      p.add = 1;
      conv_case (p);
      p.add = 2;
      p.no_bias = true;
      conv_case (p);
    }
}

/* Wan's decoder at 480x832, four frames at a time where the picture has its full size. */
static void
bench_conv_gpu (void)
{
  conv_case ((ConvParams) { 3, 60, 104, 16, 384, 3, 3, 3, BF16 });
  conv_case ((ConvParams) { 3, 60, 104, 384, 384, 3, 3, 3, BF16, 1 });
  conv_case ((ConvParams) { 3, 60, 104, 384, 768, 3, 1, 1, BF16 });
  conv_case ((ConvParams) { 4, 120, 208, 384, 384, 3, 3, 3, BF16, 1 });
  conv_case ((ConvParams) { 4, 240, 416, 384, 192, 1, 3, 3, BF16 });
  conv_case ((ConvParams) { 6, 240, 416, 192, 192, 3, 3, 3, BF16, 1 });
  conv_case ((ConvParams) { 4, 480, 832, 192, 96, 1, 3, 3, BF16 });
  conv_case ((ConvParams) { 6, 480, 832, 96, 96, 3, 3, 3, BF16 });
  conv_case ((ConvParams) { 6, 480, 832, 96, 96, 3, 3, 3, BF16, 1 });
  conv_case ((ConvParams) { 6, 480, 832, 96, 3, 3, 3, 3, BF16 });
}

/* The tiny VAE's decoder on a picture of 384 x 256: widths 64, 64, 32, 16, 8 from an eighth of the size up. */
static void
bench_conv (void)
{
  if (harness_gpu ()) {
    bench_conv_gpu ();
    return;
  }
  for (DpType type = F32; type <= BF16; type++) {
    conv_case ((ConvParams) { 3, 32, 48, 16, 64, 3, 3, 3, type });
    conv_case ((ConvParams) { 3, 32, 48, 64, 64, 3, 3, 3, type });
    conv_case ((ConvParams) { 3, 32, 48, 64, 128, 3, 1, 1, type });
    conv_case ((ConvParams) { 4, 64, 96, 32, 32, 3, 3, 3, type, 1 });
    conv_case ((ConvParams) { 6, 128, 192, 16, 16, 3, 3, 3, type, 1 });
    conv_case ((ConvParams) { 6, 256, 384, 8, 8, 3, 3, 3, type, 1 });
    conv_case ((ConvParams) { 6, 256, 384, 8, 3, 3, 3, 3, type });
  }
}

/* ---- norms ---- */

typedef struct
{
  int rows, cols;
  DpType y_type;
  bool gain, shift;
} LayerNormParams;

static void
layer_norm_body (Case *c, const void *params)
{
  const LayerNormParams *p = params;
  DpLayerNormArgs args = { .rows = p->rows, .cols = p->cols, .eps = 1e-6, .y_type = p->y_type, .x = in (c, p->rows, p->cols, 0, F32, 3) };

  args.gain = p->gain ? in (c, 1, p->cols, 0, F32, 1) : NULL;
  args.shift = p->shift ? in (c, 1, p->cols, 0, F32, 1) : NULL;
  args.y = out (c, p->rows, p->cols, 0, p->y_type);
  RUN (c, c->dev->ops->layer_norm (c->dev, &args));
}

static void
layer_norm_case (LayerNormParams p)
{
  Case c = { .tolerance = TOLERANCE (p.y_type), .bytes = (double) p.rows * p.cols * (4 + dp_type_size (p.y_type)) };

  snprintf (c.name, sizeof c.name, "layer_norm %dx%d f32->%s%s%s", p.rows, p.cols, type_name (p.y_type), p.gain ? " gain" : "",
      p.shift ? " shift" : "");
  run_case (&c, layer_norm_body, &p);
}

/* Rows that a layer norm makes in e4m3, and a product of them. */
static void
layer_norm_e4m3_body (Case *c, const void *params)
{
  const LayerNormParams *p = params;
  const DpOps *ops = c->dev->ops;
  const int n = 48;
  const DpHostWeight weight = { host_random (c, (size_t) n * p->cols, F32, 1 / sqrtf (p->cols)), F32, n };
  DpLinear *linear = ops->linear_new (c->dev, &(DpLinearSpec) { .k = p->cols, .type = BF16, .n_weights = 1, .weights = &weight,
          .fp8 = true });
  void *rows = ops->alloc (c->dev, (size_t) p->rows * p->cols);
  float *inverse = ops->alloc (c->dev, p->rows * sizeof *inverse);
  DpLayerNormArgs norm = { .rows = p->rows, .cols = p->cols, .eps = 1e-6, .x = in (c, p->rows, p->cols, 0, F32, 3), .y = rows,
    .inverse = inverse };

  check (linear && rows && inverse, "%s: no memory", c->name);
  norm.gain = p->gain ? in (c, 1, p->cols, 0, F32, 1) : NULL;
  norm.shift = p->shift ? in (c, 1, p->cols, 0, F32, 1) : NULL;
  RUN (c, ops->layer_norm (c->dev, &norm));
  ops->linear (c->dev, linear, &(DpLinearArgs) { .rows = p->rows, .x = rows, .x_inverse = inverse, .y = out (c, p->rows, n, 0, F32),
      .y_type = F32 });
  ops->sync (c->dev);
  ops->linear_free (c->dev, linear);
  ops->free (c->dev, rows);
  ops->free (c->dev, inverse);
}

static void
layer_norm_e4m3_case (LayerNormParams p)
{
  Case c = { .tolerance = 4e-3, .bytes = (double) p.rows * p.cols * 5 };

  snprintf (c.name, sizeof c.name, "layer_norm %dx%d f32->e4m3%s%s", p.rows, p.cols, p.gain ? " gain" : "", p.shift ? " shift" : "");
  run_case (&c, layer_norm_e4m3_body, &p);
}

typedef struct
{
  int rows, heads, head_dim;
  DpType x_type, y_type;
  bool weight, rope;
  int pad;
  bool in_place;
  int parts;
} RmsNormParams;

static void
rms_norm_body (Case *c, const void *params)
{
  const RmsNormParams *p = params;
  int width = (p->parts ? p->parts : 1) * p->heads * p->head_dim, stride = p->pad ? width + p->pad : 0;
  DpRmsNormArgs args = {
    .rows = p->rows, .heads = p->heads, .head_dim = p->head_dim, .parts = p->parts, .eps = 1e-6, .x_type = p->x_type, .y_type = p->y_type,
    .x_stride = stride, .y_stride = stride,
  };

  args.weight = p->weight ? in (c, 1, width, 0, F32, 1) : NULL;
  args.rope = p->rope ? in (c, p->rows, p->head_dim, 0, F32, 0.7) : NULL;
  if (p->in_place) {
    args.x = args.y = out_like (c, p->rows, width, stride, p->x_type, 1);
  } else {
    args.x = in (c, p->rows, width, stride, p->x_type, 1);
    args.y = out (c, p->rows, width, stride, p->y_type);
  }
  RUN (c, c->dev->ops->rms_norm (c->dev, &args));
}

static void
rms_norm_case (RmsNormParams p)
{
  Case c = {
    .tolerance = TOLERANCE (p.y_type),
    .bytes = (double) p.rows * (p.parts ? p.parts : 1) * p.heads * p.head_dim * (dp_type_size (p.x_type) + dp_type_size (p.y_type)),
  };

  snprintf (c.name, sizeof c.name, "rms_norm %d rows %dx%d%s %s->%s%s%s%s%s", p.rows, p.heads, p.head_dim, p.parts > 1 ? " twice" : "",
      type_name (p.x_type), type_name (p.y_type), p.weight ? " weight" : "", p.rope ? " rope" : "", p.pad ? " strided" : "", p.in_place
      ? " in place" : "");
  run_case (&c, rms_norm_body, &p);
}

typedef struct
{
  int rows, channels;
  DpType type;
  DpActivation act;
  bool in_place;
} ChannelNormParams;

static void
channel_norm_body (Case *c, const void *params)
{
  const ChannelNormParams *p = params;
  DpChannelNormArgs args = { .type = p->type, .rows = p->rows, .channels = p->channels, .act = p->act };

  args.gamma = in (c, 1, p->channels, 0, F32, 1);
  args.x = in (c, p->rows, p->channels, 0, p->type, 2);
  args.y = p->in_place ? out_like (c, p->rows, p->channels, 0, p->type, 2) : out (c, p->rows, p->channels, 0, p->type);
  args.x = p->in_place ? args.y : args.x;
  RUN (c, c->dev->ops->channel_norm (c->dev, &args));
}

static void
channel_norm_case (ChannelNormParams p)
{
  Case c = { .tolerance = TOLERANCE (p.type), .bytes = 2.0 * p.rows * p.channels * dp_type_size (p.type) };

  snprintf (c.name, sizeof c.name, "channel_norm %dx%d %s%s%s", p.rows, p.channels, type_name (p.type), p.act ? " silu" : "",
      p.in_place ? " in place" : "");
  run_case (&c, channel_norm_body, &p);
}

static void
test_norms_wan (void)
{
  for (int d = 1536; d <= 5120; d += 3584)
    for (DpType type = F32; type <= BF16; type++) {
      layer_norm_case ((LayerNormParams) { 700, d, type, true, true });
      rms_norm_case ((RmsNormParams) { 700, d / 128, 128, type, type, true, true, .pad = d, .in_place = true, .parts = 2 });
      rms_norm_case ((RmsNormParams) { 700, d / 128, 128, type, BF16, true, true });
    }
  layer_norm_case ((LayerNormParams) { 5, 20000, BF16, true, true });
  for (int cols = 48; cols <= 12288 && harness_fp8 (); cols *= 2) {
    layer_norm_e4m3_case ((LayerNormParams) { 33, cols, .gain = true, .shift = true });
    layer_norm_e4m3_case ((LayerNormParams) { 7, cols });
  }
  for (int d = 1536; d <= 5120 && harness_fp8 (); d += 3584)
    layer_norm_e4m3_case ((LayerNormParams) { 301, d, .gain = true, .shift = true });
  rms_norm_case ((RmsNormParams) { 512, 64, 64, F32, BF16, true, false });
  rms_norm_case ((RmsNormParams) { 5, 100, 200, F32, BF16, true, true });
  for (int c = 96; c <= 384; c *= 2)
    for (DpType type = F32; type <= BF16; type++)
      channel_norm_case ((ChannelNormParams) { 12345, c, type, DP_ACT_SILU });
  channel_norm_case ((ChannelNormParams) { 50, 2000, BF16, DP_ACT_SILU });
}

static void
test_norms (void)
{
  static const int rows[] = { 1, 7, 33, 300 };

  for (size_t i = 0; i < LENGTH (rows); i++)
    for (DpType type = F32; type <= BF16; type++) {
      layer_norm_case ((LayerNormParams) { rows[i], 192, type, true, true });
      layer_norm_case ((LayerNormParams) { rows[i], 1536, type, false, false });
      layer_norm_case ((LayerNormParams) { rows[i], 20, type, true, false });
      layer_norm_case ((LayerNormParams) { rows[i], 1, type, false, true });
      for (DpType x_type = F32; x_type <= BF16; x_type++) {
        rms_norm_case ((RmsNormParams) { rows[i], 3, 64, x_type, type, true, true, .pad = 384 });
        rms_norm_case ((RmsNormParams) { rows[i], 12, 128, x_type, type, true, false });
        rms_norm_case ((RmsNormParams) { rows[i], 3, 20, x_type, type, false, true, .pad = 1 });
        rms_norm_case ((RmsNormParams) { rows[i], 2, 80, x_type, type, true, true });
        rms_norm_case ((RmsNormParams) { rows[i], 1, 33, x_type, type, true, false });
      }
      rms_norm_case ((RmsNormParams) { rows[i], 3, 64, type, type, true, true, .pad = 192, .in_place = true, .parts = 2 });
      rms_norm_case ((RmsNormParams) { rows[i], 3, 20, type, type, true, true, .parts = 2 });
      rms_norm_case ((RmsNormParams) { rows[i], 3, 20, type, BF16, false, false, .pad = 40 });
      rms_norm_case ((RmsNormParams) { rows[i], 3, 64, type, type, true, false, .pad = 384, .in_place = true });
      rms_norm_case ((RmsNormParams) { rows[i], 2, 36, type, type, false, true, .in_place = true });
      for (int c = 0; c < 9; c++) {
        static const int channels[] = { 3, 5, 8, 20, 1, 4, 16, 32, 64 };

        channel_norm_case ((ChannelNormParams) { rows[i], channels[c], type, DP_ACT_SILU });
        channel_norm_case ((ChannelNormParams) { rows[i] * 7, channels[c], type, DP_ACT_NONE, .in_place = true });
      }
    }
  channel_norm_case ((ChannelNormParams) { 70, 384, F32, DP_ACT_SILU });
  if (harness_gpu ())
    test_norms_wan ();
}

static void
bench_norms_gpu (void)
{
  for (DpType type = F32; type <= BF16; type++) {
    layer_norm_case ((LayerNormParams) { 49920, 1536, type, true, true });
    layer_norm_case ((LayerNormParams) { 32760, 5120, type, true, true });
  }
  rms_norm_case ((RmsNormParams) { 49920, 12, 128, BF16, BF16, true, true });
  rms_norm_case ((RmsNormParams) { 49920, 12, 128, BF16, BF16, true, true, .pad = 1536, .in_place = true, .parts = 2 });
  rms_norm_case ((RmsNormParams) { 49920, 12, 128, BF16, BF16, true, false });
  rms_norm_case ((RmsNormParams) { 32760, 40, 128, BF16, BF16, true, true, .pad = 5120, .in_place = true, .parts = 2 });
  rms_norm_case ((RmsNormParams) { 512, 64, 64, F32, BF16, true, false });
  channel_norm_case ((ChannelNormParams) { 4 * 480 * 832, 96, BF16, DP_ACT_SILU });
  channel_norm_case ((ChannelNormParams) { 4 * 240 * 416, 192, BF16, DP_ACT_SILU });
  channel_norm_case ((ChannelNormParams) { 4 * 240 * 416, 384, BF16, DP_ACT_SILU });
  channel_norm_case ((ChannelNormParams) { 2 * 120 * 208, 384, BF16, DP_ACT_SILU });
}

static void
bench_norms (void)
{
  if (harness_gpu ()) {
    bench_norms_gpu ();
    return;
  }
  for (DpType type = F32; type <= BF16; type++) {
    layer_norm_case ((LayerNormParams) { 1152, 192, type, true, true });
    layer_norm_case ((LayerNormParams) { 4096, 1536, type, true, true });
    rms_norm_case ((RmsNormParams) { 1152, 3, 64, type, type, true, true, .pad = 384 });
    rms_norm_case ((RmsNormParams) { 4096, 12, 128, type, type, true, true });
    channel_norm_case ((ChannelNormParams) { 4 * 256 * 384, 8, type, DP_ACT_SILU });
    channel_norm_case ((ChannelNormParams) { 4 * 128 * 192, 16, type, DP_ACT_SILU });
    channel_norm_case ((ChannelNormParams) { 32 * 48, 64, type, DP_ACT_SILU });
  }
}

/* ---- pictures ---- */

typedef struct
{
  int t, h, w, channels;
  DpType type;
  bool temporal;
} PictureParams;

static void
upsample_body (Case *c, const void *params)
{
  const PictureParams *p = params;
  int frames = p->temporal ? 2 : 1;
  DpUpsampleArgs args = { .type = p->type, .t = p->t, .h = p->h, .w = p->w, .channels = p->channels, .temporal = p->temporal };

  args.x = in (c, (size_t) p->t * p->h * p->w, p->channels * frames, 0, p->type, 1);
  args.y = out (c, (size_t) p->t * frames * p->h * p->w * 4, p->channels, 0, p->type);
  RUN (c, c->dev->ops->upsample (c->dev, &args));
}

static void
upsample_case (PictureParams p)
{
  Case c = { .bytes = (double) p.t * p.h * p.w * p.channels * (p.temporal ? 2 : 1) * 5 * dp_type_size (p.type) };

  snprintf (c.name, sizeof c.name, "upsample %dx%dx%d C %d %s%s", p.t, p.h, p.w, p.channels, type_name (p.type),
      p.temporal ? " temporal" : "");
  run_case (&c, upsample_body, &p);
}

typedef struct
{
  int t, h, w, ci, co, frames, skip;
  bool transposed;
  DpType type;
} ShuffleParams;

static void
shuffle_body (Case *c, const void *params)
{
  const ShuffleParams *p = params;
  DpPixelShuffleArgs args = { .type = p->type, .t = p->t, .h = p->h, .w = p->w, .ci = p->ci, .co = p->co, .frames = p->frames,
    .skip = p->skip, .transposed = p->transposed };

  args.x = in (c, (size_t) p->t * p->h * p->w, p->ci, 0, p->type, 1);
  args.y = out (c, (size_t) (p->t * p->frames - p->skip) * p->h * p->w * 4, p->co, 0, p->type);
  RUN (c, c->dev->ops->pixel_shuffle (c->dev, &args));
}

static void
shuffle_case (ShuffleParams p)
{
  Case c = { .bytes = (double) p.t * p.h * p.w * (p.ci + 4 * p.frames * p.co) * dp_type_size (p.type) };

  snprintf (c.name, sizeof c.name, "pixel shuffle %dx%dx%d C %d to %d %s, %d frames%s%s", p.t, p.h, p.w, p.ci, p.co, type_name (p.type),
      p.frames, p.skip ? " but the first" : "", p.transposed ? ", transposed" : "");
  run_case (&c, shuffle_body, &p);
}

typedef struct
{
  int h, w;
  DpType type;
  DpPixels format;
  int pad;                      /* bytes behind each row */
  int crop;                     /* pixels of x behind each row */
} PackParams;

static void
pack_body (Case *c, const void *params)
{
  static const int bytes[] = { [DP_PIXELS_RGB] = 3, [DP_PIXELS_BGR] = 3, [DP_PIXELS_RGBX] = 4, [DP_PIXELS_BGRX] = 4,
    [DP_PIXELS_XRGB] = 4, [DP_PIXELS_XBGR] = 4 };
  const PackParams *p = params;
  DpPackFrameArgs args = { .type = p->type, .format = p->format, .h = p->h, .w = p->w, .x_stride = p->w + p->crop };
  int cols[3] = { p->w, p->w, 0 };

  args.x = in (c, p->h, p->w * 3, args.x_stride * 3, p->type, 0.7);
  if (p->format == DP_PIXELS_RGB_F32) {
    args.strides[0] = p->w * 12 + p->pad * 4;
    args.planes[0] = out (c, p->h, p->w * 3, p->w * 3 + p->pad, F32);
  } else if (p->format == DP_PIXELS_I420 || p->format == DP_PIXELS_NV12) {
    if (p->format == DP_PIXELS_I420)
      cols[1] = cols[2] = p->w / 2;
    for (int i = 0; i < 3 && cols[i]; i++) {
      args.strides[i] = cols[i] + p->pad;
      args.planes[i] = out_bytes (c, i ? p->h / 2 : p->h, cols[i], args.strides[i]);
    }
  } else {
    args.strides[0] = p->w * bytes[p->format] + p->pad;
    args.planes[0] = out_bytes (c, p->h, p->w * bytes[p->format], args.strides[0]);
  }
  RUN (c, c->dev->ops->pack_frame (c->dev, &args));
}

static void
pack_case (PackParams p)
{
  static const char *const names[] = { "f32", "I420", "NV12", "RGB", "BGR", "RGBx", "BGRx", "xRGB", "xBGR" };
  /* One step up or down in a byte of a thousand is where float32 rounds the other way. */
  Case c = { .tolerance = 3e-4, .bytes = (double) p.h * p.w * 3 * dp_type_size (p.type) };

  snprintf (c.name, sizeof c.name, "pack_frame %dx%d %s->%s%s%s", p.h, p.w, type_name (p.type), names[p.format], p.pad ? " strided" : "",
      p.crop ? " cropped" : "");
  run_case (&c, pack_body, &p);
}

static void
patchify_body (Case *c, const void *params)
{
  const PictureParams *p = params;
  float *x = in (c, (size_t) p->t * p->h * p->w, p->channels, 0, F32, 1);
  void *y = out (c, (size_t) p->t * p->h * p->w / 4, p->channels * 4, 0, p->type);

  RUN (c, c->dev->ops->patchify (c->dev, p->t, p->h, p->w, p->channels, x, p->type, y));
}

static void
unpatchify_body (Case *c, const void *params)
{
  const PictureParams *p = params;
  float *x = in (c, (size_t) p->t * p->h * p->w / 4, p->channels * 4, 0, F32, 1);
  void *y = out (c, (size_t) p->t * p->h * p->w, p->channels, 0, F32);

  RUN (c, c->dev->ops->unpatchify (c->dev, p->t, p->h, p->w, p->channels, x, y));
}

static void
patch_cases (PictureParams p)
{
  Case c = { .bytes = (double) p.t * p.h * p.w * p.channels * (4 + dp_type_size (p.type)) };

  snprintf (c.name, sizeof c.name, "patchify %dx%dx%d C %d ->%s", p.t, p.h, p.w, p.channels, type_name (p.type));
  run_case (&c, patchify_body, &p);
  c.bytes = 8.0 * p.t * p.h * p.w * p.channels;
  snprintf (c.name, sizeof c.name, "unpatchify %dx%dx%d C %d", p.t, p.h, p.w, p.channels);
  run_case (&c, unpatchify_body, &p);
}

static void
test_pictures (void)
{
  static const int channels[] = { 1, 3, 5, 8, 16, 20, 32, 64 };

  for (DpType type = F32; type <= BF16; type++) {
    for (size_t i = 0; i < LENGTH (channels); i++) {
      upsample_case ((PictureParams) { 2, 3, 5, channels[i], type, false });
      upsample_case ((PictureParams) { 3, 9, 7, channels[i], type, true });
      patch_cases ((PictureParams) { 3, 6, 10, channels[i], type });
    }
    for (int frames = 1; frames <= 2; frames++)
      for (int skip = 0; skip < frames; skip++) {
        shuffle_case ((ShuffleParams) { 1, 3, 5, 24, 24, frames, skip, false, type });
        shuffle_case ((ShuffleParams) { 2, 4, 3, 32, 16, frames, skip, false, type });
        shuffle_case ((ShuffleParams) { 3, 5, 7, 12, 9, frames, skip, false, type });
        shuffle_case ((ShuffleParams) { 3, 2, 9, 12, 3, frames, skip, true, type });
      }
    patch_cases ((PictureParams) { 2, 32, 48, 16, type });
    for (DpPixels format = DP_PIXELS_RGB_F32; format <= DP_PIXELS_XBGR; format++) {
      pack_case ((PackParams) { 2, 2, type, format });
      pack_case ((PackParams) { 6, 130, type, format, .pad = 5 });
      pack_case ((PackParams) { 6, 130, type, format, .crop = 14 });
      pack_case ((PackParams) { 70, 192, type, format });
    }
  }
  if (harness_gpu ()) {
    upsample_case ((PictureParams) { 2, 30, 52, 384, BF16, true });
    pack_case ((PackParams) { 480, 832, BF16, DP_PIXELS_I420 });
  }
}

static void
bench_pictures_gpu (void)
{
  upsample_case ((PictureParams) { 4, 240, 416, 192, BF16 });
  upsample_case ((PictureParams) { 2, 120, 208, 384, BF16 });
  upsample_case ((PictureParams) { 2, 120, 208, 384, BF16, true });
  shuffle_case ((ShuffleParams) { 2, 88, 160, 1024, 1024, 2, 0, false, BF16 });
  shuffle_case ((ShuffleParams) { 4, 176, 320, 1024, 512, 1, 0, false, BF16 });
  shuffle_case ((ShuffleParams) { 4, 352, 640, 12, 3, 1, 0, true, BF16 });
  for (DpPixels format = DP_PIXELS_RGB_F32; format <= DP_PIXELS_RGBX; format++)
    pack_case ((PackParams) { 480, 832, BF16, format });
  pack_case ((PackParams) { 720, 1280, BF16, DP_PIXELS_NV12 });
  patch_cases ((PictureParams) { 21, 60, 104, 16, BF16 });
}

static void
bench_pictures (void)
{
  if (harness_gpu ()) {
    bench_pictures_gpu ();
    return;
  }
  for (DpType type = F32; type <= BF16; type++) {
    upsample_case ((PictureParams) { 4, 128, 192, 16, type });
    upsample_case ((PictureParams) { 2, 32, 48, 64, type, true });
    pack_case ((PackParams) { 256, 384, type, DP_PIXELS_I420 });
    pack_case ((PackParams) { 256, 384, type, DP_PIXELS_NV12 });
    pack_case ((PackParams) { 256, 384, type, DP_PIXELS_RGB });
    pack_case ((PackParams) { 256, 384, type, DP_PIXELS_BGRX });
    pack_case ((PackParams) { 256, 384, type, DP_PIXELS_RGB_F32 });
    patch_cases ((PictureParams) { 3, 32, 48, 16, type });
  }
}

/* ---- elements ---- */

typedef struct
{
  size_t n;
  DpType type, y_type;
  int terms, alias;             /* alias: y is this input */
} ElementParams;

static void
multiply_body (Case *c, const void *params)
{
  const ElementParams *p = params;
  void *a = in (c, 1, p->n, 0, p->type, 1), *b = in (c, 1, p->n, 0, p->type, 1);
  void *y = p->alias ? out_like (c, 1, p->n, 0, p->type, 1) : out (c, 1, p->n, 0, p->type);

  RUN (c, c->dev->ops->multiply (c->dev, p->n, p->type, p->alias == 1 ? y : a, p->alias == 2 ? y : b, y));
}

static void
combine_body (Case *c, const void *params)
{
  const ElementParams *p = params;
  const float *x[8], coef[8] = { 1.5, -0.3, 0.01, 2, -1, 0.5, 3, -0.7 };
  float *y = p->alias ? out_like (c, 1, p->n, 0, F32, 1) : out (c, 1, p->n, 0, F32);

  for (int i = 0; i < p->terms; i++)
    x[i] = i == p->alias - 1 ? y : in (c, 1, p->n, 0, F32, 1);
  RUN (c, c->dev->ops->combine (c->dev, p->n, p->terms, x, coef, y));
}

static void
convert_body (Case *c, const void *params)
{
  const ElementParams *p = params;
  void *x = in (c, 1, p->n, 0, p->type, 1), *y = out (c, 1, p->n, 0, p->y_type);

  RUN (c, c->dev->ops->convert (c->dev, p->n, p->type, x, p->y_type, y));
}

static void
element_case (const char *op, Body body, ElementParams p)
{
  Case c = { .bytes = (double) p.n * ((p.terms ? p.terms : 1) * dp_type_size (p.type) + dp_type_size (p.y_type)) };

  /* One product, or a conversion, is rounded once: the same bits everywhere. A sum may be fused or not. */
  c.tolerance = body == combine_body ? 1e-6 : 0;
  snprintf (c.name, sizeof c.name, "%s %zu %s->%s terms %d%s", op, p.n, type_name (p.type), type_name (p.y_type), p.terms,
      p.alias ? " in place" : "");
  run_case (&c, body, &p);
}

static void
test_elements (void)
{
  static const size_t sizes[] = { 1, 7, 33, 20000, 100001 };

  for (size_t i = 0; i < LENGTH (sizes); i++) {
    for (DpType type = F32; type <= BF16; type++) {
      for (int alias = 0; alias < 3; alias++)
        element_case ("multiply", multiply_body, (ElementParams) { sizes[i], type, type, 2, alias });
      for (DpType x_type = F32; x_type <= DP_TYPE_F16; x_type++)
        element_case ("convert", convert_body, (ElementParams) { sizes[i], x_type, type });
    }
    for (int terms = 1; terms <= 8; terms++)
      for (int alias = 0; alias <= terms; alias += terms)
        element_case ("combine", combine_body, (ElementParams) { sizes[i], F32, F32, terms, alias });
  }
}

static void
bench_elements_gpu (void)
{
  element_case ("convert", convert_body, (ElementParams) { 49920 * 1536, F32, BF16 });
  element_case ("convert", convert_body, (ElementParams) { 49920 * 1536, BF16, F32 });
  element_case ("convert", convert_body, (ElementParams) { 49920 * 1536, DP_TYPE_F16, BF16 });
  element_case ("multiply", multiply_body, (ElementParams) { 512 * 10240, BF16, BF16, 2 });
  element_case ("multiply", multiply_body, (ElementParams) { 49920 * 1536, BF16, BF16, 2 });
  element_case ("combine", combine_body, (ElementParams) { 21 * 60 * 104 * 16, F32, F32, 4 });
  element_case ("combine", combine_body, (ElementParams) { 49920 * 1536, F32, F32, 4 });
}

static void
bench_elements (void)
{
  if (harness_gpu ()) {
    bench_elements_gpu ();
    return;
  }
  element_case ("convert", convert_body, (ElementParams) { 1152 * 192, F32, BF16 });
  element_case ("convert", convert_body, (ElementParams) { 16 << 20, F32, BF16 });
  element_case ("convert", convert_body, (ElementParams) { 16 << 20, BF16, F32 });
  element_case ("multiply", multiply_body, (ElementParams) { 1 << 20, BF16, BF16, 2 });
  element_case ("combine", combine_body, (ElementParams) { 3 * 32 * 48 * 16, F32, F32, 4 });
}

int
main (int argc, char **argv)
{
  int status;

  if (!harness_open (argc, argv, &status))
    return status;
  if (harness_bench) {
    bench_linear ();
    bench_attention ();
    bench_conv ();
    bench_norms ();
    bench_pictures ();
    bench_elements ();
  } else {
    if (harness_filter == NULL) {
      test_properties ();
      test_transfers ();
    }
    test_linear ();
    test_attention ();
    test_conv ();
    test_norms ();
    test_pictures ();
    test_elements ();
  }
  harness_close ();
  if (harness_failures > 0)
    printf ("%d failures\n", harness_failures);
  return harness_failures > 0;
}
