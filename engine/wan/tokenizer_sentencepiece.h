/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tokenizer_sentencepiece.h: the four calls of libsentencepiece that tokenizer.c needs, in C. No exception leaves them.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Thread-safety: immutable after open. */
typedef struct DpSpm DpSpm;

/** Parses a serialised model; NULL and a text in `error` when it is none. */
DpSpm *dp_spm_open (const void *data, size_t size, char *error, size_t error_size);
void dp_spm_free (DpSpm *spm);
int dp_spm_pieces (const DpSpm *spm);
int dp_spm_eos (const DpSpm *spm);

/** Writes the first `max` ids of the text; returns how many were written, or -1. */
int dp_spm_encode (const DpSpm *spm, const char *text, size_t length, int32_t *ids, int max);

#ifdef __cplusplus
}
#endif
