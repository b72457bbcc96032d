/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A prompt takes effect: event, tags, buffer, in this order; the message; and
 * what happens to texts that cannot be used.
 */
#include "element.h"

typedef struct
{
  GMutex lock;
  GString *order;               /* p: prompt event, t: title tag, b: buffer */
  GPtrArray *prompts, *titles;
  gint stop;                    /* atomic */
} Seen;

static GstPadProbeReturn
look (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  Seen *seen = user_data;

  g_mutex_lock (&seen->lock);
  if (info->type & GST_PAD_PROBE_TYPE_BUFFER) {
    if (seen->order->len == 0 || seen->order->str[seen->order->len - 1] != 'b')
      g_string_append_c (seen->order, 'b');
  } else {
    GstEvent *event = GST_PAD_PROBE_INFO_EVENT (info);
    const GstStructure *s = gst_event_get_structure (event);

    if (GST_EVENT_TYPE (event) == GST_EVENT_CUSTOM_DOWNSTREAM
        && gst_structure_has_name (s, "dualparal/prompt")) {
      guint id;

      fail_unless (GST_EVENT_IS_SERIALIZED (event));
      fail_unless (gst_structure_get_uint (s, "prompt-id", &id));
      fail_unless_equals_int (id, seen->prompts->len);
      fail_unless (gst_structure_has_field_typed (s, "block", G_TYPE_INT64));
      fail_unless (gst_structure_has_field_typed (s, "frame", G_TYPE_UINT64));
      g_ptr_array_add (seen->prompts, g_strdup (gst_structure_get_string (s,
                  "prompt")));
      g_string_append_c (seen->order, 'p');
    } else if (GST_EVENT_TYPE (event) == GST_EVENT_TAG) {
      GstTagList *tags;
      gchar *title = NULL, *comment;

      gst_event_parse_tag (event, &tags);
      fail_unless (gst_tag_list_get_string (tags, GST_TAG_COMMENT, &comment));
      fail_unless (strstr (comment, "seed 3") && strstr (comment, "1 steps"));
      g_free (comment);
      gst_tag_list_get_string (tags, GST_TAG_TITLE, &title);
      g_ptr_array_add (seen->titles, title);
      g_string_append_c (seen->order, 't');
    }
  }
  g_mutex_unlock (&seen->lock);
  return GST_PAD_PROBE_OK;
}

static GstElement *
watched_pipeline (const gchar * properties, Seen * seen)
{
  GstElement *pipeline = launch ("dualparalsrc name=src " FAST
      "max-queue-frames=4 %s ! " SMALL " ! fakesink sync=false", properties);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstPad *pad = gst_element_get_static_pad (src, "src");

  g_mutex_init (&seen->lock);
  seen->order = g_string_new (NULL);
  seen->prompts = g_ptr_array_new_with_free_func (g_free);
  seen->titles = g_ptr_array_new_with_free_func (g_free);
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER |
      GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, look, seen, NULL);
  gst_object_unref (pad);
  gst_object_unref (src);
  return pipeline;
}

static void
seen_clear (Seen * seen)
{
  g_mutex_clear (&seen->lock);
  g_string_free (seen->order, TRUE);
  g_ptr_array_unref (seen->prompts);
  g_ptr_array_unref (seen->titles);
}

static void
assert_applied (GstElement * pipeline, const gchar * prompt, guint prompt_id)
{
  GstMessage *message = NULL;
  const GstStructure *s;
  guint64 frame, time;
  guint id;

  do {
    if (message)
      gst_message_unref (message);
    message = wait_message (pipeline, GST_MESSAGE_ELEMENT, 30);
  } while (!gst_message_has_name (message, "dualparal-prompt-applied"));
  s = gst_message_get_structure (message);
  fail_unless_equals_string (gst_structure_get_string (s, "prompt"), prompt);
  fail_unless (gst_structure_get_uint (s, "prompt-id", &id));
  fail_unless_equals_int (id, prompt_id);
  fail_unless (gst_structure_get_uint64 (s, "frame", &frame));
  fail_unless (gst_structure_get_uint64 (s, "running-time", &time));
  fail_unless_equals_uint64 (time, frame * GST_SECOND / 16);
  fail_unless (prompt_id == 0 || frame > 0);
  gst_message_unref (message);
}

static void
wait_seen (Seen * seen, guint n)
{
  guint i, now = 0;

  for (i = 0; i < 1000 * slowness () && now < n; i++) {
    g_usleep (5000);
    g_mutex_lock (&seen->lock);
    now = seen->order->len;
    g_mutex_unlock (&seen->lock);
  }
}

GST_START_TEST (test_change)
{
  Seen seen = { 0, };
  GstElement *pipeline = watched_pipeline ("seed=3 prompt=\"a red ball\"",
      &seen);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  assert_applied (pipeline, "a red ball", 0);
  g_object_set (src, "prompt", "a blue cube", NULL);
  assert_applied (pipeline, "a blue cube", 1);
  /* The same one again is no change */
  g_object_set (src, "prompt", "a blue cube", NULL);
  g_object_set (src, "prompt", "", NULL);
  assert_applied (pipeline, "", 2);
  g_object_set (src, "prompt", "snow", NULL);
  assert_applied (pipeline, "snow", 3);
  /* The message comes a moment before what it announces */
  wait_seen (&seen, 12);
  gst_element_set_state (pipeline, GST_STATE_NULL);

  fail_unless_equals_string (seen.order->str, "ptbptbptbptb");
  fail_unless_equals_string (g_ptr_array_index (seen.prompts, 0), "a red ball");
  fail_unless_equals_string (g_ptr_array_index (seen.prompts, 1),
      "a blue cube");
  fail_unless_equals_string (g_ptr_array_index (seen.titles, 1), "a blue cube");
  fail_unless (g_ptr_array_index (seen.titles, 2) == NULL);
  fail_unless_equals_string (g_ptr_array_index (seen.titles, 3), "snow");
  gst_object_unref (src);
  gst_object_unref (pipeline);
  seen_clear (&seen);
}

GST_END_TEST;

/* NULL is the model's own, said by its text */
GST_START_TEST (test_back_to_default)
{
  Seen seen = { 0, };
  GstElement *pipeline = watched_pipeline ("seed=3", &seen);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  const gchar *sample = "a red ball bouncing over a green meadow";

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  assert_applied (pipeline, sample, 0);
  g_object_set (src, "prompt", "snow", NULL);
  assert_applied (pipeline, "snow", 1);
  g_object_set (src, "prompt", NULL, NULL);
  assert_applied (pipeline, sample, 2);
  g_object_set (src, "negative-prompt", "snow", NULL);
  assert_applied (pipeline, sample, 3);
  g_object_set (src, "negative-prompt", NULL, NULL);
  assert_applied (pipeline, sample, 4);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (src);
  gst_object_unref (pipeline);
  seen_clear (&seen);
}

GST_END_TEST;

/* Warned about, not used, and the stream goes on */
GST_START_TEST (test_refused_while_playing)
{
  Seen seen = { 0, };
  GstElement *pipeline = watched_pipeline ("seed=3 prompt=snow", &seen);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  gchar *huge = g_strnfill (100 * 1024, 'a');
  const gchar *const texts[] = { huge, "\xff\xfe" };
  gchar *back;
  guint i;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  assert_applied (pipeline, "snow", 0);
  for (i = 0; i < G_N_ELEMENTS (texts); i++) {
    GstMessage *message;
    GError *error;

    g_object_set (src, "prompt", texts[i], NULL);
    message = wait_message (pipeline, GST_MESSAGE_WARNING, 5);
    gst_message_parse_warning (message, &error, NULL);
    fail_unless (g_error_matches (error, GST_RESOURCE_ERROR,
            GST_RESOURCE_ERROR_SETTINGS));
    g_error_free (error);
    gst_message_unref (message);
    g_object_get (src, "prompt", &back, NULL);
    fail_unless_equals_string (back, "snow");
    g_free (back);
  }
  g_object_set (src, "prompt", "a star", NULL);
  assert_applied (pipeline, "a star", 1);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  g_free (huge);
  gst_object_unref (src);
  gst_object_unref (pipeline);
  seen_clear (&seen);
}

GST_END_TEST;

static gpointer
storm (gpointer data)
{
  GstElement *src = g_object_get_data (data, "src");
  Seen *seen = g_object_get_data (data, "seen");
  guint i;

  for (i = 0; !g_atomic_int_get (&seen->stop); i++) {
    gchar *text = g_strdup_printf ("a %s ball, %u", i % 2 ? "red" : "blue", i);
    GstStructure *stats;
    gchar *back;

    g_object_set (src, i % 3 ? "prompt" : "negative-prompt", text, NULL);
    g_object_get (src, "stats", &stats, "prompt", &back, NULL);
    gst_structure_free (stats);
    g_free (back);
    g_free (text);
    g_usleep (500);
  }
  return NULL;
}

/* From several threads, through state changes; the last one wins */
GST_START_TEST (test_storm)
{
  Seen seen = { 0, };
  GstElement *pipeline = watched_pipeline ("seed=3", &seen);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstMessage *message;
  GThread *threads[3];
  gboolean last = FALSE;
  guint i;

  g_object_set_data (G_OBJECT (pipeline), "src", src);
  g_object_set_data (G_OBJECT (pipeline), "seen", &seen);
  for (i = 0; i < G_N_ELEMENTS (threads); i++)
    threads[i] = g_thread_new ("storm", storm, pipeline);
  for (i = 0; i < 3; i++) {
    gst_element_set_state (pipeline, GST_STATE_PLAYING);
    g_usleep (400 * 1000);
    gst_element_set_state (pipeline, i == 1 ? GST_STATE_PAUSED :
        GST_STATE_READY);
    g_mutex_lock (&seen.lock);
    g_ptr_array_set_size (seen.prompts, i == 1 ? seen.prompts->len : 0);
    g_mutex_unlock (&seen.lock);
  }
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  g_usleep (200 * 1000);
  g_atomic_int_set (&seen.stop, TRUE);
  for (i = 0; i < G_N_ELEMENTS (threads); i++)
    g_thread_join (threads[i]);

  g_object_set (src, "prompt", "the last one", NULL);
  while (!last) {
    message = wait_message (pipeline, GST_MESSAGE_ELEMENT, 30);
    last = g_strcmp0 (gst_structure_get_string (gst_message_get_structure
            (message), "prompt"), "the last one") == 0;
    gst_message_unref (message);
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (src);
  gst_object_unref (pipeline);
  seen_clear (&seen);
}

GST_END_TEST;

static Suite *
prompts_suite (void)
{
  Suite *s = suite_create ("prompts");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_change);
  tcase_add_test (tc, test_back_to_default);
  tcase_add_test (tc, test_refused_while_playing);
  tcase_add_test (tc, test_storm);
  return s;
}

GST_CHECK_MAIN (prompts);
