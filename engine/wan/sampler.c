/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * UniPC step i, with m[i] = x - sigma[i] * v the clean latents as predicted there and `last` the corrected sample of step i - 1:
 *   corrected = a linear combination of last, m[i-1], m[i-2], m[i]        (i > 0; else the sample itself)
 *   sample    = a linear combination of corrected, m[i], m[i-1]
 * so all that is left to do at run time are three sums with the coefficients found here.
 */
#include "sampler.h"
#include "error.h"

#include <math.h>
#include <string.h>

typedef struct
{
  int corrector, predictor;     /* orders; 0: no corrector */
  float c_last, c_m1, c_m2, c_m0;       /* corrected = c_last * last + c_m1 * m[i-1] + c_m2 * m[i-2] + c_m0 * m[i] */
  float p_x, p_m0, p_m1;        /* sample = p_x * corrected + p_m0 * m[i] + p_m1 * m[i-1] */
} Step;

struct _DpSampler
{
  gboolean euler;
  int steps;
  float *sigma;                 /* [steps + 1]; float32 as in the reference: 1 - sigma depends on its rounding */
  float *timestep;              /* [steps] */
  Step *step[3];                /* [steps] each, UniPC only: of a block's first step, its second, and all others */
};

/* ---- noise levels ---- */

static double
shifted (double shift, double sigma)
{
  return shift * sigma / (1 + (shift - 1) * sigma);
}

/* The timesteps are whole numbers in the reference, cut off, not rounded. */
static void
unipc_levels (DpSampler *s, double shift, int train)
{
  double step = (1.0 / train - 1) / s->steps;

  for (int i = 0; i < s->steps; i++) {
    double sigma = shifted (shift, i * step + 1);

    if (i == 0 && fabs (sigma - 1) < 1e-6)
      sigma -= 1e-6;            /* log (1 - sigma) is needed */
    s->sigma[i] = sigma;
    s->timestep[i] = trunc (sigma * train);
  }
}

/* The reference shifts twice: the ends of its grid are shifted levels, and so is every point on it again. */
static void
euler_levels (DpSampler *s, double shift, int train)
{
  float lowest = 1.0f / train, f = shift, f1 = shift - 1;
  double from = (f * 1.0f) / (1 + f1 * 1.0f), to = (f * lowest) / (1 + f1 * lowest);

  from *= train;
  to *= train;
  for (int i = 0; i < s->steps; i++) {
    double t = i == 0 ? from : i == s->steps - 1 ? to : i * ((to - from) / (s->steps - 1)) + from;

    s->sigma[i] = shifted (shift, t / train);
    s->timestep[i] = s->sigma[i] * train;
  }
}

/* ---- UniPC's coefficients ---- */

/* log (alpha / sigma) with alpha = 1 - sigma */
static double
lambda (float sigma)
{
  return log (1 - (double) sigma) - log ((double) sigma);
}

/* What predictor and corrector have in common: going from level s to level t over hh = lambda(s) - lambda(t), with r the place of the
 * prediction before, in units of -hh. b1 and b2 are the right-hand sides of the corrector's system. */
typedef struct
{
  double alpha, ratio, phi1, bh, r, b1, b2;
} Move;

static Move
move_new (const DpSampler *s, int from, int to, int order, gboolean bh2)
{
  double h = lambda (s->sigma[to]) - lambda (s->sigma[from]), hh = -h;
  Move m = { .alpha = 1 - (double) s->sigma[to], .ratio = (double) s->sigma[to] / s->sigma[from], .phi1 = expm1 (hh), .r = 1 };
  double phi2 = m.phi1 / hh - 1, phi3 = phi2 / hh - 0.5;

  m.bh = bh2 ? m.phi1 : hh;
  m.b1 = phi2 / m.bh;
  m.b2 = 2 * phi3 / m.bh;
  if (order == 2)
    m.r = (lambda (s->sigma[from - 1]) - lambda (s->sigma[from])) / h;
  return m;
}

static void
predictor_coefficients (const DpSampler *s, int i, gboolean bh2, Step *step)
{
  if (i == s->steps - 1) {      /* to level 0, where lambda is infinite: the prediction itself */
    step->p_m0 = 1;
    return;
  }
  Move m = move_new (s, i, i + 1, step->predictor, bh2);
  double m1 = step->predictor == 2 ? -m.alpha * m.bh * 0.5 / m.r : 0;

  step->p_x = m.ratio;
  step->p_m1 = m1;
  step->p_m0 = -m.alpha * m.phi1 - m1;
}

static void
corrector_coefficients (const DpSampler *s, int i, gboolean bh2, Step *step)
{
  Move m = move_new (s, i - 1, i, step->corrector, bh2);
  double rho1 = step->corrector == 2 ? (m.b1 - m.b2) / (1 - m.r) : 0, rho2 = step->corrector == 2 ? m.b1 - rho1 : 0.5;
  double m0 = -m.alpha * m.bh * rho2, m2 = -m.alpha * m.bh * rho1 / m.r;

  step->c_last = m.ratio;
  step->c_m0 = m0;
  step->c_m2 = m2;
  step->c_m1 = -m.alpha * m.phi1 - m0 - m2;
}

/* The order is low at the start, where there is no history, and at the end. The last step is always of order 1: a higher one divides
 * by its infinite length, in the reference too. */
static int
predictor_order (const DpSampler *s, const DpSchedulerConfig *config, int i, int age)
{
  int order = MIN (config->solver_order, age + 1);

  return config->lower_order_final || i == s->steps - 1 ? MIN (order, s->steps - i) : order;
}

static void
unipc_coefficients (DpSampler *s, const DpSchedulerConfig *config, int age)
{
  for (int i = age; i < s->steps; i++) {
    Step *step = &s->step[age][i];

    step->predictor = predictor_order (s, config, i, age);
    if (age > 0) {
      step->corrector = predictor_order (s, config, i - 1, age - 1);
      corrector_coefficients (s, i, config->bh2, step);
    }
    predictor_coefficients (s, i, config->bh2, step);
  }
}

DpSampler *
dp_sampler_new (const char *kind, int steps, double flow_shift, const DpSchedulerConfig *config, GError **error)
{
  gboolean euler = strcmp (kind, "euler") == 0;
  DpSampler *s;

  if (!euler && strcmp (kind, "unipc") != 0) {
    dp_error_set (error, DP_ERROR_SETTINGS, "sampler: expected \"unipc\" or \"euler\", found \"%s\"", kind);
    return NULL;
  }
  if (steps < 1 || steps > DP_MAX_STEPS) {
    dp_error_set (error, DP_ERROR_SETTINGS, "steps: expected 1 to %d, found %d", DP_MAX_STEPS, steps);
    return NULL;
  }
  if (!(flow_shift >= 1e-3 && flow_shift <= 1e3)) {
    dp_error_set (error, DP_ERROR_SETTINGS, "flow-shift: expected 0.001 to 1000, found %g", flow_shift);
    return NULL;
  }
  s = g_new0 (DpSampler, 1);
  s->euler = euler;
  s->steps = steps;
  s->sigma = g_new0 (float, steps + 1);
  s->timestep = g_new0 (float, steps);
  (euler ? euler_levels : unipc_levels) (s, flow_shift, config->train_timesteps);
  for (int i = 0; i < steps; i++)
    if (!(s->sigma[i] > s->sigma[i + 1])) {
      dp_error_set (error, DP_ERROR_SETTINGS,
          "flow-shift %g with %d steps: expected noise levels that fall, found %g and then %g; fewer steps or a shift nearer to 1 would "
            "work",
          flow_shift, steps, s->sigma[i], s->sigma[i + 1]);
      dp_sampler_free (s);
      return NULL;
    }
  if (!euler) {
    for (int age = 0; age < 3; age++) {
      s->step[age] = g_new0 (Step, steps);
      unipc_coefficients (s, config, age);
    }
  }
  return s;
}

void
dp_sampler_free (DpSampler *sampler)
{
  if (sampler == NULL)
    return;
  g_free (sampler->sigma);
  g_free (sampler->timestep);
  for (int age = 0; age < 3; age++)
    g_free (sampler->step[age]);
  g_free (sampler);
}

int
dp_sampler_steps (const DpSampler *sampler)
{
  return sampler->steps;
}

double
dp_sampler_sigma (const DpSampler *sampler, int step)
{
  g_assert (step >= 0 && step <= sampler->steps);
  return sampler->sigma[step];
}

float
dp_sampler_timestep (const DpSampler *sampler, int step)
{
  g_assert (step >= 0 && step < sampler->steps);
  return sampler->timestep[step];
}

/* ---- a step ---- */

/* Elements between two buffers: each starts on a line of its own. */
static gsize
buffer_elements (gsize n)
{
  return (n + 15) & ~(gsize) 15;
}

gsize
dp_sampler_state_bytes (const DpSampler *sampler, gsize n)
{
  return sampler->euler ? 0 : 3 * buffer_elements (n) * sizeof (float);
}

void
dp_sampler_state_init (const DpSampler *sampler, DpSamplerState *state, void *memory, gsize n)
{
  for (int i = 0; i < 3; i++)
    state->buffers[i] = sampler->euler ? NULL : (float *) memory + i * buffer_elements (n);
}

static void
unipc_step (const DpSampler *sampler, DpDevice *dev, DpSamplerState *state, int i, int age, float *velocity, float *sample, gsize n)
{
  const Step *step = &sampler->step[MIN (age, 2)][i];
  const float sigma = sampler->sigma[i];
  float *m0 = state->buffers[i % 2], *m1 = state->buffers[(i + 1) % 2], *last = state->buffers[2];

  /* m[i-2] lies where m[i] will: the corrector comes first, with m[i] still as sample and velocity. History that was never
   * written takes no part, not even times zero. */
  if (step->corrector == 0)
    dev->ops->combine (dev, n, 1, (const float *[]) { sample }, (float[]) { 1 }, last);
  else
    dev->ops->combine (dev, n, step->corrector == 2 ? 5 : 4, (const float *[]) { last, m1, sample, velocity, m0 },
        (float[]) { step->c_last, step->c_m1, step->c_m0, -step->c_m0 * sigma, step->c_m2 }, last);
  dev->ops->combine (dev, n, 2, (const float *[]) { sample, velocity }, (float[]) { 1, -sigma }, m0);
  dev->ops->combine (dev, n, step->predictor == 2 ? 3 : 2, (const float *[]) { last, m0, m1 },
      (float[]) { step->p_x, step->p_m0, step->p_m1 }, sample);
}

void
dp_sampler_step (const DpSampler *sampler, DpDevice *dev, DpSamplerState *state, int step, int first, float *velocity, float *sample,
    gsize n)
{
  g_assert (first >= 0 && first <= step && step < sampler->steps);
  /* straight to the level where it should be: the clean latents that the velocity points at stay the same */
  if (step == first && first > 0)
    dev->ops->combine (dev, n, 2, (const float *[]) { sample, velocity }, (float[]) { 1, sampler->sigma[step] - sampler->sigma[0] },
        sample);
  if (sampler->euler)
    dev->ops->combine (dev, n, 2, (const float *[]) { sample, velocity }, (float[]) { 1, sampler->sigma[step + 1] - sampler->sigma[step] },
        sample);
  else
    unipc_step (sampler, dev, state, step, step - first, velocity, sample, n);
}
