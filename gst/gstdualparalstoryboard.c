/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalstoryboard.h"

#include <string.h>
#include "dualparal.h"

#define MAX_BYTES (1 << 20)
#define MILLISECOND G_GUINT64_CONSTANT (1000000)

static void
gst_dualparal_storyboard_cue_clear (gpointer data)
{
  g_free (((GstDualParalCue *) data)->prompt);
}

static void
gst_dualparal_storyboard_refuse (GError ** error, guint line,
    const gchar * expected, const gchar * found)
{
  gchar *start = g_utf8_substring (found, 0, MIN (g_utf8_strlen (found, -1),
          40));

  dp_error_set (error, DP_ERROR_SETTINGS, "line %u: expected %s, found \"%s\"",
      line, expected, start);
  g_free (start);
}

/* A number of `least` to `most` digits, then `end` */
static gboolean
gst_dualparal_storyboard_take_number (const gchar ** at, guint least,
    guint most, gchar end, guint * number)
{
  guint n = 0;

  *number = 0;
  while (n < most && g_ascii_isdigit ((*at)[n]))
    *number = *number * 10 + ((*at)[n++] - '0');
  if (n < least || (*at)[n] != end)
    return FALSE;
  *at += n + (end != '\0');
  return TRUE;
}

/* HH:MM:SS,mmm and then `end` */
static gboolean
gst_dualparal_storyboard_take_time (const gchar ** at, gchar end,
    guint64 * time)
{
  guint hours, minutes, seconds, millis;

  if (!gst_dualparal_storyboard_take_number (at, 2, 4, ':', &hours)
      || !gst_dualparal_storyboard_take_number (at, 2, 2, ':', &minutes)
      || !gst_dualparal_storyboard_take_number (at, 2, 2, ',', &seconds)
      || !gst_dualparal_storyboard_take_number (at, 3, 3, end, &millis)
      || minutes > 59 || seconds > 59)
    return FALSE;
  *time = (((hours * G_GUINT64_CONSTANT (60) + minutes) * 60 + seconds) * 1000
      + millis) * MILLISECOND;
  return TRUE;
}

static gboolean
gst_dualparal_storyboard_parse_times (const gchar * line, guint64 * from,
    guint64 * to)
{
  if (!gst_dualparal_storyboard_take_time (&line, ' ', from)
      || !g_str_has_prefix (line, "--> "))
    return FALSE;
  line += strlen ("--> ");
  return gst_dualparal_storyboard_take_time (&line, '\0', to);
}

/* The cue whose number is in lines[*at]; moves *at past its text */
static gboolean
gst_dualparal_storyboard_parse_cue (gchar ** lines, guint * at, guint64 * end,
    GArray * cues, GError ** error)
{
  GstDualParalCue cue = { 0, };
  guint64 to = 0;
  guint i = *at;

  if (lines[i][strspn (lines[i], "0123456789")] != '\0') {
    gst_dualparal_storyboard_refuse (error, i + 1, "the number of a cue",
        lines[i]);
    return FALSE;
  }
  i++;
  if (!lines[i]
      || !gst_dualparal_storyboard_parse_times (lines[i], &cue.time, &to)) {
    gst_dualparal_storyboard_refuse (error, i + 1,
        "times like 00:01:02,500 --> 00:01:05,000", lines[i] ? lines[i] : "");
    return FALSE;
  }
  if (to <= cue.time || cue.time < *end) {
    gst_dualparal_storyboard_refuse (error, i + 1,
        to <= cue.time ? "an end behind the beginning" :
        "a cue that begins when the one before has ended, or later", lines[i]);
    return FALSE;
  }
  *end = to;
  i++;
  *at = i;
  while (lines[i] && *lines[i])
    i++;
  if (i == *at) {
    gst_dualparal_storyboard_refuse (error, i + 1, "the text of a cue", "");
    return FALSE;
  }
  {
    gchar *next = lines[i];

    lines[i] = NULL;
    cue.prompt = g_strjoinv (" ", lines + *at);
    lines[i] = next;
  }
  g_array_append_val (cues, cue);
  if (!dp_prompt_check (cue.prompt, error)) {
    g_prefix_error (error, "line %u: ", *at + 1);
    return FALSE;
  }
  *at = i;
  return TRUE;
}

GArray *
gst_dualparal_storyboard_parse (const gchar * data, gsize size, GError ** error)
{
  GArray *cues;
  gchar **lines, *text;
  guint64 end = 0;
  gboolean ok = TRUE;
  guint i;

  if (size > MAX_BYTES || !g_utf8_validate_len (data, size, NULL)) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS,
        "expected a SubRip file of UTF-8 text and at most %d bytes, found %s",
        MAX_BYTES, size > MAX_BYTES ? "more" : "bytes that are not UTF-8");
    return NULL;
  }
  if (size >= 3 && memcmp (data, "\357\273\277", 3) == 0) {
    data += 3;
    size -= 3;
  }
  text = g_strndup (data, size);
  lines = g_strsplit (text, "\n", -1);
  g_free (text);
  for (i = 0; lines[i]; i++)
    g_strchomp (lines[i]);

  cues = g_array_new (FALSE, FALSE, sizeof (GstDualParalCue));
  g_array_set_clear_func (cues, gst_dualparal_storyboard_cue_clear);
  for (i = 0; ok && lines[i];) {
    if (*lines[i])
      ok = gst_dualparal_storyboard_parse_cue (lines, &i, &end, cues, error);
    else
      i++;
  }
  g_strfreev (lines);
  if (ok && cues->len == 0) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_SETTINGS,
        "expected cues of a SubRip file, found none");
    ok = FALSE;
  }
  if (ok)
    return cues;
  g_array_unref (cues);
  return NULL;
}

GArray *
gst_dualparal_storyboard_read (const gchar * path, GError ** error)
{
  GError *failure = NULL;
  GArray *cues = NULL;
  gchar *data = NULL;
  gsize size;

  if (g_file_get_contents (path, &data, &size, &failure)) {
    cues = gst_dualparal_storyboard_parse (data, size, &failure);
    if (!cues) {
      dp_error_set (error, failure->code, "storyboard %s: %.500s", path,
          failure->message);
      g_error_free (failure);
    }
  } else {
    dp_error_set (error,
        g_error_matches (failure, G_FILE_ERROR, G_FILE_ERROR_NOENT) ?
        DP_ERROR_NOT_FOUND : DP_ERROR_BAD_MODEL,
        "storyboard: %.500s; give the path of a SubRip file", failure->message);
    g_error_free (failure);
  }
  g_free (data);
  return cues;
}
