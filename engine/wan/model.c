/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model.h"
#include "error.h"
#include "found.h"
#include "kernels/locate.h"

#include <string.h>

static const struct
{
  const char *name, *stem;      /* directory, and what its weight files' names begin with */
} parts[DP_MODEL_PARTS] = {
  [DP_MODEL_TRANSFORMER] = { "transformer", "diffusion_pytorch_model" },
  [DP_MODEL_TRANSFORMER_2] = { "transformer_2", "diffusion_pytorch_model" },
  [DP_MODEL_VAE] = { "vae", "diffusion_pytorch_model" },
  [DP_MODEL_TEXT_ENCODER] = { "text_encoder", "model" },
  [DP_MODEL_TOKENIZER] = { "tokenizer", NULL },
};

/* ---- the embedded model ---- */

static gboolean
is_model (const char *dir)
{
  g_autofree char *index = g_build_filename (dir, "model_index.json", NULL);

  return dp_found_at (index, NULL) != DP_FOUND_NOTHING;  /* what may not be read is told when it is opened */
}

/* The model below one of the directories above this code: the one of the same installation, also
 * where that was moved as a whole. */
static gpointer
look_around (gpointer unused)
{
  char path[DP_LOCATE_PATH], *slash;

  if (!dp_locate_path (path))
    return NULL;
  while ((slash = strrchr (path, '/')) > path) {
    *slash = 0;
    char *model = g_build_filename (path, DP_EMBEDDED_SUBDIR, NULL);
    if (is_model (model))
      return model;
    g_free (model);
  }
  return NULL;
}

const char *
dp_model_embedded (void)
{
  static GOnce around = G_ONCE_INIT;
  const char *candidates[] = { dp_locate_in_build_tree () ? DP_EMBEDDED_SOURCE_DIR : g_once (&around, look_around, NULL),
      DP_EMBEDDED_INSTALL_DIR };

  for (guint i = 0; i < G_N_ELEMENTS (candidates); i++)
    if (candidates[i] && is_model (candidates[i]))
      return candidates[i];
  return NULL;
}

/* ---- an opened model ---- */

DpModel *
dp_model_open (const char *dir, GError **error)
{
  g_autoptr (DpModel) model = g_atomic_rc_box_new0 (DpModel);

  if (dir == NULL && (dir = dp_model_embedded ()) == NULL) {
    g_set_error (error, DP_ERROR, DP_ERROR_NOT_FOUND, "the embedded model is not in %s; install it, or name a model directory",
        dp_locate_in_build_tree () ? DP_EMBEDDED_SOURCE_DIR : DP_EMBEDDED_INSTALL_DIR);
    return NULL;
  }
  if (!dp_model_config_read (&model->config, dir, error))
    return NULL;
  model->dir = g_strdup (dir);
  model->latent_channels = model->config.vae.z_dim;
  for (int i = 0; i < DP_MODEL_PARTS; i++)
    model->paths[i] = g_build_filename (dir, parts[i].name, NULL);
  return g_steal_pointer (&model);
}

DpModel *
dp_model_ref (DpModel *model)
{
  return g_atomic_rc_box_acquire (model);
}

static void
clear (gpointer data)
{
  DpModel *model = data;

  g_free (model->dir);
  for (int i = 0; i < DP_MODEL_PARTS; i++)
    g_free (model->paths[i]);
}

void
dp_model_unref (DpModel *model)
{
  if (model)
    g_atomic_rc_box_release_full (model, clear);
}

const char *
dp_model_part_name (DpModelPart part)
{
  return parts[part].name;
}

DpWeights *
dp_model_weights (const DpModel *model, DpModelPart part, GError **error)
{
  g_assert (parts[part].stem);
  return dp_weights_open (model->paths[part], parts[part].stem, error);
}
