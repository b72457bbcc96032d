/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Files that PyTorch wrote (fixtures/make-torch), as they are and damaged.
 */
#include "engine/wan/weights.h"
#include "engine/dualparal.h"

#include <glib/gstdio.h>
#include <string.h>

static char *
fixture (const char *name)
{
  return g_test_build_filename (G_TEST_DIST, "tests", "unit", "fixtures", "torch", name, NULL);
}

static void
assert_refused (const char *path, const char *names)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (DpWeights) weights = dp_weights_open (path, NULL, &error);

  g_test_message ("%s", error ? error->message : "accepted");
  g_assert_null (weights);
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_assert_nonnull (strstr (error->message, names));
}

static void
assert_counts_from (const DpWeights *weights, const char *name, int n_dims, const gint64 *dims, float first)
{
  g_autoptr (GError) error = NULL;
  const DpTensor *t = dp_weights_get (weights, &error, n_dims, dims, "%s", name);
  float out[8];
  gsize n = 1;

  g_assert_no_error (error);
  for (int i = 0; i < n_dims; i++)
    n *= dims[i];
  g_assert_true (dp_weights_read (weights, t, 0, n, out, &error));
  for (gsize i = 0; i < n; i++)
    g_assert_cmpfloat (out[i], ==, first + i);
}

static void
test_reading (void)
{
  g_autofree char *flat = fixture ("flat.pth"), *nested = fixture ("nested.pth"), *dir = fixture (".");
  g_autoptr (GError) error = NULL;
  g_autoptr (DpWeights) weights = dp_weights_open (flat, NULL, &error);

  g_assert_no_error (error);
  assert_counts_from (weights, "a", 2, (gint64[]) { 2, 3 }, 0);
  assert_counts_from (weights, "b", 1, (gint64[]) { 5 }, 0);
  assert_counts_from (weights, "c", 2, (gint64[]) { 2, 2 }, 0);
  assert_counts_from (weights, "d", 1, (gint64[]) { 2 }, 0);
  assert_counts_from (weights, "e", 2, (gint64[]) { 2, 3 }, 6);
  g_assert_null (dp_weights_find (weights, "f"));       /* whole numbers are no weights */
  g_assert_null (dp_weights_get (weights, &error, 1, (gint64[]) { 2 }, "f"));
  g_assert_nonnull (strstr (error->message, "found I64"));
  g_clear_error (&error);
  dp_weights_free (weights);
  weights = dp_weights_open (nested, NULL, &error);
  g_assert_no_error (error);
  assert_counts_from (weights, "model.a", 1, (gint64[]) { 3 }, 0);
  dp_weights_free (weights);
  weights = dp_weights_open (dir, "flat", &error);
  g_assert_no_error (error);
  g_assert_true (dp_weights_is_named ("flat.pth") && dp_weights_is_named ("a.safetensors") && !dp_weights_is_named ("config.json"));
}

static void
test_refused (void)
{
  g_autofree char *two = fixture ("two.pth"), *strides = fixture ("strides.pth"), *old = fixture ("old.pth");

  assert_refused (two, "several, such as x");
  assert_refused (strides, "contiguous");
  assert_refused (old, "before 1.6; save it again");
}

/* Where `what` is in the file first. */
static char *
find (char *data, gsize size, const char *what, gsize n)
{
  for (gsize i = 0; i + n <= size; i++)
    if (memcmp (data + i, what, n) == 0)
      return data + i;
  g_assert_not_reached ();
}

static void
test_hostile (void)
{
  static const struct { const char *what; gsize n; const char *with, *names; } changes[] = {
    { "little", 6, "bigbig", "another byte order" },
    { "ctorch._utils\n_rebuild_tensor_v2\n", 33, "cos\nsystem\nX\x11\0\0\0rm -rf /tmp/dp...", "would call os.system" },
    { "K\2K\3\206", 5, "K\377K\3\206", "tensor a: expected its data within" },
  };
  g_autofree char *flat = fixture ("flat.pth"), *data = NULL, *dir = g_dir_make_tmp ("dp-torch-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "w.pth", NULL);
  gsize size;

  g_assert_true (g_file_get_contents (flat, &data, &size, NULL));
  for (gsize i = 0; i < G_N_ELEMENTS (changes); i++) {
    g_autofree char *changed = g_memdup2 (data, size);

    memcpy (find (changed, size, changes[i].what, changes[i].n), changes[i].with, changes[i].n);
    g_assert_true (g_file_set_contents (path, changed, size, NULL));
    assert_refused (path, changes[i].names);
  }
  /* Cut off anywhere, and with any byte another: refused, or read within the file. */
  for (gsize i = 10; i < size; i += 97) {
    g_assert_true (g_file_set_contents (path, data, i, NULL));
    assert_refused (path, "cut off");
  }
  for (gsize i = 0; i < size; i++) {
    g_autoptr (GError) error = NULL;

    data[i] ^= 0xff;
    g_assert_true (g_file_set_contents_full (path, data, size, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
    g_autoptr (DpWeights) weights = dp_weights_open (path, NULL, &error);
    const DpTensor *a = weights ? dp_weights_find (weights, "a") : NULL;
    float out[8];
    g_assert_true ((weights == NULL) == (error != NULL));
    g_assert_true (a == NULL || dp_weights_read (weights, a, 0, MIN (a->bytes / dp_type_size (a->type), 8), out, NULL));
    data[i] ^= 0xff;
  }
  g_unlink (path);
  g_rmdir (dir);
}

/* Appends a number, little endian. */
static void
put (GByteArray *to, guint64 n, guint bytes)
{
  g_byte_array_append (to, (const guint8 *) &n, bytes);
}

/* An archive of "a/data.pkl" alone. */
static GByteArray *
archive_of (const GByteArray *pickle)
{
  static const char name[] = "a/data.pkl";
  const guint length = sizeof name - 1, at = 30 + length + pickle->len;
  GByteArray *zip = g_byte_array_new ();

  put (zip, 0x04034b50, 4);
  for (int i = 0; i < 22; i++)
    put (zip, 0, 1);
  put (zip, length, 4);
  g_byte_array_append (zip, (const guint8 *) name, length);
  g_byte_array_append (zip, pickle->data, pickle->len);
  put (zip, 0x02014b50, 4);
  for (int i = 0; i < 4; i++)
    put (zip, 0, 4);
  put (zip, pickle->len, 4);
  put (zip, pickle->len, 4);
  put (zip, length, 8);
  put (zip, 0, 8);
  put (zip, 0, 2);
  g_byte_array_append (zip, (const guint8 *) name, length);
  put (zip, 0x06054b50, 4);
  put (zip, 0, 8);
  put (zip, 46 + length, 4);
  put (zip, at, 4);
  put (zip, 0, 2);
  return zip;
}

/* A dict of 200,000 pairs, which another has 120,000 times: looking through it each time would take minutes. */
static void
test_repeated (void)
{
  g_autoptr (GByteArray) pickle = g_byte_array_new ();
  g_autofree char *dir = g_dir_make_tmp ("dp-torch-XXXXXX", NULL), *path = g_build_filename (dir, "w.pth", NULL);
  gint64 begin = g_get_monotonic_time ();

  g_byte_array_append (pickle, (const guint8 *) "\x80\2}q\0(", 6);
  for (int i = 0; i < 200000; i++)
    g_byte_array_append (pickle, (const guint8 *) "NN", 2);
  g_byte_array_append (pickle, (const guint8 *) "uX\1\0\0\0kq\1}(", 11);
  for (int i = 0; i < 120000; i++)
    g_byte_array_append (pickle, (const guint8 *) "h\1h\0", 4);
  g_byte_array_append (pickle, (const guint8 *) "u.", 2);
  g_autoptr (GByteArray) zip = archive_of (pickle);
  g_assert_true (g_file_set_contents (path, (const char *) zip->data, zip->len, NULL));
  assert_refused (path, "found none");
  g_assert_cmpint (g_get_monotonic_time () - begin, <, 20 * G_USEC_PER_SEC);
  g_unlink (path);
  g_rmdir (dir);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/weights-torch/reading", test_reading);
  g_test_add_func ("/weights-torch/refused", test_refused);
  g_test_add_func ("/weights-torch/hostile", test_hostile);
  g_test_add_func ("/weights-torch/repeated", test_repeated);
  return g_test_run ();
}
