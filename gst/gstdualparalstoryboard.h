/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalstoryboard.h: a storyboard is a SubRip file (.srt) whose cues are
 * prompts. One takes effect at the time it begins and holds until the next; when
 * it ends is checked, and means nothing else. The text is taken as it is, its
 * lines joined by spaces; markup is text too.
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct
{
  guint64 time;                 /* ns */
  gchar *prompt;
} GstDualParalCue;

/** Cues in the order of their times, which do not overlap; one at least. NULL
 *  with `error` (DP_ERROR_SETTINGS) that names the line. Free with
 *  g_array_unref(). */
GArray *gst_dualparal_storyboard_parse (const gchar * data, gsize size,
    GError ** error);

/** The same for a file of at most 1 MiB. Errors: DP_ERROR_NOT_FOUND too. */
GArray *gst_dualparal_storyboard_read (const gchar * path, GError ** error);

G_END_DECLS
