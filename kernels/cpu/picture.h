/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * picture.h: the ops on pictures and latents, between their front (picture.c: checks, cutting into chunks) and their loops
 * (picture_isa.c, compiled once per instruction set).
 */
#pragma once

#include "cpu.h"

/* The arguments of patchify and unpatchify. */
typedef struct
{
  int h, w, channels;           /* of the latents */
  const float *x;
  DpType y_type;
  void *y;
} DpPatchArgs;

/** The ops' chunks, and what an item of each is. */
typedef struct
{
  DpTeamFn upsample;            /* a pair of rows of y */
  DpTeamFn pixel_shuffle;       /* likewise */
  DpTeamFn pack_frame;          /* a pair of rows of x */
  DpTeamFn patchify, unpatchify;        /* a row of tokens */
} DpPictures;

DP_ISA_DECLARE (const DpPictures, dp_pictures);
