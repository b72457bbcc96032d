/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locate.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

_Static_assert (DP_LOCATE_PATH >= PATH_MAX, "realpath() writes that much");

static char found[DP_LOCATE_PATH];      /* "": nothing */

/* The linker has the name that a library was opened by, which may be relative (a plugin in "build/gst"): resolved at once, before the
 * program changes its directory. Of a program it knows what it was called as, which may be a name without a directory. */
static void __attribute__ ((constructor))
locate (void)
{
  static const char here;
  Dl_info info;

  if (!(dladdr (&here, &info) && info.dli_fname && strchr (info.dli_fname, '/') && realpath (info.dli_fname, found))
      && !realpath ("/proc/self/exe", found))
    found[0] = 0;
}

bool
dp_locate_path (char path[DP_LOCATE_PATH])
{
  strcpy (path, found);
  return path[0] != 0;
}

bool
dp_locate_in_build_tree (void)
{
  char path[DP_LOCATE_PATH];

  return dp_locate_path (path) && strncmp (path, DP_BUILD_DIR "/", strlen (DP_BUILD_DIR "/")) == 0;
}
