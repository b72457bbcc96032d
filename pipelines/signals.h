/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * signals.h: the end of a server. SIGINT, SIGTERM and SIGHUP reach one thread only, so
 * nothing that a client does can hold them up: the first one ends the video, a second
 * one or the deadline ends the process.
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/** From now on a signal ends the process, with 128 and its number. Comes first, as only
 *  threads that start later are protected from signals. */
void signals_catch (void);
/** From now on the first signal calls `end`, once and in the default main context, and
 *  sets the deadline. */
void signals_serve (GSourceFunc end, gpointer user_data);
/** The process ends within 3 seconds, unless a signal has already said so. Any thread. */
void signals_set_deadline (void);
/** The exit status where signal or deadline end the process; 0 until then. Any thread. */
void signals_set_status (gint status);
gint signals_status (void);

G_END_DECLS
