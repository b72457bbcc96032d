/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ranks.h: who is there: what every rank says of itself to rank 0 when it starts, its *hello*.
 */
#pragma once

#include <glib.h>
#include "post.h"
#include "kernels/device.h"

/** A rank and the one device that it has. Strings end. */
typedef struct
{
  char host[64];
  char device[32];              /* as its own process names it */
  gint32 threads;               /* of its host */
  DpDeviceInfo info;
} DpRank;

/** "stage 2 (rank 2 on HOST, cuda:0)". New string. */
char *dp_rank_name (int rank, const DpRank *r);

/** For any rank but 0: says hello. `broken`: why its device cannot be used, or NULL. */
void dp_ranks_say_hello (const DpRank *self, const char *broken);

/** For rank 0: opens the post and waits until all ranks have said hello; later calls return the same, as long as all are there. Element 0
 *  is empty. NULL with `error`: no MPI, this is not rank 0 or there is no other, a rank is gone, has another version, a device that cannot
 *  be used, or says nothing for a minute. Thread-safe. */
const DpRank *dp_ranks_gather (DpPostPlace *place, GError **error);

/** The name of this host, shortened to what fits. */
void dp_ranks_host_name (char *name, gsize size);

/** Sets `error` to say how a rank that is gone is told of. */
void dp_ranks_set_gone (GError **error, const char *name, const char *why);
