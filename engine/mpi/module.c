/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mpi_module.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A count of MPI is an int; what is larger goes as several messages. */
#define PIECE ((size_t) 1 << 30)

struct DpMpiRequest
{
  int pieces;
  MPI_Request requests[];
};

static bool
fail (const char *what, int status, char *error, size_t error_size)
{
  char says[MPI_MAX_ERROR_STRING] = "";
  int length;

  MPI_Error_string (status, says, &length);
  snprintf (error, error_size, "MPI cannot be used: %s says %s", what, says);
  return false;
}

static void
name_library (char *name, size_t size)
{
  char version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length;

  MPI_Get_library_version (version, &length);
  version[strcspn (version, ",\n")] = 0;
  snprintf (name, size, "%.*s", (int) size - 1, version);
}

static bool
init_mpi (DpMpiPlace *place, char *error, size_t error_size)
{
  MPI_Comm host;
  int provided, status, was;

  MPI_Initialized (&was);
  if (was) {
    snprintf (error, error_size, "MPI cannot be used: another part of this process already does");
    return false;
  }
  /* One thread makes all calls but is not the main one. Some builds refuse MULTIPLE. */
  status = MPI_Init_thread (NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
  if (status != MPI_SUCCESS)
    return fail ("MPI_Init_thread", status, error, error_size);
  MPI_Comm_set_errhandler (MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  if (provided < MPI_THREAD_SERIALIZED) {
    snprintf (error, error_size, "MPI cannot be used: this build of it allows no calls from a thread of its own "
        "(MPI_THREAD_SERIALIZED); use one with threads");
    return false;
  }
  MPI_Comm_rank (MPI_COMM_WORLD, &place->rank);
  MPI_Comm_size (MPI_COMM_WORLD, &place->ranks);
  status = MPI_Comm_split_type (MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, place->rank, MPI_INFO_NULL, &host);
  if (status != MPI_SUCCESS)
    return fail ("MPI_Comm_split_type", status, error, error_size);
  MPI_Comm_rank (host, &place->local_rank);
  MPI_Comm_size (host, &place->local_ranks);
  MPI_Comm_free (&host);
  name_library (place->library, sizeof place->library);
  return true;
}

static void
finalize_mpi (void)
{
  MPI_Finalize ();
}

static bool
probe_mpi (int tag, int *from, size_t *bytes)
{
  MPI_Status status;
  int there = 0, count = 0;

  if (MPI_Iprobe (MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &there, &status) != MPI_SUCCESS || !there)
    return false;
  MPI_Get_count (&status, MPI_BYTE, &count);
  *from = status.MPI_SOURCE;
  *bytes = count;
  return true;
}

static DpMpiRequest *
start (void *data, size_t bytes, int rank, int tag, bool send)
{
  int pieces = bytes == 0 ? 1 : (bytes + PIECE - 1) / PIECE;
  DpMpiRequest *r = malloc (sizeof *r + pieces * sizeof r->requests[0]);

  if (r == NULL)
    return NULL;
  r->pieces = pieces;
  for (int i = 0; i < pieces; i++) {
    char *at = (char *) data + i * PIECE;
    int n = bytes - i * PIECE < PIECE ? bytes - i * PIECE : PIECE;
    int status = send ? MPI_Isend (at, n, MPI_BYTE, rank, tag, MPI_COMM_WORLD, &r->requests[i])
        : MPI_Irecv (at, n, MPI_BYTE, rank, tag, MPI_COMM_WORLD, &r->requests[i]);

    if (status != MPI_SUCCESS) {
      free (r);
      return NULL;
    }
  }
  return r;
}

static DpMpiRequest *
send_mpi (const void *data, size_t bytes, int to, int tag)
{
  return start ((void *) data, bytes, to, tag, true);
}

static DpMpiRequest *
receive_mpi (void *data, size_t bytes, int from, int tag)
{
  return start (data, bytes, from, tag, false);
}

static int
test_mpi (DpMpiRequest *r)
{
  int done = 0;
  int status = MPI_Testall (r->pieces, r->requests, &done, MPI_STATUSES_IGNORE);

  if (status == MPI_SUCCESS && !done)
    return 0;
  free (r);
  return status == MPI_SUCCESS ? 1 : -1;
}

const DpMpi *dp_mpi_v1 (void);

__attribute__ ((visibility ("default"))) const DpMpi *
dp_mpi_v1 (void)
{
  static const DpMpi mpi = { .init = init_mpi, .finalize = finalize_mpi, .probe = probe_mpi, .send = send_mpi, .receive = receive_mpi,
    .test = test_mpi };

  return &mpi;
}
