/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Live video: each picture at its time of the clock, and what is done where there
 * is none. A script says when there are frames.
 */
#include "scripted.h"

#include <gst/base/gstpushsrc.h>
#include <string.h>

#define FRAME (GST_SECOND / SCRIPT_FPS)
#define BLOCK SCRIPT_BLOCK
/* Frames that most scripts begin with, and that a live video waits for */
#define FIRST 5
#define LIVE "is-live=true prebuffer=5 "

typedef struct
{
  GstHarness *h;
  GstBus *bus;
  GstClockTime base;            /* of the clock at running time 0 */
  gint64 first;                 /* frame that the engine began with */
} Live;

static void
live_use (Live * live, GstHarness * h)
{
  live->h = h;
  live->base = 0;
  live->first = 0;
  gst_element_set_clock (h->element, GST_CLOCK (script_clock ()));
  live->bus = gst_bus_new ();
  gst_element_set_bus (live->h->element, live->bus);
}

static void
live_init (Live * live, const gchar * properties, const gchar * caps)
{
  live_use (live, source_harness (properties, caps));
  gst_harness_play (live->h);
}

static void
live_clear (Live * live)
{
  gst_element_set_bus (live->h->element, NULL);
  gst_object_unref (live->bus);
  gst_harness_teardown (live->h);
}

/* What the engine made of that frame */
static void
check_bytes (GstBuffer * buffer, gint64 frame)
{
  GstMapInfo map;

  fail_unless (gst_buffer_map (buffer, &map, GST_MAP_READ));
  fail_unless_equals_int (map.data[0], frame % 256);
  fail_unless_equals_int (map.data[map.size - 1], frame % 256);
  gst_buffer_unmap (buffer, &map);
}

/* The picture that left, which is this frame (-1: a placeholder) */
static GstBuffer *
pull (Live * live, gint64 frame, gboolean gap, GstClockTime pts)
{
  GstBuffer *buffer = gst_harness_pull (live->h);

  fail_unless (buffer != NULL);
  fail_unless_equals_int64 ((gint64) GST_BUFFER_OFFSET (buffer), frame);
  fail_unless_equals_uint64 (GST_BUFFER_PTS (buffer), pts);
  fail_unless_equals_int (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP),
      gap);
  if (frame >= 0)
    check_bytes (buffer, frame - live->first);
  return buffer;
}

static void
expect_none_until (Live * live, GstClockTime running_time)
{
  const GstClockTime time = live->base + running_time;

  if (time > gst_clock_get_time (GST_CLOCK (script_clock ()))) {
    script_advance (time - 1);
    fail_unless_equals_int (gst_harness_buffers_in_queue (live->h), 0);
  }
}

/* None until then, and at that time this one */
static void
expect (Live * live, gint64 frame, gboolean gap, GstClockTime pts)
{
  expect_none_until (live, pts);
  script_advance (live->base + pts);
  gst_buffer_unref (pull (live, frame, gap, pts));
}

/* Fresh ones, each after the time that the one before lasts */
static void
expect_frames (Live * live, gint64 first, guint n, GstClockTime pts,
    GstClockTime duration)
{
  guint i;

  for (i = 0; i < n; i++)
    expect (live, first + i, FALSE, pts + i * duration);
}

/* The first ones of a script that has them at once, which leaves it at the time
 * of the fifth */
static void
expect_first (Live * live)
{
  expect_frames (live, 0, FIRST, 0, FRAME);
}

static void
expect_repeats (Live * live, gint64 frame, guint n, GstClockTime pts)
{
  guint i;

  for (i = 0; i < n; i++)
    expect (live, frame, TRUE, pts + i * FRAME);
}

static void
expect_qos (Live * live, guint n, GstClockTime start)
{
  GstMessage *message;
  GstClockTime running;
  gboolean is_live;
  guint i = 0;

  script_posted ();
  while ((message = gst_bus_pop_filtered (live->bus, GST_MESSAGE_QOS))) {
    gst_message_parse_qos (message, &is_live, &running, NULL, NULL, NULL);
    fail_unless (is_live);
    fail_unless_equals_uint64 (running, start + i * FRAME);
    gst_message_unref (message);
    i++;
  }
  fail_unless_equals_int (i, n);
}

static void
expect_stats (Live * live, guint64 repeated, guint64 underruns,
    GstClockTime stall_time)
{
  fail_unless_equals_uint64 (stat_of (live->h->element, "repeated"), repeated);
  fail_unless_equals_uint64 (stat_of (live->h->element, "underruns"),
      underruns);
  fail_unless_equals_uint64 (stat_of (live->h->element, "stall-time"),
      stall_time);
  /* A trace says the same */
  fail_unless_equals_int (script_marked ("repeated"), repeated);
  fail_unless_equals_int (script_marked ("underrun"), underruns);
}

/* Of all times for which a picture was due */
static void
expect_deadlines (Live * live, guint64 in_time, guint64 missed)
{
  fail_unless_equals_uint64 (stat_of (live->h->element, "missed"), missed);
  fail_unless_equals_float (stat_double (live->h->element,
          "deadline-attainment"), (gdouble) in_time / (in_time + missed));
}

/* -- the pace */

GST_START_TEST (test_pace)
{
  Live live;
  GstClockTime min, max;
  GstEvent *event = NULL;
  gboolean is_live;
  GstQuery *query;

  script_frames (24, 0);
  live_init (&live, "is-live=true num-frames=24 prebuffer=24", SMALL);
  expect_frames (&live, 0, 23, 0, FRAME);
  expect_none_until (&live, 23 * FRAME);
  script_step ();
  gst_buffer_unref (pull (&live, 23, FALSE, 23 * FRAME));
  expect_stats (&live, 0, 0, 0);
  expect_deadlines (&live, 24, 0);

  query = gst_query_new_latency ();
  fail_unless (gst_element_query (live.h->element, query));
  gst_query_parse_latency (query, &is_live, &min, &max);
  fail_unless (is_live);
  fail_unless_equals_uint64 (min, FRAME);
  fail_unless_equals_uint64 (max, 24 * FRAME);
  gst_query_unref (query);

  do {
    gst_clear_event (&event);
    event = gst_harness_pull_event (live.h);
    fail_unless (event != NULL);
  } while (GST_EVENT_TYPE (event) != GST_EVENT_EOS);
  gst_event_unref (event);
  live_clear (&live);
}

GST_END_TEST;

/* It begins when `prebuffer` frames are there, or all of the video, and not with
 * the first */
GST_START_TEST (test_prebuffer)
{
  Live live;

  script_frames (1, FRAME / 2);
  script_frames (3, FRAME);
  script_frames (1, 3 * FRAME + 1);
  live_init (&live, LIVE, SMALL);
  expect_frames (&live, 0, FIRST, 3 * FRAME + 1, FRAME);
  expect_stats (&live, 0, 0, 0);
  live_clear (&live);
}

GST_END_TEST;

GST_START_TEST (test_prebuffer_of_short_video)
{
  Live live;

  script_frames (3, FRAME);
  live_init (&live, LIVE "num-frames=3", SMALL);
  expect_frames (&live, 0, 2, FRAME, FRAME);
  live_clear (&live);
}

GST_END_TEST;

/* One that is asked for too late leaves at once */
GST_START_TEST (test_clock_runs_ahead)
{
  Live live;
  GstClockTime start = 1000 * GST_SECOND;

  script_frames (9, 0);
  live_init (&live, LIVE, SMALL);
  expect_frames (&live, 0, 2, 0, FRAME);
  script_jump (start);
  /* It was waited for, but the next would be late by a thousand seconds */
  expect_frames (&live, 2, 2, start, FRAME);
  expect_stats (&live, 0, 0, 0);
  expect_deadlines (&live, 4, 0);
  fail_unless_equals_uint64 (stat_of (live.h->element, "downstream-delays"), 0);
  live_clear (&live);
}

GST_END_TEST;

/* -- policies */

GST_START_TEST (test_repeat)
{
  Live live;

  script_frames (FIRST, 0);
  script_frames (BLOCK, 12 * FRAME);
  live_init (&live, LIVE, SMALL);
  expect_first (&live);
  expect_repeats (&live, FIRST - 1, 7, FIRST * FRAME);
  expect_frames (&live, FIRST, 2, 12 * FRAME, FRAME);
  expect_stats (&live, 7, 1, 0);
  expect_deadlines (&live, 7, 7);
  expect_qos (&live, 7, FIRST * FRAME);
  live_clear (&live);
}

GST_END_TEST;

/* Nothing until there is a frame; then that, at the time of then */
static void
expect_stalled (Live * live, GstClockTime later)
{
  GstBuffer *buffer;

  expect_none_until (live, later);
  script_advance (later);
  buffer = pull (live, FIRST, FALSE, later);
  fail_unless (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_DISCONT));
  gst_buffer_unref (buffer);
  expect (live, FIRST + 1, FALSE, later + FRAME);
}

GST_START_TEST (test_stall)
{
  const GstClockTime later = FIRST * FRAME + 3 * GST_SECOND + 1;
  Live live;

  script_frames (FIRST, 0);
  script_frames (BLOCK, later);
  live_init (&live, LIVE "underrun-policy=stall", SMALL);
  expect_first (&live);
  expect_stalled (&live, later);
  expect_stats (&live, 0, 1, 3 * GST_SECOND + 1);
  expect_deadlines (&live, 6, 1);
  expect_qos (&live, 1, FIRST * FRAME);
  live_clear (&live);
}

GST_END_TEST;

GST_START_TEST (test_max_repeat)
{
  const GstClockTime later = (FIRST + 2) * FRAME + 3 * GST_SECOND + 1;
  Live live;

  script_frames (FIRST, 0);
  script_frames (BLOCK, later);
  live_init (&live, LIVE "max-repeat=2", SMALL);
  expect_first (&live);
  expect_repeats (&live, FIRST - 1, 2, FIRST * FRAME);
  expect_stalled (&live, later);
  expect_stats (&live, 2, 1, 3 * GST_SECOND + 1);
  expect_deadlines (&live, 6, 3);
  expect_qos (&live, 3, FIRST * FRAME);
  live_clear (&live);
}

GST_END_TEST;

static void
expect_gap_event (Live * live, GstClockTime expected)
{
  GstClockTime timestamp, duration;
  GstEvent *event = NULL;

  do {
    gst_clear_event (&event);
    event = gst_harness_try_pull_event (live->h);
    fail_unless (event != NULL);
  } while (GST_EVENT_TYPE (event) != GST_EVENT_GAP);
  gst_event_parse_gap (event, &timestamp, &duration);
  fail_unless_equals_uint64 (timestamp, expected);
  fail_unless_equals_uint64 (duration, FRAME);
  gst_event_unref (event);
}

GST_START_TEST (test_gap)
{
  Live live;
  guint i;

  script_frames (FIRST, 0);
  script_frames (BLOCK, (FIRST + 3) * FRAME);
  live_init (&live, LIVE "underrun-policy=gap", SMALL);
  expect_first (&live);
  for (i = FIRST; i < FIRST + 3; i++) {
    script_advance (i * FRAME);
    expect_gap_event (&live, i * FRAME);
  }
  expect (&live, FIRST, FALSE, i * FRAME);
  expect_stats (&live, 0, 1, 3 * FRAME);
  expect_deadlines (&live, 6, 3);
  expect_qos (&live, 3, FIRST * FRAME);
  live_clear (&live);
}

GST_END_TEST;

/* One frame a second at least. The second block is there after a second, and from
 * then on frames last an eighth of that, while blocks come as slowly; until the
 * queue is full. */
GST_START_TEST (test_slow)
{
  const GstClockTime measured = GST_SECOND / BLOCK, again =
      3 * GST_SECOND, slower = 2 * GST_SECOND / BLOCK;
  Live live;

  script_frames (FIRST, 0);
  script_frames (BLOCK, GST_SECOND);
  script_frames (BLOCK, again - 1);
  script_frames (20, again + slower + 1);
  live_init (&live, LIVE "underrun-policy=slow min-framerate=1/1 "
      "max-queue-frames=20", SMALL);
  expect_first (&live);
  expect_frames (&live, FIRST, BLOCK, GST_SECOND, measured);
  expect_stats (&live, 0, 1, GST_SECOND - FIRST * FRAME);
  expect_deadlines (&live, 12, 1);

  /* Not even one a second: the next was due at 2 s */
  expect_repeats (&live, FIRST + BLOCK - 1, 1, again - measured);
  expect_stats (&live, 1, 2, GST_SECOND - FIRST * FRAME + GST_SECOND -
      measured);

  expect_frames (&live, FIRST + BLOCK, 2, again, slower);
  expect_frames (&live, FIRST + BLOCK + 2, 3, again + 2 * slower, FRAME);
  expect_stats (&live, 1, 2, GST_SECOND - FIRST * FRAME + GST_SECOND -
      measured);
  expect_deadlines (&live, 17, 2);
  live_clear (&live);
}

GST_END_TEST;

/* A late block is a hiccup: the frame is repeated. After the second one each frame lasts as long as
 * one of the block before took, which is twice as long. Then the queue is full, and the next
 * hiccup draws repeats again. */
GST_START_TEST (test_adaptive)
{
  const GstClockTime measured = GST_SECOND / BLOCK, second = 16 * FRAME,
      third = 2 * GST_SECOND, fourth = 3 * GST_SECOND;
  const gint64 full = FIRST + 2 * BLOCK + 2, end = FIRST + 3 * BLOCK + 20;
  Live live;

  script_frames (FIRST, 0);
  script_frames (BLOCK, second - 1);
  script_frames (BLOCK, third);
  script_frames (BLOCK, fourth - 1);
  script_frames (20, fourth + measured + 1);
  live_init (&live, LIVE "underrun-policy=adaptive min-framerate=1/1 "
      "max-queue-frames=20", SMALL);
  expect_first (&live);
  expect_repeats (&live, FIRST - 1, 16 - FIRST, FIRST * FRAME);
  expect_frames (&live, FIRST, BLOCK, second, FRAME);

  expect_frames (&live, FIRST + BLOCK, BLOCK, third, measured);
  expect_frames (&live, FIRST + 2 * BLOCK, 2, fourth, measured);
  expect_frames (&live, full, end - full, fourth + 2 * measured, FRAME);
  expect_repeats (&live, end - 1, 3, fourth + 2 * measured + (end - full) * FRAME);
  live_clear (&live);
}

GST_END_TEST;

/* The decoder of a late block may be slow, too, and the frames run out again and again; that is one
 * setback */
GST_START_TEST (test_adaptive_hiccup)
{
  guint i;
  Live live;

  script_frames (FIRST, 0);
  for (i = 0; i < BLOCK / 2; i++)
    script_frames (2, (10 + 4 * i) * FRAME - 1);
  live_init (&live, LIVE "underrun-policy=adaptive min-framerate=1/1", SMALL);
  expect_first (&live);
  expect_repeats (&live, FIRST - 1, 5, FIRST * FRAME);
  for (i = 0; i < BLOCK / 2 - 1; i++) {
    expect_frames (&live, FIRST + 2 * i, 2, (10 + 4 * i) * FRAME, FRAME);
    expect_repeats (&live, FIRST + 2 * i + 1, 2, (12 + 4 * i) * FRAME);
  }
  live_clear (&live);
}

GST_END_TEST;

/* Each engine is measured by itself, and its blocks are a second apart too */
GST_START_TEST (test_slow_after_resize)
{
  const GstClockTime measured = GST_SECOND / BLOCK, opened =
      GST_SECOND + measured, start = opened + measured;
  Live live;

  script_frames (FIRST, 0);
  script_frames (BLOCK, GST_SECOND);
  live_init (&live, LIVE "underrun-policy=slow min-framerate=1/1 "
      "max-queue-frames=40", SMALL);
  expect_first (&live);
  expect_frames (&live, FIRST, 1, GST_SECOND, measured);
  gst_harness_set_sink_caps_str (live.h, "video/x-raw, width=48, height=32");
  gst_harness_push_upstream_event (live.h, gst_event_new_reconfigure ());
  expect_frames (&live, FIRST + 1, 1, opened, measured);
  fail_unless_equals_int (script_opened (), 2);

  live.first = FIRST + 2;
  expect_frames (&live, live.first, FIRST, start, FRAME);
  expect_frames (&live, live.first + FIRST, BLOCK, opened + GST_SECOND,
      (opened + GST_SECOND - start) / BLOCK);
  live_clear (&live);
}

GST_END_TEST;

/* Nor over a flush after which running time is 0 again */
GST_START_TEST (test_slow_after_flush)
{
  Live live;

  script_frames (FIRST, 0);
  script_frames (BLOCK, 4 * FRAME);
  script_frames (BLOCK, 5 * FRAME);
  live_init (&live, LIVE "underrun-policy=slow min-framerate=1/1 "
      "max-queue-frames=40", SMALL);
  expect_first (&live);
  expect (&live, FIRST, FALSE, FIRST * FRAME);
  gst_element_send_event (live.h->element, gst_event_new_flush_start ());
  live.base = FIRST * FRAME;
  gst_element_set_base_time (live.h->element, live.base);
  gst_element_send_event (live.h->element, gst_event_new_flush_stop (TRUE));
  expect_frames (&live, FIRST + 1, 2, 0, FRAME);
  live_clear (&live);
}

GST_END_TEST;

/* The next wait ends in this error */
static gchar *
expect_error (Live * live, GQuark domain, gint code)
{
  GstMessage *message;
  GError *error;
  gchar *text;

  script_step ();
  message = gst_bus_timed_pop_filtered (live->bus, 20 * GST_SECOND,
      GST_MESSAGE_ERROR);
  fail_unless (message != NULL);
  gst_message_parse_error (message, &error, NULL);
  fail_unless (g_error_matches (error, domain, code), "%s", error->message);
  text = g_strdup (error->message);
  g_error_free (error);
  gst_message_unref (message);
  return text;
}

GST_START_TEST (test_error)
{
  Live live;
  gchar *text;

  script_frames (FIRST, 0);
  live_init (&live, LIVE "underrun-policy=error", SMALL);
  expect_first (&live);
  text = expect_error (&live, GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED);
  fail_unless (strstr (text, "real time") != NULL);
  g_free (text);
  fail_unless_equals_int (gst_clock_get_time (GST_CLOCK (script_clock ())),
      FIRST * FRAME);
  live_clear (&live);
}

GST_END_TEST;

/* In the middle of a stall */
GST_START_TEST (test_change_policy)
{
  Live live;

  script_frames (FIRST, 0);
  live_init (&live, LIVE "underrun-policy=stall", SMALL);
  expect_first (&live);
  expect_none_until (&live, 10 * GST_SECOND + 1);
  g_object_set (live.h->element, "underrun-policy", 0, NULL);
  gst_buffer_unref (pull (&live, FIRST - 1, TRUE, 10 * GST_SECOND));
  expect_repeats (&live, FIRST - 1, 1, 10 * GST_SECOND + FRAME);
  expect_stats (&live, 2, 1, 10 * GST_SECOND - FIRST * FRAME);
  expect_deadlines (&live, 5, 2);
  live_clear (&live);
}

GST_END_TEST;

/* -- the start */

GST_START_TEST (test_placeholder)
{
  static const gchar *const formats[] = { "I420", "NV12", "RGB", "ARGB" };
  /* The first two and the last */
  static const guint8 bytes[][3] = {
    {50, 50, 128}, {50, 50, 128}, {40, 40, 40}, {255, 40, 40}
  };
  GstBuffer *buffer;
  GstMapInfo map;
  guint i, n;

  for (i = 0; i < G_N_ELEMENTS (formats); i++) {
    gchar *caps = g_strdup_printf (SMALL ", format=%s", formats[i]);
    const GstClockTime start = gst_clock_get_time (GST_CLOCK (script_clock ()));
    Live live;

    live_use (&live, source_harness (LIVE "startup-policy=placeholder", caps));
    live.base = start;
    gst_element_set_base_time (live.h->element, start);
    gst_harness_play (live.h);
    script_advance (start);
    buffer = pull (&live, -1, TRUE, 0);
    fail_unless (gst_buffer_map (buffer, &map, GST_MAP_READ));
    fail_unless_equals_int (map.data[0], bytes[i][0]);
    fail_unless_equals_int (map.data[1], bytes[i][1]);
    fail_unless_equals_int (map.data[map.size - 1], bytes[i][2]);
    gst_buffer_unmap (buffer, &map);
    gst_buffer_unref (buffer);
    for (n = 1; n < 5; n++)
      expect (&live, -1, TRUE, n * FRAME);
    fail_unless_equals_uint64 (stat_of (live.h->element, "placeholders"), 5);
    fail_unless_equals_float (stat_double (live.h->element,
            "deadline-attainment"), 1);
    live_clear (&live);
    g_free (caps);
  }
}

GST_END_TEST;

/* The video takes over in the rhythm of the placeholder, once enough is there */
GST_START_TEST (test_placeholder_ends)
{
  Live live;

  script_frames (FIRST, FRAME);
  script_frames (BLOCK, 3 * FRAME + 1);
  live_init (&live, "is-live=true startup-policy=placeholder prebuffer=9", SMALL);
  expect (&live, -1, TRUE, 0);
  expect (&live, -1, TRUE, FRAME);
  expect (&live, -1, TRUE, 2 * FRAME);
  expect (&live, -1, TRUE, 3 * FRAME);
  expect_frames (&live, 0, 9, 4 * FRAME, FRAME);
  fail_unless_equals_uint64 (stat_of (live.h->element, "placeholders"), 4);
  live_clear (&live);
}

GST_END_TEST;

GST_START_TEST (test_refused)
{
  GstElement *pipeline;

  pipeline = launch ("dualparalsrc is-live=true prebuffer=9 "
      "max-queue-frames=8 ! fakesink");
  fail_unless_equals_int (gst_element_set_state (pipeline, GST_STATE_PLAYING),
      GST_STATE_CHANGE_FAILURE);
  assert_error (pipeline, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);

  pipeline = launch ("dualparalsrc is-live=true startup-policy=placeholder "
      "placeholder=/no/such/file ! fakesink");
  fail_unless_equals_int (gst_element_set_state (pipeline, GST_STATE_PLAYING),
      GST_STATE_CHANGE_FAILURE);
  assert_error (pipeline, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
}

GST_END_TEST;

GST_START_TEST (test_is_live_is_fixed)
{
  GstElement *pipeline = launch ("dualparalsrc name=src is-live=true ! " SMALL
      " ! fakesink");
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  gboolean is_live;

  fail_unless_equals_int (gst_element_set_state (pipeline, GST_STATE_PAUSED),
      GST_STATE_CHANGE_NO_PREROLL);
  g_object_set (src, "is-live", FALSE, NULL);
  g_object_get (src, "is-live", &is_live, NULL);
  fail_unless (is_live);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_WARNING, 1));
  gst_element_set_state (pipeline, GST_STATE_READY);
  g_object_set (src, "is-live", FALSE, NULL);
  g_object_get (src, "is-live", &is_live, NULL);
  fail_if (is_live);
  fail_unless_equals_int (gst_element_set_state (pipeline, GST_STATE_PAUSED),
      GST_STATE_CHANGE_ASYNC);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (src);
  gst_object_unref (pipeline);
}

GST_END_TEST;

/* -- PAUSED */

/* As GStreamer 1.24 and later do when PAUSED comes while a buffer is being
 * made: it is dropped, and another is asked for */
static GstFlowReturn (*real_create) (GstPushSrc * src, GstBuffer ** buffer);
static guint created, drop_one_of;

static GstFlowReturn
dropping_create (GstPushSrc * src, GstBuffer ** buffer)
{
  GstFlowReturn flow = real_create (src, buffer);

  if (flow == GST_FLOW_OK && created++ % drop_one_of == 0) {
    gst_clear_buffer (buffer);
    flow = real_create (src, buffer);
  }
  return flow;
}

static void
dropping_class_init (gpointer klass, gpointer data)
{
  real_create = GST_PUSH_SRC_CLASS (klass)->create;
  GST_PUSH_SRC_CLASS (klass)->create = dropping_create;
}

static GstHarness *
dropping_harness (guint one_of)
{
  GstElement *src = source_new ("");
  static GType type;
  GTypeQuery query;
  GstHarness *h;

  created = 0;
  drop_one_of = one_of;
  if (!type) {
    g_type_query (G_OBJECT_TYPE (src), &query);
    type = g_type_register_static_simple (G_OBJECT_TYPE (src), "DroppingSrc",
        query.class_size, dropping_class_init, query.instance_size, NULL, 0);
  }
  gst_object_unref (src);
  src = gst_object_ref_sink (g_object_new (type, "is-live", TRUE, "prebuffer",
          FIRST, NULL));
  h = gst_harness_new_with_element (src, NULL, "src");
  gst_object_unref (src);
  gst_harness_set_sink_caps_str (h, SMALL);
  return h;
}

/* Each frame is sent, once, and with its own picture */
GST_START_TEST (test_dropped_is_sent_again)
{
  Live live;

  script_frames (FIRST, 2 * FRAME);
  script_frames (16, 4 * FRAME);
  live_use (&live, dropping_harness (3));
  gst_util_set_object_arg (G_OBJECT (live.h->element), "startup-policy",
      "placeholder");
  gst_harness_play (live.h);
  expect (&live, -1, TRUE, 0);
  expect (&live, -1, TRUE, FRAME);
  expect_frames (&live, 0, FIRST + 15, 2 * FRAME, FRAME);
  expect_stats (&live, 0, 0, 0);
  expect_deadlines (&live, FIRST + 15, 0);
  fail_unless_equals_uint64 (stat_of (live.h->element, "placeholders"), 2);
  live_clear (&live);
}

GST_END_TEST;

/* What was dropped was not shown, whatever it was */
GST_START_TEST (test_dropped_is_counted_once)
{
  Live live;

  script_frames (FIRST, 0);
  live_use (&live, dropping_harness (1));
  gst_harness_play (live.h);
  expect_first (&live);
  expect_repeats (&live, FIRST - 1, 3, FIRST * FRAME);
  fail_unless_equals_uint64 (stat_of (live.h->element, "repeated"), 3);
  fail_unless_equals_uint64 (stat_of (live.h->element, "underruns"), 1);
  expect_deadlines (&live, FIRST, 3);
  live_clear (&live);
}

GST_END_TEST;

static Suite *
live_suite (void)
{
  Suite *s = suite_create ("live");
  TCase *tc = script_case_new (s);

  tcase_add_test (tc, test_pace);
  tcase_add_test (tc, test_prebuffer);
  tcase_add_test (tc, test_prebuffer_of_short_video);
  tcase_add_test (tc, test_clock_runs_ahead);
  tcase_add_test (tc, test_repeat);
  tcase_add_test (tc, test_stall);
  tcase_add_test (tc, test_max_repeat);
  tcase_add_test (tc, test_gap);
  tcase_add_test (tc, test_slow);
  tcase_add_test (tc, test_adaptive);
  tcase_add_test (tc, test_adaptive_hiccup);
  tcase_add_test (tc, test_slow_after_resize);
  tcase_add_test (tc, test_slow_after_flush);
  tcase_add_test (tc, test_error);
  tcase_add_test (tc, test_change_policy);
  tcase_add_test (tc, test_placeholder);
  tcase_add_test (tc, test_placeholder_ends);
  tcase_add_test (tc, test_refused);
  tcase_add_test (tc, test_is_live_is_fixed);
  tcase_add_test (tc, test_dropped_is_sent_again);
  tcase_add_test (tc, test_dropped_is_counted_once);
  return s;
}

GST_CHECK_MAIN (live);
