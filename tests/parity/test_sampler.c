/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whole trajectories of the samplers against diffusers' schedulers, under a velocity both sides compute: a * x + b * s / T + c.
 */
#include "parity.h"
#include "wan/sampler.h"

#include <math.h>
#include <string.h>

#define TOLERANCE 1e-6

static double
run_case (const ParityCase *c, JsonObject *o, const char *device)
{
  g_autoptr (GError) error = NULL;
  const char *name = json_object_get_string_member (o, "name");
  const char *kind = json_object_get_string_member (o, "sampler");
  int n = parity_int (c, "n"), steps = json_object_get_int_member (o, "steps"), rows = json_object_get_int_member (o, "rows");
  DpSchedulerConfig config = {
    .flow_shift = 1.0,
    .train_timesteps = 1000,
    .solver_order = json_object_get_int_member (o, "order"),
    .bh2 = g_str_equal (json_object_get_string_member (o, "solver"), "bh2"),
    .lower_order_final = TRUE,
  };
  g_strlcpy (config.sampler, kind, sizeof config.sampler);
  DpSampler *sampler = dp_sampler_new (kind, steps, json_object_get_double_member (o, "shift"), &config, &error);
  g_assert_no_error (error);
  g_assert_cmpint (dp_sampler_steps (sampler), ==, steps);

  g_autofree float *sigmas = parity_tensor (c, NULL, NULL, "%s-sigmas", name);
  g_autofree float *timesteps = parity_tensor (c, NULL, NULL, "%s-timesteps", name);
  for (int s = 0; s <= steps; s++)
    g_assert_cmpfloat (fabs (dp_sampler_sigma (sampler, s) - sigmas[s]), <=, 2e-7 * sigmas[s]);
  for (int s = 0; s < steps; s++)
    g_assert_cmpfloat (fabs (dp_sampler_timestep (sampler, s) - timesteps[s]), <=, 1e-6 * timesteps[s]);

  DpDevice *dev = parity_device_open (device);
  g_autofree float *a = parity_tensor (c, NULL, NULL, "a"), *b = parity_tensor (c, NULL, NULL, "b");
  g_autofree float *bias = parity_tensor (c, NULL, NULL, "c"), *x = parity_tensor (c, NULL, NULL, "x");
  g_autofree float *want = parity_tensor (c, NULL, NULL, "%s", name);
  g_autofree float *v = g_new (float, n);
  float *sample = parity_upload (dev, x, n), *velocity = parity_upload (dev, NULL, n);
  gsize bytes = dp_sampler_state_bytes (sampler, n);
  void *memory = dev->ops->alloc (dev, MAX (bytes, 1));
  DpSamplerState state;
  memset (&state, 0xff, sizeof state);
  dp_sampler_state_init (sampler, &state, memory, n);
  double worst = 0;
  for (int s = 0; s < steps; s++) {
    float at = (float) ((double) s / steps);
    for (int i = 0; i < n; i++) {
      float ax = a[i] * x[i], bt = b[i] * at;
      v[i] = ax + bt + bias[i];
    }
    dev->ops->upload (dev, velocity, v, n * sizeof (float));
    dp_sampler_step (sampler, dev, &state, s, 0, velocity, sample, n);
    dev->ops->download (dev, x, sample, n * sizeof (float));
    for (int i = 0; i < n; i++)
      g_assert_true (isfinite (x[i]));
    if (s < rows) {
      double e = parity_rel_l2 (x, want + (gsize) s * n, n);
      worst = MAX (worst, e);   /* x is finite */
    }
  }
  dev->ops->free (dev, memory);
  dev->ops->free (dev, velocity);
  dev->ops->free (dev, sample);
  parity_device_close (dev);
  dp_sampler_free (sampler);
  return worst;
}

static void
test_trajectories (gconstpointer device)
{
  g_autoptr (ParityCase) c = parity_case_open ("sampler", "trajectories");
  JsonArray *cases = json_object_get_array_member (c->settings, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *o = json_array_get_object_element (cases, i);
    parity_check_error (json_object_get_string_member (o, "name"), run_case (c, o, device), TOLERANCE);
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  parity_add ("/parity/sampler", test_trajectories, (const char *const[]) { "cpu", "ref", NULL });
  return g_test_run ();
}
