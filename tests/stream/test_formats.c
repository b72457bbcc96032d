/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The embedded model in other formats. A video must have the bytes of the one that is made with the same numbers in plain safetensors; of
 * those formats that lose something, that is a model of float32 with what the test itself unpacks.
 */
#include "stream.h"
#include "kernels/e4m3.h"
#include "kernels/numeric.h"
#include "wan/weights_write.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

typedef enum { BF16, F16, Q8_0, FP8, FP8_ROWS, KINDS } Kind;
static const char *const kinds[KINDS] = { "GGUF BF16", "GGUF F16", "GGUF Q8_0", "fp8, a scale each", "fp8, a scale for each row" };

/* A tensor in a file. */
typedef struct
{
  char *name;
  const char *dtype;
  int ggml;                     /* GGML's number of the type */
  int n_dims;
  gint64 dims[DP_TENSOR_MAX_DIMS];
  GByteArray *bytes;
  float *values;                /* what they stand for; NULL: a scale of others, in which it is already */
} Tensor;

static void
tensor_free (gpointer data)
{
  Tensor *t = data;

  g_byte_array_unref (t->bytes);
  g_free (t->values);
  g_free (t->name);
  g_free (t);
}

static void
put (GByteArray *to, const void *data, gsize size)
{
  g_byte_array_append (to, data, size);
}

static void
put_number (GByteArray *to, guint64 n, guint size)
{
  put (to, &n, size);
}

static void
put_text (GByteArray *to, const char *text)
{
  put_number (to, strlen (text), 8);
  put (to, text, strlen (text));
}

/* ---- numbers ---- */

static guint16
to_half (float f)
{
  guint sign = signbit (f) ? 0x8000 : 0;
  int exponent = f == 0 ? -15 : MAX (ilogbf (f), -15);

  if (exponent < -14)
    return sign | (guint) rintf (ldexpf (fabsf (f), 24));
  return sign | ((exponent + 14) * 1024 + (guint) rintf (ldexpf (fabsf (f), 10 - exponent)));
}

static gsize
count (const Tensor *t)
{
  gsize n = 1;

  for (int i = 0; i < t->n_dims; i++)
    n *= t->dims[i];
  return n;
}

static float
largest (const float *values, gsize n)
{
  float amax = 0;

  for (gsize i = 0; i < n; i++)
    amax = fmaxf (amax, fabsf (values[i]));
  return amax;
}

static void
pack_plain (Tensor *t, Kind kind)
{
  t->dtype = kind == BF16 ? "BF16" : kind == F16 ? "F16" : "F32";
  t->ggml = kind == BF16 ? 30 : kind == F16 ? 1 : 0;
  for (gsize i = 0; i < count (t); i++)
    if (kind == BF16) {         /* as they were */
      put_number (t->bytes, dp_bf16_from_f32 (t->values[i]), 2);
    } else if (kind == F16) {
      put_number (t->bytes, to_half (t->values[i]), 2);
      t->values[i] = dp_f32_from_f16 (to_half (t->values[i]));
    } else {
      put (t->bytes, &t->values[i], 4);
    }
}

static void
pack_q8_0 (Tensor *t)
{
  t->dtype = "Q8_0";
  t->ggml = 8;
  for (gsize i = 0; i < count (t); i += 32) {
    guint16 half = to_half (largest (t->values + i, 32) / 127);
    float d = dp_f32_from_f16 (half);

    put_number (t->bytes, half, 2);
    for (int k = 0; k < 32; k++) {
      gint8 q = d > 0 ? CLAMP (rintf (t->values[i + k] / d), -127, 127) : 0;

      put (t->bytes, &q, 1);
      t->values[i + k] = d * q;
    }
  }
}

/* Returns the scales. */
static Tensor *
pack_fp8 (Tensor *t, gboolean rows)
{
  Tensor *s = g_new0 (Tensor, 1);
  gsize n = count (t) / (rows ? t->dims[0] : 1);
  g_autofree char *base = g_strndup (t->name, strlen (t->name) - strlen (".weight"));

  *s = (Tensor) { g_strconcat (base, rows ? ".weight_scale" : ".scale_weight", NULL), "F32", 0, rows ? 2 : 0, { t->dims[0], 1 },
      g_byte_array_new () };
  t->dtype = "F8_E4M3";
  for (gsize i = 0; i < count (t); i += n) {
    float scale = fmaxf (largest (t->values + i, n), 1e-5f) / DP_E4M3_MAX;

    put (s->bytes, &scale, 4);
    for (gsize k = i; k < i + n; k++) {
      guint8 code = dp_e4m3_code (t->values[k] / scale);

      put (t->bytes, &code, 1);
      t->values[k] = dp_e4m3_value (code) * scale;
    }
  }
  return s;
}

/* ---- files ---- */

static void
write_safetensors (GPtrArray *tensors, const char *path)
{
  g_autoptr (GString) header = g_string_new ("{");
  g_autoptr (GByteArray) file = g_byte_array_new ();
  gsize at = 0;

  for (guint i = 0; i < tensors->len; i++) {
    const Tensor *t = g_ptr_array_index (tensors, i);

    g_string_append_printf (header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", t->name, t->dtype);
    for (int k = 0; k < t->n_dims; k++)
      g_string_append_printf (header, "%s%" G_GINT64_FORMAT, k ? "," : "", t->dims[k]);
    g_string_append_printf (header, "],\"data_offsets\":[%" G_GSIZE_FORMAT ",%" G_GSIZE_FORMAT "]}", at, at + t->bytes->len);
    at += t->bytes->len;
  }
  put_text (file, g_string_append_c (header, '}')->str);
  for (guint i = 0; i < tensors->len; i++)
    put (file, ((Tensor *) tensors->pdata[i])->bytes->data, ((Tensor *) tensors->pdata[i])->bytes->len);
  g_assert_true (g_file_set_contents (path, (const char *) file->data, file->len, NULL));
}

static void
pad (GByteArray *file)
{
  while (file->len % 32)
    put_number (file, 0, 1);
}

static void
write_gguf (GPtrArray *tensors, const char *path)
{
  g_autoptr (GByteArray) file = g_byte_array_new ();
  guint64 at = 0;

  put (file, "GGUF", 4);
  put_number (file, 3, 4);
  put_number (file, tensors->len, 8);
  put_number (file, 1, 8);
  put_text (file, "general.architecture");
  put_number (file, 8, 4);
  put_text (file, "wan");
  for (guint i = 0; i < tensors->len; i++) {
    const Tensor *t = g_ptr_array_index (tensors, i);

    put_text (file, t->name);
    put_number (file, t->n_dims, 4);
    for (int k = t->n_dims; k-- > 0;)
      put_number (file, t->dims[k], 8);
    put_number (file, t->ggml, 4);
    put_number (file, at, 8);
    at += (t->bytes->len + 31) / 32 * 32;
  }
  for (guint i = 0; i < tensors->len; i++) {
    pad (file);
    put (file, ((Tensor *) tensors->pdata[i])->bytes->data, ((Tensor *) tensors->pdata[i])->bytes->len);
  }
  g_assert_true (g_file_set_contents (path, (const char *) file->data, file->len, NULL));
}

static void
write_floats (GPtrArray *tensors, const char *path)
{
  g_autofree DpTensorOut *out = g_new0 (DpTensorOut, tensors->len);
  int n = 0;

  for (guint i = 0; i < tensors->len; i++) {
    const Tensor *t = g_ptr_array_index (tensors, i);

    if (t->values == NULL)
      continue;
    out[n] = (DpTensorOut) { .name = t->name, .n_dims = t->n_dims, .data = t->values };
    memcpy (out[n++].dims, t->dims, sizeof t->dims);
  }
  g_assert_true (dp_weights_write (path, out, n, NULL));
}

/* ---- models ---- */

static gboolean
add_name (const char *name, gpointer names)
{
  g_ptr_array_add (names, g_strdup (name));
  return TRUE;
}

/* All tensors of a file, packed as that kind, and scales. */
static GPtrArray *
read_tensors (const char *path, Kind kind)
{
  GPtrArray *tensors = g_ptr_array_new_with_free_func (tensor_free);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL;
  g_autoptr (DpWeights) weights = dp_weights_open (path, NULL, &error);

  g_assert_no_error (error);
  dp_weights_find_unknown (weights, add_name, names);
  for (guint i = 0; i < names->len; i++) {
    const DpTensor *from = dp_weights_find (weights, g_ptr_array_index (names, i));
    Tensor *t = g_new0 (Tensor, 1), *scales = NULL;

    *t = (Tensor) { .name = g_strdup (from->name), .n_dims = from->n_dims, .bytes = g_byte_array_new () };
    memcpy (t->dims, from->dims, sizeof t->dims);
    t->values = g_new (float, count (t));
    g_assert_true (dp_weights_read_finite (weights, from, t->values, NULL));
    gboolean matrix = t->n_dims == 2 && t->dims[1] % 32 == 0 && g_str_has_suffix (t->name, ".weight");
    if (kind == Q8_0 && matrix)
      pack_q8_0 (t);
    else if (kind >= FP8 && matrix)
      scales = pack_fp8 (t, kind == FP8_ROWS);
    else
      pack_plain (t, kind == Q8_0 ? KINDS : kind >= FP8 ? BF16 : kind);
    g_ptr_array_add (tensors, t);
    if (scales)
      g_ptr_array_add (tensors, scales);
  }
  return tensors;
}

/* The video that the embedded model makes if all its weights are of that kind, or are, as float32, the numbers of that kind. */
static char *
hash (Kind kind, gboolean unpacked, const char *precision)
{
  static const char *const files[] = { "transformer/diffusion_pytorch_model", "text_encoder/model", "vae/diffusion_pytorch_model" };
  const char *elsewhere = g_getenv ("DUALPARAL_TEST_MODEL"), *embedded = elsewhere ? elsewhere : dp_model_embedded ();
  char *dir = g_dir_make_tmp ("dp-formats-XXXXXX", NULL);
  g_autofree char *copy = g_strdup_printf ("cp -rs '%s/.' '%s'", embedded, dir);
  DpSettings s = stream_small ();
  int status;

  g_assert_true (g_spawn_command_line_sync (copy, NULL, NULL, &status, NULL) && status == 0);
  for (gsize i = 0; i < G_N_ELEMENTS (files); i++) {
    g_autofree char *from = g_strdup_printf ("%s/%s.safetensors", embedded, files[i]);
    g_autofree char *plain = g_strdup_printf ("%s/%s.safetensors", dir, files[i]), *gguf = g_strdup_printf ("%s/%s.gguf", dir, files[i]);
    g_autoptr (GPtrArray) tensors = read_tensors (from, kind);

    g_assert_cmpint (g_unlink (plain), ==, 0);
    if (unpacked)
      write_floats (tensors, plain);
    else if (kind < FP8)
      write_gguf (tensors, gguf);
    else
      write_safetensors (tensors, plain);
  }
  s.model = dir;
  s.precision = precision;
  s.num_frames = 6;
  char *sum = stream_hash (&s);
  stream_model_free (dir);
  return sum;
}

static void
test_kind (gconstpointer data)
{
  Kind kind = GPOINTER_TO_INT (data);
  static const char *const precisions[] = { "float32", "bfloat16" };

  for (gsize i = 0; i < G_N_ELEMENTS (precisions); i++) {
    DpSettings s = stream_small ();

    s.model = g_getenv ("DUALPARAL_TEST_MODEL");
    s.num_frames = 6;
    s.precision = precisions[i];
    g_autofree char *original = stream_hash (&s), *packed = hash (kind, FALSE, precisions[i]), *unpacked = hash (kind, TRUE, precisions[i]);
    g_assert_cmpstr (packed, ==, unpacked);
    if (kind == BF16)
      g_assert_cmpstr (packed, ==, original);
    else if (kind >= Q8_0)      /* what was packed was read, and not the original */
      g_assert_cmpstr (packed, !=, original);
  }
}

int
main (int argc, char **argv)
{
  stream_init (&argc, &argv);
  for (int i = 0; i < KINDS; i++) {
    g_autofree char *path = g_strdup_printf ("/formats/%s", kinds[i]);

    g_test_add_data_func (path, GINT_TO_POINTER (i), test_kind);
  }
  return g_test_run ();
}
