/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/wan/vocabulary.h"
#include "engine/wan/model.h"

#include <json-glib/json-glib.h>
#include <string.h>

/* What the sentence names; "": nothing is unknown. */
static void
check (const DpDefaults *model, const char *prompt, const char *names)
{
  g_autofree char *sentence = dp_vocabulary_unknown (model, prompt);

  g_test_message ("%s: %s", prompt, sentence ? sentence : "all known");
  if (*names == 0) {
    g_assert_null (sentence);
    return;
  }
  g_autofree char *begin = g_strdup_printf ("the model %s does not know %s", model->name, names);
  g_assert_true (g_str_has_prefix (sentence, begin));
}

static void
test_words (void)
{
  const DpDefaults model = { .name = "x", .words = "a ball red", .knows = "a ball" }, mute = { .name = "x" };
  const DpDefaults rude = { .name = "x", .words = "a", .knows = "\033[2Ja\nb" };

  check (&model, "A red Ball, a BALL.", "");
  check (&model, "", "");
  check (&model, " - ... \xe2\x80\x99 1 b", "");
  check (&model, "a dragon and a red dragon", "\"dragon\", \"and\"; it knows a ball");
  check (&model, "ball's x2 \xc3\x89T\xc3\x89", "\"x2\", \"\xc3\xa9t\xc3\xa9\";");
  check (&model, "red&nbsp;ball &amp; ballred", "\"ballred\"; ");
  check (&model, "a1 a2 a3 a4 a5 a6 a7 a8 a9 aa", "\"a1\", \"a2\", \"a3\", \"a4\", \"a5\", \"a6\", \"a7\", \"a8\" and 2 more; ");
  check (&mute, "a dragon", "");
  check (&rude, "a dragon", "\"dragon\"; it knows \xef\xbf\xbd[2Ja\xef\xbf\xbd""b");
}

/* It was taught all that its evaluation asks for. */
static void
test_embedded (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (DpModel) model = dp_model_open (NULL, NULL, &error);
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "models", "tiny", "train", "prompts.json", NULL);

  g_assert_no_error (error);
  json_parser_load_from_file (parser, path, &error);
  g_assert_no_error (error);
  JsonArray *prompts = json_node_get_array (json_parser_get_root (parser));
  g_assert_cmpuint (json_array_get_length (prompts), ==, 120);
  for (guint i = 0; i < json_array_get_length (prompts); i++)
    check (&model->config.defaults, json_object_get_string_member (json_array_get_object_element (prompts, i), "prompt"), "");
  check (&model->config.defaults, model->config.defaults.prompt, "");
  check (&model->config.defaults, "a dragon in the rain", "\"dragon\"; it knows subjects: ball, ");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/vocabulary/words", test_words);
  g_test_add_func ("/vocabulary/embedded", test_embedded);
  return g_test_run ();
}
