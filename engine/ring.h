/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ring.h: who sits where. Every stage's thread and its end of the transport, made and ended together.
 */
#pragma once

#include "picture.h"
#include "plan.h"
#include "worker.h"

typedef struct
{
  const DpPlan *plan;           /* must outlive the ring, like all that is named here */
  const DpWeights *weights[2];  /* of each transformer; NULL: no second */
  DpConditioner *conditioner;
  DpDecoder *decoder;
  DpPreviewer *previewer;
  DpPicture *picture;           /* or NULL */
  DpTrace *trace;
  void (*loaded) (gpointer user_data);  /* called from each stage's thread once its weights are in */
  void (*failed) (GError *error, gpointer user_data);   /* called from any of its threads; takes the error */
  gpointer user_data;
} DpRingSpec;

typedef struct
{
  DpWorkerStats first;          /* stage 0's, with blocks and passes */
  gint64 busy_us[DP_MAX_STAGES];
  double pass_seconds[DP_MAX_STAGES];   /* of a pass, the median of the latest */
  gsize bytes[DP_MAX_STAGES];   /* on each stage's device */
  guint64 allocations;
} DpRingStats;

/* Thread-safety: every function from any thread, dp_ring_free() last. */
typedef struct _DpRing DpRing;

/** Makes the stages. Between dp_part_cache_begin() and dp_part_cache_end(). Errors: DP_ERROR_NO_MEMORY. */
DpRing *dp_ring_new (const DpRingSpec *spec, GError **error);
/** Starts the threads, which load first what was not left warm. Once. FALSE with DP_ERROR_NO_MEMORY where one cannot be started: then
 *  others may run, until dp_ring_free(). */
gboolean dp_ring_start (DpRing *ring, GError **error);
/** Gets what stages of other processes have to say: what dp_ring_get_stats() and the trace have of them is up to date then. Waits for
 *  half a second at most. */
void dp_ring_collect (DpRing *ring);
/** Makes every thread return within its current operation. */
void dp_ring_cancel (DpRing *ring);
/** Cancels, joins, frees; each stage's layers stay warm for `linger` seconds. NULL is fine. */
void dp_ring_free (DpRing *ring, int linger);
void dp_ring_get_stats (DpRing *ring, DpRingStats *stats);
