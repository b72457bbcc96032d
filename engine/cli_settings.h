/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cli_settings.h: what every command of the program `dualparal` that makes a plan takes: the settings,
 * under their own names.
 */
#pragma once

#include "dualparal.h"

extern DpSettings dp_cli_settings;
extern const GOptionEntry dp_cli_settings_options[];

#define DP_CLI_TRACE_OPTION \
  { "trace", 0, 0, G_OPTION_ARG_FILENAME, &dp_cli_settings.trace, \
      "Write what was done when to this file, for ui.perfetto.dev or chrome://tracing", "FILE.json" }

/** The guidance scales, for people. New string. */
char *dp_cli_settings_guidance (const DpSettings *settings);
