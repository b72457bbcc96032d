/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalpreview.h: posts a small picture of the block that is being denoised, as a message.
 */
#pragma once

#include <gst/gst.h>
#include "dualparal.h"
#include "gstdualparalposter.h"

G_BEGIN_DECLS

/** Where the messages go. Must outlive the engine that has it. */
typedef struct
{
  GstElement *element;
  GstDualParalPoster *poster;
} GstDualParalPreview;

/** A DpPreviewCallback, for a GstDualParalPreview: posts `dualparal-preview`. If a handler is slow,
 *  pictures are left out and do not pile up. */
void gst_dualparal_preview_post (const DpPreview * preview, gpointer user_data);

G_END_DECLS
