/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "web-prompt.h"

#include <json-glib/json-glib.h>
#include <string.h>
#include "web-http.h"

/* A request is flat */
#define MOST_NESTED 4

void
prompt_free (Prompt * prompt)
{
  g_free (prompt->prompt);
  g_free (prompt->negative_prompt);
  g_free (prompt);
}

/* The parser calls itself for each level */
static gboolean
is_flat (const gchar * text)
{
  gboolean quoted = FALSE;
  gint depth = 0;

  for (; *text; text++) {
    if (*text == '\\' && quoted && text[1])
      text++;
    else if (*text == '"')
      quoted = !quoted;
    else if (!quoted && (*text == '{' || *text == '['))
      depth++;
    else if (!quoted && (*text == '}' || *text == ']'))
      depth--;
    if (depth > MOST_NESTED)
      return FALSE;
  }
  return TRUE;
}

static gboolean
is_number (JsonNode * node, gint64 least, gint64 * number)
{
  if (json_node_get_value_type (node) != G_TYPE_INT64
      || json_node_get_int (node) < least)
    return FALSE;
  *number = json_node_get_int (node);
  return TRUE;
}

static gboolean
is_text (JsonNode * node, gchar ** text)
{
  if (json_node_get_value_type (node) != G_TYPE_STRING)
    return FALSE;
  g_free (*text);
  *text = json_node_dup_string (node);
  return TRUE;
}

/* Numbers of many readers and writers of JSON have 53 bits */
static gboolean
is_seed (JsonNode * node, gint64 * seed)
{
  if (json_node_get_value_type (node) == G_TYPE_STRING)
    return g_ascii_string_to_signed (json_node_get_string (node), 10, 0, G_MAXINT64,
        seed, NULL);
  return is_number (node, 0, seed);
}

/* NULL, or what was expected */
static const gchar *
take_field (Prompt * prompt, const gchar * name, JsonNode * node)
{
  if (g_str_equal (name, "prompt"))
    return is_text (node, &prompt->prompt) ? NULL : "a text";
  if (g_str_equal (name, "negative_prompt"))
    return is_text (node, &prompt->negative_prompt) ? NULL : "a text";
  if (g_str_equal (name, "at_frame"))
    return is_number (node, -1, &prompt->at_frame) ? NULL : "a whole number from 0 on, or -1";
  if (g_str_equal (name, "transition_blocks"))
    return is_number (node, 0, &prompt->transition_blocks)
        && prompt->transition_blocks <= G_MAXINT ? NULL : "a whole number from 0 on";
  if (g_str_equal (name, "restart")) {
    if (json_node_get_value_type (node) != G_TYPE_BOOLEAN)
      return "true or false";
    prompt->restart = json_node_get_boolean (node);
    return NULL;
  }
  if (g_str_equal (name, "seed")) {
    prompt->has_seed = TRUE;
    return is_seed (node, &prompt->seed) ? NULL :
        "a whole number from 0 to 9223372036854775807, as a number or a text";
  }
  if (g_str_equal (name, "prompt_latency")) {
    const gchar *latency = json_node_get_value_type (node) == G_TYPE_STRING ?
        json_node_get_string (node) : "";

    prompt->low = g_str_equal (latency, "low");
    return prompt->low || g_str_equal (latency, "smooth") ? NULL : "\"smooth\" or \"low\"";
  }
  return "one of prompt, negative_prompt, at_frame, transition_blocks, prompt_latency, "
      "seed and restart";
}

static gboolean
parse_object (Prompt * prompt, const gchar * text, SoupServerMessage * msg)
{
  JsonParser *parser = json_parser_new ();
  GError *error = NULL;
  JsonObjectIter iter;
  JsonNode *node;
  const gchar *name, *expected;
  gboolean ok = FALSE;

  if (!is_flat (text))
    http_refuse (msg, 400, "the body has objects in objects: expected one with texts and "
        "numbers");
  else if (!json_parser_load_from_data (parser, text, -1, &error))
    http_refuse (msg, 400, "the body is not JSON: %.200s", error->message);
  else if (!(node = json_parser_get_root (parser)) || !JSON_NODE_HOLDS_OBJECT (node))
    http_refuse (msg, 400, "the body is not an object, such as {\"prompt\": \"a red ball\"}");
  else {
    ok = TRUE;
    json_object_iter_init (&iter, json_node_get_object (node));
    while (ok && json_object_iter_next (&iter, &name, &node)) {
      expected = take_field (prompt, name, node);
      ok = !expected;
      if (!ok)
        http_refuse (msg, 400, "%.40s: expected %s", name, expected);
    }
  }
  g_clear_error (&error);
  g_object_unref (parser);
  return ok;
}

Prompt *
prompt_parse (SoupServerMessage * msg)
{
  Prompt *prompt;
  gchar *text;
  gboolean json = http_is (msg, "application/json"), ok;

  if (!json && !http_is (msg, "text/plain")) {
    http_refuse (msg, 415, "the Content-Type of a prompt is text/plain or application/json");
    return NULL;
  }
  text = http_text (msg);
  if (!text)
    return NULL;
  prompt = g_new0 (Prompt, 1);
  prompt->at_frame = prompt->low = -1;
  if (json) {
    ok = parse_object (prompt, text, msg);
  } else {
    prompt->prompt = g_strdup (g_strstrip (text));
    ok = TRUE;
  }
  g_free (text);
  prompt->restart |= prompt->has_seed;
  if (ok && prompt->restart && prompt->at_frame >= 0) {
    http_refuse (msg, 400, "at_frame: expected none together with seed and restart");
    ok = FALSE;
  }
  if (ok && !prompt->prompt && !prompt->restart && prompt->low < 0) {
    http_refuse (msg, 400, "there is no prompt in it, and nothing else to do");
    ok = FALSE;
  }
  if (!ok)
    g_clear_pointer (&prompt, prompt_free);
  return prompt;
}
