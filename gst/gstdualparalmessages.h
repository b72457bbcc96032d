/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalmessages.h: what the engine says, in GStreamer's words: errors,
 * progress, and the prompt that a frame shows. All but the last
 * builders post on the bus and are not called under a lock.
 */
#pragma once

#include <gst/gst.h>
#include "dualparal.h"

G_BEGIN_DECLS

/** An element error with the engine's sentence and the nearest domain and code. */
void gst_dualparal_post_error (GstElement * element, const GError * error);

/** Progress of one operation that the engine reports with the arguments of
 *  DpProgress: a start comes first, then exactly one end.
 *  Thread-safety: any thread; messages keep the order of the reports. */
typedef struct
{
  GMutex lock;
  gint percent;                 /* highest so far, -1 before the start */
  gboolean ended;
  gboolean posting;             /* a thread is at it, and takes ours along */
  GQueue messages;
} GstDualParalProgress;

void gst_dualparal_progress_init (GstDualParalProgress * progress);
void gst_dualparal_progress_clear (GstDualParalProgress * progress);
void gst_dualparal_progress_report (GstDualParalProgress * progress,
    GstElement * element, const gchar * code, const gchar * text, gint percent,
    gboolean canceled);
/** For the next operation; nothing reports while it is called. What still runs
 *  ends as cancelled. */
void gst_dualparal_progress_reset (GstDualParalProgress * progress,
    GstElement * element, const gchar * code);

/** What is said about a prompt, with the frame that is its first. */
GstStructure *gst_dualparal_prompt_new (const gchar * name,
    const gchar * prompt, guint id, gint64 block, guint64 frame);

G_END_DECLS
