/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * names.h: what tensors are called. The loaders know diffusers' names. Wan's own repositories, and files that were made from
 * them, have others, often behind a prefix; GGUF files of the text encoder have llama.cpp's.
 */
#pragma once

#include <glib.h>
#include "weights.h"

typedef enum
{
  DP_NETWORK_TRANSFORMER,
  DP_NETWORK_VAE,
  DP_NETWORK_TEXT_ENCODER,
} DpNetwork;

/** Gives the tensors of a network diffusers' names. Whether a file has those already, and behind which prefix, is told by a tensor that
 *  every such network has; without it nothing is changed. What is not in the tables keeps its name, without the prefix. Twice is as
 *  once. Errors: DP_ERROR_BAD_MODEL (two tensors would have one name). */
gboolean dp_names_apply (DpWeights *weights, DpNetwork network, GError **error);

/** Diffusers' name of a transformer's module, which a LoRA calls `module`: behind any of the usual prefixes, by either library's name, or
 *  with underscores for dots. What is not known stays, without the prefix. New string. */
char *dp_names_module (const char *module);

/** What a file that was given as `network` is instead, by its tensors, and what to do: "those of a VAE; give them as vae". NULL if
 *  it is that network of a text-to-video model. */
const char *dp_names_recognise (const DpWeights *weights, DpNetwork network);
