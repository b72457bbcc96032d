/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * serve.h: a process that is one stage of rank 0's ring: `dualparal worker`.
 *
 * It says hello, then serves one session after the other: it opens the model, makes the plan that
 * rank 0 made, loads its layers and runs passes, until rank 0's engine ends. It ends with rank 0.
 */
#pragma once

#include "dualparal.h"

typedef struct
{
  const char *model;            /* directory; NULL: the one that rank 0 names */
  const char *device;           /* NULL or "auto": the GPU with the number of this rank on its host if it works, else the CPU */
  int threads;                  /* of the host, 0: its processors divided by the ranks on it */
  /** Called from the thread that serves: a sentence for the user of this program. May be NULL. */
  void (*say) (const char *text, gpointer user_data);
  gpointer user_data;
} DpServeSpec;

/** Serves until rank 0's process ends: then TRUE. FALSE with `error` when this cannot be a rank of a ring, its device cannot be used, or
 *  rank 0 or another rank is gone. Once a process. */
gboolean dp_serve (const DpServeSpec *spec, GError **error);
