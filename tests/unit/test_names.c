/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Names of Wan's own files become diffusers': names.txt has what make_names.py proved.
 */
#include "wan/error.h"
#include "wan/names.h"
#include "wan/weights_write.h"

#include <glib/gstdio.h>
#include <string.h>

typedef struct
{
  const char *label;
  DpNetwork network;
} Kind;

static const Kind kinds[] = {
  { "transformer", DP_NETWORK_TRANSFORMER }, { "vae 2.1", DP_NETWORK_VAE }, { "vae 2.2", DP_NETWORK_VAE },
  { "text encoder", DP_NETWORK_TEXT_ENCODER }, { "text encoder GGUF", DP_NETWORK_TEXT_ENCODER },
};

/* The pairs of a kind, original and diffusers', one after the other. */
static GPtrArray *
pairs_of (const char *label)
{
  g_autofree char *path = g_test_build_filename (G_TEST_DIST, "tests", "unit", "names.txt", NULL), *text = NULL;
  GPtrArray *pairs = g_ptr_array_new_with_free_func (g_free);

  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  for (int i = 0; lines[i]; i++) {
    g_auto (GStrv) fields = g_strsplit (lines[i], "\t", 3);

    if (g_strv_length (fields) == 3 && strcmp (fields[0], label) == 0) {
      g_ptr_array_add (pairs, g_strdup (fields[1]));
      g_ptr_array_add (pairs, g_strdup (fields[2]));
    }
  }
  g_assert_cmpuint (pairs->len, >, 40);
  return pairs;
}

/* A file of one number a tensor, its index, under every second name from `first` on; and `more`, or NULL. */
static DpWeights *
weights_of (const char *dir, const GPtrArray *pairs, guint first, const char *prefix, const char *more)
{
  g_autofree char *path = g_build_filename (dir, "names.safetensors", NULL);
  g_autoptr (GError) error = NULL;
  guint n = pairs->len / 2;
  g_autofree float *numbers = g_new (float, n + 1);
  g_autofree DpTensorOut *tensors = g_new0 (DpTensorOut, n + 1);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);

  for (guint i = 0; i < n + (more != NULL); i++) {
    g_ptr_array_add (names, i < n ? g_strconcat (prefix, pairs->pdata[2 * i + first], NULL) : g_strdup (more));
    numbers[i] = i;
    tensors[i] = (DpTensorOut) { names->pdata[i], 1, { 1 }, &numbers[i] };
  }
  dp_weights_write (path, tensors, n + (more != NULL), &error);
  g_assert_no_error (error);
  DpWeights *weights = dp_weights_open (path, NULL, &error);
  g_assert_no_error (error);
  return weights;
}

static void
remove_dir (const char *dir)
{
  g_autofree char *path = g_build_filename (dir, "names.safetensors", NULL);

  g_unlink (path);
  g_rmdir (dir);
}

static void
check_named (const DpWeights *weights, const GPtrArray *pairs)
{
  for (guint i = 0; i < pairs->len / 2; i++) {
    const DpTensor *t = dp_weights_find (weights, pairs->pdata[2 * i + 1]);
    float number = -1;

    if (t == NULL)
      g_error ("%s did not become %s", (char *) pairs->pdata[2 * i], (char *) pairs->pdata[2 * i + 1]);
    g_assert_cmpstr (t->name, ==, pairs->pdata[2 * i + 1]);
    g_assert_true (dp_weights_read (weights, t, 0, 1, &number, NULL));
    g_assert_cmpfloat (number, ==, i);
  }
}

static void
test_pairs (void)
{
  static const char *const prefixes[] = { "", "model.diffusion_model.", "diffusion_model.", "model.", "net.", "_fsdp_wrapped_module." };
  g_autofree char *dir = g_dir_make_tmp ("dp-names-XXXXXX", NULL);
  g_autoptr (GError) error = NULL;

  for (guint k = 0; k < G_N_ELEMENTS (kinds); k++) {
    g_autoptr (GPtrArray) pairs = pairs_of (kinds[k].label);

    for (guint p = 0; p < G_N_ELEMENTS (prefixes); p++)
      for (guint first = 0; first < 2; first++) {
        g_autoptr (DpWeights) weights = weights_of (dir, pairs, first, prefixes[p], NULL);
        g_autofree char *stored = g_strconcat (prefixes[p], pairs->pdata[first], NULL);

        g_assert_null (dp_names_recognise (weights, kinds[k].network));
        for (int twice = 0; twice < 2; twice++) {
          dp_names_apply (weights, kinds[k].network, &error);
          g_assert_no_error (error);
          check_named (weights, pairs);
        }
        g_assert_cmpstr (dp_weights_stored_name (weights, pairs->pdata[1]), ==, stored);
      }
  }
  remove_dir (dir);
}

/* FSDP wraps modules at any depth. */
static void
test_wrapped (void)
{
  g_autofree char *dir = g_dir_make_tmp ("dp-names-XXXXXX", NULL);
  g_autoptr (GPtrArray) pairs = pairs_of ("transformer");

  for (guint i = 0; i < pairs->len; i += 2) {
    g_autoptr (GString) name = g_string_new (pairs->pdata[i]);

    g_string_replace (name, "self_attn.", "_fsdp_wrapped_module.self_attn.", 0);
    g_string_prepend (name, "_fsdp_wrapped_module.");
    g_free (pairs->pdata[i]);
    pairs->pdata[i] = g_strdup (name->str);
  }
  g_autoptr (DpWeights) weights = weights_of (dir, pairs, 0, "", NULL);
  g_assert_true (dp_names_apply (weights, DP_NETWORK_TRANSFORMER, NULL));
  g_assert_null (dp_names_recognise (weights, DP_NETWORK_TRANSFORMER));
  check_named (weights, pairs);
  remove_dir (dir);
}

/* One tensor too many makes no file another one; it keeps its name, or is found out. */
static void
test_strays (void)
{
  g_autofree char *dir = g_dir_make_tmp ("dp-names-XXXXXX", NULL);

  for (guint k = 0; k < G_N_ELEMENTS (kinds); k++) {
    g_autoptr (GPtrArray) pairs = pairs_of (kinds[k].label);
    g_autoptr (DpWeights) weights = weights_of (dir, pairs, 0, "", "blocks.0.something_else.weight");
    g_autoptr (GError) error = NULL;

    g_assert_true (dp_names_apply (weights, kinds[k].network, NULL));
    check_named (weights, pairs);
    g_assert_nonnull (dp_weights_find (weights, "blocks.0.something_else.weight"));

    /* Diffusers' names, and one of Wan's that is the same tensor */
    const char *twice = k == 0 ? "blocks.0.self_attn.q.weight" : k < 3 ? "decoder.middle.0.residual.2.weight" : "blocks.0.attn.q.weight";
    g_autoptr (DpWeights) both = weights_of (dir, pairs, 1, "", twice);
    g_assert_false (dp_names_apply (both, kinds[k].network, &error));
    g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
    g_assert_nonnull (strstr (error->message, twice));
  }
  remove_dir (dir);
}

static void
test_recognise (void)
{
  static const struct { const char *tensor, *what; } others[] = {
    { "model.diffusion_model.input_blocks.0.0.weight", "Stable Diffusion" }, { "img_emb.proj.1.weight", "image-to-video" },
    { "diffusion_model.blocks.0.self_attn.q.lora_down.weight", "LoRA" }, { "vace_blocks.0.before_proj.weight", "VACE" },
    { "something.weight", "is this file of Wan at all" }, { "decoder.middle.0.residual.2.weight", "those of a VAE; give them as vae" },
    { "shared.encoder.block.0.layer.0.SelfAttention.q.weight", "those of a text encoder; give them" },
  };
  g_autofree char *dir = g_dir_make_tmp ("dp-names-XXXXXX", NULL);
  g_autoptr (GPtrArray) none = g_ptr_array_new ();

  for (guint i = 0; i < G_N_ELEMENTS (others); i++) {
    g_autoptr (DpWeights) weights = weights_of (dir, none, 0, "", others[i].tensor);
    const char *what = dp_names_recognise (weights, DP_NETWORK_TRANSFORMER);

    if (what == NULL || strstr (what, others[i].what) == NULL)
      g_test_fail_printf ("%s: %s", others[i].tensor, what ? what : "taken for a transformer");
    g_assert_true (dp_names_apply (weights, DP_NETWORK_TRANSFORMER, NULL));
  }
  remove_dir (dir);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/names/pairs", test_pairs);
  g_test_add_func ("/names/wrapped", test_wrapped);
  g_test_add_func ("/names/strays", test_strays);
  g_test_add_func ("/names/recognise", test_recognise);
  return g_test_run ();
}
