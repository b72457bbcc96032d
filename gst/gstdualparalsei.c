/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalsei.c: writes a meta into the bitstream. Encoders of GStreamer 1.22 copy metas from
 * frames to encoded buffers, but do not write this one.
 */

/**
 * SECTION:element-dualparalsei
 * @title: dualparalsei
 *
 * Writes into H.264 and H.265 what #dualparalsrc says about its frames: an SEI message of user data
 * with the UUID `f73c05d5-7096-42dd-be2d-9eb4ecd8bab8` and a text in JSON. It says that a model made
 * this, names the model and the seed, and gives the block and the frame. The element goes right
 * behind the encoder:
 *
 * |[
 * gst-launch-1.0 dualparalsrc num-frames=160 ! x264enc ! dualparalsei ! mp4mux ! filesink location=ball.mp4
 * ]|
 *
 * Only key frames get the message, about 300 bytes each: a player that joins or seeks, and a cut
 * without another encoding, begin with one. A buffer without such a meta, or with the message already,
 * passes unchanged.
 *
 * For other metas there are #h264seiinserter and #h265seiinserter, from GStreamer 1.30 on. They accept
 * this one too.
 *
 * Since: 0.1
 */
#include "gstdualparalsei.h"

#include <gst/video/video-sei.h>
#include "gstdualparalmarking.h"
#include "gstdualparalnal.h"

GST_DEBUG_CATEGORY_STATIC (gst_dualparal_sei_debug);
#define GST_CAT_DEFAULT gst_dualparal_sei_debug

#define CAPS \
    "video/x-h264, stream-format = (string) { byte-stream, avc, avc3 }, " \
    "alignment = (string) au; " \
    "video/x-h265, stream-format = (string) { byte-stream, hvc1, hev1 }, " \
    "alignment = (string) au"

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE ("sink",
    GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS (CAPS));
static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE ("src",
    GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (CAPS));

struct _GstDualParalSei
{
  GstBaseTransform parent;

  GstDualParalNalFormat format; /* owned by the streaming thread */
};

G_DEFINE_TYPE (GstDualParalSei, gst_dualparal_sei, GST_TYPE_BASE_TRANSFORM);
GST_ELEMENT_REGISTER_DEFINE (dualparalsei, "dualparalsei", GST_RANK_NONE,
    GST_TYPE_DUALPARAL_SEI);

/* The size of lengths is in the decoder configuration (ISO/IEC 14496-15) */
static gboolean
gst_dualparal_sei_set_caps (GstBaseTransform * trans, GstCaps * in,
    GstCaps * out)
{
  GstDualParalSei *self = GST_DUALPARAL_SEI (trans);
  const GstStructure *s = gst_caps_get_structure (in, 0);
  const GValue *value = gst_structure_get_value (s, "codec_data");
  const gboolean h265 = gst_structure_has_name (s, "video/x-h265");
  const gsize at = h265 ? 21 : 4;
  guint8 size;

  self->format.h265 = h265;
  self->format.length_size = 0;
  if (g_strcmp0 (gst_structure_get_string (s, "stream-format"),
          "byte-stream") == 0)
    return TRUE;
  if (!value || !GST_VALUE_HOLDS_BUFFER (value)
      || gst_buffer_extract (gst_value_get_buffer (value), at, &size, 1) != 1) {
    GST_ERROR_OBJECT (self, "no codec_data to tell the size of lengths: %"
        GST_PTR_FORMAT, in);
    return FALSE;
  }
  self->format.length_size = (size & 3) + 1;
  return TRUE;
}

static const GstVideoSEIUserDataUnregisteredMeta *
gst_dualparal_sei_find_meta (GstBuffer * buffer)
{
  gpointer state = NULL;
  GstMeta *meta;

  while ((meta = gst_buffer_iterate_meta_filtered (buffer, &state,
              GST_VIDEO_SEI_USER_DATA_UNREGISTERED_META_API_TYPE))) {
    GstVideoSEIUserDataUnregisteredMeta *sei =
        (GstVideoSEIUserDataUnregisteredMeta *) meta;

    if (memcmp (sei->uuid, gst_dualparal_sei_uuid, sizeof (sei->uuid)) == 0)
      return sei;
  }
  return NULL;
}

static GstFlowReturn
gst_dualparal_sei_transform_ip (GstBaseTransform * trans, GstBuffer * buffer)
{
  GstDualParalSei *self = GST_DUALPARAL_SEI (trans);
  const GstVideoSEIUserDataUnregisteredMeta *meta;
  GByteArray *sei = NULL;
  GstMemory *memory;
  GstMapInfo in, out;
  gsize at;

  if (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_DELTA_UNIT)
      || !(meta = gst_dualparal_sei_find_meta (buffer)))
    return GST_FLOW_OK;
  if (!gst_buffer_map (buffer, &in, GST_MAP_READ)) {
    GST_ELEMENT_ERROR (self, RESOURCE, READ,
        ("The encoder's memory cannot be read."), ("%" GST_PTR_FORMAT, buffer));
    return GST_FLOW_ERROR;
  }
  if (gst_dualparal_nal_find (&self->format, in.data, in.size, meta->uuid, &at))
    sei = gst_dualparal_nal_sei_new (&self->format, meta->uuid, meta->data,
        meta->size);
  if (!sei) {
    GST_DEBUG_OBJECT (self, "left as it is: %" GST_PTR_FORMAT, buffer);
    gst_buffer_unmap (buffer, &in);
    return GST_FLOW_OK;
  }
  memory = gst_allocator_alloc (NULL, in.size + sei->len, NULL);
  gst_memory_map (memory, &out, GST_MAP_WRITE);
  memcpy (out.data, in.data, at);
  memcpy (out.data + at, sei->data, sei->len);
  memcpy (out.data + at + sei->len, in.data + at, in.size - at);
  gst_memory_unmap (memory, &out);
  gst_buffer_unmap (buffer, &in);
  g_byte_array_unref (sei);
  gst_buffer_replace_all_memory (buffer, memory);
  return GST_FLOW_OK;
}

static void
gst_dualparal_sei_init (GstDualParalSei * self)
{
}

static void
gst_dualparal_sei_class_init (GstDualParalSeiClass * klass)
{
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseTransformClass *trans_class = GST_BASE_TRANSFORM_CLASS (klass);

  GST_DEBUG_CATEGORY_INIT (gst_dualparal_sei_debug, "dualparalsei", 0,
      "SEI writer of dualparalsrc");

  gst_element_class_add_static_pad_template (element_class, &sink_template);
  gst_element_class_add_static_pad_template (element_class, &src_template);
  gst_element_class_set_static_metadata (element_class,
      "DualParal SEI writer", "Codec/Video/Metadata",
      "Writes what dualparalsrc says about its frames into H.264 and H.265",
      "The gst-dualparal authors");
  trans_class->set_caps = gst_dualparal_sei_set_caps;
  trans_class->transform_ip = gst_dualparal_sei_transform_ip;
}
