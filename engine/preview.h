/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * preview.h: a small picture of the block at the head of the queue, from what comes back to stage 0.
 *
 * Latents that are half denoised show little but noise. Where they are going shows the picture: the
 * line through the states before and after a step, followed to noise level 0. One latent frame of the
 * block, its middle one, is taken there, and each of its latents becomes a pixel by the model's
 * preview_map. Nothing of the video depends on it.
 */
#pragma once

#include "block.h"
#include "dualparal.h"
#include "plan.h"

/* Thread-safety: setting from any thread, the rest on stage 0's. */
typedef struct _DpPreviewer DpPreviewer;

/** For a plan, which must outlive it. Does nothing until it is set. */
DpPreviewer *dp_previewer_new (const DpPlan *plan);
/** NULL is fine. */
void dp_previewer_free (DpPreviewer *previewer);

/** See dp_engine_set_preview(). */
gboolean dp_previewer_set (DpPreviewer *previewer, DpPreviewCallback callback, gpointer user_data, GError **error);

/** A block came back to `dev`, whose latents [own, h, w, C] were `before` its step. Shows it, if it is the one at the head and the last
 *  picture is old enough. It waits for the device then. */
void dp_previewer_look (DpPreviewer *previewer, DpDevice *dev, const float *before, const DpBlock *block);
