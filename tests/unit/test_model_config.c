/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The embedded model's files, changed one value at a time.
 */
#include "engine/wan/model_config.h"
#include "engine/dualparal.h"

#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <string.h>

static const char *const files[] = { "model_index.json", "text_encoder/config.json", "transformer/config.json", "vae/config.json",
  "scheduler/scheduler_config.json", "dualparal.json" };
static const char *const subdirs[] = { "text_encoder", "transformer", "vae", "scheduler" };
static char *dir;

static char *
in_dir (const char *name)
{
  return g_build_filename (dir, name, NULL);
}

static char *
original (const char *name)
{
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "models", "tiny", name, NULL);
  char *text;

  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  return text;
}

static void
put (const char *name, const char *text)
{
  g_autofree char *path = in_dir (name);

  g_assert_true (g_file_set_contents (path, text, -1, NULL));
}

/* The file with one member set to a json value (NULL: taken out). */
static void
change (const char *name, const char *key, const char *json)
{
  g_autofree char *text = original (name), *changed = NULL;
  g_autoptr (JsonNode) root = json_from_string (text, NULL);

  if (json)
    json_object_set_member (json_node_get_object (root), key, json_from_string (json, NULL));
  else
    json_object_remove_member (json_node_get_object (root), key);
  changed = json_to_string (root, FALSE);
  put (name, changed);
}

static int
json_integer (const char *name, const char *key)
{
  g_autofree char *text = original (name);
  g_autoptr (JsonNode) root = json_from_string (text, NULL);

  return json_object_get_int_member (json_node_get_object (root), key);
}

static void
restore (const char *name)
{
  g_autofree char *text = original (name);

  put (name, text);
}

static void
assert_read (DpModelConfig *config)
{
  g_autoptr (GError) error = NULL;

  dp_model_config_read (config, dir, &error);
  g_assert_no_error (error);
}

static void
assert_refused (int code, const char *file, const char *names)
{
  g_autoptr (GError) error = NULL;
  DpModelConfig config;

  if (dp_model_config_read (&config, dir, &error))
    g_test_message ("accepted: %s %s", file, names);
  else
    g_test_message ("%s", error->message);
  g_assert_error (error, DP_ERROR, code);
  g_assert_nonnull (strstr (error->message, file));
  g_assert_nonnull (strstr (error->message, names));
}

static void
test_tiny (void)
{
  DpModelConfig c;

  assert_read (&c);
  g_assert_cmpint (c.text.d_model, ==, c.dit.text_dim);
  g_assert_cmpint (c.dit.in_channels, ==, c.vae.z_dim);
  g_assert_cmpint (c.vae.spatial_scale, ==, 8);
  g_assert_cmpint (c.vae.temporal_scale, ==, 4);
  g_assert_true (c.vae.temporal_upsample[0] && c.vae.temporal_upsample[1] && !c.vae.temporal_upsample[2] && !c.vae.temporal_upsample[3]);
  g_assert_cmpstr (c.scheduler.sampler, ==, "unipc");
  g_assert_true (c.scheduler.bh2 && c.scheduler.lower_order_final && c.scheduler.solver_order == 2);
  g_assert_cmpstr (c.defaults.name, ==, "tiny");
}

static void
test_fallbacks (void)
{
  g_autofree char *path = in_dir ("dualparal.json"), *base = g_path_get_basename (dir);
  DpModelConfig c;

  g_unlink (path);
  assert_read (&c);
  g_assert_cmpstr (c.defaults.name, ==, base);
  g_assert_true (c.defaults.prompt[0] && !c.defaults.negative_prompt[0] && !c.defaults.sampler[0]);
  g_assert_true (c.defaults.width == 832 && c.defaults.height == 480 && c.defaults.fps_n == 16 && c.defaults.fps_d == 1);
  g_assert_true (c.defaults.steps == 50 && c.defaults.block_latents == 8 && c.defaults.context_latents == 8
      && c.defaults.queue_blocks == 0);
  g_assert_cmpfloat (c.defaults.guidance_scale, ==, 5.0);
  g_assert_true (c.defaults.guidance_interval_low == 0 && c.defaults.guidance_interval_high == 1);
  put ("dualparal.json", "{ \"guidance_interval_low\": 0.25, \"guidance_interval_high\": 0.75 }");
  assert_read (&c);
  g_assert_true (c.defaults.guidance_interval_low == 0.25 && c.defaults.guidance_interval_high == 0.75);
  put ("dualparal.json", "{ \"guidance_interval_low\": 0.75, \"guidance_interval_high\": 0.25 }");
  assert_refused (DP_ERROR_BAD_MODEL, "dualparal.json", "guidance_interval_low");
  put ("dualparal.json", "{ \"block_latents\": 3 }");
  assert_read (&c);
  g_assert_cmpint (c.defaults.context_latents, ==, 3);
  restore ("dualparal.json");

  change ("vae/config.json", "decoder_base_dim", "24");
  assert_read (&c);
  g_assert_cmpint (c.vae.base_dim, ==, 24);
  change ("vae/config.json", "decoder_base_dim", NULL);
  assert_read (&c);
  g_assert_cmpint (c.vae.base_dim, ==, json_integer ("vae/config.json", "base_dim"));
  restore ("vae/config.json");
  put ("scheduler/scheduler_config.json", "{ \"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"shift\": 5 }");
  assert_read (&c);
  g_assert_cmpstr (c.scheduler.sampler, ==, "euler");
  g_assert_cmpfloat (c.scheduler.flow_shift, ==, 5);
  g_assert_cmpint (c.scheduler.train_timesteps, ==, 1000);
  restore ("scheduler/scheduler_config.json");
}

/* Wan2.2-TI2V-5B's arrangement: 16 x 16 pixels a latent, so sizes in steps of 32. */
static void
test_residual (void)
{
  g_autofree char *grid = g_test_build_filename (G_TEST_DIST, "tests", "parity", "fixtures", "models", "grid", NULL), *text = NULL;
  g_autofree char *path = g_build_filename (grid, "vae", "config.json", NULL);
  g_autoptr (GError) error = NULL;
  DpModelConfig c;

  dp_model_config_read (&c, grid, &error);
  g_assert_no_error (error);
  g_assert_true (c.vae.residual && c.vae.patch == 2 && c.vae.out_channels == 12 && c.vae.base_dim == 4);
  g_assert_true (c.vae.spatial_scale == 16 && c.vae.temporal_scale == 4);
  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  static const struct { const char *member, *changed, *key; } bad[] = {
    { "\"out_channels\": 12", "\"out_channels\": 3", "out_channels" }, { "\"out_channels\": 12,", "", "out_channels" },
    { "\"scale_factor_spatial\": 16", "\"scale_factor_spatial\": 8", "scale_factor_spatial" },
    { "\"z_dim\": 12", "\"z_dim\": 12, \"dim_mult\": [1, 2, 3, 5]", "dim_mult" },       /* 5 does not divide 8 x 3 */
  };
  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_auto (GStrv) parts = g_strsplit (text, bad[i].member, 2);
    g_autofree char *changed = g_strjoinv (bad[i].changed, parts);

    g_assert_cmpstr (changed, !=, text);
    put ("vae/config.json", changed);
    assert_refused (DP_ERROR_BAD_MODEL, "vae/config.json", bad[i].key);
  }
  put ("vae/config.json", text);
  put ("dualparal.json", "{ \"width\": 64, \"height\": 48 }");
  assert_refused (DP_ERROR_BAD_MODEL, "dualparal.json", "multiples of 32");
  put ("dualparal.json", "{ \"width\": 64, \"height\": 64, \"trained_sizes\": [[64, 64], [48, 64]] }");
  assert_refused (DP_ERROR_BAD_MODEL, "dualparal.json", "multiples of 32");
  restore ("dualparal.json");
  restore ("vae/config.json");
}

static void
test_refused (void)
{
  static const struct { int file; const char *key, *json; } bad[] = {
    { 0, "_class_name", "\"WanImageToVideoPipeline\"" }, { 0, "boundary_ratio", "0.875" }, { 0, "boundary_ratio", "0" },
    { 0, "transformer_2", "[]" }, { 0, "transformer", "[null, null]" }, { 0, "expand_timesteps", "1" },
    { 0, "vae", "[\"diffusers\", \"AutoencoderKL\"]" },
    { 1, "model_type", "\"t5\"" }, { 1, "feed_forward_proj", "\"relu\"" }, { 1, "num_layers", "0" }, { 1, "num_layers", "\"3\"" },
    { 1, "num_layers", "3.5" }, { 1, "num_layers", "null" }, { 1, "num_layers", NULL }, { 1, "d_model", "99999999999" },
    { 1, "d_ff", "-1" },
    { 1, "vocab_size", "[512]" }, { 1, "relative_attention_num_buckets", "30" }, { 1, "relative_attention_max_distance", "8" },
    { 1, "layer_norm_epsilon", "0" }, { 1, "quantization_config", "{ \"bits\": 8 }" }, { 1, "num_heads", "1000" },
    { 2, "patch_size", "[1, 4, 4]" }, { 2, "patch_size", "[1, 2]" }, { 2, "patch_size", "2" }, { 2, "image_dim", "1280" },
    { 2, "added_kv_proj_dim", "5120" }, { 2, "qk_norm", "\"rms_norm\"" }, { 2, "attention_head_dim", "63" },
    { 2, "attention_head_dim", "4" },
    { 2, "out_channels", "32" }, { 2, "freq_dim", "255" }, { 2, "text_dim", "64" }, { 2, "in_channels", "8" },
    { 2, "num_attention_heads", "257" },
    { 2, "cross_attn_norm", "1" }, { 2, "eps", "\"small\"" }, { 2, "ffn_dim", "true" }, { 2, "pos_embed_seq_len", "514" },
    { 3, "is_residual", "1" }, { 3, "attn_scales", "[0.5]" }, { 3, "patch_size", "3" }, { 3, "dim_mult", "[]" },
    { 3, "dim_mult", "[1, 2, 4, 4, 1, 1, 1, 1, 1]" }, { 3, "dim_mult", "[1, 2, 4, 1000]" }, { 3, "dim_mult", "[1, 2, 4]" },
    { 3, "temperal_downsample", "[0, 1, 1]" }, { 3, "latents_mean", "[1, 2]" }, { 3, "latents_std", NULL }, { 3, "out_channels", "12" },
    { 3, "z_dim", "129" }, { 3, "num_res_blocks", "0" }, { 3, "scale_factor_spatial", "16" },
    { 4, "_class_name", "\"DDIMScheduler\"" }, { 4, "prediction_type", "\"epsilon\"" }, { 4, "prediction_type", NULL },
    { 4, "use_flow_sigmas", "false" }, { 4, "use_flow_sigmas", NULL }, { 4, "predict_x0", "false" }, { 4, "solver_order", "3" },
    { 4, "solver_type", "\"heun\"" }, { 4, "use_karras_sigmas", "true" }, { 4, "use_beta_sigmas", "true" },
    { 4, "use_exponential_sigmas", "true" },
    { 4, "use_dynamic_shifting", "true" }, { 4, "shift_terminal", "0.1" }, { 4, "final_sigmas_type", "\"sigma_min\"" },
    { 4, "thresholding", "true" },
    { 4, "disable_corrector", "[0]" }, { 4, "solver_p", "{}" }, { 4, "flow_shift", "0" }, { 4, "flow_shift", "-3" },
    { 4, "num_train_timesteps", "1" },
    { 5, "width", "100" }, { 5, "height", "0" }, { 5, "steps", "1001" }, { 5, "framerate", "16" }, { 5, "framerate", "[16, 0]" },
    { 5, "context_latents", "5" }, { 5, "context_latents", "0" }, { 5, "queue_blocks", "99" }, { 5, "sampler", "\"heun\"" },
    { 5, "wdith", "256" },
    { 5, "guidance_interval_low", "-0.1" }, { 5, "guidance_interval_high", "1.1" }, { 5, "guidance_interval_high", "true" },
    { 5, "guidance_scale", "-1" }, { 5, "guidance_scale_2", "101" }, { 5, "guidance_scale_2", "3" }, { 5, "prompt", "3" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    const char *key = bad[i].key;

    change (files[bad[i].file], key, bad[i].json);
    /* a list of channels is refused by its length, sizes that do not fit together at the one that is read later */
    if (strcmp (key, "dim_mult") == 0 && strcmp (bad[i].json, "[1, 2, 4]") == 0)
      key = "temperal_downsample";
    else if (strcmp (key, "in_channels") == 0)
      key = "out_channels";
    assert_refused (DP_ERROR_BAD_MODEL, files[bad[i].file], key);
    restore (files[bad[i].file]);
  }
  put ("dualparal.json", "{ \"name\": \"\\ud800x\" }");       /* half a character, which the json library lets through */
  assert_refused (DP_ERROR_BAD_MODEL, "dualparal.json", "name");
  restore ("dualparal.json");
}

/* The index of a model with two transformers; NULL leaves a key out. */
static void
put_index (const char *second, const char *ratio)
{
  g_autofree char *text = original ("model_index.json"), *changed = NULL;
  g_autoptr (JsonNode) root = json_from_string (text, NULL);
  const char *const keys[] = { "transformer_2", "boundary_ratio" }, *const values[] = { second, ratio };

  for (int i = 0; i < 2; i++) {
    json_object_remove_member (json_node_get_object (root), keys[i]);
    if (values[i])
      json_object_set_member (json_node_get_object (root), keys[i], json_from_string (values[i], NULL));
  }
  changed = json_to_string (root, FALSE);
  put ("model_index.json", changed);
}

/* transformer_2/config.json: that of transformer, with one member changed. */
static void
put_second (const char *key, const char *json)
{
  g_autofree char *text = NULL, *first = in_dir ("transformer/config.json");

  change ("transformer/config.json", key, json);
  g_assert_true (g_file_get_contents (first, &text, NULL, NULL));
  put ("transformer_2/config.json", text);
  restore ("transformer/config.json");
}

#define TRANSFORMER "[\"diffusers\", \"WanTransformer3DModel\"]"

static void
test_experts (void)
{
  static const struct { const char *second, *ratio, *names; } bad_index[] = {
    { TRANSFORMER, NULL, "boundary_ratio: expected a number from 0 to 1, as there is a transformer_2, found nothing" },
    { TRANSFORMER, "null", "boundary_ratio" }, { TRANSFORMER, "1.01", "boundary_ratio: expected a number from 0 to 1, found 1.01" },
    { TRANSFORMER, "-0.1", "boundary_ratio" }, { TRANSFORMER, "\"0.9\"", "boundary_ratio" },
    { NULL, "0.875", "boundary_ratio: expected none, as there is no transformer_2, found 0.875" },
    { "[null, null]", "0.875", "boundary_ratio" },
    { "[null, null]", "0", "boundary_ratio" }, { "[\"diffusers\", \"UNet\"]", "0.875", "transformer_2: expected WanTransformer3DModel" },
    { "\"transformer\"", "0.875", "transformer_2" },
  };
  static const struct { const char *key, *json, *says; } others[] = {
    { "num_layers", "99", " as in transformer/config.json, found 99" }, { "num_attention_heads", "9", "found 9" },
    { "attention_head_dim", "32", "found 32" }, { "ffn_dim", "64", "found 64" }, { "text_dim", "64", "found 64" },
    { "freq_dim", "128", "found 128" },
    { "rope_max_seq_len", "512", "expected 1024" }, { "cross_attn_norm", "false", "expected 1" }, { "eps", "1e-05", "found 1e-05" },
    { "num_layers", "0", "num_layers: expected a whole number" }, { "image_dim", "1280", "image_dim" },
  };
  static const char *const ratios[] = { "0", "0.875", "1" };
  g_autofree char *folder = in_dir ("transformer_2"), *second = in_dir ("transformer_2/config.json");
  DpModelConfig c;

  assert_read (&c);
  g_assert_cmpint (c.experts, ==, 1);
  put_index (TRANSFORMER, "0.875");
  assert_refused (DP_ERROR_NOT_FOUND, "transformer_2/config.json", "cannot be read");
  g_assert_cmpint (g_mkdir (folder, 0700), ==, 0);
  put_second ("eps", "1e-06");
  for (gsize i = 0; i < G_N_ELEMENTS (ratios); i++) {
    put_index (TRANSFORMER, ratios[i]);
    assert_read (&c);
    g_assert_cmpint (c.experts, ==, 2);
    g_assert_cmpfloat (c.boundary_ratio, ==, g_ascii_strtod (ratios[i], NULL));
    g_assert_cmpfloat (c.defaults.guidance_scale_2, ==, 0);
  }
  change ("dualparal.json", "guidance_scale_2", "3.5");
  assert_read (&c);
  g_assert_cmpfloat (c.defaults.guidance_scale_2, ==, 3.5);
  restore ("dualparal.json");
  for (gsize i = 0; i < G_N_ELEMENTS (others); i++) {
    put_second (others[i].key, others[i].json);
    assert_refused (DP_ERROR_BAD_MODEL, "transformer_2/config.json", others[i].says);
  }
  put_second ("eps", "1e-06");
  for (gsize i = 0; i < G_N_ELEMENTS (bad_index); i++) {
    put_index (bad_index[i].second, bad_index[i].ratio);
    assert_refused (DP_ERROR_BAD_MODEL, "model_index.json", bad_index[i].names);
  }
  put_index (NULL, NULL);
  assert_read (&c);
  g_assert_cmpint (c.experts, ==, 1);
  restore ("model_index.json");
  g_unlink (second);
  g_rmdir (folder);
}

static void
test_not_json (void)
{
  g_autoptr (GString) deep = g_string_new ("{\"num_layers\":");
  g_autoptr (GString) wide = g_string_new (NULL);
  const char *bad[] = { "", "{", "[]", "1", "null", "\"x\"", "{\"num_layers\":}", "{'num_layers':1}", "{/*\"*/}", "{\"a\":\"", "\377",
    "{\"num_layers\":NaN}", "{\"a\":\"\\", "{}}", deep->str, "{\"a\":1,}" };

  for (int i = 0; i < 100000; i++)
    g_string_append_c (deep, '[');
  bad[14] = deep->str;
  for (gsize f = 0; f < G_N_ELEMENTS (files); f++) {
    for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
      put (files[f], bad[i]);
      if (i != 15 && f != 5)
        assert_refused (DP_ERROR_BAD_MODEL, files[f], "expected");
    }
    g_string_assign (wide, "{\"x\": \"");
    for (int i = 0; i < 1 << 20; i++)
      g_string_append_c (wide, 'x');
    g_string_append (wide, "\"}");
    put (files[f], wide->str);
    assert_refused (DP_ERROR_BAD_MODEL, files[f], "expected");
    restore (files[f]);
  }
}

/* The file with the number of a key spelled in another way. */
static void
put_spelled (const char *name, const char *key, const char *number)
{
  g_autofree char *text = original (name), *pattern = g_strdup_printf ("\"%s\": *[0-9]+", key), *changed = NULL;
  g_autofree char *with = g_strdup_printf ("\"%s\": %s", key, number);
  g_autoptr (GRegex) regex = g_regex_new (pattern, 0, 0, NULL);

  g_assert_true (g_regex_match (regex, text, 0, NULL));
  changed = g_regex_replace_literal (regex, text, -1, 0, with, 0, NULL);
  put (name, changed);
}

/* The json library reads 010 as 8 and 0x10 as 16 */
static void
test_numbers (void)
{
  static const struct { int file; const char *key; } keys[] = { { 1, "d_model" }, { 2, "num_layers" }, { 3, "z_dim" },
    { 4, "num_train_timesteps" }, { 5, "steps" } };
  static const char *const bad[] = { "010", "0x10", "0X10", "00", "-010", "+8", "8.", ".5", "08", "0777", "1e", "1e+", "0b11", "1.5.2",
    "True", "NaN", "Infinity", "-Infinity", "--8", "-", "8-8", "0e1x", "nul" };
  static const char *const good[] = { "0", "-0", "10", "-17", "0.5", "1e3", "1E-3", "2.5e+1", "0.0e0", "true", "false", "null" };

  for (gsize k = 0; k < G_N_ELEMENTS (keys); k++) {
    const char *file = files[keys[k].file];

    for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
      put_spelled (file, keys[k].key, bad[i]);
      assert_refused (DP_ERROR_BAD_MODEL, file, "expected json");
    }
    restore (file);
  }
  for (gsize i = 0; i < G_N_ELEMENTS (good); i++) {
    g_autofree char *text = original ("model_index.json"), *more = g_strdup_printf ("{ \"anything\": %s,", good[i]);
    g_autofree char *changed = g_strconcat (more, strchr (text, '{') + 1, NULL);
    DpModelConfig c;

    put ("model_index.json", changed);
    assert_read (&c);
  }
  restore ("model_index.json");
}

static void
test_missing (void)
{
  g_autofree char *vae = in_dir ("vae/config.json"), *index = in_dir ("model_index.json");
  g_autoptr (GError) error = NULL;
  DpModelConfig c;

  g_unlink (vae);
  assert_refused (DP_ERROR_NOT_FOUND, "vae/config.json", "cannot be read");
  restore ("vae/config.json");
  g_unlink (index);
  assert_refused (DP_ERROR_NOT_FOUND, "model_index.json", "no model in this directory");
  restore ("model_index.json");
  g_assert_false (dp_model_config_read (&c, "/nowhere", &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "/nowhere"));
}

int
main (int argc, char **argv)
{
  int failed;

  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("dp-config-XXXXXX", NULL);
  for (gsize i = 0; i < G_N_ELEMENTS (subdirs); i++) {
    g_autofree char *path = in_dir (subdirs[i]);

    g_mkdir (path, 0700);
  }
  for (gsize i = 0; i < G_N_ELEMENTS (files); i++)
    restore (files[i]);
  g_test_add_func ("/config/tiny", test_tiny);
  g_test_add_func ("/config/fallbacks", test_fallbacks);
  g_test_add_func ("/config/residual", test_residual);
  g_test_add_func ("/config/refused", test_refused);
  g_test_add_func ("/config/experts", test_experts);
  g_test_add_func ("/config/not_json", test_not_json);
  g_test_add_func ("/config/numbers", test_numbers);
  g_test_add_func ("/config/missing", test_missing);
  failed = g_test_run ();
  for (gsize i = 0; i < G_N_ELEMENTS (files); i++) {
    g_autofree char *path = in_dir (files[i]);

    g_unlink (path);
  }
  for (gsize i = 0; i < G_N_ELEMENTS (subdirs); i++) {
    g_autofree char *path = in_dir (subdirs[i]);

    g_rmdir (path);
  }
  g_rmdir (dir);
  g_free (dir);
  return failed;
}
