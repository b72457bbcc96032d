/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli_settings.h"

DpSettings dp_cli_settings = { .num_frames = -1 };

static gboolean
parse_seed (const char *option, const char *value, gpointer data, GError **error)
{
  if (g_ascii_string_to_signed (value, 10, -1, G_MAXINT64, &dp_cli_settings.seed, NULL))
    return TRUE;
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "%s is \"%s\"; it must be a whole number from 0 to %" G_GINT64_FORMAT
      ", or -1 to draw one", option, value, G_MAXINT64);
  return FALSE;
}

/* Texts are of the type of file names: GLib hands those over as they are, and would convert others from the
 * locale's character set, which is ASCII here. What must be UTF-8 is checked with the other settings. */
const GOptionEntry dp_cli_settings_options[] = {
  { "model", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.model, "Model: a directory, or a transformer's file (default: the embedded "
      "one); inspect and plan also take wan2.1-1.3b, wan2.1-14b, wan2.2-a14b and wan2.2-5b without a download", "DIR" },
  { "transformer", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.transformer, "File or directory of this part, in place of the model's",
      "PATH" },
  { "transformer-2", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.transformer_2, "The same for the second of two transformers", "PATH" },
  { "vae", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.vae, "The same for the VAE", "PATH" },
  { "text-encoder-file", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.text_encoder_file, "The same for the text encoder", "PATH" },
  { "lora", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.lora, "LoRA files for the transformer, each with a strength", "FILE:0.8,..." },
  { "tokenizer", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.tokenizer, "The same for the tokenizer", "PATH" },
  { "prompt", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.prompt, "What to show", "TEXT" },
  { "negative-prompt", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.negative_prompt, "What not to show", "TEXT" },
  { "image", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.image, "Picture to begin with, PNG or JPEG", "FILE" },
  { "devices", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.devices, "One stage each: auto, cpu, cpu,cpu, ...", "LIST" },
  { "ranks", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.ranks, "none, or mpi: a stage on each rank that mpirun started", "NAME" },
  { "width", 0, 0, G_OPTION_ARG_INT, &dp_cli_settings.width, "Pixels, an even number", "W" },
  { "height", 0, 0, G_OPTION_ARG_INT, &dp_cli_settings.height, "Pixels, an even number", "H" },
  { "steps", 0, 0, G_OPTION_ARG_INT, &dp_cli_settings.steps, "Sampling steps", "T" },
  { "guidance-scale", 0, 0, G_OPTION_ARG_DOUBLE, &dp_cli_settings.guidance_scale, "Classifier-free guidance; 1: none", "G" },
  { "guidance-scale-2", 0, 0, G_OPTION_ARG_DOUBLE, &dp_cli_settings.guidance_scale_2, "The same for the second of two transformers", "G" },
  { "guidance-interval-low", 0, 0, G_OPTION_ARG_DOUBLE, &dp_cli_settings.guidance_interval_low, "Guidance only in steps from noise levels "
      "above this (default: the model's)", "SIGMA" },
  { "guidance-interval-high", 0, 0, G_OPTION_ARG_DOUBLE, &dp_cli_settings.guidance_interval_high, "and up to this; other steps take half "
      "the time (default: 1, or with a low end of 0 the model's)", "SIGMA" },
  { "flow-shift", 0, 0, G_OPTION_ARG_DOUBLE, &dp_cli_settings.flow_shift, "Shift of the noise schedule", "S" },
  { "sampler", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.sampler, "unipc or euler", "NAME" },
  { "seed", 0, G_OPTION_FLAG_FILENAME, G_OPTION_ARG_CALLBACK, parse_seed, "Same seed, same video; -1 draws one and prints it", "N" },
  { "block-latents", 0, 0, G_OPTION_ARG_INT, &dp_cli_settings.block_latents, "Latent frames a block owns", "B" },
  { "context-latents", 0, 0, G_OPTION_ARG_INT, &dp_cli_settings.context_latents, "Latent frames taken from each neighbour; -1: none", "C" },
  { "context-mode", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.context_mode, "auto, recomputed or cached (faster, more memory)",
      "NAME" },
  { "queue-blocks", 0, 0, G_OPTION_ARG_INT, &dp_cli_settings.queue_blocks, "Most blocks in flight, at most T", "Q" },
  { "times", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.times, "Table of measured times, made by bench --add-times, by which layers are "
      "shared out", "FILE.json" },
  { "threads", 0, 0, G_OPTION_ARG_INT, &dp_cli_settings.threads, "Host threads in all (default: one per processor)", "N" },
  { "precision", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.precision, "auto, float32, bfloat16 or fp8 (some GPUs)", "NAME" },
  { "text-encoder", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.text_encoder, "auto, resident or streamed (less memory, more time for "
      "a prompt)", "NAME" },
  { NULL }
};

char *
dp_cli_settings_guidance (const DpSettings *s)
{
  GString *text = g_string_new (NULL);

  g_string_printf (text, "%g", s->guidance_scale);
  if (s->guidance_scale_2 != 0)
    g_string_append_printf (text, ", %g", s->guidance_scale_2);
  if (s->guidance_interval_low > 0 || s->guidance_interval_high < 1)
    g_string_append_printf (text, " at noise levels %g to %g", s->guidance_interval_low, s->guidance_interval_high);
  return g_string_free (text, FALSE);
}
