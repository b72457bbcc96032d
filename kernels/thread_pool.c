/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "thread_pool.h"

#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define SPIN_NS 40000

/* The ticket holds the job's number in its high half and the next chunk in its low half. Taking a chunk is a compare-and-swap
 * on both, so a helper that wakes late can never take a chunk of another job, and the caller never waits for helpers that
 * found nothing to do. While the caller changes what a job is, a number of its own with CLOSED for a chunk is in place. */
#define CLOSED UINT32_MAX

struct DpThreadPool
{
  int threads;
  const DpDevice *dev;
  int started;                  /* helpers to join */
  pthread_t *helpers;

  /* -- written by the caller between jobs, read by helpers that hold a current ticket */
  _Atomic (DpTeamFn) fn;
  _Atomic (void *) arg;
  atomic_int n_chunks;

  _Alignas (64) _Atomic uint64_t ticket;
  _Alignas (64) atomic_int done;        /* chunks finished */
  _Alignas (64) atomic_int sleepers;
  atomic_bool caller_sleeps;
  atomic_bool quit;

  pthread_mutex_t lock;
  pthread_cond_t wake, finished;
};

typedef struct
{
  DpThreadPool *team;
  int thread;
} Helper;

static inline void
relax (void)
{
#if defined (__x86_64__) || defined (__i386__)
  __builtin_ia32_pause ();
#elif defined (__aarch64__)
  __asm__ volatile ("yield");
#endif
}

static int64_t
now_ns (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * INT64_C (1000000000) + ts.tv_nsec;
}

static uint32_t
job_of (uint64_t ticket)
{
  return ticket >> 32;
}

static void
run_chunk (const DpThreadPool *team, DpTeamFn fn, void *arg, int chunk, int thread)
{
  if (team->dev == NULL || !dp_device_cancelled (team->dev))
    fn (arg, chunk, thread);
}

/* Takes chunks of the current job until there are none; returns the number of the job it looked at last. */
static uint32_t
work (DpThreadPool *team, int thread)
{
  for (;;) {
    uint64_t ticket = atomic_load (&team->ticket);
    DpTeamFn fn = atomic_load (&team->fn);
    void *arg = atomic_load (&team->arg);
    int n = atomic_load (&team->n_chunks);
    uint32_t chunk = (uint32_t) ticket;

    if (chunk >= (uint32_t) n)
      return job_of (ticket);
    /* fn, arg and n belong to this ticket if it is still in place: the caller takes it away before it changes them. */
    if (!atomic_compare_exchange_weak (&team->ticket, &ticket, ticket + 1))
      continue;
    run_chunk (team, fn, arg, (int) chunk, thread);
    if (atomic_fetch_add (&team->done, 1) + 1 == n && atomic_load (&team->caller_sleeps)) {
      pthread_mutex_lock (&team->lock);
      pthread_cond_signal (&team->finished);
      pthread_mutex_unlock (&team->lock);
    }
  }
}

static bool
idle (DpThreadPool *team, uint32_t seen)
{
  return job_of (atomic_load (&team->ticket)) == seen && !atomic_load (&team->quit);
}

static void *
helper_main (void *data)
{
  Helper me = *(Helper *) data;
  DpThreadPool *team = me.team;
  uint32_t seen = 0;

  free (data);
  omp_set_num_threads (1);
  while (!atomic_load (&team->quit)) {
    int64_t until;

    seen = work (team, me.thread);
    until = now_ns () + SPIN_NS;
    while (idle (team, seen) && now_ns () < until)
      for (int i = 0; i < 16; i++)
        relax ();
    if (!idle (team, seen))
      continue;
    pthread_mutex_lock (&team->lock);
    atomic_fetch_add (&team->sleepers, 1);
    while (idle (team, seen))
      pthread_cond_wait (&team->wake, &team->lock);
    atomic_fetch_sub (&team->sleepers, 1);
    pthread_mutex_unlock (&team->lock);
  }
  return NULL;
}

int
dp_thread_pool_enter (void)
{
  int saved = omp_get_max_threads ();

  if (saved != 1)
    omp_set_num_threads (1);
  return saved;
}

void
dp_thread_pool_leave (int saved)
{
  if (saved != 1)
    omp_set_num_threads (saved);
}

static void
wake_helpers (DpThreadPool *team)
{
  if (atomic_load (&team->sleepers) == 0)
    return;
  pthread_mutex_lock (&team->lock);
  pthread_cond_broadcast (&team->wake);
  pthread_mutex_unlock (&team->lock);
}

static void
wait_for_helpers (DpThreadPool *team, int n)
{
  int64_t until = now_ns () + SPIN_NS;

  while (atomic_load (&team->done) < n && now_ns () < until)
    for (int i = 0; i < 16; i++)
      relax ();
  if (atomic_load (&team->done) >= n)
    return;
  pthread_mutex_lock (&team->lock);
  atomic_store (&team->caller_sleeps, true);
  while (atomic_load (&team->done) < n)
    pthread_cond_wait (&team->finished, &team->lock);
  atomic_store (&team->caller_sleeps, false);
  pthread_mutex_unlock (&team->lock);
}

void
dp_thread_pool_run (DpThreadPool *team, int n_chunks, DpTeamFn fn, void *arg)
{
  int saved = dp_thread_pool_enter ();

  if (team->threads == 1 || n_chunks <= 1) {
    for (int i = 0; i < n_chunks; i++)
      run_chunk (team, fn, arg, i, 0);
  } else {
    uint32_t job = job_of (atomic_load (&team->ticket)) + 1;

    atomic_store (&team->ticket, (uint64_t) job << 32 | CLOSED);
    atomic_store (&team->fn, fn);
    atomic_store (&team->arg, arg);
    atomic_store (&team->n_chunks, n_chunks);
    atomic_store (&team->done, 0);
    atomic_store (&team->ticket, (uint64_t) (job + 1) << 32);
    wake_helpers (team);
    work (team, 0);
    wait_for_helpers (team, n_chunks);
  }
  dp_thread_pool_leave (saved);
}

int
dp_thread_pool_threads (const DpThreadPool *team)
{
  return team->threads;
}

static bool
start_helper (DpThreadPool *team, int thread)
{
  Helper *helper = malloc (sizeof *helper);

  if (helper == NULL)
    return false;
  *helper = (Helper) { team, thread };
  if (pthread_create (&team->helpers[team->started], NULL, helper_main, helper) != 0) {
    free (helper);
    return false;
  }
  team->started++;
  return true;
}

DpThreadPool *
dp_thread_pool_new (int threads, const DpDevice *dev)
{
  DpThreadPool *team = aligned_alloc (64, sizeof *team);

  if (team == NULL)
    return NULL;
  *team = (DpThreadPool) { .threads = threads, .dev = dev };
  pthread_mutex_init (&team->lock, NULL);
  pthread_cond_init (&team->wake, NULL);
  pthread_cond_init (&team->finished, NULL);
  team->helpers = calloc (threads, sizeof *team->helpers);
  for (int i = 1; i < threads; i++)
    if (team->helpers == NULL || !start_helper (team, i)) {
      dp_thread_pool_free (team);
      return NULL;
    }
  return team;
}

void
dp_thread_pool_free (DpThreadPool *team)
{
  if (team == NULL)
    return;
  pthread_mutex_lock (&team->lock);
  atomic_store (&team->quit, true);
  pthread_cond_broadcast (&team->wake);
  pthread_mutex_unlock (&team->lock);
  for (int i = 0; i < team->started; i++)
    pthread_join (team->helpers[i], NULL);
  pthread_cond_destroy (&team->finished);
  pthread_cond_destroy (&team->wake);
  pthread_mutex_destroy (&team->lock);
  free (team->helpers);
  free (team);
}
