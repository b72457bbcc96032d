/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rtsp-http.h"

RtspHttp *
rtsp_http_new (LiveServer * server, GstElement * source, GstPad * pictures,
    gboolean allow_prompts, const gchar * token_file, const gchar * address, gint port,
    GError ** error)
{
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
      "--http-port: this program was built without libsoup 3");
  return NULL;
}

gint
rtsp_http_port (RtspHttp * http)
{
  return 0;
}

void
rtsp_http_message (RtspHttp * http, GstMessage * message)
{
}

void
rtsp_http_shut (RtspHttp * http)
{
}

void
rtsp_http_free (RtspHttp * http)
{
}
