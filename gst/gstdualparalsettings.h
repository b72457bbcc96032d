/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalsettings.h: the properties and their values, exactly as they were set. 0 and NULL
 * stand for the model's own defaults, which the engine resolves.
 */
#pragma once

#include <gst/gst.h>
#include "dualparal.h"
#include "gstdualparalmarking.h"

G_BEGIN_DECLS

/**
 * GstDualParalSampler:
 * @GST_DUALPARAL_SAMPLER_AUTO: what the model's scheduler config says
 * @GST_DUALPARAL_SAMPLER_UNIPC: UniPC multistep, second order
 * @GST_DUALPARAL_SAMPLER_EULER: Euler steps
 *
 * How noise becomes a picture.
 *
 * Since: 0.1
 */
typedef enum
{
  GST_DUALPARAL_SAMPLER_AUTO,
  GST_DUALPARAL_SAMPLER_UNIPC,
  GST_DUALPARAL_SAMPLER_EULER,
} GstDualParalSampler;

/**
 * GstDualParalPrecision:
 * @GST_DUALPARAL_PRECISION_AUTO: float32 or bfloat16, whichever is faster on the
 *   chosen devices
 * @GST_DUALPARAL_PRECISION_FLOAT32: single precision
 * @GST_DUALPARAL_PRECISION_BFLOAT16: bfloat16 weights and activations
 * @GST_DUALPARAL_PRECISION_FP8: bfloat16, with the transformer's products and
 *   self-attention in e4m3; GPUs of compute capability 9.0 only
 *
 * Number format of the computation.
 *
 * Since: 0.1
 */
typedef enum
{
  GST_DUALPARAL_PRECISION_AUTO,
  GST_DUALPARAL_PRECISION_FLOAT32,
  GST_DUALPARAL_PRECISION_BFLOAT16,
  GST_DUALPARAL_PRECISION_FP8,
} GstDualParalPrecision;

/**
 * GstDualParalPromptLatency:
 * @GST_DUALPARAL_PROMPT_LATENCY_SMOOTH: the next new block shows it
 * @GST_DUALPARAL_PROMPT_LATENCY_LOW: blocks that are still mostly noise restart
 *   with it
 *
 * How soon a new prompt without a frame number shows.
 *
 * Since: 0.1
 */
typedef enum
{
  GST_DUALPARAL_PROMPT_LATENCY_SMOOTH,
  GST_DUALPARAL_PROMPT_LATENCY_LOW,
} GstDualParalPromptLatency;

/**
 * GstDualParalTextEncoder:
 * @GST_DUALPARAL_TEXT_ENCODER_AUTO: resident if there is enough memory
 * @GST_DUALPARAL_TEXT_ENCODER_RESIDENT: kept on the first device
 * @GST_DUALPARAL_TEXT_ENCODER_STREAMED: sent to the first device layer by layer,
 *   for each prompt
 *
 * Where the text encoder's weights are kept.
 *
 * Since: 0.1
 */
typedef enum
{
  GST_DUALPARAL_TEXT_ENCODER_AUTO,
  GST_DUALPARAL_TEXT_ENCODER_RESIDENT,
  GST_DUALPARAL_TEXT_ENCODER_STREAMED,
} GstDualParalTextEncoder;

/**
 * GstDualParalContextMode:
 * @GST_DUALPARAL_CONTEXT_MODE_AUTO: cached if neighbouring blocks stand three
 *   steps apart or more
 * @GST_DUALPARAL_CONTEXT_MODE_RECOMPUTED: the previous block's last latents go
 *   through the model again, in each step
 * @GST_DUALPARAL_CONTEXT_MODE_CACHED: what the previous block's own pass
 *   computed of them is kept
 *
 * How a block sees the one before it.
 *
 * Since: 0.1
 */
typedef enum
{
  GST_DUALPARAL_CONTEXT_MODE_AUTO,
  GST_DUALPARAL_CONTEXT_MODE_RECOMPUTED,
  GST_DUALPARAL_CONTEXT_MODE_CACHED,
} GstDualParalContextMode;

/**
 * GstDualParalUnderrunPolicy:
 * @GST_DUALPARAL_UNDERRUN_REPEAT: send the previous frame again
 * @GST_DUALPARAL_UNDERRUN_STALL: send nothing until a frame is ready
 * @GST_DUALPARAL_UNDERRUN_GAP: send a GAP event in its place
 * @GST_DUALPARAL_UNDERRUN_SLOW: show frames for as long as they take to make
 * @GST_DUALPARAL_UNDERRUN_ERROR: post an error
 * @GST_DUALPARAL_UNDERRUN_ADAPTIVE: send the previous frame again; if the
 *   generation does not keep up, show frames for as long as they take to make,
 *   until it has caught up
 *
 * What a live video does when a frame is not ready in time.
 *
 * Since: 0.1
 */
typedef enum
{
  GST_DUALPARAL_UNDERRUN_REPEAT,
  GST_DUALPARAL_UNDERRUN_STALL,
  GST_DUALPARAL_UNDERRUN_GAP,
  GST_DUALPARAL_UNDERRUN_SLOW,
  GST_DUALPARAL_UNDERRUN_ERROR,
  GST_DUALPARAL_UNDERRUN_ADAPTIVE,
} GstDualParalUnderrunPolicy;

/**
 * GstDualParalStartupPolicy:
 * @GST_DUALPARAL_STARTUP_WAIT: nothing, until frames are ready
 * @GST_DUALPARAL_STARTUP_PLACEHOLDER: a still picture
 *
 * What a live video shows while the model loads and makes the first frames.
 *
 * Since: 0.1
 */
typedef enum
{
  GST_DUALPARAL_STARTUP_WAIT,
  GST_DUALPARAL_STARTUP_PLACEHOLDER,
} GstDualParalStartupPolicy;

/**
 * GstDualParalRanks:
 * @GST_DUALPARAL_RANKS_NONE: all stages are in this process
 * @GST_DUALPARAL_RANKS_MPI: each rank of MPI is a stage, and this process is
 *   rank 0
 *
 * Which processes make the video.
 *
 * Since: 0.1
 */
typedef enum
{
  GST_DUALPARAL_RANKS_NONE,
  GST_DUALPARAL_RANKS_MPI,
} GstDualParalRanks;

#define GST_TYPE_DUALPARAL_SAMPLER (gst_dualparal_sampler_get_type ())
GType gst_dualparal_sampler_get_type (void);
#define GST_TYPE_DUALPARAL_PRECISION (gst_dualparal_precision_get_type ())
GType gst_dualparal_precision_get_type (void);
#define GST_TYPE_DUALPARAL_PROMPT_LATENCY \
    (gst_dualparal_prompt_latency_get_type ())
GType gst_dualparal_prompt_latency_get_type (void);
#define GST_TYPE_DUALPARAL_TEXT_ENCODER (gst_dualparal_text_encoder_get_type ())
GType gst_dualparal_text_encoder_get_type (void);
#define GST_TYPE_DUALPARAL_CONTEXT_MODE (gst_dualparal_context_mode_get_type ())
GType gst_dualparal_context_mode_get_type (void);
#define GST_TYPE_DUALPARAL_RANKS (gst_dualparal_ranks_get_type ())
GType gst_dualparal_ranks_get_type (void);
#define GST_TYPE_DUALPARAL_UNDERRUN_POLICY \
    (gst_dualparal_underrun_policy_get_type ())
GType gst_dualparal_underrun_policy_get_type (void);
#define GST_TYPE_DUALPARAL_STARTUP_POLICY \
    (gst_dualparal_startup_policy_get_type ())
GType gst_dualparal_startup_policy_get_type (void);

enum
{
  GST_DUALPARAL_PROP_0,
  GST_DUALPARAL_PROP_MODEL,
  GST_DUALPARAL_PROP_PROMPT,
  GST_DUALPARAL_PROP_NEGATIVE_PROMPT,
  GST_DUALPARAL_PROP_PROMPT_LATENCY,
  GST_DUALPARAL_PROP_STORYBOARD,
  GST_DUALPARAL_PROP_SEED,
  GST_DUALPARAL_PROP_STEPS,
  GST_DUALPARAL_PROP_GUIDANCE_SCALE,
  GST_DUALPARAL_PROP_GUIDANCE_SCALE_2,
  GST_DUALPARAL_PROP_GUIDANCE_INTERVAL_LOW,
  GST_DUALPARAL_PROP_GUIDANCE_INTERVAL_HIGH,
  GST_DUALPARAL_PROP_FLOW_SHIFT,
  GST_DUALPARAL_PROP_SAMPLER,
  GST_DUALPARAL_PROP_BLOCK_LATENTS,
  GST_DUALPARAL_PROP_CONTEXT_LATENTS,
  GST_DUALPARAL_PROP_CONTEXT_MODE,
  GST_DUALPARAL_PROP_QUEUE_BLOCKS,
  GST_DUALPARAL_PROP_DEVICES,
  GST_DUALPARAL_PROP_RANKS,
  GST_DUALPARAL_PROP_NUM_FRAMES,
  GST_DUALPARAL_PROP_MAX_QUEUE_FRAMES,
  GST_DUALPARAL_PROP_THREADS,
  GST_DUALPARAL_PROP_LINGER,
  GST_DUALPARAL_PROP_PRECISION,
  GST_DUALPARAL_PROP_TEXT_ENCODER,
  GST_DUALPARAL_PROP_IS_LIVE,
  GST_DUALPARAL_PROP_PREBUFFER,
  GST_DUALPARAL_PROP_UNDERRUN_POLICY,
  GST_DUALPARAL_PROP_MAX_REPEAT,
  GST_DUALPARAL_PROP_MIN_FRAMERATE,
  GST_DUALPARAL_PROP_STARTUP_POLICY,
  GST_DUALPARAL_PROP_PLACEHOLDER,
  GST_DUALPARAL_PROP_MARKING,
  GST_DUALPARAL_PROP_STATS,
  GST_DUALPARAL_PROP_STATS_INTERVAL,
  GST_DUALPARAL_PROP_TRANSFORMER,
  GST_DUALPARAL_PROP_TRANSFORMER_2,
  GST_DUALPARAL_PROP_VAE,
  GST_DUALPARAL_PROP_TEXT_ENCODER_FILE,
  GST_DUALPARAL_PROP_TOKENIZER,
  GST_DUALPARAL_PROP_LORA,
  GST_DUALPARAL_PROP_IMAGE,
  GST_DUALPARAL_PROP_TIMES,
  GST_DUALPARAL_PROP_TRACE,
  GST_DUALPARAL_PROP_PREVIEW,
  GST_DUALPARAL_N_PROPS
};

/** Thread-safety: every function from any thread. */
typedef struct _GstDualParalSettings GstDualParalSettings;

GstDualParalSettings *gst_dualparal_settings_new (void);
void gst_dualparal_settings_free (GstDualParalSettings * settings);

/** Installs every property, `stats` included. */
void gst_dualparal_settings_install_properties (GObjectClass * klass);
/** Emits `notify` for a property. */
void gst_dualparal_settings_notify (GObject * object, guint prop_id);

/** FALSE for an unknown property; `stats` is one. */
gboolean gst_dualparal_settings_set (GstDualParalSettings * settings,
    guint prop_id, const GValue * value);
gboolean gst_dualparal_settings_get (GstDualParalSettings * settings,
    guint prop_id, GValue * value);

/** The value of one whole-number property (boolean, enumeration and flags included), and a copy of
 *  that of a string. */
gint64 gst_dualparal_settings_number (GstDualParalSettings * settings,
    guint prop_id);
gchar *gst_dualparal_settings_string (GstDualParalSettings * settings,
    guint prop_id);
void gst_dualparal_settings_min_framerate (GstDualParalSettings * settings,
    gint * fps_n, gint * fps_d);

/** The same for the engine; strings are copied into `storage`. Size, format and the prompts, which
 *  may change, are left at zero. */
void gst_dualparal_settings_for_engine (GstDualParalSettings * settings,
    DpSettings * engine, GStringChunk * storage);

/** Both prompts at once; the strings are copied. */
void gst_dualparal_settings_set_prompts (GstDualParalSettings * settings,
    const gchar * prompt, const gchar * negative_prompt);

G_END_DECLS
