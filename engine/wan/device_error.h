/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * device_error.h: what goes wrong on a device, as a GError.
 *
 * Thread-safety: as DpDevice.
 */
#pragma once

#include "error.h"
#include "kernels/device.h"

/** Waits for the device. FALSE when something failed on it since the last look: DP_ERROR_DEVICE, or DP_ERROR_NO_MEMORY where something
 *  did not fit, "<device> failed <while>: <the device's words>". */
gboolean dp_error_check_device (DpDevice *dev, GError **error, const char *format, ...) G_GNUC_PRINTF (3, 4);

/** The same without waiting: whether something is known to have failed. What is still queued on a GPU may fail later. */
gboolean dp_error_check_latch (DpDevice *dev, GError **error, const char *format, ...) G_GNUC_PRINTF (3, 4);

/** For an allocation or packing that gave NULL: what failed on the device, else DP_ERROR_NO_MEMORY with `what`, the bytes needed and free,
 *  and what would help. */
void dp_error_no_room (DpDevice *dev, GError **error, gsize bytes, const char *help, const char *format, ...) G_GNUC_PRINTF (5, 6);
