/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rtsp-http.h"

#include "web-api.h"

#define MAX_CONNECTIONS 200
#define MAX_PER_ADDRESS 50

struct _RtspHttp
{
  LiveServer *server;
  Http *http;
  Api *api;
  gint port;
  GAsyncQueue *messages;        /* for the main thread */
};

static guint
count_sessions (gpointer user_data)
{
  return live_server_sessions (((RtspHttp *) user_data)->server);
}

RtspHttp *
rtsp_http_new (LiveServer * server, GstElement * source, GstPad * pictures,
    gboolean allow_prompts, const gchar * token_file, const gchar * address, gint port,
    GError ** error)
{
  RtspHttp *http = g_new0 (RtspHttp, 1);
  gchar *token = NULL;

  http->server = server;
  http->messages = g_async_queue_new_full ((GDestroyNotify) gst_message_unref);
  if (http_read_token (token_file, &token, error)) {
    http->http = http_new (token, MAX_CONNECTIONS, MAX_PER_ADDRESS);
    http->api = api_new (source, pictures, allow_prompts, count_sessions, http,
        http->http);
    http->port = http_open (http->http, address, port, error);
    if (!http->port)
      g_prefix_error (error, "%s port %d: ", address, port);
  }
  g_free (token);
  if (!http->port)
    g_clear_pointer (&http, rtsp_http_free);
  return http;
}

gint
rtsp_http_port (RtspHttp * http)
{
  return http->port;
}

static gboolean
take_messages (gpointer user_data)
{
  RtspHttp *http = user_data;
  GstMessage *message;

  while ((message = g_async_queue_try_pop (http->messages))) {
    api_message (http->api, message);
    gst_message_unref (message);
  }
  return G_SOURCE_REMOVE;
}

void
rtsp_http_message (RtspHttp * http, GstMessage * message)
{
  if (!http)
    return;
  api_hear (http->api, message);
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_WARNING
      || GST_MESSAGE_TYPE (message) == GST_MESSAGE_ELEMENT) {
    g_async_queue_push (http->messages, gst_message_ref (message));
    g_idle_add (take_messages, http);
  }
}

void
rtsp_http_shut (RtspHttp * http)
{
  if (!http)
    return;
  http_shut (http->http);
  api_settle (http->api);
}

void
rtsp_http_free (RtspHttp * http)
{
  if (!http)
    return;
  while (g_idle_remove_by_data (http));
  http_free (http->http);
  api_free (http->api);
  g_async_queue_unref (http->messages);
  g_free (http);
}
