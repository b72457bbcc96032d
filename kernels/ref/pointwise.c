/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ref.h"

void
multiply_ref (DpDevice *dev, size_t n, DpType type, const void *a, const void *b, void *y)
{
  for (size_t i = 0; i < n; i++)
    dp_store (type, y, i, dp_load (type, a, i) * dp_load (type, b, i));
}

void
combine_ref (DpDevice *dev, size_t n, int terms, const float *const *x, const float *coef, float *y)
{
  for (size_t i = 0; i < n; i++) {
    double sum = 0;

    for (int j = 0; j < terms; j++)
      sum += (double) coef[j] * x[j][i];
    y[i] = sum;
  }
}

void
convert_ref (DpDevice *dev, size_t n, DpType x_type, const void *x, DpType y_type, void *y)
{
  for (size_t i = 0; i < n; i++)
    dp_store (y_type, y, i, dp_load (x_type, x, i));
}
