/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * thread_pool.h: the threads of one CPU device, and those that read weights for a GPU.
 *
 * A team is its caller plus threads - 1 helpers. dp_thread_pool_run() cuts a job into chunks; a free thread takes the next one. So
 * the order and the thread of a chunk are unknown: a chunk's size and its result must depend on shapes only, never on either.
 * Idle helpers watch for work for a few tens of microseconds, then sleep. Inside a chunk OpenMP (oneDNN's threading) is held at
 * one thread. Outside a chunk, create and run oneDNN primitives between dp_thread_pool_enter() and dp_thread_pool_leave().
 */
#pragma once

#include "device.h"

/** Thread-safety: one caller at a time; several teams run side by side. */
typedef struct DpThreadPool DpThreadPool;

/** One chunk of a job. `thread` is 0 .. threads - 1, and no two chunks with the same thread run at once: it indexes scratch. */
typedef void (*DpTeamFn) (void *arg, int chunk, int thread);

/** A team of `threads` >= 1, the caller included. With 1 no thread is made. `dev` may be NULL; once it is cancelled, chunks are not run any
 *  more. NULL: the system gave no memory or threads. */
DpThreadPool *dp_thread_pool_new (int threads, const DpDevice *dev);

/** Ends and joins the helpers. NULL is fine. */
void dp_thread_pool_free (DpThreadPool *team);

/** Runs fn (arg, 0 .. n_chunks - 1, thread) and returns when all are done, or the device is cancelled. No allocation. A single chunk runs
 *  on the caller. */
void dp_thread_pool_run (DpThreadPool *team, int n_chunks, DpTeamFn fn, void *arg);

int dp_thread_pool_threads (const DpThreadPool *team);

/** Holds OpenMP at one thread for the calling thread; returns what dp_thread_pool_leave() needs to restore it. */
int dp_thread_pool_enter (void);
void dp_thread_pool_leave (int saved);

/** Chunks of `size` needed for n things. */
static inline int
dp_thread_pool_chunks (size_t n, size_t size)
{
  return (int) ((n + size - 1) / size);
}
