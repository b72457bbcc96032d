/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rtsp-clients.h: a GstRTSPServer and what its clients may do. Each connection has
 * sessions of its own, so that no other can use or end them. While one of them plays,
 * nothing is set up on that connection: gst-rtsp-server would change a transport that
 * is in use. A prompt comes by SET_PARAMETER, from clients that may steer.
 */
#pragma once

#include <gst/rtsp-server/rtsp-server.h>
#include "rtsp-door.h"

G_BEGIN_DECLS

/** Thread-safety: as GstRTSPServer */
#define LIVE_TYPE_SERVER (live_server_get_type ())
G_DECLARE_FINAL_TYPE (LiveServer, live_server, LIVE, SERVER, GstRTSPServer);

/** Before clients come. `door` limits prompts and `source` gets them; both have to
 *  stay as long as clients do. Not more than `max_sessions` at a time. */
void live_server_configure (LiveServer * server, Door * door, GstElement * source,
    gint max_sessions, gboolean allow_prompts);
/** How many there are. Any thread. */
guint live_server_sessions (LiveServer * server);
/** Ends sessions that timed out. */
void live_server_clean_up (LiveServer * server);

G_END_DECLS
