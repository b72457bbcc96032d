/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fuzz.h: one function a format, which takes any bytes, and what those of files share. A program is such a function with libFuzzer's
 * main(), or with that of mutate.c.
 */
#pragma once

#include <glib.h>
#include <stddef.h>
#include <stdint.h>

/** Reads the bytes as a file of its format. Returns 0 always; a mistake in the reader is a crash or a sanitizer's report. */
int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/** A directory of this process's own, empty at first; removed when the process exits normally. */
const char *fuzz_dir (void);
/** Writes a file into it; a missing folder of `name` is made. */
void fuzz_put (const char *name, const void *data, gsize size);
/** Asserts that there is an error exactly if not `ok`, of this project, and that its message is one short line. */
void fuzz_check_error (gboolean ok, const GError *error);
