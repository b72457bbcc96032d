/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalcaps.h: what dualparalsrc makes of what downstream takes, and whose
 * memory the frames go to. Other caps may come at any time: another size or format
 * begins a new generation with the next frame, another framerate does not.
 */
#pragma once

#include <gst/base/gstbasesrc.h>

G_BEGIN_DECLS

/** Sets the methods for it in the class of dualparalsrc. */
void gst_dualparal_caps_class_init (GstBaseSrcClass * klass);

G_END_DECLS
