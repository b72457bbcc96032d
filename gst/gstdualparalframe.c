/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalframe.h"

#include <string.h>
#include "gstdualparalmessages.h"

#define GST_CAT_DEFAULT gst_dualparal_src_debug

/* Takes `wanted`. FALSE, and `caps` unchanged, if they have nothing in common */
static gboolean
gst_dualparal_frame_narrow (GstCaps ** caps, GstCaps * wanted)
{
  GstCaps *both = gst_caps_intersect_full (*caps, wanted,
      GST_CAPS_INTERSECT_FIRST);
  const gboolean some = !gst_caps_is_empty (both);

  if (some)
    gst_caps_replace (caps, both);
  gst_caps_unref (both);
  gst_caps_unref (wanted);
  return some;
}

/* A side as near as possible to `size`, which is made even as all sizes here are */
static void
gst_dualparal_frame_fixate_side (GstStructure * s, const gchar * side,
    gdouble size)
{
  gst_structure_fixate_field_nearest_int (s, side, 2 * (gint) (size / 2 + 0.5));
}

/* The size nearest to this one. If one side has to be another, the other one keeps the aspect */
static void
gst_dualparal_frame_fixate_size (GstStructure * s, gint width, gint height)
{
  GstStructure *nearest = gst_structure_copy (s);
  const gdouble aspect = (gdouble) width / height;
  gint w = width, h = height;

  gst_dualparal_frame_fixate_side (nearest, "width", width);
  gst_dualparal_frame_fixate_side (nearest, "height", height);
  gst_structure_get_int (nearest, "width", &w);
  gst_structure_get_int (nearest, "height", &h);
  gst_structure_free (nearest);
  gst_dualparal_frame_fixate_side (s, "width", w == width ? h * aspect : w);
  gst_dualparal_frame_fixate_side (s, "height", h == height ? w / aspect : h);
}

GstCaps *
gst_dualparal_frame_prefer (GstCaps * caps, GstCaps * current,
    const DpModelInfo * model)
{
  gint width = model->width, height = model->height;
  GstStructure *s;
  GstCaps *wanted;

  if (current) {
    if (gst_dualparal_frame_narrow (&caps, gst_caps_ref (current)))
      return caps;
    s = gst_caps_get_structure (current, 0);
    gst_structure_get_int (s, "width", &width);
    gst_structure_get_int (s, "height", &height);
  }
  wanted = gst_caps_new_simple ("video/x-raw", "width", G_TYPE_INT, width,
      "height", G_TYPE_INT, height, NULL);
  gst_caps_set_features (wanted, 0, gst_caps_features_new_any ());
  gst_dualparal_frame_narrow (&caps, wanted);

  caps = gst_caps_make_writable (gst_caps_truncate (caps));
  s = gst_caps_get_structure (caps, 0);
  gst_dualparal_frame_fixate_size (s, width, height);
  gst_structure_fixate_field_nearest_fraction (s, "framerate", model->fps_n,
      model->fps_d);
  /* Chroma is the mean of 2x2 pixels */
  if (g_strcmp0 (gst_structure_get_string (s, "colorimetry"), "bt709") == 0
      && !gst_structure_has_field (s, "chroma-site"))
    gst_structure_set (s, "chroma-site", G_TYPE_STRING, "jpeg", NULL);
  return caps;
}

gboolean
gst_dualparal_frame_format (GstVideoFormat format, DpFormat * engine)
{
  static const struct
  {
    GstVideoFormat format;
    DpFormat engine;
  } formats[] = {
    {GST_VIDEO_FORMAT_I420, DP_FORMAT_I420},
    {GST_VIDEO_FORMAT_NV12, DP_FORMAT_NV12},
    {GST_VIDEO_FORMAT_RGBx, DP_FORMAT_RGBX},
    {GST_VIDEO_FORMAT_RGBA, DP_FORMAT_RGBX},
    {GST_VIDEO_FORMAT_BGRx, DP_FORMAT_BGRX},
    {GST_VIDEO_FORMAT_BGRA, DP_FORMAT_BGRX},
    {GST_VIDEO_FORMAT_xRGB, DP_FORMAT_XRGB},
    {GST_VIDEO_FORMAT_ARGB, DP_FORMAT_XRGB},
    {GST_VIDEO_FORMAT_xBGR, DP_FORMAT_XBGR},
    {GST_VIDEO_FORMAT_ABGR, DP_FORMAT_XBGR},
    {GST_VIDEO_FORMAT_RGB, DP_FORMAT_RGB},
    {GST_VIDEO_FORMAT_BGR, DP_FORMAT_BGR},
  };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (formats); i++) {
    if (formats[i].format == format) {
      *engine = formats[i].engine;
      return TRUE;
    }
  }
  return FALSE;
}

gboolean
gst_dualparal_frame_copy (const DpFrame * frame, const GstVideoInfo * info,
    GstBuffer * buffer)
{
  GstVideoFrame out;
  gint p, y;

  g_assert (frame->width == GST_VIDEO_INFO_WIDTH (info));
  g_assert (frame->height == GST_VIDEO_INFO_HEIGHT (info));
  g_assert (frame->n_planes == (gint) GST_VIDEO_INFO_N_PLANES (info));

  if (!gst_video_frame_map (&out, info, buffer, GST_MAP_WRITE))
    return FALSE;

  for (p = 0; p < frame->n_planes; p++) {
    /* In every format of ours component p is in plane p */
    const gint bytes = GST_VIDEO_FRAME_COMP_WIDTH (&out, p) *
        GST_VIDEO_FRAME_COMP_PSTRIDE (&out, p);
    const gint rows = GST_VIDEO_FRAME_COMP_HEIGHT (&out, p);
    const guint8 *from = frame->planes[p];
    guint8 *to = GST_VIDEO_FRAME_PLANE_DATA (&out, p);

    for (y = 0; y < rows; y++) {
      memcpy (to, from, bytes);
      from += frame->strides[p];
      to += GST_VIDEO_FRAME_PLANE_STRIDE (&out, p);
    }
  }
  gst_video_frame_unmap (&out);
  return TRUE;
}

void
gst_dualparal_frame_offer_pool (GstQuery * query)
{
  const gboolean offered = gst_query_get_n_allocation_pools (query) > 0;
  GstBufferPool *pool = NULL;
  GstAllocator *allocator = NULL;
  GstAllocationParams params;
  GstStructure *config;
  GstVideoInfo info;
  GstCaps *caps;
  guint size = 0, min = 0, max = 0;

  gst_query_parse_allocation (query, &caps, NULL);
  gst_video_info_from_caps (&info, caps);

  if (offered)
    gst_query_parse_nth_allocation_pool (query, 0, &pool, &size, &min, &max);
  size = MAX (size, GST_VIDEO_INFO_SIZE (&info));
  if (!pool)
    pool = gst_video_buffer_pool_new ();

  config = gst_buffer_pool_get_config (pool);
  gst_buffer_pool_config_set_params (config, caps, size, min, max);
  if (gst_query_get_n_allocation_params (query) > 0) {
    gst_query_parse_nth_allocation_param (query, 0, &allocator, &params);
    gst_buffer_pool_config_set_allocator (config, allocator, &params);
    gst_clear_object (&allocator);
  }
  if (gst_query_find_allocation_meta (query, GST_VIDEO_META_API_TYPE, NULL)
      && gst_buffer_pool_has_option (pool, GST_BUFFER_POOL_OPTION_VIDEO_META))
    gst_buffer_pool_config_add_option (config,
        GST_BUFFER_POOL_OPTION_VIDEO_META);
  if (!gst_buffer_pool_set_config (pool, config))
    GST_DEBUG_OBJECT (pool, "refuses %" GST_PTR_FORMAT, caps);

  if (offered)
    gst_query_set_nth_allocation_pool (query, 0, pool, size, min, max);
  else
    gst_query_add_allocation_pool (query, pool, size, min, max);
  gst_object_unref (pool);
}
