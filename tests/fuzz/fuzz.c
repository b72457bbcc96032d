/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"
#include "engine/dualparal.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

static char *dir;
static GPtrArray *paths;        /* what is in it, folders before their files */

static void
clean_up (void)
{
  for (guint i = paths->len; i-- > 0;)
    g_remove (g_ptr_array_index (paths, i));
  g_rmdir (dir);
}

const char *
fuzz_dir (void)
{
  if (dir == NULL) {
    /* in memory where that can be: a disk takes milliseconds for a file that is written again */
    dir = g_mkdtemp (g_strdup ("/dev/shm/dp-fuzz-XXXXXX"));
    dir = dir ? dir : g_dir_make_tmp ("dp-fuzz-XXXXXX", NULL);
    g_assert_nonnull (dir);
    paths = g_ptr_array_new ();
    atexit (clean_up);
  }
  return dir;
}

void
fuzz_put (const char *name, const void *data, gsize size)
{
  g_autofree char *path = g_build_filename (fuzz_dir (), name, NULL), *folder = g_path_get_dirname (path);
  gboolean known = g_ptr_array_find_with_equal_func (paths, path, g_str_equal, NULL);
  FILE *file;

  if (!known && g_mkdir (folder, 0700) == 0)
    g_ptr_array_add (paths, g_steal_pointer (&folder));
  file = fopen (path, "wb");
  g_assert_nonnull (file);
  g_assert_cmpuint (fwrite (data, 1, size, file), ==, size);
  g_assert_cmpint (fclose (file), ==, 0);
  if (!known)
    g_ptr_array_add (paths, g_steal_pointer (&path));
}

void
fuzz_check_error (gboolean ok, const GError *error)
{
  g_assert_true (ok == (error == NULL));
  if (ok)
    return;
  g_assert_true (error->domain == DP_ERROR && g_utf8_validate (error->message, -1, NULL) && strlen (error->message) < 4000);
  for (const char *p = error->message; *p; p = g_utf8_next_char (p))    /* one line that commands no terminal */
    g_assert_false (g_unichar_iscntrl (g_utf8_get_char (p)) || g_unichar_type (g_utf8_get_char (p)) == G_UNICODE_FORMAT);
}
