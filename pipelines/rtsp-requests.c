/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rtsp-requests.h"

#include <string.h>
#include "console.h"

#define MAX_HEADER 16384
/* What comes behind it is thrown away to its end, so that a client that is only
 * clumsy has stopped sending when it is answered */
#define MAX_THROWN_AWAY (1024 * 1024)
/* gst-rtsp-server refuses longer bodies without reading them */
#define MAX_BODY 65536

typedef enum
{
  START,                        /* between messages */
  HEADER,
  BINARY,                       /* the 4 bytes before RTP or RTCP */
  TOO_LONG,                     /* a header of which the rest is thrown away */
  PASSING,                      /* a header that is complete, and its body */
  ENDED
} State;

struct _RequestStream
{
  GInputStream parent;
  GIOStream *client;
  GInputStream *input;          /* its; borrowed */
  gchar *address;

  /* -- owned by the thread that reads */
  State state;
  guint8 raw[4096];             /* read and not yet looked at */
  gsize raw_at, raw_end;
  GByteArray *header;
  gsize passed;                 /* of the header */
  gsize body;                   /* bytes to come */
  gsize thrown_away;
  gboolean in_line;             /* the line has more than its end */
  gboolean in_last_line;        /* its \r has come */
  guint8 last;                  /* byte of the header */
  gboolean had_message;         /* since the last dispatch */

  GMutex lock;
  /* -- protected by lock */
  gint64 owes_since;
  gboolean expired;
};

static void request_stream_pollable_init (GPollableInputStreamInterface * iface);

G_DEFINE_TYPE_WITH_CODE (RequestStream, request_stream, G_TYPE_INPUT_STREAM,
    G_IMPLEMENT_INTERFACE (G_TYPE_POLLABLE_INPUT_STREAM,
        request_stream_pollable_init));

static void
set_owes_since (RequestStream * self, gint64 since)
{
  g_mutex_lock (&self->lock);
  self->owes_since = since;
  g_mutex_unlock (&self->lock);
}

/* The answer is lost when the client does not read. Returns the end of the stream. */
static gssize
refuse (RequestStream * self, const gchar * answer, const gchar * why)
{
  GOutputStream *output = g_io_stream_get_output_stream (self->client);
  gchar *text = g_strdup_printf ("%s\r\nConnection: close\r\n\r\n", answer);

  g_pollable_output_stream_write_nonblocking (G_POLLABLE_OUTPUT_STREAM (output),
      text, strlen (text), NULL, NULL);
  console_say_limited ("%s %s", self->address, why);
  g_free (text);
  self->state = ENDED;
  return 0;
}

static void
begin (RequestStream * self, State state)
{
  self->state = state;
  g_byte_array_set_size (self->header, 0);
  self->passed = self->body = self->thrown_away = 0;
  self->in_line = self->in_last_line = FALSE;
  self->last = 0;
  set_owes_since (self, g_get_monotonic_time ());
}

/* As gst-rtsp-server does: the first one counts, and only digits of it */
static gsize
content_length (const gchar * header)
{
  static const gchar name[] = "Content-Length";
  const gchar *line = header;

  while ((line = strpbrk (line, "\r\n")) != NULL) {
    line += strspn (line, "\r\n");
    if (g_ascii_strncasecmp (line, name, strlen (name)) == 0) {
      const gchar *value = line + strlen (name);

      value += strspn (value, " \t\r\n");
      if (*value == ':')
        return CLAMP (g_ascii_strtoll (value + 1, NULL, 10), 0, G_MAXINT);
    }
  }
  return 0;
}

static gboolean
is_http (const gchar * header)
{
  while (g_ascii_isspace (*header))
    header++;
  return (g_ascii_strncasecmp (header, "GET", 3) == 0 && g_ascii_isspace (header[3]))
      || (g_ascii_strncasecmp (header, "POST", 4) == 0
      && g_ascii_isspace (header[4]));
}

/* Also what has a body that is too long: gst-rtsp-server answers that, and ends */
static void
pass (RequestStream * self)
{
  guint8 nul = 0;

  self->state = PASSING;
  g_byte_array_append (self->header, &nul, 1);
  self->body = content_length ((gchar *) self->header->data);
  if (self->body > MAX_BODY)
    self->body = 0;
  g_byte_array_set_size (self->header, self->header->len - 1);
}

/* A line ends with \r\n, \r or \n, and an empty one ends the header. Behind the \r of
 * \r\n\r one more byte says. Returns whether `c` belongs to the header. */
static gboolean
header_ends (RequestStream * self, guint8 c, gboolean * ends)
{
  guint8 last = self->last;

  self->last = c;
  if (self->in_last_line) {
    *ends = TRUE;
    return c == '\n' || c == '\r';
  }
  if (c == '\r' && !self->in_line && last == '\n')
    self->in_last_line = TRUE;
  else
    *ends = !self->in_line && (c == '\r' || (c == '\n' && last != '\r'));
  self->in_line = c != '\r' && c != '\n';
  return TRUE;
}

/* Moves bytes until a header is complete. 0: the stream has ended; 1: it goes on */
static gssize
look_at (RequestStream * self)
{
  while (self->raw_at < self->raw_end && self->state != PASSING) {
    guint8 c = self->raw[self->raw_at];
    gboolean ends = FALSE;

    if (self->state == START) {
      if (c == '\r' || c == '\n') {
        self->raw_at++;
        continue;
      }
      begin (self, c == '$' ? BINARY : HEADER);
    }
    if (self->state == BINARY) {
      self->raw_at++;
      g_byte_array_append (self->header, &c, 1);
      if (self->header->len == 4) {
        self->body = self->header->data[2] << 8 | c;
        self->state = PASSING;
      }
      continue;
    }
    if (c == '\0')
      return refuse (self, "RTSP/1.0 400 Bad Request", "sent a header with a NUL");
    if (header_ends (self, c, &ends)) {
      self->raw_at++;
      if (self->state == HEADER)
        g_byte_array_append (self->header, &c, 1);
      else
        self->thrown_away++;
    }
    if (self->header->len > MAX_HEADER)
      self->state = TOO_LONG;
    if (self->state == TOO_LONG && (ends || self->thrown_away > MAX_THROWN_AWAY))
      return refuse (self, "RTSP/1.0 400 Bad Request",
          "sent a header of more than 16 KiB");
    if (ends)
      pass (self);
  }
  if (self->state == PASSING && self->header->len > 4
      && is_http ((gchar *) self->header->data))
    return refuse (self, "HTTP/1.0 501 Not Implemented", "asked for HTTP");
  return 1;
}

static gssize
give (RequestStream * self, guint8 * to, gsize count, const guint8 * from, gsize n)
{
  n = MIN (n, count);
  memcpy (to, from, n);
  return n;
}

/* What can be had without more of the client; 0: nothing */
static gssize
give_message (RequestStream * self, guint8 * buffer, gsize count)
{
  gssize n = 0;

  if (self->state != PASSING)
    return 0;
  if (self->passed < self->header->len) {
    n = give (self, buffer, count, self->header->data + self->passed,
        self->header->len - self->passed);
    self->passed += n;
  } else {
    n = give (self, buffer, MIN (count, self->body), self->raw + self->raw_at,
        self->raw_end - self->raw_at);
    self->raw_at += n;
    self->body -= n;
  }
  if (self->passed == self->header->len && !self->body) {
    self->state = START;
    self->had_message = TRUE;
    set_owes_since (self, G_MAXINT64);
  }
  return n;
}

static gboolean
has_expired (RequestStream * self)
{
  gboolean expired;

  g_mutex_lock (&self->lock);
  expired = self->expired;
  g_mutex_unlock (&self->lock);
  return expired;
}

static gssize
request_stream_read_nonblocking (GPollableInputStream * pollable, void *buffer,
    gsize count, GError ** error)
{
  RequestStream *self = REQUEST_STREAM (pollable);
  gssize n;

  if (self->state != ENDED && has_expired (self))
    return refuse (self, "RTSP/1.0 408 Request Time-out",
        "took too long over a request");
  while (self->state != ENDED) {
    n = give_message (self, buffer, count);
    if (n)
      return n;
    if (self->state == START && self->had_message) {
      g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK,
          "one message at a time");
      return -1;
    }
    if (self->raw_at == self->raw_end) {
      n = g_pollable_input_stream_read_nonblocking (G_POLLABLE_INPUT_STREAM
          (self->input), self->raw, sizeof self->raw, NULL, error);
      if (n <= 0)
        return n;
      self->raw_at = 0;
      self->raw_end = n;
    }
    if (self->state != PASSING && look_at (self) <= 0)
      break;
  }
  return 0;
}

static gssize
request_stream_read (GInputStream * stream, void *buffer, gsize count,
    GCancellable * cancellable, GError ** error)
{
  return request_stream_read_nonblocking (G_POLLABLE_INPUT_STREAM (stream), buffer,
      count, error);
}

/* Without asking the client's stream */
static gboolean
has_bytes (RequestStream * self)
{
  return self->raw_at < self->raw_end
      || (self->state == PASSING && self->passed < self->header->len);
}

static gboolean
request_stream_is_readable (GPollableInputStream * pollable)
{
  RequestStream *self = REQUEST_STREAM (pollable);

  return has_bytes (self)
      || g_pollable_input_stream_is_readable (G_POLLABLE_INPUT_STREAM (self->input));
}

/* -- the source: ready when bytes have been read already, and when its child is */

typedef struct
{
  GSource source;
  RequestStream *stream;
} RequestSource;

static gboolean
request_source_prepare (GSource * source, gint * timeout)
{
  *timeout = -1;
  return has_bytes (((RequestSource *) source)->stream);
}

static gboolean
request_source_check (GSource * source)
{
  return has_bytes (((RequestSource *) source)->stream);
}

static gboolean
request_source_dispatch (GSource * source, GSourceFunc callback, gpointer data)
{
  GPollableSourceFunc func = (GPollableSourceFunc) (void (*)(void)) callback;
  RequestStream *stream = ((RequestSource *) source)->stream;

  stream->had_message = FALSE;
  return func (G_OBJECT (stream), data);
}

static void
request_source_finalize (GSource * source)
{
  g_object_unref (((RequestSource *) source)->stream);
}

static GSource *
request_stream_create_source (GPollableInputStream * pollable,
    GCancellable * cancellable)
{
  static GSourceFuncs funcs = {
    request_source_prepare, request_source_check, request_source_dispatch,
    request_source_finalize
  };
  RequestStream *self = REQUEST_STREAM (pollable);
  GSource *source = g_source_new (&funcs, sizeof (RequestSource)),
      *child = g_pollable_input_stream_create_source (G_POLLABLE_INPUT_STREAM
      (self->input), cancellable);

  ((RequestSource *) source)->stream = g_object_ref (self);
  g_source_set_dummy_callback (child);
  g_source_add_child_source (source, child);
  g_source_unref (child);
  return source;
}

/* -- the object */

static void
request_stream_finalize (GObject * object)
{
  RequestStream *self = REQUEST_STREAM (object);

  g_byte_array_unref (self->header);
  g_object_unref (self->client);
  g_free (self->address);
  g_mutex_clear (&self->lock);
  G_OBJECT_CLASS (request_stream_parent_class)->finalize (object);
}

static void
request_stream_class_init (RequestStreamClass * klass)
{
  G_OBJECT_CLASS (klass)->finalize = request_stream_finalize;
  G_INPUT_STREAM_CLASS (klass)->read_fn = request_stream_read;
}

static void
request_stream_pollable_init (GPollableInputStreamInterface * iface)
{
  iface->is_readable = request_stream_is_readable;
  iface->create_source = request_stream_create_source;
  iface->read_nonblocking = request_stream_read_nonblocking;
}

static void
request_stream_init (RequestStream * self)
{
  g_mutex_init (&self->lock);
  self->header = g_byte_array_new ();
  self->owes_since = g_get_monotonic_time ();
}

RequestStream *
request_stream_new (GIOStream * client, const gchar * address)
{
  RequestStream *self = g_object_new (REQUEST_TYPE_STREAM, NULL);

  self->client = g_object_ref (client);
  self->input = g_io_stream_get_input_stream (client);
  self->address = g_strdup (address);
  return self;
}

gint64
request_stream_owes_since (RequestStream * self)
{
  gint64 since;

  g_mutex_lock (&self->lock);
  since = self->owes_since;
  g_mutex_unlock (&self->lock);
  return since;
}

void
request_stream_expire (RequestStream * self)
{
  g_mutex_lock (&self->lock);
  self->expired = TRUE;
  g_mutex_unlock (&self->lock);
}
