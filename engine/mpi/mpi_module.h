/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mpi_module.h: what the engine wants of MPI, as a table. Only the module behind it is linked with a
 * libmpi, and it is opened when ranks=mpi asks for it.
 *
 * It moves bytes between ranks and knows no block, stage or protocol. Nothing here waits for another
 * rank, except init() and finalize(), so the caller decides how often to look.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/** Where this process is among all that were started together. */
typedef struct
{
  int rank, ranks;              /* of MPI_COMM_WORLD */
  int local_rank, local_ranks;  /* among those of this host */
  char library[64];             /* "Open MPI 4.1.4" */
} DpMpiPlace;

/** A message that is on its way. Its bytes must stay where they are until test() says that it is not. */
typedef struct DpMpiRequest DpMpiRequest;

/** Thread-safety: one thread makes all calls, init() and finalize() included. */
typedef struct
{
  /** Waits until every rank has called it. Once a process. False with a sentence in `error`. */
  bool (*init) (DpMpiPlace *place, char *error, size_t error_size);
  /** Waits until every rank has called it, which a rank that died never does. */
  void (*finalize) (void);
  /** Whether a message with this tag has come; then from which rank, and its size. */
  bool (*probe) (int tag, int *from, size_t *bytes);
  /** Messages from one rank to another with one tag arrive in order. NULL when MPI refuses. */
  DpMpiRequest *(*send) (const void *data, size_t bytes, int to, int tag);
  DpMpiRequest *(*receive) (void *data, size_t bytes, int from, int tag);
  /** 1: done, -1: failed, and the request is gone in both cases; 0: still on its way. */
  int (*test) (DpMpiRequest *request);
} DpMpi;

/** The module's only symbol, a `const DpMpi *(void)`. A change that a module of another version would not survive is a new name. */
#define DP_MPI_SYMBOL "dp_mpi_v1"
