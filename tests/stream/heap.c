/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "heap.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

void
heap_init (void)
{
}

gboolean
heap_counts (HeapCounts *counts)
{
  *counts = (HeapCounts) { 0 };
  return FALSE;
}

void
heap_trace (int calls)
{
}

#else

typedef enum
{
  OURS,
  DNNL,
  OTHERS,
  KINDS,
} Kind;

typedef struct
{
  guintptr from, to;
  Kind kind;
} Module;

static Module modules[128];
static int n_modules;
static gint64 calls[KINDS], live;       /* atomic */
static int traces;                      /* atomic */

static int
add_module (struct dl_phdr_info *info, size_t size, void *data)
{
  const char *name = strrchr (info->dlpi_name, '/') ? strrchr (info->dlpi_name, '/') + 1 : info->dlpi_name;
  Kind kind = OTHERS;

  if (*name == 0 || strncmp (name, "libglib-", 8) == 0)
    kind = OURS;
  else if (strncmp (name, "libdnnl", 7) == 0 || strncmp (name, "libstdc++", 9) == 0 || strncmp (name, "libgomp", 7) == 0)
    kind = DNNL;
  for (int i = 0; i < info->dlpi_phnum && n_modules < (int) G_N_ELEMENTS (modules); i++) {
    const ElfW (Phdr) *p = &info->dlpi_phdr[i];

    if (p->p_type == PT_LOAD && (p->p_flags & PF_X))
      modules[n_modules++] = (Module) { info->dlpi_addr + p->p_vaddr, info->dlpi_addr + p->p_vaddr + p->p_memsz, kind };
  }
  return 0;
}

void
heap_init (void)
{
  dl_iterate_phdr (add_module, NULL);
}

static void
took (void *ptr, void *caller)
{
  Kind kind = OTHERS;

  for (int i = 0; i < n_modules; i++)
    if ((guintptr) caller >= modules[i].from && (guintptr) caller < modules[i].to)
      kind = modules[i].kind;
  __atomic_fetch_add (&calls[kind], 1, __ATOMIC_RELAXED);
  if (ptr)
    __atomic_fetch_add (&live, malloc_usable_size (ptr), __ATOMIC_RELAXED);
  if (kind == OURS && __atomic_load_n (&traces, __ATOMIC_RELAXED) > 0 && __atomic_fetch_sub (&traces, 1, __ATOMIC_RELAXED) > 0) {
    Dl_info info;
    char line[256];

    if (dladdr (caller, &info)) {
      snprintf (line, sizeof line, "# malloc from %s+%#lx %s\n", info.dli_fname,
          (unsigned long) ((char *) caller - (char *) info.dli_fbase), info.dli_sname ? info.dli_sname : "");
      fputs (line, stderr);
    }
  }
}

static void
gave (void *ptr)
{
  if (ptr)
    __atomic_fetch_sub (&live, malloc_usable_size (ptr), __ATOMIC_RELAXED);
}

#define CALLER __builtin_return_address (0)

extern void *__libc_malloc (size_t), *__libc_calloc (size_t, size_t), *__libc_realloc (void *, size_t), *__libc_memalign (size_t, size_t);
extern void __libc_free (void *);

/* Exported, or libraries would go on with the C library's. */
#define EXPORT __attribute__ ((visibility ("default")))

EXPORT void *
malloc (size_t size)
{
  void *ptr = __libc_malloc (size);

  took (ptr, CALLER);
  return ptr;
}

EXPORT void
free (void *ptr)
{
  gave (ptr);
  __libc_free (ptr);
}

EXPORT void *
calloc (size_t n, size_t size)
{
  void *ptr = __libc_calloc (n, size);

  took (ptr, CALLER);
  return ptr;
}

EXPORT void *
realloc (void *old, size_t size)
{
  void *ptr;

  gave (old);
  ptr = __libc_realloc (old, size);
  if (ptr == NULL && size > 0 && old)
    took (old, CALLER);         /* it is still there */
  else
    took (ptr, CALLER);
  return ptr;
}

EXPORT void *
memalign (size_t alignment, size_t size)
{
  void *ptr = __libc_memalign (alignment, size);

  took (ptr, CALLER);
  return ptr;
}

EXPORT void *
aligned_alloc (size_t alignment, size_t size)
{
  void *ptr = __libc_memalign (alignment, size);

  took (ptr, CALLER);
  return ptr;
}

EXPORT int
posix_memalign (void **out, size_t alignment, size_t size)
{
  *out = __libc_memalign (alignment, size);
  took (*out, CALLER);
  return *out ? 0 : ENOMEM;
}

gboolean
heap_counts (HeapCounts *counts)
{
  *counts = (HeapCounts) {
    .ours = __atomic_load_n (&calls[OURS], __ATOMIC_RELAXED), .dnnl = __atomic_load_n (&calls[DNNL], __ATOMIC_RELAXED),
    .others = __atomic_load_n (&calls[OTHERS], __ATOMIC_RELAXED), .live = __atomic_load_n (&live, __ATOMIC_RELAXED),
  };
  return TRUE;
}

void
heap_trace (int n)
{
  __atomic_store_n (&traces, n, __ATOMIC_RELAXED);
}

#endif
