/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Buffers: their times and numbers, their end, flushes, memory, and that the
 * same seed gives the same pixels.
 */
#include "element.h"

static void
check_times (const gchar * framerate, guint64 fps_n, guint64 fps_d)
{
  gchar *caps = g_strdup_printf (SMALL ", framerate=%s", framerate);
  GstHarness *h = source_harness (FAST "num-frames=30", caps);
  guint64 i;

  gst_harness_play (h);
  for (i = 0; i < 30; i++) {
    const GstClockTime pts = gst_util_uint64_scale (i, GST_SECOND * fps_d,
        fps_n);
    const GstClockTime end = gst_util_uint64_scale (i + 1, GST_SECOND * fps_d,
        fps_n);
    GstBuffer *buffer = gst_harness_pull (h);

    fail_unless (buffer != NULL);
    fail_unless_equals_uint64 (GST_BUFFER_PTS (buffer), pts);
    fail_unless_equals_uint64 (GST_BUFFER_DURATION (buffer), end - pts);
    fail_unless (!GST_BUFFER_DTS_IS_VALID (buffer));
    fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer), i);
    fail_unless_equals_uint64 (GST_BUFFER_OFFSET_END (buffer), i + 1);
    fail_unless (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_DISCONT) ==
        (i == 0));
    gst_buffer_unref (buffer);
  }
  gst_harness_teardown (h);
  g_free (caps);
}

GST_START_TEST (test_times)
{
  check_times ("16/1", 16, 1);
  check_times ("30000/1001", 30000, 1001);
  check_times ("7/3", 7, 3);
}

GST_END_TEST;

static void
wait_eos (GstHarness * h)
{
  GstEvent *event;

  while ((event = gst_harness_pull_event (h))) {
    const gboolean eos = GST_EVENT_TYPE (event) == GST_EVENT_EOS;

    gst_event_unref (event);
    if (eos)
      return;
  }
  fail ("no EOS");
}

/* Both ends, and no frame more than what was asked for */
static void
check_end (const gchar * properties, guint frames)
{
  GstHarness *h = source_harness (properties, SMALL);

  gst_harness_play (h);
  wait_eos (h);
  fail_unless_equals_int (gst_harness_buffers_received (h), frames);
  gst_harness_teardown (h);
}

GST_START_TEST (test_end)
{
  check_end (FAST "num-frames=1", 1);
  check_end (FAST "num-frames=7", 7);
  check_end (FAST "num-buffers=6", 6);
  check_end (FAST "num-frames=3 num-buffers=6", 3);
  check_end (FAST "num-frames=6 num-buffers=3", 3);
}

GST_END_TEST;

GST_START_TEST (test_eos_event)
{
  GstHarness *h = source_harness (SLOW, SLOW_SIZE);
  TestClock start;

  gst_harness_play (h);
  g_usleep (1000 * 1000);
  start = test_clock ();
  fail_unless (gst_element_send_event (h->element, gst_event_new_eos ()));
  wait_eos (h);
  fail_unless (test_clock_seconds (start) < slowness ());
  fail_unless_equals_int (gst_harness_buffers_received (h), 0);
  gst_harness_teardown (h);
}

GST_END_TEST;

/* What is in the queue of the element survives a flush; only what was on its
 * way is gone. With a new running time the segment begins at the next frame. */
static void
check_flush (gboolean reset_time)
{
  GstHarness *h = source_harness (FAST "num-frames=40", SMALL);
  GstSegment segment;
  GstBuffer *buffer;
  GstEvent *event;
  guint64 last, first, i;

  gst_harness_play (h);
  for (i = 0; i < 3; i++)
    gst_buffer_unref (gst_harness_pull (h));
  fail_unless (gst_element_send_event (h->element,
          gst_event_new_flush_start ()));
  last = 2;
  while ((buffer = gst_harness_try_pull (h))) {
    last = GST_BUFFER_OFFSET (buffer);
    gst_buffer_unref (buffer);
  }
  while ((event = gst_harness_try_pull_event (h)))
    gst_event_unref (event);
  fail_unless (gst_element_send_event (h->element,
          gst_event_new_flush_stop (reset_time)));

  buffer = gst_harness_pull (h);
  fail_unless (buffer != NULL);
  first = GST_BUFFER_OFFSET (buffer);
  /* One may have been on its way when the flush came */
  fail_unless (first == last + 1 || first == last + 2, "%d after %d",
      (gint) first, (gint) last);
  event = gst_pad_get_sticky_event (h->sinkpad, GST_EVENT_SEGMENT, 0);
  fail_unless (event != NULL);
  gst_event_copy_segment (event, &segment);
  gst_event_unref (event);
  fail_unless_equals_uint64 (gst_segment_to_stream_time (&segment,
          GST_FORMAT_TIME, GST_BUFFER_PTS (buffer)), GST_BUFFER_PTS (buffer));
  fail_unless_equals_uint64 (gst_segment_to_running_time (&segment,
          GST_FORMAT_TIME, GST_BUFFER_PTS (buffer)), reset_time ? 0 :
      GST_BUFFER_PTS (buffer));
  if (reset_time)
    fail_unless (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_DISCONT));
  gst_buffer_unref (buffer);
  for (i = first + 1; i < 40; i++) {
    buffer = gst_harness_pull (h);
    fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer), i);
    gst_buffer_unref (buffer);
  }
  gst_harness_teardown (h);
}

GST_START_TEST (test_flush)
{
  check_flush (FALSE);
  check_flush (TRUE);
}

GST_END_TEST;

GST_START_TEST (test_queries)
{
  GstHarness *h = source_harness (FAST "num-frames=24", SMALL);
  GstQuery *query;
  GstPad *pad;
  gint64 value;
  gboolean live, seekable;
  guint i;

  gst_harness_play (h);
  for (i = 0; i < 24; i++)
    gst_buffer_unref (gst_harness_pull (h));
  wait_eos (h);
  pad = gst_element_get_static_pad (h->element, "src");
  fail_unless (gst_pad_query_duration (pad, GST_FORMAT_TIME, &value));
  fail_unless_equals_int64 (value, 1500 * GST_MSECOND);
  fail_unless (gst_pad_query_duration (pad, GST_FORMAT_DEFAULT, &value));
  fail_unless_equals_int64 (value, 24);
  fail_unless (gst_pad_query_position (pad, GST_FORMAT_TIME, &value));
  fail_unless_equals_int64 (value, 1500 * GST_MSECOND);
  fail_unless (gst_pad_query_convert (pad, GST_FORMAT_DEFAULT, 8,
          GST_FORMAT_TIME, &value));
  fail_unless_equals_int64 (value, 500 * GST_MSECOND);
  fail_unless (gst_pad_query_convert (pad, GST_FORMAT_BYTES, 2 * 1536,
          GST_FORMAT_DEFAULT, &value));
  fail_unless_equals_int64 (value, 2);

  query = gst_query_new_latency ();
  fail_unless (gst_pad_query (pad, query));
  gst_query_parse_latency (query, &live, NULL, NULL);
  fail_unless (!live);
  gst_query_unref (query);

  query = gst_query_new_seeking (GST_FORMAT_TIME);
  fail_unless (gst_pad_query (pad, query));
  gst_query_parse_seeking (query, NULL, &seekable, NULL, NULL);
  fail_unless (seekable);
  gst_query_unref (query);

  fail_if (gst_element_seek_simple (h->element, GST_FORMAT_TIME,
          GST_SEEK_FLAG_FLUSH, GST_SECOND));
  fail_if (gst_element_seek_simple (h->element, GST_FORMAT_TIME,
          GST_SEEK_FLAG_NONE, 0));
  fail_if (gst_pad_send_event (pad, gst_event_new_seek (1.0, GST_FORMAT_TIME,
              GST_SEEK_FLAG_FLUSH, GST_SEEK_TYPE_SET, 1, GST_SEEK_TYPE_NONE,
              -1)));
  gst_object_unref (pad);
  gst_harness_teardown (h);
}

GST_END_TEST;

GST_START_TEST (test_endless_has_no_duration)
{
  GstHarness *h = source_harness (FAST, SMALL);
  gint64 value;

  gst_harness_play (h);
  gst_buffer_unref (gst_harness_pull (h));
  fail_unless (!gst_element_query_duration (h->element, GST_FORMAT_TIME,
          &value) || value == -1);
  gst_harness_teardown (h);
}

GST_END_TEST;

static GstPadProbeReturn
offer_padded_pool (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  GstQuery *query = GST_PAD_PROBE_INFO_QUERY (info);
  GstVideoAlignment align;
  GstBufferPool *pool;
  GstStructure *config;
  GstVideoInfo video;
  GstCaps *caps;

  if (GST_QUERY_TYPE (query) != GST_QUERY_ALLOCATION)
    return GST_PAD_PROBE_OK;
  gst_query_parse_allocation (query, &caps, NULL);
  gst_video_info_from_caps (&video, caps);
  gst_video_alignment_reset (&align);
  align.padding_left = 16;
  align.padding_right = 48;
  align.padding_top = 8;
  align.padding_bottom = 24;

  pool = gst_video_buffer_pool_new ();
  config = gst_buffer_pool_get_config (pool);
  gst_buffer_pool_config_set_params (config, caps, video.size, 2, 4);
  gst_buffer_pool_config_add_option (config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  gst_buffer_pool_config_add_option (config,
      GST_BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
  gst_buffer_pool_config_set_video_alignment (config, &align);
  fail_unless (gst_buffer_pool_set_config (pool, config));
  gst_query_add_allocation_pool (query, pool, video.size, 2, 4);
  gst_query_add_allocation_meta (query, GST_VIDEO_META_API_TYPE, NULL);
  gst_object_unref (pool);
  return GST_PAD_PROBE_HANDLED;
}

static gchar *
checksum_of (const gchar * properties, const gchar * caps, gboolean padded)
{
  GstHarness *h = source_harness (properties, caps);
  GstPad *pad = gst_element_get_static_pad (h->element, "src");
  gchar *sum;

  if (padded)
    gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM,
        offer_padded_pool, NULL, NULL);
  gst_harness_play (h);
  if (padded) {
    GstBuffer *first = gst_harness_pull (h);
    GstVideoMeta *meta = gst_buffer_get_video_meta (first);

    fail_unless (meta != NULL && meta->stride[0] >= 32 + 64);
    gst_buffer_unref (first);
  } else {
    gst_buffer_unref (gst_harness_pull (h));
  }
  sum = checksum_frames (h, 8);
  gst_object_unref (pad);
  gst_harness_teardown (h);
  return sum;
}

static void
check_same (const gchar * properties, const gchar * caps, gboolean padded,
    const gchar * expected, gboolean same)
{
  gchar *sum = checksum_of (properties, caps, padded);

  fail_unless (g_str_equal (sum, expected) == same, "%s", properties);
  g_free (sum);
}

/* Only 4 buffers in the pool, so they come back too */
GST_START_TEST (test_padded_pool)
{
  static const gchar *const formats[] = { "I420", "NV12", "BGRx", "RGB" };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (formats); i++) {
    gchar *caps = g_strdup_printf (SMALL ", format=%s", formats[i]);
    gchar *sum = checksum_of (FAST "num-frames=9", caps, FALSE);

    check_same (FAST "num-frames=9", caps, TRUE, sum, TRUE);
    g_free (sum);
    g_free (caps);
  }
}

GST_END_TEST;

GST_START_TEST (test_deterministic)
{
  gchar *sum = checksum_of (FAST "num-frames=9 seed=1", SMALL, FALSE);

  check_same (FAST "num-frames=9 seed=1", SMALL, FALSE, sum, TRUE);
  check_same (FAST "num-frames=9 seed=1 devices=cpu,cpu", SMALL, FALSE, sum,
      TRUE);
  check_same (FAST "num-frames=9 seed=2", SMALL, FALSE, sum, FALSE);
  check_same (FAST "num-frames=9 seed=1 prompt=snow", SMALL, FALSE, sum, FALSE);
  g_free (sum);
}

GST_END_TEST;

static guint64
frames_made (GstElement * src)
{
  GstStructure *stats;
  guint64 frames;

  g_object_get (src, "stats", &stats, NULL);
  fail_unless (gst_structure_get_uint64 (stats, "frames", &frames));
  gst_structure_free (stats);
  return frames;
}

/* The queue is what holds the generation back: it fills up and comes to rest */
GST_START_TEST (test_queue_is_bounded)
{
  GstElement *pipeline = launch ("dualparalsrc name=src " FAST
      "max-queue-frames=4 ! " SMALL " ! fakesink");
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  guint64 frames, later;

  gst_element_set_state (pipeline, GST_STATE_PAUSED);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_ASYNC_DONE, 30));
  later = frames_made (src);
  do {
    frames = later;
    g_usleep (G_USEC_PER_SEC);
    later = frames_made (src);
    fail_unless (later >= 4 && later <= 7, "%d", (gint) later);
  } while (later != frames);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (src);
  gst_object_unref (pipeline);
}

GST_END_TEST;

static Suite *
stream_suite (void)
{
  Suite *s = suite_create ("stream");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_times);
  tcase_add_test (tc, test_end);
  tcase_add_test (tc, test_eos_event);
  tcase_add_test (tc, test_flush);
  tcase_add_test (tc, test_queries);
  tcase_add_test (tc, test_endless_has_no_duration);
  tcase_add_test (tc, test_padded_pool);
  tcase_add_test (tc, test_deterministic);
  tcase_add_test (tc, test_queue_is_bounded);
  return s;
}

GST_CHECK_MAIN (stream);
