/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host.h"
#include "host_limits.h"
#include "numeric.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* In front of every allocation, so that free can keep dev->bytes. */
typedef struct
{
  size_t bytes;
  char pad[56];
} Header;

#define HUGE_PAGE ((size_t) 2 << 20)
#define SMALL ((size_t) 1 << 20)        /* what is always granted */
#define RESERVE ((size_t) 256 << 20)    /* what is left to others, at most */
#define COPY_PIECE ((size_t) 32 << 20)

/* Bytes of host memory that devices of this process hold. Raised under the lock, so that two threads are not granted the same bytes. */
static atomic_size_t granted;
static pthread_mutex_t granting = PTHREAD_MUTEX_INITIALIZER;

/* Bytes of it that were never written to: the system has promised them, but still counts them as available. */
static size_t
untouched (size_t page)
{
  unsigned long long resident, shared;
  size_t all = atomic_load (&granted), anonymous = SIZE_MAX;
  FILE *f = fopen ("/proc/self/statm", "re");

  if (f == NULL)
    return 0;
  if (fscanf (f, "%*u %llu %llu", &resident, &shared) == 2)
    anonymous = (resident - shared) * page;
  fclose (f);
  return all > anonymous ? all - anonymous : 0;
}

static size_t
min (size_t a, size_t b)
{
  return a < b ? a : b;
}

void
dp_host_memory_size (size_t *total, size_t *available)
{
  char line[128];
  unsigned long long kib;
  FILE *f = fopen ("/proc/meminfo", "re");
  size_t page = sysconf (_SC_PAGESIZE), promised = untouched (page), space, space_left;
  DpCgroupLimits group;

  *total = sysconf (_SC_PHYS_PAGES) * page;
  *available = sysconf (_SC_AVPHYS_PAGES) * page;
  if (f) {
    while (fgets (line, sizeof line, f))
      if (sscanf (line, "MemAvailable: %llu kB", &kib) == 1)
        *available = kib * 1024;
    fclose (f);
  }
  dp_host_limits_of_process (&group);
  dp_host_limits_address_space (&space, &space_left);
  *total = min (*total, min (group.memory, space));
  *available = min (*available, group.memory_left);
  *available -= min (promised, *available);
  *available = min (*available, space_left);    /* of which all that was promised is gone */
}

/* With overcommit the system grants more than there is, and kills the process when it uses it. */
static bool
grant (size_t bytes)
{
  size_t total, available, reserve;
  bool fits = true;

  pthread_mutex_lock (&granting);
  if (bytes > SMALL) {
    dp_host_memory_size (&total, &available);
    reserve = total / 16 < RESERVE ? total / 16 : RESERVE;
    fits = available > reserve && bytes <= available - reserve;
  }
  if (fits)
    atomic_fetch_add (&granted, bytes);
  pthread_mutex_unlock (&granting);
  return fits;
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
  Header *header;

  if (!grant (bytes))
    return NULL;
  header = aligned_alloc (64, (bytes + sizeof *header + 63) / 64 * 64);
  if (header == NULL) {
    atomic_fetch_sub (&granted, bytes);
    return NULL;
  }
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
  atomic_fetch_sub (&granted, header->bytes);
  free (header);
}

void *
alloc_host (DpDevice *dev, size_t bytes)
{
  dev->allocations++;
  return dp_host_memory_new (dev, bytes);
}

void
free_host (DpDevice *dev, void *ptr)
{
  dp_host_memory_free (dev, ptr);
}

void *
host_alloc_host (DpDevice *dev, size_t bytes)
{
  return alloc_host (dev, bytes);
}

void
host_free_host (DpDevice *dev, void *ptr)
{
  free_host (dev, ptr);
}

void
upload_host (DpDevice *dev, void *dst, const void *host, size_t bytes)
{
  if (bytes > 0)
    memcpy (dst, host, bytes);
}

void
download_host (DpDevice *dev, void *host, const void *src, size_t bytes)
{
  if (bytes > 0)
    memcpy (host, src, bytes);
}

void
copy_host (DpDevice *dev, void *dst, const void *src, size_t bytes)
{
  /* In pieces: gigabytes take longer than a cancel may, above all in memory that was never touched */
  for (size_t at = 0; at < bytes && !dp_device_cancelled (dev); at += COPY_PIECE)
    memcpy ((char *) dst + at, (const char *) src + at, bytes - at < COPY_PIECE ? bytes - at : COPY_PIECE);
}

void
fill_host (DpDevice *dev, void *dst, int byte, size_t bytes)
{
  for (size_t at = 0; at < bytes && !dp_device_cancelled (dev); at += COPY_PIECE)
    memset ((char *) dst + at, byte, bytes - at < COPY_PIECE ? bytes - at : COPY_PIECE);
}

void
sync_host (DpDevice *dev)
{
}

int64_t
dp_host_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * INT64_C (1000000) + ts.tv_nsec / 1000;
}

DpMark *
mark_new_host (DpDevice *dev)
{
  DpMark *mark = calloc (1, sizeof *mark);

  if (mark)
    mark->dev = dev;
  return mark;
}

void
mark_free_host (DpDevice *dev, DpMark *mark)
{
  if (mark && !mark->dev->host_memory)
    mark->dev->ops->mark_free (dev, mark);
  else
    free (mark);
}

/* The ops of a host device are complete when they return. */
void
mark_host (DpDevice *dev, DpMark *mark)
{
  __atomic_store_n (&mark->time, dp_host_now (), __ATOMIC_RELEASE);
}

void
mark_wait_host (DpDevice *dev, const DpMark *mark)
{
  if (!mark->dev->host_memory)
    mark->dev->ops->mark_wait (dev, mark);
}

int64_t
mark_time_host (DpDevice *dev, const DpMark *mark)
{
  return mark->dev->host_memory ? __atomic_load_n (&mark->time, __ATOMIC_ACQUIRE) : mark->dev->ops->mark_time (dev, mark);
}

void
follow_host (DpDevice *dev, const DpMark *mark)
{
  mark_wait_host (dev, mark);
}

void
transfer_host (DpDevice *dev, const DpTransferArgs *args)
{
  if (!args->to->host_memory) {
    args->to->ops->transfer (dev, args);
    return;
  }
  for (int i = 0; i < 2; i++)
    if (args->after[i])
      mark_wait_host (dev, args->after[i]);
  if (!dp_device_failed (dev))
    copy_host (dev, args->dst, args->src, args->bytes);
  mark_host (args->done->dev, args->done);
}

int
dp_linear_rows (const DpLinearSpec *spec)
{
  int n = 0;

  for (int i = 0; i < spec->n_weights; i++)
    n += spec->weights[i].rows;
  return n;
}

/* The exponent of NaN and infinity is all ones. No early end within a run, so that the compiler makes vector code of it. */
#define FINITE_RUN 4096
#define ALL_FINITE(Word, name, exponent) \
static bool \
name (const void *data, size_t n) \
{ \
  const Word *words = data; \
\
  for (size_t i = 0; i < n; i += FINITE_RUN) { \
    size_t end = n - i < FINITE_RUN ? n : i + FINITE_RUN; \
    Word bad = 0; \
\
    for (size_t j = i; j < end; j++) \
      bad |= (words[j] & (exponent)) == (exponent); \
    if (bad) \
      return false; \
  } \
  return true; \
}

ALL_FINITE (uint32_t, f32_finite, 0x7f800000)
ALL_FINITE (uint16_t, bf16_finite, 0x7f80)
ALL_FINITE (uint16_t, f16_finite, 0x7c00)

bool
dp_all_finite (DpType type, const void *data, size_t n)
{
  return (type == DP_TYPE_F32 ? f32_finite : type == DP_TYPE_BF16 ? bf16_finite : f16_finite) (data, n);
}

#define READ_PIECE ((size_t) 32 << 10)  /* bytes; stays in the first cache or the second */

static bool
read_raw (DpDevice *dev, const DpHostWeight *weight, size_t first, size_t n, void *dst)
{
  size_t size = dp_type_size (weight->type);

  if (weight->read (weight->source, weight->offset + first * size, dst, n * size))
    return true;
  dp_device_fail (dev, "a weight cannot be read");
  return false;
}

static bool
check_finite (DpDevice *dev, DpType type, const void *data, size_t n)
{
  if (dp_all_finite (type, data, n))
    return true;
  dp_device_fail (dev, "a weight is NaN or infinite");
  return false;
}

bool
dp_weight_read (DpDevice *dev, const DpHostWeight *weight, size_t first, size_t n, void *dst)
{
  size_t size = dp_type_size (weight->type);

  if (weight->data)
    memcpy (dst, (const char *) weight->data + first * size, n * size);
  else if (!read_raw (dev, weight, first, n, dst))
    return false;
  return check_finite (dev, weight->type, dst, n);
}

static void
to_f32 (DpType from, const void *src, size_t n, DpType type, float *dst)
{
  for (size_t i = 0; i < n; i++) {
    float f = dp_load (from, src, i);

    dst[i] = type == DP_TYPE_BF16 ? dp_f32_from_bf16 (dp_bf16_from_f32 (f)) : f;
  }
}

bool
dp_weight_to_f32 (DpDevice *dev, const DpHostWeight *weight, size_t first, size_t n, DpType type, float *dst)
{
  size_t size = dp_type_size (weight->type), piece = READ_PIECE / size;
  uint64_t buffer[READ_PIECE / 8];

  for (size_t i = 0; i < n; i += piece) {
    size_t m = n - i < piece ? n - i : piece;
    const void *src = weight->data ? (const char *) weight->data + (first + i) * size : (const char *) buffer;

    if ((!weight->data && !read_raw (dev, weight, first + i, m, buffer)) || !check_finite (dev, weight->type, src, m))
      return false;
    to_f32 (weight->type, src, m, type, dst + i);
  }
  return true;
}

bool
dp_linear_weights (DpDevice *dev, const DpLinearSpec *spec, float *weights)
{
  for (int i = 0; i < spec->n_weights; i++) {
    size_t n = (size_t) spec->weights[i].rows * spec->k;

    if (!dp_weight_to_f32 (dev, &spec->weights[i], 0, n, spec->type, weights))
      return false;
    weights += n;
  }
  return true;
}

bool
dp_linear_biases (DpDevice *dev, const DpLinearSpec *spec, float *biases)
{
  memset (biases, 0, dp_linear_rows (spec) * sizeof (float));
  for (int i = 0; i < spec->n_weights && spec->biases; i++) {
    int rows = spec->weights[i].rows;

    /* A piece without a bias beside pieces with one has zeros. */
    if (dp_weight_exists (&spec->biases[i]) && !dp_weight_to_f32 (dev, &spec->biases[i], 0, rows, DP_TYPE_F32, biases))
      return false;
    biases += rows;
  }
  return true;
}
