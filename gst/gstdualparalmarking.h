/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalmarking.h: what the video says about itself. Events and a message announce the first
 * frame of each prompt. Three marks say that a model made the video, and how: tags for containers,
 * a custom meta for elements that look at frames, and a text for the bitstream, which dualparalsei
 * writes behind an encoder. All three contain IPTC's digital source type, so one search finds any
 * of them.
 */
#pragma once

#include <gst/base/gstbasesrc.h>
#include "dualparal.h"
#include "gstdualparalposter.h"

G_BEGIN_DECLS

#define GST_DUALPARAL_SOURCE_TYPE \
    "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
#define GST_DUALPARAL_META_NAME "GstDualParalMeta"
/** f73c05d5-7096-42dd-be2d-9eb4ecd8bab8: marks user data as our text. It contains no zero, so a
 *  bitstream has it unescaped. */
#define GST_DUALPARAL_SEI_UUID_SIZE 16
extern const guint8 gst_dualparal_sei_uuid[GST_DUALPARAL_SEI_UUID_SIZE];

/**
 * GstDualParalMarking:
 * @GST_DUALPARAL_MARKING_TAGS: a tag event for each prompt: title, comment,
 *   artist, keywords and application name
 * @GST_DUALPARAL_MARKING_META: a custom meta `GstDualParalMeta` on each frame
 * @GST_DUALPARAL_MARKING_SEI: a #GstVideoSEIUserDataUnregisteredMeta on each
 *   frame, which `dualparalsei` writes into H.264 and H.265
 *
 * How the video is marked as made by a model.
 *
 * Since: 0.1
 */
typedef enum
{
  GST_DUALPARAL_MARKING_TAGS = 1 << 0,
  GST_DUALPARAL_MARKING_META = 1 << 1,
  GST_DUALPARAL_MARKING_SEI = 1 << 2,
} GstDualParalMarking;

#define GST_DUALPARAL_MARKING_ALL (GST_DUALPARAL_MARKING_TAGS | \
    GST_DUALPARAL_MARKING_META | GST_DUALPARAL_MARKING_SEI)
#define GST_TYPE_DUALPARAL_MARKING (gst_dualparal_marking_get_type ())
GType gst_dualparal_marking_get_type (void);

/** Makes the meta known to the process. */
void gst_dualparal_marking_register (void);

/** Thread-safety: start without a streaming thread, else the streaming thread's. */
typedef struct _GstDualParalMarker GstDualParalMarker;

GstDualParalMarker *gst_dualparal_marking_new (GstBaseSrc * src,
    GstDualParalPoster * poster);
void gst_dualparal_marking_free (GstDualParalMarker * marker);

/** A video begins: no prompt was announced yet. */
void gst_dualparal_marking_start (GstDualParalMarker * marker,
    GstDualParalMarking marking);

/** Before frame `n` of the video is sent, shown at `pts`: if a prompt begins with it, posts the
 *  message, and a warning if the model does not know all its words, and returns TRUE. The events go right before the next buffer. The frame may come by again. */
gboolean gst_dualparal_marking_announce (GstDualParalMarker * marker,
    const DpFrame * frame, guint64 n, GstClockTime pts, const DpPlan * plan);

/** Marks the buffer with that frame, whose number in the video is the buffer's offset. */
void gst_dualparal_marking_mark (GstDualParalMarker * marker,
    GstBuffer * buffer, const DpFrame * frame, const DpPlan * plan);

G_END_DECLS
