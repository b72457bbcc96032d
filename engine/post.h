/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * post.h: letters between the processes of one MPI_COMM_WORLD.
 *
 * A letter has a kind, a session, a body and up to two payloads, large arrays that go from memory to
 * memory. Letters from one rank to another arrive in order. A session is one engine of rank 0 with
 * its ring. Session 0 is what outlives engines: who is there, and when to end.
 *
 * One thread of the process talks to MPI, the post's own. It never spins: it looks every 100 us
 * while something is on its way or has just come, every millisecond while a session is open, and
 * every 10 ms otherwise. A letter to be sent wakes it at once.
 *
 * Rank 0 and every other rank send each other a sign of life each second. A rank that was not heard
 * of for 4 seconds is gone, for good: the world of MPI has no way to take it back.
 */
#pragma once

#include <glib.h>

typedef enum
{
  /* -- the post's own -- */
  DP_POST_PING,                 /* a sign of life; from rank 0, body: its time */
  DP_POST_PONG,                 /* to rank 0, at once; body: the time that the ping had, and the time here */
  DP_POST_GONE,                 /* from rank 0; body: the rank and why, a string */
  DP_POST_BYE,                  /* from rank 0: its process ends. Given to the listener too */

  /* -- of session 0 -- */
  DP_POST_HELLO,                /* to rank 0; body: ranks.h */
  DP_POST_OPEN,                 /* from rank 0: a session begins; body: its number, a text of agreement.h */

  /* -- of a session -- */
  DP_POST_LOADED,               /* to rank 0: this stage has its weights */
  DP_POST_FAILED,               /* to rank 0; body: a DpError and the sentence, a string */
  DP_POST_STATS,                /* to rank 0; body: DpRemoteStats */
  DP_POST_COLLECT,              /* from rank 0: send statistics and trace up to now, then COLLECTED */
  DP_POST_TRACE,                /* to rank 0; body: DpTraceEvents */
  DP_POST_COLLECTED,            /* to rank 0 */
  DP_POST_DOWN,                 /* from rank 0: the session ends */
  DP_POST_CREDIT,               /* to the previous stage: one more block has room */
  DP_POST_TOLD,                 /* to the next stage: a conditioning */
  DP_POST_WIRE,                 /* to the previous stage: a DpWireId; to the next one: an answer, why not, a string, empty: yes */
  DP_POST_BLOCK,                /* to the next stage; body: header and error, payload: latents, tokens */
} DpPostKind;

typedef struct
{
  int from;
  DpPostKind kind;
  guint32 session;
  gconstpointer body;           /* lent during the call */
  gsize bytes;                  /* of it */
  gsize payload[2];             /* bytes, 0: none */
} DpLetter;

/** How letters of a session are taken in. Called on the post's thread, one at a time; must not block. */
typedef struct
{
  /** Where the payload of a letter is to go. FALSE: nowhere, the letter is dropped. May be NULL. */
  gboolean (*place) (const DpLetter *letter, gpointer places[2], gpointer user_data);
  /** A letter has come, with all of its payload. */
  void (*letter) (const DpLetter *letter, gpointer user_data);
  /** A rank is gone; `why` is the rest of a sentence, "nothing was heard of it for 4 seconds". */
  void (*gone) (int rank, const char *why, gpointer user_data);
} DpPostListener;

/** This process's place among all. */
typedef struct
{
  int rank, ranks;
  int local_rank, local_ranks;  /* among those of this host */
  const char *library;          /* what it is built on, for people */
} DpPostPlace;

/* Thread-safety: every function from any thread. */

/** Opens the post of this process, at the first call; waits until all ranks have done so, at most that many seconds (0: without limit).
 *  FALSE with the same error at every call when there is no MPI here, or a rank does not come. When the process exits normally, the post
 *  says goodbye and finalizes MPI, unless a rank is gone: then nobody would meet it in MPI_Finalize(), and it leaves without. */
gboolean dp_post_open (DpPostPlace *place, int seconds, GError **error);

/** Takes in the letters of a session from now on. It is told of ranks that are gone already, then of letters that came before it listened.
 *  Never blocks. Sessions have growing numbers. */
void dp_post_listen (guint32 session, const DpPostListener *listener, gpointer user_data);
/** The listener is not called any more, and no DpPostSent is being called. Letters of this session and
 *  earlier ones are dropped from now on (not for session 0). */
void dp_post_unlisten (guint32 session);

/** Sends a letter without payload; the body is copied. Never blocks. To a rank that is gone nothing is sent. */
void dp_post_send (int to, DpPostKind kind, guint32 session, gconstpointer body, gsize bytes);

/** Called on the post's thread once the payload may be written to again. With `lost` it never may, because the rank is gone while MPI
 *  still had it: it may not even be freed. */
typedef void (*DpPostSent) (gboolean lost, gpointer user_data);

/** The same with a number and a string as its body. */
void dp_post_send_text (int to, DpPostKind kind, guint32 session, gint32 number, const char *text);
/** The string behind the number of such a body, which is lent; NULL: that is no such body. */
const char *dp_post_text (const DpLetter *letter, gint32 *number);

/** The same with payload, which stays where it is until `sent` is called. */
void dp_post_send_payload (int to, DpPostKind kind, guint32 session, gconstpointer body, gsize bytes, const void *const payload[2],
    const gsize sizes[2], DpPostSent sent, gpointer user_data);

/** Rank 0: microseconds to add to a time of that rank to get one of this process, and by how many that may be wrong: half of the time that
 *  a ping and its answer took. FALSE and zeros while nothing is known yet, or the rank is this one. */
gboolean dp_post_clock (int rank, gint64 *offset_us, gint64 *error_us);

/** Why a rank is gone, as in DpPostListener; NULL: it is there. New string. */
char *dp_post_why_gone (int rank);
