/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * conv.h: convolution on the CPU, between conv.c (what to do, and oneDNN) and conv_isa.c (few output channels).
 *
 * Both ways cut the picture into strips of rows, a chunk of the team each. A chunk copies its rows and their neighbours above and
 * below into its thread's scratch, zeros outside the picture, and computes all output frames from there.
 *
 * oneDNN rounds output channels up to 16, so convolutions with few of them come here: the strip lies in planes, one per lane (a
 * channel in float32, a pair in bfloat16), so that vectors run along pixels and a weight is broadcast to all of them. A row of a
 * plane is kw / 2 zeros and w pixels; the next row's zeros close it, and pixel positions are one running number q = y * pitch + x.
 */
#pragma once

#include "cpu.h"

enum
{
  DP_CONV_MAX_KT = 8,
};

typedef struct
{
  const DpConvSpec *spec;
  const DpConvArgs *args;
  bool pairs;                   /* lanes are bfloat16 pairs */
  int lanes;                    /* of ci */
  const float *weights;         /* as table->pack laid them out */
  const float *bias;            /* [co] and zeros up to a whole group */
  int strip;                    /* output rows of a chunk, the last one excepted */
  int pitch;                    /* lanes between rows */
  int plane;                    /* lanes between planes, from table->plan */
} DpConvJob;

typedef struct
{
  bool pairs;                   /* this instruction set multiplies bfloat16 pairs */
  /** Lanes of packed weights. */
  size_t (*weights_size) (const DpConvSpec *spec, bool pairs);
  /** Packs weights [co, ci, kt, kh, kw], float32 (rounded to bfloat16 already if pairs). */
  void (*pack) (const DpConvSpec *spec, bool pairs, const float *weights, float *packed);
  /** Sets plane; returns the bytes of scratch a chunk needs. */
  size_t (*plan) (DpConvJob *job);
  /** Output rows [strip * chunk, + strip) of every frame. */
  void (*chunk) (const DpConvJob *job, int chunk, void *scratch);
} DpConvTable;

DP_ISA_DECLARE (const DpConvTable, dp_conv_table);
