/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The DualParal scheme through the engine against dualparal_reference.py, given the same noise; and the same bits whatever the number of
 * stages.
 */
#include "parity_engine.h"
#include "engine/part_cache.h"
#include "engine/plan.h"
#include "engine/worker.h"

#include <string.h>

#define TOLERANCE 1e-4
#define MIN_DB 50

static const char *const cases[] = {
  "small-context-lag1-cfg", "small-context-lag1", "small-context-lag3-cfg", "small-context-lag3",
  "full-context-lag1-cfg", "full-context-lag1", "full-context-lag3-cfg", "full-context-lag3",
  "short-last", "one-in-flight", "no-context", "uneven",
  "experts-lag1", "experts-lag2", "experts-lag3", "experts-unguided", "restart",
  "interval-lag1", "interval-lag3", "interval-restart", "interval-experts", "grid",
  "cached-small-context-lag1-cfg", "cached-full-context-lag1", "cached-uneven", "cached-small-context-lag3-cfg",
  "cached-small-context-lag3", "cached-full-context-lag3-cfg", "cached-short-last", "cached-one-in-flight", "cached-experts-lag1",
  "cached-experts-lag2", "cached-experts-lag3", "cached-restart", "cached-interval-lag1", "cached-interval-lag3",
  "cached-interval-restart", "cached-interval-experts", NULL
};

/* One stage against the reference; then once more, and more stages, against that. */
static void
test_case (gconstpointer name)
{
  g_autoptr (ParityCase) c = parity_case_open ("dualparal", name);
  DpSettings settings;
  parity_settings (c, &settings);
  g_autoptr (ParityModel) model = parity_model_open (json_object_get_string_member (c->settings, "model"));
  g_autoptr (ParityVideo) one = NULL;
  int layers = model->config.dit.layers;
  const int stages[] = { 1, 3, 1, 2, layers };
#ifdef __SANITIZE_ADDRESS__     /* looks at memory, of which other cuts show nothing new */
  const int runs = 2;
#else
  const int runs = G_N_ELEMENTS (stages);
#endif
  for (int i = 0; i < runs; i++) {
    g_autoptr (GString) list = g_string_new ("cpu");
    for (int s = 1; s < stages[i]; s++)
      g_string_append (list, ",cpu");
    settings.devices = list->str;
    g_autoptr (ParityVideo) video = parity_run (c, &settings);
    if (!one) {
      one = g_steal_pointer (&video);
      parity_check_latents (name, c, one, TOLERANCE);
      if (dp_weights_find (c->tensors, "frames"))
        parity_check_frames (name, c, one, 4, MIN_DB);
      continue;
    }
    g_autofree char *what = g_strdup_printf ("%s on %s", (const char *) name, list->str);
    g_assert_cmpuint (video->latents->len, ==, one->latents->len);
    g_assert_cmpuint (video->frames->len, ==, one->frames->len);
    parity_check_same (what, video->latents->data, one->latents->data, one->latents->len * sizeof (float));
    parity_check_same (what, video->frames->data, one->frames->data, one->frames->len * sizeof (float));
  }
  parity_settings_clear (&settings);
}

/* Steps of an expert with a scale up to 1 are those of a video without guidance, whatever the other expert's scale is. */
static void
test_guidance_of_other (void)
{
  g_autoptr (ParityCase) c = parity_case_open ("dualparal", "experts-unguided");
  DpSettings settings;
  parity_settings (c, &settings);
  settings.devices = "cpu,cpu";
  settings.steps = settings.queue_blocks = 2;
  settings.flow_shift = 10;     /* both steps are the first expert's */
  g_autoptr (ParityVideo) unguided = parity_run (c, &settings);
  settings.guidance_scale_2 = 5;
  g_autoptr (ParityVideo) other = parity_run (c, &settings);
  parity_check_same ("the other expert guided", other->latents->data, unguided->latents->data, unguided->latents->len * sizeof (float));
  settings.guidance_scale = 5;
  g_autoptr (ParityVideo) guided = parity_run (c, &settings);
  g_assert_cmpfloat (parity_rel_l2 ((const float *) guided->latents->data, (const float *) unguided->latents->data, unguided->latents->len),
      >, 0.01);
  parity_settings_clear (&settings);
}

/* An interval with all steps in it is no interval, and one with none is no guidance. */
static void
test_interval_ends (void)
{
  static const struct { double scale, low, high; } runs[] = { { 4, 0, 0 }, { 4, 0.3, 0.9999999 }, { 1, 0, 0 }, { 4, 0.97, 0.99 } };
  g_autoptr (ParityCase) c = parity_case_open ("dualparal", "cached-interval-lag1");
  ParityVideo *videos[G_N_ELEMENTS (runs)];
  DpSettings settings;
  parity_settings (c, &settings);
  settings.devices = "cpu,cpu";
  for (gsize i = 0; i < G_N_ELEMENTS (runs); i++) {
    settings.guidance_scale = runs[i].scale;
    settings.guidance_interval_low = runs[i].low;
    settings.guidance_interval_high = runs[i].high;
    videos[i] = parity_run (c, &settings);
  }
  for (gsize i = 0; i < G_N_ELEMENTS (runs); i += 2)
    parity_check_same (i == 0 ? "all steps" : "no step", videos[i + 1]->latents->data, videos[i]->latents->data,
        videos[i]->latents->len * sizeof (float));
  g_assert_cmpfloat (parity_rel_l2 ((const float *) videos[0]->latents->data, (const float *) videos[2]->latents->data,
      videos[0]->latents->len), >, 0.01);
  for (gsize i = 0; i < G_N_ELEMENTS (runs); i++)
    parity_video_free (videos[i]);
  parity_settings_clear (&settings);
}

static void
loaded (gpointer data)
{
}

static void
failed (GError *error, gpointer data)
{
  g_error ("the second stage: %s", error->message);
}

/* Behind a pass that failed a stage computes nothing, and passes on what comes: what a pass would read may be missing. */
static void
test_failed_pass (void)
{
  g_autoptr (ParityCase) c = parity_case_open ("dualparal", "cached-small-context-lag3");
  g_autoptr (ParityModel) model = parity_model_open ("odd");
  g_autoptr (GError) error = NULL;
  DpSettings settings;
  DpTransport *ends[2];
  DpBlock *back[2];
  char message[256];
  int cancel = 0, n = 0;
  parity_settings (c, &settings);
  settings.devices = "cpu,cpu";
  g_autoptr (DpPlan) plan = dp_plan_new (&settings, &error);
  g_assert_no_error (error);
  DpWeights *weights = parity_model_weights (model, "transformer");
  DpStageSpec spec = dp_plan_stage_spec (plan);
  spec.cancel = &cancel;
  dp_transport_local_new (2, ends);
  dp_part_cache_begin ();
  DpStage *stage = dp_stage_new (&spec, "cpu", 1, (const DpWeights *const[2]) { weights, NULL }, plan->stages[1].halves);
  DpWorker *worker = dp_worker_new (&(DpWorkerSpec) { .index = 1, .stages = 2, .stage = stage, .transport = ends[1],
      .cancel = &cancel, .loaded = loaded, .failed = failed }, NULL);
  dp_part_cache_end ();

  DpDevice *dev = dp_device_open ("cpu", 1, message, sizeof message);
  g_assert_true (ends[0]->open (ends[0], dev, &(DpBlockSize) { .frames = plan->max_input, .latents = dp_plan_latent_size (plan),
      .tokens = (gsize) plan->latent_h / 2 * (plan->latent_w / 2) * spec.dit.heads * spec.dit.head_dim }, &error));
  g_autofree float *embeds = g_new0 (float, spec.dit.text_dim);
  DpConditioning prompt = { .refs = 9, .embeds = { embeds }, .n = { 1 }, .dim = spec.dit.text_dim };    /* never freed */
  ends[0]->tell (ends[0], &prompt);
  for (int i = 0; i < 2; i++) {
    DpBlock *b = ends[0]->take (ends[0]);
    b->header = (DpBlockHeader) { .block = 1 - i, .own = 2, .elements = 1, .next_cached = i, .previous_cached = 1 - i };
    if (i == 0)
      dp_block_fail (b, g_error_new_literal (DP_ERROR, DP_ERROR_FAILED, "broken"));
    if ((b = ends[0]->exchange (ends[0], b, FALSE)))
      back[n++] = b;
  }
  for (; n < 2; n++)
    back[n] = ends[0]->exchange (ends[0], NULL, TRUE);
  g_assert_cmpstr (back[0]->error, ==, "broken");
  g_assert_cmpint (back[1]->header.block, ==, 0);

  ends[0]->shut_down (ends[0]);
  dp_worker_join (worker);
  for (int i = 0; i < 2; i++)
    ends[i]->close (ends[i]);
  dp_worker_free (worker);
  dp_stage_free (stage, 0);
  for (int i = 0; i < 2; i++)
    ends[i]->free (ends[i]);
  dp_device_close (dev);
  dp_weights_free (weights);
  parity_settings_clear (&settings);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  parity_add ("/parity/dualparal", test_case, cases);
  g_test_add_func ("/parity/guidance-of-other", test_guidance_of_other);
  g_test_add_func ("/parity/interval-ends", test_interval_ends);
  g_test_add_func ("/parity/failed-pass", test_failed_pass);
  return g_test_run ();
}
