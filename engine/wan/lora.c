/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lora.h"
#include "error.h"
#include "names.h"

#include <math.h>
#include <string.h>

#define MAX_STRENGTH 100

typedef enum { DOWN, UP, ALPHA, DIFF, DIFF_BIAS, KINDS } Kind;

/* How a tensor's name ends, behind its module's. */
static const struct
{
  const char *suffix;
  Kind kind;
} suffixes[] = {
  { ".lora_down.weight", DOWN }, { ".lora_up.weight", UP }, { ".lora_A.weight", DOWN }, { ".lora_B.weight", UP },
  { ".lora_A.default.weight", DOWN }, { ".lora_B.default.weight", UP }, { ".alpha", ALPHA }, { ".diff", DIFF }, { ".diff_b", DIFF_BIAS },
};

typedef struct
{
  const DpTensor *tensors[KINDS];
} Module;

typedef struct
{
  const DpWeights *lora;
  GHashTable *modules;          /* name in the file -> Module */
  char *unknown;                /* the first tensor of another custom */
} Reading;

static void
sort_in (const DpTensor *tensor, gpointer data)
{
  Reading *r = data;

  for (gsize i = 0; i < G_N_ELEMENTS (suffixes); i++)
    if (g_str_has_suffix (tensor->name, suffixes[i].suffix)) {
      char *name = g_strndup (tensor->name, strlen (tensor->name) - strlen (suffixes[i].suffix));
      Module *m = g_hash_table_lookup (r->modules, name);

      if (m == NULL)
        g_hash_table_insert (r->modules, g_strdup (name), m = g_new0 (Module, 1));
      m->tensors[suffixes[i].kind] = tensor;
      g_free (name);
      return;
    }
  if (r->unknown == NULL || strcmp (tensor->name, r->unknown) < 0) {
    g_free (r->unknown);
    r->unknown = g_strdup (tensor->name);
  }
}

static gsize
elements (const DpTensor *t)
{
  return t->bytes / dp_type_size (t->type);
}

static float *
numbers (const DpWeights *lora, const DpTensor *t, GError **error)
{
  float *all = g_try_new (float, MAX (elements (t), 1));

  if (all == NULL)
    dp_error_set (error, DP_ERROR_NO_MEMORY, "%s: tensor %s: there is not enough memory for it", dp_weights_path (lora), t->name);
  else if (!dp_weights_read_finite (lora, t, all, error))
    g_clear_pointer (&all, g_free);
  return all;
}

static gboolean
refuse (const DpWeights *lora, const char *tensor, const char *expected, GError **error)
{
  dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected %s", dp_weights_path (lora), tensor, expected);
  return FALSE;
}

/* The weight or bias of a module, which must be there. */
static const DpTensor *
target (const DpWeights *weights, const DpWeights *lora, const char *module, const char *what, const DpTensor *because, GError **error)
{
  g_autofree char *named = dp_names_module (module), *name = g_strconcat (named, what, NULL);
  const DpTensor *t = dp_weights_find (weights, name);

  if (t == NULL)
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected a change of a part of this model, and it has no %s: the LoRA is of "
        "another model, of image-to-video perhaps", dp_weights_path (lora), because->name, name);
  return t;
}

static gboolean
add_difference (DpWeights *weights, const DpWeights *lora, const char *module, const char *what, const DpTensor *diff, double strength,
    GError **error)
{
  const DpTensor *t = target (weights, lora, module, what, diff, error);
  DpDelta *delta;

  if (t == NULL)
    return FALSE;
  if (elements (diff) != elements (t))
    return refuse (lora, diff->name, "as many numbers as what it changes", error);
  delta = g_new0 (DpDelta, 1);
  *delta = (DpDelta) { .columns = elements (t), .scale = strength, .up = numbers (lora, diff, error) };
  if (delta->up == NULL) {
    dp_delta_free (delta);
    return FALSE;
  }
  dp_weights_add_delta (weights, t, delta);
  return TRUE;
}

/* down [rank, columns], up [rows, rank]; a convolution's have dimensions of 1 behind them. */
static gboolean
add_product (DpWeights *weights, const DpWeights *lora, const char *module, const Module *m, double strength, GError **error)
{
  const DpTensor *down = m->tensors[DOWN], *up = m->tensors[UP], *alpha = m->tensors[ALPHA];
  const DpTensor *t = target (weights, lora, module, ".weight", down ? down : up, error);
  float scale = 1;
  DpDelta *delta;

  if (t == NULL)
    return FALSE;
  if (down == NULL || up == NULL)
    return refuse (lora, down ? down->name : up->name, "the other factor of the product beside it", error);
  gint64 rows = t->dims[0], rank = down->n_dims > 1 ? down->dims[0] : 0;
  gsize columns = rows > 0 ? elements (t) / rows : 0;
  if (rank < 1 || rank > G_MAXINT || t->n_dims < 2 || up->n_dims < 2 || elements (down) != rank * columns || up->dims[0] != rows
      || up->dims[1] != rank || elements (up) != (gsize) (rows * rank))
    return refuse (lora, down->name, "factors whose product has the shape of what it changes", error);
  if (alpha && (elements (alpha) != 1 || !dp_weights_read_finite (lora, alpha, &scale, error)))
    return *error ? FALSE : refuse (lora, alpha->name, "one number", error);
  delta = g_new0 (DpDelta, 1);
  *delta = (DpDelta) { .rank = rank, .columns = columns, .scale = strength * (alpha ? scale / rank : 1),
    .up = numbers (lora, up, error) };
  delta->down = delta->up ? numbers (lora, down, error) : NULL;
  if (delta->down == NULL) {
    dp_delta_free (delta);
    return FALSE;
  }
  dp_weights_add_delta (weights, t, delta);
  return TRUE;
}

static gboolean
add_module (DpWeights *weights, const DpWeights *lora, const char *name, const Module *m, double strength, GError **error)
{
  if ((m->tensors[DOWN] || m->tensors[UP]) && !add_product (weights, lora, name, m, strength, error))
    return FALSE;
  if (m->tensors[ALPHA] && m->tensors[DOWN] == NULL)
    return refuse (lora, m->tensors[ALPHA]->name, "a product beside it", error);
  return (m->tensors[DIFF] == NULL || add_difference (weights, lora, name, ".weight", m->tensors[DIFF], strength, error))
      && (m->tensors[DIFF_BIAS] == NULL || add_difference (weights, lora, name, ".bias", m->tensors[DIFF_BIAS], strength, error));
}

static gboolean
apply_file (DpWeights *weights, const char *path, double strength, GError **error)
{
  g_autoptr (DpWeights) lora = dp_weights_open (path, NULL, error);
  g_autoptr (GHashTable) modules = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  Reading r = { lora, modules, NULL };
  GHashTableIter iter;
  gpointer name, m;
  GError *why = NULL;

  if (lora == NULL)
    return FALSE;
  dp_weights_each (lora, sort_in, &r);
  if (r.unknown == NULL && g_hash_table_size (modules) == 0) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a LoRA, found no tensor; fetch it again", path);
    return FALSE;
  }
  if (r.unknown) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: tensor %s: expected a LoRA's (lora_A and lora_B, lora_down and lora_up, alpha, diff, "
        "diff_b), found another", path, r.unknown);
    g_free (r.unknown);
    return FALSE;
  }
  g_hash_table_iter_init (&iter, modules);
  while (why == NULL && g_hash_table_iter_next (&iter, &name, &m))
    add_module (weights, lora, name, m, strength, &why);
  if (why)
    g_propagate_error (error, why);
  else
    dp_weights_note_change (weights, dp_weights_path (lora), strength);
  return why == NULL;
}

gboolean
dp_lora_apply (DpWeights *weights, const char *spec, GError **error)
{
  g_auto (GStrv) files = g_strsplit (spec, ",", -1);

  for (int i = 0; files[i]; i++) {
    char *colon = strrchr (files[i], ':'), *end = NULL;
    double strength = colon ? g_ascii_strtod (colon + 1, &end) : 1;

    /* Otherwise the colon is the path's */
    if (colon && end > colon + 1 && *end == 0)
      *colon = 0;
    else
      strength = 1;
    if (!isfinite (strength) || fabs (strength) > MAX_STRENGTH || *files[i] == 0) {
      dp_error_set (error, DP_ERROR_SETTINGS, "lora is \"%s\"; it must be files with a strength of at most %d each: FILE:0.8,FILE", spec,
          MAX_STRENGTH);
      return FALSE;
    }
    if (!apply_file (weights, files[i], strength, error))
      return FALSE;
  }
  return TRUE;
}
