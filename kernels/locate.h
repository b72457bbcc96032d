/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * locate.h: where this code lies. Its files are looked for in the build tree if it runs from the build tree, else beside it.
 *
 * Thread-safety: all from anywhere.
 */
#pragma once

#include <stdbool.h>

#define DP_LOCATE_PATH 4096

/** The program or library that this code is linked into, as it was found when it was loaded, symbolic links resolved; false if it was
 *  not. */
bool dp_locate_path (char path[DP_LOCATE_PATH]);

/** Whether that is a file of the build tree. */
bool dp_locate_in_build_tree (void);
