/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "picture.h"

#include <assert.h>

static const DpPictures *
table (DpDevice *dev)
{
  return DP_ISA_PICK (dp_cpu (dev)->isa, dp_pictures);
}

void
upsample_cpu (DpDevice *dev, const DpUpsampleArgs *args)
{
  dp_cpu_run (dev, table (dev)->upsample, args, (size_t) args->t * (args->temporal ? 2 : 1) * args->h, (size_t) args->w * 4 * args->channels);
}

void
pixel_shuffle_cpu (DpDevice *dev, const DpPixelShuffleArgs *args)
{
  assert (4 * args->frames * args->co % args->ci == 0 && args->skip < args->frames);
  dp_cpu_run (dev, table (dev)->pixel_shuffle, args, ((size_t) args->t * args->frames - args->skip) * args->h,
      (size_t) args->w * 4 * args->co);
}

void
pack_frame_cpu (DpDevice *dev, const DpPackFrameArgs *args)
{
  assert (args->h % 2 == 0 && args->w % 2 == 0 && args->x_stride >= args->w);
  dp_cpu_run (dev, table (dev)->pack_frame, args, args->h / 2, args->w * 6);
}

void
patchify_cpu (DpDevice *dev, int t, int h, int w, int channels, const float *x, DpType y_type, void *y)
{
  DpPatchArgs args = { h, w, channels, x, y_type, y };

  dp_cpu_run (dev, table (dev)->patchify, &args, (size_t) t * (h / 2), (size_t) 2 * w * channels);
}

void
unpatchify_cpu (DpDevice *dev, int t, int h, int w, int channels, const float *x, float *y)
{
  DpPatchArgs args = { h, w, channels, x, DP_TYPE_F32, y };

  dp_cpu_run (dev, table (dev)->unpatchify, &args, (size_t) t * (h / 2), (size_t) 2 * w * channels);
}
