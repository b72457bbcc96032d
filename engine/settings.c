/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "settings.h"
#include "memory.h"
#include "wan/tokenizer.h"
#include "kernels/device.h"
#include "kernels/locate.h"

#include <math.h>
#include <string.h>

#define MAX_FRAMES ((gint64) 1 << 48)   /* far from where sums of it overflow, and a hundred thousand years of video */

static gboolean
is_model (const char *dir)
{
  g_autofree char *index = g_build_filename (dir, "model_index.json", NULL);

  return g_file_test (index, G_FILE_TEST_EXISTS);
}

/* The model below one of the directories that this code lies in: that of the same installation, also where it was moved as a whole. */
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
dp_embedded_model (void)
{
  static GOnce around = G_ONCE_INIT;
  const char *candidates[] = { dp_locate_in_build_tree () ? DP_EMBEDDED_SOURCE_DIR : g_once (&around, look_around, NULL),
      DP_EMBEDDED_INSTALL_DIR };

  for (guint i = 0; i < G_N_ELEMENTS (candidates); i++)
    if (candidates[i] && is_model (candidates[i]))
      return candidates[i];
  return NULL;
}

static gboolean
refuse (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* What a caller gave need not be UTF-8, but a message is. */
static gboolean
refuse (GError **error, const char *format, ...)
{
  g_autofree char *message = NULL, *valid = NULL;
  va_list args;

  va_start (args, format);
  message = g_strdup_vprintf (format, args);
  va_end (args);
  valid = g_utf8_make_valid (message, -1);
  g_set_error_literal (error, DP_ERROR, DP_ERROR_SETTINGS, valid);
  return FALSE;
}

static gboolean
check_range (GError **error, const char *name, gint64 value, gint64 min, gint64 max)
{
  if (value >= min && value <= max)
    return TRUE;
  return refuse (error, "%s is %" G_GINT64_FORMAT "; it must be from %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT, name, value, min, max);
}

/* What all devices named have in common. */
typedef struct
{
  gboolean fast_bf16;
  const char *without_fp8;      /* one of those that lack it, or NULL */
} Abilities;

/* Adds a stage on `name`, which is tried, so that a wrong one is said at once and not after minutes of loading. */
static gboolean
add_device (DpResolved *r, const char *name, Abilities *all, GError **error)
{
  const char *first = r->n_devices ? r->devices[0] : name;
  DpDeviceInfo info;
  char message[256];

  if (r->n_devices == DP_MAX_STAGES)
    return refuse (error, "devices names more than %d stages", DP_MAX_STAGES);
  if (!dp_device_info (name, &info, message, sizeof message)) {
    g_autofree char *valid = g_utf8_make_valid (message, -1);
    g_set_error (error, DP_ERROR, DP_ERROR_DEVICE, "devices: %s", valid);
    return FALSE;
  }
  if (strcmp (name, first) != 0 && (g_str_has_prefix (name, "cuda") || g_str_has_prefix (first, "cuda")))
    return refuse (error, "devices names %s and %s, but blocks cannot go from one to the other yet; name one GPU, as often as there are to "
        "be stages", first, name);
  all->fast_bf16 &= info.fast_bf16;
  if (!info.fp8)
    all->without_fp8 = name;
  r->devices[r->n_devices++] = name;
  return TRUE;
}

/* "cpu,cpu" -> two stages. */
static gboolean
parse_devices (DpResolved *r, Abilities *all, GStringChunk *storage, GError **error)
{
  g_auto (GStrv) names = NULL;
  char message[256];
  DpDeviceInfo gpu;

  if (strcmp (r->settings.devices, "auto") == 0)
    r->settings.devices = dp_device_info ("cuda:0", &gpu, message, sizeof message) ? "cuda:0" : "cpu";
  names = g_strsplit (r->settings.devices, ",", -1);
  r->n_devices = 0;
  for (int i = 0; names[i]; i++)
    if (!add_device (r, g_string_chunk_insert_const (storage, g_strstrip (names[i])), all, error))
      return FALSE;
  if (r->n_devices == 0)
    return refuse (error, "devices is empty; use for example \"cpu\" or \"auto\"");
  if (r->n_devices > r->config.dit.layers)
    return refuse (error, "devices names %d stages, but the model has only %d layers; name at most that many", r->n_devices,
        r->config.dit.layers);
  return TRUE;
}

static gboolean
parse_precision (DpResolved *r, const Abilities *all, GError **error)
{
  DpSettings *s = &r->settings;

  if (strcmp (s->precision, "auto") == 0)
    s->precision = all->fast_bf16 ? "bfloat16" : "float32";
  r->fp8 = strcmp (s->precision, "fp8") == 0;
  r->bfloat16 = r->fp8 || strcmp (s->precision, "bfloat16") == 0;
  if (!r->bfloat16 && strcmp (s->precision, "float32") != 0)
    return refuse (error, "precision is \"%s\"; it must be auto, float32, bfloat16 or fp8", s->precision);
  if (r->fp8 && all->without_fp8)
    return refuse (error, "precision is fp8, which needs GPUs of compute capability 9.0 (H100, H200), and device %s is none; use bfloat16",
        all->without_fp8);
  return TRUE;
}

static gboolean
parse_text_encoder (DpResolved *r, GError **error)
{
  const char *name = r->settings.text_encoder;

  if (strcmp (name, "auto") == 0)
    r->settings.text_encoder = name = dp_memory_has_room (r) ? "resident" : "streamed";
  r->streamed = strcmp (name, "streamed") == 0;
  return r->streamed || strcmp (name, "resident") == 0
      || refuse (error, "text-encoder is \"%s\"; it must be auto, resident or streamed", name);
}

static void
fill_defaults (DpResolved *r, GStringChunk *storage)
{
  DpSettings *s = &r->settings;
  const DpDefaults *d = &r->config.defaults;
  const DpSchedulerConfig *scheduler = &r->config.scheduler;

  s->prompt = g_string_chunk_insert (storage, s->prompt ? s->prompt : d->prompt);
  s->negative_prompt = g_string_chunk_insert (storage, s->negative_prompt ? s->negative_prompt : d->negative_prompt);
  s->devices = g_string_chunk_insert (storage, s->devices ? s->devices : "auto");
  s->sampler = g_string_chunk_insert (storage, s->sampler ? s->sampler : d->sampler[0] ? d->sampler : scheduler->sampler);
  s->precision = g_string_chunk_insert (storage, s->precision ? s->precision : "auto");
  s->text_encoder = g_string_chunk_insert (storage, s->text_encoder ? s->text_encoder : "auto");
  s->trace = s->trace ? g_string_chunk_insert (storage, s->trace) : NULL;
  s->width = s->width ? s->width : d->width;
  s->height = s->height ? s->height : d->height;
  s->steps = s->steps ? s->steps : d->steps;
  /* what was not asked for follows what was: a default never makes a setting of the caller's invalid, or half of it ineffective */
  if (s->guidance_scale_2 == 0 && r->config.experts == 2)
    s->guidance_scale_2 = s->guidance_scale != 0 ? s->guidance_scale : d->guidance_scale_2 != 0 ? d->guidance_scale_2 : d->guidance_scale;
  s->guidance_scale = s->guidance_scale != 0 ? s->guidance_scale : d->guidance_scale;
  s->flow_shift = s->flow_shift != 0 ? s->flow_shift : d->flow_shift > 0 ? d->flow_shift : scheduler->flow_shift;
  s->block_latents = s->block_latents ? s->block_latents : d->block_latents;
  s->context_latents = s->context_latents ? s->context_latents : MIN (d->context_latents, s->block_latents);
  s->queue_blocks = s->queue_blocks ? s->queue_blocks : d->queue_blocks ? MIN (d->queue_blocks, s->steps) : s->steps;
  s->threads = s->threads ? s->threads : dp_device_processors ();
  s->text_length = s->text_length ? s->text_length : 512;
  r->context_latents = MAX (s->context_latents, 0);
  /* two blocks and a frame: one is shown while the next one is being filled in; a size that is refused later must not overflow here */
  s->max_queue_frames = s->max_queue_frames ? s->max_queue_frames
      : 2 * CLAMP (s->block_latents, 1, 1024) * r->config.vae.temporal_scale + 1;
}

static gboolean
check_size (const DpResolved *r, const char *name, int value, GError **error)
{
  int step = 2 * r->config.vae.spatial_scale;

  if (value < step || value > 8192 || value % step != 0)
    return refuse (error, "%s is %d; it must be a multiple of %d from %d to 8192", name, value, step, step);
  return TRUE;
}

static gboolean
check_guidance (const char *name, double value, GError **error)
{
  if (!isfinite (value) || value < 0 || value > 100)
    return refuse (error, "%s is %g; it must be above 0 and at most 100 (up to 1: no guidance)", name, value);
  return TRUE;
}

static gboolean
check_values (const DpResolved *r, GError **error)
{
  const DpSettings *s = &r->settings;

  if (!check_size (r, "width", s->width, error) || !check_size (r, "height", s->height, error)
      || !check_range (error, "steps", s->steps, 1, 1000) || !check_range (error, "block-latents", s->block_latents, 1, 1024)
      || !check_range (error, "context-latents", s->context_latents, -1, 1024)
      || !check_range (error, "queue-blocks", s->queue_blocks, 1, s->steps)
      || !check_range (error, "max-queue-frames", s->max_queue_frames, 1, 1 << 20) || !check_range (error, "threads", s->threads, 1, 1024)
      || !check_range (error, "text-length", s->text_length, 1, 4096) || !check_range (error, "linger", s->linger, 0, G_MAXINT))
    return FALSE;
  if (s->context_latents > s->block_latents)
    return refuse (error, "context-latents is %d, more than block-latents (%d); a block can lend at most the latents it owns",
        s->context_latents, s->block_latents);
  if (s->num_frames < -1 || s->num_frames == 0 || s->num_frames > MAX_FRAMES)
    return refuse (error, "num-frames is %" G_GINT64_FORMAT "; it must be at least 1, or -1 for an endless video", s->num_frames);
  if (!check_guidance ("guidance-scale", s->guidance_scale, error) || !check_guidance ("guidance-scale-2", s->guidance_scale_2, error))
    return FALSE;
  if (s->guidance_scale_2 != 0 && r->config.experts == 1)
    return refuse (error, "guidance-scale-2 is %g, but the model has no second transformer (transformer_2) for it; leave it out",
        s->guidance_scale_2);
  if (!isfinite (s->flow_shift) || s->flow_shift <= 0 || s->flow_shift > 100)
    return refuse (error, "flow-shift is %g; it must be above 0 and at most 100", s->flow_shift);
  if (strcmp (s->sampler, "unipc") != 0 && strcmp (s->sampler, "euler") != 0)
    return refuse (error, "sampler is \"%s\"; it must be unipc or euler", s->sampler);
  if ((guint) s->format > DP_FORMAT_XBGR)
    return refuse (error, "format %d is not one of DpFormat", s->format);
  return TRUE;
}

gboolean
dp_prompt_check (const char *prompt, GError **error)
{
  g_autofree char *cleaned = dp_prompt_clean (prompt, error);

  return cleaned != NULL;
}

/* Block 0 has no context in front, every other one C; the longest input is one of the two. */
static void
measure_blocks (DpResolved *r)
{
  gint64 frames = r->settings.num_frames, scale = r->config.vae.temporal_scale;
  int B = r->settings.block_latents, C = r->context_latents;

  r->latents = frames < 0 ? -1 : 1 + (frames - 1 + scale - 1) / scale;
  r->max_own = r->latents >= 0 ? MIN (r->latents, B + C) : B + C;
  r->max_input = r->latents >= 0 && r->latents <= r->max_own ? r->max_own : MAX (r->max_own, B + C);
}

DpStageSpec
dp_settings_stage (const DpResolved *r, const DpSampler *sampler)
{
  int scale = r->config.vae.spatial_scale;

  return (DpStageSpec) { .dit = r->config.dit, .experts = r->config.experts, .sampler = sampler, .bfloat16 = r->bfloat16, .fp8 = r->fp8,
    .guidance_scales = { r->settings.guidance_scale, r->settings.guidance_scale_2 }, .latent_h = r->settings.height / scale,
    .latent_w = r->settings.width / scale, .max_own = r->max_own, .max_input = r->max_input, .max_cached = r->context_latents,
    .text_length = r->settings.text_length };
}

gboolean
dp_settings_read (DpResolved *r, const DpSettings *settings, GStringChunk *storage, GError **error)
{
  *r = (DpResolved) { .settings = *settings };
  const char *dir = settings->model ? settings->model : dp_embedded_model ();
  Abilities all = { .fast_bf16 = TRUE };

  if (dir == NULL) {
    g_set_error (error, DP_ERROR, DP_ERROR_NOT_FOUND, "the embedded model is not in %s; install it, or name a model directory",
        dp_locate_in_build_tree () ? DP_EMBEDDED_SOURCE_DIR : DP_EMBEDDED_INSTALL_DIR);
    return FALSE;
  }
  r->settings.model = g_string_chunk_insert (storage, dir);
  if (!dp_model_config_read (&r->config, r->settings.model, error))
    return FALSE;
  fill_defaults (r, storage);
  if (!check_values (r, error) || !parse_devices (r, &all, storage, error) || !parse_precision (r, &all, error)
      || !dp_prompt_check (r->settings.prompt, error) || !dp_prompt_check (r->settings.negative_prompt, error))
    return FALSE;
  measure_blocks (r);
  if (!parse_text_encoder (r, error))
    return FALSE;

  const DpDefaults *d = &r->config.defaults;
  r->info = (DpModelInfo) { .width = d->width, .height = d->height, .fps_n = d->fps_n, .fps_d = d->fps_d, .layers = r->config.dit.layers,
    .latent_channels = r->config.vae.z_dim, .spatial_scale = r->config.vae.spatial_scale, .temporal_scale = r->config.vae.temporal_scale };
  g_strlcpy (r->info.name, d->name, sizeof r->info.name);
  return TRUE;
}

gboolean
dp_settings_resolve (DpSettings *settings, DpModelInfo *info, GStringChunk *storage, GError **error)
{
  g_autofree DpResolved *r = g_new (DpResolved, 1);

  if (!dp_settings_read (r, settings, storage, error))
    return FALSE;
  *settings = r->settings;
  if (info)
    *info = r->info;
  return TRUE;
}
