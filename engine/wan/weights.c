/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "weights.h"
#include "error.h"
#include "found.h"
#include "json_cursor.h"
#include "kernels/host.h"
#include "weights_safetensors.h"
#include "weights_torch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
  void (*watch) (gsize bytes, gpointer user_data);      /* is told what was read; or NULL */
  gpointer watch_data;
} File;

typedef struct
{
  DpTensor tensor;
  const File *file;
  char dtype[16];
  gboolean usable;              /* of a type that DpType has */
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

static gboolean
dtype_usable (const char *dtype, DpType *type)
{
  *type = strcmp (dtype, "BF16") == 0 ? DP_TYPE_BF16 : strcmp (dtype, "F16") == 0 ? DP_TYPE_F16 : DP_TYPE_F32;
  return *type != DP_TYPE_F32 || strcmp (dtype, "F32") == 0;
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

typedef struct
{
  DpWeights *weights;
  const File *file;
} Adding;

static gboolean
add_tensor (const char *name, const char *dtype, int n_dims, const gint64 *dims, guint64 offset, gsize bytes, gpointer user_data,
    GError **error)
{
  const Adding *to = user_data;
  const Entry *other = g_hash_table_lookup (to->weights->entries, name);

  if (other) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected once, found again in %s", to->file->path, name, other->file->path);
    return FALSE;
  }
  Entry *entry = g_new0 (Entry, 1);
  entry->tensor = (DpTensor) { .name = g_strdup (name), .n_dims = n_dims, .bytes = bytes, .file = to->file, .offset = offset };
  memcpy (entry->tensor.dims, dims, n_dims * sizeof *dims);
  entry->file = to->file;
  g_strlcpy (entry->dtype, dtype, sizeof entry->dtype);
  entry->usable = dtype_usable (dtype, &entry->tensor.type);
  g_hash_table_insert (to->weights->entries, (char *) entry->tensor.name, entry);
  return TRUE;
}

static gboolean
read_for_reader (gconstpointer source, guint64 offset, void *to, gsize bytes, GError **error)
{
  return file_get (source, offset, to, bytes, error);
}

static gboolean
weights_add_file (DpWeights *weights, const char *path, GError **error)
{
  File *file = g_new0 (File, 1);
  Adding to = { weights, file };
  char magic[4];

  file->path = g_strdup (path);
  file->fd = -1;
  g_ptr_array_add (weights->files, file);
  if (!file_open (file, error) || !file_get (file, 0, magic, sizeof magic, error))
    return FALSE;
  DpWeightsFile opened = { file->path, file->size, read_for_reader, file };
  return (memcmp (magic, "PK\3\4", 4) == 0 ? dp_torch_list : dp_safetensors_list) (&opened, add_tensor, &to, error);
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
    g_autofree char *expected = dp_dims_text (n_dims, dims);
    g_autofree char *found = dp_dims_text (entry->tensor.n_dims, entry->tensor.dims);

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
