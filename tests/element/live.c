/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Live video: each picture at its time of the clock, and what is done where there
 * is none. Time is a test clock's wherever possible, so that how many frames are
 * there when it moves on is up to the test and not to the machine.
 */
#include "element.h"

#include <gst/base/gstpushsrc.h>
#include <gst/check/gsttestclock.h>
#include <string.h>

#define FRAME (GST_SECOND / 16)
#define FIRST SLOW_FIRST
#define BLOCK SLOW_BLOCK

typedef struct
{
  GstHarness *h;
  GstTestClock *clock;
  GstBus *bus;
} Live;

static void
live_use (Live * live, GstHarness * h)
{
  live->h = h;
  gst_harness_use_testclock (live->h);
  live->clock = gst_harness_get_testclock (live->h);
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
  const gint64 start = g_get_monotonic_time ();

  gst_element_set_bus (live->h->element, NULL);
  gst_object_unref (live->clock);
  gst_object_unref (live->bus);
  gst_harness_teardown (live->h);
  fail_unless (seconds_since (start) < slowness (), "took %g s",
      seconds_since (start));
}

static void
wait_queue (Live * live, guint frames)
{
  const gint64 start = g_get_monotonic_time ();

  while (stat_of (live->h->element, "queue-frames") < frames) {
    fail_unless (seconds_since (start) < 60 * slowness ());
    g_usleep (2000);
  }
}

/* The next picture, which is this frame (-1: a placeholder), now */
static void
check_picture (Live * live, gint64 frame, gboolean gap, GstClockTime pts)
{
  GstBuffer *buffer = gst_harness_pull (live->h);

  fail_unless (buffer != NULL);
  fail_unless_equals_int64 ((gint64) GST_BUFFER_OFFSET (buffer), frame);
  fail_unless_equals_uint64 (GST_BUFFER_PTS (buffer), pts);
  fail_unless_equals_int (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP),
      gap);
  gst_buffer_unref (buffer);
}

/* One that needs the clock to come to its time, and not further */
static void
check_next (Live * live, gint64 frame, gboolean gap, GstClockTime pts)
{
  GstClockID id;

  gst_test_clock_wait_for_next_pending_id (live->clock, &id);
  fail_unless_equals_uint64 (gst_clock_id_get_time (id), pts);
  gst_clock_id_unref (id);
  fail_unless_equals_int (gst_harness_buffers_in_queue (live->h), 0);
  fail_unless (gst_test_clock_crank (live->clock));
  check_picture (live, frame, gap, pts);
}

/* Shows the frames of the first block */
static void
play_first (Live * live)
{
  guint i;

  check_picture (live, 0, FALSE, 0);
  for (i = 1; i < FIRST; i++)
    check_next (live, i, FALSE, i * FRAME);
}

/* Comes to the time of the next picture, for which there is none */
static void
miss (Live * live)
{
  gst_test_clock_wait_for_next_pending_id (live->clock, NULL);
  fail_unless (gst_test_clock_crank (live->clock));
  g_usleep (30000);
  fail_unless_equals_int (gst_harness_buffers_in_queue (live->h), 0);
}

/* How many QOS messages there were, the first for a picture due at `first` */
static guint
count_qos (Live * live, GstClockTime first)
{
  GstMessage *message;
  GstClockTime running;
  gboolean is_live;
  guint n = 0;

  while ((message = gst_bus_pop_filtered (live->bus, GST_MESSAGE_QOS))) {
    gst_message_parse_qos (message, &is_live, &running, NULL, NULL, NULL);
    fail_unless (is_live);
    if (n++ == 0)
      fail_unless_equals_uint64 (running, first);
    gst_message_unref (message);
  }
  return n;
}

static void
check_stats (Live * live, guint64 repeated, guint64 underruns,
    GstClockTime stall_time)
{
  fail_unless_equals_uint64 (stat_of (live->h->element, "repeated"), repeated);
  fail_unless_equals_uint64 (stat_of (live->h->element, "underruns"),
      underruns);
  fail_unless_equals_uint64 (stat_of (live->h->element, "stall-time"),
      stall_time);
}

/* Of all times for which a picture was due */
static void
check_deadlines (GstElement * src, guint64 in_time, guint64 missed)
{
  fail_unless_equals_uint64 (stat_of (src, "missed"), missed);
  fail_unless_equals_float (stat_double (src, "deadline-attainment"),
      (gdouble) in_time / (in_time + missed));
}

/* -- the pace */

GST_START_TEST (test_pace)
{
  Live live;
  GstClockTime min, max;
  GstEvent *event = NULL;
  gboolean is_live;
  GstQuery *query;
  guint i;

  live_init (&live, FAST "is-live=true num-frames=24 prebuffer=24", SMALL);
  check_picture (&live, 0, FALSE, 0);
  for (i = 1; i < 24; i++)
    check_next (&live, i, FALSE, i * FRAME);
  check_stats (&live, 0, 0, 0);
  check_deadlines (live.h->element, 24, 0);

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

/* The first leaves when it is there, whatever the clock was until then, and one
 * that is asked for too late leaves at once */
GST_START_TEST (test_clock_runs_ahead)
{
  Live live;
  GstClockTime start = 1000 * GST_SECOND;

  live_init (&live, FAST "is-live=true prebuffer=9", SMALL);
  check_picture (&live, 0, FALSE, 0);
  check_next (&live, 1, FALSE, FRAME);
  gst_test_clock_wait_for_next_pending_id (live.clock, NULL);
  gst_test_clock_set_time (live.clock, start);
  gst_clock_id_unref (gst_test_clock_process_next_clock_id (live.clock));
  /* It was waited for, but the next would be late by a thousand seconds */
  check_picture (&live, 2, FALSE, start);
  check_next (&live, 3, FALSE, start + FRAME);
  check_stats (&live, 0, 0, 0);
  check_deadlines (live.h->element, 4, 0);
  live_clear (&live);
}

GST_END_TEST;

/* -- policies */

GST_START_TEST (test_repeat)
{
  Live live;
  guint i;

  live_init (&live, SLOW_BLOCKS, SMALL);
  play_first (&live);
  for (; i = stat_of (live.h->element, "repeated"), i < 7;)
    check_next (&live, FIRST - 1, TRUE, (FIRST + i) * FRAME);
  wait_queue (&live, 2);
  check_next (&live, FIRST, FALSE, (FIRST + 7) * FRAME);
  check_next (&live, FIRST + 1, FALSE, (FIRST + 8) * FRAME);
  check_stats (&live, 7, 1, 0);
  check_deadlines (live.h->element, 7, 7);
  fail_unless_equals_int (count_qos (&live, FIRST * FRAME), 7);
  live_clear (&live);
}

GST_END_TEST;

/* Nothing until there is a frame; then that, at the time of then */
static void
check_stalled (Live * live, guint slot)
{
  const GstClockTime later = slot * FRAME + 3 * GST_SECOND + 1;
  GstBuffer *buffer;

  miss (live);
  gst_test_clock_set_time (live->clock, later);
  buffer = gst_harness_pull (live->h);
  fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer), FIRST);
  fail_unless_equals_uint64 (GST_BUFFER_PTS (buffer), later);
  fail_unless (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_DISCONT));
  fail_if (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP));
  gst_buffer_unref (buffer);
  wait_queue (live, 1);
  check_next (live, FIRST + 1, FALSE, later + FRAME);
}

GST_START_TEST (test_stall)
{
  Live live;

  live_init (&live, SLOW_BLOCKS "underrun-policy=stall", SMALL);
  play_first (&live);
  check_stalled (&live, FIRST);
  check_stats (&live, 0, 1, 3 * GST_SECOND + 1);
  check_deadlines (live.h->element, 6, 1);
  fail_unless_equals_int (count_qos (&live, FIRST * FRAME), 1);
  live_clear (&live);
}

GST_END_TEST;

GST_START_TEST (test_max_repeat)
{
  Live live;

  live_init (&live, SLOW_BLOCKS "max-repeat=2", SMALL);
  play_first (&live);
  check_next (&live, FIRST - 1, TRUE, FIRST * FRAME);
  check_next (&live, FIRST - 1, TRUE, (FIRST + 1) * FRAME);
  check_stalled (&live, FIRST + 2);
  check_stats (&live, 2, 1, 3 * GST_SECOND + 1);
  check_deadlines (live.h->element, 6, 3);
  live_clear (&live);
}

GST_END_TEST;

static void
check_gap_event (Live * live, GstClockTime expected)
{
  GstClockTime timestamp, duration;
  GstEvent *event = NULL;

  do {
    gst_clear_event (&event);
    event = gst_harness_pull_event (live->h);
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

  live_init (&live, SLOW_BLOCKS "underrun-policy=gap", SMALL);
  play_first (&live);
  for (i = FIRST; i < FIRST + 3; i++) {
    miss (&live);
    check_gap_event (&live, i * FRAME);
  }
  wait_queue (&live, 1);
  check_next (&live, FIRST, FALSE, i * FRAME);
  check_stats (&live, 0, 1, 3 * FRAME);
  check_deadlines (live.h->element, 6, 3);
  fail_unless_equals_int (count_qos (&live, FIRST * FRAME), 3);
  live_clear (&live);
}

GST_END_TEST;

/* One frame a second at least. The second block is there after a second, and from
 * then on frames last an eighth of that; until the queue is full. */
GST_START_TEST (test_slow)
{
  GstClockTime time = GST_SECOND, measured, stalled;
  GstBuffer *buffer;
  Live live;
  guint i;

  live_init (&live, SLOW_BLOCKS "underrun-policy=slow min-framerate=1/1 "
      "max-queue-frames=8", SMALL);
  play_first (&live);
  miss (&live);
  gst_test_clock_set_time (live.clock, time);
  buffer = gst_harness_pull (live.h);
  fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer), FIRST);
  fail_unless_equals_uint64 (GST_BUFFER_PTS (buffer), time);
  measured = time / BLOCK;
  stalled = time - FIRST * FRAME;
  wait_queue (&live, BLOCK - 1);
  /* Whether the last of the block was there together with the first */
  time += GST_BUFFER_DURATION (buffer);
  if (GST_BUFFER_DURATION (buffer) == FRAME)
    measured = time / BLOCK;
  gst_buffer_unref (buffer);
  check_next (&live, FIRST + 1, FALSE, time);
  for (i = 2; i < BLOCK; i++)
    check_next (&live, FIRST + i, FALSE, time += measured);

  /* Not even one a second */
  miss (&live);
  gst_test_clock_set_time (live.clock, time + GST_SECOND);
  check_picture (&live, FIRST + BLOCK - 1, TRUE, time += GST_SECOND);
  check_stats (&live, 1, 2, stalled + GST_SECOND - measured);
  check_deadlines (live.h->element, 12, 2);

  wait_queue (&live, BLOCK);
  check_next (&live, FIRST + BLOCK, FALSE, time += measured);
  check_next (&live, FIRST + BLOCK + 1, FALSE, time += FRAME);
  live_clear (&live);
}

GST_END_TEST;

/* Each engine is measured by itself, however long the next one took to come */
GST_START_TEST (test_slow_after_resize)
{
  const GstClockTime start = 10 * GST_SECOND;
  Live live;
  guint i;

  live_init (&live, SLOW_BLOCKS "underrun-policy=slow min-framerate=1/1 "
      "max-queue-frames=40", SMALL);
  check_picture (&live, 0, FALSE, 0);
  gst_harness_set_sink_caps_str (live.h, "video/x-raw, width=48, height=32");
  gst_harness_push_upstream_event (live.h, gst_event_new_reconfigure ());
  gst_test_clock_wait_for_next_pending_id (live.clock, NULL);
  gst_test_clock_set_time (live.clock, start);
  gst_clock_id_unref (gst_test_clock_process_next_clock_id (live.clock));
  check_picture (&live, 1, FALSE, start);

  for (i = 1; i <= FIRST; i++)
    check_next (&live, 1 + i, FALSE, start + i * FRAME);
  wait_queue (&live, BLOCK);
  for (; i <= FIRST + 3; i++)
    check_next (&live, 1 + i, FALSE, start + i * FRAME);
  live_clear (&live);
}

GST_END_TEST;

/* Nor over a flush after which running time is 0 again */
GST_START_TEST (test_slow_after_flush)
{
  Live live;

  live_init (&live, SLOW_BLOCKS "underrun-policy=slow min-framerate=1/1 "
      "max-queue-frames=40", SMALL);
  play_first (&live);
  wait_queue (&live, BLOCK);
  check_next (&live, FIRST, FALSE, FIRST * FRAME);
  wait_queue (&live, 2 * BLOCK - 1);
  gst_element_send_event (live.h->element, gst_event_new_flush_start ());
  gst_element_set_base_time (live.h->element, FIRST * FRAME);
  gst_element_send_event (live.h->element, gst_event_new_flush_stop (TRUE));
  check_picture (&live, FIRST + 1, FALSE, 0);
  gst_test_clock_wait_for_next_pending_id (live.clock, NULL);
  fail_unless (gst_test_clock_crank (live.clock));
  check_picture (&live, FIRST + 2, FALSE, FRAME);
  live_clear (&live);
}

GST_END_TEST;

GST_START_TEST (test_error)
{
  GstMessage *message;
  GError *error;
  Live live;

  live_init (&live, SLOW_BLOCKS "underrun-policy=error", SMALL);
  play_first (&live);
  miss (&live);
  message = gst_bus_timed_pop_filtered (live.bus, 20 * GST_SECOND,
      GST_MESSAGE_ERROR);
  fail_unless (message != NULL);
  gst_message_parse_error (message, &error, NULL);
  fail_unless (g_error_matches (error, GST_STREAM_ERROR,
          GST_STREAM_ERROR_FAILED));
  fail_unless (strstr (error->message, "real time") != NULL);
  g_error_free (error);
  gst_message_unref (message);
  live_clear (&live);
}

GST_END_TEST;

GST_START_TEST (test_change_policy)
{
  Live live;

  live_init (&live, SLOW_BLOCKS "underrun-policy=stall", SMALL);
  play_first (&live);
  miss (&live);
  gst_test_clock_set_time (live.clock, 10 * GST_SECOND);
  g_object_set (live.h->element, "underrun-policy", 0, NULL);
  check_picture (&live, FIRST - 1, TRUE, 10 * GST_SECOND);
  check_next (&live, FIRST - 1, TRUE, 10 * GST_SECOND + FRAME);
  check_stats (&live, 2, 1, 10 * GST_SECOND - FIRST * FRAME);
  check_deadlines (live.h->element, 5, 2);
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
  Live live;
  guint i, n;

  for (i = 0; i < G_N_ELEMENTS (formats); i++) {
    gchar *caps = g_strdup_printf (SMALL ", format=%s", formats[i]);
    const gint64 start = g_get_monotonic_time ();

    live_init (&live, SLOW "is-live=true startup-policy=placeholder", caps);
    buffer = gst_harness_pull (live.h);
    GST_INFO ("after %g s", seconds_since (start));
    fail_unless (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP));
    fail_unless_equals_uint64 (GST_BUFFER_PTS (buffer), 0);
    fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer),
        GST_BUFFER_OFFSET_NONE);
    fail_unless (gst_buffer_map (buffer, &map, GST_MAP_READ));
    fail_unless_equals_int (map.data[0], bytes[i][0]);
    fail_unless_equals_int (map.data[1], bytes[i][1]);
    fail_unless_equals_int (map.data[map.size - 1], bytes[i][2]);
    gst_buffer_unmap (buffer, &map);
    gst_buffer_unref (buffer);
    for (n = 1; n < 5; n++)
      check_next (&live, -1, TRUE, n * FRAME);
    fail_unless_equals_uint64 (stat_of (live.h->element, "placeholders"), 5);
    fail_unless_equals_float (stat_double (live.h->element,
            "deadline-attainment"), 1);
    live_clear (&live);
    g_free (caps);
  }
}

GST_END_TEST;

/* The video takes over in the rhythm of the placeholder */
GST_START_TEST (test_placeholder_ends)
{
  GstBuffer *buffer;
  Live live;
  guint i, n;

  live_init (&live, FAST "is-live=true startup-policy=placeholder prebuffer=9",
      SMALL);
  check_picture (&live, -1, TRUE, 0);
  for (n = 1, i = 0; i < 9; n++) {
    g_usleep (2000);
    gst_test_clock_wait_for_next_pending_id (live.clock, NULL);
    fail_unless (gst_test_clock_crank (live.clock));
    buffer = gst_harness_pull (live.h);
    fail_unless_equals_uint64 (GST_BUFFER_PTS (buffer), n * FRAME);
    if (!GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP))
      fail_unless (GST_BUFFER_OFFSET (buffer) == i++);
    else
      fail_unless (i == 0);
    gst_buffer_unref (buffer);
  }
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
  GstElement *pipeline = launch ("dualparalsrc name=src is-live=true " FAST
      " ! " SMALL " ! fakesink");
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
static gint dropped;
static gint drop_one_of = 3;

static GstFlowReturn
dropping_create (GstPushSrc * src, GstBuffer ** buffer)
{
  GstFlowReturn flow = real_create (src, buffer);

  if (flow == GST_FLOW_OK && g_random_int_range (0, drop_one_of) == 0) {
    gst_clear_buffer (buffer);
    dropped++;
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
dropping_harness (void)
{
  GstElement *src = source_new ("");
  static GType type;
  GTypeQuery query;
  GstHarness *h;

  if (!type) {
    g_type_query (G_OBJECT_TYPE (src), &query);
    type = g_type_register_static_simple (G_OBJECT_TYPE (src), "DroppingSrc",
        query.class_size, dropping_class_init, query.instance_size, NULL, 0);
  }
  gst_object_unref (src);
  src = gst_object_ref_sink (g_object_new (type, NULL));
  h = gst_harness_new_with_element (src, NULL, "src");
  gst_object_unref (src);
  gst_harness_set_sink_caps_str (h, SMALL);
  return h;
}

/* Each frame is sent, once, and with its own picture */
GST_START_TEST (test_dropped_is_sent_again)
{
  GstHarness *h = source_harness (FAST "num-frames=40", SMALL);
  gchar *sums[40], *sum;
  GstBuffer *buffer;
  GstClockTime last = 0;
  guint i;

  gst_harness_play (h);
  for (i = 0; i < 40; i++)
    sums[i] = checksum_frames (h, 1);
  gst_harness_teardown (h);

  dropped = 0;
  h = dropping_harness ();
  gst_util_set_object_arg (G_OBJECT (h->element), "is-live", "true");
  gst_util_set_object_arg (G_OBJECT (h->element), "startup-policy",
      "placeholder");
  g_object_set (h->element, "steps", 1, "guidance-scale", 1., "block-latents",
      1, "context-latents", -1, "num-frames", (gint64) 40, NULL);
  gst_harness_use_systemclock (h);
  gst_harness_play (h);
  for (i = 0; i < 40;) {
    buffer = gst_harness_pull (h);
    fail_unless (buffer != NULL);
    fail_unless (GST_BUFFER_PTS (buffer) > last || i == 0);
    last = GST_BUFFER_PTS (buffer);
    if (!GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP)) {
      fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer), i);
      sum = checksum_buffer (h, buffer);
      fail_unless_equals_string (sum, sums[i]);
      g_free (sum);
      i++;
    }
    gst_buffer_unref (buffer);
  }
  fail_unless (dropped > 0);
  check_deadlines (h->element, 40, stat_of (h->element, "missed"));
  gst_harness_teardown (h);
  for (i = 0; i < 40; i++)
    g_free (sums[i]);
}

GST_END_TEST;

/* What was dropped was not shown, whatever it was */
GST_START_TEST (test_dropped_is_counted_once)
{
  Live live;
  guint i;

  drop_one_of = 1;
  live_use (&live, dropping_harness ());
  g_object_set (live.h->element, "is-live", TRUE, "steps", 1000,
      "guidance-scale", 1., "block-latents", 2, "context-latents", -1,
      "queue-blocks", 1, "threads", 1, "prebuffer", FIRST, NULL);
  gst_harness_play (live.h);
  play_first (&live);
  for (i = 0; i < 3; i++)
    check_next (&live, FIRST - 1, TRUE, (FIRST + i) * FRAME);
  check_stats (&live, 3, 1, 0);
  check_deadlines (live.h->element, FIRST, 3);
  live_clear (&live);
  drop_one_of = 3;
}

GST_END_TEST;

static Suite *
live_suite (void)
{
  Suite *s = suite_create ("live");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_pace);
  tcase_add_test (tc, test_clock_runs_ahead);
  tcase_add_test (tc, test_repeat);
  tcase_add_test (tc, test_stall);
  tcase_add_test (tc, test_max_repeat);
  tcase_add_test (tc, test_gap);
  tcase_add_test (tc, test_slow);
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
