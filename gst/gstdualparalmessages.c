/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalmessages.h"

void
gst_dualparal_post_error (GstElement * element, const GError * error)
{
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
  gst_element_message_full (element, GST_MESSAGE_ERROR, domain, code,
      g_strdup (error->message), NULL, __FILE__, GST_FUNCTION, __LINE__);
}

void
gst_dualparal_progress_init (GstDualParalProgress * progress)
{
  g_mutex_init (&progress->lock);
  g_queue_init (&progress->messages);
  progress->percent = -1;
  progress->ended = progress->posting = FALSE;
}

void
gst_dualparal_progress_clear (GstDualParalProgress * progress)
{
  g_mutex_clear (&progress->lock);
}

static void
add_message (GstDualParalProgress * progress, GstElement * element,
    GstProgressType type, const gchar * code, const gchar * text, gint percent)
{
  GstMessage *message = gst_message_new_progress (GST_OBJECT (element), type,
      code, text);

  gst_structure_set (gst_message_writable_structure (message), "percent",
      G_TYPE_INT, percent, NULL);
  g_queue_push_tail (&progress->messages, message);
}

/* With the lock, which is let go while a message is posted */
static void
post_messages (GstDualParalProgress * progress, GstElement * element)
{
  GstMessage *message;

  if (progress->posting)
    return;
  progress->posting = TRUE;
  while ((message = g_queue_pop_head (&progress->messages))) {
    g_mutex_unlock (&progress->lock);
    gst_element_post_message (element, message);
    g_mutex_lock (&progress->lock);
  }
  progress->posting = FALSE;
}

/* Several threads report, so an older report may come after a newer one */
void
gst_dualparal_progress_report (GstDualParalProgress * progress,
    GstElement * element, const gchar * code, const gchar * text, gint percent,
    gboolean canceled)
{
  g_mutex_lock (&progress->lock);
  if (progress->ended || (percent >= 0 && percent <= progress->percent))
    goto out;

  if (progress->percent < 0 && percent >= 0)
    add_message (progress, element, GST_PROGRESS_TYPE_START, code, text, 0);
  if (percent >= 100)
    add_message (progress, element, GST_PROGRESS_TYPE_COMPLETE, code, text,
        100);
  else if (percent > 0)
    add_message (progress, element, GST_PROGRESS_TYPE_CONTINUE, code, text,
        percent);
  else if (percent < 0 && progress->percent >= 0)
    add_message (progress, element, canceled ? GST_PROGRESS_TYPE_CANCELED :
        GST_PROGRESS_TYPE_ERROR, code, text, percent);
  progress->percent = percent;
  progress->ended = percent < 0 || percent >= 100;
  post_messages (progress, element);
out:
  g_mutex_unlock (&progress->lock);
}

void
gst_dualparal_progress_reset (GstDualParalProgress * progress,
    GstElement * element, const gchar * code)
{
  gst_dualparal_progress_report (progress, element, code, "cancelled", -1,
      TRUE);
  progress->percent = -1;
  progress->ended = FALSE;
}

GstStructure *
gst_dualparal_prompt_new (const gchar * name, const gchar * prompt, guint id,
    gint64 block, guint64 frame)
{
  return gst_structure_new (name, "prompt", G_TYPE_STRING, prompt,
      "prompt-id", G_TYPE_UINT, id, "block", G_TYPE_INT64, block,
      "frame", G_TYPE_UINT64, frame, NULL);
}
