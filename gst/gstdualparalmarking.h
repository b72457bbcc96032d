/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalmarking.h: what says that the video was made by a model, and how:
 * tags for containers, a custom meta for whoever looks at frames, and a text for
 * the bitstream, which dualparalsei writes behind an encoder. All three say what
 * IPTC's digital source type for this is, so one search finds any of them.
 */
#pragma once

#include <gst/gst.h>
#include "dualparal.h"

G_BEGIN_DECLS

#define GST_DUALPARAL_SOURCE_TYPE \
    "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
#define GST_DUALPARAL_META_NAME "GstDualParalMeta"
/** f73c05d5-7096-42dd-be2d-9eb4ecd8bab8: of user data that is our text. It has no
 *  zero in it, so a bitstream has it unescaped. */
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

/** The tags of a prompt. */
GstTagList *gst_dualparal_marking_tags (const gchar * prompt,
    const DpSettings * settings, const DpModelInfo * model);

/** Puts what `marking` says on a buffer with that frame of the video. */
void gst_dualparal_marking_mark (GstDualParalMarking marking,
    GstBuffer * buffer, const DpSettings * settings, const DpModelInfo * model,
    gint64 block, guint64 frame, guint prompt_id);

G_END_DECLS
