/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * error.h: the domain and codes of every GError that the engine makes, and how a name gets into a sentence.
 *
 * Names of tensors, shards, keys and files come from the files of a model. A sentence goes to logs, terminals
 * and the bus. So every text that is put into one is quoted: it cannot end the line, command a terminal, or
 * drown the rest.
 */
#pragma once

#include <glib.h>

/** Error domain of every GError the engine makes; the message is one sentence that names what was wrong and what would help. */
#define DP_ERROR (dp_error_quark ())
GQuark dp_error_quark (void);

typedef enum
{
  DP_ERROR_NOT_FOUND,           /* a path, file or tensor that is not there */
  DP_ERROR_BAD_MODEL,           /* a file is there but may not be read, is damaged, hostile or not what it should be */
  DP_ERROR_SETTINGS,            /* a setting, or a combination of settings, that cannot work */
  DP_ERROR_DEVICE,              /* a device or library that is missing, or failed */
  DP_ERROR_NO_MEMORY,           /* it does not fit; the message has the bytes needed */
  DP_ERROR_FLUSHING,            /* the call was interrupted by dp_engine_set_flushing() */
  DP_ERROR_FAILED,              /* anything else */
} DpError;

/** Characters of a quoted name, and of a whole sentence that is quoted. */
#define DP_QUOTE_MAX 200
#define DP_QUOTE_SENTENCE 2000

/** The text as it may stand in a sentence: valid UTF-8, with U+FFFD for each byte that is not, for control and
 *  format characters and for line breaks. A text of more than `max` characters loses its middle, because the end of
 *  a path tells most. NULL is "(none)". New string. */
char *dp_quote (const char *text, gsize max);

/** g_set_error() in the domain DP_ERROR, where every %s is quoted; a precision is then the most characters, instead
 *  of DP_QUOTE_MAX. Takes %s, %c, %%, and integers and doubles of any length, without *. */
void dp_error_set (GError **error, DpError code, const char *format, ...) G_GNUC_PRINTF (3, 4);
/** The sentence alone. New string. */
char *dp_error_sentence (const char *format, va_list args) G_GNUC_PRINTF (1, 0);
