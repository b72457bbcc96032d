/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalplaceholder.h"

#include <string.h>

/* How often decoding looks whether it is still wanted */
#define POLL_TIME (20 * GST_MSECOND)
/* Of 255, limited range in YUV */
#define GREY_LUMA 50
#define GREY_RGB 40

gboolean
gst_dualparal_placeholder_check (GstElement * element, const gchar * location)
{
  if (!location || g_file_test (location, G_FILE_TEST_IS_REGULAR))
    return TRUE;
  GST_ELEMENT_ERROR (element, RESOURCE, NOT_FOUND,
      ("placeholder is %s, and there is no such file.", location), (NULL));
  return FALSE;
}

static GstBuffer *
grey_new (const GstVideoInfo * info)
{
  GstBuffer *buffer = gst_buffer_new_and_alloc (GST_VIDEO_INFO_SIZE (info));
  GstVideoFrame frame;
  guint8 *alpha;
  guint p;
  gint i;

  gst_video_frame_map (&frame, info, buffer, GST_MAP_WRITE);
  for (p = 0; p < GST_VIDEO_FRAME_N_PLANES (&frame); p++) {
    const gint grey = p > 0 ? 128 : GST_VIDEO_INFO_IS_YUV (info) ? GREY_LUMA :
        GREY_RGB;

    memset (GST_VIDEO_FRAME_PLANE_DATA (&frame, p), grey,
        (gsize) GST_VIDEO_FRAME_PLANE_STRIDE (&frame, p) *
        GST_VIDEO_FRAME_COMP_HEIGHT (&frame, p));
  }
  if (GST_VIDEO_INFO_HAS_ALPHA (info)) {
    alpha = GST_VIDEO_FRAME_COMP_DATA (&frame, GST_VIDEO_COMP_A);
    for (i = 0; i < GST_VIDEO_INFO_WIDTH (info) * GST_VIDEO_INFO_HEIGHT (info);
        i++)
      alpha[4 * i] = 255;
  }
  gst_video_frame_unmap (&frame);
  return buffer;
}

static void
post_error (GstElement * element, const gchar * location, const GError * error)
{
  GST_ELEMENT_ERROR (element, RESOURCE, READ,
      ("The placeholder %s cannot be shown: %s", location, error->message),
      (NULL));
}

/* Prerolls, which is all that it does. FALSE without an error when flushing. */
static gboolean
preroll (GstElement * pipeline, GstDualParalGenerator * gen, GError ** error)
{
  GstBus *bus = gst_element_get_bus (pipeline);
  GstMessage *message = NULL;
  gboolean wanted = TRUE, done = FALSE;

  gst_element_set_state (pipeline, GST_STATE_PAUSED);
  while (wanted && !message) {
    message = gst_bus_timed_pop_filtered (bus, POLL_TIME,
        GST_MESSAGE_ASYNC_DONE | GST_MESSAGE_ERROR);
    g_mutex_lock (&gen->lock);
    wanted = !gen->flushing;
    g_mutex_unlock (&gen->lock);
  }
  if (message && GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR)
    gst_message_parse_error (message, error, NULL);
  else
    done = message != NULL;
  gst_clear_message (&message);
  gst_object_unref (bus);
  return done;
}

static GstFlowReturn
decode (GstDualParalGenerator * gen, const gchar * location,
    const GstVideoInfo * info, GstBuffer ** picture)
{
  GstFlowReturn flow = GST_FLOW_FLUSHING;
  GError *error = NULL;
  GstElement *pipeline, *file, *filter, *sink;
  GstSample *sample = NULL;
  GstCaps *caps;

  pipeline = gst_parse_launch_full ("filesrc name=file ! decodebin ! "
      "videoconvert ! videoscale ! capsfilter name=filter ! "
      "fakesink name=sink", NULL, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (!pipeline)
    goto out;

  file = gst_bin_get_by_name (GST_BIN (pipeline), "file");
  filter = gst_bin_get_by_name (GST_BIN (pipeline), "filter");
  sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  caps = gst_video_info_to_caps (info);
  /* A picture has no framerate */
  gst_structure_remove_field (gst_caps_get_structure (caps, 0), "framerate");
  g_object_set (file, "location", location, NULL);
  g_object_set (filter, "caps", caps, NULL);
  if (preroll (pipeline, gen, &error))
    g_object_get (sink, "last-sample", &sample, NULL);
  if (sample) {
    *picture = gst_buffer_copy_deep (gst_sample_get_buffer (sample));
    gst_sample_unref (sample);
    flow = GST_FLOW_OK;
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_caps_unref (caps);
  gst_object_unref (file);
  gst_object_unref (filter);
  gst_object_unref (sink);
  gst_object_unref (pipeline);
out:
  if (error) {
    post_error (gen->element, location, error);
    g_error_free (error);
    flow = GST_FLOW_ERROR;
  }
  return flow;
}

GstFlowReturn
gst_dualparal_placeholder_new (GstDualParalGenerator * gen,
    const gchar * location, const GstVideoInfo * info, GstBuffer ** picture)
{
  if (location)
    return decode (gen, location, info, picture);
  *picture = grey_new (info);
  return GST_FLOW_OK;
}

gboolean
gst_dualparal_placeholder_copy (GstBuffer * picture, const GstVideoInfo * info,
    GstBuffer * buffer)
{
  GstVideoFrame from, to;
  gboolean copied;

  if (!gst_video_frame_map (&to, info, buffer, GST_MAP_WRITE))
    return FALSE;
  copied = gst_video_frame_map (&from, info, picture, GST_MAP_READ);
  if (copied) {
    gst_video_frame_copy (&to, &from);
    gst_video_frame_unmap (&from);
  }
  gst_video_frame_unmap (&to);
  return copied;
}
