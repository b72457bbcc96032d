/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "error.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define REPLACEMENT 0xfffd
#define HEAD 60                 /* characters before the gap in a long text */

/* Not G_DEFINE_QUARK: that keeps it where threads race to write it */
GQuark
dp_error_quark (void)
{
  return g_quark_from_static_string ("dp-error-quark");
}

/* ---- quoting ---- */

static gboolean
may_be_said (gunichar c)
{
  switch (g_unichar_type (c)) {
    case G_UNICODE_CONTROL:
    case G_UNICODE_FORMAT:      /* these turn the writing direction */
    case G_UNICODE_LINE_SEPARATOR:
    case G_UNICODE_PARAGRAPH_SEPARATOR:
    case G_UNICODE_SURROGATE:
    case G_UNICODE_PRIVATE_USE:
    case G_UNICODE_UNASSIGNED:
      return FALSE;
    default:
      return TRUE;
  }
}

/* The next character, and where the one behind it begins. */
static gunichar
take_char (const char **text)
{
  gunichar c = g_utf8_get_char_validated (*text, -1);

  if (c == (gunichar) -1 || c == (gunichar) -2) {
    (*text)++;
    return REPLACEMENT;
  }
  *text = g_utf8_next_char (*text);
  return may_be_said (c) ? c : REPLACEMENT;
}

/* At most `max` characters; what is too long loses its middle. */
static void
append_quoted (GString *out, const char *text, gsize max)
{
  gsize n = 0, head = MIN (HEAD, max / 4), i = 0;

  g_assert (max >= 8);
  for (const char *p = text; *p; n++)
    take_char (&p);
  for (const char *p = text; *p; i++) {
    gunichar c = take_char (&p);

    if (n <= max || i < head || i >= n - (max - head - 3))
      g_string_append_unichar (out, c);
    else if (i == head)
      g_string_append (out, "...");
  }
}

char *
dp_quote (const char *text, gsize max)
{
  GString *out = g_string_new (NULL);

  append_quoted (out, text ? text : "(none)", max);
  return g_string_free (out, FALSE);
}

/* ---- sentences ---- */

/* What printf makes of a number or a character. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static void
append_number (GString *out, const char *spec, char conversion, int longs, char other, va_list *args)
{
  if (strchr ("aeEfFgG", conversion))
    g_string_append_printf (out, spec, va_arg (*args, double));
  else if (longs > 1)
    g_string_append_printf (out, spec, va_arg (*args, long long));
  else if (longs == 1)
    g_string_append_printf (out, spec, va_arg (*args, long));
  else if (other == 'z' || other == 't')
    g_string_append_printf (out, spec, va_arg (*args, size_t));
  else if (other == 'j')
    g_string_append_printf (out, spec, va_arg (*args, intmax_t));
  else
    g_string_append_printf (out, spec, va_arg (*args, int));
}
#pragma GCC diagnostic pop

/* The conversion behind a %; returns what is behind it. */
static const char *
append_conversion (GString *out, const char *format, va_list *args)
{
  const char *start = format - 1, *precision;
  char spec[32], other = 0;
  int longs = 0;

  if (*format == '%') {
    g_string_append_c (out, '%');
    return format + 1;
  }
  format += strspn (format, "-+ #0123456789");
  precision = *format == '.' ? format + 1 : NULL;
  format += precision ? 1 + strspn (precision, "0123456789") : 0;
  for (; strchr ("lhzjt", *format); format++) {
    longs += *format == 'l';
    other = *format;
  }
  g_assert (*format && strchr ("scdiuxXoaeEfFgG", *format) && format + 2 - start <= (ptrdiff_t) sizeof spec);
  if (*format == 's') {
    const char *text = va_arg (*args, const char *);

    append_quoted (out, text ? text : "(none)", precision ? g_ascii_strtoull (precision, NULL, 10) : DP_QUOTE_MAX);
  } else {
    g_strlcpy (spec, start, format + 2 - start);
    append_number (out, spec, *format, longs, other, args);
  }
  return format + 1;
}

char *
dp_error_sentence (const char *format, va_list args)
{
  GString *out = g_string_new (NULL);
  va_list copy;

  va_copy (copy, args);         /* a parameter of this type is an array on some machines, and no address of it can be handed on */
  while (*format)
    if (*format == '%')
      format = append_conversion (out, format + 1, &copy);
    else
      g_string_append_c (out, *format++);
  va_end (copy);
  return g_string_free (out, FALSE);
}

void
dp_error_set (GError **error, DpError code, const char *format, ...)
{
  g_autofree char *sentence = NULL;
  va_list args;

  if (error == NULL)
    return;
  va_start (args, format);
  sentence = dp_error_sentence (format, args);
  va_end (args);
  g_set_error_literal (error, DP_ERROR, code, sentence);
}
