/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * base_class.h: the base class of GStreamer 1.24 and later, as far as it matters to
 * a live source, between the element and an older one.
 */
#pragma once

#include <glib.h>

/** Puts it there, or takes it out again. FALSE where it is there by itself. */
gboolean base_class_use_new (gboolean use);

/** The next unlock_stop() that PLAYING is to cause comes only after the unlock() of
 *  a stop. base_class_wait_held() returns when it is due. */
void base_class_hold (void);
void base_class_wait_held (void);
