/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_plan.c: what was asked for and what will be done. Settings know nothing of this machine; a plan
 * decides each thing once and keeps it.
 */
#include "engine/plan.h"
#include "engine/settings.h"
#include "engine/transport.h"

#include <stdlib.h>
#include <string.h>

static const DpSettings small = { .width = 64, .height = 48, .steps = 4, .queue_blocks = 2, .num_frames = -1, .text_encoder = "resident" };

static DpPlan *
plan_for (const DpSettings *settings)
{
  g_autoptr (GError) error = NULL;
  DpPlan *plan = dp_plan_new (settings, &error);

  g_assert_no_error (error);
  return plan;
}

static void
check_refused (DpPlan *plan, GError **error, int code, const char *needle)
{
  g_assert_null (plan);
  g_assert_error (*error, DP_ERROR, code);
  if (strstr ((*error)->message, needle) == NULL)
    g_test_fail_printf ("the sentence does not say \"%s\": %s", needle, (*error)->message);
  g_clear_error (error);
}

/* Devices that are not here are no matter of settings, and what depends on devices stays open. */
static void
test_settings (void)
{
  g_autoptr (GStringChunk) storage = g_string_chunk_new (256);
  g_autoptr (DpModel) model = dp_model_open (NULL, NULL, NULL);
  g_autoptr (GError) error = NULL;
  DpSettings s = { .devices = "abacus:3", .num_frames = 9 }, open = { .num_frames = -1, .times = "", .trace = "" };

  g_assert_true (dp_settings_fill (&s, model, storage, &error));
  g_assert_cmpstr (s.devices, ==, "abacus:3");
  g_assert_true (dp_settings_fill (&open, model, storage, &error));
  g_assert_cmpstr (open.devices, ==, "auto");
  g_assert_cmpstr (open.precision, ==, "auto");
  g_assert_cmpstr (open.text_encoder, ==, "auto");
  g_assert_null (open.times);
  g_assert_null (open.trace);
  g_assert_cmpint (open.threads, ==, 0);
  g_assert_cmpint (open.width, ==, model->config.defaults.width);
  g_assert_cmpint (open.steps, ==, model->config.defaults.steps);
  g_assert_no_error (error);
  g_assert_cmpfloat (open.guidance_interval_low, ==, 0);
  g_assert_cmpfloat (open.guidance_interval_high, ==, 1);

  /* A model's interval, and what was asked for instead */
  static const double ends[][4] = { { 0, 0, 0.2, 0.9 }, { 0, 1, 0, 1 }, { 0.3, 0, 0.3, 1 }, { 0, 0.5, 0, 0.5 } };
  model->config.defaults.guidance_interval_low = 0.2;
  model->config.defaults.guidance_interval_high = 0.9;
  for (gsize i = 0; i < G_N_ELEMENTS (ends); i++) {
    DpSettings interval = { .num_frames = -1, .guidance_interval_low = ends[i][0], .guidance_interval_high = ends[i][1] };

    g_assert_true (dp_settings_fill (&interval, model, storage, &error));
    g_assert_cmpfloat (interval.guidance_interval_low, ==, ends[i][2]);
    g_assert_cmpfloat (interval.guidance_interval_high, ==, ends[i][3]);
  }
  open.precision = "int4";
  g_assert_false (dp_settings_fill (&open, model, storage, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_SETTINGS);
}

static void
test_messages (void)
{
  g_assert_cmpint (dp_plan_messages (1, 1), ==, 1);
  g_assert_cmpint (dp_plan_messages (2, 1), ==, 5);
  g_assert_cmpint (dp_plan_messages (4, 1), ==, 7);
  g_assert_cmpint (dp_plan_messages (1, 2), ==, 2);
  g_assert_cmpint (dp_plan_messages (2, 2), ==, 7);
  g_assert_cmpint (dp_plan_messages (7, 2), ==, 14);
  for (int stages = 2; stages <= DP_MAX_STAGES; stages++)       /* the ring never locks up */
    g_assert_cmpint (dp_plan_messages (stages, 2), <, stages * dp_transport_room (stages));
}

static void
test_stages (void)
{
  DpSettings s = small;

  s.devices = " cpu , ref,cpu";
  s.threads = 7;
  g_autoptr (DpPlan) plan = plan_for (&s);
  gsize stages = 0;
  int next = 0;

  g_assert_cmpint (plan->n_stages, ==, 3);
  for (int i = 0; i < 3; i++) {
    const DpPlanStage *stage = &plan->stages[i];

    g_assert_cmpstr (stage->device, ==, i == 1 ? "ref" : "cpu");
    g_assert_cmpint (stage->halves[0].first, ==, next);
    g_assert_cmpint (stage->threads, ==, 2);
    g_assert_cmpuint (stage->bytes, >, 0);
    stages += stage->bytes;
    next = stage->halves[0].last;
  }
  g_assert_cmpint (next, ==, 2 * dp_plan_model (plan)->layers);
  g_assert_cmpstr (plan->text_device, ==, "cpu");
  g_assert_cmpstr (plan->decoder_device, ==, "cpu");
  g_assert_cmpuint (dp_plan_bytes (plan, "ref"), ==, plan->stages[1].bytes);
  g_assert_cmpuint (dp_plan_bytes (plan, "cpu") + plan->stages[1].bytes, ==, stages + plan->decoder_bytes + plan->text_bytes);
  g_assert_cmpuint (plan->text_bytes, ==, dp_plan_text_bytes (plan, FALSE));
  g_assert_cmpuint (dp_plan_text_bytes (plan, TRUE), <, plan->text_bytes);
  g_assert_cmpint (plan->lag, ==, 2);
  g_assert_cmpint (plan->depth, ==, 2);
  g_assert_cmpint (plan->messages, ==, 6);
  g_assert_cmpint (plan->latent_w, ==, 8);
  g_assert_cmpint (plan->latent_h, ==, 6);
  g_assert_cmpint (plan->switch_step, ==, 4);
  g_assert_null (dp_plan_passed_over (plan));
}

/* A short video has no full block. */
static void
test_blocks (void)
{
  const struct { int frames, own, input; gint64 latents; } videos[] = {
    { -1, 6, 6, -1 }, { 1, 1, 1, 1 }, { 9, 3, 3, 3 }, { 10, 4, 4, 4 }, { 21, 6, 6, 6 }, { 22, 6, 6, 7 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (videos); i++) {
    DpSettings s = small;

    s.devices = "cpu";
    s.block_latents = 4;
    s.context_latents = 2;
    s.num_frames = videos[i].frames;
    g_autoptr (DpPlan) plan = plan_for (&s);
    g_assert_cmpint (plan->latents, ==, videos[i].latents);
    g_assert_cmpint (plan->max_own, ==, videos[i].own);
    g_assert_cmpint (plan->max_input, ==, videos[i].input);
  }
}

/* Another size on the same devices, whatever the settings say of those. */
static void
test_with (void)
{
  DpSettings s = small;
  GError *error = NULL;

  s.devices = "ref,ref";
  s.threads = 4;
  s.precision = "bfloat16";
  g_autoptr (DpPlan) plan = plan_for (&s);
  s = (DpSettings) { .model = "/nowhere", .devices = "cpu", .precision = "float32", .threads = 1, .width = 128, .height = 96, .steps = 4,
    .format = DP_FORMAT_NV12, .num_frames = 21, .prompt = "a red ball" };
  g_autoptr (DpPlan) larger = dp_plan_with (plan, &s, &error);
  g_assert_no_error (error);
  const DpSettings *is = dp_plan_settings (larger);
  g_assert_cmpint (larger->n_stages, ==, 2);
  g_assert_cmpstr (larger->stages[1].device, ==, "ref");
  g_assert_cmpint (larger->stages[0].halves[0].last, ==, larger->stages[1].halves[0].first);
  g_assert_cmpint (larger->stages[1].threads, ==, 2);
  g_assert_cmpint (larger->type, ==, DP_TYPE_BF16);
  g_assert_cmpstr (is->devices, ==, "ref,ref");
  g_assert_cmpstr (is->precision, ==, "bfloat16");
  g_assert_cmpint (is->threads, ==, 4);
  g_assert_cmpstr (is->model, ==, dp_model_embedded ());
  g_assert_cmpint (is->width, ==, 128);
  g_assert_cmpint (is->format, ==, DP_FORMAT_NV12);
  g_assert_cmpstr (is->prompt, ==, "a red ball");
  g_assert_cmpint (larger->latents, ==, 6);
  g_assert_cmpuint (dp_plan_bytes (larger, "ref"), >, dp_plan_bytes (plan, "ref"));

  /* it is one of its own */
  dp_plan_unref (g_steal_pointer (&plan));
  g_autofree char *text = dp_plan_describe (larger);
  g_assert_nonnull (strstr (text, "  stage 1       ref, layers 3.5-7, "));
  s.width = 17;
  check_refused (dp_plan_with (larger, &s, &error), &error, DP_ERROR_SETTINGS, "width is 17");
}

static void
test_refused (void)
{
  const float noise[1] = { 0 };
  DpSettings s = small;
  GError *error = NULL;

  s.devices = "abacus:3";
  check_refused (dp_plan_new (&s, &error), &error, DP_ERROR_DEVICE, "abacus:3");
  s.devices = "cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu";
  check_refused (dp_plan_new (&s, &error), &error, DP_ERROR_SETTINGS, "only 7 layers");
  s.devices = "cpu";
  s.noise = noise;
  s.noise_latents = 2;
  s.num_frames = 9;
  check_refused (dp_plan_new (&s, &error), &error, DP_ERROR_SETTINGS, "9 frames of video need 3");
}

/* The steps that have guidance are those from noise levels in the interval. Both elements are cut alike where some steps have it. */
static void
test_guidance (void)
{
  static const struct { double scale, low, high; int first, end; } cases[] = {
    { 1, 0, 0, 0, 0 }, { 3, 0, 0, 0, 8 }, { 3, 0, 1, 0, 8 }, { 3, 0.5, 0, 0, 7 }, { 3, 0, 0.95, 2, 8 }, { 3, 0.8, 0.95, 2, 5 },
    { 1, 0.8, 0.95, 0, 0 }, { 3, 0.98, 0.99, 0, 0 }, { 3, 1, 1, 0, 0 },
  };
  gsize bytes[G_N_ELEMENTS (cases)];

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    DpSettings s = small;
    int guided = cases[i].end - cases[i].first;

    s.devices = "cpu,cpu,cpu,cpu";
    s.steps = 8;                /* levels of 1, 0.97, 0.94, 0.89, 0.83, 0.75, 0.63, 0.42 */
    s.flow_shift = 5;
    s.guidance_scale = cases[i].scale;
    s.guidance_interval_low = cases[i].low;
    s.guidance_interval_high = cases[i].high;
    g_autoptr (DpPlan) plan = plan_for (&s);
    g_autofree char *text = dp_plan_describe (plan);

    g_assert_cmpint (plan->guided_first, ==, cases[i].first);
    g_assert_cmpint (plan->guided_end, ==, cases[i].end);
    g_assert_cmpint (plan->elements, ==, guided ? 2 : 1);
    g_assert_cmpfloat (dp_plan_mean_elements (plan), ==, 1 + guided / 8.0);
    g_assert_cmpint (strstr (text, "guidance      in steps") != NULL, ==, guided % 8 > 0);
    g_assert_cmpint (dp_plan_unguided (plan) != NULL, ==, cases[i].scale > 1 && guided == 0);
    if (dp_plan_unguided (plan)) {
      g_test_message ("%s", dp_plan_unguided (plan));
      g_assert_nonnull (strstr (dp_plan_unguided (plan), "start from 1, 0.972, 0.938, 0.893, 0.834, 0.75, 0.626, 0.419: choose"));
      g_assert_nonnull (strstr (text, dp_plan_unguided (plan)));
    }
    for (int n = 0; n < 4 && guided % 8 > 0; n++) {
      g_assert_cmpint (plan->stages[n].halves[0].first, ==, plan->stages[n].halves[1].first);
      g_assert_cmpint (plan->stages[n].halves[0].last, ==, plan->stages[n].halves[1].last);
    }
    bytes[i] = dp_plan_bytes (plan, "cpu");
  }
  g_assert_cmpuint (bytes[6], ==, bytes[0]);
  g_assert_cmpuint (bytes[7], ==, bytes[0]);    /* no step has it: nothing is kept for a negative prompt */
  g_assert_cmpuint (bytes[1], >, bytes[0]);
}

/* The number that is told is the least that the rule allows, and is not too small itself. A cached context waits for less. A step without
 * guidance beside others counts half. */
static void
starved (int elements, double low, const char *mode)
{
  for (int stages = 1; stages <= 7; stages++)
    for (int steps = 1; steps <= 12; steps++) {
      g_autofree char *devices = g_strnfill (4 * stages - 1, ',');
      int enough = 0;

      for (int i = 0; i < stages; i++)
        memcpy (devices + 4 * i, "cpu", 3);
      for (int q = steps; q >= 1; q--) {
        DpSettings s = small;

        s.devices = devices;
        s.steps = steps;
        s.queue_blocks = q;
        s.guidance_scale = elements;
        s.guidance_interval_low = low;
        s.context_mode = mode;
        g_autoptr (DpPlan) plan = plan_for (&s);
        int waits_for = plan->kept_blocks > 0 ? 1 : 2;
        const char *starved = dp_plan_starved (plan), *told = starved ? strstr (starved, "queue-blocks=") : NULL;

        g_assert_cmpint (starved == NULL, ==, stages == 1
            || steps + plan->guided_end - plan->guided_first >= plan->lag * (stages + waits_for * plan->elements - 1));
        if (starved == NULL)
          enough = q;
        else if (enough)
          g_assert_cmpint (atoi (told + strlen ("queue-blocks=")), ==, enough);
        else
          g_assert_null (told);
      }
    }
}

static void
test_starved (void)
{
  for (int elements = 1; elements <= 2; elements++)
    for (int interval = 0; interval < elements; interval++) {
      starved (elements, interval * 0.7, NULL);
      starved (elements, interval * 0.7, "recomputed");
      starved (elements, interval * 0.7, "cached");
    }
}

/* By itself a context is cached from a lag of 3 on; what is kept is planned, and said. */
static void
test_context (void)
{
  static const struct { int steps, queue_blocks, context; gint64 frames; const char *asked, *is; int kept; } cases[] = {
    { 8, 8, 2, -1, NULL, "recomputed", 0 }, { 8, 4, 2, -1, "auto", "recomputed", 0 }, { 8, 3, 2, -1, NULL, "cached", 3 },
    { 8, 1, 2, -1, "auto", "cached", 2 }, { 8, 3, 2, -1, "recomputed", "recomputed", 0 }, { 8, 8, 2, -1, "cached", "cached", 9 },
    { 50, 9, 2, -1, NULL, "cached", 9 }, { 8, 3, -1, -1, NULL, "recomputed", 0 }, { 8, 3, -1, -1, "cached", "cached", 0 },
    { 8, 3, 2, 9, NULL, "cached", 0 }, { 8, 3, 2, 37, NULL, "cached", 1 },     /* one block, and two */
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    DpSettings s = small;
    gsize bytes[2];

    s.devices = "cpu";
    s.block_latents = 4;
    s.steps = cases[i].steps;
    s.queue_blocks = cases[i].queue_blocks;
    s.context_latents = cases[i].context;
    s.num_frames = cases[i].frames;
    for (int recomputed = 0; recomputed < 2; recomputed++) {
      s.context_mode = recomputed ? "recomputed" : cases[i].asked;
      g_autoptr (DpPlan) plan = plan_for (&s);
      g_autofree char *text = dp_plan_describe (plan);
      int kept = recomputed ? 0 : cases[i].kept;
      DpStageSpec spec = dp_plan_stage_spec (plan);

      if (!recomputed)
        g_assert_cmpstr (dp_plan_settings (plan)->context_mode, ==, cases[i].is);
      g_assert_cmpint (plan->kept_blocks, ==, kept);
      g_assert_cmpint (spec.kept_blocks, ==, kept);
      g_assert_nonnull (strstr (text, kept ? "context       cached" : cases[i].context > 0 ? "context       recomputed"
          : "context       none"));
      bytes[recomputed] = plan->stages[0].bytes - dp_stage_kept_bytes (&spec, plan->stages[0].halves);
      g_assert_cmpint (dp_stage_kept_bytes (&spec, plan->stages[0].halves) > 0, ==, kept > 0);
    }
    g_assert_cmpuint (bytes[0], ==, bytes[1]);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/plan/settings", test_settings);
  g_test_add_func ("/plan/messages", test_messages);
  g_test_add_func ("/plan/stages", test_stages);
  g_test_add_func ("/plan/blocks", test_blocks);
  g_test_add_func ("/plan/with", test_with);
  g_test_add_func ("/plan/refused", test_refused);
  g_test_add_func ("/plan/guidance", test_guidance);
  g_test_add_func ("/plan/starved", test_starved);
  g_test_add_func ("/plan/context", test_context);
  return g_test_run ();
}
