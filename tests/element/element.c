/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "element.h"

#include <stdlib.h>

static GPtrArray *launched;     /* of GWeakRef */

GstElement *
launch (const gchar * format, ...)
{
  GError *error = NULL;
  GstElement *element;
  va_list args;
  gchar *line;
  GWeakRef *ref = g_new (GWeakRef, 1);

  va_start (args, format);
  line = g_strdup_vprintf (format, args);
  va_end (args);
  element = gst_parse_launch (line, &error);
  fail_unless (element != NULL && error == NULL, "%s: %s", line,
      error ? error->message : "no element");
  g_free (line);

  gst_object_ref_sink (element);
  g_weak_ref_init (ref, element);
  g_ptr_array_add (launched, ref);
  return element;
}

static void
setup (void)
{
  launched = g_ptr_array_new ();
}

static void
teardown (void)
{
  guint i;

  for (i = 0; i < launched->len; i++) {
    GWeakRef *ref = g_ptr_array_index (launched, i);
    GstElement *element = g_weak_ref_get (ref);

    if (element) {
      gst_element_set_state (element, GST_STATE_NULL);
      gst_object_unref (element);
    }
    g_weak_ref_clear (ref);
    g_free (ref);
  }
  g_ptr_array_unref (launched);
}

TCase *
test_case_new_with (Suite * suite, SFun outer_setup, SFun outer_teardown)
{
  TCase *tc = tcase_create ("general");

  suite_add_tcase (suite, tc);
  tcase_add_checked_fixture (tc, outer_setup, outer_teardown);
  tcase_add_checked_fixture (tc, setup, teardown);
  return tc;
}

TCase *
test_case_new (Suite * suite)
{
  return test_case_new_with (suite, NULL, NULL);
}

GstElement *
source_new (const gchar * properties)
{
  return launch ("dualparalsrc %s", properties);
}

GstHarness *
source_harness (const gchar * properties, const gchar * caps)
{
  GstElement *src = source_new (properties);
  GstHarness *h = gst_harness_new_with_element (src, NULL, "src");

  gst_object_unref (src);
  if (caps)
    gst_harness_set_sink_caps_str (h, caps);
  return h;
}

guint
slowness (void)
{
  const gchar *multiplier = g_getenv ("CK_TIMEOUT_MULTIPLIER");

  return multiplier ? MAX (1, atoi (multiplier)) : 1;
}

static gboolean
is_of_size (GstMessage * message)
{
  GError *error;
  gboolean is;

  if (GST_MESSAGE_TYPE (message) != GST_MESSAGE_WARNING)
    return FALSE;
  gst_message_parse_warning (message, &error, NULL);
  is = strstr (error->message, "was not trained for") != NULL;
  g_error_free (error);
  return is;
}

GstMessage *
pop_message (GstBus * bus, GstMessageType types, GstClockTime timeout)
{
  GstMessage *message = NULL;

  do {
    gst_clear_message (&message);
    message = gst_bus_timed_pop_filtered (bus, timeout, types);
  } while (message && is_of_size (message));
  return message;
}

GstMessage *
wait_message (GstElement * pipeline, GstMessageType types, guint seconds)
{
  GstBus *bus = gst_element_get_bus (pipeline);
  GstMessage *message;
  GError *error = NULL;

  message = pop_message (bus, types | GST_MESSAGE_ERROR,
      seconds * slowness () * GST_SECOND);
  fail_unless (message != NULL, "no message within %u s", seconds);
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR
      && !(types & GST_MESSAGE_ERROR)) {
    gst_message_parse_error (message, &error, NULL);
    fail ("unexpected error: %s", error->message);
  }
  gst_object_unref (bus);
  return message;
}

void
wait_stats (GstElement * pipeline)
{
  GstMessage *message = NULL;

  do {
    gst_clear_message (&message);
    message = wait_message (pipeline, GST_MESSAGE_ELEMENT, 30);
  } while (!gst_message_has_name (message, "application/x-dualparal-stats"));
  gst_message_unref (message);
}

void
wait_progress (GstElement * pipeline, GstProgressType type)
{
  GstProgressType found;

  do {
    GstMessage *message = wait_message (pipeline, GST_MESSAGE_PROGRESS, 30);

    gst_message_parse_progress (message, &found, NULL, NULL);
    gst_message_unref (message);
  } while (found != type);
}

void
assert_error (GstElement * pipeline, GQuark domain, gint code)
{
  GstMessage *message = wait_message (pipeline, GST_MESSAGE_ERROR, 20);
  GError *error = NULL;

  gst_message_parse_error (message, &error, NULL);
  GST_INFO ("%s", error->message);
  fail_unless (error->domain == domain && error->code == code,
      "expected %s %d, got %s %d: %s", g_quark_to_string (domain), code,
      g_quark_to_string (error->domain), error->code, error->message);
  fail_unless (strlen (error->message) > 10);
  g_error_free (error);
  gst_message_unref (message);
}

void
assert_not_negotiated (const gchar * properties, const gchar * caps)
{
  GstHarness *h = source_harness (properties, caps);
  GstBus *bus = gst_bus_new ();

  gst_element_set_bus (h->element, bus);
  gst_harness_play (h);
  assert_error (h->element, GST_CORE_ERROR, GST_CORE_ERROR_NEGOTIATION);
  gst_element_set_bus (h->element, NULL);
  gst_harness_teardown (h);
  gst_object_unref (bus);
}

static void
count (GstElement * sink, GstBuffer * buffer, GstPad * pad, gpointer user_data)
{
  Counter *counter = user_data;

  g_mutex_lock (&counter->lock);
  counter->frames++;
  g_cond_broadcast (&counter->cond);
  g_mutex_unlock (&counter->lock);
}

void
counter_init (Counter * counter, GstElement * sink)
{
  g_mutex_init (&counter->lock);
  g_cond_init (&counter->cond);
  counter->frames = 0;
  g_signal_connect (sink, "handoff", G_CALLBACK (count), counter);
}

void
counter_clear (Counter * counter)
{
  g_mutex_clear (&counter->lock);
  g_cond_clear (&counter->cond);
}

void
counter_wait (Counter * counter, guint frames)
{
  const gint64 end = g_get_monotonic_time () + 30 * slowness () *
      G_USEC_PER_SEC;
  gboolean waits = TRUE;

  g_mutex_lock (&counter->lock);
  while (counter->frames < frames && waits)
    waits = g_cond_wait_until (&counter->cond, &counter->lock, end);
  fail_unless (waits, "%u of %u frames", counter->frames, frames);
  g_mutex_unlock (&counter->lock);
}

guint64
stat_of (GstElement * src, const gchar * field)
{
  GstStructure *stats;
  guint64 value = 0;
  guint frames;

  g_object_get (src, "stats", &stats, NULL);
  if (gst_structure_get_uint (stats, field, &frames))
    value = frames;
  else
    fail_unless (gst_structure_get_uint64 (stats, field, &value), "%s", field);
  gst_structure_free (stats);
  return value;
}

gdouble
stat_double (GstElement * src, const gchar * field)
{
  GstStructure *stats;
  gdouble value;

  g_object_get (src, "stats", &stats, NULL);
  fail_unless (gst_structure_get_double (stats, field, &value), "%s", field);
  gst_structure_free (stats);
  return value;
}

gdouble
seconds_since (gint64 start_us)
{
  return (g_get_monotonic_time () - start_us) / 1e6;
}

static void
add_frame (GChecksum * sum, GstHarness * h, GstBuffer * buffer)
{
  GstCaps *caps = gst_pad_get_current_caps (h->sinkpad);
  GstVideoInfo info;
  GstVideoFrame frame;
  guint p;
  gint y;

  fail_unless (gst_video_info_from_caps (&info, caps));
  fail_unless (gst_video_frame_map (&frame, &info, buffer, GST_MAP_READ));
  for (p = 0; p < GST_VIDEO_FRAME_N_PLANES (&frame); p++)
    for (y = 0; y < GST_VIDEO_FRAME_COMP_HEIGHT (&frame, p); y++)
      g_checksum_update (sum,
          (guint8 *) GST_VIDEO_FRAME_PLANE_DATA (&frame, p) +
          y * GST_VIDEO_FRAME_PLANE_STRIDE (&frame, p),
          GST_VIDEO_FRAME_COMP_WIDTH (&frame, p) *
          GST_VIDEO_FRAME_COMP_PSTRIDE (&frame, p));
  gst_video_frame_unmap (&frame);
  gst_caps_unref (caps);
}

gchar *
checksum_buffer (GstHarness * h, GstBuffer * buffer)
{
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
  gchar *text;

  add_frame (sum, h, buffer);
  text = g_strdup (g_checksum_get_string (sum));
  g_checksum_free (sum);
  return text;
}

gchar *
checksum_frames (GstHarness * h, guint n)
{
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
  gchar *text;
  guint i;

  for (i = 0; i < n; i++) {
    GstBuffer *buffer = gst_harness_pull (h);

    fail_unless (buffer != NULL);
    add_frame (sum, h, buffer);
    gst_buffer_unref (buffer);
  }
  text = g_strdup (g_checksum_get_string (sum));
  g_checksum_free (sum);
  return text;
}
