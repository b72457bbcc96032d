/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream.h"
#include "dualparal_testing.h"
#include "kernels/device.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature (address_sanitizer) || __has_feature (thread_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

static const char *named = "cpu";

void
stream_init (int *argc, char ***argv)
{
  char error[256];
  DpDeviceInfo info;

  if (*argc > 2 && g_str_equal ((*argv)[1], "--device")) {
    named = (*argv)[2];
    (*argv)[2] = (*argv)[0];
    *argc -= 2;
    *argv += 2;
  }
  g_test_init (argc, argv, NULL);
  if (!dp_device_info (stream_device (), &info, error, sizeof error)) {
    printf ("1..0 # SKIP %s\n", error);
    exit (0);
  }
}

const char *
stream_device (void)
{
  g_auto (GStrv) names = g_strsplit (named, ",", 2);

  return g_intern_string (names[0]);
}

const char *
stream_devices (int stages)
{
  g_autoptr (GString) devices = g_string_new (named);
  g_auto (GStrv) names = g_strsplit (named, ",", -1);
  const int n = g_strv_length (names);

  for (int i = n; i < stages; i++)
    g_string_append_printf (devices, ",%s", names[i % n]);
  return g_intern_string (devices->str);
}

double
stream_slowness (void)
{
  const char *preload = g_getenv ("LD_PRELOAD");

#ifdef SANITIZED
  return 15;
#endif
  return preload && strstr (preload, "vgpreload") ? 60 : 1;
}

const char *
stream_model (void)
{
  return g_str_has_prefix (stream_device (), "cuda") ? g_getenv ("DUALPARAL_TEST_MODEL") : STREAM_MODEL;
}

DpSettings
stream_small (void)
{
  gboolean slow = stream_slowness () > 1;

  return (DpSettings) { .model = stream_model (), .devices = stream_devices (1), .width = slow ? 32 : 64, .height = slow ? 32 : 48,
    .steps = 2, .guidance_scale = slow ? 1 : 3, .block_latents = 4, .context_latents = 4, .queue_blocks = 2, .sampler = "unipc",
    .num_frames = -1, .threads = 2, .seed = 7, .format = DP_FORMAT_I420, .prompt = "a red ball bouncing over a green meadow" };
}

DpPlan *
stream_plan (const DpSettings *settings)
{
  g_autoptr (GError) error = NULL;
  DpPlan *plan = dp_plan_new (settings, &error);

  g_assert_no_error (error);
  g_assert_nonnull (plan);
  return plan;
}

gboolean
stream_try_open (DpEngine **engine, const DpSettings *settings, DpProgress progress, gpointer user_data, GError **error)
{
  g_autoptr (DpPlan) plan = dp_plan_new (settings, error);

  return plan && dp_engine_open (engine, plan, progress, user_data, error);
}

DpEngine *
stream_open (const DpSettings *settings)
{
  g_autoptr (GError) error = NULL;
  DpEngine *engine = NULL;

  stream_try_open (&engine, settings, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_nonnull (engine);
  return engine;
}

void
stream_start (DpEngine *engine)
{
  g_autoptr (GError) error = NULL;
  DpFrame frame;

  g_assert_cmpint (dp_engine_pull (engine, &frame, 0, &error), ==, -1);
  g_assert_no_error (error);
}

gboolean
stream_pull (DpEngine *engine, DpFrame *frame, gint64 *next)
{
  g_autoptr (GError) error = NULL;
  int result = dp_engine_pull (engine, frame, (gint64) (120e6 * stream_slowness ()), &error);

  g_assert_no_error (error);
  g_assert_cmpint (result, !=, -1);     /* -1 without an error: nothing came in all that time */
  if (result == 1)
    g_assert_cmpint (frame->index, ==, (*next)++);
  return result == 1;
}

void
stream_pull_until_block (DpEngine *engine, gint64 block, gint64 *next, DpFrame *frame)
{
  DpFrame lent;

  do {
    g_assert_true (stream_pull (engine, &lent, next));
    *frame = lent;
    dp_engine_release_frame (engine, &lent);
  } while (frame->block < block);
}

void
stream_hash_frame (GChecksum *sum, const DpFrame *frame)
{
  g_assert_cmpint (frame->format, ==, DP_FORMAT_I420);
  for (int p = 0; p < 3; p++)
    for (int y = 0; y < (p ? frame->height / 2 : frame->height); y++)
      g_checksum_update (sum, frame->planes[p] + (gsize) y * frame->strides[p], p ? frame->width / 2 : frame->width);
}

char *
stream_hash (const DpSettings *settings)
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_autoptr (DpEngine) engine = stream_open (settings);
  DpFrame frame;
  gint64 next = 0;

  while (stream_pull (engine, &frame, &next)) {
    stream_hash_frame (sum, &frame);
    dp_engine_release_frame (engine, &frame);
  }
  g_assert_cmpint (next, ==, settings->num_frames);
  return g_strdup (g_checksum_get_string (sum));
}

void
stream_check_seconds (const char *what, TestClock start, double limit)
{
  double seconds = test_clock_seconds (start);

  g_test_message ("%s: %.3f s (at most %g)", what, seconds, limit * stream_slowness ());
  if (!(seconds <= limit * stream_slowness ()))
    g_test_fail_printf ("%s took %.3f s, over %g", what, seconds, limit * stream_slowness ());
}

/* ---- waiting ---- */

void
stream_wait_until (const char *what, gboolean (*is_so) (gpointer data), gpointer data, double seconds)
{
  const gint64 end = g_get_monotonic_time () + (gint64) (seconds * stream_slowness () * G_USEC_PER_SEC);

  while (!is_so (data)) {
    if (g_get_monotonic_time () > end)
      g_error ("%s: not within %g s", what, seconds * stream_slowness ());
    g_usleep (10000);
  }
}

typedef struct
{
  int threads, looks;
} Settling;

static gboolean
is_settled (gpointer data)
{
  Settling *s = data;
  int now = stream_count ("task");

  s->looks = now == s->threads ? s->looks + 1 : 0;
  s->threads = now;
  return s->looks == 5;
}

int
stream_threads (void)
{
  Settling s = { 0, 0 };

  stream_wait_until ("the number of threads stays the same", is_settled, &s, 10);
  return s.threads;
}

static void
saw_progress (const char *code, const char *text, int percent, gpointer data)
{
  StreamWatch *w = data;

  g_mutex_lock (&w->lock);
  w->percent = MAX (w->percent, percent);
  g_cond_broadcast (&w->cond);
  g_mutex_unlock (&w->lock);
}

static void
saw_block (const float *latents, int n, int h, int width, int channels, gpointer data)
{
  StreamWatch *w = data;

  g_mutex_lock (&w->lock);
  w->blocks++;
  g_cond_broadcast (&w->cond);
  g_mutex_unlock (&w->lock);
}

DpEngine *
stream_open_watched (const DpSettings *settings, StreamWatch *watch)
{
  g_autoptr (GError) error = NULL;
  DpEngine *engine = NULL;

  *watch = (StreamWatch) { .percent = -1 };
  g_mutex_init (&watch->lock);
  g_cond_init (&watch->cond);
  stream_try_open (&engine, settings, saw_progress, watch, &error);
  g_assert_no_error (error);
  dp_engine_set_latents_callback (engine, saw_block, watch);
  return engine;
}

static void
wait_for (StreamWatch *w, const int *value, int at_least)
{
  g_mutex_lock (&w->lock);
  while (*value < at_least)
    g_cond_wait (&w->cond, &w->lock);
  g_mutex_unlock (&w->lock);
}

void
stream_wait_loaded (StreamWatch *watch, int percent)
{
  wait_for (watch, &watch->percent, percent);
}

void
stream_wait_blocks (StreamWatch *watch, int blocks)
{
  wait_for (watch, &watch->blocks, blocks);
}

/* ---- models with something wrong ---- */

static void
link_entries (const char *from, const char *to, const char *except)
{
  g_autoptr (GDir) dir = g_dir_open (from, 0, NULL);
  const char *name;

  g_assert_nonnull (dir);
  while ((name = g_dir_read_name (dir))) {
    g_autofree char *target = g_build_filename (from, name, NULL), *link = g_build_filename (to, name, NULL);

    if (strcmp (name, except) != 0)
      g_assert_cmpint (symlink (target, link), ==, 0);
  }
}

char *
stream_model_new (const char *file, const void *data, gsize size)
{
  const char *elsewhere = g_getenv ("DUALPARAL_TEST_MODEL"), *embedded = elsewhere ? elsewhere : dp_model_embedded ();
  char *dir = g_dir_make_tmp ("dp-stream-XXXXXX", NULL);
  g_auto (GStrv) parts = g_strsplit (file, "/", 2);
  g_autofree char *path = g_build_filename (dir, file, NULL);

  g_assert_nonnull (embedded);
  link_entries (embedded, dir, parts[0]);
  if (parts[1]) {
    g_autofree char *from = g_build_filename (embedded, parts[0], NULL), *to = g_build_filename (dir, parts[0], NULL);

    g_assert_cmpint (g_mkdir (to, 0700), ==, 0);
    link_entries (from, to, parts[1]);
  }
  if (data)
    g_assert_true (g_file_set_contents (path, data, size, NULL));
  return dir;
}

static void
remove_tree (const char *path)
{
  GDir *dir = g_file_test (path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open (path, 0, NULL);
  const char *name;

  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *child = g_build_filename (path, name, NULL);
    remove_tree (child);
  }
  if (dir)
    g_dir_close (dir);
  g_assert_cmpint (g_remove (path), ==, 0);
}

void
stream_model_free (char *dir)
{
  remove_tree (dir);
  g_free (dir);
}

GBytes *
stream_model_file (const char *file)
{
  const char *elsewhere = g_getenv ("DUALPARAL_TEST_MODEL");
  g_autofree char *path = g_build_filename (elsewhere ? elsewhere : dp_model_embedded (), file, NULL);
  char *data;
  gsize size;

  g_assert_true (g_file_get_contents (path, &data, &size, NULL));
  return g_bytes_new_take (data, size);
}

/* ---- the process ---- */

gsize
stream_resident (gboolean all)
{
  FILE *f = fopen ("/proc/self/smaps_rollup", "re");
  char line[256];
  unsigned long long kib, bytes = 0;

  g_assert_nonnull (f);
  while (fgets (line, sizeof line, f))
    if (sscanf (line, all ? "Rss: %llu kB" : "Anonymous: %llu kB", &kib) == 1)
      bytes = kib * 1024;
  fclose (f);
  return bytes;
}

int
stream_count (const char *what)
{
  g_autofree char *path = g_build_filename ("/proc/self", what, NULL);
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  int n = 0;

  g_assert_nonnull (dir);
  while (g_dir_read_name (dir))
    n++;
  return n;
}
