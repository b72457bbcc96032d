/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mpi_library.h: finds the MPI module and opens it. It is never closed: a libmpi cannot be unloaded.
 */
#pragma once

#include <glib.h>
#include "mpi/mpi_module.h"

/** NULL with DP_ERROR_DEVICE and what to install when there is no module here, or it cannot be opened. Thread-safe. */
const DpMpi *dp_mpi_library_open (GError **error);
