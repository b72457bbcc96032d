/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The two parts that cost time, alone: one pass through all layers, and the decoding of as many latents as a block owns.
 * Prints one line of JSON with the median of n runs in milliseconds; compare_diffusers.py sets it beside the same work in PyTorch.
 *
 *   bench_parts                                          a DualParal pass of the embedded model as it plays by default
 *   bench_parts --device cuda:0 --model DIR --block 21 --context 0 --batch 1     a plain forward over 81 frames
 */
#include "arena.h"
#include "config.h"
#include "dit.h"
#include "dualparal.h"
#include "noise.h"
#include "vae.h"
#include "weights.h"

#include <stdio.h>
#include <string.h>

static int threads, runs = 15, block, context = -1, batch = 2, width, height;
static char *precision, *model, *device;

static const GOptionEntry options[] = {
  { "threads", 0, 0, G_OPTION_ARG_INT, &threads, "Host threads (default: all)", "N" },
  { "precision", 0, 0, G_OPTION_ARG_STRING, &precision, "float32 or bfloat16 (default)", "NAME" },
  { "device", 0, 0, G_OPTION_ARG_STRING, &device, "Where to run (default: cpu)", "NAME" },
  { "block", 0, 0, G_OPTION_ARG_INT, &block, "Latents of a block (default: the model's)", "B" },
  { "context", 0, 0, G_OPTION_ARG_INT, &context, "Context latents, in front and behind (default: the model's)", "C" },
  { "batch", 0, 0, G_OPTION_ARG_INT, &batch, "2 with guidance (default), 1 without", "S" },
  { "width", 0, 0, G_OPTION_ARG_INT, &width, "Pixels (default: the model's)", "W" },
  { "height", 0, 0, G_OPTION_ARG_INT, &height, "Pixels (default: the model's)", "H" },
  { "runs", 0, 0, G_OPTION_ARG_INT, &runs, "How many runs to take the median of", "N" },
  { "model", 0, 0, G_OPTION_ARG_FILENAME, &model, "Model directory (default: the embedded one)", "DIR" },
  { NULL }
};

static int
compare (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;

  return (x > y) - (x < y);
}

/* Median of `runs` after two to warm up, in ms. */
static double
median_ms (void (*run) (gpointer), gpointer data)
{
  g_autofree double *ms = g_new (double, runs);

  for (int i = -2; i < runs; i++) {
    gint64 start = g_get_monotonic_time ();

    run (data);
    if (i >= 0)
      ms[i] = (g_get_monotonic_time () - start) / 1e3;
  }
  qsort (ms, runs, sizeof *ms, compare);
  return ms[runs / 2];
}

typedef struct
{
  DpDevice *dev;
  DpModelConfig config;
  DpType type;
  int h, w, B, C;
  DpDit *dit;
  DpDitText *text;
  DpDitCache *caches[2];
  DpVae *vae;
  float *latents, *tokens, *velocity;
} Bench;

/* Noise as input: what the numbers are does not change the time. */
static void
run_pass (gpointer data)
{
  Bench *b = data;

  dp_dit_embed (b->dit, b->C + b->B, b->latents, b->tokens);
  dp_dit_run (b->dit, &(DpDitPass) { .frames = b->C + b->B, .step = 0, .text = b->text, .tokens = b->tokens,
      .cache_in = b->C ? b->caches[0] : NULL, .cache_in_frames = b->C, .cache_out = b->C ? b->caches[1] : NULL, .cache_out_first = b->C, .cache_out_frames = b->C });
  dp_dit_head (b->dit, b->C + b->B, b->C, 0, b->tokens, b->velocity);
  b->dev->ops->sync (b->dev);
}

static void
run_decode (gpointer data)
{
  Bench *b = data;
  const void *frames;

  for (int i = 0; i < b->B; i++)
    dp_vae_decode (b->vae, b->latents + (gsize) i * b->h * b->w * b->config.vae.z_dim, &frames);
  b->dev->ops->sync (b->dev);
}

static gboolean
open_bench (Bench *b, const char *dir, GError **error)
{
  g_autofree char *transformer = g_build_filename (dir, "transformer", NULL), *vae = g_build_filename (dir, "vae", NULL);
  g_autoptr (DpWeights) dit_weights = dp_weights_open (transformer, "diffusion_pytorch_model", error);
  g_autoptr (DpWeights) vae_weights = dit_weights ? dp_weights_open (vae, "diffusion_pytorch_model", error) : NULL;
  const int text_tokens[2] = { 12, 1 };

  if (vae_weights == NULL)
    return FALSE;
  b->dit = dp_dit_new (b->dev, &b->config.dit, dit_weights, &(DpDitSpec) { .first = 0, .last = b->config.dit.layers, .type = b->type, .latent_h = b->h,
      .latent_w = b->w, .max_input = b->B + b->C, .max_cached = b->C, .batch = batch, .steps = 1, .timesteps = (const float[]) { 750 } }, error);
  b->vae = b->dit ? dp_vae_new (b->dev, &b->config.vae, vae_weights, b->type, b->h, b->w, error) : NULL;
  if (b->vae == NULL)
    return FALSE;
  g_autofree float *embeds = g_new (float, (gsize) text_tokens[0] * b->config.dit.text_dim);
  dp_noise_fill (1, 0, 0, (gsize) text_tokens[0] * b->config.dit.text_dim, embeds);
  b->text = dp_dit_text_new (b->dit, (const float *[]) { embeds, embeds }, text_tokens, 512, error);
  for (int i = 0; i < 2 && b->C > 0; i++)
    b->caches[i] = dp_dit_cache_new (b->dit, error);
  return b->text && (b->C == 0 || (b->caches[0] && b->caches[1]));
}

static void
fill_inputs (Bench *b)
{
  const DpOps *ops = b->dev->ops;
  gsize n = (gsize) (b->B + b->C) * b->h * b->w * b->config.vae.z_dim;
  gsize D = b->config.dit.heads * b->config.dit.head_dim, rows = (gsize) (b->B + b->C) * dp_dit_tokens_per_frame (b->dit);
  g_autofree float *noise = g_new (float, n);

  b->latents = ops->alloc (b->dev, n * sizeof (float));
  b->velocity = ops->alloc (b->dev, 2 * n * sizeof (float));
  b->tokens = ops->alloc (b->dev, 2 * rows * D * sizeof (float));
  dp_noise_fill (2, 0, 0, n, noise);
  ops->upload (b->dev, b->latents, noise, n * sizeof (float));
  /* the first pass leaves its keys for those that are timed */
  dp_dit_embed (b->dit, b->B, b->latents, b->tokens);
  if (b->C > 0)
    dp_dit_run (b->dit, &(DpDitPass) { .frames = b->B, .text = b->text, .tokens = b->tokens, .cache_out = b->caches[0], .cache_out_frames = b->C });
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) parser = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;
  g_autofree Bench *b = g_new0 (Bench, 1);
  char message[256];

  g_option_context_add_main_entries (parser, options, NULL);
  if (!g_option_context_parse (parser, &argc, &argv, &error))
    goto fail;
  const char *dir = model ? model : dp_embedded_model ();
  if (dir == NULL || !dp_model_config_read (&b->config, dir, &error))
    goto fail;
  b->dev = dp_device_open (device ? device : "cpu", threads, message, sizeof message);
  if (b->dev == NULL) {
    fprintf (stderr, "bench_parts: %s\n", message);
    return 1;
  }
  b->type = g_strcmp0 (precision, "float32") == 0 ? DP_TYPE_F32 : DP_TYPE_BF16;
  b->h = (height ? height : b->config.defaults.height) / b->config.vae.spatial_scale;
  b->w = (width ? width : b->config.defaults.width) / b->config.vae.spatial_scale;
  b->B = block ? block : b->config.defaults.block_latents;
  b->C = context >= 0 ? context : b->config.defaults.context_latents;
  if (!open_bench (b, dir, &error))
    goto fail;
  fill_inputs (b);
  double pass = median_ms (run_pass, b), decode = median_ms (run_decode, b);
  printf ("{\"device\": \"%s\", \"precision\": \"%s\", \"threads\": %d, \"width\": %d, \"height\": %d, \"batch\": %d, \"block\": %d, \"context\": %d, "
      "\"pass_ms\": %.2f, \"decode_ms\": %.2f, \"device_mib\": %.0f}\n",
      b->dev->name, b->type == DP_TYPE_F32 ? "float32" : "bfloat16", b->dev->threads, b->w * b->config.vae.spatial_scale,
      b->h * b->config.vae.spatial_scale, batch, b->B, b->C, pass, decode, b->dev->bytes / 1048576.0);
  if (!dp_device_check (b->dev, message, sizeof message)) {
    fprintf (stderr, "bench_parts: %s\n", message);
    return 1;
  }
  const DpOps *ops = b->dev->ops;
  ops->free (b->dev, b->latents);
  ops->free (b->dev, b->velocity);
  ops->free (b->dev, b->tokens);
  dp_dit_cache_free (b->dit, b->caches[0]);
  dp_dit_cache_free (b->dit, b->caches[1]);
  dp_dit_text_free (b->dit, b->text);
  dp_dit_free (b->dit);
  dp_vae_free (b->vae);
  dp_device_close (b->dev);
  return 0;

fail:
  fprintf (stderr, "bench_parts: %s\n", error ? error->message : "no embedded model here");
  return 1;
}
