/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backend.h"
#include "locate.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const DpBackend *const backends[] = { &dp_backend_cpu, &dp_backend_ref };

#define CUDA_MODULE "libdualparal-cuda.so"

/* ---- the module: opened on first use and never closed; the libraries below it cannot be unloaded ---- */

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static const DpBackend *cuda;   /* protected by opening */

/* The libraries that the module needs, as the loader names them, and the packages that have them. */
static const struct
{
  const char *library, *package;
} needs[] = {
  { "libcublasLt.so", "libcublas-13-0 (libcublas-12-9 for a build with CUDA 12)" },
  { "libcudnn_graph.so", "libcudnn9-cuda-13 (libcudnn9-cuda-12 for a build with CUDA 12)" },
};

static void
say_why (const char *name, const char *loader, char *error, size_t error_size)
{
  int n = snprintf (error, error_size, "device %s: %s cannot be opened: %s; ", name, CUDA_MODULE, loader);

  for (size_t i = 0; i < sizeof needs / sizeof *needs && n > 0 && (size_t) n < error_size; i++)
    if (strncmp (loader, needs[i].library, strlen (needs[i].library)) == 0)
      n += snprintf (error + n, error_size - n, "install NVIDIA's package %s, or ", needs[i].package);
  if (n > 0 && (size_t) n < error_size)
    snprintf (error + n, error_size - n, "use devices=cpu");
}

static bool
has_driver (void)
{
  return dlopen ("libcuda.so.1", RTLD_LAZY) != NULL;
}

/* Opens the module of the build tree, if this code is run from there, the one that is installed, or one where the system looks for
 * libraries. *found: it is in one of these places, whether or not it can be opened. */
static void *
open_module (const char *name, bool *found, char *error, size_t error_size)
{
  static const char *const paths[] = { DP_BUILD_DIR "/kernels/" CUDA_MODULE, DP_MODULE_DIR "/" CUDA_MODULE, CUDA_MODULE };
  const char *message;
  void *module;

  for (int i = dp_locate_in_build_tree () ? 0 : 1; i < 3; i++) {
    if (i < 2 && access (paths[i], F_OK) != 0)
      continue;
    if (i < 2 && !has_driver ()) {  /* the module says so too, but brings 150 MiB of libraries along */
      snprintf (error, error_size, DP_NO_DRIVER, name);
      return NULL;
    }
    module = dlopen (paths[i], RTLD_NOW | RTLD_LOCAL);
    message = module ? NULL : dlerror ();
    if (message && strncmp (message, CUDA_MODULE ":", strlen (CUDA_MODULE ":")) == 0)
      continue;
    *found = true;
    if (message)
      say_why (name, message, error, error_size);
    return module;
  }
  snprintf (error, error_size, "device %s: the CUDA module, %s, is neither in %s nor among the system's libraries; build it with "
      "-Dcuda=enabled, or use devices=cpu", name, CUDA_MODULE, DP_MODULE_DIR);
  return NULL;
}

/* *broken: as in DpDeviceInfo. */
static const DpBackend *
find_cuda (const char *name, bool *broken, char *error, size_t error_size)
{
  const DpBackend *(*get) (void);
  bool found = false;
  void *module;

  pthread_mutex_lock (&opening);
  if (cuda == NULL && (module = open_module (name, &found, error, error_size))) {
    get = (const DpBackend *(*) (void)) dlsym (module, "dp_cuda_backend_v4");
    cuda = get ? get () : NULL;
    if (cuda == NULL)
      snprintf (error, error_size, "device %s: %s is of another version than this program; install both from one build", name,
          CUDA_MODULE);
  }
  *broken = found && cuda == NULL && has_driver ();
  pthread_mutex_unlock (&opening);
  return cuda;
}

/* ---- devices ---- */

/* The backend of a device name; NULL and a sentence if there is none. */
static const DpBackend *
find_backend (const char *name, bool *broken, char *error, size_t error_size)
{
  *broken = false;
  for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
    if (strcmp (name, backends[i]->name) == 0)
      return backends[i];
  if (strcmp (name, "cuda") == 0 || strncmp (name, "cuda:", 5) == 0)
    return find_cuda (name, broken, error, error_size);
  snprintf (error, error_size, "there is no device \"%s\"; known devices are cpu, ref (slow, for tests) and cuda:0, cuda:1, ...", name);
  return NULL;
}

DpDevice *
dp_device_open (const char *name, int threads, char *error, size_t error_size)
{
  bool broken;
  const DpBackend *backend = find_backend (name, &broken, error, error_size);

  if (backend == NULL)
    return NULL;
  if (threads < 0 || threads > DP_DEVICE_MAX_THREADS) {
    snprintf (error, error_size, "device %s: %d threads make no sense; use 1 to %d, or 0 for one per processor", name, threads,
        DP_DEVICE_MAX_THREADS);
    return NULL;
  }
  return backend->open (name, threads > 0 ? threads : dp_device_processors (), error, error_size);
}

void
dp_device_close (DpDevice *dev)
{
  if (dev == NULL)
    return;
  dev->ops->sync (dev);
  for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
    if (strcmp (dev->ops->name, backends[i]->name) == 0) {
      backends[i]->close (dev);
      return;
    }
  cuda->close (dev);
}

const DpWireOps *
dp_device_wires (const DpDevice *dev)
{
  for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
    if (strcmp (dev->ops->name, backends[i]->name) == 0)
      return backends[i]->wires;
  return cuda->wires;
}

bool
dp_device_info (const char *name, DpDeviceInfo *info, char *error, size_t error_size)
{
  bool broken;
  const DpBackend *backend = find_backend (name, &broken, error, error_size);

  *info = (DpDeviceInfo) { .broken = broken, .latents_at_once = 1 };
  if (backend && backend->info (name, info, error, error_size))
    return true;
  info->broken |= info->gpus > 0;
  return false;
}
