/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Wires by NCCL, whose library is opened at run time. A wire is a communicator of two: the sender is rank 0 and the receiver rank 1.
 * Communicators are non-blocking, because only those can be aborted while the other end is silent.
 */
#include "cuda.h"
#include "../wire.h"

#include <dlfcn.h>
#include <nccl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libnccl.so.2"
#define MOST_CTAS 4             /* of a transfer; enough to hide it behind a pass */

#define FUNCTIONS(X) X (GetUniqueId) X (CommInitRankConfig) X (CommGetAsyncError) X (CommAbort) X (CommDestroy) X (Send) X (Recv) \
  X (GetErrorString)

typedef struct
{
#define POINTER(name) __typeof__ (&nccl##name) name;
  FUNCTIONS (POINTER)
} Nccl;

struct DpWire
{
  DpDeviceCuda *dev;
  const Nccl *nccl;
  ncclComm_t comm;
  bool receives;
  cudaStream_t stream;
  cudaEvent_t done;
  enum { CONNECTING, IDLE, QUEUING, RUNNING, FAILED } state;
  ncclResult_t result;          /* of the call that failed */
  cudaError_t status;
};

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

/* Opened on first use, and never closed. */
static const Nccl *
find_nccl (char *error, size_t error_size)
{
  static Nccl nccl;             /* protected by opening */
  static bool complete;
  void *library;

  pthread_mutex_lock (&opening);
  if (!complete && (library = dlopen (LIBRARY, RTLD_NOW | RTLD_LOCAL))) {
    complete = true;
#define FIND(name) complete &= (nccl.name = (__typeof__ (nccl.name)) dlsym (library, "nccl" #name)) != NULL;
    FUNCTIONS (FIND)
  }
  if (!complete)
    snprintf (error, error_size, "NCCL (" LIBRARY ") is not there, or too old; install NVIDIA's package libnccl2");
  pthread_mutex_unlock (&opening);
  return complete ? &nccl : NULL;
}

static bool
id_new (DpWireId *id, char *error, size_t error_size)
{
  const Nccl *nccl = find_nccl (error, error_size);
  ncclUniqueId unique;
  ncclResult_t result;

  _Static_assert (sizeof unique <= sizeof id->bytes, "a wire's id holds NCCL's");
  if (nccl == NULL)
    return false;
  result = nccl->GetUniqueId (&unique);
  if (result != ncclSuccess) {
    snprintf (error, error_size, "NCCL says \"%s\"", nccl->GetErrorString (result));
    return false;
  }
  memset (id, 0, sizeof *id);
  memcpy (id->bytes, &unique, sizeof unique);
  return true;
}

static void
wire_free (DpWire *w)
{
  cudaSetDevice (w->dev->index);
  if (w->comm && w->state == IDLE)
    w->nccl->CommDestroy (w->comm);
  else if (w->comm)
    w->nccl->CommAbort (w->comm);
  if (w->done)
    cudaEventDestroy (w->done);
  if (w->stream)
    cudaStreamDestroy (w->stream);
  free (w);
}

static DpWire *
wire_new (DpDevice *base, const DpWireId *id, bool receives, char *error, size_t error_size)
{
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  const Nccl *nccl = find_nccl (error, error_size);
  DpWire *w = nccl ? calloc (1, sizeof *w) : NULL;
  int least, greatest;
  ncclUniqueId unique;

  if (w == NULL)
    return NULL;
  w->dev = dp_cuda (base);
  w->nccl = nccl;
  w->receives = receives;
  config.blocking = 0;
  config.minCTAs = 1;
  config.maxCTAs = MOST_CTAS;
  memcpy (&unique, id->bytes, sizeof unique);
  w->status = cudaSetDevice (w->dev->index);
  if (w->status == cudaSuccess)
    w->status = cudaDeviceGetStreamPriorityRange (&least, &greatest);
  if (w->status == cudaSuccess)
    w->status = cudaStreamCreateWithPriority (&w->stream, cudaStreamNonBlocking, greatest);
  if (w->status == cudaSuccess)
    w->status = cudaEventCreateWithFlags (&w->done, cudaEventDisableTiming);
  if (w->status == cudaSuccess)
    w->result = nccl->CommInitRankConfig (&w->comm, 2, unique, receives, &config);
  if (w->status == cudaSuccess && (w->result == ncclSuccess || w->result == ncclInProgress))
    return w;
  snprintf (error, error_size, "%s: a connection to another process's GPU: %s", base->name,
      w->status != cudaSuccess ? cudaGetErrorString (w->status) : nccl->GetErrorString (w->result));
  w->state = FAILED;
  wire_free (w);
  return NULL;
}

static void
fail (DpWire *w, ncclResult_t result, cudaError_t status)
{
  w->state = FAILED;
  w->result = result;
  w->status = status;
}

static void
start (DpWire *w, void *memory, size_t bytes)
{
  cudaError_t status = cudaSetDevice (w->dev->index);
  ncclResult_t result = ncclSuccess;

  if (w->state != IDLE)
    return;
  if (status == cudaSuccess)
    result = w->receives ? w->nccl->Recv (memory, bytes, ncclChar, 0, w->comm, w->stream)
        : w->nccl->Send (memory, bytes, ncclChar, 1, w->comm, w->stream);
  if (status != cudaSuccess || (result != ncclSuccess && result != ncclInProgress))
    fail (w, result, status);
  else
    w->state = QUEUING;
}

static DpWireState
poll (DpWire *w, char *error, size_t error_size)
{
  ncclResult_t result = ncclSuccess, asked = w->state == FAILED ? ncclSuccess : w->nccl->CommGetAsyncError (w->comm, &result);

  if (w->state != FAILED && (asked != ncclSuccess || (result != ncclSuccess && result != ncclInProgress)))
    fail (w, asked != ncclSuccess ? asked : result, cudaSuccess);
  if (w->state == CONNECTING && result == ncclSuccess)
    w->state = IDLE;
  if (w->state == QUEUING && result == ncclSuccess) {   /* only now is it on the stream */
    cudaError_t status = cudaSetDevice (w->dev->index);

    if (status == cudaSuccess)
      status = cudaEventRecord (w->done, w->stream);
    w->state = RUNNING;
    if (status != cudaSuccess)
      fail (w, ncclSuccess, status);
  }
  if (w->state == RUNNING) {
    cudaError_t status = cudaEventQuery (w->done);

    if (status == cudaSuccess)
      w->state = IDLE;
    else if (status != cudaErrorNotReady)
      fail (w, ncclSuccess, status);
  }
  if (w->state == FAILED)
    snprintf (error, error_size, "%s: the connection to another process's GPU: %s", w->dev->base.name,
        w->status != cudaSuccess ? cudaGetErrorString (w->status) : w->nccl->GetErrorString (w->result));
  return w->state == FAILED ? DP_WIRE_FAILED : w->state == IDLE ? DP_WIRE_IDLE : DP_WIRE_BUSY;
}

const DpWireOps dp_wires_cuda = { id_new, wire_new, start, poll, wire_free };
