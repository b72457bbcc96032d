/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"
#include "agreement.h"
#include "ranks.h"
#include "transport_mpi.h"

#include <string.h>

struct _DpSession
{
  DpSessionSpec spec;
  guint32 number;
  int ranks;
  char *names[DP_MAX_STAGES];   /* of the stages, for errors */
  char *text;                   /* what the ranks must agree on */
  DpTransport *end;
  gint finished;                /* atomic */

  /* -- protected by lock -- */
  GMutex lock;
  DpRemoteStats stats[DP_MAX_STAGES];
};

static gint is_open;            /* atomic: a session of this process is */
static gint last_number;        /* atomic */

/* ---- on the post's thread ---- */

static void
take_letter (const DpLetter *letter, gpointer data)
{
  DpSession *s = data;
  gint32 code = DP_ERROR_FAILED;

  if (letter->kind == DP_POST_LOADED)
    s->spec.loaded (s->spec.user_data);
  if (letter->kind == DP_POST_STATS && letter->bytes == sizeof (DpRemoteStats)) {
    g_mutex_lock (&s->lock);
    memcpy (&s->stats[letter->from], letter->body, letter->bytes);
    g_mutex_unlock (&s->lock);
  }
  if (letter->kind == DP_POST_FAILED && letter->bytes > sizeof code) {
    memcpy (&code, letter->body, sizeof code);
    g_autofree char *message = g_utf8_make_valid ((const char *) letter->body + sizeof code, -1);
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
  gsize bytes = sizeof s->number + strlen (s->text) + 1;
  g_autofree char *body = g_malloc (bytes);

  memcpy (body, &s->number, sizeof s->number);
  strcpy (body + sizeof s->number, s->text);
  dp_transport_mpi_listen (s->end);
  for (int i = 1; i < s->ranks; i++)
    dp_post_send (i, DP_POST_OPEN, 0, body, bytes);
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
  for (int i = 0; i < s->ranks; i++)
    g_free (s->names[i]);
  g_free (s->text);
  g_mutex_clear (&s->lock);
  g_free (s);
  g_atomic_int_set (&is_open, FALSE);
}
