/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Marks are events. A transfer is queued on the copy stream of its sender, or of the receiver if the sender's memory is the host's; so it
 * runs beside the ops of both. Two GPUs that reach each other copy directly. Two that do not go through pinned host memory, in pieces: the
 * sender's copy stream fills a ring of buffers, a stream on the receiver's GPU empties it, and events keep the two from overtaking
 * each other, so that both directions of the bus are busy at once.
 */
#include "cuda.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#define PIECE ((size_t) 2 << 20)
#define BUFFERS 4
#define CLOCK_AGE 1000000       /* microseconds after which the clocks of host and GPU are compared again: they drift apart */
#define CLOCK_ERROR 100         /* microseconds that comparing them may take, or it is tried again */

typedef struct
{
  DpMark base;
  cudaEvent_t event;
  int set;                      /* atomic; whether it ever was */
} Mark;

/* The way to one GPU that cannot be reached directly. */
typedef struct Staging
{
  struct Staging *next;
  int gpu;
  cudaStream_t stream;          /* on that GPU */
  char *buffers[BUFFERS];       /* [PIECE] each, pinned */
  cudaEvent_t full[BUFFERS];    /* of the sender's GPU: behind the copy into a buffer */
  cudaEvent_t empty[BUFFERS];   /* of the other: behind the copy out of it */
  int at;                       /* the buffer that is next */
} Staging;

struct DpPeers
{
  /* -- owned by the device's thread */
  char *reach;                  /* [GPUs]: 0 unknown, 'y' or 'n' */
  Staging *stagings;

  /* -- protected by lock */
  pthread_mutex_t lock;
  cudaStream_t clock_stream;    /* always idle, so that an event on it passes at once */
  cudaEvent_t clock;
  int64_t clock_time;           /* of the host, when the event passed; 0: it never did */
};

/* dp_cuda_ok() for a device of any backend. */
static bool
ok (DpDevice *dev, cudaError_t status, const char *what)
{
  if (status == cudaSuccess)
    return true;
  if (!dev->host_memory)
    return dp_cuda_ok (dp_cuda (dev), status, what);
  cudaGetLastError ();
  dp_device_fail (dev, "%s: %s: CUDA says \"%s\"", dev->name, what, cudaGetErrorString (status));
  return false;
}

/* ---- open and close ---- */

static void
free_staging (Staging *s)
{
  if (s->stream)
    cudaStreamSynchronize (s->stream);
  for (int i = 0; i < BUFFERS; i++) {
    if (s->full[i])
      cudaEventDestroy (s->full[i]);
    if (s->empty[i])
      cudaEventDestroy (s->empty[i]);
    if (s->buffers[i])
      cudaFreeHost (s->buffers[i]);
  }
  if (s->stream)
    cudaStreamDestroy (s->stream);
  free (s);
}

bool
peer_open_cuda (DpDeviceCuda *dev)
{
  struct DpPeers *p = dev->peers = calloc (1, sizeof *p);
  int gpus = 0;

  if (p == NULL) {
    dp_device_fail_memory (&dev->base, "%s: not enough memory", dev->base.name);
    return false;
  }
  pthread_mutex_init (&p->lock, NULL);
  if (!dp_cuda_ok (dev, cudaGetDeviceCount (&gpus), "counting GPUs"))
    return false;
  p->reach = calloc (gpus, 1);
  if (p->reach == NULL)
    dp_device_fail_memory (&dev->base, "%s: not enough memory", dev->base.name);
  return p->reach && dp_cuda_ok (dev, cudaStreamCreateWithFlags (&dev->copy_stream, cudaStreamNonBlocking), "making a stream")
      && dp_cuda_ok (dev, cudaStreamCreateWithFlags (&p->clock_stream, cudaStreamNonBlocking), "making a stream")
      && dp_cuda_ok (dev, cudaEventCreate (&p->clock), "making an event");
}

void
peer_close_cuda (DpDeviceCuda *dev)
{
  struct DpPeers *p = dev->peers;
  Staging *next;

  if (p == NULL)
    return;
  for (Staging *s = p->stagings; s; s = next) {
    next = s->next;
    free_staging (s);
  }
  if (p->clock)
    cudaEventDestroy (p->clock);
  if (p->clock_stream)
    cudaStreamDestroy (p->clock_stream);
  if (dev->copy_stream)
    cudaStreamDestroy (dev->copy_stream);
  pthread_mutex_destroy (&p->lock);
  free (p->reach);
  free (p);
  dev->peers = NULL;
}

/* ---- marks ---- */

/* Makes the mark's GPU current on this thread, which may be any. */
static bool
enter (DpDevice *dev, const DpMark *mark)
{
  return ok (dev, cudaSetDevice (dp_cuda (mark->dev)->index), "choosing the GPU");
}

DpMark *
mark_new_cuda (DpDevice *base)
{
  Mark *mark = calloc (1, sizeof *mark);

  if (mark == NULL)
    return NULL;
  mark->base.dev = base;
  if (enter (base, &mark->base) && ok (base, cudaEventCreate (&mark->event), "making an event"))
    return &mark->base;
  free (mark);
  return NULL;
}

void
mark_free_cuda (DpDevice *base, DpMark *mark)
{
  if (mark == NULL || mark->dev->host_memory) {
    mark_free_host (base, mark);
    return;
  }
  if (!dp_cuda (mark->dev)->lost && enter (base, mark))
    ok (base, cudaEventDestroy (((Mark *) mark)->event), "freeing an event");
  free (mark);
}

static void
set (DpDevice *dev, DpMark *mark, cudaStream_t stream)
{
  if (!dp_cuda (mark->dev)->lost && enter (dev, mark) && ok (dev, cudaEventRecord (((Mark *) mark)->event, stream), "setting a mark"))
    __atomic_store_n (&((Mark *) mark)->set, 1, __ATOMIC_RELEASE);
}

void
mark_cuda (DpDevice *base, DpMark *mark)
{
  assert (mark->dev == base);
  set (base, mark, dp_cuda (base)->stream);
}

void
mark_wait_cuda (DpDevice *base, const DpMark *mark)
{
  if (!mark->dev->host_memory && enter (base, mark))
    ok (base, cudaEventSynchronize (((const Mark *) mark)->event), "waiting for the GPU");
}

/* Lets an event pass on the GPU and notes when: between the two looks at the host's clock. */
static cudaError_t
compare_clocks (struct DpPeers *p)
{
  int64_t began, took = CLOCK_ERROR + 1;

  for (int i = 0; i < 4 && took > CLOCK_ERROR; i++) {
    cudaError_t status;

    began = dp_host_now ();
    status = cudaEventRecord (p->clock, p->clock_stream);
    if (status == cudaSuccess)
      status = cudaEventSynchronize (p->clock);
    if (status != cudaSuccess)
      return status;
    took = dp_host_now () - began;
    p->clock_time = began + took / 2;
  }
  return cudaSuccess;
}

int64_t
mark_time_cuda (DpDevice *base, const DpMark *mark)
{
  struct DpPeers *p;
  cudaError_t status = cudaSuccess;
  int64_t time, now = dp_host_now ();
  float ms = 0;

  if (mark->dev->host_memory)
    return mark_time_host (base, mark);
  if (!__atomic_load_n (&((const Mark *) mark)->set, __ATOMIC_ACQUIRE))
    return 0;
  if (!enter (base, mark))
    return now;
  p = dp_cuda (mark->dev)->peers;
  pthread_mutex_lock (&p->lock);
  if (p->clock_time == 0 || now - p->clock_time > CLOCK_AGE)
    status = compare_clocks (p);
  /* Negative for what was before. A float keeps 0.06 ms over ten minutes. */
  if (status == cudaSuccess)
    status = cudaEventElapsedTime (&ms, p->clock, ((const Mark *) mark)->event);
  time = p->clock_time + llround (ms * 1000.0);
  pthread_mutex_unlock (&p->lock);
  return ok (base, status, "reading a mark's time") ? time : now;
}

void
follow_cuda (DpDevice *base, const DpMark *mark)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (!mark->dev->host_memory && !dev->lost && dp_cuda_ok (dev, cudaSetDevice (dev->index), "choosing the GPU"))
    dp_cuda_ok (dev, cudaStreamWaitEvent (dev->stream, ((const Mark *) mark)->event, 0), "following a mark");
}

/* ---- transfers ---- */

/* Whether src's GPU writes to dst's memory by itself; enables that once. */
static bool
reaches (DpDeviceCuda *src, const DpDeviceCuda *dst)
{
  char *reach = &src->peers->reach[dst->index];
  int can = 0;

  if (*reach == 0) {
    if (cudaDeviceCanAccessPeer (&can, src->index, dst->index) == cudaSuccess && can) {
      cudaError_t status = cudaDeviceEnablePeerAccess (dst->index, 0);

      can = status == cudaSuccess || status == cudaErrorPeerAccessAlreadyEnabled;
    }
    cudaGetLastError ();
    *reach = can ? 'y' : 'n';
  }
  return *reach == 'y';
}

static Staging *
find_staging (DpDeviceCuda *src, const DpDeviceCuda *dst)
{
  Staging *s;
  bool fits;

  for (s = src->peers->stagings; s; s = s->next)
    if (s->gpu == dst->index)
      return s;
  s = calloc (1, sizeof *s);
  if (s == NULL) {
    dp_device_fail_memory (&src->base, "%s: not enough memory", src->base.name);
    return NULL;
  }
  src->base.allocations++;
  s->gpu = dst->index;
  fits = true;
  for (int i = 0; i < BUFFERS && fits; i++)
    fits = dp_cuda_ok (src, cudaMallocHost ((void **) &s->buffers[i], PIECE), "pinning host memory")
        && dp_cuda_ok (src, cudaEventCreateWithFlags (&s->full[i], cudaEventDisableTiming), "making an event");
  fits = fits && dp_cuda_ok (src, cudaSetDevice (dst->index), "choosing the GPU")
      && dp_cuda_ok (src, cudaStreamCreateWithFlags (&s->stream, cudaStreamNonBlocking), "making a stream");
  for (int i = 0; i < BUFFERS && fits; i++)
    fits = dp_cuda_ok (src, cudaEventCreateWithFlags (&s->empty[i], cudaEventDisableTiming), "making an event");
  if (!dp_cuda_ok (src, cudaSetDevice (src->index), "choosing the GPU") || !fits) {
    free_staging (s);
    return NULL;
  }
  s->next = src->peers->stagings;
  return src->peers->stagings = s;
}

static bool
stage_piece (DpDeviceCuda *src, Staging *s, int i, void *to, const void *from, size_t bytes)
{
  return dp_cuda_ok (src, cudaStreamWaitEvent (src->copy_stream, s->empty[i], 0), "transfer")
      && dp_cuda_ok (src, cudaMemcpyAsync (s->buffers[i], from, bytes, cudaMemcpyDeviceToHost, src->copy_stream), "transfer")
      && dp_cuda_ok (src, cudaEventRecord (s->full[i], src->copy_stream), "transfer")
      && dp_cuda_ok (src, cudaStreamWaitEvent (s->stream, s->full[i], 0), "transfer")
      && dp_cuda_ok (src, cudaMemcpyAsync (to, s->buffers[i], bytes, cudaMemcpyHostToDevice, s->stream), "transfer")
      && dp_cuda_ok (src, cudaEventRecord (s->empty[i], s->stream), "transfer");
}

/* The copy stream ends up behind all of it. */
static void
copy_staged (DpDeviceCuda *src, const DpDeviceCuda *dst, const DpTransferArgs *args)
{
  Staging *s = find_staging (src, dst);
  int last = 0;

  if (s == NULL)
    return;
  for (size_t at = 0; at < args->bytes; at += PIECE) {
    last = s->at;
    s->at = (last + 1) % BUFFERS;
    if (!stage_piece (src, s, last, (char *) args->dst + at, (const char *) args->src + at,
            args->bytes - at < PIECE ? args->bytes - at : PIECE))
      return;
  }
  dp_cuda_ok (src, cudaStreamWaitEvent (src->copy_stream, s->empty[last], 0), "transfer");
}

static void
copy (DpDeviceCuda *src, DpDeviceCuda *dst, cudaStream_t stream, const DpTransferArgs *args)
{
  cudaError_t status = cudaSuccess;

  for (int i = 0; i < 2 && status == cudaSuccess; i++)
    if (args->after[i] && !args->after[i]->dev->host_memory)
      status = cudaStreamWaitEvent (stream, ((const Mark *) args->after[i])->event, 0);
  if (!ok (args->from, status, "transfer") || args->bytes == 0)
    return;
  if (src && dst && (src->base.no_peer || (src->index != dst->index && !reaches (src, dst)))) {
    copy_staged (src, dst, args);
    return;
  }
  if (src && dst && src->index != dst->index)
    status = cudaMemcpyPeerAsync (args->dst, dst->index, args->src, src->index, args->bytes, stream);
  else
    status = cudaMemcpyAsync (args->dst, args->src, args->bytes,
        src == NULL ? cudaMemcpyHostToDevice : dst == NULL ? cudaMemcpyDeviceToHost : cudaMemcpyDeviceToDevice, stream);
  ok (args->from, status, "transfer");
}

void
transfer_cuda (DpDevice *from, const DpTransferArgs *args)
{
  DpDeviceCuda *src = from->host_memory ? NULL : dp_cuda (from), *dst = args->to->host_memory ? NULL : dp_cuda (args->to);
  DpDeviceCuda *runs = src ? src : dst;

  assert (from == args->from && args->done->dev == &runs->base);
  if (!runs->lost && !dp_device_failed (from) && !dp_device_cancelled (from) && enter (from, args->done))
    copy (src, dst, runs->copy_stream, args);
  set (from, args->done, runs->copy_stream);
}
