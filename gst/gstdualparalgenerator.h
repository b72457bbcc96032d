/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalgenerator.h: the engine as the element holds it. It opens for what
 * was negotiated, is replaced when that changes, and outlives everything else
 * until stop(); prompts may come before there is one. One frame is in hand: it
 * stays there, whatever interrupts us, until it was sent.
 *
 * What ends a wait is here too, so that there is one lock for all of them:
 * flushing ends the wait for a frame, and `cond` says that something changed.
 */
#pragma once

#include <gst/video/video.h>
#include "dualparal.h"
#include "gstdualparalmessages.h"
#include "gstdualparalprompts.h"
#include "gstdualparalsettings.h"

G_BEGIN_DECLS

/** Thread-safety: by member. */
typedef struct
{
  GstElement *element;          /* its object lock protects the settings */
  GstDualParalSettings *settings;

  /* -- protected by lock, which is never held over a wait or a message */
  GMutex lock;
  GCond cond;
  DpEngine *engine;             /* replaced by the streaming thread only */
  gboolean flushing;
  gboolean prompt_missed;       /* the prompt changed while there was no engine */
  GstDualParalPrompts prompts;  /* those with a time */

  /* -- set by start(), constant until stop() */
  GStringChunk *storage;
  DpSettings base_settings;     /* the properties, size, format, prompts open */
  DpPlan *base_plan;            /* for those: devices and precision stay */
  DpModelInfo model;
  const gchar *model_prompt, *model_negative_prompt;

  /* -- owned by the streaming thread */
  DpPlan *plan;                 /* with the negotiated size, once there is one */
  DpSettings resolved;          /* the plan's */
  gboolean reopen;              /* the engine makes other frames than wanted */
  DpFrame frame;                /* in hand */
  gboolean has_frame;

  /* -- the engine's threads' */
  GstDualParalProgress progress;
  gint closing;                 /* atomic */
} GstDualParalGenerator;

/** What a wait for a frame ended with. */
typedef enum
{
  GST_DUALPARAL_FRAME,          /* it is in hand */
  GST_DUALPARAL_NO_FRAME,       /* not within the time */
  GST_DUALPARAL_END,            /* of the video */
  GST_DUALPARAL_FLUSHING,
  GST_DUALPARAL_ERROR,          /* and was posted */
} GstDualParalPull;

void gst_dualparal_generator_init (GstDualParalGenerator * gen,
    GstElement * element, GstDualParalSettings * settings);
void gst_dualparal_generator_clear (GstDualParalGenerator * gen);

/** Checks model and settings; no weights are read. FALSE when something is
 *  wrong, which was posted. */
gboolean gst_dualparal_generator_start (GstDualParalGenerator * gen);
void gst_dualparal_generator_stop (GstDualParalGenerator * gen);

/** Opens an engine where there is none that makes such frames, for what remains
 *  after `n_frames`. Its weights load in the background; what goes wrong there is
 *  told by the first pull. FALSE with a posted error. Streaming thread. */
gboolean gst_dualparal_generator_open (GstDualParalGenerator * gen,
    const GstVideoInfo * info, guint64 n_frames);
/** Ends it, and drops the frame in hand. Streaming thread, or none. */
void gst_dualparal_generator_close (GstDualParalGenerator * gen);

/** Takes the next frame in hand, in place of one that is there; that one stays
 *  when there is none. Waits as long as `timeout_us`. Streaming thread. */
GstDualParalPull gst_dualparal_generator_pull (GstDualParalGenerator * gen,
    gint64 timeout_us);
void gst_dualparal_generator_release (GstDualParalGenerator * gen);
/** Frames in the queue, that in hand not counted; `ended` when none will be
 *  added. Streaming thread. */
guint gst_dualparal_generator_level (GstDualParalGenerator * gen,
    gboolean * ended);
/** Waits for `cond`, at most so long; FALSE when flushing. Streaming thread. */
gboolean gst_dualparal_generator_wait (GstDualParalGenerator * gen,
    gint64 timeout_us);

/** Breaks waits, and those to come; what is being made goes on. Any thread. */
void gst_dualparal_generator_set_flushing (GstDualParalGenerator * gen,
    gboolean flushing);
/** Sets one of the prompts and queues it. Any thread. */
void gst_dualparal_generator_set_prompt (GstDualParalGenerator * gen,
    guint prop_id, const GValue * value);
/** Queues a prompt, or both with a negative one; without a frame it sets the
 *  properties too. FALSE with a posted warning. Any thread. */
gboolean gst_dualparal_generator_queue_prompt (GstDualParalGenerator * gen,
    const GstDualParalPrompt * prompt);
/** The same for an event, if it is a `dualparal/set-prompt`: then `queued` says
 *  how it went. Any thread. */
gboolean gst_dualparal_generator_take_event (GstDualParalGenerator * gen,
    GstEvent * event, gboolean * queued);
/** A prompt begins with this frame of the video: those before it are forgotten.
 *  Streaming thread. */
void gst_dualparal_generator_prompt_begins (GstDualParalGenerator * gen,
    guint64 frame);
/** The engine's, all 0 where there is none. Any thread. */
void gst_dualparal_generator_get_stats (GstDualParalGenerator * gen,
    DpStats * stats);

G_END_DECLS
