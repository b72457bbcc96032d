/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * worker.h: a stage's thread.
 *
 * It loads the stage, then takes blocks from its transport, runs them and sends them on. The one of
 * stage 0 starts them: it asks the schedule for the next pass, and hands finished blocks to the
 * decoder. A stage that fails sends its block on with the error in it, so that stage 0 hears of it
 * wherever it happened. Behind it no stage computes anything any more.
 *
 * On a GPU the thread queues one pass behind the one that is being computed, and never drains the
 * device.
 */
#pragma once

#include "decoder.h"
#include "preview.h"
#include "recent.h"
#include "schedule.h"
#include "stage.h"
#include "trace.h"
#include "transport.h"

typedef struct
{
  int index, stages;            /* which stage of how many */
  DpStage *stage;               /* not loaded yet */
  DpTransport *transport;
  DpSchedule *schedule;         /* of stage 0; else NULL */
  DpDecoder *decoder;           /* of stage 0 */
  DpPreviewer *previewer;       /* of stage 0 */
  DpTrace *trace;               /* or NULL */
  const int *cancel;            /* atomic: non-zero once everything is to end */
  void (*loaded) (gpointer data);       /* called from the thread once the weights are in */
  gpointer loaded_data;
  void (*failed) (GError *error, gpointer data);        /* called from the thread; takes the error */
  gpointer failed_data;
} DpWorkerSpec;

typedef struct
{
  gint64 busy_us;               /* time in which the device computed */
  DpRecent pass_seconds;        /* of each pass */
  gsize bytes;                  /* memory held on it */
  guint64 allocations;

  /* -- of stage 0 -- */
  guint64 blocks, passes;
  gint64 start_us;              /* when the first pass began, 0 until then */
  gint64 end_us;                /* when the last one ended, 0 until then */
  DpRecent paces;               /* by block but the first: seconds for each of its latent frames since the block before was finished;
                                 * time in which the consumer held everything up does not count */
} DpWorkerStats;

/* Thread-safety: every function from any thread, dp_worker_free() last. */
typedef struct _DpWorker DpWorker;

/** Starts the thread. All that spec points to must outlive it. NULL with DP_ERROR_NO_MEMORY where no thread can be started. */
DpWorker *dp_worker_new (const DpWorkerSpec *spec, GError **error);
/** Waits for the thread to end. NULL is fine. */
void dp_worker_join (DpWorker *worker);
/** After dp_worker_join() of all. NULL is fine. */
void dp_worker_free (DpWorker *worker);
void dp_worker_get_stats (DpWorker *worker, DpWorkerStats *stats);
