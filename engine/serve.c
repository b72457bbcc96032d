/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "serve.h"
#include "agreement.h"
#include "part_cache.h"
#include "ranks.h"
#include "session.h"
#include "settings.h"
#include "transport_mpi.h"
#include "worker.h"

#include <string.h>

/* What the post's thread tells the one that serves. */
typedef struct
{
  DpPostKind kind;              /* OPEN, COLLECT, DOWN, BYE or GONE */
  guint32 session;              /* OPEN, COLLECT, DOWN */
  char *text;                   /* OPEN: the agreement, GONE: a sentence */
} Event;

typedef struct
{
  DpServeSpec spec;
  DpPostPlace place;
  DpRank self;
  char *name;                   /* "stage 2 (rank 2 on host, cpu)" */
  GAsyncQueue *events;
} Server;

/* A session and its stage. */
typedef struct
{
  Server *server;
  guint32 number;
  GStringChunk *storage;
  DpPlan *plan;
  DpWeights *weights[2];
  DpStageSpec stage_spec;
  DpStage *stage;
  DpTransport *end;
  DpTrace *trace;               /* or NULL: rank 0 wants none */
  DpWorker *worker;
  int cancel;                   /* atomic */
  gint failed;                  /* atomic */
} Session;

/* ---- on the post's thread ---- */

static void
push (Server *s, DpPostKind kind, guint32 session, char *text)
{
  Event *e = g_new (Event, 1);

  *e = (Event) { kind, session, text };
  g_async_queue_push (s->events, e);
}

static void
take_letter (const DpLetter *letter, gpointer data)
{
  Server *s = data;
  gint32 number;
  const char *text;

  if (letter->kind == DP_POST_BYE)
    push (s, DP_POST_BYE, 0, NULL);
  if (letter->kind == DP_POST_OPEN && (text = dp_post_text (letter, &number)))
    push (s, DP_POST_OPEN, (guint32) number, g_strdup (text));
}

static void
take_gone (int rank, const char *why, gpointer data)
{
  Server *s = data;
  g_autofree char *said = dp_quote (why, DP_QUOTE_MAX);

  push (s, DP_POST_GONE, 0, g_strdup_printf ("%s ends: rank %d is gone: %s", s->name, rank, said));
}

static void
take_session_letter (const DpLetter *letter, gpointer data)
{
  Session *session = data;

  if (letter->kind == DP_POST_COLLECT)
    push (session->server, DP_POST_COLLECT, session->number, NULL);
  if (letter->kind != DP_POST_DOWN)
    return;
  g_atomic_int_set (&session->cancel, 1);
  session->end->shut_down (session->end);
  push (session->server, DP_POST_DOWN, session->number, NULL);
}

/* The server hears of it too. */
static void
take_session_gone (int rank, const char *why, gpointer data)
{
  Session *session = data;

  g_atomic_int_set (&session->cancel, 1);
  session->end->shut_down (session->end);
}

/* ---- a session ---- */

static void
say (const Server *s, const char *text)
{
  if (s->spec.say)
    s->spec.say (text, s->spec.user_data);
}

static void
send_failure (Server *s, guint32 session, const GError *error)
{
  g_autofree char *message = g_strdup_printf ("%s: %s", s->name, error->message);

  dp_post_send_text (0, DP_POST_FAILED, session, error->domain == DP_ERROR ? error->code : DP_ERROR_FAILED, message);
}

static void
loaded (gpointer data)
{
  Session *session = data;

  dp_post_send (0, DP_POST_LOADED, session->number, NULL, 0);
}

static void
failed (GError *error, gpointer data)
{
  Session *session = data;

  g_atomic_int_set (&session->failed, 1);
  if (!g_atomic_int_get (&session->cancel)) {
    say (session->server, error->message);
    send_failure (session->server, session->number, error);
  }
  g_error_free (error);
}

static void
connected (const char *how, gpointer data)
{
  Session *session = data;
  g_autofree char *sentence = g_strdup_printf ("%s: %s", session->server->name, how);

  say (session->server, sentence);
}

static void
send_events (const DpTraceEvent *events, guint n, gpointer data)
{
  Session *session = data;

  dp_post_send (0, DP_POST_TRACE, session->number, events, n * sizeof *events);
}

static gboolean
make_plan (Session *session, const char *text, GError **error)
{
  Server *s = session->server;
  g_autofree char *here = NULL;
  DpHalves cuts[DP_MAX_STAGES][2];
  DpSettings settings;
  int stages;

  if (!dp_agreement_read (text, &settings, &stages, cuts, session->storage, error))
    return FALSE;
  if (s->spec.model) {          /* with all of its parts */
    settings.model = s->spec.model;
    settings.transformer = settings.transformer_2 = settings.vae = settings.text_encoder_file = settings.tokenizer = NULL;
  }
  settings.devices = s->self.device;
  settings.threads = s->self.threads;
  session->plan = dp_plan_for_rank (&settings, stages, (const DpHalves (*)[2]) cuts, error);
  here = session->plan ? dp_agreement_new (session->plan, error) : NULL;
  return here && dp_agreement_check (text, here, error);
}

static gboolean
make_stage (Session *session, GError **error)
{
  Server *s = session->server;
  const DpPlan *plan = session->plan;
  const DpPlanStage *stage = &plan->stages[s->place.rank];

  for (int i = 0; i < plan->model->config.experts; i++)
    if ((session->weights[i] = dp_model_weights (plan->model, DP_MODEL_TRANSFORMER + i, error)) == NULL)
      return FALSE;
  session->stage_spec = dp_plan_stage_spec (plan);
  session->stage_spec.cancel = &session->cancel;
  dp_part_cache_begin ();
  session->stage = dp_stage_new (&session->stage_spec, s->self.device, s->self.threads,
      (const DpWeights *const[2]) { session->weights[0], session->weights[1] }, stage->halves);
  dp_part_cache_end ();
  return TRUE;
}

static void
start_stage (Session *session)
{
  Server *s = session->server;
  GError *error = NULL;

  session->end = dp_transport_mpi_new (&(DpTransportMpiSpec) { .rank = s->place.rank, .ranks = s->place.ranks,
      .session = session->number, .name = s->name, .letter = take_session_letter, .gone = take_session_gone,
      .failed = failed, .connected = connected, .user_data = session });
  dp_transport_mpi_listen (session->end);       /* before the worker gives credits: what they bring must find the end */
  if (session->plan->settings.trace)
    session->trace = dp_trace_new_remote (send_events, session);
  session->worker = dp_worker_new (&(DpWorkerSpec) { .index = s->place.rank, .stages = s->place.ranks,
      .stage = session->stage, .transport = session->end, .trace = session->trace,
      .cancel = &session->cancel, .loaded = loaded, .loaded_data = session, .failed = failed, .failed_data = session }, &error);
  if (session->worker == NULL)  /* rank 0 then ends the session */
    failed (error, session);
}

/* What this stage did so far. */
static void
send_account (Session *session)
{
  DpWorkerStats w;

  if (session->worker == NULL)
    return;
  dp_trace_pass_on (session->trace);
  dp_worker_get_stats (session->worker, &w);
  dp_post_send (0, DP_POST_STATS, session->number, &(DpRemoteStats) { w.busy_us, dp_recent_percentile (&w.pass_seconds, 50), w.bytes,
      w.allocations }, sizeof (DpRemoteStats));
}

static void
end_stage (Session *session)
{
  int linger = session->plan->settings.linger;

  g_atomic_int_set (&session->cancel, 1);
  session->end->shut_down (session->end);
  dp_worker_join (session->worker);
  session->end->close (session->end);
  dp_worker_free (session->worker);
  dp_trace_free (session->trace);
  dp_stage_free (session->stage, g_atomic_int_get (&session->failed) ? 0 : linger);
  session->end->free (session->end);
}

/* Waits for what ends the session. A session that was over before it was listened to is told to be so behind the next one's start. */
static Event *
next_event (Session *session)
{
  Event *e;

  do {
    e = g_async_queue_timeout_pop (session->server->events, G_USEC_PER_SEC);
    if (e == NULL || e->kind == DP_POST_COLLECT)
      send_account (session);
    if (e && e->kind == DP_POST_COLLECT)
      dp_post_send (0, DP_POST_COLLECTED, e->session, NULL, 0);
    if (e && (e->kind == DP_POST_COLLECT || (e->kind == DP_POST_DOWN && e->session != session->number)))
      g_clear_pointer (&e, g_free);
  } while (e == NULL);
  return e;
}

/* Serves until rank 0 ends the session. Returns an event that it is not for a session to handle, or NULL. */
static Event *
serve_session (Server *s, guint32 number, const char *text)
{
  g_autofree Session *session = g_new0 (Session, 1);
  GError *error = NULL;
  Event *e = NULL;

  session->server = s;
  session->number = number;
  session->storage = g_string_chunk_new (1024);
  if (make_plan (session, text, &error) && make_stage (session, &error)) {
    start_stage (session);
    e = next_event (session);
    end_stage (session);
  } else {
    say (s, error->message);
    send_failure (s, number, error);
    g_error_free (error);
    dp_post_unlisten (number);  /* and what comes for it is dropped */
  }
  if (e && e->kind == DP_POST_DOWN)
    g_clear_pointer (&e, g_free);
  dp_weights_free (session->weights[0]);
  dp_weights_free (session->weights[1]);
  dp_plan_unref (session->plan);
  g_string_chunk_free (session->storage);
  return e;
}

/* ---- the process ---- */

static gboolean
join (Server *s, GError **error)
{
  if (!dp_post_open (&s->place, 0, error))
    return FALSE;
  if (s->place.ranks == 1)
    return dp_settings_refuse (error, "a worker was started alone; mpirun starts it together with rank 0, which makes the video: mpirun "
        "-n 1 dualparal generate --ranks mpi ... : -n 2 dualparal worker");
  if (s->place.rank == 0)
    return dp_settings_refuse (error, "a worker is rank 0, but rank 0 makes the video; name that program first: mpirun -n 1 dualparal "
        "generate --ranks mpi ... : -n %d dualparal worker", s->place.ranks - 1);
  return TRUE;
}

/* Returns why the device cannot be used, or NULL. */
static char *
choose_device (Server *s)
{
  const char *asked = s->spec.device ? s->spec.device : "auto";
  char message[256];

  dp_ranks_host_name (s->self.host, sizeof s->self.host);
  s->self.threads = s->spec.threads > 0 ? s->spec.threads : MAX (1, dp_device_processors () / s->place.local_ranks);
  if (strcmp (asked, "auto") == 0) {
    g_snprintf (s->self.device, sizeof s->self.device, "cuda:%d", s->place.local_rank);
    if (dp_device_info (s->self.device, &s->self.info, message, sizeof message))
      return NULL;
    asked = "cpu";
  }
  g_strlcpy (s->self.device, asked, sizeof s->self.device);
  return dp_device_info (asked, &s->self.info, message, sizeof message) ? NULL : dp_quote (message, sizeof message);
}

gboolean
dp_serve (const DpServeSpec *spec, GError **error)
{
  static const DpPostListener listener = { .letter = take_letter, .gone = take_gone };
  static Server server;         /* the post's thread may call until the process ends */
  Server *s = &server;
  g_autofree char *broken = NULL, *welcome = NULL;
  Event *e = NULL;
  gboolean ok = FALSE;

  s->spec = *spec;
  if (!join (s, error))
    return FALSE;
  broken = choose_device (s);
  s->name = dp_rank_name (s->place.rank, &s->self);
  s->events = g_async_queue_new ();
  dp_post_listen (0, &listener, s);
  dp_ranks_say_hello (&s->self, broken);
  welcome = g_strdup_printf ("%s: %s, %s", s->name, broken ? broken : s->self.info.description, s->place.library);
  say (s, welcome);
  for (gboolean done = FALSE; !done;) {
    e = e ? e : g_async_queue_pop (s->events);
    Event *next = e->kind == DP_POST_OPEN && !broken ? serve_session (s, e->session, e->text) : NULL;

    ok = e->kind == DP_POST_BYE && !broken;
    done = e->kind == DP_POST_BYE || e->kind == DP_POST_GONE;
    if (e->kind == DP_POST_GONE)
      g_set_error_literal (error, DP_ERROR, DP_ERROR_DEVICE, e->text);
    else if (done && broken)
      g_set_error (error, DP_ERROR, DP_ERROR_DEVICE, "%s: %s", s->name, broken);
    g_free (e->text);
    g_free (e);
    e = next;
  }
  return ok;
}
