/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gpu.h: what the tests do to a GPU, cuda:0 unless they name it, behind the back of the code under test, in the same process and so in the same context.
 */
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/** How many GPUs the driver shows; 0 also where there is no driver. */
int gpu_count (void);

/** Bytes of device memory free. Waits for nothing. */
size_t gpu_free_bytes (void);

/** Takes all device memory but `leave` bytes, to the last few KiB; more memory is taken when called again. gpu_give_back() frees
 *  all of it. */
void gpu_take (size_t leave);
void gpu_give_back (void);

/** Runs a kernel that writes where nothing is, on a stream of its own of cuda:`gpu`. No CUDA call of this process on that GPU succeeds
 *  after it. */
void gpu_break (int gpu);

#ifdef __cplusplus
}
#endif
