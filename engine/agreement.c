/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agreement.h"
#include "wan/found.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GROUP "ring"
#define WISHES "wishes"         /* of rank 0; nothing to agree on */
#define ENDS 65536              /* bytes of a weight file's beginning and end */

/* ---- the model ---- */

static gboolean
read_at (int file, guint8 *to, gsize bytes, gint64 at)
{
  while (bytes > 0) {
    ssize_t n = pread (file, to, bytes, at);

    if (n < 0 && errno == EINTR)
      continue;
    errno = n == 0 ? EIO : errno;       /* it was cut off just now */
    if (n <= 0)
      return FALSE;
    to += n;
    bytes -= n;
    at += n;
  }
  return TRUE;
}

static gboolean
hash_file (GChecksum *sum, const char *dir, const char *name, GError **error)
{
  g_autofree char *path = g_build_filename (dir, name, NULL);
  g_autofree guint8 *bytes = g_malloc (ENDS);
  gint64 size;
  int file = dp_found_open (path, NULL, &size, error);
  gboolean ok = file >= 0;

  for (int end = 0; end < 2 && ok; end++) {
    gsize n = MIN (size, ENDS);

    if ((ok = read_at (file, bytes, n, end ? size - (gint64) n : 0)))
      g_checksum_update (sum, bytes, n);
    else
      dp_found_unreadable (path, errno, NULL, error);
  }
  if (file < 0)
    return FALSE;
  close (file);
  g_autofree char *line = g_strdup_printf ("%s %" G_GINT64_FORMAT ";", name, size);
  g_checksum_update (sum, (const guchar *) line, -1);
  return ok;
}

static int
compare_names (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

static gboolean
add_weights (GKeyFile *text, const DpModel *model, DpModelPart part, GError **error)
{
  gboolean is_file = g_file_test (model->paths[part], G_FILE_TEST_IS_REGULAR);
  g_autofree char *folder = is_file ? g_path_get_dirname (model->paths[part]) : g_strdup (model->paths[part]);
  g_autoptr (GDir) dir = is_file ? NULL : g_dir_open (folder, 0, error);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_autofree char *key = g_strdup_printf ("weights of %s", dp_model_part_name (part));
  const char *name;
  gboolean ok = is_file || dir != NULL;

  if (is_file)
    g_ptr_array_add (names, g_path_get_basename (model->paths[part]));
  while (dir && (name = g_dir_read_name (dir)))
    if (dp_weights_is_named (name))
      g_ptr_array_add (names, g_strdup (name));
  g_ptr_array_sort (names, compare_names);
  for (guint i = 0; i < names->len && ok; i++)
    ok = hash_file (sum, folder, g_ptr_array_index (names, i), error);
  g_key_file_set_string (text, GROUP, key, g_checksum_get_string (sum));
  g_checksum_free (sum);
  return ok;
}

/* The numbers of the config files that a stage counts with. */
static void
add_config (GKeyFile *text, const DpPlan *plan)
{
  const DpModelConfig *c = &plan->model->config;
  g_autofree char *transformer = g_strdup_printf ("%d layers, %d heads of %d, feed-forward %d, channels %d to %d, text %d, frequencies %d, "
      "positions %d, norm %d, eps %.9g, experts %d, boundary %.17g, timesteps of frames %d, latent channels %d", c->dit.layers, c->dit.heads, c->dit.head_dim,
      c->dit.ffn, c->dit.in_channels, c->dit.out_channels, c->dit.text_dim, c->dit.freq_dim, c->dit.rope_max, c->dit.cross_attn_norm,
      c->dit.eps, c->experts, c->boundary_ratio, c->expand_timesteps, plan->model->latent_channels);
  g_autofree char *scheduler = g_strdup_printf ("%d timesteps, order %d, %s, lower order final %d", c->scheduler.train_timesteps,
      c->scheduler.solver_order, c->scheduler.bh2 ? "bh2" : "bh1", c->scheduler.lower_order_final);

  g_key_file_set_string (text, GROUP, "transformer config", transformer);
  g_key_file_set_string (text, GROUP, "scheduler config", scheduler);
}

/* ---- the text ---- */

/* The settings that are numbers, as written and as read. */
typedef struct
{
  const char *key;
  gsize offset;
} Number;

/* Parts that are not the model's own, by their paths. */
static const Number files[] = {
  { "transformer", G_STRUCT_OFFSET (DpSettings, transformer) }, { "transformer-2", G_STRUCT_OFFSET (DpSettings, transformer_2) },
  { "vae", G_STRUCT_OFFSET (DpSettings, vae) }, { "text-encoder-file", G_STRUCT_OFFSET (DpSettings, text_encoder_file) },
  { "tokenizer", G_STRUCT_OFFSET (DpSettings, tokenizer) }, { "lora", G_STRUCT_OFFSET (DpSettings, lora) },
};
static const Number ints[] = {
  { "width", G_STRUCT_OFFSET (DpSettings, width) }, { "height", G_STRUCT_OFFSET (DpSettings, height) },
  { "steps", G_STRUCT_OFFSET (DpSettings, steps) }, { "block-latents", G_STRUCT_OFFSET (DpSettings, block_latents) },
  { "context-latents", G_STRUCT_OFFSET (DpSettings, context_latents) }, { "queue-blocks", G_STRUCT_OFFSET (DpSettings, queue_blocks) },
  { "text-length", G_STRUCT_OFFSET (DpSettings, text_length) }, { "linger", G_STRUCT_OFFSET (DpSettings, linger) },
};

static const Number doubles[] = {
  { "guidance-scale", G_STRUCT_OFFSET (DpSettings, guidance_scale) },
  { "guidance-scale-2", G_STRUCT_OFFSET (DpSettings, guidance_scale_2) },
  { "guidance-interval-low", G_STRUCT_OFFSET (DpSettings, guidance_interval_low) },
  { "guidance-interval-high", G_STRUCT_OFFSET (DpSettings, guidance_interval_high) },
  { "flow-shift", G_STRUCT_OFFSET (DpSettings, flow_shift) },
};

/* The halves of each stage, "0-31,0-29;31-60,29-60". */
static char *
cuts_of (const DpPlan *plan)
{
  GString *text = g_string_new (NULL);

  for (int i = 0; i < plan->n_stages; i++) {
    const DpHalves *h = plan->stages[i].halves;

    g_string_append_printf (text, "%s%d-%d,%d-%d", i ? ";" : "", h[0].first, h[0].last, h[1].first, h[1].last);
  }
  return g_string_free (text, FALSE);
}

/* Ranges that follow each other. */
static gboolean
read_cuts (const char *text, int stages, DpHalves (*cuts)[2])
{
  g_auto (GStrv) parts = g_strsplit (text ? text : "", ";", -1);
  int next[2] = { 0, 0 };

  for (int i = 0; i < stages; i++) {
    DpHalves *h = cuts[i];

    if (parts[i] == NULL || sscanf (parts[i], "%d-%d,%d-%d", &h[0].first, &h[0].last, &h[1].first, &h[1].last) != 4)
      return FALSE;
    for (int e = 0; e < 2; e++) {
      if (h[e].first != next[e] || h[e].last <= h[e].first)
        return FALSE;
      next[e] = h[e].last;
    }
  }
  return parts[stages] == NULL && next[0] == next[1];
}

static gboolean
load (GKeyFile *to, const char *text, GError **error)
{
  if (g_utf8_validate (text, -1, NULL) && g_key_file_load_from_data (to, text, -1, G_KEY_FILE_NONE, NULL))
    return TRUE;
  dp_error_set (error, DP_ERROR_FAILED, "what rank 0 sent is not a list of settings; install the same version on every host");
  return FALSE;
}

char *
dp_agreement_new (const DpPlan *plan, GError **error)
{
  const DpSettings *s = &plan->settings;
  g_autoptr (GKeyFile) text = g_key_file_new ();
  g_autofree char *cuts = cuts_of (plan);

  if (!dp_model_has_files (plan->model, error))
    return NULL;
  g_key_file_set_string (text, GROUP, "version", DP_VERSION);
  g_key_file_set_string (text, GROUP, "model", s->model);
  g_key_file_set_integer (text, GROUP, "stages", plan->n_stages);
  g_key_file_set_string (text, GROUP, "cuts", cuts);
  add_config (text, plan);
  for (int i = 0; i < plan->model->config.experts; i++)
    if (!add_weights (text, plan->model, DP_MODEL_TRANSFORMER + i, error))
      return NULL;
  g_key_file_set_string (text, GROUP, "sampler", s->sampler);
  g_key_file_set_string (text, GROUP, "precision", s->precision);
  g_key_file_set_string (text, GROUP, "context-mode", s->context_mode);
  for (gsize i = 0; i < G_N_ELEMENTS (ints); i++)
    g_key_file_set_integer (text, GROUP, ints[i].key, G_STRUCT_MEMBER (int, s, ints[i].offset));
  for (gsize i = 0; i < G_N_ELEMENTS (doubles); i++)
    g_key_file_set_double (text, GROUP, doubles[i].key, G_STRUCT_MEMBER (double, s, doubles[i].offset));
  g_key_file_set_int64 (text, GROUP, "num-frames", s->num_frames);
  g_key_file_set_boolean (text, WISHES, "trace", s->trace != NULL);
  for (gsize i = 0; i < G_N_ELEMENTS (files); i++)
    if (G_STRUCT_MEMBER (const char *, s, files[i].offset))
      g_key_file_set_string (text, WISHES, files[i].key, G_STRUCT_MEMBER (const char *, s, files[i].offset));
  return g_key_file_to_data (text, NULL, NULL);
}

gboolean
dp_agreement_read (const char *data, DpSettings *s, int *stages, DpHalves (*cuts)[2], GStringChunk *storage, GError **error)
{
  g_autoptr (GKeyFile) text = g_key_file_new ();
  g_autofree char *model = NULL, *sampler = NULL, *precision = NULL, *cut = NULL, *mode = NULL;

  if (!load (text, data, error))
    return FALSE;
  model = g_key_file_get_string (text, GROUP, "model", NULL);
  sampler = g_key_file_get_string (text, GROUP, "sampler", NULL);
  precision = g_key_file_get_string (text, GROUP, "precision", NULL);
  mode = g_key_file_get_string (text, GROUP, "context-mode", NULL);
  *stages = g_key_file_get_integer (text, GROUP, "stages", NULL);
  *s = (DpSettings) {
    .model = model ? g_string_chunk_insert (storage, model) : NULL,
    .sampler = sampler ? g_string_chunk_insert (storage, sampler) : NULL,
    .precision = precision ? g_string_chunk_insert (storage, precision) : NULL,
    .context_mode = mode ? g_string_chunk_insert (storage, mode) : NULL,
    .text_encoder = "streamed",         /* is rank 0's */
    .num_frames = g_key_file_get_int64 (text, GROUP, "num-frames", NULL),
    .trace = g_key_file_get_boolean (text, WISHES, "trace", NULL) ? "rank 0" : NULL,
  };
  for (gsize i = 0; i < G_N_ELEMENTS (files); i++) {
    g_autofree char *path = g_key_file_get_string (text, WISHES, files[i].key, NULL);

    G_STRUCT_MEMBER (const char *, s, files[i].offset) = path ? g_string_chunk_insert (storage, path) : NULL;
  }
  for (gsize i = 0; i < G_N_ELEMENTS (ints); i++)
    G_STRUCT_MEMBER (int, s, ints[i].offset) = g_key_file_get_integer (text, GROUP, ints[i].key, NULL);
  for (gsize i = 0; i < G_N_ELEMENTS (doubles); i++)
    G_STRUCT_MEMBER (double, s, doubles[i].offset) = g_key_file_get_double (text, GROUP, doubles[i].key, NULL);
  cut = g_key_file_get_string (text, GROUP, "cuts", NULL);
  if (*stages < 2 || *stages > DP_MAX_STAGES) {
    g_set_error (error, DP_ERROR, DP_ERROR_FAILED, "rank 0 asked for a ring of %d stages; expected 2 to %d", *stages, DP_MAX_STAGES);
    return FALSE;
  }
  if (read_cuts (cut, *stages, cuts))
    return TRUE;
  g_set_error_literal (error, DP_ERROR, DP_ERROR_FAILED, "rank 0 did not say which layers each stage has");
  return FALSE;
}

gboolean
dp_agreement_check (const char *rank_0, const char *here, GError **error)
{
  g_autoptr (GKeyFile) a = g_key_file_new (), b = g_key_file_new ();
  g_auto (GStrv) keys = NULL;

  if (!load (a, rank_0, error) || !load (b, here, error))
    return FALSE;
  keys = g_key_file_get_keys (a, GROUP, NULL, NULL);
  for (int i = 0; keys && keys[i]; i++) {
    g_autofree char *x = g_key_file_get_string (a, GROUP, keys[i], NULL), *y = g_key_file_get_string (b, GROUP, keys[i], NULL);
    g_autofree char *model = g_key_file_get_string (b, GROUP, "model", NULL);

    if (strcmp (keys[i], "model") == 0 || g_strcmp0 (x, y) == 0)
      continue;
    dp_error_set (error, DP_ERROR_SETTINGS, "its model, %s, is not that of rank 0: %s differs, \"%.100s\" here and \"%.100s\" "
        "there; give all ranks the same files", model, keys[i], y ? y : "nothing", x ? x : "nothing");
    return FALSE;
  }
  return TRUE;
}
