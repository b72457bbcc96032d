/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalsrc.h: the element dualparalsrc, a GstPushSrc around the engine
 * (dualparal.h). Its caps and memory are in gstdualparalcaps.h.
 */
#pragma once

#include <gst/base/gstpushsrc.h>
#include "gstdualparalbuffering.h"
#include "gstdualparalcuda.h"
#include "gstdualparalgenerator.h"
#include "gstdualparallive.h"
#include "gstdualparalmarking.h"
#include "gstdualparalsettings.h"
#include "gstdualparalstats.h"

G_BEGIN_DECLS

#define GST_TYPE_DUALPARAL_SRC (gst_dualparal_src_get_type ())
/** Thread-safety: as any GstElement; properties from any thread. */
G_DECLARE_FINAL_TYPE (GstDualParalSrc, gst_dualparal_src, GST, DUALPARAL_SRC,
    GstPushSrc)

struct _GstDualParalSrc
{
  GstPushSrc parent;

  /* -- protected by the object lock */
  GstDualParalSettings settings;
  GstVideoInfo info;            /* written by the streaming thread only */
  GstCudaContext *cuda;         /* of GPU memory; set by GstCuda, which has its own
                                 * lock for that, and taken away under this one */

  GstDualParalGenerator gen;
  GstDualParalStats stats;

  GstDualParalMarking marking;  /* set by start() */

  /* -- owned by the streaming thread */
  guint64 n_frames;             /* sent so far */
  guint64 base_frame;           /* with the framerate of now, since this frame */
  GstClockTime base_time;
  gchar *announced;             /* the last prompt that downstream was told */
  guint prompt_id;
  gint resync;                  /* atomic: running time began anew */
  GstDualParalBuffering buffering;      /* not live */
  GstDualParalLive live;
  GstBuffer *placeholder;       /* of these caps */
};

/** When frame n is shown. Streaming thread, or with the object lock. */
GstClockTime gst_dualparal_src_time_of (GstDualParalSrc * self, guint64 n);

GST_ELEMENT_REGISTER_DECLARE (dualparalsrc);

G_END_DECLS
