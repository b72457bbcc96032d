/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalpreset.h"

#include "gstdualparalmessages.h"

#define GST_CAT_DEFAULT gst_dualparal_src_debug

static GstPresetInterface defaults;     /* GStreamer's own, which knows the file */

static gchar **
get_names (GstPreset * preset, gboolean texts)
{
  GPtrArray *names = g_ptr_array_new ();
  GParamSpec **specs;
  guint i, n;

  specs = g_object_class_list_properties (G_OBJECT_GET_CLASS (preset), &n);
  for (i = 0; i < n; i++)
    if (specs[i]->owner_type == G_OBJECT_TYPE (preset)
        && (specs[i]->flags & G_PARAM_WRITABLE)
        && (specs[i]->value_type == G_TYPE_STRING) == texts
        && !g_str_equal (specs[i]->name, "trace"))
      g_ptr_array_add (names, g_strdup (specs[i]->name));
  g_free (specs);
  g_ptr_array_add (names, NULL);
  return (gchar **) g_ptr_array_free (names, FALSE);
}

static gchar **
get_property_names (GstPreset * preset)
{
  return get_names (preset, FALSE);
}

static gboolean
save_preset (GstPreset * preset, const gchar * name)
{
  gboolean ok = defaults.save_preset (preset, name);
  gchar **texts = get_names (preset, TRUE);
  guint i;

  for (i = 0; ok && texts[i]; i++) {
    GValue value = G_VALUE_INIT;
    gchar *quoted;

    g_object_get_property (G_OBJECT (preset), texts[i],
        g_value_init (&value, G_TYPE_STRING));
    quoted = gst_value_serialize (&value);
    ok = defaults.set_meta (preset, name, texts[i], quoted);
    g_free (quoted);
    g_value_unset (&value);
  }
  g_strfreev (texts);
  return ok;
}

static gboolean
load_preset (GstPreset * preset, const gchar * name)
{
  gboolean ok = defaults.load_preset (preset, name);
  gchar **texts = get_names (preset, TRUE);
  guint i;

  for (i = 0; ok && texts[i]; i++) {
    GValue value = G_VALUE_INIT;
    gchar *quoted = NULL;

    g_value_init (&value, G_TYPE_STRING);
    ok = defaults.get_meta (preset, name, texts[i], &quoted)
        && (!quoted || gst_value_deserialize (&value, quoted));
    if (ok)
      g_object_set_property (G_OBJECT (preset), texts[i], &value);
    else
      GST_WARNING_OBJECT (preset, "preset %s: %s is not UTF-8",
          name, texts[i]);
    g_free (quoted);
    g_value_unset (&value);
  }
  g_strfreev (texts);
  return ok;
}

void
gst_dualparal_preset_init (gpointer iface, gpointer data)
{
  GstPresetInterface *preset = iface;

  defaults = *preset;
  preset->get_property_names = get_property_names;
  preset->save_preset = save_preset;
  preset->load_preset = load_preset;
}
