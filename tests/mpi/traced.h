/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * traced.h: a video by three ranks, with a trace in `path`; holds that against the order of the ring
 * and against the statistics. Ends the process on failure.
 */
#pragma once

void traced (const char *path);
