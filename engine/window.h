/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * window.h: the latest numbers of a series, for its mean and percentiles. Of fixed size: it may be all zeros to begin with, and adding
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
} DpWindow;

void dp_window_add (DpWindow *window, double value);

/** 0 of an empty one. The percentile is the smallest number that `percent` % (1..100) of them do not exceed. */
double dp_window_mean (const DpWindow *window);
double dp_window_percentile (const DpWindow *window, int percent);
