/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The program `dualparal`: the engine without GStreamer. generate writes a video, its latents and
 * embeddings, for comparison with other implementations; inspect shows the devices, the model and the
 * plan; bench measures; plan predicts.
 */
#include "dualparal_testing.h"
#include "cli_bench.h"
#include "cli_progress.h"
#include "cli_settings.h"
#include "cli_worker.h"
#include "cli_y4m.h"
#include "plan.h"
#include "wan/model_check.h"
#include "wan/weights_write.h"
#include "kernels/device.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <glib/gstdio.h>
#include <unistd.h>

static char *output, *dump, *noise_file;
static gboolean told_of_stdout;
static char **prompts_at;

static const GOptionEntry generate_options[] = {
  { "frames", 0, 0, G_OPTION_ARG_INT64, &dp_cli_settings.num_frames, "How many frames (default: 81)", "N" },
  { "prompt-at", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &prompts_at, "Change the prompt with block N; may be repeated", "N=TEXT" },
  { "noise", 0, 0, G_OPTION_ARG_FILENAME, &noise_file, "Start from the tensor `noise` [C, L, h, w] of this safetensors file", "FILE" },
  { "dump", 0, 0, G_OPTION_ARG_FILENAME, &dump, "Write embeddings, latents and frames to this safetensors file", "FILE" },
  { "output", 0, 0, G_OPTION_ARG_FILENAME, &output, "Write the video to this file; - for standard output", "FILE.y4m" },
  DP_CLI_TRACE_OPTION,
  { NULL }
};

/* ---- generate ---- */

typedef struct
{
  GArray *latents;              /* [L, h, w, C] */
  GArray *frames;               /* [F, H, W, 3] */
  int h, w, channels;
} Dump;

static void
keep_latents (const float *latents, int n, int h, int w, int channels, gpointer data)
{
  Dump *d = data;

  d->h = h;
  d->w = w;
  d->channels = channels;
  g_array_append_vals (d->latents, latents, (gsize) n * h * w * channels);
}

/* [frames, pixels, channels] -> [channels, frames, pixels]: channels are last in the engine and first in everyone else's files. */
static float *
channels_first (const float *x, gsize frames, gsize pixels, gsize channels)
{
  float *y = g_new (float, frames * pixels * channels);

  for (gsize i = 0; i < frames * pixels; i++)
    for (gsize c = 0; c < channels; c++)
      y[c * frames * pixels + i] = x[i * channels + c];
  return y;
}

static float *
read_noise (const char *path, const DpPlan *plan, gint64 *n, GError **error)
{
  g_autoptr (DpWeights) file = dp_weights_open (path, NULL, error);
  const DpTensor *t = file ? dp_weights_find (file, "noise") : NULL;
  gint64 C = plan->info.latent_channels, h = plan->latent_h, w = plan->latent_w;

  if (file == NULL)
    return NULL;
  if (t == NULL || t->type != DP_TYPE_F32 || t->n_dims != 4 || t->dims[0] != C || t->dims[2] != h || t->dims[3] != w || t->dims[1] < 1) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a float32 tensor `noise` of shape [%" G_GINT64_FORMAT ", L, %"
        G_GINT64_FORMAT ", %" G_GINT64_FORMAT "]", path, C, h, w);
    return NULL;
  }
  gsize pixels = t->dims[1] * h * w;
  g_autofree float *x = g_try_new (float, pixels * C), *y = g_try_new (float, pixels * C);
  if (x == NULL || y == NULL) {
    dp_error_set (error, DP_ERROR_NO_MEMORY, "%s: there is not enough memory for %" G_GINT64_FORMAT " latent frames of noise; leave out "
        "those that the video does not need", path, t->dims[1]);
    return NULL;
  }
  if (!dp_weights_read (file, t, 0, pixels * C, x, error))
    return NULL;
  for (gsize i = 0; i < pixels; i++)
    for (gint64 c = 0; c < C; c++)
      y[i * C + c] = x[c * pixels + i];
  *n = t->dims[1];
  return g_steal_pointer (&y);
}

static gboolean
write_dump (DpEngine *engine, const Dump *d, const DpSettings *s, GError **error)
{
  float *embeds, *negative;
  int length, dim;

  if (!dp_engine_prompt_embeds (engine, &embeds, &negative, &length, &dim, error))
    return FALSE;
  gsize L = d->latents->len / ((gsize) d->h * d->w * d->channels), F = d->frames->len / ((gsize) s->width * s->height * 3);
  g_autofree float *latents = channels_first ((const float *) d->latents->data, L, (gsize) d->h * d->w, d->channels);
  const DpTensorOut tensors[] = {
    { "prompt_embeds", 2, { length, dim }, embeds },
    { "negative_prompt_embeds", 2, { length, dim }, negative },
    { "latents", 4, { d->channels, L, d->h, d->w }, latents },
    { "frames", 4, { F, s->height, s->width, 3 }, (const float *) d->frames->data },
  };
  gboolean ok = dp_weights_write (dump, tensors, G_N_ELEMENTS (tensors), error);
  g_free (embeds);
  g_free (negative);
  return ok;
}

static gboolean
queue_prompts (DpEngine *engine, GError **error)
{
  for (int i = 0; prompts_at && prompts_at[i]; i++) {
    char *text;
    gint64 block = g_ascii_strtoll (prompts_at[i], &text, 10);

    if (text == prompts_at[i] || *text != '=' || block < 1) {
      dp_error_set (error, DP_ERROR_SETTINGS, "--prompt-at %s: expected a block number from 1, =, and the prompt", prompts_at[i]);
      return FALSE;
    }
    if (!dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = text + 1, .at_frame = dp_engine_first_frame (engine, block) }, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
output_failed (GError **error)
{
  g_set_error (error, G_FILE_ERROR, g_file_error_from_errno (errno), "%s: %s", output, g_strerror (errno));
  return FALSE;
}

/* Pulls frames into the dump, the file, or both, until the video ends. */
static gboolean
pull_all (DpEngine *engine, FILE *file, Dump *d, GError **error)
{
  DpFrame frame;
  int result;

  while ((result = dp_engine_pull (engine, &frame, dp_cli_progress_interval (), error)) != 0) {
    gboolean ok = TRUE;

    dp_cli_progress_frames (engine);
    if (result < 0 && *error == NULL)   /* only the time has run out */
      continue;
    if (result < 0)
      break;
    if (d)
      for (int y = 0; y < frame.height; y++)
        g_array_append_vals (d->frames, frame.planes[0] + (gsize) y * frame.strides[0], frame.width * 3);
    if (file)
      ok = dp_cli_y4m_frame (file, &frame, dp_cli_settings.format) || output_failed (error);
    dp_engine_release_frame (engine, &frame);
    if (!ok) {
      result = -1;
      break;
    }
  }
  return result == 0;
}

/* Someone who names a container expects one. */
static gboolean
check_output (GError **error)
{
  static const char *const containers[] = { ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm" };
  const char *dot = strrchr (output, '.');

  for (guint i = 0; dot && i < G_N_ELEMENTS (containers); i++)
    if (g_ascii_strcasecmp (dot, containers[i]) == 0) {
      dp_error_set (error, DP_ERROR_SETTINGS, "--output %s: generate writes raw video only, to a name such as video.y4m; for %s, use --output - "
          "and add `| ffmpeg -i - %s`%s", output, dot, output, g_ascii_strcasecmp (dot, ".mp4") == 0
          || g_ascii_strcasecmp (dot, ".webm") == 0 ? ", or use pipelines/record" : "");
      return FALSE;
    }
  return TRUE;
}

static FILE *
open_output (const DpPlan *plan, GError **error)
{
  const DpSettings *s = dp_plan_settings (plan);
  const DpModelInfo *info = dp_plan_model (plan);
  FILE *file = strcmp (output, "-") == 0 ? stdout : fopen (output, "wb");

  if (file == NULL)
    output_failed (error);
  else
    dp_cli_y4m_header (file, s->width, s->height, info->fps_n, info->fps_d);    /* a failure comes back with the first frame */
  return file;
}

static gboolean
close_output (FILE *file, gboolean ok, GError **error)
{
  gboolean closed = (file == stdout ? fflush (file) : fclose (file)) == 0;

  if (ok && !closed)
    output_failed (error);
  told_of_stdout = file == stdout;
  return ok && closed;
}

/* Before any work is done. */
static void
warn (const DpPlan *plan)
{
  g_autofree char *first = dp_plan_unknown_words (plan, dp_plan_settings (plan)->prompt);

  if (dp_plan_untrained (plan))
    fprintf (stderr, "dualparal: %s\n", dp_plan_untrained (plan));
  if (dp_plan_unheld (plan))
    fprintf (stderr, "dualparal: %s\n", dp_plan_unheld (plan));
  if (dp_plan_unguided (plan))
    fprintf (stderr, "dualparal: %s\n", dp_plan_unguided (plan));
  if (first)
    fprintf (stderr, "dualparal: %s\n", first);
  for (int i = 0; prompts_at && prompts_at[i]; i++) {
    const char *text = strchr (prompts_at[i], '=');
    g_autofree char *sentence = text && dp_prompt_check (text + 1, NULL) ? dp_plan_unknown_words (plan, text + 1) : NULL;

    if (sentence)
      fprintf (stderr, "dualparal: --prompt-at %.*s: %s\n", (int) (text - prompts_at[i]), prompts_at[i], sentence);
  }
}

static gboolean
generate (GError **error)
{
  g_autoptr (DpPlan) plan = NULL, with_noise = NULL;
  g_autoptr (DpEngine) engine = NULL;
  g_autoptr (GArray) latents = g_array_new (FALSE, FALSE, sizeof (float)), frames = g_array_new (FALSE, FALSE, sizeof (float));
  g_autofree float *noise = NULL;
  Dump d = { .latents = latents, .frames = frames };
  FILE *file = NULL;
  gboolean ok;

  if (output == NULL && dump == NULL) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_SETTINGS, "nothing to write: give --output FILE.y4m, --dump FILE, or both");
    return FALSE;
  }
  if (output && !check_output (error))
    return FALSE;
  if (dp_cli_settings.num_frames < 0 && dump) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_SETTINGS, "--dump keeps everything in memory: it needs --frames of at least 1");
    return FALSE;
  }
  g_autofree char *dump_dir = dump ? g_path_get_dirname (dump) : NULL;
  if (dump && g_access (dump_dir, W_OK) != 0) {
    g_set_error (error, G_FILE_ERROR, g_file_error_from_errno (errno), "%s: cannot be written: %s", dump, g_strerror (errno));
    return FALSE;
  }
  dp_cli_settings.format = dump ? DP_FORMAT_RGB_F32 : DP_FORMAT_RGB;
  plan = dp_plan_new (&dp_cli_settings, error);
  if (plan == NULL)
    return FALSE;
  if (noise_file) {             /* has the size that the plan says */
    dp_cli_settings.noise = noise = read_noise (noise_file, plan, &dp_cli_settings.noise_latents, error);
    with_noise = noise ? dp_plan_with (plan, &dp_cli_settings, error) : NULL;
    if (with_noise == NULL)
      return FALSE;
  }
  warn (plan);
  if (dp_cli_settings.seed == -1)
    fprintf (stderr, "dualparal: the seed is %" G_GINT64_FORMAT "\n", dp_plan_settings (plan)->seed);
  dp_cli_progress_start (plan);
  if (!dp_engine_open (&engine, with_noise ? with_noise : plan, dp_cli_progress_loading, NULL, error) || !queue_prompts (engine, error))
    return FALSE;
  if (dump)
    dp_engine_set_latents_callback (engine, keep_latents, &d);
  if (output && (file = open_output (plan, error)) == NULL)
    return FALSE;
  ok = pull_all (engine, file, dump ? &d : NULL, error);
  if (file)
    ok = close_output (file, ok, error);
  ok = ok && (dump == NULL || write_dump (engine, &d, dp_plan_settings (plan), error)) && dp_engine_end_trace (engine, error);
  if (ok)
    dp_cli_progress_end (engine);
  return ok;
}

/* ---- inspect ---- */

/* Returns what is known of it. */
static DpDeviceInfo
print_device (const char *name)
{
  DpDeviceInfo info;
  char message[256];

  if (dp_device_info (name, &info, message, sizeof message))
    printf ("  %-8s %s; %s; %.1f of %.1f GiB free\n", name, info.description, info.libraries, info.memory_free / 1073741824.0,
        info.memory_total / 1073741824.0);
  else
    printf ("  %-8s %s\n", name, message);
  return info;
}

/* Every one there is; cuda:0 in any case, for why it is not. Returns how many are GPUs. */
static int
print_devices (void)
{
  int gpus = 0;

  printf ("devices\n");
  print_device ("cpu");
  for (int i = 0; i == 0 || i < gpus; i++) {
    g_autofree char *name = g_strdup_printf ("cuda:%d", i);
    gpus = print_device (name).gpus;
  }
  return gpus;
}

/* Whether all of it has room on a device that is there, and in which of the ways that the settings leave
 * open. */
static void
print_verdict (const char *name)
{
  g_autoptr (DpPlan) plan = NULL;
  g_autoptr (GError) error = NULL;
  DpSettings s = dp_cli_settings;
  DpDeviceInfo info;
  char message[256];

  if (!dp_device_info (name, &info, message, sizeof message))
    return;
  s.devices = name;
  s.ranks = NULL;
  plan = dp_plan_new (&s, &error);
  if (plan == NULL || !dp_plan_check_address_space (plan, &error)) {
    printf ("  %-8s no: %s\n", name, error->message);
    return;
  }
  gsize needed = dp_plan_bytes (plan, name);
  printf ("  %-8s %s: %.1f MiB, where %.1f are free, in %s, text encoder %s\n", name, needed > info.memory_free ? "does not fit"
      : needed + info.memory_total / 8 > info.memory_free ? "hardly fits, for libraries take some too" : "fits", needed / 1048576.0,
      info.memory_free / 1048576.0, plan->settings.precision, plan->settings.text_encoder);
}

/* Ends the line of a part with how large its files are, if there are any. */
static void
print_files (const DpModel *model, DpModelPart part)
{
  const char *path = model->paths[part], *name;
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  gsize bytes = 0;
  GStatBuf st;

  if (dir == NULL && g_stat (path, &st) == 0)
    bytes = st.st_size;         /* a file */
  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *file = g_build_filename (path, name, NULL);

    /* Where Wan's repositories have the transformer, other parts are too */
    if (dp_weights_is_named (name) && g_stat (file, &st) == 0
        && (!model->by_shapes || part > DP_MODEL_TRANSFORMER_2 || g_str_has_prefix (name, "diffusion_pytorch_model")))
      bytes += st.st_size;
  }
  if (model->repository)
    putchar ('\n');
  else
    printf (", %.1f MiB\n", bytes / 1048576.0);
  if (model->repository == NULL && !g_str_has_prefix (path, model->dir)) {
    g_autofree char *quoted = dp_quote (path, DP_QUOTE_SENTENCE);

    printf ("                %s\n", quoted);
  }
}

static void
print_transformers (const DpModel *model)
{
  const DpModelConfig *c = &model->config;

  for (int i = 0; i < c->experts; i++) {
    printf ("  %-13s %d layers, %d heads of %d, feed-forward %d", dp_model_part_name (DP_MODEL_TRANSFORMER + i), c->dit.layers,
        c->dit.heads, c->dit.head_dim, c->dit.ffn);
    print_files (model, DP_MODEL_TRANSFORMER + i);
  }
  if (c->experts == 2)
    printf ("  boundary      %g: steps of timestep %g and above go through transformer, the others through transformer_2\n",
        c->boundary_ratio, c->boundary_ratio * c->scheduler.train_timesteps);
}

static void
print_model (const DpModel *model)
{
  const DpModelConfig *c = &model->config;

  g_autofree char *dir = dp_quote (model->dir, DP_QUOTE_SENTENCE);

  printf ("model %s (%s)\n", dir, c->defaults.name);
  if (model->by_shapes)
    printf ("  no config files: its sizes are those of its tensors, the rest is as published\n");
  if (model->repository)
    printf ("  not on this machine; `hf download %s --local-dir DIR` downloads it\n", model->repository);
  printf ("  text encoder  %d layers, %d wide, %d tokens known", c->text.layers, c->text.d_model, c->text.vocab);
  print_files (model, DP_MODEL_TEXT_ENCODER);
  print_transformers (model);
  printf ("  decoder       %d latent channels, %dx%d pixels and %d frames a latent", model->latent_channels,
      c->vae.spatial_scale, c->vae.spatial_scale, c->vae.temporal_scale);
  print_files (model, DP_MODEL_VAE);
}

static gboolean
inspect (GError **error)
{
  g_autoptr (DpPlan) plan = NULL;
  int gpus = print_devices ();

  plan = dp_plan_new (&dp_cli_settings, error);
  if (plan == NULL)
    return FALSE;
  const DpSettings *s = &plan->settings;
  DpStageSpec spec = dp_plan_stage_spec (plan);
  g_autofree char *guidance = dp_cli_settings_guidance (s), *description = dp_plan_describe (plan);
  print_model (plan->model);
  printf ("settings\n  %dx%d at %d/%d frames a second, %s, %d steps, guidance %s, flow shift %g\n", s->width, s->height,
      plan->info.fps_n, plan->info.fps_d, s->sampler, s->steps, guidance, s->flow_shift);
  printf ("  blocks of %d latents, context %d %s, queue of %d frames\n", s->block_latents, plan->context_latents, s->context_mode,
      s->max_queue_frames);
  if (plan->model->repository == NULL
      && !dp_model_check (plan->model, spec.max_input + spec.max_cached, spec.latent_h, spec.latent_w, error))
    return FALSE;
  printf ("plan for devices=%s\n%s", dp_cli_settings.devices ? dp_cli_settings.devices : "auto", description);
  printf ("all of it on one device\n");
  print_verdict ("cpu");
  for (int i = 0; i < gpus; i++) {
    g_autofree char *name = g_strdup_printf ("cuda:%d", i);
    print_verdict (name);
  }
  return TRUE;
}

/* ---- main ---- */

typedef struct
{
  const char *name, *summary;
  const GOptionEntry *options;
  gboolean (*run) (GError **error);
} Command;

static const Command commands[] = {
  { "generate", "write a video", generate_options, generate },
  { "inspect", "show devices, libraries, the model, its settings, the plan, and whether it fits", NULL, inspect },
  { "bench", "measure the whole engine", dp_cli_bench_options, dp_cli_bench },
  { "plan", "show the plan, and how fast it would be", dp_cli_plan_options, dp_cli_plan },
  { "worker", "be a stage of the ring of another process, under mpirun", NULL, dp_cli_worker },
};

static int
usage (FILE *to)
{
  fprintf (to, "usage: dualparal COMMAND [OPTION...]\n\n");
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++)
    fprintf (to, "  %-10s %s\n", commands[i].name, commands[i].summary);
  fprintf (to, "\ndualparal COMMAND --help lists a command's options, dualparal --version says which this is.\n");
  return to == stdout ? 0 : 2;
}

/* What GLib says has the arguments in it as they are. */
static void
complain (const char *message)
{
  g_autofree char *quoted = dp_quote (message, DP_QUOTE_SENTENCE);

  fprintf (stderr, "dualparal: %s\n", quoted);
}

/* The option that is like one that there is not: either begins with the other. NULL if none is. */
static const char *
option_like (const GOptionEntry *options, const char *message)
{
  const char *name = strstr (message, "--");

  for (; name && options && options->long_name; options++)
    if (g_str_has_prefix (options->long_name, name + 2) || g_str_has_prefix (name + 2, options->long_name))
      return options->long_name;
  return NULL;
}

/* GLib says what is wrong, and not what to do. */
static GError *
with_advice (const Command *command, GError *error)
{
  const char *like = NULL;

  if (g_error_matches (error, G_OPTION_ERROR, G_OPTION_ERROR_UNKNOWN_OPTION))
    like = option_like (dp_cli_settings_options, error->message) ? : option_like (command->options, error->message);
  g_autofree char *advice = like ? g_strdup_printf ("is --%s meant? ", like) : g_strdup ("");
  GError *better = g_error_new (error->domain, error->code, "%s; %s`dualparal %s --help` lists the options", error->message, advice,
      command->name);

  g_error_free (error);
  return better;
}

static int
run_command (const Command *command, int argc, char **argv)
{
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;
  g_autofree char *name = g_strdup_printf ("dualparal %s", command->name), *summary = g_strdup_printf ("%s: %s", name, command->summary);
  gboolean help = FALSE;
  /* GLib's own would print in the locale's letters, and the locale is not asked for here */
  const GOptionEntry help_options[] = { { "help", 'h', 0, G_OPTION_ARG_NONE, &help, "Show these options", NULL }, { NULL } };

  g_set_prgname (name);
  g_option_context_set_help_enabled (context, FALSE);
  g_option_context_set_summary (context, summary);
  if (command->run != dp_cli_worker)
    g_option_context_set_description (context, "A setting that is left out, or 0 where it is a number and not the seed, is the model's own "
        "default; inspect prints them.");
  g_option_context_add_main_entries (context, command->run == dp_cli_worker ? dp_cli_worker_options : dp_cli_settings_options, NULL);
  if (command->options)
    g_option_context_add_main_entries (context, command->options, NULL);
  g_option_context_add_main_entries (context, help_options, NULL);
  if (command->run == generate)
    dp_cli_settings.num_frames = 81;
  if (g_option_context_parse (context, &argc, &argv, &error) && argc > 1)
    g_set_error (&error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED, "%s is not an option; the text of a prompt goes behind --prompt, in quotes",
        argv[1]);
  if (error) {
    error = with_advice (command, error);
    complain (error->message);
    return 2;
  }
  if (help) {
    g_autofree char *text = g_option_context_get_help (context, TRUE, NULL);
    fputs (text, stdout);
    return 0;
  }
  if (command->run (&error))
    return 0;
  dp_cli_progress_end (NULL);
  complain (error->message);
  return 1;
}

/* A full disk behind standard output shows when the last bytes are written, or before, where nobody looked. At the exit, whichever
 * way leads there. */
static void
flush_stdout (void)
{
  gboolean failed = ferror (stdout) != 0;

  if (told_of_stdout || (!failed && fflush (stdout) == 0))
    return;
  fprintf (stderr, "dualparal: standard output cannot be written%s%s\n", failed ? "" : ": ", failed ? "" : g_strerror (errno));
  _exit (1);
}

int
main (int argc, char **argv)
{
  atexit (flush_stdout);
  signal (SIGXFSZ, SIG_IGN);    /* `ulimit -f` is an error of the write, as a full disk is */
  if (argc < 2)
    return usage (stderr);
  if (strcmp (argv[1], "--help") == 0 || strcmp (argv[1], "-h") == 0)
    return usage (stdout);
  if (strcmp (argv[1], "--version") == 0) {
    printf ("dualparal (gst-dualparal) %s\n", DP_VERSION);
    return 0;
  }
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++)
    if (strcmp (argv[1], commands[i].name) == 0)
      return run_command (&commands[i], argc - 1, argv + 1);
  g_autofree char *sentence = g_strconcat ("no command is called ", argv[1], NULL);
  complain (sentence);
  return usage (stderr);
}
