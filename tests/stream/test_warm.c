/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_warm.c: what an engine leaves for the next one is used when it is the same, and makes the same video; and is gone when it should be.
 */
#include "heap.h"
#include "stream.h"
#include "part_cache.h"

#include <string.h>

#define WEIGHTS "vae/diffusion_pytorch_model.safetensors"

static DpSettings
lingering (void)
{
  DpSettings s = stream_small ();

  s.num_frames = 40;
  s.linger = 3600;
  return s;
}

/* The video's hash, and how many device allocations it took to open the engine and make it. */
static char *
run (const DpSettings *settings, guint64 *allocations)
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_autoptr (DpEngine) engine = stream_open (settings);
  DpFrame frame;
  DpStats stats;
  gint64 next = 0;

  while (stream_pull (engine, &frame, &next)) {
    stream_hash_frame (sum, &frame);
    dp_engine_release_frame (engine, &frame);
  }
  g_assert_cmpint (next, ==, settings->num_frames);
  dp_engine_get_stats (engine, &stats);
  if (allocations)
    *allocations = stats.allocations;
  return g_strdup (g_checksum_get_string (sum));
}

static void
test_same (void)
{
  for (int stages = 1; stages <= 3; stages += 2) {
    DpSettings s = lingering ();
    guint64 cold, warm;

    s.devices = stream_devices (stages);
    g_autofree char *first = run (&s, &cold);
    gsize left = dp_part_cache_bytes (stream_device ());
    g_autofree char *second = run (&s, &warm);

    g_test_message ("%s: %" G_GUINT64_FORMAT " allocations cold, %" G_GUINT64_FORMAT " warm", s.devices, cold, warm);
    g_assert_cmpstr (second, ==, first);
    g_assert_cmpuint (left, >, 0);
    g_assert_cmpuint (dp_part_cache_bytes (stream_device ()), ==, left);
    g_assert_cmpuint (warm * 4, <, cold);
    dp_part_cache_clear ();
    g_assert_cmpuint (dp_part_cache_bytes (stream_device ()), ==, 0);
  }
}

/* Another prompt, seed, length, sampler or guidance above 1 is nothing to load. */
static void
test_same_model (void)
{
  DpSettings s = lingering ();
  guint64 cold, warm;
  g_autofree char *other_cold = NULL, *other_warm = NULL;

  g_free (run (&s, &cold));
  s.prompt = "a green star rolling over grey stones";
  s.seed = 8;
  s.guidance_scale = 5;
  s.num_frames = 30;
  other_warm = run (&s, &warm);
  g_assert_cmpuint (warm * 4, <, cold);
  dp_part_cache_clear ();
  other_cold = run (&s, NULL);
  g_assert_cmpstr (other_warm, ==, other_cold);
  dp_part_cache_clear ();
}

/* Another size finds the text encoder only, and what it has no use for is freed. */
static void
test_other_size (void)
{
  DpSettings s = lingering (), small = lingering ();
  g_autofree char *after = NULL, *alone = NULL;
  gsize large;

  small.width = small.height = 16;
  g_free (run (&s, NULL));
  large = dp_part_cache_bytes (stream_device ());
  after = run (&small, NULL);
  g_assert_cmpuint (dp_part_cache_bytes (stream_device ()), <, large);
  dp_part_cache_clear ();
  alone = run (&small, NULL);
  g_assert_cmpstr (after, ==, alone);
  dp_part_cache_clear ();
}

/* Whatever it was doing when it was freed: running, or loading, of which nothing half done may be kept. */
static void
test_after_teardown (void)
{
  DpSettings s = lingering ();
  g_autofree char *expected = run (&s, NULL);

  for (int i = 0; i < 24; i++) {
    if (i % 2)
      dp_part_cache_clear ();
    DpEngine *engine = stream_open (&s);
    dp_engine_wait (engine, 1, i * 6000);
    dp_engine_free (engine);
    g_autofree char *hash = run (&s, NULL);
    g_assert_cmpstr (hash, ==, expected);
  }
  dp_part_cache_clear ();
}

static void
test_two_at_once (void)
{
  DpSettings s = lingering ();
  g_autofree char *expected = run (&s, NULL);

  for (int round = 0; round < 2; round++) {     /* one finds it warm; then both do */
    DpEngine *other = stream_open (&s);
    stream_start (other);
    g_autofree char *hash = run (&s, NULL);
    g_assert_cmpstr (hash, ==, expected);
    dp_engine_free (other);
  }
  dp_part_cache_clear ();
}

/* Weights that were replaced in the meantime are loaded. */
static void
test_changed_model (void)
{
  g_autoptr (GBytes) weights = stream_model_file (WEIGHTS);
  gsize size;
  const char *data = g_bytes_get_data (weights, &size);
  g_autofree char *changed = g_memdup2 (data, size);
  char *dir = stream_model_new (WEIGHTS, data, size);
  g_autofree char *path = g_build_filename (dir, WEIGHTS, NULL), *before = NULL, *after = NULL;
  DpSettings s = lingering ();

  s.model = dir;
  before = run (&s, NULL);
  for (gsize i = size / 4 * 2; i < size; i += 2)
    changed[i] ^= 0x40;         /* of each mantissa: numbers stay finite, and the header as it is */
  memset (changed + size - 4096, 0, 4096);
  g_assert_true (g_file_set_contents (path, changed, size, NULL));
  after = run (&s, NULL);
  g_assert_cmpstr (after, !=, before);
  dp_part_cache_clear ();
  stream_model_free (dir);
}

static gboolean
is_cold (gpointer unused G_GNUC_UNUSED)
{
  return dp_part_cache_bytes (stream_device ()) == 0;
}

static void
test_runs_out (void)
{
  DpSettings s = lingering ();
  int threads = stream_threads ();
  gint64 start;

  s.linger = 1;
  g_free (run (&s, NULL));
  start = g_get_monotonic_time ();
  g_assert_cmpuint (dp_part_cache_bytes (stream_device ()), >, 0);
  stream_wait_until ("what lingered is freed", is_cold, NULL, 11);
  g_assert_cmpfloat ((g_get_monotonic_time () - start) / 1e6, >, 0.9);
  g_assert_cmpint (stream_threads (), ==, threads);

  s.linger = 0;
  g_free (run (&s, NULL));
  g_assert_cmpuint (dp_part_cache_bytes (stream_device ()), ==, 0);
}

/* ---- two threads that load, while what was kept is freed, which takes its time */

static int slow_frees;

static void
free_slowly (DpPart *part G_GNUC_UNUSED)
{
  g_usleep (200000);
  g_atomic_int_inc (&slow_frees);
}

static gpointer
open_part (gpointer unused G_GNUC_UNUSED)
{
  dp_part_cache_begin ();
  DpPart *part = dp_part_cache_take (sizeof *part, g_string_new ("other"), free_slowly);
  dp_part_cache_end ();
  g_assert_true (dp_part_cache_open_device (part, stream_device (), 1, NULL));
  int freed = g_atomic_int_get (&slow_frees);
  dp_part_cache_give (part, 0);
  return GINT_TO_POINTER (freed);
}

/* Each has the memory that was kept. */
static void
test_waits (void)
{
  DpPart *kept;
  GThread *threads[2];

  dp_part_cache_begin ();
  kept = dp_part_cache_take (sizeof *kept, g_string_new ("kept"), free_slowly);
  dp_part_cache_end ();
  g_assert_true (dp_part_cache_open_device (kept, stream_device (), 1, NULL));
  dp_part_cache_loaded (kept);
  dp_part_cache_give (kept, 3600);
  g_assert_cmpint (slow_frees, ==, 0);
  for (int i = 0; i < 2; i++)
    threads[i] = g_thread_new ("open", open_part, NULL);
  for (int i = 0; i < 2; i++)
    g_assert_cmpint (GPOINTER_TO_INT (g_thread_join (threads[i])), >=, 1);
}

/* A part that failed to load, and those beside it, are not kept. */
static void
test_failed (void)
{
  char *dir = stream_model_new (WEIGHTS, NULL, 0);
  DpSettings s = lingering ();
  g_autoptr (GError) error = NULL;
  DpEngine *engine = NULL;
  DpFrame frame;

  s.model = dir;
  g_assert_false (stream_try_open (&engine, &s, NULL, NULL, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_clear_error (&error);
  stream_model_free (dir);

  dir = stream_model_new ("tokenizer/spiece.model", "not one", 7);
  s.model = dir;
  engine = stream_open (&s);
  g_assert_cmpint (dp_engine_pull (engine, &frame, -1, &error), ==, -1);
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  dp_engine_free (engine);
  g_assert_cmpuint (dp_part_cache_bytes (stream_device ()), ==, 0);
  stream_model_free (dir);
}

/* Over and over: nothing grows, but for what a library may keep once. */
static void
test_cycles (void)
{
  DpSettings s = lingering ();
  const int cycles = stream_slowness () > 1 ? 10 : 60;
  double live[4] = { 0 };       /* KiB, after so many rounds */
  int threads = 0;

  g_free (run (&s, NULL));
  for (int round = 0; round < 4; round++) {
    HeapCounts heap;

    for (int i = 0; i < cycles; i++) {
      DpEngine *engine = stream_open (&s);

      dp_engine_wait (engine, 1, i * 37 % 20 * 1000);
      dp_engine_free (engine);
    }
    if (round > 0)
      g_assert_cmpint (stream_threads (), ==, threads);
    threads = stream_threads ();
    if (heap_counts (&heap))
      live[round] = heap.live / 1024.0;
  }
  g_test_message ("%d cycles each: %.1f, %.1f, %.1f KiB more", cycles, live[1] - live[0], live[2] - live[1], live[3] - live[2]);
  g_assert_cmpfloat (MIN (MIN (live[1] - live[0], live[2] - live[1]), live[3] - live[2]), <, 16);
  dp_part_cache_clear ();
}

/* What is said while the model loads. */
typedef struct
{
  GMutex lock;
  GArray *percents;
} Said;

static void
say (const char *code, const char *text, int percent, gpointer data)
{
  Said *said = data;

  g_mutex_lock (&said->lock);
  g_array_append_val (said->percents, percent);
  g_mutex_unlock (&said->lock);
}

static int
compare_ints (gconstpointer a, gconstpointer b)
{
  return *(const int *) a - *(const int *) b;
}

/* How many different percents; the first is 0 and the last 100, and none is said twice. */
static guint
count_percents (const DpSettings *settings)
{
  Said said = { .percents = g_array_new (FALSE, FALSE, sizeof (int)) };
  DpEngine *engine;
  DpFrame frame;
  gint64 next = 0;
  guint n;

  g_mutex_init (&said.lock);
  g_assert_true (stream_try_open (&engine, settings, say, &said, NULL));
  g_assert_true (stream_pull (engine, &frame, &next));
  dp_engine_release_frame (engine, &frame);
  dp_engine_free (engine);
  g_array_sort (said.percents, compare_ints);
  n = said.percents->len;
  g_assert_cmpint (g_array_index (said.percents, int, 0), ==, 0);
  g_assert_cmpint (g_array_index (said.percents, int, n - 1), ==, 100);
  for (guint i = 1; i < n; i++)
    g_assert_cmpint (g_array_index (said.percents, int, i), >, g_array_index (said.percents, int, i - 1));
  g_test_message ("%u reports", n);
  g_array_unref (said.percents);
  g_mutex_clear (&said.lock);
  return n;
}

/* Loading is told by bytes, and what is warm is there at once. */
static void
test_progress (void)
{
  for (int stages = 1; stages <= 3; stages += 2)
    for (int streamed = 0; streamed < 2; streamed++) {
      DpSettings s = lingering ();

      s.devices = stream_devices (stages);
      s.text_encoder = streamed ? "streamed" : "resident";
      g_assert_cmpuint (count_percents (&s), >, 30);
      g_assert_cmpuint (count_percents (&s), <=, 1 + stages + 2);
      dp_part_cache_clear ();
    }
}

int
main (int argc, char **argv)
{
  heap_init ();
  stream_init (&argc, &argv);
  g_test_add_func ("/warm/same", test_same);
  g_test_add_func ("/warm/same-model", test_same_model);
  g_test_add_func ("/warm/other-size", test_other_size);
  g_test_add_func ("/warm/after-teardown", test_after_teardown);
  g_test_add_func ("/warm/progress", test_progress);
  g_test_add_func ("/warm/two-at-once", test_two_at_once);
  g_test_add_func ("/warm/changed-model", test_changed_model);
  g_test_add_func ("/warm/runs-out", test_runs_out);
  g_test_add_func ("/warm/waits", test_waits);
  g_test_add_func ("/warm/failed", test_failed);
  g_test_add_func ("/warm/cycles", test_cycles);
  return g_test_run ();
}
