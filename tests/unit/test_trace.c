/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The file itself: that it is JSON at every moment, ends where it has to, and is nobody else's. What the engine writes into it is looked at
 * in tests/stream.
 */
#include "engine/trace.h"
#include "engine/dualparal.h"

#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <string.h>
#include <unistd.h>

static char *dir;

static char *
path_of (const char *name)
{
  return g_build_filename (dir, name, NULL);
}

static DpTrace *
open_trace (const char *path, gsize limit)
{
  g_autoptr (GError) error = NULL;
  DpTrace *t = dp_trace_new (path, 2, limit, &error);

  g_assert_no_error (error);
  g_assert_nonnull (t);
  return t;
}

/* The events with this name; `cut` is what a viewer adds to a file that has no end. */
static guint
count (const char *path, const char *name, const char *cut, gsize *size)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) error = NULL;
  g_autofree char *text = NULL;
  guint n = 0;

  g_assert_true (g_file_get_contents (path, &text, size, NULL));
  g_autofree char *whole = g_strconcat (text, cut, NULL);
  json_parser_load_from_data (parser, whole, -1, &error);
  g_assert_no_error (error);
  JsonArray *events = json_node_get_array (json_parser_get_root (parser));
  for (guint i = 0; i < json_array_get_length (events); i++) {
    JsonObject *event = json_array_get_object_element (events, i);

    g_assert_cmpint (json_object_get_int_member (event, "pid"), ==, 1);
    n += g_str_equal (json_object_get_string_member (event, "name"), name);
  }
  return n;
}

static void
test_events (void)
{
  g_autofree char *path = path_of ("events");
  DpTrace *t = open_trace (path, DP_TRACE_LIMIT);
  gint64 now = g_get_monotonic_time ();
  gsize size;

  dp_trace_span (t, DP_TRACE_STAGE + 1, "pass", 5, now, now + 1000, "\"block\":%d", 5);
  dp_trace_span (t, DP_TRACE_TEXT, "encode", -1, now, now, " ");
  dp_trace_transfer (t, 0, 1, G_MAXINT64, 999, now, now + 1);
  dp_trace_instant (t, DP_TRACE_FRAMES, "frame", "\"frame\":%d", 1);
  dp_trace_counter (t, "queue", 3);
  dp_trace_free (t);
  g_assert_cmpint (count (path, "block 5", "", &size), ==, 1);
  g_assert_cmpint (count (path, "encode", "", &size), ==, 1);
  g_assert_cmpint (count (path, "stage 0 to 1", "", &size), ==, 2);
  g_assert_cmpint (count (path, "frame", "", &size), ==, 1);
  g_assert_cmpint (count (path, "queue", "", &size), ==, 1);
  g_assert_cmpint (count (path, "thread_name", "", &size), ==, 5);

  /* begun anew, also when it was longer */
  dp_trace_free (open_trace (path, DP_TRACE_LIMIT));
  g_assert_cmpint (count (path, "block 5", "", &size), ==, 0);
}

/* What is in the file at any time lacks nothing but the bracket. */
static void
test_unfinished (void)
{
  g_autofree char *path = path_of ("unfinished");
  DpTrace *t = open_trace (path, DP_TRACE_LIMIT);
  guint seen = 0, now = 0;
  gsize size = 0, before = 0;

  for (int i = 0, looks = 0; looks < 5; i++) {
    dp_trace_span (t, DP_TRACE_DECODER, "decode", i, i * 1000, i * 1000 + 7 * i % 900, "\"block\":%d", i);
    GStatBuf st;
    g_assert_cmpint (g_stat (path, &st), ==, 0);
    if ((gsize) st.st_size == before)
      continue;
    before = st.st_size;
    now = count (path, "block 0", "]", &size);
    g_assert_cmpint (now, ==, 1);
    seen++;
    looks++;
  }
  g_assert_cmpint (seen, ==, 5);
  /* nor does the last event wait for long */
  g_usleep (1100000);
  dp_trace_instant (t, DP_TRACE_FRAMES, "late", " ");
  g_assert_cmpint (count (path, "late", "]", &size), ==, 1);
  dp_trace_free (t);
}

static void
test_limit (void)
{
  g_autofree char *path = path_of ("limit");
  const gsize limit = 200000;
  DpTrace *t = open_trace (path, limit);
  gsize size;

  for (int i = 0; i < 5000; i++)
    dp_trace_instant (t, DP_TRACE_FRAMES, "frame", "\"frame\":%d", i);
  guint there = count (path, "frame", "", &size);       /* complete before it is closed */
  g_assert_cmpuint (there, >, 1000);
  g_assert_cmpuint (there, <, 5000);
  g_assert_cmpuint (size, <=, limit);
  g_assert_cmpuint (size, >, limit - 512);
  dp_trace_free (t);
  g_assert_cmpuint (count (path, "frame", "", &size), ==, there);
}

static gpointer
writer (gpointer data)
{
  for (int i = 0; i < 2000; i++) {
    dp_trace_transfer (data, 0, 1, i, 0, i, i + 1);
    dp_trace_counter (data, "queue", i);
  }
  return NULL;
}

static void
test_threads (void)
{
  g_autofree char *path = path_of ("threads");
  DpTrace *t = open_trace (path, DP_TRACE_LIMIT);
  GThread *threads[4];
  gsize size;

  for (int i = 0; i < 4; i++)
    threads[i] = g_thread_new ("writer", writer, t);
  for (int i = 0; i < 4; i++)
    g_thread_join (threads[i]);
  dp_trace_free (t);
  g_assert_cmpint (count (path, "queue", "", &size), ==, 8000);
  g_assert_cmpint (count (path, "stage 0 to 1", "", &size), ==, 16000);
}

static void
check_refused (const char *path, const char *needle)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (dp_trace_new (path, 1, DP_TRACE_LIMIT, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_SETTINGS);
  g_test_message ("%s", error->message);
  g_assert_nonnull (strstr (error->message, path));
  g_assert_nonnull (strstr (error->message, needle));
}

static void
test_refused (void)
{
  g_autofree char *path = path_of ("taken"), *missing = path_of ("no/such/file"), *pipe = path_of ("pipe");
  DpTrace *t = open_trace (path, DP_TRACE_LIMIT);
  gsize size;

  check_refused (path, "another trace");
  dp_trace_free (t);
  g_assert_cmpint (count (path, "thread_name", "", &size), ==, 5);      /* who was refused left it alone */
  dp_trace_free (open_trace (path, DP_TRACE_LIMIT));
  check_refused (missing, "No such file");
  check_refused (dir, "directory");
  g_assert_cmpint (mkfifo (pipe, 0600), ==, 0);
  check_refused (pipe, "No such device");       /* as a pipe without a reader is called */
  FILE *reader = fopen (pipe, "r+");
  check_refused (pipe, "no file");
  fclose (reader);
}

/* A disk without room ends it, which is said at the end and nowhere else: a warning would be fatal here. */
static void
test_full_disk (void)
{
  if (g_access ("/dev/full", W_OK) != 0) {
    g_test_skip ("no /dev/full here");
    return;
  }
  for (int events = 0; events <= 5000; events += 5000) {        /* full at the end, and before */
    DpTrace *t = open_trace ("/dev/full", DP_TRACE_LIMIT);

    for (int i = 0; i < events; i++)
      dp_trace_counter (t, "queue", i);
    g_assert_true (events > 0 || dp_trace_check (t, NULL));
    for (int i = 0; i < 2; i++) {
      g_autoptr (GError) error = NULL;

      g_assert_false (dp_trace_end (t, &error));
      g_assert_error (error, DP_ERROR, DP_ERROR_FAILED);
      g_assert_cmpstr (error->message, ==, "trace: /dev/full ends too early: No space left on device");
    }
    dp_trace_free (t);
  }
  /* Or as soon as it is noticed, and then once. */
  DpTrace *full = open_trace ("/dev/full", DP_TRACE_LIMIT);
  g_autoptr (GError) noticed = NULL;

  for (int i = 0; i < 5000; i++)
    dp_trace_counter (full, "queue", i);
  g_assert_false (dp_trace_check (full, &noticed));
  g_assert_nonnull (strstr (noticed->message, "/dev/full ends too early"));
  g_assert_true (dp_trace_check (full, NULL) && dp_trace_end (full, NULL));
  dp_trace_free (full);

  g_autofree char *path = path_of ("ended");
  DpTrace *t = open_trace (path, DP_TRACE_LIMIT);
  gsize size;

  g_assert_true (dp_trace_end (t, NULL));
  dp_trace_counter (t, "queue", 1);
  dp_trace_free (t);
  g_assert_cmpint (count (path, "queue", "", &size), ==, 0);
}

static void
test_none (void)
{
  dp_trace_span (NULL, DP_TRACE_TEXT, "encode", -1, 0, 1, " ");
  dp_trace_transfer (NULL, 0, 1, 0, 0, 0, 1);
  dp_trace_instant (NULL, DP_TRACE_FRAMES, "frame", " ");
  dp_trace_counter (NULL, "queue", 1);
  g_assert_true (dp_trace_end (NULL, NULL));
  dp_trace_free (NULL);
}

/* ---- what another process did ---- */

static GArray *sent;            /* of DpTraceEvent */
static guint sendings;

static void
send_events (const DpTraceEvent *events, guint n, gpointer data)
{
  g_assert_true (data == &sendings);
  g_array_append_vals (sent, events, n);
  sendings++;
}

/* Stage 1 is a second ahead. */
static gint64
clock_of (int stage)
{
  return stage == 1 ? -G_USEC_PER_SEC : 0;
}

static gint64
number_of (const char *text, const char *event, const char *key)
{
  const char *at = strstr (text, event), *value = at ? strstr (at, key) : NULL;

  g_assert_nonnull (value);
  return g_ascii_strtoll (value + strlen (key), NULL, 10);
}

/* All of it arrives, in order, and each time is put to this process's clock. */
static void
test_remote (void)
{
  g_autofree char *path = path_of ("remote"), *text = NULL;
  DpTrace *remote = dp_trace_new_remote (send_events, &sendings), *t = open_trace (path, DP_TRACE_LIMIT);
  gint64 now = g_get_monotonic_time (), there = now + G_USEC_PER_SEC;
  gsize size;

  sent = g_array_new (FALSE, FALSE, sizeof (DpTraceEvent));
  for (int i = 0; i < 150; i++)
    dp_trace_event (remote, &(DpTraceEvent) { .what = DP_TRACE_PASS, .stage = 1, .block = i, .start_us = there + 1000 * i,
        .end_us = there + 1000 * i + 500 });
  dp_trace_event (remote, &(DpTraceEvent) { .what = DP_TRACE_TRANSFER, .stage = 1, .from = 0, .block = 7, .start_us = now + 10,
      .end_us = there + 30 });
  dp_trace_event (remote, &(DpTraceEvent) { .what = DP_TRACE_LOAD, .stage = 1, .halves = 3, .start_us = there, .end_us = there + 5 });
  g_assert_cmpuint (sendings, ==, 2);   /* by dozens */
  dp_trace_pass_on (remote);
  g_assert_cmpuint (sendings, ==, 3);
  dp_trace_pass_on (remote);    /* nothing is left */
  g_assert_cmpuint (sendings, ==, 3);
  g_assert_cmpuint (sent->len, ==, 152);
  dp_trace_free (remote);

  dp_trace_set_clock (t, clock_of);
  for (guint i = 0; i < sent->len; i++)
    dp_trace_event (t, &g_array_index (sent, DpTraceEvent, i));
  dp_trace_free (t);
  g_assert_cmpint (count (path, "load", "", &size), ==, 1);
  g_assert_cmpint (count (path, "stage 0 to 1", "", &size), ==, 2);
  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  gint64 first = number_of (text, "\"block 0\"", "\"ts\":");
  g_assert_cmpint (ABS (first), <, G_USEC_PER_SEC / 2); /* since the file was opened */
  g_assert_cmpint (number_of (text, "\"block 149\"", "\"ts\":") - first, ==, 149000);
  g_assert_cmpint (number_of (text, "\"ph\":\"b\"", "\"ts\":") - first, ==, 10);
  g_assert_cmpint (number_of (text, "\"ph\":\"e\"", "\"ts\":") - first, ==, 30);
  g_array_unref (sent);
}

int
main (int argc, char **argv)
{
  int result;

  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("dp-trace-XXXXXX", NULL);
  g_test_add_func ("/trace/events", test_events);
  g_test_add_func ("/trace/unfinished", test_unfinished);
  g_test_add_func ("/trace/limit", test_limit);
  g_test_add_func ("/trace/threads", test_threads);
  g_test_add_func ("/trace/refused", test_refused);
  g_test_add_func ("/trace/full-disk", test_full_disk);
  g_test_add_func ("/trace/none", test_none);
  g_test_add_func ("/trace/remote", test_remote);
  result = g_test_run ();
  static const char *const names[] = { "events", "unfinished", "limit", "threads", "taken", "pipe", "ended", "remote" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = path_of (names[i]);
    g_unlink (path);
  }
  g_rmdir (dir);
  g_free (dir);
  return result;
}
