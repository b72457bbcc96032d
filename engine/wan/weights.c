/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "weights.h"
#include "error.h"
#include "found.h"
#include "json_cursor.h"
#include "kernels/host.h"
#include "weights_torch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_HEADER ((guint64) 100 << 20)
#define MAX_INDEX ((gsize) 32 << 20)
#define MAX_SHARDS 512
#define PIECE ((gsize) 32 << 10)        /* bytes that are read at a time; they stay in a cache */

G_STATIC_ASSERT (G_BYTE_ORDER == G_LITTLE_ENDIAN);      /* safetensors data is used as it lies */

typedef struct
{
  char *path;
  int fd;
  gsize size;
  struct timespec modified;     /* when it was opened */
  gsize data;                   /* where the data begins, behind the header */
  gsize data_size;
  void (*watch) (gsize bytes, gpointer user_data);      /* is told what was read; or NULL */
  gpointer watch_data;
} File;

typedef struct
{
  DpTensor tensor;
  const File *file;
  char dtype[16];
  gboolean usable;              /* of a type that DpType has */
  gsize begin, end;
} Entry;

struct _DpWeights
{
  char *path;
  GPtrArray *files;             /* File */
  GHashTable *entries;          /* name -> Entry, which owns the name */
};

static void
file_free (gpointer data)
{
  File *file = data;

  if (file->fd >= 0)
    close (file->fd);
  g_free (file->path);
  g_free (file);
}

static void
entry_free (gpointer data)
{
  Entry *entry = data;

  g_free ((char *) entry->tensor.name);
  g_free (entry);
}

void
dp_weights_free (DpWeights *weights)
{
  if (weights == NULL)
    return;
  g_hash_table_unref (weights->entries);
  g_ptr_array_unref (weights->files);
  g_free (weights->path);
  g_free (weights);
}

const char *
dp_weights_path (const DpWeights *weights)
{
  return weights->path;
}

/* ---- one file ---- */

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

static gboolean
dtype_usable (const char *dtype, DpType *type)
{
  *type = strcmp (dtype, "BF16") == 0 ? DP_TYPE_BF16 : strcmp (dtype, "F16") == 0 ? DP_TYPE_F16 : DP_TYPE_F32;
  return *type != DP_TYPE_F32 || strcmp (dtype, "F32") == 0;
}

static char *
dims_to_string (int n_dims, const gint64 *dims)
{
  GString *out = g_string_new ("[");

  for (int i = 0; i < n_dims; i++)
    g_string_append_printf (out, "%s%" G_GINT64_FORMAT, i ? ", " : "", dims[i]);
  return g_string_free (g_string_append_c (out, ']'), FALSE);
}

static gboolean
dims_product (int n_dims, const gint64 *dims, guint64 *out)
{
  guint64 n = 1;

  for (int i = 0; i < n_dims; i++)
    if (dims[i] < 0 || __builtin_mul_overflow (n, (guint64) dims[i], &n))
      return FALSE;
  *out = n;
  return TRUE;
}

/* Does the tensor lie in the file, and is it as long as its shape says? */
static gboolean
entry_check (const Entry *entry, GError **error)
{
  const DpTensor *t = &entry->tensor;
  const File *file = entry->file;
  int bits = dtype_bits (entry->dtype);
  guint64 elements, total;

  if (entry->begin > entry->end || entry->end > file->data_size) {
    dp_error_set (error, DP_ERROR_BAD_MODEL,
        "%s: tensor %s: expected data within the file's %" G_GSIZE_FORMAT " bytes, found [%" G_GSIZE_FORMAT ", %" G_GSIZE_FORMAT
        "): the file is cut off or damaged; fetch it again", file->path, t->name, file->data_size, entry->begin, entry->end);
    return FALSE;
  }
  if (!dims_product (t->n_dims, t->dims, &elements) || __builtin_mul_overflow (elements, (guint64) MAX (bits, 1), &total)
      || (bits && (total % 8 || total / 8 != entry->end - entry->begin))) {
    g_autofree char *dims = dims_to_string (t->n_dims, t->dims);

    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected the bytes of %s %s, found %" G_GSIZE_FORMAT " bytes",
        file->path, t->name, entry->dtype, dims, entry->end - entry->begin);
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
      if (!dp_json_counts (json, entry->tensor.dims, DP_TENSOR_MAX_DIMS, &entry->tensor.n_dims, "at most 8 dimensions"))
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

/* A new entry of that name, which the set does not have yet; NULL with an error if it has. */
static Entry *
weights_add_entry (DpWeights *weights, const File *file, const char *name, GError **error)
{
  const Entry *other = g_hash_table_lookup (weights->entries, name);

  if (other) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected once, found again in %s", file->path, name, other->file->path);
    return NULL;
  }
  Entry *entry = g_new0 (Entry, 1);
  entry->tensor.name = g_strdup (name);
  entry->file = file;
  g_hash_table_insert (weights->entries, (char *) entry->tensor.name, entry);
  return entry;
}

/* Once dtype, dims, begin and end are known. */
static gboolean
entry_finish (Entry *entry, GError **error)
{
  if (!entry_check (entry, error))
    return FALSE;
  entry->usable = dtype_usable (entry->dtype, &entry->tensor.type);
  entry->tensor.bytes = entry->end - entry->begin;
  entry->tensor.file = entry->file;
  entry->tensor.offset = entry->file->data + entry->begin;
  return TRUE;
}

/* Every tensor of the header, into `entries` (in the file's order, for file_check_layout) and into weights. */
static gboolean
file_parse (DpWeights *weights, const File *file, DpJson *json, GPtrArray *entries)
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
    Entry *entry = weights_add_entry (weights, file, name->str, json->error);
    if (entry == NULL)
      return FALSE;
    g_ptr_array_add (entries, entry);
    if (!entry_parse (entry, json, scratch) || !entry_finish (entry, json->error))
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
file_check_layout (const File *file, GPtrArray *entries, GError **error)
{
  gsize at = 0;

  g_ptr_array_sort (entries, by_offset);
  for (guint i = 0; i < entries->len; i++) {
    const Entry *entry = g_ptr_array_index (entries, i);

    if (entry->begin != at) {
      dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected its data at offset %" G_GSIZE_FORMAT ", found it at %"
          G_GSIZE_FORMAT ": tensors %s", file->path, entry->tensor.name, at, entry->begin,
          entry->begin < at ? "overlap" : "leave a hole between them");
      return FALSE;
    }
    at = entry->end;
  }
  if (at != file->data_size) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected %" G_GSIZE_FORMAT " bytes of data, found %" G_GSIZE_FORMAT, file->path,
        at, file->data_size);
    return FALSE;
  }
  return TRUE;
}

static gboolean
file_open (File *file, GError **error)
{
  struct stat st;
  gint64 size = 0;

  file->fd = dp_found_open (file->path, "expected a .safetensors file", &size, error);
  if (file->fd < 0)
    return FALSE;
  if (fstat (file->fd, &st) < 0)
    return dp_found_unreadable (file->path, errno, NULL, error);
  if (st.st_size < 10) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a safetensors file, found only %" G_GINT64_FORMAT " bytes; fetch it "
        "again", file->path, (gint64) st.st_size);
    return FALSE;
  }
  file->size = st.st_size;
  file->modified = st.st_mtim;
  return TRUE;
}

static gboolean
file_check_unchanged (const File *file, GError **error)
{
  struct stat st;

  if (fstat (file->fd, &st) < 0)
    return dp_found_unreadable (file->path, errno, NULL, error);
  if ((gsize) st.st_size == file->size && st.st_mtim.tv_sec == file->modified.tv_sec && st.st_mtim.tv_nsec == file->modified.tv_nsec)
    return TRUE;
  g_autofree char *how = (gsize) st.st_size == file->size ? g_strdup ("it was written to")
      : g_strdup_printf ("it had %" G_GSIZE_FORMAT " bytes and has %" G_GINT64_FORMAT, file->size, (gint64) st.st_size);
  dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: the file was changed while it was in use: %s; start again when it is complete, and replace "
      "the files of a model in use by renaming", file->path, how);
  return FALSE;
}

/* Returns 0 or an errno; ENODATA: the file ends before that. */
static int
file_read (const File *file, guint64 offset, void *to, gsize bytes)
{
  gsize all = bytes;

  while (bytes > 0) {
    gssize n = pread (file->fd, to, bytes, offset);

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? errno : ENODATA;
    to = (char *) to + n;
    offset += n;
    bytes -= n;
  }
  if (file->watch)
    file->watch (all, file->watch_data);
  return 0;
}

static gboolean
file_get (const File *file, guint64 offset, void *to, gsize bytes, GError **error)
{
  int failure = file_read (file, offset, to, bytes);

  if (failure == 0)
    return TRUE;
  if (file_check_unchanged (file, error))
    dp_found_unreadable (file->path, failure, NULL, error);
  return FALSE;
}

static gboolean
file_is_no_safetensors (const File *file, guint64 header, GError **error)
{
  char head[128];
  gsize size = MIN (file->size, sizeof head);

  if (!file_get (file, 0, head, size, error))
    return FALSE;
  g_autofree char *instead = dp_found_content (head, size);
  if (instead)
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a safetensors file, found %s", file->path, instead);
  else if (header <= MAX_HEADER && header > file->size - 8)
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a header of %" G_GUINT64_FORMAT " bytes, found a file of %" G_GSIZE_FORMAT
        ": it is cut off; fetch it again", file->path, header, file->size);
  else
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a safetensors file, found another format", file->path);
  return FALSE;
}

typedef struct
{
  DpWeights *weights;
  const File *file;
} Adding;

static gboolean
add_torch_tensor (const char *name, const char *dtype, int n_dims, const gint64 *dims, guint64 offset, gsize bytes, gpointer user_data,
    GError **error)
{
  Adding *to = user_data;
  Entry *entry = weights_add_entry (to->weights, to->file, name, error);

  if (entry == NULL)
    return FALSE;
  g_strlcpy (entry->dtype, dtype, sizeof entry->dtype);
  entry->tensor.n_dims = n_dims;
  memcpy (entry->tensor.dims, dims, n_dims * sizeof *dims);
  entry->begin = offset;
  entry->end = offset + bytes;
  return entry_finish (entry, error);
}

static gboolean
read_for_torch (gconstpointer source, guint64 offset, void *to, gsize bytes, GError **error)
{
  return file_get (source, offset, to, bytes, error);
}

static gboolean
weights_add_torch (DpWeights *weights, File *file, GError **error)
{
  DpTorchFile torch = { file->path, file->size, read_for_torch, file };
  Adding to = { weights, file };

  file->data_size = file->size;
  return dp_torch_list (&torch, add_torch_tensor, &to, error);
}

static gboolean
weights_add_file (DpWeights *weights, const char *path, GError **error)
{
  g_autoptr (GPtrArray) entries = g_ptr_array_new ();
  File *file = g_new0 (File, 1);
  guint64 length;

  file->path = g_strdup (path);
  file->fd = -1;
  g_ptr_array_add (weights->files, file);
  if (!file_open (file, error) || !file_get (file, 0, &length, 8, error))
    return FALSE;
  if (memcmp (&length, "PK\3\4", 4) == 0)
    return weights_add_torch (weights, file, error);
  if (length < 2 || length > MAX_HEADER || length > file->size - 8)
    return file_is_no_safetensors (file, length, error);
  file->data = 8 + length;
  file->data_size = file->size - file->data;

  g_autofree char *header = g_try_malloc (length);
  if (header == NULL) {
    dp_error_set (error, DP_ERROR_NO_MEMORY, "%s: its header needs %" G_GUINT64_FORMAT " bytes of memory, which this machine has not left",
        path, length);
    return FALSE;
  }
  if (!file_get (file, 8, header, length, error))
    return FALSE;
  DpJson json = { path, header, header, header + length, error };
  if (!g_utf8_validate_len (json.start, length, &json.at))
    return dp_json_fail (&json, "UTF-8");
  json.at = json.start;
  if (!file_parse (weights, file, &json, entries))
    return FALSE;
  dp_json_space (&json);
  if (json.at != json.end)
    return dp_json_fail (&json, "nothing but spaces");
  return file_check_layout (file, entries, error);
}

/* ---- a sharded model ---- */

/* weight_map: tensor -> file. Fills `map` and, in order of appearance, `shards`. */
static gboolean
index_parse_map (DpJson *json, GHashTable *map, GPtrArray *shards)
{
  g_autoptr (GString) name = g_string_new (NULL);
  g_autoptr (GString) shard = g_string_new (NULL);

  if (!dp_json_expect (json, '{'))
    return FALSE;
  if (dp_json_take (json, '}'))
    return TRUE;
  do {
    guint i;

    if (!dp_json_string (json, name) || !dp_json_expect (json, ':') || !dp_json_string (json, shard))
      return FALSE;
    if (shard->len == 0 || shard->str[0] == '.' || strpbrk (shard->str, "/\\"))
      return dp_json_fail (json, "the name of a file in the same directory");
    if (g_hash_table_contains (map, name->str))
      return dp_json_fail (json, "each tensor once");
    if (!g_ptr_array_find_with_equal_func (shards, shard->str, g_str_equal, &i)) {
      if (shards->len == MAX_SHARDS)
        return dp_json_fail (json, "fewer files");
      i = shards->len;
      g_ptr_array_add (shards, g_strdup (shard->str));
    }
    g_hash_table_insert (map, g_strdup (name->str), g_ptr_array_index (shards, i));
  } while (dp_json_take (json, ','));
  return dp_json_expect (json, '}');
}

static gboolean
index_parse (DpJson *json, GHashTable *map, GPtrArray *shards)
{
  g_autoptr (GString) key = g_string_new (NULL);
  gboolean seen = FALSE;

  if (!dp_json_expect (json, '{'))
    return FALSE;
  do {
    if (!dp_json_string (json, key) || !dp_json_expect (json, ':'))
      return FALSE;
    if (strcmp (key->str, "weight_map") == 0) {
      if (seen)
        return dp_json_fail (json, "one weight_map");
      seen = TRUE;
      if (!index_parse_map (json, map, shards))
        return FALSE;
    } else if (!dp_json_skip (json, key)) {
      return FALSE;
    }
  } while (dp_json_take (json, ','));
  if (!dp_json_expect (json, '}'))
    return FALSE;
  dp_json_space (json);
  if (json->at != json->end)
    return dp_json_fail (json, "nothing more");
  return g_hash_table_size (map) > 0 || dp_json_fail (json, "a weight_map with tensors");
}

static gboolean
index_check (DpWeights *weights, GHashTable *map, GError **error)
{
  GHashTableIter iter;
  gpointer name, shard;

  g_hash_table_iter_init (&iter, map);
  while (g_hash_table_iter_next (&iter, &name, &shard)) {
    const Entry *entry = g_hash_table_lookup (weights->entries, name);
    g_autofree char *base = entry ? g_path_get_basename (entry->file->path) : NULL;

    if (entry == NULL || strcmp (base, shard) != 0) {
      dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected in %s, found %s%s", weights->path, (char *) name,
          (char *) shard, entry ? "it in " : "it nowhere", entry ? base : "");
      return FALSE;
    }
  }
  return TRUE;
}

static gboolean
weights_add_index (DpWeights *weights, const char *dir, GError **error)
{
  g_autoptr (GHashTable) map = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_autoptr (GPtrArray) shards = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *text = NULL, *instead = NULL;
  gsize size;

  if (!dp_found_read (weights->path, MAX_INDEX, "json", NULL, &text, &size, error))
    return FALSE;
  instead = dp_found_content (text, size);
  if (instead || !g_utf8_validate_len (text, size, NULL)) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected json, found %s", weights->path, instead ? instead : "bytes that are not UTF-8");
    return FALSE;
  }
  DpJson json = { weights->path, text, text, text + size, error };
  if (!index_parse (&json, map, shards))
    return FALSE;
  for (guint i = 0; i < shards->len; i++) {
    g_autofree char *path = g_build_filename (dir, g_ptr_array_index (shards, i), NULL);

    DpFound found = dp_found_at (path, error);
    if (found == DP_FOUND_NOTHING)
      dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: missing, but %s names it; the download is not complete", path, weights->path);
    if (found != DP_FOUND_SOMETHING || !weights_add_file (weights, path, error))
      return FALSE;
  }
  return index_check (weights, map, error);
}

/* What a stem may end in; of several files the first counts. */
static const char *const suffixes[] = { ".safetensors", ".pth", ".pt" };

gboolean
dp_weights_is_named (const char *name)
{
  gboolean is = FALSE;

  for (gsize i = 0; i < G_N_ELEMENTS (suffixes); i++)
    is = is || g_str_has_suffix (name, suffixes[i]);
  return is;
}

DpWeights *
dp_weights_open (const char *dir, const char *stem, GError **error)
{
  g_autoptr (DpWeights) weights = NULL;
  g_autofree char *single = stem ? g_strdup_printf ("%s/%s.safetensors", dir, stem) : g_strdup (dir);
  g_autofree char *index = stem ? g_strdup_printf ("%s.index.json", single) : NULL;
  DpFound found = dp_found_at (single, error);
  gboolean sharded = index && found == DP_FOUND_NOTHING;

  if (sharded)
    found = dp_found_at (index, error);
  for (gsize i = 1; stem && found == DP_FOUND_NOTHING && i < G_N_ELEMENTS (suffixes); i++) {
    g_free (single);
    single = g_strdup_printf ("%s/%s%s", dir, stem, suffixes[i]);
    sharded = FALSE;
    found = dp_found_at (single, error);
  }
  if (found == DP_FOUND_NOTHING && index)
    dp_found_no_weights (dir, stem, error);
  else if (found == DP_FOUND_NOTHING)
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: no such file: expected a .safetensors file", single);
  if (found != DP_FOUND_SOMETHING)
    return NULL;
  weights = g_new0 (DpWeights, 1);
  weights->path = g_strdup (sharded ? index : single);
  weights->files = g_ptr_array_new_with_free_func (file_free);
  weights->entries = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, entry_free);
  if (!(sharded ? weights_add_index (weights, dir, error) : weights_add_file (weights, single, error)))
    return NULL;
  return g_steal_pointer (&weights);
}

/* ---- looking up ---- */

const DpTensor *
dp_weights_find (const DpWeights *weights, const char *name)
{
  const Entry *entry = g_hash_table_lookup (weights->entries, name);

  return entry && entry->usable ? &entry->tensor : NULL;
}

const char *
dp_weights_find_unknown (const DpWeights *weights, gboolean (*known) (const char *name, gpointer user_data), gpointer user_data)
{
  const char *first = NULL;
  GHashTableIter iter;
  gpointer name;

  g_hash_table_iter_init (&iter, weights->entries);
  while (g_hash_table_iter_next (&iter, &name, NULL))
    if (!known (name, user_data) && (first == NULL || strcmp (name, first) < 0))
      first = name;
  return first;
}

gsize
dp_weights_bytes (const DpWeights *weights, const char *prefix)
{
  GHashTableIter iter;
  gpointer name, entry;
  gsize bytes = 0;

  g_hash_table_iter_init (&iter, weights->entries);
  while (g_hash_table_iter_next (&iter, &name, &entry))
    if (g_str_has_prefix (name, prefix))
      bytes += ((const Entry *) entry)->tensor.bytes;
  return bytes;
}

void
dp_weights_watch (DpWeights *weights, void (*read) (gsize bytes, gpointer user_data), gpointer user_data)
{
  for (guint i = 0; i < weights->files->len; i++) {
    File *file = g_ptr_array_index (weights->files, i);

    file->watch = read;
    file->watch_data = user_data;
  }
}

const DpTensor *
dp_weights_get (const DpWeights *weights, GError **error, int n_dims, const gint64 *dims, const char *format, ...)
{
  g_autofree char *name = NULL;
  const Entry *entry;
  va_list args;

  va_start (args, format);
  name = g_strdup_vprintf (format, args);
  va_end (args);
  entry = g_hash_table_lookup (weights->entries, name);
  if (entry == NULL) {
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: tensor %s is missing: not the weights that the config file describes",
        weights->path, name);
    return NULL;
  }
  if (!entry->usable) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected type F32, BF16 or F16, found %s", entry->file->path, name,
        entry->dtype);
    return NULL;
  }
  if (entry->tensor.n_dims != n_dims || (n_dims && memcmp (entry->tensor.dims, dims, n_dims * sizeof *dims) != 0)) {
    g_autofree char *expected = dims_to_string (n_dims, dims);
    g_autofree char *found = dims_to_string (entry->tensor.n_dims, entry->tensor.dims);

    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected shape %s, found %s", entry->file->path, name, expected,
        found);
    return NULL;
  }
  return &entry->tensor;
}

/* ---- reading ---- */

static float
f16_to_f32 (guint16 h)
{
  guint32 sign = (guint32) (h & 0x8000) << 16, exponent = h >> 10 & 0x1f, mantissa = h & 0x3ff, bits;
  float f;

  if (exponent == 0) {
    f = mantissa * 0x1p-24f;
    return sign ? -f : f;
  }
  bits = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13;
  memcpy (&f, &bits, 4);
  return f;
}

static void
to_f32 (DpType type, const void *data, gsize n, float *out)
{
  const guint16 *half = data;

  if (type == DP_TYPE_F32) {
    memcpy (out, data, n * 4);
  } else if (type == DP_TYPE_BF16) {
    for (gsize i = 0; i < n; i++) {
      guint32 bits = (guint32) half[i] << 16;

      memcpy (&out[i], &bits, 4);
    }
  } else {
    for (gsize i = 0; i < n; i++)
      out[i] = f16_to_f32 (half[i]);
  }
}

static gboolean
check_finite (const DpTensor *tensor, DpType type, const void *data, gsize n, GError **error)
{
  const File *file = tensor->file;

  if (dp_all_finite (type, data, n))
    return TRUE;
  dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected finite numbers, found NaN or infinity; fetch the file again",
      file->path, tensor->name);
  return FALSE;
}

gboolean
dp_weights_check_unchanged (const DpWeights *weights, GError **error)
{
  for (guint i = 0; i < weights->files->len; i++)
    if (!file_check_unchanged (g_ptr_array_index (weights->files, i), error))
      return FALSE;
  return TRUE;
}

/* A piece of a tensor, and its numbers as they are; `data` has room for PIECE bytes. Returns how many, or 0 with an error. */
static gsize
read_piece (const DpTensor *tensor, gsize first, gsize n, void *data, GError **error)
{
  gsize size = dp_type_size (tensor->type), m = MIN (n, PIECE / size);

  return file_get (tensor->file, tensor->offset + first * size, data, m * size, error) ? m : 0;
}

gboolean
dp_weights_read (const DpWeights *weights, const DpTensor *tensor, gsize first, gsize n, float *out, GError **error)
{
  gsize all = tensor->bytes / dp_type_size (tensor->type);
  guint64 data[PIECE / 8];

  g_assert (first <= all && n <= all - first);
  for (gsize i = 0, m; i < n; i += m) {
    m = read_piece (tensor, first + i, n - i, data, error);
    if (m == 0)
      return FALSE;
    to_f32 (tensor->type, data, m, out + i);
  }
  return TRUE;
}

gboolean
dp_weights_read_finite (const DpWeights *weights, const DpTensor *tensor, float *out, GError **error)
{
  gsize n = tensor->bytes / dp_type_size (tensor->type);

  return dp_weights_read (weights, tensor, 0, n, out, error) && check_finite (tensor, DP_TYPE_F32, out, n, error);
}

gboolean
dp_weights_check_finite (const DpWeights *weights, const DpTensor *tensor, GError **error)
{
  gsize n = tensor->bytes / dp_type_size (tensor->type);
  guint64 data[PIECE / 8];

  /* What is read of a file that changed may be anything. */
  if (!dp_weights_check_unchanged (weights, error))
    return FALSE;
  for (gsize i = 0, m; i < n; i += m) {
    m = read_piece (tensor, i, n - i, data, error);
    if (m == 0 || !check_finite (tensor, tensor->type, data, m, error))
      return FALSE;
  }
  return TRUE;
}

static bool
read_for_packing (const void *file, uint64_t offset, void *to, size_t bytes)
{
  return file_read (file, offset, to, bytes) == 0;
}

DpHostWeight
dp_tensor_weight (const DpTensor *tensor, int rows)
{
  return (DpHostWeight) { .type = tensor->type, .rows = rows, .read = read_for_packing, .source = tensor->file, .offset = tensor->offset };
}
