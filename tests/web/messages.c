/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What /stats says of prompts when messages of a video arrive after it was restarted. The bus has no
 * watch here: messages wait in it until the test hands them over.
 */
#include <gst/gst.h>
#include <json-glib/json-glib.h>
#include <string.h>
#include "pipelines/web-api.h"

/* Frames of the video before, and a frame of the next one in the middle of them */
#define BEFORE 60
#define LATER 48
#define LATER_TEXT G_STRINGIFY (LATER)

typedef struct
{
  GstElement *pipeline, *source, *sink;
  GstPad *pictures;
  GstBus *bus;
  Http *http;
  Api *api;
  SoupSession *session;
  gchar *url;
  GBytes *answer;               /* of the request that is under way */
} Test;

static guint
no_viewers (gpointer user_data)
{
  return 0;
}

static void
set_up (Test * test, gconstpointer data)
{
  GError *error = NULL;
  gint port;

  test->pipeline = gst_parse_launch ("dualparalsrc name=source prompt=first preview=true steps=1 block-latents=1 "
      "context-latents=-1 threads=1 ! fakesink name=sink", &error);
  g_assert_no_error (error);
  test->source = gst_bin_get_by_name (GST_BIN (test->pipeline), "source");
  test->sink = gst_bin_get_by_name (GST_BIN (test->pipeline), "sink");
  test->pictures = gst_element_get_static_pad (test->source, "src");
  test->bus = gst_element_get_bus (test->pipeline);
  test->http = http_new (NULL, 10, 10);
  test->api = api_new (test->source, test->pictures, TRUE, no_viewers, NULL, test->http);
  port = http_open (test->http, "127.0.0.1", 0, &error);
  g_assert_no_error (error);
  test->url = g_strdup_printf ("http://127.0.0.1:%d", port);
  test->session = soup_session_new ();
  gst_element_set_state (test->pipeline, GST_STATE_PLAYING);
}

static void
tear_down (Test * test, gconstpointer data)
{
  http_shut (test->http);
  api_settle (test->api);
  gst_element_set_state (test->pipeline, GST_STATE_NULL);
  http_free (test->http);
  api_free (test->api);
  g_object_unref (test->session);
  gst_object_unref (test->bus);
  gst_object_unref (test->pictures);
  gst_object_unref (test->sink);
  gst_object_unref (test->source);
  gst_object_unref (test->pipeline);
  g_free (test->url);
}

/* -- requests */

static void
take_answer (GObject * session, GAsyncResult * result, gpointer user_data)
{
  GError *error = NULL;

  ((Test *) user_data)->answer = soup_session_send_and_read_finish (SOUP_SESSION (session), result, &error);
  g_assert_no_error (error);
}

static GBytes *
ask (Test * test, const gchar * method, const gchar * path, const gchar * body, guint status)
{
  gchar *url = g_strconcat (test->url, path, NULL);
  SoupMessage *msg = soup_message_new (method, url);
  GBytes *bytes = body ? g_bytes_new_static (body, strlen (body)) : NULL;

  if (bytes)
    soup_message_set_request_body_from_bytes (msg, "application/json", bytes);
  soup_session_send_and_read_async (test->session, msg, G_PRIORITY_DEFAULT, NULL, take_answer, test);
  while (!test->answer)
    g_main_context_iteration (NULL, TRUE);
  g_assert_cmpuint (soup_message_get_status (msg), ==, status);
  g_clear_pointer (&bytes, g_bytes_unref);
  g_object_unref (msg);
  g_free (url);
  return g_steal_pointer (&test->answer);
}

static void
post (Test * test, const gchar * body)
{
  g_bytes_unref (ask (test, "POST", "/prompt", body, 204));
}

/* A list of /stats, as "frame prompt, frame prompt" */
static void
assert_list (Test * test, const gchar * name, const gchar * expected)
{
  GBytes *answer = ask (test, "GET", "/stats", NULL, 200);
  JsonParser *parser = json_parser_new ();
  GString *text = g_string_new (NULL);
  GError *error = NULL;
  JsonArray *list;

  json_parser_load_from_data (parser, g_bytes_get_data (answer, NULL), g_bytes_get_size (answer), &error);
  g_assert_no_error (error);
  list = json_object_get_array_member (json_node_get_object (json_parser_get_root (parser)), name);
  for (guint i = 0; i < json_array_get_length (list); i++) {
    JsonObject *entry = json_array_get_object_element (list, i);

    g_string_append_printf (text, "%s%" G_GINT64_FORMAT " %s", i ? ", " : "", json_object_get_int_member (entry, "frame"),
        json_object_get_string_member (entry, "prompt"));
  }
  g_assert_cmpstr (text->str, ==, expected);
  g_string_free (text, TRUE);
  g_object_unref (parser);
  g_bytes_unref (answer);
}

/* -- messages */

/* Hands over all messages up to that of this prompt. Returns its frame. */
static guint64
hand_over (Test * test, const gchar * prompt)
{
  GstMessage *message;
  guint64 frame = 0;
  gboolean found = FALSE;

  while (!found) {
    message = gst_bus_timed_pop (test->bus, 60 * GST_SECOND);
    g_assert_nonnull (message);
    g_assert_cmpint (GST_MESSAGE_TYPE (message), !=, GST_MESSAGE_ERROR);
    api_message (test->api, message);
    if (gst_message_has_name (message, "dualparal-prompt-applied")) {
      const GstStructure *s = gst_message_get_structure (message);

      found = g_str_equal (gst_structure_get_string (s, "prompt"), prompt);
      gst_structure_get_uint64 (s, "frame", &frame);
    }
    gst_message_unref (message);
  }
  return frame;
}

/* Without handing anything over */
static void
wait_for_frame (Test * test, guint64 frame)
{
  guint64 position = 0;
  gint64 end = g_get_monotonic_time () + 60 * G_TIME_SPAN_SECOND;

  while (position <= frame) {
    GstSample *sample = NULL;

    g_object_get (test->sink, "last-sample", &sample, NULL);
    if (sample)
      position = GST_BUFFER_OFFSET (gst_sample_get_buffer (sample));
    g_clear_pointer (&sample, gst_sample_unref);
    g_assert_cmpint (g_get_monotonic_time (), <, end);
    g_usleep (10000);
  }
}

static void
test_late (Test * test, gconstpointer data)
{
  guint64 frame;

  hand_over (test, "first");
  assert_list (test, "shown", "0 first");
  wait_for_frame (test, BEFORE);
  post (test, "{\"prompt\": \"second\"}");
  wait_for_frame (test, BEFORE * 2);

  /* The next video keeps the sink's time, so that frame LATER is a while away. Restarted twice, as
   * the first must not end what is ignored because of the second. */
  g_object_set (test->sink, "sync", TRUE, NULL);
  post (test, "{\"prompt\": \"third\", \"restart\": true}");
  post (test, "{\"prompt\": \"fourth\", \"restart\": true}");
  post (test, "{\"prompt\": \"later\", \"at_frame\": " LATER_TEXT "}");
  assert_list (test, "shown", "");
  assert_list (test, "queued", LATER_TEXT " later");

  frame = hand_over (test, "second");
  g_assert_cmpuint (frame, >, BEFORE);
  assert_list (test, "shown", "");
  assert_list (test, "queued", LATER_TEXT " later");
  hand_over (test, "fourth");
  assert_list (test, "shown", "0 fourth");
  assert_list (test, "queued", LATER_TEXT " later");
  frame = hand_over (test, "later");
  g_assert_cmpuint (frame, >=, LATER);
  assert_list (test, "queued", "");
}

gint
main (gint argc, gchar ** argv)
{
  gst_init (&argc, &argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add ("/web/messages/late", Test, NULL, set_up, test_late, tear_down);
  return g_test_run ();
}
