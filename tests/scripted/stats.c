/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the element adds to the engine's statistics, and when it tells them. Their
 * fields are looked at in tests/element, the counters of pauses and of a live video
 * in buffering.c and live.c, and the engine's numbers in tests/stream.
 */
#include "scripted.h"

#define NAME "application/x-dualparal-stats"
#define FRAME (GST_SECOND / SCRIPT_FPS)

/* Frames that are played four times as fast are made at a fourth of real time */
GST_START_TEST (test_framerate)
{
  GstHarness *h = source_harness ("", SMALL ", framerate=16/1");

  script_frames (20, 0);
  script_stats (&(DpStats) {
      .realtime_factor = 2,.block_load_mean = 0.5,.block_load_p95 =
        0.75,.block_interval_p50 = 1,.block_interval_p95 = 1.5});
  gst_harness_play (h);
  script_advance (FRAME);
  fail_unless_equals_float (stat_double (h->element, "realtime-factor"), 2);
  fail_unless_equals_float (stat_double (h->element, "block-load-mean"), 0.5);
  fail_unless_equals_float (stat_double (h->element, "block-load-p95"), 0.75);
  gst_harness_set_sink_caps_str (h, SMALL ", framerate=64/1");
  script_frames (20, 2 * FRAME);
  script_advance (2 * FRAME);
  fail_unless_equals_int (gst_harness_buffers_in_queue (h), 40);
  fail_unless_equals_float (stat_double (h->element, "realtime-factor"), 0.5);
  fail_unless_equals_float (stat_double (h->element, "block-load-mean"), 2);
  fail_unless_equals_float (stat_double (h->element, "block-load-p95"), 3);
  /* Time is time */
  fail_unless_equals_uint64 (stat_of (h->element, "block-interval-p50"),
      GST_SECOND);
  fail_unless_equals_uint64 (stat_of (h->element, "block-interval-p95"),
      GST_SECOND * 3 / 2);
  gst_harness_teardown (h);
}

GST_END_TEST;

/* Lines of the log about the framerate */
static void
count_line (GstDebugCategory * category, GstDebugLevel level,
    const gchar * file, const gchar * function, gint line, GObject * object,
    GstDebugMessage * message, gpointer data)
{
  const gchar *text = gst_debug_message_get (message);

  if (strstr (text, "frames a second and the model")) {
    fail_unless (strstr (text, "have 64 ") && strstr (text, "model 16: ")
        && strstr (text, "moves 4.00 times as fast"), "%s", text);
    g_atomic_int_inc ((gint *) data);
  }
}

/* Said once, however often the same is negotiated */
GST_START_TEST (test_framerate_is_told)
{
  GstHarness *h = source_harness ("", SMALL ", framerate=16/1");
  gint lines = 0;
  guint i;

  gst_debug_add_log_function (count_line, &lines, NULL);
  gst_debug_set_threshold_for_name ("dualparalsrc", GST_LEVEL_INFO);
  script_frames (20, 0);
  gst_harness_play (h);
  script_advance (FRAME);
  fail_unless_equals_int (g_atomic_int_get (&lines), 0);
  for (i = 0; i < 2; i++) {
    gst_harness_set_sink_caps_str (h, i ? SMALL ", framerate=64/1, format=NV12" :
        SMALL ", framerate=64/1");
    script_frames (20, (2 + i) * FRAME);
    script_advance ((2 + i) * FRAME);
    fail_unless_equals_int (g_atomic_int_get (&lines), 1);
  }
  gst_debug_unset_threshold_for_name ("dualparalsrc");
  gst_debug_remove_log_function (count_line);
  gst_harness_teardown (h);
}

GST_END_TEST;

static GstBus *
bus_of (GstHarness * h)
{
  GstBus *bus = gst_bus_new ();

  gst_element_set_bus (h->element, bus);
  return bus;
}

/* The next message with the statistics, none within that time: NULL */
static GstMessage *
next_stats (GstBus * bus, GstClockTime timeout)
{
  GstMessage *message;

  for (;;) {
    message = gst_bus_timed_pop_filtered (bus, timeout, GST_MESSAGE_ELEMENT);
    if (!message || gst_message_has_name (message, NAME))
      return message;
    gst_message_unref (message);
  }
}

static void
clear_with_bus (GstHarness * h, GstBus * bus)
{
  gst_element_set_bus (h->element, NULL);
  gst_object_unref (bus);
  gst_harness_teardown (h);
}

/* Those that wait on the bus do not count */
static void
expect_messages (GstHarness * h, GstBus * bus, guint n)
{
  GstMessage *message;
  guint i;

  while ((message = next_stats (bus, 0)))
    gst_message_unref (message);
  for (i = 0; i < n; i++) {
    message = next_stats (bus, 30 * GST_SECOND);
    fail_unless (message != NULL);
    fail_unless (GST_MESSAGE_SRC (message) == GST_OBJECT (h->element));
    gst_message_unref (message);
  }
}

/* One every 20 ms, by the clock on the wall, whatever the streaming thread waits
 * for; never more often, and none when it is over */
static void
check_messages (const gchar * properties, GstClockTime time)
{
  gchar *all = g_strdup_printf ("stats-interval=20 %s", properties);
  GstHarness *h = source_harness (all, SMALL);
  GstBus *bus = bus_of (h);
  const gint64 start = g_get_monotonic_time ();
  GstMessage *message;
  guint n = 3;

  gst_element_set_clock (h->element, GST_CLOCK (script_clock ()));
  gst_harness_play (h);
  if (GST_CLOCK_TIME_IS_VALID (time))
    script_advance (time);
  expect_messages (h, bus, n);
  gst_element_set_state (h->element, GST_STATE_NULL);
  while ((message = next_stats (bus, 0)))
    gst_message_unref (message);
  fail_unless (seconds_since (start) >= n * 0.02);
  /* The thread that posts them has ended with the state change */
  fail_unless (next_stats (bus, 0) == NULL);
  clear_with_bus (h, bus);
  g_free (all);
}

GST_START_TEST (test_messages)
{
  script_frames (9, 0);
  /* Before the first frame, between two of a live one, in a stall */
  check_messages ("prebuffer=10 is-live=true", GST_SECOND);
  check_messages ("prebuffer=5 is-live=true", GST_SECOND);
  check_messages ("prebuffer=5 is-live=true underrun-policy=stall",
      3 * GST_SECOND);
  check_messages ("", GST_SECOND);
}

GST_END_TEST;

typedef struct
{
  GMutex lock;
  GCond cond;
  gboolean blocked, free;
} Gate;

static GstPadProbeReturn
block (GstPad * pad, GstPadProbeInfo * info, gpointer data)
{
  Gate *gate = data;

  g_mutex_lock (&gate->lock);
  gate->blocked = TRUE;
  g_cond_broadcast (&gate->cond);
  while (!gate->free)
    g_cond_wait (&gate->cond, &gate->lock);
  g_mutex_unlock (&gate->lock);
  return GST_PAD_PROBE_REMOVE;
}

/* With the streaming thread stuck in downstream */
GST_START_TEST (test_messages_when_blocked)
{
  GstHarness *h = source_harness ("stats-interval=20", SMALL);
  GstPad *pad = gst_element_get_static_pad (h->element, "src");
  GstBus *bus = bus_of (h);
  Gate gate = { 0, };

  script_frames (9, 0);
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, block, &gate, NULL);
  gst_harness_play (h);
  g_mutex_lock (&gate.lock);
  while (!gate.blocked)
    g_cond_wait (&gate.cond, &gate.lock);
  g_mutex_unlock (&gate.lock);
  expect_messages (h, bus, 3);
  fail_unless (stat_of (h->element, "time-to-first-frame") > 0);
  g_mutex_lock (&gate.lock);
  gate.free = TRUE;
  g_cond_broadcast (&gate.cond);
  g_mutex_unlock (&gate.lock);
  gst_object_unref (pad);
  clear_with_bus (h, bus);
}

GST_END_TEST;

GST_START_TEST (test_no_messages)
{
  GstHarness *h = source_harness ("", SMALL);
  GstBus *bus = bus_of (h);

  script_frames (9, 0);
  gst_harness_play (h);
  script_advance (100 * GST_SECOND);
  fail_unless_equals_int (gst_harness_buffers_in_queue (h), 9);
  gst_element_set_state (h->element, GST_STATE_NULL);
  fail_unless (next_stats (bus, 0) == NULL);
  clear_with_bus (h, bus);
}

GST_END_TEST;

/* A model that has none says so, and plays */
GST_START_TEST (test_no_preview)
{
  GstHarness *h = source_harness ("preview=true", SMALL);
  GstBus *bus = bus_of (h);
  GstMessage *message;
  GError *error;

  script_frames (9, 0);
  gst_harness_play (h);
  script_advance (GST_SECOND);
  fail_unless_equals_int (gst_harness_buffers_in_queue (h), 9);
  message = gst_bus_timed_pop_filtered (bus, 30 * GST_SECOND,
      GST_MESSAGE_WARNING);
  fail_unless (message != NULL);
  gst_message_parse_warning (message, &error, NULL);
  fail_unless_equals_string (error->message,
      "preview: a script has no preview_map");
  g_error_free (error);
  gst_message_unref (message);
  fail_unless (gst_bus_pop_filtered (bus, GST_MESSAGE_WARNING) == NULL);
  clear_with_bus (h, bus);
}

GST_END_TEST;

static Suite *
stats_suite (void)
{
  Suite *s = suite_create ("stats");
  TCase *tc = script_case_new (s);

  tcase_add_test (tc, test_framerate);
  tcase_add_test (tc, test_framerate_is_told);
  tcase_add_test (tc, test_messages);
  tcase_add_test (tc, test_messages_when_blocked);
  tcase_add_test (tc, test_no_messages);
  tcase_add_test (tc, test_no_preview);
  return s;
}

GST_CHECK_MAIN (stats);
