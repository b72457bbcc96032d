/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * backend.h: what a backend shows to backend.c, which knows them all by name.
 */
#pragma once

#include "device.h"
#include "wire.h"

/** Thread-safety: all from anywhere, as in device.h. */
typedef struct
{
  const char *name;             /* "cpu": the part of a device's name before the colon */
  DpDevice *(*open) (const char *name, int threads, char *error, size_t error_size);    /* threads >= 1 */
  void (*close) (DpDevice *dev);
  bool (*info) (const char *name, DpDeviceInfo *info, char *error, size_t error_size);
  const DpWireOps *wires;       /* NULL: it has none */
} DpBackend;

extern const DpBackend dp_backend_ref, dp_backend_cpu;

/** What "cuda:N" says on a machine without a driver; %s is its name. */
#define DP_NO_DRIVER "device %s: there is no NVIDIA driver here (libcuda.so.1); install it, or use devices=cpu"
