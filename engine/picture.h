/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * picture.h: the picture that a video begins with, from its file to latents.
 */
#pragma once

#include "plan.h"

/* Thread-safety: immutable, so from any thread. */
typedef struct _DpPicture DpPicture;

/** Takes the picture of the plan's settings, `image_rgb` or the file `image`: whatever GdkPixbuf knows, PNG and JPEG at least, turned upright as its EXIF
 *  data say. What does not have the video's aspect loses the edges that are over, the rest is scaled. Cheap. `plan` and `cancel`, which
 *  ends encoding, must outlive it. Errors: DP_ERROR_NOT_FOUND, DP_ERROR_SETTINGS, DP_ERROR_NO_MEMORY. */
DpPicture *dp_picture_open (const DpPlan *plan, const int *cancel, GError **error);
/** NULL is fine. */
void dp_picture_free (DpPicture *picture);

/** As DpScheduleSpec.picture, of a DpPicture: encodes it, on the CPU, with the encoder of the model's VAE: half a minute for a large one.
 *  Errors: those of dp_model_weights() and dp_vae_encoder_new(), DP_ERROR_FLUSHING. */
gboolean dp_picture_encode (gpointer picture, float *latents, GError **error);
