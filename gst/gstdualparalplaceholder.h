/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalplaceholder.h: the picture that is shown until there are frames.
 */
#pragma once

#include <gst/video/video.h>
#include "gstdualparalgenerator.h"

G_BEGIN_DECLS

/** FALSE, with a posted error, when the file is not there. */
gboolean gst_dualparal_placeholder_check (GstElement * element,
    const gchar * location);

/** The picture in the file, or dark grey without one, of the format and size of
 *  `info`. GST_FLOW_ERROR with a posted error when it cannot be decoded,
 *  GST_FLOW_FLUSHING when the generator is. Blocks as long as decoding takes. */
GstFlowReturn gst_dualparal_placeholder_new (GstDualParalGenerator * gen,
    const gchar * location, const GstVideoInfo * info, GstBuffer ** picture);

/** Copies it into a buffer of the same format and size. FALSE when that cannot be
 *  mapped. */
gboolean gst_dualparal_placeholder_copy (GstBuffer * picture,
    const GstVideoInfo * info, GstBuffer * buffer);

G_END_DECLS
