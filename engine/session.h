/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * session.h: rank 0's side of a ring over ranks: what one engine and the other ranks tell each other
 * beside blocks. It opens the session there, hears what is loaded and what fails, and ends it.
 *
 * A process has at most one at a time, because a rank serves one ring at a time.
 */
#pragma once

#include "plan.h"
#include "trace.h"
#include "transport.h"

/** What a stage elsewhere says of itself each second. */
typedef struct
{
  gint64 busy_us;
  double pass_seconds;          /* the median of the latest */
  guint64 bytes, allocations;
} DpRemoteStats;

typedef struct
{
  const DpPlan *plan;           /* must outlive it */
  DpTrace *trace;               /* gets what the other ranks did, on this process's clock; NULL: none; must outlive it */
  /** From the post's thread: a stage has its weights; a stage failed, or its rank is gone (takes the error). */
  void (*loaded) (gpointer user_data);
  void (*failed) (GError *error, gpointer user_data);
  gpointer user_data;
} DpSessionSpec;

/* Thread-safety: every function from any thread, dp_session_free() last. */
typedef struct _DpSession DpSession;

/** Nothing is sent yet. Errors: DP_ERROR_SETTINGS, another session is open; those of dp_agreement_new(). */
DpSession *dp_session_new (const DpSessionSpec *spec, GError **error);
/** The end of stage 0, the session's; its close() is for the caller. */
DpTransport *dp_session_end (DpSession *session);
/** Opens the session on all other ranks. Callbacks come from now on. */
void dp_session_start (DpSession *session);
/** Ends it there and here. More than once is fine. */
void dp_session_finish (DpSession *session);
/** Asks all ranks for their statistics and traces up to now, and waits until all of it is here: half a second at most, for a rank may hang.
 *  Not after dp_session_finish(). */
void dp_session_collect (DpSession *session);
void dp_session_get_stats (DpSession *session, int stage, DpRemoteStats *stats);
/** After its end was closed. NULL is fine. */
void dp_session_free (DpSession *session);
