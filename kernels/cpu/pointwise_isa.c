/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The loops of the pointwise ops. Compiled once per instruction set (cpu.h): everything here is static but the table at the end.
 */
#include "pointwise.h"
#include "elements.h"

static void
multiply (void *arg, int chunk, int thread)
{
  const DpCpuJob *job = arg;
  const DpMultiplyArgs *a = job->args;
  Range r = range (job, chunk);

  if (a->type == DP_TYPE_F32)
    for (size_t i = r.from; i < r.to; i += VEC)
      store (DP_TYPE_F32, a->y, i, r.to, load (DP_TYPE_F32, a->a, i, r.to) * load (DP_TYPE_F32, a->b, i, r.to));
  else
    for (size_t i = r.from; i < r.to; i += VEC)
      store (DP_TYPE_BF16, a->y, i, r.to, load (DP_TYPE_BF16, a->a, i, r.to) * load (DP_TYPE_BF16, a->b, i, r.to));
}

static void
combine (void *arg, int chunk, int thread)
{
  const DpCpuJob *job = arg;
  const DpCombineArgs *a = job->args;
  Range r = range (job, chunk);

  for (size_t i = r.from; i < r.to; i += VEC) {
    Vec sum = a->coef[0] * load (DP_TYPE_F32, a->x[0], i, r.to);

    for (int j = 1; j < a->terms; j++)
      sum += a->coef[j] * load (DP_TYPE_F32, a->x[j], i, r.to);
    store (DP_TYPE_F32, a->y, i, r.to, sum);
  }
}

static void
convert_row (size_t n, DpType x_type, const void *x, DpType y_type, void *y)
{
  if (x_type == y_type)
    memcpy (y, x, n * dp_type_size (x_type));
  else if (x_type == DP_TYPE_F16)
    for (size_t i = 0; i < n; i++)
      dp_store (y_type, y, i, dp_load (DP_TYPE_F16, x, i));
  else if (x_type == DP_TYPE_F32)     /* not store(), which may flush subnormal numbers */
    for (size_t i = 0; i < n; i++)
      dp_store (DP_TYPE_BF16, y, i, dp_load (DP_TYPE_F32, x, i));
  else
    for (size_t i = 0; i < n; i += VEC)
      store (DP_TYPE_F32, y, i, n, load (DP_TYPE_BF16, x, i, n));
}

static void
convert (void *arg, int chunk, int thread)
{
  const DpCpuJob *job = arg;
  const DpConvertArgs *a = job->args;
  Range r = range (job, chunk);

  convert_row (r.to - r.from, a->x_type, at (a->x_type, a->x, r.from), a->y_type, (void *) at (a->y_type, a->y, r.from));
}

/* GELU by tanh (v) is x / (1 + e^-2v). */
static void
activate (size_t n, DpActivation act, float *y)
{
  if (act == DP_ACT_SILU)
    for (size_t i = 0; i < n; i += VEC) {
      Vec x = load (DP_TYPE_F32, y, i, n);

      store (DP_TYPE_F32, y, i, n, sigmoid_product (x, x, false));
    }
  else if (act == DP_ACT_GELU_TANH)
    for (size_t i = 0; i < n; i += VEC) {
      Vec x = load (DP_TYPE_F32, y, i, n);

      store (DP_TYPE_F32, y, i, n, sigmoid_product (x, x * (x * x * 0.0713548163f + 1.59576912f), false));
    }
}

static void
accumulate_row (size_t n, const float *x, const float *gate, float *y)
{
  for (size_t i = 0; i < n; i += VEC) {
    Vec v = load (DP_TYPE_F32, x, i, n);

    if (gate)
      v *= load (DP_TYPE_F32, gate, i, n);
    store (DP_TYPE_F32, y, i, n, load (DP_TYPE_F32, y, i, n) + v);
  }
}

const DpPointwise DP_ISA (dp_pointwise) = {
  .multiply = multiply,
  .combine = combine,
  .convert = convert,
  .convert_row = convert_row,
  .activate = activate,
  .accumulate_row = accumulate_row,
};
