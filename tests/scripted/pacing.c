/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Live video before a sink that keeps time: flushes, ends and stops in every
 * wait, and how even it is when the generation is too slow or just fast enough.
 */
#include "scripted.h"

#include "base_class.h"

#include <string.h>

#define FRAME (GST_SECOND / SCRIPT_FPS)
#define BLOCK SCRIPT_BLOCK
#define FIRST 5
#define LIVE "prebuffer=5 "
/* Frames that are there */
#define MANY 1000

/* What a sink that keeps time sees. Read while the element waits. */
typedef struct
{
  GstElement *pipeline, *src;
  gint sent;                    /* by the source */
  gint frames, gaps;            /* shown, and which of them had GAP */
  guint64 next;                 /* frame that is sent next, or ANY */
  GstClockTime end;             /* of the latest that was sent */
  GstClockTime last_pts, widest_pts;
  GstClockTime last_shown, widest_shown;
} Viewer;

#define ANY G_MAXUINT64

static GstClockTime
now (void)
{
  return gst_clock_get_time (GST_CLOCK (script_clock ()));
}

static void
seen (GstElement * sink, GstBuffer * buffer, GstPad * pad, gpointer user_data)
{
  Viewer *viewer = user_data;

  if (viewer->frames > 0) {
    viewer->widest_shown = MAX (viewer->widest_shown,
        now () - viewer->last_shown);
    viewer->widest_pts = MAX (viewer->widest_pts,
        GST_BUFFER_PTS (buffer) - viewer->last_pts);
  }
  viewer->last_shown = now ();
  viewer->last_pts = GST_BUFFER_PTS (buffer);
  viewer->gaps += GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP);
  viewer->frames++;
}

/* No frame is left out, and none sent twice but as a repeat; one time after the
 * other */
static GstPadProbeReturn
sent (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  Viewer *viewer = user_data;
  GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER (info);

  viewer->sent++;
  if (viewer->next != ANY)
    fail_unless (GST_BUFFER_PTS (buffer) >= viewer->end);
  viewer->end = GST_BUFFER_PTS (buffer) + GST_BUFFER_DURATION (buffer);
  if (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP))
    return GST_PAD_PROBE_OK;
  if (viewer->next != ANY)
    fail_unless_equals_uint64 (GST_BUFFER_OFFSET (buffer), viewer->next);
  viewer->next = GST_BUFFER_OFFSET (buffer) + 1;
  return GST_PAD_PROBE_OK;
}

static void
viewer_init (Viewer * viewer, const gchar * properties, const gchar * caps)
{
  GstElement *sink;
  GstPad *pad;

  memset (viewer, 0, sizeof (*viewer));
  viewer->pipeline = launch ("dualparalsrc name=src is-live=true %s ! %s ! "
      "fakesink name=sink sync=true qos=true max-lateness=5000000 "
      "signal-handoffs=true", properties, caps);
  viewer->src = gst_bin_get_by_name (GST_BIN (viewer->pipeline), "src");
  sink = gst_bin_get_by_name (GST_BIN (viewer->pipeline), "sink");
  g_signal_connect (sink, "handoff", G_CALLBACK (seen), viewer);
  gst_object_unref (sink);
  pad = gst_element_get_static_pad (viewer->src, "src");
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, sent, viewer, NULL);
  gst_object_unref (pad);
  gst_pipeline_use_clock (GST_PIPELINE (viewer->pipeline),
      GST_CLOCK (script_clock ()));
}

static guint64
viewer_dropped (Viewer * viewer)
{
  GstElement *sink = gst_bin_get_by_name (GST_BIN (viewer->pipeline), "sink");
  GstStructure *stats;
  guint64 n;

  g_object_get (sink, "stats", &stats, NULL);
  fail_unless (gst_structure_get_uint64 (stats, "dropped", &n));
  gst_structure_free (stats);
  gst_object_unref (sink);
  return n;
}

/* At once, while the clock stands still: a stop that waited for it would never
 * end */
static void
viewer_clear (Viewer * viewer)
{
  const TestClock start = test_clock ();

  gst_element_set_state (viewer->pipeline, GST_STATE_NULL);
  fail_unless (test_clock_seconds (start) < slowness ());
  gst_object_unref (viewer->src);
  gst_object_unref (viewer->pipeline);
}

static void
expect_even (Viewer * viewer, GstClockTime frame_time)
{
  fail_unless_equals_uint64 (viewer->widest_pts, frame_time);
  fail_unless_equals_uint64 (viewer->widest_shown, frame_time);
  fail_unless_equals_uint64 (viewer_dropped (viewer), 0);
}

/* -- interruptions */

/* Frames that are made meanwhile wait, running time stands still, none is lost */
GST_START_TEST (test_pause)
{
  Viewer viewer;
  GstClockTime before;
  gint frames, i;

  base_class_use_new (__i__);
  script_frames (MANY, 0);
  viewer_init (&viewer, LIVE, SMALL);
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  script_advance (10 * FRAME);
  for (i = 0; i < 3; i++) {
    gst_element_set_state (viewer.pipeline, GST_STATE_PAUSED);
    frames = viewer.frames;
    before = viewer.last_pts;
    gst_test_clock_advance_time (script_clock (), (i + 1) * GST_SECOND + i);
    gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
    fail_unless_equals_int (viewer.frames, frames);
    script_advance (now () + 10 * FRAME);
    fail_unless_equals_int (viewer.frames, frames + 10);
    fail_unless_equals_uint64 (viewer.last_pts, before + 10 * FRAME);
  }
  fail_unless_equals_uint64 (viewer.widest_pts, FRAME);
  fail_unless_equals_uint64 (viewer_dropped (&viewer), 0);
  viewer_clear (&viewer);
}

GST_END_TEST;

/* At any time, and of the source alone, so quickly that it does not notice */
GST_START_TEST (test_pause_storm)
{
  GRand *rand = g_rand_new_with_seed (__i__);
  Viewer viewer;
  gint frames, i;

  base_class_use_new (__i__);
  script_frames (MANY, 0);
  viewer_init (&viewer, LIVE, SMALL);
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  for (i = 0; i < 60; i++) {
    script_advance (now () + g_rand_int_range (rand, 0, 2 * FRAME));
    gst_element_set_state (viewer.pipeline, GST_STATE_PAUSED);
    gst_test_clock_advance_time (script_clock (), g_rand_int_range (rand, 0,
            FRAME));
    gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  }
  fail_unless (viewer.frames > 40, "%d", viewer.frames);

  for (i = 0; i < 2000; i++) {
    gst_element_set_state (viewer.src, GST_STATE_PAUSED);
    gst_element_set_state (viewer.src, GST_STATE_PLAYING);
    if (i % 40 == 0) {
      frames = viewer.frames;
      script_advance (now () + 2 * FRAME);
      fail_unless (viewer.frames > frames);
    }
  }
  fail_unless_equals_uint64 (viewer.widest_pts, FRAME);
  fail_unless_equals_uint64 (viewer_dropped (&viewer), 0);
  viewer_clear (&viewer);
  g_rand_free (rand);
}

GST_END_TEST;

/* After one that sets running time to 0, and one that does not, frames come as
 * before, and not after as long as it ran */
static void
check_flush (gboolean reset_time)
{
  const GstClockTime flushed = now () + 240 * FRAME;
  Viewer viewer;

  viewer_init (&viewer, LIVE, SMALL);
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  script_advance (flushed);
  gst_element_send_event (viewer.src, gst_event_new_flush_start ());
  /* What is under way is lost */
  viewer.next = ANY;
  viewer.frames = viewer.widest_pts = viewer.widest_shown = 0;
  gst_element_send_event (viewer.src, gst_event_new_flush_stop (reset_time));
  fail_unless_equals_int (gst_element_get_state (viewer.pipeline, NULL, NULL,
          30 * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
  script_advance (flushed + 32 * FRAME);
  fail_unless (viewer.frames >= 30, "%d", viewer.frames);
  expect_even (&viewer, FRAME);
  if (reset_time)
    fail_unless (viewer.last_pts <= 32 * FRAME);
  else
    fail_unless (viewer.last_pts > 240 * FRAME);
  viewer_clear (&viewer);
}

GST_START_TEST (test_flush)
{
  script_frames (MANY, 0);
  check_flush (FALSE);
  check_flush (TRUE);
}

GST_END_TEST;

GST_START_TEST (test_eos_in_stall)
{
  Viewer viewer;

  script_frames (FIRST, 0);
  viewer_init (&viewer, LIVE "underrun-policy=stall", SMALL);
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  script_advance (GST_SECOND);
  fail_unless_equals_int (viewer.frames, FIRST);
  gst_element_send_event (viewer.pipeline, gst_event_new_eos ());
  /* The sink waits for the time of the end, which has passed */
  script_step ();
  gst_message_unref (wait_message (viewer.pipeline, GST_MESSAGE_EOS, 5));
  fail_unless_equals_uint64 (now (), GST_SECOND);
  viewer_clear (&viewer);
}

GST_END_TEST;

/* In each of the waits, from PLAYING and from PAUSED */
GST_START_TEST (test_stop_in_wait)
{
  static const struct
  {
    const gchar *properties;
    gint sent;                  /* by then */
  } waits[] = {
    {"prebuffer=6", 0},
    {"prebuffer=6 startup-policy=placeholder", 16},
    {LIVE, 16},
    {LIVE "underrun-policy=stall", FIRST},
    {LIVE "underrun-policy=slow min-framerate=1/100", FIRST},
  };
  Viewer viewer;
  guint i;

  base_class_use_new (__i__);
  script_frames (FIRST, 0);
  for (i = 0; i < 2 * G_N_ELEMENTS (waits); i++) {
    viewer_init (&viewer, waits[i / 2].properties, SMALL);
    gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
    script_advance (now () + GST_SECOND);
    fail_unless_equals_int (viewer.sent, waits[i / 2].sent);
    if (i % 2)
      gst_element_set_state (viewer.pipeline, GST_STATE_PAUSED);
    viewer_clear (&viewer);
  }
}

GST_END_TEST;

/* The new base class may take back an unlock() that was for good, when its
 * unlock_stop() for the last PAUSED comes late */
GST_START_TEST (test_stop_right_after_play)
{
  Viewer viewer;

  if (!base_class_use_new (TRUE)) {
    g_print ("skipped: what is between the base class and its unlock_stop()\n");
    return;
  }
  script_frames (MANY, 0);
  viewer_init (&viewer, LIVE, SMALL);
  base_class_hold ();
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  base_class_wait_held ();
  viewer_clear (&viewer);
  base_class_use_new (FALSE);
}

GST_END_TEST;

/* -- end to end */

/* Where nothing is queued a sink blocks the source for as long as it shows late,
 * and the source does not take that for being late */
GST_START_TEST (test_latency_without_queue)
{
  GstElement *sink;
  Viewer viewer;

  script_frames (MANY, 0);
  viewer_init (&viewer, LIVE, SMALL ",framerate=50/1");
  sink = gst_bin_get_by_name (GST_BIN (viewer.pipeline), "sink");
  g_object_set (sink, "processing-deadline", 200 * GST_MSECOND, NULL);
  gst_object_unref (sink);
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  script_advance (51 * 20 * GST_MSECOND + 200 * GST_MSECOND);
  fail_unless (viewer.frames >= 50);
  expect_even (&viewer, 20 * GST_MSECOND);
  viewer_clear (&viewer);
}

GST_END_TEST;

/* Blocks take exactly `speed` times as long as they play. Returns after `slots`
 * pictures, and in `repeats` which of them had to be sent again. */
static void
view_at (Viewer * viewer, gdouble speed, gint slots, gint * repeats)
{
  const GstClockTime block = FRAME * BLOCK * speed;
  GstClockTime start = 0;
  gint slot, fresh = 0, made = 0, i;

  for (i = 1; i <= slots / BLOCK + 1; i++)
    script_frames (i == 1 ? FIRST : BLOCK, i * block);
  /* It begins with the second block */
  start = 2 * block;
  for (slot = 0; slot < slots; slot++) {
    made = FIRST + BLOCK * ((start + slot * FRAME) / block - 1);
    fresh += fresh < made;
  }
  *repeats = slots - fresh;

  viewer_init (viewer, "", SMALL);
  gst_element_set_state (viewer->pipeline, GST_STATE_PLAYING);
  script_advance (start + (slots - 1) * FRAME + 2 * FRAME - 1);
  fail_unless_equals_int (viewer->frames, slots);
}

GST_START_TEST (test_too_slow)
{
  Viewer viewer;
  gint repeats;

  view_at (&viewer, 1.3, 160, &repeats);
  expect_even (&viewer, FRAME);
  /* 3 of 13, but for what was there at first */
  fail_unless (repeats > 20);
  fail_unless_equals_int (viewer.gaps, repeats);
  viewer_clear (&viewer);
}

GST_END_TEST;

GST_START_TEST (test_fast_enough)
{
  Viewer viewer;
  gint repeats;

  view_at (&viewer, 0.95, 160, &repeats);
  expect_even (&viewer, FRAME);
  fail_unless_equals_int (repeats, 0);
  fail_unless_equals_int (viewer.gaps, 0);
  fail_unless_equals_uint64 (stat_of (viewer.src, "underruns"), 0);
  viewer_clear (&viewer);
}

GST_END_TEST;

static Suite *
pacing_suite (void)
{
  Suite *s = suite_create ("pacing");
  TCase *tc = script_case_new (s);

  tcase_add_loop_test (tc, test_pause, 0, 2);
  tcase_add_loop_test (tc, test_pause_storm, 0, 2);
  tcase_add_test (tc, test_flush);
  tcase_add_loop_test (tc, test_stop_in_wait, 0, 2);
  tcase_add_test (tc, test_stop_right_after_play);
  tcase_add_test (tc, test_eos_in_stall);
  tcase_add_test (tc, test_latency_without_queue);
  tcase_add_test (tc, test_too_slow);
  tcase_add_test (tc, test_fast_enough);
  return s;
}

GST_CHECK_MAIN (pacing);
