/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plan.h"
#include "block_queue.h"
#include "cut.h"
#include "decoder.h"
#include "part_cache.h"
#include "ranks.h"
#include "schedule.h"
#include "settings.h"
#include "speed_table.h"
#include "transport.h"
#include "wan/text_encoder.h"
#include "wan/vocabulary.h"
#include "kernels/host_limits.h"

#include <string.h>

/* ---- devices and precision ---- */

/* What a device said of itself when it was asked. */
typedef struct
{
  const DpDeviceInfo *assumed;  /* nobody is asked: they all say this; or NULL */
  DpDeviceInfo first;           /* of the first stage's */
  gboolean fast_bf16;           /* all of them */
  const char *without_fp8;      /* one that has no fp8, or NULL */
} Asked;

static gboolean
ask (const char *name, DpDeviceInfo *info, GError **error)
{
  char message[256];

  if (dp_device_info (name, info, message, sizeof message))
    return TRUE;
  dp_error_set (error, DP_ERROR_DEVICE, "devices: %.256s", message);
  return FALSE;
}

/* "auto" is the first GPU if it works, else the CPU; of several ranks on a host each has its own `number`.
 * Why it does not work is kept only where a GPU, or a driver and the module for one, is there: its owner
 * expects it to be used and would wonder. A machine without NVIDIA hardware, or a build without the CUDA
 * module, uses its CPU as a matter of course. */
static const char *
choose_device (DpPlan *plan, int number)
{
  g_autofree char *name = g_strdup_printf ("cuda:%d", number);
  DpDeviceInfo gpu;
  char message[256];

  if (dp_device_info (name, &gpu, message, sizeof message))
    return g_string_chunk_insert_const (plan->storage, name);
  if (gpu.broken) {
    g_autofree char *valid = g_utf8_make_valid (message, -1);
    g_autofree char *sentence = g_strdup_printf ("devices=auto uses the CPU, because the GPU cannot be used: %s", valid);
    plan->passed_over = g_string_chunk_insert (plan->storage, sentence);
  }
  return "cpu";
}

/* Finished blocks come back to rank 0 anyway; else the last stage's device has the least of other work. */
int
dp_plan_decoder_stage (const DpPlan *plan)
{
  return plan->across ? 0 : plan->n_stages - 1;
}

/* Adds a stage on `name`. The device is asked now, so that a wrong name is told at once and not after
 * minutes of loading. */
static gboolean
add_stage (DpPlan *plan, const char *name, Asked *asked, GError **error)
{
  DpPlanStage *stage = &plan->stages[plan->n_stages];
  DpDeviceInfo info;

  if (plan->n_stages == DP_MAX_STAGES)
    return dp_settings_refuse (error, "devices names more than %d stages; name at most that many", DP_MAX_STAGES);
  if (plan->n_stages == 0 || strcmp (name, stage[-1].device) != 0) {
    if (asked->assumed)
      info = *asked->assumed;
    else if (!ask (name, &info, error))
      return FALSE;
    if (plan->n_stages == 0)
      asked->first = info;
    asked->fast_bf16 &= info.fast_bf16;
    if (!info.fp8)
      asked->without_fp8 = name;
    stage->kind = g_string_chunk_insert_const (plan->storage, info.description);
    stage->speed = info.speed;
  } else {
    stage->kind = stage[-1].kind;
    stage->speed = stage[-1].speed;
  }
  stage->device = name;
  plan->n_stages++;
  return TRUE;
}

/* "cuda": a stage on every GPU, as far as there are layers. */
static gboolean
add_gpus (DpPlan *plan, Asked *asked, GError **error)
{
  DpDeviceInfo info;

  if (asked->assumed)
    info = *asked->assumed;
  else if (!ask ("cuda:0", &info, error))
    return FALSE;
  for (int i = 0; i < MIN (info.gpus, plan->model->config.dit.layers); i++) {
    g_autofree char *name = g_strdup_printf ("cuda:%d", i);

    if (!add_stage (plan, g_string_chunk_insert_const (plan->storage, name), asked, error))
      return FALSE;
  }
  return TRUE;
}

/* Stage i is rank i: the first one is here, the others have said what they have. */
static gboolean
add_ranks (DpPlan *plan, Asked *asked, GError **error)
{
  DpSettings *s = &plan->settings;
  const DpRank *ranks;
  DpPostPlace place;

  if (strchr (s->devices, ',') || strcmp (s->devices, "cuda") == 0)
    return dp_settings_refuse (error, "devices is \"%s\", but with ranks=mpi each rank has one device; name that of rank 0, and use "
        "`dualparal worker --devices` for the others", s->devices);
  if ((ranks = dp_ranks_gather (&place, error)) == NULL)
    return FALSE;
  if (strcmp (s->devices, "auto") == 0)
    s->devices = choose_device (plan, place.local_rank);
  if (!add_stage (plan, s->devices, asked, error))
    return FALSE;
  for (; plan->n_stages < place.ranks; plan->n_stages++) {
    const DpRank *r = &ranks[plan->n_stages];

    plan->stages[plan->n_stages] = (DpPlanStage) { .device = r->device, .host = r->host, .threads = r->threads,
      .kind = r->info.description, .speed = r->info.speed };
    asked->fast_bf16 &= r->info.fast_bf16;
    if (!r->info.fp8)
      asked->without_fp8 = r->device;
  }
  s->threads = s->threads ? s->threads : CLAMP (dp_device_processors () / place.local_ranks, 1, DP_MAX_THREADS);
  return TRUE;
}

/* The devices of this process: each named one is a stage, or the only one is all `stages` > 0. */
static gboolean
add_devices (DpPlan *plan, int stages, Asked *asked, GError **error)
{
  DpSettings *s = &plan->settings;
  g_auto (GStrv) names = NULL;

  if (strcmp (s->devices, "auto") == 0)
    s->devices = choose_device (plan, 0);
  names = g_strsplit (s->devices, ",", -1);
  for (int i = 0; names[i]; i++) {
    const char *name = g_string_chunk_insert_const (plan->storage, g_strstrip (names[i]));

    if (strcmp (name, "cuda") == 0 ? !add_gpus (plan, asked, error) : !add_stage (plan, name, asked, error))
      return FALSE;
  }
  if (plan->n_stages == 0)
    return dp_settings_refuse (error, "devices is empty; use for example \"cpu\" or \"auto\"");
  for (; plan->n_stages < stages; plan->n_stages++)
    plan->stages[plan->n_stages] = plan->stages[0];
  return TRUE;
}

/* `stages`: as in add_devices(). */
static gboolean
plan_devices (DpPlan *plan, int stages, Asked *asked, GError **error)
{
  DpSettings *s = &plan->settings;
  int layers = plan->model->config.dit.layers;

  plan->across = strcmp (s->ranks, "mpi") == 0;
  if (!(plan->across ? add_ranks (plan, asked, error) : add_devices (plan, stages, asked, error)))
    return FALSE;
  if (plan->across && plan->n_stages > layers)
    return dp_settings_refuse (error, "ranks=mpi: there are %d ranks, but the model has only %d layers; start at most that many",
        plan->n_stages, layers);
  if (plan->n_stages > layers)
    return dp_settings_refuse (error, "devices names %d stages, but the model has only %d layers; name at most that many",
        plan->n_stages, layers);

  s->threads = s->threads ? s->threads : MIN (dp_device_processors (), DP_MAX_THREADS);
  for (int i = 0; i < plan->n_stages; i++)
    if (plan->stages[i].host == NULL)
      plan->stages[i].threads = MAX (1, s->threads / (plan->across || stages ? 1 : plan->n_stages));
  plan->text_device = plan->stages[0].device;
  plan->decoder_device = plan->stages[dp_plan_decoder_stage (plan)].device;
  return TRUE;
}

static gboolean
plan_precision (DpPlan *plan, const Asked *asked, GError **error)
{
  DpSettings *s = &plan->settings;

  if (strcmp (s->precision, "auto") == 0)
    s->precision = asked->fast_bf16 ? "bfloat16" : "float32";
  plan->fp8 = strcmp (s->precision, "fp8") == 0;
  plan->type = strcmp (s->precision, "float32") == 0 ? DP_TYPE_F32 : DP_TYPE_BF16;
  if (plan->fp8 && asked->without_fp8)
    return dp_settings_refuse (error, "precision is fp8, which needs GPUs of compute capability 9.0 (H100, H200), and device %s is not "
        "one; use bfloat16", asked->without_fp8);
  return TRUE;
}

/* As `chosen` has it. */
static void
keep_devices (DpPlan *plan, const DpPlan *chosen)
{
  DpSettings *s = &plan->settings;
  GStringChunk *storage = plan->storage;

  s->devices = g_string_chunk_insert (storage, chosen->settings.devices);
  s->precision = g_string_chunk_insert (storage, chosen->settings.precision);
  s->threads = chosen->settings.threads;
  plan->n_stages = chosen->n_stages;
  plan->across = chosen->across;
  for (int i = 0; i < plan->n_stages; i++) {
    plan->stages[i] = chosen->stages[i];
    plan->stages[i].device = g_string_chunk_insert_const (storage, chosen->stages[i].device);
    plan->stages[i].kind = g_string_chunk_insert_const (storage, chosen->stages[i].kind);
    plan->stages[i].host = chosen->stages[i].host ? g_string_chunk_insert_const (storage, chosen->stages[i].host) : NULL;
  }
  plan->text_device = plan->stages[0].device;
  plan->decoder_device = plan->stages[dp_plan_decoder_stage (plan)].device;
  plan->type = chosen->type;
  plan->fp8 = chosen->fp8;
  plan->passed_over = chosen->passed_over ? g_string_chunk_insert (storage, chosen->passed_over) : NULL;
}

/* A message a stage and, of stage 0, a pass that it begins beside one that comes back keep all stages busy when all take the same time. Two
 * passes more let the others go on while one is slow, because its device decodes: eight fp8 stages of 1.3B are 4 % faster by them. */
int
dp_plan_messages (int stages, int elements)
{
  return stages == 1 ? elements : MIN (stages + 4 * elements - 1, stages * dp_transport_room (stages) - 1);
}

double
dp_plan_mean_elements (const DpPlan *plan)
{
  return 1 + (double) (plan->guided_end - plan->guided_first) / plan->settings.steps;
}

/* ---- blocks ---- */

/* How many steps the first expert takes: those of the boundary's timestep or more, compared in float32
 * as the reference does. */
static int
switch_step (const DpPlan *plan)
{
  const DpModelConfig *c = &plan->model->config;
  float boundary = c->boundary_ratio * c->scheduler.train_timesteps;
  int step = 0, steps = dp_sampler_steps (plan->sampler);

  while (step < steps && (c->experts == 1 || dp_sampler_timestep (plan->sampler, step) >= boundary))
    step++;
  return step;
}

#define MOST_LEVELS 16          /* in a sentence */

/* The steps whose expert has guidance, of those in the interval of noise levels. An end of 1 is no bound: rounding may put a level of pure
 * noise above it. */
static void
plan_guidance (DpPlan *plan)
{
  const DpSettings *s = &plan->settings;
  int first = s->guidance_scale > 1 ? 0 : plan->switch_step, end = s->guidance_scale_2 > 1 ? s->steps : plan->switch_step;

  gboolean wanted = first < end;

  while (first < end && s->guidance_interval_high < 1 && dp_sampler_sigma (plan->sampler, first) > s->guidance_interval_high)
    first++;
  while (end > first && dp_sampler_sigma (plan->sampler, end - 1) <= s->guidance_interval_low)
    end--;
  if (first < end) {
    plan->guided_first = first;
    plan->guided_end = end;
  }
  plan->elements = first < end ? 2 : 1;
  if (!wanted || first < end)
    return;
  g_autoptr (GString) levels = g_string_new (NULL);
  for (int i = 0; i < s->steps && i < MOST_LEVELS; i++)
    g_string_append_printf (levels, "%s%.3g", i ? ", " : "", dp_sampler_sigma (plan->sampler, i));
  g_autofree char *sentence = g_strdup_printf ("no step has guidance: none starts from a noise level above %g and up to %g; the steps "
      "start from %s%s: choose guidance-interval-low and guidance-interval-high around some of them, or guidance-scale=1",
      s->guidance_interval_low, s->guidance_interval_high, levels->str, s->steps > MOST_LEVELS ? ", ..." : "");
  plan->unguided = g_string_chunk_insert (plan->storage, sentence);
}

/* The size that is made counts: a cropped one looks the same. */
static void
check_size (DpPlan *plan)
{
  int scale = plan->model->config.vae.spatial_scale;
  DpSize made = { plan->latent_w * scale, plan->latent_h * scale };
  g_autofree char *sentence = dp_model_untrained (plan->model, made, (DpSize) { plan->settings.width, plan->settings.height });

  plan->untrained = sentence ? g_string_chunk_insert (plan->storage, sentence) : NULL;
}

static gboolean
check_noise (const DpPlan *plan, GError **error)
{
  const DpSettings *s = &plan->settings;

  return s->noise == NULL || s->noise_latents >= MAX (plan->latents, 1) || dp_settings_refuse (error,
      "the noise given has %" G_GINT64_FORMAT " latent frames, but %" G_GINT64_FORMAT " frames of video need %" G_GINT64_FORMAT
      "; give more noise or ask for fewer frames", s->noise_latents, s->num_frames, plan->latents);
}

/* A block's next pass waits for the previous block's pass of this iteration, which starts right behind its own. That pass of E messages
 * is back after the time of N + E - 1 messages; meanwhile, with n blocks in flight, (n - 1) E messages start. So no stage waits where
 * n E >= N + 2 E - 1. On average n is T / lag. With a cached context it waits for its own pass alone: n E >= N + E - 1. Passes without
 * guidance beside those that have it are counted on the left: n E is then the messages of a block over lag. Where the mode follows from
 * the lag (`follows`), a lag at which the context would be recomputed keeps to the first rule. */
static void
check_queue (DpPlan *plan, gboolean follows)
{
  int steps = plan->settings.steps, stages = plan->n_stages, elements = plan->elements;
  int messages = steps + plan->guided_end - plan->guided_first;         /* of a block, in all its steps */
  int wanted = stages + (plan->kept_blocks > 0 ? 1 : 2) * elements - 1, lag = messages / wanted;

  if (plan->kept_blocks > 0 && follows && plan->lag > lag && lag < DP_CACHED_LAG) {
    wanted += elements;
    lag = messages / wanted;
  }
  if (stages == 1 || (lag > 0 && plan->lag <= lag))
    return;
  g_autofree char *help = lag > 0 ? g_strdup_printf ("queue-blocks=%d keeps all of them busy", (steps + lag - 1) / lag)
    : g_strdup_printf ("with fewer than %d steps no queue keeps them busy: use fewer devices",
        (wanted * steps + messages - 1) / messages);
  g_autofree char *sentence = g_strdup_printf ("queue-blocks is %d, too few for %d stages: some of them wait; %s",
      plan->settings.queue_blocks, stages, help);
  plan->starved = g_string_chunk_insert (plan->storage, sentence);
}

/* Latents on a side of the picture: tokens are two by two of them, so it is made at the next size that is even in latents, and cropped. */
static int
latent_side (const DpVaeConfig *vae, int pixels)
{
  int step = 2 * vae->spatial_scale;

  return (pixels + step - 1) / step * 2;
}

/* Block 0 has no context in front, every other one C; the longest input is one of the two. `asked`: the context mode that was asked
 * for. */
static gboolean
plan_blocks (DpPlan *plan, const char *asked, GError **error)
{
  const DpSettings *s = &plan->settings;
  const DpVaeConfig *vae = &plan->model->config.vae;
  gint64 frames = s->num_frames, scale = vae->temporal_scale;
  int B = s->block_latents, C = MAX (s->context_latents, 0);
  DpBlockQueue queue;

  plan->sampler = dp_sampler_new (s->sampler, s->steps, s->flow_shift, &plan->model->config.scheduler, error);
  if (plan->sampler == NULL)
    return FALSE;
  plan->latent_h = latent_side (vae, s->height);
  plan->latent_w = latent_side (vae, s->width);
  check_size (plan);
  plan->context_latents = C;
  plan->latents = frames < 0 ? -1 : 1 + (frames - 1 + scale - 1) / scale;
  plan->max_own = plan->latents >= 0 ? MIN (plan->latents, B + C) : B + C;
  plan->max_input = plan->latents >= 0 && plan->latents <= plan->max_own ? plan->max_own : MAX (plan->max_own, B + C);
  dp_block_queue_init (&queue, s->steps, s->queue_blocks, dp_blocks_of (plan->latents, B, C));
  plan->lag = queue.lag;
  plan->depth = dp_block_queue_depth (&queue);
  plan->kept_blocks = C > 0 && strcmp (s->context_mode, "cached") == 0 ? dp_block_queue_kept (&queue) : 0;
  plan->switch_step = switch_step (plan);
  plan_guidance (plan);
  plan->messages = dp_plan_messages (plan->n_stages, plan->elements);
  check_queue (plan, asked == NULL || strcmp (asked, "auto") == 0);
  return check_noise (plan, error);
}

DpStageSpec
dp_plan_stage_spec (const DpPlan *plan)
{
  const DpSettings *s = &plan->settings;
  const DpModelConfig *c = &plan->model->config;

  return (DpStageSpec) { .dit = c->dit, .latent_channels = plan->model->latent_channels, .experts = c->experts,
    .expand_timesteps = c->expand_timesteps, .sampler = plan->sampler, .type = plan->type, .fp8 = plan->fp8,
    .switch_step = plan->switch_step, .elements = plan->elements,
    .guidance_scales = { s->guidance_scale, s->guidance_scale_2 }, .latent_h = plan->latent_h, .latent_w = plan->latent_w,
    .max_own = plan->max_own, .max_input = plan->max_input, .max_cached = plan->context_latents, .depth = plan->depth,
    .kept_blocks = plan->kept_blocks, .text_length = s->text_length };
}

gsize
dp_plan_token_bytes (const DpPlan *plan)
{
  const DpDitConfig *c = &plan->model->config.dit;

  return sizeof (float) * (plan->latent_h / 2) * (plan->latent_w / 2) * c->heads * c->head_dim;
}

gsize
dp_plan_latent_size (const DpPlan *plan)
{
  return (gsize) plan->latent_h * plan->latent_w * plan->model->latent_channels;
}

/* ---- cuts ---- */

/* Products that take as long as one of attention's, on a GPU: 553 TFLOP/s of an H200 where products have 710. */
#define ATTENTION_COST 1.3
/* The decoder's products for a pixel of its last level and a square of its base channels, likewise: 30 ms a latent frame of 832x480. */
#define DECODER_COST 1400
/* Counted: blocks whose upsampling keeps the channels have that much more. */
#define RESIDUAL_COST 1.22

/* Products of a layer's two halves for one element of a full pass. */
static void
layer_products (const DpPlan *plan, double *attention, double *rest)
{
  const DpDitConfig *c = &plan->model->config.dit;
  double frame = plan->latent_h / 2.0 * (plan->latent_w / 2), D = (double) c->heads * c->head_dim;
  double rows = (plan->kept_blocks > 0 ? plan->settings.block_latents : plan->max_input) * frame;
  double keys = (plan->max_input + plan->context_latents) * frame;

  *attention = rows * (4 * D * D + ATTENTION_COST * 2 * keys * D);
  *rest = rows * (2 * D * D + 2 * D * c->ffn + ATTENTION_COST * 2 * plan->settings.text_length * D);
}

/* Of a latent frame and sampling step, beside layer_products(): what decoding adds to a pass. */
static double
decoder_products (const DpPlan *plan)
{
  const DpVaeConfig *c = &plan->model->config.vae;
  int scale = c->spatial_scale / c->patch;
  double pixels = (double) plan->latent_w * plan->latent_h * scale * scale * c->temporal_scale;

  return DECODER_COST / 2 * (c->residual ? RESIDUAL_COST : 1) * pixels * c->base_dim * c->base_dim;
}

double
dp_plan_decode_seconds (const DpPlan *plan)
{
  return plan->settings.block_latents * decoder_products (plan) / plan->stages[dp_plan_decoder_stage (plan)].speed;
}

/* Stages of this process that have the same device share it. */
static int
sharers (const DpPlan *plan, int stage)
{
  int n = 0;

  for (int i = 0; i < plan->n_stages; i++)
    n += plan->stages[i].host == plan->stages[stage].host && strcmp (plan->stages[i].device, plan->stages[stage].device) == 0;
  return n;
}

/* The seconds that were measured on each device, if there is a table of them. */
static gboolean
look_up_times (DpPlan *plan, GError **error)
{
  DpSpeed speed;

  for (int i = 0; i < plan->n_stages && plan->settings.times; i++) {
    if (!dp_speed_table_find (plan->settings.times, plan, plan->stages[i].kind, &speed, error))
      return FALSE;
    plan->stages[i].layer = speed.layer;
    plan->stages[i].decode = speed.decode;
  }
  return TRUE;
}

gboolean
dp_plan_is_uniform (const DpPlan *plan)
{
  return plan->elements == 1 || plan->guided_end - plan->guided_first == plan->settings.steps;
}

/* Where only some passes are guided, their negative prompt's message may read what a neighbour's pass without guidance kept for the prompt.
 * So both elements of a layer must be on one stage, and are cut as one, of their time on average.
 * Measured times count, where there are some; else what the devices say of themselves. The decoder is counted where it is alone on its
 * stage's device. The text encoder works once for a prompt, which is not counted. */
static gboolean
plan_cuts (DpPlan *plan, GError **error)
{
  const DpSettings *s = &plan->settings;
  double attention, rest, speeds[DP_MAX_STAGES], others[DP_MAX_STAGES] = { 0 };
  DpHalves cut[DP_MAX_STAGES][2];

  if (!look_up_times (plan, error))
    return FALSE;
  layer_products (plan, &attention, &rest);
  plan->attention = attention / (attention + rest);
  for (int i = 0; i < plan->n_stages; i++) {
    DpPlanStage *stage = &plan->stages[i];
    int n = sharers (plan, i);
    double alone = stage->layer > 0 ? plan->elements / stage->layer : stage->speed / (attention + rest);

    speeds[i] = alone / n / (dp_plan_is_uniform (plan) ? 1 : dp_plan_mean_elements (plan));
    if (n == 1 && i == dp_plan_decoder_stage (plan))
      others[i] = (stage->layer > 0 ? stage->decode : dp_plan_decode_seconds (plan)) / s->steps;
  }
  dp_cut (&(DpCutSpec) { .layers = plan->model->config.dit.layers, .elements = dp_plan_is_uniform (plan) ? plan->elements : 1,
      .stages = plan->n_stages, .attention = plan->attention, .speeds = speeds, .others = others }, cut);
  for (int i = 0; i < plan->n_stages; i++)
    memcpy (plan->stages[i].halves, plan->given ? plan->given[i] : cut[i], sizeof plan->stages[i].halves);
  return TRUE;
}

double
dp_plan_seconds (const DpPlan *plan, int stage, int element)
{
  const DpPlanStage *s = &plan->stages[stage];

  return dp_cut_layers (plan->attention, s->halves[element]) * s->layer / plan->elements * sharers (plan, stage);
}

/* ---- memory ---- */

gsize
dp_plan_text_bytes (const DpPlan *plan, gboolean streamed)
{
  return dp_text_encoder_bytes (&plan->model->config.text, plan->type, plan->settings.text_length, streamed);
}

gsize
dp_plan_bytes (const DpPlan *plan, const char *device)
{
  gsize bytes = 0;

  for (int i = 0; i < plan->n_stages; i++)
    if (plan->stages[i].host == NULL && strcmp (plan->stages[i].device, device) == 0)
      bytes += plan->stages[i].bytes;
  if (strcmp (plan->decoder_device, device) == 0)
    bytes += plan->decoder_bytes;
  if (strcmp (plan->text_device, device) == 0)
    bytes += plan->text_bytes;
  return bytes;
}

gboolean
dp_plan_check_address_space (const DpPlan *plan, GError **error)
{
  const gsize libraries = (gsize) 64 << 20, thread = (gsize) 72 << 20;
  int threads = 2 * plan->settings.threads + plan->n_stages;
  gsize total, left, needed;

  for (int i = 0; i < plan->n_stages; i++)
    threads += MAX (0, plan->stages[i].threads - 1);
  needed = dp_plan_bytes (plan, "cpu") + libraries + threads * thread;
  dp_host_limits_address_space (&total, &left);
  if (left == G_MAXSIZE || needed <= left + dp_part_cache_bytes ("cpu"))
    return TRUE;
  dp_error_set (error, DP_ERROR_NO_MEMORY, "`ulimit -v` leaves %.1f MiB of address space, and this needs %.1f MiB with %d threads; raise the "
      "limit, or use fewer threads or a smaller width and height", left / 1048576.0, needed / 1048576.0, threads);
  return FALSE;
}

static void
plan_memory (DpPlan *plan)
{
  const DpSettings *s = &plan->settings;
  DpStageSpec spec = dp_plan_stage_spec (plan);

  for (int i = 0; i < plan->n_stages; i++)
    plan->stages[i].bytes = dp_stage_bytes (&spec, plan->stages[i].halves)
      + dp_transport_room (plan->n_stages) * dp_stage_block_bytes (&spec);
  plan->stages[0].bytes += dp_schedule_bytes (plan->depth, plan->max_own, dp_plan_latent_size (plan));
  plan->decoder_bytes = dp_decoder_bytes (&(DpDecoderSpec) { .vae = plan->model->config.vae, .device = plan->decoder_device,
      .type = plan->type, .latent_h = spec.latent_h, .latent_w = spec.latent_w, .width = s->width, .height = s->height,
      .max_queue_frames = s->max_queue_frames,
      .format = s->format });
}

/* Whether the text encoder's device has room for all of it beside the rest. An eighth of the memory is
 * left to libraries: too little would be an error later, too much costs a second for each prompt. */
static gboolean
has_room (const DpPlan *plan, const DpDeviceInfo *info)
{
  gsize needed = dp_plan_bytes (plan, plan->text_device) + dp_plan_text_bytes (plan, FALSE);

  /* What lies there warm is either wanted or will be freed. */
  return needed + info->memory_total / 8 <= info->memory_free + dp_part_cache_bytes (plan->text_device);
}

/* `info`: of the first device, if it has just been asked; else NULL. Memory that is free is of the moment,
 * so it is asked again whenever the size is new. */
static void
plan_text_encoder (DpPlan *plan, const DpDeviceInfo *info)
{
  DpSettings *s = &plan->settings;
  DpDeviceInfo now;

  if (strcmp (s->text_encoder, "auto") == 0) {
    if (info == NULL && ask (plan->text_device, &now, NULL))
      info = &now;
    /* A device that cannot be asked cannot be opened either, which will be told then. */
    s->text_encoder = info == NULL || has_room (plan, info) ? "resident" : "streamed";
  }
  plan->streamed = strcmp (s->text_encoder, "streamed") == 0;
  plan->text_bytes = dp_plan_text_bytes (plan, plan->streamed);
}

/* ---- the whole ---- */

/* Takes the reference to `model`, which may be NULL: `error` is set then. `chosen`: a plan whose devices and
 * precision are kept, or NULL. `assumed`: what devices say that are not asked, or NULL. `stages`: as in add_devices();
 * `cuts`: theirs, or NULL. */
static DpPlan *
make (DpModel *model, const DpSettings *settings, const DpPlan *chosen, const DpDeviceInfo *assumed, int stages,
    const DpHalves (*cuts)[2], GError **error)
{
  g_autoptr (DpPlan) plan = g_atomic_rc_box_new0 (DpPlan);
  g_autofree Asked *asked = g_new0 (Asked, 1);

  plan->storage = g_string_chunk_new (1024);
  plan->model = model;
  plan->settings = *settings;
  if (chosen && settings->seed == -1)
    plan->settings.seed = chosen->settings.seed;
  asked->fast_bf16 = TRUE;
  asked->assumed = assumed;
  if (model == NULL || !dp_settings_fill (&plan->settings, model, plan->storage, error))
    return NULL;
  if (chosen)
    keep_devices (plan, chosen);
  else if (!plan_devices (plan, stages, asked, error) || !plan_precision (plan, asked, error))
    return NULL;
  plan->given = cuts;
  if (!plan_blocks (plan, settings->context_mode, error) || !plan_cuts (plan, error))
    return NULL;
  plan->given = NULL;
  plan_memory (plan);
  plan_text_encoder (plan, chosen ? NULL : &asked->first);

  const DpDefaults *d = &model->config.defaults;
  plan->info = (DpModelInfo) { .width = d->width, .height = d->height, .fps_n = d->fps_n, .fps_d = d->fps_d,
    .layers = model->config.dit.layers, .latent_channels = model->latent_channels, .spatial_scale = model->config.vae.spatial_scale,
    .temporal_scale = model->config.vae.temporal_scale, .knows = d->knows };
  g_strlcpy (plan->info.name, d->name, sizeof plan->info.name);
  return g_steal_pointer (&plan);
}

DpPlan *
dp_plan_new (const DpSettings *settings, GError **error)
{
  return make (dp_settings_model (settings, error), settings, NULL, NULL, 0, NULL, error);
}

DpPlan *
dp_plan_assume (const DpSettings *settings, int n, const DpDeviceInfo *info, GError **error)
{
  g_autoptr (GString) names = g_string_new ("cuda:0");
  DpSettings s = *settings;

  for (int i = 1; i < n; i++)
    g_string_append_printf (names, ",cuda:%d", i);
  s.devices = names->str;
  s.ranks = NULL;
  return make (dp_settings_model (&s, error), &s, NULL, info, 0, NULL, error);
}

DpPlan *
dp_plan_with (const DpPlan *plan, const DpSettings *settings, GError **error)
{
  return make (dp_model_ref (plan->model), settings, plan, NULL, 0, NULL, error);
}

DpPlan *
dp_plan_for_rank (const DpSettings *settings, int stages, const DpHalves (*cuts)[2], GError **error)
{
  return make (dp_settings_model (settings, error), settings, NULL, NULL, stages, cuts, error);
}

DpPlan *
dp_plan_ref (DpPlan *plan)
{
  return g_atomic_rc_box_acquire (plan);
}

static void
clear (gpointer data)
{
  DpPlan *plan = data;

  dp_sampler_free (plan->sampler);
  dp_model_unref (plan->model);
  g_string_chunk_free (plan->storage);
}

void
dp_plan_unref (DpPlan *plan)
{
  if (plan)
    g_atomic_rc_box_release_full (plan, clear);
}

const DpSettings *
dp_plan_settings (const DpPlan *plan)
{
  return &plan->settings;
}

const DpModelInfo *
dp_plan_model (const DpPlan *plan)
{
  return &plan->info;
}

const char *
dp_plan_passed_over (const DpPlan *plan)
{
  return plan->passed_over;
}

const char *
dp_plan_unguided (const DpPlan *plan)
{
  return plan->unguided;
}

const char *
dp_plan_untrained (const DpPlan *plan)
{
  return plan->untrained;
}

const char *
dp_plan_unheld (const DpPlan *plan)
{
  const DpSettings *s = &plan->settings;

  return (s->image || s->image_rgb) && !plan->model->config.expand_timesteps ? "image: this model was trained with text alone, and its "
      "video soon leaves the picture; Wan2.2-TI2V-5B was trained to begin with one" : NULL;
}

const char *
dp_plan_starved (const DpPlan *plan)
{
  return plan->starved;
}

char *
dp_plan_unknown_words (const DpPlan *plan, const char *prompt)
{
  return dp_vocabulary_unknown (&plan->model->config.defaults, prompt);
}
