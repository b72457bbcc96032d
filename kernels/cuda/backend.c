/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cuda.h"
#include "../backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* cuBLASLt asks for 32 MiB on the large chips, and products that it cannot finish are staged in as much. */
#define WORKSPACE ((size_t) 64 << 20)

/* With two, a GPU has more to do at once and carries the past over half as often. One fits the caches of a CPU better. */
#define LATENTS_AT_ONCE 2

static const DpOps ops_cuda = { .name = "cuda", DP_MEMORY_OPS (DP_OP_ENTRY, cuda) DP_COMPUTE_OPS (DP_OP_ENTRY, cuda) };

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
    snprintf (error, error_size, "device %s: CUDA says \"%s\"%s", name, cudaGetErrorString (status), dp_cuda_is_fatal (status) ? DP_CUDA_LOST : "");
  else if (count == 0)
    snprintf (error, error_size, "device %s: the NVIDIA driver shows no GPU", name);
  else if (n >= count)
    snprintf (error, error_size, "device %s: the NVIDIA driver shows %d GPU%s, the last is cuda:%d", name, count, count == 1 ? "" : "s",
        count - 1);
  else if ((status = cudaGetDeviceProperties (prop, n)) != cudaSuccess)
    snprintf (error, error_size, "device %s: CUDA says \"%s\"%s", name, cudaGetErrorString (status), dp_cuda_is_fatal (status) ? DP_CUDA_LOST : "");
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
    .base = { .ops = &ops_cuda, .threads = 1, .latents_at_once = LATENTS_AT_ONCE }, .index = index, .sm_count = prop.multiProcessorCount,
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

/* Multiply-adds of a multiprocessor in a cycle, by compute capability: from NVIDIA's data sheets. Two thirds of that are reached for long,
 * on an H200 at least: the power limit lowers the clock. */
static double
speed_of (const struct cudaDeviceProp *prop, int index)
{
  static const struct { int capability, products; } rates[] = { { 100, 4096 }, { 90, 2048 }, { 89, 256 }, { 86, 256 }, { 80, 1024 } };
  int capability = 10 * prop->major + prop->minor, kilohertz = 0, products = 256;

  cudaDeviceGetAttribute (&kilohertz, cudaDevAttrClockRate, index);
  for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
    if (capability / 10 == rates[i].capability / 10 && capability >= rates[i].capability) {
      products = rates[i].products;
      break;
    }
  return 2.0 / 3 * 1e3 * (kilohertz > 0 ? kilohertz : 1000000) * products * prop->multiProcessorCount;
}

static bool
info_cuda (const char *name, DpDeviceInfo *info, char *error, size_t error_size)
{
  struct cudaDeviceProp prop;
  int index, driver = 0;
  size_t blas = cublasLtGetVersion (), cudnn = cudnnGetVersion ();
  cudaError_t status;

  info->latents_at_once = LATENTS_AT_ONCE;
  if (!find_gpu (name, &index, info, &prop, error, error_size))
    return false;
  status = cudaSetDevice (index);
  if (status == cudaSuccess)
    status = cudaMemGetInfo (&info->memory_free, &info->memory_total);
  if (status != cudaSuccess) {
    cudaGetLastError ();
    snprintf (error, error_size, "device %s: CUDA says \"%s\"%s", name, cudaGetErrorString (status), dp_cuda_is_fatal (status) ? DP_CUDA_LOST : "");
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
  info->speed = speed_of (&prop, index);
  info->fp8 = 10 * prop.major + prop.minor == DP_CUDA_FP8;
  return true;
}

#ifdef DP_HAVE_NCCL
extern const DpWireOps dp_wires_cuda;
#define DP_CUDA_WIRES &dp_wires_cuda
#else
#define DP_CUDA_WIRES NULL
#endif

const DpBackend dp_backend_cuda = { "cuda", open_cuda, close_cuda, info_cuda, DP_CUDA_WIRES };
