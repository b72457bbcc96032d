/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparaluri.h"

#define SCHEME "dualparal"
#define EXPECTED "dualparal://?prompt=a+red+ball&seed=7"

/* What is kept with the element, under its lock */
#define URI_KEY "gst-dualparal-uri"

typedef struct
{
  GParamSpec *spec;
  GValue value;
} Setting;

static void
clear_setting (gpointer data)
{
  g_value_unset (&((Setting *) data)->value);
}

/* FALSE with `error` for what is not a property that a URI may set, or not a value of it */
static gboolean
parse_setting (GstElement * element, const gchar * key, const gchar * text,
    Setting * setting, GError ** error)
{
  GParamSpec *spec =
      g_object_class_find_property (G_OBJECT_GET_CLASS (element), key);

  if (!spec || spec->owner_type != G_OBJECT_TYPE (element)
      || !(spec->flags & G_PARAM_WRITABLE) || g_str_equal (key, "trace")) {
    g_set_error (error, GST_URI_ERROR, GST_URI_ERROR_BAD_URI,
        "A dualparal URI cannot set \"%s\"; expected a property of dualparalsrc "
        "other than trace, such as prompt, seed or num-frames.", key);
    return FALSE;
  }
  setting->spec = spec;
  g_value_init (&setting->value, spec->value_type);
  if (G_VALUE_HOLDS_STRING (&setting->value)) {
    g_value_set_string (&setting->value, text);
    return TRUE;
  }
  if (gst_value_deserialize (&setting->value, text)
      && !g_param_value_validate (spec, &setting->value))
    return TRUE;
  g_value_unset (&setting->value);
  g_set_error (error, GST_URI_ERROR, GST_URI_ERROR_BAD_URI,
      "\"%s\" is not a value of %s; gst-inspect-1.0 dualparalsrc says which are.",
      text, key);
  return FALSE;
}

/* Of Setting; NULL with `error` */
static GArray *
parse_uri (GstElement * element, const gchar * uri, GError ** error)
{
  GArray *settings = g_array_new (FALSE, TRUE, sizeof (Setting));
  const gchar *query = uri + strlen (SCHEME ":");
  GError *wrong = NULL;
  gchar *key, *text;
  GUriParamsIter iter;

  g_array_set_clear_func (settings, clear_setting);
  if (g_str_has_prefix (query, "//"))
    query += 2;
  if ((*query && *query != '?') || strchr (query, '#')) {
    g_set_error (&wrong, GST_URI_ERROR, GST_URI_ERROR_BAD_URI,
        "%s has a host, a path or a fragment; expected only a query, such as "
        EXPECTED ", with # in it as %%23.", uri);
  } else if (*query) {
    g_uri_params_iter_init (&iter, query + 1, -1, "&", G_URI_PARAMS_WWW_FORM);
    while (!wrong && g_uri_params_iter_next (&iter, &key, &text, &wrong)) {
      Setting setting = { NULL, G_VALUE_INIT };

      if (parse_setting (element, key, text, &setting, &wrong))
        g_array_append_val (settings, setting);
      g_free (key);
      g_free (text);
    }
    if (wrong && wrong->domain == G_URI_ERROR) {
      g_clear_error (&wrong);
      g_set_error (&wrong, GST_URI_ERROR, GST_URI_ERROR_BAD_URI,
          "%s is not escaped well; expected PROPERTY=VALUE pairs between &, with "
          "%%25 for a percent sign, such as " EXPECTED ".", uri);
    }
  }
  if (!wrong)
    return settings;
  g_array_unref (settings);
  g_propagate_error (error, wrong);
  return NULL;
}

static GstURIType
get_type_of (GType type)
{
  return GST_URI_SRC;
}

static const gchar *const *
get_protocols (GType type)
{
  static const gchar *const protocols[] = { SCHEME, NULL };

  return protocols;
}

static gchar *
get_uri (GstURIHandler * handler)
{
  gchar *uri;

  GST_OBJECT_LOCK (handler);
  uri = g_strdup (g_object_get_data (G_OBJECT (handler), URI_KEY));
  GST_OBJECT_UNLOCK (handler);
  return uri;
}

static gboolean
set_uri (GstURIHandler * handler, const gchar * uri, GError ** error)
{
  GstElement *element = GST_ELEMENT (handler);
  GArray *settings;
  gchar *replaced;
  gboolean runs;
  guint i;

  GST_OBJECT_LOCK (element);
  runs = MAX (GST_STATE (element), GST_STATE_NEXT (element)) > GST_STATE_READY;
  GST_OBJECT_UNLOCK (element);
  if (runs) {
    g_set_error (error, GST_URI_ERROR, GST_URI_ERROR_BAD_STATE,
        "The URI of dualparalsrc can only be changed in NULL and READY.");
    return FALSE;
  }
  settings = parse_uri (element, uri, error);
  if (!settings)
    return FALSE;
  for (i = 0; i < settings->len; i++) {
    const Setting *setting = &g_array_index (settings, Setting, i);

    g_object_set_property (G_OBJECT (element), setting->spec->name,
        &setting->value);
  }
  g_array_unref (settings);
  GST_OBJECT_LOCK (element);
  replaced = g_object_steal_data (G_OBJECT (element), URI_KEY);
  g_object_set_data_full (G_OBJECT (element), URI_KEY, g_strdup (uri), g_free);
  GST_OBJECT_UNLOCK (element);
  g_free (replaced);
  return TRUE;
}

void
gst_dualparal_uri_handler_init (gpointer iface, gpointer data)
{
  GstURIHandlerInterface *handler = iface;

  handler->get_type = get_type_of;
  handler->get_protocols = get_protocols;
  handler->get_uri = get_uri;
  handler->set_uri = set_uri;
}
