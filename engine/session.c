/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"
#include "agreement.h"
#include "ranks.h"
#include "thread.h"
#include "transport_mpi.h"

#include <string.h>

#define COLLECT_US (G_USEC_PER_SEC / 2)

struct _DpSession
{
  DpSessionSpec spec;
  guint32 number;
  int ranks;
  char *names[DP_MAX_STAGES];   /* of the stages, for errors */
  char *text;                   /* what the ranks must agree on */
  DpTransport *end;
  gint finished;                /* atomic */
  GAsyncQueue *traces;          /* of GBytes, DpTraceEvents; an empty one ends the tracer */
  GThread *tracer;              /* writes them: a slow disk must not keep the post's thread */

  /* -- protected by lock -- */
  GMutex lock;
  GCond changed;
  DpRemoteStats stats[DP_MAX_STAGES];
  guint asked, collected[DP_MAX_STAGES];        /* times that all was asked for, and came from each rank */
  guint queued, written;        /* of what was put into `traces` */
};

static gint is_open;            /* atomic: a session of this process is */
static gint last_number;        /* atomic */

/* ---- traces ---- */

static gint64
clock_of (int stage)
{
  gint64 offset, error;

  dp_post_clock (stage, &offset, &error);
  return offset;
}

static void
write_events (DpSession *s, const DpTraceEvent *events, gsize n)
{
  gint64 offset, error;

  if (dp_post_clock (events[0].stage, &offset, &error))
    dp_trace_instant (s->spec.trace, DP_TRACE_STAGE + events[0].stage, "clock", "\"offset_us\":%" G_GINT64_FORMAT ",\"error_us\":%"
        G_GINT64_FORMAT, offset, error);
  for (gsize i = 0; i < n; i++)
    dp_trace_event (s->spec.trace, &events[i]);
}

static gpointer
trace_thread (gpointer data)
{
  DpSession *s = data;
  gsize size;

  do {
    g_autoptr (GBytes) bytes = g_async_queue_pop (s->traces);
    const DpTraceEvent *events = g_bytes_get_data (bytes, &size);

    if (size > 0)
      write_events (s, events, size / sizeof *events);
    g_mutex_lock (&s->lock);
    s->written++;
    g_cond_broadcast (&s->changed);
    g_mutex_unlock (&s->lock);
  } while (size > 0);
  return NULL;
}

static void
queue_events (DpSession *s, GBytes *bytes)
{
  g_mutex_lock (&s->lock);
  s->queued++;
  g_mutex_unlock (&s->lock);
  g_async_queue_push (s->traces, bytes);
}

/* Only what can be true of the rank that sent it. */
static void
take_events (DpSession *s, const DpLetter *letter)
{
  const DpTraceEvent *came = letter->body;
  g_autofree DpTraceEvent *events = g_malloc (letter->bytes);
  gsize n = 0;

  for (gsize i = 0; i < letter->bytes / sizeof *came; i++) {
    if (MIN (came[i].start_us, came[i].end_us) < 0 || MAX (came[i].start_us, came[i].end_us) > G_MAXINT64 / 4)
      continue;
    events[n] = came[i];
    events[n].stage = letter->from;
    events[n++].from = letter->from - 1;
  }
  if (n > 0)
    queue_events (s, g_bytes_new (events, n * sizeof *events));
}

/* ---- on the post's thread ---- */

static void
take_letter (const DpLetter *letter, gpointer data)
{
  DpSession *s = data;
  gint32 code = DP_ERROR_FAILED;
  const char *text;

  if (letter->kind == DP_POST_LOADED)
    s->spec.loaded (s->spec.user_data);
  if (letter->kind == DP_POST_STATS && letter->bytes == sizeof (DpRemoteStats)) {
    g_mutex_lock (&s->lock);
    memcpy (&s->stats[letter->from], letter->body, letter->bytes);
    g_mutex_unlock (&s->lock);
  }
  if (letter->kind == DP_POST_TRACE && s->tracer)
    take_events (s, letter);
  if (letter->kind == DP_POST_COLLECTED) {
    g_mutex_lock (&s->lock);
    s->collected[letter->from]++;
    g_cond_broadcast (&s->changed);
    g_mutex_unlock (&s->lock);
  }
  if (letter->kind == DP_POST_FAILED && (text = dp_post_text (letter, &code))) {
    g_autofree char *message = dp_quote (text, DP_QUOTE_SENTENCE);
    code = CLAMP (code, 0, DP_ERROR_FAILED);
    s->spec.failed (g_error_new_literal (DP_ERROR, code, message), s->spec.user_data);
  }
}

static void
take_gone (int rank, const char *why, gpointer data)
{
  DpSession *s = data;
  GError *error = NULL;

  dp_ranks_set_gone (&error, s->names[rank], why);
  s->spec.failed (error, s->spec.user_data);
}

static void
failed (GError *error, gpointer data)
{
  DpSession *s = data;

  s->spec.failed (error, s->spec.user_data);
}

/* ---- the engine's threads ---- */

DpSession *
dp_session_new (const DpSessionSpec *spec, GError **error)
{
  DpSession *s;

  if (!g_atomic_int_compare_and_exchange (&is_open, FALSE, TRUE)) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "ranks=mpi: the ranks already make another video of this process; stop that one, or "
        "use ranks=none");
    return NULL;
  }
  s = g_new0 (DpSession, 1);
  g_mutex_init (&s->lock);
  g_cond_init (&s->changed);
  s->spec = *spec;
  s->ranks = spec->plan->n_stages;
  s->number = g_atomic_int_add (&last_number, 1) + 1;
  for (int i = 0; i < s->ranks; i++)
    s->names[i] = dp_plan_stage_name (spec->plan, i);
  s->text = dp_agreement_new (spec->plan, error);
  if (s->text == NULL) {
    dp_session_free (s);
    return NULL;
  }
  dp_trace_set_clock (spec->trace, clock_of);
  if (spec->trace) {
    s->traces = g_async_queue_new ();
    s->tracer = dp_thread_new ("dp-trace", trace_thread, s, error);
    if (s->tracer == NULL) {
      g_clear_pointer (&s->traces, g_async_queue_unref);
      dp_session_free (s);
      return NULL;
    }
  }
  s->end = dp_transport_mpi_new (&(DpTransportMpiSpec) { .rank = 0, .ranks = s->ranks, .session = s->number, .name = s->names[0],
      .letter = take_letter, .gone = take_gone, .failed = failed, .user_data = s });
  return s;
}

DpTransport *
dp_session_end (DpSession *s)
{
  return s->end;
}

void
dp_session_start (DpSession *s)
{
  dp_transport_mpi_listen (s->end);
  for (int i = 1; i < s->ranks; i++)
    dp_post_send_text (i, DP_POST_OPEN, 0, (gint32) s->number, s->text);
}

void
dp_session_finish (DpSession *s)
{
  if (!g_atomic_int_compare_and_exchange (&s->finished, FALSE, TRUE))
    return;
  s->end->shut_down (s->end);
  for (int i = 1; i < s->ranks; i++)
    dp_post_send (i, DP_POST_DOWN, s->number, NULL, 0);
}

/* Under lock. */
static gboolean
all_collected (const DpSession *s)
{
  for (int i = 1; i < s->ranks; i++)
    if (s->collected[i] < s->asked)
      return FALSE;
  return s->written == s->queued;
}

void
dp_session_collect (DpSession *s)
{
  gint64 until = g_get_monotonic_time () + COLLECT_US;

  g_mutex_lock (&s->lock);
  s->asked++;
  for (int i = 1; i < s->ranks; i++)
    dp_post_send (i, DP_POST_COLLECT, s->number, NULL, 0);
  while (!all_collected (s) && g_cond_wait_until (&s->changed, &s->lock, until));
  g_mutex_unlock (&s->lock);
}

void
dp_session_get_stats (DpSession *s, int stage, DpRemoteStats *stats)
{
  g_mutex_lock (&s->lock);
  *stats = s->stats[stage];
  g_mutex_unlock (&s->lock);
}

void
dp_session_free (DpSession *s)
{
  if (s == NULL)
    return;
  if (s->end)
    s->end->free (s->end);
  if (s->tracer) {
    queue_events (s, g_bytes_new (NULL, 0));
    g_thread_join (s->tracer);
    g_async_queue_unref (s->traces);
  }
  for (int i = 0; i < s->ranks; i++)
    g_free (s->names[i]);
  g_free (s->text);
  g_cond_clear (&s->changed);
  g_mutex_clear (&s->lock);
  g_free (s);
  g_atomic_int_set (&is_open, FALSE);
}
