/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A CUDA module for machines without GPUs: three of them to look at, a large one, an old one and one whose memory is almost gone. With
 * GPUS_FIRST_IS_OLD in the environment the first is too old as well, with GPUS_NONE_IS_OLD none.
 */
#include "kernels/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
info_gpu (const char *name, DpDeviceInfo *info, char *error, size_t error_size)
{
  info->gpus = 3;
  if ((strcmp (name, "cuda:1") == 0 && getenv ("GPUS_NONE_IS_OLD") == NULL) || (strcmp (name, "cuda:0") == 0 && getenv ("GPUS_FIRST_IS_OLD"))) {
    snprintf (error, error_size, "device %s: it is too old", name);
    return false;
  }
  snprintf (info->name, sizeof info->name, "%s", name);
  snprintf (info->description, sizeof info->description, "a GPU");
  snprintf (info->libraries, sizeof info->libraries, "no libraries");
  info->memory_total = (size_t) 80 << 30;
  info->memory_free = strcmp (name, "cuda:2") == 0 ? 1 << 20 : info->memory_total;
  info->fast_bf16 = true;
  info->speed = 1e12;
  info->latents_at_once = 2;
  return true;
}

static const DpBackend backend = { .name = "cuda", .info = info_gpu };

const DpBackend *dp_cuda_backend_v4 (void);

const DpBackend *
dp_cuda_backend_v4 (void)
{
  return &backend;
}
