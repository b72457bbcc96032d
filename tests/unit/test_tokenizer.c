/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/wan/tokenizer.h"
#include "engine/dualparal.h"

#include <glib/gstdio.h>
#include <string.h>

static DpTokenizer *
open_fixture (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *dir = g_test_build_filename (G_TEST_DIST, "tests", "unit", "fixtures", NULL);
  DpTokenizer *tokenizer = dp_tokenizer_open (dir, 512, &error);

  g_assert_no_error (error);
  return tokenizer;
}

/* As python's sentencepiece and transformers' T5 tokenizer give them for this model. */
static void
test_ids (void)
{
  static const struct { const char *text; gint32 ids[20]; int n; } known[] = {
    { "", { 1 }, 1 },
    { "a red ball bouncing over a green meadow", { 3, 41, 30, 56, 22, 3, 10, 25, 1 }, 9 },
    { "A cat, and  a dog.", { 3, 103, 115, 155, 8, 44, 3, 103, 145, 258, 205, 6, 1 }, 13 },
    { " lead trail ", { 103, 261, 104, 112, 145, 103, 114, 259, 112, 136, 261, 1 }, 12 },
    { "don't stop\342\200\224now\342\200\246", { 103, 145, 167, 117, 114, 103, 156, 165, 253, 2, 109, 258, 256, 6, 6, 6, 1 }, 17 },
    { "\357\254\201ne \342\221\240 \302\275 \357\274\241", { 103, 139, 113, 104, 103, 119, 103, 119, 2, 120, 3, 1 }, 12 },
    { "\303\234n\303\257 \347\214\253", { 103, 2, 109, 2, 103, 2, 1 }, 7 },
    { "e\314\201a\342\200\213d", { 103, 2, 112, 103, 145, 1 }, 6 },
    { "9 birds", { 103, 127, 103, 254, 136, 259, 145, 156, 1 }, 9 },
  };
  g_autoptr (DpTokenizer) tokenizer = open_fixture ();

  for (gsize i = 0; i < G_N_ELEMENTS (known); i++) {
    gint32 ids[512];
    int n = dp_tokenizer_encode (tokenizer, known[i].text, ids, 512, NULL);

    g_assert_cmpmem (ids, n * sizeof *ids, known[i].ids, known[i].n * sizeof *ids);
    for (int max = 1; max <= known[i].n; max++) {       /* cut, the end stays last */
      g_assert_cmpint (dp_tokenizer_encode (tokenizer, known[i].text, ids, max, NULL), ==, max);
      g_assert_cmpmem (ids, (max - 1) * sizeof *ids, known[i].ids, (max - 1) * sizeof *ids);
      g_assert_cmpint (ids[max - 1], ==, 1);
    }
  }
}

static void
test_not_a_model (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *whole = g_test_build_filename (G_TEST_DIST, "tests", "unit", "fixtures", NULL);
  g_autofree char *dir = g_dir_make_tmp ("dp-tokenizer-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "spiece.model", NULL);

  g_assert_null (dp_tokenizer_open (dir, 512, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "spiece.model"));
  g_assert_null (strstr (error->message, "transformers 5"));
  g_clear_error (&error);
  /* What transformers 5 saves */
  g_autofree char *json = g_build_filename (dir, "tokenizer.json", NULL);
  g_assert_true (g_file_set_contents (json, "{}", -1, NULL));
  g_assert_null (dp_tokenizer_open (dir, 512, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "transformers 5"));
  g_assert_nonnull (strstr (error->message, "copy spiece.model from"));
  g_unlink (json);
  g_clear_error (&error);
  for (int i = 0; i < 3; i++) {
    g_assert_true (g_file_set_contents (path, i == 0 ? "" : i == 1 ? "version https://git-lfs" : "\n\377\377\377\177", -1, NULL));
    g_assert_null (dp_tokenizer_open (dir, 512, &error));
    g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
    g_clear_error (&error);
  }
  g_unlink (path);
  g_rmdir (dir);
  g_assert_null (dp_tokenizer_open (whole, 20, &error));         /* more pieces than the text encoder knows */
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  dp_tokenizer_free (NULL);
}

/* The library follows a normalisation table's offsets wherever they lead: a damaged one must not reach it. */
static void
test_damaged (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *whole = g_test_build_filename (G_TEST_DIST, "tests", "unit", "fixtures", "spiece.model", NULL);
  g_autofree char *dir = g_dir_make_tmp ("dp-tokenizer-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "spiece.model", NULL), *data = NULL;
  gsize size;

  g_assert_true (g_file_get_contents (whole, &data, &size, NULL));
  g_assert_true (g_file_set_contents (path, data, size / 2, NULL));
  g_assert_null (dp_tokenizer_open (dir, 512, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_clear_error (&error);
  memset (data + 100000, 0x7f, 64);
  g_assert_true (g_file_set_contents (path, data, size, NULL));
  g_assert_null (dp_tokenizer_open (dir, 512, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_unlink (path);
  g_rmdir (dir);
}

static void
test_clean (void)
{
  static const char *const known[][2] = {
    { "", "" }, { " \t\n\302\240\343\200\200 ", "" }, { "  a \n b\t", "a b" }, { "a &amp; b", "a & b" }, { "&amp;amp;lt;", "&lt;" },
    { "&lt;b&gt &quot;x&quot;", "<b> \"x\"" }, { "&notit; &not;", "\302\254it; \302\254" }, { "&eacute;&eacutex", "\303\251\303\251x" },
    { "&hearts;&hearts", "\342\231\245&hearts" }, { "&apos;&apos", "'&apos" }, { "&#39;&#x27;&#X27", "'''" }, { "&#128;", "\342\202\254" },
    { "&#0;&#xD800;&#99999999999;", "\357\277\275\357\277\275\357\277\275" }, { "a&#1;b&#xfffe;", "ab" },
    { "&;&#;&#x;&#xg &", "&;&#;&#x;&#xg &" },
    { "a\302\205b\342\200\250c\034d", "a b c d" }, { "a\342\200\213b", "a\342\200\213b" }, { "x&nbsp;&nbsp;y&nbsp", "x y" },
    { "&amp;#32;&amp;nbsp;z", "z" }, { "&lang;", "\342\237\250" },
    { "&NotEqualTilde;&nvgt;", "\342\211\202\314\270>\342\203\222" }, { "&CounterClockwiseContourIntegral;x", "\342\210\263x" },
    { "&check;&Zopf;&bigstar", "\342\234\223\342\204\244&bigstar" }, { "&ampersand;&notin;&notinx", "&ersand;\342\210\211\302\254inx" },
    { "&CounterClockwiseContourIntegralx", "&CounterClockwiseContourIntegralx" },
  };
  g_autofree char *longest = g_strnfill (16 << 10, 'x'), *longer = g_strnfill ((16 << 10) + 1, 'x');
  const char *bad[] = { "\377", "a\303", "\355\240\200", longer };

  for (gsize i = 0; i < G_N_ELEMENTS (known); i++) {
    g_autofree char *clean = dp_prompt_clean (known[i][0], NULL);

    g_assert_cmpstr (clean, ==, known[i][1]);
  }
  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autoptr (GError) error = NULL;

    g_assert_null (dp_prompt_clean (bad[i], &error));
    g_assert_error (error, DP_ERROR, DP_ERROR_SETTINGS);
  }
  g_autofree char *clean = dp_prompt_clean (longest, NULL);
  g_assert_cmpstr (clean, ==, longest);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/tokenizer/ids", test_ids);
  g_test_add_func ("/tokenizer/not_a_model", test_not_a_model);
  g_test_add_func ("/tokenizer/damaged", test_damaged);
  g_test_add_func ("/tokenizer/clean", test_clean);
  return g_test_run ();
}
