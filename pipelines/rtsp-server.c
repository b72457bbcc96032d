/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rtsp-server.c: one endless video, for whoever connects. There is one media, made
 * before the first client and kept for good, so that the model loads once and a
 * client only has to be let in. It has a viewer in this process, which throws
 * away what it gets. Without it the media would stand still with a picture in hand
 * until the first client, and again whenever the only one stops reading.
 */
#include <glib-unix.h>
#include <gst/rtsp-server/rtsp-server.h>
#include <gst/video/video.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include "console.h"

/* The encoder makes a key frame every two seconds at 16 frames a second, and one
 * for each client that joins. With one thread a picture is one slice; of several
 * that come over RTP, openh264dec shows nothing. When it is too slow, the oldest
 * pictures are left out and not the video held back. */
#define PIPELINE "dualparalsrc name=source is-live=true " \
    "startup-policy=placeholder ! queue leaky=downstream " \
    "! x264enc tune=zerolatency threads=1 speed-preset=veryfast " \
    "key-int-max=32 ! video/x-h264,profile=high ! dualparalsei " \
    "! rtph264pay name=pay0 pt=96 config-interval=-1"
#define ROLE "viewer"
/* Where UDP ports come from when an address was given */
#define UDP_PORTS 49152, 65535
/* A request is some lines */
#define MAX_BODY 65536
/* What the kernel keeps for a client that stops reading; by itself it would be
 * half a minute of video, and as much behind the others it would go on */
#define SEND_BYTES (256 * 1024)
/* How often sessions that timed out are looked for, and how long after the end of
 * its session a client may stay connected */
#define CLEANUP_SECONDS 5
/* How long the end of the video may take to get through the encoder and to the
 * clients, and they to leave; and how often it is looked whether they have */
#define END_MS 2500
#define LEAVING_MS 50

/* -- one media, whatever port and query the clients' URLs have */

#define LIVE_TYPE_FACTORY (live_factory_get_type ())
G_DECLARE_FINAL_TYPE (LiveFactory, live_factory, LIVE, FACTORY,
    GstRTSPMediaFactory);

struct _LiveFactory
{
  GstRTSPMediaFactory parent;
  GstElement *video;            /* borrowed: PIPELINE in a bin */
};

G_DEFINE_TYPE (LiveFactory, live_factory, GST_TYPE_RTSP_MEDIA_FACTORY);

static gchar *
live_factory_gen_key (GstRTSPMediaFactory * factory, const GstRTSPUrl * url)
{
  return g_strdup ("live");
}

static GstElement *
live_factory_create_element (GstRTSPMediaFactory * factory,
    const GstRTSPUrl * url)
{
  return LIVE_FACTORY (factory)->video;
}

static void
live_factory_class_init (LiveFactoryClass * klass)
{
  GstRTSPMediaFactoryClass *factory_class =
      GST_RTSP_MEDIA_FACTORY_CLASS (klass);

  factory_class->gen_key = live_factory_gen_key;
  factory_class->create_element = live_factory_create_element;
}

static void
live_factory_init (LiveFactory * factory)
{
}

/* -- who may watch may change the prompt, and nobody else */

#define LIVE_TYPE_AUTH (live_auth_get_type ())
G_DECLARE_FINAL_TYPE (LiveAuth, live_auth, LIVE, AUTH, GstRTSPAuth);

struct _LiveAuth
{
  GstRTSPAuth parent;
};

G_DEFINE_TYPE (LiveAuth, live_auth, GST_TYPE_RTSP_AUTH);

static gboolean
live_auth_check (GstRTSPAuth * auth, GstRTSPContext * ctx, const gchar * check)
{
  GstRTSPAuthClass *klass = GST_RTSP_AUTH_CLASS (live_auth_parent_class);

  if (!g_str_equal (check, GST_RTSP_AUTH_CHECK_URL)
      || ctx->method != GST_RTSP_SET_PARAMETER)
    return klass->check (auth, ctx, check);
  /* This asks who it is, and tells one who does not say so. What it returns is
   * another permission, that nobody has. */
  klass->check (auth, ctx, GST_RTSP_AUTH_CHECK_TRANSPORT_CLIENT_SETTINGS);
  return ctx->token != NULL;
}

static void
live_auth_class_init (LiveAuthClass * klass)
{
  GST_RTSP_AUTH_CLASS (klass)->check = live_auth_check;
}

static void
live_auth_init (LiveAuth * auth)
{
}

/* -- clients' requests */

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
  /* Who only says that he is still there sends none; behind any other GStreamer
   * has put a NUL */
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
set_parameter (GstRTSPClient * client, GstRTSPContext * ctx,
    GstElement * source)
{
  gchar *prompt = NULL;
  GstRTSPStatusCode code = parse_parameters (ctx->request, &prompt);

  if (code == GST_RTSP_STS_OK && prompt && !is_ours (client, ctx->uri))
    code = GST_RTSP_STS_NOT_FOUND;
  else if (code == GST_RTSP_STS_OK && prompt
      && !console_set_prompt (source, prompt))
    code = GST_RTSP_STS_BAD_REQUEST;
  g_free (prompt);
  /* Without a body it is a request that has been understood */
  if (code == GST_RTSP_STS_OK)
    gst_rtsp_message_take_body (ctx->request, NULL, 0);
  return code;
}

/* A player shows nothing before a key frame, so each gets one to begin with */
static void
play (GstRTSPClient * client, GstRTSPContext * ctx, GstElement * source)
{
  GstElement *pay = gst_bin_get_by_name (GST_BIN (GST_OBJECT_PARENT (source)),
      "pay0");

  gst_element_send_event (pay,
      gst_video_event_new_upstream_force_key_unit (GST_CLOCK_TIME_NONE, TRUE,
          0));
  gst_object_unref (pay);
}

/* Else its place is taken until the session times out, which is a minute */
static void
end_session (GstRTSPSession * session, GstRTSPClient * client)
{
  GstRTSPSessionPool *sessions = gst_rtsp_client_get_session_pool (client);

  gst_rtsp_session_pool_remove (sessions, session);
  g_object_unref (sessions);
}

static void
add_session (GstRTSPClient * client, GstRTSPSession * session)
{
  g_signal_connect_object (client, "closed", G_CALLBACK (end_session), session,
      G_CONNECT_SWAPPED);
}

static void
add_client (GstRTSPServer * server, GstRTSPClient * client, GstElement * source)
{
  GSocket *socket = gst_rtsp_connection_get_write_socket
      (gst_rtsp_client_get_connection (client));

  g_socket_set_option (socket, SOL_SOCKET, SO_SNDBUF, SEND_BYTES, NULL);
  g_object_set (client, "post-session-timeout", CLEANUP_SECONDS, NULL);
  g_signal_connect (client, "new-session", G_CALLBACK (add_session), NULL);
  g_signal_connect_object (client, "pre-set-parameter-request",
      G_CALLBACK (set_parameter), source, 0);
  g_signal_connect_object (client, "play-request", G_CALLBACK (play), source,
      0);
}

/* -- options */

static gchar *address = "127.0.0.1", *mount = "/live", *user, *password_file,
    *cert, *key, **settings;
static gint port = 8554, max_sessions = 100;

static const GOptionEntry options[] = {
  {"address", 0, 0, G_OPTION_ARG_STRING, &address,
      "Address to listen at; 0.0.0.0 for all (default: 127.0.0.1)", "IP"},
  {"port", 0, 0, G_OPTION_ARG_INT, &port,
      "Port; 0 for any that is free (default: 8554)", "N"},
  {"mount", 0, 0, G_OPTION_ARG_STRING, &mount,
      "What comes behind it in the URL (default: /live)", "PATH"},
  {"user", 0, 0, G_OPTION_ARG_STRING, &user,
      "Only this user may watch and change the prompt", "NAME"},
  {"password-file", 0, 0, G_OPTION_ARG_FILENAME, &password_file,
      "File whose first line is the user's password", "FILE"},
  {"cert", 0, 0, G_OPTION_ARG_FILENAME, &cert,
      "TLS: file with the certificate (PEM); URLs begin with rtsps://", "FILE"},
  {"key", 0, 0, G_OPTION_ARG_FILENAME, &key,
      "TLS: file with its private key (PEM)", "FILE"},
  {"max-sessions", 0, 0, G_OPTION_ARG_INT, &max_sessions,
      "Viewers at a time; others get 503 (default: 100)", "N"},
  {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &settings, NULL,
      "[PROPERTY=VALUE...]"},
  {NULL}
};

static gboolean
parse_options (gint argc, gchar ** argv, GError ** error)
{
  GOptionContext *context = g_option_context_new (NULL);
  GInetAddress *ip = NULL;
  const gchar *wrong = NULL;
  gboolean ok;

  g_option_context_set_summary (context, "Endless video of dualparalsrc, whose "
      "properties may be set, for RTSP clients.\nEach line of standard input is a "
      "new prompt. Ctrl-C ends it.");
  g_option_context_add_main_entries (context, options, NULL);
  g_option_context_add_group (context, gst_init_get_option_group ());
  ok = g_option_context_parse (context, &argc, &argv, error);
  g_option_context_free (context);
  if (!ok)
    return FALSE;

  ip = g_inet_address_new_from_string (address);
  if (!ip)
    wrong = "--address: not an IP address, such as 127.0.0.1, 0.0.0.0 or ::1";
  else if (port < 0 || port > 65535)
    wrong = "--port: expected 0 to 65535";
  else if (mount[0] != '/' || !mount[1])
    wrong = "--mount: expected a slash and a name, such as /live";
  else if (max_sessions < 1)
    wrong = "--max-sessions: expected at least 1";
  else if (!user != !password_file)
    wrong = "--user and --password-file go together";
  else if (!cert != !key)
    wrong = "--cert and --key go together";
  else if (!g_inet_address_get_is_loopback (ip) && !user)
    console_say ("whoever can reach %s may watch and change the prompt; --user "
        "says who may", address);
  if (wrong)
    g_set_error_literal (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
        wrong);
  g_clear_object (&ip);
  return !wrong;
}

/* -- the program */

typedef struct
{
  GMainLoop *loop;
  GstRTSPServer *server;
  GstRTSPMediaFactory *factory;
  GstRTSPMedia *media;
  GstElement *video, *source;
  GPtrArray *viewers;           /* our own */
  guint listening;
  gboolean ending;
  gint failed;                  /* atomic */
} App;

static gboolean
make_video (App * app, GError ** error)
{
  GstElementFactory *rtp = gst_element_factory_find ("rtpbin");

  if (!rtp) {
    g_set_error (error, GST_CORE_ERROR, GST_CORE_ERROR_MISSING_PLUGIN,
        "no element \"rtpbin\"; it is one of GStreamer's good plugins");
    return FALSE;
  }
  gst_object_unref (rtp);
  app->video = gst_parse_launch_full ("( " PIPELINE " )", NULL,
      GST_PARSE_FLAG_FATAL_ERRORS, error);
  if (!app->video) {
    g_prefix_error (error,
        "GST_PLUGIN_PATH tells GStreamer where else to look: ");
    return FALSE;
  }
  gst_object_ref_sink (app->video);
  app->source = gst_bin_get_by_name (GST_BIN (app->video), "source");
  return !settings || console_set_properties (app->source, settings, error);
}

static gboolean
read_password (gchar ** password, GError ** error)
{
  if (!g_file_get_contents (password_file, password, NULL, error)) {
    g_prefix_error (error, "--password-file: ");
    return FALSE;
  }
  (*password)[strcspn (*password, "\r\n")] = '\0';
  if (**password)
    return TRUE;
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
      "--password-file %s: its first line is empty", password_file);
  g_clear_pointer (password, g_free);
  return FALSE;
}

/* Without a user everybody is the viewer, behind TLS too. */
static gboolean
add_auth (App * app, GError ** error)
{
  GstRTSPAuth *auth;
  GstRTSPToken *token;
  GTlsCertificate *certificate = NULL;
  gchar *password = NULL;

  if (!user && !cert)
    return TRUE;
  if (cert) {
    certificate = g_tls_certificate_new_from_files (cert, key, error);
    if (!certificate) {
      g_prefix_error (error, "--cert %s, --key %s: ", cert, key);
      return FALSE;
    }
  }
  if (user && !read_password (&password, error)) {
    g_clear_object (&certificate);
    return FALSE;
  }

  auth = g_object_new (LIVE_TYPE_AUTH, NULL);
  token = gst_rtsp_token_new (GST_RTSP_TOKEN_MEDIA_FACTORY_ROLE, G_TYPE_STRING,
      ROLE, NULL);
  gst_rtsp_auth_set_tls_certificate (auth, certificate);
  gst_rtsp_auth_set_supported_methods (auth, GST_RTSP_AUTH_DIGEST);
  gst_rtsp_auth_set_realm (auth, "dualparal");
  if (user)
    gst_rtsp_auth_add_digest (auth, user, password, token);
  else
    gst_rtsp_auth_set_default_token (auth, token);
  gst_rtsp_media_factory_add_role (app->factory, ROLE,
      GST_RTSP_PERM_MEDIA_FACTORY_ACCESS, G_TYPE_BOOLEAN, TRUE,
      GST_RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, G_TYPE_BOOLEAN, TRUE, NULL);
  gst_rtsp_server_set_auth (app->server, auth);
  gst_rtsp_token_unref (token);
  g_object_unref (auth);
  g_clear_object (&certificate);
  g_free (password);
  return TRUE;
}

/* UDP leaves from the address that was asked for; without a pool it would be all.
 * With TLS there is none, as it would not be encrypted. */
static void
limit_transports (GstRTSPMediaFactory * factory)
{
  GInetAddress *ip = g_inet_address_new_from_string (address);
  GstRTSPAddressPool *pool;

  gst_rtsp_media_factory_set_protocols (factory, cert ? GST_RTSP_LOWER_TRANS_TCP
      : GST_RTSP_LOWER_TRANS_TCP | GST_RTSP_LOWER_TRANS_UDP);
  if (!g_inet_address_get_is_any (ip)) {
    pool = gst_rtsp_address_pool_new ();
    gst_rtsp_address_pool_add_range (pool, address, address, UDP_PORTS, 0);
    gst_rtsp_media_factory_set_address_pool (factory, pool);
    g_object_unref (pool);
  }
  g_object_unref (ip);
}

static gboolean
make_server (App * app, GError ** error)
{
  GstRTSPSessionPool *sessions;
  GstRTSPMountPoints *mounts;
  gchar *service = g_strdup_printf ("%d", port);

  app->server = gst_rtsp_server_new ();
  gst_rtsp_server_set_address (app->server, address);
  gst_rtsp_server_set_service (app->server, service);
  g_free (service);
  gst_rtsp_server_set_content_length_limit (app->server, MAX_BODY);
  g_signal_connect_object (app->server, "client-connected",
      G_CALLBACK (add_client), app->source, 0);
  sessions = gst_rtsp_server_get_session_pool (app->server);
  gst_rtsp_session_pool_set_max_sessions (sessions, max_sessions);
  g_object_unref (sessions);

  app->factory = g_object_new (LIVE_TYPE_FACTORY, NULL);
  LIVE_FACTORY (app->factory)->video = app->video;
  gst_rtsp_media_factory_set_shared (app->factory, TRUE);
  limit_transports (app->factory);
  mounts = gst_rtsp_server_get_mount_points (app->server);
  gst_rtsp_mount_points_add_factory (mounts, mount,
      g_object_ref (app->factory));
  g_object_unref (mounts);
  return add_auth (app, error);
}

static gboolean
stop_loop (gpointer user_data)
{
  App *app = user_data;

  g_main_loop_quit (app->loop);
  return G_SOURCE_REMOVE;
}

/* A client that sees the end of the video says goodbye, and takes it for an error
 * when nobody listens to that. */
static gboolean
stop_when_left (gpointer user_data)
{
  App *app = user_data;
  GList *clients = gst_rtsp_server_client_filter (app->server, NULL, NULL);
  gboolean left = !clients;

  g_list_free_full (clients, g_object_unref);
  return left ? stop_loop (app) : G_SOURCE_CONTINUE;
}

/* Any thread */
static void
take_message (GstBus * bus, GstMessage * message, App * app)
{
  console_message (message);
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR) {
    g_atomic_int_set (&app->failed, TRUE);
    g_idle_add (stop_loop, app);
  } else if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_EOS) {
    g_timeout_add (LEAVING_MS, stop_when_left, app);
    g_timeout_add (END_MS, stop_loop, app);
  }
}

static void
watch_messages (App * app)
{
  GstObject *pipeline = GST_OBJECT_PARENT (app->video);
  GstBus *bus = gst_element_get_bus (GST_ELEMENT (pipeline));

  gst_bus_enable_sync_message_emission (bus);
  g_signal_connect (bus, "sync-message", G_CALLBACK (take_message), app);
  gst_object_unref (bus);
}

static gboolean
discard (GstBuffer * buffer, guint8 channel, gpointer user_data)
{
  return TRUE;
}

static gboolean
discard_list (GstBufferList * list, guint8 channel, gpointer user_data)
{
  return TRUE;
}

static void
add_viewer (App * app)
{
  GstRTSPStreamTransport *viewer;
  GstRTSPTransport *transport;

  gst_rtsp_transport_new (&transport);
  transport->trans = GST_RTSP_TRANS_RTP;
  transport->profile = GST_RTSP_PROFILE_AVP;
  transport->lower_transport = GST_RTSP_LOWER_TRANS_TCP;
  transport->interleaved.min = 0;
  transport->interleaved.max = 1;
  transport->destination = g_strdup ("nobody");
  viewer = gst_rtsp_stream_transport_new (gst_rtsp_media_get_stream (app->media,
          0), transport);
  gst_rtsp_stream_transport_set_callbacks (viewer, discard, discard, NULL,
      NULL);
  gst_rtsp_stream_transport_set_list_callbacks (viewer, discard_list,
      discard_list, NULL, NULL);
  app->viewers = g_ptr_array_new_with_free_func (g_object_unref);
  g_ptr_array_add (app->viewers, viewer);
}

/* The video runs from here on. What goes wrong is in a message. */
static gboolean
start_media (App * app)
{
  GstRTSPThreadPool *threads = gst_rtsp_server_get_thread_pool (app->server);
  GstRTSPContext context = {.server = app->server };
  GstRTSPUrl url = {.abspath = mount };
  GstRTSPThread *thread;

  app->media = gst_rtsp_media_factory_construct (app->factory, &url);
  watch_messages (app);
  thread = gst_rtsp_thread_pool_get_thread (threads,
      GST_RTSP_THREAD_TYPE_MEDIA, &context);
  g_object_unref (threads);
  if (!gst_rtsp_media_prepare (app->media, thread))
    return FALSE;
  add_viewer (app);
  return gst_rtsp_media_complete_pipeline (app->media, app->viewers)
      && gst_rtsp_media_set_state (app->media, GST_STATE_PLAYING, app->viewers);
}

static gboolean
cleanup_sessions (gpointer user_data)
{
  App *app = user_data;
  GstRTSPSessionPool *sessions = gst_rtsp_server_get_session_pool (app->server);

  gst_rtsp_session_pool_cleanup (sessions);
  g_object_unref (sessions);
  return G_SOURCE_CONTINUE;
}

/* The end of the video goes through to the clients as RTCP's BYE, and they leave;
 * whoever has not is cut off. A second signal does not wait for that. */
static gboolean
end (gpointer user_data)
{
  App *app = user_data;

  if (app->ending) {
    g_main_loop_quit (app->loop);
    return G_SOURCE_CONTINUE;
  }
  app->ending = TRUE;
  console_say ("ends");
  g_source_remove (app->listening);
  gst_element_send_event (app->source, gst_event_new_eos ());
  g_timeout_add (END_MS, stop_loop, app);
  return G_SOURCE_CONTINUE;
}

static GstRTSPFilterResult
remove_client (GstRTSPServer * server, GstRTSPClient * client, gpointer data)
{
  return GST_RTSP_FILTER_REMOVE;
}

static void
serve (App * app)
{
  g_timeout_add_seconds (CLEANUP_SECONDS, cleanup_sessions, app);
  g_unix_signal_add (SIGINT, end, app);
  g_unix_signal_add (SIGTERM, end, app);
  console_read_prompts (app->source);

  printf (strchr (address, ':') ? "%s://[%s]:%d%s\n" : "%s://%s:%d%s\n",
      cert ? "rtsps" : "rtsp", address,
      gst_rtsp_server_get_bound_port (app->server), mount);
  fflush (stdout);
  g_main_loop_run (app->loop);
  gst_rtsp_server_client_filter (app->server, remove_client, NULL);
}

/* Before anything loads, so that a port in use is said at once; clients wait
 * until serve(). */
static gboolean
listen_there (App * app, GError ** error)
{
  GSource *listening = gst_rtsp_server_create_source (app->server, NULL, error);

  if (!listening) {
    g_prefix_error (error, "%s port %d: ", address, port);
    return FALSE;
  }
  app->listening = g_source_attach (listening, NULL);
  g_source_unref (listening);
  return TRUE;
}

static void
free_app (App * app)
{
  if (app->viewers) {
    gst_rtsp_media_set_state (app->media, GST_STATE_NULL, app->viewers);
    gst_rtsp_media_unprepare (app->media);
    g_ptr_array_unref (app->viewers);
  }
  g_clear_object (&app->media);
  gst_clear_object (&app->source);
  g_clear_object (&app->factory);
  g_clear_object (&app->server);
  gst_clear_object (&app->video);
  gst_rtsp_thread_pool_cleanup ();
  g_main_loop_unref (app->loop);
}

gint
main (gint argc, gchar ** argv)
{
  App app = { NULL, };
  GError *error = NULL;
  gint status = 0;

  setlocale (LC_ALL, "");
  g_set_prgname ("dualparal-rtsp-server");
  app.loop = g_main_loop_new (NULL, FALSE);
  if (!parse_options (argc, argv, &error))
    status = 2;
  else if (make_video (&app, &error) && make_server (&app, &error)
      && listen_there (&app, &error) && start_media (&app))
    serve (&app);
  else
    status = error && error->domain == G_OPTION_ERROR ? 2 : 1;
  if (error)
    console_say ("%s", error->message);
  g_clear_error (&error);
  free_app (&app);
  return status ? status : g_atomic_int_get (&app.failed);
}
