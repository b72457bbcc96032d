/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalprompts.h: prompts with a time, which wait here as well as in the
 * engine: there may be none yet, and when it is replaced because the size
 * changes, the new one has to hear of them again.
 */
#pragma once

#include <gst/gst.h>
#include "dualparal.h"

G_BEGIN_DECLS

/** What came in by one of the doors. */
typedef struct
{
  const gchar *prompt, *negative_prompt;        /* NULL: the negative one stays */
  gint64 at_frame;              /* of the video; -1: as soon as can be */
  gint transition_blocks;
} GstDualParalPrompt;

/** FALSE with `error` when the fields of `dualparal/set-prompt` cannot be meant
 *  so. The strings are the structure's. */
gboolean gst_dualparal_prompt_parse (const GstStructure * structure,
    GstDualParalPrompt * prompt, GError ** error);

/** Thread-safety: none; the generator guards it with its lock. */
typedef struct
{
  GArray *scheduled;            /* in the order of their frames */
  gint64 first_frame;           /* of the video, that the engine calls 0 */
  gint64 since;                 /* the frame from which the prompt that is not
                                 * scheduled holds; G_MAXINT64: the next engine's
                                 * first */
} GstDualParalPrompts;

void gst_dualparal_prompts_init (GstDualParalPrompts * prompts);
void gst_dualparal_prompts_clear (GstDualParalPrompts * prompts);

/** A video begins, with the cues of this file (NULL: none) and what was
 *  scheduled already. FALSE with `error` when the file is not good. */
gboolean gst_dualparal_prompts_start (GstDualParalPrompts * prompts,
    const gchar * storyboard, GError ** error);
void gst_dualparal_prompts_stop (GstDualParalPrompts * prompts);

/** Before an engine is opened for `frame` and those behind: texts that it opens
 *  with in place of those given, which is the last scheduled one's that is due.
 *  Takes and returns new strings. Cues get their frames. */
void gst_dualparal_prompts_open (GstDualParalPrompts * prompts, gint64 frame,
    gint fps_n, gint fps_d, gchar ** prompt, gchar ** negative_prompt);
/** Hands the rest to the engine. */
gboolean gst_dualparal_prompts_attach (GstDualParalPrompts * prompts,
    DpEngine * engine, GError ** error);

/** Schedules a prompt with a frame. FALSE with `error` when it is too late, which
 *  says what is not. `engine` may be NULL. */
gboolean gst_dualparal_prompts_schedule (GstDualParalPrompts * prompts,
    const GstDualParalPrompt * prompt, DpEngine * engine, GError ** error);
/** One without was queued. */
void gst_dualparal_prompts_queued (GstDualParalPrompts * prompts,
    DpEngine * engine);
/** Everything before this frame was sent. */
void gst_dualparal_prompts_passed (GstDualParalPrompts * prompts, gint64 frame);

G_END_DECLS
