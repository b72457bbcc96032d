/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalposter.h"

struct _GstDualParalPoster
{
  GstElement *element;

  /* -- protected by lock, which is released while a message is posted */
  GMutex lock;
  GCond cond;                   /* all is posted */
  GQueue messages;
  gboolean running;             /* a thread posts, or is about to */
  GThread *thread;              /* that one, once it runs */
};

GstDualParalPoster *
gst_dualparal_poster_new (GstElement * element)
{
  GstDualParalPoster *poster = g_new0 (GstDualParalPoster, 1);

  poster->element = element;
  g_mutex_init (&poster->lock);
  g_cond_init (&poster->cond);
  return poster;
}

void
gst_dualparal_poster_free (GstDualParalPoster * poster)
{
  g_mutex_clear (&poster->lock);
  g_cond_clear (&poster->cond);
  g_free (poster);
}

/* The caller holds the element, and with it the poster */
static void
gst_dualparal_poster_run (GstElement * element, gpointer data)
{
  GstDualParalPoster *poster = data;
  GstMessage *message;

  g_mutex_lock (&poster->lock);
  poster->thread = g_thread_self ();
  while ((message = g_queue_pop_head (&poster->messages))) {
    g_mutex_unlock (&poster->lock);
    gst_element_post_message (element, message);
    g_mutex_lock (&poster->lock);
  }
  poster->thread = NULL;
  poster->running = FALSE;
  g_cond_broadcast (&poster->cond);
  g_mutex_unlock (&poster->lock);
}

void
gst_dualparal_poster_post (GstDualParalPoster * poster, GstMessage * message)
{
  gboolean start;

  g_mutex_lock (&poster->lock);
  g_queue_push_tail (&poster->messages, message);
  start = !poster->running;
  poster->running = TRUE;
  g_mutex_unlock (&poster->lock);
  if (start)
    gst_element_call_async (poster->element, gst_dualparal_poster_run, poster,
        NULL);
}

gboolean
gst_dualparal_poster_is_idle (GstDualParalPoster * poster)
{
  gboolean idle;

  g_mutex_lock (&poster->lock);
  idle = !poster->running;
  g_mutex_unlock (&poster->lock);
  return idle;
}

void
gst_dualparal_poster_drain (GstDualParalPoster * poster)
{
  g_mutex_lock (&poster->lock);
  while (poster->running && poster->thread != g_thread_self ())
    g_cond_wait (&poster->cond, &poster->lock);
  g_mutex_unlock (&poster->lock);
}
