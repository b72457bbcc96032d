/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cli_bench.h: the commands bench, which measures the whole engine, and plan, which predicts from what
 * it measured.
 */
#pragma once

#include <glib.h>

extern const GOptionEntry dp_cli_bench_options[], dp_cli_plan_options[];
gboolean dp_cli_bench (GError **error);
gboolean dp_cli_plan (GError **error);
