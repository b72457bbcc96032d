/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the element says of itself: the fields of its statistics, the message with
 * them, and the trace. The counters of a live video are looked at in live.c, those
 * of pauses in buffering.c, and the engine's numbers in tests/stream.
 */
#include "element.h"

#include <glib/gstdio.h>
#include <string.h>

#define NAME "application/x-dualparal-stats"

static gdouble
double_of (const GstStructure * s, const gchar * field)
{
  gdouble value;

  fail_unless (gst_structure_get_double (s, field, &value), "%s", field);
  return value;
}

static GstClockTime
time_of (const GstStructure * s, const gchar * field)
{
  GstClockTime value;

  fail_unless (gst_structure_get_clock_time (s, field, &value), "%s", field);
  return value;
}

static guint64
uint64_of (const GstStructure * s, const gchar * field)
{
  guint64 value;

  fail_unless (gst_structure_get_uint64 (s, field, &value), "%s", field);
  return value;
}

static gdouble
share_of (const GValue * array, guint i)
{
  const gdouble share =
      g_value_get_double (gst_value_array_get_value (array, i));

  fail_unless (share >= 0 && share <= 1, "%g", share);
  return share;
}

/* What every one of them has to be, with this number of stages */
static void
check_fields (const GstStructure * s, guint stages)
{
  static const gchar *const counters[] = { "blocks", "passes", "frames",
    "device-bytes", "decoder-bytes", "text-encoder-bytes", "resident-bytes",
    "buffering-episodes", "repeated", "placeholders", "underruns", "missed"
  };
  static const gchar *const numbers[] = { "first-frame-seconds",
    "realtime-factor", "block-load-mean", "block-load-p95", "decode-busy",
    "deadline-attainment"
  };
  static const gchar *const times[] = { "time-to-first-frame",
    "block-interval-p50", "block-interval-p95", "stall-time"
  };
  const GValue *busy, *bytes;
  guint64 sum;
  guint i;

  fail_unless (gst_structure_has_name (s, NAME));
  for (i = 0; i < G_N_ELEMENTS (counters); i++)
    uint64_of (s, counters[i]);
  for (i = 0; i < G_N_ELEMENTS (numbers); i++)
    fail_unless (double_of (s, numbers[i]) >= 0, "%s", numbers[i]);
  for (i = 0; i < G_N_ELEMENTS (times); i++)
    fail_unless (time_of (s, times[i]) < GST_SECOND * 600, "%s", times[i]);
  fail_unless (gst_structure_has_field_typed (s, "queue-frames", G_TYPE_UINT));
  fail_unless_equals_int (gst_structure_n_fields (s),
      G_N_ELEMENTS (counters) + G_N_ELEMENTS (numbers) + G_N_ELEMENTS (times)
      + 3);

  fail_unless (double_of (s, "decode-busy") <= 1);
  fail_unless (double_of (s, "deadline-attainment") <= 1);
  fail_unless (time_of (s, "block-interval-p50") <= time_of (s,
          "block-interval-p95"));
  busy = gst_structure_get_value (s, "stage-busy");
  bytes = gst_structure_get_value (s, "stage-bytes");
  fail_unless_equals_int (gst_value_array_get_size (busy), stages);
  fail_unless_equals_int (gst_value_array_get_size (bytes), stages);
  sum = uint64_of (s, "decoder-bytes") + uint64_of (s, "text-encoder-bytes");
  for (i = 0; i < stages; i++) {
    share_of (busy, i);
    sum += g_value_get_uint64 (gst_value_array_get_value (bytes, i));
  }
  fail_unless_equals_uint64 (uint64_of (s, "device-bytes"), sum);
}

static GstStructure *
stats_of (GstElement * src)
{
  GstStructure *s;

  g_object_get (src, "stats", &s, NULL);
  return s;
}

/* Before, while and after it runs */
GST_START_TEST (test_fields)
{
  GstHarness *h = source_harness (FAST "num-frames=41 devices=cpu,cpu", SMALL);
  const gint64 start = g_get_monotonic_time ();
  GstStructure *s;
  GstClockTime first, arrived;
  guint i;

  s = stats_of (h->element);
  check_fields (s, 0);
  fail_unless_equals_uint64 (uint64_of (s, "device-bytes"), 0);
  fail_unless_equals_uint64 (time_of (s, "time-to-first-frame"), 0);
  fail_unless (uint64_of (s, "resident-bytes") > 1 << 20);
  gst_structure_free (s);

  gst_harness_play (h);
  gst_buffer_unref (gst_harness_pull (h));
  arrived = (g_get_monotonic_time () - start) * GST_USECOND;
  for (i = 1; i < 41; i++) {
    gst_buffer_unref (gst_harness_pull (h));
    s = stats_of (h->element);
    check_fields (s, 2);
    gst_structure_free (s);
  }
  s = stats_of (h->element);
  fail_unless_equals_uint64 (uint64_of (s, "frames"), 41);
  fail_unless_equals_uint64 (uint64_of (s, "blocks"), 11);
  fail_unless_equals_uint64 (uint64_of (s, "passes"), 11);
  first = time_of (s, "time-to-first-frame");
  fail_unless (first > 0 && first <= arrived);
  /* It was decoded before it left, and the engine was opened after the start */
  fail_unless (double_of (s, "first-frame-seconds") * GST_SECOND <= first);
  fail_unless (double_of (s, "first-frame-seconds") > 0);
  fail_unless (double_of (s, "realtime-factor") > 0);
  fail_unless (double_of (s, "block-load-mean") > 0);
  fail_unless (double_of (s, "block-load-p95") > 0);
  fail_unless (time_of (s, "block-interval-p50") > 0);
  fail_unless (double_of (s, "decode-busy") > 0);
  fail_unless (share_of (gst_structure_get_value (s, "stage-busy"), 1) > 0);
  gst_structure_free (s);

  /* And again from the start */
  gst_element_set_state (h->element, GST_STATE_READY);
  gst_element_set_state (h->element, GST_STATE_PAUSED);
  fail_unless_equals_uint64 (stat_of (h->element, "time-to-first-frame"), 0);
  gst_harness_teardown (h);
}

GST_END_TEST;

/* Frames that are played four times as fast are made at a fourth of real time */
GST_START_TEST (test_framerate)
{
  GstHarness *h = source_harness (FAST, SMALL ", framerate=16/1");
  gdouble factor, load;
  guint i;

  gst_harness_play (h);
  for (i = 0; i < 200; i++)
    gst_buffer_unref (gst_harness_pull (h));
  factor = stat_double (h->element, "realtime-factor");
  load = stat_double (h->element, "block-load-mean");
  gst_harness_set_sink_caps_str (h, SMALL ", framerate=64/1");
  for (i = 0; i < 20; i++)
    gst_buffer_unref (gst_harness_pull (h));
  factor /= stat_double (h->element, "realtime-factor");
  load = stat_double (h->element, "block-load-mean") / load;
  GST_INFO ("%g and %g times as fast", factor, load);
  fail_unless (factor > 2.5 && factor < 6);
  fail_unless (load > 2.5 && load < 6);
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

/* The next message with the statistics, none within `ms`: NULL */
static GstMessage *
next_stats (GstBus * bus, guint ms)
{
  GstMessage *message;

  for (;;) {
    message = gst_bus_timed_pop_filtered (bus, ms * GST_MSECOND,
        GST_MESSAGE_ELEMENT);
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

/* One every 50 ms, while frames come, while downstream takes none and while there
 * is none; never more often, and none when it is over */
static void
check_messages (const gchar * properties, const gchar * caps)
{
  GstHarness *h = source_harness (properties, caps);
  GstBus *bus = bus_of (h);
  const gint64 start = g_get_monotonic_time ();
  GstMessage *message;
  guint i;

  gst_harness_play (h);
  for (i = 1; i <= 6; i++) {
    message = next_stats (bus, 10000 * slowness ());
    fail_unless (message != NULL);
    fail_unless (GST_MESSAGE_SRC (message) == GST_OBJECT (h->element));
    if (i == 6)
      check_fields (gst_message_get_structure (message), 1);
    gst_message_unref (message);
    fail_unless (seconds_since (start) >= i * 0.05);
  }
  gst_element_set_state (h->element, GST_STATE_NULL);
  while ((message = next_stats (bus, 0)))
    gst_message_unref (message);
  fail_unless (next_stats (bus, 200) == NULL);
  clear_with_bus (h, bus);
}

GST_START_TEST (test_messages)
{
  /* Frames wait in the harness; then nothing is done for long, and stuck */
  check_messages (FAST "stats-interval=50", SMALL);
  check_messages (SLOW "stats-interval=50", SLOW_SIZE);
  check_messages (SLOW_BLOCKS "underrun-policy=stall stats-interval=50", SMALL);
}

GST_END_TEST;

static GstPadProbeReturn
block_first (GstPad * pad, GstPadProbeInfo * info, gpointer data)
{
  gint *state = data;

  g_atomic_int_set (state, 1);
  while (g_atomic_int_get (state) == 1)
    g_usleep (1000);
  return GST_PAD_PROBE_REMOVE;
}

/* With the streaming thread stuck in downstream */
GST_START_TEST (test_messages_when_blocked)
{
  GstHarness *h = source_harness (FAST "stats-interval=20", SMALL);
  GstPad *pad = gst_element_get_static_pad (h->element, "src");
  GstBus *bus = bus_of (h);
  GstMessage *message;
  gint state = 0;
  guint i;

  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, block_first, &state, NULL);
  gst_harness_play (h);
  while (g_atomic_int_get (&state) == 0)
    g_usleep (1000);
  while ((message = next_stats (bus, 0)))
    gst_message_unref (message);
  for (i = 0; i < 3; i++) {
    message = next_stats (bus, 10000 * slowness ());
    fail_unless (message != NULL);
    fail_unless (time_of (gst_message_get_structure (message),
            "time-to-first-frame") > 0);
    gst_message_unref (message);
  }
  g_atomic_int_set (&state, 2);
  gst_object_unref (pad);
  clear_with_bus (h, bus);
}

GST_END_TEST;

GST_START_TEST (test_no_messages)
{
  GstHarness *h = source_harness (FAST "num-frames=5", SMALL);
  GstBus *bus = bus_of (h);
  guint i;

  gst_harness_play (h);
  for (i = 0; i < 5; i++)
    gst_buffer_unref (gst_harness_pull (h));
  fail_unless (next_stats (bus, 200) == NULL);
  clear_with_bus (h, bus);
}

GST_END_TEST;

/* -- the trace */

static guint
count (const gchar * text, const gchar * needle)
{
  guint n = 0;

  while ((text = strstr (text, needle))) {
    text += strlen (needle);
    n++;
  }
  return n;
}

/* Two elements have two files, and each is complete when its element is done */
GST_START_TEST (test_trace)
{
  gchar *dir = g_dir_make_tmp ("dp-element-XXXXXX", NULL);
  gchar *paths[2], *text;
  GstHarness *h[2];
  guint i, n;

  for (i = 0; i < 2; i++) {
    gchar *name = g_strdup_printf ("%u.json", i);
    paths[i] = g_build_filename (dir, name, NULL);
    g_free (name);
    h[i] = source_harness (i ? FAST "num-frames=9" : FAST "num-frames=5", SMALL);
    g_object_set (h[i]->element, "trace", paths[i], NULL);
    gst_harness_play (h[i]);
  }
  for (i = 0; i < 2; i++)
    for (n = 0; n < (i ? 9 : 5); n++)
      gst_buffer_unref (gst_harness_pull (h[i]));
  for (i = 0; i < 2; i++) {
    gst_harness_teardown (h[i]);
    fail_unless (g_file_get_contents (paths[i], &text, NULL, NULL));
    fail_unless (g_str_has_prefix (text, "[\n{"));
    fail_unless (g_str_has_suffix (text, "}\n]\n"));
    fail_unless_equals_int (count (text, "\"name\":\"frame\""), i ? 9 : 5);
    fail_unless_equals_int (count (text, "\"cat\":\"decode\""), i ? 3 : 2);
    g_free (text);
    g_unlink (paths[i]);
    g_free (paths[i]);
  }
  g_rmdir (dir);
  g_free (dir);
}

GST_END_TEST;

/* What a live video lacked is in it */
GST_START_TEST (test_trace_of_underruns)
{
  gchar *path = g_build_filename (g_get_tmp_dir (), "dp-element-XXXXXX", NULL);
  GstHarness *h = source_harness (SLOW_BLOCKS, SMALL ", framerate=500/1");
  guint64 underruns, repeated;
  gchar *text;

  g_close (g_mkstemp (path), NULL);
  g_object_set (h->element, "trace", path, NULL);
  gst_harness_use_systemclock (h);
  gst_harness_play (h);
  while (stat_of (h->element, "repeated") < 3)
    gst_buffer_unref (gst_harness_pull (h));
  gst_element_set_state (h->element, GST_STATE_PAUSED);
  underruns = stat_of (h->element, "underruns");
  repeated = stat_of (h->element, "repeated");
  gst_harness_teardown (h);
  fail_unless (g_file_get_contents (path, &text, NULL, NULL));
  fail_unless_equals_uint64 (count (text, "\"name\":\"underrun\""), underruns);
  /* One more may have left on the way to PAUSED */
  fail_unless (count (text, "\"name\":\"repeated\"") - repeated <= 1);
  g_free (text);
  g_unlink (path);
  g_free (path);
}

GST_END_TEST;

GST_START_TEST (test_trace_refused)
{
  GstElement *pipeline = launch ("dualparalsrc trace=/no/such/place/t.json ! "
      SMALL " ! fakesink");

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  assert_error (pipeline, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
}

GST_END_TEST;

/* The video is complete, and somebody is told that the trace is not */
GST_START_TEST (test_trace_on_full_disk)
{
  GstHarness *h = source_harness (FAST "num-frames=1 trace=/dev/full", SMALL);
  GstBus *bus = bus_of (h);
  GstMessage *message;
  gchar *debug;

  gst_harness_play (h);
  gst_buffer_unref (gst_harness_pull (h));
  gst_element_set_state (h->element, GST_STATE_READY);
  message = gst_bus_pop_filtered (bus, GST_MESSAGE_WARNING);
  fail_unless (message != NULL);
  gst_message_parse_warning (message, NULL, &debug);
  fail_unless (strstr (debug, "the trace is not") != NULL);
  g_free (debug);
  gst_message_unref (message);
  clear_with_bus (h, bus);
}

GST_END_TEST;

static Suite *
stats_suite (void)
{
  Suite *s = suite_create ("stats");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_fields);
  tcase_add_test (tc, test_framerate);
  tcase_add_test (tc, test_messages);
  tcase_add_test (tc, test_messages_when_blocked);
  tcase_add_test (tc, test_no_messages);
  tcase_add_test (tc, test_trace);
  tcase_add_test (tc, test_trace_of_underruns);
  tcase_add_test (tc, test_trace_refused);
  tcase_add_test (tc, test_trace_on_full_disk);
  return s;
}

GST_CHECK_MAIN (stats);
