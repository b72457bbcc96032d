/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * plugin.h: the plugin that was built or installed with this program. GStreamer need
 * not be told where it is, and the program does not take that of another version.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/** Loads it; if there is none, GStreamer finds one or not, as always. After
 *  gst_init(), before the first element. */
void plugin_load (void);

G_END_DECLS
