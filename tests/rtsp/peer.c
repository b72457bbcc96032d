/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * peer.c: an RTSP client that sends what it is told to, in any order.
 *
 *   peer URL STEP...                      prints the status of each answer in a line
 *   peer URL watch SECONDS                prints frames, and the largest gap in ms
 *   peer URL storm COUNT SEED [WORKERS]   random sequences of up to ten steps beside a
 *                                         viewer; prints its figures. COUNT 1 with a
 *                                         seed of a longer run repeats that sequence.
 *
 * A step is "[CONNECTION:]METHOD[ OPTION...]": the connection is 1 or 2 and opens with
 * its first step. OPTIONs are tcp, udp, mcast, ch=A-B (Transport), s=1, s=2, s=none, s=bad
 * (whose session; by default its own), at=PATH (behind the URL), ver=N, h=HEADER (_ is a blank).
 * METHOD "close" closes, "reset" resets, "raw" sends the rest of the step, "sleep N"
 * waits for N ms and takes what comes.
 * An answer is its status, "closed", or "none" after 2 s.
 */
#include <glib.h>

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_MS 2000
#define STORM_ANSWER_MS 300
#define MOST_STEPS 10

static gchar *url, *host, *port;

typedef struct
{
  gint fd;
  guint cseq;
  gchar session[64];
  guint8 bytes[65536 + 4];
  gsize n_bytes;
  /* Frames of channel 0, and the longest time between two of them in µs */
  guint frames;
  gint64 latest, gap;
} Peer;

static gboolean
peer_open (Peer * peer)
{
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM }, *to;

  memset (peer, 0, sizeof *peer);
  peer->fd = -1;
  if (getaddrinfo (host, port, &hints, &to))
    return FALSE;
  peer->fd = socket (to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect (peer->fd, to->ai_addr, to->ai_addrlen)) {
    close (peer->fd);
    peer->fd = -1;
  }
  freeaddrinfo (to);
  return peer->fd >= 0;
}

static void
peer_close (Peer * peer, gboolean reset)
{
  struct linger now = { 1, 0 };

  if (peer->fd < 0)
    return;
  if (reset)
    setsockopt (peer->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close (peer->fd);
  peer->fd = -1;
}

static void
peer_send (Peer * peer, const void *data, gsize n)
{
  for (const gchar * p = data; n;) {
    struct pollfd writable = { peer->fd, POLLOUT, 0 };
    gssize sent = -1;

    if (poll (&writable, 1, ANSWER_MS) > 0)
      sent = send (peer->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0)
      return;                   /* the answer says what it is */
    p += sent;
    n -= sent;
  }
}

/* FALSE: closed, or nothing until then */
static gboolean
peer_fill (Peer * peer, gint64 until, gboolean * closed)
{
  gint64 left = (until - g_get_monotonic_time ()) / 1000;
  struct pollfd readable = { peer->fd, POLLIN, 0 };
  gssize n;

  *closed = FALSE;
  if (left < 0 || poll (&readable, 1, left) <= 0)
    return FALSE;
  n = recv (peer->fd, peer->bytes + peer->n_bytes,
      sizeof peer->bytes - 1 - peer->n_bytes, 0);
  *closed = n <= 0;
  peer->n_bytes += MAX (n, 0);
  return n > 0;
}

static void
peer_drop (Peer * peer, gsize n)
{
  memmove (peer->bytes, peer->bytes + n, peer->n_bytes - n);
  peer->n_bytes -= n;
}

/* Takes frames off the front. TRUE: an answer is there, all of it, and its status */
static gboolean
peer_parse (Peer * peer, gint * status)
{
  while (peer->n_bytes >= 4) {
    if (peer->bytes[0] == '$') {
      gsize size = 4 + (peer->bytes[2] << 8 | peer->bytes[3]);
      gint64 now = g_get_monotonic_time ();

      if (peer->n_bytes < size)
        return FALSE;
      if (peer->bytes[1] == 0) {
        if (peer->latest)
          peer->gap = MAX (peer->gap, now - peer->latest);
        peer->latest = now;
        peer->frames += size > 5 && peer->bytes[5] >> 7;        /* the marker bit */
      }
      peer_drop (peer, size);
    } else {
      gchar *head = (gchar *) peer->bytes, *end, *field;
      gsize size;

      head[peer->n_bytes] = '\0';
      end = strstr (head, "\r\n\r\n");
      if (!end)
        return FALSE;
      *end = '\0';
      field = strstr (head, "\r\nContent-Length: ");
      size = end + 4 - head + (field ? strtoul (field + 18, NULL, 10) : 0);
      if (peer->n_bytes < size) {
        *end = '\r';
        return FALSE;
      }
      if (sscanf (head, "RTSP/%*s %d", status) != 1)
        *status = 0;
      field = strstr (head, "\r\nSession: ");
      if (field)
        sscanf (field + 11, "%63[^;\r\n]", peer->session);
      peer_drop (peer, size);
      return TRUE;
    }
  }
  return FALSE;
}

/* The status; -1: closed, -2: none */
static gint
peer_answer (Peer * peer, gint ms)
{
  gint64 until = g_get_monotonic_time () + ms * 1000;
  gboolean closed;
  gint status;

  while (!peer_parse (peer, &status))
    if (!peer_fill (peer, until, &closed))
      return closed ? -1 : -2;
  return status;
}

static void
peer_request (Peer * peer, const gchar * method, const gchar * at,
    const gchar * version, const gchar * headers, const gchar * body)
{
  GString *request = g_string_new (NULL);

  g_string_printf (request, "%s %s%s RTSP/%s\r\nCSeq: %u\r\n%s", method,
      g_str_equal (at, "*") ? "" : url, at, version, ++peer->cseq, headers);
  if (*body)
    g_string_append_printf (request, "Content-Length: %zu\r\n", strlen (body));
  g_string_append_printf (request, "\r\n%s", body);
  peer_send (peer, request->str, request->len);
  g_string_free (request, TRUE);
}

/* -- steps */

typedef struct
{
  Peer peers[2];
  gint answer_ms;
} Pair;

static gint
step (Pair * pair, const gchar * text)
{
  gboolean second = g_str_has_prefix (text, "2:");
  Peer *peer = &pair->peers[second];
  gchar **words =
      g_strsplit (text + (second || g_str_has_prefix (text, "1:")) * 2, " ", -1);
  const gchar *method = words[0], *at = "", *version = "1.0", *body = "",
      *session = peer->session, *channels = "0-1";
  GString *headers = g_string_new (NULL);
  gint status = 0;

  if (peer->fd < 0 && !peer_open (peer))
    status = -1;
  for (gchar ** word = words + 1; *word; word++) {
    if (g_str_has_prefix (*word, "ch="))
      channels = *word + 3;
    else if (g_str_equal (*word, "tcp"))
      g_string_append_printf (headers,
          "Transport: RTP/AVP/TCP;unicast;interleaved=%s\r\n", channels);
    else if (g_str_equal (*word, "udp"))
      g_string_append (headers,
          "Transport: RTP/AVP;unicast;client_port=45454-45455\r\n");
    else if (g_str_equal (*word, "udp0"))
      g_string_append (headers,
          "Transport: RTP/AVP;unicast;client_port=0-0\r\n");
    else if (g_str_equal (*word, "mcast"))
      g_string_append (headers, "Transport: RTP/AVP;multicast\r\n");
    else if (g_str_has_prefix (*word, "s="))
      session = (*word)[2] == '1' ? pair->peers[0].session :
          (*word)[2] == '2' ? pair->peers[1].session :
          (*word)[2] == 'b' ? "bad" : "";
    else if (g_str_has_prefix (*word, "at="))
      at = *word + 3;
    else if (g_str_has_prefix (*word, "ver="))
      version = *word + 4;
    else if (g_str_has_prefix (*word, "h="))
      g_string_append_printf (headers, "%s\r\n", g_strdelimit (*word + 2, "_",
              ' '));
    else if (g_str_has_prefix (*word, "body="))
      body = *word + 5;
  }
  if (*session)
    g_string_append_printf (headers, "Session: %s\r\n", session);

  if (g_str_equal (method, "close") || g_str_equal (method, "reset")) {
    peer_close (peer, method[0] == 'r');
  } else if (g_str_equal (method, "sleep")) {
    peer_answer (peer, words[1] ? atoi (words[1]) : 0);
  } else if (g_str_equal (method, "raw")) {
    const gchar *raw = strchr (text, ' ');

    if (raw)
      peer_send (peer, raw + 1, strlen (raw + 1));
  } else if (!status) {
    peer_request (peer, method, at, version, headers->str, body);
    status = peer_answer (peer, pair->answer_ms);
    if (status == -1 || (status == -2 && pair->answer_ms < ANSWER_MS))
      peer_close (peer, FALSE);
    if (status == 200 && g_str_equal (method, "TEARDOWN"))
      peer->session[0] = '\0';
  }
  g_string_free (headers, TRUE);
  g_strfreev (words);
  return status;
}

static gint
steps (gchar ** texts)
{
  Pair pair = { {{.fd = -1}, {.fd = -1}}, ANSWER_MS };

  for (; *texts; texts++) {
    gint status = step (&pair, *texts);

    if (status > 0)
      printf ("%d ", status);
    else if (status)
      printf (status == -1 ? "closed " : "none ");
    fflush (stdout);
  }
  putchar ('\n');
  peer_close (&pair.peers[0], FALSE);
  peer_close (&pair.peers[1], FALSE);
  return 0;
}

/* -- a viewer */

static gboolean
peer_play (Peer * peer)
{
  gchar *session;
  gboolean ok;

  if (!peer_open (peer))
    return FALSE;
  peer_request (peer, "SETUP", "/stream=0", "1.0",
      "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", "");
  if (peer_answer (peer, ANSWER_MS) != 200)
    return FALSE;
  session = g_strdup_printf ("Session: %s\r\n", peer->session);
  peer_request (peer, "PLAY", "", "1.0", session, "");
  ok = peer_answer (peer, ANSWER_MS) == 200;
  g_free (session);
  return ok;
}

/* For so long, or until told */
static void
peer_watch (Peer * peer, gint64 until, gint * stop)
{
  gboolean closed;
  gint status;

  while (!g_atomic_int_get (stop) && g_get_monotonic_time () < until) {
    gint64 now = g_get_monotonic_time ();

    if (peer->cseq < (now / G_USEC_PER_SEC) / 20) {     /* still here */
      gchar *session = g_strdup_printf ("Session: %s\r\n", peer->session);

      peer_request (peer, "GET_PARAMETER", "", "1.0", session, "");
      peer->cseq = now / G_USEC_PER_SEC / 20;
      g_free (session);
    }
    if (!peer_fill (peer, now + 200000, &closed) && closed)
      break;
    while (peer_parse (peer, &status));
  }
  /* Nothing since is a gap too */
  peer->gap = MAX (peer->gap, g_get_monotonic_time () - peer->latest);
}

static gint
watch (gint seconds)
{
  static Peer peer;
  gint stop = FALSE;

  if (!peer_play (&peer))
    return 1;
  peer_watch (&peer, g_get_monotonic_time () + seconds * G_USEC_PER_SEC, &stop);
  printf ("%u %d\n", peer.frames, (gint) (peer.gap / 1000));
  peer_close (&peer, FALSE);
  return 0;
}

/* -- the storm */

static const gchar *const methods[] = { "OPTIONS", "DESCRIBE", "SETUP", "SETUP",
  "SETUP", "PLAY", "PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER",
  "RECORD", "ANNOUNCE", "REDIRECT", "WHAT"
};
static const gchar *const transports[] = { "tcp", "tcp", "udp", "udp", "mcast", "",
  "ch=2-3 tcp", "ch=255-256 tcp", "ch=1-0 tcp", "ch=0 tcp", "ch=300-301 tcp",
  "h=Transport:;;=,", "h=Transport:RTP/AVP;unicast", "tcp udp",
  "udp0", "h=Transport:RTP/SAVP/TCP",
  "h=Transport:RTP/AVP;multicast;destination=239.1.1.1;port=5000-5001;ttl=1"
};
static const gchar *const sessions[] = { "", "", "", "", "", "", "s=1", "s=1",
  "s=2", "s=none", "s=bad"
};
static const gchar *const paths[] = { "", "", "at=/stream=0", "at=/stream=1", "at=x", "at=/", "at=?x=y", "at=*", "at=/%00"
};
static const gchar *const extras[] = { "", "", "h=Range:_npt=0-",
  "h=Range:_npt=now-5", "h=Range:_clock=x", "h=Scale:_2", "h=Speed:_0.5",
  "h=Scale:_nan", "h=Blocksize:_1", "h=KeyMgmt:_prot=mikey;uri=\"x\";data=\"AA==\"",
  "h=Require:_what", "h=Accept-Ranges:_npt", "ver=2.0",
  "ver=2.0 h=Pipelined-Requests:_1", "ver=9.9", "h=no_colon", "body=prompt:x",
  "body=what:x", "body=x", "h=Content-Length:_100000", "h=Content-Length:_-1",
  "h=Connection:_close", "h=Authorization:_Digest_username=\"x\""
};
static const gchar *const raws[] = { "$", "$\001\377\377", "\r\n\r\n", "OPTIONS",
  "RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n", "\377\376\r\n\r\n", "X\r\r", "A: b\n \n\n",
  "GET /x HTTP/1.0\r\nx-sessioncookie: a\r\n\r\n", "$\377",
  "POST /x HTTP/1.0\r\nx-sessioncookie: a\r\n\r\nT1BUSU9O",
  "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 9\r\n\r\nabc"
};

#define PICK(rand, array) array[g_rand_int_range (rand, 0, G_N_ELEMENTS (array))]

/* Most are as a viewer sends them, so that something plays when others come */
static gchar *
random_step (GRand * rand, gint number)
{
  gint connection = g_rand_int_range (rand, 0, 4) ? 1 : 2;
  gboolean odd = !g_rand_int_range (rand, 0, 3);
  const gchar *method = PICK (rand, methods), *transport = "";

  const gchar *session = PICK (rand, sessions);

  if (number < 2 && g_rand_int_range (rand, 0, 4)) {
    method = number ? "PLAY" : "SETUP";
    connection = 1;
    session = "";
    odd = FALSE;
  }
  if (g_str_equal (method, "SETUP"))
    transport = odd ? PICK (rand, transports) : g_rand_boolean (rand) ? "tcp" : "udp";

  switch (g_rand_int_range (rand, 0, 20)) {
    case 0:
      return g_strdup_printf ("%d:raw %s", connection, PICK (rand, raws));
    case 1:
      return g_strdup_printf ("%d:%s", connection,
          g_rand_boolean (rand) ? "close" : "reset");
    case 2:                    /* pictures are sent in between */
    case 3:
    case 4:
      return g_strdup_printf ("%d:sleep 70", connection);
    default:
      return g_strdup_printf ("%d:%s %s %s %s %s", connection, method, transport,
          session, odd ? PICK (rand, paths) : "",
          odd ? PICK (rand, extras) : "");
  }
}

typedef struct
{
  guint32 seed;
  gint left;                    /* atomic */
  gint requests, answers;       /* atomic */
  gint stop, broken;            /* atomic */
} Storm;

static void
sequence (Storm * storm, guint32 seed, gboolean say)
{
  GRand *rand = g_rand_new_with_seed (seed);
  gint n = g_rand_int_range (rand, 1, MOST_STEPS + 1);
  Pair *pair = g_new0 (Pair, 1);

  pair->answer_ms = STORM_ANSWER_MS;
  pair->peers[0].fd = pair->peers[1].fd = -1;
  for (gint i = 0; i < n; i++) {
    gchar *text = random_step (rand, i);
    gint status = step (pair, text);

    if (say)
      printf ("  %s: %d\n", text, status);
    g_atomic_int_inc (&storm->requests);
    if (status > 0)
      g_atomic_int_inc (&storm->answers);
    g_free (text);
  }
  peer_close (&pair->peers[0], g_rand_boolean (rand));
  peer_close (&pair->peers[1], g_rand_boolean (rand));
  g_free (pair);
  g_rand_free (rand);
}

static gboolean
is_alive (void)
{
  Peer *peer = g_new0 (Peer, 1);
  gboolean alive = FALSE;

  for (gint i = 0; i < 10 && !alive; i++) {
    if (i)
      g_usleep (200000);
    if (peer_open (peer)) {
      peer_request (peer, "OPTIONS", "", "1.0", "", "");
      alive = peer_answer (peer, ANSWER_MS) == 200;
    }
    peer_close (peer, FALSE);
  }
  g_free (peer);
  return alive;
}

static gpointer
worker (gpointer user_data)
{
  Storm *storm = user_data;
  gint left;

  while ((left = g_atomic_int_add (&storm->left, -1)) > 0
      && !g_atomic_int_get (&storm->broken)) {
    sequence (storm, storm->seed + left - 1, FALSE);
    if (left % 50 == 1 && !is_alive ()) {
      printf ("no answer any more, near seed %u\n", storm->seed + left - 1);
      g_atomic_int_set (&storm->broken, TRUE);
    }
  }
  return NULL;
}

static gpointer
view (gpointer user_data)
{
  static Peer viewer;
  Storm *storm = user_data;

  if (!peer_play (&viewer)) {
    g_atomic_int_set (&storm->broken, TRUE);
    return NULL;
  }
  peer_watch (&viewer, G_MAXINT64, &storm->stop);
  return &viewer;
}

static gint
storm (gint count, guint32 seed, gint workers)
{
  Storm storm = {.seed = seed,.left = count };
  GThread *viewer = g_thread_new ("viewer", view, &storm), *threads[64];
  gint64 since = g_get_monotonic_time ();
  Peer *seen;

  g_usleep (500000);
  if (count == 1)
    sequence (&storm, seed, TRUE);
  workers = CLAMP (workers, 1, (gint) G_N_ELEMENTS (threads));
  for (gint i = 0; i < workers; i++)
    threads[i] = g_thread_new ("worker", worker, &storm);
  for (gint i = 0; i < workers; i++)
    g_thread_join (threads[i]);
  g_usleep (500000);
  g_atomic_int_set (&storm.stop, TRUE);
  seen = g_thread_join (viewer);
  printf ("%d sequences from seed %u in %.1f s: %d requests, %d answers; the viewer "
      "got %u frames, largest gap %d ms\n", count, seed,
      (g_get_monotonic_time () - since) / 1e6, storm.requests, storm.answers,
      seen ? seen->frames : 0, seen ? (gint) (seen->gap / 1000) : -1);
  return storm.broken || !seen;
}

gint
main (gint argc, gchar ** argv)
{
  gchar *colon;

  if (argc < 3 || !g_str_has_prefix (argv[1], "rtsp://")) {
    fprintf (stderr, "usage: peer URL STEP... | watch SECONDS | storm COUNT SEED "
        "[WORKERS]\n");
    return 2;
  }
  url = argv[1];
  host = g_strndup (url + 7, strcspn (url + 7, "/"));
  colon = strrchr (host, ':');
  *colon = '\0';
  port = colon + 1;
  if (g_str_equal (argv[2], "watch") && argc == 4)
    return watch (atoi (argv[3]));
  if (g_str_equal (argv[2], "storm") && argc >= 5)
    return storm (atoi (argv[3]), strtoul (argv[4], NULL, 10),
        argc > 5 ? atoi (argv[5]) : 4);
  return steps (argv + 2);
}
