/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "weights_file.h"

gboolean
dp_lies_in (guint64 at, guint64 bytes, guint64 size)
{
  return at <= size && bytes <= size - at;
}

gboolean
dp_dims_product (int n_dims, const gint64 *dims, guint64 *out)
{
  guint64 n = 1;

  for (int i = 0; i < n_dims; i++)
    if (dims[i] < 0 || __builtin_mul_overflow (n, (guint64) dims[i], &n))
      return FALSE;
  *out = n;
  return TRUE;
}

char *
dp_dims_text (int n_dims, const gint64 *dims)
{
  GString *out = g_string_new ("[");

  for (int i = 0; i < n_dims; i++)
    g_string_append_printf (out, "%s%" G_GINT64_FORMAT, i ? ", " : "", dims[i]);
  return g_string_free (g_string_append_c (out, ']'), FALSE);
}
