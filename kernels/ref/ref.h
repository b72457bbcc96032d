/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ref.h: the reference backend: each op as its formula reads, in plain loops on one thread, sums in double. It is the yardstick
 * of the tests, not something to run a model on. Contracts in ops.h.
 */
#pragma once

#include "../e4m3.h"
#include "../host.h"
#include "../numeric.h"

#include <assert.h>
#include <math.h>

DP_COMPUTE_OPS (DP_OP_PROTOTYPE, ref)

/** silu or gelu_tanh of x. */
static inline double
activate_ref (DpActivation act, double x)
{
  if (act == DP_ACT_GELU_TANH)
    return 0.5 * x * (1 + tanh (sqrt (2 / M_PI) * (x + 0.044715 * x * x * x)));
  if (act == DP_ACT_SILU)
    return x / (1 + exp (-x));
  return x;
}
