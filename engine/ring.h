/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ring.h: who sits where. Every stage's thread and its end of the transport, made and ended together.
 */
#pragma once

#include "conditioning.h"
#include "decoder.h"
#include "stage.h"
#include "trace.h"
#include "transport.h"
#include "worker.h"

typedef struct
{
  DpStageSpec stage;
  const DpWeights *weights[2];  /* as dp_stage_new() takes them; must outlive the ring, like sampler, conditioner, decoder, noise */
  int n_stages;
  const char *const *devices;   /* [n_stages] */
  int threads;                  /* host threads of each stage */
  int block_latents, context_latents, queue_blocks;     /* B, C, Q */
  gint64 latents;               /* latent frames of the video, -1: endless */
  guint64 seed;
  const float *noise;           /* [noise_latents, h, w, C] or NULL */
  gint64 noise_latents;
  DpConditioner *conditioner;
  DpDecoder *decoder;
  DpTrace *trace;
  void (*loaded) (gpointer user_data);  /* called from each stage's thread once its weights are in */
  void (*failed) (GError *error, gpointer user_data);   /* called from any of its threads; takes the error */
  gpointer user_data;
} DpRingSpec;

typedef struct
{
  DpWorkerStats first;          /* stage 0's, with blocks and passes */
  gint64 busy_us[DP_MAX_STAGES];
  gsize bytes[DP_MAX_STAGES];   /* on each stage's device */
  guint64 allocations;
} DpRingStats;

/* Thread-safety: every function from any thread, dp_ring_free() last. */
typedef struct _DpRing DpRing;

/** Layers [*first, *last) of stage `index` of `stages`: as even as can be, the first ones taking what is left over. */
void dp_ring_layers (int layers, int stages, int index, int *first, int *last);

/** How many passes are on their way between stages at a time, of `depth` blocks in flight. */
int dp_ring_messages (int stages, int depth);

/** Starts the threads, which load first what was not left warm. Between dp_part_cache_begin() and dp_part_cache_end(). Errors:
 *  DP_ERROR_NO_MEMORY. */
DpRing *dp_ring_new (const DpRingSpec *spec, GError **error);
/** Makes every thread return within its current operation. */
void dp_ring_cancel (DpRing *ring);
/** Cancels, joins, frees; each stage's layers stay warm for `linger` seconds. NULL is fine. */
void dp_ring_free (DpRing *ring, int linger);
void dp_ring_get_stats (DpRing *ring, DpRingStats *stats);
