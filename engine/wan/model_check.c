/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model_check.h"
#include "dit.h"
#include "text_encoder.h"
#include "tokenizer.h"
#include "vae.h"

#include <string.h>

/* ---- a device that keeps and computes nothing ---- */

/* What it hands out is not NULL, and nobody looks into it. */
static _Alignas (64) char nothing[64];

static void *
alloc_nothing (DpDevice *dev, size_t bytes)
{
  return nothing;
}

static void
free_nothing (DpDevice *dev, void *ptr)
{
}

static void
upload_nothing (DpDevice *dev, void *dst, const void *host, size_t bytes)
{
}

static void
download_nothing (DpDevice *dev, void *host, const void *src, size_t bytes)
{
  memset (host, 0, bytes);
}

static void
copy_nothing (DpDevice *dev, void *dst, const void *src, size_t bytes)
{
}

static void
fill_nothing (DpDevice *dev, void *dst, int byte, size_t bytes)
{
}

static void
sync_nothing (DpDevice *dev)
{
}

static DpLinear *
linear_new_nothing (DpDevice *dev, const DpLinearSpec *spec)
{
  return (DpLinear *) nothing;
}

static void
linear_free_nothing (DpDevice *dev, DpLinear *linear)
{
}

static void
linear_nothing (DpDevice *dev, const DpLinear *linear, const DpLinearArgs *args)
{
}

static DpConv *
conv_new_nothing (DpDevice *dev, const DpConvSpec *spec)
{
  return (DpConv *) nothing;
}

static void
conv_free_nothing (DpDevice *dev, DpConv *conv)
{
}

/* What loading calls; nothing runs here. */
static const DpOps ops_nothing = {
  .name = "nothing", .alloc = alloc_nothing, .free = free_nothing, .host_alloc = alloc_nothing, .host_free = free_nothing,
  .upload = upload_nothing, .download = download_nothing, .copy = copy_nothing, .fill = fill_nothing, .sync = sync_nothing,
  .linear_new = linear_new_nothing, .linear_free = linear_free_nothing, .linear = linear_nothing,
  .conv_new = conv_new_nothing, .conv_free = conv_free_nothing,
};

/* ---- the parts ---- */

static gboolean
check_text (const DpModel *model, DpDevice *dev, GError **error)
{
  const DpTextConfig *config = &model->config.text;
  DpTokenizer *tokenizer = dp_tokenizer_open (model->paths[DP_MODEL_TOKENIZER], config->vocab, error);
  g_autoptr (DpWeights) weights = tokenizer ? dp_model_weights (model, DP_MODEL_TEXT_ENCODER, error) : NULL;
  DpTextEncoder *encoder = weights ? dp_text_encoder_new (dev, config, weights, DP_TYPE_F32, 1, FALSE, error) : NULL;
  gboolean ok = encoder != NULL;

  dp_text_encoder_free (encoder);
  dp_tokenizer_free (tokenizer);
  return ok;
}

static gboolean
check_transformer (const DpModel *model, int expert, DpDevice *dev, int max_keys, int latent_h, int latent_w, GError **error)
{
  const DpDitConfig *config = &model->config.dit;
  const float timesteps[1] = { 0 };
  g_autoptr (DpWeights) weights = dp_model_weights (model, DP_MODEL_TRANSFORMER + expert, error);
  DpDit *dit = weights ? dp_dit_new (dev, config, weights, &(DpDitSpec) {
      .halves = dp_halves_of_layers (0, config->layers), .type = DP_TYPE_F32,
      .latent_h = latent_h, .latent_w = latent_w, .max_input = 1, .max_keys = max_keys, .steps = 1, .timesteps = timesteps }, error) : NULL;
  gboolean ok = dit != NULL;

  dp_dit_free (dit);
  return ok;
}

static gboolean
check_decoder (const DpModel *model, DpDevice *dev, GError **error)
{
  g_autoptr (DpWeights) weights = dp_model_weights (model, DP_MODEL_VAE, error);
  DpVae *vae = weights ? dp_vae_new (dev, &model->config.vae, weights, DP_TYPE_F32, 2, 2, 1, error) : NULL;
  gboolean ok = vae != NULL;

  dp_vae_free (vae);
  return ok;
}

gboolean
dp_model_check (const DpModel *model, int max_keys, int latent_h, int latent_w, GError **error)
{
  const int cancelled = 1;      /* for what loading computes itself: tables of all positions */
  DpDevice dev = { .ops = &ops_nothing, .name = "nothing", .threads = 1, .host_memory = true, .latents_at_once = 1, .cancel = &cancelled };

  if (!check_text (model, &dev, error))
    return FALSE;
  for (int i = 0; i < model->config.experts; i++)
    if (!check_transformer (model, i, &dev, max_keys, latent_h, latent_w, error))
      return FALSE;
  return check_decoder (model, &dev, error);
}
