/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mpi_library.h"
#include "wan/error.h"
#include "kernels/locate.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#define MODULE "libdualparal-mpi.so"

/* The module of the build tree, if this code runs from there, the installed one, or one where the system looks for libraries. */
static void *
open_module (GError **error)
{
  static const char *const paths[] = { DP_BUILD_DIR "/engine/mpi/" MODULE, DP_MODULE_DIR "/" MODULE, MODULE };

  for (int i = dp_locate_in_build_tree () ? 0 : 1; i < 3; i++) {
    void *module;
    const char *message;

    if (i < 2 && access (paths[i], F_OK) != 0)
      continue;
    if ((module = dlopen (paths[i], RTLD_NOW | RTLD_LOCAL)))
      return module;
    message = dlerror ();
    if (g_str_has_prefix (message, MODULE ":"))
      continue;
    g_autofree char *valid = g_utf8_make_valid (message, -1);
    g_set_error (error, DP_ERROR, DP_ERROR_DEVICE, "ranks=mpi: %s cannot be opened: %s; install Open MPI (Debian: libopenmpi3 and "
        "openmpi-bin), or use ranks=none", MODULE, valid);
    return NULL;
  }
  g_set_error (error, DP_ERROR, DP_ERROR_DEVICE, "ranks=mpi: the MPI module, %s, is neither in %s nor among the system's libraries; "
      "install Open MPI (Debian: libopenmpi-dev and openmpi-bin) and build with -Dmpi=enabled, or use ranks=none", MODULE, DP_MODULE_DIR);
  return NULL;
}

const DpMpi *
dp_mpi_library_open (GError **error)
{
  void *module = open_module (error);
  const DpMpi *(*get) (void);

  if (module == NULL)
    return NULL;
  get = (const DpMpi *(*) (void)) dlsym (module, DP_MPI_SYMBOL);
  if (get == NULL)
    g_set_error (error, DP_ERROR, DP_ERROR_DEVICE, "ranks=mpi: %s is of another version than this program; install both from one build",
        MODULE);
  return get ? get () : NULL;
}
