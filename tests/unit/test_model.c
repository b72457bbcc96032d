/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/wan/model.h"
#include "engine/wan/error.h"

#include <string.h>

static void
test_embedded (void)
{
  static const DpModelPart with_weights[] = { DP_MODEL_TRANSFORMER, DP_MODEL_VAE, DP_MODEL_TEXT_ENCODER };
  g_autoptr (GError) error = NULL;
  g_autoptr (DpModel) model = dp_model_open (NULL, &error);

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
  DpModel *model = dp_model_open (NULL, NULL), *other = dp_model_ref (model);

  dp_model_unref (model);
  g_assert_true (g_file_test (other->paths[DP_MODEL_VAE], G_FILE_TEST_IS_DIR));
  dp_model_unref (other);
  dp_model_unref (NULL);
}

static void
test_nowhere (void)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (dp_model_open ("/nowhere", &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_assert_nonnull (strstr (error->message, "/nowhere"));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/model/embedded", test_embedded);
  g_test_add_func ("/model/refs", test_refs);
  g_test_add_func ("/model/nowhere", test_nowhere);
  return g_test_run ();
}
