/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * profile_ops.h: what each op of a device costs, by op and shape.
 *
 * Puts a table in front of the device's own that waits for the device before and after each op and adds up what lay between. So
 * ops cannot overlap, and on a GPU each carries its launch and the wait, about 10 us: look at the large ones. Arithmetic and bytes are
 * counted from the arguments; bytes are those that have to move, each input read once.
 *
 * Thread-safety: one device, one thread.
 */
#pragma once

#include "kernels/device.h"

/** To be called right after the device was opened: models keep the table they find. It stays until the process ends. */
void profile_install (DpDevice *dev);

/** Counts from here on. */
void profile_start (void);

/** Counts no more, and prints to standard error what was counted: a line for each op and shape, the dearest first. plain_ms: what all of it
 *  takes when nothing waits. */
void profile_report (const char *title, double plain_ms);
