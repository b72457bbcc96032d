/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalstoryboard.h: a storyboard is a SubRip file (.srt) whose cues are
 * prompts. A prompt takes effect at the time its cue begins, and holds until the
 * next. The end of a cue is checked but not used. The lines of a text are joined
 * by spaces; markup is kept as text.
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct
{
  guint64 time;                 /* ns */
  gchar *prompt;
} GstDualParalCue;

/** The cues, at least one, in the order of their times. They do not overlap. NULL
 *  with `error` (DP_ERROR_SETTINGS) that names the line. Free with
 *  g_array_unref(). */
GArray *gst_dualparal_storyboard_parse (const gchar * data, gsize size,
    GError ** error);

/** The same for a file of at most 1 MiB. Also DP_ERROR_NOT_FOUND. */
GArray *gst_dualparal_storyboard_read (const gchar * path, GError ** error);

G_END_DECLS
