/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * token_wire.h: an end of the wire that tokens take from a GPU of one process to one of another.
 *
 * What kernels/wire.h starts and asks for, this waits for, until it is done, it fails, or all is to end.
 */
#pragma once

#include <glib.h>
#include "kernels/wire.h"

/** Thread-safety: one thread at a time. All zero but the first three: not connected. */
typedef struct
{
  DpDevice *dev;
  gboolean (*is_down) (gpointer data);  /* any thread: all is to end */
  gpointer data;
  DpWire *wire;
} DpTokenWire;

/** Begins to connect. FALSE with `error`: no wires here. */
gboolean dp_token_wire_begin (DpTokenWire *wire, const DpWireId *id, gboolean receives, GError **error);
/** Waits until it is connected. FALSE, and no wire any more: `error` says why, or is not set because all is to end. */
gboolean dp_token_wire_connect (DpTokenWire *wire, GError **error);
/** Sends or receives; waits until that is done. As dp_token_wire_connect(). */
gboolean dp_token_wire_pass (DpTokenWire *wire, float *tokens, gsize bytes, GError **error);
void dp_token_wire_clear (DpTokenWire *wire);
