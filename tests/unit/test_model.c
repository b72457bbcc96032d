/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/wan/model.h"
#include "engine/wan/error.h"

#include <glib/gstdio.h>
#include <string.h>

static void
test_embedded (void)
{
  static const DpModelPart with_weights[] = { DP_MODEL_TRANSFORMER, DP_MODEL_VAE, DP_MODEL_TEXT_ENCODER };
  g_autoptr (GError) error = NULL;
  g_autoptr (DpModel) model = dp_model_open (NULL, NULL, &error);

  g_assert_no_error (error);
  g_assert_cmpstr (model->dir, ==, dp_model_embedded ());
  g_assert_cmpstr (model->config.defaults.name, ==, "tiny");
  g_assert_cmpint (model->latent_channels, ==, model->config.vae.z_dim);
  for (guint i = 0; i < G_N_ELEMENTS (with_weights); i++) {
    g_autoptr (DpWeights) weights = dp_model_weights (model, with_weights[i], &error);
    g_assert_no_error (error);
    g_assert_true (g_str_has_prefix (dp_weights_path (weights), model->paths[with_weights[i]]));
  }
  g_assert_true (g_file_test (model->paths[DP_MODEL_TOKENIZER], G_FILE_TEST_IS_DIR));

  /* it has one expert only: the other's weights are missed by name */
  g_autoptr (DpWeights) none = dp_model_weights (model, DP_MODEL_TRANSFORMER + 1, &error);
  g_assert_null (none);
  g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, dp_model_part_name (DP_MODEL_TRANSFORMER_2)));
}

static void
test_refs (void)
{
  DpModel *model = dp_model_open (NULL, NULL, NULL), *other = dp_model_ref (model);

  dp_model_unref (model);
  g_assert_true (g_file_test (other->paths[DP_MODEL_VAE], G_FILE_TEST_IS_DIR));
  dp_model_unref (other);
  dp_model_unref (NULL);
}

static void
test_nowhere (void)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (dp_model_open ("/nowhere", NULL, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "/nowhere"));
}

/* Its sizes without a file; a part of it says how to get the files. */
static void
test_published (void)
{
  static const struct
  {
    const char *name, *repository;
    int layers, width, ffn, experts, size[2], fps, steps;
    double guidance[2];
  } published[] = {
    { "wan2.1-1.3b", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 30, 1536, 8960, 1, { 832, 480 }, 16, 50, { 5, 0 } },
    { "wan2.1-14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers", 40, 5120, 13824, 1, { 832, 480 }, 16, 50, { 5, 0 } },
    { "wan2.2-a14b", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", 40, 5120, 13824, 2, { 832, 480 }, 16, 40, { 4, 3 } },
    { "wan2.2-5b", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", 30, 3072, 14336, 1, { 1280, 704 }, 24, 50, { 5, 0 } },
  };

  for (guint i = 0; i < G_N_ELEMENTS (published); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (DpModel) model = dp_model_open (published[i].name, NULL, &error);
    g_autofree char *line = g_strdup_printf ("`hf download %s --local-dir DIR`", published[i].repository);

    g_assert_no_error (error);
    g_assert_cmpstr (model->repository, ==, published[i].repository);
    g_assert_cmpstr (model->config.defaults.name, ==, published[i].name);
    g_assert_cmpint (model->config.defaults.width, ==, published[i].size[0]);
    g_assert_cmpint (model->config.defaults.height, ==, published[i].size[1]);
    g_assert_cmpint (model->config.defaults.fps_n, ==, published[i].fps);
    g_assert_cmpint (model->config.defaults.steps, ==, published[i].steps);
    g_assert_cmpfloat (model->config.defaults.guidance_scale, ==, published[i].guidance[0]);
    g_assert_cmpfloat (model->config.defaults.guidance_scale_2, ==, published[i].guidance[1]);
    g_assert_true (g_utf8_validate (model->config.defaults.negative_prompt, -1, NULL));
    g_assert_nonnull (strstr (model->config.defaults.negative_prompt, "倒着走"));      /* its end */
    g_assert_true (model->config.defaults.trained[0].width == published[i].size[0]);
    g_assert_cmpint (model->config.dit.layers, ==, published[i].layers);
    g_assert_cmpint (model->config.dit.heads * model->config.dit.head_dim, ==, published[i].width);
    g_assert_cmpint (model->config.dit.ffn, ==, published[i].ffn);
    g_assert_cmpint (model->config.experts, ==, published[i].experts);
    g_assert_cmpint (model->config.dit.text_dim, ==, model->config.text.d_model);
    g_assert_cmpint (model->latent_channels, ==, model->config.dit.in_channels);
    for (guint part = 0; part < DP_MODEL_TOKENIZER; part++) {
      g_autoptr (GError) refused = NULL;

      g_assert_null (dp_model_weights (model, part, &refused));
      g_assert_error (refused, DP_ERROR, DP_ERROR_NOT_FOUND);
      g_assert_nonnull (strstr (refused->message, line));
    }
  }
}

/* What is at the path comes first. */
static void
test_published_name_of_directory (void)
{
  g_autofree char *dir = g_dir_make_tmp ("dualparal-model-XXXXXX", NULL), *path = g_build_filename (dir, "wan2.1-1.3b", NULL);
  g_autofree char *before = g_get_current_dir ();
  g_autoptr (GError) error = NULL;

  g_assert_cmpint (g_mkdir (path, 0700), ==, 0);
  g_assert_cmpint (g_chdir (dir), ==, 0);
  g_assert_null (dp_model_open ("wan2.1-1.3b", NULL, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "no model_index.json"));
  g_assert_cmpint (g_chdir (before), ==, 0);
  g_rmdir (path);
  g_rmdir (dir);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/model/embedded", test_embedded);
  g_test_add_func ("/model/refs", test_refs);
  g_test_add_func ("/model/nowhere", test_nowhere);
  g_test_add_func ("/model/published", test_published);
  g_test_add_func ("/model/published/name-of-directory", test_published_name_of_directory);
  return g_test_run ();
}
