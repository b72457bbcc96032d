/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * clock.h: how long something took, as a test may judge it. What is over within a second takes longer where other programs want the
 * processors too, and that is none of its doing. On a machine that does nothing else these are the seconds of any clock.
 */
#pragma once

#include <glib.h>

/* A moment, with sums so far of this process and those it waited for. Thread-safety: a value. */
typedef struct
{
  gint64 us;                    /* of g_get_monotonic_time() */
  double own;                   /* seconds of processors used */
  double busy;                  /* the same of everybody, on the processors that we may use */
  int processors;               /* as many */
  glong turns;                  /* how often a thread began to wait, for a processor or for anything else */
} TestClock;

TestClock test_clock (void);

/** Seconds since `start`, less what each of the processors gave to others: for each time that we waited at most a round of theirs, so that who
 *  sleeps on an idle or a busy machine is not excused. */
double test_clock_seconds (TestClock start);
