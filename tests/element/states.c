/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Up and down through the states at any time, and what cannot work said with
 * the right domain and code, at once, leaving an element that can be used again.
 */
#include "element.h"

#include <glib/gstdio.h>

static GstElement *
pipeline_new (const gchar * properties, const gchar * caps)
{
  return launch ("dualparalsrc name=src %s ! capsfilter caps=\"%s\" ! "
      "fakesink name=sink sync=false", properties, caps);
}

static void
stop_quickly (GstElement * pipeline)
{
  const TestClock start = test_clock ();
  gdouble seconds;

  fail_unless_equals_int (gst_element_set_state (pipeline, GST_STATE_NULL),
      GST_STATE_CHANGE_SUCCESS);
  seconds = test_clock_seconds (start);
  fail_unless (seconds < slowness (), "took %g s", seconds);
}

/* As every element is tested: with default properties and nobody downstream */
GST_START_TEST (test_alone)
{
  GstElement *src = source_new ("");
  gint i;

  for (i = 0; i < 3; i++) {
    gst_element_set_state (src, GST_STATE_READY);
    gst_element_set_state (src, GST_STATE_PAUSED);
    gst_element_set_state (src, GST_STATE_PLAYING);
    gst_element_get_state (src, NULL, NULL, GST_CLOCK_TIME_NONE);
    gst_element_set_state (src, GST_STATE_PAUSED);
    gst_element_set_state (src, GST_STATE_NULL);
  }
  gst_object_unref (src);
}

GST_END_TEST;

GST_START_TEST (test_cycles)
{
  GstElement *pipeline = pipeline_new (FAST "num-frames=6", SMALL);
  gint i;

  for (i = 0; i < 3; i++) {
    fail_if (gst_element_set_state (pipeline, GST_STATE_PLAYING) ==
        GST_STATE_CHANGE_FAILURE);
    gst_message_unref (wait_message (pipeline, GST_MESSAGE_EOS, 30));
    gst_element_set_state (pipeline, i & 1 ? GST_STATE_READY : GST_STATE_NULL);
  }
  stop_quickly (pipeline);
  gst_object_unref (pipeline);
}

GST_END_TEST;

/* In each part of loading, in the first pass and in the stream */
static void
wait_moment (GstElement * pipeline, guint moment)
{
  switch (moment) {
    case 1:
      wait_progress (pipeline, GST_PROGRESS_TYPE_START);
      break;
    case 2:
      wait_progress (pipeline, GST_PROGRESS_TYPE_CONTINUE);
      break;
    case 3:
      wait_progress (pipeline, GST_PROGRESS_TYPE_COMPLETE);
      break;
    case 4:
      wait_progress (pipeline, GST_PROGRESS_TYPE_COMPLETE);
      wait_stats (pipeline);
      break;
    case 5:
      gst_message_unref (wait_message (pipeline, GST_MESSAGE_ASYNC_DONE, 30));
      break;
    case 6:
      gst_message_unref (wait_message (pipeline, GST_MESSAGE_ASYNC_DONE, 30));
      wait_stats (pipeline);
      break;
    default:
      break;
  }
}

GST_START_TEST (test_stop_any_time)
{
  /* Loads each time */
  GstElement *pipeline = pipeline_new (FAST "linger=0 stats-interval=20",
      SMALL);
  GstState up[] = { GST_STATE_PAUSED, GST_STATE_PLAYING };
  guint i;

  for (i = 0; i < 2 * 7; i++) {
    gst_element_set_state (pipeline, up[i % 2]);
    wait_moment (pipeline, i / 2);
    stop_quickly (pipeline);
  }
  gst_object_unref (pipeline);
}

GST_END_TEST;

/* In the middle of a block that takes minutes */
GST_START_TEST (test_stop_mid_block)
{
  GstElement *pipeline = pipeline_new (SLOW "stats-interval=500", SLOW_SIZE);
  guint i;

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  wait_progress (pipeline, GST_PROGRESS_TYPE_COMPLETE);
  for (i = 0; i < 3; i++)
    wait_stats (pipeline);
  stop_quickly (pipeline);
  gst_object_unref (pipeline);
}

GST_END_TEST;

static void
check_offset (GstElement * sink, GstBuffer * buffer, GstPad * pad,
    gpointer user_data)
{
  fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer),
      *(guint64 *) user_data);
  ++*(guint64 *) user_data;
}

/* There before it is asked for another: a bin that is asked to go down in the
 * moment between its preroll and PLAYING stays in PAUSED for good, whatever is
 * in it (GStreamer 1.22) */
static void
reach (GstElement * pipeline, GstState state)
{
  gst_element_set_state (pipeline, state);
  fail_unless_equals_int (gst_element_get_state (pipeline, NULL, NULL,
          30 * slowness () * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
}

GST_START_TEST (test_pause_and_play)
{
  /* Its sink makes it last as long as all that is done to it */
  GstElement *pipeline = launch ("dualparalsrc " FAST "num-frames=40 ! " SMALL
      ",framerate=160/1 ! fakesink name=sink sync=true signal-handoffs=true");
  GstElement *sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  guint64 frames = 0;
  Counter counter;
  gint i;

  g_signal_connect (sink, "handoff", G_CALLBACK (check_offset), &frames);
  counter_init (&counter, sink);
  for (i = 1; i <= 10; i++) {
    reach (pipeline, GST_STATE_PLAYING);
    counter_wait (&counter, 3 * i);
    reach (pipeline, GST_STATE_PAUSED);
  }
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_EOS, 30));
  fail_unless_equals_uint64 (frames, 40);
  gst_object_unref (sink);
  stop_quickly (pipeline);
  counter_clear (&counter);
  gst_object_unref (pipeline);
}

GST_END_TEST;

/* Fails, says why, and plays once it is set right */
static void
check_refused (const gchar * properties, const gchar * right, GQuark domain,
    gint code)
{
  GstElement *pipeline = pipeline_new (properties, SMALL);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  const TestClock start = test_clock ();
  gchar **pairs = g_strsplit (right, " ", -1);
  gint i;

  fail_unless_equals_int (gst_element_set_state (pipeline, GST_STATE_PLAYING),
      GST_STATE_CHANGE_FAILURE);
  assert_error (pipeline, domain, code);
  fail_unless (test_clock_seconds (start) < slowness ());
  stop_quickly (pipeline);

  gst_util_set_object_arg (G_OBJECT (src), "steps", "1");
  gst_util_set_object_arg (G_OBJECT (src), "block-latents", "1");
  for (i = 0; pairs[i]; i++) {
    gchar **pair = g_strsplit (pairs[i], "=", 2);

    if (g_str_equal (pair[1], "NULL"))
      g_object_set (src, pair[0], NULL, NULL);
    else
      gst_util_set_object_arg (G_OBJECT (src), pair[0], pair[1]);
    g_strfreev (pair);
  }
  g_strfreev (pairs);
  gst_element_set_state (pipeline, GST_STATE_PAUSED);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_ASYNC_DONE, 30));
  stop_quickly (pipeline);
  gst_object_unref (src);
  gst_object_unref (pipeline);
}

GST_START_TEST (test_refused_models)
{
  gchar *dir = g_dir_make_tmp ("element-XXXXXX", NULL);
  gchar *set = g_strdup_printf ("model=%s", dir);

  check_refused ("model=/no/such/directory", "model=NULL", GST_RESOURCE_ERROR,
      GST_RESOURCE_ERROR_NOT_FOUND);
  check_refused (set, "model=NULL", GST_RESOURCE_ERROR,
      GST_RESOURCE_ERROR_NOT_FOUND);
  g_rmdir (dir);
  g_free (set);
  g_free (dir);
}

GST_END_TEST;

GST_START_TEST (test_refused_settings)
{
  static const struct
  {
    const gchar *wrong, *right;
  } settings[] = {
    {"block-latents=2 context-latents=3", "context-latents=1"},
    {"steps=3 queue-blocks=4", "queue-blocks=1"},
    {"num-frames=0", "num-frames=2"},
    {"devices=cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu", "devices=cpu,cpu"},
  };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (settings); i++) {
    GST_INFO ("%s", settings[i].wrong);
    check_refused (settings[i].wrong, settings[i].right, GST_RESOURCE_ERROR,
        GST_RESOURCE_ERROR_SETTINGS);
  }
}

GST_END_TEST;

GST_START_TEST (test_refused_device)
{
  check_refused ("devices=abacus:0", "devices=cpu", GST_LIBRARY_ERROR,
      GST_LIBRARY_ERROR_INIT);
}

GST_END_TEST;

static void
check_refused_prompt (const gchar * property, const gchar * text)
{
  GstElement *pipeline = pipeline_new (FAST, SMALL);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  gchar *back;

  g_object_set (src, property, text, NULL);
  g_object_get (src, property, &back, NULL);
  fail_unless_equals_string (back, text);
  g_free (back);
  fail_unless_equals_int (gst_element_set_state (pipeline, GST_STATE_PAUSED),
      GST_STATE_CHANGE_FAILURE);
  assert_error (pipeline, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS);
  stop_quickly (pipeline);
  gst_object_unref (src);
  gst_object_unref (pipeline);
}

GST_START_TEST (test_refused_prompts)
{
  gchar *huge = g_strnfill (100 * 1024, 'a');

  check_refused_prompt ("prompt", huge);
  check_refused_prompt ("prompt", "a \xff\xfe ball");
  check_refused_prompt ("negative-prompt", huge);
  check_refused_prompt ("negative-prompt", "\xc3");
  g_free (huge);
}

GST_END_TEST;

GST_START_TEST (test_empty_prompt)
{
  GstElement *pipeline = pipeline_new (FAST "num-frames=1", SMALL);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");

  g_object_set (src, "prompt", "", NULL);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_EOS, 30));
  stop_quickly (pipeline);
  gst_object_unref (src);
  gst_object_unref (pipeline);
}

GST_END_TEST;

static void
run (const gchar * format, ...)
{
  va_list args;
  gchar *line;
  gint status = -1;

  va_start (args, format);
  line = g_strdup_vprintf (format, args);
  va_end (args);
  fail_unless (g_spawn_command_line_sync (line, NULL, NULL, &status, NULL));
  fail_unless (g_spawn_check_wait_status (status, NULL), "%s", line);
  g_free (line);
}

/* Weights are read after preroll has begun, so this error comes on the bus */
GST_START_TEST (test_damaged_weights)
{
  gchar *dir = g_dir_make_tmp ("element-XXXXXX", NULL);
  gchar *file = g_build_filename (dir, "tiny", "vae",
      "diffusion_pytorch_model.safetensors", NULL);
  gchar *set = g_strdup_printf (FAST "model=%s/tiny", dir);
  GstElement *pipeline;

  run ("cp -r %s %s/tiny", MODEL_DIR, dir);
  run ("chmod -R u+w %s/tiny", dir);
  run ("truncate -s -1000 %s", file);
  pipeline = pipeline_new (set, SMALL);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  assert_error (pipeline, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ);
  stop_quickly (pipeline);
  gst_object_unref (pipeline);

  run ("rm -rf %s", dir);
  g_free (set);
  g_free (file);
  g_free (dir);
}

GST_END_TEST;

static gchar *
first_frame (GstElement * pipeline)
{
  GstSample *sample;
  GstElement *sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  GstMapInfo map;
  gchar *sum;

  gst_element_set_state (pipeline, GST_STATE_PAUSED);
  gst_element_get_state (pipeline, NULL, NULL, GST_CLOCK_TIME_NONE);
  g_object_get (sink, "last-sample", &sample, NULL);
  gst_buffer_map (gst_sample_get_buffer (sample), &map, GST_MAP_READ);
  sum = g_compute_checksum_for_data (G_CHECKSUM_SHA256, map.data, map.size);
  gst_buffer_unmap (gst_sample_get_buffer (sample), &map);
  gst_sample_unref (sample);
  gst_object_unref (sink);
  return sum;
}

/* Weights that are zeros by now, without the file's looking different, matter
 * only to those who read them again: an element that starts within `linger` does
 * not, be it the same one or another */
GST_START_TEST (test_linger)
{
  gchar *dir = g_dir_make_tmp ("element-XXXXXX", NULL);
  gchar *file = g_build_filename (dir, "tiny", "transformer",
      "diffusion_pytorch_model.safetensors", NULL);
  gchar *set = g_strdup_printf (FAST "model=%s/tiny", dir);
  GstElement *pipeline, *other;
  gchar *before, *again, *same, *zeros;

  run ("cp -r %s %s/tiny", MODEL_DIR, dir);
  run ("chmod -R u+w %s/tiny", dir);
  pipeline = pipeline_new (set, SMALL);
  other = launch ("dualparalsrc %s linger=0 ! " SMALL " ! fakesink name=sink "
      "sync=false", set);
  before = first_frame (pipeline);
  stop_quickly (pipeline);

  run ("touch -r %s %s/stamp", file, dir);
  run ("dd if=/dev/zero of=%s bs=4096 seek=100 count=100 conv=notrunc", file);
  run ("touch -r %s/stamp %s", dir, file);
  again = first_frame (pipeline);
  stop_quickly (pipeline);
  same = first_frame (other);
  fail_unless_equals_string (again, before);
  fail_unless_equals_string (same, before);

  stop_quickly (other);
  zeros = first_frame (pipeline);
  fail_if (g_str_equal (zeros, before));
  stop_quickly (pipeline);

  gst_object_unref (pipeline);
  gst_object_unref (other);
  run ("rm -rf %s", dir);
  g_free (before);
  g_free (again);
  g_free (same);
  g_free (zeros);
  g_free (set);
  g_free (file);
  g_free (dir);
}

GST_END_TEST;

typedef struct
{
  gint starts, completes, cancels;
} Progress;

static void
take_progress (GstMessage * message, Progress * p)
{
  GstProgressType type;
  gchar *code, *text;

  gst_message_parse_progress (message, &type, &code, &text);
  fail_unless_equals_string (code, "load-model");
  fail_unless (*text != '\0');
  p->starts += type == GST_PROGRESS_TYPE_START;
  p->completes += type == GST_PROGRESS_TYPE_COMPLETE;
  p->cancels += type == GST_PROGRESS_TYPE_CANCELED;
  fail_unless (p->starts - p->completes - p->cancels == (type ==
          GST_PROGRESS_TYPE_START || type == GST_PROGRESS_TYPE_CONTINUE));
  g_free (code);
  g_free (text);
  gst_message_unref (message);
}

/* One start and one end each time, also when it is cut short, here after as many
 * messages as the round says */
GST_START_TEST (test_progress)
{
  GstElement *pipeline = pipeline_new (FAST "linger=0", SMALL);
  GstBus *bus = gst_element_get_bus (pipeline);
  GstMessage *message;
  Progress p = { 0, };
  gint round, i;

  for (round = 0; round < 4; round++) {
    gst_element_set_state (pipeline, GST_STATE_PAUSED);
    if (round == 0)
      gst_element_get_state (pipeline, NULL, NULL, GST_CLOCK_TIME_NONE);
    for (i = 0; i < round; i++) {
      message = gst_bus_timed_pop_filtered (bus, 30 * slowness () * GST_SECOND,
          GST_MESSAGE_PROGRESS);
      fail_unless (message != NULL);
      take_progress (message, &p);
    }
    /* READY, because NULL would empty the bus */
    gst_element_set_state (pipeline, GST_STATE_READY);
    while ((message = gst_bus_pop_filtered (bus, GST_MESSAGE_PROGRESS)))
      take_progress (message, &p);
    fail_unless_equals_int (p.starts, p.completes + p.cancels);
    if (round == 0)
      fail_unless_equals_int (p.completes, 1);
  }
  gst_object_unref (bus);
  stop_quickly (pipeline);
  gst_object_unref (pipeline);
}

GST_END_TEST;

/* -- from a handler on the thread that posts */

typedef struct
{
  GstElement *pipeline;
  GstState state;               /* to go to */
  GstMessageType type;
  const gchar *name;            /* of the message's structure, or NULL */
  guint skip;                   /* so many of these before */
  gint done;                    /* atomic */
} Handler;

static GstBusSyncReply
handle (GstBus * bus, GstMessage * message, gpointer data)
{
  Handler *h = data;

  if (GST_MESSAGE_TYPE (message) == h->type && (!h->name
          || gst_message_has_name (message, h->name))
      && !g_atomic_int_get (&h->done) && h->skip-- == 0) {
    gst_element_set_state (h->pipeline, h->state);
    g_atomic_int_set (&h->done, TRUE);
  }
  return GST_BUS_PASS;
}

/* The same where the sink gets an event, which it posts a message of. Not in a handler of
 * that message: there the sink holds a lock that PAUSED takes (GStreamer 1.22). */
static GstPadProbeReturn
handle_event (GstPad * pad, GstPadProbeInfo * info, gpointer data)
{
  Handler *h = data;

  if (GST_EVENT_TYPE (GST_PAD_PROBE_INFO_EVENT (info)) != GST_EVENT_TAG)
    return GST_PAD_PROBE_OK;
  gst_element_set_state (h->pipeline, h->state);
  g_atomic_int_set (&h->done, TRUE);
  return GST_PAD_PROBE_REMOVE;
}

/* Plays until the handler has changed the state, and on. To PAUSED it is the
 * second prompt's message, because of the moment that reach() tells about. */
static void
check_handler (const gchar * properties, GstState state, GstMessageType type,
    const gchar * name, guint skip)
{
  GstElement *pipeline = pipeline_new (properties, SMALL);
  GstBus *bus = gst_element_get_bus (pipeline);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstElement *sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  Handler h = { pipeline, state, type, name, skip, FALSE };
  TestClock start;
  Counter counter;
  guint frames;

  g_object_set (sink, "signal-handoffs", TRUE, NULL);
  counter_init (&counter, sink);
  if (state == GST_STATE_PAUSED) {
    reach (pipeline, GST_STATE_PLAYING);
    counter_wait (&counter, 1);
  }
  if (type == GST_MESSAGE_TAG) {
    GstPad *pad = gst_element_get_static_pad (sink, "sink");

    gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, handle_event,
        &h, NULL);
    gst_object_unref (pad);
  } else {
    gst_bus_set_sync_handler (bus, handle, &h, NULL);
  }
  if (state == GST_STATE_PAUSED)
    g_object_set (src, "prompt", "a green square", NULL);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  start = test_clock ();
  while (!g_atomic_int_get (&h.done)) {
    if (test_clock_seconds (start) > 20 * slowness ())
      g_error ("%s: state %d hangs", properties, state);
    g_usleep (1000);
  }
  g_mutex_lock (&counter.lock);
  frames = counter.frames;
  g_mutex_unlock (&counter.lock);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  counter_wait (&counter, frames + 5);
  stop_quickly (pipeline);
  gst_bus_set_sync_handler (bus, NULL, NULL, NULL);
  counter_clear (&counter);
  gst_object_unref (sink);
  gst_object_unref (src);
  gst_object_unref (bus);
  gst_object_unref (pipeline);
}

GST_START_TEST (test_stop_in_handler)
{
  guint i;

  for (i = 0; i < 4; i++)
    check_handler (FAST "linger=0", GST_STATE_NULL, GST_MESSAGE_PROGRESS, NULL,
        i);
  for (i = 0; i < 3; i++)
    check_handler (FAST "stats-interval=5", GST_STATE_NULL,
        GST_MESSAGE_ELEMENT, "application/x-dualparal-stats", i);
  check_handler (FAST, GST_STATE_NULL, GST_MESSAGE_ELEMENT,
      "dualparal-prompt-applied", 0);
}

GST_END_TEST;

GST_START_TEST (test_pause_in_handler)
{
  static const gchar *const properties[] = { FAST "marking=tags is-live=true",
    FAST "marking=tags"
  };
  guint i;

  for (i = 0; i < 2; i++) {
    check_handler (properties[i], GST_STATE_PAUSED, GST_MESSAGE_TAG, NULL, 0);
    check_handler (properties[i], GST_STATE_PAUSED, GST_MESSAGE_ELEMENT,
        "dualparal-prompt-applied", 0);
  }
}

GST_END_TEST;

static Suite *
states_suite (void)
{
  Suite *s = suite_create ("states");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_alone);
  tcase_add_test (tc, test_cycles);
  tcase_add_test (tc, test_stop_any_time);
  tcase_add_test (tc, test_stop_mid_block);
  tcase_add_test (tc, test_pause_and_play);
  tcase_add_test (tc, test_refused_models);
  tcase_add_test (tc, test_refused_settings);
  tcase_add_test (tc, test_refused_device);
  tcase_add_test (tc, test_refused_prompts);
  tcase_add_test (tc, test_empty_prompt);
  tcase_add_test (tc, test_damaged_weights);
  tcase_add_test (tc, test_linger);
  tcase_add_test (tc, test_progress);
  tcase_add_test (tc, test_stop_in_handler);
  tcase_add_test (tc, test_pause_in_handler);
  return s;
}

GST_CHECK_MAIN (states);
