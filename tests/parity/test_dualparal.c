/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The DualParal scheme through the engine against dualparal_reference.py, given the same noise; and the same bits whatever the number of
 * stages.
 */
#include "parity_engine.h"

#include <string.h>

#define TOLERANCE 1e-4
#define MIN_DB 50

static const char *const cases[] = {
  "small-context-lag1-cfg", "small-context-lag1", "small-context-lag3-cfg", "small-context-lag3",
  "full-context-lag1-cfg", "full-context-lag1", "full-context-lag3-cfg", "full-context-lag3",
  "short-last", "one-in-flight", "no-context", "uneven",
  "experts-lag1", "experts-lag2", "experts-lag3", "experts-unguided", "restart",
  "cached-small-context-lag1-cfg", "cached-full-context-lag1", "cached-uneven", "cached-small-context-lag3-cfg",
  "cached-small-context-lag3", "cached-full-context-lag3-cfg", "cached-short-last", "cached-one-in-flight", "cached-experts-lag1",
  "cached-experts-lag2", "cached-experts-lag3", "cached-restart", NULL
};

static void
test_parity (gconstpointer name)
{
  g_autoptr (ParityCase) c = parity_case_open ("dualparal", name);
  DpSettings settings;
  parity_settings (c, &settings);
  settings.devices = "cpu";
  g_autoptr (ParityVideo) video = parity_run (c, &settings);
  parity_check_latents (name, c, video, TOLERANCE);
  if (dp_weights_find (c->tensors, "frames"))
    parity_check_frames (name, c, video, 4, MIN_DB);
  parity_settings_clear (&settings);
}

static void
test_stages (gconstpointer name)
{
  g_autoptr (ParityCase) c = parity_case_open ("dualparal", name);
  DpSettings settings;
  parity_settings (c, &settings);
  g_autoptr (ParityModel) model = parity_model_open (json_object_get_string_member (c->settings, "model"));
  g_autoptr (ParityVideo) one = NULL;
  int layers = model->config.dit.layers;
  const int stages[] = { 1, 1, 2, 3, layers };
  for (gsize i = 0; i < G_N_ELEMENTS (stages); i++) {
    g_autoptr (GString) list = g_string_new ("cpu");
    for (int s = 1; s < stages[i]; s++)
      g_string_append (list, ",cpu");
    settings.devices = list->str;
    g_autoptr (ParityVideo) video = parity_run (c, &settings);
    if (!one) {
      one = g_steal_pointer (&video);
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

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  parity_add ("/parity/dualparal", test_parity, cases);
  parity_add ("/parity/stages", test_stages, cases);
  g_test_add_func ("/parity/guidance-of-other", test_guidance_of_other);
  return g_test_run ();
}
