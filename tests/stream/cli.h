/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cli.h: runs the program `dualparal` as its users do.
 */
#pragma once

#include <glib.h>

/** Settings of a video that is made quickly. */
#define SMALL "--width 64 --height 48 --steps 2 --threads 2 "

/** A directory of the test's own. */
extern char *cli_dir;

typedef struct
{
  int status;                   /* what it returned; -1: a signal */
  char *out, *err;
  char *size;                   /* the line of `err` about the size, which is not in `err` then; NULL: none */
  double seconds;
} CliRun;

void cli_run_clear (CliRun *r);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (CliRun, cli_run_clear)

void cli_init (int *argc, char ***argv);
/** Removes the directory. Returns `status`. */
int cli_end (int status);

/** Runs it with the words of `line`; %s in it is the test's directory. */
CliRun cli_run (const char *line);
/** The same; it must succeed without a word on standard error. Its output: new string. */
char *cli_ok (const char *line);
/** It must fail with that status within a second, nothing on standard output and one line on standard error that has `needle` in it. */
void cli_bad (const char *line, int status, const char *needle);

/** Takes the line about a size that the model was not trained for out of what was said, if it is there. New string, or NULL. */
char *cli_take_size (char *text);

/** A file of the directory: new string. */
char *cli_path (const char *name);
GBytes *cli_contents (const char *name);
