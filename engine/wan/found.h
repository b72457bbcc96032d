/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * found.h: opening what a model consists of, and saying what was found where that did not work.
 *
 * People give a file for a directory, a cache for a model, and files that were not fetched to their end.
 * They know what to do if the sentence says what they gave. So "is not there", "may not be read" and "is
 * something else" are different answers.
 */
#pragma once

#include <glib.h>

typedef enum
{
  DP_FOUND_NOTHING,             /* no error is set */
  DP_FOUND_SOMETHING,
  DP_FOUND_BARRED,              /* it cannot be known, or a link leads nowhere: error is set */
} DpFound;

/** Whether something is at `path`. */
DpFound dp_found_at (const char *path, GError **error);

/** Whether a directory has something of this name. */
gboolean dp_found_has (const char *dir, const char *name);

/** The first name in a directory, in the alphabet's order, with this prefix and suffix. New string; NULL when there is none. */
char *dp_found_name (const char *dir, const char *prefix, const char *suffix);

/** Sets why `path` could not be opened, from an errno: DP_ERROR_NOT_FOUND, DP_ERROR_BAD_MODEL where it is there
 *  but may not be read, else DP_ERROR_FAILED. `note` ends the sentence of a file that is not there, or NULL.
 *  Returns FALSE. */
gboolean dp_found_unreadable (const char *path, int failure, const char *note, GError **error);

/** Opens for reading, without waiting for a pipe; it must be a regular file. Returns a descriptor, or -1. */
int dp_found_open (const char *path, const char *note, gint64 *size, GError **error);

/** Reads all of a file that has at most `max` bytes. `data` has a 0 behind its end; free it. `what` it should be:
 *  "a json file". Errors: those of dp_found_unreadable(), DP_ERROR_BAD_MODEL. */
gboolean dp_found_read (const char *path, gsize max, const char *what, const char *note, char **data, gsize *size, GError **error);

/** What these first bytes of a file are instead of what was expected, and what to do; NULL when that is not
 *  known. New string. */
char *dp_found_content (const char *data, gsize size);

/** Sets what `dir` is, which was given as a model and is none: DP_ERROR_NOT_FOUND, DP_ERROR_BAD_MODEL. */
void dp_found_no_model (const char *dir, GError **error);

/** Sets what is in `dir` instead of `stem`.safetensors and its index: DP_ERROR_NOT_FOUND. */
void dp_found_no_weights (const char *dir, const char *stem, GError **error);
