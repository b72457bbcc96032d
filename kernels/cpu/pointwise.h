/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pointwise.h: the ops that are limited by memory, between their front (pointwise.c: checks, cutting into chunks) and their
 * loops (pointwise_isa.c, compiled once per instruction set).
 */
#pragma once

#include "cpu.h"

/** A pointwise op's job: the team's `arg`. Chunk c covers items [c * per_chunk, ...) of n: rows or elements, as the op says. */
typedef struct
{
  const void *args;             /* the op's argument struct, strides filled in */
  size_t n, per_chunk;
} DpPointwiseJob;

/* Argument structs of the ops that have none in ops.h. */
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

typedef struct
{
  int h, w, channels;           /* of the latents */
  const float *x;
  DpType y_type;
  void *y;
} DpPatchArgs;

/** The ops' chunks, and what an item of each is; and rows for linear.c. */
typedef struct
{
  DpTeamFn layer_norm, rms_norm, channel_norm;  /* a row */
  DpTeamFn upsample;            /* a pair of rows of y */
  DpTeamFn pack_frame;          /* a pair of rows of x */
  DpTeamFn multiply, combine, convert;  /* an element */
  DpTeamFn patchify, unpatchify;        /* a row of tokens */

  /** y[n] = x[n] converted; copied if the types agree. */
  void (*convert_row) (size_t n, DpType x_type, const void *x, DpType y_type, void *y);

  /** y[n] += gate[n] * x[n]; gate NULL is 1. */
  void (*accumulate_row) (size_t n, const float *x, const float *gate, float *y);
} DpPointwise;

DP_ISA_DECLARE (const DpPointwise, dp_pointwise);
