/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * memory.h: what a device will have to hold, known from settings and config files before anything is loaded.
 */
#pragma once

#include "settings.h"

/** Bytes on `device` for the layers, the blocks in flight and the decoder that these settings put there: all but the text encoder, and
 *  without what libraries take for themselves. */
gsize dp_memory_of_video (const DpResolved *resolved, const char *device);

/** Bytes of the text encoder, which is on the first device. */
gsize dp_memory_of_text (const DpResolved *resolved, gboolean streamed);

/** Whether the first device, as it is now, has room for the whole text encoder beside the video. An eighth of its memory is left to
 *  libraries: too little would be an error later, too much is a second for each prompt. */
gboolean dp_memory_has_room (const DpResolved *resolved);
