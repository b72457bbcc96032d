/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pointwise.h"

#include <assert.h>

static const DpPointwise *
table (DpDevice *dev)
{
  return DP_ISA_PICK (dp_cpu (dev)->isa, dp_pointwise);
}

void
multiply_cpu (DpDevice *dev, size_t n, DpType type, const void *a, const void *b, void *y)
{
  DpMultiplyArgs args = { type, a, b, y };

  dp_cpu_run (dev, table (dev)->multiply, &args, n, 1);
}

void
combine_cpu (DpDevice *dev, size_t n, int terms, const float *const *x, const float *coef, float *y)
{
  DpCombineArgs args = { terms, x, coef, y };

  assert (terms >= 1 && terms <= 8);
  dp_cpu_run (dev, table (dev)->combine, &args, n, 1);
}

void
convert_cpu (DpDevice *dev, size_t n, DpType x_type, const void *x, DpType y_type, void *y)
{
  DpConvertArgs args = { x_type, y_type, x, y };

  dp_cpu_run (dev, table (dev)->convert, &args, n, 1);
}
