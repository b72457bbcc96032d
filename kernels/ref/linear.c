/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: L rows, K input features, N output features.
 */
#include "ref.h"

struct DpLinear
{
  int k, n;
  DpType type;
  float *weights;               /* [N, K], rounded to type */
  float *biases;                /* [N], zeros if the layer has none */
};

DpLinear *
linear_new_ref (DpDevice *dev, const DpLinearSpec *spec)
{
  int n = dp_linear_rows (spec);
  DpLinear *linear = dp_host_memory_new (dev, sizeof *linear);

  dev->allocations++;
  if (linear == NULL)
    return NULL;
  *linear = (DpLinear) {
    .k = spec->k, .n = n, .type = spec->type,
    .weights = dp_host_memory_new (dev, (size_t) n * spec->k * sizeof (float)),
    .biases = dp_host_memory_new (dev, n * sizeof (float)),
  };
  if (linear->weights == NULL || linear->biases == NULL) {
    linear_free_ref (dev, linear);
    return NULL;
  }
  dp_linear_weights (spec, linear->weights);
  if (!dp_linear_biases (spec, linear->biases))
    memset (linear->biases, 0, n * sizeof (float));
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

/* y = act (x . W^T + b), or y += gate * (x . W^T + b). */
void
linear_ref (DpDevice *dev, const DpLinear *linear, const DpLinearArgs *args)
{
  int k = linear->k, n = linear->n;
  size_t x_stride = args->x_stride ? args->x_stride : k, y_stride = args->y_stride ? args->y_stride : n;

  assert (!args->accumulate || (args->y_type == DP_TYPE_F32 && args->act == DP_ACT_NONE));
  for (int l = 0; l < args->rows && !dp_device_cancelled (dev); l++)
    for (int j = 0; j < n; j++) {
      double sum = linear->biases[j];

      for (int i = 0; i < k; i++)
        sum += (double) dp_load (linear->type, args->x, l * x_stride + i) * linear->weights[(size_t) j * k + i];
      if (args->accumulate)
        sum = ((float *) args->y)[l * y_stride + j] + (args->gate ? args->gate[j] : 1) * sum;
      else
        sum = activate_ref (args->act, sum);
      dp_store (args->y_type, args->y, l * y_stride + j, sum);
    }
}
