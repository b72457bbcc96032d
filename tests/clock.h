/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * clock.h: how long something took, as a test may judge it. What is over within a second takes longer where other programs want the
 * processors too, and that is none of its doing. On a machine that does nothing else these are the seconds of any clock.
 */
#pragma once

#include <glib.h>

/* A moment. Thread-safety: a value. */
typedef struct
{
  gint64 us;                    /* of g_get_monotonic_time() */
  double own;                   /* seconds of processors that this process and those it waited for have used so far */
  double busy;                  /* and of those it may use, that anyone has used */
  int processors;               /* that it may use */
} TestClock;

TestClock test_clock (void);

/** Seconds since `start`, less what the processors gave to others: at most ten times what they gave to us, as ten others would get. Who only
 *  sleeps gets nothing and has no such excuse. */
double test_clock_seconds (TestClock start);
