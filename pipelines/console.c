/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "console.h"

#include <gio/gunixinputstream.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_LINE 500
/* No prompt is longer, and the newline */
#define MAX_PROMPT_LINE (16 * 1024 + 1)
#define LIMITED_AT_ONCE 20
#define LIMITED_A_SECOND 5

static gboolean
may_be_said (gunichar letter)
{
  switch (g_unichar_type (letter)) {
    case G_UNICODE_CONTROL:
    case G_UNICODE_FORMAT:
    case G_UNICODE_LINE_SEPARATOR:
    case G_UNICODE_PARAGRAPH_SEPARATOR:
      return FALSE;
    default:
      return TRUE;
  }
}

/* A prompt may come from anybody: what would command a terminal is taken out */
static void
say (const gchar * format, va_list args)
{
  GString *said = g_string_new (NULL);
  gchar *text = g_strdup_vprintf (format, args), *valid;
  const gchar *c;
  gint left = MAX_LINE;

  /* No character has more than 6 bytes, and what makes a long text valid is longer */
  valid = g_utf8_make_valid (text, strnlen (text, 6 * MAX_LINE));
  for (c = valid; *c && left--; c = g_utf8_next_char (c)) {
    gunichar letter = g_utf8_get_char (c);

    g_string_append_unichar (said, may_be_said (letter) ? letter : ' ');
  }
  fprintf (stderr, "%s: %s%s\n", g_get_prgname (), said->str, *c ? "..." : "");
  g_string_free (said, TRUE);
  g_free (valid);
  g_free (text);
}

void
console_say (const gchar * format, ...)
{
  va_list args;

  va_start (args, format);
  say (format, args);
  va_end (args);
}

void
console_say_limited (const gchar * format, ...)
{
  static GMutex lock;
  static gdouble lines = LIMITED_AT_ONCE;
  static gint64 filled;
  static guint left_out;
  gint64 now = g_get_monotonic_time ();
  gboolean may;
  guint missing = 0;
  va_list args;

  g_mutex_lock (&lock);
  if (filled)
    lines = MIN (lines + (now - filled) / 1e6 * LIMITED_A_SECOND, LIMITED_AT_ONCE);
  filled = now;
  may = lines >= 1;
  if (may) {
    lines--;
    missing = left_out;
    left_out = 0;
  } else {
    left_out++;
  }
  g_mutex_unlock (&lock);
  if (missing)
    console_say ("%u lines like the next one were left out", missing);
  if (may) {
    va_start (args, format);
    say (format, args);
    va_end (args);
  }
}

static void
say_progress (GstMessage * message)
{
  GstProgressType type;
  gchar *code;

  gst_message_parse_progress (message, &type, &code, NULL);
  if (g_str_equal (code, "load-model") && type == GST_PROGRESS_TYPE_START)
    console_say ("the model loads");
  else if (g_str_equal (code, "load-model")
      && type == GST_PROGRESS_TYPE_COMPLETE)
    console_say ("the model is loaded");
  g_free (code);
}

void
console_message (GstMessage * message)
{
  const GstStructure *s = gst_message_get_structure (message);
  GError *error = NULL;

  switch (GST_MESSAGE_TYPE (message)) {
    case GST_MESSAGE_ERROR:
      gst_message_parse_error (message, &error, NULL);
      break;
    case GST_MESSAGE_WARNING:
      gst_message_parse_warning (message, &error, NULL);
      break;
    case GST_MESSAGE_PROGRESS:
      say_progress (message);
      break;
    case GST_MESSAGE_ELEMENT:
      if (gst_structure_has_name (s, "dualparal-prompt-applied"))
        console_say ("shows: %s", gst_structure_get_string (s, "prompt"));
      break;
    default:
      break;
  }
  if (error && GST_MESSAGE_TYPE (message) == GST_MESSAGE_ERROR)
    console_say ("%s", error->message);
  else if (error)               /* a client of the RTSP server may be why */
    console_say_limited ("%s", error->message);
  g_clear_error (&error);
}

/* Names of files are bytes, all other text is UTF-8 */
static gboolean
may_be_text (const gchar * name, const gchar * text)
{
  static const gchar *const files[] =
      { "model", "placeholder", "storyboard", "trace", NULL };

  return g_strv_contains (files, name) || g_utf8_validate (text, -1, NULL);
}

static gboolean
set_property (GstElement * source, const gchar * name, const gchar * text,
    GError ** error)
{
  GParamSpec *spec =
      g_object_class_find_property (G_OBJECT_GET_CLASS (source), name);
  GValue value = G_VALUE_INIT;
  gboolean ok = TRUE;

  if (!spec || !(spec->flags & G_PARAM_WRITABLE)) {
    g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
        "dualparalsrc has no property %s to set; gst-inspect-1.0 dualparalsrc "
        "lists them", name);
    return FALSE;
  }
  if (!may_be_text (name, text)) {
    g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
        "%s=%s: expected UTF-8 text, found bytes that are not", name, text);
    return FALSE;
  }
  g_value_init (&value, spec->value_type);
  if (G_VALUE_HOLDS_STRING (&value))
    g_value_set_string (&value, text);
  else
    ok = gst_value_deserialize (&value, text)
        && !g_param_value_validate (spec, &value);
  if (ok)
    g_object_set_property (G_OBJECT (source), name, &value);
  else
    g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
        "%s=%s: not a value of this property; gst-inspect-1.0 dualparalsrc says "
        "which are", name, text);
  g_value_unset (&value);
  return ok;
}

gboolean
console_set_properties (GstElement * source, gchar ** settings, GError ** error)
{
  gboolean ok = TRUE;

  for (; ok && *settings; settings++) {
    gchar **pair = g_strsplit (*settings, "=", 2);

    if (pair[0] && pair[1]) {
      ok = set_property (source, pair[0], pair[1], error);
    } else {
      g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
          "%s: expected PROPERTY=VALUE, such as prompt=\"a red ball\"",
          *settings);
      ok = FALSE;
    }
    g_strfreev (pair);
  }
  return ok;
}

gboolean
console_parse (const gchar * what, const GOptionEntry * options, gint argc,
    gchar ** argv, GError ** error)
{
  GOptionContext *context = g_option_context_new (NULL);
  gchar *summary = g_strconcat (what, "\nEach line of standard input is a new "
      "prompt. Ctrl-C ends it.", NULL);
  GError *wrong = NULL;

  g_option_context_set_summary (context, summary);
  g_option_context_add_main_entries (context, options, NULL);
  g_option_context_add_group (context, gst_init_get_option_group ());
  g_option_context_parse (context, &argc, &argv, &wrong);
  g_option_context_free (context);
  g_free (summary);
  if (!wrong)
    return TRUE;
  g_set_error (error, wrong->domain, wrong->code, "%s; --help lists the options%s",
      wrong->message, g_error_matches (wrong, G_OPTION_ERROR,
          G_OPTION_ERROR_UNKNOWN_OPTION) ? ", and properties of dualparalsrc have no "
      "dashes: prompt=\"a red ball\"" : "");
  g_error_free (wrong);
  return FALSE;
}

static gboolean
is_number_pair (const gchar * text, gchar between, gint * first, gint * second)
{
  gchar **parts = g_strsplit (text, (gchar[]) {between, '\0'}, 2);
  guint64 numbers[2] = { 0, 1 };
  gboolean ok = g_strv_length (parts) == 2 || between == '/';

  for (guint i = 0; ok && parts[i]; i++)
    ok = g_ascii_string_to_unsigned (parts[i], 10, 1, 99999, &numbers[i], NULL);
  *first = numbers[0];
  *second = numbers[1];
  g_strfreev (parts);
  return ok;
}

GstCaps *
console_caps (const gchar * size, const gchar * framerate, GError ** error)
{
  GstCaps *caps = gst_caps_new_empty_simple ("video/x-raw");
  const gchar *wrong = NULL;
  gint a, b;

  if (!size)
    ;
  else if (is_number_pair (size, 'x', &a, &b))
    gst_caps_set_simple (caps, "width", G_TYPE_INT, a, "height", G_TYPE_INT, b,
        NULL);
  else
    wrong = "--size: expected WIDTHxHEIGHT, such as 320x192";
  if (!framerate || wrong)
    ;
  else if (is_number_pair (framerate, '/', &a, &b))
    gst_caps_set_simple (caps, "framerate", GST_TYPE_FRACTION, a, b, NULL);
  else
    wrong = "--framerate: expected frames a second, such as 24 or 30000/1001";
  if (!wrong)
    return caps;
  gst_caps_unref (caps);
  g_set_error_literal (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, wrong);
  return NULL;
}

/* The framerate of a model is known only when the video starts; 16 is Wan's */
gboolean
console_set_format (GstElement * pipeline, const gchar * size, const gchar * framerate,
    gint bitrate, gint key_seconds, GError ** error)
{
  GstCaps *caps = NULL;
  gint fps_n = 16, fps_d = 1;

  if (bitrate < 1 || bitrate > 2048000)
    g_set_error_literal (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
        "--bitrate: expected 1 to 2048000 kbit a second");
  else
    caps = console_caps (size, framerate, error);
  if (!caps)
    return FALSE;
  gst_structure_get_fraction (gst_caps_get_structure (caps, 0), "framerate", &fps_n,
      &fps_d);
  gst_child_proxy_set (GST_CHILD_PROXY (pipeline), "format::caps", caps,
      "encoder::bitrate", bitrate, "encoder::key-int-max",
      (key_seconds * fps_n + fps_d - 1) / fps_d, NULL);
  gst_caps_unref (caps);
  return TRUE;
}

gboolean
console_set_prompt (GstElement * source, const gchar * prompt)
{
  gboolean queued;

  g_signal_emit_by_name (source, "queue-prompt", prompt, (gint64) - 1, 0,
      &queued);
  return queued;
}

typedef struct
{
  GBufferedInputStream *stream;
  GstElement *source;
  gboolean too_long;            /* the line whose beginning was thrown away */
} Input;

static void
free_input (Input * input)
{
  g_object_unref (input->stream);
  gst_object_unref (input->source);
  g_free (input);
}

/* Takes `n` bytes out of the buffer, which has them. FALSE when they are no text. */
static gboolean
take_line (Input * input, gsize n)
{
  gchar *line = g_malloc (n + 1);
  gboolean is_text;

  g_input_stream_read (G_INPUT_STREAM (input->stream), line, n, NULL, NULL);
  line[n] = '\0';
  is_text = strlen (line) == n;
  if (!is_text)
    console_say ("standard input is not text: no more prompts are read there");
  else if (!input->too_long && *g_strstrip (line))
    console_set_prompt (input->source, line);
  g_free (line);
  return is_text;
}

static void
take_lines (GObject * object, GAsyncResult * result, gpointer user_data)
{
  Input *input = user_data;
  const gboolean ended = g_buffered_input_stream_fill_finish (input->stream,
      result, NULL) <= 0;
  gboolean is_text = TRUE;
  const gchar *bytes, *end;
  gsize n;

  for (;;) {
    bytes = g_buffered_input_stream_peek_buffer (input->stream, &n);
    end = n > 0 ? memchr (bytes, '\n', n) : NULL;
    if (!end)
      break;
    is_text = is_text && take_line (input, end + 1 - bytes);
    if (!is_text)
      break;
    input->too_long = FALSE;
  }
  if (is_text && !end && n == g_buffered_input_stream_get_buffer_size (input->stream)) {
    if (!input->too_long)
      console_say ("a line of standard input has more than 16 KiB, so it is not a prompt");
    input->too_long = TRUE;
    is_text = take_line (input, n);
  } else if (is_text && ended && n > 0) {
    take_line (input, n);
  }
  if (ended || !is_text)
    free_input (input);
  else
    g_buffered_input_stream_fill_async (input->stream, -1, G_PRIORITY_DEFAULT,
        NULL, take_lines, input);
}

void
console_read_prompts (GstElement * source)
{
  GInputStream *raw = g_unix_input_stream_new (STDIN_FILENO, FALSE);
  Input *input = g_new0 (Input, 1);

  input->source = gst_object_ref (source);
  input->stream =
      G_BUFFERED_INPUT_STREAM (g_buffered_input_stream_new_sized (raw,
          MAX_PROMPT_LINE));
  g_object_unref (raw);
  /* In the background of a shell: an error, instead of a program that stands
   * still */
  signal (SIGTTIN, SIG_IGN);
  g_buffered_input_stream_fill_async (input->stream, -1, G_PRIORITY_DEFAULT,
      NULL, take_lines, input);
}
