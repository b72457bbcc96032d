/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A libcuda.so.1 that serves CUDA 11.4: all that CUDA's runtime asks before it refuses.
 */
int cuDriverGetVersion (int *version);

int
cuDriverGetVersion (int *version)
{
  *version = 11040;
  return 0;
}
