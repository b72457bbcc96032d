/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "clock.h"

#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define OTHERS 10

static double
used_by (int who)
{
  struct rusage usage;

  getrusage (who, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

TestClock
test_clock (void)
{
  TestClock now = { .us = g_get_monotonic_time (), .own = used_by (RUSAGE_SELF) + used_by (RUSAGE_CHILDREN) };
  unsigned long long user, nice, kernel, irq, softirq, steal;
  FILE *f = fopen ("/proc/stat", "re");
  char line[512];
  cpu_set_t ours;
  int cpu;

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
  double own = now.own - start.own, others = (now.busy - start.busy - own) / MAX (now.processors, 1);

  return (now.us - start.us) / 1e6 - CLAMP (others, 0, OTHERS * own);
}
