/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rtsp-requests.h: what a client sends, as an input stream for gst-rtsp-server.
 * gst-rtsp-server reads a header byte by byte for as long as bytes come, in a thread
 * that serves other clients too. From this stream it gets headers that are complete
 * and short, and at most one message each time the stream is dispatched, so that no
 * client can hold a thread. A client that breaks a limit gets an answer and then the
 * end of the stream.
 *
 * Limits: 16 KiB for a header, no NUL in it, no HTTP (the tunnels of gst-rtsp-server
 * join connections of different threads). How long a client may take is the caller's
 * to watch.
 */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/** Thread-safety: read by one thread; the functions below by any. */
#define REQUEST_TYPE_STREAM (request_stream_get_type ())
G_DECLARE_FINAL_TYPE (RequestStream, request_stream, REQUEST, STREAM, GInputStream);

/** `client`: where bytes come from and refusals go; not blocking. `address` is what
 *  log lines call it. The first request is due from now on. */
RequestStream *request_stream_new (GIOStream * client, const gchar * address);
/** The monotonic time since when the client owes the rest of a message, or
 *  G_MAXINT64. */
gint64 request_stream_owes_since (RequestStream * stream);
/** Ends the stream at its next read, with an answer that says it took too long. */
void request_stream_expire (RequestStream * stream);

G_END_DECLS
