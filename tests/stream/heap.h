/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * heap.h: counts every call of malloc and its relatives in this process, by who called.
 *
 * heap.c defines malloc() and so on in front of the C library's. A caller is the module its return address lies in: ours (the program,
 * into which engine and kernels are linked, and GLib, which calls for us), oneDNN with the C++ library it allocates through, or anyone
 * else. In a sanitizer build those functions are the sanitizer's: heap_counts() is FALSE there.
 */
#pragma once

#include <glib.h>

typedef struct
{
  gint64 ours, dnnl, others;    /* calls so far */
  gint64 live;                  /* bytes that are allocated now, as the allocator rounds them */
} HeapCounts;

/** Before the first thread. */
void heap_init (void);
gboolean heap_counts (HeapCounts *counts);

/** Prints where the next calls of ours come from, as module and offset for addr2line. */
void heap_trace (int calls);
