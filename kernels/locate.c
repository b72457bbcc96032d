/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locate.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

_Static_assert (DP_LOCATE_PATH >= PATH_MAX, "realpath() writes that much");

bool
dp_locate_path (char path[DP_LOCATE_PATH])
{
  static const char here;
  Dl_info info;

  /* of a program the linker knows what it was called as, which may be a name without a directory */
  if (dladdr (&here, &info) && info.dli_fname && strchr (info.dli_fname, '/') && realpath (info.dli_fname, path))
    return true;
  return realpath ("/proc/self/exe", path) != NULL;
}

bool
dp_locate_in_build_tree (void)
{
  char path[DP_LOCATE_PATH];

  return dp_locate_path (path) && strncmp (path, DP_BUILD_DIR "/", strlen (DP_BUILD_DIR "/")) == 0;
}
