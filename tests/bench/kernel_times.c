/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the GPUs do while a program runs: how long each kernel and each kind of copy takes on each GPU. The CUDA driver loads this library
 * into any program, and the table comes on standard error when that ends:
 *   CUDA_INJECTION64_PATH=build/tests/bench/libkernel-times.so build/engine/dualparal bench ...
 * "blocks" is the share of a GPU's multiprocessors that a kernel can have taken: its time, by how many of them its blocks fill at one each.
 * Kernels with "nccl" in their names are what communication takes of them; copies take none.
 */
#include <cuda.h>
#include <cupti.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_BYTES ((size_t) 8 << 20)
#define MAX_ROWS 1024
#define MAX_GPUS 64

typedef struct
{
  unsigned gpu;
  char name[56];                /* the beginning of it */
  double count, seconds, blocks;        /* blocks: seconds of all multiprocessors */
} Row;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Row rows[MAX_ROWS];
static int n_rows;
static uint64_t first[MAX_GPUS], last[MAX_GPUS];        /* ns */

static void
see (unsigned gpu, const char *name, uint64_t start, uint64_t end, double share)
{
  Row *row = rows;

  if (gpu >= MAX_GPUS)
    return;
  while (row < rows + n_rows && (row->gpu != gpu || strncmp (row->name, name, sizeof row->name - 1) != 0))
    row++;
  if (row == rows + MAX_ROWS)
    return;
  if (row == rows + n_rows) {
    n_rows++;
    row->gpu = gpu;
    strncpy (row->name, name, sizeof row->name - 1);
  }
  row->count++;
  row->seconds += (end - start) / 1e9;
  row->blocks += (end - start) / 1e9 * share;
  if (first[gpu] == 0 || start < first[gpu])
    first[gpu] = start;
  if (end > last[gpu])
    last[gpu] = end;
}

/* How much of a GPU so many blocks take at most. The driver is asked by name: it is in the process, and need not be where this is built. */
static double
share_of (unsigned gpu, double blocks)
{
  static CUresult (*get_attribute) (int *, CUdevice_attribute, CUdevice);
  int multiprocessors = 1;

  if (get_attribute == NULL)
    *(void **) &get_attribute = dlsym (dlopen ("libcuda.so.1", RTLD_LAZY), "cuDeviceGetAttribute");
  if (get_attribute)
    get_attribute (&multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, (CUdevice) gpu);
  return blocks < multiprocessors ? blocks / multiprocessors : 1;
}

static void
see_record (const CUpti_Activity *record)
{
  if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
    const CUpti_ActivityKernel10 *k = (const CUpti_ActivityKernel10 *) record;

    see (k->deviceId, k->name, k->start, k->end, share_of (k->deviceId, (double) k->gridX * k->gridY * k->gridZ));
  } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
    const CUpti_ActivityMemcpy6 *m = (const CUpti_ActivityMemcpy6 *) record;

    see (m->deviceId, m->copyKind == CUPTI_ACTIVITY_MEMCPY_KIND_DTOD ? "(copy within the GPU)" : "(copy to or from the host)",
        m->start, m->end, 0);
  } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY2) {
    const CUpti_ActivityMemcpyPtoP4 *m = (const CUpti_ActivityMemcpyPtoP4 *) record;

    see (m->deviceId, "(copy to another GPU)", m->start, m->end, 0);
  }
}

static void CUPTIAPI
give_buffer (uint8_t **buffer, size_t *size, size_t *most_records)
{
  *buffer = aligned_alloc (8, BUFFER_BYTES);
  *size = *buffer ? BUFFER_BYTES : 0;
  *most_records = 0;
}

static void CUPTIAPI
take_buffer (CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
  CUpti_Activity *record = NULL;

  (void) context, (void) stream, (void) size;
  pthread_mutex_lock (&lock);
  while (cuptiActivityGetNextRecord (buffer, valid, &record) == CUPTI_SUCCESS)
    see_record (record);
  pthread_mutex_unlock (&lock);
  free (buffer);
}

static int
compare (const void *a, const void *b)
{
  const Row *x = a, *y = b;

  return x->gpu != y->gpu ? (int) x->gpu - (int) y->gpu : x->seconds > y->seconds ? -1 : x->seconds < y->seconds;
}

static void
print (void)
{
  cuptiActivityFlushAll (CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  pthread_mutex_lock (&lock);
  qsort (rows, n_rows, sizeof rows[0], compare);
  fprintf (stderr, "GPU       count     seconds     of all      blocks  name\n");
  for (const Row *row = rows; row < rows + n_rows; row++) {
    double all = (last[row->gpu] - first[row->gpu]) / 1e9;

    fprintf (stderr, "%3u %11.0f %11.4f %9.3f%% %10.3f%%  %s\n", row->gpu, row->count, row->seconds, 100 * row->seconds / all,
        100 * row->blocks / all, row->name);
  }
  pthread_mutex_unlock (&lock);
}

static int
start (void)
{
  static const CUpti_ActivityKind kinds[] = { CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMCPY2 };
  int ok = cuptiActivityRegisterCallbacks (give_buffer, take_buffer) == CUPTI_SUCCESS;

  for (int i = 0; ok && i < 3; i++)
    ok = cuptiActivityEnable (kinds[i]) == CUPTI_SUCCESS;
  return ok;
}

/* The driver calls it where cuInit() begins. */
int InitializeInjection (void);

int
InitializeInjection (void)
{
  if (!start ()) {
    fprintf (stderr, "kernel-times: CUPTI cannot watch this program\n");
    return 0;
  }
  atexit (print);
  return 1;
}
