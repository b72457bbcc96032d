/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "norm.h"

#include <assert.h>

static const DpNorms *
table (DpDevice *dev)
{
  return DP_ISA_PICK (dp_cpu (dev)->isa, dp_norms);
}

void
layer_norm_cpu (DpDevice *dev, const DpLayerNormArgs *args)
{
  assert (!args->inverse);
  dp_cpu_run (dev, table (dev)->layer_norm, args, args->rows, args->cols);
}

void
rms_norm_cpu (DpDevice *dev, const DpRmsNormArgs *given)
{
  DpRmsNormArgs args = *given;
  int width;

  assert (args.rope == NULL || args.head_dim % 2 == 0);
  args.parts = args.parts ? args.parts : 1;
  width = args.parts * args.heads * args.head_dim;
  args.x_stride = args.x_stride ? args.x_stride : width;
  args.y_stride = args.y_stride ? args.y_stride : width;
  dp_cpu_run (dev, table (dev)->rms_norm, &args, args.rows, width);
}

void
channel_norm_cpu (DpDevice *dev, const DpChannelNormArgs *args)
{
  assert (args->act != DP_ACT_GELU_TANH);
  dp_cpu_run (dev, table (dev)->channel_norm, args, args->rows, args->channels);
}
