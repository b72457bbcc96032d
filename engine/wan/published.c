/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "published.h"

#include <string.h>

/* What the models of a VAE have in common, and what suits them. The first size is the default. */
typedef struct
{
  int channels;                 /* of a latent */
  DpVaeConfig vae;
  int fps;
  gboolean expand_timesteps;
  double flow_shift;
  DpSize sizes[4];              /* that they are trained for. Source: the sizes that the configs of Wan2.1 and Wan2.2 name as supported */
} Family;

static const Family wan = {
  .channels = 16,
  .vae = { .z_dim = 16, .base_dim = 96, .encoder_base_dim = 96, .levels = 4, .dim_mult = { 1, 2, 4, 4 }, .res_blocks = 2,
    .temporal_upsample = { TRUE, TRUE, FALSE }, .patch = 1, .out_channels = 3, .spatial_scale = 8, .temporal_scale = 4 },
  .fps = 16,
  .flow_shift = 3,
  .sizes = { { 832, 480 }, { 480, 832 }, { 1280, 720 }, { 720, 1280 } },
};
static const Family wan_5b = {
  .channels = 48,
  .vae = { .z_dim = 48, .base_dim = 256, .encoder_base_dim = 160, .levels = 4, .dim_mult = { 1, 2, 4, 4 }, .res_blocks = 2,
    .temporal_upsample = { TRUE, TRUE, FALSE }, .residual = TRUE, .patch = 2, .out_channels = 12, .spatial_scale = 16, .temporal_scale = 4 },
  .fps = 24,
  .expand_timesteps = TRUE,
  .flow_shift = 5,
  .sizes = { { 1280, 704 }, { 704, 1280 } },
};

/* name: the family, -, the size. What is not here is the same in all of them. */
static const struct
{
  const char *name, *repository;
  const Family *family;
  int layers, heads, ffn, experts;
  double boundary_ratio;
  int sizes;                    /* how many of the family's it was trained for */
} models[] = {
  { "wan2.1-1.3b", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", &wan, 30, 12, 8960, 1, -1, 2 },
  { "wan2.1-14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers", &wan, 40, 40, 13824, 1, -1, 4 },
  { "wan2.2-a14b", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", &wan, 40, 40, 13824, 2, 0.875, 4 },
  { "wan2.2-5b", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", &wan_5b, 30, 24, 14336, 1, -1, 2 },
};

const char *
dp_published_config (const char *name, DpModelConfig *config)
{
  for (gsize i = 0; i < G_N_ELEMENTS (models); i++)
    if (strcmp (name, models[i].name) == 0) {
      const Family *family = models[i].family;

      *config = (DpModelConfig) {
        .text = { .layers = 24, .d_model = 4096, .d_ff = 10240, .d_kv = 64, .heads = 64, .vocab = 256384, .buckets = 32,
          .max_distance = 128, .eps = 1e-6 },
        .experts = models[i].experts,
        .boundary_ratio = models[i].boundary_ratio,
        .expand_timesteps = family->expand_timesteps,
        .dit = { .layers = models[i].layers, .heads = models[i].heads, .head_dim = 128, .ffn = models[i].ffn,
          .in_channels = family->channels, .out_channels = family->channels, .text_dim = 4096, .freq_dim = 256, .rope_max = 1024,
          .cross_attn_norm = TRUE, .eps = 1e-6 },
        .vae = family->vae,
        .scheduler = { .sampler = "unipc", .flow_shift = family->flow_shift, .train_timesteps = 1000, .solver_order = 2, .bh2 = TRUE,
          .lower_order_final = TRUE },
      };
      return models[i].repository;
    }
  return NULL;
}

void
dp_published_defaults (DpModelConfig *config)
{
  const DpDitConfig *dit = &config->dit;
  DpDefaults *d = &config->defaults;

  for (gsize i = 0; i < G_N_ELEMENTS (models); i++) {
    const Family *family = models[i].family;

    if (dit->layers == models[i].layers && dit->heads == models[i].heads && dit->head_dim == 128 && dit->ffn == models[i].ffn
        && dit->in_channels == family->channels && config->experts == models[i].experts) {
      memcpy (d->trained, family->sizes, models[i].sizes * sizeof *family->sizes);
      d->n_trained = models[i].sizes;
      d->width = family->sizes[0].width;
      d->height = family->sizes[0].height;
      d->fps_n = family->fps;
      return;
    }
  }
}

const char *
dp_published_like (const char *path)
{
  static const char *const others[] = { "i2v", "flf2v", "vace", "s2v" };        /* of the same families */
  g_autofree char *base = g_path_get_basename (path), *name = g_ascii_strdown (base, -1);

  for (gsize i = 0; i < G_N_ELEMENTS (others); i++)
    if (strstr (name, others[i]) && !strstr (name, "ti2v"))     /* which makes video of text, too */
      return NULL;
  for (gsize i = 0; i < G_N_ELEMENTS (models); i++) {
    const char *dash = strchr (models[i].name, '-');
    g_autofree char *family = g_strndup (models[i].name, dash - models[i].name);

    if (strstr (name, family) && strstr (name, dash + 1))
      return models[i].repository;
  }
  return NULL;
}
