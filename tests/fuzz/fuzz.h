/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fuzz.h: the entry libFuzzer calls, and mutate.c instead of it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/** Reads the bytes as what the first one says: 0 a safetensors file, 1 an index of shards, 2..7 a config file, 8 a storyboard, 9 an access
 *  unit of H.264 or H.265. Never fails; a mistake in the readers is a crash or a sanitizer's report. */
int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
