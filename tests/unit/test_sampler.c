/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Levels and a trajectory as diffusers 0.42 gives them, and what must hold for every schedule.
 */
#include "engine/wan/sampler.h"
#include "engine/dualparal.h"

#include <math.h>
#include <string.h>

static const DpSchedulerConfig wan = { .train_timesteps = 1000, .solver_order = 2, .bh2 = TRUE, .lower_order_final = TRUE };

/* All that a sampler asks of a device. */
static void
combine (DpDevice *dev, size_t n, int terms, const float *const *x, const float *coef, float *y)
{
  for (size_t i = 0; i < n; i++) {
    float sum = 0;

    for (int k = 0; k < terms; k++)
      sum += coef[k] * x[k][i];
    y[i] = sum;
  }
}

static const DpOps ops = { .combine = combine };

static void
assert_levels (const char *kind, int steps, double shift, const float *sigma, const float *timestep)
{
  DpSampler *s = dp_sampler_new (kind, steps, shift, &wan, NULL);

  g_assert_nonnull (s);
  g_assert_cmpint (dp_sampler_steps (s), ==, steps);
  for (int i = 0; i <= steps; i++)
    g_assert_cmpfloat ((float) dp_sampler_sigma (s, i), ==, sigma[i]);
  for (int i = 0; i < steps; i++)
    g_assert_cmpfloat (dp_sampler_timestep (s, i), ==, timestep[i]);
  dp_sampler_free (s);
}

static void
test_levels (void)
{
  assert_levels ("unipc", 6, 3.0, (float[]) { 0.999998987f, 0.937570333f, 0.857326508f, 0.750374794f, 0.600719452f, 0.376404494f, 0 },
      (float[]) { 999, 937, 857, 750, 600, 376 });
  assert_levels ("unipc", 4, 5.0, (float[]) { 0.999998987f, 0.937578082f, 0.833610952f, 0.625936091f, 0 },
      (float[]) { 999, 937, 833, 625 });
  assert_levels ("euler", 6, 3.0, (float[]) { 1, 0.923342526f, 0.818923354f, 0.668326676f, 0.432225078f, 0.00892857183f, 0 },
      (float[]) { 1000, 923.342529f, 818.92334f, 668.32666f, 432.225067f, 8.9285717f });
  assert_levels ("euler", 4, 5.0, (float[]) { 1, 0.909707129f, 0.717317462f, 0.0244140662f, 0 },
      (float[]) { 1000, 909.707153f, 717.317444f, 24.4140663f });
}

/* Three coupled, not quite linear components. */
static void
velocity_of (const float *x, double sigma, float *v)
{
  v[0] = 0.5 * x[0] + x[1];
  v[1] = x[1] * x[1] - sigma;
  v[2] = sigma * x[0] - x[2];
}

static void
assert_trajectory (const DpSchedulerConfig *config, int steps, const float expected[][3])
{
  DpSampler *s = dp_sampler_new ("unipc", steps, 3.0, config, NULL);
  g_autofree void *memory = g_malloc (dp_sampler_state_bytes (s, 3));
  DpDevice dev = { .ops = &ops };
  DpSamplerState state;
  float x[3] = { 1.0f, -0.5f, 0.25f }, v[3];

  memset (memory, 0xff, dp_sampler_state_bytes (s, 3));         /* NaN: history that is not there must not be used */
  dp_sampler_state_init (s, &state, memory, 3);
  for (int i = 0; i < steps; i++) {
    velocity_of (x, dp_sampler_sigma (s, i), v);
    dp_sampler_step (s, &dev, &state, i, 0, v, x, 3);
    for (int k = 0; k < 3; k++)
      g_assert_true (fabs (x[k] - expected[i][k]) <= 1e-6);
  }
  dp_sampler_free (s);
}

static void
test_trajectory (void)
{
  static const float bh2[][3] = {
    { 1.00000000f, -0.45317857f, 0.20317857f }, { 0.99483477f, -0.39495938f, 0.14471754f }, { 0.97962276f, -0.32231170f, 0.07098140f },
    { 0.94828274f, -0.23113526f, -0.02394946f }, { 0.88075629f, -0.12601862f, -0.14462396f }, { 0.76242995f, 0.00968416f, -0.32384692f },
  }, order1[][3] = {
    { 1.00000000f, -0.45317857f, 0.20317857f }, { 0.99498989f, -0.39490041f, 0.14466583f }, { 0.98217936f, -0.32089409f, 0.06975632f },
    { 0.95408389f, -0.22607983f, -0.02851741f }, { 0.89459374f, -0.10659493f, -0.16091649f }, { 0.76635200f, 0.03080852f, -0.34823254f },
  };
  DpSchedulerConfig first = wan;

  first.solver_order = 1;
  assert_trajectory (&wan, 6, bh2);
  assert_trajectory (&first, 6, order1);
}

/* Restarted in the middle, the sample lands where a straight way from the noise has it, and what came before is forgotten. */
static void
test_restart (void)
{
  static const char *const kinds[] = { "unipc", "euler" };
  DpDevice dev = { .ops = &ops };

  for (int k = 0; k < 2; k++)
    for (int first = 1; first < 12; first++) {
      DpSampler *s = dp_sampler_new (kinds[k], 12, 3, &wan, NULL);
      float x = 2, v, buffers[48];
      DpSamplerState state;

      memset (buffers, 0xff, sizeof buffers);
      dp_sampler_state_init (s, &state, buffers, 1);
      for (int i = first; i < 12; i++) {
        v = 3;
        dp_sampler_step (s, &dev, &state, i, first, &v, &x, 1);
        g_assert_true (fabs (x - (2 - 3 * (dp_sampler_sigma (s, 0) - dp_sampler_sigma (s, i + 1)))) <= 2e-5);
      }
      dp_sampler_free (s);
    }
}

/* A constant velocity is integrated exactly by every method, whatever the schedule. */
static void
test_straight (void)
{
  static const int steps[] = { 1, 2, 3, 6, 50, 300, 1000 };
  static const double shifts[] = { 0.5, 1, 3, 5, 12 };
  DpDevice dev = { .ops = &ops };

  for (int variant = 0; variant < 10; variant++) {
    DpSchedulerConfig config = { .train_timesteps = 1000, .solver_order = 1 + variant % 2, .bh2 = variant / 2 % 2,
      .lower_order_final = variant / 4 % 2 };
    const char *kind = variant < 8 ? "unipc" : "euler";

    for (gsize t = 0; t < G_N_ELEMENTS (steps); t++)
      for (gsize k = 0; k < G_N_ELEMENTS (shifts); k++) {
        g_autoptr (GError) error = NULL;
        DpSampler *s = dp_sampler_new (kind, steps[t], shifts[k], &config, &error);
        float x = 2, v, buffers[48];
        DpSamplerState state;
        double start;

        g_assert_no_error (error);
        g_assert_cmpuint (dp_sampler_state_bytes (s, 1), <=, sizeof buffers);
        memset (buffers, 0xff, sizeof buffers);
        dp_sampler_state_init (s, &state, buffers, 1);
        start = dp_sampler_sigma (s, 0);
        for (int i = 0; i < steps[t]; i++) {
          g_assert_cmpfloat (dp_sampler_sigma (s, i), >, dp_sampler_sigma (s, i + 1));
          g_assert_true (dp_sampler_timestep (s, i) >= 0 && dp_sampler_timestep (s, i) <= 1000);
          v = 3;
          dp_sampler_step (s, &dev, &state, i, 0, &v, &x, 1);
          g_assert_true (fabs (x - (2 - 3 * (start - dp_sampler_sigma (s, i + 1)))) <= 2e-5);
        }
        g_assert_cmpfloat (dp_sampler_sigma (s, steps[t]), ==, 0);
        dp_sampler_free (s);
      }
  }
}

static void
test_refused (void)
{
  static const struct { const char *kind; int steps; double shift; const char *names; } bad[] = {
    { "heun", 6, 3, "heun" }, { "unipc", 0, 3, "steps" }, { "unipc", 1001, 3, "steps" }, { "euler", 6, 0, "flow-shift" },
    { "euler", 6, NAN, "flow-shift" }, { "unipc", 6, 1e9, "flow-shift" }, { "unipc", 1000, 1000, "levels" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autoptr (GError) error = NULL;

    g_assert_null (dp_sampler_new (bad[i].kind, bad[i].steps, bad[i].shift, &wan, &error));
    g_assert_error (error, DP_ERROR, DP_ERROR_SETTINGS);
    g_assert_nonnull (strstr (error->message, bad[i].names));
  }
  dp_sampler_free (NULL);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/sampler/levels", test_levels);
  g_test_add_func ("/sampler/trajectory", test_trajectory);
  g_test_add_func ("/sampler/straight", test_straight);
  g_test_add_func ("/sampler/restart", test_restart);
  g_test_add_func ("/sampler/refused", test_refused);
  return g_test_run ();
}
