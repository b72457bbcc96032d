/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rtsp-door.h: where clients come in. The door listens, limits connections in all and
 * per address, shakes hands when there is TLS, in a thread of each connection, and
 * then hands the connection to gst-rtsp-server, which reads from it whole requests
 * (rtsp-requests.h). It cuts off clients that take too long over a handshake or a
 * request. And it counts, per address, what a client may do only so often.
 */
#pragma once

#include <gst/rtsp-server/rtsp-server.h>

G_BEGIN_DECLS

/** Thread-safety: opened, shut and freed by the thread of the default main context,
 *  which also has to run; the rest by any. */
typedef struct _Door Door;

typedef enum
{
  DOOR_LOGIN,                   /* a wrong password: 20, then one a second */
  DOOR_PROMPT,                  /* a prompt: 10, then one a second */
} DoorLimit;

/** Nobody gets in before door_open(). With a certificate everything is TLS, 1.2 or
 *  later. */
Door *door_new (GstRTSPServer * server, gint connections, gint per_address,
    GTlsCertificate * certificate);
/** Listens at the address and port of the server. Returns the port, or 0. */
gint door_open (Door * door, GError ** error);
/** Nobody gets in any more; who is in may stay. */
void door_shut (Door * door);
/** Cuts everybody off. Their threads notice by themselves. */
void door_cut_off (Door * door);
/** NULL is nothing. When everybody is cut off, and has left. */
void door_free (Door * door);

/** Whether `ip` may do that once more, and without `take` does not count it. */
gboolean door_allows (Door * door, const gchar * ip, DoorLimit limit,
    gboolean take);

G_END_DECLS
