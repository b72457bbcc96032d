/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * thread.h: threads whose start may fail. The number of threads of a process, a user and a cgroup is limited; at that limit GLib's
 * g_thread_new() ends the process.
 */
#pragma once

#include <glib.h>

/** As g_thread_new(). NULL with DP_ERROR_NO_MEMORY where the system starts no more threads. Thread-safe. */
GThread *dp_thread_new (const char *name, GThreadFunc func, gpointer data, GError **error);
