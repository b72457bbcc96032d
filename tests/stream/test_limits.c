/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_limits.c: a system that starts no more threads. The program's own g_thread_try_new() stands before GLib's and refuses the one that
 * the test names; the engine then says so, and leaves nothing behind. In the same way oneDNN is without memory.
 */
#include "stream.h"

#include "kernels/device.h"

#include <dlfcn.h>
#include <errno.h>
#include <oneapi/dnnl/dnnl.h>
#include <string.h>

static gint countdown;          /* atomic; the start of a thread that finds 1 fails */
static gint started;            /* atomic */

GThread *
g_thread_try_new (const char *name, GThreadFunc func, gpointer data, GError **error)
{
  static GThread *(*real) (const char *, GThreadFunc, gpointer, GError **);

  g_atomic_int_inc (&started);
  if (g_atomic_int_add (&countdown, -1) == 1) {
    g_set_error (error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN, "Error creating thread: %s", g_strerror (EAGAIN));
    return NULL;
  }
  if (real == NULL)
    *(void **) &real = dlsym (RTLD_NEXT, "g_thread_try_new");
  return real (name, func, data, error);
}

/* Plays nine frames with the nth thread refused; 0: none. */
static GError *
play (int stages, int linger, int nth)
{
  DpSettings s = stream_small ();
  DpEngine *engine = NULL;
  GError *error = NULL;
  DpFrame frame;

  s.devices = stream_devices (stages);
  s.num_frames = 9;
  s.linger = linger;
  started = 0;
  countdown = nth;
  if (stream_try_open (&engine, &s, NULL, NULL, &error))
    while (dp_engine_pull (engine, &frame, (gint64) (20e6 * stream_slowness ()), &error) == 1)
      dp_engine_release_frame (engine, &frame);
  dp_engine_free (engine);
  return error;
}

static void
test_no_threads (void)
{
  int threads, all;

  g_assert_no_error (play (3, 0, 0));
  all = started;
  g_assert_cmpint (all, ==, 5); /* text, decoder, three stages */
  threads = stream_threads ();
  for (int i = 1; i <= all; i++) {
    TestClock start = test_clock ();
    g_autoptr (GError) error = play (3, 0, i);

    g_assert_error (error, DP_ERROR, DP_ERROR_NO_MEMORY);
    g_assert_nonnull (strstr (error->message, "cannot be started"));
    g_assert_nonnull (strstr (error->message, "limit of threads"));
    stream_check_seconds (error->message, start, 2);
    g_assert_cmpint (stream_threads (), ==, threads);
  }
  /* The first part of five is not kept then, and the video is none the worse. */
  g_assert_no_error (play (3, 60, all + 1));
  g_assert_cmpint (started, ==, all + 2);
}

static gboolean no_memory;

dnnl_status_t
dnnl_engine_create (dnnl_engine_t *engine, dnnl_engine_kind_t kind, size_t index)
{
  static gsize real;            /* stages open their devices at the same time */

  if (no_memory)
    return dnnl_out_of_memory;
  if (g_once_init_enter (&real))
    g_once_init_leave (&real, (gsize) dlsym (RTLD_NEXT, "dnnl_engine_create"));
  return ((dnnl_status_t (*) (dnnl_engine_t *, dnnl_engine_kind_t, size_t)) real) (engine, kind, index);
}

/* Fewer threads than one are no way out. */
static void
test_no_memory (void)
{
  char one[256] = "", two[256] = "";

  no_memory = TRUE;
  g_assert_null (dp_device_open ("cpu", 1, one, sizeof one));
  g_assert_null (dp_device_open ("cpu", 2, two, sizeof two));
  no_memory = FALSE;
  g_assert_cmpstr (one, ==, "device cpu: not enough memory");
  g_assert_nonnull (strstr (two, "try fewer"));
}

int
main (int argc, char **argv)
{
  stream_init (&argc, &argv);
  g_test_add_func ("/limits/no-threads", test_no_threads);
  g_test_add_func ("/limits/no-memory", test_no_memory);
  return g_test_run ();
}
