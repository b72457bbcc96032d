/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cut.h"

#include <math.h>

#define WORTH 1.005             /* how much slower a simpler cut may be */
#define APART 3                 /* most halves between the cuts of the two elements */
#define WIDTH (2 * APART + 1)

/* Where the elements are cut is a state: element 0 behind half i, element 1 behind half i + d, -APART <= d <= APART. */
typedef struct
{
  const DpCutSpec *spec;
  int halves, apart;            /* apart: 0 with one element */
  double limit;                 /* most time of a stage; INFINITY: the least possible is sought */
  double *values;               /* [stages + 1][halves + 1][WIDTH] of the best way to cut what is in front */
  int *from;                    /* the same shape: the state of the stage before, on that way */
} Search;

double
dp_cut_layers (double attention, DpHalves h)
{
  int attentions = (h.last + 1) / 2 - (h.first + 1) / 2;

  return attentions * attention + (h.last - h.first - attentions) * (1 - attention);
}

static double
load (const Search *s, int stage, DpHalves a, DpHalves b)
{
  const DpCutSpec *spec = s->spec;
  double layers = dp_cut_layers (spec->attention, a) + (spec->elements == 2 ? dp_cut_layers (spec->attention, b) : 0);

  return layers / spec->speeds[stage] + spec->others[stage];
}

/* How far a cut is from one between whole layers, for both elements. */
static int
untidiness (int i, int d)
{
  return (i & 1) + ((i + d) & 1) + ABS (d);
}

static gsize
state (const Search *s, int stage, int i, int d)
{
  return ((gsize) stage * (s->halves + 1) + i) * WIDTH + d + APART;
}

/* The best way to a cut behind `stage`. With `limit` the least untidiness, else the fastest slowest stage. */
static void
reach (Search *s, int stage, int i, int d)
{
  gsize here = state (s, stage + 1, i, d);

  s->values[here] = INFINITY;
  for (int first = i - 1; first >= stage; first--) {
    double least = INFINITY;

    for (int e = -s->apart; e <= s->apart; e++) {
      DpHalves a = { first, i }, b = { first + e, i + d };
      gsize before = state (s, stage, first, e);

      if (b.first < 0 || b.last <= b.first)
        continue;
      double time = load (s, stage, a, b), value = s->values[before];
      least = MIN (least, time);
      value = isinf (s->limit) ? MAX (value, time) : time <= s->limit ? value + untidiness (i, d) : INFINITY;
      if (value < s->values[here]) {
        s->values[here] = value;
        s->from[here] = before;
      }
    }
    if (least > (isinf (s->limit) ? s->values[here] : s->limit))        /* longer ranges only take longer */
      break;
  }
}

static double
search (Search *s)
{
  int stages = s->spec->stages;

  for (int i = 0; i <= s->halves; i++)
    for (int d = -APART; d <= APART; d++)
      s->values[state (s, 0, i, d)] = i == 0 && d == 0 ? 0 : INFINITY;
  for (int stage = 0; stage < stages; stage++)
    for (int i = 0; i <= s->halves; i++)
      for (int d = -APART; d <= APART; d++) {
        gboolean there = i > stage && i + d > stage && i + d <= s->halves && ABS (d) <= s->apart;

        s->values[state (s, stage + 1, i, d)] = INFINITY;
        if (there && (stage < stages - 1 || (i == s->halves && d == 0)))
          reach (s, stage, i, d);
      }
  return s->values[state (s, stages, s->halves, 0)];
}

void
dp_cut (const DpCutSpec *spec, DpHalves (*cut)[2])
{
  Search s = { .spec = spec, .halves = 2 * spec->layers, .apart = spec->elements == 2 ? APART : 0, .limit = INFINITY };
  gsize n = (gsize) (spec->stages + 1) * (s.halves + 1) * WIDTH;

  g_assert (spec->stages >= 1 && spec->stages <= spec->layers);
  s.values = g_new (double, n);
  s.from = g_new (int, n);
  s.limit = search (&s) * WORTH;
  search (&s);
  gsize at = state (&s, spec->stages, s.halves, 0);
  for (int stage = spec->stages - 1; stage >= 0; stage--) {
    gsize before = s.from[at];
    int last = at / WIDTH % (s.halves + 1), first = before / WIDTH % (s.halves + 1);

    cut[stage][0] = (DpHalves) { first, last };
    cut[stage][1] = (DpHalves) { first + (int) (before % WIDTH) - APART, last + (int) (at % WIDTH) - APART };
    at = before;
  }
  g_free (s.values);
  g_free (s.from);
}
