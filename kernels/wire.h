/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * wire.h: a one-way connection between the GPUs of two processes, on one host or on two.
 *
 * The bytes do not pass through the processes' memory. A send and a receive of the same number of bytes,
 * one at each end, are one transfer. Start a receive only when the other end is known to send: until both
 * have started, the one that waits keeps a few multiprocessors busy.
 *
 * Thread-safety: a wire is used by one thread at a time, which need not be its device's. No call blocks, but
 * free() while something is under way: half a second.
 */
#pragma once

#include "device.h"

/** Names a wire to both of its ends. */
typedef struct
{
  char bytes[128];
} DpWireId;

typedef struct DpWire DpWire;

typedef enum
{
  DP_WIRE_IDLE,                 /* connected, and nothing is under way */
  DP_WIRE_BUSY,                 /* connecting, or sending or receiving */
  DP_WIRE_FAILED,               /* for good: it can only be freed */
} DpWireState;

/** What a backend that has wires can do. On failure `error` gets a sentence. */
typedef struct
{
  /** A new name, for one end to make and to tell the other. */
  bool (*id_new) (DpWireId *id, char *error, size_t error_size);
  /** An end of a wire on `dev`, which must outlive it; begins to connect. NULL on failure. */
  DpWire *(*wire_new) (DpDevice *dev, const DpWireId *id, bool receives, char *error, size_t error_size);
  /** Starts to send, or to receive into, device memory. The wire must be idle. What is there must be ready, or free: nothing is ordered
   *  with the device's queue. */
  void (*start) (DpWire *wire, void *memory, size_t bytes);
  /** How far it is; a sentence with DP_WIRE_FAILED. That the other end's process died is not noticed. */
  DpWireState (*poll) (DpWire *wire, char *error, size_t error_size);
  /** Aborts what is under way. */
  void (*free) (DpWire *wire);
} DpWireOps;

/** NULL: its backend has no wires. */
const DpWireOps *dp_device_wires (const DpDevice *dev);
