/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rtsp-server.c: one endless video for all clients. There is one media. It is made
 * before the first client comes and is never freed, so the model loads once. A viewer
 * in this process takes part in it and throws its pictures away. Without this viewer
 * the media would stop with a picture in hand until the first client comes, and again
 * when the only client stops reading.
 */
#include <gst/rtsp-server/rtsp-server.h>
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "address.h"
#include "console.h"
#include "key-frames.h"
#include "plugin.h"
#include "rtsp-clients.h"
#include "rtsp-door.h"
#include "rtsp-http.h"
#include "rtsp-users.h"
#include "signals.h"

/* The encoder makes a key frame every two seconds, and one
 * for each client that joins. With one thread a picture is one slice; of several
 * that come over RTP, openh264dec shows nothing. When it is too slow, the oldest
 * pictures are left out and not the video held back. */
#define PIPELINE "dualparalsrc name=source is-live=true " \
    "startup-policy=placeholder ! capsfilter name=format " \
    "! queue name=pictures leaky=downstream ! x264enc name=encoder tune=zerolatency threads=1 speed-preset=veryfast " \
    "! video/x-h264,profile=high ! dualparalsei " \
    "! rtph264pay name=pay0 pt=96 config-interval=-1"
/* Where UDP ports come from when an address was given */
#define UDP_PORTS 49152, 65535
/* A request is some lines */
#define MAX_BODY 65536
/* What serves clients; no request holds one of these for long */
#define CLIENT_THREADS 4
/* How often sessions that timed out are looked for */
#define CLEANUP_SECONDS 5
/* How long the end of the video may take to get through the encoder and to the
 * clients, and they to leave; how often it is looked whether they have */
#define END_MS 2300
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

/* -- options */

static gchar *address = "127.0.0.1", *mount = "/live", *user, *password_file,
    *watch_user, *watch_password_file, *cert, *key, *token_file, *size, *framerate,
    **settings;
static gint bitrate = 2048, port = 8554, http_port = -1, max_sessions = 100,
    max_connections = 200, max_per_address = 50;
static gboolean no_prompts;

static const GOptionEntry options[] = {
  {"address", 0, 0, G_OPTION_ARG_FILENAME, &address,
      "Address to listen at; 0.0.0.0 for all (default: 127.0.0.1)", "IP"},
  {"port", 0, 0, G_OPTION_ARG_INT, &port,
      "Port; 0 for any that is free (default: 8554)", "N"},
  {"mount", 0, 0, G_OPTION_ARG_FILENAME, &mount,
      "What comes behind it in the URL (default: /live)", "PATH"},
  {"user", 0, 0, G_OPTION_ARG_FILENAME, &user,
      "Only this user may watch and change the prompt", "NAME"},
  {"password-file", 0, 0, G_OPTION_ARG_FILENAME, &password_file,
      "File whose first line is the user's password", "FILE"},
  {"watch-user", 0, 0, G_OPTION_ARG_FILENAME, &watch_user,
      "This user may watch and not change the prompt", "NAME"},
  {"watch-password-file", 0, 0, G_OPTION_ARG_FILENAME, &watch_password_file,
      "File whose first line is that user's password", "FILE"},
  {"no-prompts", 0, 0, G_OPTION_ARG_NONE, &no_prompts,
      "Only standard input changes the prompt; clients get 403", NULL},
  {"cert", 0, 0, G_OPTION_ARG_FILENAME, &cert,
      "TLS: file with the certificate (PEM); URLs begin with rtsps://", "FILE"},
  {"key", 0, 0, G_OPTION_ARG_FILENAME, &key,
      "TLS: file with its private key (PEM)", "FILE"},
  {"http-port", 0, 0, G_OPTION_ARG_INT, &http_port,
      "Port for /prompt, /stats, /metrics and /snapshot.jpg by HTTP; 0 for any that is free "
        "(default: none)", "N"},
  {"token-file", 0, 0, G_OPTION_ARG_FILENAME, &token_file,
      "File whose first line everyone needs for these", "FILE"},
  {"max-sessions", 0, 0, G_OPTION_ARG_INT, &max_sessions,
      "Viewers at a time; others get 503 (default: 100)", "N"},
  {"max-connections", 0, 0, G_OPTION_ARG_INT, &max_connections,
      "Connections at a time; others get 503 (default: 200)", "N"},
  {"max-per-address", 0, 0, G_OPTION_ARG_INT, &max_per_address,
      "Connections at a time of one address (default: 50)", "N"},
  {"size", 0, 0, G_OPTION_ARG_FILENAME, &size,
      "Size of the video (default: the model's)", "WIDTHxHEIGHT"},
  {"framerate", 0, 0, G_OPTION_ARG_FILENAME, &framerate,
      "Frames a second (default: the model's)", "N[/D]"},
  {"bitrate", 0, 0, G_OPTION_ARG_INT, &bitrate,
      "Of the encoder, in kbit a second (default: 2048)", "KBITS"},
  {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &settings, NULL,
      "[PROPERTY=VALUE...]"},
  {NULL}
};

/* Whether a client's URL with it finds the video: gst-rtsp-server joins slashes, drops
 * one at the end, and reads 4 KiB at most */
static gboolean
mount_can_be_found (void)
{
  gboolean ok = g_utf8_validate (mount, -1, NULL) && mount[0] == '/'
      && !g_str_has_suffix (mount, "/")
      && !strstr (mount, "//") && !strpbrk (mount, "?#") && strlen (mount) < 1024;

  for (const gchar * c = mount; *c; c++)
    ok = ok && !g_ascii_isspace (*c) && !g_ascii_iscntrl (*c);
  return ok;
}

static gboolean
parse_options (gint argc, gchar ** argv, GError ** error)
{
  GInetAddress *ip = NULL;
  const gchar *wrong = NULL;

  if (!console_parse ("Endless video of dualparalsrc, whose properties may be "
          "set, for RTSP clients.", options, argc, argv, error))
    return FALSE;

  ip = g_inet_address_new_from_string (address);
  wrong = address_refuse_options (address, port, max_sessions, max_connections,
      max_per_address);
  if (wrong)
    ;
  else if (!mount_can_be_found ())
    wrong = "--mount: expected a slash and a name in UTF-8, such as /live or /live/1, "
        "without blanks, ? and #";
  else if (!user != !password_file)
    wrong = "--user and --password-file go together";
  else if (!watch_user != !watch_password_file)
    wrong = "--watch-user and --watch-password-file go together";
  else if ((user && !g_utf8_validate (user, -1, NULL)) || (watch_user
          && !g_utf8_validate (watch_user, -1, NULL)))
    wrong = "--user and --watch-user: expected names in UTF-8";
  else if (user && g_strcmp0 (user, watch_user) == 0)
    wrong = "--watch-user: expected another name than that of --user";
  else if (http_port < -1 || http_port > 65535)
    wrong = "--http-port: expected 0 to 65535";
  else if (token_file && http_port < 0)
    wrong = "--token-file goes with --http-port";
  else if (http_port >= 0 && !token_file && !g_inet_address_get_is_loopback (ip))
    wrong = "--http-port: others can reach it, so --token-file must name a file with a secret; "
        "\"openssl rand -hex 16 > token\" makes one";
  else if (!cert != !key)
    wrong = "--cert and --key go together";
  else if (!g_inet_address_get_is_loopback (ip) && !user && !watch_user)
    console_say ("anyone who can reach %s may watch%s; use --user to require a login", address,
        no_prompts ? "" : " and change the prompt");
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
  Door *door;
  GstRTSPServer *server;
  GstRTSPMediaFactory *factory;
  GstRTSPMedia *media;
  GstElement *video, *source;
  GPtrArray *viewers;           /* our own */
  KeyFrames *keys;
  RtspHttp *http;
  gint bound_port;
} App;

/* -- what is served */

static gboolean
make_video (App * app, GError ** error)
{
  GstElementFactory *rtp = gst_element_factory_find ("rtpbin");
  GstElement *pay;

  if (!rtp) {
    g_set_error (error, GST_CORE_ERROR, GST_CORE_ERROR_MISSING_PLUGIN,
        "no element \"rtpbin\"; it is one of GStreamer's good plugins");
    return FALSE;
  }
  gst_object_unref (rtp);
  plugin_load ();
  app->video = gst_parse_launch_full ("( " PIPELINE " )", NULL,
      GST_PARSE_FLAG_FATAL_ERRORS, error);
  if (!app->video) {
    g_prefix_error (error,
        "GST_PLUGIN_PATH tells GStreamer where else to look: ");
    return FALSE;
  }
  gst_object_ref_sink (app->video);
  app->source = gst_bin_get_by_name (GST_BIN (app->video), "source");
  if (!console_set_format (app->video, size, framerate, bitrate, 2, error))
    return FALSE;
  pay = gst_bin_get_by_name (GST_BIN (app->video), "pay0");
  app->keys = key_frames_limit (pay);
  gst_object_unref (pay);
  return !settings || console_set_properties (app->source, settings, error);
}

static gboolean
read_password (const gchar * option, const gchar * file, gchar ** password,
    GError ** error)
{
  struct stat found;

  if (!g_file_get_contents (file, password, NULL, error)) {
    g_prefix_error (error, "%s: ", option);
    return FALSE;
  }
  if (stat (file, &found) == 0 && found.st_mode & (S_IRGRP | S_IROTH))
    console_say ("%s %s: others may read it; chmod 600 changes that", option, file);
  (*password)[strcspn (*password, "\r\n")] = '\0';
  if (**password)
    return TRUE;
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
      "%s %s: its first line is empty", option, file);
  g_clear_pointer (password, g_free);
  return FALSE;
}

static gboolean
add_user (GstRTSPAuth * users, const gchar * name, const gchar * option,
    const gchar * file, GError ** error)
{
  g_autofree gchar *password = NULL;

  if (!name)
    return TRUE;
  if (!read_password (option, file, &password, error))
    return FALSE;
  users_add (users, name, password, name == user);
  return TRUE;
}

static gboolean
add_users (App * app, GError ** error)
{
  g_autoptr (GstRTSPAuth) users = NULL;

  if (!user && !watch_user)
    return TRUE;
  users = users_new (app->door);
  gst_rtsp_media_factory_add_role (app->factory, USERS_ROLE,
      GST_RTSP_PERM_MEDIA_FACTORY_ACCESS, G_TYPE_BOOLEAN, TRUE,
      GST_RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, G_TYPE_BOOLEAN, TRUE, NULL);
  gst_rtsp_server_set_auth (app->server, users);
  return add_user (users, user, "--password-file", password_file, error)
      && add_user (users, watch_user, "--watch-password-file",
      watch_password_file, error);
}

static gboolean
make_door (App * app, GError ** error)
{
  g_autoptr (GTlsCertificate) certificate = NULL;

  if (cert) {
    certificate = g_tls_certificate_new_from_files (cert, key, error);
    if (!certificate) {
      g_prefix_error (error, "--cert %s, --key %s: ", cert, key);
      return FALSE;
    }
  }
  app->door = door_new (app->server, max_connections, max_per_address, certificate);
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
  g_autoptr (GstRTSPMountPoints) mounts = NULL;
  g_autoptr (GstRTSPThreadPool) threads = NULL;
  g_autofree gchar *service = g_strdup_printf ("%d", port);

  app->server = g_object_new (LIVE_TYPE_SERVER, NULL);
  if (!make_door (app, error))
    return FALSE;
  live_server_configure (LIVE_SERVER (app->server), app->door, app->source,
      max_sessions, !no_prompts);
  gst_rtsp_server_set_address (app->server, address);
  gst_rtsp_server_set_service (app->server, service);
  gst_rtsp_server_set_content_length_limit (app->server, MAX_BODY);
  threads = gst_rtsp_server_get_thread_pool (app->server);
  gst_rtsp_thread_pool_set_max_threads (threads, CLIENT_THREADS);

  app->factory = g_object_new (LIVE_TYPE_FACTORY, NULL);
  LIVE_FACTORY (app->factory)->video = app->video;
  gst_rtsp_media_factory_set_shared (app->factory, TRUE);
  limit_transports (app->factory);
  mounts = gst_rtsp_server_get_mount_points (app->server);
  gst_rtsp_mount_points_add_factory (mounts, mount, g_object_ref (app->factory));
  return add_users (app, error);
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
  rtsp_http_message (app->http, message);
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR) {
    signals_set_status (1);
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
  live_server_clean_up (LIVE_SERVER (((App *) user_data)->server));
  return G_SOURCE_CONTINUE;
}

/* -- the end */

/* The end of the video goes through to the clients as RTCP's BYE, and they leave;
 * those that have not left are disconnected. */
static gboolean
end (gpointer user_data)
{
  App *app = user_data;

  console_say ("ends");
  door_shut (app->door);
  rtsp_http_shut (app->http);
  gst_element_send_event (app->source, gst_event_new_eos ());
  g_timeout_add (END_MS, stop_loop, app);
  return G_SOURCE_REMOVE;
}

/* -- the program */

static void
serve (App * app)
{
  g_timeout_add_seconds (CLEANUP_SECONDS, cleanup_sessions, app);
  signals_serve (end, app);
  console_read_prompts (app->source);

  printf (strchr (address, ':') ? "%s://[%s]:%d%s\n" : "%s://%s:%d%s\n",
      cert ? "rtsps" : "rtsp", address, app->bound_port, mount);
  if (app->http)
    printf (strchr (address, ':') ? "http://[%s]:%d/\n" : "http://%s:%d/\n", address,
        rtsp_http_port (app->http));
  fflush (stdout);
  g_main_loop_run (app->loop);
  signals_set_deadline ();
}

static gboolean
open_http (App * app, GError ** error)
{
  GstElement *queue = gst_bin_get_by_name (GST_BIN (app->video), "pictures");
  GstPad *pictures = gst_element_get_static_pad (queue, "src");

  app->http = rtsp_http_new (LIVE_SERVER (app->server), app->source, pictures, !no_prompts,
      token_file, address, http_port, error);
  gst_object_unref (pictures);
  gst_object_unref (queue);
  return app->http != NULL;
}

/* Before anything loads, so that a port in use is said at once; clients wait
 * until serve(). */
static gboolean
listen_there (App * app, GError ** error)
{
  app->bound_port = door_open (app->door, error);
  if (!app->bound_port)
    g_prefix_error (error, "%s port %d: ", address, port);
  return app->bound_port && (http_port < 0 || open_http (app, error));
}

static void
free_app (App * app)
{
  rtsp_http_shut (app->http);
  door_free (app->door);
  if (app->viewers) {
    gst_rtsp_media_set_state (app->media, GST_STATE_NULL, app->viewers);
    gst_rtsp_media_unprepare (app->media);
    g_ptr_array_unref (app->viewers);
  }
  g_clear_object (&app->media);
  rtsp_http_free (app->http);
  key_frames_free (app->keys);
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

  signals_catch ();
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
  return status ? status : signals_status ();
}
