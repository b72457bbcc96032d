/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalsei.h: the element that writes the metas of dualparalsrc into H.264 and H.265.
 */
#pragma once

#include <gst/base/gstbasetransform.h>

G_BEGIN_DECLS

#define GST_TYPE_DUALPARAL_SEI (gst_dualparal_sei_get_type ())
G_DECLARE_FINAL_TYPE (GstDualParalSei, gst_dualparal_sei, GST, DUALPARAL_SEI,
    GstBaseTransform)

GST_ELEMENT_REGISTER_DECLARE (dualparalsei);

G_END_DECLS
