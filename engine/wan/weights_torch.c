/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "weights_torch.h"
#include "error.h"
#include "weights.h"

#include <string.h>

#define MAX_PICKLE ((guint64) 1 << 20)  /* of 1,095 tensors: 0.2 MB. Each byte of a hostile one can ask for a Value. */
#define MAX_DIRECTORY ((guint64) 16 << 20)

/* ---- the archive ---- */

typedef struct
{
  guint64 at;                   /* of its local header */
  guint64 size;
  gboolean stored;
} Member;

typedef struct
{
  const DpWeightsFile *file;
  GHashTable *members;          /* name -> Member */
  char *folder;                 /* that data.pkl lies in, with a slash */
  GError **error;
} Archive;

static guint64
number (const guint8 *p, int bytes)
{
  guint64 n = 0;

  memcpy (&n, p, bytes);        /* little endian, as weights.c asserts of this machine */
  return n;
}

static gboolean
damaged (Archive *archive, const char *what)
{
  dp_error_set (archive->error, DP_ERROR_BAD_MODEL, "%s: expected a PyTorch file, found a zip archive %s; fetch it again",
      archive->file->path, what);
  return FALSE;
}

static gboolean
get (Archive *archive, guint64 at, void *to, gsize bytes)
{
  if (!dp_lies_in (at, bytes, archive->file->size))
    return damaged (archive, "that points outside itself: it is cut off or damaged");
  return archive->file->read (archive->file->source, at, to, bytes, archive->error);
}

/* The extra fields of a member: zip64's has the numbers that did not fit, in this order. */
static gboolean
member_parse_extra (Member *member, const guint8 *p, gsize length)
{
  guint64 *const wide[] = { &member->size, NULL, &member->at };
  gboolean missing[] = { member->size == G_MAXUINT32, member->size == G_MAXUINT32, member->at == G_MAXUINT32 };

  while (length >= 4) {
    guint id = number (p, 2), n = number (p + 2, 2);

    if (n > length - 4)
      return FALSE;
    if (id == 1) {
      const guint8 *q = p + 4;

      for (int i = 0; i < 3; i++)
        if (missing[i]) {
          if (p + 4 + n - q < 8)
            return FALSE;
          if (wide[i])
            *wide[i] = number (q, 8);
          q += 8;
        }
    }
    p += 4 + n;
    length -= 4 + n;
  }
  return TRUE;
}

static gboolean
parse_directory (Archive *archive, const guint8 *p, gsize left)
{
  while (left >= 46 && number (p, 4) == 0x02014b50) {
    gsize name = number (p + 28, 2), extra = number (p + 30, 2), all = 46 + name + extra + number (p + 32, 2);
    g_autofree Member *member = g_new (Member, 1);

    *member = (Member) { number (p + 42, 4), number (p + 24, 4), number (p + 10, 2) == 0 && (number (p + 8, 2) & 1) == 0
        && number (p + 20, 4) == number (p + 24, 4) };
    if (all > left || !member_parse_extra (member, p + 46 + name, extra))
      return damaged (archive, "whose directory is damaged");
    g_autofree char *key = g_strndup ((const char *) p + 46, name);
    if (g_str_has_suffix (key, "/data.pkl")) {
      if (archive->folder)
        return damaged (archive, "with more than one data.pkl");
      archive->folder = g_strndup (key, strlen (key) - strlen ("data.pkl"));
    }
    if (g_hash_table_contains (archive->members, key))
      return damaged (archive, "in which two members have one name");
    g_hash_table_insert (archive->members, g_steal_pointer (&key), g_steal_pointer (&member));
    p += all;
    left -= all;
  }
  return left == 0 || damaged (archive, "whose directory is damaged");
}

static gboolean
archive_open (Archive *archive)
{
  guint64 size = archive->file->size, tail = MIN (size, 22 + 20 + G_MAXUINT16), at, length;
  g_autofree guint8 *end = g_malloc (tail), *directory = NULL;
  guint8 wide[56];
  gint64 i;

  if (!get (archive, size - tail, end, tail))
    return FALSE;
  for (i = (gint64) tail - 22; i >= 0; i--)
    if (number (end + i, 4) == 0x06054b50 && number (end + i + 20, 2) == tail - 22 - i)
      break;
  if (i < 0)
    return damaged (archive, "without an end: it is cut off");
  length = number (end + i + 12, 4);
  at = number (end + i + 16, 4);
  if (i >= 20 && number (end + i - 20, 4) == 0x07064b50) {
    if (!get (archive, number (end + i - 12, 8), wide, sizeof wide))
      return FALSE;
    length = number (wide + 40, 8);
    at = number (wide + 48, 8);
  }
  if (!dp_lies_in (at, length, size) || length > MAX_DIRECTORY)
    return damaged (archive, "whose directory lies outside it or is too long");
  directory = g_malloc (length + 1);
  if (!get (archive, at, directory, length) || !parse_directory (archive, directory, length))
    return FALSE;
  return archive->folder || damaged (archive, "without a data.pkl");
}

/* Where the bytes of a stored member of the folder lie. */
static gboolean
archive_find (Archive *archive, const char *name, guint64 *at, guint64 *size)
{
  g_autofree char *path = g_strconcat (archive->folder, name, NULL);
  const Member *member = g_hash_table_lookup (archive->members, path);
  guint8 header[30];

  if (member == NULL || !member->stored) {
    dp_error_set (archive->error, DP_ERROR_BAD_MODEL, "%s: expected %s in the archive, found %s; fetch it again", archive->file->path, path,
        member ? "it compressed or encrypted" : "it nowhere");
    return FALSE;
  }
  if (!get (archive, member->at, header, sizeof header))
    return FALSE;
  *at = member->at + sizeof header + number (header + 26, 2) + number (header + 28, 2);
  *size = member->size;
  return (number (header, 4) == 0x04034b50 && dp_lies_in (*at, *size, archive->file->size))
      || damaged (archive, "that points outside itself: it is cut off or damaged");
}

/* PyTorch 2.1 and later note it; before, only such machines were common. */
static gboolean
archive_check_byte_order (Archive *archive)
{
  g_autofree char *path = g_strconcat (archive->folder, "byteorder", NULL);
  guint64 at, size;
  char order[6];

  if (!g_hash_table_contains (archive->members, path))
    return TRUE;
  if (!archive_find (archive, "byteorder", &at, &size))
    return FALSE;
  if (size == sizeof order) {
    if (!get (archive, at, order, sizeof order))
      return FALSE;
    if (memcmp (order, "little", sizeof order) == 0)
      return TRUE;
  }
  dp_error_set (archive->error, DP_ERROR_BAD_MODEL, "%s: expected numbers in little endian, found another byte order; save the weights on a "
      "machine such as this one", archive->file->path);
  return FALSE;
}

/* ---- the pickle ---- */

/* A class of torch's, and what its numbers are. */
typedef struct
{
  const char *name, *dtype;
  int bytes;                    /* of a number */
} StorageType;

static const StorageType storage_types[] = {
  { "torch.FloatStorage", "F32", 4 }, { "torch.BFloat16Storage", "BF16", 2 }, { "torch.HalfStorage", "F16", 2 },
  { "torch.DoubleStorage", "F64", 8 }, { "torch.LongStorage", "I64", 8 }, { "torch.IntStorage", "I32", 4 },
  { "torch.ShortStorage", "I16", 2 }, { "torch.CharStorage", "I8", 1 }, { "torch.ByteStorage", "U8", 1 }, { "torch.BoolStorage", "BOOL", 1 },
};

static const StorageType *
storage_type_find (const char *name)
{
  for (gsize i = 0; i < G_N_ELEMENTS (storage_types); i++)
    if (strcmp (name, storage_types[i].name) == 0)
      return &storage_types[i];
  return NULL;
}

typedef enum { OTHER, MARK, INT, STRING, GLOBAL, TUPLE, LIST, DICT, STORAGE, TENSOR } Kind;

/* A list has its items, a dict keys and values by turns. A storage has its key in `text`, and so does a tensor. */
typedef struct
{
  Kind kind;
  int n_dims;
  gint64 n;                     /* INT; of a tensor, the first element in its storage */
  char *text;
  const StorageType *type;      /* of a storage, or of the one that a tensor lies in */
  GPtrArray *items;             /* or NULL; owns nothing */
  gboolean has_tensors;         /* of a dict; noted as they come, or a dict that is named many times would be searched as often */
  gint64 *dims;
} Value;

typedef struct
{
  Archive *archive;
  const guint8 *at, *end;
  GPtrArray *values;            /* all, owned */
  GPtrArray *stack;
  GHashTable *memo;
} Pickle;

static void
value_free (gpointer data)
{
  Value *value = data;

  if (value->items)
    g_ptr_array_unref (value->items);
  g_free (value->text);
  g_free (value->dims);
  g_free (value);
}

static gboolean
wrong (Pickle *p, const char *expected)
{
  dp_error_set (p->archive->error, DP_ERROR_BAD_MODEL, "%s: data.pkl: expected %s, found something else; save the tensors alone: "
      "torch.save(model.state_dict(), FILE)", p->archive->file->path, expected);
  return FALSE;
}

static Value *
push (Pickle *p, Kind kind)
{
  Value *value = g_new0 (Value, 1);

  value->kind = kind;
  g_ptr_array_add (p->values, value);
  g_ptr_array_add (p->stack, value);
  return value;
}

/* NULL, with an error, if the stack is empty or a mark is on it. */
static Value *
pop (Pickle *p)
{
  Value *value = p->stack->len ? g_ptr_array_steal_index (p->stack, p->stack->len - 1) : NULL;

  if (value == NULL || value->kind == MARK) {
    wrong (p, "a value");
    return NULL;
  }
  return value;
}

static void
add_item (Value *value, Value *item)
{
  if (value->items == NULL)
    value->items = g_ptr_array_new ();
  g_ptr_array_add (value->items, item);
}

static guint
n_items (const Value *value)
{
  return value->items ? value->items->len : 0;
}

static Value *
item (const Value *value, guint i)
{
  return i < n_items (value) ? g_ptr_array_index (value->items, i) : NULL;
}

static Value *
item_of (const Value *value, guint i, Kind kind)
{
  Value *found = item (value, i);

  return found && found->kind == kind ? found : NULL;
}

/* Moves `from` the stack's index on into value. */
static gboolean
take_items (Pickle *p, Value *value, guint from)
{
  for (guint i = from; i < p->stack->len; i++) {
    Value *added = g_ptr_array_index (p->stack, i);

    value->has_tensors = value->has_tensors || (value->kind == DICT && (i - from) % 2 && added->kind == TENSOR);
    add_item (value, added);
  }
  g_ptr_array_set_size (p->stack, from);
  return TRUE;
}

/* The index behind the last mark, which is taken off; -1 with an error. */
static gint64
take_mark (Pickle *p)
{
  for (guint i = p->stack->len; i-- > 0;)
    if (((Value *) g_ptr_array_index (p->stack, i))->kind == MARK) {
      g_ptr_array_remove_index (p->stack, i);
      return i;
    }
  wrong (p, "a mark");
  return -1;
}

static gboolean
take_number (Pickle *p, int bytes, guint64 *out)
{
  if (p->end - p->at < bytes)
    return wrong (p, "more bytes");
  *out = number (p->at, bytes);
  p->at += bytes;
  return TRUE;
}

static char *
take_text (Pickle *p, guint64 length)
{
  if (length > (guint64) (p->end - p->at) || memchr (p->at, 0, length) || !g_utf8_validate_len ((const char *) p->at, length, NULL)) {
    wrong (p, "text in UTF-8");
    return NULL;
  }
  p->at += length;
  return g_strndup ((const char *) p->at - length, length);
}

static char *
take_line (Pickle *p)
{
  const guint8 *end = memchr (p->at, '\n', p->end - p->at);
  char *line = end ? take_text (p, end - p->at) : NULL;

  if (end == NULL)
    wrong (p, "a line");
  else if (line)
    p->at++;
  return line;
}

static gboolean
do_global (Pickle *p)
{
  g_autofree char *module = take_line (p);
  g_autofree char *name = module ? take_line (p) : NULL;

  if (name == NULL)
    return FALSE;
  g_autofree char *all = g_strconcat (module, ".", name, NULL);
  gboolean known = strcmp (all, "torch._utils._rebuild_tensor_v2") == 0 || strcmp (all, "torch._utils._rebuild_parameter") == 0
      || strcmp (all, "collections.OrderedDict") == 0 || storage_type_find (all);
  if (!known) {
    dp_error_set (p->archive->error, DP_ERROR_BAD_MODEL, "%s: data.pkl would call %s: expected nothing but tensors in dicts; save the "
        "tensors alone: torch.save(model.state_dict(), FILE)", p->archive->file->path, all);
    return FALSE;
  }
  push (p, GLOBAL)->text = g_steal_pointer (&all);
  return TRUE;
}

static gboolean
do_storage (Pickle *p)
{
  Value *id = pop (p), *type = id ? item_of (id, 1, GLOBAL) : NULL, *key = id ? item_of (id, 2, STRING) : NULL;
  const StorageType *known = type ? storage_type_find (type->text) : NULL;

  if (id == NULL)
    return FALSE;
  if (known == NULL || key == NULL)
    return wrong (p, "a storage's type and key");
  Value *storage = push (p, STORAGE);
  storage->text = g_strdup (key->text);
  storage->type = known;
  return TRUE;
}

static gboolean
do_tensor (Pickle *p, const Value *args)
{
  Value *storage = item_of (args, 0, STORAGE), *first = item_of (args, 1, INT), *size = item_of (args, 2, TUPLE), *stride =
      item_of (args, 3, TUPLE);
  gint64 step = 1;

  if (!storage || !first || !size || !stride || n_items (size) != n_items (stride) || n_items (size) > DP_TENSOR_MAX_DIMS || first->n < 0)
    return wrong (p, "a tensor's storage, place, shape of at most 8 dimensions and strides");
  Value *tensor = push (p, TENSOR);
  tensor->text = g_strdup (storage->text);
  tensor->type = storage->type;
  tensor->n = first->n;
  tensor->n_dims = n_items (size);
  tensor->dims = g_new (gint64, DP_TENSOR_MAX_DIMS);
  for (int i = tensor->n_dims; i-- > 0;) {
    Value *n = item_of (size, i, INT), *apart = item_of (stride, i, INT);

    if (!n || !apart || n->n < 0)
      return wrong (p, "whole numbers in a tensor's shape and strides");
    if (n->n > 1 && apart->n != step)
      return wrong (p, "a contiguous tensor (tensor.contiguous() makes one)");
    tensor->dims[i] = n->n;
    if (__builtin_mul_overflow (step, MAX (n->n, 1), &step))
      return wrong (p, "a tensor that fits into the file");
  }
  return TRUE;
}

static gboolean
do_call (Pickle *p)
{
  Value *args = pop (p), *function = args ? pop (p) : NULL;

  if (function == NULL)
    return FALSE;
  if (function->kind != GLOBAL || args->kind != TUPLE)
    return wrong (p, "a call with arguments");
  if (strcmp (function->text, "torch._utils._rebuild_tensor_v2") == 0)
    return do_tensor (p, args);
  if (strcmp (function->text, "torch._utils._rebuild_parameter") == 0 && item_of (args, 0, TENSOR))
    g_ptr_array_add (p->stack, item (args, 0));
  else if (strcmp (function->text, "collections.OrderedDict") == 0 && n_items (args) == 0)
    push (p, DICT);
  else
    return wrong (p, "a call with arguments");
  return TRUE;
}

/* Items above the mark, or the last n, go into the list or dict below them. */
static gboolean
do_add (Pickle *p, Kind kind, gint64 from)
{
  Value *into = from > 0 && from <= (gint64) p->stack->len ? g_ptr_array_index (p->stack, from - 1) : NULL;

  if (into == NULL || into->kind != kind || (kind == DICT && (p->stack->len - from) % 2))
    return wrong (p, kind == DICT ? "a dict with keys and values" : "a list");
  return take_items (p, into, from);
}

static gboolean
do_tuple (Pickle *p, gint64 from)
{
  if (from < 0 || from > (gint64) p->stack->len)
    return wrong (p, "a value");
  Value *tuple = g_new0 (Value, 1);
  tuple->kind = TUPLE;
  g_ptr_array_add (p->values, tuple);
  take_items (p, tuple, from);
  g_ptr_array_add (p->stack, tuple);
  return TRUE;
}

static gboolean
do_memo (Pickle *p, int bytes, gboolean put)
{
  guint64 n;
  Value *value;

  if (!take_number (p, bytes, &n))
    return FALSE;
  if (put)
    value = p->stack->len ? g_ptr_array_index (p->stack, p->stack->len - 1) : NULL;
  else
    value = g_hash_table_lookup (p->memo, GUINT_TO_POINTER (n));
  if (value == NULL || value->kind == MARK)
    return wrong (p, "a value to remember");
  if (put)
    g_hash_table_insert (p->memo, GUINT_TO_POINTER (n), value);
  else
    g_ptr_array_add (p->stack, value);
  return TRUE;
}

static gboolean
do_int (Pickle *p, int bytes)
{
  guint64 n;

  if (!take_number (p, bytes, &n))
    return FALSE;
  push (p, INT)->n = bytes == 4 ? (gint32) n : (gint64) n;
  return TRUE;
}

static gboolean
do_long (Pickle *p)
{
  guint64 length, n = 0;

  if (!take_number (p, 1, &length) || length > 8 || !take_number (p, length, &n))
    return wrong (p, "a number of at most 8 bytes");
  if (length > 0 && length < 8 && n >> (8 * length - 1))
    n |= G_MAXUINT64 << 8 * length;
  push (p, INT)->n = n;
  return TRUE;
}

static gboolean
do_text (Pickle *p)
{
  guint64 length;
  char *text = take_number (p, 4, &length) ? take_text (p, length) : NULL;

  if (text)
    push (p, STRING)->text = text;
  return text != NULL;
}

/* One opcode, but for the last. */
static gboolean
step (Pickle *p, guint8 opcode)
{
  guint64 skipped;
  gint64 mark;

  switch (opcode) {
    case 0x80: return take_number (p, 1, &skipped) && (skipped == 2 || wrong (p, "protocol 2"));
    case 'c': return do_global (p);
    case 'q': return do_memo (p, 1, TRUE);
    case 'r': return do_memo (p, 4, TRUE);
    case 'h': return do_memo (p, 1, FALSE);
    case 'j': return do_memo (p, 4, FALSE);
    case 'X': return do_text (p);
    case 'K': return do_int (p, 1);
    case 'M': return do_int (p, 2);
    case 'J': return do_int (p, 4);
    case 0x8a: return do_long (p);
    case 'G': return take_number (p, 8, &skipped) && push (p, OTHER);
    case 'N': case 0x88: case 0x89: return push (p, OTHER) != NULL;
    case '(': return push (p, MARK) != NULL;
    case ')': return push (p, TUPLE) != NULL;
    case ']': return push (p, LIST) != NULL;
    case '}': return push (p, DICT) != NULL;
    case 0x85: case 0x86: case 0x87: return do_tuple (p, (gint64) p->stack->len - (opcode - 0x84));
    case 't': mark = take_mark (p); return mark >= 0 && do_tuple (p, mark);
    case 'Q': return do_storage (p);
    case 'R': return do_call (p);
    case 'a': return do_add (p, LIST, (gint64) p->stack->len - 1);
    case 's': return do_add (p, DICT, (gint64) p->stack->len - 2);
    case 'e': mark = take_mark (p); return mark >= 0 && do_add (p, LIST, mark);
    case 'u': mark = take_mark (p); return mark >= 0 && do_add (p, DICT, mark);
    case 'b': return pop (p) != NULL;   /* attributes, such as a state_dict's _metadata */
    default: return wrong (p, "what torch.save() writes");
  }
}

static Value *
run (Pickle *p)
{
  while (p->at < p->end) {
    guint8 opcode = *p->at++;

    if (opcode == '.')
      return pop (p);
    if (!step (p, opcode))
      return NULL;
  }
  wrong (p, "an end");
  return NULL;
}

/* ---- the tensors ---- */

/* The dict whose tensors are meant. */
static Value *
choose (Pickle *p, Value *root)
{
  Value *one = NULL, *best = NULL;
  const char *name = NULL;
  int n = 0;

  for (guint i = 1; root->kind == DICT && i < n_items (root); i += 2) {
    Value *key = item_of (root, i - 1, STRING);

    if (!key || !item (root, i)->has_tensors)
      continue;
    n++;
    one = item (root, i);
    if (strcmp (key->text, "generator_ema") == 0 || (strcmp (key->text, "generator") == 0 && best == NULL))
      best = one;
    if (name == NULL || strcmp (key->text, name) < 0)
      name = key->text;
  }
  if (n == 0 && root->has_tensors)
    return root;
  if (n > 0 && !root->has_tensors && (n == 1 || best))
    return best ? best : one;
  dp_error_set (p->archive->error, DP_ERROR_BAD_MODEL, "%s: expected one dict of tensors, found %s%s; save the one that is meant: "
      "torch.save(torch.load(FILE)[KEY], FILE)", p->archive->file->path, n ? "several, such as " : "none", n ? name : "");
  return NULL;
}

gboolean
dp_torch_list (const DpWeightsFile *file, DpTensorFound *found, gpointer user_data, GError **error)
{
  g_autoptr (GHashTable) members = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  g_autoptr (GHashTable) memo = g_hash_table_new (NULL, NULL);
  g_autoptr (GPtrArray) values = g_ptr_array_new_with_free_func (value_free);
  g_autoptr (GPtrArray) stack = g_ptr_array_new ();
  g_autofree char *folder = NULL;
  g_autofree guint8 *pickle = NULL;
  Archive archive = { file, members, NULL, error };
  gboolean open = archive_open (&archive);
  guint64 at, size;

  folder = archive.folder;
  if (!open || !archive_check_byte_order (&archive) || !archive_find (&archive, "data.pkl", &at, &size))
    return FALSE;
  if (size > MAX_PICKLE)
    return damaged (&archive, "whose data.pkl is longer than 1 MiB");
  pickle = g_malloc (size + 1);
  if (!get (&archive, at, pickle, size))
    return FALSE;
  Pickle p = { &archive, pickle, pickle + size, values, stack, memo };
  Value *root = run (&p), *chosen = root ? choose (&p, root) : NULL;
  for (guint i = 1; chosen && i < n_items (chosen); i += 2) {
    Value *name = item_of (chosen, i - 1, STRING), *tensor = item_of (chosen, i, TENSOR);
    guint64 bytes, first;

    if (tensor == NULL)
      continue;
    if (name == NULL)
      return wrong (&p, "text as a tensor's name");
    g_autofree char *member = g_strconcat ("data/", tensor->text, NULL);
    if (!archive_find (&archive, member, &at, &size))
      return FALSE;
    bytes = tensor->type->bytes;
    gboolean fits = !__builtin_mul_overflow ((guint64) tensor->n, bytes, &first);
    for (int k = 0; k < tensor->n_dims; k++)
      fits = fits && !__builtin_mul_overflow (bytes, (guint64) tensor->dims[k], &bytes);
    if (!fits || !dp_lies_in (first, bytes, size)) {
      dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected its data within the %" G_GUINT64_FORMAT " bytes of %s, found "
          "more: the file is damaged; fetch it again", file->path, name->text, size, member);
      return FALSE;
    }
    if (!found (name->text, tensor->type->dtype, tensor->n_dims, tensor->dims, at + first, bytes, user_data, error))
      return FALSE;
  }
  return chosen != NULL;
}
