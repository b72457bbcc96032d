/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli_bench.h"
#include "cli_settings.h"
#include "plan.h"
#include "simulate.h"
#include "speed_table.h"
#include "kernels/device.h"

#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static gboolean as_json;
static gint64 bench_blocks = 10;
static char *add_times_to, *gpu_model = "";
static int gpus_assumed;
static double network;

const GOptionEntry dp_cli_bench_options[] = {
  { "blocks", 0, 0, G_OPTION_ARG_INT64, &bench_blocks, "How many blocks to measure after the first one (default: 10)", "N" },
  { "json", 0, 0, G_OPTION_ARG_NONE, &as_json, "Print one JSON object instead of a table", NULL },
  { "add-times", 0, 0, G_OPTION_ARG_FILENAME, &add_times_to, "Add what a layer and the decoder take on this device to a table",
      "FILE.json" },
  DP_CLI_TRACE_OPTION,
  { NULL }
};

const GOptionEntry dp_cli_plan_options[] = {
  { "gpus", 0, 0, G_OPTION_ARG_INT, &gpus_assumed, "Plan for so many GPUs, which need not be here", "N" },
  { "gpu-model", 0, 0, G_OPTION_ARG_FILENAME, &gpu_model, "Which of the table's: a part of its name (default: the first that fits)",
      "NAME" },
  { "network", 0, 0, G_OPTION_ARG_DOUBLE, &network, "Gigabytes a second that tokens travel with between stages (default: so many that passes hide "
      "it)", "GB/S" },
  { NULL }
};

/* ---- bench ---- */

/* Memory once a block is decoded, when the first frame of the next one is there. */
typedef struct
{
  gsize held;                   /* by the engine, on its devices */
  gsize in_use;                 /* of those devices by all processes, as their drivers say */
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
  /* not by the frames that came: the decoder may catch up, or have run ahead */
  return passes_per_second (m) / m->plan->settings.steps * m->plan->settings.block_latents * m->plan->info.temporal_scale;
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

/* On all devices together, as the plan has it. */
static double
planned_bytes (const DpPlan *plan)
{
  double bytes = plan->decoder_bytes + plan->text_bytes;

  for (int i = 0; i < plan->n_stages; i++)
    bytes += plan->stages[i].bytes;
  return bytes;
}

static void
print_json (const Bench *m)
{
  const DpStats *last = &m->last;
  guint blocks = m->memory->len;
  g_autofree double *held = g_new (double, blocks), *in_use = g_new (double, blocks);
  g_autoptr (JsonBuilder) b = json_builder_new ();
  double stage_bytes[DP_MAX_STAGES];

  for (int i = 0; i < last->stages; i++)
    stage_bytes[i] = last->stage_bytes[i];
  for (guint i = 0; i < blocks; i++) {
    held[i] = g_array_index (m->memory, Memory, i).held;
    in_use[i] = g_array_index (m->memory, Memory, i).in_use;
  }
  json_builder_begin_object (b);
  add_text (b, "model", m->plan->info.name);
  add_text (b, "precision", m->plan->settings.precision);
  add_text (b, "context_mode", m->plan->settings.context_mode);
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
  add_number (b, "planned_bytes", planned_bytes (m->plan));
  add_numbers (b, "stage_bytes", stage_bytes, last->stages);
  add_number (b, "decoder_bytes", last->decoder_bytes);
  add_number (b, "text_bytes", last->text_bytes);
  add_numbers (b, "pass_seconds", last->pass_seconds, last->stages);
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
  g_autofree char *guidance = dp_cli_settings_guidance (s);

  printf ("%s %dx%d, %d steps, guidance %s, B %d, C %d%s, Q %d, %s, %d stage%s, %d threads\n", plan->info.name, s->width, s->height,
      s->steps, guidance, s->block_latents, plan->context_latents, plan->kept_blocks > 0 ? " cached" : "", s->queue_blocks,
      s->precision, plan->n_stages, plan->n_stages == 1 ? "" : "s",
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

/* One device alone: a block takes its passes and its decoding, which runs beside them, so that neither can be timed while the other is at
 * work. What the plan expects of decoding, a small share, is taken as given. */
static gboolean
add_times (const Bench *m, GError **error)
{
  const DpPlan *plan = m->plan;
  double block = plan->settings.steps / passes_per_second (m), decode = MIN (dp_plan_decode_seconds (plan), block / 2);
  /* one without guidance is half a guided one */
  double passes = plan->settings.steps * dp_plan_mean_elements (plan) / plan->elements;
  DpSpeed speed = { .layer = (block - decode) / passes / plan->info.layers, .decode = decode };
  DpDeviceInfo info;
  char message[256];

  if (m->last.passes == m->first.passes) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_SETTINGS, "no pass was finished between the blocks that were measured; ask for "
        "more with --blocks");
    return FALSE;
  }
  if (!dp_device_info (plan->stages[0].device, &info, message, sizeof message)) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_DEVICE, message);
    return FALSE;
  }
  g_strlcpy (speed.device, info.description, sizeof speed.device);
  speed.memory = info.memory_total;
  return dp_speed_table_add (add_times_to, plan, &speed, error);
}

/* Measures whole blocks, from the end of one to the end of another, so that the start does not count. */
gboolean
dp_cli_bench (GError **error)
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
  m.plan = plan = dp_plan_new (&dp_cli_settings, error);
  if (plan && add_times_to && plan->n_stages > 1) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "--add-times measures one device, and devices names %d stages; name one",
        plan->n_stages);
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
  return dp_engine_end_trace (engine, error) && (add_times_to == NULL || add_times (&m, error));
}

/* ---- plan ---- */

/* How fast a plan with measured times would be. */
static gboolean
speed_of (const DpPlan *plan, DpRingSpeed *speed, GError **error)
{
  DpRingTimes ring = { .decode = plan->stages[dp_plan_decoder_stage (plan)].decode };

  if (network > 0)
    ring.hop_frame = dp_plan_token_bytes (plan) / (network * 1e9);
  for (int i = 0; i < plan->n_stages; i++)
    for (int e = 0; e < plan->elements; e++)
      ring.stage[i][e] = dp_plan_seconds (plan, i, e);
  return dp_simulate (plan, &ring, 0, speed, error);
}

static void
print_speed (const DpPlan *plan, const DpRingSpeed *speed, const DpRingSpeed *one)
{
  const DpSettings *s = &plan->settings;
  double fps = s->block_latents * plan->info.temporal_scale / speed->block, pass = 0;
  int busiest = 0;

  printf ("predicted from times measured on");
  for (int i = 0; i < plan->n_stages; i++) {
    g_autofree char *device = dp_quote (plan->stages[i].kind, DP_QUOTE_MAX);

    if (i == 0 || strcmp (plan->stages[i].kind, plan->stages[i - 1].kind) != 0)
      printf ("%s %s", i ? "," : "", device);
    for (int e = 0; e < plan->elements; e++)
      pass += dp_plan_seconds (plan, i, e) * (e == 0 ? 1 : dp_plan_mean_elements (plan) - 1);
  }
  printf ("\n  a pass        %.4g s, all stages together\n", pass);
  printf ("  a block       every %.4g s: %.4g frames/s, %.3g times real time, %.2f times as fast as the first device alone\n", speed->block,
      fps, fps * plan->info.fps_d / plan->info.fps_n, one->block / speed->block);
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

gboolean
dp_cli_plan (GError **error)
{
  DpDeviceInfo info = { .fast_bf16 = TRUE, .fp8 = TRUE, .gpus = gpus_assumed, .speed = 1 };
  DpSettings settings = dp_cli_settings, untimed = dp_cli_settings;
  g_autoptr (DpPlan) plan = NULL, one = NULL;
  DpRingSpeed speed, alone;
  DpSpeed times;

  untimed.times = NULL;
  if (!(network >= 0 && network < G_MAXDOUBLE) || (network > 0 && settings.times == NULL)) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "--network is %g; it must be above 0, and needs --times", network);
    return FALSE;
  }
  if (gpus_assumed < 0) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "--gpus is %d; it must be at least 1", gpus_assumed);
    return FALSE;
  }
  if (gpus_assumed > 0 && (settings.devices || settings.times == NULL)) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_SETTINGS, "--gpus needs --times with measured times of such a GPU, which "
        "`dualparal bench --add-times FILE` writes, and does not go with --devices");
    return FALSE;
  }
  if (gpus_assumed) {
    one = dp_plan_assume (&untimed, 1, &info, error);
    if (one == NULL || !dp_speed_table_find (settings.times, one, gpu_model, &times, error))
      return FALSE;
    g_clear_pointer (&one, dp_plan_unref);
    g_strlcpy (info.description, times.device, sizeof info.description);
    info.memory_total = info.memory_free = times.memory;
    plan = dp_plan_assume (&settings, gpus_assumed, &info, error);
  } else {
    plan = dp_plan_new (&settings, error);
  }
  if (plan == NULL)
    return FALSE;

  g_autofree char *description = dp_plan_describe (plan);
  fputs (description, stdout);
  if (settings.times == NULL)
    return TRUE;
  g_strlcpy (info.description, plan->stages[0].kind, sizeof info.description);
  one = dp_plan_assume (&settings, 1, &info, error);
  if (one == NULL || !speed_of (plan, &speed, error) || !speed_of (one, &alone, error))
    return FALSE;
  print_speed (plan, &speed, &alone);
  return TRUE;
}
