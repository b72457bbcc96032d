/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * player: a program that is rank 0 and changes the prompt while the ring runs, by the property. The
 * exit status is 0 once the element has said that each prompt shows.
 */
#include <gst/gst.h>

static const char *const prompts[] = { "a red ball", "a blue cube", "snow" };

/* The model was not trained for one as small as this. */
static gboolean
is_about_size (GstMessage *message)
{
  g_autoptr (GError) warning = NULL;

  if (message == NULL || GST_MESSAGE_TYPE (message) != GST_MESSAGE_WARNING)
    return FALSE;
  gst_message_parse_warning (message, &warning, NULL);
  return g_strrstr (warning->message, "was not trained for") != NULL;
}

/* Waits for the message that says so; FALSE on an error. */
static gboolean
shows (GstBus *bus, const char *prompt)
{
  for (gboolean ok = FALSE; !ok;) {
    g_autoptr (GstMessage) message = gst_bus_timed_pop_filtered (bus, 30 * GST_SECOND, GST_MESSAGE_ELEMENT | GST_MESSAGE_ERROR
        | GST_MESSAGE_WARNING | GST_MESSAGE_EOS);
    const GstStructure *s = message ? gst_message_get_structure (message) : NULL;

    if (is_about_size (message))
      continue;
    if (s == NULL || GST_MESSAGE_TYPE (message) != GST_MESSAGE_ELEMENT) {
      g_autofree char *said = s ? gst_structure_to_string (s) : g_strdup ("nothing was said for 30 seconds");
      g_printerr ("\"%s\" is not shown: %s\n", prompt, said);
      return FALSE;
    }
    ok = gst_structure_has_name (s, "dualparal-prompt-applied") && g_strcmp0 (gst_structure_get_string (s, "prompt"), prompt) == 0;
  }
  g_printerr ("shows: %s\n", prompt);
  return TRUE;
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  gboolean ok;

  gst_init (&argc, &argv);
  g_autoptr (GstElement) pipeline = gst_parse_launch ("dualparalsrc name=src ranks=mpi devices=cpu steps=2 prompt=\"a red ball\" "
      "! video/x-raw,width=64,height=48 ! fakesink", &error);
  if (pipeline == NULL) {
    g_printerr ("%s\n", error->message);
    return 1;
  }
  g_autoptr (GstElement) src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  g_autoptr (GstBus) bus = gst_element_get_bus (pipeline);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  ok = shows (bus, prompts[0]);
  for (gsize i = 1; i < G_N_ELEMENTS (prompts) && ok; i++) {
    g_object_set (src, "prompt", prompts[i], NULL);
    ok = shows (bus, prompts[i]);
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  return !ok;
}
