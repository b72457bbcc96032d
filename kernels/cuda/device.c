/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cuda.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

struct DpAllocation
{
  void *ptr;
  size_t bytes;
};

/* ---- errors ---- */

bool
dp_cuda_is_fatal (cudaError_t status)
{
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorAssert:
    case cudaErrorContextIsDestroyed:
    case cudaErrorMpsClientTerminated:
      return true;
    default:
      return false;
  }
}

/* Latches that there is no memory for `what`; `bytes` of it are needed, or 0 where a library does not say. */
static void
fail_memory (DpDeviceCuda *dev, const char *what, size_t bytes)
{
  size_t available = 0, total = 0;
  char needed[32] = "";

  if (dp_device_failed (&dev->base))
    return;
  if (bytes > 0)
    snprintf (needed, sizeof needed, "%.1f MiB needed, ", bytes / 1048576.0);
  cudaMemGetInfo (&available, &total);
  cudaGetLastError ();
  dp_device_fail_memory (&dev->base, "%s: not enough memory for %s: %s%.1f of %.1f MiB free", dev->base.name, what, needed,
      available / 1048576.0, total / 1048576.0);
}

bool
dp_cuda_ok (DpDeviceCuda *dev, cudaError_t status, const char *what)
{
  if (status == cudaSuccess)
    return true;
  cudaGetLastError ();
  if (status == cudaErrorMemoryAllocation) {
    fail_memory (dev, what, 0);
    return false;
  }
  if (dp_cuda_is_fatal (status))
    __atomic_store_n (&dev->lost, true, __ATOMIC_RELAXED);      /* from any thread */
  dp_device_fail (&dev->base, "%s: %s: CUDA says \"%s\"%s", dev->base.name, what, cudaGetErrorString (status),
      dp_cuda_is_fatal (status) ? DP_CUDA_LOST : "");
  return false;
}

/* A library may fail because the GPU was lost before; CUDA knows. */
static bool
library_failed (DpDeviceCuda *dev, const char *what, const char *library, const char *says, bool no_memory)
{
  cudaError_t status = cudaStreamQuery (dev->stream);
  size_t available = 0, total = 0;

  cudaGetLastError ();
  if (dp_cuda_is_fatal (status))
    return dp_cuda_ok (dev, status, what);
  if (no_memory)
    fail_memory (dev, what, 0);
  cudaMemGetInfo (&available, &total);
  dp_device_fail (&dev->base, "%s: %s: %s says %s (%.1f of %.1f MiB free)", dev->base.name, what, library, says, available / 1048576.0,
      total / 1048576.0);
  return false;
}

bool
dp_cuda_blas_ok (DpDeviceCuda *dev, cublasStatus_t status, const char *what)
{
  return status == CUBLAS_STATUS_SUCCESS
      || library_failed (dev, what, "cuBLASLt", cublasLtGetStatusString (status), status == CUBLAS_STATUS_ALLOC_FAILED);
}

bool
dp_cuda_cudnn_ok (DpDeviceCuda *dev, cudnnStatus_t status, const char *what)
{
  return status == CUDNN_STATUS_SUCCESS
      || library_failed (dev, what, "cuDNN", cudnnGetErrorString (status),
          status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED);
}

bool
dp_cuda_launched (DpDeviceCuda *dev, const char *what)
{
  return dp_cuda_ok (dev, cudaGetLastError (), what);
}

bool
dp_cuda_enter (DpDeviceCuda *dev)
{
  return !dp_device_failed (&dev->base) && !dp_device_cancelled (&dev->base) && dp_cuda_ok (dev, cudaSetDevice (dev->index), "choosing the GPU");
}

/* ---- memory ---- */

void *
dp_cuda_memory_new (DpDeviceCuda *dev, size_t bytes, const char *what)
{
  struct DpAllocation *allocations = realloc (dev->allocations, (dev->n_allocations + 1) * sizeof *allocations);
  void *ptr = NULL;
  cudaError_t status;

  if (allocations == NULL || !dp_cuda_ok (dev, cudaSetDevice (dev->index), "choosing the GPU"))
    return NULL;
  dev->allocations = allocations;
  status = cudaMalloc (&ptr, bytes > 0 ? bytes : 1);
  if (status == cudaErrorMemoryAllocation || status == cudaErrorInvalidValue) {
    cudaGetLastError ();
    if (what)
      fail_memory (dev, what, bytes);
    return NULL;
  }
  if (!dp_cuda_ok (dev, status, "allocating"))
    return NULL;
  dev->allocations[dev->n_allocations++] = (struct DpAllocation) { ptr, bytes };
  dev->base.bytes += bytes;
  return ptr;
}

void
dp_cuda_memory_free (DpDeviceCuda *dev, void *ptr)
{
  if (ptr == NULL)
    return;
  for (size_t i = dev->n_allocations; i-- > 0;)
    if (dev->allocations[i].ptr == ptr) {
      dev->base.bytes -= dev->allocations[i].bytes;
      dev->allocations[i] = dev->allocations[--dev->n_allocations];
      /* It waits for what is queued, which may still use the memory. A lost GPU has freed it already. */
      if (!dev->lost && dp_cuda_ok (dev, cudaSetDevice (dev->index), "choosing the GPU"))
        dp_cuda_ok (dev, cudaFree (ptr), "freeing");
      return;
    }
  assert (!"memory of another device");
}

void *
dp_cuda_workspace (DpDeviceCuda *dev, size_t bytes)
{
  if (bytes <= dev->workspace_size)
    return dev->workspace;
  dev->base.allocations++;
  dp_cuda_memory_free (dev, dev->workspace);
  dev->workspace = dp_cuda_memory_new (dev, bytes, "scratch");
  dev->workspace_size = dev->workspace ? bytes : 0;
  return dev->workspace;
}

void *
alloc_cuda (DpDevice *base, size_t bytes)
{
  base->allocations++;
  return dp_cuda_memory_new (dp_cuda (base), bytes, NULL);
}

void
free_cuda (DpDevice *base, void *ptr)
{
  dp_cuda_memory_free (dp_cuda (base), ptr);
}

void *
host_alloc_cuda (DpDevice *base, size_t bytes)
{
  DpDeviceCuda *dev = dp_cuda (base);
  cudaError_t status;
  void *ptr = NULL;

  base->allocations++;
  if (!dp_cuda_enter (dev))
    return NULL;
  status = cudaMallocHost (&ptr, bytes > 0 ? bytes : 1);
  if (status == cudaErrorMemoryAllocation || status == cudaErrorInvalidValue) {
    cudaGetLastError ();        /* too much to pin: the caller says so */
    return NULL;
  }
  return dp_cuda_ok (dev, status, "pinning host memory") ? ptr : NULL;
}

void
host_free_cuda (DpDevice *base, void *ptr)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (ptr && !dev->lost && dp_cuda_ok (dev, cudaSetDevice (dev->index), "choosing the GPU"))
    dp_cuda_ok (dev, cudaFreeHost (ptr), "freeing");
}

/* From pageable memory CUDA returns once it has staged the bytes, so they may change. From pinned memory it returns at once. */
bool
dp_cuda_upload (DpDeviceCuda *dev, void *dst, const void *host, size_t bytes)
{
  struct cudaPointerAttributes attributes;

  if (bytes == 0)
    return true;
  return dp_cuda_ok (dev, cudaMemcpyAsync (dst, host, bytes, cudaMemcpyHostToDevice, dev->stream), "upload")
      && dp_cuda_ok (dev, cudaPointerGetAttributes (&attributes, host), "upload")
      && (attributes.type == cudaMemoryTypeUnregistered || dp_cuda_ok (dev, cudaStreamSynchronize (dev->stream), "upload"));
}

void
upload_cuda (DpDevice *base, void *dst, const void *host, size_t bytes)
{
  if (dp_cuda_enter (dp_cuda (base)))
    dp_cuda_upload (dp_cuda (base), dst, host, bytes);
}

void
download_cuda (DpDevice *base, void *host, const void *src, size_t bytes)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (bytes > 0 && dp_cuda_enter (dev)
      && dp_cuda_ok (dev, cudaMemcpyAsync (host, src, bytes, cudaMemcpyDeviceToHost, dev->stream), "download"))
    dp_cuda_ok (dev, cudaStreamSynchronize (dev->stream), "download");
}

void
copy_cuda (DpDevice *base, void *dst, const void *src, size_t bytes)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (bytes > 0 && dp_cuda_enter (dev))
    dp_cuda_ok (dev, cudaMemcpyAsync (dst, src, bytes, cudaMemcpyDeviceToDevice, dev->stream), "copy");
}

void
fill_cuda (DpDevice *base, void *dst, int byte, size_t bytes)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (bytes > 0 && dp_cuda_enter (dev))
    dp_cuda_ok (dev, cudaMemsetAsync (dst, byte, bytes, dev->stream), "fill");
}

/* Also after a cancel: what is queued still uses the memory that its owner is about to free. */
void
sync_cuda (DpDevice *base)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (dev->lost)
    dp_device_fail (base, "%s" DP_CUDA_LOST, base->name);
  else if (dp_cuda_ok (dev, cudaSetDevice (dev->index), "choosing the GPU")) {
    dp_cuda_ok (dev, cudaStreamSynchronize (dev->stream), "waiting for the GPU");
    dp_cuda_ok (dev, cudaStreamSynchronize (dev->copy_stream), "waiting for the GPU");
  }
}
