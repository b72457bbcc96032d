/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * trace.h: what the engine did when, in a file that chrome://tracing and ui.perfetto.dev open.
 *
 * The file is a JSON array of events in Chrome's trace format, one a line, with a track per thread. Events are collected in a buffer of
 * fixed size and written whole, at the latest a second after the one before: a file that a program left when it was killed lacks the last
 * second and the closing bracket, which viewers do without. It ends at a limit of size, and is then complete, or where the disk is full.
 * Writing an event allocates nothing. Every function but the first takes NULL for no trace, and does nothing then.
 */
#pragma once

#include <glib.h>

#define DP_TRACE_LIMIT ((gsize) 64 << 20)

/* Tracks; stage i has DP_TRACE_STAGE + i. */
enum
{
  DP_TRACE_FRAMES,              /* what leaves */
  DP_TRACE_TEXT,
  DP_TRACE_DECODER,
  DP_TRACE_STAGE,
};

/* Thread-safety: every function from any thread, dp_trace_free() last. */
typedef struct _DpTrace DpTrace;

/** What a stage did, as numbers, so that another process can tell it. */
typedef enum { DP_TRACE_LOAD, DP_TRACE_PASS, DP_TRACE_TRANSFER } DpTraceWhat;

typedef struct
{
  gint32 what;                  /* DpTraceWhat */
  gint32 stage;                 /* a transfer goes to it */
  gint32 from;                  /* of a transfer: the stage that gave the block away */
  gint32 step, element;
  gint32 first_half, halves;    /* of layers, as DpHalves has them; unless it is a transfer */
  gint64 block, iteration;
  gint64 start_us, end_us;      /* by the clock of the stage's process; a transfer starts by that of `from` */
} DpTraceEvent;

/** What to add to a time of the process of a stage to get one of this process. From any thread. */
typedef gint64 (*DpTraceClock) (int stage);

/** Takes events to another process; lent. From any thread, one call at a time. */
typedef void (*DpTraceSend) (const DpTraceEvent *events, guint n, gpointer user_data);

/** Begins the file anew, at most `limit` bytes of it. One that another trace is being written to, of this process or any, is an error. */
DpTrace *dp_trace_new (const char *path, int stages, gsize limit, GError **error);
/** One without a file, in a process that is not rank 0. It takes dp_trace_event() alone, and sends
 *  events some dozens at a time. */
DpTrace *dp_trace_new_remote (DpTraceSend send, gpointer user_data);
/** Sends what such a one still has. */
void dp_trace_pass_on (DpTrace *trace);
/** How the clocks of the stages' processes differ; before events of other processes are added. */
void dp_trace_set_clock (DpTrace *trace, DpTraceClock clock);
/** FALSE, once, with DP_ERROR_FAILED when something could not be written: the trace has ended then. NULL is fine; cheap. */
gboolean dp_trace_check (DpTrace *trace, GError **error);
/** Writes what is left, and the end; nothing is added behind that. FALSE with DP_ERROR_FAILED where something could not be written, now or
 *  before, unless dp_trace_check() has said so. */
gboolean dp_trace_end (DpTrace *trace, GError **error);
/** Ends it, if that is still to be done. */
void dp_trace_free (DpTrace *trace);

/* Times are those of g_get_monotonic_time(). `kind` is a word without anything that JSON would quote; `args` is a printf() format of the
 * members of a JSON object, or a blank. */

/** What a track was busy with; for a block (-1: none). Spans of a track lie behind or inside each other. */
void dp_trace_span (DpTrace *trace, int track, const char *kind, gint64 block, gint64 start_us, gint64 end_us, const char *args, ...)
G_GNUC_PRINTF (7, 8);
/** What a stage did. */
void dp_trace_event (DpTrace *trace, const DpTraceEvent *event);
/** A block on its way from one stage to another: from when it was given away to when it was taken. */
void dp_trace_transfer (DpTrace *trace, int from, int to, gint64 block, int step, gint64 start_us, gint64 end_us);
/** Something at this moment. */
void dp_trace_instant (DpTrace *trace, int track, const char *kind, const char *args, ...) G_GNUC_PRINTF (4, 5);
/** A number that is another one from now on. */
void dp_trace_counter (DpTrace *trace, const char *kind, gint64 value);
