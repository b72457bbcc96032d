/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * json_cursor.h: json read from front to back, for the headers of weight files; and what json is, for a parser that takes more.
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

/** Before json-glib may read a text. It recurses, so depth is bounded here, and whatever could make it see other brackets than this
 *  does is refused (it also reads comments and single quotes). It reads numbers that json does not have: 010 as 8, 0x10 as 16. Returns
 *  what was found, for a sentence, or NULL if the text is tame. */
const char *dp_json_found_wild (const char *text, gsize length);
