/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Whether anything grows. `soak cycles N` starts and stops videos, live and not, that linger and that do not, N times, after any number of
 * frames or none. `soak minutes M` plays a live and another video for M minutes, with new prompts and sizes and pauses. Both need
 * GST_PLUGIN_PATH, and take more properties of the element behind that ("devices=cuda:0,cuda:1").
 *
 * Now and then a line says how much anonymous memory is resident, and how many threads and files there are. The first tenth is to warm up;
 * what is more than its most by `growth` afterwards is an error, as are a message of that kind, a frame out of order and a video that
 * stands still. Cycles look at it where nothing plays; there the least that malloc() has given out shows what grows little by little.
 */
#include <gst/gst.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINES 20                /* that are printed, about */
#define MIN_WARM_CYCLES 40      /* each kind five times */
#define MIN_CYCLES (3 * MIN_WARM_CYCLES)
/* What the last third of the cycles may hold more than the second one does, in bytes: in all and for each of its cycles. Of what is done once,
 * some is done late; 0.2 to 0.7 KiB a cycle were seen. */
#define CREEP 65536
#define CREEP_CYCLE 1024
#define LINGER 10               /* seconds, by default */
#define CHECK_SECONDS 7         /* while it plays; at any distance from a new size, a prompt or a pause */

typedef struct
{
  long anonymous;               /* KiB */
  long threads, files;
} Usage;

static const Usage growth = { 16 * 1024, 8, 4 };

typedef struct
{
  GstElement *pipeline, *src, *filter;
  gint frames;                  /* atomic, of the video: no repeats and no placeholders */
  gint sizes;                   /* atomic: how often the size changed */
  guint64 next, lost;           /* the streaming thread's */
} Video;

static const char *const prompts[] = { "a red ball bouncing over a green meadow", "a blue star spinning in a starry night",
  "a pink heart pulsing in falling snow", "a yellow triangle rising over the sea" };

static long
status_of (const char *field)
{
  char line[256];
  long value = -1;
  FILE *f = fopen ("/proc/self/status", "re");

  while (f && fgets (line, sizeof line, f))
    if (g_str_has_prefix (line, field) && line[strlen (field)] == ':')
      value = atol (line + strlen (field) + 1);
  if (f)
    fclose (f);
  if (value < 0)
    g_error ("/proc/self/status has no %s", field);
  return value;
}

/* Of what malloc() keeps for later more or less is resident, and that is of no interest */
static Usage
usage_now (void)
{
  Usage now = { 0, status_of ("Threads"), -1 }; /* looking into the directory opens it */
  GDir *dir = g_dir_open ("/proc/self/fd", 0, NULL);

  malloc_trim (0);
  now.anonymous = status_of ("RssAnon");
  while (g_dir_read_name (dir))
    now.files++;
  g_dir_close (dir);
  return now;
}

static void
keep_most (Usage *most, Usage now)
{
  most->anonymous = MAX (most->anonymous, now.anonymous);
  most->threads = MAX (most->threads, now.threads);
  most->files = MAX (most->files, now.files);
}

static void
check_growth (Usage warm, Usage now)
{
  if (now.anonymous > warm.anonymous + growth.anonymous || now.threads > warm.threads + growth.threads
      || now.files > warm.files + growth.files)
    g_error ("grown: %.1f MiB, %ld threads, %ld files, and after warming up it was %.1f, %ld, %ld", now.anonymous / 1024.0, now.threads,
        now.files, warm.anonymous / 1024.0, warm.threads, warm.files);
}

/* What lingers is there or not, and of what is resident a part is free: the least that is in use is the same in any cycle, to some KiB */
static void
check_creep (const size_t *in_use, int n)
{
  const int third = n / 3;
  size_t least[3] = { G_MAXSIZE, G_MAXSIZE, G_MAXSIZE };

  for (int i = 0; i < 3 * third; i++)
    least[i / third] = MIN (least[i / third], in_use[i]);
  g_print ("least in use: %.1f KiB in the second third, %.1f in the last\n", least[1] / 1024.0, least[2] / 1024.0);
  if (least[2] > least[1] + CREEP + third * CREEP_CYCLE)
    g_error ("%.1f KiB a cycle are lost", (least[2] - least[1]) / 1024.0 / third);
}

static void
print_usage (const char *when, Usage usage, int frames)
{
  g_print ("%-16s %6.1f MiB %3ld threads %3ld files %7d frames\n", when, usage.anonymous / 1024.0, usage.threads, usage.files, frames);
}

static GstPadProbeReturn
count (GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
  Video *video = data;
  GstBuffer *buffer = GST_PAD_PROBE_INFO_BUFFER (info);

  if (GST_BUFFER_FLAG_IS_SET (buffer, GST_BUFFER_FLAG_GAP))
    return GST_PAD_PROBE_OK;
  /* The base class throws one away that is refused because the size has just changed */
  if (GST_BUFFER_OFFSET (buffer) > video->next)
    video->lost += GST_BUFFER_OFFSET (buffer) - video->next;
  if (GST_BUFFER_OFFSET (buffer) < video->next || video->lost > (guint64) g_atomic_int_get (&video->sizes))
    g_error ("frame %" G_GUINT64_FORMAT " came instead of %" G_GUINT64_FORMAT, GST_BUFFER_OFFSET (buffer), video->next);
  video->next = GST_BUFFER_OFFSET (buffer) + 1;
  g_atomic_int_inc (&video->frames);
  return GST_PAD_PROBE_OK;
}

static void
set_width (Video *video, int width)
{
  GstCaps *caps = gst_caps_new_simple ("video/x-raw", "width", G_TYPE_INT, width, "height", G_TYPE_INT, 64, NULL);

  g_atomic_int_inc (&video->sizes);
  g_object_set (video->filter, "caps", caps, NULL);
  gst_caps_unref (caps);
}

static Video *
video_new (const char *properties)
{
  Video *video = g_new0 (Video, 1);
  char *line = g_strdup_printf ("dualparalsrc name=src steps=2 guidance-scale=1 %s ! capsfilter name=filter ! queue ! fakesink sync=true",
      properties);
  GError *error = NULL;
  GstPad *pad;

  video->pipeline = gst_parse_launch (line, &error);
  if (error)
    g_error ("%s: %s", line, error->message);
  g_free (line);
  video->src = gst_bin_get_by_name (GST_BIN (video->pipeline), "src");
  video->filter = gst_bin_get_by_name (GST_BIN (video->pipeline), "filter");
  set_width (video, 96);
  pad = gst_element_get_static_pad (video->src, "src");
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, count, video, NULL);
  gst_object_unref (pad);
  return video;
}

static void
video_free (Video *video)
{
  gst_element_set_state (video->pipeline, GST_STATE_NULL);
  gst_object_unref (video->src);
  gst_object_unref (video->filter);
  gst_object_unref (video->pipeline);
  g_free (video);
}

static void
set_state (Video *video, GstState state)
{
  if (gst_element_set_state (video->pipeline, state) == GST_STATE_CHANGE_FAILURE)
    g_error ("no way to %s", gst_element_state_get_name (state));
}

/* Throws messages away */
static void
check_errors (Video *video)
{
  GstBus *bus = gst_element_get_bus (video->pipeline);
  GstMessage *message;
  GError *error = NULL;

  while ((message = gst_bus_pop (bus))) {
    if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR) {
      gst_message_parse_error (message, &error, NULL);
      g_error ("%s", error->message);
    }
    gst_message_unref (message);
  }
  gst_object_unref (bus);
}

/* Until it has so many frames; FALSE after so long */
static gboolean
wait_frames (Video *video, int frames, int seconds)
{
  const gint64 end = g_get_monotonic_time () + seconds * G_TIME_SPAN_SECOND;

  while (g_atomic_int_get (&video->frames) < frames) {
    check_errors (video);
    if (g_get_monotonic_time () > end)
      return FALSE;
    g_usleep (2000);
  }
  return TRUE;
}

static void
run_cycles (int n, const char *more)
{
  const int warming = MAX (n / 10, MIN_WARM_CYCLES);
  Usage warm = { 0 }, most = { 0 }, now;
  struct mallinfo2 malloc_now;
  size_t *in_use = g_new (size_t, n);
  gint64 slowest = 0;
  char when[32];
  int frames = 0, warm_frames = 0;

  for (int i = 0; i < n; i++) {
    const gboolean live = i & 1, some = i & 4;
    char *properties = g_strdup_printf ("linger=%d %s %s", i & 2 ? LINGER : 0, live ? "is-live=true startup-policy=placeholder" : "", more);
    Video *video = video_new (properties);
    gint64 asked;

    set_state (video, GST_STATE_PLAYING);
    if (some && !wait_frames (video, g_random_int_range (1, 12), 60))
      g_error ("no frames for a minute, in cycle %d", i);
    g_usleep (g_random_int_range (0, 100) * G_TIME_SPAN_MILLISECOND);
    check_errors (video);
    asked = g_get_monotonic_time ();
    frames += g_atomic_int_get (&video->frames);
    video_free (video);
    slowest = MAX (slowest, g_get_monotonic_time () - asked);
    g_free (properties);

    now = usage_now ();
    malloc_now = mallinfo2 ();
    in_use[i] = malloc_now.uordblks + malloc_now.hblkhd;
    keep_most (i < warming ? &warm : &most, now);
    if (i < warming)
      warm_frames = frames;
    else
      check_growth (warm, now);
    if ((i + 1) % MAX (n / LINES, 1) == 0) {
      g_snprintf (when, sizeof when, "%d cycles", i + 1);
      print_usage (when, now, frames);
    }
  }
  print_usage ("most, warming up", warm, warm_frames);
  print_usage ("most, afterwards", most, frames);
  g_usleep ((LINGER + 2) * G_TIME_SPAN_SECOND);
  print_usage ("at rest", usage_now (), frames);
  g_print ("the slowest stop took %.3f s\n", slowest / 1e6);
  check_creep (in_use, n);
  g_free (in_use);
}

static void
run_minutes (int minutes, const char *more)
{
  char *live = g_strconcat ("is-live=true startup-policy=placeholder ", more, NULL);
  Video *videos[] = { video_new (more), video_new (live) };
  const int seconds = minutes * 60, warming = MAX (seconds / 10, 60), interval = MAX (seconds / LINES, 10);
  Usage warm = { 0 }, most = { 0 }, now;
  int before[2] = { 0 }, frames = 0, warm_frames = 0;
  char when[32];

  for (int i = 0; i < 2; i++)
    set_state (videos[i], GST_STATE_PLAYING);
  for (int s = 1; s <= seconds; s++) {
    g_usleep (G_TIME_SPAN_SECOND);
    for (int i = 0; i < 2; i++) {
      check_errors (videos[i]);
      if (s % 3 == 0)
        g_object_set (videos[i]->src, "prompt", prompts[s / 3 % G_N_ELEMENTS (prompts)], NULL);
      if (s % 20 == 0)
        set_width (videos[i], s % 40 ? 128 : 96);
      if (s % 13 < 2)
        set_state (videos[i], s % 13 ? GST_STATE_PLAYING : GST_STATE_PAUSED);
    }
    if (s % CHECK_SECONDS)
      continue;
    now = usage_now ();
    frames = g_atomic_int_get (&videos[0]->frames) + g_atomic_int_get (&videos[1]->frames);
    keep_most (s <= warming ? &warm : &most, now);
    if (s <= warming)
      warm_frames = frames;
    else
      check_growth (warm, now);
    if (s / interval == (s - CHECK_SECONDS) / interval)
      continue;
    g_snprintf (when, sizeof when, "%d:%02d", s / 60, s % 60);
    print_usage (when, now, frames);
    for (int i = 0; i < 2; i++) {
      if (g_atomic_int_get (&videos[i]->frames) == before[i])
        g_error ("no frame for %d s, %s", interval, i ? "live" : "not live");
      before[i] = g_atomic_int_get (&videos[i]->frames);
    }
  }
  print_usage ("most, warming up", warm, warm_frames);
  print_usage ("most, afterwards", most, frames);
  for (int i = 0; i < 2; i++) {
    GstStructure *stats;
    char *text;

    g_object_get (videos[i]->src, "stats", &stats, NULL);
    text = gst_structure_to_string (stats);
    g_print ("%s\n", text);
    g_free (text);
    gst_structure_free (stats);
    video_free (videos[i]);
  }
  g_free (live);
}

int
main (int argc, char **argv)
{
  const char *more;
  int n;

  gst_init (&argc, &argv);
  n = argc == 3 || argc == 4 ? atoi (argv[2]) : 0;
  more = argc == 4 ? argv[3] : "";
  if (n >= MIN_CYCLES && strcmp (argv[1], "cycles") == 0) {
    run_cycles (n, more);
  } else if (n > 1 && strcmp (argv[1], "minutes") == 0) {
    run_minutes (n, more);
  } else {
    g_printerr ("usage: soak cycles N [PROPERTIES] | soak minutes M [PROPERTIES]   (N at least %d, M at least 2)\n", MIN_CYCLES);
    return 2;
  }
  return 0;
}
