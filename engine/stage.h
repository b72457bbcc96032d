/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * stage.h: one device and its range of layers, running passes.
 *
 * A stage owns its device, its part of the transformer, the feature cache of the block that passed just before, the text
 * of every prompt in flight and, at the end of the ring, the samplers' history of every block in flight. With a cached context it also
 * keeps the last keys and values of every block whose follower may want them. It keeps nothing else between passes.
 *
 * A model may have two transformers of the same sizes, *experts*: one for the noisy steps, which come first, and one for the others. Then a
 * stage holds the same layers of both, and a pass goes through the one of its step.
 */
#pragma once

#include <glib.h>
#include "wan/dit.h"
#include "wan/model_config.h"
#include "wan/sampler.h"
#include "block.h"
#include "conditioning.h"
#include "wan/weights.h"
#include "kernels/device.h"

/** Same for all stages of a ring. */
typedef struct
{
  DpDitConfig dit;
  int latent_channels;          /* of what is denoised; the transformer's in_channels may be more */
  int experts;                  /* 1 or 2 */
  gboolean expand_timesteps;    /* frames that are given have timestep 0 */
  const DpSampler *sampler;
  DpType type;                  /* as DpDitSpec has it */
  gboolean fp8;                 /* with bfloat16, and where the device has it */
  int switch_step;              /* the first step of the second expert; the number of steps where there is none */
  int elements;                 /* most messages a pass: 2 with guidance, else 1 */
  double guidance_scales[2];    /* of each expert's steps that have guidance */
  int latent_h, latent_w;
  int max_own, max_input, max_cached;   /* latent frames */
  int depth;                    /* most blocks in flight */
  int kept_blocks;              /* with a cached context: dp_block_queue_kept(); else 0 */
  int text_length;
  const int *cancel;            /* of its device: non-zero makes loading and running end early */
} DpStageSpec;

/* Thread-safety: one thread at a time. */
typedef struct _DpStage DpStage;

/** A stage for the layers `halves` of each element on `device` with `threads` host threads. weights: of each expert, NULL where there is no
 *  second; they and `device` must outlive it. Between dp_part_cache_begin() and dp_part_cache_end(). */
DpStage *dp_stage_new (const DpStageSpec *spec, const char *device, int threads, const DpWeights *const weights[2],
    const DpHalves halves[2]);
/** Loads its layers where they were not left warm, and makes room for everything else. Blocks. */
gboolean dp_stage_load (DpStage *stage, GError **error);
/** Its layers stay warm for `linger` seconds. NULL is fine. */
void dp_stage_free (DpStage *stage, int linger);
/** NULL before it is loaded. */
DpDevice *dp_stage_device (DpStage *stage);

/** The layers that an element of guidance passes here. */
DpHalves dp_stage_halves (const DpStage *stage, int element);

/** Device memory that a stage of these layers will take with one prompt of full length, and a block on its way. */
gsize dp_stage_bytes (const DpStageSpec *spec, const DpHalves halves[2]);
/** What of it a cached context takes. */
gsize dp_stage_kept_bytes (const DpStageSpec *spec, const DpHalves halves[2]);
gsize dp_stage_block_bytes (const DpStageSpec *spec);

/** What a block must have room for. The stage must be loaded. */
void dp_stage_block_size (const DpStage *stage, DpBlockSize *size);

/** A prompt that blocks will name by its id from now on. Takes a reference, until its last block is through. */
void dp_stage_tell (DpStage *stage, DpConditioning *conditioning);

/** Takes the block through this stage's layers. The first stage embeds block->latents. The last one
 *  computes their own part's velocity and, with the last element of the pass, takes the step. May
 *  return before the device is done. Ends early, with TRUE, when it is cancelled. FALSE with `error`
 *  when a prompt does not fit. Other failures stay latched on the device. */
gboolean dp_stage_run (DpStage *stage, DpBlock *block, GError **error);
