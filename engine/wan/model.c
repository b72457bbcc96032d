/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model.h"
#include "error.h"
#include "found.h"
#include "lora.h"
#include "names.h"
#include "published.h"
#include "shapes.h"
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

/* ---- where its parts are ---- */

/* The path of what dp_found_name() finds. */
static char *
find_file (const char *dir, const char *prefix, const char *suffix)
{
  g_autofree char *name = dp_found_name (dir, prefix, suffix);

  return name ? g_build_filename (dir, name, NULL) : NULL;
}

/* Wan's own repositories have the transformer beside the rest, or two of them in folders. */
static gboolean
is_original (const char *dir)
{
  g_autofree char *weights = find_file (dir, "diffusion_pytorch_model", ".safetensors");

  return weights || (dp_found_has (dir, "high_noise_model") && dp_found_has (dir, "low_noise_model"));
}

static void
find_original (DpModel *model, const char *dir)
{
  if (dp_found_has (dir, "high_noise_model")) {
    model->paths[DP_MODEL_TRANSFORMER] = g_build_filename (dir, "high_noise_model", NULL);
    model->paths[DP_MODEL_TRANSFORMER_2] = g_build_filename (dir, "low_noise_model", NULL);
  } else {
    model->paths[DP_MODEL_TRANSFORMER] = g_strdup (dir);
  }
  model->paths[DP_MODEL_VAE] = find_file (dir, "Wan2.", "_VAE.pth");
  model->paths[DP_MODEL_TEXT_ENCODER] = find_file (dir, "models_t5_umt5-xxl", ".pth");
  if (dp_found_has (dir, "google"))
    model->paths[DP_MODEL_TOKENIZER] = g_build_filename (dir, "google", "umt5-xxl", NULL);
}

static gboolean
take_files (DpModel *model, DpModelFiles files, GError **error)
{
  static const char *const settings[] = { "transformer", "transformer-2", "vae", "text-encoder-file", "tokenizer" };

  for (int i = 0; files && i < DP_MODEL_PARTS; i++) {
    DpFound found = files[i] ? dp_found_at (files[i], error) : DP_FOUND_SOMETHING;

    if (found == DP_FOUND_NOTHING)
      dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: no such file or directory, which %s names", files[i], settings[i]);
    if (found != DP_FOUND_SOMETHING)
      return FALSE;
    if (files[i]) {
      g_free (model->paths[i]);
      model->paths[i] = g_strdup (files[i]);
    }
  }
  return TRUE;
}

/* ---- what they are, where no config file says it ---- */

static DpWeights *
open_part (const DpModel *model, DpModelPart part, GError **error)
{
  static const DpNetwork networks[] = {
    [DP_MODEL_TRANSFORMER] = DP_NETWORK_TRANSFORMER, [DP_MODEL_TRANSFORMER_2] = DP_NETWORK_TRANSFORMER, [DP_MODEL_VAE] = DP_NETWORK_VAE,
    [DP_MODEL_TEXT_ENCODER] = DP_NETWORK_TEXT_ENCODER,
  };
  const char *path = model->paths[part], *instead;
  gboolean is_file = g_file_test (path, G_FILE_TEST_IS_REGULAR);
  g_autoptr (DpWeights) weights = dp_weights_open (path, is_file ? NULL : parts[part].stem, error);

  if (weights == NULL || !dp_names_apply (weights, networks[part], error))
    return NULL;
  if ((instead = dp_names_recognise (weights, networks[part]))) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected the weights of the %s of a Wan text-to-video model, found %s",
        dp_weights_path (weights), part == DP_MODEL_VAE ? "VAE" : part == DP_MODEL_TEXT_ENCODER ? "text encoder" : "transformer", instead);
    return NULL;
  }
  return g_steal_pointer (&weights);
}

static gboolean
check_found (const DpModel *model, GError **error)
{
  static const struct { DpModelPart part; const char *what, *setting; } needed[] = {
    { DP_MODEL_VAE, "VAE", "vae" }, { DP_MODEL_TEXT_ENCODER, "text encoder", "text-encoder-file" },
    { DP_MODEL_TOKENIZER, "tokenizer", "tokenizer" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (needed); i++)
    if (model->paths[needed[i].part] == NULL) {
      dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: it has a transformer and no %s; name its file or directory with %s", model->dir,
          needed[i].what, needed[i].setting);
      return FALSE;
    }
  return TRUE;
}

/* From the shapes of tensors. A VAE in a directory of its own may have a config file. */
static gboolean
look_at_shapes (DpModel *model, GError **error)
{
  g_autoptr (DpWeights) transformer = NULL, text = NULL, decoder = NULL;
  DpModelConfig *c = &model->config;
  const char *vae = model->paths[DP_MODEL_VAE];
  g_autofree char *base = NULL, *beside = NULL;
  DpDitConfig dit;
  DpVaeConfig latents;
  DpTextConfig encoder;
  int heads;

  beside = g_file_test (model->paths[DP_MODEL_TRANSFORMER], G_FILE_TEST_IS_DIR) ? g_strdup (model->paths[DP_MODEL_TRANSFORMER])
      : g_path_get_dirname (model->paths[DP_MODEL_TRANSFORMER]);
  if (!(transformer = open_part (model, DP_MODEL_TRANSFORMER, error)) || !check_found (model, error)
      || !dp_model_config_read_heads (beside, &heads, error) || !dp_shapes_transformer (&dit, transformer, heads, error)
      || !(text = open_part (model, DP_MODEL_TEXT_ENCODER, error)) || !dp_shapes_text_encoder (&encoder, text, error))
    return FALSE;
  if (dp_found_has (vae, "config.json") ? !dp_model_config_read_vae (&latents, vae, error)
      : !(decoder = open_part (model, DP_MODEL_VAE, error)) || !dp_shapes_vae (&latents, decoder, error))
    return FALSE;
  dp_published_config (model->paths[DP_MODEL_TRANSFORMER_2] ? "wan2.2-a14b" : latents.z_dim == 48 ? "wan2.2-5b" : "wan2.1-1.3b", c);
  c->dit = dit;
  c->vae = latents;
  c->text = encoder;
  c->scheduler.flow_shift = dp_published_shift (c);
  base = g_path_get_basename (model->dir);
  dp_model_config_defaults (c, base);
  return dp_model_config_check (c, model->dir, error);
}

/* ---- an opened model ---- */

DpModel *
dp_model_open (const char *dir, DpModelFiles files, GError **error)
{
  g_autoptr (DpModel) model = g_atomic_rc_box_new0 (DpModel);

  if (dir == NULL && (dir = dp_model_embedded ()) == NULL) {
    dp_error_set (error, DP_ERROR_NOT_FOUND, "the embedded model is not in %s; install it, or name a model directory",
        dp_locate_in_build_tree () ? DP_EMBEDDED_SOURCE_DIR : DP_EMBEDDED_INSTALL_DIR);
    return NULL;
  }
  model->dir = g_strdup (dir);
  model->by_shapes = TRUE;
  if (g_file_test (dir, G_FILE_TEST_IS_REGULAR) && dp_weights_are_in (dir))
    model->paths[DP_MODEL_TRANSFORMER] = g_strdup (dir);
  else if (!is_model (dir) && is_original (dir))
    find_original (model, dir);
  else
    model->by_shapes = FALSE;
  if (model->by_shapes) {
    if (!take_files (model, files, error) || !look_at_shapes (model, error))
      return NULL;
  } else {
    if (dp_found_at (dir, NULL) == DP_FOUND_NOTHING && (model->repository = dp_published_config (dir, &model->config)))
      dp_model_config_defaults (&model->config, dir);
    else if (!dp_model_config_read (&model->config, dir, error))
      return NULL;
    for (int i = 0; i < DP_MODEL_PARTS; i++)
      model->paths[i] = g_build_filename (dir, parts[i].name, NULL);
    if (!take_files (model, files, error))
      return NULL;
    if (files && files[DP_MODEL_TRANSFORMER_2] && model->config.experts == 1) {
      dp_error_set (error, DP_ERROR_SETTINGS, "transformer-2 is %s, but this model has one transformer; leave it out, or name a model that "
          "has two", files[DP_MODEL_TRANSFORMER_2]);
      return NULL;
    }
  }
  model->latent_channels = model->config.vae.z_dim;
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
  g_free (model->lora);
  for (int i = 0; i < DP_MODEL_PARTS; i++)
    g_free (model->paths[i]);
}

void
dp_model_unref (DpModel *model)
{
  if (model)
    g_atomic_rc_box_release_full (model, clear);
}

char *
dp_model_untrained (const DpModel *model, DpSize made, DpSize shown)
{
  const DpDefaults *d = &model->config.defaults;
  GString *sentence;

  for (int i = 0; i < d->n_trained; i++)
    if (d->trained[i].width == made.width && d->trained[i].height == made.height)
      return NULL;
  if (d->n_trained == 0)
    return NULL;
  sentence = g_string_new (NULL);
  g_string_printf (sentence, "%s was not trained for %dx%d, so the video may look wrong; it was trained for ", d->name, shown.width,
      shown.height);
  for (int i = 0; i < d->n_trained; i++)
    g_string_append_printf (sentence, "%s%dx%d", i == 0 ? "" : i < d->n_trained - 1 ? ", " : " and ", d->trained[i].width,
        d->trained[i].height);
  return g_string_free (sentence, FALSE);
}

const char *
dp_model_part_name (DpModelPart part)
{
  return parts[part].name;
}

gboolean
dp_model_has_files (const DpModel *model, GError **error)
{
  if (model->repository)
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: only the sizes of this model are known here, for `dualparal inspect` and `dualparal "
        "plan`; to run it, download it with `hf download %s --local-dir DIR`, then name DIR", model->dir, model->repository);
  return model->repository == NULL;
}

/* Fewer layers than the weights have give a picture, but a wrong one: nobody asks for the tensors of the others. */
static gboolean
check_layers (const DpModel *model, DpModelPart part, const DpWeights *weights, GError **error)
{
  const DpModelConfig *c = &model->config;
  g_autofree char *name = NULL;
  const char *key = "num_layers";
  int layers = part == DP_MODEL_TEXT_ENCODER ? c->text.layers : part == DP_MODEL_VAE ? c->vae.levels : c->dit.layers;

  if (part == DP_MODEL_TEXT_ENCODER) {
    name = g_strdup_printf ("encoder.block.%d.layer.0.layer_norm.weight", layers);
  } else if (part == DP_MODEL_VAE) {
    name = g_strdup_printf ("decoder.up_blocks.%d.resnets.0.norm1.gamma", layers);
    key = "dim_mult";
  } else {
    name = g_strdup_printf ("blocks.%d.scale_shift_table", layers);
  }
  if (dp_weights_find (weights, name) == NULL)
    return TRUE;
  dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected none, as %s of %s/%s/config.json gives %d layers, found it: the config "
      "file is not that of these weights", dp_weights_path (weights), dp_weights_stored_name (weights, name), key, model->dir,
      parts[part].name, layers);
  return FALSE;
}

/* Names of tensors: # is a number, @ is weight or bias, * is anything, to the end. What is in a file and not read would change the picture
 * that its authors saw: zero points of quantised weights, LoRA, the layers of VACE or of an image encoder. */
static const char *const text_names[] = {
  "shared.weight", "encoder.embed_tokens.weight", "encoder.final_layer_norm.weight", "encoder.block.#.layer.0.SelfAttention.q.weight",
  "encoder.block.#.layer.0.SelfAttention.k.weight", "encoder.block.#.layer.0.SelfAttention.v.weight",
  "encoder.block.#.layer.0.SelfAttention.o.weight", "encoder.block.#.layer.0.SelfAttention.relative_attention_bias.weight",
  "encoder.block.#.layer.#.layer_norm.weight", "encoder.block.#.layer.1.DenseReluDense.wi_0.weight",
  "encoder.block.#.layer.1.DenseReluDense.wi_1.weight", "encoder.block.#.layer.1.DenseReluDense.wo.weight",
  "decoder.*", "lm_head.*",     /* of a whole UMT5 */
  "spiece_model", NULL          /* its tokenizer, which ComfyUI keeps there */
};
static const char *const transformer_names[] = {
  "patch_embedding.@", "condition_embedder.time_embedder.linear_#.@", "condition_embedder.time_proj.@",
  "condition_embedder.text_embedder.linear_#.@", "blocks.#.scale_shift_table", "blocks.#.attn#.to_q.@", "blocks.#.attn#.to_k.@",
  "blocks.#.attn#.to_v.@", "blocks.#.attn#.to_out.0.@", "blocks.#.attn#.norm_q.weight", "blocks.#.attn#.norm_k.weight", "blocks.#.norm2.@",
  "blocks.#.ffn.net.0.proj.@", "blocks.#.ffn.net.2.@", "scale_shift_table", "proj_out.@", NULL
};
static const char *const vae_names[] = {
  "encoder.*", "quant_conv.@",          /* which make latents of a video */
  "post_quant_conv.@", "decoder.conv_in.@", "decoder.conv_out.@", "decoder.norm_out.gamma", "decoder.mid_block.attentions.0.norm.gamma",
  "decoder.mid_block.attentions.0.to_qkv.@", "decoder.mid_block.attentions.0.proj.@", "decoder.mid_block.resnets.#.norm#.gamma",
  "decoder.mid_block.resnets.#.conv#.@", "decoder.up_blocks.#.resnets.#.norm#.gamma", "decoder.up_blocks.#.resnets.#.conv#.@",
  "decoder.up_blocks.#.resnets.#.conv_shortcut.@", "decoder.up_blocks.#.upsamplers.0.time_conv.@",
  "decoder.up_blocks.#.upsamplers.0.resample.1.@", "decoder.up_blocks.#.upsampler.time_conv.@", "decoder.up_blocks.#.upsampler.resample.1.@",
  NULL
};

static gboolean
matches (const char *name, const char *pattern)
{
  for (; *pattern && *pattern != '*'; pattern++) {
    if (*pattern == '#') {
      if (!g_ascii_isdigit (*name))
        return FALSE;
      while (g_ascii_isdigit (*name))
        name++;
    } else if (*pattern == '@') {
      const char *word = *name == 'w' ? "weight" : "bias";

      if (!g_str_has_prefix (name, word))
        return FALSE;
      name += strlen (word);
    } else if (*name++ != *pattern) {
      return FALSE;
    }
  }
  return *pattern == '*' || *name == 0;
}

static gboolean
is_known (const char *name, gpointer patterns)
{
  for (const char *const *p = patterns; *p; p++)
    if (matches (name, *p))
      return TRUE;
  return FALSE;
}

static gboolean
check_names (DpModelPart part, const DpWeights *weights, GError **error)
{
  const char *const *names = part == DP_MODEL_TEXT_ENCODER ? text_names : part == DP_MODEL_VAE ? vae_names : transformer_names;
  const char *left = dp_weights_find_unknown (weights, is_known, (gpointer) names);

  if (left == NULL)
    return TRUE;
  dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected none of this name in a Wan2.1 text-to-video model, found it: LoRA, VACE, "
      "image-to-video and quantised weights other than scaled fp8 and GGUF are not supported", dp_weights_path (weights),
      dp_weights_stored_name (weights, left));
  return FALSE;
}

DpWeights *
dp_model_weights (const DpModel *model, DpModelPart part, GError **error)
{
  g_assert (parts[part].stem);
  if (!dp_model_has_files (model, error))
    return NULL;
  g_autoptr (DpWeights) weights = open_part (model, part, error);
  if (weights == NULL || !check_layers (model, part, weights, error) || !check_names (part, weights, error)
      || (part == DP_MODEL_TRANSFORMER && model->lora && !dp_lora_apply (weights, model->lora, error)))
    return NULL;
  return g_steal_pointer (&weights);
}
