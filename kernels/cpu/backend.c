/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cpu.h"
#include "linear.h"
#include "../backend.h"

#include <stdio.h>
#include <stdlib.h>

static const DpOps ops_cpu = { .name = "cpu", DP_MEMORY_OPS (DP_OP_ENTRY, host) DP_COMPUTE_OPS (DP_OP_ENTRY, cpu) };

static DpIsa
find_isa (void)
{
#if defined (__x86_64__)
  __builtin_cpu_init ();
  if (__builtin_cpu_supports ("avx512f") && __builtin_cpu_supports ("avx512bw") && __builtin_cpu_supports ("avx512vl")
      && __builtin_cpu_supports ("avx512dq") && __builtin_cpu_supports ("avx512bf16"))
    return DP_ISA_AVX512;
  if (__builtin_cpu_supports ("avx2") && __builtin_cpu_supports ("fma"))
    return DP_ISA_AVX2;
#endif
  return DP_ISA_BASE;
}

/* oneDNN numbers its instruction sets as bit sets: a larger one contains the bits of those it extends. */
static bool
dnnl_has (dnnl_cpu_isa_t isa)
{
  return (dnnl_get_effective_cpu_isa () & isa) == isa;
}

static void
close_cpu (DpDevice *base)
{
  DpDeviceCpu *dev = dp_cpu (base);

  linear_close_cpu (dev);
  for (int i = 0; i < base->threads; i++) {
    if (dev->scratch)
      dp_host_memory_free (base, dev->scratch[i]);
    if (dev->streams && dev->streams[i])
      dnnl_stream_destroy (dev->streams[i]);
  }
  dp_host_memory_free (base, dev->shared);
  if (dev->engine)
    dnnl_engine_destroy (dev->engine);
  dp_thread_pool_free (dev->team);
  free (dev->scratch);
  free (dev->streams);
  free (dev);
}

static bool
open_parts (DpDeviceCpu *dev)
{
  int threads = dev->base.threads;

  dev->scratch = calloc (threads, sizeof *dev->scratch);
  dev->streams = calloc (threads, sizeof *dev->streams);
  if (dev->scratch == NULL || dev->streams == NULL)
    return false;
  dev->team = dp_thread_pool_new (threads, &dev->base);
  if (dev->team == NULL)
    return false;
  if (dnnl_engine_create (&dev->engine, dnnl_cpu, 0) != dnnl_success)
    return false;
  for (int i = 0; i < threads; i++)
    if (dnnl_stream_create (&dev->streams[i], dev->engine, dnnl_stream_default_flags) != dnnl_success)
      return false;
  return true;
}

static DpDevice *
open_cpu (const char *name, int threads, char *error, size_t error_size)
{
  DpDeviceCpu *dev = calloc (1, sizeof *dev);

  if (dev == NULL) {
    snprintf (error, error_size, "device %s: not enough memory", name);
    return NULL;
  }
  dev->base.ops = &ops_cpu;
  dev->base.threads = threads;
  dev->base.host_memory = true;
  dev->base.latents_at_once = 1;
  snprintf (dev->base.name, sizeof dev->base.name, "%s", name);
  dev->isa = find_isa ();
  /* Without the instructions oneDNN would emulate them, slower than float32. */
  dev->dnnl_bf16 = dnnl_has (dnnl_cpu_isa_avx512_core_bf16);
  if (!open_parts (dev)) {
    if (threads == 1)           /* the caller's own: none is started */
      snprintf (error, error_size, "device %s: not enough memory", name);
    else
      snprintf (error, error_size, "device %s: cannot start %d threads; try fewer", name, threads);
    close_cpu (&dev->base);
    return NULL;
  }
  return &dev->base;
}

static bool
info_cpu (const char *name, DpDeviceInfo *info, char *error, size_t error_size)
{
  static const char *const isa_names[] = { "baseline", "AVX2", "AVX-512 BF16" };
  const dnnl_version_t *version = dnnl_version ();
  char processor[64];
  int threads = dp_device_processors ();

  dp_host_processor_name (processor, sizeof processor);
  snprintf (info->name, sizeof info->name, "%s", name);
  snprintf (info->description, sizeof info->description, "%s, %d thread%s, %s", processor, threads, threads == 1 ? "" : "s",
      isa_names[find_isa ()]);
  snprintf (info->libraries, sizeof info->libraries, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
  info->host_memory = true;
  info->speed = threads * (find_isa () == DP_ISA_AVX512 ? 1e11 : 2e10);
  dp_host_memory_size (&info->memory_total, &info->memory_free);
  info->fast_bf16 = find_isa () == DP_ISA_AVX512 && dnnl_has (dnnl_cpu_isa_avx512_core_bf16);
  return true;
}

const DpBackend dp_backend_cpu = { "cpu", open_cpu, close_cpu, info_cpu };
