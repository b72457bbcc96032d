/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Prompts: with which frame each begins, and what the element says then. The
 * script says which blocks are being made when one is queued. Blocks begin with
 * frames 0, 5, 13 and 21.
 */
#include "scripted.h"

typedef struct
{
  GstHarness *h;
  GstBus *bus;
  GString *sent;                /* read while the element waits */
} Watch;

/* Writes down what leaves: frames as numbers, and the events of a prompt */
static GstPadProbeReturn
note (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  GString *sent = user_data;
  const GstStructure *s;
  GstEvent *event;
  guint id;

  if (GST_PAD_PROBE_INFO_TYPE (info) & GST_PAD_PROBE_TYPE_BUFFER) {
    g_string_append_printf (sent, "%d ",
        (gint) GST_BUFFER_OFFSET (GST_PAD_PROBE_INFO_BUFFER (info)));
    return GST_PAD_PROBE_OK;
  }
  event = GST_PAD_PROBE_INFO_EVENT (info);
  s = gst_event_get_structure (event);
  if (gst_event_has_name (event, "dualparal/prompt")) {
    gst_structure_get_uint (s, "prompt-id", &id);
    g_string_append_printf (sent, "[%s %u] ", gst_structure_get_string (s,
            "prompt"), id);
  } else if (GST_EVENT_TYPE (event) == GST_EVENT_TAG) {
    g_string_append (sent, "tags ");
  } else if (gst_event_has_name (event, "GstForceKeyUnit")) {
    g_string_append (sent, "key ");
  }
  return GST_PAD_PROBE_OK;
}

static void
watch_init (Watch * watch, const gchar * properties)
{
  GstPad *pad;

  watch->h = source_harness (properties, SMALL);
  watch->sent = g_string_new (NULL);
  watch->bus = gst_bus_new ();
  gst_element_set_bus (watch->h->element, watch->bus);
  pad = gst_element_get_static_pad (watch->h->element, "src");
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER |
      GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, note, watch->sent, NULL);
  gst_object_unref (pad);
  gst_harness_play (watch->h);
}

static void
watch_clear (Watch * watch)
{
  gst_element_set_bus (watch->h->element, NULL);
  gst_object_unref (watch->bus);
  gst_harness_teardown (watch->h);
  g_string_free (watch->sent, TRUE);
}

/* What left since the last time, at that time of the clock */
static void
expect (Watch * watch, GstClockTime time, const gchar * sent)
{
  script_advance (time);
  g_strchomp (watch->sent->str);
  fail_unless_equals_string (watch->sent->str, sent);
  g_string_truncate (watch->sent, 0);
}

/* And the message that went with it */
static void
expect_applied (Watch * watch, const gchar * prompt, guint prompt_id,
    guint64 frame)
{
  GstMessage *message = NULL;
  const GstStructure *s;
  guint64 n, time;
  guint id;

  script_posted ();
  do {
    gst_clear_message (&message);
    message = gst_bus_pop_filtered (watch->bus, GST_MESSAGE_ELEMENT);
    fail_unless (message != NULL);
  } while (!gst_message_has_name (message, "dualparal-prompt-applied"));
  s = gst_message_get_structure (message);
  fail_unless_equals_string (gst_structure_get_string (s, "prompt"), prompt);
  fail_unless (gst_structure_get_uint (s, "prompt-id", &id));
  fail_unless_equals_int (id, prompt_id);
  fail_unless (gst_structure_get_uint64 (s, "frame", &n));
  fail_unless_equals_uint64 (n, frame);
  fail_unless (gst_structure_get_uint64 (s, "running-time", &time));
  fail_unless_equals_uint64 (time, frame * GST_SECOND / SCRIPT_FPS);
  gst_message_unref (message);
}

static gboolean
queue (Watch * watch, const gchar * prompt, gint64 at_frame)
{
  gboolean queued;

  g_signal_emit_by_name (watch->h->element, "queue-prompt", prompt, at_frame, 0,
      &queued);
  return queued;
}

/* It begins with the first block of which nothing was made yet; of several for the
 * same block the last counts */
GST_START_TEST (test_change)
{
  Watch watch;

  script_frames (13, 0);
  script_frames (8, GST_SECOND);
  script_frames (8, 2 * GST_SECOND);
  watch_init (&watch, "prompt=first");
  expect (&watch, 0, "[first 0] tags 0 1 2 3 4 5 6 7 8 9 10 11 12");
  expect_applied (&watch, "first", 0, 0);
  g_object_set (watch.h->element, "prompt", "second", NULL);
  g_object_set (watch.h->element, "prompt", "third", NULL);
  expect (&watch, GST_SECOND, "[third 1] tags key 13 14 15 16 17 18 19 20");
  expect_applied (&watch, "third", 1, 13);
  /* The same again is no change */
  g_object_set (watch.h->element, "prompt", "third", NULL);
  expect (&watch, 2 * GST_SECOND, "21 22 23 24 25 26 27 28");
  watch_clear (&watch);
}

GST_END_TEST;

/* In front of a frame that waits in the queue nothing changes any more */
GST_START_TEST (test_change_waits_for_block)
{
  Watch watch;

  script_frames (9, 0);
  script_frames (1, GST_SECOND);
  script_frames (30, 2 * GST_SECOND);
  watch_init (&watch, "prompt=first marking=meta");
  expect (&watch, 0, "[first 0] 0 1 2 3 4 5 6 7 8");
  g_object_set (watch.h->element, "prompt", "second", NULL);
  expect (&watch, GST_SECOND, "9");
  expect (&watch, 2 * GST_SECOND, "10 11 12 [second 1] key 13 14 15 16 17 18 "
      "19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39");
  watch_clear (&watch);
}

GST_END_TEST;

/* With the first block that begins there or behind; not with one that is being made */
GST_START_TEST (test_scheduled)
{
  GstMessage *message;
  Watch watch;

  script_frames (13, 0);
  script_frames (16, GST_SECOND);
  watch_init (&watch, "prompt=first marking=meta");
  expect (&watch, 0, "[first 0] 0 1 2 3 4 5 6 7 8 9 10 11 12");
  expect_applied (&watch, "first", 0, 0);
  fail_unless (queue (&watch, "at 21", 14));
  fail_unless (queue (&watch, "at 13", 6));
  fail_if (queue (&watch, "too late", 5));
  message = gst_bus_pop_filtered (watch.bus, GST_MESSAGE_WARNING);
  fail_unless (message != NULL);
  gst_message_unref (message);
  expect (&watch, GST_SECOND, "[at 13 1] key 13 14 15 16 17 18 19 20 "
      "[at 21 2] key 21 22 23 24 25 26 27 28");
  expect_applied (&watch, "at 13", 1, 13);
  expect_applied (&watch, "at 21", 2, 21);
  watch_clear (&watch);
}

GST_END_TEST;

/* Another engine begins with the prompt that the last one had, and that is no
 * change; frames count on */
GST_START_TEST (test_resize)
{
  Watch watch;

  script_frames (13, 0);
  script_frames (8, GST_SECOND);
  watch_init (&watch, "prompt=first marking=meta");
  expect (&watch, 0, "[first 0] 0 1 2 3 4 5 6 7 8 9 10 11 12");
  g_object_set (watch.h->element, "prompt", "second", NULL);
  expect (&watch, GST_SECOND, "[second 1] key 13 14 15 16 17 18 19 20");
  gst_harness_set_sink_caps_str (watch.h, "video/x-raw, width=48, height=32");
  script_frames (1, 2 * GST_SECOND);
  expect (&watch, 2 * GST_SECOND, "21 22 23 24 25 26 27 28 29 30 31 32 33 34");
  fail_unless_equals_int (script_opened (), 2);
  watch_clear (&watch);
}

GST_END_TEST;

static Suite *
prompts_suite (void)
{
  Suite *s = suite_create ("prompts");
  TCase *tc = script_case_new (s);

  tcase_add_test (tc, test_change);
  tcase_add_test (tc, test_change_waits_for_block);
  tcase_add_test (tc, test_scheduled);
  tcase_add_test (tc, test_resize);
  return s;
}

GST_CHECK_MAIN (prompts);
