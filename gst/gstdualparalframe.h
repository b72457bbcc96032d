/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalframe.h: where the engine's frames and GStreamer's meet. The
 * engine delivers most formats as they are; formats with alpha are its padded
 * ones, whose fourth byte is 255, which is opaque.
 */
#pragma once

#include <gst/video/video.h>
#include "dualparal.h"

G_BEGIN_DECLS

#define GST_DUALPARAL_FRAME_COMMON \
    "width = (int) [ 16, 8192, 16 ], height = (int) [ 16, 8192, 16 ], " \
    "framerate = (fraction) [ 1/2147483647, 2147483647/1 ], " \
    "pixel-aspect-ratio = (fraction) 1/1, " \
    "interlace-mode = (string) progressive"
/** What can be made, the best first: from RGB many encoders go to 4:4:4, which
 *  few players know. */
#define GST_DUALPARAL_FRAME_CAPS \
    "video/x-raw, format = (string) { I420, NV12 }, " \
    GST_DUALPARAL_FRAME_COMMON ", colorimetry = (string) bt709; " \
    "video/x-raw, format = (string) { RGBx, BGRx, xRGB, xBGR, RGBA, BGRA, " \
    "ARGB, ABGR, RGB, BGR }, " \
    GST_DUALPARAL_FRAME_COMMON ", colorimetry = (string) sRGB"

/** Of what downstream takes, the caps of now (NULL: none yet), so that a window
 *  that is made larger does not begin another, slower video; else the size of
 *  now with whatever else has to change; else what is nearest to what the model
 *  was made for. Takes `caps`. */
GstCaps *gst_dualparal_frame_prefer (GstCaps * caps, GstCaps * current,
    const DpModelInfo * model);

/** The engine's format for a GStreamer one; FALSE when there is none. */
gboolean gst_dualparal_frame_format (GstVideoFormat format, DpFormat * engine);

/** Copies a frame into a buffer of the same format and size, whatever the
 *  strides of either are. FALSE when the buffer cannot be mapped. */
gboolean gst_dualparal_frame_copy (const DpFrame * frame,
    const GstVideoInfo * info, GstBuffer * buffer);

/** Answers an allocation query: downstream's pool where there is one, else one
 *  of ours, with strides as they like where both know video meta. */
void gst_dualparal_frame_offer_pool (GstQuery * query);

G_END_DECLS
