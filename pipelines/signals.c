/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "signals.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

/* After this time the process ends whatever it does */
#define LAST_MS 2800

static gint serving, ending, exit_status;       /* atomic */
static GSourceFunc end_video;   /* both set before serving */
static gpointer end_data;

static void
end_signals (sigset_t * signals)
{
  sigemptyset (signals);
  sigaddset (signals, SIGINT);
  sigaddset (signals, SIGTERM);
  sigaddset (signals, SIGHUP);
  sigaddset (signals, SIGALRM);
}

static gpointer
wait_for_signals (gpointer user_data)
{
  sigset_t signals;
  gint received;

  end_signals (&signals);
  for (;;) {
    if (sigwait (&signals, &received))
      continue;
    if (received != SIGALRM && !g_atomic_int_get (&serving))
      _exit (128 + received);
    if (received == SIGALRM || g_atomic_int_get (&ending))
      _exit (signals_status ());
    signals_set_deadline ();
    g_idle_add_full (G_PRIORITY_HIGH, end_video, end_data, NULL);
  }
  return NULL;
}

void
signals_catch (void)
{
  sigset_t signals;

  end_signals (&signals);
  pthread_sigmask (SIG_BLOCK, &signals, NULL);  /* in all threads to come */
  g_thread_unref (g_thread_new ("signals", wait_for_signals, NULL));
}

void
signals_serve (GSourceFunc end, gpointer user_data)
{
  end_video = end;
  end_data = user_data;
  g_atomic_int_set (&serving, TRUE);
}

void
signals_set_deadline (void)
{
  struct itimerval when = {.it_value = {LAST_MS / 1000, LAST_MS % 1000 * 1000} };

  if (g_atomic_int_compare_and_exchange (&ending, FALSE, TRUE))
    setitimer (ITIMER_REAL, &when, NULL);
}

void
signals_set_status (gint status)
{
  g_atomic_int_set (&exit_status, status);
}

gint
signals_status (void)
{
  return g_atomic_int_get (&exit_status);
}
