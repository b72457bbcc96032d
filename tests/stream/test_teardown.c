/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_teardown.c: an engine goes away within a second whatever it is doing, and takes everything with it.
 */
#include "heap.h"
#include "stream.h"
#include "kernels/device.h"

/* Settings under which one block takes far longer than a teardown may, and on a CPU one pass. */
static DpSettings
heavy (void)
{
  DpSettings s = stream_small ();

  s.width = 1280;
  s.height = 720;
  s.steps = 1000;
  return s;
}

static void
close_within_a_second (const char *what, DpEngine *engine)
{
  TestClock start = test_clock ();

  dp_engine_free (engine);
  stream_check_seconds (what, start, 1);
}

/* The limits here are worth something: who sleeps is not excused, and who works is charged for it, whatever else runs. */
static void
test_clock_counts (void)
{
  TestClock start = test_clock ();

  g_usleep (1000000);
  g_assert_cmpfloat (test_clock_seconds (start), >=, 0.5);
  start = test_clock ();
  while (test_clock ().own - start.own < 0.3);
  g_assert_cmpfloat (test_clock_seconds (start), >=, 0.25 / g_get_num_processors ());
}

static void
test_null (void)
{
  dp_engine_free (NULL);
}

/* From right after open, through loading. */
static void
test_loading (void)
{
  static const int percent[] = { -1, 0, 1, 20, 40, 60, 80, 100 };

  for (guint i = 0; i < 2 * G_N_ELEMENTS (percent); i++) {
    DpSettings s = stream_small ();
    int loaded = percent[i / 2];
    g_autofree char *what = g_strdup_printf ("freed with %d %% loaded", loaded);
    StreamWatch watch;

    s.devices = stream_devices (i % 4 < 2 ? 1 : 3);
    DpEngine *engine = stream_open_watched (&s, &watch);
    if (i % 2)
      stream_start (engine);
    stream_wait_loaded (&watch, loaded);
    close_within_a_second (what, engine);
  }
}

/* Into the first passes, for as long as a frame is waited for. */
static void
test_early (void)
{
  for (int ms = 0; ms < 400; ms = ms < 40 ? ms + 5 : ms * 2) {
    DpSettings s = stream_small ();
    g_autofree char *what = g_strdup_printf ("freed after %d ms of waiting", ms);

    s.devices = stream_devices (ms % 20 ? 1 : 3);
    DpEngine *engine = stream_open (&s);
    dp_engine_wait (engine, 1, ms * 1000);
    close_within_a_second (what, engine);
  }
}

/* Loading and computing end in the middle of an operation. */
static void
test_heavy (void)
{
  static const int delays[] = { 0, 20, 50, 100, 300, 1000, 3000 };

  for (guint i = 0; i < G_N_ELEMENTS (delays); i++) {
    DpSettings s = heavy ();
    g_autofree char *what = g_strdup_printf ("1280x720 freed after %d ms", delays[i]);

    s.devices = stream_devices (1 + i % 2);
    DpEngine *engine = stream_open (&s);
    dp_engine_wait (engine, 1, delays[i] * 1000);
    close_within_a_second (what, engine);
  }
}

/* In the middle of a latent's decoding: block 0 is done and its first frame not yet there. */
static void
test_decoding (void)
{
  DpSettings s = heavy ();
  StreamWatch watch;

  s.steps = s.queue_blocks = 1;
  s.guidance_scale = 1;
  s.block_latents = 1;
  s.context_latents = -1;
  s.width = 2048;
  s.height = 1152;
  DpEngine *engine = stream_open_watched (&s, &watch);
  stream_start (engine);
  stream_wait_blocks (&watch, 1);
  dp_engine_wait (engine, 1, 20000);
  close_within_a_second ("2048x1152 freed while a latent was decoded", engine);
}

static void
test_full_queue (void)
{
  DpSettings s = stream_small ();
  DpStats stats, later;

  s.max_queue_frames = 7;
  DpEngine *engine = stream_open (&s);
  g_assert_true (dp_engine_wait (engine, 7, -1));

  /* the queue is the rate limiter: everything comes to rest, and says that it waited */
  int looks = 0;
  do {
    dp_engine_get_stats (engine, &stats);
    g_usleep (G_USEC_PER_SEC);
    dp_engine_get_stats (engine, &later);
  } while (later.passes != stats.passes && ++looks < 60 * stream_slowness ());
  g_assert_cmpuint (stats.queue_frames, ==, 7);
  g_assert_cmpuint (later.passes, ==, stats.passes);
  g_assert_cmpuint (later.frames, ==, 7);
  g_assert_false (later.ended);
  close_within_a_second ("freed with a full queue", engine);
}

/* A frame that was never given back is the caller's fault, but not a reason to hang. */
static void
test_frame_lent (void)
{
  DpSettings s = stream_small ();
  DpEngine *engine = stream_open (&s);
  DpFrame frame;
  gint64 next = 0;

  g_assert_true (stream_pull (engine, &frame, &next));
  close_within_a_second ("freed with a frame lent", engine);
}

/* ---- a puller in another thread ---- */

typedef struct
{
  DpEngine *engine;
  gint64 next;

  /* -- protected by lock */
  GMutex lock;
  GCond cond;
  gint64 pulls, frames, interrupted;
  int flushes;
  gboolean flushing, stop;
} Puller;

static gpointer
pull_until_stopped (gpointer data)
{
  Puller *p = data;

  g_mutex_lock (&p->lock);
  while (!p->stop) {
    g_autoptr (GError) error = NULL;
    DpFrame frame;

    p->pulls++;
    g_cond_broadcast (&p->cond);
    g_mutex_unlock (&p->lock);
    int result = dp_engine_pull (p->engine, &frame, -1, &error);
    g_mutex_lock (&p->lock);
    if (result == 1) {
      g_assert_cmpint (frame.index, ==, p->next++);
      p->frames++;
      dp_engine_release_frame (p->engine, &frame);
    } else {
      g_assert_cmpint (result, ==, -1);
      g_assert_error (error, DP_ERROR, DP_ERROR_FLUSHING);
      p->interrupted++;
      g_cond_broadcast (&p->cond);
      /* until this flush ends, or the next one has begun already */
      for (int flush = p->flushes; p->flushing && p->flushes == flush && !p->stop;)
        g_cond_wait (&p->cond, &p->lock);
    }
    g_cond_broadcast (&p->cond);
  }
  g_mutex_unlock (&p->lock);
  return NULL;
}

/* Until that has become so many more. */
static void
wait_more (Puller *p, const gint64 *value, int more)
{
  g_mutex_lock (&p->lock);
  for (gint64 enough = *value + more; *value < enough;)
    g_cond_wait (&p->cond, &p->lock);
  g_mutex_unlock (&p->lock);
}

/* `interrupts`: returns when a pull was. */
static void
set_flushing (Puller *p, gboolean flushing, gboolean interrupts)
{
  g_mutex_lock (&p->lock);
  gint64 before = p->interrupted;

  p->flushing = flushing;
  p->flushes += flushing;
  g_cond_broadcast (&p->cond);
  dp_engine_set_flushing (p->engine, flushing);
  while (interrupts && p->interrupted == before)
    g_cond_wait (&p->cond, &p->lock);
  g_mutex_unlock (&p->lock);
}

static void
stop (Puller *p)
{
  g_mutex_lock (&p->lock);
  p->stop = TRUE;
  g_cond_broadcast (&p->cond);
  g_mutex_unlock (&p->lock);
}

static void
test_waiting_puller (void)
{
  DpSettings s = heavy ();      /* its first frame does not come in the time this test takes */
  Puller p = { .engine = stream_open (&s) };
  GThread *thread = g_thread_new ("puller", pull_until_stopped, &p);

  g_mutex_lock (&p.lock);
  while (p.pulls == 0)
    g_cond_wait (&p.cond, &p.lock);
  g_mutex_unlock (&p.lock);
  stop (&p);
  TestClock start = test_clock ();
  set_flushing (&p, TRUE, FALSE);
  g_thread_join (thread);
  stream_check_seconds ("a waiting pull returned", start, 0.2);
  g_assert_cmpint (p.interrupted, ==, 1);
  g_assert_cmpint (p.frames, ==, 0);
  close_within_a_second ("freed while flushing", p.engine);
}

/* Flushing on and off many times, after some frames or at once, until a pull was interrupted or not even that: every index comes once
 * and in order, and nothing is cancelled. */
static void
test_flush_loses_nothing (void)
{
  DpSettings s = stream_small ();
  Puller p = { .engine = stream_open (&s) };
  DpFrame frame;

  g_assert_true (stream_pull (p.engine, &frame, &p.next));      /* loading is over */
  dp_engine_release_frame (p.engine, &frame);
  GThread *thread = g_thread_new ("puller", pull_until_stopped, &p);
  g_autoptr (GRand) rand = g_rand_new_with_seed (3);

  for (int i = 0; i < 100; i++) {
    wait_more (&p, &p.frames, g_rand_int_range (rand, 0, 5));
    set_flushing (&p, TRUE, i % 3);
    set_flushing (&p, FALSE, FALSE);
  }
  stop (&p);
  dp_engine_set_flushing (p.engine, TRUE);
  g_thread_join (thread);
  g_test_message ("%" G_GINT64_FORMAT " frames without a gap, %" G_GINT64_FORMAT " pulls interrupted", p.frames, p.interrupted);
  g_assert_cmpint (p.frames, >, 0);
  g_assert_cmpint (p.interrupted, >, 0);
  dp_engine_free (p.engine);
}

static void
test_timeout (void)
{
  DpSettings s = heavy ();
  DpEngine *engine = stream_open (&s);
  g_autoptr (GError) error = NULL;
  DpFrame frame;
  TestClock start = test_clock ();

  g_assert_cmpint (dp_engine_pull (engine, &frame, 0, &error), ==, -1);
  g_assert_no_error (error);
  stream_check_seconds ("a pull that does not wait", start, 0.1);
  start = test_clock ();
  g_assert_cmpint (dp_engine_pull (engine, &frame, 100000, &error), ==, -1);
  g_assert_no_error (error);
  g_assert_cmpint (g_get_monotonic_time () - start.us, >=, 100000);
  stream_check_seconds ("a pull that waits 0.1 s", start, 0.3);
  dp_engine_free (engine);

  /* as long as can be said */
  s = stream_small ();
  s.num_frames = 1;
  engine = stream_open (&s);
  g_assert_cmpint (dp_engine_pull (engine, &frame, G_MAXINT64, &error), ==, 1);
  dp_engine_release_frame (engine, &frame);
  g_assert_cmpint (dp_engine_pull (engine, &frame, G_MAXINT64, &error), ==, 0);
  g_assert_cmpint (dp_engine_pull (engine, &frame, -1, &error), ==, 0);
  dp_engine_free (engine);
}

static gpointer
wake_soon (gpointer engine)
{
  g_usleep (100000);
  dp_engine_wake (engine);
  return NULL;
}

/* Each thing that ends a wait, and no other. */
static void
test_wait (void)
{
  DpSettings s = stream_small ();
  gint64 next = 0, began;
  DpFrame frame;
  DpStats stats;

  s.num_frames = 12;
  s.max_queue_frames = 6;
  DpEngine *engine = stream_open (&s);
  g_assert_true (dp_engine_wait (engine, 4, -1));       /* starts the generation too */
  dp_engine_get_stats (engine, &stats);
  g_assert_cmpuint (stats.queue_frames, >=, 4);
  g_assert_true (dp_engine_wait (engine, G_MAXUINT, -1));       /* as many as the queue holds */
  dp_engine_get_stats (engine, &stats);
  g_assert_cmpuint (stats.queue_frames, ==, 6);

  while (next < 12 && stream_pull (engine, &frame, &next))
    dp_engine_release_frame (engine, &frame);
  g_assert_true (dp_engine_wait (engine, 1, -1));       /* the video has ended */
  dp_engine_free (engine);

  s = heavy ();
  engine = stream_open (&s);
  began = g_get_monotonic_time ();
  g_assert_true (dp_engine_wait (engine, 1, 50000));    /* nothing came */
  g_assert_cmpint (g_get_monotonic_time () - began, >=, 50000);
  dp_engine_wake (engine);
  g_assert_true (dp_engine_wait (engine, 1, -1));       /* woken before */
  began = g_get_monotonic_time ();
  GThread *thread = g_thread_new ("waker", wake_soon, engine);
  g_assert_true (dp_engine_wait (engine, 1, -1));       /* and while it waits: the wake before counts once */
  g_assert_cmpint (g_get_monotonic_time () - began, >=, 50000);
  g_thread_join (thread);
  dp_engine_set_flushing (engine, TRUE);
  g_assert_false (dp_engine_wait (engine, 1, -1));
  close_within_a_second ("freed while flushing", engine);
}

static void
test_prompts_pending (void)
{
  DpSettings s = stream_small ();
  DpEngine *engine = stream_open (&s);

  for (int i = 1; i <= 200; i++)
    g_assert_true (dp_engine_queue_prompt (engine, &(DpPrompt) { "another one", "and its negative", i % 3 ? 20000 + 16 * i : -1, i % 4 }, NULL));
  stream_start (engine);
  close_within_a_second ("freed with 200 prompts queued", engine);
}

/* ---- the end of a video ---- */

static void
test_lengths (void)
{
  static const int frames[] = { 1, 2, 4, 5, 6, 29, 32, 33, 34, 45, 46 };        /* block 0 owns 8 latents: 29 frames */

  for (guint i = 0; i < G_N_ELEMENTS (frames); i++) {
    DpSettings s = stream_small ();

    s.num_frames = frames[i];
    s.max_queue_frames = 1 + i % 3;
    g_autoptr (DpEngine) engine = stream_open (&s);
    gint64 next = 0;
    DpFrame frame;
    DpStats stats;
    while (stream_pull (engine, &frame, &next))
      dp_engine_release_frame (engine, &frame);
    g_assert_cmpint (next, ==, frames[i]);
    dp_engine_get_stats (engine, &stats);
    g_assert_true (stats.ended);
    g_assert_cmpuint (stats.frames, ==, frames[i]);
  }
}

/* ---- a failure while it runs ---- */

/* The noise runs out in the fourth block: the frames that are there are delivered, then the error, then the same error again. */
static void
test_failure (void)
{
  DpSettings s = stream_small ();
  gsize n = (gsize) 16 * 10 * 16 * 16;
  g_autofree float *noise = g_new (float, n);
  g_autoptr (GError) error = NULL, again = NULL;
  gint64 next = 0;
  DpFrame frame;
  int result;

  for (gsize i = 0; i < n; i++)
    noise[i] = (float) (i * 2654435761u % 2001) / 1000 - 1;
  s.devices = stream_devices (2);
  s.noise = noise;
  s.noise_latents = 16;
  s.max_queue_frames = 200;
  DpEngine *engine = stream_open (&s);
  while ((result = dp_engine_pull (engine, &frame, -1, &error)) == 1) {
    g_assert_cmpint (frame.index, ==, next++);
    dp_engine_release_frame (engine, &frame);
  }
  g_test_message ("%" G_GINT64_FORMAT " frames, then: %s", next, error ? error->message : "nothing");
  g_assert_cmpint (result, ==, -1);
  g_assert_error (error, DP_ERROR, DP_ERROR_SETTINGS);
  g_assert_cmpint (dp_engine_pull (engine, &frame, -1, &again), ==, -1);
  g_assert_cmpstr (again->message, ==, error->message);
  close_within_a_second ("freed after a failure", engine);
}

/* ---- nothing stays ---- */

static void
cycle (int i)
{
  DpSettings s = stream_small ();
  DpFrame frame;
  gint64 next = 0;

  s.devices = stream_devices (i % 3 ? 1 : 2);
  DpEngine *engine = stream_open (&s);
  if (i % 5 == 0 && stream_pull (engine, &frame, &next))
    dp_engine_release_frame (engine, &frame);
  else
    dp_engine_wait (engine, 1, i % 7 * 4000);
  dp_engine_free (engine);
}

/* Memory that is free on the GPU; what is on a CPU the other figures say. */
static gsize
free_on_gpu (void)
{
  DpDeviceInfo info;
  char error[256];

  if (!g_str_has_prefix (stream_device (), "cuda"))
    return 0;
  g_assert_true (dp_device_info (stream_device (), &info, error, sizeof error));
  return info.memory_free;
}

static void
test_cycles (void)
{
  int n = stream_slowness () > 1 ? 15 : 60;

  for (int i = 0; i < 15; i++)
    cycle (i);
  int fds = stream_count ("fd"), threads = stream_threads ();
  gsize before = stream_resident (FALSE), on_gpu = free_on_gpu ();
  HeapCounts heap, heap_before;
  gboolean counting = heap_counts (&heap_before);
  for (int i = 0; i < n; i++)
    cycle (i);
  double growth = ((double) stream_resident (FALSE) - before) / 1024;
  heap_counts (&heap);
  double live = (heap.live - heap_before.live) / 1024.0;
  g_test_message ("%d engines opened and freed: %.0f KiB more resident than after the first 15, %.1f KiB more on the heap", n, growth,
      live);
  g_assert_cmpint (stream_threads (), ==, threads);
  g_assert_cmpint (stream_count ("fd"), ==, fds);
  g_assert_cmpuint (free_on_gpu () + (4 << 20), >=, on_gpu);    /* a driver keeps a page or two */
  if (!counting || g_str_has_prefix (stream_device (), "cuda"))  /* whose libraries keep some 190 KiB an engine */
    return;
  g_assert_cmpfloat (live, <, 64);
  g_assert_cmpfloat (growth, <, 65536); /* what is freed is not always given back at once; 60 engines have 1.7 GiB */
}

int
main (int argc, char **argv)
{
  heap_init ();
  stream_init (&argc, &argv);
  g_test_add_func ("/teardown/clock", test_clock_counts);
  g_test_add_func ("/teardown/null", test_null);
  g_test_add_func ("/teardown/loading", test_loading);
  g_test_add_func ("/teardown/early", test_early);
  g_test_add_func ("/teardown/heavy", test_heavy);
  g_test_add_func ("/teardown/decoding", test_decoding);
  g_test_add_func ("/teardown/full-queue", test_full_queue);
  g_test_add_func ("/teardown/frame-lent", test_frame_lent);
  g_test_add_func ("/teardown/waiting-puller", test_waiting_puller);
  g_test_add_func ("/teardown/flush-loses-nothing", test_flush_loses_nothing);
  g_test_add_func ("/teardown/timeout", test_timeout);
  g_test_add_func ("/teardown/wait", test_wait);
  g_test_add_func ("/teardown/prompts-pending", test_prompts_pending);
  g_test_add_func ("/teardown/lengths", test_lengths);
  g_test_add_func ("/teardown/failure", test_failure);
  g_test_add_func ("/teardown/cycles", test_cycles);
  return g_test_run ();
}
