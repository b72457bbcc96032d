/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalplaceholder.h"

#include "gstdualparalmessages.h"

#include <errno.h>
#include <glib/gstdio.h>

#define GST_CAT_DEFAULT gst_dualparal_src_debug

/* How long decoding may take */
#define DECODE_TIME (10 * GST_SECOND)
/* Of 255, in RGB */
#define GREY 40

/* What comes first from a pipeline that decodes one file */
static GstSample *
gst_dualparal_placeholder_decode (const gchar * location, GError ** error)
{
  GstSample *sample = NULL;
  GstMessage *message;
  GstElement *pipeline, *file, *sink;
  GstBus *bus;

  pipeline = gst_parse_launch_full ("filesrc name=file ! decodebin "
      "caps=video/x-raw ! fakesink name=sink", NULL,
      GST_PARSE_FLAG_FATAL_ERRORS, error);
  if (!pipeline)
    return NULL;
  file = gst_bin_get_by_name (GST_BIN (pipeline), "file");
  sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  bus = gst_element_get_bus (pipeline);
  g_object_set (file, "location", location, NULL);
  gst_element_set_state (pipeline, GST_STATE_PAUSED);
  message = gst_bus_timed_pop_filtered (bus, DECODE_TIME,
      GST_MESSAGE_ASYNC_DONE | GST_MESSAGE_ERROR);
  if (message && GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR)
    gst_message_parse_error (message, error, NULL);
  else
    g_object_get (sink, "last-sample", &sample, NULL);
  if (!sample && !*error)
    g_set_error (error, GST_STREAM_ERROR, GST_STREAM_ERROR_DECODE,
        "no picture within %d seconds", (gint) (DECODE_TIME / GST_SECOND));
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_clear_message (&message);
  gst_object_unref (bus);
  gst_object_unref (file);
  gst_object_unref (sink);
  gst_object_unref (pipeline);
  return sample;
}

GstSample *
gst_dualparal_placeholder_load (GstElement * element, const gchar * location)
{
  GError *error = NULL;
  GstSample *picture;
  gchar *name = dp_quote (location, DP_QUOTE_MAX), *why;
  GStatBuf st;

  if (g_stat (location, &st) != 0 && errno != ENOENT && errno != ENOTDIR) {
    GST_ELEMENT_ERROR (element, RESOURCE, OPEN_READ,
        ("placeholder is %s, which cannot be read: %s.", name,
            g_strerror (errno)), (NULL));
    goto fail;
  }
  if (!g_file_test (location, G_FILE_TEST_IS_REGULAR)) {
    GST_ELEMENT_ERROR (element, RESOURCE, NOT_FOUND,
        ("placeholder is %s, and there is no such file.", name), (NULL));
    goto fail;
  }
  picture = gst_dualparal_placeholder_decode (location, &error);
  if (!picture) {
    why = dp_quote (error->message, DP_QUOTE_SENTENCE);
    GST_ELEMENT_ERROR (element, RESOURCE, READ,
        ("The placeholder %s cannot be shown: %s", name, why), (NULL));
    g_free (why);
    g_error_free (error);
    goto fail;
  }
  GST_DEBUG_OBJECT (element, "placeholder %s: %" GST_PTR_FORMAT, name,
      gst_sample_get_caps (picture));
  g_free (name);
  return picture;

fail:
  g_free (name);
  return NULL;
}

/* Scaled, with borders if its shape is another */
static GstBuffer *
gst_dualparal_placeholder_convert (GstBuffer * picture, GstVideoInfo * own,
    const GstVideoInfo * info)
{
  GstVideoRectangle from = { 0, }, to = { 0, }, at;
  GstVideoConverter *converter;
  GstBuffer *buffer = NULL;
  GstVideoFrame in, out;

  if (!gst_video_frame_map (&in, own, picture, GST_MAP_READ))
    return NULL;
  from.w = gst_util_uint64_scale_int (own->width, own->par_n, own->par_d);
  from.h = own->height;
  to.w = info->width;
  to.h = info->height;
  gst_video_center_rect (&from, &to, &at, TRUE);

  /* The converter refuses to change these */
  own->interlace_mode = info->interlace_mode;
  own->fps_n = info->fps_n;
  own->fps_d = info->fps_d;
  /* Even numbers, because chroma has half of the pixels */
  converter = gst_video_converter_new (own, info,
      gst_structure_new ("placeholder",
          GST_VIDEO_CONVERTER_OPT_DEST_X, G_TYPE_INT, at.x & ~1,
          GST_VIDEO_CONVERTER_OPT_DEST_Y, G_TYPE_INT, at.y & ~1,
          GST_VIDEO_CONVERTER_OPT_DEST_WIDTH, G_TYPE_INT, MAX (at.w & ~1, 2),
          GST_VIDEO_CONVERTER_OPT_DEST_HEIGHT, G_TYPE_INT, MAX (at.h & ~1, 2),
          GST_VIDEO_CONVERTER_OPT_RESAMPLER_METHOD,
          GST_TYPE_VIDEO_RESAMPLER_METHOD, GST_VIDEO_RESAMPLER_METHOD_LINEAR,
          NULL));
  if (converter) {
    buffer = gst_buffer_new_and_alloc (GST_VIDEO_INFO_SIZE (info));
    gst_video_frame_map (&out, info, buffer, GST_MAP_WRITE);
    gst_video_converter_frame (converter, &in, &out);
    gst_video_frame_unmap (&out);
    gst_video_converter_free (converter);
  }
  gst_video_frame_unmap (&in);
  return buffer;
}

GstBuffer *
gst_dualparal_placeholder_new (GstElement * element, GstSample * picture,
    const GstVideoInfo * info)
{
  GstBuffer *buffer = NULL, *grey;
  GstVideoInfo own;

  if (!picture) {
    gst_video_info_set_format (&own, GST_VIDEO_FORMAT_RGB, info->width,
        info->height);
    grey = gst_buffer_new_and_alloc (own.size);
    gst_buffer_memset (grey, 0, GREY, own.size);
    buffer = gst_dualparal_placeholder_convert (grey, &own, info);
    gst_buffer_unref (grey);
  } else if (gst_video_info_from_caps (&own, gst_sample_get_caps (picture))) {
    buffer = gst_dualparal_placeholder_convert (gst_sample_get_buffer (picture),
        &own, info);
  }
  if (!buffer)
    GST_ELEMENT_ERROR (element, RESOURCE, READ,
        ("The placeholder cannot be converted to the format of the video."),
        (NULL));
  return buffer;
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
