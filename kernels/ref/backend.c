/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ref.h"
#include "../backend.h"

#include <stdio.h>
#include <stdlib.h>

static const DpOps ops_ref = { .name = "ref", DP_MEMORY_OPS (DP_OP_ENTRY, host) DP_COMPUTE_OPS (DP_OP_ENTRY, ref) };

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
  dev->latents_at_once = 1;
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
  info->host_memory = true;
  info->speed = 1e9;
  dp_host_memory_size (&info->memory_total, &info->memory_free);
  return true;
}

const DpBackend dp_backend_ref = { "ref", open_ref, close_ref, info_ref };
