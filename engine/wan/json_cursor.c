/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "json_cursor.h"
#include "error.h"

#include <string.h>

#define MAX_DEPTH 8             /* told in dp_json_found_wild() */

/* ---- words: what is outside of quotes and brackets ---- */

static gboolean
is_word_char (char c)
{
  return g_ascii_isalnum (c) || c == '+' || c == '-' || c == '.';
}

static gsize
digits (const char *text, gsize n)
{
  gsize i = 0;

  while (i < n && g_ascii_isdigit (text[i]))
    i++;
  return i;
}

/* -? (0 | [1-9] digits) (. digits)? ([eE] [+-]? digits)? */
static gboolean
is_number (const char *text, gsize n)
{
  gsize i = n > 0 && text[0] == '-', k = digits (text + i, n - i);

  if (k == 0 || (k > 1 && text[i] == '0'))
    return FALSE;
  i += k;
  if (i < n && text[i] == '.') {
    k = digits (text + i + 1, n - i - 1);
    if (k == 0)
      return FALSE;
    i += 1 + k;
  }
  if (i < n && (text[i] == 'e' || text[i] == 'E')) {
    i++;
    i += i < n && (text[i] == '+' || text[i] == '-');
    k = digits (text + i, n - i);
    if (k == 0)
      return FALSE;
    i += k;
  }
  return i == n;
}

static gboolean
is_word (const char *text, gsize n)
{
  static const char *const words[] = { "true", "false", "null" };

  for (gsize i = 0; i < G_N_ELEMENTS (words); i++)
    if (n == strlen (words[i]) && memcmp (text, words[i], n) == 0)
      return TRUE;
  return is_number (text, n);
}

const char *
dp_json_found_wild (const char *text, gsize length)
{
  int depth = 0;

  for (gsize i = 0; i < length; i++) {
    char c = text[i];

    if (c == '"') {
      for (i++; i < length && text[i] != '"'; i++)
        if (text[i] == '\\')
          i++;
      if (i >= length)
        return "text whose closing quote is missing: the file is cut off or damaged";
    } else if (c == '{' || c == '[') {
      if (++depth > MAX_DEPTH)
        return "more than 8 levels of nesting";
    } else if (c == '}' || c == ']') {
      depth--;
    } else if (is_word_char (c)) {
      gsize first = i;

      while (i + 1 < length && is_word_char (text[i + 1]))
        i++;
      if (!is_word (text + first, i + 1 - first))
        return "a word outside of quotes that is neither a decimal number without leading zeros nor true, false or null";
    } else if (c == 0 || !strchr (" \t\r\n:,", c)) {
      return "characters that json does not have outside of quotes";
    }
  }
  return NULL;
}

/* ---- the cursor ---- */

gboolean
dp_json_fail (DpJson *json, const char *expected)
{
  dp_error_set (json->error, DP_ERROR_BAD_MODEL, "%s: damaged header: expected %s at byte %"
      G_GSIZE_FORMAT " of its json, found %s", json->path, expected, (gsize) (json->at - json->start), json->at < json->end
      ? "something else" : "its end");
  return FALSE;
}

void
dp_json_space (DpJson *json)
{
  while (json->at < json->end && strchr (" \t\r\n", *json->at) && *json->at)
    json->at++;
}

gboolean
dp_json_take (DpJson *json, char c)
{
  dp_json_space (json);
  if (json->at == json->end || *json->at != c)
    return FALSE;
  json->at++;
  return TRUE;
}

gboolean
dp_json_expect (DpJson *json, char c)
{
  char expected[] = { '\'', c, '\'', 0 };

  return dp_json_take (json, c) || dp_json_fail (json, expected);
}

static gboolean
json_hex4 (DpJson *json, gunichar *out)
{
  gunichar c = 0;

  if (json->end - json->at < 4)
    return dp_json_fail (json, "4 hexadecimal digits");
  for (int i = 0; i < 4; i++, json->at++) {
    if (!g_ascii_isxdigit (*json->at))
      return dp_json_fail (json, "a hexadecimal digit");
    c = c << 4 | g_ascii_xdigit_value (*json->at);
  }
  *out = c;
  return TRUE;
}

static gboolean
json_escape (DpJson *json, GString *out)
{
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  const char *found;
  gunichar c, low;

  if (json->at == json->end)
    return dp_json_fail (json, "an escape");
  if (*json->at != 'u') {
    if (*json->at == 0 || !(found = strchr (from, *json->at)))
      return dp_json_fail (json, "an escape");
    g_string_append_c (out, to[found - from]);
    json->at++;
    return TRUE;
  }
  json->at++;
  if (!json_hex4 (json, &c))
    return FALSE;
  if (c >= 0xd800 && c < 0xdc00 && json->end - json->at >= 2 && json->at[0] == '\\' && json->at[1] == 'u') {
    json->at += 2;
    if (!json_hex4 (json, &low))
      return FALSE;
    c = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00) : 0;
  }
  if (c == 0 || !g_unichar_validate (c))
    return dp_json_fail (json, "a character");
  g_string_append_unichar (out, c);
  return TRUE;
}

gboolean
dp_json_string (DpJson *json, GString *out)
{
  g_string_truncate (out, 0);
  if (!dp_json_expect (json, '"'))
    return FALSE;
  while (json->at < json->end && *json->at != '"') {
    if ((guchar) *json->at < 0x20)
      return dp_json_fail (json, "no control character in a string");
    if (*json->at == '\\') {
      json->at++;
      if (!json_escape (json, out))
        return FALSE;
    } else {
      g_string_append_c (out, *json->at++);
    }
  }
  return dp_json_expect (json, '"');
}

static gboolean
count (DpJson *json, gint64 *out)
{
  gint64 n = 0;

  dp_json_space (json);
  if (json->at == json->end || !g_ascii_isdigit (*json->at))
    return dp_json_fail (json, "a number that is not negative");
  if (*json->at == '0' && json->end - json->at > 1 && g_ascii_isalnum (json->at[1]) && !strchr ("eE", json->at[1]))
    return dp_json_fail (json, "a decimal number without leading zeros");
  for (; json->at < json->end && g_ascii_isdigit (*json->at); json->at++)
    if (__builtin_mul_overflow (n, 10, &n) || __builtin_add_overflow (n, *json->at - '0', &n))
      return dp_json_fail (json, "a number below 2^63");
  if (json->at < json->end && strchr (".eE", *json->at) && *json->at)
    return dp_json_fail (json, "a whole number");
  *out = n;
  return TRUE;
}

gboolean
dp_json_counts (DpJson *json, gint64 *out, int max, int *n, const char *too_many)
{
  *n = 0;
  if (!dp_json_expect (json, '['))
    return FALSE;
  if (dp_json_take (json, ']'))
    return TRUE;
  do {
    if (*n == max)
      return dp_json_fail (json, too_many);
    if (!count (json, &out[(*n)++]))
      return FALSE;
  } while (dp_json_take (json, ','));
  return dp_json_expect (json, ']');
}

/* Any value. Brackets are only counted, not matched: what is skipped is not used. */
gboolean
dp_json_skip (DpJson *json, GString *scratch)
{
  int depth = 0;

  do {
    dp_json_space (json);
    if (json->at == json->end)
      return dp_json_fail (json, "a value");
    if (*json->at == '"') {
      if (!dp_json_string (json, scratch))
        return FALSE;
    } else if (*json->at == '{' || *json->at == '[') {
      json->at++;
      if (++depth > MAX_DEPTH)
        return dp_json_fail (json, "less nesting");
    } else if (*json->at == '}' || *json->at == ']') {
      if (--depth < 0)
        return dp_json_fail (json, "a value");
      json->at++;
    } else if (depth > 0 && (*json->at == ',' || *json->at == ':')) {
      json->at++;
    } else {
      const char *first = json->at;

      while (json->at < json->end && is_word_char (*json->at))
        json->at++;
      if (!is_word (first, json->at - first)) {
        json->at = first;
        return dp_json_fail (json, "a value");
      }
    }
  } while (depth > 0);
  return TRUE;
}
