/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vocabulary.h: words of a prompt that a model was never taught, where the model says which it was.
 */
#pragma once

#include "model_config.h"

/** One sentence that names the words of `prompt`, a text that dp_prompt_clean() takes, which are not among the model's, and says what it
 *  knows. NULL when there are none, or when the model does not list its words. New string. */
char *dp_vocabulary_unknown (const DpDefaults *model, const char *prompt);
