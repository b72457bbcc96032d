/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cpu.h"

/* Elements of a chunk: enough to be worth handing out, small enough to stay in a core's own cache. */
#define CHUNK 16384
/* So few are done before a helper has woken up. */
#define ALONE 65536

bool
dp_cpu_scratch (DpDeviceCpu *dev, size_t bytes)
{
  if (bytes <= dev->scratch_size)
    return true;
  dev->base.allocations++;
  dev->scratch_size = 0;
  for (int i = 0; i < dev->base.threads; i++) {
    dp_host_memory_free (&dev->base, dev->scratch[i]);
    dev->scratch[i] = NULL;
  }
  for (int i = 0; i < dev->base.threads; i++) {
    dev->scratch[i] = dp_host_memory_new (&dev->base, bytes);
    if (dev->scratch[i] == NULL) {
      dp_device_fail_memory (&dev->base, "not enough memory for %zu bytes of scratch in each of %d threads", bytes, dev->base.threads);
      return false;
    }
  }
  dev->scratch_size = bytes;
  return true;
}

bool
dp_cpu_shared (DpDeviceCpu *dev, size_t bytes)
{
  if (bytes <= dev->shared_size)
    return true;
  dev->base.allocations++;
  dev->shared_size = 0;
  dp_host_memory_free (&dev->base, dev->shared);
  dev->shared = dp_host_memory_new (&dev->base, bytes);
  if (dev->shared == NULL) {
    dp_device_fail_memory (&dev->base, "not enough memory for %zu bytes of scratch", bytes);
    return false;
  }
  dev->shared_size = bytes;
  return true;
}

bool
dp_cpu_dnnl_ok (DpDevice *dev, dnnl_status_t status, const char *what)
{
  static const char *const names[] = {
    "success", "out of memory", "invalid arguments", "unimplemented", "no more implementations", "runtime error", "not required",
  };

  if (status == dnnl_success)
    return true;
  if (status == dnnl_out_of_memory)
    dp_device_fail_memory (dev, "%s: oneDNN has not enough memory", what);
  dp_device_fail (dev, "%s: oneDNN says %s", what, (size_t) status < sizeof names / sizeof *names ? names[status] : "an unknown error");
  return false;
}

typedef struct
{
  DpCpuJob job;
  DpTeamFn fn;
} AloneJob;

static void
all_chunks (void *arg, int chunk, int thread)
{
  AloneJob *alone = arg;

  for (int i = 0; i < dp_thread_pool_chunks (alone->job.n, alone->job.per_chunk); i++)
    alone->fn (&alone->job, i, thread);
}

void
dp_cpu_run (DpDevice *dev, DpTeamFn fn, const void *args, size_t n, size_t width)
{
  size_t per_chunk = CHUNK / (width ? width : 1);
  AloneJob alone = { { args, n, per_chunk ? per_chunk : 1 }, fn };

  if (n * width <= ALONE)
    dp_thread_pool_run (dp_cpu (dev)->team, n > 0, all_chunks, &alone);
  else
    dp_thread_pool_run (dp_cpu (dev)->team, dp_thread_pool_chunks (n, alone.job.per_chunk), fn, &alone.job);
}
