/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "weights_write.h"
#include "error.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void
append_json_string (GString *out, const char *text)
{
  g_string_append_c (out, '"');
  for (; *text; text++) {
    if (*text == '"' || *text == '\\')
      g_string_append_printf (out, "\\%c", *text);
    else if ((guchar) *text < 0x20)
      g_string_append_printf (out, "\\u%04x", *text);
    else
      g_string_append_c (out, *text);
  }
  g_string_append_c (out, '"');
}

static guint64
elements (const DpTensorOut *t)
{
  guint64 n = 1;

  for (int i = 0; i < t->n_dims; i++)
    g_assert_false (__builtin_mul_overflow (n, (guint64) t->dims[i], &n));
  return n;
}

static gboolean
write_all (FILE *file, const DpTensorOut *tensors, int n)
{
  g_autoptr (GString) header = g_string_new ("{");
  guint64 at = 0, size;

  for (int i = 0; i < n; i++) {
    const guint64 bytes = sizeof (float) * elements (&tensors[i]);

    g_string_append (header, i ? "," : "");
    append_json_string (header, tensors[i].name);
    g_string_append (header, ":{\"dtype\":\"F32\",\"shape\":[");
    for (int d = 0; d < tensors[i].n_dims; d++)
      g_string_append_printf (header, "%s%" G_GINT64_FORMAT, d ? ", " : "", tensors[i].dims[d]);
    g_string_append_printf (header, "],\"data_offsets\":[%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT "]}", at, at + bytes);
    at += bytes;
  }
  g_string_append_c (header, '}');
  while (header->len % 8)
    g_string_append_c (header, ' ');
  size = header->len;
  if (fwrite (&size, 8, 1, file) != 1 || fwrite (header->str, header->len, 1, file) != 1)
    return FALSE;
  for (int i = 0; i < n; i++) {
    const guint64 n_floats = elements (&tensors[i]);

    if (n_floats && fwrite (tensors[i].data, sizeof (float), n_floats, file) != n_floats)
      return FALSE;
  }
  return fflush (file) == 0 && fsync (fileno (file)) == 0;
}

gboolean
dp_weights_write (const char *path, const DpTensorOut *tensors, int n, GError **error)
{
  g_autofree char *temporary = g_strdup_printf ("%s.XXXXXX", path);
  struct stat st;
  FILE *file = NULL;
  gboolean ok;
  int saved, fd;

  if (stat (path, &st) == 0 && !S_ISREG (st.st_mode)) {
    dp_error_set (error, DP_ERROR_FAILED, "%s: cannot be written: it is not a regular file", path);
    return FALSE;
  }
  fd = g_mkstemp_full (temporary, O_WRONLY | O_CLOEXEC, 0666);
  ok = fd >= 0 && (file = fdopen (fd, "wb")) && write_all (file, tensors, n);
  saved = errno;
  if (file ? fclose (file) != 0 : fd >= 0 && close (fd) != 0) {
    saved = ok ? errno : saved;
    ok = FALSE;
  }
  if (ok && g_rename (temporary, path) != 0) {
    saved = errno;
    ok = FALSE;
  }
  if (!ok) {
    if (fd >= 0)
      g_unlink (temporary);
    dp_error_set (error, DP_ERROR_FAILED, "%s: cannot be written: %s", path, g_strerror (saved));
  }
  return ok;
}
