/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "arena.h"
#include "device_error.h"

void *
dp_arena_take (DpArena *arena, gsize bytes)
{
  gsize at = arena->used;

  arena->used += (bytes + 63) & ~(gsize) 63;
  if (arena->memory == NULL)
    return NULL;
  g_assert (arena->used <= arena->size);
  return arena->memory + at;
}

gboolean
dp_arena_allocate (DpArena *arena, DpDevice *dev, const char *what, GError **error)
{
  g_assert (arena->memory == NULL);
  arena->dev = dev;
  arena->size = arena->used;
  arena->used = 0;
  arena->memory = dev->ops->alloc (dev, MAX (arena->size, 64));
  if (arena->memory == NULL) {
    dp_error_no_room (dev, error, arena->size, "a smaller width, height, block-latents or context-latents needs less", "%s", what);
    return FALSE;
  }
  return TRUE;
}

void *
dp_arena_host_new (gsize bytes, const char *what, GError **error)
{
  DpDeviceInfo info;
  char message[256];
  gboolean fits = !dp_device_info ("cpu", &info, message, sizeof message) || bytes <= info.memory_free;
  void *memory = fits ? g_try_malloc (MAX (bytes, 1)) : NULL;

  if (memory == NULL)
    dp_error_set (error, DP_ERROR_NO_MEMORY,
        "%s needs %.1f MiB, which this machine has not left; a smaller width, height, block-latents or context-latents needs less", what,
        bytes / 1048576.0);
  return memory;
}

void
dp_arena_free (DpArena *arena)
{
  if (arena->memory)
    arena->dev->ops->free (arena->dev, arena->memory);
  *arena = (DpArena) { 0 };
}
