/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "clock.h"

#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define ROUND 0.05              /* seconds: ten others, who keep a processor for 5 ms each */

static void
add_usage (TestClock *now, int who)
{
  struct rusage usage;

  getrusage (who, &usage);
  now->own += usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  now->turns += usage.ru_nvcsw + usage.ru_nivcsw;
}

TestClock
test_clock (void)
{
  TestClock now = { .us = g_get_monotonic_time () };
  unsigned long long user, nice, kernel, irq, softirq, steal;
  FILE *f = fopen ("/proc/stat", "re");
  char line[512];
  cpu_set_t ours;
  int cpu;

  add_usage (&now, RUSAGE_SELF);
  add_usage (&now, RUSAGE_CHILDREN);
  CPU_ZERO (&ours);
  sched_getaffinity (0, sizeof ours, &ours);
  while (f && fgets (line, sizeof line, f))
    if (g_ascii_isdigit (line[3]) && sscanf (line, "cpu%d %llu %llu %llu %*u %*u %llu %llu %llu", &cpu, &user, &nice, &kernel, &irq, &softirq,
            &steal) == 7 && cpu < CPU_SETSIZE && CPU_ISSET (cpu, &ours)) {
      now.busy += (double) (user + nice + kernel + irq + softirq + steal) / sysconf (_SC_CLK_TCK);
      now.processors++;
    }
  if (f)
    fclose (f);
  return now;
}

double
test_clock_seconds (TestClock start)
{
  TestClock now = test_clock ();
  double others = (now.busy - start.busy - (now.own - start.own)) / MAX (now.processors, 1);

  return (now.us - start.us) / 1e6 - CLAMP (others, 0, ROUND * (now.turns - start.turns));
}
