/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is negotiated, from the template to the bytes of each format.
 */
#include <stdio.h>
#include "element.h"

static GstCaps *
negotiated (const gchar * properties, const gchar * downstream)
{
  GstHarness *h = source_harness (properties, downstream);
  GstCaps *caps;

  gst_harness_play (h);
  gst_buffer_unref (gst_harness_pull (h));
  caps = gst_pad_get_current_caps (h->sinkpad);
  gst_harness_teardown (h);
  return caps;
}

static void
check_fixated (const gchar * downstream, gint width, gint height, gint fps_n,
    gint fps_d, const gchar * format)
{
  GstCaps *caps = negotiated (FAST "num-frames=1", downstream);
  const GstStructure *s = gst_caps_get_structure (caps, 0);
  GstVideoInfo info;

  GST_INFO ("%" GST_PTR_FORMAT, caps);
  fail_unless (gst_video_info_from_caps (&info, caps));
  fail_unless_equals_int (info.width, width);
  fail_unless_equals_int (info.height, height);
  fail_unless_equals_int (info.fps_n, fps_n);
  fail_unless_equals_int (info.fps_d, fps_d);
  fail_unless_equals_string (gst_video_format_to_string
      (GST_VIDEO_INFO_FORMAT (&info)), format);
  fail_unless (info.par_n == 1 && info.par_d == 1);
  fail_unless_equals_int (info.interlace_mode,
      GST_VIDEO_INTERLACE_MODE_PROGRESSIVE);
  fail_unless_equals_string (gst_structure_get_string (s, "colorimetry"),
      GST_VIDEO_INFO_IS_YUV (&info) ? "bt709" : "sRGB");
  gst_caps_unref (caps);
}

GST_START_TEST (test_fixation)
{
  check_fixated (SMALL, 32, 32, 16, 1, "I420");
  check_fixated ("video/x-raw, width=(int)[1,50], height=(int)[17,41]", 50, 40,
      16, 1, "I420");
  check_fixated ("video/x-raw, width=32, height=32, framerate=(fraction)[25/1,"
      "60/1]", 32, 32, 25, 1, "I420");
  check_fixated (SMALL ", framerate=30000/1001", 32, 32, 30000, 1001, "I420");
  check_fixated (SMALL ", framerate=1/2147483647", 32, 32, 1, G_MAXINT, "I420");
  check_fixated (SMALL ", format={ BGRx, NV12 }", 32, 32, 16, 1, "NV12");
  check_fixated (SMALL ", format={ BGR, ARGB }", 32, 32, 16, 1, "ARGB");
  check_fixated (SMALL ", format=RGB, colorimetry=sRGB", 32, 32, 16, 1, "RGB");
}

GST_END_TEST;

/* The size that is nearest to the model's own, or has its aspect; asked without
 * making a frame of that size */
static gboolean
take_caps (GstPad * pad, GstObject * parent, GstEvent * event)
{
  GstCaps *caps;

  if (GST_EVENT_TYPE (event) == GST_EVENT_CAPS) {
    gst_event_parse_caps (event, &caps);
    g_async_queue_push (g_object_get_data (G_OBJECT (pad), "caps"),
        gst_caps_ref (caps));
  }
  gst_event_unref (event);
  return TRUE;
}

static GstFlowReturn
drop_buffer (GstPad * pad, GstObject * parent, GstBuffer * buffer)
{
  gst_buffer_unref (buffer);
  return GST_FLOW_EOS;
}

static void
check_size (const gchar * downstream, gint width, gint height)
{
  GstElement *src = source_new ("");
  GstCaps *caps = gst_caps_from_string (downstream);
  GstPadTemplate *templ = gst_pad_template_new ("sink", GST_PAD_SINK,
      GST_PAD_ALWAYS, caps);
  GstPad *sink = gst_pad_new_from_template (templ, "sink");
  GstPad *pad = gst_element_get_static_pad (src, "src");
  GAsyncQueue *queue = g_async_queue_new ();
  gint got;

  gst_caps_unref (caps);
  g_object_set_data (G_OBJECT (sink), "caps", queue);
  gst_pad_set_event_function (sink, take_caps);
  gst_pad_set_chain_function (sink, drop_buffer);
  gst_pad_set_active (sink, TRUE);
  fail_unless_equals_int (gst_pad_link (pad, sink), GST_PAD_LINK_OK);
  gst_element_set_state (src, GST_STATE_PAUSED);
  caps = g_async_queue_timeout_pop (queue, 10 * slowness () *
      G_TIME_SPAN_SECOND);
  fail_unless (caps != NULL);
  fail_unless (gst_structure_get_int (gst_caps_get_structure (caps, 0), "width",
          &got));
  fail_unless_equals_int (got, width);
  fail_unless (gst_structure_get_int (gst_caps_get_structure (caps, 0),
          "height", &got));
  fail_unless_equals_int (got, height);
  gst_caps_unref (caps);
  gst_element_set_state (src, GST_STATE_NULL);
  gst_pad_set_active (sink, FALSE);
  gst_pad_unlink (pad, sink);
  g_async_queue_unref (queue);
  gst_object_unref (pad);
  gst_object_unref (sink);
  gst_object_unref (templ);
  gst_object_unref (src);
}

GST_START_TEST (test_sizes)
{
  check_size ("video/x-raw", 256, 144);
  check_size ("video/x-raw, width=64, height=64; video/x-raw", 256, 144);
  check_size ("video/x-raw, width=(int)[833,9000], height=(int)[1,100]", 834,
      100);
  check_size ("video/x-raw, width=(int)[17,833], height=(int)[820,840]", 832,
      820);
  check_size ("video/x-raw, width=640, height=360", 640, 360);
  check_size ("video/x-raw, width=1280, height=720", 1280, 720);
  check_size ("video/x-raw, width=1920, height=1080", 1920, 1080);
  check_size ("video/x-raw, width=640", 640, 360);
  check_size ("video/x-raw, height=480", 854, 480);
  check_size ("video/x-raw, width=[768,8192], height=[432,8192]", 768, 432);
  check_size ("video/x-raw, width={ 300, 500 }, height=[16,8192]", 300, 168);
  check_size ("video/x-raw, width=256", 256, 144);
}

GST_END_TEST;

GST_START_TEST (test_not_negotiated)
{
  assert_not_negotiated (FAST, "video/x-raw, width=17, height=16");
  assert_not_negotiated (FAST, "video/x-raw, width=833, height=832");
  assert_not_negotiated (FAST, "video/x-raw, width=32, height=14");
  assert_not_negotiated (FAST, "video/x-raw, width=8194, height=16");
  assert_not_negotiated (FAST, "video/x-raw, framerate=0/1");
  assert_not_negotiated (FAST, "video/x-raw, format=Y444");
  assert_not_negotiated (FAST, "video/x-raw, format=I420, colorimetry=bt601");
  assert_not_negotiated (FAST, "video/x-raw, pixel-aspect-ratio=2/1");
  assert_not_negotiated (FAST, "video/x-raw, interlace-mode=interleaved");
  assert_not_negotiated (FAST, "audio/x-raw");
}

GST_END_TEST;

static gboolean
refuse_caps (GstPad * pad, GstObject * parent, GstEvent * event)
{
  const gboolean refused = GST_EVENT_TYPE (event) == GST_EVENT_CAPS;

  gst_event_unref (event);
  return !refused;
}

/* It said it would take them */
GST_START_TEST (test_downstream_refuses)
{
  GstHarness *h = source_harness (FAST, SMALL);
  GstBus *bus = gst_bus_new ();

  gst_pad_set_event_function (h->sinkpad, refuse_caps);
  gst_element_set_bus (h->element, bus);
  gst_harness_play (h);
  assert_error (h->element, GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED);
  gst_element_set_bus (h->element, NULL);
  gst_harness_teardown (h);
  gst_object_unref (bus);
}

GST_END_TEST;

/* The same frame in every format: RGB ones agree byte for byte, the padding is
 * opaque, and YUV is that RGB in BT.709 */
static GstBuffer *
first_frame (const gchar * format, GstVideoInfo * info)
{
  gchar *caps = g_strdup_printf (SMALL ", format=%s", format);
  GstHarness *h = source_harness (FAST "num-frames=1 seed=5", caps);
  GstCaps *current;
  GstBuffer *buffer;

  gst_harness_play (h);
  buffer = gst_harness_pull (h);
  fail_unless (buffer != NULL);
  current = gst_pad_get_current_caps (h->sinkpad);
  fail_unless (gst_video_info_from_caps (info, current));
  fail_unless_equals_string (gst_video_format_to_string (GST_VIDEO_INFO_FORMAT
          (info)), format);
  gst_caps_unref (current);
  gst_harness_teardown (h);
  g_free (caps);
  return buffer;
}

static guint8
component (GstVideoFrame * frame, guint c, gint x, gint y)
{
  const gint sx = x >> GST_VIDEO_FORMAT_INFO_W_SUB (frame->info.finfo, c);
  const gint sy = y >> GST_VIDEO_FORMAT_INFO_H_SUB (frame->info.finfo, c);

  return ((guint8 *) GST_VIDEO_FRAME_COMP_DATA (frame, c))
      [sy * GST_VIDEO_FRAME_COMP_STRIDE (frame, c) +
      sx * GST_VIDEO_FRAME_COMP_PSTRIDE (frame, c)];
}

static void
check_against_rgb (GstVideoFrame * frame, GstVideoFrame * rgb)
{
  const gboolean yuv = GST_VIDEO_INFO_IS_YUV (&frame->info);
  gint x, y, c;

  for (y = 0; y < 32; y++) {
    for (x = 0; x < 32; x++) {
      const gdouble r = component (rgb, 0, x, y), g = component (rgb, 1, x, y),
          b = component (rgb, 2, x, y);

      if (yuv) {
        const gdouble luma = 16 + (0.2126 * r + 0.7152 * g + 0.0722 * b) *
            219 / 255;

        fail_unless (ABS (component (frame, 0, x, y) - luma) < 1.6);
        continue;
      }
      for (c = 0; c < 3; c++)
        fail_unless_equals_int (component (frame, c, x, y), component (rgb, c,
                x, y));
      if (GST_VIDEO_INFO_HAS_ALPHA (&frame->info))
        fail_unless_equals_int (component (frame, 3, x, y), 255);
    }
  }
}

GST_START_TEST (test_formats)
{
  static const gchar *const formats[] = { "I420", "NV12", "RGBx", "BGRx",
    "xRGB", "xBGR", "RGBA", "BGRA", "ARGB", "ABGR", "BGR"
  };
  GstVideoInfo info, rgb_info;
  GstVideoFrame frame, rgb;
  GstBuffer *buffer, *rgb_buffer;
  guint i;

  rgb_buffer = first_frame ("RGB", &rgb_info);
  fail_unless (gst_video_frame_map (&rgb, &rgb_info, rgb_buffer, GST_MAP_READ));
  for (i = 0; i < G_N_ELEMENTS (formats); i++) {
    buffer = first_frame (formats[i], &info);
    fail_unless (gst_video_frame_map (&frame, &info, buffer, GST_MAP_READ));
    check_against_rgb (&frame, &rgb);
    gst_video_frame_unmap (&frame);
    gst_buffer_unref (buffer);
  }
  gst_video_frame_unmap (&rgb);
  gst_buffer_unref (rgb_buffer);
}

GST_END_TEST;

/* Takes the warnings of a source that has stopped, so that all are on the bus. `expected`: the sizes
 * that they are about, in their order, each with a space behind it. */
static void
assert_size_warnings (GstBus * bus, const gchar * expected)
{
  GString *sizes = g_string_new (NULL);
  GstMessage *message;
  GError *error;
  gchar size[20];

  while ((message = gst_bus_pop_filtered (bus, GST_MESSAGE_WARNING))) {
    gst_message_parse_warning (message, &error, NULL);
    fail_unless_equals_int (sscanf (error->message, "tiny was not trained for "
            "%19[0-9x]", size), 1);
    fail_unless (g_str_has_suffix (error->message, ", so the video may look "
            "wrong; it was trained for 256x144"));
    g_string_append_printf (sizes, "%s ", size);
    g_error_free (error);
    gst_message_unref (message);
  }
  fail_unless_equals_string (sizes->str, expected);
  g_string_free (sizes, TRUE);
}

static void
check_size_warnings (const gchar * downstream, const gchar * expected)
{
  GstHarness *h = source_harness (FAST "num-frames=1", downstream);
  GstBus *bus = gst_bus_new ();

  gst_element_set_bus (h->element, bus);
  gst_harness_play (h);
  gst_buffer_unref (gst_harness_pull (h));
  gst_element_set_state (h->element, GST_STATE_NULL);
  assert_size_warnings (bus, expected);
  gst_element_set_bus (h->element, NULL);
  gst_harness_teardown (h);
  gst_object_unref (bus);
}

/* One for a size that the model was not trained for; a part of one that it was trained for is well */
GST_START_TEST (test_untrained_size)
{
  check_size_warnings ("video/x-raw, width=64, height=36", "64x36 ");
  check_size_warnings ("video/x-raw", "");
  check_size_warnings ("video/x-raw, width=250, height=140", "");
}

GST_END_TEST;

static void
renegotiate (GstHarness * h, const gchar * caps)
{
  gst_harness_set_sink_caps_str (h, caps);
  gst_harness_push_upstream_event (h, gst_event_new_reconfigure ());
}

/* Pulls until a buffer has this size in bytes */
static void
pull_size (GstHarness * h, gsize size)
{
  GstBuffer *buffer;
  gsize got;

  do {
    buffer = gst_harness_pull (h);
    fail_unless (buffer != NULL);
    got = gst_buffer_get_size (buffer);
    gst_buffer_unref (buffer);
  } while (got != size);
}

/* Another format, a size that was there before and another start post nothing new */
GST_START_TEST (test_untrained_once)
{
  GstHarness *h = source_harness (FAST, SMALL);
  GstBus *bus = gst_bus_new ();
  guint i;

  gst_element_set_bus (h->element, bus);
  gst_harness_set_blocking_push_mode (h);
  for (i = 0; i < 2; i++) {
    gst_harness_play (h);
    pull_size (h, 32 * 32 * 3 / 2);
    renegotiate (h, SMALL ", format=BGRx");
    pull_size (h, 32 * 32 * 4);
    renegotiate (h, "video/x-raw, width=48, height=32");
    pull_size (h, 48 * 32 * 3 / 2);
    renegotiate (h, SMALL);
    pull_size (h, 32 * 32 * 3 / 2);
    gst_element_set_state (h->element, GST_STATE_NULL);
    assert_size_warnings (bus, i == 0 ? "32x32 48x32 " : "");
  }
  gst_element_set_bus (h->element, NULL);
  gst_harness_teardown (h);
  gst_object_unref (bus);
}

GST_END_TEST;

/* Another size and format begin a new generation, another framerate does not;
 * time and numbers go on through all of them */
GST_START_TEST (test_renegotiation)
{
  GstHarness *h = source_harness (FAST "num-frames=200", SMALL);
  const gsize sizes[] = { 32 * 32 * 3 / 2, 48 * 32 * 3 / 2, 48 * 32 * 4 };
  static const gchar *const caps[] = { SMALL,
    "video/x-raw, width=48, height=32, framerate=16/1",
    "video/x-raw, width=48, height=32, framerate=8/1, format=BGRx"
  };
  GstClockTime next = 0;
  guint64 n = 0;
  guint at = 0;

  /* So that the source is not done before we have our say */
  gst_harness_set_blocking_push_mode (h);
  gst_harness_play (h);
  while (n < 200) {
    GstBuffer *buffer = gst_harness_pull (h);

    fail_unless (buffer != NULL);
    if (at + 1 < G_N_ELEMENTS (sizes)
        && gst_buffer_get_size (buffer) == sizes[at + 1])
      at++;
    fail_unless_equals_int (gst_buffer_get_size (buffer), sizes[at]);
    fail_unless_equals_uint64 (GST_BUFFER_PTS (buffer), next);
    fail_unless_equals_uint64 (GST_BUFFER_DURATION (buffer), at == 2 ?
        GST_SECOND / 8 : GST_SECOND / 16);
    fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer), n);
    next += GST_BUFFER_DURATION (buffer);
    gst_buffer_unref (buffer);
    n++;
    if (n == 3)
      renegotiate (h, caps[1]);
    else if (at == 1 && n % 4 == 0)
      renegotiate (h, caps[2]);
  }
  fail_unless_equals_int (at, 2);
  fail_unless (gst_harness_try_pull (h) == NULL);
  gst_harness_teardown (h);
}

GST_END_TEST;

/* What a window asks for when it was made larger: its own size rather than
 * another, but any. Nothing begins anew, nor for a format. */
GST_START_TEST (test_size_is_kept)
{
  GstHarness *h = source_harness (FAST "num-frames=100 seed=1", SMALL);
  GstBuffer *buffer;
  GstCaps *caps;
  guint64 i;

  gst_harness_set_blocking_push_mode (h);
  gst_harness_play (h);
  for (i = 0; i < 50; i++) {
    buffer = gst_harness_pull (h);
    fail_unless_equals_int (gst_buffer_get_size (buffer), 32 * 32 * 3 / 2);
    caps = gst_pad_get_current_caps (h->sinkpad);
    fail_unless_equals_string (gst_structure_get_string (gst_caps_get_structure
            (caps, 0), "format"), "I420");
    gst_caps_unref (caps);
    gst_buffer_unref (buffer);
    if (i % 10 == 0)
      renegotiate (h, "video/x-raw, width=64, height=48;"
          "video/x-raw, format=NV12; video/x-raw");
  }
  renegotiate (h, "video/x-raw, width=64, height=48, format=RGBx;"
      "video/x-raw, format=RGBx");
  do {
    buffer = gst_harness_pull (h);
    fail_unless (buffer != NULL);
    i = gst_buffer_get_size (buffer);
    gst_buffer_unref (buffer);
  } while (i == 32 * 32 * 3 / 2);
  fail_unless_equals_int (i, 32 * 32 * 4);
  gst_harness_teardown (h);
}

GST_END_TEST;

static Suite *
caps_suite (void)
{
  Suite *s = suite_create ("caps");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_fixation);
  tcase_add_test (tc, test_sizes);
  tcase_add_test (tc, test_not_negotiated);
  tcase_add_test (tc, test_downstream_refuses);
  tcase_add_test (tc, test_formats);
  tcase_add_test (tc, test_untrained_size);
  tcase_add_test (tc, test_untrained_once);
  tcase_add_test (tc, test_renegotiation);
  tcase_add_test (tc, test_size_is_kept);
  return s;
}

GST_CHECK_MAIN (caps);
