/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * transport_mpi.h: the transport of a ring whose stage i is rank i: each process has one end.
 *
 * A block goes through host memory: straight from and into its buffers where those are the host's,
 * else by way of pinned memory, in copies that run beside the passes. Where two neighbours have GPUs
 * and a wire connects those (kernels/wire.h), tokens take the wire; headers and latents, which are
 * small, go by MPI all the same, so a receive by wire starts only when the sender is ready. An end
 * tells the previous one of each block it has room for, a *credit*. A block leaves when there is a
 * credit for it, so what arrives always has a place. No call waits for the network, except take() and
 * exchange() with `wait`.
 *
 * An end on a GPU has two threads beside the stage's. The *sender* waits for what the GPU computes and
 * sends it, the *receiver* takes tokens off the wire.
 *
 * Stage 0 has one block more than the others: it fills one in while two may arrive.
 */
#pragma once

#include "post.h"
#include "transport.h"

typedef struct
{
  int rank, ranks;
  guint32 session;
  const char *name;             /* this stage, for errors that begin here: "stage 2 (rank 2 on host, cpu)"; must outlive it */
  /** A letter that is none of the transport's, and that a rank is gone: on the post's thread. */
  void (*letter) (const DpLetter *letter, gpointer user_data);
  void (*gone) (int rank, const char *why, gpointer user_data);
  /** The ring cannot go on: from a thread of the end; takes the error. */
  void (*failed) (GError *error, gpointer user_data);
  /** How tokens come to this end, if it is on a GPU: a sentence, from a thread of the end. May be NULL. */
  void (*connected) (const char *how, gpointer user_data);
  gpointer user_data;
  gboolean as_gpu;              /* for tests: the host's memory is treated as a GPU's */
} DpTransportMpiSpec;

/** An end. Its shut_down() is for this process only: the letters that end a session are the caller's. close() waits until MPI has done
 *  with the blocks; once a rank is gone it does not wait, and does not free them. */
DpTransport *dp_transport_mpi_new (const DpTransportMpiSpec *spec);

/** From now on, until close(), it takes the letters of its session. Before the stage's thread opens it. */
void dp_transport_mpi_listen (DpTransport *transport);
