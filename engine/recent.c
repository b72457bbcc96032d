/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "recent.h"

#include <stdlib.h>
#include <string.h>

static int
size_of (const DpRecent *w)
{
  return (int) MIN (w->count, DP_WINDOW);
}

void
dp_recent_add (DpRecent *w, double value)
{
  w->values[w->count++ % DP_WINDOW] = value;
}

double
dp_recent_mean (const DpRecent *w)
{
  double sum = 0;

  for (int i = 0; i < size_of (w); i++)
    sum += w->values[i];
  return sum / MAX (size_of (w), 1);
}

static int
compare (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;

  return (x > y) - (x < y);
}

double
dp_recent_percentile (const DpRecent *w, int percent)
{
  double sorted[DP_WINDOW];
  int n = size_of (w);

  g_assert (percent >= 1 && percent <= 100);
  if (n == 0)
    return 0;
  memcpy (sorted, w->values, sizeof (double) * n);
  qsort (sorted, n, sizeof (double), compare);
  return sorted[(percent * n + 99) / 100 - 1];
}
