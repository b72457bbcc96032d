/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * json_cursor.h: json read from front to back, for the headers of weight files.
 *
 * A general parser builds whatever tree a hostile file asks for, recursing, and lets the second of two equal names win. Here the caller
 * says what must come next; memory is one string. The text must be valid UTF-8.
 */
#pragma once

#include <glib.h>

/* Thread-safety: one thread at a time. */
typedef struct
{
  const char *path;             /* for messages */
  const char *start, *at, *end;
  GError **error;
} DpJson;

/** Sets DP_ERROR_BAD_MODEL (path, expected, where) and returns FALSE. */
gboolean dp_json_fail (DpJson *json, const char *expected);

void dp_json_space (DpJson *json);

/** Takes `c` if it is next; fails unless it is. */
gboolean dp_json_take (DpJson *json, char c);
gboolean dp_json_expect (DpJson *json, char c);

/** The next string, decoded into `out`, which is emptied first. */
gboolean dp_json_string (DpJson *json, GString *out);

/** A list of whole numbers >= 0, at most max of them; `too_many` is what was expected instead of more. */
gboolean dp_json_counts (DpJson *json, gint64 *out, int max, int *n, const char *too_many);

/** Any value, of limited depth. Brackets are counted, not matched. */
gboolean dp_json_skip (DpJson *json, GString *scratch);
