/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * recent.h: the latest numbers of a series, for its mean and percentiles. Of fixed size: it may be all zeros to begin with, and adding
 * to it allocates nothing.
 */
#pragma once

#include <glib.h>

#define DP_WINDOW 256           /* numbers that are kept */

/* Thread-safety: a value. */
typedef struct
{
  double values[DP_WINDOW];     /* the latest, in no order */
  guint64 count;                /* added so far, those that are gone included */
} DpRecent;

void dp_recent_add (DpRecent *window, double value);

/** 0 of an empty one. The percentile is the smallest number that `percent` % (1..100) of them do not exceed. */
double dp_recent_mean (const DpRecent *window);
double dp_recent_percentile (const DpRecent *window, int percent);
