/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A picture of one's own until there are frames. It is decoded by plugins that
 * the other suites do without.
 */
#include "scripted.h"

#include <glib/gstdio.h>
#include <stdlib.h>

/* 2x1 pixels, red and blue */
/* *INDENT-OFF* */
static const guint8 png[] = {
  0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d,
  0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x01,
  0x08, 0x02, 0x00, 0x00, 0x00, 0x7b, 0x40, 0xe8, 0xdd, 0x00, 0x00, 0x00,
  0x0d, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xcf, 0x00, 0x04,
  0xff, 0x01, 0x07, 0x00, 0x01, 0xff, 0xe2, 0x23, 0x9e, 0x59, 0x00, 0x00,
  0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
};
/* *INDENT-ON* */

static gchar *
write_file (gconstpointer data, gsize size)
{
  GError *error = NULL;
  gchar *name;
  gint fd = g_file_open_tmp ("placeholder-XXXXXX", &name, &error);

  fail_unless (fd >= 0 && error == NULL);
  g_close (fd, NULL);
  fail_unless (g_file_set_contents (name, data, size, NULL));
  return name;
}

/* Scaled into the frame, with borders above and below */
GST_START_TEST (test_picture)
{
  gchar *file = write_file (png, sizeof (png));
  gchar *properties = g_strdup_printf ("is-live=true "
      "startup-policy=placeholder placeholder=%s", file);
  GstHarness *h = source_harness (properties,
      "video/x-raw, width=512, height=512, format=RGB");
  GstBuffer *buffer;
  GstMapInfo map;
  const guint8 *left, *right;
  guint i;

  gst_element_set_clock (h->element, GST_CLOCK (script_clock ()));
  gst_harness_play (h);
  script_advance (GST_SECOND);
  fail_unless_equals_int (gst_harness_buffers_in_queue (h), 1 + SCRIPT_FPS);
  for (i = 0; i < 3; i++) {
    buffer = gst_harness_pull (h);
    fail_unless (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP));
    fail_unless (gst_buffer_map (buffer, &map, GST_MAP_READ));
    left = map.data + 3 * (256 * 512 + 20);
    right = map.data + 3 * (256 * 512 + 492);
    fail_unless (left[0] > 200 && left[1] < 50 && left[2] < 50);
    fail_unless (right[0] < 50 && right[1] < 50 && right[2] > 200);
    fail_unless (map.data[0] < 30 && map.data[2] < 30);
    gst_buffer_unmap (buffer, &map);
    gst_buffer_unref (buffer);
  }
  gst_harness_teardown (h);
  g_remove (file);
  g_free (properties);
  g_free (file);
}

GST_END_TEST;

GST_START_TEST (test_no_picture)
{
  gchar *file = write_file ("not a picture, but some words", 29);
  GstElement *pipeline = launch ("dualparalsrc is-live=true "
      "startup-policy=placeholder placeholder=%s ! fakesink", file);

  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  assert_error (pipeline, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
  g_remove (file);
  g_free (file);
}

GST_END_TEST;

static Suite *
placeholder_suite (void)
{
  static const gchar *const elements[] = { "decodebin", "pngdec",
    "videoconvert", "videoscale"
  };
  Suite *s = suite_create ("placeholder");
  TCase *tc = script_case_new (s);
  guint i;

  for (i = 0; i < G_N_ELEMENTS (elements); i++) {
    if (!gst_registry_check_feature_version (gst_registry_get (), elements[i],
            1, 0, 0)) {
      g_print ("skipped: no %s here\n", elements[i]);
      exit (77);
    }
  }
  tcase_add_test (tc, test_picture);
  tcase_add_test (tc, test_no_picture);
  return s;
}

GST_CHECK_MAIN (placeholder);
