/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Weights from a file or from host memory to the device. The GPU reads pinned memory on its own; so a weight goes through a ring of pinned
 * buffers in pieces: some threads read a piece into a buffer while the GPU takes those before it.
 * All that is queued is on the device's stream, so pieces arrive in order, behind the ops that still use what they replace; a buffer is
 * written again when the event behind its last transfer has passed. Conversion is the GPU's, from the workspace.
 */
#include "cuda.h"
#include "../thread_pool.h"

#include <stdlib.h>

#define PIECE ((size_t) 8 << 20)
#define BUFFERS 3
#define CHUNK ((size_t) 512 << 10)      /* of a piece, for a thread */
#define MAX_THREADS 8           /* more do not read memory faster */
#define SMALL ((size_t) 64 << 10)       /* what CUDA passes on by itself, without waiting */

struct DpUpload
{
  DpThreadPool *team;
  char *buffers[BUFFERS];       /* [PIECE] each, pinned */
  cudaEvent_t done[BUFFERS];    /* behind the last transfer from it */
  int next;
};

typedef struct
{
  DpDevice *dev;
  const DpHostWeight *weight;
  size_t first, n;              /* elements */
  char *to;
  int failed;                   /* atomic; the device says why */
} Reading;

static void
read_chunk (void *arg, int chunk, int thread)
{
  Reading *r = arg;
  size_t size = dp_type_size (r->weight->type), step = CHUNK / size, first = chunk * step, left = r->n - first;

  if (!dp_weight_read (r->dev, r->weight, r->first + first, left < step ? left : step, r->to + first * size))
    __atomic_store_n (&r->failed, 1, __ATOMIC_RELAXED);
}

void
upload_close_cuda (DpDeviceCuda *dev)
{
  struct DpUpload *u = dev->upload;

  if (u == NULL)
    return;
  for (int i = 0; i < BUFFERS; i++) {
    if (u->done[i])
      cudaEventDestroy (u->done[i]);
    if (u->buffers[i])
      cudaFreeHost (u->buffers[i]);
  }
  dp_thread_pool_free (u->team);
  free (u);
  dev->upload = NULL;
}

static bool
open_upload (DpDeviceCuda *dev)
{
  struct DpUpload *u = dev->upload = calloc (1, sizeof *u);
  bool ok;

  if (u == NULL)
    return false;
  u->team = dp_thread_pool_new (dev->copy_threads < MAX_THREADS ? dev->copy_threads : MAX_THREADS, &dev->base);
  ok = u->team != NULL;
  /* Events that are slept for: what waits here is a thread that others may need the processor of. */
  for (int i = 0; i < BUFFERS && ok; i++)
    ok = cudaMallocHost ((void **) &u->buffers[i], PIECE) == cudaSuccess
        && cudaEventCreateWithFlags (&u->done[i], cudaEventDisableTiming | cudaEventBlockingSync) == cudaSuccess;
  if (ok)
    return true;
  cudaGetLastError ();
  dp_device_fail (&dev->base, "%s: no %zu MiB of host memory that can be pinned, or no threads, to load weights with", dev->base.name,
      BUFFERS * PIECE >> 20);
  upload_close_cuda (dev);
  return false;
}

/* Enqueues elements [first, first + n) of a weight, at most a PIECE. */
static bool
send (DpDeviceCuda *dev, void *dst, const DpHostWeight *weight, size_t first, size_t n)
{
  size_t bytes = n * dp_type_size (weight->type);
  Reading reading = { &dev->base, weight, first, n };
  struct DpUpload *u;
  int i;

  if (bytes <= SMALL) {
    char small[SMALL];

    return dp_weight_read (&dev->base, weight, first, n, small) && dp_cuda_upload (dev, dst, small, bytes);
  }
  if (dev->upload == NULL && !open_upload (dev))
    return false;
  u = dev->upload;
  i = u->next;
  u->next = (i + 1) % BUFFERS;
  if (!dp_cuda_ok (dev, cudaEventSynchronize (u->done[i]), "upload"))
    return false;
  reading.to = u->buffers[i];
  dp_thread_pool_run (u->team, dp_thread_pool_chunks (bytes, CHUNK), read_chunk, &reading);
  return !reading.failed && dp_cuda_ok (dev, cudaMemcpyAsync (dst, u->buffers[i], bytes, cudaMemcpyHostToDevice, dev->stream), "upload")
      && dp_cuda_ok (dev, cudaEventRecord (u->done[i], dev->stream), "upload");
}

bool
dp_cuda_upload_weight (DpDeviceCuda *dev, const DpHostWeight *weight, size_t n, DpType type, void *dst)
{
  size_t from = dp_type_size (weight->type), to = dp_type_size (type), piece = PIECE / from;
  void *raw = weight->type == type ? NULL : dp_cuda_workspace (dev, PIECE);

  if (weight->type != type && raw == NULL)
    return false;
  for (size_t i = 0; i < n; i += piece) {
    size_t m = n - i < piece ? n - i : piece;
    char *at = (char *) dst + i * to;

    if (!dp_cuda_enter (dev) || !send (dev, raw ? raw : at, weight, i, m))
      return false;
    if (raw)
      convert_cuda (&dev->base, m, weight->type, raw, type, at);
  }
  return !dp_device_failed (&dev->base);
}
