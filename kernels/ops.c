/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backend.h"
#include "numeric.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

/* In front of every allocation, so that free can keep dev->bytes. */
typedef struct
{
  size_t bytes;
  char pad[56];
} Header;

#define HUGE_PAGE ((size_t) 2 << 20)

void
dp_host_memory_size (size_t *total, size_t *available)
{
  char line[128];
  unsigned long long kib;
  FILE *f = fopen ("/proc/meminfo", "re");
  size_t page = sysconf (_SC_PAGESIZE);

  *total = sysconf (_SC_PHYS_PAGES) * page;
  *available = sysconf (_SC_AVPHYS_PAGES) * page;
  if (f == NULL)
    return;
  while (fgets (line, sizeof line, f))
    if (sscanf (line, "MemAvailable: %llu kB", &kib) == 1)
      *available = kib * 1024;
  fclose (f);
}

void
dp_host_processor_name (char *name, size_t size)
{
  char line[256];
  struct utsname machine;
  FILE *f = fopen ("/proc/cpuinfo", "re");

  uname (&machine);
  snprintf (name, size, "%s", machine.machine);
  if (f == NULL)
    return;
  while (fgets (line, sizeof line, f)) {
    char *value = strchr (line, ':');

    if (strncmp (line, "model name", 10) != 0 || value == NULL)
      continue;
    line[strcspn (line, "\n")] = 0;
    snprintf (name, size, "%s", value + 2);
    break;
  }
  fclose (f);
}

void *
dp_host_memory_new (DpDevice *dev, size_t bytes)
{
  size_t total = (size_t) sysconf (_SC_PHYS_PAGES) * sysconf (_SC_PAGESIZE);
  Header *header;

  /* Overcommit would grant more than the machine has and kill the process on first use. */
  if (bytes > total)
    return NULL;
  header = aligned_alloc (64, (bytes + sizeof *header + 63) / 64 * 64);
  if (header == NULL)
    return NULL;
  if (bytes >= 2 * HUGE_PAGE) {
    uintptr_t from = ((uintptr_t) header + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1), to = (uintptr_t) header + bytes;

    madvise ((void *) from, (to - from) & ~(HUGE_PAGE - 1), MADV_HUGEPAGE);
  }
  header->bytes = bytes;
  dev->bytes += bytes;
  return header + 1;
}

void
dp_host_memory_free (DpDevice *dev, void *ptr)
{
  Header *header = ptr;

  if (ptr == NULL)
    return;
  header--;
  dev->bytes -= header->bytes;
  free (header);
}

void *
dp_host_alloc (DpDevice *dev, size_t bytes)
{
  dev->allocations++;
  return dp_host_memory_new (dev, bytes);
}

void
dp_host_free (DpDevice *dev, void *ptr)
{
  dp_host_memory_free (dev, ptr);
}

void
dp_host_upload (DpDevice *dev, void *dst, const void *host, size_t bytes)
{
  if (bytes > 0)
    memcpy (dst, host, bytes);
}

void
dp_host_download (DpDevice *dev, void *host, const void *src, size_t bytes)
{
  if (bytes > 0)
    memcpy (host, src, bytes);
}

void
dp_host_copy (DpDevice *dev, void *dst, const void *src, size_t bytes)
{
  if (bytes > 0)
    memcpy (dst, src, bytes);
}

void
dp_host_sync (DpDevice *dev)
{
}

int
dp_linear_rows (const DpLinearSpec *spec)
{
  int n = 0;

  for (int i = 0; i < spec->n_weights; i++)
    n += spec->weights[i].rows;
  return n;
}

void
dp_weight_to_f32 (const DpHostWeight *weight, size_t n, DpType type, float *dst)
{
  for (size_t i = 0; i < n; i++) {
    float f = dp_load (weight->type, weight->data, i);

    dst[i] = type == DP_TYPE_BF16 ? dp_f32_from_bf16 (dp_bf16_from_f32 (f)) : f;
  }
}

void
dp_linear_weights (const DpLinearSpec *spec, float *weights)
{
  for (int i = 0; i < spec->n_weights; i++) {
    size_t n = (size_t) spec->weights[i].rows * spec->k;

    dp_weight_to_f32 (&spec->weights[i], n, spec->type, weights);
    weights += n;
  }
}

bool
dp_linear_biases (const DpLinearSpec *spec, float *biases)
{
  if (spec->biases == NULL)
    return false;
  for (int i = 0; i < spec->n_weights; i++) {
    int rows = spec->weights[i].rows;

    /* A piece without a bias beside pieces with one has zeros. */
    if (spec->biases[i].data)
      dp_weight_to_f32 (&spec->biases[i], rows, DP_TYPE_F32, biases);
    else
      memset (biases, 0, rows * sizeof (float));
    biases += rows;
  }
  return true;
}
