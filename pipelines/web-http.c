/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "web-http.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "address.h"
#include "console.h"

#define BACKLOG 128
/* Offers and prompts have some kilobytes */
#define MAX_BODY 65536
/* From one answer, or the connection, to the next */
#define MAX_SECONDS 20
#define LEAST_TOKEN 16

typedef struct
{
  const gchar *method, *path;
  gboolean secret;
  HttpHandler handler;
  gpointer user_data;
} Route;

typedef struct
{
  Http *http;
  GSocketConnection *connection;        /* soup's */
  GBytes *address;
  gint64 since;
} Visit;

struct _Http
{
  SoupServer *server;
  GSocketService *service;
  gchar *token;
  guint connections, per_address, watching;
  GArray *routes;
  GList *visits;
  guint n_visits;
};

/* -- answers */

void
http_answer (SoupServerMessage * msg, guint status, const gchar * type,
    const gchar * body, gssize size)
{
  soup_server_message_set_status (msg, status, NULL);
  if (body)
    soup_server_message_set_response (msg, type, SOUP_MEMORY_COPY, body,
        size < 0 ? strlen (body) : (gsize) size);
}

void
http_refuse (SoupServerMessage * msg, guint status, const gchar * format, ...)
{
  GString *sentence = g_string_new (NULL);
  va_list args;

  va_start (args, format);
  g_string_vprintf (sentence, format, args);
  va_end (args);
  g_string_append_c (sentence, '\n');
  http_answer (msg, status, "text/plain; charset=utf-8", sentence->str, -1);
  g_string_free (sentence, TRUE);
}

static void
message_gone (SoupServerMessage * msg)
{
  g_object_set_data (G_OBJECT (msg), "gone", msg);
}

SoupServerMessage *
http_later (SoupServerMessage * msg)
{
  g_signal_connect (msg, "finished", G_CALLBACK (message_gone), NULL);
  g_signal_connect (msg, "disconnected", G_CALLBACK (message_gone), NULL);
  soup_server_message_pause (msg);
  return g_object_ref (msg);
}

void
http_go_on (SoupServerMessage * msg)
{
  if (!g_object_get_data (G_OBJECT (msg), "gone"))
    soup_server_message_unpause (msg);
  g_object_unref (msg);
}

gchar *
http_text (SoupServerMessage * msg)
{
  GBytes *body =
      soup_message_body_flatten (soup_server_message_get_request_body (msg));
  gsize size;
  const gchar *data = g_bytes_get_data (body, &size);
  gchar *text = NULL;

  if (size && g_utf8_validate (data, size, NULL) && !memchr (data, '\0', size))
    text = g_strndup (data, size);
  else
    http_refuse (msg, 400, size ? "the body is not UTF-8 text" : "the body is empty");
  g_bytes_unref (body);
  return text;
}

gboolean
http_is (SoupServerMessage * msg, const gchar * type)
{
  const gchar *is =
      soup_message_headers_get_content_type (soup_server_message_get_request_headers
      (msg), NULL);

  return is && g_ascii_strcasecmp (is, type) == 0;
}

/* -- who may */

gboolean
http_read_token (const gchar * file, gchar ** token, GError ** error)
{
  struct stat found;

  if (!file)
    return TRUE;
  if (!g_file_get_contents (file, token, NULL, error)) {
    g_prefix_error (error, "--token-file: ");
    return FALSE;
  }
  if (stat (file, &found) == 0 && found.st_mode & (S_IRGRP | S_IROTH))
    console_say ("--token-file %s: others may read it; chmod 600 changes that", file);
  (*token)[strcspn (*token, "\r\n")] = '\0';
  for (const gchar * c = *token; *c; c++)
    if (!g_ascii_isgraph (*c)) {
      g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
          "--token-file %s: its first line has other characters than those of ASCII that "
          "are printed; \"openssl rand -hex 16\" makes a token", file);
      return FALSE;
    }
  if (strlen (*token) >= LEAST_TOKEN)
    return TRUE;
  g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
      "--token-file %s: its first line has less than %d characters, which can be guessed; "
      "\"openssl rand -hex 16\" makes a token", file, LEAST_TOKEN);
  return FALSE;
}

/* A name that somebody else gave this address is how a page of theirs would get here */
static gboolean
is_own_name (const gchar * host)
{
  GUri *uri;
  gchar *url;
  gboolean own;

  if (!host)
    return FALSE;
  url = g_strconcat ("http://", host, NULL);
  uri = g_uri_parse (url, G_URI_FLAGS_NONE, NULL);
  own = uri && g_uri_get_host (uri) && (g_hostname_is_ip_address (g_uri_get_host (uri))
      || g_ascii_strcasecmp (g_uri_get_host (uri), "localhost") == 0);
  g_clear_pointer (&uri, g_uri_unref);
  g_free (url);
  return own;
}

static gboolean
is_own_page (const gchar * origin, const gchar * host)
{
  const gchar *name = strstr (origin, "://");

  return host && name && g_ascii_strcasecmp (name + 3, host) == 0;
}

/* Takes as long wherever the two differ */
static gboolean
is_token (const gchar * token, const gchar * header)
{
  const gsize size = strlen (token);
  guint8 differs = 0;

  if (!header || g_ascii_strncasecmp (header, "Bearer ", 7) != 0
      || strlen (header + 7) != size)
    return FALSE;
  for (gsize i = 0; i < size; i++)
    differs |= token[i] ^ header[7 + i];
  return differs == 0;
}

static gboolean
may (Http * http, SoupServerMessage * msg, const Route * route)
{
  SoupMessageHeaders *headers = soup_server_message_get_request_headers (msg);
  const gchar *host = soup_message_headers_get_one (headers, "Host"),
      *origin = soup_message_headers_get_one (headers, "Origin");

  if (!http->token && !is_own_name (host))
    http_refuse (msg, 403, "without a token this is only for localhost and addresses, "
        "and the Host is %.100s", host ? host : "missing");
  else if (origin && !is_own_page (origin, host))
    http_refuse (msg, 403, "a page of %.100s may not do this", origin);
  else if (route->secret && http->token && !is_token (http->token,
          soup_message_headers_get_one (headers, "Authorization"))) {
    soup_message_headers_replace (soup_server_message_get_response_headers (msg),
        "WWW-Authenticate", "Bearer");
    http_refuse (msg, 401, "this needs the token: Authorization: Bearer TOKEN");
  } else
    return TRUE;
  return FALSE;
}

/* -- which handler */

static gboolean
fits (const Route * route, const gchar * path)
{
  return g_str_has_suffix (route->path, "/") && route->path[1] ?
      g_str_has_prefix (path, route->path) : g_str_equal (path, route->path);
}

/* NULL after an answer */
static const Route *
find_route (Http * http, SoupServerMessage * msg, const gchar * path)
{
  const gchar *method = soup_server_message_get_method (msg);
  GString *allowed = g_string_new (NULL);
  const Route *found = NULL;

  if (g_str_equal (method, "HEAD"))
    method = "GET";
  for (guint i = 0; i < http->routes->len && !found; i++) {
    const Route *route = &g_array_index (http->routes, Route, i);

    if (!fits (route, path))
      continue;
    if (g_str_equal (route->method, method))
      found = route;
    g_string_append_printf (allowed, "%s%s", allowed->len ? ", " : "", route->method);
  }
  if (!found && allowed->len) {
    soup_message_headers_replace (soup_server_message_get_response_headers (msg), "Allow",
        allowed->str);
    http_refuse (msg, 405, "%.20s is nothing that %.100s does; it takes %s", method, path,
        allowed->str);
  } else if (!found) {
    http_refuse (msg, 404, "there is no %.100s here", path);
  }
  g_string_free (allowed, TRUE);
  return found;
}

/* What still comes is read and thrown away until it ends, or the time is over */
static void
too_large (SoupServerMessage * msg)
{
  soup_message_body_set_accumulate (soup_server_message_get_request_body (msg), FALSE);
  soup_message_headers_replace (soup_server_message_get_response_headers (msg),
      "Connection", "close");
  http_refuse (msg, 413, "the body has more than %d bytes", MAX_BODY);
}

/* Before there is a body */
static void
take_headers (SoupServer * server, SoupServerMessage * msg, const gchar * path,
    GHashTable * query, gpointer user_data)
{
  SoupMessageHeaders *headers = soup_server_message_get_request_headers (msg),
      *answer = soup_server_message_get_response_headers (msg);
  const Route *route;

  soup_message_headers_replace (answer, "Cache-Control", "no-store");
  soup_message_headers_replace (answer, "X-Content-Type-Options", "nosniff");
  soup_message_headers_replace (answer, "Cross-Origin-Resource-Policy", "same-origin");
  route = find_route (user_data, msg, path);
  if (route && may (user_data, msg, route)
      && soup_message_headers_get_encoding (headers) == SOUP_ENCODING_CONTENT_LENGTH
      && soup_message_headers_get_content_length (headers) > MAX_BODY)
    too_large (msg);
  if (soup_server_message_get_status (msg))
    soup_message_body_set_accumulate (soup_server_message_get_request_body (msg), FALSE);
}

static void
take_request (SoupServer * server, SoupServerMessage * msg, const gchar * path,
    GHashTable * query, gpointer user_data)
{
  const Route *route = find_route (user_data, msg, path);

  if (route)
    route->handler (msg, path + strlen (route->path), route->user_data);
}

/* -- connections */

static Visit *
visit_of (SoupServerMessage * msg)
{
  return g_object_get_data (G_OBJECT (soup_server_message_get_remote_address (msg)),
      "visit");
}

static void
cut_off (Visit * visit)
{
  g_socket_shutdown (g_socket_connection_get_socket (visit->connection), TRUE, TRUE,
      NULL);
}

static void
count_bytes (SoupServerMessage * msg, GBytes * chunk, gpointer user_data)
{
  gsize *size = g_object_get_data (G_OBJECT (msg), "size");

  if (!size) {
    size = g_new0 (gsize, 1);
    g_object_set_data_full (G_OBJECT (msg), "size", size, g_free);
  }
  *size += g_bytes_get_size (chunk);
  if (*size > MAX_BODY && !soup_server_message_get_status (msg))
    too_large (msg);
}

static void
begin_request (SoupServer * server, SoupServerMessage * msg, gpointer user_data)
{
  visit_of (msg)->since = g_get_monotonic_time ();
  g_signal_connect (msg, "got-chunk", G_CALLBACK (count_bytes), NULL);
}

static void
visit_free (gpointer data)
{
  g_bytes_unref (((Visit *) data)->address);
  g_free (data);
}

static void
visit_ended (gpointer data, GObject * connection)
{
  Visit *visit = data;

  visit->http->visits = g_list_remove (visit->http->visits, visit);
  visit->http->n_visits--;
  visit_free (visit);
}

static gboolean
is_full (Http * http, GBytes * address)
{
  guint same = 0;

  for (GList * l = http->visits; l; l = l->next)
    same += g_bytes_equal (((Visit *) l->data)->address, address);
  return http->n_visits >= http->connections || same >= http->per_address;
}

static gboolean
let_in (GSocketService * service, GSocketConnection * connection, GObject * source,
    gpointer user_data)
{
  static const gchar busy[] = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
      "Content-Type: text/plain\r\nRetry-After: 5\r\n\r\ntoo many connections\n";
  Http *http = user_data;
  GSocket *socket = g_socket_connection_get_socket (connection);
  GSocketAddress *local = g_socket_connection_get_local_address (connection, NULL),
      *remote = g_socket_connection_get_remote_address (connection, NULL);
  GBytes *address = remote ?
      address_key (g_inet_socket_address_get_address (G_INET_SOCKET_ADDRESS (remote))) : NULL;
  Visit *visit;

  if (!local || !remote || is_full (http, address)) {
    send (g_socket_get_fd (socket), busy, sizeof busy - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  } else {
    g_socket_set_keepalive (socket, TRUE);
    visit = g_new0 (Visit, 1);
    visit->http = http;
    visit->connection = connection;
    visit->address = g_bytes_ref (address);
    visit->since = g_get_monotonic_time ();
    http->visits = g_list_prepend (http->visits, visit);
    http->n_visits++;
    g_object_set_data (G_OBJECT (remote), "visit", visit);
    g_object_weak_ref (G_OBJECT (connection), visit_ended, visit);
    soup_server_accept_iostream (http->server, G_IO_STREAM (connection), local, remote,
        NULL);
  }
  g_clear_pointer (&address, g_bytes_unref);
  g_clear_object (&local);
  g_clear_object (&remote);
  return TRUE;
}

static gboolean
cut_off_late (gpointer user_data)
{
  Http *http = user_data;
  gint64 late = g_get_monotonic_time () - MAX_SECONDS * G_USEC_PER_SEC;

  for (GList * l = http->visits; l; l = l->next)
    if (((Visit *) l->data)->since < late)
      cut_off (l->data);
  return G_SOURCE_CONTINUE;
}

/* -- all of it */

Http *
http_new (const gchar * token, guint connections, guint per_address)
{
  Http *http = g_new0 (Http, 1);

  http->token = g_strdup (token);
  http->connections = connections;
  http->per_address = per_address;
  http->routes = g_array_new (FALSE, FALSE, sizeof (Route));
  http->server = soup_server_new (NULL, NULL);
  soup_server_add_early_handler (http->server, NULL, take_headers, http, NULL);
  soup_server_add_handler (http->server, NULL, take_request, http, NULL);
  g_signal_connect (http->server, "request-started", G_CALLBACK (begin_request), http);
  return http;
}

void
http_add (Http * http, const gchar * method, const gchar * path, gboolean secret,
    HttpHandler handler, gpointer user_data)
{
  Route route = { method, path, secret, handler, user_data };

  g_array_append_val (http->routes, route);
}

gint
http_open (Http * http, const gchar * address, gint port, GError ** error)
{
  GSocketAddress *wanted = g_inet_socket_address_new_from_string (address, port),
      *bound = NULL;
  gint got = 0;

  http->service = g_socket_service_new ();
  g_socket_listener_set_backlog (G_SOCKET_LISTENER (http->service), BACKLOG);
  g_signal_connect (http->service, "incoming", G_CALLBACK (let_in), http);
  if (g_socket_listener_add_address (G_SOCKET_LISTENER (http->service), wanted,
          G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_TCP, NULL, &bound, error)) {
    got = g_inet_socket_address_get_port (G_INET_SOCKET_ADDRESS (bound));
    g_socket_service_start (http->service);
    http->watching = g_timeout_add_seconds (1, cut_off_late, http);
  }
  g_clear_object (&bound);
  g_object_unref (wanted);
  return got;
}

void
http_shut (Http * http)
{
  if (http->service) {
    g_socket_service_stop (http->service);
    g_socket_listener_close (G_SOCKET_LISTENER (http->service));
  }
  for (GList * l = http->visits; l; l = l->next)
    cut_off (l->data);
}

void
http_free (Http * http)
{
  if (!http)
    return;
  http_shut (http);
  if (http->watching)
    g_source_remove (http->watching);
  soup_server_disconnect (http->server);
  g_clear_object (&http->service);
  g_clear_object (&http->server);
  for (GList * l = http->visits; l; l = l->next)
    g_object_weak_unref (G_OBJECT (((Visit *) l->data)->connection), visit_ended, l->data);
  g_list_free_full (http->visits, visit_free);
  g_array_unref (http->routes);
  g_free (http->token);
  g_free (http);
}
