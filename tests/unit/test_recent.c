/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/recent.h"

static void
test_empty (void)
{
  DpRecent w = { 0 };

  g_assert_cmpfloat (dp_recent_mean (&w), ==, 0);
  g_assert_cmpfloat (dp_recent_percentile (&w, 50), ==, 0);
}

static void
test_few (void)
{
  DpRecent w = { 0 };

  dp_recent_add (&w, 7);
  for (int percent = 1; percent <= 100; percent++)
    g_assert_cmpfloat (dp_recent_percentile (&w, percent), ==, 7);
  dp_recent_add (&w, -1);
  dp_recent_add (&w, 3);
  g_assert_cmpfloat (dp_recent_mean (&w), ==, 3);
  g_assert_cmpfloat (dp_recent_percentile (&w, 1), ==, -1);
  g_assert_cmpfloat (dp_recent_percentile (&w, 33), ==, -1);
  g_assert_cmpfloat (dp_recent_percentile (&w, 34), ==, 3);
  g_assert_cmpfloat (dp_recent_percentile (&w, 50), ==, 3);
  g_assert_cmpfloat (dp_recent_percentile (&w, 95), ==, 7);
}

/* Only the latest count. */
static void
test_many (void)
{
  DpRecent w = { 0 };

  for (int i = 0; i < 3 * DP_WINDOW + 7; i++)
    dp_recent_add (&w, i < 2 * DP_WINDOW + 7 ? 1e6 : (i * 37) % DP_WINDOW);
  g_assert_cmpuint (w.count, ==, 3 * DP_WINDOW + 7);
  g_assert_cmpfloat (dp_recent_mean (&w), ==, (DP_WINDOW - 1) / 2.0);
  g_assert_cmpfloat (dp_recent_percentile (&w, 50), ==, DP_WINDOW / 2 - 1);
  g_assert_cmpfloat (dp_recent_percentile (&w, 95), ==, 243);   /* 0..243 are 244 of 256: 95.3 % */
  g_assert_cmpfloat (dp_recent_percentile (&w, 100), ==, DP_WINDOW - 1);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/window/empty", test_empty);
  g_test_add_func ("/window/few", test_few);
  g_test_add_func ("/window/many", test_many);
  return g_test_run ();
}
