/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * arena.h: device memory that is measured first and allocated once.
 *
 * Describe the layout in one function that calls dp_arena_take() for every array; run it on a fresh arena (measuring:
 * it returns NULLs and adds up), allocate, run it again (handing out). Everything is freed together.
 */
#pragma once

#include <glib.h>
#include "kernels/device.h"

typedef struct
{
  DpDevice *dev;
  char *memory;                 /* NULL while measuring */
  gsize used, size;
} DpArena;

/** The next `bytes`, 64-byte aligned; NULL while measuring. */
void *dp_arena_take (DpArena *arena, gsize bytes);
/** Ends the measuring: allocates what was taken and starts from the front. DP_ERROR_NO_MEMORY names `what` and the bytes. */
gboolean dp_arena_allocate (DpArena *arena, DpDevice *dev, const char *what, GError **error);
void dp_arena_free (DpArena *arena);

/** Host memory of a size that depends on the settings, g_free() it. NULL with DP_ERROR_NO_MEMORY when the machine has not that much
 *  left. */
void *dp_arena_host_new (gsize bytes, const char *what, GError **error);
