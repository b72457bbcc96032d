/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backend.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const DpBackend *const backends[] = { &dp_backend_cpu, &dp_backend_ref };

#define MAX_THREADS 1024

/* The backend a name asks for; NULL and a sentence if there is none. */
static const DpBackend *
find_backend (const char *name, char *error, size_t error_size)
{
  for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
    if (strcmp (name, backends[i]->name) == 0)
      return backends[i];
  if (strcmp (name, "cuda") == 0 || strncmp (name, "cuda:", 5) == 0)
    snprintf (error, error_size, "device %s: this build has no CUDA support; use devices=cpu", name);
  else
    snprintf (error, error_size, "there is no device \"%s\"; known devices are cpu, ref (slow, for tests) and cuda:0, cuda:1, ...", name);
  return NULL;
}

DpDevice *
dp_device_open (const char *name, int threads, char *error, size_t error_size)
{
  const DpBackend *backend = find_backend (name, error, error_size);

  if (backend == NULL)
    return NULL;
  if (threads < 0 || threads > MAX_THREADS) {
    snprintf (error, error_size, "device %s: %d threads make no sense; use 1 to %d, or 0 for one per processor", name, threads,
        MAX_THREADS);
    return NULL;
  }
  return backend->open (name, threads > 0 ? threads : dp_device_processors (), error, error_size);
}

void
dp_device_close (DpDevice *dev)
{
  if (dev == NULL)
    return;
  dev->ops->sync (dev);
  for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
    if (strcmp (dev->ops->name, backends[i]->name) == 0) {
      backends[i]->close (dev);
      return;
    }
}

bool
dp_device_info (const char *name, DpDeviceInfo *info, char *error, size_t error_size)
{
  const DpBackend *backend = find_backend (name, error, error_size);

  *info = (DpDeviceInfo) { 0 };
  return backend && backend->info (name, info, error, error_size);
}

void
dp_device_fail (DpDevice *dev, const char *format, ...)
{
  va_list ap;

  if (dev->error[0])
    return;
  va_start (ap, format);
  vsnprintf (dev->error, sizeof dev->error, format, ap);
  va_end (ap);
}

bool
dp_device_check (DpDevice *dev, char *error, size_t error_size)
{
  dev->ops->sync (dev);
  if (dev->error[0] == 0)
    return true;
  snprintf (error, error_size, "%s", dev->error);
  dev->error[0] = 0;
  return false;
}

int
dp_device_processors (void)
{
  /* A fixed cpu_set_t holds 1024 processors; larger machines need a larger set. */
  for (int n = 1024; n <= 1 << 16; n *= 2) {
    cpu_set_t *set = CPU_ALLOC (n);
    int count = 0;

    if (set == NULL)
      break;
    if (sched_getaffinity (0, CPU_ALLOC_SIZE (n), set) == 0)
      count = CPU_COUNT_S (CPU_ALLOC_SIZE (n), set);
    CPU_FREE (set);
    if (count > 0)
      return count;
  }
  return 1;
}
