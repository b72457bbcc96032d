/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli_progress.h"
#include "block_queue.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define INTERVAL_US 200000

static struct
{
  GMutex lock;
  gboolean started, has_frames;
  const DpPlan *plan;
  gint64 loaded_us, shown_us;
  int length;                   /* of the line that is there */
  int percent;                  /* loaded, as far as it was shown */
} progress;

/* Under the lock. A line that wraps could not be written over, so it is cut to the terminal's width. */
static void
show (const char *line)
{
  struct winsize size = { 0 };
  int columns = ioctl (2, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  int length = MIN ((int) strlen (line), columns - 1);

  fprintf (stderr, "\r%.*s%*s", length, line, MAX (0, MIN (progress.length, columns - 1) - length), "");
  progress.length = length;
}

void
dp_cli_progress_start (const DpPlan *plan)
{
  progress.started = isatty (2);
  progress.plan = plan;
}

void
dp_cli_progress_loading (const char *code, const char *text, int percent, gpointer user_data)
{
  g_mutex_lock (&progress.lock);
  if (progress.started && !progress.has_frames && percent >= progress.percent) {
    g_autofree char *line = g_strdup_printf ("%s: %d %%", text, percent);

    progress.percent = percent;
    if (percent == 100)
      progress.loaded_us = g_get_monotonic_time ();
    show (line);
  }
  g_mutex_unlock (&progress.lock);
}

gint64
dp_cli_progress_interval (void)
{
  return progress.started ? INTERVAL_US : -1;
}

/* Of the passes of all blocks, which take about the same time each. */
static void
append_time_left (GString *line, const DpStats *stats, gint64 blocks, gint64 now)
{
  guint64 passes = blocks * progress.plan->settings.steps;

  if (stats->passes == 0 || stats->passes >= passes)
    return;
  double seconds = (now - progress.loaded_us) / 1e6 / stats->passes * (passes - stats->passes);
  gint64 s = MIN (seconds, 1e9) + 0.5;
  if (s >= 3600)
    g_string_append_printf (line, ", %" G_GINT64_FORMAT ":%02d:%02d left", s / 3600, (int) (s / 60 % 60), (int) (s % 60));
  else
    g_string_append_printf (line, ", %d:%02d left", (int) (s / 60), (int) (s % 60));
}

static void
show_frames (DpEngine *engine, gint64 now)
{
  const DpPlan *plan = progress.plan;
  gint64 frames = plan->settings.num_frames;
  gint64 blocks = dp_blocks_of (plan->latents, plan->settings.block_latents, plan->context_latents);
  g_autoptr (GString) line = g_string_new (NULL);
  DpStats stats;

  dp_engine_get_stats (engine, &stats);
  g_string_printf (line, "%" G_GUINT64_FORMAT, stats.frames);
  if (frames > 0)
    g_string_append_printf (line, " of %" G_GINT64_FORMAT " frames, %" G_GUINT64_FORMAT " of %" G_GINT64_FORMAT " blocks", frames,
        stats.blocks, blocks);
  else
    g_string_append_printf (line, " frames, %" G_GUINT64_FORMAT " blocks", stats.blocks);
  if (stats.frames > 0)
    g_string_append_printf (line, ", %.3g frames a second", stats.realtime_factor * plan->info.fps_n / plan->info.fps_d);
  if (frames > 0)
    append_time_left (line, &stats, blocks, now);
  show (line->str);
}

void
dp_cli_progress_frames (DpEngine *engine)
{
  gint64 now = g_get_monotonic_time ();

  g_mutex_lock (&progress.lock);
  if (progress.started && progress.loaded_us > 0 && now - progress.shown_us >= INTERVAL_US) {
    progress.has_frames = TRUE;
    progress.shown_us = now;
    show_frames (engine, now);
  }
  g_mutex_unlock (&progress.lock);
}

void
dp_cli_progress_end (DpEngine *engine)
{
  g_mutex_lock (&progress.lock);
  if (progress.started && engine) {
    show_frames (engine, g_get_monotonic_time ());
    fputc ('\n', stderr);
  } else if (progress.started) {
    fprintf (stderr, "\r%*s\r", progress.length, "");
  }
  progress.started = FALSE;
  g_mutex_unlock (&progress.lock);
}
