/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cut.h: where a ring is cut, so that its slowest stage is as fast as can be.
 *
 * Each element of guidance is cut on its own, between any two halves of layers. So two elements of 30
 * layers can be shared out evenly over 8 stages: 7.5 layers each, where whole layers for both at once
 * would leave some stages with 8. Bits do not depend on the cut.
 */
#pragma once

#include "wan/dit.h"

/** Times are in layers of one element: what such a layer takes where the speed is 1. */
typedef struct
{
  int layers, elements, stages; /* at most as many stages as layers; elements: 1 or 2 */
  double attention;             /* share of a layer's time that its self-attention takes, 0..1 */
  const double *speeds;         /* [stages] layers per unit of time, above 0 */
  const double *others;         /* [stages] time in a pass that a stage's device has to spend on something else */
} DpCutSpec;

/** Writes each stage's halves of each element, at least one of each. A cut inside of a layer, or one that differs between the elements, holds
 *  weights twice or in more pieces; it is made only where it makes the ring faster by more than 0.5 %. */
void dp_cut (const DpCutSpec *spec, DpHalves (*cut)[2]);

/** The time of `halves`, in layers. */
double dp_cut_layers (double attention, DpHalves halves);
