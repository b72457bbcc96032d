/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Live video before a sink that keeps time: PAUSED, flushes and ends in every
 * wait, and how even it is when the generation is too slow or just fast enough.
 */
#include "element.h"

#include <gst/base/gstpushsrc.h>
#include <gst/check/gsttestclock.h>
#include <string.h>

#define FRAME (GST_SECOND / 16)
#define FIRST SLOW_FIRST
#define BLOCK SLOW_BLOCK

/* What a sink that keeps time sees */
#define ANY G_MAXUINT64

typedef struct
{
  GstElement *pipeline, *src;
  gint sent;                    /* atomic, by the source */
  gint frames, gaps;            /* atomic, shown, and which of them had GAP */
  guint64 next;                 /* frame that is sent next, or ANY */
  GstClockTime end;             /* of the latest that was sent */
  GstClockTime last_pts, widest_pts;
  GstClockTime last_shown, widest_shown;
} Viewer;

static void
seen (GstElement * sink, GstBuffer * buffer, GstPad * pad, gpointer user_data)
{
  Viewer *viewer = user_data;
  GstClock *clock = gst_element_get_clock (sink);
  const GstClockTime now = gst_clock_get_time (clock);
  const gboolean gap = GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP);

  gst_object_unref (clock);
  if (viewer->frames > 0) {
    viewer->widest_shown = MAX (viewer->widest_shown, now - viewer->last_shown);
    viewer->widest_pts = MAX (viewer->widest_pts,
        GST_BUFFER_PTS (buffer) - viewer->last_pts);
  }
  viewer->last_shown = now;
  viewer->last_pts = GST_BUFFER_PTS (buffer);
  g_atomic_int_add (&viewer->gaps, gap);
  g_atomic_int_inc (&viewer->frames);
}

/* No frame is left out, and none sent twice but as a repeat; one time after the
 * other */
static GstPadProbeReturn
sent (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  Viewer *viewer = user_data;
  GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER (info);

  g_atomic_int_inc (&viewer->sent);
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

/* How many seconds it took to stop */
static gdouble
viewer_clear (Viewer * viewer)
{
  const gint64 start = g_get_monotonic_time ();
  gdouble seconds;

  gst_element_set_state (viewer->pipeline, GST_STATE_NULL);
  seconds = seconds_since (start);
  GST_INFO ("stopped in %g s", seconds);
  gst_object_unref (viewer->src);
  gst_object_unref (viewer->pipeline);
  return seconds;
}

static void
wait_frames (Viewer * viewer, gint frames, gdouble seconds)
{
  const gint64 start = g_get_monotonic_time ();

  while (g_atomic_int_get (&viewer->frames) < frames) {
    fail_unless (seconds_since (start) < seconds * slowness (),
        "%d of %d frames", g_atomic_int_get (&viewer->frames), frames);
    g_usleep (2000);
  }
}

/* -- the base class of GStreamer 1.24 and later */

static GstStateChangeReturn (*old_change_state) (GstElement * element,
    GstStateChange transition);
static GstFlowReturn (*old_create) (GstPushSrc * src, GstBuffer ** buffer);
static gint unlock_stop_pending;        /* atomic */
static gint hold;               /* atomic; 1: the next unlock_stop(), 2: it waits */

/* What it added to gst_base_src_set_playing() */
static GstStateChangeReturn
new_change_state (GstElement * element, GstStateChange transition)
{
  GstBaseSrc *src = GST_BASE_SRC (element);

  if (transition == GST_STATE_CHANGE_PLAYING_TO_PAUSED) {
    g_mutex_lock (&src->live_lock);
    GST_BASE_SRC_GET_CLASS (src)->unlock (src);
    src->live_running = FALSE;
    g_mutex_unlock (&src->live_lock);
  } else if (transition == GST_STATE_CHANGE_PAUSED_TO_PLAYING) {
    g_atomic_int_set (&unlock_stop_pending, TRUE);
  }
  return old_change_state (element, transition);
}

/* And to gst_base_src_get_range() */
static GstFlowReturn
new_create (GstPushSrc * push, GstBuffer ** buffer)
{
  GstBaseSrc *src = GST_BASE_SRC (push);
  GstFlowReturn flow;
  gboolean running;

  for (;;) {
    if (g_atomic_int_compare_and_exchange (&unlock_stop_pending, TRUE, FALSE)) {
      if (g_atomic_int_compare_and_exchange (&hold, 1, 2)) {
        while (!GST_PAD_IS_FLUSHING (src->srcpad))
          g_usleep (1000);
        g_usleep (20000);
      }
      GST_BASE_SRC_GET_CLASS (src)->unlock_stop (src);
    }
    flow = old_create (push, buffer);
    g_mutex_lock (&src->live_lock);
    running = src->live_running;
    g_mutex_unlock (&src->live_lock);
    if (running)
      return flow;
    if (flow == GST_FLOW_OK)
      gst_clear_buffer (buffer);
    flow = gst_base_src_wait_playing (src);
    if (flow != GST_FLOW_OK)
      return flow;
  }
}

/* Puts that between the element and an older base class, or takes it out again;
 * FALSE where it is there by itself */
static gboolean
use_new_base_class (gboolean use)
{
  GstElement *src = source_new ("");
  GstPushSrcClass *klass = GST_PUSH_SRC_GET_CLASS (src);
  GstElementClass *parent = g_type_class_peek_parent (klass);
  guint major, minor, micro, nano;

  gst_object_unref (src);
  gst_version (&major, &minor, &micro, &nano);
  if (minor >= 24)
    return FALSE;
  if (use && klass->create != new_create) {
    old_change_state = parent->change_state;
    parent->change_state = new_change_state;
    old_create = klass->create;
    klass->create = new_create;
  } else if (!use && klass->create == new_create) {
    parent->change_state = old_change_state;
    klass->create = old_create;
  }
  return TRUE;
}

/* -- interruptions */

/* Frames that are made meanwhile wait, running time stands still, none is lost.
 * A queue, so that the sink does not hold the source back. */
GST_START_TEST (test_pause)
{
  Viewer viewer;
  GstClockTime before;
  gint i, frames;

  use_new_base_class (__i__);
  viewer_init (&viewer, FAST, SMALL ",framerate=60/1 ! queue");
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  wait_frames (&viewer, 10, 20);
  gst_element_set_state (viewer.pipeline, GST_STATE_PAUSED);
  g_usleep (20000);
  frames = viewer.frames;
  before = viewer.last_pts;
  g_usleep (1000000);
  fail_unless (viewer.frames <= frames + 1);
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  wait_frames (&viewer, frames + 10, 5);
  fail_unless (viewer.last_pts - before < 600 * GST_MSECOND);

  for (i = 0; i < 60; i++) {
    gst_element_set_state (viewer.pipeline, GST_STATE_PAUSED);
    g_usleep (g_random_int_range (0, 20) * 1000);
    gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
    g_usleep (g_random_int_range (0, 40) * 1000);
  }
  wait_frames (&viewer, viewer.frames + 10, 5);

  /* Of the source alone, so quickly that it does not notice */
  for (i = 0; i < 2000; i++) {
    gst_element_set_state (viewer.src, GST_STATE_PAUSED);
    gst_element_set_state (viewer.src, GST_STATE_PLAYING);
    if (i % 40 == 0)
      wait_frames (&viewer, viewer.frames + 2, 5);
  }
  viewer_clear (&viewer);
}

GST_END_TEST;

static void
check_flush (gboolean reset_time)
{
  Viewer viewer;

  viewer_init (&viewer, FAST, SMALL ",framerate=60/1");
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  wait_frames (&viewer, 240, 30);
  gst_element_send_event (viewer.src, gst_event_new_flush_start ());
  /* What is under way is lost */
  viewer.next = ANY;
  gst_element_send_event (viewer.src, gst_event_new_flush_stop (reset_time));
  /* Not after as long as it ran */
  wait_frames (&viewer, viewer.frames + 30, 3);
  if (reset_time)
    fail_unless (viewer.last_pts < 3500 * GST_MSECOND);
  else
    fail_unless (viewer.last_pts > 3900 * GST_MSECOND);
  viewer_clear (&viewer);
}

GST_START_TEST (test_flush)
{
  check_flush (FALSE);
  check_flush (TRUE);
}

GST_END_TEST;

GST_START_TEST (test_eos_in_stall)
{
  Viewer viewer;
  gint64 start;

  viewer_init (&viewer, SLOW_BLOCKS "underrun-policy=stall",
      SMALL ",framerate=240/1");
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  wait_frames (&viewer, FIRST, 20);
  g_usleep (50000);
  start = g_get_monotonic_time ();
  gst_element_send_event (viewer.pipeline, gst_event_new_eos ());
  gst_message_unref (wait_message (viewer.pipeline, GST_MESSAGE_EOS, 5));
  fail_unless (seconds_since (start) < slowness ());
  viewer_clear (&viewer);
}

GST_END_TEST;

static gdouble
stop_in_wait (const gchar * properties, const gchar * caps, gint frames,
    gboolean in_pause)
{
  Viewer viewer;

  viewer_init (&viewer, properties, caps);
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  while (g_atomic_int_get (&viewer.sent) < frames)
    g_usleep (1000);
  g_usleep (50000);
  if (in_pause) {
    gst_element_set_state (viewer.pipeline, GST_STATE_PAUSED);
    g_usleep (50000);
  }
  return viewer_clear (&viewer);
}

/* In each of the waits, from PLAYING and from PAUSED. Once more where the machine
 * had something else to do. */
GST_START_TEST (test_stop_in_wait)
{
  static const struct
  {
    const gchar *properties, *caps;
    gint frames;
  } waits[] = {
    {SLOW_BLOCKS "prebuffer=100", SMALL, 0},
    {SLOW_BLOCKS "prebuffer=100 startup-policy=placeholder",
        SMALL ",framerate=1/10", 1},
    {FAST, SMALL ",framerate=1/10", 1},
    {SLOW_BLOCKS "underrun-policy=stall", SMALL ",framerate=240/1", FIRST},
    {SLOW_BLOCKS "underrun-policy=slow min-framerate=1/100",
        SMALL ",framerate=240/1", FIRST},
  };
  gdouble best;
  guint i, n;

  use_new_base_class (__i__);
  for (i = 0; i < 2 * G_N_ELEMENTS (waits); i++) {
    for (n = 0, best = G_MAXDOUBLE; n < 4 && best > 0.3; n++)
      best = MIN (best, stop_in_wait (waits[i / 2].properties,
              waits[i / 2].caps, waits[i / 2].frames, i % 2));
    fail_unless (best < 0.3 * slowness (), "took %g s", best);
  }
}

GST_END_TEST;

/* The new base class may take back an unlock() that was for good, when its
 * unlock_stop() for the last PAUSED comes late */
GST_START_TEST (test_stop_right_after_play)
{
  Viewer viewer;

  if (!use_new_base_class (TRUE)) {
    g_print ("skipped: what is between the base class and its unlock_stop()\n");
    return;
  }
  viewer_init (&viewer, FAST, SMALL);
  g_atomic_int_set (&hold, 1);
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  while (g_atomic_int_get (&hold) != 2)
    g_usleep (1000);
  fail_unless (viewer_clear (&viewer) < slowness ());
  use_new_base_class (FALSE);
}

GST_END_TEST;

/* -- end to end */

/* Where nothing is queued a sink blocks the source for as long as it shows late,
 * and the source does not take that for being late */
GST_START_TEST (test_latency_without_queue)
{
  GstTestClock *clock = GST_TEST_CLOCK (gst_test_clock_new ());
  GstElement *sink;
  Viewer viewer;

  viewer_init (&viewer, FAST "max-queue-frames=60 prebuffer=60",
      SMALL ",framerate=50/1");
  sink = gst_bin_get_by_name (GST_BIN (viewer.pipeline), "sink");
  g_object_set (sink, "processing-deadline", 200 * GST_MSECOND, NULL);
  gst_object_unref (sink);
  gst_pipeline_use_clock (GST_PIPELINE (viewer.pipeline), GST_CLOCK (clock));
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  while (g_atomic_int_get (&viewer.frames) < 50) {
    gst_test_clock_wait_for_next_pending_id (clock, NULL);
    fail_unless (gst_test_clock_crank (clock));
  }
  fail_unless_equals_uint64 (viewer.widest_pts, 20 * GST_MSECOND);
  fail_unless_equals_uint64 (viewer.widest_shown, 20 * GST_MSECOND);
  viewer_clear (&viewer);
  gst_object_unref (clock);
}

GST_END_TEST;

#define RATE_STEPS 500
/* Enough of it that at most 1000 steps are too slow anywhere */
#define WORK "video/x-raw, width=128, height=80"
#define RATED "guidance-scale=1 block-latents=2 context-latents=-1 " \
    "queue-blocks=1 threads=1 "

/* There is one thread, of source and sink, and once frames flow it always waits
 * for the clock again. Each wait ends at its own time. */
static void
advance (Viewer * viewer, GstTestClock * clock, GstClockTime to)
{
  GstClockTime next;
  GstClockID id;

  while (g_atomic_int_get (&viewer->sent) > 0) {
    gst_test_clock_wait_for_next_pending_id (clock, &id);
    next = gst_clock_id_get_time (id);
    gst_clock_id_unref (id);
    if (next > to)
      break;
    if (next > gst_clock_get_time (GST_CLOCK (clock)))
      gst_test_clock_set_time (clock, next);
    id = gst_test_clock_process_next_clock_id (clock);
    gst_clock_id_unref (id);
  }
  if (to > gst_clock_get_time (GST_CLOCK (clock)))
    gst_test_clock_set_time (clock, to);
}

/* The generation moves the clock: a pass takes exactly `speed` times as long as
 * it may. While the queue is full it waits, and time goes on by itself. */
static void
view_at (Viewer * viewer, gdouble speed, gint frames)
{
  GstTestClock *clock = GST_TEST_CLOCK (gst_test_clock_new ());
  const GstClockTime pass = FRAME * BLOCK * speed / RATE_STEPS;
  const gint64 start = g_get_monotonic_time ();
  GstClockTime idle = 0;
  guint64 passes = 0;

  viewer_init (viewer, RATED "steps=500", SMALL);
  gst_pipeline_use_clock (GST_PIPELINE (viewer->pipeline), GST_CLOCK (clock));
  gst_element_set_state (viewer->pipeline, GST_STATE_PLAYING);
  while (g_atomic_int_get (&viewer->frames) < frames) {
    const guint64 now = stat_of (viewer->src, "passes");

    fail_unless (seconds_since (start) < 50 * slowness (), "%d frames",
        viewer->frames);
    if (now == passes && stat_of (viewer->src, "queue-frames") > 2 * BLOCK)
      idle += FRAME / 10;
    passes = now;
    advance (viewer, clock, passes * pass + idle);
    g_usleep (1000);
  }
  gst_object_unref (clock);
}

GST_START_TEST (test_too_slow)
{
  Viewer viewer;
  gint repeated;

  view_at (&viewer, 1.3, 160);
  repeated = stat_of (viewer.src, "repeated");
  GST_INFO ("%d frames, %d repeated, widest gap %" GST_TIME_FORMAT " shown %"
      GST_TIME_FORMAT, viewer.frames, viewer.gaps,
      GST_TIME_ARGS (viewer.widest_pts), GST_TIME_ARGS (viewer.widest_shown));
  fail_unless_equals_uint64 (viewer.widest_pts, FRAME);
  fail_unless (viewer.widest_shown <= FRAME * 3 / 2);
  fail_unless_equals_uint64 (viewer_dropped (&viewer), 0);
  /* 3 of 13, but for 13 frames that were there at first; as blocks come */
  fail_unless (viewer.gaps >= 16 && viewer.gaps <= 36, "%d", viewer.gaps);
  fail_unless (repeated >= viewer.gaps && repeated <= viewer.gaps + 2);
  viewer_clear (&viewer);
}

GST_END_TEST;

GST_START_TEST (test_fast_enough)
{
  Viewer viewer;

  view_at (&viewer, 0.95, 160);
  fail_unless_equals_uint64 (viewer.widest_pts, FRAME);
  fail_unless (viewer.widest_shown <= FRAME * 3 / 2);
  fail_unless_equals_uint64 (viewer_dropped (&viewer), 0);
  fail_unless_equals_int (viewer.gaps, 0);
  fail_unless_equals_uint64 (stat_of (viewer.src, "underruns"), 0);
  viewer_clear (&viewer);
}

GST_END_TEST;

/* The same by the clock on the wall. Where other work keeps even a thread that
 * only sleeps from waking in time, nothing can be said about evenness. */
GST_START_TEST (test_too_slow_in_real_time)
{
  GstHarness *h = source_harness (RATED "steps=500", WORK);
  GstClockTime uneven = 0, slept;
  GstStructure *stats;
  gchar *properties;
  gdouble factor, rate;
  Viewer viewer;
  gint64 start;
  gint steps;
  guint i;

  gst_harness_play (h);
  for (i = 0; i < 4 * BLOCK; i++)
    gst_buffer_unref (gst_harness_pull (h));
  g_object_get (h->element, "stats", &stats, NULL);
  fail_unless (gst_structure_get_double (stats, "realtime-factor", &factor));
  gst_structure_free (stats);
  gst_harness_teardown (h);

  /* 1.3 times as slow as it plays; and the start of a video, which was measured, is
   * slower than the rest */
  steps = CLAMP (1.55 * factor * RATE_STEPS, 1, 1000);
  properties = g_strdup_printf (RATED "steps=%d", steps);
  viewer_init (&viewer, properties, WORK);
  g_free (properties);
  gst_element_set_state (viewer.pipeline, GST_STATE_PLAYING);
  while (g_atomic_int_get (&viewer.frames) < 112) {
    start = g_get_monotonic_time ();
    g_usleep (5000);
    slept = (g_get_monotonic_time () - start) * GST_USECOND;
    uneven = MAX (uneven, slept - 5 * GST_MSECOND);
  }
  rate = stat_double (viewer.src, "realtime-factor");
  GST_INFO ("%d steps, %g of real time", steps, rate);
  GST_INFO ("%d frames, %d repeated, widest gap %" GST_TIME_FORMAT " shown %"
      GST_TIME_FORMAT ", this thread slept %" GST_TIME_FORMAT " too long",
      viewer.frames, viewer.gaps, GST_TIME_ARGS (viewer.widest_pts),
      GST_TIME_ARGS (viewer.widest_shown), GST_TIME_ARGS (uneven));
  if (uneven < 5 * GST_MSECOND) {
    fail_unless (viewer.widest_pts <= FRAME * 3 / 2);
    fail_unless (viewer.widest_shown <= FRAME * 3 / 2);
    fail_unless_equals_uint64 (viewer_dropped (&viewer), 0);
  }
  fail_unless ((gint) stat_of (viewer.src, "repeated") >= viewer.gaps);
  /* Its rate is what the machine gave it: 0.77 if nothing else ran */
  if (rate < 0.85)
    fail_unless (viewer.gaps > 0);
  viewer_clear (&viewer);
}

GST_END_TEST;

static Suite *
pacing_suite (void)
{
  Suite *s = suite_create ("pacing");
  TCase *tc = test_case_new (s);

  tcase_add_loop_test (tc, test_pause, 0, 2);
  tcase_add_test (tc, test_flush);
  tcase_add_loop_test (tc, test_stop_in_wait, 0, 2);
  tcase_add_test (tc, test_stop_right_after_play);
  tcase_add_test (tc, test_eos_in_stall);
  tcase_add_test (tc, test_latency_without_queue);
  tcase_add_test (tc, test_too_slow);
  tcase_add_test (tc, test_fast_enough);
  tcase_add_test (tc, test_too_slow_in_real_time);
  return s;
}

GST_CHECK_MAIN (pacing);
