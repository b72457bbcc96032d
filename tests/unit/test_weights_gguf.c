/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * GGUF files: one that the reference package wrote, with its own numbers (fixtures/make-gguf), and what is refused.
 */
#include "engine/wan/weights.h"
#include "engine/dualparal.h"

#include <glib/gstdio.h>
#include <string.h>

static char *
fixture (const char *name)
{
  return g_test_build_filename (G_TEST_DIST, "tests", "unit", "fixtures", "gguf", name, NULL);
}

static DpWeights *
open_fixture (const char *name)
{
  g_autofree char *path = fixture (name);
  g_autoptr (GError) error = NULL;
  DpWeights *weights = dp_weights_open (path, NULL, &error);

  g_assert_no_error (error);
  return weights;
}

/* All of it, and any part of it, by both ways to read. */
static void
test_blocks (void)
{
  static const char *const types[] = { "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K" };
  g_autoptr (DpWeights) weights = open_fixture ("all.gguf"), unpacked = open_fixture ("all.safetensors");
  const gint64 dims[] = { 2, 512 };

  for (gsize i = 0; i < G_N_ELEMENTS (types); i++) {
    g_autoptr (GError) error = NULL;
    const DpTensor *t = dp_weights_get (weights, &error, 2, dims, "%s", types[i]);
    const DpTensor *u = dp_weights_get (unpacked, NULL, 2, dims, "%s", types[i]);
    float expected[1024], out[1024];

    g_assert_no_error (error);
    g_assert_cmpint (t->type, ==, DP_TYPE_F32);
    g_assert_cmpuint (t->bytes, ==, sizeof out);
    g_assert_true (dp_weights_read_finite (unpacked, u, expected, &error) && dp_weights_read_finite (weights, t, out, &error));
    g_assert_cmpmem (out, sizeof out, expected, sizeof expected);
    for (int k = 0; k < 300; k++) {
      gsize first = g_test_rand_int_range (0, 1024), n = g_test_rand_int_range (0, 1025 - first);
      const DpHostWeight weight = dp_tensor_weight (t, 2);

      memset (out, 1, sizeof out);
      if (k % 2)
        g_assert_true (dp_weights_read (weights, t, first, n, out, &error));
      else
        g_assert_true (weight.read (weight.source, weight.offset + first * 4, out, n * 4));
      g_assert_cmpmem (out, n * 4, expected + first, n * 4);
      g_assert_true (n == 1024 || memcmp (&out[n], "\1\1\1\1", 4) == 0);
    }
  }
}

static void
test_plain (void)
{
  static const struct { const char *name; int n_dims; gint64 dims[5]; } tensors[] = {
    { "F32", 2, { 2, 12 } }, { "F16", 2, { 2, 12 } }, { "BF16", 2, { 2, 12 } }, { "flat", 5, { 2, 3, 1, 2, 2 } },
    { "deep", 5, { 2, 3, 1, 2, 2 } },
  };
  g_autoptr (DpWeights) weights = open_fixture ("all.gguf");

  for (gsize i = 0; i < G_N_ELEMENTS (tensors); i++) {
    g_autoptr (GError) error = NULL;
    const DpTensor *t = dp_weights_get (weights, &error, tensors[i].n_dims, tensors[i].dims, "%s", tensors[i].name);
    float out[24];

    g_assert_no_error (error);
    g_assert_true (dp_weights_read (weights, t, 0, 24, out, &error));
    for (int k = 0; k < 24; k++)
      g_assert_cmpfloat (out[k], ==, k);
  }
  g_assert_cmpuint (dp_weights_bytes (weights, "Q8_0"), ==, 1024 / 32 * 34);
}

/* Under a name of another format. Under its own it is opened in the tests below. */
static void
test_found (void)
{
  g_autofree char *copies = g_dir_make_tmp ("dp-gguf-XXXXXX", NULL), *copy = g_build_filename (copies, "w.safetensors", NULL);
  g_autofree char *path = fixture ("all.gguf"), *data = NULL;
  g_autoptr (GError) error = NULL;
  gsize size;

  g_assert_true (dp_weights_is_named ("diffusion_pytorch_model.gguf"));
  g_assert_true (g_file_get_contents (path, &data, &size, NULL) && g_file_set_contents (copy, data, size, NULL));
  g_autoptr (DpWeights) renamed = dp_weights_open (copies, "w", &error);
  g_assert_no_error (error);
  g_assert_nonnull (dp_weights_find (renamed, "Q4_K"));
  g_unlink (copy);
  g_rmdir (copies);
}

/* ---- what is refused ---- */

static char *dir;

static void
put (GByteArray *to, guint64 n, guint bytes)
{
  g_byte_array_append (to, (const guint8 *) &n, bytes);
}

static void
put_text (GByteArray *to, const char *text)
{
  put (to, strlen (text), 8);
  g_byte_array_append (to, (const guint8 *) text, strlen (text));
}

/* A file that is refused with `names` in the sentence, or, where that is NULL, is not. */
static void
check (const GByteArray *file, const char *names)
{
  g_autofree char *path = g_build_filename (dir, "w.gguf", NULL);
  g_autoptr (GError) error = NULL;

  g_assert_true (g_file_set_contents (path, (const char *) file->data, file->len, NULL));
  g_autoptr (DpWeights) weights = dp_weights_open (dir, "w", &error);
  g_test_message ("%s", error ? error->message : "accepted");
  if (names == NULL) {
    g_assert_no_error (error);
    return;
  }
  g_assert_null (weights);
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_assert_nonnull (strstr (error->message, names));
  g_assert_nonnull (strstr (error->message, "w.gguf"));
}

/* What a file says; 0 is what a good one says. */
typedef struct
{
  guint32 version;
  guint64 tensors, values;
  const char *architecture;
  guint32 alignment;
  guint32 key_type;             /* of a value of 8 bytes, "x" */
  gint32 shape[3];              /* of the first tensor, in the metadata */
  guint32 n_dims;
  guint64 rows, columns;
  guint32 type;
  guint64 offset;               /* of the second tensor, 64 bytes behind the first */
  const char *name;             /* of the second tensor */
  guint64 name_length;          /* of the first */
  gint32 more;                  /* bytes at the end */
} Said;

static GByteArray *
file_of (const Said *s)
{
  GByteArray *file = g_byte_array_new ();
  guint alignment = CLAMP (s->alignment, 32, 128);

  g_byte_array_append (file, (const guint8 *) "GGUF", 4);
  put (file, s->version ? s->version : 3, 4);
  put (file, s->tensors ? s->tensors : 2, 8);
  put (file, s->values ? s->values : s->shape[0] ? 4 : 3, 8);
  put_text (file, "general.architecture");
  put (file, 8, 4);
  put_text (file, s->architecture ? s->architecture : "wan");
  put_text (file, "general.alignment");
  put (file, 4, 4);
  put (file, s->alignment ? s->alignment : 32, 4);
  put_text (file, "x");
  put (file, s->key_type ? s->key_type : 10, 4);
  put (file, 0, 8);
  if (s->shape[0]) {
    put_text (file, "comfy.gguf.orig_shape.a");
    put (file, 9, 4);
    put (file, 5, 4);
    put (file, 3, 8);
    for (int i = 0; i < 3; i++)
      put (file, (guint32) s->shape[i], 4);
  }
  put (file, s->name_length ? s->name_length : 1, 8);
  put (file, 'a', 1);
  put (file, s->n_dims ? s->n_dims : 2, 4);
  put (file, s->columns ? s->columns : 8, 8);
  put (file, s->rows ? s->rows : 2, 8);
  put (file, s->type, 4);
  put (file, 0, 8);
  put_text (file, s->name ? s->name : "b");
  put (file, 0, 4);
  put (file, 0, 4);
  put (file, s->offset ? s->offset : 64, 8);
  while (file->len % alignment)
    put (file, 0, 1);
  for (int i = 0; i < 68 + s->more; i++)
    put (file, 0, 1);
  return file;
}

static void
test_refused (void)
{
  static const struct { Said said; const char *names; } files[] = {
    { { 0 }, NULL }, { { .version = 2 }, NULL }, { { .architecture = "t5encoder" }, NULL }, { { .alignment = 64 }, NULL },
    { { .shape = { 4, 2, 2 } }, NULL }, { { .more = 28 }, NULL },
    { { .version = 1 }, "version 2 or 3, found 1;" }, { { .version = 3 << 24 }, "another byte order" },
    { { .architecture = "flux" }, "found flux; use a file of a Wan model" },
    { { .alignment = 48 }, "power of two" }, { { .alignment = 1u << 31 }, "power of two" }, { { .alignment = 128 }, "overlap" },
    { { .key_type = 13 }, "known types" }, { { .key_type = 8, .values = 9 }, "" }, { { .values = G_MAXUINT64 }, "" },
    { { .tensors = G_MAXUINT64 }, "at most 65536 tensors" }, { { .tensors = 3 }, "" },
    { { .shape = { 4, 2, 3 } }, "tensor a: expected as many elements in comfy.gguf.orig_shape.a as in its shape [2, 8], found [4, 2, 3]" },
    { { .shape = { -4, -4, 1 } }, "found [-4, -4, 1]" },
    { { .n_dims = 9 }, "at most 8 dimensions" }, { { .n_dims = G_MAXUINT32 }, "at most 8 dimensions" },
    { { .rows = 1 << 20 }, "tensor a: expected 33554432 bytes from offset" }, { { .rows = G_MAXUINT64 }, "found [-1, 8]" },
    { { .rows = (guint64) 1 << 62 }, "tensor a" }, { { .columns = 0x7fffffffffffffff }, "tensor a" },
    { { .type = 8 }, "tensor a: expected a shape with rows of whole blocks of Q8_0 that can be counted, found [2, 8]" },
    { { .type = 8, .rows = 4 }, "that can be counted, found [4, 8]" },
    { { .type = 16 }, "tensor a: expected type F32, F16, BF16, Q8_0" }, { { .type = 4 }, "found type 4" },
    { { .type = 0xffffffff }, "found type" },
    { { .offset = 32 }, "tensor b: expected its data at offset 64, found it at 32: tensors overlap" },
    { { .offset = 96 }, "leave a hole" }, { { .offset = 65 }, "leave a hole" }, { { .offset = G_MAXUINT64 - 31 }, "leave a hole" },
    { { .name = "a" }, "tensor a: expected once, found again" }, { { .name = "\377" }, "names in UTF-8" },
    { { .name_length = 70000 }, "names of at most 65535 bytes" }, { { .name_length = G_MAXUINT64 }, "names of at most" },
    { { .more = -1 }, "tensor b: expected 4 bytes from offset" }, { { .more = -68 }, "tensor a: expected 64 bytes from offset" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (files); i++) {
    g_autoptr (GByteArray) file = file_of (&files[i].said);

    check (file, files[i].names);
  }
}

/* Cut off anywhere, and with any byte another: refused, or read within the file. */
static void
test_damaged (void)
{
  g_autoptr (GByteArray) file = file_of (&(Said) { .shape = { 4, 2, 2 } });
  g_autofree char *path = g_build_filename (dir, "w.gguf", NULL);

  for (guint i = 0; i < file->len; i++)
    for (int way = 0; way < 2; way++) {
      g_autoptr (GError) error = NULL;
      float out[16];

      file->data[i] ^= way ? 0xff : 0;
      g_unlink (path);          /* or it would stay as long as it is */
      g_assert_true (g_file_set_contents_full (path, (const char *) file->data, way ? file->len : i, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
      file->data[i] ^= way ? 0xff : 0;
      g_autoptr (DpWeights) weights = dp_weights_open (path, NULL, &error);
      const DpTensor *a = weights ? dp_weights_find (weights, "a") : NULL;
      g_assert_true ((weights == NULL) == (error != NULL) && (way || weights == NULL));
      g_assert_true (a == NULL || dp_weights_read (weights, a, 0, MIN (a->bytes / dp_type_size (a->type), 16), out, NULL));
    }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("dp-gguf-XXXXXX", NULL);
  g_test_add_func ("/weights-gguf/blocks", test_blocks);
  g_test_add_func ("/weights-gguf/plain", test_plain);
  g_test_add_func ("/weights-gguf/found", test_found);
  g_test_add_func ("/weights-gguf/refused", test_refused);
  g_test_add_func ("/weights-gguf/damaged", test_damaged);
  int failed = g_test_run ();
  g_autofree char *path = g_build_filename (dir, "w.gguf", NULL);
  g_unlink (path);
  g_rmdir (dir);
  g_free (dir);
  return failed;
}
