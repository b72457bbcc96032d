/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * When the generation is slower than the playback: a sink that keeps time gets
 * its pauses and every frame in time, one that does not is left alone.
 */
#include "scripted.h"

#define FRAME (GST_SECOND / SCRIPT_FPS)
#define BLOCK SCRIPT_BLOCK
/* Frames that a video begins with, and how long before its time one has to be
 * there */
#define START 9
#define MARGIN (FRAME / 2)

typedef struct
{
  GstElement *pipeline, *src;
  GstBus *bus;
  gint frames;                  /* shown; read while the element waits */
  GstClockTime late;            /* the latest of them */
} Player;

static GstClockTime
now (void)
{
  return gst_clock_get_time (GST_CLOCK (script_clock ()));
}

static void
shown (GstElement * sink, GstBuffer * buffer, GstPad * pad, gpointer user_data)
{
  Player *player = user_data;
  const GstClockTime running = gst_element_get_current_running_time (sink);

  if (running > GST_BUFFER_PTS (buffer))
    player->late = MAX (player->late, running - GST_BUFFER_PTS (buffer));
  player->frames++;
}

static void
player_init (Player * player, const gchar * properties, const gchar * sink)
{
  GstElement *element;

  player->pipeline = launch ("dualparalsrc name=src %s ! " SMALL " ! fakesink "
      "name=sink signal-handoffs=true %s", properties, sink);
  player->src = gst_bin_get_by_name (GST_BIN (player->pipeline), "src");
  player->bus = gst_element_get_bus (player->pipeline);
  player->frames = player->late = 0;
  element = gst_bin_get_by_name (GST_BIN (player->pipeline), "sink");
  g_signal_connect (element, "handoff", G_CALLBACK (shown), player);
  gst_object_unref (element);
  gst_pipeline_use_clock (GST_PIPELINE (player->pipeline),
      GST_CLOCK (script_clock ()));
}

/* Where the first frames are there; returns when it plays */
static void
play (Player * player)
{
  gst_element_set_state (player->pipeline, GST_STATE_PLAYING);
  fail_unless_equals_int (gst_element_get_state (player->pipeline, NULL, NULL,
          30 * GST_SECOND), GST_STATE_CHANGE_SUCCESS);
}

static void
player_clear (Player * player)
{
  gst_element_set_state (player->pipeline, GST_STATE_NULL);
  gst_object_unref (player->bus);
  gst_object_unref (player->src);
  gst_object_unref (player->pipeline);
}

static void
expect_percent (Player * player, gint expected)
{
  GstMessage *message = gst_bus_timed_pop_filtered (player->bus,
      30 * GST_SECOND, GST_MESSAGE_BUFFERING);
  gint percent;

  fail_unless (message != NULL);
  gst_message_parse_buffering (message, &percent);
  fail_unless_equals_int (percent, expected);
  gst_message_unref (message);
}

static void
expect_no_percent (Player * player)
{
  script_posted ();
  fail_unless (gst_bus_pop_filtered (player->bus, GST_MESSAGE_BUFFERING) == NULL);
}

/* At that time the element asks for a pause, and gets it */
static void
expect_pause (Player * player, GstClockTime time)
{
  script_advance (time - 1);
  expect_no_percent (player);
  script_advance (time);
  expect_percent (player, 0);
  gst_element_set_state (player->pipeline, GST_STATE_PAUSED);
}

/* At that time it has what it wants, and goes on. The sink holds it until then. */
static void
expect_go_on (Player * player, GstClockTime time)
{
  script_advance (time - 1);
  expect_no_percent (player);
  script_step ();
  fail_unless_equals_uint64 (now (), time);
  expect_percent (player, 100);
  play (player);
}

/* With frame `frames`, which it would be the time of */
static void
expect_eos (Player * player, gint frames, GstClockTime time)
{
  script_advance (time - 1);
  script_step ();
  gst_message_unref (wait_message (player->pipeline, GST_MESSAGE_EOS, 30));
  fail_unless_equals_uint64 (now (), time);
  fail_unless_equals_int (player->frames, frames);
}

static void
expect_pauses (Player * player, guint n)
{
  fail_unless_equals_uint64 (stat_of (player->src, "buffering-episodes"), n);
  fail_unless_equals_int (script_marked ("buffering"), n);
  expect_no_percent (player);
}

/* Every frame is shown, and none late */
static void
check_pauses (const gchar * sink)
{
  const GstClockTime first = 8 * FRAME - MARGIN, half = first + GST_SECOND,
      enough = half + 3 * GST_SECOND, second = enough + MARGIN + 8 * FRAME -
      MARGIN, again = second + 10 * GST_SECOND;
  Player player;

  script_frames (8, 0);
  script_frames (4, half);
  script_frames (4, enough);
  script_frames (8, again);
  player_init (&player, "num-frames=24 max-queue-frames=8", sink);
  play (&player);
  expect_pause (&player, first);
  script_advance (half);
  expect_percent (&player, 50);
  expect_go_on (&player, enough);
  expect_pause (&player, second);
  fail_unless_equals_int (player.frames, 16);
  expect_go_on (&player, again);
  expect_eos (&player, 24, again + MARGIN + 8 * FRAME);
  expect_pauses (&player, 2);
  fail_unless_equals_uint64 (player.late, 0);
  player_clear (&player);
}

GST_START_TEST (test_pauses_with_qos)
{
  check_pauses ("sync=true qos=true");
}

GST_END_TEST;

GST_START_TEST (test_pauses_without_qos)
{
  check_pauses ("sync=true");
}

GST_END_TEST;

/* It goes on with as many frames as `prebuffer` says, or with all there are */
GST_START_TEST (test_prebuffer)
{
  const GstClockTime first = START * FRAME - MARGIN, enough =
      first + 3 * GST_SECOND, second = enough + MARGIN + 3 * FRAME - MARGIN,
      last = second + GST_SECOND;
  Player player;

  script_frames (START, 0);
  script_frames (1, first + GST_SECOND);
  script_frames (1, first + 2 * GST_SECOND);
  script_frames (1, enough);
  script_frames (1, last);
  player_init (&player, "num-frames=13 prebuffer=3", "sync=true");
  play (&player);
  expect_pause (&player, first);
  script_advance (first + GST_SECOND);
  expect_percent (&player, 33);
  script_advance (first + 2 * GST_SECOND);
  expect_percent (&player, 66);
  expect_go_on (&player, enough);
  expect_pause (&player, second);
  expect_go_on (&player, last);
  expect_eos (&player, 13, last + MARGIN + FRAME);
  expect_pauses (&player, 2);
  fail_unless_equals_uint64 (player.late, 0);
  player_clear (&player);
}

GST_END_TEST;

GST_START_TEST (test_recording_is_not_paused)
{
  Player player;
  gint i;

  script_frames (START, 0);
  for (i = 1; i <= 3; i++)
    script_frames (BLOCK, 10 * i * GST_SECOND);
  player_init (&player, "num-frames=33", "sync=false");
  play (&player);
  script_advance (20 * GST_SECOND);
  fail_unless_equals_int (player.frames, START + 2 * BLOCK);
  expect_eos (&player, 33, 30 * GST_SECOND);
  expect_pauses (&player, 0);
  player_clear (&player);
}

GST_END_TEST;

/* Each frame comes at the last moment */
GST_START_TEST (test_no_pause_when_fast_enough)
{
  Player player;
  gint i;

  script_frames (START, 0);
  for (i = START; i < 30; i++)
    script_frames (1, i * FRAME - MARGIN);
  script_frames (1, 30 * FRAME - MARGIN + 1);
  player_init (&player, "", "sync=true qos=true");
  play (&player);
  script_advance (30 * FRAME - MARGIN - 1);
  fail_unless_equals_int (player.frames, 30);
  fail_unless_equals_uint64 (player.late, 0);
  expect_pauses (&player, 0);
  /* And this one after it */
  expect_pause (&player, 30 * FRAME - MARGIN);
  player_clear (&player);
}

GST_END_TEST;

/* Interrupted in the pause: by the end, by a flush, by NULL */
GST_START_TEST (test_eos_in_pause)
{
  Player player;

  script_frames (START, 0);
  player_init (&player, "", "sync=true qos=true");
  play (&player);
  expect_pause (&player, START * FRAME - MARGIN);
  fail_unless (gst_element_send_event (player.pipeline, gst_event_new_eos ()));
  expect_percent (&player, 100);
  play (&player);
  expect_eos (&player, START, START * FRAME);
  player_clear (&player);
}

GST_END_TEST;

GST_START_TEST (test_flush_in_pause)
{
  const GstClockTime first = START * FRAME - MARGIN, later =
      first + 5 * GST_SECOND;
  Player player;

  script_frames (START, 0);
  script_frames (51, later);
  player_init (&player, "num-frames=60", "sync=true qos=true");
  play (&player);
  expect_pause (&player, first);
  gst_element_send_event (player.src, gst_event_new_flush_start ());
  gst_element_send_event (player.src, gst_event_new_flush_stop (TRUE));
  expect_go_on (&player, later);
  /* Running time is 0 at the next frame */
  expect_eos (&player, 60, later + 51 * FRAME);
  expect_pauses (&player, 1);
  player_clear (&player);
}

GST_END_TEST;

GST_START_TEST (test_stop_in_pause)
{
  Player player;
  gint i;

  script_frames (START, 0);
  player_init (&player, "", "sync=true qos=true");
  for (i = 0; i < 3; i++) {
    play (&player);
    expect_pause (&player, now () + START * FRAME - MARGIN);
    gst_element_set_state (player.pipeline, GST_STATE_NULL);
  }
  player_clear (&player);
}

GST_END_TEST;

static Suite *
buffering_suite (void)
{
  Suite *s = suite_create ("buffering");
  TCase *tc = script_case_new (s);

  tcase_add_test (tc, test_pauses_with_qos);
  tcase_add_test (tc, test_pauses_without_qos);
  tcase_add_test (tc, test_prebuffer);
  tcase_add_test (tc, test_recording_is_not_paused);
  tcase_add_test (tc, test_no_pause_when_fast_enough);
  tcase_add_test (tc, test_eos_in_pause);
  tcase_add_test (tc, test_flush_in_pause);
  tcase_add_test (tc, test_stop_in_pause);
  return s;
}

GST_CHECK_MAIN (buffering);
