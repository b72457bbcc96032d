/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalgenerator.h: the element's engine. It is opened for the negotiated caps, replaced
 * when they change, and kept until stop(). Prompts may come before there is one. The frame in hand
 * stays until it was sent, whatever interrupts that.
 */
#pragma once

#include <gst/video/video.h>
#include "dualparal.h"
#include "gstdualparalposter.h"
#include "gstdualparalprompts.h"
#include "gstdualparalsettings.h"

G_BEGIN_DECLS

/** Thread-safety: start and stop without a streaming thread; else functions are the streaming
 *  thread's unless they say "any thread". */
typedef struct _GstDualParalGenerator GstDualParalGenerator;

GstDualParalGenerator *gst_dualparal_generator_new (GstElement * element,
    GstDualParalPoster * poster, GstDualParalSettings * settings);
void gst_dualparal_generator_free (GstDualParalGenerator * gen);

/** Checks the model and the settings; reads no weights. FALSE with a posted error. */
gboolean gst_dualparal_generator_start (GstDualParalGenerator * gen);
void gst_dualparal_generator_stop (GstDualParalGenerator * gen);

/** The video starts again from its first frame, with the current prompt and the storyboard; prompts
 *  with a frame are forgotten. No-op before the first engine. Without a streaming thread, too. FALSE
 *  with a posted error. */
gboolean gst_dualparal_generator_rewind (GstDualParalGenerator * gen);

/** After start: the plan, which another engine replaces; and how many frames are to be ready before
 *  playback begins or continues, and are in a full queue. */
const DpPlan *gst_dualparal_generator_plan (GstDualParalGenerator * gen);
void gst_dualparal_generator_get_queue (GstDualParalGenerator * gen,
    guint * prebuffer, guint * capacity);

/** Opens an engine for frames like `info`, unless the present one makes them, for what remains of
 *  the video after `n_frames`. Weights load in the background; the first pull reports what fails
 *  there. `opened` says whether it is a new one. FALSE with a posted error. */
gboolean gst_dualparal_generator_open (GstDualParalGenerator * gen,
    const GstVideoInfo * info, guint64 n_frames, gboolean * opened);

/** Takes the next frame in hand, in place of the present one, and sets *got; FALSE if there is none
 *  yet. Does not wait. GST_FLOW_EOS at the end of the video, GST_FLOW_ERROR with a posted error,
 *  GST_FLOW_FLUSHING. */
GstFlowReturn gst_dualparal_generator_pull (GstDualParalGenerator * gen,
    gboolean * got);
/** The frame in hand, or NULL. */
const DpFrame *gst_dualparal_generator_frame (GstDualParalGenerator * gen);
void gst_dualparal_generator_release (GstDualParalGenerator * gen);
/** Frames in the queue, not counting that in hand; `ended` when none will be added. */
guint gst_dualparal_generator_level (GstDualParalGenerator * gen,
    gboolean * ended);

/** Waits until `frames` frames are in the queue, until none will be added, for `timeout_us` (< 0: no
 *  limit) or until gst_dualparal_generator_wake(). FALSE when flushing. */
gboolean gst_dualparal_generator_wait (GstDualParalGenerator * gen,
    guint frames, gint64 timeout_us);
/** Ends the wait, or else the next one. Any thread. */
void gst_dualparal_generator_wake (GstDualParalGenerator * gen);
/** Ends all waits, and those to come. The generation continues. Any thread. */
void gst_dualparal_generator_set_flushing (GstDualParalGenerator * gen,
    gboolean flushing);

/** Sets one of the prompts and queues it. Any thread. */
void gst_dualparal_generator_set_prompt (GstDualParalGenerator * gen,
    guint prop_id, const GValue * value);
/** The next video begins with this picture; NULL: with none but that of the property. FALSE with a posted warning. Any thread. */
gboolean gst_dualparal_generator_set_image (GstDualParalGenerator * gen,
    GstSample * sample);
/** Queues a prompt, with or without a negative one. Without a frame it sets the properties too.
 *  FALSE with a posted warning. Any thread. */
gboolean gst_dualparal_generator_queue_prompt (GstDualParalGenerator * gen,
    const GstDualParalPrompt * prompt);
/** The same for an event `dualparal/set-prompt`; FALSE for any other. Any thread. */
gboolean gst_dualparal_generator_take_event (GstDualParalGenerator * gen,
    GstEvent * event, gboolean * queued);
/** A prompt begins with this frame of the video: earlier prompts are forgotten. */
void gst_dualparal_generator_prompt_begins (GstDualParalGenerator * gen,
    guint64 frame);

/** Notes in the trace that something happened to the frames: a word. */
void gst_dualparal_generator_mark (GstDualParalGenerator * gen,
    const gchar * what);
/** The engine's numbers, all 0 without one. Any thread. */
void gst_dualparal_generator_get_stats (GstDualParalGenerator * gen,
    DpStats * stats);

G_END_DECLS
