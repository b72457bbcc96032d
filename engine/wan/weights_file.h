/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * weights_file.h: what the readers of weight files have in common: the open file, what they say of each tensor in it, and its shape.
 */
#pragma once

#include <glib.h>

/** An open file. `read` gets bytes that lie in it; FALSE with an error. */
typedef struct
{
  const char *path;             /* for messages */
  guint64 size;
  gboolean (*read) (gconstpointer source, guint64 offset, void *to, gsize bytes, GError **error);
  gconstpointer source;
} DpWeightsFile;

/** Is called for each tensor: `dtype` is safetensors' name of the type, or GGML's; `offset` is counted from the file's beginning, and all
 *  `bytes` lie in it. FALSE with an error: no more is wanted. */
typedef gboolean DpTensorFound (const char *name, const char *dtype, int n_dims, const gint64 *dims, guint64 offset, gsize bytes,
    gpointer user_data, GError **error);

/** What a reader is: calls `found` for each tensor of the file. FALSE where that is, or with DP_ERROR_BAD_MODEL or DP_ERROR_NO_MEMORY. */
typedef gboolean DpTensorList (const DpWeightsFile *file, DpTensorFound *found, gpointer user_data, GError **error);

/** Whether `bytes` from `at` on lie within `size`. */
gboolean dp_lies_in (guint64 at, guint64 bytes, guint64 size);

/** Elements of a shape. FALSE: more than can be counted, or a dimension below 0. */
gboolean dp_dims_product (int n_dims, const gint64 *dims, guint64 *out);

/** "[2, 3]". New string. */
char *dp_dims_text (int n_dims, const gint64 *dims);
