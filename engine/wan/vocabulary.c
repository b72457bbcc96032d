/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vocabulary.h"
#include "error.h"
#include "tokenizer.h"

#define MOST_NAMED 8
#define MOST_CHARACTERS 40      /* of a named word */

/* The next run of letters and digits, in one case, from *at on, which moves behind it; NULL at the end. */
static char *
next_run (const char **at)
{
  const char *begin = *at, *end;

  while (*begin && !g_unichar_isalnum (g_utf8_get_char (begin)))
    begin = g_utf8_next_char (begin);
  for (end = begin; *end && (g_unichar_isalnum (g_utf8_get_char (end)) || g_unichar_ismark (g_utf8_get_char (end)));)
    end = g_utf8_next_char (end);
  *at = end;
  return end > begin ? g_utf8_casefold (begin, end - begin) : NULL;
}

/* Without single letters and digits: they are no words, but list things, and come after apostrophes. */
static char *
next_word (const char **at)
{
  char *word;

  while ((word = next_run (at)) && word[1] == 0)
    g_free (word);
  return word;
}

char *
dp_vocabulary_unknown (const DpDefaults *model, const char *prompt)
{
  g_autoptr (GHashTable) seen = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_autoptr (GString) names = g_string_new (NULL);
  g_autofree char *clean = *model->words ? dp_prompt_clean (prompt, NULL) : NULL;
  const char *at = model->words;
  char *word;
  int unknown = 0;

  if (clean == NULL)
    return NULL;
  while ((word = next_word (&at)))
    g_hash_table_add (seen, word);
  for (at = clean; (word = next_word (&at));) {
    g_autofree char *quoted = dp_quote (word, MOST_CHARACTERS);

    if (g_hash_table_add (seen, word) && ++unknown <= MOST_NAMED)
      g_string_append_printf (names, "%s\"%s\"", unknown > 1 ? ", " : "", quoted);
  }
  if (unknown == 0)
    return NULL;
  g_autofree char *knows = dp_quote (model->knows, DP_QUOTE_SENTENCE);
  if (unknown > MOST_NAMED)
    g_string_append_printf (names, " and %d more", unknown - MOST_NAMED);
  return g_strdup_printf ("the model %s does not know %s%s%s", model->name, names->str, *model->knows ? "; it knows " : "", knows);
}
