/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How long a new prompt takes to be seen, and what it does to the picture: the embedded model plays in real time into a sink that keeps
 * time, and prompts come in by each door with either latency, at no particular moment of a block. `bench_prompts [CHANGES [PROPERTIES]]`;
 * needs GST_PLUGIN_PATH.
 *
 * Printed are means (and the most): time and frames from queueing until the first frame with the new prompt is shown, and the seam there:
 * how much that frame differs from the one before, as a multiple of what frames differ by in the block before and behind. Blocks have 16
 * frames.
 */
#include <gst/gst.h>
#include <stdlib.h>

#define BLOCK 16

typedef struct
{
  GMutex lock;
  GCond cond;
  GArray *differences;          /* double, by frame: from the one before */
  GArray *times;                /* gint64, when it was shown */
  GBytes *last;
} Shown;

typedef gboolean (*Door) (GstElement *src, GstElement *sink, const char *prompt);

static gboolean
by_property (GstElement *src, GstElement *sink, const char *prompt)
{
  g_object_set (src, "prompt", prompt, NULL);
  return TRUE;
}

static gboolean
by_signal (GstElement *src, GstElement *sink, const char *prompt)
{
  gboolean queued;

  g_signal_emit_by_name (src, "queue-prompt", prompt, (gint64) -1, 0, &queued);
  return queued;
}

static GstEvent *
event_new (const char *prompt)
{
  return gst_event_new_custom (GST_EVENT_CUSTOM_UPSTREAM, gst_structure_new ("dualparal/set-prompt", "prompt", G_TYPE_STRING, prompt,
      NULL));
}

static gboolean
by_event (GstElement *src, GstElement *sink, const char *prompt)
{
  return gst_element_send_event (src, event_new (prompt));
}

static gboolean
from_downstream (GstElement *src, GstElement *sink, const char *prompt)
{
  return gst_element_send_event (sink, event_new (prompt));
}

static const struct { const char *name; Door queue; } doors[] = {
  { "property", by_property }, { "signal", by_signal }, { "event to the element", by_event }, { "event from downstream", from_downstream },
};

static void
show (GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer data)
{
  Shown *shown = data;
  gint64 now = g_get_monotonic_time ();
  gpointer copy;
  gsize size;
  double difference = 0;

  gst_buffer_extract_dup (buffer, 0, -1, &copy, &size);
  GBytes *frame = g_bytes_new_take (copy, size);
  if (shown->last) {
    const guint8 *a = g_bytes_get_data (shown->last, NULL), *b = copy;
    guint64 sum = 0;

    for (gsize i = 0; i < size; i++)
      sum += ABS (a[i] - b[i]);
    difference = (double) sum / size;
    g_bytes_unref (shown->last);
  }
  shown->last = frame;
  g_mutex_lock (&shown->lock);
  g_array_append_val (shown->differences, difference);
  g_array_append_val (shown->times, now);
  g_cond_broadcast (&shown->cond);
  g_mutex_unlock (&shown->lock);
}

static void
wait_frames (Shown *shown, guint n)
{
  g_mutex_lock (&shown->lock);
  while (shown->times->len < n)
    g_cond_wait (&shown->cond, &shown->lock);
  g_mutex_unlock (&shown->lock);
}

/* The number of the first frame with the prompt; it may be on its way still. */
static guint64
wait_applied (GstBus *bus, GstElement *pipeline, const char *prompt)
{
  guint64 frame = 0;
  gboolean done = FALSE;

  while (!done) {
    GstMessage *message = gst_bus_timed_pop_filtered (bus, 120 * GST_SECOND,
        GST_MESSAGE_ELEMENT | GST_MESSAGE_ERROR | GST_MESSAGE_BUFFERING);
    int percent = 100;

    if (message == NULL || GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR)
      g_error ("no frame with \"%s\"", prompt);
    if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_BUFFERING) {
      gst_message_parse_buffering (message, &percent);
      gst_element_set_state (pipeline, percent < 100 ? GST_STATE_PAUSED : GST_STATE_PLAYING);
    } else if (gst_message_has_name (message, "dualparal-prompt-applied")) {
      const GstStructure *s = gst_message_get_structure (message);

      done = g_strcmp0 (gst_structure_get_string (s, "prompt"), prompt) == 0;
      gst_structure_get_uint64 (s, "frame", &frame);
    }
    gst_message_unref (message);
  }
  return frame;
}

static double
seam (Shown *shown, guint64 frame)
{
  double sum = 0, at;

  g_mutex_lock (&shown->lock);
  const double *d = (const double *) shown->differences->data;
  for (guint64 i = frame - BLOCK + 1; i < frame + BLOCK; i++)
    sum += i == frame ? 0 : d[i];
  at = d[frame];
  g_mutex_unlock (&shown->lock);
  return at / (sum / (2 * BLOCK - 2));
}

static void
measure (const char *latency, int door, int changes, const char *properties)
{
  static const char *const prompts[] = { "a blue cube drifting over a plain wall", "a yellow star spinning in a starry night",
    "a pink heart pulsing in falling snow", "a red ball bouncing over a green meadow" };
  g_autofree char *line = g_strdup_printf ("dualparalsrc name=src prompt-latency=%s %s ! fakesink name=sink sync=true signal-handoffs=true",
      latency, properties);
  GstElement *pipeline = gst_parse_launch (line, NULL), *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstElement *sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  GstBus *bus = gst_element_get_bus (pipeline);
  Shown shown = { .differences = g_array_new (FALSE, FALSE, sizeof (double)), .times = g_array_new (FALSE, FALSE, sizeof (gint64)) };
  double ms = 0, frames = 0, ratio = 0, most = 0;
  guint64 next = 3 * BLOCK;

  g_mutex_init (&shown.lock);
  g_cond_init (&shown.cond);
  g_signal_connect (sink, "handoff", G_CALLBACK (show), &shown);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  for (int i = 0; i < changes; i++) {
    wait_frames (&shown, next + 7 * i % BLOCK);
    gint64 start = g_get_monotonic_time ();
    guint at = shown.times->len;
    if (!doors[door].queue (src, sink, prompts[i % G_N_ELEMENTS (prompts)]))
      g_error ("not queued");
    guint64 frame = wait_applied (bus, pipeline, prompts[i % G_N_ELEMENTS (prompts)]);
    next = frame + 2 * BLOCK;
    wait_frames (&shown, next);
    double taken = (g_array_index (shown.times, gint64, frame) - start) / 1000.0;
    ms += taken;
    most = MAX (most, taken);
    frames += frame - at;
    ratio += seam (&shown, frame);
  }
  g_print ("| %s | `%s` | %.0f (%.0f) | %.1f | %.1f | %.2f |\n", doors[door].name, latency, ms / changes, most, frames / changes,
      frames / changes / BLOCK, ratio / changes);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (bus);
  gst_object_unref (src);
  gst_object_unref (sink);
  gst_object_unref (pipeline);
  g_bytes_unref (shown.last);
  g_array_unref (shown.differences);
  g_array_unref (shown.times);
  g_mutex_clear (&shown.lock);
  g_cond_clear (&shown.cond);
}

int
main (int argc, char **argv)
{
  gst_init (&argc, &argv);
  g_print ("| door | latency | ms until shown, mean (most) | frames | blocks | seam |\n|---|---|---|---|---|---|\n");
  for (gsize door = 0; door < G_N_ELEMENTS (doors); door++) {
    measure ("smooth", door, argc > 1 ? atoi (argv[1]) : 6, argc > 2 ? argv[2] : "");
    measure ("low", door, argc > 1 ? atoi (argv[1]) : 6, argc > 2 ? argv[2] : "");
  }
  return 0;
}
