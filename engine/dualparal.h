/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * dualparal.h: the engine's only public header. Prompt in, frames out.
 *
 * Make a plan of settings, open an engine with it, pull frames. Behind it a loader thread reads the model, one thread per stage
 * runs its range of layers on its device, and one thread decodes finished blocks into a bounded queue of frames. That queue is the
 * only rate limiter: a consumer that stops pulling stops the generation.
 *
 * Words: a *block* is a run of latent frames that is denoised together; a *latent frame* is 4 video frames (the first: 1);
 * a *pass* is one block going once through all layers (one sampling step); *Q* is how many blocks are in flight.
 */
#pragma once

#include <glib.h>
#include "wan/error.h"
#include "wan/limits.h"

G_BEGIN_DECLS

/** The largest values that settings may have; the others are in wan/limits.h. */
#define DP_MAX_QUEUE_FRAMES (1 << 20)
#define DP_MAX_FRAMES (G_GINT64_CONSTANT (1) << 48)     /* far from where sums overflow; a hundred thousand years of video */
#define DP_MAX_THREADS 1024
#define DP_MAX_STAGES 64

/** What was asked for, and what will be done: devices, precision, memory. Thread-safety: immutable. */
typedef struct _DpPlan DpPlan;
typedef struct _DpEngine DpEngine;

/** How frames are delivered. YUV is BT.709 limited range; the fourth byte of 4-byte RGB formats is 255. */
typedef enum
{
  DP_FORMAT_RGB_F32,            /* [H, W, 3] float32 in 0..1 */
  DP_FORMAT_I420,
  DP_FORMAT_NV12,
  DP_FORMAT_RGB,
  DP_FORMAT_BGR,
  DP_FORMAT_RGBX,
  DP_FORMAT_BGRX,
  DP_FORMAT_XRGB,
  DP_FORMAT_XBGR,
} DpFormat;

/** Everything that can be set. Zero (0, NULL) always means the model's own default, from its config files (and its
 *  dualparal.json where it has one); dp_plan_settings() shows what that is. Strings are borrowed during the call. */
typedef struct
{
  const char *model;            /* directory in diffusers layout, or in that of Wan's repositories, or a transformer's file; NULL: the
                                 * embedded model. For a plan only, also the name of a published
                                 * model, "wan2.1-1.3b" */
  const char *transformer, *transformer_2, *vae, *text_encoder_file, *tokenizer;        /* files or directories of parts, in place of the
                                                                                         * model's own; NULL or "": its own */
  const char *lora;             /* "FILE:strength,FILE": files that change the transformer, 1 where no strength is said; NULL or "": none */
  const char *prompt;           /* UTF-8, at most 16 KiB; NULL: the model's sample prompt; "" is allowed */
  const char *negative_prompt;  /* NULL: the model's default, normally "" */
  const char *image;            /* file of a picture, which becomes the first frame; NULL or "": none */
  const guint8 *image_rgb;      /* [image_height, image_width, 3], in place of a file; NULL: none. dp_engine_open() copies it */
  int image_width, image_height;
  const char *devices;          /* comma-separated, one stage each: "cpu", "cpu,cpu", "cuda:0,cuda:1"; "cuda": every GPU; NULL: "auto",
                                 * the first GPU if one works, else the CPU */
  const char *ranks;            /* "mpi": this process is rank 0 of all that mpirun started, stage i of the ring is rank i, the others run
                                 * `dualparal worker`, and `devices` is rank 0's one; NULL: "none", all stages are in this process */
  const char *sampler;          /* "unipc" or "euler"; NULL: what the scheduler config says */
  int width, height;            /* pixels, even. The model runs at the next size that it can (Wan's: multiples of 16, of 32 for the 5B), and the
                                 * middle is shown */
  int steps;                    /* T, sampling steps */
  double guidance_scale;        /* up to 1: no classifier-free guidance (half the work) */
  double guidance_scale_2;      /* the same in the steps of the second of two transformers; without one it stays 0 */
  double guidance_interval_low; /* guidance only in the steps that start from a noise level above this (0: clean, 1: pure noise)... */
  double guidance_interval_high;        /* ...and at most this, 0: 1. The other steps are half the work. Both 0: the
                                 * model's. Source: arXiv 2404.07724 */
  double flow_shift;            /* shift of the noise schedule towards high noise */
  int block_latents;            /* B, latent frames a block owns */
  int context_latents;          /* C, latent frames taken from each neighbour, 1..B; -1: none */
  const char *context_mode;     /* what a block sees of the one before it: "recomputed", its last latents, which go through the model with
                                 * the block in each step; "cached", the keys and values that its own latest pass left on the devices, for
                                 * less work and more memory; NULL: "auto", cached where neighbours stand 3 steps apart or more */
  int queue_blocks;             /* Q, most blocks in flight, 1..T; neighbours then stand ceil (T / Q) steps apart */
  gint64 seed;                  /* >= 0, 0 is a seed like any other; -1: the plan draws one, below 2^32 */
  gint64 num_frames;            /* > 0, or -1: endless; 0, alone of all fields, is invalid */
  gint64 first_frame;           /* number of the first frame, where the video is the rest of a longer one: frames are counted from it */
  int max_queue_frames;         /* frames decoded ahead of the consumer, >= 1 */
  DpFormat format;
  const char *times;            /* table of measured times that `dualparal bench --add-times` made, by which layers are shared out; NULL or
                                 * "": by what devices say of themselves */
  int threads;                  /* host threads in all, shared by the CPU stages; 0: one per processor */
  const char *precision;        /* "float32", "bfloat16" (activations and weights), "fp8" (the same, but products and self-attention of the
                                 * transformer in e4m3; never chosen by itself); NULL: "auto", the faster of the first two on these
                                 * devices */
  const char *text_encoder;     /* "resident" on the first device, or "streamed" to it layer by layer for each prompt, for little memory;
                                 * NULL: "auto", resident where all has room. The video is the same */
  int text_length;              /* tokens the text is padded to, 0: 512 */
  int linger;                   /* seconds that what was loaded is kept, once the engine is freed, for the next one that loads the same; 0:
                                 * not at all */
  const char *trace;            /* file that says what was done when, see docs/streaming.md; NULL or "": none */
  const float *noise;           /* [noise_latents, h, w, C_latent] float32: latent frame l of the stream starts from that slice */
  gint64 noise_latents;         /*   instead of the pool; NULL: the pool. Kept until the engine is freed. */
} DpSettings;

/** What the model is, and what its defaults are, after the config files were read. */
typedef struct
{
  char name[64];
  int width, height;
  int fps_n, fps_d;
  int layers, latent_channels;
  int spatial_scale, temporal_scale;    /* pixels per latent, frames per latent */
  const char *knows;            /* what it was taught, for people, where that is little; "": not said. The plan's */
} DpModelInfo;

/** A prompt for an engine that runs. */
typedef struct
{
  const char *prompt;           /* UTF-8, at most 16 KiB; "" is allowed */
  const char *negative_prompt;  /* NULL keeps the current one */
  gint64 at_frame;              /* as DpFrame numbers them: it takes effect with the first block none of whose frames comes before this
                                 * one. That block waits for the encoding, so that the result does not depend on timing. -1: the next
                                 * block admitted once it is encoded */
  int transition_blocks;        /* this many blocks, the first one included, get a blend of what was before and this */
  gboolean restart;             /* with at_frame -1: blocks in flight that are still mostly noise restart with it, once it is encoded */
} DpPrompt;

/** A frame, lent to the caller until dp_engine_release_frame(). */
typedef struct
{
  gint64 index;                 /* first_frame of the settings, and so on, without gaps */
  gint64 block;                 /* the block it was made in */
  guint prompt_id;              /* 0 for the first prompt, then one more per prompt that took effect */
  gint64 replanned_at;          /* the iteration in which blocks in flight restarted with the prompt, see DpPrompt; 0: none did */
  gboolean prompt_changed;      /* the first frame of a new prompt (not set on frame 0) */
  const char *prompt;           /* text of the prompt its block was made with; lent like the frame */
  int width, height;
  DpFormat format;
  int n_planes;
  guint8 *planes[3];
  int strides[3];               /* bytes */
  gpointer slot;                /* the engine's */
} DpFrame;

/** Running totals since the engine was opened. */
typedef struct
{
  guint64 blocks, passes, frames;       /* finished blocks, passes through all layers, frames decoded */
  guint queue_frames;                   /* decoded and waiting */
  gboolean ended;                       /* nothing will be added to those: the video is all there, or something failed */
  double first_frame_seconds;           /* from open to the first frame in the queue; 0 until then */
  double realtime_factor;               /* seconds of video made per second of wall-clock time, waiting for the consumer excluded */
  double block_load_mean, block_load_p95;       /* time that a block took, waiting for the consumer excluded, in the time that it plays:
                                                 * above 1 is too slow. From one finished block to the next; of the latest 256, the first
                                                 * one apart */
  double block_interval_p50, block_interval_p95;        /* seconds from one block in the queue, all of it, to the next; of the latest 256 */
  double decode_busy;                   /* share of that time the decoder worked */
  int stages;
  double stage_busy[DP_MAX_STAGES];     /* share of that time each stage computed */
  double pass_seconds[DP_MAX_STAGES];   /* of a pass on each stage, the median of the latest 256 */
  gsize device_bytes;                   /* memory held on the devices, in all */
  gsize stage_bytes[DP_MAX_STAGES], decoder_bytes, text_bytes;     /* by whom */
  guint64 allocations;                  /* device allocations so far: stands still after the first block, until the next prompt */
} DpStats;

/** Called from any thread: code "load-model", text for people, percent of the bytes 0..100; -1 when it was cancelled or failed. An older
 *  report may come after a newer one. */
typedef void (*DpProgress) (const char *code, const char *text, int percent, gpointer user_data);

/** A small picture of a block that is being denoised: what its middle will look like, as far as that is known. */
typedef struct
{
  gint64 block;
  int step, steps;              /* how many of its steps are done */
  int width, height;            /* of the picture: a pixel for each latent, so an eighth of the video's, for Wan's models */
  const guint8 *rgb;            /* [height, width, 3], lent during the call */
} DpPreview;

typedef void (*DpPreviewCallback) (const DpPreview *preview, gpointer user_data);

/** Reads the model's config files, checks every setting and their combination, asks the devices and decides what each of them will do.
 *  Quick: no weights are read. A new reference; NULL with `error` for bad settings, a bad model or a device that does not work. */
DpPlan *dp_plan_new (const DpSettings *settings, GError **error);

/** A plan for other settings on the model, the devices and in the precision of `plan`, for what is known only later: size, format,
 *  prompts, noise. What `settings` says of those three does not count. A seed of -1 is the one that `plan` drew. Memory, and where the text encoder's weights are, is planned anew. */
DpPlan *dp_plan_with (const DpPlan *plan, const DpSettings *settings, GError **error);

DpPlan *dp_plan_ref (DpPlan *plan);
void dp_plan_unref (DpPlan *plan);      /* NULL is fine */

/** Every setting as it will be used: defaults filled in, "auto" replaced by what was chosen. Valid as long as the plan, like all here. */
const DpSettings *dp_plan_settings (const DpPlan *plan);
const DpModelInfo *dp_plan_model (const DpPlan *plan);

/** Why devices=auto passed over a GPU, in one sentence; NULL where it took one, was not asked, or there is none to be expected here. */
const char *dp_plan_passed_over (const DpPlan *plan);

/** Why no step has guidance although its scale is above 1: no step starts from a noise level of the interval; NULL where that is not so. */
const char *dp_plan_unguided (const DpPlan *plan);
/** One sentence that names the sizes which the model was trained for, if the plan's is not one of them; NULL if it is, or they are not
 *  known: published models have theirs, others name them in dualparal.json. */
const char *dp_plan_untrained (const DpPlan *plan);

/** That the model was not trained to begin with a picture, where `image` gives one; else NULL. */
const char *dp_plan_unheld (const DpPlan *plan);

/** Why some stages will have to wait for blocks, and the queue_blocks that would keep them busy; NULL where all are busy. */
const char *dp_plan_starved (const DpPlan *plan);

/** One sentence that names the words of a prompt that the plan's model was never taught, and says what it knows; NULL when there are none,
 *  or the model does not list its words, which only small ones do. The prompt passes dp_prompt_check(). New string. */
char *dp_plan_unknown_words (const DpPlan *plan, const char *prompt);

/** The plan for people, a part and its device a line. New string. */
char *dp_plan_describe (const DpPlan *plan);

/** Starts to load the weights in the background, as planned. The first block waits for the first
 *  dp_engine_pull() or dp_engine_wait(), so prompts queued and callbacks set before it never come
 *  too late. Returns at once; what fails later is returned by dp_engine_pull(). Returns FALSE and
 *  sets `error` when weight files or memory of the host are missing. `progress` may be NULL. Keeps
 *  a reference to the plan. */
gboolean dp_engine_open (DpEngine **engine, DpPlan *plan, DpProgress progress, gpointer user_data, GError **error);

/** Queues a prompt. A prompt for the next block replaces those that still wait for it. Never blocks. Thread-safe. The strings are copied.
 *  Errors: not UTF-8, longer than 16 KiB, a frame whose block was already admitted, fields that do not go together. */
gboolean dp_engine_queue_prompt (DpEngine *engine, const DpPrompt *prompt, GError **error);

/** Whether a text can be a prompt; `error` says why not. */
gboolean dp_prompt_check (const char *prompt, GError **error);

/** The earliest frame that a prompt can be queued for now: the first of the block that is admitted next. Thread-safe. */
gint64 dp_engine_next_frame (DpEngine *engine);

/** Waits for the next frame; the first call starts the generation. Returns 1 with a frame, 0 at the end of the video, -1 with `error` set.
 *  Thread-safe against the setters. `timeout_us` < 0 waits as long as it takes; when it runs out the answer is -1 with DP_ERROR_FLUSHING
 *  unset and error NULL. */
int dp_engine_pull (DpEngine *engine, DpFrame *frame, gint64 timeout_us, GError **error);

/** Waits until `frames` frames (or as many as the queue holds, if that is less) wait to be pulled, until none will be added because the
 *  video ended or failed, until dp_engine_wake(), or for `timeout_us` (< 0: without limit). Starts the generation as
 *  dp_engine_pull() does. FALSE when flushing, at once. TRUE does not say which of the others it was: look again. Called by the thread
 *  that pulls. */
gboolean dp_engine_wait (DpEngine *engine, guint frames, gint64 timeout_us);

/** Makes dp_engine_wait() return: the call that waits now, or else the next one. Thread-safe. */
void dp_engine_wake (DpEngine *engine);

/** Gives the frame's memory back to the queue. */
void dp_engine_release_frame (DpEngine *engine, DpFrame *frame);

/** TRUE makes a waiting dp_engine_pull() return DP_ERROR_FLUSHING at once, and every later one, and dp_engine_wait() FALSE; generation is
 *  not cancelled. */
void dp_engine_set_flushing (DpEngine *engine, gboolean flushing);

/** Calls back with a preview of the block that is shown next, at most four times a second; NULL: not any more, once it returns. It is
 *  called on a thread of the engine and must not block. FALSE with DP_ERROR_SETTINGS where the model has no preview_map. Thread-safe. */
gboolean dp_engine_set_preview (DpEngine *engine, DpPreviewCallback callback, gpointer user_data, GError **error);

/** Notes in the trace, if there is one, that something happened to the frames: "underrun". A word of letters. Thread-safe. */
void dp_engine_mark (DpEngine *engine, const char *what);

/** Whether the trace could be written so far, which is no error of the video: FALSE once, where a disk is full. Cheap. Thread-safe. */
gboolean dp_engine_check_trace (DpEngine *engine, GError **error);

/** Ends the trace with what was done so far; without one it does nothing. FALSE where not all could be written and
 *  dp_engine_check_trace() has not said so. Freeing the engine ends it too. Thread-safe. */
gboolean dp_engine_end_trace (DpEngine *engine, GError **error);

void dp_engine_get_stats (DpEngine *engine, DpStats *stats);

/** Cancels everything within the current layer, joins the threads, frees all but what is to linger. NULL is fine. */
void dp_engine_free (DpEngine *engine);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (DpPlan, dp_plan_unref)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (DpEngine, dp_engine_free)

G_END_DECLS
