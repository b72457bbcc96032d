/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalpreview.h"

#include <gst/video/video.h>
#include <string.h>

static GstSample *
gst_dualparal_preview_sample (const DpPreview * preview)
{
  GstVideoInfo info;
  GstBuffer *buffer;
  GstVideoFrame frame;
  GstSample *sample;
  GstCaps *caps;
  gint y;

  gst_video_info_set_format (&info, GST_VIDEO_FORMAT_RGB, preview->width,
      preview->height);
  buffer = gst_buffer_new_and_alloc (GST_VIDEO_INFO_SIZE (&info));
  gst_video_frame_map (&frame, &info, buffer, GST_MAP_WRITE);
  for (y = 0; y < preview->height; y++)
    memcpy ((guint8 *) GST_VIDEO_FRAME_PLANE_DATA (&frame, 0) +
        y * GST_VIDEO_FRAME_PLANE_STRIDE (&frame, 0),
        preview->rgb + 3 * y * preview->width, 3 * preview->width);
  gst_video_frame_unmap (&frame);
  caps = gst_video_info_to_caps (&info);
  sample = gst_sample_new (buffer, caps, NULL, NULL);
  gst_caps_unref (caps);
  gst_buffer_unref (buffer);
  return sample;
}

void
gst_dualparal_preview_post (const DpPreview * preview, gpointer user_data)
{
  GstDualParalPreview *self = user_data;
  GstSample *sample;

  if (!gst_dualparal_poster_is_idle (self->poster))
    return;
  sample = gst_dualparal_preview_sample (preview);
  gst_dualparal_poster_post (self->poster,
      gst_message_new_element (GST_OBJECT (self->element),
          gst_structure_new ("dualparal-preview",
              "sample", GST_TYPE_SAMPLE, sample,
              "block", G_TYPE_INT64, preview->block,
              "step", G_TYPE_INT, preview->step,
              "steps", G_TYPE_INT, preview->steps, NULL)));
  gst_sample_unref (sample);
}
