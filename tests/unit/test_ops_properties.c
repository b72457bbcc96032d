/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is true of an op on every backend, "ref" above all: cases worked out by hand, and the promises of ops.h about bits, rows
 * and allocations.
 */
#include "ops_harness.h"
#include "engine/noise.h"

#include <float.h>

void test_properties (void);

/* ---- a small device memory of the test's own: freed together ---- */

static DpDevice *dev;
static void *held[64];
static int n_held;

static void *
upload (const void *host, size_t bytes)
{
  void *ptr = dev->ops->alloc (dev, bytes);

  if (n_held == LENGTH (held) || ptr == NULL)
    abort ();
  if (host)
    dev->ops->upload (dev, ptr, host, bytes);
  return held[n_held++] = ptr;
}

static void
release (void)
{
  while (n_held > 0)
    dev->ops->free (dev, held[--n_held]);
}

/* Device array y [n] is near `expected`. */
static void
expect (const char *what, const float *y, int n, const float *expected)
{
  float *host = malloc (n * sizeof *host);

  dev->ops->download (dev, host, y, n * sizeof *host);
  for (int i = 0; i < n; i++)
    check (fabsf (host[i] - expected[i]) <= 1e-5f * (1 + fabsf (expected[i])), "%s on %s: [%d] is %g, should be %g", what, dev->name, i,
        host[i], expected[i]);
  free (host);
}

static float
number (int i)
{
  return (float) ((i * 7919) % 1009) / 504.5f - 1;
}

/* ---- by hand ---- */

static void
check_linear (void)
{
  static const float w[] = { 1, 2, 3, -1, 0, 1 }, b[] = { 10, 0 }, x[] = { 1, 1, 1, 2, 0, -1 }, gate[] = { 2, -1 };
  DpHostWeight weight[] = { { w, DP_TYPE_F32, 1 }, { w + 3, DP_TYPE_F32, 1 } },
      bias[] = { { b, DP_TYPE_F32, 1 }, { b + 1, DP_TYPE_F32, 1 } };
  DpLinear *linear = dev->ops->linear_new (dev, &(DpLinearSpec) { .k = 3, .n_weights = 2, .weights = weight, .biases = bias });
  DpLinearArgs args = { .rows = 2, .x = upload (x, sizeof x), .y = upload (NULL, 4 * sizeof (float)) };

  dev->ops->linear (dev, linear, &args);
  expect ("linear", args.y, 4, (float[]) { 16, 0, 9, -3 });
  args.accumulate = true;
  args.gate = upload (gate, sizeof gate);
  dev->ops->linear (dev, linear, &args);
  expect ("linear +=", args.y, 4, (float[]) { 48, 0, 27, 0 });
  args.accumulate = false;
  args.act = DP_ACT_SILU;
  dev->ops->linear (dev, linear, &args);
  expect ("linear silu", args.y, 4, (float[]) { 16 / (1 + expf (-16)), 0, 9 / (1 + expf (-9)), -3 / (1 + expf (3)) });
  args.act = DP_ACT_GELU_TANH;
  dev->ops->linear (dev, linear, &args);
  expect ("linear gelu", args.y, 4, (float[]) { 16, 0, 9, -0.00363739f });
  dev->ops->linear_free (dev, linear);
  release ();
}

/* In e4m3 a product of two numbers is wrong by 2.5 % for each, on average. As it is a float, features of x that are ten times as large cost
 * the others nothing. */
static void
check_linear_fp8 (int outlier)
{
  enum { ROWS = 5, K = 1536, N = 64 };
  float *w = malloc (N * K * sizeof *w), numbers[ROWS * K];
  uint16_t x[ROWS * K], y[ROWS * N];
  DpHostWeight weight = { w, DP_TYPE_F32, N };
  DpLinearArgs args = { .rows = ROWS, .y_type = DP_TYPE_BF16 };
  double difference = 0, size = 0;

  dp_noise_fill (1, 0, 0, N * K, w);
  dp_noise_fill (1, 1, 0, ROWS * K, numbers);
  for (int i = 0; i < ROWS * K; i++)
    x[i] = dp_bf16_from_f32 (numbers[i] * (i % K % 48 == 7 ? outlier : 1));
  DpLinear *linear = dev->ops->linear_new (dev, &(DpLinearSpec) { .k = K, .type = DP_TYPE_BF16, .n_weights = 1, .weights = &weight,
          .fp8 = true });
  args.x = upload (x, sizeof x);
  args.y = upload (NULL, sizeof y);
  dev->ops->linear (dev, linear, &args);
  dev->ops->download (dev, y, args.y, sizeof y);
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < N; j++) {
      double sum = 0, got = dp_load (DP_TYPE_BF16, y, i * N + j);

      for (int k = 0; k < K; k++)
        sum += (double) dp_load (DP_TYPE_BF16, x, i * K + k) * w[j * K + k];
      difference += (got - sum) * (got - sum);
      size += sum * sum;
    }
  difference = sqrt (difference / size);
  check (difference > 0.02 && difference < 0.05, "linear fp8 on %s, outliers of %d: %.2e from the exact product", dev->name, outlier,
      difference);
  dev->ops->linear_free (dev, linear);
  release ();
  free (w);
}

/* A weight of one at tap (0, 0, 2) moves the picture: y (t, h, w) = x (t, h - 1, w + 1). */
static void
check_conv (void)
{
  float w[2 * 3 * 3] = { 0 }, x[4 * 3 * 3], y[3 * 3 * 3], b[1] = { 0.5 };
  DpConv *conv;
  DpConvArgs args = { .t = 4, .h = 3, .w = 3 };

  w[2] = 1;
  for (size_t i = 0; i < LENGTH (x); i++)
    x[i] = number (i);
  for (int t = 0; t < 3; t++)
    for (int i = 0; i < 3; i++)
      for (int j = 0; j < 3; j++)
        y[(t * 3 + i) * 3 + j] = 0.5f + (i > 0 && j < 2 ? x[(t * 3 + i - 1) * 3 + j + 1] : 0);
  conv = dev->ops->conv_new (dev, &(DpConvSpec) { .ci = 1, .co = 1, .kt = 2, .kh = 3, .kw = 3, .weight = { w, DP_TYPE_F32, 1 },
          .bias = { b, DP_TYPE_F32, 1 } });
  args.x = upload (x, sizeof x);
  args.y = upload (NULL, sizeof y);
  dev->ops->conv (dev, conv, &args);
  expect ("conv", args.y, LENGTH (y), y);
  dev->ops->conv_free (dev, conv);
  release ();
}

/* A last key with log (3) added is the last of three equal keys more; keys that are all alike give the mean of the values. */
static void
check_attention (void)
{
  enum { D = 4, Q = 3 };
  float q[Q * D], k[5 * D], v[5 * D], same[2 * D] = { 0 }, mean[Q * D];
  float *out[2];

  for (int i = 0; i < Q * D; i++)
    q[i] = number (i);
  for (int i = 0; i < 5 * D; i++) {
    k[i] = number (100 + (i < 3 * D ? i : 2 * D + i % D));
    v[i] = number (200 + (i < 3 * D ? i : 2 * D + i % D));
  }
  for (int i = 0; i < Q * D; i++)
    mean[i] = (v[i % D] + v[D + i % D]) / 2;
  DpAttentionArgs args = { .heads = 2, .head_dim = 2, .q_len = Q, .kv_len = 5, .scale = 0.7, .q = upload (q, sizeof q),
    .k = upload (k, sizeof k), .v = upload (v, sizeof v), .out = out[0] = upload (NULL, sizeof q) };
  dev->ops->attention (dev, &args);
  args.kv_len = 3;
  args.last_key_bias = logf (3);
  args.out = out[1] = upload (NULL, sizeof q);
  dev->ops->attention (dev, &args);
  dev->ops->download (dev, q, out[0], sizeof q);
  expect ("attention with repeated keys", out[1], Q * D, q);
  args.kv_len = 2;
  args.last_key_bias = 0;
  args.k = upload (same, sizeof same);
  dev->ops->attention (dev, &args);
  expect ("attention with equal keys", out[1], Q * D, mean);
  release ();
}

static void
check_norms (void)
{
  static const float x[] = { 1, 3, 3, 4 }, gain[] = { 2, 1 }, shift[] = { 0, 5 }, turn[] = { 0, 1, 1, 0 };
  float *d = upload (x, sizeof x), *y = upload (NULL, sizeof x);

  dev->ops->layer_norm (dev, &(DpLayerNormArgs) { .rows = 2, .cols = 2, .x = d, .gain = upload (gain, sizeof gain),
          .shift = upload (shift, sizeof shift), .eps = 0, .y = y });
  expect ("layer_norm", y, 4, (float[]) { -2, 6, -2, 6 });
  /* Row 0 turns by a quarter, row 1 not at all. */
  dev->ops->rms_norm (dev, &(DpRmsNormArgs) { .rows = 2, .heads = 1, .head_dim = 2, .x = d, .weight = upload (gain, sizeof gain),
          .eps = 0, .rope = upload (turn, sizeof turn), .y = y });
  expect ("rms_norm", y, 4, (float[]) { -3 / sqrtf (5), 2 / sqrtf (5), 6 / sqrtf (12.5), 4 / sqrtf (12.5) });
  dev->ops->channel_norm (dev, &(DpChannelNormArgs) { .rows = 2, .channels = 2, .x = d, .gamma = upload (gain, sizeof gain), .y = y });
  expect ("channel_norm", y, 4, (float[]) { 2 / sqrtf (5), 3 / sqrtf (5), 6 * sqrtf (2) / 5, 4 * sqrtf (2) / 5 });
  dev->ops->channel_norm (dev, &(DpChannelNormArgs) { .rows = 1, .channels = 4, .x = upload ((float[4]) { 0 }, 16),
          .gamma = upload (x, sizeof x), .act = DP_ACT_SILU, .y = y });
  expect ("channel_norm of nothing", y, 4, (float[4]) { 0 });
  release ();
}

static void
check_pictures (void)
{
  static const float x[] = { 1, 2, 3, 4 };
  float *d = upload (x, sizeof x), *y = upload (NULL, 16 * sizeof (float)), latents[2 * 4 * 2];

  /* One row of two pixels of two channels: as one frame, and as two frames of one. */
  dev->ops->upsample (dev, &(DpUpsampleArgs) { .t = 1, .h = 1, .w = 2, .channels = 2, .x = d, .y = y });
  expect ("upsample", y, 16, (float[]) { 1, 2, 1, 2, 3, 4, 3, 4, 1, 2, 1, 2, 3, 4, 3, 4 });
  dev->ops->upsample (dev, &(DpUpsampleArgs) { .t = 1, .h = 1, .w = 2, .channels = 1, .temporal = true, .x = d, .y = y });
  expect ("upsample in time", y, 16, (float[]) { 1, 1, 3, 3, 1, 1, 3, 3, 2, 2, 4, 4, 2, 2, 4, 4 });
  dev->ops->pixel_shuffle (dev, &(DpPixelShuffleArgs) { .t = 1, .h = 1, .w = 1, .ci = 4, .co = 2, .frames = 1, .x = d, .y = y });
  expect ("pixel_shuffle", y, 8, (float[]) { 1, 3, 1, 3, 2, 4, 2, 4 });
  dev->ops->pixel_shuffle (dev, &(DpPixelShuffleArgs) { .t = 1, .h = 1, .w = 1, .ci = 4, .co = 1, .frames = 1, .transposed = true, .x = d,
          .y = y });
  expect ("pixel_shuffle, transposed", y, 4, (float[]) { 1, 3, 2, 4 });
  dev->ops->pixel_shuffle (dev, &(DpPixelShuffleArgs) { .t = 1, .h = 1, .w = 1, .ci = 4, .co = 1, .frames = 2, .skip = 1, .x = d, .y = y });
  expect ("pixel_shuffle in time, but the first frame", y, 4, (float[]) { 3, 3, 4, 4 });
  for (int i = 0; i < 16; i++)
    latents[i] = i;
  d = upload (latents, sizeof latents);
  dev->ops->patchify (dev, 1, 2, 4, 2, d, DP_TYPE_F32, y);
  expect ("patchify", y, 16, (float[]) { 0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15 });
  dev->ops->unpatchify (dev, 1, 2, 4, 2, y, d);
  expect ("unpatchify", d, 16, latents);
  release ();
}

/* White, black, red, blue (and what lies outside -1 .. 1, or is no number) in every format. */
static void
check_colours (void)
{
  static const struct
  {
    float rgb[3];
    uint8_t y, cb, cr, r, g, b;
  } colours[] = {
    { { 1, 1, 1 }, 235, 128, 128, 255, 255, 255 }, { { -1, -1, -1 }, 16, 128, 128, 0, 0, 0 },
    { { 1, -1, -1 }, 63, 102, 240, 255, 0, 0 }, { { -1, -1, 1 }, 32, 240, 118, 0, 0, 255 },
    { { 7, -9, NAN }, 63, 102, 240, 255, 0, 0 }, { { 0, 0, 0 }, 126, 128, 128, 128, 128, 128 },
  };

  for (size_t i = 0; i < LENGTH (colours); i++) {
    float x[12];
    uint8_t bytes[16], expected[16];
    uint8_t r = colours[i].r, g = colours[i].g, b = colours[i].b;
    const struct { DpPixels format; uint8_t bytes[4]; int n; } packed[] = {
      { DP_PIXELS_RGB, { r, g, b }, 3 }, { DP_PIXELS_BGR, { b, g, r }, 3 }, { DP_PIXELS_RGBX, { r, g, b, 255 }, 4 },
      { DP_PIXELS_BGRX, { b, g, r, 255 }, 4 }, { DP_PIXELS_XRGB, { 255, r, g, b }, 4 }, { DP_PIXELS_XBGR, { 255, b, g, r }, 4 },
    };

    for (int j = 0; j < 12; j++)
      x[j] = colours[i].rgb[j % 3];
    uint8_t *y = upload (NULL, 16);
    DpPackFrameArgs args = { .h = 2, .w = 2, .x = upload (x, sizeof x), .x_stride = 2, .planes = { y, y + 8, y + 12 }, .strides = { 2, 2, 2 } };
    args.format = DP_PIXELS_I420;
    dev->ops->pack_frame (dev, &args);
    args.format = DP_PIXELS_NV12;
    args.planes[0] = y + 4;
    args.planes[1] = y + 10;
    dev->ops->pack_frame (dev, &args);
    dev->ops->download (dev, bytes, y, 16);
    memset (expected, colours[i].y, 8);
    expected[8] = expected[10] = colours[i].cb;
    expected[12] = expected[11] = colours[i].cr;
    check (memcmp (bytes, expected, 9) == 0 && memcmp (bytes + 10, expected + 10, 3) == 0,
        "colour %zu on %s: luma %d, chroma %d %d / %d %d", i, dev->name, bytes[0], bytes[8], bytes[12], bytes[10], bytes[11]);
    for (size_t f = 0; f < LENGTH (packed); f++) {
      args.format = packed[f].format;
      args.planes[0] = y;
      args.strides[0] = 2 * packed[f].n;
      dev->ops->pack_frame (dev, &args);
      dev->ops->download (dev, bytes, y, 4 * packed[f].n);
      for (int j = 0; j < 4 * packed[f].n; j++)
        check (bytes[j] == packed[f].bytes[j % packed[f].n], "colour %zu on %s, format %d: byte %d is %d", i, dev->name,
            packed[f].format, j, bytes[j]);
    }
    release ();
  }
}

static void
check_rounding (void)
{
  static const struct
  {
    uint32_t f32;
    uint16_t bf16;
  } pairs[] = {
    { 0x3f808000, 0x3f80 }, { 0x3f818000, 0x3f82 }, { 0x3f808001, 0x3f81 }, { 0x3f807fff, 0x3f80 }, { 0x7f800000, 0x7f80 },
    { 0xff800000, 0xff80 }, { 0x7f7fffff, 0x7f80 }, { 0x00000000, 0 }, { 0x80000000, 0x8000 }, { 0x00018000, 0x0002 },
    { 0x0000ffff, 0x0001 },
  };
  uint32_t x[40];
  uint16_t y[40];
  float back[40];
  void *d, *h;

  for (int i = 0; i < 40; i++)
    x[i] = i < (int) LENGTH (pairs) ? pairs[i].f32 : i % 2 ? 0x7f800001 : 0xffffffff;
  d = upload (x, sizeof x);
  h = upload (NULL, sizeof y);
  dev->ops->convert (dev, 40, DP_TYPE_F32, d, DP_TYPE_BF16, h);
  dev->ops->download (dev, y, h, sizeof y);
  dev->ops->convert (dev, 40, DP_TYPE_BF16, h, DP_TYPE_F32, d);
  dev->ops->download (dev, back, d, sizeof back);
  for (int i = 0; i < 40; i++)
    if (i < (int) LENGTH (pairs))
      check (y[i] == pairs[i].bf16 && dp_bits_from_f32 (back[i]) == (uint32_t) y[i] << 16, "%08x on %s becomes %04x", x[i], dev->name,
          y[i]);
    else
      check (isnan (back[i]), "NaN %08x on %s becomes %04x", x[i], dev->name, y[i]);
  release ();
  check (dp_f32_from_f16 (0x3c00) == 1 && dp_f32_from_f16 (0x8001) == -0x1p-24f && dp_f32_from_f16 (0x7bff) == 65504
      && isinf (dp_f32_from_f16 (0xfc00)) && isnan (dp_f32_from_f16 (0x7e00)), "half precision is read wrong");
}

/* ---- promises ---- */

/* Each row alone, and all of them together, give the same bits; and after the first call nothing is allocated. */
static void
check_linear_rows (int k, int n, DpType type, DpType y_type, bool accumulate)
{
  enum { ROWS = 150 };
  static const int parts[] = { 1, 2, 3, 5, 17, 63, 64, 65, 128, ROWS };
  size_t x_size = dp_type_size (type), y_size = dp_type_size (y_type), y_bytes = ROWS * n * y_size, allocations = 0;
  float *w = malloc ((size_t) n * k * sizeof *w);
  char *x = malloc (ROWS * k * x_size), *y = calloc (1, y_bytes), *all = malloc (y_bytes), *part = malloc (y_bytes);
  DpHostWeight weight = { w, DP_TYPE_F32, n };
  DpLinear *linear;
  DpLinearArgs args = { .y_type = y_type, .accumulate = accumulate };

  for (size_t i = 0; i < (size_t) n * k; i++)
    w[i] = sinf (i * 0.37f + (i >> 5));
  for (size_t i = 0; i < (size_t) ROWS * k; i++)
    dp_store (type, x, i, cosf (i * 0.73f + (i >> 7)));
  linear = dev->ops->linear_new (dev, &(DpLinearSpec) { .k = k, .type = type, .n_weights = 1, .weights = &weight });
  char *device_x = upload (x, ROWS * k * x_size), *device_y = upload (NULL, y_bytes);
  for (int i = LENGTH (parts) - 1; i >= 0; i--) {
    dev->ops->upload (dev, device_y, y, y_bytes);
    for (int row = 0; row < ROWS; row += parts[i]) {
      args.rows = ROWS - row < parts[i] ? ROWS - row : parts[i];
      args.x = device_x + row * k * x_size;
      args.y = device_y + row * n * y_size;
      dev->ops->linear (dev, linear, &args);
      allocations = allocations ? allocations : dev->allocations;
    }
    dev->ops->download (dev, i == LENGTH (parts) - 1 ? all : part, device_y, y_bytes);
    check (i == LENGTH (parts) - 1 || memcmp (all, part, y_bytes) == 0, "linear %d->%d types %d %d%s on %s: a row depends on its "
        "neighbours (%d rows at a time)", k, n, type, y_type, accumulate ? " +=" : "", dev->name, parts[i]);
  }
  check (dev->allocations == allocations, "linear %d->%d on %s allocates after the first call", k, n, dev->name);
  dev->ops->linear_free (dev, linear);
  release ();
  free (w);
  free (x);
  free (y);
  free (all);
  free (part);
}

static void
check_rows (void)
{
  static const struct
  {
    int k, n;
  } shapes[] = { { 20, 24 }, { 96, 33 }, { 192, 576 }, { 768, 192 }, { 1536, 64 }, { 4096, 48 }, { 8960, 32 }, { 13824, 17 } };
#if defined (__SANITIZE_THREAD__)
  enum { SHAPES = 5 };          /* what races with 4096 channels does so with 1536; the zeros beside single rows would take minutes */
#else
  enum { SHAPES = LENGTH (shapes) };
#endif
  size_t n = strcmp (dev->ops->name, "ref") == 0 ? 2 : SHAPES;

  for (size_t i = 0; i < n; i++)
    for (DpType type = DP_TYPE_F32; type <= DP_TYPE_BF16; type++) {
      check_linear_rows (shapes[i].k, shapes[i].n, type, type, false);
      check_linear_rows (shapes[i].k, shapes[i].n, type, DP_TYPE_F32, true);
    }
}

static void
run_linear (const DpLinear *linear, int n, const void *x, float *y)
{
  dev->ops->linear (dev, linear, &(DpLinearArgs) { .rows = 5, .x = x, .y = y, .y_type = DP_TYPE_F32 });
}

/* What a layer gives after a refill is what a new one gives, what was queued before it is as it was, and the file's numbers may go. */
static void
check_refill (int k, int n, DpType type, DpType file_type, bool biased)
{
  size_t half = (size_t) n / 2 * k, all = half * 2, size = dp_type_size (file_type), y_bytes = 5 * n * sizeof (float), bytes, allocations;
  char *file = malloc (2 * all * size), *copy = malloc (all * size), *host_x = malloc (5 * k * 4);
  float *b = malloc (2 * n * sizeof *b), *results = malloc (4 * y_bytes), *y[4];
  DpHostWeight weights[2][2], biases[2][2];
  DpLinearSpec specs[2];
  DpLinear *linears[2];
  void *x;

  for (size_t i = 0; i < 2 * all; i++)
    if (file_type == DP_TYPE_F16)
      ((uint16_t *) file)[i] = (uint16_t) (i * 2654435761u >> 16) & 0xb7ff;     /* below 1 */
    else
      dp_store (file_type, file, i, number (i % 100003 + 7 * (i / all)) / 8);
  for (int i = 0; i < 2 * n; i++)
    b[i] = number (3 * i);
  for (int i = 0; i < 5 * k; i++)
    dp_store (type, host_x, i, number (5 * i));
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 2; j++) {
      weights[i][j] = (DpHostWeight) { file + (i * all + j * half) * size, file_type, n / 2 };
      biases[i][j] = (DpHostWeight) { b + i * n + j * (n / 2), DP_TYPE_F32, n / 2 };
    }
    specs[i] = (DpLinearSpec) { .k = k, .type = type, .n_weights = 2, .weights = weights[i], .biases = biased ? biases[i] : NULL };
    linears[i] = dev->ops->linear_new (dev, &specs[i]);
  }
  x = upload (host_x, 5 * k * dp_type_size (type));
  for (int i = 0; i < 4; i++)
    y[i] = upload (NULL, y_bytes);
  run_linear (linears[0], n, x, y[0]);
  run_linear (linears[1], n, x, y[1]);
  bytes = dev->bytes;
  allocations = dev->allocations;
  /* from memory that is overwritten at once, and a second time while the first may still be on its way */
  for (int i = 0; i < 2; i++) {
    run_linear (linears[0], n, x, y[2]);
    memcpy (copy, weights[1 - i][0].data, all * size);
    weights[0][0].data = copy;
    weights[0][1].data = copy + half * size;
    specs[0].biases = biased ? biases[1 - i] : NULL;
    check (dev->ops->linear_refill (dev, linears[0], &specs[0]), "refill %d->%d on %s says no", k, n, dev->name);
    memset (copy, 0, all * size);
    weights[0][0].data = file;
    weights[0][1].data = file + half * size;
    if (i == 0)
      run_linear (linears[0], n, x, y[3]);
  }
  dev->ops->download (dev, results, y[0], y_bytes);
  dev->ops->download (dev, results + 5 * n, y[1], y_bytes);
  dev->ops->download (dev, results + 10 * n, y[2], y_bytes);
  dev->ops->download (dev, results + 15 * n, y[3], y_bytes);
  check (memcmp (results, results + 5 * n, y_bytes) != 0, "refill %d->%d: the two weights are alike", k, n);
  check (memcmp (results + 5 * n, results + 10 * n, y_bytes) == 0 && memcmp (results + 5 * n, results + 15 * n, y_bytes) == 0,
      "refill %d->%d types %d %d on %s: not the bits of a new layer", k, n, type, file_type, dev->name);
  run_linear (linears[0], n, x, y[3]);
  dev->ops->download (dev, results + 15 * n, y[3], y_bytes);
  check (memcmp (results, results + 15 * n, y_bytes) == 0, "refill %d->%d types %d %d on %s: not the bits it had at first", k, n, type,
      file_type, dev->name);
  check (dev->bytes == bytes && dev->allocations == allocations, "refill %d->%d on %s allocates", k, n, dev->name);
  dev->ops->linear_free (dev, linears[0]);
  dev->ops->linear_free (dev, linears[1]);
  release ();
  free (file);
  free (copy);
  free (host_x);
  free (b);
  free (results);
}

/* The latch has something to say, once. */
static void
check_refused (const char *what, DpType file_type, size_t at)
{
  char error[256] = "";

  check (!dp_device_take_error (dev, error, sizeof error) && strstr (error, "NaN"), "%s, type %d, element %zu, on %s: says \"%s\"", what,
      file_type, at, dev->name, error);
  check (dp_device_take_error (dev, error, sizeof error), "%s on %s: %s", what, dev->name, error);
}

/* One element of a weight is NaN or infinite: nothing is packed, and nothing is left behind. */
static void
check_not_finite (DpType file_type, size_t k, size_t n, size_t at, bool bias)
{
  static const uint32_t numbers[] = { 0x7f800000, 0xff800000, 0x7fc00000, 0xff800001 };
  static const uint16_t halves[] = { 0x7c00, 0xfc00, 0x7e00, 0xfc01 };
  size_t size = dp_type_size (file_type), bytes = 0;
  char *file = calloc (k * n, size), *good = calloc (k * n, size);
  DpHostWeight weight = { good, file_type, n };
  DpLinearSpec linear_spec = { .k = k, .type = DP_TYPE_BF16, .n_weights = 1, .weights = &weight, .biases = bias ? &weight : NULL };
  DpConvSpec conv_spec = { .ci = k, .co = n, .kt = 1, .kh = 1, .kw = 1, .type = DP_TYPE_BF16, .weight = weight, .bias = { 0 } };
  DpLinear *linear = dev->ops->linear_new (dev, &linear_spec);

  check (linear, "finite weights on %s", dev->name);
  for (int i = 0; i < 4; i++) {
    DpHostWeight bad = { file, file_type, n };

    memcpy (file + at * size, file_type == DP_TYPE_F32 ? (const void *) &numbers[i] : file_type == DP_TYPE_F16 ? (const void *) &halves[i]
        : (const char *) &numbers[i] + 2, size);
    if (file_type == DP_TYPE_BF16 && i == 3)
      ((uint16_t *) file)[at] |= 1;
    linear_spec.weights = bias ? &weight : &bad;
    linear_spec.biases = bias ? &bad : NULL;
    check (dev->ops->linear_new (dev, &linear_spec) == NULL, "linear_new on %s takes it", dev->name);
    check_refused ("linear_new", file_type, at);
    check (!dev->ops->linear_refill (dev, linear, &linear_spec), "linear_refill on %s takes it", dev->name);
    check_refused ("linear_refill", file_type, at);
    conv_spec.weight = bias ? weight : bad;
    conv_spec.bias = bias ? bad : (DpHostWeight) { 0 };
    check (dev->ops->conv_new (dev, &conv_spec) == NULL, "conv_new on %s takes it", dev->name);
    check_refused ("conv_new", file_type, at);
    bytes = i == 0 ? dev->bytes : bytes;        /* by then a GPU has its workspace */
  }
  check (dev->bytes == bytes, "refused weights on %s hold %zu bytes", dev->name, dev->bytes - bytes);
  dev->ops->linear_free (dev, linear);
  free (file);
  free (good);
}

/* The largest numbers that there are pass. For a GPU also what goes there in several pieces. */
static void
check_finite (void)
{
  for (DpType type = DP_TYPE_F32; type <= DP_TYPE_F16; type++) {
    check_not_finite (type, 33, 34, 0, false);
    check_not_finite (type, 33, 34, 33 * 34 - 1, false);
    check_not_finite (type, 130, 70, 4100, false);
    check_not_finite (type, 33, 34, 33, true);
    if (dev == harness_gpu ())
      check_not_finite (type, 4096, 3001, 4096 * 3001 - 1, false);
  }
  uint16_t large[] = { 0x7f7f, 0xff7f, 0x0001, 0x7f7f };
  DpLinear *linear = dev->ops->linear_new (dev, &(DpLinearSpec) { .k = 2, .type = DP_TYPE_BF16, .n_weights = 1,
      .weights = &(DpHostWeight) { large, DP_TYPE_BF16, 2 } });
  check (linear, "the largest weights on %s", dev->name);
  dev->ops->linear_free (dev, linear);
}

/* For a GPU also what goes there in several pieces, the last of which is not full. */
static void
check_refills (void)
{
  for (DpType type = DP_TYPE_F32; type <= DP_TYPE_BF16; type++)
    for (DpType file_type = DP_TYPE_F32; file_type <= DP_TYPE_F16; file_type++) {
      check_refill (33, 34, type, file_type, true);
      check_refill (192, 1500, type, file_type, false);
      if (dev == harness_gpu ())
        check_refill (4099, 6002, type, file_type, true);
    }
}

/* The same promise at the size of a picture, for a GPU, whose library would choose another algorithm for fewer rows. */
static void
check_linear_many_rows (int k, int n, int rows, const DpLinearArgs *how)
{
  static const int windows[][2] = { { 0, 1 }, { 3999, 1 }, { 1234, 16 }, { 2000, 512 }, { 100, 3000 } };
  size_t y_row = n * dp_type_size (how->y_type), x_row = k * 2, x_size = (size_t) rows * k;
  uint16_t *host = malloc (x_size * sizeof *host);
  char *all = malloc (rows * y_row), *part = malloc (rows * y_row), *x, *y, *zeros;
  DpHostWeight weight = { host, DP_TYPE_BF16, n }, bias = { NULL, DP_TYPE_F32, n };
  float *numbers = malloc (n * sizeof *numbers);
  DpLinear *linear;
  DpLinearArgs args = *how;

  for (size_t i = 0; i < x_size; i++)
    host[i] = dp_bf16_from_f32 (number (i % 100003) / 8);
  for (int i = 0; i < n; i++)
    numbers[i] = number (i);
  bias.data = numbers;
  linear = dev->ops->linear_new (dev, &(DpLinearSpec) { .k = k, .type = DP_TYPE_BF16, .n_weights = 1, .weights = &weight,
      .biases = &bias });
  x = upload (host, x_size * 2);
  memset (all, 0, rows * y_row);
  zeros = upload (all, rows * y_row);
  y = upload (all, rows * y_row);
  args.gate = how->gate ? upload (numbers, n * sizeof *numbers) : NULL;
  args.rows = rows;
  args.x = x;
  args.y = y;
  dev->ops->linear (dev, linear, &args);
  dev->ops->download (dev, all, y, rows * y_row);
  for (size_t i = 0; i < LENGTH (windows); i++) {
    int first = windows[i][0];

    args.rows = windows[i][1];
    args.x = x + first * x_row;
    args.y = y + first * y_row;
    dev->ops->copy (dev, y, zeros, rows * y_row);
    dev->ops->linear (dev, linear, &args);
    dev->ops->download (dev, part, args.y, args.rows * y_row);
    check (memcmp (part, all + first * y_row, args.rows * y_row) == 0, "linear %d->%d, act %d%s%s on %s: rows %d .. %d alone differ from "
        "the same among %d", k, n, args.act, args.accumulate ? " +=" : "", args.gate ? " gated" : "", dev->name, first,
        first + args.rows - 1, rows);
  }
  dev->ops->linear_free (dev, linear);
  release ();
  free (host);
  free (all);
  free (part);
  free (numbers);
}

static void
check_many_rows (void)
{
  static const float gated = 1;
  static const DpLinearArgs hows[] = {
    { .y_type = DP_TYPE_BF16 }, { .y_type = DP_TYPE_BF16, .act = DP_ACT_GELU_TANH }, { .y_type = DP_TYPE_F32, .accumulate = true },
    { .y_type = DP_TYPE_F32, .accumulate = true, .gate = &gated }, { .y_type = DP_TYPE_BF16, .act = DP_ACT_SILU },
  };

  for (size_t i = 0; i < LENGTH (hows); i++) {
    check_linear_many_rows (1536, 1536, 32760, &hows[i]);
    check_linear_many_rows (8960, 1536, 4096, &hows[i]);
  }
}

/* The same promise for attention: 70 queries together or one by one. */
static void
check_attention_rows (DpType type)
{
  enum { H = 2, D = 20, Q = 70, K = 45 };
  size_t size = dp_type_size (type), row_bytes = H * D * size;
  char numbers[Q * H * D * 4], all[Q * H * D * 4], one[Q * H * D * 4];
  DpAttentionArgs args = { .type = type, .heads = H, .head_dim = D, .q_len = Q, .kv_len = K, .scale = 0.5 };

  for (int i = 0; i < Q * H * D; i++)
    dp_store (type, numbers, i, 2 * number (i));
  char *q = upload (numbers, Q * row_bytes), *out = upload (NULL, Q * row_bytes);
  args.k = upload (numbers, K * row_bytes);
  args.v = upload (numbers + 3 * row_bytes, K * row_bytes);
  args.q = q;
  args.out = out;
  dev->ops->attention (dev, &args);
  dev->ops->download (dev, all, out, Q * row_bytes);
  args.q_len = 1;
  for (int i = 0; i < Q; i++) {
    args.q = q + i * row_bytes;
    args.out = out + i * row_bytes;
    dev->ops->attention (dev, &args);
  }
  dev->ops->download (dev, one, out, Q * row_bytes);
  check (memcmp (all, one, Q * row_bytes) == 0, "attention, type %d on %s: a query depends on its neighbours", type, dev->name);
  release ();
}

static void
check_device (void)
{
  size_t bytes = dev->bytes, allocations = dev->allocations;
  char error[256];
  void *ptr;

#define CHECK_ENTRY(op, arg) check (dev->ops->op != NULL, "%s is missing in the table of %s", #op, dev->name);
  DP_MEMORY_OPS (CHECK_ENTRY, )
  DP_COMPUTE_OPS (CHECK_ENTRY, )
  ptr = dev->ops->alloc (dev, 1000);
  check (ptr && (uintptr_t) ptr % 64 == 0 && dev->bytes >= bytes + 1000 && dev->allocations == allocations + 1,
      "%s: memory is not counted or not aligned", dev->name);
  dev->ops->free (dev, ptr);
  dev->ops->free (dev, NULL);
  check (dev->bytes == bytes, "%s: freed memory is not counted", dev->name);
  check (dev->ops->alloc (dev, (size_t) 1 << 60) == NULL && dev->ops->alloc (dev, SIZE_MAX) == NULL, "%s: gives more memory than there is",
      dev->name);
  dp_device_fail (dev, "first %d", 1);
  dp_device_fail (dev, "second");
  check (!dp_device_check (dev, error, sizeof error) && strcmp (error, "first 1") == 0 && dp_device_check (dev, error, sizeof error),
      "%s: the latch holds \"%s\"", dev->name, error);
}

static void
check_open (void)
{
  static const char *const wrong[] = { "", "gpu", "cpu:", "cpux", "cuda", "cuda:", "cuda:x", "cuda:0x", "cuda:9999" };
  DpDeviceInfo info;
  char error[256];

  for (size_t i = 0; i < LENGTH (wrong); i++) {
    error[0] = 0;
    check (dp_device_open (wrong[i], 1, error, sizeof error) == NULL && strlen (error) > 20, "device \"%s\": \"%s\"", wrong[i], error);
  }
  check (dp_device_open ("cpu", -1, error, sizeof error) == NULL, "opened with -1 threads");
  check (dp_device_info ("cpu", &info, error, sizeof error) && info.memory_total >= info.memory_free && info.memory_free > 0
      && strstr (info.libraries, "oneDNN"), "info of cpu: %s, %s", info.description, info.libraries);
  printf ("%s: %s; %s; bf16 %s\n", info.name, info.description, info.libraries, info.fast_bf16 ? "fast" : "slow");
  check (dp_device_processors () >= 1, "no processors");
  dp_device_close (NULL);
}

void
test_properties (void)
{
  check_open ();
  for (int i = 0; i < harness_n_devices; i++) {
    dev = harness_devices[i];
    check_device ();
    check_linear ();
    for (int outlier = 1; outlier <= 10 && (harness_fp8 () || strcmp (dev->name, "ref") == 0); outlier += 9)
      check_linear_fp8 (outlier);
    check_refills ();
    check_finite ();
    check_conv ();
    check_attention ();
    check_norms ();
    check_pictures ();
    check_colours ();
    check_rounding ();
    check_rows ();
    if (dev == harness_gpu ())
      check_many_rows ();
    check_attention_rows (DP_TYPE_F32);
    check_attention_rows (DP_TYPE_BF16);
  }
}
