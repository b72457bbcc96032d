/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * weights_torch.h: the tensors in a file that torch.save() wrote (.pth, .pt): a zip archive with a pickle, which describes the tensors, and
 * a stored member for each storage.
 *
 * A pickle is a program that may call anything. The one here can only make dicts, lists, numbers, strings and tensors: a name of anything
 * else is refused before it is called.
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
} DpTorchFile;

/** Calls `add` for each tensor of the file: `dtype` is safetensors' name of the type, `offset` is counted from the file's beginning, and all
 *  `bytes` lie in it. Two tensors may share bytes. The tensors are those of the outermost dict or, if it has none, of the one dict in it
 *  that has tensors; of several, of `generator_ema`, else `generator`. FALSE where `add` is, or with DP_ERROR_BAD_MODEL. */
gboolean dp_torch_list (const DpTorchFile *file, gboolean (*add) (const char *name, const char *dtype, int n_dims, const gint64 *dims,
        guint64 offset, gsize bytes, gpointer user_data, GError **error), gpointer user_data, GError **error);
