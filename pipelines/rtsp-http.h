/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rtsp-http.h: the HTTP API of the page (web-api.h) beside the RTSP server. rtsp-no-http.c
 * takes its place in a build without libsoup.
 */
#pragma once

#include "rtsp-clients.h"

G_BEGIN_DECLS

/** Thread-safety: the thread of the default main context, which also has to run; but for
 *  messages. */
typedef struct _RtspHttp RtspHttp;

/** Listens, and answers. `pictures`: a pad that raw pictures of `source` pass. `token_file`: NULL
 *  is none. NULL with an error. All but texts are borrowed, and live longer. */
RtspHttp *rtsp_http_new (LiveServer * server, GstElement * source, GstPad * pictures,
    gboolean allow_prompts, const gchar * token_file, const gchar * address, gint port,
    GError ** error);
/** Where. */
gint rtsp_http_port (RtspHttp * http);
/** Each message of the pipeline, in the thread that posts it. NULL is nothing. Any thread. */
void rtsp_http_message (RtspHttp * http, GstMessage * message);
/** NULL is nothing. Nobody gets in any more, and all connections end. */
void rtsp_http_shut (RtspHttp * http);
/** NULL is nothing. When no pictures pass any more and no messages come. */
void rtsp_http_free (RtspHttp * http);

G_END_DECLS
