/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The element on a GPU that breaks while it plays, or has no memory left: an
 * error on the bus, and down to NULL at once. DUALPARAL_TEST_MODEL as in
 * test_failures.c.
 */
#include "../element/element.h"
#include "gpu.h"

#include <string.h>

#define ON_GPU "devices=cuda:0 num-frames=-1 "

static GstElement *
pipeline_new (const gchar * properties)
{
  GstElement *pipeline = launch ("dualparalsrc name=src %s ! "
      "fakesink name=sink sync=false", properties);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");

  g_object_set (src, "model", g_getenv ("DUALPARAL_TEST_MODEL"), NULL);
  gst_object_unref (src);
  return pipeline;
}

static void
stop_quickly (GstElement * pipeline)
{
  const TestClock start = test_clock ();
  gdouble seconds;

  fail_unless_equals_int (gst_element_set_state (pipeline, GST_STATE_NULL),
      GST_STATE_CHANGE_SUCCESS);
  seconds = test_clock_seconds (start);
  fail_unless (seconds < 2, "took %g s", seconds);
}

static void
check_error (GstElement * pipeline, GQuark domain, gint code,
    const gchar * words)
{
  const TestClock start = test_clock ();
  GstMessage *message = wait_message (pipeline, GST_MESSAGE_ERROR, 20);
  GError *error = NULL;

  gst_message_parse_error (message, &error, NULL);
  g_printerr ("%s\n", error->message);
  fail_unless (g_error_matches (error, domain, code), "%s %d: %s",
      g_quark_to_string (error->domain), error->code, error->message);
  fail_unless (strstr (error->message, "cuda:0") != NULL);
  fail_unless (strstr (error->message, words) != NULL, "%s", error->message);
  fail_unless (test_clock_seconds (start) < 5);
  g_error_free (error);
  gst_message_unref (message);
}

/* A prompt needs memory when its first block is made */
GST_START_TEST (test_no_memory)
{
  GstElement *pipeline = pipeline_new (ON_GPU);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  gchar *prompt = g_strnfill (4000, 'x');

  gst_element_set_state (pipeline, GST_STATE_PAUSED);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_ASYNC_DONE, 30));
  gpu_take (0);
  g_object_set (src, "prompt", prompt, NULL);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  check_error (pipeline, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT,
      " free");
  stop_quickly (pipeline);
  gpu_give_back ();

  gst_element_set_state (pipeline, GST_STATE_PAUSED);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_ASYNC_DONE, 30));
  stop_quickly (pipeline);
  g_free (prompt);
  gst_object_unref (src);
  gst_object_unref (pipeline);
}

GST_END_TEST;

/* The last one: this process has no GPU after it */
GST_START_TEST (test_break)
{
  GstElement *pipeline = pipeline_new (ON_GPU "stats-interval=500");

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_ASYNC_DONE, 30));
  wait_stats (pipeline);
  gpu_break (0);
  check_error (pipeline, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_INIT,
      "lost to this process");
  stop_quickly (pipeline);

  fail_unless_equals_int (gst_element_set_state (pipeline, GST_STATE_PLAYING),
      GST_STATE_CHANGE_FAILURE);
  check_error (pipeline, GST_LIBRARY_ERROR, GST_LIBRARY_ERROR_INIT,
      "lost to this process");
  stop_quickly (pipeline);
  gst_object_unref (pipeline);
}

GST_END_TEST;

int
main (int argc, char **argv)
{
  Suite *suite = suite_create ("cuda");
  TCase *tc;

  if (gpu_count () == 0) {
    g_print ("skipped: there is no GPU here\n");
    return 77;
  }
  gst_check_init (&argc, &argv);
  tc = test_case_new (suite);
  tcase_add_test (tc, test_no_memory);
  tcase_add_test (tc, test_break);
  return gst_check_run_suite (suite, "cuda", __FILE__);
}
