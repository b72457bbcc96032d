/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gpu.h"

#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_TAKEN 4096

static void *taken[MAX_TAKEN];
static int n_taken;

static void
need (cudaError_t status, const char *what)
{
  if (status == cudaSuccess)
    return;
  fprintf (stderr, "%s: CUDA says \"%s\"\n", what, cudaGetErrorString (status));
  abort ();
}

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

  need (cudaSetDevice (0), "choosing the GPU");
  need (cudaMemGetInfo (&available, &total), "asking for memory");
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
    need (cudaFree (taken[--n_taken]), "giving memory back");
}

static __global__ void
write_nowhere (volatile int *where)
{
  *where = 1;
}

void
gpu_break (int gpu)
{
  cudaStream_t stream;

  need (cudaSetDevice (gpu), "choosing the GPU to break");
  need (cudaStreamCreateWithFlags (&stream, cudaStreamNonBlocking), "making a stream on the GPU to break");
  write_nowhere<<<1, 1, 0, stream>>> ((volatile int *) 16);
}
