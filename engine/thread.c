/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "thread.h"
#include "dualparal.h"

GThread *
dp_thread_new (const char *name, GThreadFunc func, gpointer data, GError **error)
{
  g_autoptr (GError) failure = NULL;
  GThread *thread = g_thread_try_new (name, func, data, &failure);

  if (thread == NULL)
    dp_error_set (error, DP_ERROR_NO_MEMORY, "the thread %s cannot be started: %s; raise the limit of threads or of memory (ulimit -u and "
        "-v, pids.max of the cgroup), or end other programs", name, failure->message);
  return thread;
}
