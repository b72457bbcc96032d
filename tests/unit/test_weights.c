/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/wan/weights_write.h"
#include "engine/dualparal.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char *dir;

static char *
in_dir (const char *name)
{
  return g_build_filename (dir, name, NULL);
}

/* A file with this header and `data` bytes 0, 1, 2, ... behind it; returns its path. */
static char *
make_file (const char *name, const char *header, gsize data)
{
  g_autoptr (GByteArray) bytes = g_byte_array_new ();
  guint64 size = strlen (header);
  char *path = in_dir (name);

  g_byte_array_append (bytes, (const guint8 *) &size, 8);
  g_byte_array_append (bytes, (const guint8 *) header, size);
  for (gsize i = 0; i < data; i++)
    g_byte_array_append (bytes, &(guint8) { i }, 1);
  g_assert_true (g_file_set_contents (path, (const char *) bytes->data, bytes->len, NULL));
  return path;
}

static void
assert_refused (const char *path, const char *stem, int code, const char *names)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (DpWeights) weights = dp_weights_open (path, stem, &error);

  g_test_message ("%s", error ? error->message : "accepted");
  g_assert_null (weights);
  g_assert_error (error, DP_ERROR, code);
  g_assert_nonnull (strstr (error->message, names));
}

#define T(dtype, shape, begin, end) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void
test_headers (void)
{
  static const struct { const char *header; gsize data; const char *names; } bad[] = {
    { "[]", 0, "'{'" },
    { "{  ", 0, "'\"'" },
    { "{}", 4, "0 bytes of data" },
    { "{\"a\":" T ("F32", "[1]", 0, 4) "}", 3, "cut off" },
    { "{\"a\":" T ("F32", "[1]", 0, 4) "}", 5, "4 bytes" },
    { "{\"a\":" T ("F32", "[2]", 0, 4) "}", 4, "tensor a" },
    { "{\"a\":" T ("F32", "[1]", 4, 0) "}", 4, "tensor a" },
    { "{\"a\":" T ("F32", "[-1]", 0, 4) "}", 4, "not negative" },
    { "{\"a\":" T ("F32", "[1.0]", 0, 4) "}", 4, "whole" },
    { "{\"a\":" T ("F32", "[01]", 0, 4) "}", 4, "leading zeros" },
    { "{\"a\":" T ("F32", "[0x1]", 0, 4) "}", 4, "leading zeros" },
    { "{\"a\":" T ("F32", "[1]", 00, 4) "}", 4, "leading zeros" },
    { "{\"a\":" T ("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "8 dimensions" },
    { "{\"a\":" T ("F32", "[4611686018427387904,4]", 0, 0) "}", 0, "tensor a" },
    { "{\"a\":" T ("F32", "[4611686018427387904,4,0]", 0, 0) "}", 0, "tensor a" },
    { "{\"a\":" T ("F32", "[9223372036854775808]", 0, 4) "}", 4, "2^63" },
    { "{\"a\":" T ("F32", "[1]", 0, 4) ",\"b\":" T ("F32", "[1]", 2, 6) "}", 6, "overlap" },
    { "{\"a\":" T ("F32", "[1]", 0, 4) ",\"b\":" T ("F32", "[1]", 0, 4) "}", 4, "overlap" },
    { "{\"a\":" T ("F32", "[1]", 0, 4) ",\"b\":" T ("F32", "[1]", 8, 12) "}", 12, "hole" },
    { "{\"a\":" T ("F32", "[1]", 0, 4) ",\"a\":" T ("F32", "[1]", 4, 8) "}", 8, "again" },
    { "{\"a\":" T ("F32", "[1]", 0, 4) ",\"\\u0061\":" T ("F32", "[1]", 4, 8) "}", 8, "again" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "two offsets" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "once" },
    { "{\"a\":{\"dtype\":\"F32\",\"x\":1}}", 4, "dtype" },
    { "{\"a\":[[[[[[[[[[[[]]]]]]]]]]]]}", 4, "'{'" },
    { "{\"__metadata__\":{\"a\":1},\"a\":" T ("F32", "[1]", 0, 4) "}", 4, "'\"'" },
    { "{\"a\":" T ("F32", "[1]", 0, 4) "} x", 4, "spaces" },
    { "{\"\377\":" T ("F32", "[1]", 0, 4) "}", 4, "UTF-8" },
    { "{\"\\ud800\":" T ("F32", "[1]", 0, 4) "}", 4, "character" },
    { "{\"\\u0000\":" T ("F32", "[1]", 0, 4) "}", 4, "character" },
    { "{\"a\n\":" T ("F32", "[1]", 0, 4) "}", 4, "control" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autofree char *path = make_file ("bad.safetensors", bad[i].header, bad[i].data);

    assert_refused (path, NULL, DP_ERROR_BAD_MODEL, bad[i].names);
    assert_refused (dir, "bad", DP_ERROR_BAD_MODEL, "bad.safetensors");
  }
}

static void
test_lengths (void)
{
  static const guint64 lengths[] = { 0, 1, 3, 1 << 20, 101 << 20, G_MAXUINT64, G_MAXUINT64 - 7, (guint64) 1 << 63 };
  g_autofree char *path = in_dir ("length.safetensors");
  char bytes[16] = "........{}      ";

  for (gsize i = 0; i < G_N_ELEMENTS (lengths); i++) {
    memcpy (bytes, &lengths[i], 8);
    g_assert_true (g_file_set_contents (path, bytes, 10 + i % 2, NULL));
    assert_refused (path, NULL, DP_ERROR_BAD_MODEL, "safetensors");
  }
  for (int n = 0; n < 10; n++) {
    g_assert_true (g_file_set_contents (path, bytes, n, NULL));
    assert_refused (path, NULL, DP_ERROR_BAD_MODEL, "bytes");
  }
  assert_refused (dir, NULL, DP_ERROR_BAD_MODEL, "regular");
  assert_refused ("/nowhere/x.safetensors", NULL, DP_ERROR_NOT_FOUND, "/nowhere/x.safetensors");
  assert_refused (dir, "nothing", DP_ERROR_NOT_FOUND, "index.json");
}

static void
test_reading (void)
{
  /* 1 odd byte of header: everything lies misaligned; a tensor of each type, one without elements, one without dimensions */
  g_autofree char *path = make_file ("good.safetensors", " { \"__metadata__\" : { \"format\" : \"p\\u00e9\\ud83d\\ude00\" }, "
      "\"f\":" T ("F32", "[2, 1]", 0, 8) ",\"b\":" T ("BF16", "[2]", 8, 12) ",\"h\":" T ("F16", "[2]", 12, 16) ",\"q\":" T ("F8_E8M0",
      "[3]", 16, 19)
      ",\"e\":" T ("F32", "[0, 7]", 19, 19) ",\"s\":" T ("I64", "[]", 19, 27) ",\"n\\u0065w\":" T ("X9", "[5]", 27, 28) "}  ", 28);
  g_autoptr (GError) error = NULL;
  g_autoptr (DpWeights) w = dp_weights_open (path, NULL, &error);
  const DpTensor *t;
  float out[2];

  g_assert_no_error (error);
  g_assert_cmpstr (dp_weights_path (w), ==, path);
  t = dp_weights_get (w, &error, 2, (gint64[]) { 2, 1 }, "%c", 'f');
  g_assert_no_error (error);
  g_assert_true (dp_weights_read (w, t, 0, 2, out, &error));
  g_assert_cmpmem (out, t->bytes, "\0\1\2\3\4\5\6\7", 8);
  g_assert_true (dp_weights_read (w, t, 1, 1, out, &error));
  g_assert_cmpmem (out, 4, "\4\5\6\7", 4);
  t = dp_weights_find (w, "b");
  g_assert_true (dp_weights_read (w, t, 0, 2, out, &error));
  g_assert_cmpmem (out, 8, "\0\0\10\11\0\0\12\13", 8);
  t = dp_weights_find (w, "e");
  g_assert_cmpuint (t->bytes, ==, 0);
  g_assert_true (dp_weights_read (w, t, 0, 0, NULL, &error));
  g_assert_nonnull (dp_weights_find (w, "h"));
  g_assert_null (dp_weights_find (w, "q"));
  g_assert_null (dp_weights_find (w, "nothing"));

  g_assert_null (dp_weights_get (w, &error, 1, (gint64[]) { 3 }, "q"));
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_assert_nonnull (strstr (error->message, "F8_E8M0"));
  g_clear_error (&error);
  g_assert_null (dp_weights_get (w, &error, 1, (gint64[]) { 5 }, "new"));
  g_assert_nonnull (strstr (error->message, "X9"));
  g_clear_error (&error);
  g_assert_null (dp_weights_get (w, &error, 2, (gint64[]) { 1, 2 }, "f"));
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_assert_nonnull (strstr (error->message, "tensor f: expected shape [1, 2], found [2, 1]"));
  g_clear_error (&error);
  g_assert_null (dp_weights_get (w, &error, 1, (gint64[]) { 1 }, "layer.%d", 3));
  g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "layer.3"));
}

/* Every half-precision number, against the definition. */
static void
test_half (void)
{
  g_autofree char *path = make_file ("half.safetensors", "{\"h\":" T ("F16", "[65536]", 0, 131072) "}", 131072);
  g_autofree guint16 *half = g_new (guint16, 65536);
  g_autofree float *out = g_new (float, 65536);
  g_autoptr (GError) error = NULL;
  FILE *file = fopen (path, "r+");

  for (int i = 0; i < 65536; i++)
    half[i] = i;
  g_assert_true (fseek (file, -131072, SEEK_END) == 0 && fwrite (half, 2, 65536, file) == 65536);
  g_assert_cmpint (fclose (file), ==, 0);
  g_autoptr (DpWeights) w = dp_weights_open (path, NULL, &error);
  g_assert_no_error (error);
  const DpTensor *t = dp_weights_find (w, "h");
  g_assert_true (dp_weights_read (w, t, 0, 65536, out, &error));
  for (int i = 0; i < 65536; i++) {
    int exponent = i >> 10 & 31, mantissa = i & 1023;
    double value = exponent ? ldexp (1024 + mantissa, exponent - 25) : ldexp (mantissa, -24);

    if (exponent == 31)
      g_assert_true (mantissa ? isnan (out[i]) : isinf (out[i]));
    else
      g_assert_cmpfloat (fabsf (out[i]), ==, value);
    g_assert_cmpint (!!signbit (out[i]), ==, i >> 15);
  }
  g_assert_false (dp_weights_check_finite (w, t, &error));
  g_assert_nonnull (strstr (error->message, "tensor h: expected finite numbers"));
}

/* Reads what a device would, and says whether that was possible. */
static gboolean
pack (const DpTensor *t, float *out)
{
  const DpHostWeight weight = dp_tensor_weight (t, 1);

  return weight.read (weight.source, weight.offset, out, t->bytes);
}

/* A file that becomes shorter, or is written to, or is replaced while it is open. */
static void
test_changed (void)
{
  const char *header = "{\"a\":" T ("F32", "[2]", 0, 8) ",\"b\":" T ("F32", "[2]", 8, 16) "}";
  g_autofree char *path = make_file ("changed.safetensors", header, 16);
  const struct timespec long_ago[2] = { { 1, 0 }, { 1, 0 } };
  float out[2];

  for (int way = 0; way < 3; way++) {
    g_autofree char *again = make_file ("changed.safetensors", header, 16);
    g_autoptr (GError) error = NULL;
    g_autoptr (DpWeights) w = dp_weights_open (path, NULL, &error);
    const DpTensor *a = dp_weights_find (w, "a"), *b = dp_weights_find (w, "b");
    struct stat st;

    g_assert_true (dp_weights_check_unchanged (w, &error) && dp_weights_read_finite (w, b, out, &error) && pack (b, out));
    g_assert_true (stat (path, &st) == 0);
    if (way == 2) {             /* another file of that name: this one is read on */
      g_autofree char *other = make_file ("other.safetensors", header, 16);

      g_assert_true (g_rename (other, path) == 0);
      g_assert_true (dp_weights_check_unchanged (w, &error) && dp_weights_read (w, b, 0, 2, out, &error));
      continue;
    }
    g_assert_true (way == 0 ? truncate (path, st.st_size - 4) == 0 : utimensat (AT_FDCWD, path, long_ago, 0) == 0);
    g_assert_true (pack (a, out));
    g_assert_true (pack (b, out) == (way == 1));
    g_assert_true (way == 1 || !dp_weights_read (w, b, 0, 2, out, NULL));
    g_assert_false (dp_weights_check_unchanged (w, NULL));
    g_assert_false (dp_weights_check_finite (w, a, &error));
    g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
    g_assert_nonnull (strstr (error->message, path));
    g_assert_nonnull (strstr (error->message, "changed while it was in use"));
  }
}

#define INDEX(map) "{\"metadata\":{\"total_size\":8,\"x\":[[1,{\"y\":null}],-1.5e3]},\"weight_map\":" map "}"

static void
test_shards (void)
{
  static const struct { const char *index; int code; const char *names; } bad[] = {
    { INDEX ("{\"a\":\"m-1.safetensors\",\"b\":\"m-3.safetensors\"}"), DP_ERROR_NOT_FOUND, "m-3.safetensors" },
    { INDEX ("{\"a\":\"m-1.safetensors\",\"c\":\"m-2.safetensors\"}"), DP_ERROR_BAD_MODEL, "tensor c" },
    { INDEX ("{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\"}"), DP_ERROR_BAD_MODEL, "expected in" },
    { INDEX ("{\"a\":\"m-1.safetensors\",\"b\":\"../m-2.safetensors\"}"), DP_ERROR_BAD_MODEL, "same directory" },
    { INDEX ("{\"a\":\"m-1.safetensors\",\"b\":\"..\"}"), DP_ERROR_BAD_MODEL, "same directory" },
    { INDEX ("{\"a\":\"m-1.safetensors\",\"a\":\"m-2.safetensors\"}"), DP_ERROR_BAD_MODEL, "once" },
    { INDEX ("{\"a\":\"m-1.safetensors\",\"b\":\"copy.safetensors\"}"), DP_ERROR_BAD_MODEL, "again" },
    { INDEX ("{}"), DP_ERROR_BAD_MODEL, "weight_map" },
    { "{\"metadata\":[[[[[[[[[[]]]]]]]]]]}", DP_ERROR_BAD_MODEL, "nesting" },
    { "{\"metadata\":1}", DP_ERROR_BAD_MODEL, "weight_map" },
    { "{\"metadata\":-1.5e+3}", DP_ERROR_BAD_MODEL, "weight_map" },
    { "{\"metadata\":010}", DP_ERROR_BAD_MODEL, "a value" },
    { "{\"metadata\":{\"total_size\":0x10}}", DP_ERROR_BAD_MODEL, "a value" },
    { "{\"metadata\":[1,+2]}", DP_ERROR_BAD_MODEL, "a value" },
    { "{\"metadata\":NaN}", DP_ERROR_BAD_MODEL, "a value" },
    { "", DP_ERROR_BAD_MODEL, "json" },
  };
  g_autofree char *path = in_dir ("m.safetensors.index.json");
  g_autoptr (GError) error = NULL;
  g_autoptr (DpWeights) w = NULL;

  g_free (make_file ("m-1.safetensors", "{\"a\":" T ("F32", "[1]", 0, 4) "}", 4));
  g_free (make_file ("m-2.safetensors", "{\"b\":" T ("F32", "[1]", 0, 4) "}", 4));
  g_free (make_file ("copy.safetensors", "{\"a\":" T ("F32", "[1]", 0, 4) "}", 4));
  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_assert_true (g_file_set_contents (path, bad[i].index, -1, NULL));
    assert_refused (dir, "m", bad[i].code, bad[i].names);
  }
  g_assert_true (g_file_set_contents (path, INDEX ("{\"b\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\"}"), -1, NULL));
  w = dp_weights_open (dir, "m", &error);
  g_assert_no_error (error);
  g_assert_cmpstr (dp_weights_path (w), ==, path);
  g_assert_nonnull (dp_weights_find (w, "a"));
  g_assert_nonnull (dp_weights_find (w, "b"));
}

static guint
files_in_dir (void)
{
  GDir *d = g_dir_open (dir, 0, NULL);
  guint n = 0;

  while (g_dir_read_name (d))
    n++;
  g_dir_close (d);
  return n;
}

static void
test_writing (void)
{
  const float data[] = { 1, -2, 3.5f, 4, 5, 6 };
  float read[6];
  const DpTensorOut out[] = { { "a \"\\\n", 2, { 2, 3 }, data }, { "empty", 1, { 0 }, NULL }, { "s", 0, { 0 }, data } };
  g_autofree char *path = in_dir ("out.safetensors");
  g_autofree float *large = g_new0 (float, 1 << 18);
  const DpTensorOut big = { "big", 1, { 1 << 18 }, large };
  struct rlimit limit, small;
  g_autoptr (GError) error = NULL;
  guint before;

  g_assert_true (dp_weights_write (path, out, 3, &error));
  g_assert_no_error (error);
  before = files_in_dir ();

  /* a disk that fills up: the error is told, the old file stays, nothing is left behind */
  signal (SIGXFSZ, SIG_IGN);
  g_assert_cmpint (getrlimit (RLIMIT_FSIZE, &limit), ==, 0);
  small = limit;
  small.rlim_cur = 65536;
  g_assert_cmpint (setrlimit (RLIMIT_FSIZE, &small), ==, 0);
  g_assert_false (dp_weights_write (path, &big, 1, &error));
  setrlimit (RLIMIT_FSIZE, &limit);
  g_assert_error (error, DP_ERROR, DP_ERROR_FAILED);
  g_assert_nonnull (strstr (error->message, path));
  g_clear_error (&error);
  g_assert_cmpuint (files_in_dir (), ==, before);

  g_autoptr (DpWeights) w = dp_weights_open (path, NULL, &error);
  g_assert_no_error (error);
  const DpTensor *t = dp_weights_get (w, &error, 2, (gint64[]) { 2, 3 }, "a \"\\\n");
  g_assert_no_error (error);
  g_assert_true (dp_weights_read (w, t, 0, 6, read, &error));
  g_assert_cmpmem (read, t->bytes, data, sizeof data);
  t = dp_weights_get (w, &error, 0, NULL, "s");
  g_assert_no_error (error);
  g_assert_true (dp_weights_read (w, t, 0, 1, read, &error));
  g_assert_cmpmem (read, t->bytes, data, 4);

  g_assert_false (dp_weights_write ("/nowhere/x", out, 3, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_FAILED);
  g_clear_error (&error);
  g_assert_false (dp_weights_write ("/dev/full", out, 3, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_FAILED);
}

static void
remove_dir (void)
{
  GDir *d = g_dir_open (dir, 0, NULL);
  const char *name;

  while ((name = g_dir_read_name (d))) {
    g_autofree char *path = in_dir (name);

    g_unlink (path);
  }
  g_dir_close (d);
  g_rmdir (dir);
  g_free (dir);
}

static void
add_bytes (gsize bytes, gpointer data)
{
  *(gsize *) data += bytes;
}

static void
test_watch (void)
{
  g_autofree char *path = make_file ("watch.safetensors", "{\"a.x\":" T ("F32", "[3]", 0, 12) ",\"a.y\":" T ("F32", "[2]", 12, 20) ",\"b.x\":"
      T ("BF16", "[4]", 20, 28) "}", 28);
  g_autoptr (DpWeights) weights = dp_weights_open (path, NULL, NULL);
  float out[4];
  gsize read = 0;

  g_assert_cmpuint (dp_weights_bytes (weights, "a."), ==, 20);
  g_assert_cmpuint (dp_weights_bytes (weights, "b."), ==, 8);
  g_assert_cmpuint (dp_weights_bytes (weights, "c."), ==, 0);
  dp_weights_watch (weights, add_bytes, &read);
  g_assert_true (dp_weights_read (weights, dp_weights_find (weights, "a.x"), 1, 2, out, NULL));
  g_assert_cmpuint (read, ==, 8);
  DpHostWeight weight = dp_tensor_weight (dp_weights_find (weights, "b.x"), 4);
  g_assert_true (weight.read (weight.source, weight.offset, out, 8));
  g_assert_cmpuint (read, ==, 16);
  dp_weights_watch (weights, NULL, NULL);
  g_assert_true (dp_weights_read (weights, dp_weights_find (weights, "a.y"), 0, 2, out, NULL));
  g_assert_cmpuint (read, ==, 16);
}

int
main (int argc, char **argv)
{
  int failed;

  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("dp-weights-XXXXXX", NULL);
  g_test_add_func ("/weights/headers", test_headers);
  g_test_add_func ("/weights/lengths", test_lengths);
  g_test_add_func ("/weights/reading", test_reading);
  g_test_add_func ("/weights/watch", test_watch);
  g_test_add_func ("/weights/half", test_half);
  g_test_add_func ("/weights/changed", test_changed);
  g_test_add_func ("/weights/shards", test_shards);
  g_test_add_func ("/weights/writing", test_writing);
  failed = g_test_run ();
  remove_dir ();
  return failed;
}
