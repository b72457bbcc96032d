/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The parts that cost time, alone: one pass through all layers, the decoding of as many latents as a block owns, and the encoding of a
 * prompt. Prints one line of JSON with the median of n runs in milliseconds; compare_diffusers.py sets it beside the same work in PyTorch.
 *
 *   bench_parts                                          a DualParal pass of the embedded model as it plays by default
 *   bench_parts --device cuda:0 --model DIR --block 21 --context 0 --batch 1     a plain forward over 81 frames
 *
 * With context the block lies in the middle of a stream; without, it is the whole video, and its first latent decodes to one frame.
 *
 * With --input, latents [L, h, w, C], prompt_embeds [n, text_dim] and timestep [1] come from a file (float32), and --output writes what
 * became of them: velocity [L, h, w, C] of the pass, frames [F, H, W, 3] of the decoder. full_size_parity.py compares that with diffusers.
 */
#include "wan/arena.h"
#include "wan/model.h"
#include "wan/dit.h"
#include "dualparal.h"
#include "noise.h"
#include "profile_ops.h"
#include "wan/text_encoder.h"
#include "wan/vae.h"
#include "wan/weights_write.h"
#include "kernels/numeric.h"

#include <stdio.h>
#include <string.h>

static int threads, runs = 15, block, context = -1, batch = 2, width, height, text_tokens = 12;
static char *precision, *model, *device, *parts, *input, *output;
static gboolean profile, streamed;

static const GOptionEntry options[] = {
  { "parts", 0, 0, G_OPTION_ARG_STRING, &parts, "Any of pass, decode and text, comma-separated (default: pass,decode)", "LIST" },
  { "threads", 0, 0, G_OPTION_ARG_INT, &threads, "Host threads (default: all)", "N" },
  { "precision", 0, 0, G_OPTION_ARG_STRING, &precision, "float32, bfloat16 (default) or fp8", "NAME" },
  { "device", 0, 0, G_OPTION_ARG_STRING, &device, "Where to run (default: cpu)", "NAME" },
  { "block", 0, 0, G_OPTION_ARG_INT, &block, "Latents of a block (default: the model's)", "B" },
  { "context", 0, 0, G_OPTION_ARG_INT, &context, "Context latents, in front and behind (default: the model's)", "C" },
  { "batch", 0, 0, G_OPTION_ARG_INT, &batch, "2 with guidance (default), one after the other; 1 without", "S" },
  { "width", 0, 0, G_OPTION_ARG_INT, &width, "Pixels (default: the model's)", "W" },
  { "height", 0, 0, G_OPTION_ARG_INT, &height, "Pixels (default: the model's)", "H" },
  { "text-tokens", 0, 0, G_OPTION_ARG_INT, &text_tokens, "Tokens of the prompt, 1 to 512 (default: 12)", "N" },
  { "streamed", 0, 0, G_OPTION_ARG_NONE, &streamed, "The text encoder has room for one layer on the device", NULL },
  { "runs", 0, 0, G_OPTION_ARG_INT, &runs, "How many runs to take the median of", "N" },
  { "profile", 0, 0, G_OPTION_ARG_NONE, &profile, "Print what each op costs, to standard error", NULL },
  { "model", 0, 0, G_OPTION_ARG_FILENAME, &model, "Model directory (default: the embedded one)", "DIR" },
  { "input", 0, 0, G_OPTION_ARG_FILENAME, &input, "Latents, prompt and timestep; sets block, size, context 0 and batch 1",
      "FILE.safetensors" },
  { "output", 0, 0, G_OPTION_ARG_FILENAME, &output, "Write the velocity and the frames; needs --input", "FILE.safetensors" },
  { NULL }
};

static int
compare (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;

  return (x > y) - (x < y);
}

typedef struct
{
  DpDevice *dev;
  DpModelConfig config;
  DpType type;
  int h, w, B, C;
  DpWeights *input;
  DpDit *dit;
  int *steps;                   /* of a pass's frames: all 0 */
  DpDitText *texts[2];          /* by element of guidance, like the caches */
  DpDitCache *caches[2][2];
  DpVae *vae;
  float *latents, *tokens, *velocity;
  GArray *frames;               /* what the decoder made, when it is to be kept */

  DpTextEncoder *encoder;
  DpWeights *encoder_weights;
  gint32 *ids;
  float *embeds;
  GError *error;                /* the first of the encoder's */
} Bench;

/* Noise as input: what the numbers are does not change the time. */
static void
run_pass (Bench *b)
{
  for (int e = 0; e < batch; e++) {
    dp_dit_embed (b->dit, b->C + b->B, b->latents, b->tokens);
    dp_dit_run (b->dit, &(DpDitPass) { .halves = dp_dit_halves (b->dit), .frames = b->C + b->B, .steps = b->steps, .text = b->texts[e], .tokens = b->tokens,
        .behind = { b->caches[e][0], b->C }, .keep_head = { b->caches[e][1], b->C, b->C } });
    dp_dit_head (b->dit, b->C + b->B, b->C, b->steps, b->tokens, b->velocity);
  }
  b->dev->ops->sync (b->dev);
}

static void
before_decode (Bench *b)
{
  if (b->C == 0)
    dp_vae_reset (b->vae);
}

static void
keep_frames (Bench *b, const void *frames, int n)
{
  gsize size = (gsize) n * b->h * b->w * b->config.vae.spatial_scale * b->config.vae.spatial_scale * 3,
      e = dp_type_size (dp_vae_type (b->vae));
  g_autofree char *host = g_malloc (size * e);
  guint first = b->frames->len;

  b->dev->ops->download (b->dev, host, frames, size * e);
  g_array_set_size (b->frames, first + size);
  for (gsize i = 0; i < size; i++)
    g_array_index (b->frames, float, first + i) = dp_load (dp_vae_type (b->vae), host, i);
}

static void
run_decode (Bench *b)
{
  const void *frames;

  for (int i = 0, n; i < b->B; i += n) {
    n = MIN (b->B - i, dp_vae_takes (b->vae));
    int n_frames = dp_vae_decode (b->vae, b->latents + (gsize) i * b->h * b->w * b->config.vae.z_dim, n, &frames);

    if (b->frames)
      keep_frames (b, frames, n_frames);
  }
  b->dev->ops->sync (b->dev);
}

static void
run_text (Bench *b)
{
  if (b->error == NULL)
    dp_text_encoder_encode (b->encoder, &(DpTokens) { b->ids, text_tokens, b->embeds }, 1, &b->error);
}

/* ---- measuring ---- */

typedef struct
{
  const char *name;
  gboolean (*open) (Bench * b, const char *dir, GError ** error);
  void (*before) (Bench * b);   /* not measured; may be NULL */
  void (*run) (Bench * b);
} Part;

/* Median of `runs` after two to warm up, in ms. */
static double
median_ms (Bench *b, const Part *part)
{
  g_autofree double *ms = g_new (double, runs);

  for (int i = -2; i < runs; i++) {
    if (part->before)
      part->before (b);
    b->dev->ops->sync (b->dev);
    gint64 start = g_get_monotonic_time ();
    part->run (b);
    if (i >= 0)
      ms[i] = (g_get_monotonic_time () - start) / 1e3;
  }
  qsort (ms, runs, sizeof *ms, compare);
  return ms[runs / 2];
}

static void
print_profile (Bench *b, const Part *part, double plain_ms)
{
  if (part->before)
    part->before (b);
  profile_start ();
  part->run (b);
  profile_report (part->name, plain_ms);
}

/* ---- opening ---- */

static DpWeights *
open_weights (const char *dir, const char *part, const char *stem, GError **error)
{
  g_autofree char *path = g_build_filename (dir, part, NULL);

  return dp_weights_open (path, stem, error);
}

/* The prompt of the input file, or noise. */
static gboolean
open_prompt (Bench *b, GError **error)
{
  gsize dim = b->config.dit.text_dim;
  const DpTensor *t = b->input ? dp_weights_get (b->input, error, 2, (gint64[]) { text_tokens, dim }, "prompt_embeds") : NULL;
  g_autofree float *embeds = g_new (float, text_tokens * dim);

  if (b->input && (t == NULL || !dp_weights_read (b->input, t, 0, text_tokens * dim, embeds, error)))
    return FALSE;
  if (t == NULL)
    dp_noise_fill (1, 0, 0, text_tokens * dim, embeds);
  for (int e = 0; e < batch; e++)
    if ((b->texts[e] = dp_dit_text_new (b->dit, dp_dit_halves (b->dit), embeds, e == 0 ? text_tokens : 1, 512, error)) == NULL)
      return FALSE;
  return TRUE;
}

static gboolean
open_pass (Bench *b, const char *dir, GError **error)
{
  g_autoptr (DpWeights) weights = open_weights (dir, "transformer", "diffusion_pytorch_model", error);
  const DpTensor *t = b->input && weights ? dp_weights_get (b->input, error, 1, (gint64[]) { 1 }, "timestep") : NULL;
  float timestep = 750;

  if (weights == NULL || (b->input && (t == NULL || !dp_weights_read (b->input, t, 0, 1, &timestep, error))))
    return FALSE;
  b->dit = dp_dit_new (b->dev, &b->config.dit, weights, &(DpDitSpec) {
      .halves = dp_halves_of_layers (0, b->config.dit.layers), .type = b->type,
      .fp8 = g_strcmp0 (precision, "fp8") == 0, .latent_h = b->h,
      .latent_w = b->w, .max_input = b->B + b->C, .max_keys = b->B + 2 * b->C, .max_cached = b->C, .steps = 1,
      .timesteps = &timestep }, error);
  b->steps = g_new0 (int, b->B + b->C);
  if (b->dit == NULL || !open_prompt (b, error))
    return FALSE;
  for (int i = 0; i < 2 * batch && b->C > 0; i++)
    if ((b->caches[i / 2][i % 2] = dp_dit_cache_new (b->dit, dp_dit_halves (b->dit), error)) == NULL)
      return FALSE;
  gsize D = (gsize) b->config.dit.heads * b->config.dit.head_dim, L = (gsize) (b->B + b->C) * dp_dit_tokens_per_frame (b->dit);
  b->velocity = b->dev->ops->alloc (b->dev, L * 4 * b->config.dit.out_channels * sizeof (float));
  b->tokens = b->dev->ops->alloc (b->dev, L * D * sizeof (float));
  if (b->velocity == NULL || b->tokens == NULL) {
    g_set_error (error, DP_ERROR, DP_ERROR_NO_MEMORY, "%s has no memory left for %" G_GSIZE_FORMAT " tokens; take a smaller block or size",
        b->dev->name, L);
    return FALSE;
  }
  /* the first pass leaves its keys for those that are timed */
  for (int e = 0; e < batch && b->C > 0; e++) {
    dp_dit_embed (b->dit, b->B, b->latents, b->tokens);
    dp_dit_run (b->dit, &(DpDitPass) { .halves = dp_dit_halves (b->dit), .frames = b->B, .steps = b->steps, .text = b->texts[e], .tokens = b->tokens,
        .keep_head = { b->caches[e][0], 0, b->C } });
  }
  return TRUE;
}

static gboolean
open_decode (Bench *b, const char *dir, GError **error)
{
  g_autoptr (DpWeights) weights = open_weights (dir, "vae", "diffusion_pytorch_model", error);

  b->vae = weights ? dp_vae_new (b->dev, &b->config.vae, weights, b->type, b->h, b->w, b->dev->latents_at_once, error)
      : NULL;
  return b->vae != NULL;
}

static gboolean
open_text (Bench *b, const char *dir, GError **error)
{
  b->encoder_weights = open_weights (dir, "text_encoder", "model", error);
  b->encoder = b->encoder_weights ? dp_text_encoder_new (b->dev, &b->config.text, b->encoder_weights, b->type, text_tokens, streamed, error)
      : NULL;
  b->ids = g_new (gint32, text_tokens);
  b->embeds = g_new (float, (gsize) text_tokens * b->config.text.d_model);
  for (int i = 0; i < text_tokens; i++)
    b->ids[i] = (guint64) i * 2654435761u % b->config.text.vocab;
  return b->encoder != NULL;
}

static const Part all_parts[] = {
  { "pass", open_pass, NULL, run_pass },
  { "decode", open_decode, before_decode, run_decode },
  { "text", open_text, NULL, run_text },
};

/* The parts asked for, in the order of the table. */
static gboolean
choose_parts (gboolean chosen[G_N_ELEMENTS (all_parts)], GError **error)
{
  g_auto (GStrv) names = g_strsplit (parts ? parts : "pass,decode", ",", -1);

  for (int i = 0; names[i]; i++) {
    guint k = 0;

    while (k < G_N_ELEMENTS (all_parts) && strcmp (names[i], all_parts[k].name) != 0)
      k++;
    if (k == G_N_ELEMENTS (all_parts)) {
      g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "there is no part \"%s\"; the parts are pass, decode and text", names[i]);
      return FALSE;
    }
    chosen[k] = TRUE;
  }
  return TRUE;
}

/* The file's latents and prompt say what size everything is. */
static gboolean
open_input (Bench *b, GError **error)
{
  b->input = dp_weights_open (input, NULL, error);
  const DpTensor *latents = b->input ? dp_weights_find (b->input, "latents") : NULL;
  const DpTensor *prompt = b->input ? dp_weights_find (b->input, "prompt_embeds") : NULL;

  if (b->input == NULL)
    return FALSE;
  if (latents == NULL || latents->n_dims != 4 || latents->dims[3] != b->config.vae.z_dim || prompt == NULL || prompt->n_dims != 2) {
    g_set_error (error, DP_ERROR, DP_ERROR_BAD_MODEL, "%s: expected latents [L, h, w, %d] and prompt_embeds [n, %d]", input,
        b->config.vae.z_dim, b->config.dit.text_dim);
    return FALSE;
  }
  block = latents->dims[0];
  height = latents->dims[1] * b->config.vae.spatial_scale;
  width = latents->dims[2] * b->config.vae.spatial_scale;
  context = 0;
  batch = 1;
  text_tokens = prompt->dims[0];
  return TRUE;
}

static gboolean
fill_latents (Bench *b, GError **error)
{
  gsize n = (gsize) (b->B + b->C) * b->h * b->w * b->config.vae.z_dim;
  g_autofree float *host = g_new (float, n);

  if (b->input && !dp_weights_read (b->input, dp_weights_find (b->input, "latents"), 0, n, host, error))
    return FALSE;
  if (b->input == NULL)
    dp_noise_fill (2, 0, 0, n, host);
  b->latents = b->dev->ops->alloc (b->dev, n * sizeof (float));
  b->dev->ops->upload (b->dev, b->latents, host, n * sizeof (float));
  return TRUE;
}

static gboolean
write_output (Bench *b, GError **error)
{
  gsize n = (gsize) b->B * b->h * b->w * b->config.dit.out_channels;
  g_autofree float *velocity = g_new (float, n);
  DpTensorOut tensors[2];
  int count = 0, H = b->h * b->config.vae.spatial_scale, W = b->w * b->config.vae.spatial_scale;

  if (b->dit) {
    b->dev->ops->download (b->dev, velocity, b->velocity, n * sizeof (float));
    tensors[count++] = (DpTensorOut) { "velocity", 4, { b->B, b->h, b->w, b->config.dit.out_channels }, velocity };
  }
  g_autoptr (GArray) frames = b->frames = g_array_new (FALSE, FALSE, sizeof (float));
  if (b->vae) {
    before_decode (b);
    run_decode (b);
    tensors[count++] = (DpTensorOut) { "frames", 4, { frames->len / ((gsize) H * W * 3), H, W, 3 }, (const float *) frames->data };
  }
  return dp_weights_write (output, tensors, count, error);
}

static void
close_bench (Bench *b)
{
  const DpOps *ops = b->dev->ops;

  ops->free (b->dev, b->latents);
  ops->free (b->dev, b->velocity);
  ops->free (b->dev, b->tokens);
  for (int i = 0; i < 4; i++)
    dp_dit_cache_free (b->dit, b->caches[i / 2][i % 2]);
  for (int e = 0; e < 2; e++)
    dp_dit_text_free (b->dit, b->texts[e]);
  dp_dit_free (b->dit);
  g_free (b->steps);
  dp_vae_free (b->vae);
  dp_text_encoder_free (b->encoder);
  dp_weights_free (b->encoder_weights);
  dp_weights_free (b->input);
  dp_device_close (b->dev);
  g_free (b->ids);
  g_free (b->embeds);
  g_clear_error (&b->error);
}

/* Opens, measures and reports. */
static gboolean
measure (Bench *b, const char *dir, GError **error)
{
  gboolean chosen[G_N_ELEMENTS (all_parts)] = { FALSE };
  double ms[G_N_ELEMENTS (all_parts)], load_seconds[G_N_ELEMENTS (all_parts)];
  char message[256];

  if (!choose_parts (chosen, error))
    return FALSE;
  if (!fill_latents (b, error))
    return FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (all_parts); i++) {
    gint64 start = g_get_monotonic_time ();

    if (chosen[i] && !all_parts[i].open (b, dir, error))
      return FALSE;
    b->dev->ops->sync (b->dev);
    load_seconds[i] = (g_get_monotonic_time () - start) / 1e6;
  }
  for (guint i = 0; i < G_N_ELEMENTS (all_parts); i++)
    if (chosen[i])
      ms[i] = median_ms (b, &all_parts[i]);
  if (b->error) {
    g_propagate_error (error, g_steal_pointer (&b->error));
    return FALSE;
  }
  if (!dp_device_check (b->dev, message, sizeof message)) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_DEVICE, message);
    return FALSE;
  }
  printf ("{\"device\": \"%s\", \"precision\": \"%s\", \"threads\": %d, \"width\": %d, \"height\": %d, \"batch\": %d, \"block\": %d, "
      "\"context\": %d, \"text_tokens\": %d", b->dev->name, precision ? precision : "bfloat16", b->dev->threads,
      b->w * b->config.vae.spatial_scale,
      b->h * b->config.vae.spatial_scale, batch, b->B, b->C, text_tokens);
  for (guint i = 0; i < G_N_ELEMENTS (all_parts); i++)
    if (chosen[i])
      printf (", \"%s_ms\": %.2f, \"%s_load_s\": %.2f", all_parts[i].name, ms[i], all_parts[i].name, load_seconds[i]);
  printf (", \"device_mib\": %.0f}\n", b->dev->bytes / 1048576.0);
  fflush (stdout);
  for (guint i = 0; i < G_N_ELEMENTS (all_parts) && profile; i++)
    if (chosen[i])
      print_profile (b, &all_parts[i], ms[i]);
  if (output && !write_output (b, error))
    return FALSE;
  if (!dp_device_check (b->dev, message, sizeof message)) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_DEVICE, message);
    return FALSE;
  }
  return TRUE;
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
  const char *dir = model ? model : dp_model_embedded ();
  if (dir == NULL) {
    g_set_error_literal (&error, DP_ERROR, DP_ERROR_NOT_FOUND, "no embedded model here; give --model DIR");
    goto fail;
  }
  if (!dp_model_config_read (&b->config, dir, &error) || (input && !open_input (b, &error)))
    goto fail;
  if (precision && strcmp (precision, "float32") != 0 && strcmp (precision, "bfloat16") != 0 && strcmp (precision, "fp8") != 0) {
    g_set_error (&error, DP_ERROR, DP_ERROR_SETTINGS, "precision is \"%s\"; it must be float32, bfloat16 or fp8", precision);
    goto fail;
  }
  if (text_tokens < 1 || text_tokens > 512 || runs < 1 || batch < 1 || batch > 2 || (output && !input)) {
    g_set_error_literal (&error, DP_ERROR, DP_ERROR_SETTINGS, "text-tokens is 1 to 512, runs at least 1, batch 1 or 2, and --output needs "
        "--input");
    goto fail;
  }
  b->dev = dp_device_open (device ? device : "cpu", threads, message, sizeof message);
  if (b->dev == NULL) {
    g_set_error_literal (&error, DP_ERROR, DP_ERROR_DEVICE, message);
    goto fail;
  }
  if (profile)
    profile_install (b->dev);
  b->type = g_strcmp0 (precision, "float32") == 0 ? DP_TYPE_F32 : DP_TYPE_BF16;
  b->h = (height ? height : b->config.defaults.height) / b->config.vae.spatial_scale;
  b->w = (width ? width : b->config.defaults.width) / b->config.vae.spatial_scale;
  b->B = block ? block : b->config.defaults.block_latents;
  b->C = context >= 0 ? context : b->config.defaults.context_latents;
  gboolean ok = measure (b, dir, &error);
  close_bench (b);
  if (ok)
    return 0;

fail:
  fprintf (stderr, "bench_parts: %s\n", error->message);
  return 1;
}
