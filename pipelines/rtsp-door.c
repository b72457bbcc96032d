/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rtsp-door.h"

#include <string.h>
#include <sys/socket.h>
#include "address.h"
#include "console.h"
#include "rtsp-requests.h"

#define BACKLOG 128
/* For a handshake, and for a request from its first byte to its last */
#define MAX_SECONDS 10
#define HANDSHAKES_AN_ADDRESS 4
/* Of TLS */
#define TLS_HANDSHAKE 22
#define TLS_MAX_RECORD 16384
/* What an address did is forgotten after this time without a connection */
#define FORGET_SECONDS 60

static const struct
{
  gdouble at_once, a_second;
} limits[] = {
  [DOOR_LOGIN] = {20, 1},
  [DOOR_PROMPT] = {10, 1},
};

typedef struct
{
  gint connections, handshakes;
  gint64 seen;
  gdouble used[G_N_ELEMENTS (limits)];  /* as of then */
} Address;

typedef struct
{
  Door *door;
  GSocket *socket;
  gchar *ip;
  guint16 port;
  GBytes *address;
  GIOStream *plain;             /* the socket's */
  GIOStream *stream;            /* the same, or TLS over it */
  gint64 since;
  RequestStream *requests;      /* NULL during the handshake */
} Visitor;

struct _Door
{
  GstRTSPServer *server;
  GTlsCertificate *certificate;
  gint connections, per_address;
  GSocket *socket;
  GSource *listening;
  guint watching;

  GMutex lock;
  GCond changed;                /* a handshake or a visit has ended */
  /* -- protected by lock */
  GList *visitors;              /* their sockets are open */
  guint n_visitors;
  GHashTable *addresses;        /* GBytes: Address */
  gboolean cut_off;
};

/* -- addresses */

/* With the lock */
static Address *
address_find (Door * door, GBytes * key)
{
  Address *address = g_hash_table_lookup (door->addresses, key);
  gint64 now = g_get_monotonic_time ();

  if (!address) {
    address = g_new0 (Address, 1);
    address->seen = now;
    g_hash_table_insert (door->addresses, g_bytes_ref (key), address);
  }
  for (guint i = 0; i < G_N_ELEMENTS (limits); i++)
    address->used[i] = MAX (address->used[i]
        - (now - address->seen) / 1e6 * limits[i].a_second, 0);
  address->seen = now;
  return address;
}

static gboolean
address_is_old (gpointer key, gpointer value, gpointer user_data)
{
  Address *address = value;

  return !address->connections
      && g_get_monotonic_time () - address->seen > FORGET_SECONDS * G_USEC_PER_SEC;
}

gboolean
door_allows (Door * door, const gchar * ip, DoorLimit limit, gboolean take)
{
  GInetAddress *inet = g_inet_address_new_from_string (ip);
  GBytes *key = address_key (inet);
  Address *address;
  gboolean allowed;

  g_mutex_lock (&door->lock);
  address = address_find (door, key);
  allowed = address->used[limit] + 1 <= limits[limit].at_once;
  if (allowed && take)
    address->used[limit]++;
  g_mutex_unlock (&door->lock);
  g_bytes_unref (key);
  g_object_unref (inet);
  return allowed;
}

/* -- visitors */

static void
visitor_free (Visitor * visitor)
{
  g_clear_object (&visitor->requests);
  g_clear_object (&visitor->stream);
  g_clear_object (&visitor->plain);
  g_object_unref (visitor->socket);
  g_bytes_unref (visitor->address);
  g_free (visitor->ip);
  g_free (visitor);
}

/* Nobody else knows the visitor by now. The socket is closed first: TLS would say
 * goodbye to a client that does not read, and wait. */
static void
visitor_leave (Visitor * visitor)
{
  Door *door = visitor->door;

  g_mutex_lock (&door->lock);
  door->visitors = g_list_remove (door->visitors, visitor);
  address_find (door, visitor->address)->connections--;
  g_mutex_unlock (&door->lock);
  g_socket_close (visitor->socket, NULL);
  visitor_free (visitor);
  g_mutex_lock (&door->lock);
  door->n_visitors--;
  g_cond_broadcast (&door->changed);
  g_mutex_unlock (&door->lock);
}

/* -- gst-rtsp-server makes a GTcpConnection of a socket, and no other type can be
 * registered for that (GLib 2.74 frees what replaces one). So the class itself gets to
 * know visitors: their connection has the visitor's streams and ends the visit. */

static GIOStreamClass tcp;      /* as it was */

static GQuark
visitor_quark (void)
{
  return g_quark_from_static_string ("door-visitor");
}

/* NULL: of somebody else, or the one under a visitor's own stream */
static Visitor *
visitor_of (GIOStream * connection)
{
  GSocket *socket =
      g_socket_connection_get_socket (G_SOCKET_CONNECTION (connection));
  Visitor *visitor = g_object_get_qdata (G_OBJECT (socket), visitor_quark ());

  return visitor && visitor->plain != connection ? visitor : NULL;
}

static GInputStream *
get_input_stream (GIOStream * connection)
{
  Visitor *visitor = visitor_of (connection);

  return visitor ? G_INPUT_STREAM (visitor->requests) :
      tcp.get_input_stream (connection);
}

static GOutputStream *
get_output_stream (GIOStream * connection)
{
  Visitor *visitor = visitor_of (connection);

  return visitor ? g_io_stream_get_output_stream (visitor->stream) :
      tcp.get_output_stream (connection);
}

static gboolean
close_connection (GIOStream * connection, GCancellable * cancellable,
    GError ** error)
{
  Visitor *visitor = visitor_of (connection);

  if (visitor) {
    g_object_set_qdata (G_OBJECT (visitor->socket), visitor_quark (), NULL);
    visitor_leave (visitor);
  }
  return tcp.close_fn (connection, cancellable, error);
}

static void
teach_connections (void)
{
  static gsize taught = 0;
  GIOStreamClass *klass;

  if (g_once_init_enter (&taught)) {
    klass = g_type_class_ref (G_TYPE_TCP_CONNECTION);
    tcp = *klass;
    klass->get_input_stream = get_input_stream;
    klass->get_output_stream = get_output_stream;
    klass->close_fn = close_connection;
    g_once_init_leave (&taught, TRUE);
  }
}

/* -- coming in */

static void
admit (Visitor * visitor)
{
  Door *door = visitor->door;
  RequestStream *requests =
      request_stream_new (visitor->stream, visitor->ip);

  g_mutex_lock (&door->lock);
  visitor->requests = requests;
  g_mutex_unlock (&door->lock);
  g_object_set_qdata (G_OBJECT (visitor->socket), visitor_quark (), visitor);
  gst_rtsp_server_transfer_connection (door->server,
      g_object_ref (visitor->socket), visitor->ip, visitor->port, NULL);
}

/* GLib shakes hands in threads that all share, ten of them, and more only slowly. So
 * a client gets one when its first message is there, all of it, and an address has few
 * at a time. Both waits end when the door cuts the client off. */
static void
wait_for_hello (Visitor * visitor)
{
  gint fd = g_socket_get_fd (visitor->socket);
  guint8 record[5];             /* type, version, length */

  g_socket_set_option (visitor->socket, SOL_SOCKET, SO_RCVLOWAT, sizeof record, NULL);
  g_socket_condition_wait (visitor->socket, G_IO_IN, NULL, NULL);
  if (recv (fd, record, sizeof record, MSG_PEEK | MSG_DONTWAIT) == sizeof record
      && record[0] == TLS_HANDSHAKE) {
    g_socket_set_option (visitor->socket, SOL_SOCKET, SO_RCVLOWAT,
        MIN (record[3] << 8 | record[4], TLS_MAX_RECORD) + sizeof record, NULL);
    g_socket_condition_wait (visitor->socket, G_IO_IN, NULL, NULL);
  }
  g_socket_set_option (visitor->socket, SOL_SOCKET, SO_RCVLOWAT, 1, NULL);
}

static gboolean
begin_handshake (Visitor * visitor)
{
  Door *door = visitor->door;
  gint64 until = visitor->since + MAX_SECONDS * G_USEC_PER_SEC;
  Address *address;
  gboolean in_time = TRUE;

  wait_for_hello (visitor);
  g_mutex_lock (&door->lock);
  /* It is not forgotten while it has a connection */
  address = address_find (door, visitor->address);
  while (address->handshakes >= HANDSHAKES_AN_ADDRESS && !door->cut_off && in_time)
    in_time = g_cond_wait_until (&door->changed, &door->lock, until);
  address->handshakes++;
  in_time = in_time && !door->cut_off;
  g_mutex_unlock (&door->lock);
  return in_time;
}

static void
end_handshake (Visitor * visitor)
{
  Door *door = visitor->door;

  g_mutex_lock (&door->lock);
  address_find (door, visitor->address)->handshakes--;
  g_cond_broadcast (&door->changed);
  g_mutex_unlock (&door->lock);
}

/* No client shows a certificate. With the default database each connection would
 * load the system's, which takes 4 MB and 0.1 s. */
static GIOStream *
new_tls (Visitor * visitor, GError ** error)
{
  return g_initable_new (g_tls_backend_get_server_connection_type
      (g_tls_backend_get_default ()), NULL, error, "base-io-stream",
      visitor->stream, "certificate", visitor->door->certificate, "database", NULL,
      NULL);
}

static gpointer
shake_hands (gpointer user_data)
{
  Visitor *visitor = user_data;
  GError *error = NULL;
  GIOStream *tls = NULL;
  gboolean ok = begin_handshake (visitor) && (tls = new_tls (visitor, &error))
      && g_tls_connection_handshake (G_TLS_CONNECTION (tls), NULL, &error);

  end_handshake (visitor);
  if (ok) {
    g_object_unref (visitor->stream);
    visitor->stream = tls;
    admit (visitor);
    return NULL;
  }
  console_say_limited ("%s: no TLS: %s", visitor->ip, error ? error->message :
      "it took too long");
  g_clear_error (&error);
  visitor_leave (visitor);
  g_clear_object (&tls);
  return NULL;
}

/* Without TLS it is answered. What it sent is read, or closing would be a reset and
 * the answer might be lost. */
static void
refuse (Door * door, GSocket * socket, const gchar * ip, const gchar * why)
{
  static const gchar answer[] = "RTSP/1.0 503 Service Unavailable\r\n"
      "Retry-After: 10\r\nConnection: close\r\n\r\n";
  gchar bytes[4096];

  if (!door->certificate)
    g_socket_send_with_blocking (socket, answer, strlen (answer), FALSE, NULL, NULL);
  g_socket_shutdown (socket, FALSE, TRUE, NULL);
  g_socket_receive_with_blocking (socket, bytes, sizeof bytes, FALSE, NULL, NULL);
  g_socket_close (socket, NULL);
  console_say_limited ("%s is not let in: %s", ip, why);
}

/* NULL: it is one too many, and `why` says of what */
static Visitor *
visitor_new (Door * door, GSocket * socket, GInetSocketAddress * from,
    const gchar ** why)
{
  GInetAddress *inet = g_inet_socket_address_get_address (from);
  GBytes *key = address_key (inet);
  Visitor *visitor = NULL;
  Address *address;

  g_mutex_lock (&door->lock);
  address = address_find (door, key);
  *why = (gint) door->n_visitors >= door->connections ? "--max-connections are open" :
      address->connections >= door->per_address ?
      "--max-per-address connections of its address are open" : NULL;
  if (!*why) {
    visitor = g_new0 (Visitor, 1);
    visitor->door = door;
    visitor->socket = g_object_ref (socket);
    visitor->ip = g_inet_address_to_string (inet);
    visitor->port = g_inet_socket_address_get_port (from);
    visitor->address = g_bytes_ref (key);
    visitor->plain = g_object_new (G_TYPE_TCP_CONNECTION, "socket", socket, NULL);
    visitor->stream = g_object_ref (visitor->plain);
    visitor->since = g_get_monotonic_time ();
    door->visitors = g_list_prepend (door->visitors, visitor);
    door->n_visitors++;
    address->connections++;
  }
  g_mutex_unlock (&door->lock);
  g_bytes_unref (key);
  return visitor;
}

static gboolean
accept_visitor (GSocket * listening, GIOCondition condition, gpointer user_data)
{
  Door *door = user_data;
  GSocket *socket = g_socket_accept (listening, NULL, NULL);
  GSocketAddress *from = socket ? g_socket_get_remote_address (socket, NULL) : NULL;
  Visitor *visitor;
  GThread *thread;
  const gchar *why;

  if (from) {
    visitor = visitor_new (door, socket, G_INET_SOCKET_ADDRESS (from), &why);
    if (!visitor) {
      gchar *ip = g_inet_address_to_string (g_inet_socket_address_get_address
          (G_INET_SOCKET_ADDRESS (from)));

      refuse (door, socket, ip, why);
      g_free (ip);
    } else if (!door->certificate) {
      admit (visitor);
    } else if ((thread = g_thread_try_new ("handshake", shake_hands, visitor, NULL))) {
      g_thread_unref (thread);
    } else {
      visitor_leave (visitor);
    }
  } else if (!socket) {
    g_usleep (10000);           /* no descriptors left, perhaps: not all the time */
  }
  g_clear_object (&from);
  g_clear_object (&socket);
  return G_SOURCE_CONTINUE;
}

static gboolean
cut_off_late (gpointer user_data)
{
  Door *door = user_data;
  gint64 late = g_get_monotonic_time () - MAX_SECONDS * G_USEC_PER_SEC;

  g_mutex_lock (&door->lock);
  for (GList * l = door->visitors; l; l = l->next) {
    Visitor *visitor = l->data;

    if (!visitor->requests) {
      if (visitor->since < late)
        g_socket_shutdown (visitor->socket, TRUE, TRUE, NULL);
    } else if (request_stream_owes_since (visitor->requests) < late) {
      request_stream_expire (visitor->requests);
      g_socket_shutdown (visitor->socket, TRUE, FALSE, NULL);   /* wakes its thread */
    }
  }
  g_hash_table_foreach_remove (door->addresses, address_is_old, NULL);
  g_mutex_unlock (&door->lock);
  return G_SOURCE_CONTINUE;
}

/* -- the door */

Door *
door_new (GstRTSPServer * server, gint connections, gint per_address,
    GTlsCertificate * certificate)
{
  Door *door = g_new0 (Door, 1);

  /* How the TLS of GLib is told what it may do, where nobody has told it yet */
  if (certificate) {
    g_setenv ("G_TLS_GNUTLS_PRIORITY",
        "NORMAL:%COMPAT:-VERS-TLS1.0:-VERS-TLS1.1", FALSE);
    door->certificate = g_object_ref (certificate);
  }
  door->server = g_object_ref (server);
  door->connections = connections;
  door->per_address = per_address;
  door->addresses = g_hash_table_new_full (g_bytes_hash, g_bytes_equal,
      (GDestroyNotify) g_bytes_unref, g_free);
  g_mutex_init (&door->lock);
  g_cond_init (&door->changed);
  return door;
}

gint
door_open (Door * door, GError ** error)
{
  GSocketAddress *bound;
  gint port;

  gst_rtsp_server_set_backlog (door->server, BACKLOG);
  door->socket = gst_rtsp_server_create_socket (door->server, NULL, error);
  if (!door->socket)
    return 0;
  teach_connections ();
  bound = g_socket_get_local_address (door->socket, NULL);
  port = g_inet_socket_address_get_port (G_INET_SOCKET_ADDRESS (bound));
  g_object_unref (bound);
  door->listening = g_socket_create_source (door->socket, G_IO_IN, NULL);
  g_source_set_callback (door->listening,
      (GSourceFunc) (void (*)(void)) accept_visitor, door, NULL);
  g_source_attach (door->listening, NULL);
  door->watching = g_timeout_add_seconds (1, cut_off_late, door);
  return port;
}

void
door_shut (Door * door)
{
  if (door->listening) {
    g_source_destroy (door->listening);
    g_clear_pointer (&door->listening, g_source_unref);
    g_socket_close (door->socket, NULL);
  }
}

void
door_cut_off (Door * door)
{
  door_shut (door);
  g_mutex_lock (&door->lock);
  door->cut_off = TRUE;
  g_cond_broadcast (&door->changed);
  for (GList * l = door->visitors; l; l = l->next)
    g_socket_shutdown (((Visitor *) l->data)->socket, TRUE, TRUE, NULL);
  g_mutex_unlock (&door->lock);
}

void
door_free (Door * door)
{
  if (!door)
    return;
  door_cut_off (door);
  g_mutex_lock (&door->lock);
  while (door->n_visitors)
    g_cond_wait (&door->changed, &door->lock);
  g_mutex_unlock (&door->lock);
  if (door->watching)
    g_source_remove (door->watching);
  g_clear_object (&door->socket);
  g_hash_table_unref (door->addresses);
  g_clear_object (&door->certificate);
  g_object_unref (door->server);
  g_mutex_clear (&door->lock);
  g_cond_clear (&door->changed);
  g_free (door);
}
