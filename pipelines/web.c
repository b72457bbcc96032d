/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * web.c: a page with endless video. The video is encoded once, for all who watch, and
 * runs whether or not somebody does, so the model loads once.
 */
#include <gst/gst.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include "address.h"
#include "console.h"
#include "key-frames.h"
#include "plugin.h"
#include "signals.h"
#include "web-api.h"
#include "web-http.h"
#include "web-viewers.h"

/* All browsers play constrained baseline, and unlike VP8 it has a place for the marking.
 * When the encoder is too slow, the oldest pictures are left out and not the video held
 * back. A key frame every four seconds, and one for each viewer
 * that joins or lost something. */
#define PIPELINE "dualparalsrc name=source is-live=true startup-policy=placeholder preview=true " \
    "! capsfilter name=format ! queue name=pictures leaky=downstream " \
    "! x264enc name=encoder tune=zerolatency threads=1 speed-preset=veryfast " \
    "! video/x-h264,profile=constrained-baseline,stream-format=byte-stream," \
    "alignment=au ! dualparalsei name=marked " \
    "! tee name=tee allow-not-linked=true"
#define PAGE "/org/dualparal/web.html"
/* The page is a single file. Only this server's pictures and answers get into it. */
#define POLICY "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; " \
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; " \
    "form-action 'none'; frame-ancestors 'none'"

typedef struct
{
  GMainLoop *loop;
  GstElement *pipeline, *source;
  KeyFrames *keys;
  Viewers *viewers;
  Http *http;
  Api *api;
  gchar *token;
  gint bound_port;
} App;

/* -- options */

static gchar *address = "127.0.0.1", *token_file, *size, *framerate, **settings;
static gint bitrate = 2048, port = 8080, max_sessions = 100, max_connections = 200,
    max_per_address = 50;

static const GOptionEntry options[] = {
  {"address", 0, 0, G_OPTION_ARG_FILENAME, &address,
      "Address to listen at; 0.0.0.0 for all (default: 127.0.0.1)", "IP"},
  {"port", 0, 0, G_OPTION_ARG_INT, &port,
      "Port; 0 for any that is free (default: 8080)", "N"},
  {"token-file", 0, 0, G_OPTION_ARG_FILENAME, &token_file,
      "File whose first line everyone needs to watch and to change the prompt", "FILE"},
  {"size", 0, 0, G_OPTION_ARG_FILENAME, &size,
      "Size of the video (default: the model's)", "WIDTHxHEIGHT"},
  {"framerate", 0, 0, G_OPTION_ARG_FILENAME, &framerate,
      "Frames a second (default: the model's)", "N[/D]"},
  {"bitrate", 0, 0, G_OPTION_ARG_INT, &bitrate,
      "Of the encoder, in kbit a second (default: 2048)", "KBITS"},
  {"max-sessions", 0, 0, G_OPTION_ARG_INT, &max_sessions,
      "Viewers at a time; others get 503 (default: 100)", "N"},
  {"max-connections", 0, 0, G_OPTION_ARG_INT, &max_connections,
      "HTTP connections at a time; others get 503 (default: 200)", "N"},
  {"max-per-address", 0, 0, G_OPTION_ARG_INT, &max_per_address,
      "HTTP connections at a time of one address (default: 50)", "N"},
  {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &settings, NULL,
      "[PROPERTY=VALUE...]"},
  {NULL}
};

static gboolean
parse_options (gint argc, gchar ** argv, GError ** error)
{
  GInetAddress *ip = NULL;
  const gchar *wrong = NULL;

  if (!console_parse ("Endless video of dualparalsrc, whose properties may be "
          "set, in a web page with a prompt box.", options, argc, argv, error))
    return FALSE;

  ip = g_inet_address_new_from_string (address);
  wrong = address_refuse_options (address, port, max_sessions, max_connections,
      max_per_address);
  if (!wrong && !g_inet_address_get_is_loopback (ip) && !token_file)
    wrong = HTTP_NEEDS_TOKEN;
  if (wrong)
    g_set_error_literal (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, wrong);
  g_clear_object (&ip);
  return !wrong;
}

/* -- the video */

static gboolean
find_elements (GError ** error)
{
  static const gchar *const needed[][2] = {
    {"webrtcbin", "gstreamer1.0-plugins-bad"}, {"nicesrc", "gstreamer1.0-nice"},
    {"dtlssrtpenc", "gstreamer1.0-plugins-bad"}, {"srtpenc", "gstreamer1.0-plugins-bad"},
    {"rtph264pay", "gstreamer1.0-plugins-good"}
  };

  for (guint i = 0; i < G_N_ELEMENTS (needed); i++) {
    GstElementFactory *factory = gst_element_factory_find (needed[i][0]);

    if (!factory) {
      g_set_error (error, GST_CORE_ERROR, GST_CORE_ERROR_MISSING_PLUGIN,
          "no element \"%s\"; on Debian it is in %s", needed[i][0], needed[i][1]);
      return FALSE;
    }
    gst_object_unref (factory);
  }
  return TRUE;
}

static gboolean
end (gpointer user_data)
{
  App *app = user_data;

  console_say ("ends");
  g_main_loop_quit (app->loop);
  return G_SOURCE_REMOVE;
}

/* Without viewers nothing is a sink, so nothing else says so */
static GstPadProbeReturn
see_end (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  if (GST_EVENT_TYPE (GST_PAD_PROBE_INFO_EVENT (info)) == GST_EVENT_EOS)
    g_idle_add (end, user_data);
  return GST_PAD_PROBE_OK;
}

static gboolean
take_message (GstBus * bus, GstMessage * message, gpointer user_data)
{
  App *app = user_data;
  const gboolean error = GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR;

  if ((error || GST_MESSAGE_TYPE (message) == GST_MESSAGE_WARNING)
      && viewers_failed (app->viewers, GST_MESSAGE_SRC (message), error))
    return G_SOURCE_CONTINUE;
  console_message (message);
  api_message (app->api, message);
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_LATENCY)
    gst_bin_recalculate_latency (GST_BIN (app->pipeline));
  if (error) {
    signals_set_status (1);
    g_main_loop_quit (app->loop);
  }
  return G_SOURCE_CONTINUE;
}

static void
get_page (SoupServerMessage * msg, const gchar * rest, gpointer user_data)
{
  GBytes *page = g_resources_lookup_data (PAGE, G_RESOURCE_LOOKUP_FLAGS_NONE, NULL);
  gsize size;
  const gchar *text = g_bytes_get_data (page, &size);

  soup_message_headers_replace (soup_server_message_get_response_headers (msg),
      "Content-Security-Policy", POLICY);
  http_answer (msg, 200, "text/html; charset=utf-8", text, size);
  g_bytes_unref (page);
}

/* -- WHEP */

static void
answer_offer (guint status, const gchar * id, const gchar * text, gpointer user_data)
{
  SoupServerMessage *msg = user_data;
  gchar *location;

  if (id) {
    location = g_strconcat ("/whep/", id, NULL);
    soup_message_headers_replace (soup_server_message_get_response_headers (msg),
        "Location", location);
    http_answer (msg, status, "application/sdp", text, -1);
    g_free (location);
  } else {
    http_refuse (msg, status, "%s", text);
  }
  http_go_on (msg);
}

static void
post_offer (SoupServerMessage * msg, const gchar * rest, gpointer user_data)
{
  App *app = user_data;
  gchar *offer;

  if (!http_is (msg, "application/sdp")) {
    http_refuse (msg, 415, "the Content-Type of an offer is application/sdp");
    return;
  }
  offer = http_text (msg);
  if (offer)
    viewers_add (app->viewers, offer, answer_offer, http_later (msg));
  g_free (offer);
}

static void
delete_viewer (SoupServerMessage * msg, const gchar * rest, gpointer user_data)
{
  App *app = user_data;

  if (viewers_remove (app->viewers, rest))
    http_answer (msg, 200, NULL, NULL, 0);
  else
    http_refuse (msg, 404, "there is no such viewer, or no longer");
}

static guint
count_viewers (gpointer user_data)
{
  return viewers_count (((App *) user_data)->viewers);
}

/* In the thread that posts it */
static void
hear_message (GstBus * bus, GstMessage * message, App * app)
{
  api_hear (app->api, message);
}

static gboolean
make_video (App * app, GError ** error)
{
  GstElement *queue, *marked, *tee;
  GstPad *pictures, *pad;
  GstBus *bus;

  plugin_load ();
  if (!find_elements (error))
    return FALSE;
  app->pipeline = gst_parse_launch_full (PIPELINE, NULL, GST_PARSE_FLAG_FATAL_ERRORS,
      error);
  if (!app->pipeline) {
    g_prefix_error (error, "GST_PLUGIN_PATH tells GStreamer where else to look: ");
    return FALSE;
  }
  if (!console_set_format (app->pipeline, size, framerate, bitrate, 4, error))
    return FALSE;
  app->source = gst_bin_get_by_name (GST_BIN (app->pipeline), "source");
  if (settings && !console_set_properties (app->source, settings, error))
    return FALSE;
  queue = gst_bin_get_by_name (GST_BIN (app->pipeline), "pictures");
  marked = gst_bin_get_by_name (GST_BIN (app->pipeline), "marked");
  tee = gst_bin_get_by_name (GST_BIN (app->pipeline), "tee");
  pictures = gst_element_get_static_pad (queue, "src");
  pad = gst_element_get_static_pad (tee, "sink");
  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, see_end, app, NULL);

  app->keys = key_frames_limit (marked);
  app->viewers = viewers_new (app->pipeline, tee, address, max_sessions);
  app->http = http_new (app->token, max_connections, max_per_address);
  http_add (app->http, "GET", "/", FALSE, get_page, NULL);
  http_add (app->http, "POST", "/whep", TRUE, post_offer, app);
  http_add (app->http, "DELETE", "/whep/", TRUE, delete_viewer, app);
  app->api = api_new (app->source, pictures, TRUE, count_viewers, app, app->http);
  bus = gst_element_get_bus (app->pipeline);
  gst_bus_enable_sync_message_emission (bus);
  g_signal_connect (bus, "sync-message", G_CALLBACK (hear_message), app);
  gst_bus_add_watch (bus, take_message, app);
  gst_object_unref (bus);
  gst_object_unref (pad);
  gst_object_unref (pictures);
  gst_object_unref (tee);
  gst_object_unref (marked);
  gst_object_unref (queue);
  return TRUE;
}

/* -- the program */

/* Before anything loads, so that a port in use is said at once */
static gboolean
listen_there (App * app, GError ** error)
{
  app->bound_port = http_open (app->http, address, port, error);
  if (!app->bound_port)
    g_prefix_error (error, "%s port %d: ", address, port);
  return app->bound_port;
}

/* A viewer has a socket for each address of the machine, and some more: a hundred need
 * more files than a process may usually have open without asking */
static void
allow_files (void)
{
  struct rlimit files;

  if (getrlimit (RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit (RLIMIT_NOFILE, &files);
  }
}

static void
serve (App * app)
{
  allow_files ();
  signals_serve (end, app);
  console_read_prompts (app->source);
  printf (strchr (address, ':') ? "http://[%s]:%d/\n" : "http://%s:%d/\n", address,
      app->bound_port);
  fflush (stdout);
  if (gst_element_set_state (app->pipeline, GST_STATE_PLAYING)
      == GST_STATE_CHANGE_FAILURE)
    signals_set_status (1);
  g_main_loop_run (app->loop);
  signals_set_deadline ();
}

/* Clients first, as the rest may take longer than they want to wait */
static void
free_app (App * app)
{
  if (app->http)
    http_shut (app->http);
  viewers_free (app->viewers);
  api_settle (app->api);
  if (app->pipeline)
    gst_element_set_state (app->pipeline, GST_STATE_NULL);
  http_free (app->http);
  api_free (app->api);
  key_frames_free (app->keys);
  gst_clear_object (&app->source);
  gst_clear_object (&app->pipeline);
  g_main_loop_unref (app->loop);
  g_free (app->token);
}

gint
main (gint argc, gchar ** argv)
{
  App app = { NULL, };
  GError *error = NULL;
  gint status = 0;

  signals_catch ();
  setlocale (LC_ALL, "");
  g_set_prgname ("dualparal-web");
  app.loop = g_main_loop_new (NULL, FALSE);
  if (parse_options (argc, argv, &error) && http_read_token (token_file, &app.token, &error)
      && make_video (&app, &error) && listen_there (&app, &error))
    serve (&app);
  else
    status = error->domain == G_OPTION_ERROR ? 2 : 1;
  if (error)
    console_say ("%s", error->message);
  g_clear_error (&error);
  free_app (&app);
  return status ? status : signals_status ();
}
