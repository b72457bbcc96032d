/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ref.h"

#include <stdio.h>
#include <stdlib.h>

static const DpOps ops_ref = {
  .name = "ref",
  .alloc = dp_host_alloc,
  .free = dp_host_free,
  .host_alloc = dp_host_alloc,
  .host_free = dp_host_free,
  .upload = dp_host_upload,
  .download = dp_host_download,
  .copy = dp_host_copy,
  .fill = dp_host_fill,
  .sync = dp_host_sync,
  .mark_new = dp_host_mark_new,
  .mark_free = dp_host_mark_free,
  .mark = dp_host_mark,
  .mark_wait = dp_host_mark_wait,
  .mark_time = dp_host_mark_time,
  .follow = dp_host_follow,
  .transfer = dp_host_transfer,
  .linear_new = linear_new_ref,
  .linear_free = linear_free_ref,
  .linear_refill = linear_refill_ref,
  .conv_new = conv_new_ref,
  .conv_free = conv_free_ref,
  .linear = linear_ref,
  .conv = conv_ref,
  .attention = attention_ref,
  .layer_norm = layer_norm_ref,
  .rms_norm = rms_norm_ref,
  .channel_norm = channel_norm_ref,
  .upsample = upsample_ref,
  .pack_frame = pack_frame_ref,
  .multiply = multiply_ref,
  .combine = combine_ref,
  .convert = convert_ref,
  .patchify = patchify_ref,
  .unpatchify = unpatchify_ref,
};

static DpDevice *
open_ref (const char *name, int threads, char *error, size_t error_size)
{
  DpDevice *dev = calloc (1, sizeof *dev);

  if (dev == NULL) {
    snprintf (error, error_size, "device %s: not enough memory", name);
    return NULL;
  }
  dev->ops = &ops_ref;
  dev->threads = 1;
  dev->host_memory = true;
  snprintf (dev->name, sizeof dev->name, "%s", name);
  return dev;
}

static void
close_ref (DpDevice *dev)
{
  free (dev);
}

static bool
info_ref (const char *name, DpDeviceInfo *info, char *error, size_t error_size)
{
  snprintf (info->name, sizeof info->name, "%s", name);
  snprintf (info->description, sizeof info->description, "plain C on one thread, for tests");
  dp_host_memory_size (&info->memory_total, &info->memory_free);
  return true;
}

const DpBackend dp_backend_ref = { "ref", open_ref, close_ref, info_ref };
