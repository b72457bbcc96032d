/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * model.h: a model directory that was opened: its config files, and where its parts are.
 *
 * Opening reads the config files and nothing else, so it is cheap. A published model (published.h) opens
 * by its name without any files; then only its weights are refused. It is done once; everything that
 * loads a part is handed the DpModel and asks it for the path or the weights. No other module knows
 * what a component's directory or its file is called.
 */
#pragma once

#include <glib.h>
#include "model_config.h"
#include "weights.h"

typedef enum
{
  DP_MODEL_TRANSFORMER,         /* of the first expert, or the only one; of expert i: + i */
  DP_MODEL_TRANSFORMER_2,
  DP_MODEL_VAE,
  DP_MODEL_TEXT_ENCODER,
  DP_MODEL_TOKENIZER,           /* has no weights */
  DP_MODEL_PARTS,
} DpModelPart;

/** Where parts are that are not the model's own: a file, or a directory; NULL: where the model has it. */
typedef const char *DpModelFiles[DP_MODEL_PARTS];

/** Thread-safety: immutable; references may be taken and dropped from any thread. */
typedef struct
{
  char *dir;
  const char *repository;       /* of a published model that was opened by its name: there are no files; else NULL */
  DpModelConfig config;
  int latent_channels;          /* of a latent, as the VAE has it: what is denoised and decoded */
  char *lora;                   /* see dp_lora_apply(); NULL: none */
  gboolean by_shapes;           /* there are no config files: it is what the shapes of its tensors say */
  char *paths[DP_MODEL_PARTS];  /* directories, or files of weights; the tokenizer's may be its spiece.model. NULL: there is no such part */
} DpModel;

/** Opens a model: in `dir`, in diffusers layout or in that of Wan's own repositories; a file with the transformer alone, to which `files` adds
 *  the other parts; NULL is the embedded model. Where nothing is at `dir`, it may be the name of a published model. `files` NULL: no
 *  others. Without config files, what the model is follows from the shapes of its tensors.
 *  Errors: those of dp_model_config_read(), dp_shapes_transformer() and dp_weights_open(). */
DpModel *dp_model_open (const char *dir, DpModelFiles files, GError **error);
DpModel *dp_model_ref (DpModel *model);
void dp_model_unref (DpModel *model);   /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (DpModel, dp_model_unref)

/** The part's directory below the model's, "vae". */
const char *dp_model_part_name (DpModelPart part);

/** FALSE for a model that was opened by its published name, with DP_ERROR_NOT_FOUND, which says what downloads it. */
gboolean dp_model_has_files (const DpModel *model, GError **error);

/** Opens a part's weights. They must not have more layers than the part's config file says.
 *  Errors: those of dp_weights_open(), dp_model_has_files(), DP_ERROR_BAD_MODEL. */
DpWeights *dp_model_weights (const DpModel *model, DpModelPart part, GError **error);

/** One sentence that names the sizes which the model was trained for, if `made` is not one of them; `shown` is what the user calls it. New
 *  string; NULL if it is one, or they are not known. */
char *dp_model_untrained (const DpModel *model, DpSize made, DpSize shown);

/** Directory of the embedded model: in the source tree for code that is run from the build tree,
 *  else the one that was installed with this code. NULL when it is not there. */
const char *dp_model_embedded (void);
