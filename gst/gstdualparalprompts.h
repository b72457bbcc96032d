/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalprompts.h: prompts with a frame or a time of the video. They wait here for an engine,
 * which then queues them. They stay here after that, because another size of the video needs a new
 * engine, which is told of them again.
 */
#pragma once

#include <gst/gst.h>
#include "dualparal.h"

G_BEGIN_DECLS

/** A prompt as the signal and the event give it. */
typedef struct
{
  const gchar *prompt, *negative_prompt;        /* NULL: the negative one stays */
  gint64 at_frame;              /* of the video; -1: as soon as possible */
  gint transition_blocks;
} GstDualParalPrompt;

/** Reads the fields of `dualparal/set-prompt`. FALSE with `error` if one has the wrong type or
 *  value. The strings are the structure's. */
gboolean gst_dualparal_prompt_parse (const GstStructure * structure,
    GstDualParalPrompt * prompt, GError ** error);

/** Thread-safety: none; the generator guards it with its lock. */
typedef struct
{
  GArray *scheduled;            /* in the order of their frames */
  gint64 first_frame;           /* the engine's */
  gint64 since;                 /* the frame from which the prompt without a
                                 * frame holds; G_MAXINT64: the next engine's
                                 * first */
} GstDualParalPrompts;

void gst_dualparal_prompts_init (GstDualParalPrompts * prompts);
void gst_dualparal_prompts_clear (GstDualParalPrompts * prompts);

/** A video begins, with the cues of this file (NULL: none) and the prompts that are scheduled
 *  already. FALSE with `error` if the file cannot be used. */
gboolean gst_dualparal_prompts_start (GstDualParalPrompts * prompts,
    const gchar * storyboard, GError ** error);
void gst_dualparal_prompts_stop (GstDualParalPrompts * prompts);

/** Before an engine is opened whose first frame is `frame`. If a scheduled prompt is due, its texts
 *  replace those given, which are freed. Cues get their frames. */
void gst_dualparal_prompts_open (GstDualParalPrompts * prompts, gint64 frame,
    gint fps_n, gint fps_d, gchar ** prompt, gchar ** negative_prompt);
/** Queues the later ones. */
gboolean gst_dualparal_prompts_attach (GstDualParalPrompts * prompts,
    DpEngine * engine, GError ** error);

/** Schedules a prompt with a frame. FALSE with `error` if it is too late; the error names the
 *  earliest frame. `engine` may be NULL. */
gboolean gst_dualparal_prompts_schedule (GstDualParalPrompts * prompts,
    const GstDualParalPrompt * prompt, DpEngine * engine, GError ** error);
/** A prompt without a frame was queued. `engine` may be NULL. */
void gst_dualparal_prompts_queued (GstDualParalPrompts * prompts,
    DpEngine * engine);
/** All frames before this one were sent. */
void gst_dualparal_prompts_passed (GstDualParalPrompts * prompts, gint64 frame);

G_END_DECLS
