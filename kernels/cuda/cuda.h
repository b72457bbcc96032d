/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cuda.h: what the files of the CUDA backend share.
 *
 * The backend is a module of its own (libdualparal-cuda.so), opened by ../backend.c when a device "cuda:N" is asked for, so that
 * nothing else links CUDA. A device is one stream: every op enqueues on it and returns, so ops complete in the order of their
 * calls and share one workspace. Matrix products are cuBLASLt's, convolution and some of attention cuDNN's, the rest own kernels (.cu).
 * Each op begins with dp_cuda_enter(), and every call into a library passes one of the dp_cuda_*_ok(), which latch a failure.
 */
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "../host.h"

/* The compute capability whose e4m3 products cuBLASLt scales by rows, and for which cuDNN has attention in e4m3 of every size. */
enum { DP_CUDA_FP8 = 90 };
/* The one that attention_hopper.cu and attention_e4m3.cu are written for. */
enum { DP_CUDA_HOPPER = 90 };

/** Thread-safety: as DpDevice. */
typedef struct
{
  DpDevice base;
  int index;                    /* N of "cuda:N" */
  int sm_count;                 /* multiprocessors */
  int capability;               /* 10 * major + minor */
  bool lost;                    /* an error that this process cannot recover from; dp_device_check() says so every time */
  cudaStream_t stream;
  cudaStream_t copy_stream;     /* of transfers */
  struct DpPeers *peers;        /* peer.c's: what marks and transfers need */
  cublasLtHandle_t blas;
  cudnnHandle_t cudnn;          /* bound to stream */
  void *workspace;              /* scratch of the op that runs; see dp_cuda_workspace() */
  size_t workspace_size;
  int copy_threads;             /* that read weights from host memory */
  struct DpUpload *upload;      /* upload.c's, from the first large weight on */
  struct DpAllocation *allocations;     /* device.c's */
  size_t n_allocations;
  struct DpProduct *products;   /* linear.c's, per shape */
  struct DpAttentionPlan *attentions;   /* attention.c's, per shape */
  struct DpConvPlan *convs;     /* conv.c's, per shape */
} DpDeviceCuda;

static inline DpDeviceCuda *
dp_cuda (DpDevice *dev)
{
  return (DpDeviceCuda *) dev;
}

/* -- device.c: errors and memory -- */

/** Makes the device current on this thread. False when there is nothing to do: the device is cancelled, or a failure waits to be read. */
bool dp_cuda_enter (DpDeviceCuda *dev);

/** Whether the call succeeded; latches "what: <the library's own words>" if not, or that the GPU is lost or has no memory left. */
bool dp_cuda_ok (DpDeviceCuda *dev, cudaError_t status, const char *what);
bool dp_cuda_blas_ok (DpDeviceCuda *dev, cublasStatus_t status, const char *what);
bool dp_cuda_cudnn_ok (DpDeviceCuda *dev, cudnnStatus_t status, const char *what);

/** Whether an error leaves the process unable to use the GPU. */
bool dp_cuda_is_fatal (cudaError_t status);

/** The end of the sentence that says so. */
#define DP_CUDA_LOST "; the GPU is lost to this process, restart it"

/** After a kernel launch: dp_cuda_ok() of cudaGetLastError(). */
bool dp_cuda_launched (DpDeviceCuda *dev, const char *what);

/** Device memory, 256-byte aligned, counted in base.bytes (not in base.allocations: ops->alloc, linear_new and conv_new do that).
 *  NULL when it does not fit; then `what` it was for is latched with the bytes needed and free, unless `what` is NULL. */
void *dp_cuda_memory_new (DpDeviceCuda *dev, size_t bytes, const char *what);
void dp_cuda_memory_free (DpDeviceCuda *dev, void *ptr);

/** The device's scratch, at least `bytes` of it, 256-byte aligned: it belongs to the calling op until the op returns (the stream keeps ops
 *  apart). Growing waits for the stream, moves it, and counts as one allocation; ask for it while building a plan.
 *  NULL, with an error latched, when it does not fit. */
void *dp_cuda_workspace (DpDeviceCuda *dev, size_t bytes);

/** Enqueues: bytes from host memory to the device. It may be reused on return. */
bool dp_cuda_upload (DpDeviceCuda *dev, void *dst, const void *host, size_t bytes);

/* -- upload.c -- */

/** Enqueues: dst = n elements of the file's array as `type` (float32 or bfloat16), which must not be in the workspace. Host memory may be
 *  reused on return. False with an error latched, or when it was cancelled. */
bool dp_cuda_upload_weight (DpDeviceCuda *dev, const DpHostWeight *weight, size_t n, DpType type, void *dst);

/* -- what files keep on the device; closed with the streams idle -- */

bool peer_open_cuda (DpDeviceCuda *dev);        /* false with an error latched */
void peer_close_cuda (DpDeviceCuda *dev);
void upload_close_cuda (DpDeviceCuda *dev);
void linear_close_cuda (DpDeviceCuda *dev);
void attention_close_cuda (DpDeviceCuda *dev);
void conv_close_cuda (DpDeviceCuda *dev);

/* -- the ops: contracts in ops.h -- */

DP_MEMORY_OPS (DP_OP_PROTOTYPE, cuda)
DP_COMPUTE_OPS (DP_OP_PROTOTYPE, cuda)

/* -- pointwise.cu -- */

/** Whether the module has code that this GPU runs; latches a sentence if not. */
bool dp_cuda_probe (DpDeviceCuda *dev);

#ifdef __cplusplus
}
#endif
