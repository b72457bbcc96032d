/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The simulation where the answer is known: one stage, rings that are full, and rings that are not.
 */
#include "engine/simulate.h"

#include <string.h>

/* Of the plans below: a pass waits for less with a cached context. */
static const char *mode = "recomputed";
static double interval_low;     /* of their guidance */

static DpPlan *
plan_for (int stages, int steps, int queue_blocks, double guidance_scale)
{
  g_autofree char *devices = g_strnfill (4 * stages - 1, ',');
  GError *error = NULL;

  for (int i = 0; i < stages; i++)
    memcpy (devices + 4 * i, "cpu", 3);
  DpPlan *plan = dp_plan_new (&(DpSettings) { .width = 64, .height = 48, .steps = steps, .queue_blocks = queue_blocks,
      .block_latents = 2, .context_latents = 1, .num_frames = -1, .devices = devices,
      .guidance_scale = guidance_scale, .guidance_interval_low = interval_low, .context_mode = mode }, &error);
  g_assert_no_error (error);
  return plan;
}

static DpRingSpeed
guided_speed_of (int stages, int steps, int queue_blocks, double guidance_scale, double pass, double hop, double decode)
{
  g_autoptr (DpPlan) plan = plan_for (stages, steps, queue_blocks, guidance_scale);
  DpRingTimes times = { .hop = hop, .decode = decode };
  GError *error = NULL;
  DpRingSpeed speed;

  for (int i = 0; i < stages; i++)
    for (int e = 0; e < plan->elements; e++)
      times.stage[i][e] = pass / stages / plan->elements;
  g_assert_true (dp_simulate (plan, &times, 40, &speed, &error));
  g_assert_no_error (error);
  return speed;
}

static DpRingSpeed
speed_of (int stages, int steps, int queue_blocks, double pass, double hop, double decode)
{
  return guided_speed_of (stages, steps, queue_blocks, 1, pass, hop, decode);
}

#define assert_near(a, b) g_assert_cmpfloat_with_epsilon (a, b, 1e-6 * (b))

/* T passes a block, one after the other; the queue fills before the first one leaves. */
static void
test_alone (void)
{
  DpRingSpeed s = speed_of (1, 6, 3, 1, 99, 0);

  assert_near (s.block, 6);
  assert_near (s.first, 6 * (3 + 1) / 2);       /* T (Q + 1) / 2 */
  assert_near (s.busy[0], 1);
  s = speed_of (1, 6, 3, 1, 99, 0.5);
  assert_near (s.block, 6.5);   /* the decoder takes its share of the device */
}

/* With enough blocks in flight every stage is busy. */
static void
test_full (void)
{
  for (int stages = 2; stages <= 5; stages++) {
    DpRingSpeed s = speed_of (stages, 12, 12, 1, 0, 0);

    assert_near (s.block, 12.0 / stages);
    for (int i = 0; i < stages; i++)
      g_assert_cmpfloat (s.busy[i], >, 0.999);
  }
}

/* Two blocks in flight cannot keep four stages busy: a pass waits for the one before it, all around the ring. */
static void
test_starved (void)
{
  DpRingSpeed s = speed_of (4, 8, 2, 1, 0, 0), one = speed_of (4, 8, 1, 1, 0, 0);

  g_assert_cmpfloat (s.block, >, 8.0 / 4 * 1.5);
  assert_near (one.block, 8);   /* one block: no parallelism at all */
  assert_near (one.busy[0], 0.25);
  assert_near (speed_of (4, 8, 1, 1, 0.25, 0).block, 8 * 2);    /* four hops a pass */
}

/* A slower stage sets the pace of a full ring, and transfers hide. */
static void
test_uneven (void)
{
  g_autoptr (DpPlan) plan = plan_for (2, 12, 12, 1);
  DpRingTimes times = { .stage = { { 1 }, { 0.5 } }, .hop = 0.01 };
  DpRingSpeed s;

  g_assert_true (dp_simulate (plan, &times, 40, &s, NULL));
  g_assert_cmpfloat_with_epsilon (s.block, 12, 0.05);
  g_assert_cmpfloat (s.busy[0], >, 0.99);
  g_assert_cmpfloat_with_epsilon (s.busy[1], 0.5, 0.01);
}

/* A network that takes longer for a block's tokens than a stage for its pass is the limit. */
static void
test_network (void)
{
  g_autoptr (DpPlan) plan = plan_for (2, 12, 12, 1);    /* of recomputed context: 3 latent frames a message */
  DpRingTimes times = { .stage = { { 0.5 }, { 0.5 } }, .hop_frame = 0.1 };
  DpRingSpeed s;

  g_assert_true (dp_simulate (plan, &times, 40, &s, NULL));
  g_assert_cmpfloat_with_epsilon (s.block, 12 * 0.5, 0.05);
  times.hop_frame = 0.3;
  g_assert_true (dp_simulate (plan, &times, 40, &s, NULL));
  g_assert_cmpfloat_with_epsilon (s.block, 12 * 0.9, 0.1);
}

/* Guidance makes a pass two messages: alone it takes as long; in a ring the second follows the first, so half as many blocks keep it
 * busy. */
static void
test_guided (void)
{
  assert_near (guided_speed_of (1, 6, 3, 5, 1, 99, 0).block, 6);
  for (int stages = 2; stages <= 6; stages++) {
    int lag = 2 * 24 / (stages + 3), enough = (24 + lag - 1) / lag;
    DpRingSpeed s = guided_speed_of (stages, 24, enough, 5, 1, 0, 0);

    assert_near (s.block, 24.0 / stages);
    for (int i = 0; i < stages; i++)
      g_assert_cmpfloat (s.busy[i], >, 0.999);
    if (stages > 2)
      g_assert_cmpfloat (speed_of (stages, 24, enough, 1, 0, 0).block, >, s.block * 1.1);
  }
  /* one block in flight: the elements of a pass are all that runs at a time */
  assert_near (guided_speed_of (6, 24, 1, 5, 1, 0, 0).block, 24 * (6 + 1) / 12.0);
}

/* With a cached context a block waits for its own pass alone: as many blocks as stages keep all of them busy, (N + 1) / 2 of guided ones. */
static void
test_cached (void)
{
  mode = "cached";
  assert_near (speed_of (1, 6, 3, 1, 99, 0).block, 6);
  for (int stages = 2; stages <= 6; stages++)
    for (int elements = 1; elements <= 2; elements++) {
      int lag = elements * 24 / (stages + elements - 1), enough = (24 + lag - 1) / lag;
      DpRingSpeed s = guided_speed_of (stages, 24, enough, elements == 2 ? 5 : 1, 1, 0, 0);

      assert_near (s.block, 24.0 / stages);
      for (int i = 0; i < stages; i++)
        g_assert_cmpfloat (s.busy[i], >, 0.999);
    }
  DpRingSpeed cached = speed_of (4, 12, 4, 1, 0, 0);
  mode = "recomputed";
  assert_near (cached.block, 12.0 / 4);
  g_assert_cmpfloat (speed_of (4, 12, 4, 1, 0, 0).block, >, cached.block * 1.1);
}

/* A pass without guidance is half of a guided one: alone a block takes the sum of its messages, and in a ring whose queue the plan finds
 * long enough all stages are busy. */
static void
test_interval (void)
{
  for (int cached = 0; cached < 2; cached++)
    for (int stages = 1; stages <= 6; stages++)
      for (double low = 0; low < 1; low += 0.3) {
        int queue = 0;
        g_autoptr (DpPlan) plan = NULL;

        interval_low = low;
        mode = cached ? "cached" : "recomputed";
        do {
          g_clear_pointer (&plan, dp_plan_unref);
          plan = plan_for (stages, 24, ++queue, 5);
        } while (plan->starved);
        DpRingSpeed s = guided_speed_of (stages, 24, queue, 5, 1, 0, 0);

        assert_near (s.block, 24 * dp_plan_mean_elements (plan) / 2 / stages);
        for (int i = 0; i < stages; i++)
          g_assert_cmpfloat (s.busy[i], >, 0.99);
      }
  interval_low = 0;
  mode = "recomputed";
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/simulate/alone", test_alone);
  g_test_add_func ("/simulate/full", test_full);
  g_test_add_func ("/simulate/starved", test_starved);
  g_test_add_func ("/simulate/uneven", test_uneven);
  g_test_add_func ("/simulate/network", test_network);
  g_test_add_func ("/simulate/guided", test_guided);
  g_test_add_func ("/simulate/cached", test_cached);
  g_test_add_func ("/simulate/interval", test_interval);
  return g_test_run ();
}
