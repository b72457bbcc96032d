/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalpreset.h: named sets of property values in a file of the user. GstPreset saves the
 * properties of the element's own class. `trace` is not saved, as loading would overwrite a file.
 * Texts are saved as meta data: GStreamer 1.22 reads escaped characters, such as blanks, back wrongly
 * from anything else, and does not set a text back to NULL.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/** For G_IMPLEMENT_INTERFACE() with GST_TYPE_PRESET. */
void gst_dualparal_preset_init (gpointer iface, gpointer data);

G_END_DECLS
