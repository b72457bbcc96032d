/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: L rows, K input features, N output features.
 */
#include "ref.h"

struct DpLinear
{
  int k, n;
  DpType type;
  bool fp8;
  float *weights;               /* [N, K], rounded to type, and to e4m3 with fp8 */
  float *biases;                /* [N], zeros if the layer has none */
};

/* `a` to the nearest number of e4m3, ties to even. */
static float
round_e4m3 (float a)
{
  float step = ldexpf (1, fmaxf (a == 0 ? -6 : ilogbf (a), -6) - 3);

  return copysignf (fminf (rintf (fabsf (a) / step) * step, DP_E4M3_MAX), a);
}

static void
round_row (float *row, int n)
{
  float amax = 0, scale;

  for (int i = 0; i < n; i++)
    amax = fmaxf (amax, fabsf (row[i]));
  scale = dp_e4m3_scale (amax);
  for (int i = 0; i < n; i++)
    row[i] = round_e4m3 (row[i] * scale) / scale;
}

DpLinear *
linear_new_ref (DpDevice *dev, const DpLinearSpec *spec)
{
  int n = dp_linear_rows (spec);
  DpLinear *linear = dp_host_memory_new (dev, sizeof *linear);

  dev->allocations++;
  if (linear == NULL)
    return NULL;
  *linear = (DpLinear) {
    .k = spec->k, .n = n, .type = spec->type, .fp8 = spec->fp8 && spec->k % 16 == 0 && n % 16 == 0,
    .weights = dp_host_memory_new (dev, (size_t) n * spec->k * sizeof (float)),
    .biases = dp_host_memory_new (dev, n * sizeof (float)),
  };
  if (linear->weights == NULL || linear->biases == NULL) {
    linear_free_ref (dev, linear);
    return NULL;
  }
  if (!linear_refill_ref (dev, linear, spec)) {
    linear_free_ref (dev, linear);
    return NULL;
  }
  return linear;
}

void
linear_free_ref (DpDevice *dev, DpLinear *linear)
{
  if (linear == NULL)
    return;
  dp_host_memory_free (dev, linear->weights);
  dp_host_memory_free (dev, linear->biases);
  dp_host_memory_free (dev, linear);
}

bool
linear_refill_ref (DpDevice *dev, DpLinear *linear, const DpLinearSpec *spec)
{
  assert (linear->k == spec->k && linear->n == dp_linear_rows (spec) && linear->type == spec->type);
  if (!dp_linear_weights (dev, spec, linear->weights) || !dp_linear_biases (dev, spec, linear->biases))
    return false;
  for (int j = 0; j < linear->n && linear->fp8; j++)
    round_row (linear->weights + (size_t) j * linear->k, linear->k);
  return true;
}

/* y = act (x . W^T + b), or y += gate * (x . W^T + b). */
void
linear_ref (DpDevice *dev, const DpLinear *linear, const DpLinearArgs *args)
{
  int k = linear->k, n = linear->n;
  size_t x_stride = args->x_stride ? args->x_stride : k, y_stride = args->y_stride ? args->y_stride : n;
  float *x = dp_host_memory_new (dev, k * sizeof *x);

  assert (!args->accumulate || (args->y_type == DP_TYPE_F32 && args->act == DP_ACT_NONE));
  if (x == NULL) {
    dp_device_fail_memory (dev, "linear: not enough memory for a row of %d", k);
    return;
  }
  for (int l = 0; l < args->rows && !dp_device_cancelled (dev); l++) {
    for (int i = 0; i < k; i++)
      x[i] = dp_load (linear->type, args->x, l * x_stride + i);
    if (linear->fp8)
      round_row (x, k);
    for (int j = 0; j < n; j++) {
      double sum = linear->biases[j];

      for (int i = 0; i < k; i++)
        sum += (double) x[i] * linear->weights[(size_t) j * k + i];
      if (args->accumulate)
        sum = ((float *) args->y)[l * y_stride + j] + (args->gate ? args->gate[j] : 1) * sum;
      else
        sum = activate_ref (args->act, sum);
      dp_store (args->y_type, args->y, l * y_stride + j, sum);
    }
  }
  dp_host_memory_free (dev, x);
}
