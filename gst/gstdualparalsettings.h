/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalsettings.h: what the user may set. One struct holds the values
 * behind the properties exactly as they were set; 0 and NULL stand for the
 * model's own defaults and are resolved by the engine, not here.
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
 * @GST_DUALPARAL_PRECISION_AUTO: the faster one on the chosen devices
 * @GST_DUALPARAL_PRECISION_FLOAT32: single precision
 * @GST_DUALPARAL_PRECISION_BFLOAT16: bfloat16 weights and activations
 * @GST_DUALPARAL_PRECISION_FP8: bfloat16, and the transformer's products and
 *   self-attention in e4m3; GPUs of compute capability 9.0 only
 *
 * What the model computes in.
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
 * @GST_DUALPARAL_PROMPT_LATENCY_SMOOTH: the next block that is begun shows it
 * @GST_DUALPARAL_PROMPT_LATENCY_LOW: blocks that are still mostly noise begin anew
 *
 * How soon a prompt shows that is to show as soon as can be.
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
 * @GST_DUALPARAL_TEXT_ENCODER_AUTO: resident where everything has room
 * @GST_DUALPARAL_TEXT_ENCODER_RESIDENT: on the first device
 * @GST_DUALPARAL_TEXT_ENCODER_STREAMED: to the first device layer by layer,
 *     for each prompt
 *
 * Where the text encoder's weights are.
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
 * GstDualParalUnderrunPolicy:
 * @GST_DUALPARAL_UNDERRUN_REPEAT: the frame before once more
 * @GST_DUALPARAL_UNDERRUN_STALL: nothing, until there is a frame
 * @GST_DUALPARAL_UNDERRUN_GAP: a GAP event in its place
 * @GST_DUALPARAL_UNDERRUN_SLOW: frames last as long as it takes to make them
 * @GST_DUALPARAL_UNDERRUN_ERROR: an error
 *
 * What a live video does when a frame was not made in time.
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
} GstDualParalUnderrunPolicy;

/**
 * GstDualParalStartupPolicy:
 * @GST_DUALPARAL_STARTUP_WAIT: nothing, until there are frames
 * @GST_DUALPARAL_STARTUP_PLACEHOLDER: a still picture
 *
 * What a live video shows while the model loads and the first frames are made.
 *
 * Since: 0.1
 */
typedef enum
{
  GST_DUALPARAL_STARTUP_WAIT,
  GST_DUALPARAL_STARTUP_PLACEHOLDER,
} GstDualParalStartupPolicy;

#define GST_TYPE_DUALPARAL_SAMPLER (gst_dualparal_sampler_get_type ())
GType gst_dualparal_sampler_get_type (void);
#define GST_TYPE_DUALPARAL_PRECISION (gst_dualparal_precision_get_type ())
GType gst_dualparal_precision_get_type (void);
#define GST_TYPE_DUALPARAL_PROMPT_LATENCY \
    (gst_dualparal_prompt_latency_get_type ())
GType gst_dualparal_prompt_latency_get_type (void);
#define GST_TYPE_DUALPARAL_TEXT_ENCODER (gst_dualparal_text_encoder_get_type ())
GType gst_dualparal_text_encoder_get_type (void);
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
  GST_DUALPARAL_PROP_FLOW_SHIFT,
  GST_DUALPARAL_PROP_SAMPLER,
  GST_DUALPARAL_PROP_BLOCK_LATENTS,
  GST_DUALPARAL_PROP_CONTEXT_LATENTS,
  GST_DUALPARAL_PROP_QUEUE_BLOCKS,
  GST_DUALPARAL_PROP_DEVICES,
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
  GST_DUALPARAL_PROP_TRACE,
};

/** Thread-safety: none; the element guards it with its object lock. */
typedef struct
{
  gchar *model, *prompt, *negative_prompt, *devices, *placeholder;
  gchar *storyboard, *trace;
  GstDualParalPromptLatency prompt_latency;
  GstDualParalSampler sampler;
  GstDualParalPrecision precision;
  GstDualParalTextEncoder text_encoder;
  guint64 seed;
  gint64 num_frames;
  gdouble guidance_scale, guidance_scale_2, flow_shift;
  gint steps, block_latents, context_latents, queue_blocks;
  gint max_queue_frames, threads, linger;
  guint stats_interval;
  gboolean is_live;
  gint prebuffer, max_repeat, min_framerate_n, min_framerate_d;
  GstDualParalUnderrunPolicy underrun_policy;
  GstDualParalStartupPolicy startup_policy;
  GstDualParalMarking marking;
} GstDualParalSettings;

void gst_dualparal_settings_init (GstDualParalSettings * settings);
void gst_dualparal_settings_clear (GstDualParalSettings * settings);

/** Installs every property, `stats` included. */
void gst_dualparal_settings_install_properties (GObjectClass * klass);

/** FALSE when it is not one of these. */
gboolean gst_dualparal_settings_set (GstDualParalSettings * settings,
    guint prop_id, const GValue * value);
gboolean gst_dualparal_settings_get (const GstDualParalSettings * settings,
    guint prop_id, GValue * value);

/** The same for the engine; strings are copied into `storage`. Size and format
 *  are left at zero, and the prompts, which may change. */
void gst_dualparal_settings_for_engine (const GstDualParalSettings * settings,
    DpSettings * engine, GStringChunk * storage);

/** Both prompts at once; the strings are copied. */
void gst_dualparal_settings_set_prompts (GstDualParalSettings * settings,
    const gchar * prompt, const gchar * negative_prompt);

G_END_DECLS
