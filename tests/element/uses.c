/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What applications expect of any source: to be opened by a URI, presets, a seed that is drawn,
 * and to start again.
 */
#include "element.h"

#include <unistd.h>

#define URI "dualparal://?prompt=a+red%20ball%26&seed=-1&devices=cpu%2Ccpu&" \
    "underrun-policy=stall&steps=2&guidance-scale=1.5"

static void
assert_refused (const gchar * uri, const gchar * said)
{
  GstElement *src = source_new ("seed=3");
  GError *error = NULL;
  gchar *prompt, *kept;
  gint64 seed;

  fail_if (gst_uri_handler_set_uri (GST_URI_HANDLER (src), uri, &error), "%s is taken", uri);
  fail_unless (error && error->domain == GST_URI_ERROR);
  fail_unless (strstr (error->message, said) != NULL, "%s: %s", uri, error->message);
  g_object_get (src, "prompt", &prompt, "seed", &seed, NULL);
  kept = gst_uri_handler_get_uri (GST_URI_HANDLER (src));
  fail_unless (prompt == NULL && seed == 3 && kept == NULL);
  g_error_free (error);
  gst_object_unref (src);
}

GST_START_TEST (test_uri)
{
  GstElement *src = gst_element_make_from_uri (GST_URI_SRC, URI, NULL, NULL);
  gchar *prompt, *devices, *uri;
  gint policy, steps;
  gint64 seed;
  gdouble scale;

  fail_unless (src != NULL);
  g_object_get (src, "prompt", &prompt, "seed", &seed, "devices", &devices,
      "underrun-policy", &policy, "steps", &steps, "guidance-scale", &scale, NULL);
  fail_unless_equals_string (prompt, "a red ball&");
  fail_unless_equals_string (devices, "cpu,cpu");
  fail_unless (seed == -1 && policy == 1 && steps == 2 && scale == 1.5);
  uri = gst_uri_handler_get_uri (GST_URI_HANDLER (src));
  fail_unless_equals_string (uri, URI);
  g_free (uri);
  fail_unless (gst_uri_handler_set_uri (GST_URI_HANDLER (src), "dualparal:", NULL));
  fail_unless (gst_uri_handler_set_uri (GST_URI_HANDLER (src), "dualparal://?", NULL));
  g_free (prompt);
  g_free (devices);
  gst_object_unref (src);
}

GST_END_TEST;

GST_START_TEST (test_uri_refused)
{
  GstElement *src = source_new (FAST);
  GError *error = NULL;

  assert_refused ("dualparal://?prompt=a&colour=red", "cannot set \"colour\"");
  assert_refused ("dualparal://?prompt=a&trace=/tmp/x", "cannot set \"trace\"");
  assert_refused ("dualparal://?prompt=a&name=x", "cannot set \"name\"");
  assert_refused ("dualparal://?prompt=a&stats=1", "cannot set \"stats\"");
  assert_refused ("dualparal://?prompt=a&seed=-2", "\"-2\" is not a value of seed");
  assert_refused ("dualparal://?prompt=a&steps=many", "\"many\" is not a value of steps");
  assert_refused ("dualparal://?prompt=100%", "not escaped well");
  assert_refused ("dualparal://?prompt=%zz", "not escaped well");
  assert_refused ("dualparal://?prompt=%ff", "not escaped well");
  assert_refused ("dualparal://?prompt=%00", "not escaped well");
  assert_refused ("dualparal://?prompt", "not escaped well");
  assert_refused ("dualparal://host?prompt=a", "a host");
  assert_refused ("dualparal://?prompt=a#b", "%23");

  gst_element_set_state (src, GST_STATE_PAUSED);
  fail_if (gst_uri_handler_set_uri (GST_URI_HANDLER (src), URI, &error));
  fail_unless (g_error_matches (error, GST_URI_ERROR, GST_URI_ERROR_BAD_STATE));
  g_error_free (error);
  gst_element_set_state (src, GST_STATE_NULL);
  gst_object_unref (src);
}

GST_END_TEST;

static void
assert_preset (const gchar * prompt)
{
  GstElement *saved = source_new ("name=saved steps=3 underrun-policy=slow "
      "min-framerate=25/2 marking=tags guidance-scale=1.5 seed=9223372036854775807 "
      "trace=/nowhere/trace num-buffers=7");
  GstElement *loaded = source_new ("name=loaded prompt=another model=/nowhere steps=2 threads=3 "
      "negative-prompt=blue");
  gchar *text, *model, *name, *negative, *trace;
  gint steps, policy, threads, buffers, fps_n;
  guint marking;
  gdouble scale;
  gint64 seed;
  GValue rate = G_VALUE_INIT;

  g_object_set (saved, "prompt", prompt, NULL);
  fail_unless (gst_preset_save_preset (GST_PRESET (saved), "mine"));
  fail_unless (gst_preset_load_preset (GST_PRESET (loaded), "mine"));
  g_object_get (loaded, "prompt", &text, "model", &model, "name", &name, "negative-prompt",
      &negative, "trace", &trace, "steps", &steps, "underrun-policy", &policy, "threads",
      &threads, "num-buffers", &buffers, "marking", &marking, "guidance-scale", &scale, "seed",
      &seed, NULL);
  g_object_get_property (G_OBJECT (loaded), "min-framerate", g_value_init (&rate,
          GST_TYPE_FRACTION));
  fps_n = gst_value_get_fraction_numerator (&rate);
  fail_unless_equals_string (text, prompt);
  fail_unless (model == NULL && negative == NULL && trace == NULL);
  fail_unless_equals_string (name, "loaded");
  fail_unless (steps == 3 && policy == 3 && threads == 0 && buffers == -1 && marking == 1);
  fail_unless (scale == 1.5 && seed == G_MAXINT64 && fps_n == 25);
  g_free (text);
  g_free (name);
  gst_object_unref (saved);
  gst_object_unref (loaded);
}

GST_START_TEST (test_preset)
{
  GstElement *src = source_new ("prompt=kept"), *launched;
  gchar *prompt;

  gst_preset_delete_preset (GST_PRESET (src), "mine");
  fail_if (gst_preset_load_preset (GST_PRESET (src), "mine"));
  assert_preset ("a red ball");
  launched = source_new ("prompt=another @preset=mine");
  g_object_get (launched, "prompt", &prompt, NULL);
  fail_unless_equals_string (prompt, "a red ball");
  g_free (prompt);
  gst_object_unref (launched);
  assert_preset (" \"caf\303\251\"\n[a=b];#\\ ");
  assert_preset ("NULL");
  assert_preset ("");
  assert_preset (NULL);

  fail_unless (gst_preset_set_meta (GST_PRESET (src), "mine", "prompt", "\xff"));
  fail_if (gst_preset_load_preset (GST_PRESET (src), "mine"));
  g_object_get (src, "prompt", &prompt, NULL);
  fail_unless_equals_string (prompt, "kept");
  fail_unless (gst_preset_delete_preset (GST_PRESET (src), "mine"));
  g_free (prompt);
  gst_object_unref (src);
}

GST_END_TEST;

/* What a video was made with is in the statistics; with that number it is the same */
static guint64
drawn (const gchar * seed, gchar ** sum)
{
  gchar *properties = g_strdup_printf (FAST "num-frames=5 seed=%s", seed);
  GstHarness *h = source_harness (properties, SMALL);
  guint64 number;
  GstCustomMeta *meta;
  GstBuffer *buffer;

  gst_harness_play (h);
  buffer = gst_harness_pull (h);
  *sum = checksum_buffer (h, buffer);
  meta = gst_buffer_get_custom_meta (buffer, "GstDualParalMeta");
  fail_unless (gst_structure_get_uint64 (gst_custom_meta_get_structure (meta), "seed", &number));
  fail_unless_equals_uint64 (stat_of (h->element, "seed"), number);
  gst_buffer_unref (buffer);
  gst_harness_teardown (h);
  g_free (properties);
  return number;
}

GST_START_TEST (test_seed_is_drawn)
{
  gchar *sums[3], *text;
  const guint64 first = drawn ("-1", &sums[0]), second = drawn ("-1", &sums[1]);

  fail_unless (first != second && first <= G_MAXUINT32);
  fail_if (g_str_equal (sums[0], sums[1]));
  text = g_strdup_printf ("%" G_GUINT64_FORMAT, first);
  fail_unless_equals_uint64 (drawn (text, &sums[2]), first);
  fail_unless_equals_string (sums[0], sums[2]);
  g_free (text);
  g_free (sums[0]);
  g_free (sums[1]);
  g_free (sums[2]);
}

GST_END_TEST;

/* The number and the checksum of the next frame, after events */
static gchar *
next_frame (GstHarness * h, guint64 number)
{
  GstBuffer *buffer = gst_harness_pull (h);
  gchar *sum;

  fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer), number);
  fail_unless_equals_uint64 (GST_BUFFER_PTS (buffer), number * GST_SECOND / 16);
  sum = checksum_buffer (h, buffer);
  gst_buffer_unref (buffer);
  return sum;
}

GST_START_TEST (test_starts_again)
{
  GstHarness *h = source_harness (FAST "seed=-1 num-frames=9", SMALL);
  gchar *sums[9], *sum;
  guint64 seed;
  gboolean again = FALSE;
  guint round, i, late;
  GstBuffer *buffer;
  GstPad *pad = gst_element_get_static_pad (h->element, "src");

  gst_harness_play (h);
  for (i = 0; i < 9; i++)
    sums[i] = next_frame (h, i);
  seed = stat_of (h->element, "seed");
  for (round = 0; round < 3; round++) {
    /* At the end, at the end again by the pad, and in the middle */
    if (round == 1)
      fail_unless (gst_pad_send_event (pad, gst_event_new_seek (1, GST_FORMAT_TIME,
                  GST_SEEK_FLAG_FLUSH, GST_SEEK_TYPE_SET, 0, GST_SEEK_TYPE_NONE, -1)));
    else
      fail_unless (gst_element_seek_simple (h->element, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0));
    /* The harness keeps what was pushed before the seek */
    for (late = round == 2 ? 8 : 0; late > 0; late--) {
      buffer = gst_harness_pull (h);
      again = GST_BUFFER_OFFSET (buffer) == 0;
      gst_buffer_unref (buffer);
      if (again)
        break;
    }
    for (i = again; i < (round == 1 ? 2 : 9); i++) {
      sum = next_frame (h, i);
      fail_unless_equals_string (sum, sums[i]);
      g_free (sum);
    }
  }
  fail_unless_equals_uint64 (stat_of (h->element, "seed"), seed);
  for (i = 0; i < 9; i++)
    g_free (sums[i]);
  gst_object_unref (pad);
  gst_harness_teardown (h);
}

GST_END_TEST;

/* -- a picture to begin with */

static GstSample *
red_picture (const gchar * format)
{
  GstCaps *caps = gst_caps_new_simple (format, "format", G_TYPE_STRING, "RGB", "width", G_TYPE_INT, 50, "height", G_TYPE_INT, 70,
      "framerate", GST_TYPE_FRACTION, 0, 1, NULL);
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, 152 * 70, NULL);
  GstSample *sample;
  GstMapInfo map;
  gsize i;

  gst_buffer_map (buffer, &map, GST_MAP_WRITE);
  for (i = 0; i < map.size; i++)
    map.data[i] = i % 152 % 3 ? 20 : 220;
  gst_buffer_unmap (buffer, &map);
  sample = gst_sample_new (buffer, caps, NULL, NULL);
  gst_buffer_unref (buffer);
  gst_caps_unref (caps);
  return sample;
}

/* Which has less than its caps say */
static GstSample *
short_picture (void)
{
  GstCaps *caps = gst_caps_from_string ("video/x-raw,format=NV12,width=64,height=48,framerate=0/1");
  GstBuffer *buffer = gst_buffer_new_allocate (NULL, 100, NULL);
  GstSample *sample = gst_sample_new (buffer, caps, NULL, NULL);

  gst_buffer_unref (buffer);
  gst_caps_unref (caps);
  return sample;
}

static gboolean
set_image (GstElement * src, GstSample * sample)
{
  gboolean ok = FALSE;

  g_signal_emit_by_name (src, "set-image", sample, &ok);
  if (sample)
    gst_sample_unref (sample);
  return ok;
}

/* From the start: the checksums of three frames, and the mean of the first one's last plane, V */
static void
play_three (GstHarness * h, gchar ** sums, gdouble * v)
{
  const guint8 *bytes;
  GstBuffer *buffer;
  GstMapInfo map;
  gsize i;
  guint n;

  gst_harness_play (h);
  for (n = 0; n < 3; n++) {
    buffer = gst_harness_pull (h);
    fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer), n);
    gst_buffer_map (buffer, &map, GST_MAP_READ);
    sums[n] = g_compute_checksum_for_data (G_CHECKSUM_MD5, map.data, map.size);
    bytes = map.data + map.size - map.size / 6;
    for (i = 0, *v = n ? *v : 0; n == 0 && i < map.size / 6; i++)
      *v += bytes[i] * 6. / map.size;
    gst_buffer_unmap (buffer, &map);
    gst_buffer_unref (buffer);
  }
  gst_element_set_state (h->element, GST_STATE_READY);
}

GST_START_TEST (test_image)
{
  static const gchar ppm[] = "P6 1 1 255\n\xdc\x14\x14";
  gchar *path = g_build_filename (g_get_tmp_dir (), "dp-image-XXXXXX", NULL), *sums[4][3];
  GstBus *bus = gst_bus_new ();
  gdouble v[4];
  guint i, n;

  close (g_mkstemp (path));
  fail_unless (g_file_set_contents (path, ppm, sizeof ppm - 1, NULL));
  for (i = 0; i < 4; i++) {
    GstHarness *h = source_harness (FAST "seed=3 num-frames=5", "video/x-raw,format=I420,width=64,height=64");

    gst_element_set_bus (h->element, bus);
    if (i == 1 || i == 3)
      fail_unless (set_image (h->element, red_picture ("video/x-raw")));
    if (i == 2)
      g_object_set (h->element, "image", path, NULL);
    if (i == 3) {
      /* Taken back; and what is no picture does not count */
      fail_unless (set_image (h->element, NULL));
      fail_if (set_image (h->element, red_picture ("text/x-raw")));
      fail_if (set_image (h->element, gst_sample_new (NULL, NULL, NULL, NULL)));
      fail_if (set_image (h->element, short_picture ()));
    }
    play_three (h, sums[i], &v[i]);
    gst_harness_teardown (h);
  }
  for (n = 0; n < 3; n++) {
    fail_unless_equals_string (sums[3][n], sums[0][n]);
    fail_unless_equals_string (sums[2][n], sums[1][n]);
    fail_if (g_str_equal (sums[1][n], sums[0][n]));
  }
  fail_unless (v[1] > 170 && v[0] < 150, "V is %g with a red picture, %g without", v[1], v[0]);
  for (i = 0; i < 12; i++)
    g_free (sums[i / 3][i % 3]);
  gst_bus_set_flushing (bus, TRUE);
  gst_object_unref (bus);
  unlink (path);
  g_free (path);
}

GST_END_TEST;

/* An RTSP server seeks for each viewer, where it can */
GST_START_TEST (test_live_is_not_seekable)
{
  GstElement *pipeline = launch ("dualparalsrc name=src is-live=true startup-policy=placeholder "
      FAST "! " SMALL " ! fakesink name=sink signal-handoffs=true sync=true");
  GstElement *sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  GstQuery *query = gst_query_new_seeking (GST_FORMAT_TIME);
  gboolean seekable;
  Counter counter;

  counter_init (&counter, sink);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  counter_wait (&counter, 10);
  fail_unless (gst_element_query (pipeline, query));
  gst_query_parse_seeking (query, NULL, &seekable, NULL, NULL);
  fail_if (seekable);
  fail_if (gst_element_seek_simple (pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0));
  counter_wait (&counter, 20);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  counter_clear (&counter);
  gst_query_unref (query);
  gst_object_unref (sink);
  gst_object_unref (pipeline);
}

GST_END_TEST;

static Suite *
uses_suite (void)
{
  Suite *s = suite_create ("uses");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_uri);
  tcase_add_test (tc, test_uri_refused);
  tcase_add_test (tc, test_preset);
  tcase_add_test (tc, test_seed_is_drawn);
  tcase_add_test (tc, test_starts_again);
  tcase_add_test (tc, test_image);
  tcase_add_test (tc, test_live_is_not_seekable);
  return s;
}

GST_CHECK_MAIN (uses);
