/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Everything at once: while a live video and another one play, pause, change
 * their size, end and begin again, threads set and read properties, queue prompts
 * by all doors, ask queries and read statistics. The one suite that runs under
 * ThreadSanitizer too, with tsan_glib.c.
 */
#include "element.h"

#define SECONDS 3               /* of each round */
/* Between what a thread does: the others want to be there too */
#define PAUSE_US 2000
#define LISTEN_US (10 * G_TIME_SPAN_MILLISECOND)

typedef struct
{
  GstElement *pipeline, *src, *filter;
  gboolean live;
  guint64 next;                 /* frame; written where nothing plays, else by
                                 * the streaming thread */
  GstClockTime pts;             /* of the one before */
  gint frames;                  /* atomic: fresh ones, of this round */
  gint sizes;                   /* atomic: how often the size changed */
  gint lost;                    /* the streaming thread's: frames */
} Video;

typedef struct
{
  Video videos[2];
  gint stop;                    /* atomic */
} Storm;

typedef void (*Gust) (Video * video);

/* -- what the threads do. Check can only fail in its own, so they assert */

static void
set_playing_property (Video * video, GParamSpec * pspec, GValue * value)
{
  static const gchar *const prompts[] = { NULL, "a blue star spinning",
    "a red ball", "a green cube in the rain"
  };

  if (G_VALUE_HOLDS_STRING (value)) {
    g_value_set_static_string (value,
        prompts[g_random_int_range (0, G_N_ELEMENTS (prompts))]);
  } else if (G_VALUE_HOLDS_ENUM (value)) {
    GEnumClass *klass = G_PARAM_SPEC_ENUM (pspec)->enum_class;

    g_value_set_enum (value,
        klass->values[g_random_int_range (0, klass->n_values)].value);
    /* It ends the video, as it should */
    if (g_str_equal (g_enum_get_value (klass,
                g_value_get_enum (value))->value_nick, "error"))
      return;
  } else if (G_VALUE_HOLDS_INT (value)) {
    g_value_set_int (value, g_random_int_range (-1, 4));
  } else if (GST_VALUE_HOLDS_FRACTION (value)) {
    gst_value_set_fraction (value, g_random_int_range (1, 16), 1);
  } else {
    g_error ("no values for %s", pspec->name);
  }
  g_object_set_property (G_OBJECT (video->src), pspec->name, value);
}

/* What cannot be changed while it plays is for the next start, and the base class
 * has is-live */
static void
properties (Video * video)
{
  GObject *src = G_OBJECT (video->src);
  GParamSpec **all;
  guint i, n, changed = 0;

  all = g_object_class_list_properties (G_OBJECT_GET_CLASS (src), &n);
  for (i = 0; i < n; i++) {
    GValue value = G_VALUE_INIT;

    if (all[i]->owner_type != G_OBJECT_TYPE (src))
      continue;
    g_object_get_property (src, all[i]->name, &value);
    if (all[i]->flags & GST_PARAM_MUTABLE_PLAYING) {
      set_playing_property (video, all[i], &value);
      changed++;
    } else if (all[i]->flags & G_PARAM_WRITABLE
        && !g_str_equal (all[i]->name, "is-live")) {
      g_object_set_property (src, all[i]->name, &value);
    }
    g_value_unset (&value);
  }
  g_free (all);
  g_assert_cmpuint (changed, >=, 6);
}

/* Of any of these some are refused, with a warning */
static void
prompts (Video * video)
{
  const gint64 at = g_atomic_int_get (&video->frames) +
      g_random_int_range (-8, 160);
  const gint blocks = g_random_int_range (-1, 3);
  GstStructure *s;
  GstEvent *event;
  gboolean queued;
  GstPad *pad;

  g_signal_emit_by_name (video->src, "queue-prompt", "a pink heart",
      g_random_boolean ()? at : (gint64) - 1, blocks, &queued);

  s = gst_structure_new ("dualparal/set-prompt", "prompt", G_TYPE_STRING,
      "a yellow triangle", "at-frame", G_TYPE_INT64, at, "transition-blocks",
      G_TYPE_INT, blocks, NULL);
  if (g_random_boolean ())
    gst_structure_remove_field (s, "at-frame");
  if (g_random_boolean ())
    gst_structure_set (s, "negative-prompt", G_TYPE_STRING, "snow", NULL);
  event = gst_event_new_custom (GST_EVENT_CUSTOM_UPSTREAM, s);
  switch (g_random_int_range (0, 3)) {
    case 0:
      gst_element_send_event (video->src, event);
      break;
    case 1:
      gst_element_send_event (video->pipeline, event);
      break;
    default:
      pad = gst_element_get_static_pad (video->filter, "src");
      gst_pad_send_event (pad, event);
      gst_object_unref (pad);
      break;
  }
}

static void
queries (Video * video)
{
  GstPad *pad = gst_element_get_static_pad (video->src, "src");
  GstQuery *latency = gst_query_new_latency ();
  GstClockTime min, max;
  gboolean live;
  GstCaps *caps;
  gint64 n;

  if (gst_element_query (video->src, latency)) {
    gst_query_parse_latency (latency, &live, &min, &max);
    g_assert_cmpint (live, ==, video->live);
    g_assert_true (!live || (min > 0 && min <= max));
  }
  gst_query_unref (latency);
  latency = gst_query_new_latency ();
  gst_element_query (video->pipeline, latency);
  gst_query_unref (latency);

  gst_element_query_position (video->src, GST_FORMAT_TIME, &n);
  gst_element_query_position (video->pipeline, GST_FORMAT_TIME, &n);
  if (gst_element_query_duration (video->src, GST_FORMAT_TIME, &n))
    g_assert_cmpint (n, ==, -1);
  if (gst_pad_query_convert (pad, GST_FORMAT_DEFAULT, 32, GST_FORMAT_TIME, &n))
    g_assert_cmpint (n, ==, 2 * GST_SECOND);
  g_assert_false (gst_element_seek_simple (video->src, GST_FORMAT_TIME,
          GST_SEEK_FLAG_FLUSH, GST_SECOND));

  caps = gst_pad_query_caps (pad, NULL);
  g_assert_false (gst_caps_is_empty (caps));
  gst_caps_unref (caps);
  caps = gst_pad_get_current_caps (pad);
  gst_clear_caps (&caps);
  gst_object_unref (pad);
}

static void
statistics (Video * video)
{
  GstStructure *stats;
  gdouble share;
  guint64 n;

  g_object_get (video->src, "stats", &stats, NULL);
  g_assert_true (gst_structure_get_double (stats, "deadline-attainment",
          &share));
  g_assert_true (share >= 0 && share <= 1);
  g_assert_true (gst_structure_get_uint64 (stats, "blocks", &n));
  g_assert_true (gst_structure_get_uint64 (stats, "missed", &n));
  gst_structure_free (stats);
}

static Storm storm;

static gpointer
blow (gpointer data)
{
  const Gust gust = (Gust) data;
  guint i;

  for (i = 0; !g_atomic_int_get (&storm.stop); i++) {
    gust (&storm.videos[i % G_N_ELEMENTS (storm.videos)]);
    g_usleep (PAUSE_US);
  }
  return NULL;
}

/* -- what they do it to */

/* No frame comes twice but as a repeat, and none is left out, but that the base
 * class throws one away that downstream, of another mind by then, refused */
static GstPadProbeReturn
sent (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  Video *video = user_data;
  GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER (info);

  g_assert_true (video->next == 0 || GST_BUFFER_PTS (buffer) > video->pts);
  video->pts = GST_BUFFER_PTS (buffer);
  if (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP)) {
    g_assert_true (video->live);
    return GST_PAD_PROBE_OK;
  }
  g_assert_cmpuint (GST_BUFFER_OFFSET (buffer), >=, video->next);
  video->lost += GST_BUFFER_OFFSET (buffer) - video->next;
  g_assert_cmpint (video->lost, <=, g_atomic_int_get (&video->sizes));
  video->next = GST_BUFFER_OFFSET (buffer);
  if (!video->live)
    g_assert_cmpuint (GST_BUFFER_PTS (buffer), ==,
        video->next * GST_SECOND / 16);
  video->next++;
  g_atomic_int_inc (&video->frames);
  return GST_PAD_PROBE_OK;
}

static void
video_init (Video * video, gboolean live)
{
  GstPad *pad;

  video->live = live;
  video->pipeline = launch ("dualparalsrc name=src steps=3 guidance-scale=1 "
      "block-latents=1 context-latents=-1 devices=cpu,cpu threads=1 "
      "max-queue-frames=8 stats-interval=20 %s ! capsfilter name=filter "
      "caps=\"" SMALL "\" ! queue ! fakesink sync=%s",
      live ? "is-live=true startup-policy=placeholder" : "",
      live ? "true" : "false");
  video->src = gst_bin_get_by_name (GST_BIN (video->pipeline), "src");
  video->filter = gst_bin_get_by_name (GST_BIN (video->pipeline), "filter");
  pad = gst_element_get_static_pad (video->src, "src");
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, sent, video, NULL);
  gst_object_unref (pad);
}

static void
video_clear (Video * video)
{
  gst_object_unref (video->src);
  gst_object_unref (video->filter);
  gst_object_unref (video->pipeline);
}

/* What an application does with messages, for a while; whether one said EOS */
static gboolean
listen (Video * video, gint64 us)
{
  const gint64 end = g_get_monotonic_time () + us;
  GstBus *bus = gst_element_get_bus (video->pipeline);
  GstMessage *message;
  gboolean eos = FALSE;
  GError *error = NULL;
  gint64 left;

  while (!eos && (left = end - g_get_monotonic_time ()) > 0
      && (message = gst_bus_timed_pop (bus, left * GST_USECOND))) {
    if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR) {
      gst_message_parse_error (message, &error, NULL);
      fail ("%s", error->message);
    } else if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_LATENCY) {
      gst_bin_recalculate_latency (GST_BIN (video->pipeline));
    }
    eos |= GST_MESSAGE_TYPE (message) == GST_MESSAGE_EOS;
    gst_message_unref (message);
  }
  gst_object_unref (bus);
  return eos;
}

static void
set_state (Video * video, GstState state)
{
  fail_if (gst_element_set_state (video->pipeline, state) ==
      GST_STATE_CHANGE_FAILURE);
}

static void
set_width (Video * video, gint width)
{
  GstCaps *caps = gst_caps_from_string ("video/x-raw, height=32");

  gst_caps_set_simple (caps, "width", G_TYPE_INT, width, NULL);
  g_atomic_int_inc (&video->sizes);
  g_object_set (video->filter, "caps", caps, NULL);
  gst_caps_unref (caps);
}

/* A bin that is asked for another state between its sinks' preroll and its own
 * next step, which a pool's thread takes, forgets that step and is busy for ever
 * (gst_bin_continue_func() of GStreamer 1.22; any source). So back to PAUSED only
 * from where nothing is under way. */
static gboolean
is_settled (Video * video)
{
  return gst_element_get_state (video->pipeline, NULL, NULL, 0)
      != GST_STATE_CHANGE_ASYNC;
}

static void
disturb (Video * video)
{
  switch (g_random_int_range (0, 8)) {
    case 0:
      if (is_settled (video))
        set_state (video, GST_STATE_PAUSED);
      break;
    case 1:
      set_width (video, g_random_boolean ()? 32 : 48);
      break;
    default:
      set_state (video, GST_STATE_PLAYING);
      break;
  }
}

/* It plays on, whatever came over it */
static void
check_plays (Video * video)
{
  const gint before = g_atomic_int_get (&video->frames);
  const gint64 start = g_get_monotonic_time ();

  set_state (video, GST_STATE_PLAYING);
  while (g_atomic_int_get (&video->frames) < before + 24) {
    fail_unless (seconds_since (start) < 40 * slowness (), "%d frames, live %d",
        g_atomic_int_get (&video->frames) - before, video->live);
    listen (video, LISTEN_US);
  }
}

static void
end (Video * video, gboolean with_eos)
{
  const gint64 asked = g_get_monotonic_time ();
  const TestClock clock = test_clock ();
  gboolean eos = !with_eos;

  if (with_eos)
    gst_element_send_event (video->pipeline, gst_event_new_eos ());
  while (!eos) {
    fail_unless (seconds_since (asked) < 20 * slowness ());
    eos = listen (video, LISTEN_US);
  }
  set_state (video, GST_STATE_NULL);
  fail_unless (test_clock_seconds (clock) < 2 * slowness (), "took %g s",
      test_clock_seconds (clock));
  video->next = 0;
  g_atomic_int_set (&video->frames, 0);
}

GST_START_TEST (test_storm)
{
  const Gust gusts[] = { properties, properties, prompts, queries, statistics };
  GThread *threads[G_N_ELEMENTS (gusts)];
  Video *videos = storm.videos;
  gint64 start;
  guint i, round;

  for (i = 0; i < 2; i++)
    video_init (&videos[i], i);
  for (i = 0; i < G_N_ELEMENTS (gusts); i++)
    threads[i] = g_thread_new ("gust", blow, gusts[i]);

  for (round = 0; round < 3; round++) {
    for (i = 0; i < 2; i++)
      set_state (&videos[i], GST_STATE_PLAYING);
    start = g_get_monotonic_time ();
    while (seconds_since (start) < SECONDS) {
      for (i = 0; i < 2; i++) {
        disturb (&videos[i]);
        listen (&videos[i], LISTEN_US);
      }
    }
    for (i = 0; i < 2; i++)
      check_plays (&videos[i]);
    for (i = 0; i < 2; i++)
      end (&videos[i], round % 2);
  }

  g_atomic_int_set (&storm.stop, TRUE);
  for (i = 0; i < G_N_ELEMENTS (gusts); i++)
    g_thread_join (threads[i]);
  for (i = 0; i < 2; i++)
    video_clear (&videos[i]);
}

GST_END_TEST;

/* Downstream changes its mind between the caps it accepts and the buffer it gets */
GST_START_TEST (test_sizes)
{
  Video video = { NULL, };
  gint64 start;
  gint i = 0;

  video_init (&video, FALSE);
  set_state (&video, GST_STATE_PLAYING);
  start = g_get_monotonic_time ();
  while (seconds_since (start) < SECONDS) {
    set_width (&video, ++i % 2 ? 32 : 48);
    listen (&video, g_random_int_range (1, 1000));
  }
  check_plays (&video);
  end (&video, TRUE);
  video_clear (&video);
}

GST_END_TEST;

static Suite *
storm_suite (void)
{
  Suite *s = suite_create ("storm");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_storm);
  tcase_add_test (tc, test_sizes);
  return s;
}

GST_CHECK_MAIN (storm);
