/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * preview.c: live video in a window. It is there at once and plays evenly, however
 * long a model loads and however slow it is, and each line of standard input is a
 * new prompt. With --stats it says how well it goes.
 */
#include <glib-unix.h>
#include <gst/gst.h>
#include <locale.h>
#include "console.h"
#include "plugin.h"

/* At least three times as large as the tiny model's pictures */
#define PIPELINE "dualparalsrc name=source is-live=true " \
    "startup-policy=placeholder ! capsfilter name=format ! queue ! videoconvert ! videoscale " \
    "! video/x-raw,width=[768,8192],height=[432,8192] " \
    "! textoverlay name=text silent=true font-desc=\"Sans 12\" halignment=left " \
    "valignment=top line-alignment=left " \
    "! videoconvert ! autovideosink"
#define STATS_MS 500

typedef struct
{
  GMainLoop *loop;
  GstElement *pipeline, *source, *text;
  gchar *prompt;                /* that is shown */
  gboolean loaded;
  gint status;
} App;

static gboolean stats;
static gchar *size, *framerate, **settings;

static const GOptionEntry options[] = {
  {"stats", 0, 0, G_OPTION_ARG_NONE, &stats,
      "Write over the picture how well it goes", NULL},
  {"size", 0, 0, G_OPTION_ARG_FILENAME, &size,
      "Size of the video (default: the model's)", "WIDTHxHEIGHT"},
  {"framerate", 0, 0, G_OPTION_ARG_FILENAME, &framerate,
      "Frames a second (default: the model's)", "N[/D]"},
  {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &settings, NULL,
      "[PROPERTY=VALUE...]"},
  {NULL}
};

static gboolean
parse_options (gint argc, gchar ** argv, GError ** error)
{
  return console_parse ("Live video of dualparalsrc, whose properties may be set, "
      "in a window.", options, argc, argv, error);
}

static gboolean
make_pipeline (App * app, GError ** error)
{
  GstCaps *caps = console_caps (size, framerate, error);

  if (!caps)
    return FALSE;
  if (!g_getenv ("DISPLAY") && !g_getenv ("WAYLAND_DISPLAY")) {
    g_set_error (error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND,
        "there is no display here: neither DISPLAY nor WAYLAND_DISPLAY is set; "
        "pipelines/rtsp-server shows the video elsewhere, pipelines/record "
        "writes a file");
    gst_caps_unref (caps);
    return FALSE;
  }
  plugin_load ();
  app->pipeline = gst_parse_launch_full (PIPELINE, NULL,
      GST_PARSE_FLAG_FATAL_ERRORS, error);
  if (!app->pipeline) {
    gst_caps_unref (caps);
    g_prefix_error (error,
        "GST_PLUGIN_PATH tells GStreamer where else to look: ");
    return FALSE;
  }
  app->source = gst_bin_get_by_name (GST_BIN (app->pipeline), "source");
  app->text = gst_bin_get_by_name (GST_BIN (app->pipeline), "text");
  gst_child_proxy_set (GST_CHILD_PROXY (app->pipeline), "format::caps", caps,
      NULL);
  gst_caps_unref (caps);
  return !settings || console_set_properties (app->source, settings, error);
}

/* A field that is not there is 0 */
static gdouble
get_number (const GstStructure * s, const gchar * field)
{
  const GValue *value = gst_structure_get_value (s, field);
  GValue number = G_VALUE_INIT;
  gdouble result = 0;

  g_value_init (&number, G_TYPE_DOUBLE);
  if (value && g_value_transform (value, &number))
    result = g_value_get_double (&number);
  g_value_unset (&number);
  return result;
}

static gboolean
show_stats (gpointer user_data)
{
  App *app = user_data;
  GstStructure *s;
  gchar *text;

  g_object_get (app->source, "stats", &s, NULL);
  text = g_strdup_printf ("made at %.2f times real time, %.0f frames ahead\n"
      "ran out %.0f times, repeated %.0f frames\n%s",
      get_number (s, "realtime-factor"), get_number (s, "queue-frames"),
      get_number (s, "underruns"), get_number (s, "repeated"),
      app->prompt ? app->prompt : app->loaded ? "makes the first frames" :
      "the model loads");
  g_object_set (app->text, "text", text, "silent", FALSE, NULL);
  g_free (text);
  gst_structure_free (s);
  return G_SOURCE_CONTINUE;
}

/* A sink that finds its window gone: somebody closed it */
static gboolean
is_closed (GstMessage * message)
{
  GError *error;
  gboolean closed;

  gst_message_parse_error (message, &error, NULL);
  closed = GST_OBJECT_FLAG_IS_SET (GST_MESSAGE_SRC (message),
      GST_ELEMENT_FLAG_SINK) && g_error_matches (error, GST_RESOURCE_ERROR,
      GST_RESOURCE_ERROR_NOT_FOUND);
  g_error_free (error);
  return closed;
}

static gboolean
is_loaded (GstMessage * message)
{
  GstProgressType type;

  gst_message_parse_progress (message, &type, NULL, NULL);
  return type == GST_PROGRESS_TYPE_COMPLETE;
}

static gboolean
take_message (GstBus * bus, GstMessage * message, gpointer user_data)
{
  App *app = user_data;
  const GstStructure *s = gst_message_get_structure (message);

  switch (GST_MESSAGE_TYPE (message)) {
    case GST_MESSAGE_ERROR:
      g_main_loop_quit (app->loop);
      if (is_closed (message))
        return G_SOURCE_CONTINUE;
      app->status = 1;
      break;
    case GST_MESSAGE_EOS:
      g_main_loop_quit (app->loop);
      break;
    case GST_MESSAGE_LATENCY:
      gst_bin_recalculate_latency (GST_BIN (app->pipeline));
      break;
    case GST_MESSAGE_ELEMENT:
      if (gst_structure_has_name (s, "dualparal-prompt-applied")) {
        g_free (app->prompt);
        app->prompt = g_strdup (gst_structure_get_string (s, "prompt"));
      }
      break;
    case GST_MESSAGE_PROGRESS:
      app->loaded = is_loaded (message);
      break;
    default:
      break;
  }
  console_message (message);
  return G_SOURCE_CONTINUE;
}

static gboolean
end (gpointer user_data)
{
  App *app = user_data;

  g_main_loop_quit (app->loop);
  return G_SOURCE_CONTINUE;
}

static void
play (App * app)
{
  GstBus *bus = gst_element_get_bus (app->pipeline);

  gst_bus_add_watch (bus, take_message, app);
  gst_object_unref (bus);
  g_unix_signal_add (SIGINT, end, app);
  g_unix_signal_add (SIGTERM, end, app);
  g_unix_signal_add (SIGHUP, end, app);
  console_read_prompts (app->source);
  if (stats)
    g_timeout_add (STATS_MS, show_stats, app);
  gst_element_set_state (app->pipeline, GST_STATE_PLAYING);
  g_main_loop_run (app->loop);
  gst_element_set_state (app->pipeline, GST_STATE_NULL);
}

gint
main (gint argc, gchar ** argv)
{
  App app = { NULL, };
  GError *error = NULL;

  setlocale (LC_ALL, "");
  g_set_prgname ("dualparal-preview");
  app.loop = g_main_loop_new (NULL, FALSE);
  if (parse_options (argc, argv, &error) && make_pipeline (&app, &error)) {
    play (&app);
  } else {
    app.status = error->domain == G_OPTION_ERROR ? 2 : 1;
    console_say ("%s", error->message);
  }
  g_clear_error (&error);
  g_free (app.prompt);
  gst_clear_object (&app.text);
  gst_clear_object (&app.source);
  gst_clear_object (&app.pipeline);
  g_main_loop_unref (app.loop);
  return app.status;
}
