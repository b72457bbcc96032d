/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "post.h"
#include "mpi_library.h"
#include "thread.h"
#include "dualparal.h"

#include <stdlib.h>
#include <string.h>

#define TAG_LETTER 1
#define TAG_PAYLOAD 2

#define SECOND G_USEC_PER_SEC
#define PING_US SECOND
#define FIRST_PINGS 8           /* they come in quick succession, so that the clocks are known */
#define FIRST_PING_US (SECOND / 20)
#define SILENCE_US (4 * SECOND)
#define SHORT_US 100            /* from one look to the next */
#define OPEN_US 1000
#define IDLE_US 10000
#define RECENT_US 20000
#define EXIT_US (5 * SECOND)    /* the longest that this process waits for the others at its end */
#define FLUSH_US (SECOND / 5)     /* for what is on its way to the others when one is gone */

/* What a letter begins with on its way. */
typedef struct
{
  guint32 kind, session;
  guint64 payload[2];
} Head;

typedef struct
{
  int to;
  Head *data;                   /* and the body behind it */
  gsize bytes;
  const void *payload[2];
  DpMpiRequest *requests[3];    /* letter, payload */
  DpPostSent sent;
  gpointer user_data;
} Outgoing;

typedef struct
{
  Head *data;
  gsize bytes;
  gpointer scrap[2];            /* for payload that nobody wants */
  gboolean placed, dropped;
  DpMpiRequest *requests[3];
} Incoming;

typedef struct
{
  guint32 session;
  const DpPostListener *table;
  gpointer user_data;
} Listener;

/* A letter for later, with a body of its own. */
typedef struct
{
  DpLetter letter;
} Kept;

/* What a ping and its answer said of another rank's clock. */
typedef struct
{
  gint64 at_us;                 /* 0: nothing yet */
  gint64 offset_us, error_us;
} Clock;

#define DRIFT_PPM 100           /* by which two clocks may run apart */

/* There is one MPI a process, so there is one post. */
static struct
{
  /* -- protected by opening -- */
  GMutex opening;
  gboolean tried;
  GError *error;
  GThread *thread;

  /* -- constant once it is open -- */
  const DpMpi *mpi;
  DpMpiPlace place;

  /* -- protected by lock -- */
  GMutex lock;
  GCond changed;
  gboolean ready, quit, ended;
  GQueue out;                   /* of Outgoing */
  GArray *joining;              /* of Listener: will listen at the next turn */
  char *gone[DP_MAX_STAGES];    /* why; NULL: it is there */
  Clock clocks[DP_MAX_STAGES];

  /* -- protected by dispatch, which is held while a listener or a DpPostSent is called -- */
  GMutex dispatch;
  GArray *listeners;            /* of Listener */
  GQueue kept;                  /* of Kept: letters of sessions that nobody listens to yet */
  guint32 closed;               /* sessions up to this one are over */

  /* -- owned by the thread -- */
  GPtrArray *sending;           /* of Outgoing */
  GQueue in[DP_MAX_STAGES];     /* of Incoming, by rank */
  gint64 heard[DP_MAX_STAGES], pinged, looked, busy;
  int pings;
  gboolean bye;                 /* rank 0 said so, or this is rank 0 and says so */
} post;

static gboolean
is_gone (int rank)
{
  g_mutex_lock (&post.lock);
  gboolean gone = post.gone[rank] != NULL;
  g_mutex_unlock (&post.lock);
  return gone;
}

/* ---- out ---- */

static Outgoing *
outgoing_new (int to, DpPostKind kind, guint32 session, gconstpointer body, gsize bytes)
{
  Outgoing *o = g_new0 (Outgoing, 1);

  o->to = to;
  o->bytes = sizeof (Head) + bytes;
  o->data = g_malloc (o->bytes);
  *o->data = (Head) { kind, session, { 0, 0 } };
  if (bytes > 0)
    memcpy (o->data + 1, body, bytes);
  return o;
}

static void
finish_outgoing (Outgoing *o, gboolean lost)
{
  if (o->sent) {
    g_mutex_lock (&post.dispatch);      /* a session that has unlistened is not called any more */
    o->sent (lost, o->user_data);
    g_mutex_unlock (&post.dispatch);
  }
  if (!lost)
    g_free (o->data);
  g_free (o);
}

static void gone (int rank, const char *why);

static void
start_outgoing (Outgoing *o)
{
  gboolean ok;

  if (is_gone (o->to)) {
    finish_outgoing (o, FALSE);
    return;
  }
  ok = (o->requests[0] = post.mpi->send (o->data, o->bytes, o->to, TAG_LETTER)) != NULL;
  for (int i = 0; i < 2 && ok; i++)
    if (o->data->payload[i])
      ok = (o->requests[1 + i] = post.mpi->send (o->payload[i], o->data->payload[i], o->to, TAG_PAYLOAD)) != NULL;
  g_ptr_array_add (post.sending, o);
  if (!ok)
    gone (o->to, "MPI refuses to send to it");
}

/* 1: all are done, -1: one failed. */
static int
test_all (DpMpiRequest **requests)
{
  int left = 0;

  for (int i = 0; i < 3; i++) {
    int status = requests[i] ? post.mpi->test (requests[i]) : 1;

    if (status != 0)
      requests[i] = NULL;
    if (status < 0)
      return -1;
    left += status == 0;
  }
  return left == 0;
}

static void
test_sending (void)
{
  for (guint i = 0; i < post.sending->len;) {
    Outgoing *o = g_ptr_array_index (post.sending, i);
    int status = test_all (o->requests);

    if (status < 0) {
      gone (o->to, "MPI cannot send to it");    /* takes it and others out */
      i = 0;
    } else if (status > 0) {
      g_ptr_array_remove_index (post.sending, i);
      finish_outgoing (o, FALSE);
      post.busy = g_get_monotonic_time ();
    } else
      i++;
  }
}

/* ---- listeners ---- */

static void
free_kept (GList *at)
{
  Kept *k = at->data;

  g_queue_delete_link (&post.kept, at);
  g_free ((gpointer) k->letter.body);
  g_free (k);
}

/* On this thread, because the one that begins to listen may hold locks that a listener takes. */
static void
admit (const Listener *l)
{
  g_array_append_val (post.listeners, *l);
  for (int rank = 0; rank < post.place.ranks; rank++)
    if (post.gone[rank])
      l->table->gone (rank, post.gone[rank], l->user_data);
  for (GList *at = post.kept.head, *next; at; at = next) {
    const Kept *k = at->data;

    next = at->next;
    if (k->letter.session != l->session)
      continue;
    l->table->letter (&k->letter, l->user_data);
    free_kept (at);
  }
}

static void
admit_all (void)
{
  Listener l;
  gboolean more;

  g_mutex_lock (&post.dispatch);
  do {
    g_mutex_lock (&post.lock);
    if ((more = post.joining->len > 0)) {
      l = g_array_index (post.joining, Listener, 0);
      g_array_remove_index (post.joining, 0);
    }
    g_mutex_unlock (&post.lock);
    if (more)
      admit (&l);
  } while (more);
  g_mutex_unlock (&post.dispatch);
}

/* What was queued after a listener is sent after it listens, so it hears the answer. */
static void
send_queued (void)
{
  GQueue out;

  g_mutex_lock (&post.lock);
  out = post.out;
  g_queue_init (&post.out);
  g_mutex_unlock (&post.lock);
  admit_all ();
  for (Outgoing *o; (o = g_queue_pop_head (&out));)
    start_outgoing (o);
}

/* ---- in ---- */

/* Under dispatch. */
static const Listener *
listener_of (guint32 session)
{
  for (guint i = 0; i < post.listeners->len; i++)
    if (g_array_index (post.listeners, Listener, i).session == session)
      return &g_array_index (post.listeners, Listener, i);
  return NULL;
}

static DpLetter
letter_of (int from, const Incoming *in)
{
  return (DpLetter) { .from = from, .kind = in->data->kind, .session = in->data->session, .body = in->data + 1,
    .bytes = in->bytes - sizeof (Head), .payload = { in->data->payload[0], in->data->payload[1] } };
}

/* The letter itself is here; its payload may come. */
static void
place (int from, Incoming *in)
{
  DpLetter letter = letter_of (from, in);
  gpointer places[2] = { NULL, NULL };
  const Listener *l;

  in->placed = TRUE;
  if (letter.payload[0] == 0 && letter.payload[1] == 0)
    return;
  g_mutex_lock (&post.dispatch);
  l = listener_of (letter.session);
  in->dropped = l == NULL || l->table->place == NULL || !l->table->place (&letter, places, l->user_data);
  g_mutex_unlock (&post.dispatch);
  for (int i = 0; i < 2; i++) {
    if (letter.payload[i] == 0)
      continue;
    if (in->dropped)            /* it has to go somewhere, so that its sender gets rid of it */
      places[i] = in->scrap[i] = g_malloc (letter.payload[i]);
    in->requests[1 + i] = post.mpi->receive (places[i], letter.payload[i], from, TAG_PAYLOAD);
    if (in->requests[1 + i] == NULL)
      gone (from, "MPI refuses to receive from it");
  }
}

static void
answer_ping (const DpLetter *ping)
{
  gint64 times[2] = { 0, g_get_monotonic_time () };

  if (ping->bytes != sizeof times[0])
    return;
  memcpy (times, ping->body, sizeof times[0]);
  start_outgoing (outgoing_new (ping->from, DP_POST_PONG, 0, times, sizeof times));
}

/* The other rank looked at its clock between our ping and now. An older answer is trusted less. */
static void
take_pong (const DpLetter *pong)
{
  gint64 now = g_get_monotonic_time (), times[2], half;
  Clock *clock = &post.clocks[pong->from];

  if (pong->bytes != sizeof times)
    return;
  memcpy (times, pong->body, sizeof times);
  if (times[0] < 0 || times[0] > now || times[1] < 0 || times[1] > G_MAXINT64 / 4)
    return;                     /* no clock has that */
  half = (now - times[0]) / 2;
  g_mutex_lock (&post.lock);
  if (clock->at_us == 0 || half <= clock->error_us + (now - clock->at_us) * DRIFT_PPM / 1000000)
    *clock = (Clock) { now, times[0] + half - times[1], half };
  g_mutex_unlock (&post.lock);
}

static void
deliver (int from, const Incoming *in)
{
  DpLetter letter = letter_of (from, in);
  const Listener *l;

  if (letter.kind == DP_POST_PING) {
    answer_ping (&letter);
    return;
  }
  if (letter.kind == DP_POST_PONG) {
    take_pong (&letter);
    return;
  }
  if (letter.kind == DP_POST_GONE) {
    gint32 rank;
    const char *why = dp_post_text (&letter, &rank);

    if (why && rank >= 0 && rank < post.place.ranks)
      gone (rank, why);
    return;
  }
  if (letter.kind == DP_POST_BYE)
    post.bye = TRUE;
  g_mutex_lock (&post.dispatch);
  if ((l = listener_of (letter.session)))
    l->table->letter (&letter, l->user_data);
  else if (letter.session == 0 || letter.session > post.closed) {
    Kept *k = g_new (Kept, 1);

    k->letter = letter;
    k->letter.body = g_memdup2 (letter.body, letter.bytes);
    g_queue_push_tail (&post.kept, k);
  }
  g_mutex_unlock (&post.dispatch);
}

/* Letters of one rank, in order: the first one is finished before the second is looked at. */
static gboolean
advance (int from)
{
  GQueue *queue = &post.in[from];

  for (Incoming *in; (in = g_queue_peek_head (queue));) {
    int status = test_all (in->requests);

    if (status < 0) {
      gone (from, "MPI cannot receive from it");
      return FALSE;
    }
    if (status == 0)
      return TRUE;
    if (!in->placed) {
      place (from, in);
      continue;
    }
    g_queue_pop_head (queue);
    if (!in->dropped)
      deliver (from, in);
    g_free (in->scrap[0]);
    g_free (in->scrap[1]);
    g_free (in->data);
    g_free (in);
  }
  return FALSE;
}

static void
look (gint64 now)
{
  gsize bytes;
  int from;

  while (post.mpi->probe (TAG_LETTER, &from, &bytes)) {
    Incoming *in = g_new0 (Incoming, 1);

    in->bytes = MAX (bytes, sizeof (Head));
    in->data = g_malloc0 (in->bytes + 1);       /* strings end */
    in->requests[0] = post.mpi->receive (in->data, bytes, from, TAG_LETTER);
    if (in->requests[0] == NULL) {
      g_free (in->data);
      g_free (in);
      gone (from, "MPI refuses to receive from it");
      return;
    }
    post.heard[from] = now;
    post.busy = now;
    if (is_gone (from))         /* whatever it was */
      in->dropped = TRUE;
    g_queue_push_tail (&post.in[from], in);
  }
}

/* ---- life and death ---- */

/* What MPI holds of a rank that is gone stays as it is: MPI may still read or write it. */
static void
gone (int rank, const char *why)
{
  g_mutex_lock (&post.lock);
  gboolean known = post.gone[rank] != NULL;
  if (!known)
    post.gone[rank] = g_strdup (why);
  g_mutex_unlock (&post.lock);
  if (known)
    return;
  /* Listeners first, so that they know when they hear what is lost with it. */
  g_mutex_lock (&post.dispatch);
  for (guint i = 0; i < post.listeners->len; i++) {
    const Listener *l = &g_array_index (post.listeners, Listener, i);

    l->table->gone (rank, post.gone[rank], l->user_data);
  }
  g_mutex_unlock (&post.dispatch);
  for (guint i = post.sending->len; i-- > 0;) {
    Outgoing *o = g_ptr_array_index (post.sending, i);

    if (o->to == rank)
      finish_outgoing (g_ptr_array_remove_index (post.sending, i), TRUE);
  }
  g_queue_init (&post.in[rank]);
  if (post.place.rank != 0 || post.bye)
    return;
  for (int i = 1; i < post.place.ranks; i++)
    dp_post_send_text (i, DP_POST_GONE, 0, rank, post.gone[rank]);
}

static void
watch (gint64 now)
{
  int first = post.place.rank == 0 ? 1 : 0, last = post.place.rank == 0 ? post.place.ranks - 1 : 0;

  /* A process that was stopped itself, or got no processor, does not count the time in which it could not hear. */
  gint64 deaf = now - post.looked;
  if (deaf > SECOND / 2)
    for (int i = first; i <= last; i++)
      post.heard[i] += MIN (deaf, now - post.heard[i]);
  post.looked = now;
  if (post.bye)
    return;
  for (int i = first; i <= last; i++)
    if (now - post.heard[i] > SILENCE_US && !is_gone (i))
      gone (i, "nothing was heard of it for 4 seconds");
  if (now - post.pinged < (post.pings < FIRST_PINGS ? FIRST_PING_US : PING_US))
    return;
  post.pinged = now;
  post.pings++;
  for (int i = first; i <= last; i++) {
    gint64 time = g_get_monotonic_time ();

    start_outgoing (outgoing_new (i, DP_POST_PING, 0, &time, post.place.rank == 0 ? sizeof time : 0));
  }
}

/* Returns how long to wait before the next look. */
static gint64
turn (void)
{
  gint64 now = g_get_monotonic_time ();
  gboolean under_way = FALSE;

  send_queued ();
  look (now);
  for (int i = 0; i < post.place.ranks; i++)
    under_way |= advance (i);
  test_sending ();
  watch (now);
  if (under_way || post.sending->len > 0 || now - post.busy < RECENT_US)
    return SHORT_US;
  g_mutex_lock (&post.dispatch);
  gboolean open = post.listeners->len > 1;
  g_mutex_unlock (&post.dispatch);
  return open ? OPEN_US : IDLE_US;
}

static gboolean
all_there (void)
{
  for (int i = 0; i < post.place.ranks; i++)
    if (is_gone (i))
      return FALSE;
  return TRUE;
}

static gboolean
all_sent (void)
{
  g_mutex_lock (&post.lock);
  gboolean done = post.sending->len == 0 && post.out.length == 0;
  g_mutex_unlock (&post.lock);
  return done;
}

/* Rank 0 ends, or has said that it does. MPI_Finalize() waits for all ranks, so it is for a world in which all are there. Where one is
 * gone, the others may not have heard of it yet. */
static void
leave (void)
{
  gboolean all = all_there ();
  gint64 until = g_get_monotonic_time () + (all ? EXIT_US / 2 : FLUSH_US);

  if (post.place.rank == 0 && all) {
    for (int i = 1; i < post.place.ranks; i++)
      start_outgoing (outgoing_new (i, DP_POST_BYE, 0, NULL, 0));
    post.bye = TRUE;
  }
  while ((all ? post.bye && all_there () : post.place.rank == 0) && g_get_monotonic_time () < until) {
    turn ();
    if (all_sent ()) {
      if (all)
        post.mpi->finalize ();
      return;
    }
    g_usleep (SHORT_US);
  }
}

static gpointer
post_thread (gpointer data)
{
  char message[512] = "";
  gboolean ok = post.mpi->init (&post.place, message, sizeof message), quit;

  post.looked = post.pinged = g_get_monotonic_time ();
  for (int i = 0; i < DP_MAX_STAGES; i++)
    post.heard[i] = post.looked;
  g_mutex_lock (&post.lock);
  post.ready = TRUE;
  if (!ok && post.error == NULL)
    post.error = g_error_new (DP_ERROR, DP_ERROR_DEVICE, "ranks=mpi: %s", message);
  else if (post.error == NULL && post.place.ranks > DP_MAX_STAGES)
    post.error = g_error_new (DP_ERROR, DP_ERROR_SETTINGS, "ranks=mpi: there are %d ranks; a ring has at most %d stages, so start fewer",
        post.place.ranks, DP_MAX_STAGES);
  g_cond_broadcast (&post.changed);
  quit = post.error != NULL;
  g_mutex_unlock (&post.lock);
  while (!quit) {
    gint64 until = turn ();

    until += g_get_monotonic_time ();
    g_mutex_lock (&post.lock);
    while (!post.quit && post.out.length + post.joining->len == 0 && g_cond_wait_until (&post.changed, &post.lock, until));
    quit = post.quit;
    g_mutex_unlock (&post.lock);
  }
  if (post.error == NULL)
    leave ();
  g_mutex_lock (&post.lock);
  post.ended = TRUE;
  g_cond_broadcast (&post.changed);
  g_mutex_unlock (&post.lock);
  return NULL;
}

/* At the process's normal exit. */
static void
close_post (void)
{
  gint64 until = g_get_monotonic_time () + EXIT_US;

  g_mutex_lock (&post.lock);
  post.quit = TRUE;
  g_cond_broadcast (&post.changed);
  while (!post.ended && g_cond_wait_until (&post.changed, &post.lock, until));
  gboolean ended = post.ended;
  g_mutex_unlock (&post.lock);
  if (ended)
    g_thread_join (post.thread);
}

/* Nothing can stop MPI_Init(). If it returns later, its thread finds the error and ends. */
static gboolean
wait_ready (int seconds)
{
  gint64 until = seconds > 0 ? g_get_monotonic_time () + seconds * SECOND : G_MAXINT64;

  g_mutex_lock (&post.lock);
  while (!post.ready && g_cond_wait_until (&post.changed, &post.lock, until));
  gboolean ready = post.ready;
  if (!ready)
    post.error = g_error_new (DP_ERROR, DP_ERROR_DEVICE, "ranks=mpi: MPI did not start within %d seconds; it waits until every process that "
        "mpirun started uses it, so start every rank but the first with `dualparal worker`", seconds);
  g_mutex_unlock (&post.lock);
  return ready;
}

gboolean
dp_post_open (DpPostPlace *place, int seconds, GError **error)
{
  g_mutex_lock (&post.opening);
  if (!post.tried) {
    post.tried = TRUE;
    post.listeners = g_array_new (FALSE, FALSE, sizeof (Listener));
    post.joining = g_array_new (FALSE, FALSE, sizeof (Listener));
    post.sending = g_ptr_array_new ();
    post.mpi = dp_mpi_library_open (&post.error);
    if (post.mpi) {
      post.thread = dp_thread_new ("dp-mpi", post_thread, NULL, &post.error);
      if (post.thread && wait_ready (seconds))
        atexit (close_post);    /* registered after MPI's own, so it runs before them */
    }
  }
  if (post.error && error)
    *error = g_error_copy (post.error);
  gboolean ok = post.error == NULL;
  g_mutex_unlock (&post.opening);
  *place = (DpPostPlace) { post.place.rank, post.place.ranks, post.place.local_rank, post.place.local_ranks, post.place.library };
  return ok;
}

/* ---- for the engine ---- */

void
dp_post_listen (guint32 session, const DpPostListener *table, gpointer user_data)
{
  g_mutex_lock (&post.lock);
  g_array_append_val (post.joining, ((Listener) { session, table, user_data }));
  g_cond_broadcast (&post.changed);
  g_mutex_unlock (&post.lock);
}

static void
remove_listener (GArray *listeners, guint32 session)
{
  for (guint i = 0; i < listeners->len; i++)
    if (g_array_index (listeners, Listener, i).session == session) {
      g_array_remove_index (listeners, i);
      return;
    }
}

void
dp_post_unlisten (guint32 session)
{
  g_mutex_lock (&post.dispatch);
  remove_listener (post.listeners, session);
  g_mutex_lock (&post.lock);
  remove_listener (post.joining, session);
  g_mutex_unlock (&post.lock);
  post.closed = MAX (post.closed, session);
  for (GList *at = post.kept.head, *next; at; at = next) {
    Kept *k = at->data;

    next = at->next;
    if (k->letter.session > 0 && k->letter.session <= post.closed)
      free_kept (at);
  }
  g_mutex_unlock (&post.dispatch);
}

static void
queue (Outgoing *o)
{
  g_mutex_lock (&post.lock);
  g_queue_push_tail (&post.out, o);
  g_cond_broadcast (&post.changed);
  g_mutex_unlock (&post.lock);
}

void
dp_post_send (int to, DpPostKind kind, guint32 session, gconstpointer body, gsize bytes)
{
  queue (outgoing_new (to, kind, session, body, bytes));
}

void
dp_post_send_text (int to, DpPostKind kind, guint32 session, gint32 number, const char *text)
{
  gsize bytes = sizeof number + strlen (text) + 1;
  g_autofree char *body = g_malloc (bytes);

  memcpy (body, &number, sizeof number);
  strcpy (body + sizeof number, text);
  dp_post_send (to, kind, session, body, bytes);
}

const char *
dp_post_text (const DpLetter *letter, gint32 *number)
{
  const char *body = letter->body;

  if (letter->bytes <= sizeof *number || body[letter->bytes - 1] != 0)
    return NULL;
  memcpy (number, body, sizeof *number);
  return body + sizeof *number;
}

void
dp_post_send_payload (int to, DpPostKind kind, guint32 session, gconstpointer body, gsize bytes, const void *const payload[2],
    const gsize sizes[2], DpPostSent sent, gpointer user_data)
{
  Outgoing *o = outgoing_new (to, kind, session, body, bytes);

  for (int i = 0; i < 2; i++) {
    o->data->payload[i] = sizes[i];
    o->payload[i] = payload[i];
  }
  o->sent = sent;
  o->user_data = user_data;
  queue (o);
}

gboolean
dp_post_clock (int rank, gint64 *offset_us, gint64 *error_us)
{
  g_mutex_lock (&post.lock);
  Clock clock = post.clocks[rank];
  g_mutex_unlock (&post.lock);
  *offset_us = clock.offset_us;
  *error_us = clock.error_us;
  return clock.at_us != 0;
}

char *
dp_post_why_gone (int rank)
{
  g_mutex_lock (&post.lock);
  char *why = g_strdup (post.gone[rank]);
  g_mutex_unlock (&post.lock);
  return why;
}
