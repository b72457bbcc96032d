/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device.h"
#include "host_limits.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>

/* ---- the latch ---- */

static bool
latch (DpDevice *dev, bool no_memory, const char *format, va_list ap)
{
  int none = 0;

  if (!__atomic_compare_exchange_n (&dev->failed, &none, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
    return false;
  dev->no_memory = no_memory;
  vsnprintf (dev->error, sizeof dev->error, format, ap);
  __atomic_store_n (&dev->failed, 2, __ATOMIC_RELEASE);
  return true;
}

bool
dp_device_fail (DpDevice *dev, const char *format, ...)
{
  va_list ap;
  bool first;

  va_start (ap, format);
  first = latch (dev, false, format, ap);
  va_end (ap);
  return first;
}

void
dp_device_fail_memory (DpDevice *dev, const char *format, ...)
{
  va_list ap;

  va_start (ap, format);
  latch (dev, true, format, ap);
  va_end (ap);
}

bool
dp_device_take_error (DpDevice *dev, char *error, size_t error_size)
{
  if (!dp_device_failed (dev))
    return true;
  snprintf (error, error_size, "%s", dev->error);
  __atomic_store_n (&dev->failed, 0, __ATOMIC_RELEASE);
  return false;
}

bool
dp_device_check (DpDevice *dev, char *error, size_t error_size)
{
  dev->ops->sync (dev);
  return dp_device_take_error (dev, error, error_size);
}

/* ---- the machine ---- */

static int
affinity (void)
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

int
dp_device_processors (void)
{
  int processors = affinity ();
  DpCgroupLimits limits;

  dp_host_limits_of_process (&limits);
  return limits.processors > 0 && limits.processors < processors ? limits.processors : processors;
}
