/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "weights.h"
#include "error.h"
#include "found.h"
#include "json_cursor.h"
#include "kernels/host.h"
#include "kernels/numeric.h"
#include "quantized.h"
#include "weights_gguf.h"
#include "weights_safetensors.h"
#include "weights_torch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
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
  char *stored;                 /* its name in the file */
  gboolean usable;              /* of a type that DpType has, or that is unpacked to float32 */
  gsize bytes;                  /* in the file */
} Entry;

struct _DpWeights
{
  char *path;
  GPtrArray *files;             /* File */
  GHashTable *entries;          /* name -> Entry, which owns the name */
  GString *changes;             /* see dp_weights_changes() */
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

void
dp_delta_free (DpDelta *delta)
{
  g_free (delta->up);
  g_free (delta->down);
  g_free (delta);
}

static void
entry_free (gpointer data)
{
  Entry *entry = data;

  for (DpDelta *delta = entry->tensor.deltas, *next; delta; delta = next) {
    next = delta->next;
    dp_delta_free (delta);
  }
  g_free ((char *) entry->tensor.name);
  g_free ((float *) entry->tensor.scales);
  g_free (entry->stored);
  g_free (entry);
}

void
dp_weights_free (DpWeights *weights)
{
  if (weights == NULL)
    return;
  g_hash_table_unref (weights->entries);
  g_ptr_array_unref (weights->files);
  g_string_free (weights->changes, TRUE);
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

/* Says why it could not be read. */
static gboolean
file_check_read (const File *file, int failure, GError **error)
{
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

/* Type and bytes of a tensor of whose dtype there are `bytes` bytes in the file. A file may name any type for any number of bytes. */
static gboolean
tensor_set_type (DpTensor *tensor, const char *dtype, gsize bytes)
{
  guint64 elements;

  tensor->bytes = bytes;
  tensor->type = strcmp (dtype, "BF16") == 0 ? DP_TYPE_BF16 : strcmp (dtype, "F16") == 0 ? DP_TYPE_F16 : DP_TYPE_F32;
  tensor->stored = tensor->type;
  tensor->quantized = dp_quantized_find (dtype);
  if (tensor->quantized == NULL)
    return tensor->type != DP_TYPE_F32 || strcmp (dtype, "F32") == 0;
  if (!dp_dims_product (tensor->n_dims, tensor->dims, &elements) || elements % tensor->quantized->block
      || bytes % tensor->quantized->bytes || elements / tensor->quantized->block != bytes / tensor->quantized->bytes)
    return FALSE;
  tensor->bytes = elements * sizeof (float);
  return TRUE;
}

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
  entry->tensor = (DpTensor) { .name = g_strdup (name), .n_dims = n_dims, .file = to->file, .offset = offset };
  memcpy (entry->tensor.dims, dims, n_dims * sizeof *dims);
  entry->file = to->file;
  entry->stored = g_strdup (name);
  g_strlcpy (entry->dtype, dtype, sizeof entry->dtype);
  entry->bytes = bytes;
  entry->usable = tensor_set_type (&entry->tensor, dtype, bytes);
  g_hash_table_insert (to->weights->entries, (char *) entry->tensor.name, entry);
  return TRUE;
}

static gboolean
read_for_reader (gconstpointer source, guint64 offset, void *to, gsize bytes, GError **error)
{
  return file_check_read (source, file_read (source, offset, to, bytes), error);
}

static gboolean
weights_add_file (DpWeights *weights, const char *path, GError **error)
{
  File *file = g_new0 (File, 1);
  Adding to = { weights, file };
  DpTensorList *list;
  char magic[4];

  file->path = g_strdup (path);
  file->fd = -1;
  g_ptr_array_add (weights->files, file);
  if (!file_open (file, error) || !read_for_reader (file, 0, magic, sizeof magic, error))
    return FALSE;
  DpWeightsFile opened = { file->path, file->size, read_for_reader, file };
  list = memcmp (magic, "PK\3\4", 4) == 0 ? dp_torch_list : memcmp (magic, "GGUF", 4) == 0 ? dp_gguf_list : dp_safetensors_list;
  return list (&opened, add_tensor, &to, error);
}

gboolean
dp_weights_are_in (const char *path)
{
  char head[9];
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  gssize n = fd < 0 ? 0 : read (fd, head, sizeof head);

  if (fd >= 0)
    close (fd);
  /* safetensors: the length of a json object, which is no text */
  return n == sizeof head && (memcmp (head, "PK\3\4", 4) == 0 || memcmp (head, "GGUF", 4) == 0 || (head[8] == '{' && head[7] == 0));
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

/* ---- scales of fp8 weights ---- */

/* What may stand beside BASE.weight, as BASE and this. After the scales come those of activations, which are not quantised here, and a text
 * that repeats what the type and the scale's shape say. */
#define SCALES 2
static const char *const companions[] = { ".scale_weight", ".weight_scale", ".scale_input", ".input_scale", ".comfy_quant" };

static gint
by_name (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

static gboolean
is_fp8 (const Entry *entry)
{
  return g_str_has_prefix (entry->dtype, "F8_E") && entry->usable;
}

/* One scale for the tensor, or one for each row. */
static gboolean
take_scale (const DpWeights *weights, Entry *weight, const Entry *scale, GError **error)
{
  const DpTensor *t = &scale->tensor;
  gint64 rows = weight->tensor.n_dims > 0 ? weight->tensor.dims[0] : 1;
  guint64 elements = weight->tensor.bytes / sizeof (float), n = 0;
  gboolean fits = dp_dims_product (t->n_dims, t->dims, &n) && t->n_dims <= 2 && (n == 1 || (n == (guint64) rows && t->dims[0] == rows));
  float *scales;

  if (weight->tensor.scales || !fits || !scale->usable || t->quantized) {
    g_autofree char *dims = dp_dims_text (t->n_dims, t->dims);

    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected one scale of type F32, BF16 or F16 for %s, or one for each of its %"
        G_GINT64_FORMAT " rows, found %s %s%s", scale->file->path, t->name, weight->tensor.name, rows, scale->dtype, dims,
        weight->tensor.scales ? " beside another" : "");
    return FALSE;
  }
  weight->tensor.scales = scales = g_new (float, n);
  weight->tensor.per_scale = MAX (elements / MAX (n, 1), 1);
  return dp_weights_read_finite (weights, t, scales, error);
}

/* If `name` is that of a companion, its weight takes it, and it is no tensor of the set any more. */
static gboolean
take_companion (DpWeights *weights, const char *name, gboolean *scaled, GError **error)
{
  const Entry *companion = g_hash_table_lookup (weights->entries, name);
  const char *suffix = strrchr (name, '.');
  gsize i = 0;

  while (i < G_N_ELEMENTS (companions) && (suffix == NULL || strcmp (suffix, companions[i]) != 0))
    i++;
  if (i == G_N_ELEMENTS (companions))
    return TRUE;
  g_autofree char *owner = g_strdup_printf ("%.*s.weight", (int) (suffix - name), name);
  Entry *weight = g_hash_table_lookup (weights->entries, owner);
  if (weight == NULL || !is_fp8 (weight)) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected %s of type F8_E4M3 beside it, found %s%s; of quantised weights, "
        "scaled fp8 and GGUF are supported", companion->file->path, name, owner, weight ? "it of type " : "it nowhere",
        weight ? weight->dtype : "");
    return FALSE;
  }
  if (i < SCALES) {
    *scaled = TRUE;
    if (!take_scale (weights, weight, companion, error))
      return FALSE;
  }
  g_hash_table_remove (weights->entries, name);
  return TRUE;
}

/* Scales belong to matrices. A bias or a norm in fp8 is a plain cast, also beside scaled matrices. */
static gboolean
lacks_scale (const Entry *entry)
{
  return is_fp8 (entry) && entry->tensor.scales == NULL && entry->tensor.n_dims > 1 && g_str_has_suffix (entry->tensor.name, ".weight");
}

/* Gives fp8 weights their scales. Where any has one, or where ComfyUI's mark says so, each must have. */
static gboolean
weights_take_scales (DpWeights *weights, GError **error)
{
  guint n;
  g_autofree gpointer *names = g_hash_table_get_keys_as_array (weights->entries, &n);
  gboolean scaled = FALSE;
  const Entry *bare = NULL;
  GHashTableIter iter;
  gpointer entry;

  qsort (names, n, sizeof *names, by_name);     /* of several errors, always the same one is told */
  for (guint i = 0; i < n; i++)
    if (strcmp (names[i], "scaled_fp8") == 0 || g_str_has_suffix (names[i], ".scaled_fp8"))
      scaled = g_hash_table_remove (weights->entries, names[i]);
    else if (!take_companion (weights, names[i], &scaled, error))
      return FALSE;
  g_hash_table_iter_init (&iter, weights->entries);
  while (scaled && g_hash_table_iter_next (&iter, NULL, &entry))
    if (lacks_scale (entry) && (bare == NULL || strcmp (((const Entry *) entry)->tensor.name, bare->tensor.name) < 0))
      bare = entry;
  if (bare)
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected a scale beside it, as this file has scaled fp8, found none; fetch "
        "the file again, or one in bfloat16", bare->file->path, bare->tensor.name);
  return bare == NULL;
}

/* What a stem may end in; of several files the first counts. */
static const char *const suffixes[] = { ".safetensors", ".gguf", ".pth", ".pt" };

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
  weights->changes = g_string_new (NULL);
  if (!(sharded ? weights_add_index (weights, dir, error) : weights_add_file (weights, single, error))
      || !weights_take_scales (weights, error))
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

gboolean
dp_weights_rename (DpWeights *weights, char *(*rename) (const char *name, gpointer user_data), gpointer user_data, GError **error)
{
  g_autoptr (GHashTable) renamed = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, entry_free);
  GHashTableIter iter;
  gpointer value;

  g_hash_table_iter_init (&iter, weights->entries);
  while (g_hash_table_iter_next (&iter, NULL, &value)) {
    Entry *entry = value;
    g_autofree char *name = rename (entry->tensor.name, user_data);
    const Entry *other = g_hash_table_lookup (renamed, name);

    if (other) {
      const char *first = strcmp (other->stored, entry->stored) < 0 ? other->stored : entry->stored;    /* in any order of the table */

      dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensors %s and %s: expected one of them, as they are the same part of the network, found "
          "both", entry->file->path, first, strcmp (first, entry->stored) == 0 ? other->stored : entry->stored);
      return FALSE;
    }
    g_hash_table_iter_steal (&iter);
    g_free ((char *) entry->tensor.name);
    entry->tensor.name = g_steal_pointer (&name);
    g_hash_table_insert (renamed, (char *) entry->tensor.name, entry);
  }
  g_hash_table_unref (weights->entries);
  weights->entries = g_steal_pointer (&renamed);
  return TRUE;
}

void
dp_weights_each (const DpWeights *weights, void (*each) (const DpTensor *tensor, gpointer user_data), gpointer user_data)
{
  GHashTableIter iter;
  gpointer entry;

  g_hash_table_iter_init (&iter, weights->entries);
  while (g_hash_table_iter_next (&iter, NULL, &entry))
    if (((const Entry *) entry)->usable)
      each (&((const Entry *) entry)->tensor, user_data);
}

void
dp_weights_add_delta (DpWeights *weights, const DpTensor *tensor, DpDelta *delta)
{
  Entry *entry = g_hash_table_lookup (weights->entries, tensor->name);
  DpTensor *t = &entry->tensor;

  t->bytes = t->bytes / dp_type_size (t->type) * sizeof (float);
  t->type = DP_TYPE_F32;
  delta->next = t->deltas;
  t->deltas = delta;
}

void
dp_weights_note_change (DpWeights *weights, const char *path, double strength)
{
  struct stat st = { 0 };

  stat (path, &st);
  g_string_append_printf (weights->changes, "\n%s:%.9g %" G_GINT64_FORMAT " %" G_GINT64_FORMAT ".%09ld", path, strength,
      (gint64) st.st_size, (gint64) st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

const char *
dp_weights_changes (const DpWeights *weights)
{
  return weights->changes->str;
}

const char *
dp_weights_stored_name (const DpWeights *weights, const char *name)
{
  const Entry *entry = g_hash_table_lookup (weights->entries, name);

  return entry ? entry->stored : name;
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
      bytes += ((const Entry *) entry)->bytes;
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
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected type F32, BF16, F16, fp8 or one of GGUF, found %s",
        entry->file->path, name, entry->dtype);
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

static void
to_f32 (DpType type, const void *data, gsize n, float *out)
{
  const guint16 *half = data;

  if (type == DP_TYPE_F32) {
    memcpy (out, data, n * 4);
  } else if (type == DP_TYPE_BF16) {
    for (gsize i = 0; i < n; i++)
      out[i] = dp_f32_from_bf16 (half[i]);
  } else {
    for (gsize i = 0; i < n; i++)
      out[i] = dp_f32_from_f16 (half[i]);
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

static void
scale (const DpTensor *tensor, gsize first, gsize n, float *out)
{
  for (gsize i = 0, m; i < n; i += m) {
    gsize which = (first + i) / tensor->per_scale;

    m = MIN (n - i, (which + 1) * tensor->per_scale - (first + i));
    for (gsize k = i; k < i + m; k++)
      out[k] *= tensor->scales[which];
  }
}

/* As tensor_read(), of one that is quantised. Blocks are read whole: out of one that is wanted in part, the part is taken. */
static int
unpack (const DpTensor *tensor, gsize first, gsize n, float *out)
{
  const DpQuantized *q = tensor->quantized;
  float block[DP_QUANTIZED_MAX_BLOCK];
  guint8 data[PIECE];

  for (gsize i = 0, m; i < n; i += m) {
    gsize at = first + i, skipped = at % q->block, blocks = skipped ? 0 : MIN ((n - i) / q->block, PIECE / q->bytes);
    int failure = file_read (tensor->file, tensor->offset + at / q->block * q->bytes, data, MAX (blocks, 1) * q->bytes);

    if (failure)
      return failure;
    m = blocks ? blocks * q->block : MIN (n - i, q->block - skipped);
    q->unpack (data, MAX (blocks, 1), blocks ? out + i : block);
    if (blocks == 0)
      memcpy (out + i, block + skipped, m * sizeof (float));
  }
  if (tensor->scales)
    scale (tensor, first, n, out);
  return 0;
}

static int
read_plain (const DpTensor *tensor, gsize first, gsize n, void *to)
{
  gsize size = dp_type_size (tensor->stored);

  return tensor->quantized ? unpack (tensor, first, n, to) : file_read (tensor->file, tensor->offset + first * size, to, n * size);
}

/* out, which is elements [first, first + n) of the tensor, plus the same of a product or of a difference. */
static void
add_delta (const DpDelta *delta, gsize first, gsize n, float *out)
{
  for (gsize i = 0, m; i < n; i += m) {
    gsize row = (first + i) / delta->columns, column = (first + i) % delta->columns;

    m = MIN (n - i, delta->columns - column);
    if (delta->rank == 0)
      for (gsize k = 0; k < m; k++)
        out[i + k] += delta->scale * delta->up[first + i + k];
    for (int r = 0; r < delta->rank; r++) {
      const float up = delta->scale * delta->up[row * delta->rank + r], *down = delta->down + r * delta->columns + column;

      for (gsize k = 0; k < m; k++)
        out[i + k] += up * down[k];
    }
  }
}

/* Elements [first, first + n), of the tensor's type. Returns 0 or an errno. */
static int
tensor_read (const DpTensor *tensor, gsize first, gsize n, void *to)
{
  guint64 data[PIECE / 8];
  gsize most = PIECE / dp_type_size (tensor->stored);

  if (tensor->deltas == NULL)
    return read_plain (tensor, first, n, to);
  for (gsize i = 0, m; i < n; i += m) {
    float *out = (float *) to + i;
    int failure;

    m = tensor->quantized ? n : MIN (n - i, most);
    failure = read_plain (tensor, first + i, m, tensor->quantized ? (void *) out : data);
    if (failure)
      return failure;
    if (tensor->quantized == NULL)
      to_f32 (tensor->stored, data, m, out);
    for (const DpDelta *delta = tensor->deltas; delta; delta = delta->next)
      add_delta (delta, first + i, m, out);
  }
  return 0;
}

/* A piece of a tensor, and its numbers as they are; `data` has room for PIECE bytes. Returns how many, or 0 with an error. */
static gsize
read_piece (const DpTensor *tensor, gsize first, gsize n, void *data, GError **error)
{
  gsize m = MIN (n, PIECE / dp_type_size (tensor->type));

  return file_check_read (tensor->file, tensor_read (tensor, first, m, data), error) ? m : 0;
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
read_for_packing (const void *source, uint64_t offset, void *to, size_t bytes)
{
  const DpTensor *tensor = source;
  gsize size = dp_type_size (tensor->type);

  return tensor_read (tensor, offset / size, bytes / size, to) == 0;
}

DpHostWeight
dp_tensor_weight (const DpTensor *tensor, int rows)
{
  return (DpHostWeight) { .type = tensor->type, .rows = rows, .read = read_for_packing, .source = tensor };
}
