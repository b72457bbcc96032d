/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * model_config.h: the json files of a model directory, as plain structs.
 *
 * Every size the engine uses comes from here. Each value is range-checked on reading, so its users may trust it
 * (products of sizes do not overflow, nothing is zero or negative). What the files ask for and the engine does not do is
 * refused by name, never ignored.
 */
#pragma once

#include <glib.h>
#include "limits.h"

/** text_encoder/config.json (UMT5EncoderModel) */
typedef struct
{
  int layers, d_model, d_ff, d_kv, heads, vocab;
  int buckets, max_distance;    /* relative attention bias */
  float eps;
} DpTextConfig;

/** transformer/config.json (WanTransformer3DModel); a transformer_2/config.json says the same */
typedef struct
{
  int layers, heads, head_dim, ffn;
  int in_channels, out_channels;
  int text_dim, freq_dim;
  int rope_max;                 /* positions per axis */
  gboolean cross_attn_norm;
  float eps;
} DpDitConfig;

#define DP_VAE_MAX_LEVELS 8
#define DP_VAE_MAX_CHANNELS 128

/** vae/config.json (AutoencoderKLWan) */
typedef struct
{
  int z_dim, base_dim;          /* base_dim: the decoder's (decoder_base_dim where given) */
  int encoder_base_dim;
  int levels;                   /* entries of dim_mult */
  int dim_mult[DP_VAE_MAX_LEVELS];
  int res_blocks;
  gboolean temporal_upsample[DP_VAE_MAX_LEVELS];        /* temperal_downsample reversed: of the decoder's up blocks */
  gboolean residual;            /* an up block that has an upsampler adds its own input, shuffled to the size of its output (Wan2.2-TI2V-5B) */
  int patch;                    /* 1; or 2: the last convolution makes the channels of 2 x 2 pixels */
  int out_channels;             /* 3 patch^2 */
  float mean[DP_VAE_MAX_CHANNELS], std[DP_VAE_MAX_CHANNELS];
  int spatial_scale, temporal_scale;    /* 8, 4: from levels, patch and temporal_upsample */
} DpVaeConfig;

/** scheduler/scheduler_config.json */
typedef struct
{
  char sampler[16];             /* "unipc" or "euler", from _class_name */
  double flow_shift;
  int train_timesteps;          /* 1000 */
  int solver_order;             /* 1 or 2 */
  gboolean bh2;                 /* solver_type bh2, else bh1 */
  gboolean lower_order_final;
} DpSchedulerConfig;

#define DP_MAX_TRAINED 16

typedef struct
{
  int width, height;
} DpSize;

/** dualparal.json: what the model looks best with. Optional file; each key optional. Keys are the names of the settings. */
typedef struct
{
  char name[64];
  char prompt[512], negative_prompt[2048];
  char words[4096], knows[1024];        /* words it was taught, and what they are about for people; "": not said */
  int width, height, fps_n, fps_d;
  DpSize trained[DP_MAX_TRAINED];       /* sizes that it was trained for */
  int n_trained;                /* 0: not said */
  int steps, block_latents, context_latents, queue_blocks;
  double guidance_scale, flow_shift;    /* flow_shift 0: the scheduler's */
  double guidance_scale_2;      /* of the second expert; 0: guidance_scale */
  double guidance_interval_low, guidance_interval_high;         /* noise levels; 0 and 1: all */
  char sampler[16];             /* "": the scheduler's */
  gboolean has_preview;
  float preview[3][DP_VAE_MAX_CHANNELS + 1];    /* preview_map: red, green and blue in 0..1 from z_dim normalised latents, and a constant */
} DpDefaults;

typedef struct
{
  DpTextConfig text;
  int experts;                  /* 1; or 2: transformer/ takes the noisy steps, transformer_2/ the others */
  double boundary_ratio;        /* with 2: a step is noisy from this part of the scheduler's train_timesteps up, 0..1 */
  gboolean expand_timesteps;    /* each token has a timestep: of a frame that is given it is 0 */
  DpDitConfig dit;              /* of each expert */
  DpVaeConfig vae;
  DpSchedulerConfig scheduler;
  DpDefaults defaults;
} DpModelConfig;

/** Sets what a model called `name` has without a dualparal.json, from the rest of its config. */
void dp_model_config_defaults (DpModelConfig *config, const char *name);

/** Reads them all. Errors: DP_ERROR_NOT_FOUND (no directory, no model in it), DP_ERROR_BAD_MODEL (file, key, expected, found). */
gboolean dp_model_config_read (DpModelConfig *config, const char *dir, GError **error);

/** A VAE's own config.json, in its directory. Errors likewise. */
gboolean dp_model_config_read_vae (DpVaeConfig *config, const char *dir, GError **error);

/** num_heads of a config.json as Wan's own repositories have it; 0 where there is no such file or number. */
gboolean dp_model_config_read_heads (const char *dir, int *heads, GError **error);

/** Whether the parts of a model that was put together of single files fit each other. */
gboolean dp_model_config_check (const DpModelConfig *config, const char *model, GError **error);
