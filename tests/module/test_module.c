/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_module.c: what a user of devices=cuda:0 is told where the CUDA module, a library below it or a driver is missing or too old;
 * and where code finds itself after a change of directory.
 *
 * This program opens the device in a process of its own, as "test-module --open"; for what is not the build tree's, as a copy of itself
 * in an empty directory.
 */
#include "kernels/device.h"
#include "kernels/locate.h"

#include <dlfcn.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODULE "libdualparal-cuda.so"

static const char *program;

static int
open_device (void)
{
  char error[256] = "";
  DpDevice *dev = dp_device_open ("cuda:0", 0, error, sizeof error);
  g_autofree char *maps = NULL;

  dp_device_close (dev);
  puts (dev ? "opened" : error);
  if (g_file_get_contents ("/proc/self/maps", &maps, NULL, NULL) && strstr (maps, "libcublasLt"))
    puts ("libcublasLt is in memory");
  return 0;
}

/* What a copy of this program says, with libraries looked for in `libraries` first. */
static char *
run (const char *path, const char *option, const char *libraries)
{
  g_auto (GStrv) env = g_environ_setenv (g_get_environ (), "LD_LIBRARY_PATH", libraries, TRUE);
  g_autoptr (GError) error = NULL;
  char *said = NULL;
  int status;

  g_spawn_sync (NULL, (char *[]) { (char *) path, (char *) option, NULL }, env, 0, NULL, NULL, &said, NULL, &status, &error);
  g_assert_no_error (error);
  g_spawn_check_wait_status (status, &error);
  g_assert_no_error (error);
  g_test_message ("%s", said);
  return said;
}

static void
check_sentence (const char *path, const char *libraries, const char *needles)
{
  g_auto (GStrv) words = g_strsplit (needles, "|", -1);
  g_autofree char *said = run (path, "--open", libraries);

  g_assert_true (g_str_has_prefix (said, "device cuda:0: "));
  for (int i = 0; words[i]; i++)
    if (strstr (said, words[i]) == NULL)
      g_test_fail_printf ("the sentence does not say \"%s\": %s", words[i], said);
}

static void
copy (const char *from, const char *to)
{
  g_autoptr (GFile) source = g_file_new_for_path (from), target = g_file_new_for_path (to);
  g_autoptr (GError) error = NULL;

  g_file_copy (source, target, G_FILE_COPY_NONE, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
}

/* As if installed: a directory with the program and, unless NULL, a copy of `module`. */
static void
check_elsewhere (const char *module, const char *needles)
{
  g_autofree char *dir = g_dir_make_tmp ("dp-module-XXXXXX", NULL), *path = g_build_filename (dir, "test-module", NULL);
  g_autofree char *installed = g_build_filename (dir, MODULE, NULL);

  if (g_file_test (MODULE_DIR "/" MODULE, G_FILE_TEST_EXISTS)) {
    g_test_skip ("a module is installed, in " MODULE_DIR);
  } else {
    copy (program, path);
    if (module)
      copy (module, installed);
    check_sentence (path, dir, needles);
    if (module)
      g_assert_cmpint (g_remove (installed), ==, 0);
    g_assert_cmpint (g_remove (path), ==, 0);
  }
  g_assert_cmpint (g_rmdir (dir), ==, 0);
}

static void
test_absent (void)
{
  check_elsewhere (NULL, MODULE "|" MODULE_DIR "|-Dcuda=enabled|devices=cpu");
}

static void
test_library_missing (void)
{
  check_elsewhere (NEEDY, MODULE "|libcudnn_graph.so.0: cannot open shared object file|libcudnn9-cuda-13|devices=cpu");
}

static void
test_damaged (void)
{
  check_elsewhere (__FILE__, MODULE "|cannot be opened|devices=cpu");
}

static void
test_other_version (void)
{
  check_elsewhere (NEEDED, MODULE "|another version|one build");
}

/* In the build tree, where the module is beside it if there is one. */
static void
test_no_driver (void)
{
  g_autofree char *driver = run (program, "--driver", "");      /* meson has this process find old_driver.c's */

  if (WITH_CUDA && strcmp (driver, "driver\n") == 0)
    g_test_skip ("there is a driver here");
  else if (WITH_CUDA) {
    g_autofree char *said = run (program, "--open", "");

    check_sentence (program, "", "no NVIDIA driver|libcuda.so.1|devices=cpu");
    g_assert_null (strstr (said, "in memory"));         /* 150 MiB, with what it brings along */
  } else if (g_file_test (MODULE_DIR "/" MODULE, G_FILE_TEST_EXISTS))
    g_test_skip ("a module is installed, in " MODULE_DIR);
  else
    check_sentence (program, "", MODULE "|" MODULE_DIR "|-Dcuda=enabled|devices=cpu");
}

static void
test_old_driver (void)
{
  if (WITH_CUDA)
    check_sentence (program, OLD_DRIVER_DIR, "driver is too old|CUDA 11.4|this build needs|devices=cpu");
  else
    g_test_skip ("this build has no CUDA module");
}

/* A plugin by a relative path, in a program that changes its directory afterwards. */
static void
test_relative (void)
{
  g_autofree char *before = g_get_current_dir (), *dir = g_path_get_dirname (LOCATED), *real = realpath (LOCATED, NULL);
  g_autofree char *base = g_path_get_basename (LOCATED), *relative = g_build_filename (".", base, NULL);
  bool (*path_of) (char path[DP_LOCATE_PATH]), (*in_build_tree) (void);
  char path[DP_LOCATE_PATH] = "";
  void *library;

  g_assert_cmpint (g_chdir (dir), ==, 0);
  library = dlopen (relative, RTLD_NOW | RTLD_LOCAL);
  g_assert_nonnull (library);
  g_assert_cmpint (g_chdir ("/"), ==, 0);
  path_of = dlsym (library, "dp_locate_path");
  in_build_tree = dlsym (library, "dp_locate_in_build_tree");
  g_assert_true (path_of (path));
  g_assert_cmpstr (path, ==, real);
  g_assert_true (in_build_tree ());
  dlclose (library);
  g_assert_cmpint (g_chdir (before), ==, 0);
}

int
main (int argc, char **argv)
{
  if (argc == 2 && strcmp (argv[1], "--open") == 0)
    return open_device ();
  if (argc == 2 && strcmp (argv[1], "--driver") == 0)
    return puts (dlopen ("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) ? "driver" : "no driver") < 0;
  program = g_canonicalize_filename (argv[0], NULL);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/module/absent", test_absent);
  g_test_add_func ("/module/library-missing", test_library_missing);
  g_test_add_func ("/module/damaged", test_damaged);
  g_test_add_func ("/module/other-version", test_other_version);
  g_test_add_func ("/module/no-driver", test_no_driver);
  g_test_add_func ("/module/old-driver", test_old_driver);
  g_test_add_func ("/module/relative", test_relative);
  return g_test_run ();
}
