/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "traced.h"
#include "engine/dualparal.h"

#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>

#define STAGES 3
#define T 4
#define Q 2
#define ELEMENTS 2
#define FRAMES 41
#define FIRST_TRACK 3           /* of stage 0 */
#define MAX_BLOCKS 16

typedef struct
{
  int passes[STAGES], loads[STAGES], transfers[STAGES];
  gint64 busy[STAGES];          /* us */
  gint64 error[STAGES];         /* of the clock, the largest */
  gint64 start[STAGES][MAX_BLOCKS][T][ELEMENTS], end[STAGES][MAX_BLOCKS][T][ELEMENTS];
} Seen;

static gint64
number (JsonObject *o, const char *name)
{
  g_assert_true (json_object_has_member (o, name));
  return json_object_get_int_member (o, name);
}

static void
see_pass (Seen *seen, int stage, JsonObject *e, JsonObject *args)
{
  gint64 block = number (args, "block"), step = number (args, "step"), element = number (args, "element");

  g_assert_cmpint (block, <, MAX_BLOCKS);
  g_assert_cmpint (step, <, T);
  g_assert_cmpint (element, <, ELEMENTS);
  g_assert_cmpint (seen->end[stage][block][step][element], ==, 0);
  seen->start[stage][block][step][element] = number (e, "ts");
  seen->end[stage][block][step][element] = number (e, "ts") + number (e, "dur");
  seen->busy[stage] += number (e, "dur");
  seen->passes[stage]++;
}

static void
see (Seen *seen, JsonObject *e)
{
  JsonObject *args = json_object_get_object_member (e, "args");
  const char *kind = json_object_has_member (e, "cat") ? json_object_get_string_member (e, "cat") : "";
  int stage = json_object_has_member (e, "tid") ? number (e, "tid") - FIRST_TRACK : -1;

  if (stage < 0)
    return;
  g_assert_cmpint (stage, <, STAGES);
  if (strcmp (kind, "pass") == 0)
    see_pass (seen, stage, e, args);
  else if (strcmp (kind, "load") == 0)
    seen->loads[stage]++;
  else if (strcmp (kind, "transfer") == 0)
    seen->transfers[stage] += json_object_get_string_member (e, "ph")[0] == 'e';
  else if (strcmp (kind, "clock") == 0)
    seen->error[stage] = MAX (seen->error[stage], number (args, "error_us"));
}

static void
read_trace (Seen *seen, const char *path)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) error = NULL;

  json_parser_load_from_file (parser, path, &error);
  g_assert_no_error (error);
  JsonArray *events = json_node_get_array (json_parser_get_root (parser));
  for (guint i = 0; i < json_array_get_length (events); i++)
    see (seen, json_array_get_object_element (events, i));
}

/* Nothing is computed on before it was computed, as far as the clocks can tell. */
static void
check_order (const Seen *seen)
{
  for (int block = 0; block < MAX_BLOCKS; block++)
    for (int step = 0; step < T; step++)
      for (int element = 0; element < ELEMENTS; element++)
        for (int stage = 1; stage < STAGES; stage++) {
          g_assert_cmpint (seen->end[stage][block][step][element] != 0, ==, seen->end[0][block][step][element] != 0);
          g_assert_cmpint (seen->start[stage][block][step][element] + seen->error[stage] + seen->error[stage - 1], >=,
              seen->end[stage - 1][block][step][element]);
        }
}

static void
check_stats (const Seen *seen, const DpStats *stats, double seconds)
{
  double active = seconds / stats->realtime_factor;

  for (int stage = 0; stage < STAGES; stage++) {
    fprintf (stderr, "stage %d: %d passes, busy for %.3f of %.3f s, its clock known to within %.3f ms\n", stage, seen->passes[stage],
        seen->busy[stage] / 1e6, active, seen->error[stage] / 1e3);
    g_assert_cmpint (seen->passes[stage], ==, seen->passes[0]);
    g_assert_cmpint (seen->loads[stage], ==, 1);
    g_assert_cmpint (seen->transfers[stage], ==, seen->passes[0] / (stage == 0 ? ELEMENTS : 1));
    g_assert_cmpfloat_with_epsilon (stats->stage_busy[stage], MIN (1, seen->busy[stage] / 1e6 / active), 1e-9);
    g_assert_cmpint (seen->error[stage] > 0, ==, stage > 0);
  }
  g_assert_cmpuint (stats->passes * ELEMENTS, ==, seen->passes[0]);
}

void
traced (const char *path)
{
  DpSettings settings = { .devices = "cpu", .ranks = "mpi", .num_frames = FRAMES, .width = 64, .height = 48, .steps = T, .queue_blocks = Q,
    .block_latents = 2, .context_latents = 1, .guidance_scale = 3, .seed = 5, .format = DP_FORMAT_I420, .trace = path };
  g_autoptr (GError) error = NULL;
  g_autoptr (DpPlan) plan = dp_plan_new (&settings, &error);
  g_autofree Seen *seen = g_new0 (Seen, 1);
  DpEngine *engine;
  DpStats stats;
  DpFrame f;

  g_assert_no_error (error);
  const DpModelInfo *info = dp_plan_model (plan);
  dp_engine_open (&engine, plan, NULL, NULL, &error);
  g_assert_no_error (error);
  while (dp_engine_pull (engine, &f, -1, &error) == 1)
    dp_engine_release_frame (engine, &f);
  g_assert_no_error (error);
  dp_engine_end_trace (engine, &error);
  g_assert_no_error (error);
  dp_engine_get_stats (engine, &stats);
  read_trace (seen, path);
  check_order (seen);
  check_stats (seen, &stats, FRAMES * (double) info->fps_d / info->fps_n);
  dp_engine_free (engine);
}
