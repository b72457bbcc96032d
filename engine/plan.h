/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * plan.h: what will be done: which device computes what, in which precision, and the memory it takes.
 *
 * A plan is made once from the settings, the model and what the devices say of themselves; then the
 * element shows it, the engine runs it and the program prints it. Nothing decides any of this again.
 * When size and format become known only later, dp_plan_with() takes them in without choosing devices
 * or precision anew. Bytes are known before a weight is read; what libraries take for themselves is
 * not in them.
 */
#pragma once

#include "dualparal.h"
#include "stage.h"
#include "wan/model.h"

/** A stage: its device and its range of layers, of each element of guidance. */
typedef struct
{
  const char *device;
  const char *host;             /* of another rank's process; NULL: this one */
  const char *kind;             /* of device: DpDeviceInfo.description */
  double speed;                 /* the device's share of it, beside those of others: see DpDeviceInfo */
  double layer, decode;         /* seconds of DpSpeed, 0 without a table of times */
  DpHalves halves[2];           /* of each element; without guidance both are the same */
  int threads;                  /* of the host */
  gsize bytes;                  /* on its device, with blocks on their way; the first stage has those in flight too */
} DpPlanStage;

/* Thread-safety: immutable. */
struct _DpPlan
{
  GStringChunk *storage;        /* of all strings here */
  DpModel *model;
  DpSettings settings;          /* every field as it will be used, "auto" replaced by what was chosen */
  DpModelInfo info;
  DpSampler *sampler;
  const DpHalves (*given)[2];   /* cuts that another rank chose, while the plan is made; or NULL */

  /* -- devices and precision: chosen once, kept by dp_plan_with() -- */
  int n_stages;
  gboolean across;              /* stage i is rank i; else all are in this process */
  DpPlanStage stages[DP_MAX_STAGES];
  const char *decoder_device, *text_device;     /* both have all settings.threads */
  DpType type;                  /* of weights and activations between the float32 parts */
  gboolean fp8;                 /* products and self-attention in e4m3; the rest is `type` then */
  const char *passed_over;      /* why "auto" passed over a GPU, a sentence; NULL: it did not */

  /* -- blocks -- */
  int latent_h, latent_w;
  int context_latents;          /* C, 0: none */
  gint64 latents;               /* latent frames of the video, -1: endless */
  int max_own, max_input;       /* most latent frames that a block owns, and that a pass has */
  int lag, depth;               /* iterations from a block to the next; most blocks in flight */
  int kept_blocks;              /* with a cached context: those whose last keys and values each stage keeps; 0: the context is recomputed */
  int switch_step;              /* the first step of the second expert; the number of steps without one */
  int guided_first, guided_end; /* the steps that have guidance, from the first to before the end; none: both are 0 */
  int elements;                 /* most messages a pass: 2 with guidance, else 1 */
  double attention;             /* share of a layer's time that its self-attention takes */
  int messages;                 /* most of them on their way between stages at a time */
  const char *unguided;         /* why no step has guidance, though its scale is above 1, a sentence; NULL: some have, or none should */
  const char *untrained;        /* that the model was not trained for this size, a sentence; NULL: it was, or that is not known */
  const char *starved;          /* why stages will wait for blocks, a sentence; NULL: they need not */

  /* -- memory -- */
  gboolean streamed;            /* the text encoder */
  gsize decoder_bytes, text_bytes;
};

/** A plan for `n` GPUs of a kind that need not be here: as dp_plan_new() with that many devices that say `info` of themselves. It can
 *  be shown and simulated, not run. */
DpPlan *dp_plan_assume (const DpSettings *settings, int n, const DpDeviceInfo *info, GError **error);

/** The same plan as rank 0's for any other rank, which has `settings.devices`, one device: all stages are shown on that. Settings and
 *  `cuts` [stages] are those of dp_agreement_read(). */
DpPlan *dp_plan_for_rank (const DpSettings *settings, int stages, const DpHalves (*cuts)[2], GError **error);

/** A stage for people, "stage 2 (rank 2 on HOST, cuda:0)" or "stage 2 (cpu)". New string. */
char *dp_plan_stage_name (const DpPlan *plan, int stage);

/** What every stage is made for; `cancel` is set by the ring. */
DpStageSpec dp_plan_stage_spec (const DpPlan *plan);

/** Bytes of a latent frame's tokens, as they go from stage to stage. */
gsize dp_plan_token_bytes (const DpPlan *plan);

/** Floats of a latent frame. */
gsize dp_plan_latent_size (const DpPlan *plan);

/** Bytes on `device` in all: stages, decoder, text encoder. */
gsize dp_plan_bytes (const DpPlan *plan, const char *device);

/** Libraries end the process where they get no address space for a few bytes, so `ulimit -v` is looked at before they are called: the heap
 *  of a thread reserves 64 MiB, and its stack 8. FALSE with DP_ERROR_NO_MEMORY. */
gboolean dp_plan_check_address_space (const DpPlan *plan, GError **error);

/** Bytes the text encoder would take, resident or streamed. */
gsize dp_plan_text_bytes (const DpPlan *plan, gboolean streamed);

/** Seconds that a message of an element takes on a stage, by the table of times, which there must be. */
double dp_plan_seconds (const DpPlan *plan, int stage, int element);

/** Seconds that decoding a block is expected to take on its stage's device, by what that says of itself. */
double dp_plan_decode_seconds (const DpPlan *plan);

/** The stage whose device decodes. */
int dp_plan_decoder_stage (const DpPlan *plan);

/** Whether all passes are of as many messages: all with guidance, or none. */
gboolean dp_plan_is_uniform (const DpPlan *plan);

/** Most messages on their way between stages at a time, if a pass is at most `elements` of them. */
int dp_plan_messages (int stages, int elements);

/** Messages of a pass on average: between 1 without guidance and 2 where every step has it. */
double dp_plan_mean_elements (const DpPlan *plan);
