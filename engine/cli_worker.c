/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli_worker.h"
#include "serve.h"

#include <stdio.h>

static DpServeSpec spec;

const GOptionEntry dp_cli_worker_options[] = {
  { "model", 0, 0, G_OPTION_ARG_FILENAME, &spec.model, "Model directory (default: the one of rank 0, by its path there)", "DIR" },
  { "devices", 0, 0, G_OPTION_ARG_FILENAME, &spec.device, "The device of this rank: auto, cpu, cuda:0, ...", "DEVICE" },
  { "threads", 0, 0, G_OPTION_ARG_INT, &spec.threads, "Host threads (default: the processors divided by the ranks on this host)", "N" },
  { NULL }
};

static void
say (const char *text, gpointer data)
{
  fprintf (stderr, "dualparal worker: %s\n", text);
}

gboolean
dp_cli_worker (GError **error)
{
  spec.say = say;
  return dp_serve (&spec, error);
}
