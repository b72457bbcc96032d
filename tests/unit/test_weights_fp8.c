/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * safetensors with fp8: the numbers, scales by each custom, what is refused; and what it changes to code them again, as devices do.
 */
#include "engine/wan/weights.h"
#include "engine/dualparal.h"
#include "kernels/e4m3.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

static char *dir;

static char *
in_dir (const char *name)
{
  return g_build_filename (dir, name, NULL);
}

static void
put_file (const char *name, const char *header, const void *data, gsize size)
{
  g_autoptr (GByteArray) bytes = g_byte_array_new ();
  g_autofree char *path = in_dir (name);
  guint64 length = strlen (header);

  g_byte_array_append (bytes, (const guint8 *) &length, 8);
  g_byte_array_append (bytes, (const guint8 *) header, length);
  g_byte_array_append (bytes, data, size);
  g_assert_true (g_file_set_contents (path, (const char *) bytes->data, bytes->len, NULL));
}

static DpWeights *
open_file (void)
{
  g_autoptr (GError) error = NULL;
  DpWeights *weights = dp_weights_open (dir, "w", &error);

  g_assert_no_error (error);
  return weights;
}

#define T(dtype, shape, begin, end) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

/* Every code of a type with that many bits of mantissa, against the definition. */
static void
check_codes (const char *dtype, int mantissa_bits, int bias)
{
  g_autofree char *header = g_strdup_printf ("{\"a\":{\"dtype\":\"%s\",\"shape\":[256],\"data_offsets\":[0,256]}}", dtype);
  g_autoptr (GError) error = NULL;
  guint8 codes[256];
  float out[256];

  for (int i = 0; i < 256; i++)
    codes[i] = i;
  put_file ("w.safetensors", header, codes, sizeof codes);
  g_autoptr (DpWeights) weights = open_file ();
  const DpTensor *t = dp_weights_get (weights, &error, 1, (gint64[]) { 256 }, "a");
  g_assert_no_error (error);
  g_assert_true (dp_weights_read (weights, t, 0, 256, out, &error));
  for (int i = 0; i < 256; i++) {
    int exponent = (i & 0x7f) >> mantissa_bits, one = 1 << mantissa_bits, mantissa = i & (one - 1);
    double value = exponent ? ldexp (one + mantissa, exponent - bias - mantissa_bits) : ldexp (mantissa, 1 - bias - mantissa_bits);

    if (mantissa_bits == 3 ? (i & 0x7f) == 0x7f : exponent == 31 && mantissa)
      g_assert_true (isnan (out[i]));
    else if (mantissa_bits == 2 && exponent == 31)
      g_assert_true (isinf (out[i]));
    else
      g_assert_cmpfloat (fabsf (out[i]), ==, value);
    g_assert_cmpint (!!signbit (out[i]), ==, i >> 7);
  }
  g_assert_false (dp_weights_check_finite (weights, t, &error));
  g_assert_nonnull (strstr (error->message, "tensor a: expected finite numbers"));
}

static void
test_codes (void)
{
  check_codes ("F8_E4M3", 3, 7);
  check_codes ("F8_E5M2", 2, 15);
}

/* Three rows of four codes that count from 0x38 (1) on, and scales 2, 0.5, -3 in some type. */
static const guint8 codes[] = { 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x40, 0x41, 0x42, 0x43 };
static const float f32_scales[] = { 2, 0.5f, -3 };
static const guint16 bf16_scales[] = { 0x4000, 0x3f00, 0xc040 }, f16_scales[] = { 0x4000, 0x3800, 0xc200 };

static void
check_scaled (const char *others, const void *scales, gsize size, gboolean by_row)
{
  g_autofree char *header = g_strdup_printf ("{\"b.weight\":" T ("F8_E4M3", "[3,4]", 0, 12) ",%s}", others);
  g_autoptr (GError) error = NULL;
  guint8 data[40] = { 0 };
  float out[12];

  memcpy (data, codes, 12);
  memcpy (data + 12, scales, size);
  put_file ("w.safetensors", header, data, 12 + size);
  g_autoptr (DpWeights) weights = open_file ();
  const DpTensor *t = dp_weights_get (weights, &error, 2, (gint64[]) { 3, 4 }, "b.weight");
  g_assert_no_error (error);
  const DpHostWeight weight = dp_tensor_weight (t, 3);
  for (gsize first = 0; first <= 12; first++)
    for (gsize n = 0; n <= 12 - first; n++) {
      if (n % 2)
        g_assert_true (dp_weights_read (weights, t, first, n, out, &error));
      else
        g_assert_true (weight.read (weight.source, weight.offset + first * 4, out, n * 4));
      for (gsize i = 0; i < n; i++)
        g_assert_cmpfloat (out[i], ==, dp_e4m3_value (codes[first + i]) * f32_scales[by_row ? (first + i) / 4 : 0]);
    }
  g_assert_null (dp_weights_find (weights, "b.weight_scale"));
  g_assert_null (dp_weights_find (weights, "b.scale_weight"));
  g_assert_cmpuint (dp_weights_bytes (weights, "b."), ==, 12);
}

static void
test_scales (void)
{
  check_scaled ("\"b.scale_weight\":" T ("F32", "[]", 12, 16), f32_scales, 4, FALSE);
  check_scaled ("\"b.weight_scale\":" T ("F32", "[1]", 12, 16) ",\"scaled_fp8\":" T ("F8_E4M3", "[0]", 16, 16), f32_scales, 4, FALSE);
  check_scaled ("\"b.weight_scale\":" T ("F32", "[3]", 12, 24), f32_scales, 12, TRUE);
  check_scaled ("\"b.weight_scale\":" T ("F32", "[3,1]", 12, 24), f32_scales, 12, TRUE);
  check_scaled ("\"b.weight_scale\":" T ("BF16", "[3,1]", 12, 18), bf16_scales, 6, TRUE);
  check_scaled ("\"b.scale_weight\":" T ("F16", "[3]", 12, 18), f16_scales, 6, TRUE);
  /* and what else ComfyUI puts beside a weight */
  check_scaled ("\"b.scale_weight\":" T ("F32", "[1]", 12, 16) ",\"b.scale_input\":" T ("F32", "[1]", 16, 20)
      ",\"model.scaled_fp8\":" T ("F8_E4M3", "[2]", 20, 22), ((float[]) { 2, 7, 0 }), 10, FALSE);
  check_scaled ("\"b.scale_weight\":" T ("F32", "[1]", 12, 16) ",\"c.bias\":" T ("F8_E4M3", "[3]", 16, 19), ((float[]) { 2, 7 }), 7, FALSE);
  check_scaled ("\"b.weight_scale\":" T ("F32", "[]", 12, 16) ",\"b.input_scale\":" T ("F32", "[]", 16, 20) ",\"b.comfy_quant\":"
      T ("U8", "[3]", 20, 23), ((float[]) { 2, 7, 0 }), 11, FALSE);
}

#define W "\"b.weight\":" T ("F8_E4M3", "[3,4]", 0, 12)

static void
test_refused (void)
{
  static const struct { const char *tensors; gsize scales; const char *names; } bad[] = {
    { W ",\"b.weight_scale\":" T ("F32", "[4]", 12, 28), 16, "b.weight_scale: expected one scale of type F32, BF16 or F16 for b.weight, or "
        "one for each of its 3 rows, found F32 [4]" },
    { W ",\"b.weight_scale\":" T ("F32", "[1,3]", 12, 24), 12, "b.weight_scale: expected one scale" },
    { W ",\"b.weight_scale\":" T ("F32", "[3,1,1]", 12, 24), 12, "b.weight_scale: expected one scale" },
    { W ",\"b.weight_scale\":" T ("F32", "[0]", 12, 12), 0, "b.weight_scale: expected one scale" },
    { W ",\"b.weight_scale\":" T ("F8_E8M0", "[3]", 12, 15), 3, "found F8_E8M0 [3]" },
    { W ",\"b.weight_scale\":" T ("F8_E4M3", "[3]", 12, 15), 3, "found F8_E4M3 [3]" },
    { W ",\"b.weight_scale\":" T ("F32", "[]", 12, 16) ",\"b.scale_weight\":" T ("F32", "[]", 16, 20), 8, "found F32 [] beside another" },
    { W ",\"b.scale_weight\":" T ("F32", "[1]", 12, 16), 0x100 | 4, "tensor b.scale_weight: expected finite numbers, found NaN" },
    { "\"b.weight\":" T ("I8", "[3,4]", 0, 12) ",\"b.weight_scale\":" T ("F32", "[3,1]", 12, 24), 12, "b.weight_scale: expected b.weight "
        "of type F8_E4M3 beside it, found it of type I8; of quantised weights, scaled fp8 and GGUF are supported" },
    { "\"b.weight\":" T ("BF16", "[3,2]", 0, 12) ",\"b.scale_weight\":" T ("F32", "[]", 12, 16), 4, "found it of type BF16" },
    { W ",\"c.scale_weight\":" T ("F32", "[]", 12, 16), 4, "c.scale_weight: expected c.weight of type F8_E4M3 beside it, found it "
        "nowhere" },
    { W ",\"z.scale_weight\":" T ("F32", "[]", 12, 16) ",\"e.scale_weight\":" T ("F32", "[]", 16, 20) ",\"c.scale_weight\":"
        T ("F32", "[]", 20, 24) ",\"f.scale_weight\":" T ("F32", "[]", 24, 28), 16, "c.scale_weight: expected c.weight" },
    { W ",\"c.input_scale\":" T ("F32", "[]", 12, 16), 4, "c.input_scale: expected c.weight of type" },
    { W ",\"scaled_fp8\":" T ("F8_E4M3", "[0]", 12, 12), 0, "b.weight: expected a scale beside it" },
    { W ",\"a.weight\":" T ("F8_E5M2", "[2,2]", 12, 16) ",\"b.weight_scale\":" T ("F32", "[]", 16, 20), 8, "a.weight: expected a scale" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autofree char *header = g_strdup_printf ("{%s}", bad[i].tensors);
    g_autoptr (GError) error = NULL;
    guint8 data[40] = { 0 };

    if (bad[i].scales >> 8)     /* NaN */
      memset (data + 12, 0xff, 4);
    put_file ("w.safetensors", header, data, 12 + (bad[i].scales & 0xff));
    g_autoptr (DpWeights) weights = dp_weights_open (dir, "w", &error);
    g_test_message ("%s", error ? error->message : "accepted");
    g_assert_null (weights);
    g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
    g_assert_nonnull (strstr (error->message, bad[i].names));
    g_assert_nonnull (strstr (error->message, "w.safetensors"));
  }
}

/* A scale in another shard than its weight. */
static void
test_shards (void)
{
  static const char index[] = "{\"weight_map\":{\"b.weight\":\"1.safetensors\",\"b.weight_scale\":\"2.safetensors\"}}";
  g_autofree char *path = in_dir ("s.safetensors.index.json");
  g_autoptr (GError) error = NULL;
  float out[12];

  put_file ("1.safetensors", "{" W "}", codes, 12);
  put_file ("2.safetensors", "{\"b.weight_scale\":" T ("F32", "[3]", 0, 12) "}", f32_scales, 12);
  g_assert_true (g_file_set_contents (path, index, -1, NULL));
  g_autoptr (DpWeights) weights = dp_weights_open (dir, "s", &error);
  g_assert_no_error (error);
  g_assert_true (dp_weights_read (weights, dp_weights_find (weights, "b.weight"), 0, 12, out, &error));
  g_assert_cmpfloat (out[11], ==, dp_e4m3_value (codes[11]) * -3);
}

/* The relative change (L2) where a row of numbers code * scale is coded in e4m3 again, with a power of two as scale. */
static double
change (float scale, int n)
{
  double error = 0, all = 0;
  g_autofree float *row = g_new (float, n);
  float amax = 0;

  for (int i = 0; i < n; i++) {         /* as quantizers make them: up to 448, mostly far below */
    double normal = sqrt (-2 * log (g_test_rand_double_range (1e-9, 1))) * cos (2 * G_PI * g_test_rand_double ());

    row[i] = dp_e4m3_value (dp_e4m3_code (i == 0 ? 448 : normal * 110)) * scale;
    amax = fmaxf (amax, fabsf (row[i]));
  }
  for (int i = 0; i < n; i++) {
    float s = dp_e4m3_scale (amax), again = dp_e4m3_value (dp_e4m3_code (row[i] * s)) / s;

    error += (again - row[i]) * (again - row[i]);
    all += row[i] * row[i];
  }
  return sqrt (error / all);
}

static void
test_coded_again (void)
{
  double worst = 0, mean = 0;

  for (int i = -20; i <= 4; i++)
    g_assert_cmpfloat (change (ldexpf (1, i), 4096), ==, 0);
  for (int i = 0; i < 200; i++) {
    double c = change (expf (g_test_rand_double_range (-12, 0)), 4096);

    worst = MAX (worst, c);
    mean += c / 200;
  }
  g_test_message ("coded again: %.2f %% of the numbers' size, %.2f %% at most", 100 * mean, 100 * worst);
  g_assert_true (mean > 0.005 && worst <= 0.0625);     /* half a step of three bits */
}

int
main (int argc, char **argv)
{
  static const char *const files[] = { "w.safetensors", "1.safetensors", "2.safetensors", "s.safetensors.index.json" };

  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("dp-fp8-XXXXXX", NULL);
  g_test_add_func ("/weights-fp8/codes", test_codes);
  g_test_add_func ("/weights-fp8/scales", test_scales);
  g_test_add_func ("/weights-fp8/refused", test_refused);
  g_test_add_func ("/weights-fp8/shards", test_shards);
  g_test_add_func ("/weights-fp8/coded-again", test_coded_again);
  int failed = g_test_run ();
  for (gsize i = 0; i < G_N_ELEMENTS (files); i++) {
    g_autofree char *path = in_dir (files[i]);

    g_unlink (path);
  }
  g_rmdir (dir);
  g_free (dir);
  return failed;
}
