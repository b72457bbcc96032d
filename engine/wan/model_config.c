/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model_config.h"
#include "error.h"
#include "found.h"
#include "json_cursor.h"
#include "published.h"

#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

#define MAX_FILE (1 << 20)

/* Sizes are bounded so that no weight matrix has 2^31 elements. */
#define MAX_WIDTH 16384
#define MAX_HIDDEN 65536

/* One json file. The first thing wrong in it latches in `error`; from then on every call returns a harmless value. */
typedef struct
{
  char *path;
  JsonParser *parser;
  JsonObject *object;
  GError *error;
} Reader;

/* The json library lets half a surrogate pair through, so that not even a text of the file is sure to be UTF-8; all are quoted. */
static void G_GNUC_PRINTF (2, 3)
reader_fail (Reader *r, const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list args;

  if (r->error)
    return;
  va_start (args, format);
  message = dp_error_sentence (format, args);
  va_end (args);
  dp_error_set (&r->error, DP_ERROR_BAD_MODEL, "%s: %.2000s", r->path, message);
}

/* The value as json, cut to what a sentence can bear. */
static char *
describe (JsonNode *node)
{
  g_autofree char *text = node ? json_to_string (node, FALSE) : NULL;

  if (text == NULL)
    return g_strdup ("nothing");
  if (strlen (text) <= 60)
    return g_steal_pointer (&text);
  *g_utf8_find_prev_char (text, text + 58) = 0;
  return g_strconcat (text, "...", NULL);
}

static void
reader_expected (Reader *r, const char *key, JsonNode *node, const char *expected)
{
  g_autofree char *found = describe (node);

  reader_fail (r, "%s: expected %s, found %s", key, expected, found);
}

static gboolean
reader_parse (Reader *r, const char *text, gsize length)
{
  g_autoptr (GError) cause = NULL;
  g_autofree char *instead = dp_found_content (text, length);
  const char *wild = NULL;
  JsonNode *root;

  if (instead || !g_utf8_validate_len (text, length, NULL)) {
    reader_fail (r, "expected json, found %s", instead ? instead : "bytes that are not UTF-8");
    return FALSE;
  }
  if ((wild = dp_json_found_wild (text, length))) {
    reader_fail (r, "expected json, found %s", wild);
    return FALSE;
  }
  r->parser = json_parser_new ();
  if (!json_parser_load_from_data (r->parser, text, length, &cause)) {
    reader_fail (r, "expected json, found a mistake: %s", cause->message);
    return FALSE;
  }
  root = json_parser_get_root (r->parser);
  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root)) {
    reader_fail (r, "expected a json object, found something else");
    return FALSE;
  }
  r->object = json_node_get_object (root);
  return TRUE;
}

static gboolean
reader_open (Reader *r, const char *dir, const char *name)
{
  g_autofree char *text = NULL;
  gsize length;

  *r = (Reader) { .path = g_build_filename (dir, name, NULL) };
  return dp_found_read (r->path, MAX_FILE, "json", "a model directory in diffusers layout has this file", &text, &length, &r->error)
      && reader_parse (r, text, length);
}

/* Hands the latched error over. */
static gboolean
reader_close (Reader *r, GError **error)
{
  gboolean ok = r->error == NULL;

  if (!ok)
    g_propagate_error (error, r->error);
  g_clear_object (&r->parser);
  g_free (r->path);
  *r = (Reader) { 0 };
  return ok;
}

/* ---- values; a key that is null counts as absent ---- */

static JsonNode *
get_node (Reader *r, const char *key)
{
  JsonNode *node = r->error ? NULL : json_object_get_member (r->object, key);

  return node && JSON_NODE_HOLDS_NULL (node) ? NULL : node;
}

static gboolean
is_type (JsonNode *node, GType type)
{
  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == type;
}

/* `fallback` G_MININT: the key must be there. */
static int
get_int (Reader *r, const char *key, int min, int max, int fallback)
{
  JsonNode *node = get_node (r, key);
  char expected[80];

  if (node == NULL && fallback != G_MININT)
    return fallback;
  if (is_type (node, G_TYPE_INT64) && json_node_get_int (node) >= min && json_node_get_int (node) <= max)
    return json_node_get_int (node);
  if (min == max)
    g_snprintf (expected, sizeof expected, "%d", min);
  else
    g_snprintf (expected, sizeof expected, "a whole number from %d to %d", min, max);
  reader_expected (r, key, node, expected);
  return MAX (min, 1);
}

#define REQUIRED G_MININT

static double
node_double (JsonNode *node, double otherwise)
{
  if (is_type (node, G_TYPE_DOUBLE))
    return json_node_get_double (node);
  return is_type (node, G_TYPE_INT64) ? (double) json_node_get_int (node) : otherwise;
}

static double
get_double (Reader *r, const char *key, double min, double max, double fallback)
{
  JsonNode *node = get_node (r, key);
  double value = node_double (node, NAN);
  char expected[80];

  if (node == NULL)
    return fallback;
  if (value >= min && value <= max)
    return value;
  g_snprintf (expected, sizeof expected, "a number from %g to %g", min, max);
  reader_expected (r, key, node, expected);
  return fallback;
}

static gboolean
get_bool (Reader *r, const char *key, gboolean fallback)
{
  JsonNode *node = get_node (r, key);

  if (node == NULL)
    return fallback;
  if (is_type (node, G_TYPE_BOOLEAN))
    return json_node_get_boolean (node);
  reader_expected (r, key, node, "true or false");
  return fallback;
}

static void
get_string (Reader *r, const char *key, char *out, gsize size)
{
  JsonNode *node = get_node (r, key);
  char expected[80];

  if (node == NULL)
    return;
  if (is_type (node, G_TYPE_STRING) && strlen (json_node_get_string (node)) < size
      && g_utf8_validate (json_node_get_string (node), -1, NULL)) {
    g_strlcpy (out, json_node_get_string (node), size);
    return;
  }
  g_snprintf (expected, sizeof expected, "UTF-8 text of less than %" G_GSIZE_FORMAT " bytes", size);
  reader_expected (r, key, node, expected);
}

static JsonArray *
get_array (Reader *r, const char *key, guint min, guint max)
{
  JsonNode *node = get_node (r, key);
  JsonArray *array = node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
  char expected[80];

  if (array && json_array_get_length (array) >= min && json_array_get_length (array) <= max)
    return array;
  if (min == max)
    g_snprintf (expected, sizeof expected, "a list of %u values", min);
  else
    g_snprintf (expected, sizeof expected, "a list of %u to %u values", min, max);
  reader_expected (r, key, node, expected);
  return NULL;
}

static gboolean
get_ints (Reader *r, const char *key, guint min_n, guint max_n, int min, int max, int *out, int *n)
{
  JsonArray *array = get_array (r, key, min_n, max_n);

  for (guint i = 0; array && i < json_array_get_length (array); i++) {
    JsonNode *node = json_array_get_element (array, i);

    if (!is_type (node, G_TYPE_INT64) || json_node_get_int (node) < min || json_node_get_int (node) > max) {
      char expected[80];

      g_snprintf (expected, sizeof expected, "whole numbers from %d to %d", min, max);
      reader_expected (r, key, node, expected);
      return FALSE;
    }
    out[i] = json_node_get_int (node);
  }
  *n = array ? (int) json_array_get_length (array) : 0;
  return array != NULL;
}

/* All of `array`, which may be NULL: then an error is there already. */
static void
array_floats (Reader *r, const char *key, JsonArray *array, double min, double max, float *out)
{
  for (guint i = 0; array && i < json_array_get_length (array); i++) {
    JsonNode *node = json_array_get_element (array, i);
    double value = node_double (node, NAN);

    if (!(value >= min && value <= max)) {
      char expected[80];

      g_snprintf (expected, sizeof expected, "numbers from %g to %g", min, max);
      reader_expected (r, key, node, expected);
      return;
    }
    out[i] = value;
  }
}

static void
get_floats (Reader *r, const char *key, guint n, double min, double max, float *out)
{
  array_floats (r, key, get_array (r, key, n, n), min, max, out);
}

/* ---- what is refused by name ---- */

/* Must be this text; absent is fine when `optional`. */
static void
want_string (Reader *r, const char *key, const char *wanted, gboolean optional)
{
  JsonNode *node = get_node (r, key);
  g_autofree char *expected = g_strdup_printf ("\"%s\"", wanted);

  if (r->error || (node == NULL && optional) || (is_type (node, G_TYPE_STRING) && strcmp (json_node_get_string (node), wanted) == 0))
    return;
  reader_expected (r, key, node, expected);
}

static void
want_bool (Reader *r, const char *key, gboolean wanted, gboolean if_absent)
{
  if (get_bool (r, key, if_absent) != wanted && r->error == NULL)
    reader_expected (r, key, get_node (r, key), wanted ? "true (nothing else is supported)" : "false (nothing else is supported)");
}

/* Must be absent, null, or an empty list. */
static void
want_nothing (Reader *r, const char *key, const char *why)
{
  JsonNode *node = get_node (r, key);
  g_autofree char *found = NULL;

  if (node == NULL || (JSON_NODE_HOLDS_ARRAY (node) && json_array_get_length (json_node_get_array (node)) == 0))
    return;
  found = describe (node);
  reader_fail (r, "%s: expected none, found %s: %s", key, found, why);
}

#define QUANTIZED "weights that diffusers quantises are not supported; scaled fp8 and GGUF are"

/* ---- the files ---- */

/* A component is a pair [library, class]; the class must be `wanted`, or null where it is `optional`. FALSE when there is none. */
static gboolean
want_component (Reader *r, const char *key, const char *wanted, gboolean optional)
{
  JsonNode *node = get_node (r, key), *class = NULL;

  if (node == NULL)
    return FALSE;
  if (JSON_NODE_HOLDS_ARRAY (node) && json_array_get_length (json_node_get_array (node)) == 2)
    class = json_array_get_element (json_node_get_array (node), 1);
  if (is_type (class, G_TYPE_STRING) && strcmp (json_node_get_string (class), wanted) == 0)
    return TRUE;
  if (!(optional && class && JSON_NODE_HOLDS_NULL (class)))
    reader_expected (r, key, node, wanted);
  return FALSE;
}

/* Without a boundary the reference never runs the second of two transformers: what was meant is not known, so it is refused. */
static void
read_experts (DpModelConfig *c, Reader *r)
{
  gboolean second = want_component (r, "transformer_2", "WanTransformer3DModel", TRUE);

  c->boundary_ratio = get_double (r, "boundary_ratio", 0, 1, -1);
  c->experts = second ? 2 : 1;
  if (second && c->boundary_ratio < 0)
    reader_fail (r, "boundary_ratio: expected a number from 0 to 1, as there is a transformer_2, found nothing");
  if (!second && c->boundary_ratio >= 0)
    reader_fail (r, "boundary_ratio: expected none, as there is no transformer_2, found %g; it is where the second transformer takes over",
        c->boundary_ratio);
}

static gboolean
read_index (DpModelConfig *c, const char *dir, GError **error)
{
  g_autofree char *path = g_build_filename (dir, "model_index.json", NULL);
  Reader r = { 0 };

  DpFound found = dp_found_at (path, error);

  if (found == DP_FOUND_NOTHING)
    dp_found_no_model (dir, error);
  if (found != DP_FOUND_SOMETHING)
    return FALSE;
  if (reader_open (&r, dir, "model_index.json")) {
    want_string (&r, "_class_name", "WanPipeline", FALSE);
    read_experts (c, &r);
    c->expand_timesteps = get_bool (&r, "expand_timesteps", FALSE);
    want_component (&r, "text_encoder", "UMT5EncoderModel", FALSE);
    want_component (&r, "transformer", "WanTransformer3DModel", FALSE);
    want_component (&r, "vae", "AutoencoderKLWan", FALSE);
  }
  return reader_close (&r, error);
}

static gboolean
read_text (DpTextConfig *c, const char *dir, GError **error)
{
  Reader r = { 0 };

  if (reader_open (&r, dir, "text_encoder/config.json")) {
    want_string (&r, "model_type", "umt5", FALSE);
    want_string (&r, "feed_forward_proj", "gated-gelu", FALSE);
    want_string (&r, "dense_act_fn", "gelu_new", TRUE);
    want_nothing (&r, "quantization_config", QUANTIZED);
    c->layers = get_int (&r, "num_layers", 1, 256, REQUIRED);
    c->d_model = get_int (&r, "d_model", 1, MAX_WIDTH, REQUIRED);
    c->d_ff = get_int (&r, "d_ff", 1, MAX_HIDDEN, REQUIRED);
    c->d_kv = get_int (&r, "d_kv", 1, 1024, REQUIRED);
    c->heads = get_int (&r, "num_heads", 1, 1024, REQUIRED);
    c->vocab = get_int (&r, "vocab_size", 3, 1 << 20, REQUIRED);
    c->buckets = get_int (&r, "relative_attention_num_buckets", 4, 1024, 32);
    c->max_distance = get_int (&r, "relative_attention_max_distance", 2, 1 << 20, 128);
    c->eps = get_double (&r, "layer_norm_epsilon", 1e-12, 1e-2, 1e-6);
    if (c->heads * c->d_kv > MAX_WIDTH)
      reader_fail (&r, "num_heads * d_kv: expected at most %d, found %d", MAX_WIDTH, c->heads * c->d_kv);
    if (c->buckets % 4)
      reader_fail (&r, "relative_attention_num_buckets: expected a multiple of 4, found %d", c->buckets);
    if (c->max_distance <= c->buckets / 4)
      reader_fail (&r, "relative_attention_max_distance: expected more than %d, found %d", c->buckets / 4, c->max_distance);
  }
  return reader_close (&r, error);
}

static void
check_patch_size (Reader *r)
{
  int patch[3] = { 1, 2, 2 }, n;

  if (get_node (r, "patch_size") && get_ints (r, "patch_size", 3, 3, 1, 64, patch, &n) && (patch[0] != 1 || patch[1] != 2 || patch[2] != 2))
    reader_expected (r, "patch_size", get_node (r, "patch_size"), "[1, 2, 2]");
}

static gboolean
read_dit (DpDitConfig *c, const char *dir, const char *name, GError **error)
{
  Reader r = { 0 };

  if (reader_open (&r, dir, name)) {
    want_string (&r, "_class_name", "WanTransformer3DModel", FALSE);
    want_string (&r, "qk_norm", "rms_norm_across_heads", TRUE);
    want_nothing (&r, "image_dim", "image-to-video models are not supported");
    want_nothing (&r, "added_kv_proj_dim", "image-to-video models are not supported");
    want_nothing (&r, "pos_embed_seq_len", "image-to-video models are not supported");
    want_nothing (&r, "quantization_config", QUANTIZED);
    check_patch_size (&r);
    c->layers = get_int (&r, "num_layers", 1, 256, REQUIRED);
    c->heads = get_int (&r, "num_attention_heads", 1, 256, REQUIRED);
    c->head_dim = get_int (&r, "attention_head_dim", 6, 512, REQUIRED);
    c->ffn = get_int (&r, "ffn_dim", 1, MAX_HIDDEN, REQUIRED);
    c->in_channels = get_int (&r, "in_channels", 1, DP_VAE_MAX_CHANNELS, REQUIRED);
    c->out_channels = get_int (&r, "out_channels", 1, DP_VAE_MAX_CHANNELS, c->in_channels);
    c->text_dim = get_int (&r, "text_dim", 1, MAX_WIDTH, REQUIRED);
    c->freq_dim = get_int (&r, "freq_dim", 2, MAX_WIDTH, 256);
    c->rope_max = get_int (&r, "rope_max_seq_len", 1, 1 << 20, 1024);
    c->cross_attn_norm = get_bool (&r, "cross_attn_norm", TRUE);
    c->eps = get_double (&r, "eps", 1e-12, 1e-2, 1e-6);
    if (c->heads * c->head_dim > MAX_WIDTH)
      reader_fail (&r, "num_attention_heads * attention_head_dim: expected at most %d, found %d", MAX_WIDTH, c->heads * c->head_dim);
    if (c->head_dim % 2)
      reader_fail (&r, "attention_head_dim: expected an even number, found %d", c->head_dim);
    if (c->freq_dim % 2)
      reader_fail (&r, "freq_dim: expected an even number, found %d", c->freq_dim);
    if (c->out_channels != c->in_channels)
      reader_fail (&r, "out_channels: expected in_channels %d, found %d", c->in_channels, c->out_channels);
  }
  return reader_close (&r, error);
}

/* The decoder runs the encoder's levels backwards; its last level does not upsample. */
static void
read_vae_levels (DpVaeConfig *c, Reader *r)
{
  JsonArray *down;

  if (!get_ints (r, "dim_mult", 1, DP_VAE_MAX_LEVELS, 1, 64, c->dim_mult, &c->levels))
    return;
  for (int i = 0; i < c->levels; i++)
    if (c->base_dim * c->dim_mult[i] > 8192)
      reader_fail (r, "base_dim * dim_mult: expected at most 8192, found %d", c->base_dim * c->dim_mult[i]);
  down = get_array (r, "temperal_downsample", c->levels - 1, c->levels - 1);
  c->spatial_scale = c->patch << (c->levels - 1);
  c->temporal_scale = 1;
  for (int i = 0; down && i < c->levels - 1; i++) {
    JsonNode *node = json_array_get_element (down, c->levels - 2 - i);

    if (!is_type (node, G_TYPE_BOOLEAN)) {
      reader_expected (r, "temperal_downsample", node, "true or false");
      return;
    }
    c->temporal_upsample[i] = json_node_get_boolean (node);
    c->temporal_scale <<= c->temporal_upsample[i];
  }
  get_int (r, "scale_factor_spatial", c->spatial_scale, c->spatial_scale, c->spatial_scale);
  get_int (r, "scale_factor_temporal", c->temporal_scale, c->temporal_scale, c->temporal_scale);
}

/* What is shuffled to the output of an up block has a whole number of channels for each of it, and so have the means of a down block. */
static void
check_residual (const DpVaeConfig *c, Reader *r)
{
  for (int i = 0; c->residual && i < c->levels - 1; i++) {
    int co = c->dim_mult[c->levels - 1 - i], ci = i == 0 ? co : c->dim_mult[c->levels - i];

    if (4 * co * (c->temporal_upsample[i] ? 2 : 1) % ci)
      reader_fail (r, "dim_mult: expected numbers that divide %d times the one before with is_residual, found %d after %d",
          c->temporal_upsample[i] ? 8 : 4, ci, co);
  }
  for (int i = 0; c->residual && i < c->levels; i++) {
    int ci = i == 0 ? 1 : c->dim_mult[i - 1], co = c->dim_mult[i];
    int of_one = i == c->levels - 1 ? 1 : c->temporal_upsample[c->levels - 2 - i] ? 8 : 4;

    if (ci * of_one % co)
      reader_fail (r, "dim_mult: expected a divisor of %d after %d with is_residual, found %d", ci * of_one, ci, co);
  }
}

static gboolean
read_vae (DpVaeConfig *c, const char *dir, const char *name, GError **error)
{
  Reader r = { 0 };

  if (reader_open (&r, dir, name)) {
    want_string (&r, "_class_name", "AutoencoderKLWan", FALSE);
    want_nothing (&r, "attn_scales", "only attention in the middle block is supported");
    want_nothing (&r, "quantization_config", QUANTIZED);
    c->z_dim = get_int (&r, "z_dim", 1, DP_VAE_MAX_CHANNELS, REQUIRED);
    c->encoder_base_dim = get_int (&r, "base_dim", 1, 1024, REQUIRED);
    c->base_dim = get_int (&r, "decoder_base_dim", 1, 1024, c->encoder_base_dim);
    c->res_blocks = get_int (&r, "num_res_blocks", 1, 16, REQUIRED);
    c->residual = get_bool (&r, "is_residual", FALSE);
    c->patch = get_int (&r, "patch_size", 1, 2, 1);
    c->out_channels = get_int (&r, "out_channels", 3 * c->patch * c->patch, 3 * c->patch * c->patch, c->patch == 1 ? 3 : REQUIRED);
    get_floats (&r, "latents_mean", c->z_dim, -1e6, 1e6, c->mean);
    get_floats (&r, "latents_std", c->z_dim, 1e-6, 1e6, c->std);
    read_vae_levels (c, &r);
    check_residual (c, &r);
  }
  return reader_close (&r, error);
}

static void
read_unipc (DpSchedulerConfig *c, Reader *r)
{
  char type[16] = "bh2";

  strcpy (c->sampler, "unipc");
  want_string (r, "prediction_type", "flow_prediction", FALSE);
  want_string (r, "final_sigmas_type", "zero", TRUE);
  want_bool (r, "use_flow_sigmas", TRUE, FALSE);
  want_bool (r, "predict_x0", TRUE, TRUE);
  want_bool (r, "thresholding", FALSE, FALSE);
  want_nothing (r, "disable_corrector", "the corrector always runs here");
  want_nothing (r, "solver_p", "a second solver is not supported");
  c->flow_shift = get_double (r, "flow_shift", 1e-3, 1e3, 1.0);
  c->solver_order = get_int (r, "solver_order", 1, 2, 2);
  c->lower_order_final = get_bool (r, "lower_order_final", TRUE);
  get_string (r, "solver_type", type, sizeof type);
  c->bh2 = strcmp (type, "bh2") == 0;
  if (!c->bh2 && strcmp (type, "bh1") != 0)
    reader_expected (r, "solver_type", get_node (r, "solver_type"), "\"bh1\" or \"bh2\"");
}

static void
read_euler (DpSchedulerConfig *c, Reader *r)
{
  strcpy (c->sampler, "euler");
  want_bool (r, "invert_sigmas", FALSE, FALSE);
  want_bool (r, "stochastic_sampling", FALSE, FALSE);
  c->flow_shift = get_double (r, "shift", 1e-3, 1e3, 1.0);
  c->solver_order = 2;          /* for who asks for unipc nevertheless */
  c->bh2 = c->lower_order_final = TRUE;
}

static gboolean
read_scheduler (DpSchedulerConfig *c, const char *dir, GError **error)
{
  Reader r = { 0 };
  char class[64] = "";

  if (reader_open (&r, dir, "scheduler/scheduler_config.json")) {
    get_string (&r, "_class_name", class, sizeof class);
    if (strcmp (class, "UniPCMultistepScheduler") == 0)
      read_unipc (c, &r);
    else if (strcmp (class, "FlowMatchEulerDiscreteScheduler") == 0)
      read_euler (c, &r);
    else
      reader_expected (&r, "_class_name", get_node (&r, "_class_name"), "UniPCMultistepScheduler or FlowMatchEulerDiscreteScheduler");
    want_bool (&r, "use_karras_sigmas", FALSE, FALSE);
    want_bool (&r, "use_exponential_sigmas", FALSE, FALSE);
    want_bool (&r, "use_beta_sigmas", FALSE, FALSE);
    want_bool (&r, "use_dynamic_shifting", FALSE, FALSE);
    want_nothing (&r, "shift_terminal", "a schedule that is stretched to a terminal value is not supported");
    c->train_timesteps = get_int (&r, "num_train_timesteps", 2, 100000, 1000);
  }
  return reader_close (&r, error);
}

static void
get_sizes (Reader *r, const char *key, int step, DpSize *sizes, int *n)
{
  JsonArray *array = get_node (r, key) ? get_array (r, key, 1, DP_MAX_TRAINED) : NULL;

  if (array)
    *n = 0;
  for (guint i = 0; array && i < json_array_get_length (array); i++) {
    JsonNode *node = json_array_get_element (array, i);
    JsonArray *pair = JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
    int sides[2];

    for (guint j = 0; j < 2; j++) {
      JsonNode *side = pair && json_array_get_length (pair) == 2 ? json_array_get_element (pair, j) : NULL;

      if (!is_type (side, G_TYPE_INT64) || json_node_get_int (side) < DP_MIN_SIZE || json_node_get_int (side) > DP_MAX_SIZE
          || json_node_get_int (side) % step) {
        char expected[80];

        g_snprintf (expected, sizeof expected, "pairs of width and height, which are multiples of %d", step);
        reader_expected (r, key, node, expected);
        return;
      }
      sides[j] = json_node_get_int (side);
    }
    sizes[(*n)++] = (DpSize) { sides[0], sides[1] };
  }
}

static void
get_preview (Reader *r, DpDefaults *d, int channels)
{
  const char *key = "preview_map";
  JsonArray *rows = get_node (r, key) ? get_array (r, key, 3, 3) : NULL;

  for (guint k = 0; rows && k < 3; k++) {
    JsonNode *node = json_array_get_element (rows, k);
    JsonArray *row = JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;

    if (row == NULL || json_array_get_length (row) != (guint) channels + 1) {
      reader_fail (r, "%s: expected three lists of %d numbers, a weight for each latent channel and a constant, found another length", key,
          channels + 1);
      return;
    }
    array_floats (r, key, row, -1e6, 1e6, d->preview[k]);
  }
  d->has_preview = rows != NULL;
}

static void
check_keys (Reader *r, const char *const *known)
{
  g_autoptr (GList) keys = json_object_get_members (r->object);

  for (GList *k = keys; k; k = k->next)
    if (!g_strv_contains (known, k->data))
      reader_fail (r, "%s: expected one of the known settings, found this one", (char *) k->data);
}

static void
read_default_values (DpModelConfig *c, Reader *r)
{
  DpDefaults *d = &c->defaults;
  int rate[2], n, step = 2 * c->vae.spatial_scale;      /* a token is 2 x 2 latents */

  get_string (r, "name", d->name, sizeof d->name);
  get_string (r, "prompt", d->prompt, sizeof d->prompt);
  get_string (r, "negative_prompt", d->negative_prompt, sizeof d->negative_prompt);
  get_string (r, "words", d->words, sizeof d->words);
  get_string (r, "knows", d->knows, sizeof d->knows);
  get_string (r, "sampler", d->sampler, sizeof d->sampler);
  get_sizes (r, "trained_sizes", step, d->trained, &d->n_trained);
  get_preview (r, d, c->vae.z_dim);
  d->width = get_int (r, "width", 16, DP_MAX_SIZE, d->width);
  d->height = get_int (r, "height", 16, DP_MAX_SIZE, d->height);
  d->steps = get_int (r, "steps", 1, DP_MAX_STEPS, d->steps);
  d->guidance_scale = get_double (r, "guidance_scale", 0, DP_MAX_SCALE, d->guidance_scale);
  d->guidance_scale_2 = get_double (r, "guidance_scale_2", 0, DP_MAX_SCALE, d->guidance_scale_2);
  d->guidance_interval_low = get_double (r, "guidance_interval_low", 0, 1, 0);
  d->guidance_interval_high = get_double (r, "guidance_interval_high", 0, 1, 1);
  d->flow_shift = get_double (r, "flow_shift", 1e-3, 1e3, 0);
  d->block_latents = get_int (r, "block_latents", 1, DP_MAX_BLOCK_LATENTS, d->block_latents);
  d->context_latents = get_int (r, "context_latents", -1, d->block_latents, MIN (d->context_latents, d->block_latents));
  d->queue_blocks = get_int (r, "queue_blocks", 0, d->steps, 0);
  if (get_node (r, "framerate") && get_ints (r, "framerate", 2, 2, 1, 100000, rate, &n)) {
    d->fps_n = rate[0];
    d->fps_d = rate[1];
  }
  if (d->guidance_interval_low > d->guidance_interval_high)
    reader_fail (r, "guidance_interval_low: expected at most guidance_interval_high, %g, found %g", d->guidance_interval_high,
        d->guidance_interval_low);
  if (d->context_latents == 0)
    reader_fail (r, "context_latents: expected 1 to %d, or -1 for none, found 0", d->block_latents);
  if (d->width % step || d->height % step)
    reader_fail (r, "width, height: expected multiples of %d, found %d, %d", step, d->width, d->height);
  if (*d->sampler && strcmp (d->sampler, "unipc") != 0 && strcmp (d->sampler, "euler") != 0)
    reader_fail (r, "sampler: expected \"unipc\" or \"euler\", found \"%s\"", d->sampler);
}

/* The name goes to people, on the bus too. */
static void
set_name (DpDefaults *d, const char *name)
{
  g_autofree char *quoted = dp_quote (name, DP_QUOTE_MAX);
  const char *end;

  g_strlcpy (d->name, quoted, sizeof d->name);
  g_utf8_validate (d->name, -1, &end);
  d->name[end - d->name] = 0;   /* cut within a character */
}

void
dp_model_config_defaults (DpModelConfig *config, const char *name)
{
  config->defaults = (DpDefaults) { .prompt = "waves rolling onto a sandy beach at sunset", .width = 832, .height = 480, .fps_n = 16, .fps_d = 1,
    .steps = 50, .guidance_scale = 5.0, .guidance_interval_high = 1, .block_latents = 8, .context_latents = 8 };
  set_name (&config->defaults, name);
  dp_published_defaults (config);
}

static gboolean
read_defaults (DpModelConfig *c, const char *dir, GError **error)
{
  static const char *const known[] = { "name", "prompt", "negative_prompt", "width", "height", "framerate", "steps", "guidance_scale",
    "guidance_scale_2", "guidance_interval_low", "guidance_interval_high", "flow_shift", "block_latents", "context_latents",
    "queue_blocks", "sampler", "words", "knows", "trained_sizes", "preview_map", NULL };
  g_autofree char *path = g_build_filename (dir, "dualparal.json", NULL);
  g_autofree char *canonical = g_canonicalize_filename (dir, NULL);
  g_autofree char *base = g_path_get_basename (canonical);
  Reader r = { 0 };

  dp_model_config_defaults (c, base);
  DpFound found = dp_found_at (path, error);
  if (found != DP_FOUND_SOMETHING)
    return found == DP_FOUND_NOTHING;
  if (reader_open (&r, dir, "dualparal.json")) {
    check_keys (&r, known);
    read_default_values (c, &r);
    g_autofree char *name = g_strdup (c->defaults.name);
    set_name (&c->defaults, name);
  }
  return reader_close (&r, error);
}

/* A pass goes through either expert, with the keys and values of either: they differ in their weights only. */
static gboolean
read_second_dit (const DpModelConfig *c, const char *dir, GError **error)
{
  const DpDitConfig *a = &c->dit;
  DpDitConfig b;

  if (c->experts == 1)
    return TRUE;
  if (!read_dit (&b, dir, "transformer_2/config.json", error))
    return FALSE;
  const struct { const char *key; double first, second; } values[] = {
    { "num_layers", a->layers, b.layers }, { "num_attention_heads", a->heads, b.heads }, { "attention_head_dim", a->head_dim, b.head_dim },
    { "ffn_dim", a->ffn, b.ffn }, { "in_channels", a->in_channels, b.in_channels }, { "out_channels", a->out_channels, b.out_channels },
    { "text_dim", a->text_dim, b.text_dim }, { "freq_dim", a->freq_dim, b.freq_dim }, { "rope_max_seq_len", a->rope_max, b.rope_max },
    { "cross_attn_norm", a->cross_attn_norm, b.cross_attn_norm }, { "eps", a->eps, b.eps },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (values); i++)
    if (values[i].first != values[i].second) {
      dp_error_set (error, DP_ERROR_BAD_MODEL, "%s/transformer_2/config.json: %s: expected %g as in transformer/config.json, "
          "found %g", dir, values[i].key, values[i].first, values[i].second);
      return FALSE;
    }
  return TRUE;
}

/* Do the parts fit each other? */
static gboolean
check_together (const DpModelConfig *c, const char *dir, GError **error)
{
  if (c->dit.in_channels != c->vae.z_dim) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s/transformer/config.json: in_channels: expected the VAE's z_dim %d, found %d", dir,
        c->vae.z_dim, c->dit.in_channels);
    return FALSE;
  }
  if (c->dit.text_dim != c->text.d_model) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s/transformer/config.json: text_dim: expected the text encoder's d_model %d, found "
        "%d", dir, c->text.d_model, c->dit.text_dim);
    return FALSE;
  }
  if (c->experts == 1 && c->defaults.guidance_scale_2 != 0) {
    dp_error_set (error, DP_ERROR_BAD_MODEL,
        "%s/dualparal.json: guidance_scale_2: expected none, as the model has no transformer_2, found %g", dir,
        c->defaults.guidance_scale_2);
    return FALSE;
  }
  return TRUE;
}

gboolean
dp_model_config_read (DpModelConfig *config, const char *dir, GError **error)
{
  *config = (DpModelConfig) { 0 };
  return read_index (config, dir, error) && read_text (&config->text, dir, error)
      && read_dit (&config->dit, dir, "transformer/config.json", error) && read_second_dit (config, dir, error)
      && read_vae (&config->vae, dir, "vae/config.json", error) && read_scheduler (&config->scheduler, dir, error)
      && read_defaults (config, dir, error) && check_together (config, dir, error);
}

gboolean
dp_model_config_read_vae (DpVaeConfig *config, const char *dir, GError **error)
{
  *config = (DpVaeConfig) { 0 };
  return read_vae (config, dir, "config.json", error);
}

gboolean
dp_model_config_read_heads (const char *dir, int *heads, GError **error)
{
  g_autofree char *path = g_build_filename (dir, "config.json", NULL);
  Reader r = { 0 };

  *heads = 0;
  DpFound found = dp_found_at (path, error);
  if (found != DP_FOUND_SOMETHING)
    return found == DP_FOUND_NOTHING;
  if (reader_open (&r, dir, "config.json"))
    *heads = get_int (&r, "num_heads", 1, 256, 0);
  return reader_close (&r, error);
}

gboolean
dp_model_config_check (const DpModelConfig *config, const char *model, GError **error)
{
  if (config->dit.in_channels == config->vae.z_dim && config->dit.text_dim == config->text.d_model)
    return TRUE;
  dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: its parts do not belong together: the transformer takes %d latent channels and text of %d, the "
      "VAE has %d and the text encoder %d; name the files of one model", model, config->dit.in_channels, config->dit.text_dim,
      config->vae.z_dim, config->text.d_model);
  return FALSE;
}
