/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: L rows, D width, H heads of d channels, C channels.
 */
#include "ref.h"

void
layer_norm_ref (DpDevice *dev, const DpLayerNormArgs *args)
{
  int cols = args->cols;

  for (int l = 0; l < args->rows; l++) {
    const float *x = args->x + (size_t) l * cols;
    double mean = 0, var = 0;

    for (int i = 0; i < cols; i++)
      mean += x[i];
    mean /= cols;
    for (int i = 0; i < cols; i++)
      var += (x[i] - mean) * (x[i] - mean);
    var /= cols;
    for (int i = 0; i < cols; i++)
      dp_store (args->y_type, args->y, (size_t) l * cols + i, (x[i] - mean) / sqrt (var + args->eps)
          * (args->gain ? args->gain[i] : 1) + (args->shift ? args->shift[i] : 0));
  }
}

void
rms_norm_ref (DpDevice *dev, const DpRmsNormArgs *args)
{
  int width = args->heads * args->head_dim;
  size_t x_stride = args->x_stride ? args->x_stride : width, y_stride = args->y_stride ? args->y_stride : width;

  assert (args->rope == NULL || args->head_dim % 2 == 0);
  for (int l = 0; l < args->rows; l++) {
    const float *rope = args->rope ? args->rope + (size_t) l * args->head_dim : NULL;
    double inverse = 1;

    if (args->weight) {
      double sum = 0;

      for (int i = 0; i < width; i++)
        sum += pow (dp_load (args->x_type, args->x, l * x_stride + i), 2);
      inverse = 1 / sqrt (sum / width + args->eps);
    }
    for (int i = 0; i < width; i += 2) {
      bool pair = i + 1 < width;
      double a = dp_load (args->x_type, args->x, l * x_stride + i) * inverse * (args->weight ? args->weight[i] : 1);
      double b = pair ? dp_load (args->x_type, args->x, l * x_stride + i + 1) * inverse * (args->weight ? args->weight[i + 1] : 1) : 0;
      double cosine = rope ? rope[i % args->head_dim] : 1, sine = rope ? rope[i % args->head_dim + 1] : 0;

      dp_store (args->y_type, args->y, l * y_stride + i, a * cosine - b * sine);
      if (pair)
        dp_store (args->y_type, args->y, l * y_stride + i + 1, a * sine + b * cosine);
    }
  }
}

void
channel_norm_ref (DpDevice *dev, const DpChannelNormArgs *args)
{
  int c = args->channels;

  for (int l = 0; l < args->rows; l++) {
    double sum = 0;

    for (int i = 0; i < c; i++)
      sum += pow (dp_load (args->type, args->x, (size_t) l * c + i), 2);
    for (int i = 0; i < c; i++)
      dp_store (args->type, args->y, (size_t) l * c + i, activate_ref (args->act,
              dp_load (args->type, args->x, (size_t) l * c + i) / fmax (sqrt (sum), 1e-12) * sqrt (c) * args->gamma[i]));
  }
}
