/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * parity_engine.h: a fixture's video through the engine's public API.
 */
#pragma once

#include "parity.h"
#include "dualparal_testing.h"

/** What came out. */
typedef struct
{
  GArray *latents;              /* float [n_latents, h, w, channels], in the order of the callback */
  int n_latents, h, w, channels;
  GArray *frames;               /* float [n_frames, height, width, 3] in 0..1 */
  int n_frames, width, height;
  float *embeds, *negative;     /* [text_length, text_dim] each */
  int text_length, text_dim;
} ParityVideo;

void parity_video_free (ParityVideo *video);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ParityVideo, parity_video_free)

/** Settings of a run or dualparal case: everything but devices and, for `run`, the cut into blocks. Strings are the case's; model and
 *  noise are the caller's to free. */
void parity_settings (const ParityCase *c, DpSettings *settings);
void parity_settings_clear (DpSettings *settings);

/** Opens, queues the case's prompt changes, pulls every frame, frees. */
ParityVideo *parity_run (const ParityCase *c, const DpSettings *settings);

/** Latents against the case's: as a whole, and each latent frame. */
void parity_check_latents (const char *what, const ParityCase *c, const ParityVideo *video, double tol);
/** Frames 0, stride, 2 * stride, ... against the case's, as PSNR in dB. */
void parity_check_frames (const char *what, const ParityCase *c, const ParityVideo *video, int stride, double min_db);
