/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rtsp-clients.h"

#include <gst/video/video.h>
#include <string.h>
#include <sys/socket.h>
#include "console.h"
#include "rtsp-users.h"

/* A client that finds no UDP pauses and sets up TCP beside it */
#define SESSIONS_A_CONNECTION 2
/* What the kernel keeps for a client that stops reading; by itself it would be
 * half a minute of video, and as much behind the others it would go on */
#define SEND_BYTES (256 * 1024)
/* How long after the end of its session a client may stay connected */
#define LEAVE_SECONDS 5

struct _LiveServer
{
  GstRTSPServer parent;
  Door *door;                   /* borrowed */
  GstElement *source;           /* borrowed */
  gint max_sessions;
  gboolean allow_prompts;
  gint sessions;                /* atomic: of all clients */
};

G_DEFINE_TYPE (LiveServer, live_server, GST_TYPE_RTSP_SERVER);

#define LIVE_TYPE_CLIENT (live_client_get_type ())
G_DECLARE_FINAL_TYPE (LiveClient, live_client, LIVE, CLIENT, GstRTSPClient);

struct _LiveClient
{
  GstRTSPClient parent;
  LiveServer *server;           /* borrowed: it keeps its clients */
};

G_DEFINE_TYPE (LiveClient, live_client, GST_TYPE_RTSP_CLIENT);

/* -- sessions */

static GstRTSPFilterResult
media_plays (GstRTSPSession * session, GstRTSPSessionMedia * media,
    gpointer user_data)
{
  if (gst_rtsp_session_media_get_rtsp_state (media) == GST_RTSP_STATE_PLAYING)
    *(gboolean *) user_data = TRUE;
  return GST_RTSP_FILTER_KEEP;
}

static GstRTSPFilterResult
session_plays (GstRTSPSessionPool * sessions, GstRTSPSession * session,
    gpointer user_data)
{
  gst_rtsp_session_filter (session, media_plays, user_data);
  return GST_RTSP_FILTER_KEEP;
}

static gboolean
plays (GstRTSPClient * client)
{
  GstRTSPSessionPool *sessions = gst_rtsp_client_get_session_pool (client);
  gboolean plays = FALSE;

  gst_rtsp_session_pool_filter (sessions, session_plays, &plays);
  g_object_unref (sessions);
  return plays;
}

/* The last word on a SETUP before it changes anything. (A refusal in
 * pre-setup-request keeps the session for good.) */
static gboolean
live_client_configure_media (GstRTSPClient * client, GstRTSPMedia * media,
    GstRTSPStream * stream, GstRTSPContext * ctx)
{
  LiveServer *server = LIVE_CLIENT (client)->server;
  GstRTSPStatusCode code = GST_RTSP_STS_OK;

  if (plays (client))
    code = GST_RTSP_STS_METHOD_NOT_VALID_IN_THIS_STATE;
  else if (g_atomic_int_get (&server->sessions) > server->max_sessions)
    code = GST_RTSP_STS_SERVICE_UNAVAILABLE;
  if (code == GST_RTSP_STS_OK)
    return GST_RTSP_CLIENT_CLASS (live_client_parent_class)->configure_client_media
        (client, media, stream, ctx);
  gst_rtsp_message_init_response (ctx->response, code,
      gst_rtsp_status_as_text (code), ctx->request);
  gst_rtsp_client_send_message (client, NULL, ctx->response);
  return FALSE;
}

static void
live_client_new_session (GstRTSPClient * client, GstRTSPSession * session)
{
  g_atomic_int_inc (&LIVE_CLIENT (client)->server->sessions);
}

static void
session_removed (LiveServer * server)
{
  g_atomic_int_add (&server->sessions, -1);
}

static GstRTSPFilterResult
end_session (GstRTSPSessionPool * sessions, GstRTSPSession * session, gpointer none)
{
  return GST_RTSP_FILTER_REMOVE;
}

/* Else their places are taken until they time out, which is a minute */
static void
live_client_closed (GstRTSPClient * client)
{
  GstRTSPSessionPool *sessions = gst_rtsp_client_get_session_pool (client);

  gst_rtsp_session_pool_filter (sessions, end_session, NULL);
  g_object_unref (sessions);
}

/* -- prompts */

/* `prompt: ...` in a line of text/parameters; the last one wins */
static GstRTSPStatusCode
parse_parameters (GstRTSPMessage * request, gchar ** prompt)
{
  GstRTSPStatusCode code = GST_RTSP_STS_OK;
  gchar *type = NULL, *text, *value, **lines, **line;
  guint8 *body;
  guint size;

  gst_rtsp_message_get_header (request, GST_RTSP_HDR_CONTENT_TYPE, &type, 0);
  if (type && g_ascii_strncasecmp (type, "text/parameters", 15) != 0)
    return GST_RTSP_STS_UNSUPPORTED_MEDIA_TYPE;

  gst_rtsp_message_get_body (request, &body, &size);
  /* A keep-alive has none; behind any other GStreamer has put a NUL */
  if (!size)
    return GST_RTSP_STS_OK;
  if (memchr (body, '\0', size - 1))
    return GST_RTSP_STS_BAD_REQUEST;
  text = g_strndup ((const gchar *) body, size);
  lines = g_strsplit (text, "\n", -1);
  for (line = lines; *line && code == GST_RTSP_STS_OK; line++) {
    value = strchr (g_strstrip (*line), ':');
    if (g_ascii_strncasecmp (*line, "prompt:", 7) == 0) {
      g_free (*prompt);
      *prompt = g_strdup (g_strchug (value + 1));
    } else if (**line) {
      code = value ? GST_RTSP_STS_PARAMETER_NOT_UNDERSTOOD :
          GST_RTSP_STS_BAD_REQUEST;
    }
  }
  g_strfreev (lines);
  g_free (text);
  return code;
}

/* The video's, or that of a stream in it; `*` is NULL */
static gboolean
is_ours (GstRTSPClient * client, const GstRTSPUrl * url)
{
  GstRTSPMountPoints *mounts = gst_rtsp_client_get_mount_points (client);
  gchar *path = url ? gst_rtsp_mount_points_make_path (mounts, url) : NULL;
  GstRTSPMediaFactory *factory = NULL;
  gint matched;

  if (path)
    factory = gst_rtsp_mount_points_match (mounts, path, &matched);
  g_object_unref (mounts);
  g_free (path);
  if (factory)
    g_object_unref (factory);
  return factory != NULL;
}

static GstRTSPStatusCode
set_prompt (GstRTSPClient * client, GstRTSPContext * ctx, const gchar * prompt)
{
  LiveServer *server = LIVE_CLIENT (client)->server;
  const gchar *ip = gst_rtsp_connection_get_ip (ctx->conn);
  gchar *who;

  if (!is_ours (client, ctx->uri))
    return GST_RTSP_STS_NOT_FOUND;
  if (!server->allow_prompts || !users_may_steer (ctx))
    return GST_RTSP_STS_FORBIDDEN;
  who = users_describe (ctx);
  if (!door_allows (server->door, ip, DOOR_PROMPT, TRUE)) {
    console_say_limited ("%s sends prompts too often", who);
    g_free (who);
    return GST_RTSP_STS_SERVICE_UNAVAILABLE;
  }
  console_say ("%s asks for: %s", who, prompt);
  g_free (who);
  return console_set_prompt (server->source, prompt) ? GST_RTSP_STS_OK :
      GST_RTSP_STS_BAD_REQUEST;
}

static GstRTSPStatusCode
live_client_set_parameter (GstRTSPClient * client, GstRTSPContext * ctx)
{
  gchar *prompt = NULL;
  GstRTSPStatusCode code = parse_parameters (ctx->request, &prompt);

  if (code == GST_RTSP_STS_OK && prompt)
    code = set_prompt (client, ctx, prompt);
  g_free (prompt);
  /* Without a body it is a request that has been understood */
  if (code == GST_RTSP_STS_OK)
    gst_rtsp_message_take_body (ctx->request, NULL, 0);
  return code;
}

/* A player shows nothing before a key frame */
static void
live_client_play (GstRTSPClient * client, GstRTSPContext * ctx)
{
  GstElement *source = LIVE_CLIENT (client)->server->source,
      *pay = gst_bin_get_by_name (GST_BIN (GST_OBJECT_PARENT (source)), "pay0");

  gst_element_send_event (pay,
      gst_video_event_new_upstream_force_key_unit (GST_CLOCK_TIME_NONE, TRUE, 0));
  gst_object_unref (pay);
}

static void
live_client_class_init (LiveClientClass * klass)
{
  GstRTSPClientClass *client_class = GST_RTSP_CLIENT_CLASS (klass);

  client_class->configure_client_media = live_client_configure_media;
  client_class->new_session = live_client_new_session;
  client_class->closed = live_client_closed;
  client_class->pre_set_parameter_request = live_client_set_parameter;
  client_class->play_request = live_client_play;
}

static void
live_client_init (LiveClient * client)
{
}

/* -- the server */

static GstRTSPClient *
live_server_create_client (GstRTSPServer * server)
{
  GstRTSPClient *client = g_object_new (LIVE_TYPE_CLIENT, "post-session-timeout",
      LEAVE_SECONDS, NULL);
  g_autoptr (GstRTSPSessionPool) sessions = gst_rtsp_session_pool_new ();
  g_autoptr (GstRTSPMountPoints) mounts = gst_rtsp_server_get_mount_points (server);
  g_autoptr (GstRTSPAuth) auth = gst_rtsp_server_get_auth (server);
  g_autoptr (GstRTSPThreadPool) threads = gst_rtsp_server_get_thread_pool (server);

  LIVE_CLIENT (client)->server = LIVE_SERVER (server);
  gst_rtsp_session_pool_set_max_sessions (sessions, SESSIONS_A_CONNECTION);
  g_signal_connect_swapped (sessions, "session-removed",
      G_CALLBACK (session_removed), server);
  gst_rtsp_client_set_session_pool (client, sessions);
  gst_rtsp_client_set_mount_points (client, mounts);
  gst_rtsp_client_set_auth (client, auth);
  gst_rtsp_client_set_thread_pool (client, threads);
  gst_rtsp_client_set_content_length_limit (client,
      gst_rtsp_server_get_content_length_limit (server));
  return client;
}

static void
live_server_client_connected (GstRTSPServer * server, GstRTSPClient * client)
{
  GSocket *socket = gst_rtsp_connection_get_write_socket
      (gst_rtsp_client_get_connection (client));

  g_socket_set_option (socket, SOL_SOCKET, SO_SNDBUF, SEND_BYTES, NULL);
}

static void
live_server_class_init (LiveServerClass * klass)
{
  GstRTSPServerClass *server_class = GST_RTSP_SERVER_CLASS (klass);

  server_class->create_client = live_server_create_client;
  server_class->client_connected = live_server_client_connected;
}

static void
live_server_init (LiveServer * server)
{
}

void
live_server_configure (LiveServer * server, Door * door, GstElement * source,
    gint max_sessions, gboolean allow_prompts)
{
  server->door = door;
  server->source = source;
  server->max_sessions = max_sessions;
  server->allow_prompts = allow_prompts;
}

static GstRTSPFilterResult
clean_up (GstRTSPServer * server, GstRTSPClient * client, gpointer none)
{
  g_autoptr (GstRTSPSessionPool) sessions =
      gst_rtsp_client_get_session_pool (client);

  gst_rtsp_session_pool_cleanup (sessions);
  return GST_RTSP_FILTER_KEEP;
}

guint
live_server_sessions (LiveServer * server)
{
  return g_atomic_int_get (&server->sessions);
}

void
live_server_clean_up (LiveServer * server)
{
  gst_rtsp_server_client_filter (GST_RTSP_SERVER (server), clean_up, NULL);
}
