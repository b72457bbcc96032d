/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A prompt takes effect: event, tags, key unit, buffer, in this order; the
 * message; the doors that it comes in by; and what happens to what cannot be used.
 */
#include "element.h"
#include <glib/gstdio.h>

typedef struct
{
  GMutex lock;
  GCond cond;
  GString *order;               /* p: prompt event, t: title tag, k: key unit,
                                 * b: buffer */
  GPtrArray *prompts, *titles;
  GArray *frames;               /* of the prompts, guint64 */
  GstClockTime key_unit;        /* where the last one is to be */
  gint stop;                    /* atomic */
} Seen;

static GstPadProbeReturn
look (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  Seen *seen = user_data;

  g_mutex_lock (&seen->lock);
  if (info->type & GST_PAD_PROBE_TYPE_BUFFER) {
    if (seen->order->len == 0 || seen->order->str[seen->order->len - 1] != 'b') {
      GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER (info);

      g_string_append_c (seen->order, 'b');
      if (seen->frames->len)
        fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer),
            g_array_index (seen->frames, guint64, seen->frames->len - 1));
      if (seen->key_unit != GST_CLOCK_TIME_NONE)
        fail_unless_equals_uint64 (GST_BUFFER_PTS (buffer), seen->key_unit);
      seen->key_unit = GST_CLOCK_TIME_NONE;
    }
  } else {
    GstEvent *event = GST_PAD_PROBE_INFO_EVENT (info);
    const GstStructure *s = gst_event_get_structure (event);

    if (GST_EVENT_TYPE (event) == GST_EVENT_CUSTOM_DOWNSTREAM
        && gst_structure_has_name (s, "dualparal/prompt")) {
      guint64 frame;
      guint id;

      fail_unless (GST_EVENT_IS_SERIALIZED (event));
      fail_unless (gst_structure_get_uint (s, "prompt-id", &id));
      fail_unless_equals_int (id, seen->prompts->len);
      fail_unless (gst_structure_has_field_typed (s, "block", G_TYPE_INT64));
      fail_unless (gst_structure_get_uint64 (s, "frame", &frame));
      g_array_append_val (seen->frames, frame);
      g_ptr_array_add (seen->prompts, g_strdup (gst_structure_get_string (s,
                  "prompt")));
      g_string_append_c (seen->order, 'p');
    } else if (GST_EVENT_TYPE (event) == GST_EVENT_CUSTOM_DOWNSTREAM
        && gst_video_event_is_force_key_unit (event)) {
      gboolean headers;

      fail_unless (gst_video_event_parse_downstream_force_key_unit (event,
              &seen->key_unit, NULL, NULL, &headers, NULL));
      fail_unless (headers);
      g_string_append_c (seen->order, 'k');
    } else if (GST_EVENT_TYPE (event) == GST_EVENT_TAG) {
      GstTagList *tags;
      gchar *title = NULL, *comment;

      gst_event_parse_tag (event, &tags);
      fail_unless (gst_tag_list_get_string (tags, GST_TAG_COMMENT, &comment));
      fail_unless (strstr (comment, "seed ") && strstr (comment, "1 steps"));
      g_free (comment);
      gst_tag_list_get_string (tags, GST_TAG_TITLE, &title);
      g_ptr_array_add (seen->titles, title);
      g_string_append_c (seen->order, 't');
    }
  }
  g_cond_broadcast (&seen->cond);
  g_mutex_unlock (&seen->lock);
  return GST_PAD_PROBE_OK;
}

static GstElement *
watched_pipeline (const gchar * properties, Seen * seen)
{
  GstElement *pipeline = launch ("dualparalsrc name=src " FAST
      "max-queue-frames=4 %s ! capsfilter name=filter caps=\"" SMALL "\" "
      "! fakesink name=sink sync=false", properties);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstPad *pad = gst_element_get_static_pad (src, "src");

  g_mutex_init (&seen->lock);
  g_cond_init (&seen->cond);
  seen->order = g_string_new (NULL);
  seen->prompts = g_ptr_array_new_with_free_func (g_free);
  seen->titles = g_ptr_array_new_with_free_func (g_free);
  seen->frames = g_array_new (FALSE, FALSE, sizeof (guint64));
  seen->key_unit = GST_CLOCK_TIME_NONE;
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
  g_cond_clear (&seen->cond);
  g_string_free (seen->order, TRUE);
  g_ptr_array_unref (seen->prompts);
  g_ptr_array_unref (seen->titles);
  g_array_unref (seen->frames);
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
  const gint64 end = g_get_monotonic_time () + 5 * slowness () *
      G_USEC_PER_SEC;
  gboolean waits = TRUE;

  g_mutex_lock (&seen->lock);
  while (seen->order->len < n && waits)
    waits = g_cond_wait_until (&seen->cond, &seen->lock, end);
  g_mutex_unlock (&seen->lock);
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
  wait_seen (&seen, 15);
  gst_element_set_state (pipeline, GST_STATE_NULL);

  fail_unless_equals_string (seen.order->str, "ptbptkbptkbptkb");
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

/* What the model's own texts are is not read again while it plays */
GST_START_TEST (test_model_moved)
{
  gchar *dir = g_dir_make_tmp ("prompts-XXXXXX", NULL);
  gchar *model = g_build_filename (dir, "model", NULL);
  gchar *moved = g_build_filename (dir, "moved", NULL);
  gchar *copy[] = { (gchar *) "cp", (gchar *) "-r", (gchar *) MODEL_DIR, model,
    NULL
  };
  gchar *remove[] = { (gchar *) "rm", (gchar *) "-rf", dir, NULL };
  gchar *properties = g_strdup_printf ("seed=3 model=%s", model);
  const gchar *sample = "a red ball bouncing over a green meadow";
  Seen seen = { 0, };
  GstElement *pipeline, *src;

  fail_unless (g_spawn_sync (NULL, copy, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL,
          NULL, NULL, NULL, NULL));
  pipeline = watched_pipeline (properties, &seen);
  src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  assert_applied (pipeline, sample, 0);
  fail_unless_equals_int (g_rename (model, moved), 0);
  g_object_set (src, "prompt", "snow", NULL);
  assert_applied (pipeline, "snow", 1);
  g_object_set (src, "prompt", NULL, NULL);
  assert_applied (pipeline, sample, 2);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  fail_unless (g_spawn_sync (NULL, remove, NULL, G_SPAWN_SEARCH_PATH, NULL,
          NULL, NULL, NULL, NULL, NULL));
  gst_object_unref (src);
  gst_object_unref (pipeline);
  seen_clear (&seen);
  g_free (properties);
  g_free (moved);
  g_free (model);
  g_free (dir);
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
  GstElement *pipeline = watched_pipeline ("seed=3 stats-interval=200", &seen);
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
    wait_stats (pipeline);
    wait_stats (pipeline);
    gst_element_set_state (pipeline, i == 1 ? GST_STATE_PAUSED :
        GST_STATE_READY);
    g_mutex_lock (&seen.lock);
    g_ptr_array_set_size (seen.prompts, i == 1 ? seen.prompts->len : 0);
    g_mutex_unlock (&seen.lock);
  }
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  wait_stats (pipeline);
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

/* An application that offers words to a person need not read the model's files */
GST_START_TEST (test_model_says)
{
  GstElement *pipeline = launch ("dualparalsrc " FAST "num-frames=1 ! " SMALL
      " ! fakesink");
  const GstStructure *s;
  GstMessage *message = NULL;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  do {
    gst_clear_message (&message);
    message = wait_message (pipeline, GST_MESSAGE_ELEMENT, 10);
  } while (!gst_message_has_name (message, "dualparal-model"));
  s = gst_message_get_structure (message);
  fail_unless_equals_string (gst_structure_get_string (s, "name"), "tiny");
  fail_unless (strstr (gst_structure_get_string (s, "knows"),
          "subjects: ball, cube") != NULL);
  gst_message_unref (message);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
}

GST_END_TEST;

static gboolean
queue_prompt (GstElement * src, const gchar * prompt, gint64 at_frame,
    gint transition_blocks)
{
  gboolean queued;

  g_signal_emit_by_name (src, "queue-prompt", prompt, at_frame,
      transition_blocks, &queued);
  return queued;
}

static GstEvent *
set_prompt_event (const gchar * fields)
{
  gchar *text = g_strdup_printf ("dualparal/set-prompt, %s", fields);
  GstStructure *s = gst_structure_from_string (text, NULL);

  fail_unless (s != NULL, "%s", text);
  g_free (text);
  return gst_event_new_custom (GST_EVENT_CUSTOM_UPSTREAM, s);
}

/* One way in after the other, with either latency */
static void
wait_applied_without_warning (GstElement * pipeline, guint prompt_id)
{
  guint id = 0;

  do {
    GstMessage *message = wait_message (pipeline, GST_MESSAGE_ELEMENT |
        GST_MESSAGE_WARNING, 30);

    fail_unless (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ELEMENT);
    if (gst_message_has_name (message, "dualparal-prompt-applied"))
      gst_structure_get_uint (gst_message_get_structure (message), "prompt-id",
          &id);
    gst_message_unref (message);
  } while (id != prompt_id);
}

/* Once for a prompt that has some, when it begins; the video continues */
GST_START_TEST (test_unknown_words)
{
  Seen seen = { 0, };
  GstElement *pipeline = watched_pipeline ("prompt=\"a Dragon over a castle\"",
      &seen);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstMessage *message;
  GError *error;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  message = wait_message (pipeline, GST_MESSAGE_WARNING, 5);
  gst_message_parse_warning (message, &error, NULL);
  fail_unless (g_error_matches (error, GST_RESOURCE_ERROR,
          GST_RESOURCE_ERROR_SETTINGS));
  fail_unless (strstr (error->message, "does not know \"dragon\", \"castle\"; "
          "it knows subjects: ball, ") != NULL, "%s", error->message);
  g_error_free (error);
  gst_message_unref (message);
  fail_unless (queue_prompt (src, "a red ball bouncing in the rain", -1, 0));
  wait_applied_without_warning (pipeline, 1);
  fail_unless (queue_prompt (src, "a star", -1, 0));
  wait_applied_without_warning (pipeline, 2);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (src);
  gst_object_unref (pipeline);
  seen_clear (&seen);
}

GST_END_TEST;

static void
go_through_doors (const gchar * properties)
{
  Seen seen = { 0, };
  GstElement *pipeline = watched_pipeline (properties, &seen);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstElement *sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  gchar *back;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  assert_applied (pipeline, "snow", 0);
  g_object_set (src, "prompt", "by property", NULL);
  assert_applied (pipeline, "by property", 1);
  fail_unless (queue_prompt (src, "by signal", -1, 0));
  assert_applied (pipeline, "by signal", 2);
  fail_unless (gst_element_send_event (src,
          set_prompt_event ("prompt=\"by event\"")));
  assert_applied (pipeline, "by event", 3);
  /* A sink sends it upstream */
  fail_unless (gst_element_send_event (sink,
          set_prompt_event ("prompt=\"from downstream\", "
              "negative-prompt=a, at-frame=(double)-1, transition-blocks=2")));
  assert_applied (pipeline, "from downstream", 4);
  g_object_get (src, "prompt", &back, NULL);
  fail_unless_equals_string (back, "from downstream");
  g_free (back);
  g_object_get (src, "negative-prompt", &back, NULL);
  fail_unless_equals_string (back, "a");
  g_free (back);
  wait_seen (&seen, 19);
  gst_element_set_state (pipeline, GST_STATE_NULL);

  fail_unless_equals_string (seen.order->str, "ptbptkbptkbptkbptkb");
  gst_object_unref (sink);
  gst_object_unref (src);
  gst_object_unref (pipeline);
  seen_clear (&seen);
}

GST_START_TEST (test_doors)
{
  go_through_doors ("prompt=snow");
  go_through_doors ("prompt=snow prompt-latency=low steps=1 queue-blocks=1");
}

GST_END_TEST;

/* Frame 0 is a block, then every four are. Not before the frame asked for, and
 * with the first block from there on; queued in any state, in any order. */
GST_START_TEST (test_at_frame)
{
  static const guint64 expected[] = { 0, 5, 9, 21, 41 };
  Seen seen = { 0, };
  GstElement *pipeline = watched_pipeline ("prompt=snow num-frames=50", &seen);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  guint i;

  fail_unless (queue_prompt (src, "at 41", 41, 0));
  fail_unless (queue_prompt (src, "at 6", 6, 0));
  fail_unless (gst_element_send_event (src,
          set_prompt_event ("prompt=\"at 5\", at-frame=5")));
  gst_element_set_state (pipeline, GST_STATE_READY);
  fail_unless (queue_prompt (src, "at 20", 20, 3));
  fail_unless (queue_prompt (src, "beyond the end", G_MAXINT64, 0));
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_EOS, 30));
  gst_element_set_state (pipeline, GST_STATE_NULL);

  fail_unless_equals_int (seen.frames->len, G_N_ELEMENTS (expected));
  for (i = 0; i < G_N_ELEMENTS (expected); i++)
    fail_unless_equals_uint64 (g_array_index (seen.frames, guint64, i),
        expected[i]);
  fail_unless_equals_string (g_ptr_array_index (seen.prompts, 0), "snow");
  fail_unless_equals_string (g_ptr_array_index (seen.prompts, 2), "at 6");
  fail_unless_equals_string (g_ptr_array_index (seen.prompts, 4), "at 41");

  /* They are not for the next video */
  g_ptr_array_set_size (seen.prompts, 0);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_EOS, 30));
  gst_element_set_state (pipeline, GST_STATE_NULL);
  fail_unless_equals_int (seen.prompts->len, 1);
  gst_object_unref (src);
  gst_object_unref (pipeline);
  seen_clear (&seen);
}

GST_END_TEST;

static void
assert_warning (GstElement * pipeline, const gchar * says)
{
  GstMessage *message = wait_message (pipeline, GST_MESSAGE_WARNING, 5);
  GError *error;

  gst_message_parse_warning (message, &error, NULL);
  fail_unless (g_error_matches (error, GST_RESOURCE_ERROR,
          GST_RESOURCE_ERROR_SETTINGS));
  fail_unless (strstr (error->message, says) != NULL, "%s", error->message);
  g_error_free (error);
  gst_message_unref (message);
}

/* Answered, with the frame that is early enough, and the stream goes on */
GST_START_TEST (test_refused_at_doors)
{
  static const gchar *const fields[] = { "negative-prompt=a", "prompt=(int)3",
    "prompt=a, negative-prompt=(int)3", "prompt=a, at-frame=(string)soon",
    "prompt=a, at-frame=(boolean)true", "prompt=a, transition-blocks=-1",
    "prompt=a, transition-blocks=(gint64)4294967296"
  };
  Seen seen = { 0, };
  GstElement *pipeline = watched_pipeline ("prompt=snow", &seen);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  gchar *huge = g_strnfill (100 * 1024, 'a');
  guint i;

  for (i = 0; i < 2; i++) {
    guint k;

    for (k = 0; k < G_N_ELEMENTS (fields); k++) {
      fail_if (gst_element_send_event (src, set_prompt_event (fields[k])));
      assert_warning (pipeline, "dualparal/set-prompt");
    }
    fail_if (queue_prompt (src, huge, 1000000, 0));
    assert_warning (pipeline, "16384");
    fail_if (queue_prompt (src, NULL, -1, 0));
    assert_warning (pipeline, "text");
    fail_if (queue_prompt (src, "a", -1, -1));
    assert_warning (pipeline, "transition");
    if (i == 0) {
      gst_element_set_state (pipeline, GST_STATE_PLAYING);
      assert_applied (pipeline, "snow", 0);
    }
  }
  fail_if (queue_prompt (src, "too late", 0, 0));
  assert_warning (pipeline, "the earliest frame now is ");
  /* Not one of ours */
  gst_element_send_event (src, gst_event_new_custom (GST_EVENT_CUSTOM_UPSTREAM,
          gst_structure_new_empty ("somebody/elses")));
  g_object_set (src, "prompt", "a star", NULL);
  assert_applied (pipeline, "a star", 1);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  g_free (huge);
  gst_object_unref (src);
  gst_object_unref (pipeline);
  seen_clear (&seen);
}

GST_END_TEST;

static gchar *
storyboard_new (const gchar * text)
{
  gchar *path;
  gint fd = g_file_open_tmp ("storyboard-XXXXXX.srt", &path, NULL);

  fail_unless (fd >= 0 && g_close (fd, NULL));
  fail_unless (g_file_set_contents (path, text, -1, NULL));
  return path;
}

/* The same cues in every run, at the first block of their time or after it */
GST_START_TEST (test_storyboard)
{
  gchar *path = storyboard_new ("1\n00:00:00,000 --> 00:00:01,000\na ball\n\n"
      "2\n00:00:01,000 --> 00:00:01,500\na cube\nand a star\n\n"
      "3\n00:00:02,063 --> 00:00:09,000\na ring\n");
  gchar *properties = g_strdup_printf ("prompt=snow num-frames=50 "
      "storyboard=%s", path);
  static const guint64 expected[] = { 0, 17, 37 };
  Seen seen = { 0, };
  GstElement *pipeline = watched_pipeline (properties, &seen);
  guint i, run;

  for (run = 0; run < 2; run++) {
    gst_element_set_state (pipeline, GST_STATE_PLAYING);
    gst_message_unref (wait_message (pipeline, GST_MESSAGE_EOS, 30));
    gst_element_set_state (pipeline, GST_STATE_READY);
    fail_unless_equals_int (seen.frames->len, G_N_ELEMENTS (expected));
    for (i = 0; i < G_N_ELEMENTS (expected); i++)
      fail_unless_equals_uint64 (g_array_index (seen.frames, guint64, i),
          expected[i]);
    fail_unless_equals_string (g_ptr_array_index (seen.prompts, 0), "a ball");
    fail_unless_equals_string (g_ptr_array_index (seen.prompts, 1),
        "a cube and a star");
    g_array_set_size (seen.frames, 0);
    g_ptr_array_set_size (seen.prompts, 0);
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  g_unlink (path);
  g_free (path);
  g_free (properties);
  gst_object_unref (pipeline);
  seen_clear (&seen);
}

GST_END_TEST;

GST_START_TEST (test_bad_storyboard)
{
  gchar *path = storyboard_new ("1\n00:00:01,000 --> 00:00:00,000\nsnow\n");
  gchar *properties = g_strdup_printf ("storyboard=%s", path);
  GstElement *src = source_new (properties);

  fail_unless (gst_element_set_state (src, GST_STATE_PAUSED) ==
      GST_STATE_CHANGE_FAILURE);
  gst_element_set_state (src, GST_STATE_NULL);
  g_unlink (path);
  fail_unless (gst_element_set_state (src, GST_STATE_PAUSED) ==
      GST_STATE_CHANGE_FAILURE);
  gst_element_set_state (src, GST_STATE_NULL);
  gst_object_unref (src);
  g_free (path);
  g_free (properties);

  src = launch ("dualparalsrc storyboard=/nowhere.srt ! fakesink");
  gst_element_set_state (src, GST_STATE_PAUSED);
  assert_error (src, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND);
  gst_element_set_state (src, GST_STATE_NULL);
  gst_object_unref (src);
}

GST_END_TEST;

static GstPadProbeReturn
resize_at_20 (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  GstCaps *caps;

  if (GST_BUFFER_OFFSET (GST_PAD_PROBE_INFO_BUFFER (info)) != 20)
    return GST_PAD_PROBE_OK;
  caps = gst_caps_from_string ("video/x-raw, width=48, height=32");
  g_object_set (user_data, "caps", caps, NULL);
  gst_caps_unref (caps);
  return GST_PAD_PROBE_REMOVE;
}

/* It is frame 20 of the video and not of the new engine */
static GstPadProbeReturn
queue_too_late (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  if (GST_BUFFER_OFFSET (GST_PAD_PROBE_INFO_BUFFER (info)) != 32)
    return GST_PAD_PROBE_OK;
  fail_if (queue_prompt (user_data, "too late", 20, 0));
  return GST_PAD_PROBE_REMOVE;
}

/* The frame that a refused prompt is told */
static gint
told_frame (GstElement * pipeline)
{
  GstMessage *message = wait_message (pipeline, GST_MESSAGE_WARNING, 5);
  const gchar *says = "the earliest frame now is ", *at;
  GError *error;
  gint frame;

  gst_message_parse_warning (message, &error, NULL);
  at = strstr (error->message, says);
  fail_unless (at != NULL, "%s", error->message);
  frame = atoi (at + strlen (says));
  g_error_free (error);
  gst_message_unref (message);
  return frame;
}

/* Another size is another engine, which knows what holds and what is to come */
GST_START_TEST (test_resize)
{
  static const gchar *const expected[] = { "snow", "a ball", "a cube" };
  Seen seen = { 0, };
  GstElement *pipeline = watched_pipeline ("prompt=snow num-frames=60", &seen);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstElement *filter = gst_bin_get_by_name (GST_BIN (pipeline), "filter");
  GstPad *pad = gst_element_get_static_pad (filter, "src");
  guint i;

  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, resize_at_20, filter,
      NULL);
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, queue_too_late, src, NULL);
  fail_unless (queue_prompt (src, "a cube", 40, 0));
  fail_unless (queue_prompt (src, "a ball", 10, 0));
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  fail_unless (told_frame (pipeline) > 32);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_EOS, 30));
  gst_element_set_state (pipeline, GST_STATE_NULL);

  fail_unless_equals_int (seen.prompts->len, G_N_ELEMENTS (expected));
  for (i = 0; i < seen.prompts->len; i++)
    fail_unless_equals_string (g_ptr_array_index (seen.prompts, i),
        expected[i]);
  fail_unless_equals_uint64 (g_array_index (seen.frames, guint64, 1), 13);
  /* 40 or the first of a block of the new engine, which began near 21 */
  fail_unless (g_array_index (seen.frames, guint64, 2) >= 40
      && g_array_index (seen.frames, guint64, 2) < 44);
  gst_object_unref (pad);
  gst_object_unref (filter);
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
  tcase_add_test (tc, test_model_moved);
  tcase_add_test (tc, test_refused_while_playing);
  tcase_add_test (tc, test_model_says);
  tcase_add_test (tc, test_unknown_words);
  tcase_add_test (tc, test_doors);
  tcase_add_test (tc, test_at_frame);
  tcase_add_test (tc, test_refused_at_doors);
  tcase_add_test (tc, test_storyboard);
  tcase_add_test (tc, test_bad_storyboard);
  tcase_add_test (tc, test_resize);
  tcase_add_test (tc, test_storm);
  return s;
}

GST_CHECK_MAIN (prompts);
