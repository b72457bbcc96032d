/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * norm.h: the norms, between their front (norm.c: checks, cutting into chunks) and their loops (norm_isa.c, compiled once per
 * instruction set).
 */
#pragma once

#include "cpu.h"

/** The ops' chunks; an item of each is a row. */
typedef struct
{
  DpTeamFn layer_norm, rms_norm, channel_norm;
} DpNorms;

DP_ISA_DECLARE (const DpNorms, dp_norms);
