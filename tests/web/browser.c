/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * browser: what a page of a running Chromium says, by the DevTools protocol.
 *
 * usage: browser PORT open URL                   prints the name of a new page
 *        browser PORT close PAGE
 *        browser PORT activate PAGE              which is drawn then, as others are not
 *        browser PORT tell PAGE EXPRESSION       JavaScript's value, awaited, as text
 *        browser PORT screenshot PAGE FILE.jpg
 *
 * PORT is that of --remote-debugging-port. Whatever takes more than 20 seconds is an error.
 */
#include <json-glib/json-glib.h>
#include <libsoup/soup.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS 20

typedef struct
{
  GMainLoop *loop;
  const gchar *method;
  JsonNode *parameters;
  JsonNode *result;
} Call;

static G_NORETURN void
die (const gchar * what)
{
  fprintf (stderr, "browser: %s\n", what);
  exit (1);
}

static gboolean
give_up (gpointer user_data)
{
  die ("no answer");
}

static gchar *
http (const gchar * method, const gchar * port, const gchar * path)
{
  g_autofree gchar *url = g_strdup_printf ("http://127.0.0.1:%s/json/%s", port, path);
  SoupSession *session = soup_session_new ();
  SoupMessage *msg = soup_message_new (method, url);
  GBytes *body = msg ? soup_session_send_and_read (session, msg, NULL, NULL) : NULL;
  gchar *text;

  if (!body || soup_message_get_status (msg) != 200)
    die ("no such page, or no browser");
  text = g_strndup (g_bytes_get_data (body, NULL), g_bytes_get_size (body));
  g_bytes_unref (body);
  g_object_unref (msg);
  g_object_unref (session);
  return text;
}

static void
take_reply (SoupWebsocketConnection * socket, SoupWebsocketDataType type, GBytes * text,
    Call * call)
{
  JsonNode *node = json_from_string (g_bytes_get_data (text, NULL), NULL);
  JsonObject *reply = node ? json_node_get_object (node) : NULL;

  if (!reply || !json_object_has_member (reply, "id"))
    return;
  if (!json_object_has_member (reply, "result"))
    die (g_bytes_get_data (text, NULL));
  call->result = json_node_ref (node);
  json_node_unref (node);
  g_main_loop_quit (call->loop);
}

static void
lost (SoupWebsocketConnection * socket, gpointer user_data)
{
  die ("the page is gone");
}

static void
connected (GObject * session, GAsyncResult * result, gpointer user_data)
{
  Call *call = user_data;
  GError *error = NULL;
  SoupWebsocketConnection *socket =
      soup_session_websocket_connect_finish (SOUP_SESSION (session), result, &error);
  JsonObject *request = json_object_new ();
  JsonNode *node = json_node_new (JSON_NODE_OBJECT);

  if (!socket)
    die (error->message);
  soup_websocket_connection_set_max_incoming_payload_size (socket, 0);
  g_signal_connect (socket, "message", G_CALLBACK (take_reply), call);
  g_signal_connect (socket, "closed", G_CALLBACK (lost), NULL);
  json_object_set_int_member (request, "id", 1);
  json_object_set_string_member (request, "method", call->method);
  json_object_set_member (request, "params", call->parameters);
  json_node_take_object (node, request);
  soup_websocket_connection_send_text (socket, json_to_string (node, FALSE));
}

/* `text` is one name and value more, beside what is written in `parameters` */
static JsonObject *
ask (const gchar * port, const gchar * page, const gchar * method,
    const gchar * parameters, const gchar * name, const gchar * text)
{
  g_autofree gchar *url =
      g_strdup_printf ("ws://127.0.0.1:%s/devtools/page/%s", port, page);
  SoupSession *session = soup_session_new ();
  Call call = { g_main_loop_new (NULL, FALSE), method, json_from_string (parameters, NULL),
    NULL
  };

  if (name)
    json_object_set_string_member (json_node_get_object (call.parameters), name, text);
  soup_session_websocket_connect_async (session, soup_message_new ("GET", url), NULL, NULL,
      G_PRIORITY_DEFAULT, NULL, connected, &call);
  g_timeout_add_seconds (SECONDS, give_up, NULL);
  g_main_loop_run (call.loop);
  return json_object_get_object_member (json_node_get_object (call.result), "result");
}

static void
open_page (const gchar * port, const gchar * url)
{
  g_autofree gchar *path = g_strconcat ("new?", url, NULL), *text = http ("PUT", port, path);
  JsonNode *node = json_from_string (text, NULL);

  puts (json_object_get_string_member (json_node_get_object (node), "id"));
}

static void
tell (const gchar * port, const gchar * page, const gchar * expression)
{
  JsonObject *answer = ask (port, page, "Runtime.evaluate",
      "{\"awaitPromise\":true,\"returnByValue\":true}", "expression", expression);
  JsonObject *value = json_object_get_object_member (answer, "result");

  if (json_object_has_member (answer, "exceptionDetails"))
    die (json_to_string (json_object_get_member (answer, "exceptionDetails"), FALSE));
  if (!json_object_has_member (value, "value"))
    puts ("undefined");
  else if (strcmp (json_object_get_string_member (value, "type"), "string") == 0)
    puts (json_object_get_string_member (value, "value"));
  else
    puts (json_to_string (json_object_get_member (value, "value"), FALSE));
}

static void
screenshot (const gchar * port, const gchar * page, const gchar * file)
{
  JsonObject *answer = ask (port, page, "Page.captureScreenshot",
      "{\"format\":\"jpeg\",\"quality\":80}", NULL, NULL);
  gsize size;
  guchar *data = g_base64_decode (json_object_get_string_member (answer, "data"), &size);

  if (!g_file_set_contents (file, (const gchar *) data, size, NULL))
    die ("the file cannot be written");
}

int
main (int argc, char **argv)
{
  if (argc == 4 && strcmp (argv[2], "open") == 0)
    open_page (argv[1], argv[3]);
  else if (argc == 4 && (strcmp (argv[2], "close") == 0 || strcmp (argv[2], "activate") == 0))
    g_free (http ("GET", argv[1], g_strconcat (argv[2], "/", argv[3], NULL)));
  else if (argc == 5 && strcmp (argv[2], "tell") == 0)
    tell (argv[1], argv[3], argv[4]);
  else if (argc == 5 && strcmp (argv[2], "screenshot") == 0)
    screenshot (argv[1], argv[3], argv[4]);
  else
    die ("usage: browser PORT open URL | close PAGE | activate PAGE | tell PAGE EXPRESSION | screenshot PAGE FILE");
  return 0;
}
