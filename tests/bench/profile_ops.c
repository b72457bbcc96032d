/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "profile_ops.h"

#include <glib.h>
#include <stdio.h>

/* One op at one shape. */
typedef struct
{
  char *label;
  int calls;
  double seconds;
  double work;                  /* operations or bytes */
  gboolean arithmetic;          /* which of them */
} Row;

/* What a packed weight is, since nobody else may look inside. */
typedef struct
{
  int n, k, kt, kh, kw;         /* outputs, inputs, and the kernel of a convolution */
  DpType type;
} Shape;

static const DpOps *real;
static DpOps table;
static gboolean recording;
static GHashTable *rows;        /* label -> Row */
static GHashTable *shapes;      /* DpLinear or DpConv -> Shape */

static const char *
type_name (DpType type)
{
  return type == DP_TYPE_F32 ? "float32" : "bfloat16";
}

static gint64
begin (DpDevice *dev)
{
  if (recording)
    real->sync (dev);
  return g_get_monotonic_time ();
}

static void G_GNUC_PRINTF (5, 6)
end (DpDevice *dev, gint64 start, gboolean arithmetic, double work, const char *format, ...)
{
  va_list args;

  if (!recording)
    return;
  real->sync (dev);
  double seconds = (g_get_monotonic_time () - start) / 1e6;
  va_start (args, format);
  char *label = g_strdup_vprintf (format, args);
  va_end (args);
  Row *row = g_hash_table_lookup (rows, label);
  if (row == NULL) {
    row = g_new0 (Row, 1);
    row->label = label;
    row->arithmetic = arithmetic;
    g_hash_table_insert (rows, label, row);
  } else {
    g_free (label);
  }
  row->calls++;
  row->seconds += seconds;
  row->work += work;
}

/* ---- weights ---- */

static void
remember (const void *weight, Shape shape)
{
  if (weight)
    g_hash_table_insert (shapes, (gpointer) weight, g_memdup2 (&shape, sizeof shape));
}

static DpLinear *
linear_new_profile (DpDevice *dev, const DpLinearSpec *spec)
{
  DpLinear *linear = real->linear_new (dev, spec);
  int n = 0;

  for (int i = 0; i < spec->n_weights; i++)
    n += spec->weights[i].rows;
  remember (linear, (Shape) { .n = n, .k = spec->k, .type = spec->type });
  return linear;
}

static void
linear_free_profile (DpDevice *dev, DpLinear *linear)
{
  g_hash_table_remove (shapes, linear);
  real->linear_free (dev, linear);
}

static DpConv *
conv_new_profile (DpDevice *dev, const DpConvSpec *spec)
{
  DpConv *conv = real->conv_new (dev, spec);

  remember (conv, (Shape) { .n = spec->co, .k = spec->ci, .kt = spec->kt, .kh = spec->kh, .kw = spec->kw, .type = spec->type });
  return conv;
}

static void
conv_free_profile (DpDevice *dev, DpConv *conv)
{
  g_hash_table_remove (shapes, conv);
  real->conv_free (dev, conv);
}

/* ---- arithmetic ---- */

static void
linear_profile (DpDevice *dev, const DpLinear *linear, const DpLinearArgs *a)
{
  static const char *const acts[] = { "", " gelu", " silu" };
  const Shape *s = g_hash_table_lookup (shapes, linear);
  gint64 start = begin (dev);

  real->linear (dev, linear, a);
  end (dev, start, TRUE, 2.0 * a->rows * s->n * s->k, "linear %dx%d->%d %s%s%s", a->rows, s->k, s->n, type_name (s->type), acts[a->act],
      !a->accumulate ? "" : a->gate ? " += gate" : " +=");
}

static void
conv_profile (DpDevice *dev, DpConv *conv, const DpConvArgs *a)
{
  const Shape *s = g_hash_table_lookup (shapes, conv);
  int frames = a->t - s->kt + 1;
  gint64 start = begin (dev);

  real->conv (dev, conv, a);
  end (dev, start, TRUE, 2.0 * frames * a->h * a->w * s->n * s->k * s->kt * s->kh * s->kw, "conv %d->%d %dx%dx%d, %dx%d, %d frame%s %s%s",
      s->k, s->n, s->kt, s->kh, s->kw, a->h, a->w, frames, frames == 1 ? "" : "s", type_name (s->type), a->add ? " +" : "");
}

static void
attention_profile (DpDevice *dev, const DpAttentionArgs *a)
{
  gint64 start = begin (dev);

  real->attention (dev, a);
  end (dev, start, TRUE, 4.0 * a->heads * a->head_dim * a->q_len * a->kv_len, "attention %d heads of %d, %dx%d %s%s%s", a->heads,
      a->head_dim, a->q_len, a->kv_len, type_name (a->type), a->last_key_bias != 0 ? " last key" : "", a->rel_bias ? " bias" : "");
}

/* ---- memory ---- */

static void
layer_norm_profile (DpDevice *dev, const DpLayerNormArgs *a)
{
  gint64 start = begin (dev);

  real->layer_norm (dev, a);
  end (dev, start, FALSE, (double) a->rows * a->cols * (4 + dp_type_size (a->y_type)), "layer norm %dx%d -> %s", a->rows, a->cols,
      type_name (a->y_type));
}

static void
rms_norm_profile (DpDevice *dev, const DpRmsNormArgs *a)
{
  int cols = a->heads * a->head_dim;
  gint64 start = begin (dev);

  real->rms_norm (dev, a);
  end (dev, start, FALSE,
      a->rows * ((double) cols * (dp_type_size (a->x_type) + dp_type_size (a->y_type)) + (a->rope ? 4.0 * a->head_dim : 0)),
      "%s%s%s %dx%d -> %s", a->weight ? "RMS norm" : "", a->weight && a->rope ? ", " : !a->weight && !a->rope ? "copy of rows" : "",
      a->rope ? "rope" : "", a->rows, cols, type_name (a->y_type));
}

static void
channel_norm_profile (DpDevice *dev, const DpChannelNormArgs *a)
{
  gint64 start = begin (dev);

  real->channel_norm (dev, a);
  end (dev, start, FALSE, 2.0 * a->rows * a->channels * dp_type_size (a->type), "channel norm %dx%d %s%s", a->rows, a->channels,
      type_name (a->type), a->act == DP_ACT_SILU ? " silu" : "");
}

static void
upsample_profile (DpDevice *dev, const DpUpsampleArgs *a)
{
  int frames = a->t * (a->temporal ? 2 : 1);
  gint64 start = begin (dev);

  real->upsample (dev, a);
  end (dev, start, FALSE, 5.0 * frames * a->h * a->w * a->channels * dp_type_size (a->type), "upsample %dx%dx%d of %d %s%s", a->t, a->h,
      a->w, a->channels, type_name (a->type), a->temporal ? ", in time too" : "");
}

static void
pixel_shuffle_profile (DpDevice *dev, const DpPixelShuffleArgs *a)
{
  gint64 start = begin (dev);

  real->pixel_shuffle (dev, a);
  end (dev, start, FALSE, (double) a->t * a->h * a->w * (a->ci + 4 * a->frames * a->co) * dp_type_size (a->type),
      "pixel shuffle %dx%dx%d of %d to %d %s", a->t, a->h, a->w, a->ci, a->co, type_name (a->type));
}

static void
multiply_profile (DpDevice *dev, size_t n, DpType type, const void *a, const void *b, void *y)
{
  gint64 start = begin (dev);

  real->multiply (dev, n, type, a, b, y);
  end (dev, start, FALSE, 3.0 * n * dp_type_size (type), "multiply %zu %s", n, type_name (type));
}

static void
combine_profile (DpDevice *dev, size_t n, int terms, const float *const *x, const float *coef, float *y)
{
  gint64 start = begin (dev);

  real->combine (dev, n, terms, x, coef, y);
  end (dev, start, FALSE, 4.0 * n * (terms + 1), "combine %d of %zu", terms, n);
}

static void
convert_profile (DpDevice *dev, size_t n, DpType x_type, const void *x, DpType y_type, void *y)
{
  gint64 start = begin (dev);

  real->convert (dev, n, x_type, x, y_type, y);
  end (dev, start, FALSE, (double) n * (dp_type_size (x_type) + dp_type_size (y_type)), "convert %zu %s -> %s", n, type_name (x_type),
      type_name (y_type));
}

static void
patchify_profile (DpDevice *dev, int t, int h, int w, int channels, const float *x, DpType y_type, void *y)
{
  gint64 start = begin (dev);

  real->patchify (dev, t, h, w, channels, x, y_type, y);
  end (dev, start, FALSE, (double) t * h * w * channels * (4 + dp_type_size (y_type)), "patchify %dx%dx%dx%d", t, h, w, channels);
}

static void
unpatchify_profile (DpDevice *dev, int t, int h, int w, int channels, const float *x, float *y)
{
  gint64 start = begin (dev);

  real->unpatchify (dev, t, h, w, channels, x, y);
  end (dev, start, FALSE, 8.0 * t * h * w * channels, "unpatchify %dx%dx%dx%d", t, h, w, channels);
}

static void
upload_profile (DpDevice *dev, void *dst, const void *host, size_t bytes)
{
  gint64 start = begin (dev);

  real->upload (dev, dst, host, bytes);
  end (dev, start, FALSE, bytes, "upload of %zu bytes", bytes);
}

static void
download_profile (DpDevice *dev, void *host, const void *src, size_t bytes)
{
  gint64 start = begin (dev);

  real->download (dev, host, src, bytes);
  end (dev, start, FALSE, bytes, "download of %zu bytes", bytes);
}

static void
copy_profile (DpDevice *dev, void *dst, const void *src, size_t bytes)
{
  gint64 start = begin (dev);

  real->copy (dev, dst, src, bytes);
  end (dev, start, FALSE, 2.0 * bytes, "copy of %zu bytes", bytes);
}

/* ---- the table ---- */

static void
free_row (gpointer data)
{
  Row *row = data;

  g_free (row->label);
  g_free (row);
}

void
profile_install (DpDevice *dev)
{
  real = dev->ops;
  rows = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, free_row);
  shapes = g_hash_table_new_full (NULL, NULL, NULL, g_free);
  table = *real;
  table.upload = upload_profile;
  table.download = download_profile;
  table.copy = copy_profile;
  table.linear_new = linear_new_profile;
  table.linear_free = linear_free_profile;
  table.conv_new = conv_new_profile;
  table.conv_free = conv_free_profile;
  table.linear = linear_profile;
  table.conv = conv_profile;
  table.attention = attention_profile;
  table.layer_norm = layer_norm_profile;
  table.rms_norm = rms_norm_profile;
  table.channel_norm = channel_norm_profile;
  table.upsample = upsample_profile;
  table.pixel_shuffle = pixel_shuffle_profile;
  table.multiply = multiply_profile;
  table.combine = combine_profile;
  table.convert = convert_profile;
  table.patchify = patchify_profile;
  table.unpatchify = unpatchify_profile;
  dev->ops = &table;
}

void
profile_start (void)
{
  g_hash_table_remove_all (rows);
  recording = TRUE;
}

static int
dearest_first (gconstpointer a, gconstpointer b)
{
  const Row *x = *(const Row *const *) a, *y = *(const Row *const *) b;

  return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

/* "568.1 TFLOP/s", "3912.0 GB/s" */
static void
print_rate (double work, double seconds, gboolean arithmetic)
{
  double rate = seconds > 0 ? work / seconds : 0;
  gboolean tera = arithmetic && rate >= 1e12;

  fprintf (stderr, "%10.1f %-8s", rate / (tera ? 1e12 : 1e9), tera ? "TFLOP/s" : arithmetic ? "GFLOP/s" : "GB/s");
}

void
profile_report (const char *title, double plain_ms)
{
  g_autoptr (GPtrArray) sorted = g_ptr_array_new ();
  GHashTableIter iter;
  gpointer row;
  double total = 0, operations = 0;
  int calls = 0;

  recording = FALSE;
  g_hash_table_iter_init (&iter, rows);
  while (g_hash_table_iter_next (&iter, NULL, &row))
    g_ptr_array_add (sorted, row);
  g_ptr_array_sort (sorted, dearest_first);
  for (guint i = 0; i < sorted->len; i++) {
    const Row *r = sorted->pdata[i];

    total += r->seconds;
    calls += r->calls;
    operations += r->arithmetic ? r->work : 0;
  }
  fprintf (stderr, "\n%-60s %6s %10s %9s %19s %6s\n", title, "calls", "ms", "ms each", "", "share");
  for (guint i = 0; i < sorted->len; i++) {
    const Row *r = sorted->pdata[i];

    fprintf (stderr, "%-60s %6d %10.3f %9.4f ", r->label, r->calls, 1e3 * r->seconds, 1e3 * r->seconds / r->calls);
    print_rate (r->work, r->seconds, r->arithmetic);
    fprintf (stderr, " %5.1f %%\n", 100 * r->seconds / total);
  }
  fprintf (stderr, "%-60s %6d %10.3f %9s ", "sum, each op waited for", calls, 1e3 * total, "");
  print_rate (operations, total, TRUE);
  fprintf (stderr, "\n%-60s %6s %10.3f %9s ", "the same work, nothing waited for (median)", "", plain_ms, "");
  print_rate (operations, plain_ms / 1e3, TRUE);
  fprintf (stderr, "\n");
}
