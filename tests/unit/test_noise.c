/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/noise.c"       /* for the generator itself */

#include <string.h>

/* Random123's known answers for philox4x32-10. */
static void
test_philox (void)
{
  static const struct { guint64 seed, stream, index; guint32 out[4]; } known[] = {
    { 0, 0, 0, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
    { G_MAXUINT64, G_MAXUINT64, G_MAXUINT64, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
    { 0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (known); i++) {
    guint32 out[4];

    philox (known[i].seed, known[i].stream, known[i].index, out);
    g_assert_cmpmem (out, sizeof out, known[i].out, sizeof out);
  }
}

static void
test_moments (void)
{
  enum { N = 1 << 20 };
  g_autofree float *x = g_new (float, N);

  for (guint64 stream = 0; stream < 3; stream++) {
    double m[5] = { 0 }, lagged = 0;

    dp_noise_fill (7, stream, 0, N, x);
    for (int i = 0; i < N; i++) {
      g_assert_true (fabs (x[i]) < 7);
      for (int k = 1; k < 5; k++)
        m[k] += pow (x[i], k) / N;
      lagged += i ? (double) x[i] * x[i - 1] / N : 0;
    }
    /* six standard errors */
    g_assert_cmpfloat (fabs (m[1]), <, 6 * sqrt (1.0 / N));
    g_assert_cmpfloat (fabs (m[2] - 1), <, 6 * sqrt (2.0 / N));
    g_assert_cmpfloat (fabs (m[3]), <, 6 * sqrt (15.0 / N));
    g_assert_cmpfloat (fabs (m[4] - 3), <, 6 * sqrt (96.0 / N));
    g_assert_cmpfloat (fabs (lagged), <, 6 * sqrt (1.0 / N));
  }
}

/* Any range, in any order, gives the same numbers; seeds and streams do not share them. */
static void
test_order (void)
{
  float whole[1000], part[1000], other[1000];

  dp_noise_fill (42, 5, 0, 1000, whole);
  for (int first = 999; first >= 0; first -= 37) {
    int n = MIN (37 + first % 5, 1000 - first);

    dp_noise_fill (42, 5, first, n, part);
    g_assert_cmpmem (part, n * sizeof (float), whole + first, n * sizeof (float));
  }
  dp_noise_fill (42, 6, 0, 1000, other);
  g_assert_true (memcmp (other, whole, sizeof whole) != 0);
  dp_noise_fill (43, 5, 0, 1000, other);
  g_assert_true (memcmp (other, whole, sizeof whole) != 0);
  dp_noise_fill (42, 5, G_MAXUINT64 - 1, 4, other);     /* wraps, and nothing else */
  g_assert_cmpmem (other + 2, 2 * sizeof (float), whole, 2 * sizeof (float));
  dp_noise_fill (42, 5, 3, 0, NULL);
}

/* Within a window of C + 1 latents no pattern comes twice; every block is of the pool. */
static void
test_pool (void)
{
  static const int sizes[][2] = { { 8, 8 }, { 4, 4 }, { 4, 1 }, { 5, 3 }, { 1, 1 }, { 3, 0 }, { 1, 0 } };

  for (gsize s = 0; s < G_N_ELEMENTS (sizes); s++) {
    int own = sizes[s][0], context = sizes[s][1], frames[64];
    DpNoisePool *pool = dp_noise_pool_new (s, own, context), *again = dp_noise_pool_new (s, own, context);
    g_autoptr (GArray) all = g_array_new (FALSE, FALSE, sizeof (int));

    for (int b = 0; b < 200; b++) {
      int n = dp_noise_pool_next (pool, frames), repeated[64];

      g_assert_cmpint (n, ==, b ? own : own + context);
      g_assert_cmpint (dp_noise_pool_next (again, repeated), ==, n);
      g_assert_cmpmem (frames, n * sizeof (int), repeated, n * sizeof (int));
      g_array_append_vals (all, frames, n);
    }
    for (guint i = 0; i < all->len; i++) {
      g_assert_cmpint (g_array_index (all, int, i), >=, 0);
      g_assert_cmpint (g_array_index (all, int, i), <, own + context);
      for (int k = 1; k <= context && k <= (int) i; k++)
        g_assert_cmpint (g_array_index (all, int, i), !=, g_array_index (all, int, i - k));
    }
    dp_noise_pool_free (pool);
    dp_noise_pool_free (again);
  }
  dp_noise_pool_free (NULL);
}

/* Each of the 24 orders of four frames comes about as often. */
static void
test_fair (void)
{
  enum { N = 24000 };
  DpNoisePool *pool = dp_noise_pool_new (1, 4, 0);
  int count[256] = { 0 }, frames[4], before[4] = { 0, 1, 2, 3 }, kinds = 0;

  for (int i = 0; i < N; i++) {
    int place[4], code = 0;

    dp_noise_pool_next (pool, frames);
    for (int k = 0; k < 4; k++)
      place[before[k]] = k;
    for (int k = 0; k < 4; k++)
      code = code * 4 + place[frames[k]];
    count[code]++;
    memcpy (before, frames, sizeof before);
  }
  for (int i = 0; i < 256; i++)
    if (count[i]) {
      kinds++;
      g_assert_cmpint (ABS (count[i] - N / 24), <, 6 * 32);
    }
  g_assert_cmpint (kinds, ==, 24);
  dp_noise_pool_free (pool);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/noise/philox", test_philox);
  g_test_add_func ("/noise/moments", test_moments);
  g_test_add_func ("/noise/order", test_order);
  g_test_add_func ("/noise/pool", test_pool);
  g_test_add_func ("/noise/fair", test_fair);
  return g_test_run ();
}
