/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "speed_table.h"
#include "wan/json_cursor.h"

#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

/* What a line holds for, as text: two plans with the same text take the same time on the same device. */
static char *
work_of (const DpPlan *plan)
{
  const DpSettings *s = &plan->settings;
  const DpDitConfig *dit = &plan->model->config.dit;
  int scale = plan->model->config.vae.spatial_scale;

  return g_strdup_printf ("%d heads of %d, feed-forward %d, %dx%d, B %d, C %d%s, %s, %s", dit->heads, dit->head_dim, dit->ffn,
      plan->latent_w * scale, plan->latent_h * scale, s->block_latents, plan->context_latents, plan->kept_blocks > 0 ? " cached" : "",
      plan->elements == 2 ? "guided" : "unguided", s->precision);
}

static gboolean
refuse (const char *path, GError **error)
{
  dp_error_set (error, DP_ERROR_BAD_MODEL, "%s is not a table of times, which is a JSON array of objects with device, work, memory, "
      "layer and decode; dualparal bench --add-times FILE makes one", path);
  return FALSE;
}

/* A new array; an empty one where there is no file and `may_be_new`. */
static JsonArray *
read_table (const char *path, gboolean may_be_new, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) cause = NULL;
  g_autofree char *text = NULL;
  const char *wild;
  JsonNode *root;
  gsize size;

  if (may_be_new && !g_file_test (path, G_FILE_TEST_EXISTS))
    return json_array_new ();
  if (!g_file_get_contents (path, &text, &size, &cause)) {
    dp_error_set (error, g_error_matches (cause, G_FILE_ERROR, G_FILE_ERROR_NOENT) ? DP_ERROR_NOT_FOUND : DP_ERROR_BAD_MODEL,
        "%s: cannot be read: %.500s", path, cause->message);
    return NULL;
  }
  if ((wild = dp_json_found_wild (text, size))) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: cannot be read: found %s", path, wild);
    return NULL;
  }
  if (!json_parser_load_from_data (parser, text, size, &cause)) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: cannot be read: %.500s", path, cause->message);
    return NULL;
  }
  root = json_parser_get_root (parser);
  if (root == NULL || !JSON_NODE_HOLDS_ARRAY (root)) {
    refuse (path, error);
    return NULL;
  }
  return json_array_ref (json_node_get_array (root));
}

static const char *
text_in (JsonObject *line, const char *name)
{
  const char *text = json_object_get_string_member_with_default (line, name, "");

  return text ? text : "";     /* it is none where it is not a string */
}

static gboolean
number_in (JsonObject *line, const char *name, double *number)
{
  *number = json_object_get_double_member_with_default (line, name, -1);
  return isfinite (*number) && *number >= 0;
}

static gboolean
is_line (JsonArray *table, guint i, JsonObject **line)
{
  JsonNode *node = json_array_get_element (table, i);

  *line = JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  return *line != NULL;
}

gboolean
dp_speed_table_add (const char *path, const DpPlan *plan, const DpSpeed *speed, GError **error)
{
  g_autofree char *work = work_of (plan);
  g_autoptr (JsonArray) table = read_table (path, TRUE, error);
  JsonObject *line;

  if (table == NULL)
    return FALSE;
  for (guint i = json_array_get_length (table); i-- > 0;)
    if (is_line (table, i, &line) && strcmp (text_in (line, "device"), speed->device) == 0 && strcmp (text_in (line, "work"), work) == 0)
      json_array_remove_element (table, i);
  line = json_object_new ();
  json_object_set_string_member (line, "device", speed->device);
  json_object_set_string_member (line, "work", work);
  json_object_set_double_member (line, "memory", speed->memory);
  json_object_set_double_member (line, "layer", speed->layer);
  json_object_set_double_member (line, "decode", speed->decode);
  json_array_add_object_element (table, line);

  g_autoptr (JsonNode) root = json_node_init_array (json_node_alloc (), table);
  g_autofree char *text = json_to_string (root, TRUE);
  return g_file_set_contents (path, text, -1, error);
}

gboolean
dp_speed_table_find (const char *path, const DpPlan *plan, const char *device, DpSpeed *speed, GError **error)
{
  g_autofree char *work = work_of (plan);
  g_autoptr (JsonArray) table = read_table (path, FALSE, error);
  g_autoptr (GString) others = g_string_new (NULL);
  JsonObject *line;

  for (guint i = 0; table && i < json_array_get_length (table); i++) {
    if (!is_line (table, i, &line))
      return refuse (path, error);
    if (strstr (text_in (line, "device"), device) == NULL || strcmp (text_in (line, "work"), work) != 0) {
      g_string_append_printf (others, "%s%s: %s", others->len ? "; " : "", text_in (line, "device"), text_in (line, "work"));
      continue;
    }
    g_strlcpy (speed->device, text_in (line, "device"), sizeof speed->device);
    return (number_in (line, "memory", &speed->memory) && number_in (line, "layer", &speed->layer)
        && number_in (line, "decode", &speed->decode)) || refuse (path, error);
  }
  if (table)
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s has no times for %s with %s; dualparal bench --add-times with the same settings "
        "measures them there; the table has %.1000s", path, device[0] ? device : "any device", work, others->len ? others->str : "none");
  return FALSE;
}
