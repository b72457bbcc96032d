/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "map.h"

#include <cudaTypedefs.h>

bool
dp_cuda_map (DpDeviceCuda *dev, CUtensorMap *map, const DpCudaMap *t)
{
  cuuint64_t dims[3] = { t->dims[0], t->dims[1], t->dims[2] }, strides[2] = { t->strides[0], t->strides[1] };
  cuuint32_t boxes[3] = { t->box[0], t->box[1], t->box[2] }, steps[3] = { 1, 1, 1 };
  PFN_cuTensorMapEncodeTiled_v12000 encode;
  enum cudaDriverEntryPointQueryResult found;
  void *function = NULL;

  if (!dp_cuda_ok (dev, cudaGetDriverEntryPointByVersion ("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
      "describing a tensor"))
    return false;
  encode = (PFN_cuTensorMapEncodeTiled_v12000) function;
  if (encode && encode (map, t->element == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *) t->x, dims,
          strides, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, t->swizzle == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
          CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS)
    return true;
  dp_device_fail (&dev->base, "%s: the driver cannot describe a tensor of %dx%dx%d to the GPU", dev->base.name, t->dims[0],
      t->dims[1], t->dims[2]);
  return false;
}
