/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A sentence has one line, is UTF-8, commands no terminal and has an end, whatever the names in it are.
 */
#include "engine/wan/error.h"
#include "engine/wan/json_cursor.h"
#include "engine/wan/model.h"
#include "engine/wan/weights.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

#define R "\357\277\275"        /* U+FFFD */

static char *dir;

/* Characters of a text that may go to a terminal. */
static gsize
check_text (const char *text)
{
  gsize n = 0;

  g_assert_true (g_utf8_validate (text, -1, NULL));
  for (const char *p = text; *p; p = g_utf8_next_char (p), n++) {
    gunichar c = g_utf8_get_char (p);
    GUnicodeType type = g_unichar_type (c);

    g_assert_false (g_unichar_iscntrl (c));
    g_assert_false (type == G_UNICODE_FORMAT || type == G_UNICODE_LINE_SEPARATOR || type == G_UNICODE_PARAGRAPH_SEPARATOR);
  }
  return n;
}

static void
test_quote (void)
{
  static const struct { const char *text, *quoted; } table[] = {
    { "", "" }, { NULL, "(none)" }, { "vae/config.json", "vae/config.json" },
    { "caf\303\251 \345\261\261 \360\237\220\261", "caf\303\251 \345\261\261 \360\237\220\261" },
    { "a\nb\r\tc", "a" R "b" R R "c" }, { "\033[31mred\033[0m", R "[31mred" R "[0m" }, { "\177", R },
    { "a\377b", "a" R "b" }, { "\303", R }, { "\355\240\200", R R R }, { "\300\200", R R }, { "\302\233" "31m", R "31m" },
    { "\342\200\256gnp.exe", R "gnp.exe" }, { "a\342\200\250b", "a" R "b" }, { "\342\201\246x", R "x" },
    { "100%s %n %d", "100%s %n %d" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (table); i++) {
    g_autofree char *quoted = dp_quote (table[i].text, DP_QUOTE_MAX);

    check_text (quoted);
    g_assert_cmpstr (quoted, ==, table[i].quoted);
  }
}

static void
test_length (void)
{
  g_autoptr (GString) text = g_string_new (NULL);

  for (int n = 0; n < 1000; n++) {
    g_autofree char *quoted = dp_quote (text->str, DP_QUOTE_MAX);

    g_assert_cmpuint (check_text (quoted), ==, MIN (n, DP_QUOTE_MAX));
    if (n <= DP_QUOTE_MAX)
      g_assert_cmpstr (quoted, ==, text->str);
    else
      g_assert_true (g_str_has_prefix (quoted, "\303\251") && strstr (quoted, "\303\251...\303\251")
          && g_str_has_suffix (quoted, "\303\251"));
    g_string_append (text, "\303\251");
  }
  g_autofree char *path = g_strdup_printf ("/models/%s/model.safetensors", text->str), *quoted = dp_quote (path, DP_QUOTE_MAX);
  g_assert_true (g_str_has_prefix (quoted, "/models/") && g_str_has_suffix (quoted, "/model.safetensors"));
}

static void
test_format (void)
{
  g_autoptr (GError) error = NULL;

  dp_error_set (&error, DP_ERROR_BAD_MODEL, "%s: %d%% of %u, %" G_GINT64_FORMAT ", %" G_GSIZE_FORMAT ", %g, %.1f, %c, "
      "%5d|%-4d|%02x, %s", "a\nb", -3, 7u, G_MAXINT64, (gsize) 123, 0.5, 2.25, 'x', 42, 42, 10, "end");
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_assert_cmpstr (error->message, ==, "a" R "b: -3% of 7, 9223372036854775807, 123, 0.5, 2.2, x,    42|42  |0a, end");
  dp_error_set (NULL, DP_ERROR_FAILED, "%s", "nobody wants to know");

  g_autoptr (GError) cut = NULL;
  g_autofree char *longest = g_strnfill (5000, 'x');
  dp_error_set (&cut, DP_ERROR_FAILED, "%s|%.300s", longest, longest);
  g_assert_cmpuint (strlen (cut->message), ==, 200 + 1 + 300);
}

static void
test_random (void)
{
  for (int round = 0; round < 20000; round++) {
    char bytes[64];
    gsize n = g_test_rand_int_range (0, sizeof bytes), max = g_test_rand_int_range (8, 80);

    for (gsize i = 0; i < n; i++)
      bytes[i] = g_test_rand_bit () ? g_test_rand_int_range (1, 256) : "\033\n\302\233\342\200\256\355\240x"[g_test_rand_int_range (0, 11)];
    bytes[n] = 0;
    g_autofree char *quoted = dp_quote (bytes, max);
    g_assert_cmpuint (check_text (quoted), <=, max);
  }
}

/* ---- names in files ---- */

static void
put (const char *name, const char *data, gsize size)
{
  g_autofree char *path = g_build_filename (dir, name, NULL), *parent = g_path_get_dirname (path);

  g_assert_cmpint (g_mkdir_with_parents (parent, 0755), ==, 0);
  g_assert_true (g_file_set_contents (path, data, size, NULL));
}

static void
put_weights (const char *name, const char *header, gsize data)
{
  g_autofree char *all = g_malloc0 (8 + strlen (header) + data);
  guint64 size = strlen (header);

  memcpy (all, &size, 8);
  memcpy (all + 8, header, size);
  put (name, all, 8 + size + data);
}

/* Takes the error. */
static void
check_error (GError *error)
{
  g_assert_nonnull (error);
  g_test_message ("%.300s", error->message);
  g_assert_cmpuint (check_text (error->message), <, 1200);
  g_error_free (error);
}

static void
check_weights (const char *stem)
{
  GError *error = NULL;
  g_autoptr (DpWeights) weights = dp_weights_open (dir, stem, &error);

  g_assert_null (weights);
  check_error (error);
}

static char *
json_name (const char *name)
{
  GString *out = g_string_new ("\"");

  for (; *name; name++)
    if ((guchar) *name < 0x20)
      g_string_append_printf (out, "\\u%04x", *name);
    else
      g_string_append_c (out, *name);
  return g_string_free (g_string_append_c (out, '"'), FALSE);
}

/* In a tensor's name, a shard's, a key's and value of a config file, a path's. */
static void
check_name (const char *name)
{
  g_autofree char *quoted = json_name (name), *path = NULL, *text = NULL;
  GError *error = NULL;

#define HEADER(...) g_free (text); text = g_strdup_printf (__VA_ARGS__)
#define TENSOR "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}"
  HEADER ("{%s:" TENSOR "}", quoted, 0, 4);     /* outside of the file */
  put_weights ("w.safetensors", text, 2);
  check_weights ("w");
  HEADER ("{%s:" TENSOR "}", quoted, 4, 8);     /* a hole */
  put_weights ("w.safetensors", text, 8);
  check_weights ("w");
  HEADER ("{%s:" TENSOR ",%s:" TENSOR "}", quoted, 0, 4, quoted, 4, 8);
  put_weights ("w.safetensors", text, 8);
  check_weights ("w");
  HEADER ("{\"weight_map\":{%s:%s}}", quoted, quoted);  /* a shard that is not there */
  put ("i.safetensors.index.json", text, strlen (text));
  check_weights ("i");
  put_weights ("s.safetensors", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
  HEADER ("{\"weight_map\":{%s:\"s.safetensors\"}}", quoted);   /* a tensor that is not there */
  put ("j.safetensors.index.json", text, strlen (text));
  check_weights ("j");

  g_autofree char *folder = g_strdup_printf ("m%.100s", name), *index = g_build_filename (folder, "model_index.json", NULL);
  HEADER ("{\"_class_name\":%s}", quoted);
  put (index, text, strlen (text));
  path = g_build_filename (dir, folder, NULL);
  g_assert_null (dp_model_open (path, NULL, &error));
  check_error (error);
  error = NULL;
  g_assert_null (dp_model_open (name, NULL, &error));
  check_error (error);
  error = NULL;
  g_assert_null (dp_weights_open (path, name, &error));
  check_error (error);

  g_autofree char *weights = g_build_filename (folder, "x.bin", NULL);    /* a name beside what is missing */
  put (weights, "", 0);
  error = NULL;
  g_assert_null (dp_weights_open (path, "model", &error));
  check_error (error);
}

static void
test_names (void)
{
  static const char *const names[] = { "a\nb", "\033]0;owned\007", "\033[2J", "\342\200\256evil", "a\302\205b", "%s%n%s", "\342\200\250" };
  g_autofree char *longest = g_strnfill (5000, 'n');

  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    check_name (names[i]);
  check_name (longest);

  /* bytes that are not UTF-8 can be in paths only */
  GError *error = NULL;
  g_assert_null (dp_model_open ("/no/\377\376/where", NULL, &error));
  check_error (error);
}

/* The model's own name is shown too. */
static void
test_model_name (void)
{
  g_autofree char *command = g_strdup_printf ("cp -r '%s' '%s/named' && echo '{\"name\": \"a\\u001b[2J\\nb\"}' > '%s/named/dualparal.json'",
      dp_model_embedded (), dir, dir);
  g_autofree char *path = g_build_filename (dir, "named", NULL);
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (system (command), ==, 0);
  g_autoptr (DpModel) model = dp_model_open (path, NULL, &error);
  g_assert_no_error (error);
  check_text (model->config.defaults.name);
  g_assert_cmpstr (model->config.defaults.name, ==, "a" R "[2J" R "b");
}

int
main (int argc, char **argv)
{
  int failed;

  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("dp-error-XXXXXX", NULL);
  g_test_add_func ("/error/quote", test_quote);
  g_test_add_func ("/error/length", test_length);
  g_test_add_func ("/error/format", test_format);
  g_test_add_func ("/error/random", test_random);
  g_test_add_func ("/error/names", test_names);
  g_test_add_func ("/error/model-name", test_model_name);
  failed = g_test_run ();
  g_autofree char *command = g_strdup_printf ("rm -rf '%s'", dir);
  g_assert_cmpint (system (command), ==, 0);
  g_free (dir);
  return failed;
}
