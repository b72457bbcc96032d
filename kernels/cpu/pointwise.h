/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pointwise.h: the ops on single elements, between their front (pointwise.c: cutting into chunks) and their loops
 * (pointwise_isa.c, compiled once per instruction set).
 */
#pragma once

#include "cpu.h"

/* Argument structs of the ops, which have none in ops.h. */
typedef struct
{
  DpType type;
  const void *a, *b;
  void *y;
} DpMultiplyArgs;

typedef struct
{
  int terms;
  const float *const *x;
  const float *coef;
  float *y;
} DpCombineArgs;

typedef struct
{
  DpType x_type, y_type;
  const void *x;
  void *y;
} DpConvertArgs;

/** The ops' chunks; an item of each is an element. And rows for linear.c. */
typedef struct
{
  DpTeamFn multiply, combine, convert;

  /** y[n] = x[n] converted; copied if the types agree. */
  void (*convert_row) (size_t n, DpType x_type, const void *x, DpType y_type, void *y);

  /** y[n] = act (y[n]). */
  void (*activate) (size_t n, DpActivation act, float *y);

  /** y[n] += gate[n] * x[n]; gate NULL is 1. */
  void (*accumulate_row) (size_t n, const float *x, const float *gate, float *y);
} DpPointwise;

DP_ISA_DECLARE (const DpPointwise, dp_pointwise);
