/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pipeline.h: a thread per stage, and the one that decides what passes next.
 *
 * Stage 0's thread walks the block queue's schedule. It keeps the latents of every block in flight (and of the one that left last), waits
 * until the two blocks a pass needs are back in the state the scheme asks for, and sends the pass around the ring of stages. Which states
 * are used is fixed by the schedule, never by timing: one stage and eight give the same bits.
 * Source: DualParal, algorithm 1, made deterministic.
 */
#pragma once

#include <glib.h>
#include "conditioning.h"
#include "decoder.h"
#include "plan.h"
#include "stage.h"
#include "trace.h"
#include "recent.h"

typedef struct
{
  DpStageSpec stage;
  const DpWeights *weights[2];  /* as dp_stage_new() takes them; must outlive the pipeline, like sampler, conditioner, decoder, noise */
  int n_stages;
  const DpPlanStage *stages;    /* [n_stages] */
  int messages;                 /* blocks on their way between stages */
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
} DpPipelineSpec;

typedef struct
{
  guint64 blocks, passes;
  gint64 start_us;              /* when the first pass began, 0 until then */
  gint64 end_us;                /* when the last one ended, 0 until then */
  DpRecent paces;               /* by block but the first: seconds for each of its latent frames, since the block before was finished; those
                                 * in which whoever takes the frames held everything up do not count */
  gint64 busy_us[DP_MAX_STAGES];
  gsize bytes[DP_MAX_STAGES];   /* on each stage's device */
  guint64 allocations;
} DpPipelineStats;

/* Thread-safety: every function from any thread, dp_pipeline_free() last. */
typedef struct _DpPipeline DpPipeline;

/** Starts the threads, which load first what was not left warm. Between dp_part_cache_begin() and dp_part_cache_end(). Errors: DP_ERROR_NO_MEMORY. */
DpPipeline *dp_pipeline_new (const DpPipelineSpec *spec, GError **error);
/** Makes every thread return within its current operation. */
void dp_pipeline_cancel (DpPipeline *pipeline);
/** Cancels, joins, frees; each stage's layers stay warm for `linger` seconds. NULL is fine. */
void dp_pipeline_free (DpPipeline *pipeline, int linger);
void dp_pipeline_get_stats (DpPipeline *pipeline, DpPipelineStats *stats);
