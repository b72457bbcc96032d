/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plugin.h"

void
plugin_load (void)
{
  static const gchar *const places[] = { PLUGIN_FROM_BINDIR, "../gst", NULL };
  gchar *program = g_file_read_link ("/proc/self/exe", NULL);
  gchar *dir = program ? g_path_get_dirname (program) : NULL;
  GstPlugin *plugin = NULL;

  for (guint i = 0; dir && !plugin && places[i]; i++) {
    gchar *there = g_canonicalize_filename (places[i], dir);
    gchar *file = g_build_filename (there, "libgstdualparal.so", NULL);

    if (g_file_test (file, G_FILE_TEST_IS_REGULAR))
      plugin = gst_plugin_load_file (file, NULL);
    g_free (file);
    g_free (there);
  }
  gst_clear_object (&plugin);
  g_free (dir);
  g_free (program);
}
