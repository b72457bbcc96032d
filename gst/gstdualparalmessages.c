/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalmessages.h"

GST_DEBUG_CATEGORY (gst_dualparal_src_debug);
#define GST_CAT_DEFAULT gst_dualparal_src_debug

/* Between two messages on the way, whichever comes first: gst-launch prints a line for each */
#define CONTINUE_US (G_TIME_SPAN_SECOND / 2)
#define CONTINUE_PERCENT 25

/* Several threads may report */
struct _GstDualParalProgress
{
  GstElement *element;
  GstDualParalPoster *poster;

  /* -- protected by lock */
  GMutex lock;
  gint percent;                 /* highest so far, -1 before the start */
  gint64 continued_us;          /* when the last message on the way was posted, and */
  gint continued;               /* its percent */
  gboolean ended;
};

void
gst_dualparal_post_error (GstElement * element, const GError * error)
{
  gchar *sentence = dp_quote (error->message, DP_QUOTE_SENTENCE);
  GQuark domain = GST_STREAM_ERROR;
  gint code = GST_STREAM_ERROR_FAILED;

  if (error->domain == DP_ERROR) {
    switch ((DpError) error->code) {
      case DP_ERROR_NOT_FOUND:
        domain = GST_RESOURCE_ERROR;
        code = GST_RESOURCE_ERROR_NOT_FOUND;
        break;
      case DP_ERROR_BAD_MODEL:
        domain = GST_RESOURCE_ERROR;
        code = GST_RESOURCE_ERROR_READ;
        break;
      case DP_ERROR_SETTINGS:
        domain = GST_RESOURCE_ERROR;
        code = GST_RESOURCE_ERROR_SETTINGS;
        break;
      case DP_ERROR_DEVICE:
        domain = GST_LIBRARY_ERROR;
        code = GST_LIBRARY_ERROR_INIT;
        break;
      case DP_ERROR_NO_MEMORY:
        domain = GST_RESOURCE_ERROR;
        code = GST_RESOURCE_ERROR_NO_SPACE_LEFT;
        break;
      case DP_ERROR_FLUSHING:
      case DP_ERROR_FAILED:
        break;
    }
  }
  GST_ERROR_OBJECT (element, "%s", sentence);
  gst_element_message_full (element, GST_MESSAGE_ERROR, domain, code,
      sentence, NULL, __FILE__, GST_FUNCTION, __LINE__);
}

GstDualParalProgress *
gst_dualparal_progress_new (GstElement * element,
    GstDualParalPoster * poster)
{
  GstDualParalProgress *progress = g_new0 (GstDualParalProgress, 1);

  progress->element = element;
  progress->poster = poster;
  progress->percent = -1;
  g_mutex_init (&progress->lock);
  return progress;
}

void
gst_dualparal_progress_free (GstDualParalProgress * progress)
{
  g_mutex_clear (&progress->lock);
  g_free (progress);
}

/* With the lock, for the order */
static void
gst_dualparal_progress_add (GstDualParalProgress * progress,
    GstProgressType type, const gchar * code, const gchar * text, gint percent)
{
  GstMessage *message = gst_message_new_progress (GST_OBJECT
      (progress->element), type, code, text);

  gst_structure_set (gst_message_writable_structure (message), "percent",
      G_TYPE_INT, percent, NULL);
  gst_dualparal_poster_post (progress->poster, message);
}

/* With the lock */
static void
gst_dualparal_progress_continue (GstDualParalProgress * progress,
    const gchar * code, const gchar * text, gint percent)
{
  const gint64 now = g_get_monotonic_time ();
  gchar *line;

  if (now - progress->continued_us < CONTINUE_US
      && percent - progress->continued < CONTINUE_PERCENT)
    return;
  progress->continued_us = now;
  progress->continued = percent;
  line = g_strdup_printf ("%s: %d %%", text, percent);
  gst_dualparal_progress_add (progress, GST_PROGRESS_TYPE_CONTINUE, code, line,
      percent);
  g_free (line);
}

/* Several threads report, so an older report may come after a newer one */
void
gst_dualparal_progress_report (GstDualParalProgress * progress,
    const gchar * code, const gchar * text, gint percent, gboolean canceled)
{
  g_mutex_lock (&progress->lock);
  if (progress->ended || (percent >= 0 && percent <= progress->percent))
    goto out;

  if (percent < 0)
    GST_INFO_OBJECT (progress->element, "%s: %s", code, text);
  else
    GST_CAT_LEVEL_LOG (GST_CAT_DEFAULT, percent < 100 ? GST_LEVEL_DEBUG :
        GST_LEVEL_INFO, progress->element, "%s: %s, %d%%", code, text, percent);

  if (progress->percent < 0 && percent >= 0)
    gst_dualparal_progress_add (progress, GST_PROGRESS_TYPE_START, code, text,
        0);
  if (percent >= 100)
    gst_dualparal_progress_add (progress, GST_PROGRESS_TYPE_COMPLETE, code,
        text, 100);
  else if (percent > 0)
    gst_dualparal_progress_continue (progress, code, text, percent);
  else if (percent < 0 && progress->percent >= 0)
    gst_dualparal_progress_add (progress, canceled ?
        GST_PROGRESS_TYPE_CANCELED : GST_PROGRESS_TYPE_ERROR, code, text,
        percent);
  progress->percent = percent;
  progress->ended = percent < 0 || percent >= 100;
out:
  g_mutex_unlock (&progress->lock);
}

void
gst_dualparal_progress_reset (GstDualParalProgress * progress,
    const gchar * code)
{
  if (progress->percent >= 0)
    gst_dualparal_progress_report (progress, code, "cancelled", -1, TRUE);
  progress->percent = -1;
  progress->continued_us = 0;
  progress->ended = FALSE;
}
