/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tokenizer.h"
#include "tokenizer_sentencepiece.h"
#include "error.h"
#include "found.h"
#include "html_entities.h"
#include "limits.h"

#include <string.h>

#define MAX_MODEL (64 << 20)    /* umt5's has 4.5 MB */

struct _DpTokenizer
{
  DpSpm *spm;
  int eos, vocab;
};

/* ---- is the file safe to hand to the library? It follows the offsets in the file without looking. ---- */

typedef struct
{
  const guint8 *at, *end;
} Bytes;

static gboolean
take_varint (Bytes *in, guint64 *out)
{
  *out = 0;
  for (int shift = 0; shift < 64 && in->at < in->end; shift += 7) {
    *out |= (guint64) (*in->at & 127) << shift;
    if (*in->at++ < 128)
      return TRUE;
  }
  return FALSE;
}

/* The next field of a protobuf message; `value` is empty where the field is not of the kind that has bytes. */
static gboolean
take_field (Bytes *in, guint64 *field, Bytes *value)
{
  guint64 tag, length = 0;

  if (!take_varint (in, &tag))
    return FALSE;
  *field = tag >> 3;
  switch (tag & 7) {
    case 0:
      if (!take_varint (in, &length))
        return FALSE;
      length = 0;
      break;
    case 1:
    case 5:
      length = (tag & 7) == 1 ? 8 : 4;
      break;
    case 2:
      if (!take_varint (in, &length))
        return FALSE;
      break;
    default:
      return FALSE;
  }
  if (length > (gsize) (in->end - in->at))
    return FALSE;
  *value = (Bytes) { in->at, (tag & 7) == 2 ? in->at + length : in->at };
  in->at += length;
  return TRUE;
}

static guint32
unit_at (const guint8 *trie, guint32 i)
{
  guint32 unit;

  memcpy (&unit, trie + (gsize) i * 4, 4);
  return unit;
}

/* NormalizerSpec.precompiled_charsmap: the length of a double-array trie (darts-clone: labels in bits 0..7 and 31, a leaf follows in bit 8,
 * offsets above), the trie, and the texts its leaves point to, each ended by a 0. */
static gboolean
charsmap_is_safe (Bytes map)
{
  gsize size = map.end - map.at, texts;
  guint32 bytes, n;

  if (size == 0)
    return TRUE;
  if (size < 4)
    return FALSE;
  memcpy (&bytes, map.at, 4);
  if (bytes == 0 || bytes % 1024 || bytes >= size - 4 || map.end[-1] != 0)
    return FALSE;
  map.at += 4;
  n = bytes / 4;
  texts = size - 4 - bytes;
  for (guint32 i = 0; i < n; i++) {
    guint32 unit = unit_at (map.at, i), children = i ^ ((unit >> 10) << ((unit & 512) >> 6));

    if (unit >> 31)
      continue;                 /* a leaf's value, reached from its parent */
    if ((children | 255) >= n || (unit & 256 && (unit_at (map.at, children) & G_MAXINT32) >= texts))
      return FALSE;
  }
  return TRUE;
}

static gboolean
model_is_safe (const char *data, gsize size)
{
  Bytes model = { (const guint8 *) data, (const guint8 *) data + size }, spec, value;
  guint64 field;

  while (model.at < model.end) {
    if (!take_field (&model, &field, &spec))
      return FALSE;
    if (field != 3 && field != 5)       /* normalizer_spec, denormalizer_spec */
      continue;
    while (spec.at < spec.end)
      if (!take_field (&spec, &field, &value) || (field == 2 && !charsmap_is_safe (value)))
        return FALSE;
  }
  return size > 0;
}

DpTokenizer *
dp_tokenizer_open (const char *dir, int vocab, GError **error)
{
  g_autoptr (DpTokenizer) tokenizer = g_new0 (DpTokenizer, 1);
  g_autofree char *path = g_file_test (dir, G_FILE_TEST_IS_REGULAR) ? g_strdup (dir) : g_build_filename (dir, "spiece.model", NULL);
  g_autofree char *data = NULL, *instead = NULL;
  char message[256] = "";
  gsize size;

  g_autofree char *json = g_build_filename (dir, "tokenizer.json", NULL);
  const char *note = g_file_test (json, G_FILE_TEST_EXISTS)
      ? "transformers 5 saves only a tokenizer.json, which is not read; copy spiece.model from the model that this one was made from, or "
      "from google/umt5-xxl" : "the tokenizer is this file; a tokenizer.json is not read";

  if (!dp_found_read (path, MAX_MODEL, "a SentencePiece model", note, &data, &size, error))
    return NULL;
  tokenizer->spm = model_is_safe (data, size) ? dp_spm_open (data, size, message, sizeof message) : NULL;
  if (tokenizer->spm == NULL) {
    instead = dp_found_content (data, size);
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a SentencePiece model, found %s%s%.256s", path,
        instead ? instead : "something else", *message && !instead ? ": " : "", instead ? "" : message);
    return NULL;
  }
  tokenizer->eos = dp_spm_eos (tokenizer->spm);
  tokenizer->vocab = dp_spm_pieces (tokenizer->spm);
  if (tokenizer->vocab > vocab || tokenizer->eos < 0 || tokenizer->eos >= tokenizer->vocab) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected at most the text encoder's %d pieces, one of them the end of a text, "
        "found %d pieces and the end at %d", path, vocab, tokenizer->vocab, tokenizer->eos);
    return NULL;
  }
  return g_steal_pointer (&tokenizer);
}

void
dp_tokenizer_free (DpTokenizer *tokenizer)
{
  if (tokenizer == NULL)
    return;
  if (tokenizer->spm)
    dp_spm_free (tokenizer->spm);
  g_free (tokenizer);
}

/* Names of special pieces in a prompt ("</s>") are text here; the reference would take them for the pieces. */
int
dp_tokenizer_encode (const DpTokenizer *tokenizer, const char *text, gint32 *ids, int max, GError **error)
{
  int n;

  g_assert (max >= 1);
  n = dp_spm_encode (tokenizer->spm, text, strlen (text), ids, max - 1);
  for (int i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= tokenizer->vocab)
      n = -1;
  if (n < 0) {
    dp_error_set (error, DP_ERROR_FAILED, "the tokenizer could not split the prompt into pieces; is it plain text?");
    return -1;
  }
  ids[n] = tokenizer->eos;
  return n + 1;
}

/* ---- dp_prompt_clean ---- */

/* NULL if there is none of that name. */
static const char *
find_entity (const char *name, gsize length)
{
  gsize low = 0, high = dp_n_html_entities;

  while (low < high) {
    gsize middle = (low + high) / 2;
    int order = strncmp (dp_html_entities[middle].name, name, length);

    if (order == 0)
      order = dp_html_entities[middle].name[length] != 0;
    if (order == 0)
      return dp_html_entities[middle].text;
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return NULL;
}

/* What a character reference stands for, 0 for nothing: HTML reads 0x80..0x9f as windows-1252. */
static gunichar
numeric_entity (guint32 code)
{
  static const guint16 windows[32] = { 0x20ac, 0x81, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152,
    0x8d, 0x017d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x9d, 0x017e,
    0x0178 };

  if (code >= 0x80 && code < 0xa0)
    return windows[code - 0x80];
  if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
    return 0xfffd;
  if ((code < 0x20 && !strchr ("\t\n\f\r", code)) || code == 0x7f || (code >= 0xfdd0 && code < 0xfdf0) || (code & 0xfffe) == 0xfffe)
    return 0;
  return code;
}

/* `&#` has been seen; appends what the digits at `p` mean and returns what is behind them, or NULL when there are none. */
static const char *
unescape_number (GString *out, const char *p)
{
  gboolean hex = *p == 'x' || *p == 'X';
  const char *first = p += hex;
  guint32 code = 0;

  for (; hex ? g_ascii_isxdigit (*p) : g_ascii_isdigit (*p); p++)
    code = MIN (code * (hex ? 16 : 10) + g_ascii_xdigit_value (*p), 0x110000);
  if (p == first)
    return NULL;
  if (numeric_entity (code))
    g_string_append_unichar (out, numeric_entity (code));
  return p + (*p == ';');
}

/* `&` has been seen. The whole name if it is known, else its longest beginning that is. */
static const char *
unescape_name (GString *out, const char *p)
{
  gsize length = 0;

  while (length < DP_MAX_HTML_ENTITY && g_ascii_isalnum (p[length]))
    length++;
  for (length += p[length] == ';'; length >= 2; length--) {
    const char *text = find_entity (p, length);

    if (text) {
      g_string_append (out, text);
      return p + length;
    }
  }
  return NULL;
}

static char *
unescape (const char *text)
{
  GString *out = g_string_sized_new (strlen (text));

  while (*text) {
    const char *behind = NULL;

    if (*text == '&')
      behind = text[1] == '#' ? unescape_number (out, text + 2) : unescape_name (out, text + 1);
    if (behind == NULL) {
      g_string_append_c (out, *text);
      behind = text + 1;
    }
    text = behind;
  }
  return g_string_free (out, FALSE);
}

/* Python's notion, which the reference uses. */
static gboolean
is_space (gunichar c)
{
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a)
      || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* The reference also runs ftfy where it is installed, which repairs text that was decoded with the wrong character set and
 * straightens quotes. That is not done here: it is thousands of lines of heuristics. docs/models.md says so. */
char *
dp_prompt_clean (const char *prompt, GError **error)
{
  g_autofree char *once = NULL, *twice = NULL;
  GString *out;

  if (strlen (prompt) > DP_MAX_PROMPT || !g_utf8_validate (prompt, -1, NULL)) {
    dp_error_set (error, DP_ERROR_SETTINGS, "prompt: expected UTF-8 text of at most %d bytes, found %s", DP_MAX_PROMPT,
        strlen (prompt) > DP_MAX_PROMPT ? "more" : "bytes that are not UTF-8");
    return NULL;
  }
  once = unescape (prompt);
  twice = unescape (once);
  out = g_string_sized_new (strlen (twice));
  for (const char *p = twice; *p; p = g_utf8_next_char (p)) {
    if (!is_space (g_utf8_get_char (p)))
      g_string_append_len (out, p, g_utf8_next_char (p) - p);
    else if (out->len && out->str[out->len - 1] != ' ')
      g_string_append_c (out, ' ');
  }
  if (out->len && out->str[out->len - 1] == ' ')
    g_string_truncate (out, out->len - 1);
  return g_string_free (out, FALSE);
}
