/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "weights_gguf.h"
#include "error.h"
#include "quantized.h"
#include "weights.h"

#include <string.h>

#define MAX_HEADER ((guint64) 100 << 20)        /* a text encoder's has the tokenizer's words: 10 MB */
#define MAX_TENSORS 65536       /* the largest Wan has 1,095 */
#define MAX_TEXT 65535
#define MAX_ALIGNMENT (1 << 20)
#define BUFFER 4096
#define SHAPE_KEY "comfy.gguf.orig_shape."

typedef struct
{
  int n_dims;
  gint64 dims[DP_TENSOR_MAX_DIMS];
} Shape;

typedef struct
{
  char *name;
  const char *dtype;
  Shape shape;
  guint64 begin, bytes;         /* in the data */
} Tensor;

typedef struct
{
  const DpWeightsFile *file;
  guint64 at;
  guint64 buffered_at;
  gsize buffered;
  guint8 buffer[BUFFER];
  GHashTable *shapes;           /* name of a tensor -> Shape */
  guint alignment;
  GPtrArray *tensors;           /* Tensor */
  GError **error;
} Reader;

/* Types of values, by their number in the file. */
enum { UINT32 = 4, INT32 = 5, STRING = 8, ARRAY = 9, INT64 = 11 };
static const guint8 value_bytes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

/* Types of tensors, likewise. */
static const char *const dtypes[] = {
  "F32", "F16", "Q4_0", "Q4_1", NULL, NULL, "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS",
  "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16", NULL, NULL, NULL,
  "TQ1_0", "TQ2_0", NULL, NULL, NULL, "MXFP4", "NVFP4",
};

static void
tensor_free (gpointer data)
{
  Tensor *tensor = data;

  g_free (tensor->name);
  g_free (tensor);
}

/* ---- taking what comes next ---- */

static gboolean
wrong (Reader *r, const char *expected)
{
  dp_error_set (r->error, DP_ERROR_BAD_MODEL, "%s: expected a GGUF file with %s, found something else; fetch it again", r->file->path,
      expected);
  return FALSE;
}

static gboolean
cut_off (Reader *r)
{
  dp_error_set (r->error, DP_ERROR_BAD_MODEL, "%s: expected a GGUF file with a header of at most %" G_GUINT64_FORMAT " bytes, found that "
      "it goes on behind that or behind the file's %" G_GUINT64_FORMAT ": it is cut off or damaged; fetch it again", r->file->path,
      MAX_HEADER, r->file->size);
  return FALSE;
}

/* The next n bytes; `to` NULL: they are skipped. */
static gboolean
take (Reader *r, void *to, guint64 n)
{
  if (!dp_lies_in (r->at, n, MIN (r->file->size, MAX_HEADER)))
    return cut_off (r);
  for (gsize m; to && n > 0; n -= m) {
    if (r->at - r->buffered_at >= r->buffered) {
      r->buffered_at = r->at;
      r->buffered = MIN (BUFFER, r->file->size - r->at);
      if (!r->file->read (r->file->source, r->at, r->buffer, r->buffered, r->error))
        return FALSE;
    }
    m = MIN (n, r->buffered - (r->at - r->buffered_at));
    memcpy (to, r->buffer + (r->at - r->buffered_at), m);
    to = (char *) to + m;
    r->at += m;
  }
  r->at += n;
  return TRUE;
}

static char *
take_text (Reader *r)
{
  guint64 length;

  if (!take (r, &length, 8))
    return NULL;
  if (length > MAX_TEXT || !dp_lies_in (r->at, length, r->file->size)) {
    wrong (r, "names of at most 65535 bytes");
    return NULL;
  }
  g_autofree char *text = g_malloc0 (length + 1);
  if (!take (r, text, length))
    return NULL;
  if (!g_utf8_validate_len (text, length, NULL)) {
    wrong (r, "names in UTF-8");
    return NULL;
  }
  return g_steal_pointer (&text);
}

/* ---- metadata ---- */

static gboolean
skip_value (Reader *r, guint32 type)
{
  guint32 item = type;
  guint64 n = 1, length;

  if (type == ARRAY && (!take (r, &item, 4) || !take (r, &n, 8)))
    return FALSE;
  if (item >= G_N_ELEMENTS (value_bytes) || item == ARRAY)
    return wrong (r, "metadata of known types");
  if (item != STRING)
    return n > MAX_HEADER ? cut_off (r) : take (r, NULL, n * value_bytes[item]);
  for (; n > 0; n--)
    if (!take (r, &length, 8) || !take (r, NULL, length))
      return FALSE;
  return TRUE;
}

static gboolean
take_architecture (Reader *r)
{
  static const char *const known[] = { "wan", "t5", "t5encoder", "umt5", NULL };
  g_autofree char *name = take_text (r);

  if (name == NULL || g_strv_contains (known, name))
    return name != NULL;
  dp_error_set (r->error, DP_ERROR_BAD_MODEL, "%s: expected a GGUF file of the architecture wan, or t5, t5encoder or umt5 for a text "
      "encoder, found %s; use a file of a Wan model", r->file->path, name);
  return FALSE;
}

static gboolean
take_alignment (Reader *r)
{
  guint32 n;

  if (!take (r, &n, 4))
    return FALSE;
  r->alignment = n;
  return (n > 0 && n <= MAX_ALIGNMENT && (n & (n - 1)) == 0) || wrong (r, "an alignment that is a power of two");
}

static gboolean
take_shape (Reader *r, const char *tensor)
{
  g_autofree Shape *shape = g_new0 (Shape, 1);
  guint32 type;
  guint64 n;

  if (!take (r, &type, 4) || !take (r, &n, 8))
    return FALSE;
  if ((type != INT32 && type != INT64) || n > DP_TENSOR_MAX_DIMS || g_hash_table_size (r->shapes) == MAX_TENSORS)
    return wrong (r, "shapes of at most 8 dimensions as whole numbers");
  shape->n_dims = n;
  for (guint64 i = 0; i < n; i++) {
    gint32 narrow;

    if (!(type == INT32 ? take (r, &narrow, 4) : take (r, &shape->dims[i], 8)))
      return FALSE;
    if (type == INT32)
      shape->dims[i] = narrow;
  }
  g_hash_table_replace (r->shapes, g_strdup (tensor), g_steal_pointer (&shape));
  return TRUE;
}

static gboolean
take_metadata (Reader *r)
{
  g_autofree char *key = take_text (r);
  guint32 type;

  if (key == NULL || !take (r, &type, 4))
    return FALSE;
  if (strcmp (key, "general.architecture") == 0 && type == STRING)
    return take_architecture (r);
  if (strcmp (key, "general.alignment") == 0 && type == UINT32)
    return take_alignment (r);
  if (g_str_has_prefix (key, SHAPE_KEY) && type == ARRAY)
    return take_shape (r, key + strlen (SHAPE_KEY));
  return skip_value (r, type);
}

/* ---- tensors ---- */

/* The bytes of a tensor of rows of `row` elements. */
static gboolean
tensor_set_type (Tensor *t, Reader *r, guint32 type, guint64 row)
{
  const char *dtype = type < G_N_ELEMENTS (dtypes) ? dtypes[type] : NULL;
  const DpQuantized *quantized = dtype ? dp_quantized_find (dtype) : NULL;
  int block = quantized ? quantized->block : 1, plain = type == 0 ? 4 : dtype && (type == 1 || strcmp (dtype, "BF16") == 0) ? 2 : 0;
  guint64 elements;

  t->dtype = dtype;
  if (quantized == NULL && plain == 0) {
    g_autofree char *number = g_strdup_printf ("type %u", type);

    dp_error_set (r->error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected type F32, F16, BF16, Q8_0, Q2_K to Q6_K, Q4_0, Q4_1, Q5_0 or "
        "Q5_1, found %s; fetch a file in one of these", r->file->path, t->name, dtype ? dtype : number);
    return FALSE;
  }
  if (!dp_dims_product (t->shape.n_dims, t->shape.dims, &elements) || row % block
      || __builtin_mul_overflow (elements / block, (guint64) (quantized ? quantized->bytes : plain), &t->bytes)) {
    g_autofree char *dims = dp_dims_text (t->shape.n_dims, t->shape.dims);

    dp_error_set (r->error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected a shape with rows of whole blocks of %s that can be counted, "
        "found %s; fetch the file again", r->file->path, t->name, dtype, dims);
    return FALSE;
  }
  return TRUE;
}

/* The shape that the metadata has for it, of as many elements. */
static gboolean
tensor_reshape (Tensor *t, Reader *r)
{
  const Shape *shape = g_hash_table_lookup (r->shapes, t->name);
  guint64 elements, other;

  if (shape == NULL)
    return TRUE;
  dp_dims_product (t->shape.n_dims, t->shape.dims, &elements);
  if (!dp_dims_product (shape->n_dims, shape->dims, &other) || other != elements) {
    g_autofree char *dims = dp_dims_text (t->shape.n_dims, t->shape.dims), *found = dp_dims_text (shape->n_dims, shape->dims);

    dp_error_set (r->error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected as many elements in " SHAPE_KEY "%s as in its shape %s, found %s; "
        "fetch the file again", r->file->path, t->name, t->name, dims, found);
    return FALSE;
  }
  t->shape = *shape;
  return TRUE;
}

static gboolean
take_tensor (Reader *r)
{
  Tensor *t = g_new0 (Tensor, 1);
  guint32 n, type;
  gint64 sizes[DP_TENSOR_MAX_DIMS];

  g_ptr_array_add (r->tensors, t);
  t->name = take_text (r);
  if (t->name == NULL || !take (r, &n, 4))
    return FALSE;
  if (n > DP_TENSOR_MAX_DIMS)
    return wrong (r, "tensors of at most 8 dimensions");
  if (!take (r, sizes, n * sizeof *sizes) || !take (r, &type, 4) || !take (r, &t->begin, 8))
    return FALSE;
  t->shape.n_dims = n;
  for (guint i = 0; i < n; i++)
    t->shape.dims[i] = sizes[n - 1 - i];        /* the file has the one within a row first */
  return tensor_set_type (t, r, type, n > 0 ? (guint64) sizes[0] : 1) && tensor_reshape (t, r);
}

static gint
by_offset (gconstpointer a, gconstpointer b)
{
  const Tensor *x = *(const Tensor *const *) a, *y = *(const Tensor *const *) b;

  if (x->begin != y->begin)
    return x->begin < y->begin ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static guint64
align (guint64 n, guint alignment)
{
  return (n + alignment - 1) & ~(guint64) (alignment - 1);
}

/* Where all tensors should lie: each where the one in front ends, aligned; what is padded is not looked at. */
static gboolean
check_layout (Reader *r, guint64 data)
{
  guint64 at = 0;

  g_ptr_array_sort (r->tensors, by_offset);
  for (guint i = 0; i < r->tensors->len; i++) {
    const Tensor *t = g_ptr_array_index (r->tensors, i);

    if (t->begin != at) {
      dp_error_set (r->error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected its data at offset %" G_GUINT64_FORMAT ", found it at %"
          G_GUINT64_FORMAT ": tensors %s; fetch the file again", r->file->path, t->name, at, t->begin,
          t->begin < at ? "overlap" : "leave a hole between them");
      return FALSE;
    }
    if (data > r->file->size || !dp_lies_in (t->begin, t->bytes, r->file->size - data)) {
      dp_error_set (r->error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected %" G_GUINT64_FORMAT " bytes from offset %" G_GUINT64_FORMAT
          " of the file on, found a file of %" G_GUINT64_FORMAT ": it is cut off; fetch it again", r->file->path, t->name, t->bytes,
          data + t->begin, r->file->size);
      return FALSE;
    }
    at = align (t->begin + t->bytes, r->alignment);
  }
  return TRUE;
}

static gboolean
take_header (Reader *r)
{
  guint64 tensors, values;
  guint32 version;

  if (!take (r, NULL, 4) || !take (r, &version, 4))
    return FALSE;
  if (version != 2 && version != 3) {
    dp_error_set (r->error, DP_ERROR_BAD_MODEL, "%s: expected a GGUF file of version 2 or 3, found %u%s; convert it again", r->file->path,
        version, version & 0xffff ? "" : ", which is another byte order");
    return FALSE;
  }
  if (!take (r, &tensors, 8) || !take (r, &values, 8))
    return FALSE;
  if (tensors > MAX_TENSORS)
    return wrong (r, "at most 65536 tensors");
  for (; values > 0; values--)
    if (!take_metadata (r))
      return FALSE;
  for (; tensors > 0; tensors--)
    if (!take_tensor (r))
      return FALSE;
  return TRUE;
}

gboolean
dp_gguf_list (const DpWeightsFile *file, DpTensorFound *found, gpointer user_data, GError **error)
{
  g_autoptr (GHashTable) shapes = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  g_autoptr (GPtrArray) tensors = g_ptr_array_new_with_free_func (tensor_free);
  Reader r = { .file = file, .shapes = shapes, .alignment = 32, .tensors = tensors, .error = error };
  guint64 data;

  if (!take_header (&r))
    return FALSE;
  data = align (r.at, r.alignment);
  if (!check_layout (&r, data))
    return FALSE;
  for (guint i = 0; i < tensors->len; i++) {
    const Tensor *t = g_ptr_array_index (tensors, i);

    if (!found (t->name, t->dtype, t->shape.n_dims, t->shape.dims, data + t->begin, t->bytes, user_data, error))
      return FALSE;
  }
  return TRUE;
}
