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
    .temporal_upsample = { TRUE, TRUE, FALSE }, .patch = 1, .out_channels = 3, .spatial_scale = 8, .temporal_scale = 4,
    .mean = {
      -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921 },
    .std = {
      2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160 } },
  .fps = 16,
  .flow_shift = 3,
  .sizes = { { 832, 480 }, { 480, 832 }, { 1280, 720 }, { 720, 1280 } },
};
static const Family wan_5b = {
  .channels = 48,
  .vae = { .z_dim = 48, .base_dim = 256, .encoder_base_dim = 160, .levels = 4, .dim_mult = { 1, 2, 4, 4 }, .res_blocks = 2,
    .temporal_upsample = { TRUE, TRUE, FALSE }, .residual = TRUE, .patch = 2, .out_channels = 12, .spatial_scale = 16, .temporal_scale = 4,
    .mean = {
      -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
      -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
      -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667 },
    .std = {
      0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
      0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
      0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744 } },
  .fps = 24,
  .expand_timesteps = TRUE,
  .flow_shift = 5,
  .sizes = { { 1280, 704 }, { 704, 1280 } },
};

/* Of all of them. Source: Wan2.1, wan/configs/shared_config.py */
static const char negative_prompt[] = "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，"
    "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走";

/* name: the family, -, the size. What is not here is the same in all of them. Sources: Wan2.1, generate.py; Wan2.2, wan/configs */
static const struct
{
  const char *name, *repository;
  const Family *family;
  int layers, heads, ffn, experts;
  double boundary_ratio;
  int steps;                    /* this, guidance and shift: the defaults of Wan's own code */
  double guidance, guidance_2;
  double shift;
  int sizes;                    /* how many of the family's it was trained for */
} models[] = {
  { "wan2.1-1.3b", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", &wan, 30, 12, 8960, 1, -1, 50, 5, 0, 5, 2 },
  { "wan2.1-14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers", &wan, 40, 40, 13824, 1, -1, 50, 5, 0, 5, 4 },
  { "wan2.2-a14b", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", &wan, 40, 40, 13824, 2, 0.875, 40, 4, 3, 12, 4 },
  { "wan2.2-5b", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", &wan_5b, 30, 24, 14336, 1, -1, 50, 5, 0, 5, 2 },
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

/* The index of the model that has these dimensions; the number of models if none has. */
static gsize
find (const DpModelConfig *config)
{
  const DpDitConfig *dit = &config->dit;
  gsize i = 0;

  while (i < G_N_ELEMENTS (models) && (dit->layers != models[i].layers || dit->heads != models[i].heads || dit->head_dim != 128
          || dit->ffn != models[i].ffn || dit->in_channels != models[i].family->channels || config->experts != models[i].experts))
    i++;
  return i;
}

void
dp_published_defaults (DpModelConfig *config)
{
  gsize i = find (config);
  DpDefaults *d = &config->defaults;

  if (i == G_N_ELEMENTS (models))
    return;
  const Family *family = models[i].family;
  memcpy (d->trained, family->sizes, models[i].sizes * sizeof *family->sizes);
  d->n_trained = models[i].sizes;
  d->width = family->sizes[0].width;
  d->height = family->sizes[0].height;
  d->fps_n = family->fps;
  d->steps = models[i].steps;
  d->guidance_scale = models[i].guidance;
  d->guidance_scale_2 = models[i].guidance_2;
  g_strlcpy (d->negative_prompt, negative_prompt, sizeof d->negative_prompt);
}

double
dp_published_shift (const DpModelConfig *config)
{
  gsize i = find (config);

  return i < G_N_ELEMENTS (models) ? models[i].shift : 5;
}

gboolean
dp_published_latents (DpVaeConfig *config)
{
  static const Family *const families[] = { &wan, &wan_5b };

  for (gsize i = 0; i < G_N_ELEMENTS (families); i++)
    if (families[i]->vae.z_dim == config->z_dim) {
      memcpy (config->mean, families[i]->vae.mean, sizeof config->mean);
      memcpy (config->std, families[i]->vae.std, sizeof config->std);
      return TRUE;
    }
  return FALSE;
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
