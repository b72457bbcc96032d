/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalcaps.h"

#include "gstdualparalframe.h"
#include "gstdualparalsrc.h"

#define NEGOTIATE_TRIES 5

static GstBaseSrcClass *parent_class;

static GstCaps *
fixate (GstBaseSrc * src, GstCaps * caps)
{
  GstCaps *current = gst_pad_get_current_caps (GST_BASE_SRC_PAD (src));

  caps = gst_dualparal_frame_prefer (caps, current,
      &GST_DUALPARAL_SRC (src)->gen.model);
  gst_clear_caps (&current);
  return parent_class->fixate (src, caps);
}

static gboolean
negotiate (GstBaseSrc * src)
{
  GstCaps *peer;
  guint i;

  /* Between what downstream says and what it then gets it may change its mind */
  for (i = 0; i < NEGOTIATE_TRIES; i++) {
    if (parent_class->negotiate (src))
      return TRUE;
    if (GST_PAD_IS_FLUSHING (GST_BASE_SRC_PAD (src)))
      return FALSE;
  }

  peer = gst_pad_peer_query_caps (GST_BASE_SRC_PAD (src), NULL);
  GST_ELEMENT_ERROR (src, CORE, NEGOTIATION,
      ("No video is both wanted downstream and can be made: width and height "
          "are multiples of 16, pixels square, frames progressive."),
      ("downstream takes %" GST_PTR_FORMAT, peer));
  gst_clear_caps (&peer);
  return FALSE;
}

static gboolean
set_caps (GstBaseSrc * src, GstCaps * caps)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  GstClockTime now = 0;
  GstVideoInfo info;
  DpFormat format;

  if (!gst_video_info_from_caps (&info, caps)
      || !gst_dualparal_frame_format (GST_VIDEO_INFO_FORMAT (&info), &format)
      || GST_VIDEO_INFO_FPS_N (&info) <= 0)
    return FALSE;

  if (self->n_frames > 0)
    now = gst_dualparal_src_time_of (self, self->n_frames);
  if (self->gen.engine && (info.width != self->info.width
          || info.height != self->info.height
          || GST_VIDEO_INFO_FORMAT (&info) !=
          GST_VIDEO_INFO_FORMAT (&self->info)))
    self->gen.reopen = TRUE;

  GST_OBJECT_LOCK (self);
  self->info = info;
  self->base_time = now;
  self->base_frame = self->n_frames;
  GST_OBJECT_UNLOCK (self);

  gst_clear_buffer (&self->placeholder);
  gst_dualparal_stats_set_framerate (&self->stats,
      GST_VIDEO_INFO_FPS_N (&info), GST_VIDEO_INFO_FPS_D (&info));
  if (gst_dualparal_live_set_framerate (&self->live,
          GST_VIDEO_INFO_FPS_N (&info), GST_VIDEO_INFO_FPS_D (&info))
      && gst_base_src_is_live (src))
    gst_element_post_message (GST_ELEMENT (self),
        gst_message_new_latency (GST_OBJECT (self)));
  return TRUE;
}

static GstCaps *
get_caps (GstBaseSrc * src, GstCaps * filter)
{
  GstCaps *caps = gst_pad_get_pad_template_caps (GST_BASE_SRC_PAD (src)), *some;

  caps = gst_dualparal_cuda_possible (caps);
  if (!filter)
    return caps;
  some = gst_caps_intersect_full (filter, caps, GST_CAPS_INTERSECT_FIRST);
  gst_caps_unref (caps);
  return some;
}

static gboolean
decide_allocation (GstBaseSrc * src, GstQuery * query)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  gboolean offered = TRUE;
  gchar *devices;

  if (gst_dualparal_cuda_is_asked (query)) {
    GST_OBJECT_LOCK (self);
    devices = g_strdup (self->settings.devices);
    GST_OBJECT_UNLOCK (self);
    offered = gst_dualparal_cuda_offer_pool (GST_ELEMENT (self), query,
        devices, &self->cuda);
    g_free (devices);
  } else {
    gst_dualparal_frame_offer_pool (query);
  }
  if (!offered)
    return FALSE;
  /* Sets the pool up once more, and deals with one that refuses */
  return parent_class->decide_allocation (src, query);
}

void
gst_dualparal_caps_class_init (GstBaseSrcClass * klass)
{
  parent_class = g_type_class_peek_parent (klass);
  klass->get_caps = get_caps;
  klass->fixate = fixate;
  klass->negotiate = negotiate;
  klass->set_caps = set_caps;
  klass->decide_allocation = decide_allocation;
}
