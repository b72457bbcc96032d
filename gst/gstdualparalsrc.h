/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalsrc.h: the element dualparalsrc, a GstPushSrc around the engine (dualparal.h).
 */
#pragma once

#include <gst/base/gstpushsrc.h>

G_BEGIN_DECLS

#define GST_TYPE_DUALPARAL_SRC (gst_dualparal_src_get_type ())
/** Thread-safety: as any GstElement; properties from any thread. */
G_DECLARE_FINAL_TYPE (GstDualParalSrc, gst_dualparal_src, GST, DUALPARAL_SRC,
    GstPushSrc)

GST_ELEMENT_REGISTER_DECLARE (dualparalsrc);

G_END_DECLS
