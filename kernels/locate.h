/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * locate.h: where this code lies. What belongs to it is looked for there: in the build tree while it is run from the build tree, else beside
 * it.
 *
 * Thread-safety: all from anywhere.
 */
#pragma once

#include <stdbool.h>

#define DP_LOCATE_PATH 4096

/** The file that this code is linked into, program or library, without links; false where that cannot be told. */
bool dp_locate_path (char path[DP_LOCATE_PATH]);

/** Whether that is a file of the build tree. */
bool dp_locate_in_build_tree (void);
