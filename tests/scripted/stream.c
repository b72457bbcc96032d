/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A video that is not live, before downstream that takes all at once: loading,
 * flushes, the end and errors.
 */
#include "scripted.h"

#define FRAME (GST_SECOND / SCRIPT_FPS)

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

static void
expect_progress (GstBus * bus, GstProgressType expected)
{
  GstMessage *message = gst_bus_pop_filtered (bus, GST_MESSAGE_PROGRESS);
  GstProgressType type;
  gchar *code;

  fail_unless (message != NULL);
  gst_message_parse_progress (message, &type, &code, NULL);
  fail_unless_equals_int (type, expected);
  fail_unless_equals_string (code, "load-model");
  g_free (code);
  gst_message_unref (message);
}

/* One start and one end, also where a stop comes before loading is over. Of a hundred reports at
 * once, four are posted between them: a quarter each */
GST_START_TEST (test_progress)
{
  gint loads, i;

  for (loads = 0; loads < 2; loads++) {
    GstHarness *h = source_harness ("", SMALL);
    GstBus *bus = bus_of (h);

    script_loads (loads);
    gst_harness_play (h);
    script_advance (gst_clock_get_time (GST_CLOCK (script_clock ())));
    gst_element_set_state (h->element, GST_STATE_NULL);
    expect_progress (bus, GST_PROGRESS_TYPE_START);
    for (i = 0; i < 4 * loads; i++)
      expect_progress (bus, GST_PROGRESS_TYPE_CONTINUE);
    expect_progress (bus, loads ? GST_PROGRESS_TYPE_COMPLETE :
        GST_PROGRESS_TYPE_CANCELED);
    fail_unless (gst_bus_pop_filtered (bus, GST_MESSAGE_PROGRESS) == NULL);
    clear_with_bus (h, bus);
  }
}

GST_END_TEST;

/* Interrupted again and again, before its first frames and between the others: none
 * is lost in the element, so each number has its picture */
GST_START_TEST (test_flush_storm)
{
  GstHarness *h = source_harness ("", SMALL);
  GstBuffer *buffer;
  GstMapInfo map;
  guint i;

  script_frames (9, 50 * FRAME);
  for (i = 0; i < 50; i++)
    script_frames (1, (50 + i) * FRAME);
  gst_harness_play (h);
  for (i = 0; i < 100; i++) {
    script_advance (i * FRAME);
    gst_element_send_event (h->element, gst_event_new_flush_start ());
    gst_element_send_event (h->element, gst_event_new_flush_stop (i % 2));
  }
  script_advance (100 * FRAME);
  for (i = 0; i < 59; i++) {
    buffer = gst_harness_pull (h);
    fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer), i);
    fail_unless (gst_buffer_map (buffer, &map, GST_MAP_READ));
    fail_unless_equals_int (map.data[0], i);
    gst_buffer_unmap (buffer, &map);
    gst_buffer_unref (buffer);
  }
  gst_harness_teardown (h);
}

GST_END_TEST;

/* What the engine says when it fails is what the element says, behind the frames
 * that were there before */
GST_START_TEST (test_engine_fails)
{
  static const struct
  {
    DpError engine;
    gint code;                  /* of GST_RESOURCE_ERROR */
  } errors[] = {
    {DP_ERROR_NO_MEMORY, GST_RESOURCE_ERROR_NO_SPACE_LEFT},
    {DP_ERROR_BAD_MODEL, GST_RESOURCE_ERROR_READ},
    {DP_ERROR_NOT_FOUND, GST_RESOURCE_ERROR_NOT_FOUND},
  };
  guint i;

  script_frames (9, 0);
  for (i = 0; i < G_N_ELEMENTS (errors); i++) {
    GstHarness *h = source_harness ("", SMALL);
    GstBus *bus = bus_of (h);
    GstMessage *message;
    GError *error;

    script_error (errors[i].engine, GST_SECOND);
    gst_harness_play (h);
    script_advance ((i + 1) * GST_SECOND - 1);
    script_step ();
    message = gst_bus_timed_pop_filtered (bus, 30 * GST_SECOND,
        GST_MESSAGE_ERROR);
    fail_unless (message != NULL);
    gst_message_parse_error (message, &error, NULL);
    fail_unless (g_error_matches (error, GST_RESOURCE_ERROR, errors[i].code),
        "%s %d", g_quark_to_string (error->domain), error->code);
    fail_unless_equals_int (gst_harness_buffers_in_queue (h), 9);
    g_error_free (error);
    gst_message_unref (message);
    clear_with_bus (h, bus);
  }
}

GST_END_TEST;

static Suite *
stream_suite (void)
{
  Suite *s = suite_create ("stream");
  TCase *tc = script_case_new (s);

  tcase_add_test (tc, test_progress);
  tcase_add_test (tc, test_flush_storm);
  tcase_add_test (tc, test_engine_fails);
  return s;
}

GST_CHECK_MAIN (stream);
