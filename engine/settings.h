/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * settings.h: what the engine keeps of its settings once every default is filled in.
 */
#pragma once

#include "wan/model_config.h"
#include "dualparal.h"
#include "ring.h"

/** A DpSettings that has been resolved, with the model's config and the parsed device list. Strings belong to `storage`. */
typedef struct
{
  DpSettings settings;
  DpModelConfig config;
  DpModelInfo info;
  int n_devices;
  const char *devices[DP_MAX_STAGES];
  gboolean bfloat16, fp8, streamed;     /* precision and text-encoder, decided; fp8 comes with bfloat16 for what is not multiplied in
                                         * e4m3 */
  int context_latents;          /* C, 0 for none */
  gint64 latents;               /* latent frames of the video, -1: endless */
  int max_own, max_input;       /* most latent frames that a block owns, and that a pass has */
} DpResolved;

gboolean dp_settings_read (DpResolved *resolved, const DpSettings *settings, GStringChunk *storage, GError **error);

/** What every stage is made for; `depth` and `cancel` are the ring's. */
DpStageSpec dp_settings_stage (const DpResolved *resolved, const DpSampler *sampler);
