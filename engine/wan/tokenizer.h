/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tokenizer.h: prompt text -> token ids, by SentencePiece (spiece.model of the model directory).
 */
#pragma once

#include <glib.h>

/* Thread-safety: immutable after open. */
typedef struct _DpTokenizer DpTokenizer;

/** Opens `dir`/spiece.model, or `dir` if that is a file. Errors: DP_ERROR_NOT_FOUND, DP_ERROR_BAD_MODEL (not a SentencePiece model, or more ids than `vocab`). */
DpTokenizer *dp_tokenizer_open (const char *dir, int vocab, GError **error);
void dp_tokenizer_free (DpTokenizer *tokenizer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (DpTokenizer, dp_tokenizer_free)

/** Writes at most `max` ids, the last one EOS, cutting longer texts; returns how many (>= 1), or -1 with `error`. */
int dp_tokenizer_encode (const DpTokenizer *tokenizer, const char *text, gint32 *ids, int max, GError **error);

/** The prompt as the model was trained to see it: HTML entities decoded (twice, as people paste them), white space runs made one
 *  space, ends trimmed (diffusers' prompt_clean). Errors: DP_ERROR_SETTINGS when it is not UTF-8 or longer than 16 KiB. New string. */
char *dp_prompt_clean (const char *prompt, GError **error);
