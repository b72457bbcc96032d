/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparaluri.h: the element as the source of `dualparal://?PROPERTY=VALUE&...`, for what opens
 * media by URI: playbin, uridecodebin, GES. A URI may come from anywhere, so it cannot name the file
 * that a trace overwrites. Values are escaped as in the query of any URI; + is a blank.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/** For G_IMPLEMENT_INTERFACE() with GST_TYPE_URI_HANDLER. set_uri() sets all of the properties or, with
 *  `error`, none; not above READY. */
void gst_dualparal_uri_handler_init (gpointer iface, gpointer data);

G_END_DECLS
