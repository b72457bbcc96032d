/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * linear.h: matrix products by oneDNN.
 *
 * A layer's weight is packed once into panels of output features, in the layout oneDNN asked for. A call is cut into (panel, 64
 * rows) chunks for the team; what runs inside a chunk is a "product": the oneDNN primitives for one shape, type and epilogue,
 * which the device keeps and all layers of that shape share.
 */
#pragma once

#include "cpu.h"

/** Frees the products of a device that closes. */
void linear_close_cpu (DpDeviceCpu *dev);
