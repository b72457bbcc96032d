/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * published.h: the models that are published in diffusers layout, by short names: what their config
 * files say, so that they can be planned for before they are downloaded.
 */
#pragma once

#include "model_config.h"

/** If `name` is that of a published model, "wan2.1-1.3b", sets all of `config` but the defaults, and returns its repository on the
 *  Hugging Face hub; else NULL. */
const char *dp_published_config (const char *name, DpModelConfig *config);

/** If a model has the dimensions of a published one, as fine-tuned ones do, sets the sizes that this one was trained for, and its size,
 *  frame rate, steps, guidance and negative prompt, as the defaults. */
void dp_published_defaults (DpModelConfig *config);

/** The flow shift that Wan's own code has for a model of these dimensions, where no scheduler's config says it: 5, or 12 for A14B. */
double dp_published_shift (const DpModelConfig *config);

/** Sets the mean and the standard deviation of the latents of the published VAE that has as many channels; FALSE if there is none.
 *  Source: the constants of Wan's vae.py and vae2_2.py. */
gboolean dp_published_latents (DpVaeConfig *config);

/** The repository of the published model that a path looks like by its last name, in upper or lower case:
 *  "models/Wan2.1-T2V-1.3B"; NULL if it looks like none. */
const char *dp_published_like (const char *path);
