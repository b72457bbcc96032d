/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_trace.c: what the engine says of itself. The trace of a whole video is held against the scheme, event by event, and the statistics
 * against the trace.
 */
#include "stream.h"
#include "dualparal_testing.h"
#include "block_queue.h"
#include "plan.h"

#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

#define STAGES 3
#define T 4                     /* steps */
#define Q 2                     /* so that blocks stand LAG steps apart */
#define LAG 2
#define ELEMENTS 2              /* of guidance */
#define TRANSFERS (T * ((STAGES - 1) * ELEMENTS + 1))   /* of a block: only the last element comes back */
#define FRAMES 77
#define MAX_BLOCKS 16

typedef struct
{
  const char *kind;             /* "cat" */
  int track;
  gint64 start, end;            /* us */
  JsonObject *args;
} Span;

typedef struct
{
  JsonParser *parser;
  JsonArray *events;
  GArray *spans;                /* of Span, all tracks, in the order of their starts */
} Trace;

static char *path;

static gint64
number (JsonObject *o, const char *name)
{
  g_assert_true (json_object_has_member (o, name));
  return json_object_get_int_member (o, name);
}

static int
compare_spans (gconstpointer a, gconstpointer b)
{
  const Span *x = a, *y = b;

  if (x->start != y->start)
    return x->start < y->start ? -1 : 1;
  return x->end > y->end ? -1 : x->end < y->end;
}

static void
read_trace (Trace *t)
{
  g_autoptr (GError) error = NULL;

  t->parser = json_parser_new ();
  json_parser_load_from_file (t->parser, path, &error);
  g_assert_no_error (error);
  t->events = json_node_get_array (json_parser_get_root (t->parser));
  t->spans = g_array_new (FALSE, FALSE, sizeof (Span));
  for (guint i = 0; i < json_array_get_length (t->events); i++) {
    JsonObject *e = json_array_get_object_element (t->events, i);

    if (g_str_equal (json_object_get_string_member (e, "ph"), "X")) {
      Span s = { json_object_get_string_member (e, "cat"), number (e, "tid"), number (e, "ts"), number (e, "ts") + number (e, "dur"),
        json_object_get_object_member (e, "args") };
      g_assert_cmpint (s.start, >=, 0);
      g_assert_cmpint (s.end, >=, s.start);
      g_array_append_val (t->spans, s);
    }
  }
  g_array_sort (t->spans, compare_spans);
}

static void
free_trace (Trace *t)
{
  g_array_unref (t->spans);
  g_object_unref (t->parser);
}

/* Microseconds by which two clocks may differ: a GPU's marks are within a tenth of a millisecond of the host's time. */
static gint64
clock_slack (void)
{
  return g_str_has_prefix (stream_device (), "cuda") ? 200 : 0;
}

/* A track of stages or the text encoder has one span at a time; the decoder's may lie inside that of their block. */
static void
check_order (const Trace *t)
{
  gint64 end[8] = { 0 }, outer[8] = { 0 };

  for (guint i = 0; i < t->spans->len; i++) {
    const Span *s = &g_array_index (t->spans, Span, i);

    g_assert_cmpint (s->track, <, 3 + STAGES);
    if (s->track == 2 && s->start < outer[2]) {
      g_assert_cmpint (s->end, <=, outer[2]);
      g_assert_cmpstr (s->kind, !=, "decode");
    } else
      outer[s->track] = s->end;
    if (g_str_equal (s->kind, "decode"))
      continue;
    g_assert_cmpint (s->start, >=, end[s->track] - clock_slack ());
    end[s->track] = s->end;
  }
}

/* Every block takes each step once, with both elements of guidance, on each stage, one stage after the other, and in the iteration that the
 * scheme has for it. Returns how many blocks there are, and when each was through. */
static int
check_passes (const Trace *t, const DpPlan *plan, gint64 *finished, gint64 *busy)
{
  int seen[MAX_BLOCKS][STAGES] = { 0 }, blocks = 0, passes = 0;
  gint64 last[MAX_BLOCKS][ELEMENTS] = { 0 };

  for (int stage = 0; stage < STAGES; stage++)
    busy[stage] = 0;
  for (guint i = 0; i < t->spans->len; i++) {
    const Span *s = &g_array_index (t->spans, Span, i);
    int stage = s->track - 3;

    if (!g_str_equal (s->kind, "pass"))
      continue;
    gint64 block = number (s->args, "block"), step = number (s->args, "step"), element = number (s->args, "element");
    g_assert (stage >= 0 && stage < STAGES);
    g_assert_cmpint (block, <, MAX_BLOCKS);
    g_assert_cmpint (step * ELEMENTS + element, ==, seen[block][stage]++);
    if (stage > 0)
      g_assert_cmpint (seen[block][stage], <=, seen[block][stage - 1]);
    else if (element == 0) {    /* the step before came back */
      g_assert_cmpint (seen[block][STAGES - 1], ==, step * ELEMENTS);
      g_assert_cmpint (s->start, >=, last[block][ELEMENTS - 1] - clock_slack ());
    }
    g_assert_cmpint (s->start, >=, last[block][element] - clock_slack ());
    last[block][element] = s->end;
    g_assert_cmpint (number (s->args, "iteration"), ==, block * LAG + step);
    const DpHalves *h = &plan->stages[stage].halves[element];
    g_assert_cmpfloat (json_object_get_double_member (s->args, "first_layer"), ==, h->first / 2.0);
    g_assert_cmpfloat (json_object_get_double_member (s->args, "layers"), ==, (h->last - h->first) / 2.0);
    busy[stage] += s->end - s->start;
    blocks = MAX (blocks, block + 1);
    finished[block] = s->end;
    passes++;
  }
  for (int b = 0; b < blocks; b++)
    for (int stage = 0; stage < STAGES; stage++)
      g_assert_cmpint (seen[b][stage], ==, T * ELEMENTS);
  g_assert_cmpint (passes, ==, blocks * STAGES * T * ELEMENTS);
  return blocks;
}

static void
check_decoder (const Trace *t, int blocks, gint64 latents, const gint64 *finished, gint64 *decoding)
{
  gint64 block = 0, decoded = 0, sum = 0;

  *decoding = 0;
  for (guint i = 0; i < t->spans->len; i++) {
    const Span *s = &g_array_index (t->spans, Span, i);

    if (g_str_equal (s->kind, "latent")) {
      g_assert_cmpint (s->track, ==, 2);
      g_assert_cmpint (number (s->args, "block"), ==, block - 1);
      *decoding += s->end - s->start;
      decoded += number (s->args, "latents");       /* a GPU decodes two at a time */
    } else if (g_str_equal (s->kind, "decode")) {
      g_assert_cmpint (number (s->args, "block"), ==, block);
      g_assert_cmpint (s->start, >=, finished[block]);
      sum += number (s->args, "latents");
      block++;
    }
  }
  g_assert_cmpint (block, ==, blocks);
  g_assert_cmpint (sum, ==, latents);
  g_assert_cmpint (decoded, ==, latents);
}

/* Counters, instants, and blocks on their way. */
static void
check_others (const Trace *t, int blocks, int max_queue_frames)
{
  gint64 frame = 0, level = -1, sent[TRANSFERS * MAX_BLOCKS], transfers = 0, arrived = 0;
  int names = 0, encoded = 0;

  for (guint i = 0; i < json_array_get_length (t->events); i++) {
    JsonObject *e = json_array_get_object_element (t->events, i), *args = json_object_get_object_member (e, "args");
    const char *name = json_object_get_string_member (e, "name"), ph = json_object_get_string_member (e, "ph")[0];

    names += g_str_equal (name, "thread_name");
    encoded += g_str_equal (name, "encode");
    if (g_str_equal (name, "queue")) {
      level = number (args, "queue");
      g_assert_cmpint (level, >=, 0);
      g_assert_cmpint (level, <=, max_queue_frames);
    } else if (g_str_equal (name, "frame")) {
      g_assert_cmpint (ph, ==, 'i');
      g_assert_cmpint (number (args, "frame"), ==, frame++);
    } else if (ph == 'b') {
      gint64 id = number (e, "id");
      g_assert_cmpint (id, <, TRANSFERS * blocks);
      sent[id] = number (e, "ts");
      transfers++;
    } else if (ph == 'e') {
      g_assert_cmpint (number (e, "ts"), >=, sent[number (e, "id")]);
      arrived++;
    }
  }
  g_assert_cmpint (names, ==, 3 + STAGES);
  g_assert_cmpint (encoded, ==, 1);
  g_assert_cmpint (frame, ==, FRAMES);
  g_assert_cmpint (level, ==, 0);
  g_assert_cmpint (transfers, ==, TRANSFERS * blocks);
  g_assert_cmpint (arrived, ==, transfers);
}

static void
test_whole (void)
{
  DpSettings s = stream_small ();
  DpStats stats;
  DpFrame frame;
  Trace t;
  gint64 next = 0, finished[MAX_BLOCKS] = { 0 }, busy[STAGES], decoding;

  s.devices = stream_devices (STAGES);
  s.guidance_scale = 3;
  s.threads = 3;
  s.steps = T;
  s.queue_blocks = Q;
  s.block_latents = 2;
  s.context_latents = 1;
  s.num_frames = FRAMES;
  s.max_queue_frames = 8;
  s.trace = path;
  DpEngine *engine = stream_open (&s);
  g_autoptr (DpPlan) plan = stream_plan (&s);
  const DpModelInfo info = *dp_plan_model (plan);
  while (stream_pull (engine, &frame, &next))
    dp_engine_release_frame (engine, &frame);
  g_assert_cmpint (next, ==, FRAMES);
  dp_engine_get_stats (engine, &stats);
  dp_engine_free (engine);

  read_trace (&t);
  check_order (&t);
  int blocks = check_passes (&t, plan, finished, busy);
  gint64 latents = 1 + (FRAMES - 1) / info.temporal_scale;
  g_assert_cmpint (blocks, ==, dp_blocks_of (latents, s.block_latents, s.context_latents));
  check_decoder (&t, blocks, latents, finished, &decoding);
  check_others (&t, blocks, s.max_queue_frames);

  /* the statistics say the same */
  double active = FRAMES * (double) info.fps_d / info.fps_n / stats.realtime_factor;
  for (int i = 0; i < STAGES; i++) {
    g_test_message ("stage %d: busy for %.3f of %.3f s", i, busy[i] / 1e6, active);
    /* the last messages that a GPU computed may not be counted yet */
    double late = clock_slack () > 0 ? 2.0 * busy[i] / (blocks * T * ELEMENTS) / 1e6 / active : 0;
    g_assert_cmpfloat (stats.stage_busy[i], <=, MIN (1, busy[i] / 1e6 / active) + 1e-9);
    g_assert_cmpfloat (stats.stage_busy[i], >=, MIN (1, busy[i] / 1e6 / active) - late - 1e-9);
    g_assert_cmpuint (stats.stage_bytes[i], >, 0);
  }
  g_assert_cmpfloat (stats.decode_busy, >, decoding / 1e6 / active);    /* frames are packed besides */
  g_assert_cmpfloat (stats.decode_busy, <=, 1);
  g_assert_cmpuint (stats.device_bytes, ==, stats.stage_bytes[0] + stats.stage_bytes[1] + stats.stage_bytes[2] + stats.decoder_bytes
      + stats.text_bytes);
  g_assert_cmpuint (stats.decoder_bytes, >, 0);
  g_assert_cmpuint (stats.text_bytes, >, 0);
  free_trace (&t);
}

/* Frames that are not taken hold everything up, and are no reason to call the generation slow. */
static void
test_slow_consumer (void)
{
  DpSettings s = stream_small ();
  DpStats fast, slow;
  DpFrame frame;
  gint64 next = 0;

  g_autoptr (DpEngine) engine = stream_open (&s);
  stream_pull_until_block (engine, 6, &next, &frame);
  dp_engine_get_stats (engine, &fast);
  g_assert_cmpfloat (fast.realtime_factor, >, 0);
  g_assert_cmpfloat (fast.block_load_mean, >, 0);
  g_assert_cmpfloat (fast.block_load_mean, <=, fast.block_load_p95);
  g_assert_cmpfloat (fast.block_interval_p50, <=, fast.block_interval_p95);

  /* A block in twenty times the time that it takes; on a busy machine that may be several times as long now. No less than the second that it
   * plays: beside a GPU's milliseconds the first block, with all that is done once, would count. */
  gint64 nap = (gint64) MAX (20e6 * fast.block_interval_p50 / 16, 1e6 / 16);
  next = 0;
  s.max_queue_frames = 4;
  g_autoptr (DpEngine) other = stream_open (&s);
  while (stream_pull (other, &frame, &next)) {
    gboolean enough = frame.block == 4;

    dp_engine_release_frame (other, &frame);
    if (enough)
      break;
    g_usleep (nap);
  }
  dp_engine_get_stats (other, &slow);
  g_test_message ("taken at once: %.2f of real time, a load of %.2f, blocks every %.3f s; slowly: %.2f, %.2f, %.3f s", fast.realtime_factor,
      fast.block_load_mean, fast.block_interval_p50, slow.realtime_factor, slow.block_load_mean, slow.block_interval_p50);
  g_assert_cmpfloat (slow.block_interval_p50, >=, 16 * nap / 1e6 * 0.9);
  g_assert_cmpfloat (slow.block_load_mean, <, slow.block_interval_p50 / 2);     /* a block plays for a second */

  /* and while nobody takes any it stands still */
  DpStats later;
  int looks = 0;
  do {
    dp_engine_get_stats (other, &slow);
    g_usleep (G_USEC_PER_SEC);
    dp_engine_get_stats (other, &later);
  } while (later.realtime_factor != slow.realtime_factor && fabs (later.realtime_factor / slow.realtime_factor - 1) > 1e-3
      && ++looks < 100);
  g_assert_cmpint (looks, <, 100);
}

#define NAP 0.4

static void
nap (const float *latents, int n, int h, int w, int channels, gpointer data)
{
  g_usleep ((gulong) (NAP * G_USEC_PER_SEC));
}

/* A decoder that is slow is the engine's own fault, however fast the stages are. */
static void
test_slow_decoder (void)
{
  DpSettings s = stream_small ();
  DpStats stats;
  DpFrame frame;
  gint64 next = 0;

  s.num_frames = 161;
  g_autoptr (DpEngine) engine = stream_open (&s);
  dp_engine_set_latents_callback (engine, nap, NULL);
  while (stream_pull (engine, &frame, &next))
    dp_engine_release_frame (engine, &frame);
  dp_engine_get_stats (engine, &stats);
  g_test_message ("%.2f of real time, a load of %.2f, at most %.2f", stats.realtime_factor, stats.block_load_mean, stats.block_load_p95);
  g_assert_cmpuint (stats.blocks, >=, 9);
  g_assert_cmpfloat (stats.realtime_factor, <=, 161 / 16.0 / (stats.blocks * NAP));
  g_assert_cmpfloat (stats.block_interval_p50, >=, NAP);
  g_assert_cmpfloat (stats.block_load_p95, >=, NAP);
  g_assert_cmpfloat (stats.block_load_mean, >=, NAP / 2);       /* two blocks may wait, so the first ones were finished sooner */
}

static void
check_refused (const char *file, const char *needle)
{
  g_autoptr (GError) error = NULL;
  DpSettings s = stream_small ();
  DpEngine *engine = NULL;

  s.trace = file;
  g_assert_false (stream_try_open (&engine, &s, NULL, NULL, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_SETTINGS);
  g_test_message ("%s", error->message);
  g_assert_nonnull (strstr (error->message, needle));
  g_assert_null (engine);
}

/* Each engine has its own file. */
static void
test_refused (void)
{
  g_autofree char *second = g_strconcat (path, "-2", NULL);
  DpSettings s = stream_small ();

  check_refused ("/no/such/directory/trace.json", "/no/such/directory/trace.json cannot be written: No such file");
  s.trace = path;
  DpEngine *engine = stream_open (&s);
  check_refused (path, "another trace");
  s.trace = second;
  DpEngine *other = stream_open (&s);
  dp_engine_free (other);
  dp_engine_free (engine);
  dp_engine_free (stream_open (&s));    /* free again */
  g_unlink (second);
}

int
main (int argc, char **argv)
{
  int result;

  stream_init (&argc, &argv);
  path = g_build_filename (g_get_tmp_dir (), "dp-stream-trace-XXXXXX", NULL);
  g_close (g_mkstemp (path), NULL);
  g_test_add_func ("/trace/whole", test_whole);
  g_test_add_func ("/trace/slow-consumer", test_slow_consumer);
  g_test_add_func ("/trace/slow-decoder", test_slow_decoder);
  g_test_add_func ("/trace/refused", test_refused);
  result = g_test_run ();
  g_unlink (path);
  g_free (path);
  return result;
}
