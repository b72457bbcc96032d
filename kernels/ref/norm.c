/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: L rows, D width, H heads of d channels, C channels.
 */
#include "ref.h"

/* Row l of y. */
static void
store_scaled (const DpLayerNormArgs *args, int l, const float *row)
{
  float most = 0, scale;

  for (int i = 0; i < args->cols; i++)
    most = fmaxf (most, fabsf (row[i]));
  scale = dp_e4m3_scale (most);
  for (int i = 0; i < args->cols; i++)
    ((uint8_t *) args->y)[(size_t) l * args->cols + i] = dp_e4m3_code (row[i] * scale);
  args->inverse[l] = 1 / scale;
}

void
layer_norm_ref (DpDevice *dev, const DpLayerNormArgs *args)
{
  int cols = args->cols;
  float *row = dp_host_memory_new (dev, cols * sizeof *row);

  if (row == NULL) {
    dp_device_fail (dev, "layer norm: not enough memory for a row of %d", cols);
    return;
  }
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
      row[i] = (x[i] - mean) / sqrt (var + args->eps) * (args->gain ? args->gain[i] : 1) + (args->shift ? args->shift[i] : 0);
    if (args->inverse)
      store_scaled (args, l, row);
    for (int i = 0; i < cols && !args->inverse; i++)
      dp_store (args->y_type, args->y, (size_t) l * cols + i, row[i]);
  }
  dp_host_memory_free (dev, row);
}

/* One part of one row. */
static void
rms_norm_part (const DpRmsNormArgs *args, size_t x, size_t y, const float *weight, const float *rope)
{
  int width = args->heads * args->head_dim;
  double inverse = 1;

  if (weight) {
    double sum = 0;

    for (int i = 0; i < width; i++)
      sum += pow (dp_load (args->x_type, args->x, x + i), 2);
    inverse = 1 / sqrt (sum / width + args->eps);
  }
  for (int i = 0; i < width; i += 2) {
    bool pair = i + 1 < width;
    double a = dp_load (args->x_type, args->x, x + i) * inverse * (weight ? weight[i] : 1);
    double b = pair ? dp_load (args->x_type, args->x, x + i + 1) * inverse * (weight ? weight[i + 1] : 1) : 0;
    double cosine = rope ? rope[i % args->head_dim] : 1, sine = rope ? rope[i % args->head_dim + 1] : 0;

    dp_store (args->y_type, args->y, y + i, a * cosine - b * sine);
    if (pair)
      dp_store (args->y_type, args->y, y + i + 1, a * sine + b * cosine);
  }
}

void
rms_norm_ref (DpDevice *dev, const DpRmsNormArgs *args)
{
  int width = args->heads * args->head_dim, parts = args->parts ? args->parts : 1;
  size_t x_stride = args->x_stride ? args->x_stride : parts * width, y_stride = args->y_stride ? args->y_stride : parts * width;

  assert (args->rope == NULL || args->head_dim % 2 == 0);
  for (int l = 0; l < args->rows; l++)
    for (int p = 0; p < parts; p++)
      rms_norm_part (args, l * x_stride + p * width, l * y_stride + p * width, args->weight ? args->weight + p * width : NULL,
          args->rope ? args->rope + (size_t) l * args->head_dim : NULL);
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
