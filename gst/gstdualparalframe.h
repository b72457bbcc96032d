/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalframe.h: the engine's frames in GStreamer's formats and buffers. Most formats are the
 * same. Formats with alpha are the engine's padded ones, whose fourth byte is 255: opaque.
 */
#pragma once

#include <gst/video/video.h>
#include "dualparal.h"

G_BEGIN_DECLS

#define GST_DUALPARAL_FRAME_COMMON \
    "width = (int) [ " G_STRINGIFY (DP_MIN_SIZE) ", " \
    G_STRINGIFY (DP_MAX_SIZE) ", 2 ], " \
    "height = (int) [ " G_STRINGIFY (DP_MIN_SIZE) ", " \
    G_STRINGIFY (DP_MAX_SIZE) ", 2 ], " \
    "framerate = (fraction) [ 1/2147483647, 2147483647/1 ], " \
    "pixel-aspect-ratio = (fraction) 1/1, " \
    "interlace-mode = (string) progressive"
/** All caps, the best first: many encoders turn RGB into 4:4:4, which few players support. */
#define GST_DUALPARAL_FRAME_CAPS \
    "video/x-raw, format = (string) { I420, NV12 }, " \
    GST_DUALPARAL_FRAME_COMMON ", colorimetry = (string) bt709; " \
    "video/x-raw, format = (string) { RGBx, BGRx, xRGB, xBGR, RGBA, BGRA, " \
    "ARGB, ABGR, RGB, BGR }, " \
    GST_DUALPARAL_FRAME_COMMON ", colorimetry = (string) sRGB"

/** Narrows the caps that downstream accepts. To the current ones if possible (NULL: none yet), so a
 *  window that is made larger does not restart the video; or else to the current size; or else to
 *  the size and framerate nearest to the model's. A side that is free when the other one is not keeps
 *  the aspect of that size. Takes `caps`. */
GstCaps *gst_dualparal_frame_prefer (GstCaps * caps, GstCaps * current,
    const DpModelInfo * model);

/** The engine's format for a GStreamer one; FALSE when there is none. */
gboolean gst_dualparal_frame_format (GstVideoFormat format, DpFormat * engine);

/** Copies a frame into a buffer of the same format and size, with any strides. FALSE when the buffer
 *  cannot be mapped. */
gboolean gst_dualparal_frame_copy (const DpFrame * frame,
    const GstVideoInfo * info, GstBuffer * buffer);

/** Answers an allocation query, with downstream's pool or else a new one. Strides are free if both
 *  sides support video meta. */
void gst_dualparal_frame_offer_pool (GstQuery * query);

G_END_DECLS
