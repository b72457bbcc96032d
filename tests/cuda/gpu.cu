/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gpu.h"

#include <cuda_runtime.h>
#include <stdlib.h>

#define MAX_TAKEN 4096

static void *taken[MAX_TAKEN];
static int n_taken;

int
gpu_count (void)
{
  int n = 0;

  cudaGetDeviceCount (&n);
  cudaGetLastError ();
  return n;
}

size_t
gpu_free_bytes (void)
{
  size_t available = 0, total = 0;

  if (cudaSetDevice (0) != cudaSuccess || cudaMemGetInfo (&available, &total) != cudaSuccess)
    abort ();
  return available;
}

void
gpu_take (size_t leave)
{
  for (size_t size = (size_t) 1 << 38; size >= 4096; size /= 2)
    while (n_taken < MAX_TAKEN && (leave == 0 || gpu_free_bytes () >= leave + size) && cudaMalloc (&taken[n_taken], size) == cudaSuccess)
      n_taken++;
  cudaGetLastError ();
}

void
gpu_give_back (void)
{
  while (n_taken > 0)
    if (cudaFree (taken[--n_taken]) != cudaSuccess)
      abort ();
}

static __global__ void
write_nowhere (volatile int *where)
{
  *where = 1;
}

void
gpu_break (void)
{
  cudaStream_t stream;

  if (cudaSetDevice (0) != cudaSuccess || cudaStreamCreateWithFlags (&stream, cudaStreamNonBlocking) != cudaSuccess)
    abort ();
  write_nowhere<<<1, 1, 0, stream>>> ((volatile int *) 16);
}
