/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * map.h: tensors as the bulk copies of compute capability 9.0 take them.
 */
#pragma once

#include "cuda.h"

#include <cuda.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A tensor of three axes in device memory, as bulk copies take it in boxes. What lies beyond its end comes as zeros. */
typedef struct
{
  const void *x;                /* at a multiple of 16 bytes */
  int element;                  /* bytes: 1 or 2 (bfloat16) */
  int swizzle;                  /* bytes of a box's row: 64 or 128 */
  int dims[3];                  /* elements; the first axis is dense */
  size_t strides[2];            /* bytes, multiples of 16 */
  int box[3];
} DpCudaMap;

/** Describes it to the GPU. False with an error latched. */
bool dp_cuda_map (DpDeviceCuda *dev, CUtensorMap *map, const DpCudaMap *tensor);

#ifdef __cplusplus
}
#endif
