/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pointwise.h"

#include <assert.h>

/* Elements of a chunk: enough to be worth handing out, small enough to stay in a core's own cache. */
#define CHUNK 16384
/* So few are done before a helper has woken up. */
#define ALONE 65536

static const DpPointwise *
table (DpDevice *dev)
{
  return DP_ISA_PICK (dp_cpu (dev)->isa, dp_pointwise);
}

typedef struct
{
  DpPointwiseJob job;
  DpTeamFn fn;
} AloneJob;

static void
all_chunks (void *arg, int chunk, int thread)
{
  AloneJob *alone = arg;

  for (int i = 0; i < dp_thread_pool_chunks (alone->job.n, alone->job.per_chunk); i++)
    alone->fn (&alone->job, i, thread);
}

/* Runs n items of `width` elements each. */
static void
run (DpDevice *dev, DpTeamFn fn, const void *args, size_t n, size_t width)
{
  size_t per_chunk = CHUNK / (width ? width : 1);
  AloneJob alone = { { args, n, per_chunk ? per_chunk : 1 }, fn };

  if (n * width <= ALONE)
    dp_thread_pool_run (dp_cpu (dev)->team, n > 0, all_chunks, &alone);
  else
    dp_thread_pool_run (dp_cpu (dev)->team, dp_thread_pool_chunks (n, alone.job.per_chunk), fn, &alone.job);
}

void
layer_norm_cpu (DpDevice *dev, const DpLayerNormArgs *args)
{
  run (dev, table (dev)->layer_norm, args, args->rows, args->cols);
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
  run (dev, table (dev)->rms_norm, &args, args.rows, width);
}

void
channel_norm_cpu (DpDevice *dev, const DpChannelNormArgs *args)
{
  assert (args->act != DP_ACT_GELU_TANH);
  run (dev, table (dev)->channel_norm, args, args->rows, args->channels);
}

void
upsample_cpu (DpDevice *dev, const DpUpsampleArgs *args)
{
  run (dev, table (dev)->upsample, args, (size_t) args->t * (args->temporal ? 2 : 1) * args->h, (size_t) args->w * 4 * args->channels);
}

void
pack_frame_cpu (DpDevice *dev, const DpPackFrameArgs *args)
{
  assert (args->h % 2 == 0 && args->w % 2 == 0);
  run (dev, table (dev)->pack_frame, args, args->h / 2, args->w * 6);
}

void
multiply_cpu (DpDevice *dev, size_t n, DpType type, const void *a, const void *b, void *y)
{
  DpMultiplyArgs args = { type, a, b, y };

  run (dev, table (dev)->multiply, &args, n, 1);
}

void
combine_cpu (DpDevice *dev, size_t n, int terms, const float *const *x, const float *coef, float *y)
{
  DpCombineArgs args = { terms, x, coef, y };

  assert (terms >= 1 && terms <= 8);
  run (dev, table (dev)->combine, &args, n, 1);
}

void
convert_cpu (DpDevice *dev, size_t n, DpType x_type, const void *x, DpType y_type, void *y)
{
  DpConvertArgs args = { x_type, y_type, x, y };

  run (dev, table (dev)->convert, &args, n, 1);
}

void
patchify_cpu (DpDevice *dev, int t, int h, int w, int channels, const float *x, DpType y_type, void *y)
{
  DpPatchArgs args = { h, w, channels, x, y_type, y };

  run (dev, table (dev)->patchify, &args, (size_t) t * (h / 2), (size_t) 2 * w * channels);
}

void
unpatchify_cpu (DpDevice *dev, int t, int h, int w, int channels, const float *x, float *y)
{
  DpPatchArgs args = { h, w, channels, x, DP_TYPE_F32, y };

  run (dev, table (dev)->unpatchify, &args, (size_t) t * (h / 2), (size_t) 2 * w * channels);
}
