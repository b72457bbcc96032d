/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base_class.h"

#include <gst/base/gstpushsrc.h>

static GstStateChangeReturn (*old_change_state) (GstElement * element,
    GstStateChange transition);
static GstFlowReturn (*old_create) (GstPushSrc * src, GstBuffer ** buffer);
static gboolean (*old_unlock) (GstBaseSrc * src);
static gint unlock_stop_pending;        /* atomic */

static GMutex lock;
static GCond cond;
/* -- protected by lock */
static enum
{
  FREE,
  HOLD,                         /* the next unlock_stop() */
  HELD,                         /* it waits */
} hold;

void
base_class_hold (void)
{
  g_mutex_lock (&lock);
  hold = HOLD;
  g_mutex_unlock (&lock);
}

void
base_class_wait_held (void)
{
  g_mutex_lock (&lock);
  while (hold != HELD)
    g_cond_wait (&cond, &lock);
  g_mutex_unlock (&lock);
}

/* Until the pad is flushing, and the element was told */
static void
wait_for_stop (GstBaseSrc * src)
{
  g_mutex_lock (&lock);
  if (hold == HOLD) {
    hold = HELD;
    g_cond_broadcast (&cond);
    while (hold == HELD)
      g_cond_wait (&cond, &lock);
  }
  g_mutex_unlock (&lock);
}

static gboolean
new_unlock (GstBaseSrc * src)
{
  const gboolean unlocked = old_unlock (src);

  g_mutex_lock (&lock);
  if (hold == HELD && GST_PAD_IS_FLUSHING (src->srcpad)) {
    hold = FREE;
    g_cond_broadcast (&cond);
  }
  g_mutex_unlock (&lock);
  return unlocked;
}

/* What it added to gst_base_src_set_playing() */
static GstStateChangeReturn
new_change_state (GstElement * element, GstStateChange transition)
{
  GstBaseSrc *src = GST_BASE_SRC (element);

  if (transition == GST_STATE_CHANGE_PLAYING_TO_PAUSED) {
    g_mutex_lock (&src->live_lock);
    GST_BASE_SRC_GET_CLASS (src)->unlock (src);
    src->live_running = FALSE;
    g_mutex_unlock (&src->live_lock);
  } else if (transition == GST_STATE_CHANGE_PAUSED_TO_PLAYING) {
    g_atomic_int_set (&unlock_stop_pending, TRUE);
  }
  return old_change_state (element, transition);
}

/* And to gst_base_src_get_range() */
static GstFlowReturn
new_create (GstPushSrc * push, GstBuffer ** buffer)
{
  GstBaseSrc *src = GST_BASE_SRC (push);
  GstFlowReturn flow;
  gboolean running;

  for (;;) {
    if (g_atomic_int_compare_and_exchange (&unlock_stop_pending, TRUE, FALSE)) {
      wait_for_stop (src);
      GST_BASE_SRC_GET_CLASS (src)->unlock_stop (src);
    }
    flow = old_create (push, buffer);
    g_mutex_lock (&src->live_lock);
    running = src->live_running;
    g_mutex_unlock (&src->live_lock);
    if (running)
      return flow;
    if (flow == GST_FLOW_OK)
      gst_clear_buffer (buffer);
    flow = gst_base_src_wait_playing (src);
    if (flow != GST_FLOW_OK)
      return flow;
  }
}

gboolean
base_class_use_new (gboolean use)
{
  GstElement *src = gst_element_factory_make ("dualparalsrc", NULL);
  GstPushSrcClass *klass = GST_PUSH_SRC_GET_CLASS (src);
  GstBaseSrcClass *base = GST_BASE_SRC_CLASS (klass);
  GstElementClass *parent = g_type_class_peek_parent (klass);
  guint major, minor, micro, nano;

  gst_object_unref (src);
  gst_version (&major, &minor, &micro, &nano);
  if (minor >= 24)
    return FALSE;
  if (use && klass->create != new_create) {
    old_change_state = parent->change_state;
    parent->change_state = new_change_state;
    old_create = klass->create;
    klass->create = new_create;
    old_unlock = base->unlock;
    base->unlock = new_unlock;
  } else if (!use && klass->create == new_create) {
    parent->change_state = old_change_state;
    klass->create = old_create;
    base->unlock = old_unlock;
  }
  return TRUE;
}
