/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * error.h: the domain and codes of every GError that the engine makes.
 */
#pragma once

#include <glib.h>

/** Error domain of every GError the engine makes; the message is one sentence that names what was wrong and what would help. */
#define DP_ERROR (dp_error_quark ())
GQuark dp_error_quark (void);

typedef enum
{
  DP_ERROR_NOT_FOUND,           /* a path, file or tensor that is not there */
  DP_ERROR_BAD_MODEL,           /* a file is there but is damaged, hostile or not what it should be */
  DP_ERROR_SETTINGS,            /* a setting, or a combination of settings, that cannot work */
  DP_ERROR_DEVICE,              /* a device or library that is missing, or failed */
  DP_ERROR_NO_MEMORY,           /* it does not fit; the message has the bytes needed */
  DP_ERROR_FLUSHING,            /* the call was interrupted by dp_engine_set_flushing() */
  DP_ERROR_FAILED,              /* anything else */
} DpError;
