/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The program `dualparal`: the engine without GStreamer. generate writes a video, its latents and
 * embeddings, for comparison with other implementations; inspect shows the devices, the model and the
 * plan; bench measures; plan predicts.
 */
#include "dualparal_testing.h"
#include "plan.h"
#include "simulate.h"
#include "speed_table.h"
#include "wan/weights.h"
#include "kernels/device.h"

#include <errno.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>
#include <glib/gstdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* What every command that opens an engine takes: the settings, under their own names. */
static DpSettings settings = { .num_frames = -1 };
static char *output, *dump, *noise_file;
static char **prompts_at;
static gboolean as_json;
static gint64 bench_blocks = 10;
static char *times_file, *gpu_model = "";
static int gpus_assumed;

static gboolean
parse_seed (const char *option, const char *value, gpointer data, GError **error)
{
  if (g_ascii_string_to_unsigned (value, 10, 0, G_MAXUINT64, &settings.seed, NULL))
    return TRUE;
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "%s is \"%s\"; it must be a whole number from 0 to %" G_GUINT64_FORMAT,
      option, value, G_MAXUINT64);
  return FALSE;
}

static const GOptionEntry engine_options[] = {
  { "model", 0, 0, G_OPTION_ARG_FILENAME, &settings.model, "Model directory (default: the embedded model)", "DIR" },
  { "prompt", 0, 0, G_OPTION_ARG_STRING, &settings.prompt, "What to show", "TEXT" },
  { "negative-prompt", 0, 0, G_OPTION_ARG_STRING, &settings.negative_prompt, "What not to show", "TEXT" },
  { "devices", 0, 0, G_OPTION_ARG_STRING, &settings.devices, "One stage each: auto, cpu, cpu,cpu, ...", "LIST" },
  { "width", 0, 0, G_OPTION_ARG_INT, &settings.width, "Pixels, a multiple of 16", "W" },
  { "height", 0, 0, G_OPTION_ARG_INT, &settings.height, "Pixels, a multiple of 16", "H" },
  { "steps", 0, 0, G_OPTION_ARG_INT, &settings.steps, "Sampling steps", "T" },
  { "guidance-scale", 0, 0, G_OPTION_ARG_DOUBLE, &settings.guidance_scale, "Classifier-free guidance; 1: none", "G" },
  { "guidance-scale-2", 0, 0, G_OPTION_ARG_DOUBLE, &settings.guidance_scale_2, "The same for the second of two transformers", "G" },
  { "flow-shift", 0, 0, G_OPTION_ARG_DOUBLE, &settings.flow_shift, "Shift of the noise schedule", "S" },
  { "sampler", 0, 0, G_OPTION_ARG_STRING, &settings.sampler, "unipc or euler", "NAME" },
  { "seed", 0, 0, G_OPTION_ARG_CALLBACK, parse_seed, "Same seed, same video", "N" },
  { "block-latents", 0, 0, G_OPTION_ARG_INT, &settings.block_latents, "Latent frames a block owns", "B" },
  { "context-latents", 0, 0, G_OPTION_ARG_INT, &settings.context_latents, "Latent frames taken from each neighbour; -1: none", "C" },
  { "queue-blocks", 0, 0, G_OPTION_ARG_INT, &settings.queue_blocks, "Most blocks in flight, at most T", "Q" },
  { "threads", 0, 0, G_OPTION_ARG_INT, &settings.threads, "Host threads in all (default: one per processor)", "N" },
  { "precision", 0, 0, G_OPTION_ARG_STRING, &settings.precision, "auto, float32, bfloat16 or fp8 (some GPUs)", "NAME" },
  { "text-encoder", 0, 0, G_OPTION_ARG_STRING, &settings.text_encoder, "auto, resident or streamed (less memory, more time for a prompt)",
      "NAME" },
  { NULL }
};

#define TRACE_OPTION \
  { "trace", 0, 0, G_OPTION_ARG_FILENAME, &settings.trace, \
      "Write what was done when to this file, for ui.perfetto.dev or chrome://tracing", "FILE.json" }

static const GOptionEntry generate_options[] = {
  { "frames", 0, 0, G_OPTION_ARG_INT64, &settings.num_frames, "How many frames (default: 81)", "N" },
  { "prompt-at", 0, 0, G_OPTION_ARG_STRING_ARRAY, &prompts_at, "Change the prompt with block N; may be repeated", "N=TEXT" },
  { "noise", 0, 0, G_OPTION_ARG_FILENAME, &noise_file, "Start from the tensor `noise` [C, L, h, w] of this safetensors file", "FILE" },
  { "dump", 0, 0, G_OPTION_ARG_FILENAME, &dump, "Write embeddings, latents and frames to this safetensors file", "FILE" },
  { "output", 0, 0, G_OPTION_ARG_FILENAME, &output, "Write the video to this file; - for standard output", "FILE.y4m" },
  TRACE_OPTION,
  { NULL }
};

static const GOptionEntry bench_options[] = {
  { "blocks", 0, 0, G_OPTION_ARG_INT64, &bench_blocks, "How many blocks to measure after the first one (default: 10)", "N" },
  { "json", 0, 0, G_OPTION_ARG_NONE, &as_json, "Print one JSON object instead of a table", NULL },
  { "times", 0, 0, G_OPTION_ARG_FILENAME, &times_file, "Add what a layer and the decoder take on this device to a table", "FILE.json" },
  TRACE_OPTION,
  { NULL }
};

static const GOptionEntry plan_options[] = {
  { "times", 0, 0, G_OPTION_ARG_FILENAME, &times_file, "Table of measured times, made by bench --times", "FILE.json" },
  { "gpus", 0, 0, G_OPTION_ARG_INT, &gpus_assumed, "Plan for so many GPUs, which need not be here", "N" },
  { "gpu-model", 0, 0, G_OPTION_ARG_STRING, &gpu_model, "Which of the table's: a part of its name (default: the first that fits)", "NAME" },
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
    g_set_error (error, DP_ERROR, DP_ERROR_BAD_MODEL, "%s: expected a float32 tensor `noise` of shape [%" G_GINT64_FORMAT ", L, %"
        G_GINT64_FORMAT ", %" G_GINT64_FORMAT "]", path, C, h, w);
    return NULL;
  }
  gsize pixels = t->dims[1] * h * w;
  const float *x = t->data;
  float *y = g_new (float, pixels * C);
  for (gsize i = 0; i < pixels; i++)
    for (gint64 c = 0; c < C; c++)
      y[i * C + c] = x[c * pixels + i];
  *n = t->dims[1];
  return y;
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

/* A dump wants floats and a video bytes; a run that makes both converts its floats here. */
static void
to_i420 (const DpFrame *f, DpDevice *dev, guint8 *buffer, DpFrame *out)
{
  gsize n = (gsize) f->width * f->height;
  g_autofree float *signed_pixels = g_new (float, n * 3);

  for (gsize i = 0; i < n * 3; i++)
    signed_pixels[i] = 2 * ((const float *) f->planes[0])[i] - 1;
  *out = (DpFrame) { .width = f->width, .height = f->height, .planes = { buffer, buffer + n, buffer + n + n / 4 },
    .strides = { f->width, f->width / 2, f->width / 2 } };
  dev->ops->pack_frame (dev, &(DpPackFrameArgs) { .format = DP_PIXELS_I420, .h = f->height, .w = f->width, .x = signed_pixels,
      .planes = { out->planes[0], out->planes[1], out->planes[2] }, .strides = { f->width, f->width / 2, f->width / 2 } });
}

static gboolean
write_y4m_frame (FILE *file, const DpFrame *f, GError **error)
{
  const int heights[3] = { f->height, f->height / 2, f->height / 2 }, widths[3] = { f->width, f->width / 2, f->width / 2 };
  gboolean ok = fputs ("FRAME\n", file) >= 0;

  for (int p = 0; p < 3; p++)
    for (int y = 0; y < heights[p] && ok; y++)
      ok = fwrite (f->planes[p] + (gsize) y * f->strides[p], 1, widths[p], file) == (size_t) widths[p];
  if (!ok)
    g_set_error (error, G_FILE_ERROR, g_file_error_from_errno (errno), "%s: %s", output, g_strerror (errno));
  return ok;
}

static gboolean
queue_prompts (DpEngine *engine, GError **error)
{
  for (int i = 0; prompts_at && prompts_at[i]; i++) {
    char *text;
    gint64 block = g_ascii_strtoll (prompts_at[i], &text, 10);

    if (text == prompts_at[i] || *text != '=' || block < 1) {
      g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "--prompt-at %s: expected a block number from 1, =, and the prompt", prompts_at[i]);
      return FALSE;
    }
    if (!dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = text + 1, .at_frame = dp_engine_first_frame (engine, block) }, error))
      return FALSE;
  }
  return TRUE;
}

/* Pulls frames into the dump, the file, or both, until the video ends. */
static gboolean
pull_all (DpEngine *engine, FILE *file, Dump *d, GError **error)
{
  char message[256];
  DpDevice *dev = file && d ? dp_device_open ("cpu", 1, message, sizeof message) : NULL;
  g_autofree guint8 *buffer = NULL;
  DpFrame frame, converted;
  int result;

  if (file && d && dev == NULL) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_DEVICE, message);
    return FALSE;
  }
  while ((result = dp_engine_pull (engine, &frame, -1, error)) == 1) {
    gboolean ok = TRUE;

    if (d)
      for (int y = 0; y < frame.height; y++)
        g_array_append_vals (d->frames, frame.planes[0] + (gsize) y * frame.strides[0], frame.width * 3);
    if (file && d) {
      if (buffer == NULL)
        buffer = g_new (guint8, (gsize) frame.width * frame.height * 2);
      to_i420 (&frame, dev, buffer, &converted);
    }
    if (file)
      ok = write_y4m_frame (file, d ? &converted : &frame, error);
    if (isatty (2))
      fprintf (stderr, "\rframe %" G_GINT64_FORMAT, frame.index + 1);
    dp_engine_release_frame (engine, &frame);
    if (!ok) {
      result = -1;
      break;
    }
  }
  if (isatty (2))
    fputc ('\n', stderr);
  dp_device_close (dev);
  return result == 0;
}

static FILE *
open_output (const DpPlan *plan, GError **error)
{
  const DpSettings *s = dp_plan_settings (plan);
  const DpModelInfo *info = dp_plan_model (plan);
  FILE *file = strcmp (output, "-") == 0 ? stdout : fopen (output, "wb");

  if (file == NULL)
    g_set_error (error, G_FILE_ERROR, g_file_error_from_errno (errno), "%s: %s", output, g_strerror (errno));
  else
    fprintf (file, "YUV4MPEG2 W%d H%d F%d:%d Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n", s->width, s->height, info->fps_n, info->fps_d);
  return file;
}

static gboolean
close_output (FILE *file, gboolean ok, GError **error)
{
  gboolean closed = (file == stdout ? fflush (file) : fclose (file)) == 0;

  if (ok && !closed)
    g_set_error (error, G_FILE_ERROR, g_file_error_from_errno (errno), "%s: %s", output, g_strerror (errno));
  return ok && closed;
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
  if (settings.num_frames < 0 && dump) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_SETTINGS, "--dump keeps everything in memory: it needs --frames of at least 1");
    return FALSE;
  }
  g_autofree char *dump_dir = dump ? g_path_get_dirname (dump) : NULL;
  if (dump && g_access (dump_dir, W_OK) != 0) {
    g_set_error (error, G_FILE_ERROR, g_file_error_from_errno (errno), "%s: cannot be written: %s", dump, g_strerror (errno));
    return FALSE;
  }
  settings.format = dump ? DP_FORMAT_RGB_F32 : DP_FORMAT_I420;
  plan = dp_plan_new (&settings, error);
  if (plan == NULL)
    return FALSE;
  if (noise_file) {             /* has the size that the plan says */
    settings.noise = noise = read_noise (noise_file, plan, &settings.noise_latents, error);
    with_noise = noise ? dp_plan_with (plan, &settings, error) : NULL;
    if (with_noise == NULL)
      return FALSE;
  }
  if (!dp_engine_open (&engine, with_noise ? with_noise : plan, NULL, NULL, error) || !queue_prompts (engine, error))
    return FALSE;
  if (dump)
    dp_engine_set_latents_callback (engine, keep_latents, &d);
  if (output && (file = open_output (plan, error)) == NULL)
    return FALSE;
  ok = pull_all (engine, file, dump ? &d : NULL, error);
  if (file)
    ok = close_output (file, ok, error);
  return ok && (dump == NULL || write_dump (engine, &d, dp_plan_settings (plan), error)) && dp_engine_end_trace (engine, error);
}

/* "5", or "4, 3" where there are two transformers. */
static char *
guidance_text (const DpSettings *s)
{
  return s->guidance_scale_2 != 0 ? g_strdup_printf ("%g, %g", s->guidance_scale, s->guidance_scale_2)
      : g_strdup_printf ("%g", s->guidance_scale);
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
  DpSettings s = settings;
  DpDeviceInfo info;
  char message[256];

  if (!dp_device_info (name, &info, message, sizeof message))
    return;
  s.devices = name;
  plan = dp_plan_new (&s, &error);
  if (plan == NULL) {
    printf ("  %-8s no: %s\n", name, error->message);
    return;
  }
  gsize needed = dp_plan_bytes (plan, name);
  printf ("  %-8s %s: %.1f MiB, where %.1f are free, in %s, text encoder %s\n", name, needed > info.memory_free ? "does not fit"
      : needed + info.memory_total / 8 > info.memory_free ? "hardly fits, for libraries take some too" : "fits", needed / 1048576.0,
      info.memory_free / 1048576.0, plan->settings.precision, plan->settings.text_encoder);
}

/* Of a part's weights. */
static double
file_mib (const DpModel *model, DpModelPart part)
{
  g_autoptr (GDir) dir = g_dir_open (model->paths[part], 0, NULL);
  const char *name;
  gsize bytes = 0;

  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *file = g_build_filename (model->paths[part], name, NULL);
    GStatBuf st;

    if (g_str_has_suffix (name, ".safetensors") && g_stat (file, &st) == 0)
      bytes += st.st_size;
  }
  return bytes / 1048576.0;
}

static void
print_transformers (const DpModel *model)
{
  const DpModelConfig *c = &model->config;

  for (int i = 0; i < c->experts; i++)
    printf ("  %-13s %d layers, %d heads of %d, feed-forward %d, %.1f MiB\n", dp_model_part_name (DP_MODEL_TRANSFORMER + i), c->dit.layers,
        c->dit.heads, c->dit.head_dim, c->dit.ffn, file_mib (model, DP_MODEL_TRANSFORMER + i));
  if (c->experts == 2)
    printf ("  boundary      %g: steps of timestep %g and above go through transformer, the others through transformer_2\n",
        c->boundary_ratio, c->boundary_ratio * c->scheduler.train_timesteps);
}

static void
print_model (const DpModel *model)
{
  const DpModelConfig *c = &model->config;

  printf ("model %s (%s)\n", model->dir, c->defaults.name);
  printf ("  text encoder  %d layers, %d wide, %d tokens known, %.1f MiB\n", c->text.layers, c->text.d_model, c->text.vocab,
      file_mib (model, DP_MODEL_TEXT_ENCODER));
  print_transformers (model);
  printf ("  decoder       %d latent channels, %dx%d pixels and %d frames a latent, %.1f MiB\n", model->latent_channels,
      c->vae.spatial_scale, c->vae.spatial_scale, c->vae.temporal_scale, file_mib (model, DP_MODEL_VAE));
}

static gboolean
inspect (GError **error)
{
  g_autoptr (DpPlan) plan = NULL;
  int gpus = print_devices ();

  plan = dp_plan_new (&settings, error);
  if (plan == NULL)
    return FALSE;
  const DpSettings *s = &plan->settings;
  g_autofree char *guidance = guidance_text (s), *description = dp_plan_describe (plan);
  print_model (plan->model);
  printf ("settings\n  %dx%d at %d/%d frames a second, %s, %d steps, guidance %s, flow shift %g\n", s->width, s->height,
      plan->info.fps_n, plan->info.fps_d, s->sampler, s->steps, guidance, s->flow_shift);
  printf ("  blocks of %d latents, context %d, queue of %d frames\n", s->block_latents, plan->context_latents, s->max_queue_frames);
  printf ("plan for devices=%s\n%s", settings.devices ? settings.devices : "auto", description);
  printf ("all of it on one device\n");
  print_verdict ("cpu");
  for (int i = 0; i < gpus; i++) {
    g_autofree char *name = g_strdup_printf ("cuda:%d", i);
    print_verdict (name);
  }
  return TRUE;
}

/* ---- bench ---- */

/* Memory once a block is decoded, when the first frame of the next one is there. */
typedef struct
{
  gsize held;                   /* by the engine, on its devices */
  gsize in_use;                 /* of those devices, by whomever: what their drivers say */
} Memory;

static Memory
look_at_memory (const DpPlan *plan, const DpStats *stats)
{
  Memory memory = { .held = stats->device_bytes };
  char message[256];

  for (int i = 0; i < plan->n_stages; i++) {
    const char *device = plan->stages[i].device;
    DpDeviceInfo info;
    gboolean seen = FALSE;

    for (int j = 0; j < i; j++)
      seen |= strcmp (device, plan->stages[j].device) == 0;
    if (!seen && dp_device_info (device, &info, message, sizeof message))
      memory.in_use += info.memory_total - info.memory_free;
  }
  return memory;
}

/* What was measured, from the end of a block to the end of another. */
typedef struct
{
  const DpPlan *plan;
  DpStats first, last;
  double seconds;
  GArray *memory;               /* of Memory: element k when block k was decoded */
} Bench;

static double
passes_per_second (const Bench *m)
{
  return (m->last.passes - m->first.passes) / m->seconds;
}

static double
frames_per_second (const Bench *m)
{
  return (m->last.frames - m->first.frames) / m->seconds;
}

static double
realtime_factor (const Bench *m)
{
  return frames_per_second (m) * m->plan->info.fps_d / m->plan->info.fps_n;
}

static double
peak_rss (void)
{
  struct rusage usage;

  getrusage (RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024.0;
}

static void
add_text (JsonBuilder *b, const char *name, const char *text)
{
  json_builder_set_member_name (b, name);
  json_builder_add_string_value (b, text);
}

static void
add_number (JsonBuilder *b, const char *name, double value)
{
  json_builder_set_member_name (b, name);
  json_builder_add_double_value (b, value);
}

static void
add_numbers (JsonBuilder *b, const char *name, const double *values, guint n)
{
  json_builder_set_member_name (b, name);
  json_builder_begin_array (b);
  for (guint i = 0; i < n; i++)
    json_builder_add_double_value (b, values[i]);
  json_builder_end_array (b);
}

static void
print_json (const Bench *m)
{
  const DpStats *last = &m->last;
  guint blocks = m->memory->len;
  g_autofree double *held = g_new (double, blocks), *in_use = g_new (double, blocks);
  g_autoptr (JsonBuilder) b = json_builder_new ();

  for (guint i = 0; i < blocks; i++) {
    held[i] = g_array_index (m->memory, Memory, i).held;
    in_use[i] = g_array_index (m->memory, Memory, i).in_use;
  }
  json_builder_begin_object (b);
  add_text (b, "model", m->plan->info.name);
  add_text (b, "precision", m->plan->settings.precision);
  add_number (b, "width", m->plan->settings.width);
  add_number (b, "height", m->plan->settings.height);
  add_number (b, "stages", m->plan->n_stages);
  add_number (b, "threads", m->plan->settings.threads);
  add_number (b, "block_steps_per_second", passes_per_second (m));
  add_number (b, "frames_per_second", frames_per_second (m));
  add_number (b, "realtime_factor", realtime_factor (m));
  add_number (b, "first_frame_seconds", last->first_frame_seconds);
  add_number (b, "block_load_mean", last->block_load_mean);
  add_number (b, "block_load_p95", last->block_load_p95);
  add_number (b, "block_interval_p50", last->block_interval_p50);
  add_number (b, "block_interval_p95", last->block_interval_p95);
  add_number (b, "decode_busy", last->decode_busy);
  add_numbers (b, "stage_busy", last->stage_busy, last->stages);
  add_number (b, "device_bytes", last->device_bytes);
  add_numbers (b, "device_bytes_by_block", held, blocks);
  add_numbers (b, "in_use_bytes_by_block", in_use, blocks);
  add_number (b, "peak_rss_bytes", peak_rss ());
  json_builder_end_object (b);
  g_autoptr (JsonNode) root = json_builder_get_root (b);
  g_autofree char *text = json_to_string (root, TRUE);
  puts (text);
}

static void
print_table (const Bench *m)
{
  const DpPlan *plan = m->plan;
  const DpSettings *s = &plan->settings;
  const DpStats *last = &m->last;
  g_autofree char *guidance = guidance_text (s);

  printf ("%s %dx%d, %d steps, guidance %s, B %d, C %d, Q %d, %s, %d stage%s, %d threads\n", plan->info.name, s->width, s->height, s->steps,
      guidance, s->block_latents, plan->context_latents, s->queue_blocks, s->precision, plan->n_stages, plan->n_stages == 1 ? "" : "s",
      s->threads);
  printf ("  block-steps per second  %8.2f\n", passes_per_second (m));
  printf ("  frames per second       %8.2f   (%.2f x real time)\n", frames_per_second (m), realtime_factor (m));
  printf ("  a block takes           %8.2f of the time that it plays, 95 %% of them at most %.2f\n", last->block_load_mean,
      last->block_load_p95);
  printf ("  first frame after       %8.2f s\n", last->first_frame_seconds);
  printf ("  decoder busy            %8.0f %%\n", 100 * last->decode_busy);
  for (int i = 0; i < last->stages; i++)
    printf ("  stage %-2d idle           %8.0f %%\n", i, 100 * (1 - last->stage_busy[i]));
  printf ("  device memory           %8.1f MiB, process peak %.1f MiB\n", last->device_bytes / 1048576.0, peak_rss () / 1048576);
  for (guint i = 0; i < m->memory->len; i += MAX (1, m->memory->len - 1)) {
    const Memory *at = &g_array_index (m->memory, Memory, i);
    printf ("  after block %-4u        %8.1f MiB held, %.1f MiB in use on the device\n", i, at->held / 1048576.0, at->in_use / 1048576.0);
  }
}

/* One device alone: what decoding adds to a block's time is what passes have to wait for it. */
static gboolean
add_times (const Bench *m, GError **error)
{
  const DpPlan *plan = m->plan;
  double pass = m->last.pass_seconds[0], block = m->seconds / (m->last.blocks - m->first.blocks);
  DpSpeed speed = { .layer = pass / plan->info.layers, .decode = MAX (0, block - plan->settings.steps * pass) };
  DpDeviceInfo info;
  char message[256];

  if (!dp_device_info (plan->stages[0].device, &info, message, sizeof message)) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_DEVICE, message);
    return FALSE;
  }
  g_strlcpy (speed.device, info.description, sizeof speed.device);
  speed.memory = info.memory_total;
  return dp_speed_table_add (times_file, plan, &speed, error);
}

/* Measures whole blocks, from the end of one to the end of another, so that the start does not count. */
static gboolean
bench (GError **error)
{
  g_autoptr (DpPlan) plan = NULL;
  g_autoptr (DpEngine) engine = NULL;
  g_autoptr (GArray) memory = g_array_new (FALSE, FALSE, sizeof (Memory));
  Bench m = { .memory = memory };
  DpFrame frame;
  gint64 block = -1, start = 0;
  int result;

  if (bench_blocks < 1) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "--blocks is %" G_GINT64_FORMAT "; it must be at least 1", bench_blocks);
    return FALSE;
  }
  m.plan = plan = dp_plan_new (&settings, error);
  if (plan && times_file && plan->n_stages > 1) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "--times measures one device, and devices names %d stages; name one", plan->n_stages);
    return FALSE;
  }
  if (plan == NULL || !dp_engine_open (&engine, plan, NULL, NULL, error))
    return FALSE;
  while ((result = dp_engine_pull (engine, &frame, -1, error)) == 1) {
    gboolean next = frame.block != block;

    block = frame.block;
    dp_engine_release_frame (engine, &frame);
    if (!next || block == 0)
      continue;
    dp_engine_get_stats (engine, &m.last);
    Memory now = look_at_memory (plan, &m.last);
    g_array_append_val (memory, now);
    if (block == 1) {
      m.first = m.last;
      start = g_get_monotonic_time ();
    }
    if (block == 1 + bench_blocks)
      break;
  }
  if (result < 0)
    return FALSE;
  dp_engine_get_stats (engine, &m.last);
  m.seconds = (g_get_monotonic_time () - start) / 1e6;
  if (start)
    (as_json ? print_json : print_table) (&m);
  return dp_engine_end_trace (engine, error) && (times_file == NULL || add_times (&m, error));
}

/* ---- plan ---- */

/* How fast a plan would be with these times. */
static gboolean
speed_of (const DpPlan *plan, const DpSpeed *times, DpRingSpeed *speed, GError **error)
{
  DpRingTimes ring = { .decode = times->decode };

  for (int i = 0; i < plan->n_stages; i++)
    ring.stage[i] = times->layer * (plan->stages[i].last - plan->stages[i].first);
  return dp_simulate (plan, &ring, 0, speed, error);
}

static void
print_speed (const DpPlan *plan, const DpSpeed *times, const DpRingSpeed *speed, const DpRingSpeed *one)
{
  const DpSettings *s = &plan->settings;
  double fps = s->block_latents * plan->info.temporal_scale / speed->block;
  int busiest = 0;

  printf ("predicted from times measured on %s\n", times->device);
  printf ("  a pass        %.4g s, all stages together\n", times->layer * plan->info.layers);
  printf ("  a block       every %.4g s: %.4g frames/s, %.3g times real time, %.2f times as fast as one\n", speed->block, fps,
      fps * plan->info.fps_d / plan->info.fps_n, one->block / speed->block);
  printf ("  first block   after %.4g s, loading and decoding apart\n", speed->first);
  printf ("  a new prompt  is seen after %.4g s, decoding apart\n", speed->latency);
  for (int i = 0; i < plan->n_stages; i++) {
    printf ("  stage %-7d idle %.1f %%\n", i, MAX (0, 100 * (1 - speed->busy[i])));
    if (speed->busy[i] > speed->busy[busiest])
      busiest = i;
  }
  if (speed->busy[busiest] > 0.99)
    printf ("  stage %d is what limits: it is always busy\n", busiest);
  else
    printf ("  what limits is the number of blocks in flight: every stage waits for them\n");
}

static gboolean
plan_ring (GError **error)
{
  DpDeviceInfo info = { .fast_bf16 = TRUE, .fp8 = TRUE, .gpus = gpus_assumed };
  g_autoptr (DpPlan) plan = NULL, one = NULL;
  DpRingSpeed speed, alone;
  DpSpeed times;
  char message[256];

  if (gpus_assumed < 0 || (gpus_assumed > 0 && (settings.devices || times_file == NULL))) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "--gpus is %d; it must be at least 1, and goes with --times and without --devices",
        gpus_assumed);
    return FALSE;
  }
  one = gpus_assumed ? dp_plan_assume (&settings, 1, &info, error) : dp_plan_new (&settings, error);
  if (one == NULL)
    return FALSE;
  if (!gpus_assumed && !dp_device_info (one->stages[0].device, &info, message, sizeof message)) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_DEVICE, message);
    return FALSE;
  }
  if (times_file && !dp_speed_table_find (times_file, one, gpus_assumed ? gpu_model : info.description, &times, error))
    return FALSE;
  if (gpus_assumed)
    info.memory_total = info.memory_free = times.memory;
  plan = gpus_assumed ? dp_plan_assume (&settings, gpus_assumed, &info, error) : dp_plan_ref (one);
  if (plan == NULL)
    return FALSE;

  g_autofree char *description = dp_plan_describe (plan);
  fputs (description, stdout);
  if (times_file == NULL)
    return TRUE;
  dp_plan_unref (one);
  one = dp_plan_assume (&settings, 1, &info, error);
  if (one == NULL || !speed_of (plan, &times, &speed, error) || !speed_of (one, &times, &alone, error))
    return FALSE;
  print_speed (plan, &times, &speed, &alone);
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
  { "bench", "measure the whole engine", bench_options, bench },
  { "plan", "show the plan, and how fast it would be", plan_options, plan_ring },
};

static int
usage (FILE *to)
{
  fprintf (to, "usage: dualparal COMMAND [OPTION...]\n\n");
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++)
    fprintf (to, "  %-10s %s\n", commands[i].name, commands[i].summary);
  fprintf (to, "\ndualparal COMMAND --help lists a command's options.\n");
  return to == stdout ? 0 : 2;
}

static int
run_command (const Command *command, int argc, char **argv)
{
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;
  g_autofree char *summary = g_strdup_printf ("dualparal %s: %s", command->name, command->summary);

  g_option_context_set_summary (context, summary);
  g_option_context_set_description (context, "A setting that is left out, or 0 where it is a number and not the seed, is the model's own "
      "default; inspect prints them.");
  g_option_context_add_main_entries (context, engine_options, NULL);
  if (command->options)
    g_option_context_add_main_entries (context, command->options, NULL);
  if (command->run == generate)
    settings.num_frames = 81;
  if (g_option_context_parse (context, &argc, &argv, &error) && argc > 1)
    g_set_error (&error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED, "%s is not an option; the text of a prompt goes behind --prompt, in quotes",
        argv[1]);
  if (error) {
    fprintf (stderr, "dualparal: %s\n", error->message);
    return 2;
  }
  if (command->run (&error))
    return 0;
  fprintf (stderr, "dualparal: %s\n", error->message);
  return 1;
}

int
main (int argc, char **argv)
{
  if (argc < 2)
    return usage (stderr);
  if (strcmp (argv[1], "--help") == 0 || strcmp (argv[1], "-h") == 0)
    return usage (stdout);
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++)
    if (strcmp (argv[1], commands[i].name) == 0)
      return run_command (&commands[i], argc - 1, argv + 1);
  fprintf (stderr, "dualparal: no command is called %s\n", argv[1]);
  return usage (stderr);
}
