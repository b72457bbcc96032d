/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_team.c: every chunk of every job runs exactly once, on a thread of its own, and is seen by the caller; with the helpers
 * awake, asleep, and outnumbering the processors.
 */
#include "kernels/thread_pool.h"

#include <omp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MAX_CHUNKS 300
#define MAX_THREADS 7

static int failures;

typedef struct
{
  int runs[MAX_CHUNKS];         /* plain: a chunk that ran twice at once is a race for the sanitizer */
  atomic_int busy[MAX_THREADS];
  atomic_int errors;
} Job;

static void
chunk (void *arg, int chunk, int thread)
{
  Job *job = arg;

  if (atomic_fetch_add (&job->busy[thread], 1) != 0 || omp_get_max_threads () != 1)
    atomic_fetch_add (&job->errors, 1);
  job->runs[chunk]++;
  for (volatile int i = 0; i < chunk % 50; i++)
    ;
  atomic_fetch_sub (&job->busy[thread], 1);
}

static void
check_team (int threads, int jobs)
{
  DpThreadPool *team = dp_thread_pool_new (threads, NULL);
  unsigned seed = threads;

  if (team == NULL || dp_thread_pool_threads (team) != threads) {
    failures++;
    return;
  }
  for (int i = 0; i < jobs; i++) {
    Job job = { 0 };
    int n = (seed = seed * 1103515245 + 12345) >> 16;

    n = i % 3 == 0 ? n % 4 : n % MAX_CHUNKS;
    dp_thread_pool_run (team, n, chunk, &job);
    for (int j = 0; j < MAX_CHUNKS; j++)
      if (job.runs[j] != (j < n)) {
        printf ("FAIL: %d threads, job %d: chunk %d of %d ran %d times\n", threads, i, j, n, job.runs[j]);
        failures++;
      }
    if (job.errors) {
      printf ("FAIL: %d threads, job %d: %d chunks shared a thread or had OpenMP's threads\n", threads, i, job.errors);
      failures++;
    }
    /* Long enough that the helpers fall asleep. */
    if (i % 100 == 99)
      nanosleep (&(struct timespec) { .tv_nsec = 500000 }, NULL);
  }
  dp_thread_pool_free (team);
}

int
main (void)
{
  int before;

  omp_set_num_threads (3);
  before = omp_get_max_threads ();
  for (int threads = 1; threads <= MAX_THREADS; threads += 1 + threads / 2)
    check_team (threads, 5000);
  for (int i = 0; i < 200; i++)
    check_team (2, i % 3);
  if (omp_get_max_threads () != before) {
    printf ("FAIL: OpenMP had %d threads before and has %d now\n", before, omp_get_max_threads ());
    failures++;
  }
  dp_thread_pool_free (NULL);
  return failures > 0;
}
