/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalplaceholder.h: the picture that is shown until frames are ready.
 */
#pragma once

#include <gst/video/video.h>

G_BEGIN_DECLS

/** Decodes the picture in a file. NULL with a posted error. Blocks as long as decoding takes. */
GstSample *gst_dualparal_placeholder_load (GstElement * element,
    const gchar * location);

/** The picture, or dark grey if it is NULL, with the format and size of `info`. NULL with a posted
 *  error when it cannot be converted. */
GstBuffer *gst_dualparal_placeholder_new (GstElement * element,
    GstSample * picture, const GstVideoInfo * info);

/** Copies it into a buffer of the same format and size. FALSE when that cannot be mapped. */
gboolean gst_dualparal_placeholder_copy (GstBuffer * picture,
    const GstVideoInfo * info, GstBuffer * buffer);

G_END_DECLS
