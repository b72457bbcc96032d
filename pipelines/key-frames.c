/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "key-frames.h"

#include <gst/video/video.h>

#define KEY_FRAME_MS 500

struct _KeyFrames
{
  GstPad *pad;
  gulong probe;

  GMutex lock;
  /* -- protected by lock */
  gint64 next;                  /* not earlier */
  guint waiting;                /* source of a request that waits */
};

void
key_frames_ask (KeyFrames * keys)
{
  gst_pad_send_event (keys->pad,
      gst_video_event_new_upstream_force_key_unit (GST_CLOCK_TIME_NONE, TRUE, 0));
}

static gboolean
ask_later (gpointer user_data)
{
  KeyFrames *keys = user_data;

  g_mutex_lock (&keys->lock);
  keys->waiting = 0;
  g_mutex_unlock (&keys->lock);
  key_frames_ask (keys);
  return G_SOURCE_REMOVE;
}

static GstPadProbeReturn
limit (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  KeyFrames *keys = user_data;
  gint64 now = g_get_monotonic_time (), wait;
  GstPadProbeReturn pass = GST_PAD_PROBE_OK;

  if (!gst_video_event_is_force_key_unit (GST_PAD_PROBE_INFO_EVENT (info)))
    return GST_PAD_PROBE_OK;
  g_mutex_lock (&keys->lock);
  wait = keys->next - now;
  if (wait <= 0) {
    keys->next = now + KEY_FRAME_MS * 1000;
  } else {
    pass = GST_PAD_PROBE_DROP;
    if (!keys->waiting)
      keys->waiting = g_timeout_add (wait / 1000 + 1, ask_later, keys);
  }
  g_mutex_unlock (&keys->lock);
  return pass;
}

KeyFrames *
key_frames_limit (GstElement * element)
{
  KeyFrames *keys = g_new0 (KeyFrames, 1);

  g_mutex_init (&keys->lock);
  keys->pad = gst_element_get_static_pad (element, "src");
  keys->probe = gst_pad_add_probe (keys->pad, GST_PAD_PROBE_TYPE_EVENT_UPSTREAM,
      limit, keys, NULL);
  return keys;
}

void
key_frames_free (KeyFrames * keys)
{
  if (!keys)
    return;
  gst_pad_remove_probe (keys->pad, keys->probe);
  if (keys->waiting)
    g_source_remove (keys->waiting);
  gst_object_unref (keys->pad);
  g_mutex_clear (&keys->lock);
  g_free (keys);
}
