/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cli_worker.h: the command of the program `dualparal` that is a stage of another process's ring.
 */
#pragma once

#include <glib.h>

extern const GOptionEntry dp_cli_worker_options[];

gboolean dp_cli_worker (GError **error);
