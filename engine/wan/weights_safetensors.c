/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "weights_safetensors.h"
#include "error.h"
#include "found.h"
#include "json_cursor.h"
#include "weights.h"

#include <string.h>

#define MAX_HEADER ((guint64) 100 << 20)

typedef struct
{
  char *name;
  char dtype[16];
  int n_dims;
  gint64 dims[DP_TENSOR_MAX_DIMS];
  gsize begin, end;             /* in the data */
} Entry;

typedef struct
{
  const DpWeightsFile *file;
  gsize data, data_size;        /* where the data begins in the file */
  GPtrArray *entries;           /* Entry */
  DpTensorFound *found;
  gpointer user_data;
} Reading;

static void
entry_free (gpointer data)
{
  Entry *entry = data;

  g_free (entry->name);
  g_free (entry);
}

/* Bits of an element; 0: a type this code has not heard of. */
static int
dtype_bits (const char *dtype)
{
  static const struct { const char *name; int bits; } known[] = {
    { "F32", 32 }, { "BF16", 16 }, { "F16", 16 }, { "F64", 64 }, { "I64", 64 }, { "U64", 64 }, { "C64", 64 }, { "I32", 32 }, { "U32", 32 },
    { "I16", 16 }, { "U16", 16 }, { "I8", 8 }, { "U8", 8 }, { "BOOL", 8 }, { "F8_E4M3", 8 }, { "F8_E5M2", 8 }, { "F8_E8M0", 8 },
    { "F6_E2M3", 6 }, { "F6_E3M2", 6 }, { "F4", 4 },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (known); i++)
    if (strcmp (dtype, known[i].name) == 0)
      return known[i].bits;
  return 0;
}

/* Does the tensor lie in the file, and is it as long as its shape says? */
static gboolean
entry_check (const Entry *entry, const Reading *r, GError **error)
{
  int bits = dtype_bits (entry->dtype);
  guint64 elements, total;

  if (entry->begin > entry->end || entry->end > r->data_size) {
    dp_error_set (error, DP_ERROR_BAD_MODEL,
        "%s: tensor %s: expected data within the file's %" G_GSIZE_FORMAT " bytes, found [%" G_GSIZE_FORMAT ", %" G_GSIZE_FORMAT
        "): the file is cut off or damaged; fetch it again", r->file->path, entry->name, r->data_size, entry->begin, entry->end);
    return FALSE;
  }
  if (!dp_dims_product (entry->n_dims, entry->dims, &elements) || __builtin_mul_overflow (elements, (guint64) MAX (bits, 1), &total)
      || (bits && (total % 8 || total / 8 != entry->end - entry->begin))) {
    g_autofree char *dims = dp_dims_text (entry->n_dims, entry->dims);

    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected the bytes of %s %s, found %" G_GSIZE_FORMAT " bytes",
        r->file->path, entry->name, entry->dtype, dims, entry->end - entry->begin);
    return FALSE;
  }
  return TRUE;
}

/* The object behind a tensor's name. */
static gboolean
entry_parse (Entry *entry, DpJson *json, GString *key)
{
  gint64 offsets[2];
  int n = 0;
  guint seen = 0, bit;

  if (!dp_json_expect (json, '{'))
    return FALSE;
  do {
    if (!dp_json_string (json, key) || !dp_json_expect (json, ':'))
      return FALSE;
    if (strcmp (key->str, "dtype") == 0) {
      bit = 1;
      if (!dp_json_string (json, key))
        return FALSE;
      if (key->len >= sizeof entry->dtype)
        return dp_json_fail (json, "the name of a type");
      g_strlcpy (entry->dtype, key->str, sizeof entry->dtype);
    } else if (strcmp (key->str, "shape") == 0) {
      bit = 2;
      if (!dp_json_counts (json, entry->dims, DP_TENSOR_MAX_DIMS, &entry->n_dims, "at most 8 dimensions"))
        return FALSE;
    } else if (strcmp (key->str, "data_offsets") == 0) {
      bit = 4;
      if (!dp_json_counts (json, offsets, 2, &n, "two offsets"))
        return FALSE;
    } else {
      return dp_json_fail (json, "dtype, shape or data_offsets");
    }
    if (seen & bit)
      return dp_json_fail (json, "each key once");
    seen |= bit;
  } while (dp_json_take (json, ','));
  if (seen != 7 || n != 2)
    return dp_json_fail (json, "dtype, shape and two data_offsets");
  entry->begin = offsets[0];
  entry->end = offsets[1];
  return dp_json_expect (json, '}');
}

static gboolean
parse_metadata (DpJson *json, GString *scratch)
{
  if (!dp_json_expect (json, '{'))
    return FALSE;
  if (dp_json_take (json, '}'))
    return TRUE;
  do {
    if (!dp_json_string (json, scratch) || !dp_json_expect (json, ':') || !dp_json_string (json, scratch))
      return FALSE;
  } while (dp_json_take (json, ','));
  return dp_json_expect (json, '}');
}

/* Every tensor of the header. */
static gboolean
parse_header (Reading *r, DpJson *json)
{
  g_autoptr (GString) name = g_string_new (NULL);
  g_autoptr (GString) scratch = g_string_new (NULL);

  if (!dp_json_expect (json, '{'))
    return FALSE;
  if (dp_json_take (json, '}'))
    return TRUE;
  do {
    if (!dp_json_string (json, name) || !dp_json_expect (json, ':'))
      return FALSE;
    if (strcmp (name->str, "__metadata__") == 0) {
      if (!parse_metadata (json, scratch))
        return FALSE;
      continue;
    }
    Entry *e = g_new0 (Entry, 1);
    e->name = g_strdup (name->str);
    g_ptr_array_add (r->entries, e);
    if (!entry_parse (e, json, scratch) || !entry_check (e, r, json->error)
        || !r->found (e->name, e->dtype, e->n_dims, e->dims, r->data + e->begin, e->end - e->begin, r->user_data, json->error))
      return FALSE;
  } while (dp_json_take (json, ','));
  return dp_json_expect (json, '}');
}

static gint
by_offset (gconstpointer a, gconstpointer b)
{
  const Entry *x = *(const Entry *const *) a, *y = *(const Entry *const *) b;

  if (x->begin != y->begin)
    return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

/* The format allows no holes between the data. Something could be hidden in one. */
static gboolean
check_layout (const Reading *r, GError **error)
{
  gsize at = 0;

  g_ptr_array_sort (r->entries, by_offset);
  for (guint i = 0; i < r->entries->len; i++) {
    const Entry *entry = g_ptr_array_index (r->entries, i);

    if (entry->begin != at) {
      dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected its data at offset %" G_GSIZE_FORMAT ", found it at %"
          G_GSIZE_FORMAT ": tensors %s", r->file->path, entry->name, at, entry->begin,
          entry->begin < at ? "overlap" : "leave a hole between them");
      return FALSE;
    }
    at = entry->end;
  }
  if (at != r->data_size) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected %" G_GSIZE_FORMAT " bytes of data, found %" G_GSIZE_FORMAT, r->file->path,
        at, r->data_size);
    return FALSE;
  }
  return TRUE;
}

static gboolean
is_another_format (const DpWeightsFile *file, guint64 header, GError **error)
{
  char head[128];
  gsize size = MIN (file->size, sizeof head);

  if (!file->read (file->source, 0, head, size, error))
    return FALSE;
  g_autofree char *instead = dp_found_content (head, size);
  if (instead)
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a safetensors file, found %s", file->path, instead);
  else if (header <= MAX_HEADER && header > file->size - 8)
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a header of %" G_GUINT64_FORMAT " bytes, found a file of %" G_GUINT64_FORMAT
        ": it is cut off; fetch it again", file->path, header, file->size);
  else
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a safetensors file, found another format", file->path);
  return FALSE;
}

gboolean
dp_safetensors_list (const DpWeightsFile *file, DpTensorFound *found, gpointer user_data, GError **error)
{
  g_autoptr (GPtrArray) entries = g_ptr_array_new_with_free_func (entry_free);
  guint64 length;

  g_assert (file->size >= 8);
  if (!file->read (file->source, 0, &length, 8, error))
    return FALSE;
  if (length < 2 || length > MAX_HEADER || length > file->size - 8)
    return is_another_format (file, length, error);
  Reading r = { file, 8 + length, file->size - 8 - length, entries, found, user_data };

  g_autofree char *header = g_try_malloc (length);
  if (header == NULL) {
    dp_error_set (error, DP_ERROR_NO_MEMORY, "%s: its header needs %" G_GUINT64_FORMAT " bytes of memory, which this machine has not left",
        file->path, length);
    return FALSE;
  }
  if (!file->read (file->source, 8, header, length, error))
    return FALSE;
  DpJson json = { file->path, header, header, header + length, error };
  if (!g_utf8_validate_len (json.start, length, &json.at))
    return dp_json_fail (&json, "UTF-8");
  json.at = json.start;
  if (!parse_header (&r, &json))
    return FALSE;
  dp_json_space (&json);
  if (json.at != json.end)
    return dp_json_fail (&json, "nothing but spaces");
  return check_layout (&r, error);
}
