/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cuda.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* cuBLASLt asks for 32 MiB on the large chips, and products that it cannot finish are staged in as much. */
#define WORKSPACE ((size_t) 64 << 20)

#define LOST "; the GPU is lost to this process, start it again"

struct DpAllocation
{
  void *ptr;
  size_t bytes;
};

/* ---- errors ---- */

/* Errors that leave the process's context on the GPU unusable. */
static bool
is_fatal (cudaError_t status)
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
  if (dp_device_fail (&dev->base, "%s: not enough memory for %s: %s%.1f of %.1f MiB free", dev->base.name, what, needed,
          available / 1048576.0, total / 1048576.0))
    dev->base.no_memory = true;
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
  if (is_fatal (status))
    __atomic_store_n (&dev->lost, true, __ATOMIC_RELAXED);      /* from any thread */
  dp_device_fail (&dev->base, "%s: %s: CUDA says \"%s\"%s", dev->base.name, what, cudaGetErrorString (status),
      is_fatal (status) ? LOST : "");
  return false;
}

/* What a library could not do may be for a GPU that was lost before; CUDA knows. */
static bool
library_failed (DpDeviceCuda *dev, const char *what, const char *library, const char *says, bool no_memory)
{
  cudaError_t status = cudaStreamQuery (dev->stream);
  size_t available = 0, total = 0;

  cudaGetLastError ();
  if (is_fatal (status))
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

static void *
alloc_cuda (DpDevice *base, size_t bytes)
{
  base->allocations++;
  return dp_cuda_memory_new (dp_cuda (base), bytes, NULL);
}

static void
free_cuda (DpDevice *base, void *ptr)
{
  dp_cuda_memory_free (dp_cuda (base), ptr);
}

static void *
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

static void
host_free_cuda (DpDevice *base, void *ptr)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (ptr && !dev->lost && dp_cuda_ok (dev, cudaSetDevice (dev->index), "choosing the GPU"))
    dp_cuda_ok (dev, cudaFreeHost (ptr), "freeing");
}

/* From pageable memory CUDA returns when it has staged the bytes, so they may change; from pinned memory it would return at once. */
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

static void
upload_cuda (DpDevice *base, void *dst, const void *host, size_t bytes)
{
  if (dp_cuda_enter (dp_cuda (base)))
    dp_cuda_upload (dp_cuda (base), dst, host, bytes);
}

static void
download_cuda (DpDevice *base, void *host, const void *src, size_t bytes)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (bytes > 0 && dp_cuda_enter (dev)
      && dp_cuda_ok (dev, cudaMemcpyAsync (host, src, bytes, cudaMemcpyDeviceToHost, dev->stream), "download"))
    dp_cuda_ok (dev, cudaStreamSynchronize (dev->stream), "download");
}

static void
copy_cuda (DpDevice *base, void *dst, const void *src, size_t bytes)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (bytes > 0 && dp_cuda_enter (dev))
    dp_cuda_ok (dev, cudaMemcpyAsync (dst, src, bytes, cudaMemcpyDeviceToDevice, dev->stream), "copy");
}

static void
fill_cuda (DpDevice *base, void *dst, int byte, size_t bytes)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (bytes > 0 && dp_cuda_enter (dev))
    dp_cuda_ok (dev, cudaMemsetAsync (dst, byte, bytes, dev->stream), "fill");
}

/* Also after a cancel: what is queued still uses the memory that its owner is about to free. */
static void
sync_cuda (DpDevice *base)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (dev->lost)
    dp_device_fail (base, "%s" LOST, base->name);
  else if (dp_cuda_ok (dev, cudaSetDevice (dev->index), "choosing the GPU")) {
    dp_cuda_ok (dev, cudaStreamSynchronize (dev->stream), "waiting for the GPU");
    dp_cuda_ok (dev, cudaStreamSynchronize (dev->copy_stream), "waiting for the GPU");
  }
}

/* ---- opening ---- */

static const DpOps ops_cuda = {
  .name = "cuda",
  .alloc = alloc_cuda,
  .free = free_cuda,
  .host_alloc = host_alloc_cuda,
  .host_free = host_free_cuda,
  .upload = upload_cuda,
  .download = download_cuda,
  .copy = copy_cuda,
  .fill = fill_cuda,
  .sync = sync_cuda,
  .mark_new = mark_new_cuda,
  .mark_free = mark_free_cuda,
  .mark = mark_cuda,
  .mark_wait = mark_wait_cuda,
  .mark_time = mark_time_cuda,
  .follow = follow_cuda,
  .transfer = transfer_cuda,
  .linear_new = linear_new_cuda,
  .linear_free = linear_free_cuda,
  .linear_refill = linear_refill_cuda,
  .conv_new = conv_new_cuda,
  .conv_free = conv_free_cuda,
  .linear = linear_cuda,
  .conv = conv_cuda,
  .attention = attention_cuda,
  .layer_norm = layer_norm_cuda,
  .rms_norm = rms_norm_cuda,
  .channel_norm = channel_norm_cuda,
  .upsample = upsample_cuda,
  .pack_frame = pack_frame_cuda,
  .multiply = multiply_cuda,
  .combine = combine_cuda,
  .convert = convert_cuda,
  .patchify = patchify_cuda,
  .unpatchify = unpatchify_cuda,
};

static void
close_cuda (DpDevice *base)
{
  DpDeviceCuda *dev = dp_cuda (base);

  /* This frees what the library calls above hold on to, also where a part of opening failed. */
  sync_cuda (base);
  upload_close_cuda (dev);
  linear_close_cuda (dev);
  attention_close_cuda (dev);
  conv_close_cuda (dev);
  peer_close_cuda (dev);
  dp_cuda_memory_free (dev, dev->workspace);
  if (dev->cudnn)
    cudnnDestroy (dev->cudnn);
  if (dev->blas)
    cublasLtDestroy (dev->blas);
  if (dev->stream)
    cudaStreamDestroy (dev->stream);
  cudaGetLastError ();
  free (dev->allocations);
  free (dev);
}

/* The N of "cuda:N", how many there are, and what is there; false and a sentence if there is no such GPU, or none that this build can
 * use. */
static bool
find_gpu (const char *name, int *index, DpDeviceInfo *info, struct cudaDeviceProp *prop, char *error, size_t error_size)
{
  char *end;
  long n = strncmp (name, "cuda:", 5) == 0 ? strtol (name + 5, &end, 10) : -1;
  int count = 0, driver = 0;
  cudaError_t status;

  if (n < 0 || n > 1023 || end == name + 5 || *end) {
    snprintf (error, error_size, "device %s: say which GPU, as in cuda:0", name);
    return false;
  }
  status = cudaGetDeviceCount (&count);
  info->gpus = count;
  cudaGetLastError ();
  cudaDriverGetVersion (&driver);
  info->broken = driver > 0 && status != cudaSuccess && status != cudaErrorNoDevice;
  if (driver == 0)
    snprintf (error, error_size, DP_NO_DRIVER, name);
  else if (status == cudaErrorInsufficientDriver)
    snprintf (error, error_size, "device %s: the NVIDIA driver is too old: it serves CUDA %d.%d, this build needs %d.%d; install a "
        "newer one, or use devices=cpu", name,
        driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  else if (status != cudaSuccess && status != cudaErrorNoDevice)
    snprintf (error, error_size, "device %s: CUDA says \"%s\"%s", name, cudaGetErrorString (status), is_fatal (status) ? LOST : "");
  else if (count == 0)
    snprintf (error, error_size, "device %s: the NVIDIA driver shows no GPU", name);
  else if (n >= count)
    snprintf (error, error_size, "device %s: the NVIDIA driver shows %d GPU%s, the last is cuda:%d", name, count, count == 1 ? "" : "s",
        count - 1);
  else if ((status = cudaGetDeviceProperties (prop, n)) != cudaSuccess)
    snprintf (error, error_size, "device %s: CUDA says \"%s\"%s", name, cudaGetErrorString (status), is_fatal (status) ? LOST : "");
  else if (prop->major < 8)
    snprintf (error, error_size, "device %s: %s has compute capability %d.%d; 8.0 or more is needed (bfloat16)", name, prop->name,
        prop->major, prop->minor);
  else {
    *index = n;
    return true;
  }
  return false;
}

/* Memory first: unlike the libraries it says how much is missing. */
static bool
open_parts (DpDeviceCuda *dev)
{
  return dp_cuda_ok (dev, cudaSetDevice (dev->index), "choosing the GPU")
      && dp_cuda_ok (dev, cudaStreamCreateWithFlags (&dev->stream, cudaStreamNonBlocking), "making a stream")
      && peer_open_cuda (dev)
      && dp_cuda_workspace (dev, WORKSPACE) != NULL
      && dp_cuda_blas_ok (dev, cublasLtCreate (&dev->blas), "opening cuBLASLt")
      && dp_cuda_cudnn_ok (dev, cudnnCreate (&dev->cudnn), "opening cuDNN")
      && dp_cuda_cudnn_ok (dev, cudnnSetStream (dev->cudnn, dev->stream), "opening cuDNN")
      && dp_cuda_probe (dev);
}

static DpDevice *
open_cuda (const char *name, int threads, char *error, size_t error_size)
{
  struct cudaDeviceProp prop;
  DpDeviceInfo info;
  DpDeviceCuda *dev;
  int index;

  if (!find_gpu (name, &index, &info, &prop, error, error_size))
    return NULL;
  dev = calloc (1, sizeof *dev);
  if (dev == NULL) {
    snprintf (error, error_size, "device %s: not enough memory", name);
    return NULL;
  }
  *dev = (DpDeviceCuda) {
    .base = { .ops = &ops_cuda, .threads = 1 }, .index = index, .sm_count = prop.multiProcessorCount,
    .capability = 10 * prop.major + prop.minor, .copy_threads = threads,
  };
  snprintf (dev->base.name, sizeof dev->base.name, "%s", name);
  if (!open_parts (dev)) {
    snprintf (error, error_size, "device %s", dev->base.error);
    close_cuda (&dev->base);
    return NULL;
  }
  return &dev->base;
}

static bool
info_cuda (const char *name, DpDeviceInfo *info, char *error, size_t error_size)
{
  struct cudaDeviceProp prop;
  int index, driver = 0;
  size_t blas = cublasLtGetVersion (), cudnn = cudnnGetVersion ();
  cudaError_t status;

  if (!find_gpu (name, &index, info, &prop, error, error_size))
    return false;
  status = cudaSetDevice (index);
  if (status == cudaSuccess)
    status = cudaMemGetInfo (&info->memory_free, &info->memory_total);
  if (status != cudaSuccess) {
    cudaGetLastError ();
    snprintf (error, error_size, "device %s: CUDA says \"%s\"%s", name, cudaGetErrorString (status), is_fatal (status) ? LOST : "");
    return false;
  }
  cudaDriverGetVersion (&driver);
  snprintf (info->name, sizeof info->name, "%s", name);
  snprintf (info->description, sizeof info->description, "%.63s, %d multiprocessors, compute capability %d.%d", prop.name,
      prop.multiProcessorCount, prop.major, prop.minor);
  snprintf (info->libraries, sizeof info->libraries, "CUDA %d.%d (driver %d.%d), cuBLASLt %zu.%zu.%zu, cuDNN %zu.%zu.%zu",
      CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, driver / 1000, driver % 1000 / 10, blas / 10000, blas / 100 % 100, blas % 100,
      cudnn / 10000, cudnn / 100 % 100, cudnn % 100);
  info->fast_bf16 = true;
  info->fp8 = 10 * prop.major + prop.minor == DP_CUDA_FP8;
  return true;
}

const DpBackend dp_backend_cuda = { "cuda", open_cuda, close_cuda, info_cuda };
