/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_cut.c: rings cut where their slowest stage is fastest.
 */
#include "engine/cut.h"

#define MOST 16

typedef struct
{
  DpCutSpec spec;
  double speeds[MOST], others[MOST];
  DpHalves cut[MOST][2];
} Ring;

/* Cuts a ring of equal devices, but for what the caller writes behind this. */
static void
ring_init (Ring *r, int layers, int elements, int stages, double attention)
{
  *r = (Ring) { .spec = { .layers = layers, .elements = elements, .stages = stages, .attention = attention } };
  r->spec.speeds = r->speeds;
  r->spec.others = r->others;
  for (int i = 0; i < stages; i++)
    r->speeds[i] = 1;
}

static double
time_of (const Ring *r, int stage)
{
  double time = r->others[stage];

  for (int e = 0; e < r->spec.elements; e++)
    time += dp_cut_layers (r->spec.attention, r->cut[stage][e]) / r->speeds[stage];
  return time;
}

/* Cuts it; every half of every element is there once, in order. Returns the time of the slowest stage. */
static double
cut (Ring *r)
{
  double slowest = 0;

  dp_cut (&r->spec, r->cut);
  for (int e = 0; e < r->spec.elements; e++) {
    int next = 0;

    for (int i = 0; i < r->spec.stages; i++) {
      g_assert_cmpint (r->cut[i][e].first, ==, next);
      g_assert_cmpint (r->cut[i][e].last, >, next);
      next = r->cut[i][e].last;
    }
    g_assert_cmpint (next, ==, 2 * r->spec.layers);
  }
  for (int i = 0; i < r->spec.stages; i++)
    slowest = MAX (slowest, time_of (r, i));
  return slowest;
}

/* The least time of the slowest stage, by trying every cut of one element. */
static double
best_of_all (const Ring *r, int stage, int first)
{
  int end = 2 * r->spec.layers, left = r->spec.stages - stage - 1;
  double best = G_MAXDOUBLE;

  for (int last = left ? first + 1 : end; last <= end - left; last++) {
    double time = dp_cut_layers (r->spec.attention, (DpHalves) { first, last }) / r->speeds[stage] + r->others[stage];

    best = MIN (best, left ? MAX (time, best_of_all (r, stage + 1, last)) : time);
  }
  return best;
}

static void
test_best (void)
{
  g_autoptr (GRand) random = g_rand_new_with_seed (17);

  for (int k = 0; k < 300; k++) {
    int layers = g_rand_int_range (random, 1, 9);
    Ring r;

    ring_init (&r, layers, 1, g_rand_int_range (random, 1, MIN (layers, 5) + 1), g_rand_double_range (random, 0.1, 0.9));
    for (int i = 0; i < r.spec.stages; i++) {
      r.speeds[i] = g_rand_double_range (random, 0.2, 2);
      r.others[i] = g_rand_boolean (random) ? 0 : g_rand_double_range (random, 0, 2);
    }
    double time = cut (&r), best = best_of_all (&r, 0, 0);
    g_assert_cmpfloat (time, >=, best * (1 - 1e-9));
    g_assert_cmpfloat (time, <=, best * 1.0051);
  }
}

/* What divides stays whole, for both elements alike. */
static void
test_whole (void)
{
  for (int elements = 1; elements <= 2; elements++)
    for (int stages = 1; stages <= 8; stages++) {
      Ring r;

      ring_init (&r, 5 * stages, elements, stages, 0.81);
      g_assert_cmpfloat_with_epsilon (cut (&r), 5 * elements, 1e-9);
      for (int i = 0; i < stages; i++)
        for (int e = 0; e < elements; e++)
          g_assert_cmpint (r.cut[i][e].first, ==, 10 * i);
    }
}

/* Thirty layers over eight: 7.5 for two elements together, where whole layers alone leave a stage with 8. */
static void
test_elements (void)
{
  Ring r;

  ring_init (&r, 30, 2, 8, 0.81);
  double time = cut (&r);
  g_assert_cmpfloat (time, >=, 7.5);
  g_assert_cmpfloat (time, <, 7.5 * 8 / 7.85);
}

static void
test_uneven (void)
{
  Ring r;

  ring_init (&r, 30, 2, 3, 0.8);
  r.speeds[1] = 3;
  g_assert_cmpfloat (cut (&r), <, 12 * 1.02);   /* 60 layers at a speed of 5 */
  ring_init (&r, 30, 2, 4, 0.8);
  r.others[3] = 4;
  g_assert_cmpfloat (cut (&r), <, 16 * 1.02);
  r.others[3] = 100;            /* as little as may be: half a layer of each, without the self-attention */
  g_assert_cmpfloat (cut (&r), <=, (100 + 2 * 0.2) * 1.0051);
}

static void
test_many (void)
{
  Ring r;

  ring_init (&r, 256, 2, MOST, 0.6);
  g_assert_cmpfloat_with_epsilon (cut (&r), 32, 1e-9);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/cut/best", test_best);
  g_test_add_func ("/cut/whole", test_whole);
  g_test_add_func ("/cut/elements", test_elements);
  g_test_add_func ("/cut/uneven", test_uneven);
  g_test_add_func ("/cut/many", test_many);
  return g_test_run ();
}
