/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli.h"
#include "stream.h"

#include <string.h>
#include <sys/wait.h>

char *cli_dir;

void
cli_run_clear (CliRun *r)
{
  g_free (r->out);
  g_free (r->err);
  g_free (r->size);
}

char *
cli_take_size (char *text)
{
  char *end = strchr (text, '\n'), *line = NULL;

  if (end && g_str_has_prefix (text, "dualparal: tiny was not trained for ")) {
    line = g_strchomp (g_strndup (text, end - text));
    memmove (text, end + 1, strlen (end));
  }
  return line;
}

CliRun
cli_run (const char *line)
{
  g_autofree char *program = g_shell_quote (STREAM_CLI);
  g_auto (GStrv) parts = g_strsplit (line, "%s", -1);
  g_autofree char *expanded = g_strjoinv (cli_dir, parts), *command = g_strconcat (program, " ", expanded, NULL);
  g_auto (GStrv) argv = NULL;
  g_autoptr (GError) error = NULL;
  TestClock start = test_clock ();
  CliRun r = { 0 };
  int status;

  g_autofree char *shown = g_strescape (expanded, NULL);        /* some is not UTF-8, which TAP must be */
  g_test_message ("dualparal %s", shown);
  g_assert_true (g_shell_parse_argv (command, NULL, &argv, &error));
  g_assert_true (g_spawn_sync (NULL, argv, NULL, 0, NULL, NULL, &r.out, &r.err, &status, &error));
  g_assert_no_error (error);
  r.status = WIFEXITED (status) ? WEXITSTATUS (status) : -1;
  r.seconds = test_clock_seconds (start);
  r.size = cli_take_size (r.err);
  return r;
}

char *
cli_ok (const char *line)
{
  CliRun r = cli_run (line);

  g_assert_cmpstr (r.err, ==, "");
  g_assert_cmpint (r.status, ==, 0);
  g_free (r.err);
  g_free (r.size);
  return r.out;
}

void
cli_bad (const char *line, int status, const char *needle)
{
  g_auto (CliRun) r = cli_run (line);

  g_test_message ("%d: %s", r.status, g_strchomp (r.err));
  g_assert_cmpint (r.status, ==, status);
  g_assert_cmpstr (r.out, ==, "");
  g_assert_true (g_str_has_prefix (r.err, "dualparal: "));
  g_assert_null (strchr (r.err, '\n'));
  if (strstr (r.err, needle) == NULL)
    g_test_fail_printf ("the sentence does not say \"%s\"", needle);
  if (!(r.seconds <= stream_slowness ()))
    g_test_fail_printf ("it took %.2f s", r.seconds);
}

char *
cli_path (const char *name)
{
  return g_build_filename (cli_dir, name, NULL);
}

GBytes *
cli_contents (const char *name)
{
  g_autofree char *path = cli_path (name);
  g_autoptr (GError) error = NULL;
  char *data;
  gsize size;

  g_file_get_contents (path, &data, &size, &error);
  g_assert_no_error (error);
  return g_bytes_new_take (data, size);
}

void
cli_init (int *argc, char ***argv)
{
  g_test_init (argc, argv, NULL);
  cli_dir = g_dir_make_tmp ("dp-cli-XXXXXX", NULL);
}

int
cli_end (int status)
{
  stream_model_free (cli_dir);
  return status;
}
