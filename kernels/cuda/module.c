/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "../backend.h"

extern const DpBackend dp_backend_cuda;

const DpBackend *dp_cuda_backend_v4 (void);

/* The one symbol of the module. A change of backend.h, device.h or ops.h that a module of another version would not survive is a new
 * name. */
__attribute__ ((visibility ("default"))) const DpBackend *
dp_cuda_backend_v4 (void)
{
  return &dp_backend_cuda;
}
