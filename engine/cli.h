/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cli.h: what the two files of the program `dualparal` share.
 */
#pragma once

#include "dualparal.h"

/** What every command that opens an engine takes: the settings, under their own names. */
extern DpSettings dp_cli_settings;

#define TRACE_OPTION \
  { "trace", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.trace, \
      "Write what was done when to this file, for ui.perfetto.dev or chrome://tracing", "FILE.json" }

/** The guidance scales, for people. New string. */
char *dp_cli_guidance (const DpSettings *settings);

extern const GOptionEntry dp_cli_bench_options[], dp_cli_plan_options[];
gboolean dp_cli_bench (GError **error);
gboolean dp_cli_plan (GError **error);
