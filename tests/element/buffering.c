/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * When the generation is slower than the playback: a sink that keeps time gets
 * its pauses and every frame in time, one that does not is left alone.
 */
#include "element.h"

/* Nothing is made at this rate */
#define TOO_FAST SMALL ",framerate=50000/1"

typedef struct
{
  GstElement *pipeline;
  gint64 first_us;              /* when the first frame was shown */
  gint last;                    /* percent; 100 when not buffering */
  guint pauses;
  gint late_ms;                 /* atomic: of the latest frame */
  gint frames;                  /* atomic */
} Player;

static void
shown (GstElement * sink, GstBuffer * buffer, GstPad * pad, gpointer user_data)
{
  Player *player = user_data;
  GstClockTime now = gst_element_get_current_running_time (sink);
  gint late = GST_CLOCK_DIFF (GST_BUFFER_PTS (buffer), now) / GST_MSECOND;

  if (g_atomic_int_add (&player->frames, 1) == 0)
    player->first_us = g_get_monotonic_time ();
  if (late > g_atomic_int_get (&player->late_ms))
    g_atomic_int_set (&player->late_ms, late);
}

static void
player_init (Player * player, const gchar * properties, const gchar * caps,
    const gchar * sink)
{
  GstElement *element;

  player->pipeline = launch ("dualparalsrc name=src " FAST "%s ! %s ! fakesink "
      "name=sink signal-handoffs=true %s", properties, caps, sink);
  player->last = 100;
  player->pauses = 0;
  player->late_ms = player->frames = 0;
  element = gst_bin_get_by_name (GST_BIN (player->pipeline), "sink");
  g_signal_connect (element, "handoff", G_CALLBACK (shown), player);
  gst_object_unref (element);
}

static void
player_clear (Player * player)
{
  const TestClock start = test_clock ();

  gst_element_set_state (player->pipeline, GST_STATE_NULL);
  fail_unless (test_clock_seconds (start) < slowness ());
  gst_object_unref (player->pipeline);
}

/* What gst-launch does. Returns at the end, or with the first message below 100
 * when that is asked for. */
static void
play (Player * player, gboolean until_pause)
{
  for (;;) {
    GstMessage *message = wait_message (player->pipeline,
        GST_MESSAGE_BUFFERING | GST_MESSAGE_EOS, 60);
    const gboolean eos = GST_MESSAGE_TYPE (message) == GST_MESSAGE_EOS;
    gint percent = 100;

    if (!eos)
      gst_message_parse_buffering (message, &percent);
    gst_message_unref (message);
    if (eos)
      return;

    GST_INFO ("%d%%", percent);
    if (player->last == 100) {
      fail_unless_equals_int (percent, 0);
      player->pauses++;
    } else {
      fail_unless (percent > player->last);
    }
    player->last = percent;
    gst_element_set_state (player->pipeline, percent < 100 ? GST_STATE_PAUSED :
        GST_STATE_PLAYING);
    if (until_pause)
      return;
  }
}

/* As the source counted them */
static guint64
player_pauses (Player * player)
{
  GstElement *src = gst_bin_get_by_name (GST_BIN (player->pipeline), "src");
  const guint64 episodes = stat_of (src, "buffering-episodes");

  gst_object_unref (src);
  return episodes;
}

/* Every frame is shown, in time but for what it takes to go to PAUSED. Without
 * the pauses the last would be as late as the whole took longer than it plays. */
static void
check_pauses (const gchar * sink)
{
  Player player;
  gdouble too_long;

  player_init (&player, "steps=1000 queue-blocks=1 threads=1 num-frames=24 "
      "max-queue-frames=8", SMALL ",framerate=120/1", sink);
  gst_element_set_state (player.pipeline, GST_STATE_PLAYING);
  play (&player, FALSE);
  too_long = (g_get_monotonic_time () - player.first_us) / 1e6 - 24. / 120;
  GST_INFO ("%u pauses, %d ms late, %g s too long", player.pauses,
      player.late_ms, too_long);
  fail_unless_equals_int (player.last, 100);
  fail_unless (player.pauses > 0);
  fail_unless_equals_uint64 (player_pauses (&player), player.pauses);
  fail_unless_equals_int (player.frames, 24);
  fail_unless (player.late_ms < 1000 * too_long / 4, "%d ms late of %g s",
      player.late_ms, too_long);
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

static void
check_no_pause (const gchar * properties, const gchar * caps,
    const gchar * sink)
{
  Player player;

  player_init (&player, properties, caps, sink);
  gst_element_set_state (player.pipeline, GST_STATE_PLAYING);
  play (&player, FALSE);
  fail_unless_equals_int (player.pauses, 0);
  fail_unless_equals_uint64 (player_pauses (&player), 0);
  player_clear (&player);
}

GST_START_TEST (test_recording_is_not_paused)
{
  check_no_pause ("steps=600 queue-blocks=1 block-latents=4 num-frames=34",
      SMALL ",framerate=30/1", "sync=false");
}

GST_END_TEST;

GST_START_TEST (test_no_pause_when_fast_enough)
{
  check_no_pause ("num-frames=4", SMALL ",framerate=2/1", "sync=true qos=true");
}

GST_END_TEST;

/* Interrupted in the pause: by the end, by a flush, by NULL */
GST_START_TEST (test_eos_in_pause)
{
  Player player;

  player_init (&player, "max-queue-frames=100 block-latents=16", TOO_FAST,
      "sync=true qos=true");
  gst_element_set_state (player.pipeline, GST_STATE_PLAYING);
  play (&player, TRUE);
  fail_unless (gst_element_send_event (player.pipeline, gst_event_new_eos ()));
  play (&player, FALSE);
  fail_unless_equals_int (player.last, 100);
  player_clear (&player);
}

GST_END_TEST;

GST_START_TEST (test_flush_in_pause)
{
  Player player;
  GstElement *src;

  player_init (&player, "num-frames=60", TOO_FAST, "sync=true qos=true");
  src = gst_bin_get_by_name (GST_BIN (player.pipeline), "src");
  gst_element_set_state (player.pipeline, GST_STATE_PLAYING);
  play (&player, TRUE);
  gst_element_send_event (src, gst_event_new_flush_start ());
  gst_element_send_event (src, gst_event_new_flush_stop (TRUE));
  play (&player, FALSE);
  fail_unless_equals_int (player.last, 100);
  player_clear (&player);
  gst_object_unref (src);
}

GST_END_TEST;

GST_START_TEST (test_stop_in_pause)
{
  Player player;
  gint i;

  player_init (&player, "", TOO_FAST, "sync=true qos=true");
  for (i = 0; i < 3; i++) {
    gst_element_set_state (player.pipeline, GST_STATE_PLAYING);
    play (&player, TRUE);
    gst_element_set_state (player.pipeline, GST_STATE_NULL);
    player.last = 100;
  }
  player_clear (&player);
}

GST_END_TEST;

static Suite *
buffering_suite (void)
{
  Suite *s = suite_create ("buffering");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_pauses_with_qos);
  tcase_add_test (tc, test_pauses_without_qos);
  tcase_add_test (tc, test_recording_is_not_paused);
  tcase_add_test (tc, test_no_pause_when_fast_enough);
  tcase_add_test (tc, test_eos_in_pause);
  tcase_add_test (tc, test_flush_in_pause);
  tcase_add_test (tc, test_stop_in_pause);
  return s;
}

GST_CHECK_MAIN (buffering);
