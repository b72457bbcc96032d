/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Attention alone: speed, and error against float64, on data of several kinds. Prints a line for each kind.
 *
 *   bench_attention --device cuda:0                       12 heads of 128, 24960 queries, 37440 keys: Wan 1.3B at 832x480, B = C = 8
 *   bench_attention --device cuda:0 --fp8 --data normal,values,groups
 *
 * `sustained` is the rate over --seconds of calls without a pause: a GPU needs a tenth of a second to meet its power limit.
 */
#include "kernels/device.h"
#include "kernels/numeric.h"
#include "tests/attention_data.h"

#include <glib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WIDTH (1 << 20)

static int heads = 12, head_dim = 128, queries = 24960, keys = 37440, runs = 20;
static double seconds = 1.5;
static gboolean fp8;
static char *device = "cuda:0", *data = "normal,values,keys,groups,outliers";

static const GOptionEntry options[] = {
  { "device", 0, 0, G_OPTION_ARG_STRING, &device, "Where to run (default: cuda:0)", "NAME" },
  { "heads", 0, 0, G_OPTION_ARG_INT, &heads, "Heads (default: 12)", "H" },
  { "head-dim", 0, 0, G_OPTION_ARG_INT, &head_dim, "Channels of a head (default: 128)", "D" },
  { "queries", 0, 0, G_OPTION_ARG_INT, &queries, "Queries (default: 24960)", "Q" },
  { "keys", 0, 0, G_OPTION_ARG_INT, &keys, "Keys (default: 37440)", "K" },
  { "fp8", 0, 0, G_OPTION_ARG_NONE, &fp8, "In e4m3, where the device has that", NULL },
  { "data", 0, 0, G_OPTION_ARG_STRING, &data, "Any of normal, values, keys, groups and outliers (default: all)", "LIST" },
  { "runs", 0, 0, G_OPTION_ARG_INT, &runs, "Runs to take the median of (default: 20)", "N" },
  { "seconds", 0, 0, G_OPTION_ARG_DOUBLE, &seconds, "How long to run without a pause, for the first kind (default: 1.5)", "S" },
  { NULL }
};

/* Rows of q, k and v side by side, as the transformer has them: all of them for keys, queries are the first ones. */
typedef struct
{
  int width, rows;
  float *pool;                  /* normal numbers */
  uint16_t *host, *out;         /* bfloat16 */
  DpDevice *dev;
  char *qkv, *result;
} Bench;

static void
fill (Bench *b, AttentionData kind)
{
  for (int r = 0; r < b->rows; r++)
    for (int part = 0; part < 3; part++)
      for (int c = 0; c < b->width; c++)
        dp_store (DP_TYPE_BF16, b->host, ((gsize) r * 3 + part) * b->width + c, attention_data_number (b->pool, kind, b->width, r, part, c));
  b->dev->ops->upload (b->dev, b->qkv, b->host, (gsize) b->rows * 3 * b->width * 2);
}

static void
run (Bench *b)
{
  b->dev->ops->attention (b->dev, &(DpAttentionArgs) { .type = DP_TYPE_BF16, .heads = heads, .head_dim = head_dim, .q_len = queries,
      .kv_len = keys, .fp8 = fp8, .q = b->qkv, .k = b->qkv + 2 * b->width, .v = b->qkv + 4 * b->width, .q_stride = 3 * b->width,
      .k_stride = 3 * b->width, .v_stride = 3 * b->width, .out = b->result, .scale = 1 / sqrtf (head_dim) });
}

static double
at (const Bench *b, int row, int part, int column)
{
  return dp_load (DP_TYPE_BF16, b->host, ((gsize) row * 3 + part) * b->width + column);
}

/* One row of one head, in float64. */
static void
reference (const Bench *b, int row, int head, double *out)
{
  g_autofree double *p = g_new (double, keys);
  double most = -INFINITY, sum = 0;
  int first = head * head_dim;

  for (int k = 0; k < keys; k++) {
    double s = 0;

    for (int c = 0; c < head_dim; c++)
      s += at (b, row, 0, first + c) * at (b, k, 1, first + c);
    p[k] = s / sqrt (head_dim);
    most = MAX (most, p[k]);
  }
  memset (out, 0, sizeof *out * head_dim);
  for (int k = 0; k < keys; k++) {
    p[k] = exp (p[k] - most);
    sum += p[k];
    for (int c = 0; c < head_dim; c++)
      out[c] += p[k] * at (b, k, 2, first + c);
  }
  for (int c = 0; c < head_dim; c++)
    out[c] /= sum;
}

/* Relative, in L2, over some rows: edges of tiles, the last ones, and others. */
static double
error_of (Bench *b)
{
  const int rows[] = { 0, 63, 64, 191, 192, queries / 2, queries - 200, queries - 1 };
  g_autofree double *want = g_new (double, head_dim);
  double difference = 0, size = 0;

  b->dev->ops->download (b->dev, b->out, b->result, (gsize) queries * b->width * 2);
  for (guint i = 0; i < G_N_ELEMENTS (rows); i++)
    for (int head = 0; head < heads; head += MAX (1, (heads - 1) / 2)) {
      if (rows[i] < 0 || rows[i] >= queries)
        continue;
      reference (b, rows[i], head, want);
      for (int c = 0; c < head_dim; c++) {
        double got = dp_load (DP_TYPE_BF16, b->out, (gsize) rows[i] * b->width + head * head_dim + c);

        difference += (got - want[c]) * (got - want[c]);
        size += want[c] * want[c];
      }
    }
  return sqrt (difference / size);
}

static int
compare (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;

  return (x > y) - (x < y);
}

static double
timed (Bench *b)
{
  gint64 start = g_get_monotonic_time ();

  run (b);
  b->dev->ops->sync (b->dev);
  return (g_get_monotonic_time () - start) / 1e6;
}

static void
measure (Bench *b, AttentionData kind, gboolean long_too)
{
  double flops = 4.0 * queries * keys * heads * head_dim, sustained = 0;
  g_autofree double *times = g_new (double, runs);
  char message[256];

  fill (b, kind);
  b->dev->ops->fill (b->dev, b->result, 0xff, (gsize) queries * b->width * 2);  /* NaN wherever nothing is written */
  run (b);
  double error = error_of (b);
  for (int i = 0; i < runs; i++)
    times[i] = timed (b);
  qsort (times, runs, sizeof *times, compare);
  if (long_too) {
    int n = MAX (1, seconds / times[runs / 2]);
    gint64 start = g_get_monotonic_time ();

    for (int i = 0; i < n; i++)
      run (b);
    b->dev->ops->sync (b->dev);
    sustained = flops * n / ((g_get_monotonic_time () - start) / 1e6) / 1e12;
  }
  printf ("%-8s %s %d x %d, %d heads of %d: %.3f ms, %.0f TFLOP/s", attention_data_names[kind], fp8 ? "e4m3" : "bf16", queries, keys, heads, head_dim,
      times[runs / 2] * 1e3, flops / times[runs / 2] / 1e12);
  if (long_too)
    printf (", sustained %.0f", sustained);
  printf (", error %.2e\n", error);
  if (!dp_device_check (b->dev, message, sizeof message)) {
    fprintf (stderr, "bench_attention: %s\n", message);
    exit (1);
  }
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) parser = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;
  char message[256];
  Bench b = { 0 };

  g_option_context_add_main_entries (parser, options, NULL);
  if (!g_option_context_parse (parser, &argc, &argv, &error)) {
    fprintf (stderr, "bench_attention: %s\n", error->message);
    return 1;
  }
  if (heads < 1 || head_dim < 1 || queries < 1 || keys < 1 || runs < 1 || (gsize) heads * head_dim > MAX_WIDTH) {
    fprintf (stderr, "bench_attention: all sizes must be at least 1\n");
    return 1;
  }
  if ((b.dev = dp_device_open (device, 0, message, sizeof message)) == NULL) {
    fprintf (stderr, "bench_attention: %s\n", message);
    return 1;
  }
  b.width = heads * head_dim;
  b.rows = MAX (queries, keys);
  b.pool = attention_data_pool (3);
  b.host = g_malloc ((gsize) b.rows * 3 * b.width * 2);
  b.out = g_malloc ((gsize) queries * b.width * 2);
  b.qkv = b.dev->ops->alloc (b.dev, (gsize) b.rows * 3 * b.width * 2);
  b.result = b.dev->ops->alloc (b.dev, (gsize) queries * b.width * 2);
  if (b.qkv == NULL || b.result == NULL) {
    fprintf (stderr, "bench_attention: %s has no room for that\n", device);
    return 1;
  }
  g_auto (GStrv) kinds = g_strsplit (data, ",", -1);
  for (int i = 0; kinds[i]; i++)
    for (AttentionData k = 0; k < DATA_KINDS; k++)
      if (strcmp (kinds[i], attention_data_names[k]) == 0)
        measure (&b, k, i == 0 && seconds > 0);
  b.dev->ops->free (b.dev, b.qkv);
  b.dev->ops->free (b.dev, b.result);
  dp_device_close (b.dev);
  g_free (b.pool);
  g_free (b.host);
  g_free (b.out);
  return 0;
}
