/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Storyboards: what is read, and what is refused with which line.
 */
#include "gst/gstdualparalstoryboard.h"
#include "engine/dualparal.h"

#include <string.h>

#define MS G_GUINT64_CONSTANT (1000000)

static void
test_read (void)
{
  static const char *const files[] = {
    "1\n00:00:00,000 --> 00:00:02,500\na red ball\nover a meadow\n\n2\n00:00:02,500 --> 00:01:00,000\nsnow\n\n7\n101:02:03,004 --> "
      "101:02:04,000\n<i>a star</i>",
    "\357\273\277\r\n1\r\n00:00:00,000 --> 00:00:02,500 \r\na red ball\r\nover a meadow\r\n\r\n\r\n2\r\n00:00:02,500 --> "
      "00:01:00,000\r\nsnow\r\n \r\n"
        "7\r\n101:02:03,004 --> 101:02:04,000\r\n<i>a star</i>\r\n",
  };
  static const struct { guint64 time; const char *prompt; } expected[] = {
    { 0, "a red ball over a meadow" }, { 2500 * MS, "snow" }, { ((101 * 60 + 2) * 60 + 3) * 1000 * MS + 4 * MS, "<i>a star</i>" },
  };

  for (gsize f = 0; f < G_N_ELEMENTS (files); f++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GArray) cues = gst_dualparal_storyboard_parse (files[f], strlen (files[f]), &error);

    g_assert_no_error (error);
    g_assert_cmpuint (cues->len, ==, G_N_ELEMENTS (expected));
    for (guint i = 0; i < cues->len; i++) {
      g_assert_cmpuint (g_array_index (cues, GstDualParalCue, i).time, ==, expected[i].time);
      g_assert_cmpstr (g_array_index (cues, GstDualParalCue, i).prompt, ==, expected[i].prompt);
    }
  }
}

#define CUE "1\n00:00:01,000 --> 00:00:02,000\nsnow\n\n"

static void
test_refused (void)
{
  static const struct { const char *file, *says; } bad[] = {
    { "", "found none" }, { "\n\n \n", "found none" }, { "\357\273\277", "found none" },
    { "snow", "line 1: expected the number" }, { CUE "a\n", "line 5: expected the number" }, { "1", "line 2: expected times" },
    { "1\n\n", "line 2: expected times" }, { "1\n00:00:01,000\nsnow", "line 2: expected times" },
    { "1\n00:00:01.000 --> 00:00:02.000\nsnow", "found \"00:00:01.000 --> 00:00:02.000\"" },
    { "1\n0:00:01,000 --> 0:00:02,000\nsnow", "line 2" }, { "1\n00:00:01,00 --> 00:00:02,00\nsnow", "line 2" },
    { "1\n00:60:01,000 --> 00:61:02,000\nsnow", "line 2" }, { "1\n00:00:61,000 --> 00:00:62,000\nsnow", "line 2" },
    { "1\n-0:00:01,000 --> 00:00:02,000\nsnow", "line 2" }, { "1\n00:00:01,000 --> 00:00:02,000 X1:1\nsnow", "line 2" },
    { "1\n00:00:01,000-->00:00:02,000\nsnow", "line 2" }, { "1\n99999:00:01,000 --> 99999:00:02,000\nsnow", "line 2" },
    { "1\n00:00:02,000 --> 00:00:02,000\nsnow", "line 2: expected an end behind" },
    { "1\n00:00:02,000 --> 00:00:01,000\nsnow", "line 2: expected an end behind" },
    { CUE "2\n00:00:00,000 --> 00:00:01,000\nsnow", "line 6: expected a cue that begins when" },
    { CUE "2\n00:00:01,999 --> 00:00:03,000\nsnow", "line 6: expected a cue that begins when" },
    { "1\n00:00:01,000 --> 00:00:02,000", "line 3: expected the text" },
    { "1\n00:00:01,000 --> 00:00:02,000\n\nsnow", "line 3: expected the text" },
    { CUE "\377\376", "not UTF-8" }, { "\177ELF\2\1\1", "line 1: expected the number" },
    { "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "found \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autoptr (GError) error = NULL;

    g_assert_null (gst_dualparal_storyboard_parse (bad[i].file, strlen (bad[i].file), &error));
    g_assert_error (error, DP_ERROR, DP_ERROR_SETTINGS);
    if (!strstr (error->message, bad[i].says))
      g_error ("file %" G_GSIZE_FORMAT ": \"%s\" does not say \"%s\"", i, error->message, bad[i].says);
  }
}

/* A zero byte, too much text for a prompt, too much of a file */
static void
test_sizes (void)
{
  g_autoptr (GError) zero = NULL, longer = NULL, large = NULL;
  g_autofree char *text = g_strnfill (17 * 1024, 'a'), *spaces = g_strnfill ((1 << 20) + 1, '\n');
  g_autofree char *prompt = g_strdup_printf ("1\n00:00:01,000 --> 00:00:02,000\n%s\n", text);

  g_assert_null (gst_dualparal_storyboard_parse (CUE "\0", strlen (CUE) + 1, &zero));
  g_assert_error (zero, DP_ERROR, DP_ERROR_SETTINGS);
  g_assert_null (gst_dualparal_storyboard_parse (prompt, strlen (prompt), &longer));
  g_assert_nonnull (strstr (longer->message, "line 3: prompt"));
  g_assert_null (gst_dualparal_storyboard_parse (spaces, strlen (spaces), &large));
  g_assert_nonnull (strstr (large->message, "1048576"));
}

static void
test_files (void)
{
  g_autoptr (GError) missing = NULL, directory = NULL;

  g_assert_null (gst_dualparal_storyboard_read ("/nowhere/at-all.srt", &missing));
  g_assert_error (missing, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (missing->message, "/nowhere/at-all.srt"));
  g_assert_null (gst_dualparal_storyboard_read ("/", &directory));
  g_assert_nonnull (directory);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/storyboard/read", test_read);
  g_test_add_func ("/storyboard/refused", test_refused);
  g_test_add_func ("/storyboard/sizes", test_sizes);
  g_test_add_func ("/storyboard/files", test_files);
  return g_test_run ();
}
