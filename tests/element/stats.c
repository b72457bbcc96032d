/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the element says of itself: the fields of its statistics, and the trace.
 * What it counts itself and when it tells is looked at in tests/scripted, and the
 * engine's numbers in tests/stream.
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
    "buffering-episodes", "repeated", "placeholders", "underruns", "missed",
    "downstream-delays", "seed"
  };
  static const gchar *const numbers[] = { "first-frame-seconds",
    "realtime-factor", "block-load-mean", "block-load-p95", "decode-busy",
    "deadline-attainment"
  };
  static const gchar *const times[] = { "time-to-first-frame",
    "block-interval-p50", "block-interval-p95", "stall-time",
    "downstream-delay-time"
  };
  static const gchar *const strings[] = { "model", "devices", "precision",
    "plan"
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
  for (i = 0; i < G_N_ELEMENTS (strings); i++)
    fail_unless (gst_structure_has_field_typed (s, strings[i], G_TYPE_STRING));
  fail_unless_equals_int (gst_structure_n_fields (s),
      G_N_ELEMENTS (counters) + G_N_ELEMENTS (numbers) + G_N_ELEMENTS (times)
      + G_N_ELEMENTS (strings) + 3);

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
  fail_unless_equals_string (gst_structure_get_string (s, "model"), "tiny");
  fail_unless_equals_string (gst_structure_get_string (s, "devices"),
      "cpu,cpu");
  fail_unless (g_str_equal (gst_structure_get_string (s, "precision"),
          "float32")
      || g_str_equal (gst_structure_get_string (s, "precision"), "bfloat16"));
  fail_unless (strstr (gst_structure_get_string (s, "plan"),
          "  stage 1       cpu, layers ") != NULL);
  gst_structure_free (s);

  /* And again from the start */
  gst_element_set_state (h->element, GST_STATE_READY);
  gst_element_set_state (h->element, GST_STATE_PAUSED);
  fail_unless_equals_uint64 (stat_of (h->element, "time-to-first-frame"), 0);
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

static void
clear_with_bus (GstHarness * h, GstBus * bus)
{
  gst_element_set_bus (h->element, NULL);
  gst_object_unref (bus);
  gst_harness_teardown (h);
}

/* An encoder that takes longer than a frame lasts, by more than two of them, so each picture after
 * the first is late, and the generation is not to blame */
GST_START_TEST (test_slow_downstream)
{
  GstElement *pipeline = launch ("dualparalsrc name=src is-live=true prebuffer=5 "
      "num-frames=5 " FAST "! " SMALL ",framerate=16/1 ! identity sleep-time=150000 "
      "! fakesink sync=false");
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstClockTime time = 0;
  GstMessage *message;
  GstStructure *s;
  guint n = 0;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  while ((message = wait_message (pipeline, GST_MESSAGE_QOS | GST_MESSAGE_EOS,
              30)) && GST_MESSAGE_TYPE (message) == GST_MESSAGE_QOS) {
    const gchar *cause =
        gst_structure_get_string (gst_message_get_structure (message), "cause");
    gint64 jitter;

    fail_unless_equals_string (cause, "downstream");
    gst_message_parse_qos_values (message, &jitter, NULL, NULL);
    fail_unless (jitter > 0);
    time += jitter;
    n++;
    gst_message_unref (message);
  }
  gst_message_unref (message);
  fail_unless_equals_int (n, 4);
  s = stats_of (src);
  fail_unless_equals_uint64 (uint64_of (s, "downstream-delays"), 4);
  fail_unless_equals_uint64 (time_of (s, "downstream-delay-time"), time);
  fail_unless (time >= 4 * 80 * GST_MSECOND);
  fail_unless_equals_uint64 (uint64_of (s, "missed"), 0);
  fail_unless_equals_float (double_of (s, "deadline-attainment"), 1);
  gst_structure_free (s);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (src);
  gst_object_unref (pipeline);
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
  message = pop_message (bus, GST_MESSAGE_WARNING, 0);
  fail_unless (message != NULL);
  gst_message_parse_warning (message, NULL, &debug);
  fail_unless (strstr (debug, "the trace is not") != NULL);
  g_free (debug);
  gst_message_unref (message);
  clear_with_bus (h, bus);
}

GST_END_TEST;

/* And as soon as a write fails, not only when the video ends: a buffer is written once a second */
GST_START_TEST (test_trace_on_full_disk_while_playing)
{
  GstElement *pipeline = launch ("dualparalsrc trace=/dev/full " FAST "! " SMALL
      " ! fakesink");
  GstMessage *message;
  gchar *debug;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  message = wait_message (pipeline, GST_MESSAGE_WARNING, 20);
  gst_message_parse_warning (message, NULL, &debug);
  fail_unless (strstr (debug, "the trace is not") != NULL);
  g_free (debug);
  gst_message_unref (message);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
}

GST_END_TEST;

static void
check_preview (const GstStructure * s)
{
  GstSample *sample;
  GstVideoInfo info;
  gint64 block;
  gint step, steps;

  fail_unless (gst_structure_get (s, "sample", GST_TYPE_SAMPLE, &sample,
          "block", G_TYPE_INT64, &block, "step", G_TYPE_INT, &step, "steps",
          G_TYPE_INT, &steps, NULL));
  fail_unless (block >= 0 && steps == 3 && step > 0 && step <= steps);
  fail_unless (gst_video_info_from_caps (&info, gst_sample_get_caps (sample)));
  fail_unless (GST_VIDEO_INFO_FORMAT (&info) == GST_VIDEO_FORMAT_RGB);
  fail_unless (info.width == 5 * 2 && info.height == 2 * 2);
  fail_unless_equals_int (gst_buffer_get_size (gst_sample_get_buffer (sample)),
      info.size);
  gst_sample_unref (sample);
}

/* Of several blocks, and none where nobody asked */
GST_START_TEST (test_preview)
{
  GstElement *pipeline = launch ("dualparalsrc name=src preview=true steps=3 "
      "guidance-scale=1 ! video/x-raw, width=80, height=32 ! fakesink");
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstMessage *message;
  guint n = 0;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  while (n < 3) {
    message = wait_message (pipeline, GST_MESSAGE_ELEMENT, 30);
    if (gst_message_has_name (message, "dualparal-preview")) {
      fail_unless (GST_MESSAGE_SRC (message) == GST_OBJECT (src));
      check_preview (gst_message_get_structure (message));
      n++;
    }
    gst_message_unref (message);
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  g_object_set (src, "preview", FALSE, "num-frames", (gint64) 60, NULL);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  do {
    message = wait_message (pipeline, GST_MESSAGE_ELEMENT | GST_MESSAGE_EOS,
        30);
    fail_if (gst_message_has_name (message, "dualparal-preview"));
    n = GST_MESSAGE_TYPE (message);
    gst_message_unref (message);
  } while (n != GST_MESSAGE_EOS);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (src);
  gst_object_unref (pipeline);
}

GST_END_TEST;

static Suite *
stats_suite (void)
{
  Suite *s = suite_create ("stats");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_fields);
  tcase_add_test (tc, test_slow_downstream);
  tcase_add_test (tc, test_preview);
  tcase_add_test (tc, test_trace);
  tcase_add_test (tc, test_trace_refused);
  tcase_add_test (tc, test_trace_on_full_disk);
  tcase_add_test (tc, test_trace_on_full_disk_while_playing);
  return s;
}

GST_CHECK_MAIN (stats);
