/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * LoRA files of every custom against W + strength * alpha / rank * up . down in double precision. parity-runs has one that PEFT applies.
 */
#include "wan/error.h"
#include "wan/lora.h"
#include "wan/names.h"
#include "wan/weights_write.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

#define MOST 256                /* numbers of a tensor here */

static char *dir;

/* A tensor of a file that is written; its numbers follow from its name. */
typedef struct
{
  const char *name;
  int n_dims;
  gint64 dims[5];
} Shape;

static int
count (const Shape *s)
{
  int n = 1;

  for (int i = 0; i < s->n_dims; i++)
    n *= s->dims[i];
  return n;
}

static void
fill (const char *name, int n, float *out)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (g_str_hash (name));

  for (int i = 0; i < n; i++)
    out[i] = g_str_has_suffix (name, ".alpha") ? 3 : g_rand_double_range (rand, -1, 1);
}

static char *
write_file (const char *as, const Shape *shapes, int n)
{
  char *path = g_build_filename (dir, as, NULL);
  g_autofree float *numbers = g_new0 (float, n * MOST);
  g_autofree DpTensorOut *tensors = g_new0 (DpTensorOut, n);
  g_autoptr (GError) error = NULL;

  for (int i = 0; i < n; i++) {
    fill (shapes[i].name, count (&shapes[i]), numbers + i * MOST);
    tensors[i] = (DpTensorOut) { .name = shapes[i].name, .n_dims = shapes[i].n_dims, .data = numbers + i * MOST };
    memcpy (tensors[i].dims, shapes[i].dims, sizeof shapes[i].dims);
  }
  dp_weights_write (path, tensors, n, &error);
  g_assert_no_error (error);
  return path;
}

static const Shape base[] = {
  { "patch_embedding.weight", 5, { 6, 2, 1, 2, 2 } }, { "blocks.0.attn1.to_q.weight", 2, { 6, 4 } }, { "blocks.0.attn1.to_q.bias", 1, { 6 } },
  { "blocks.0.attn2.to_out.0.weight", 2, { 4, 6 } }, { "blocks.0.ffn.net.2.weight", 2, { 5, 7 } }, { "blocks.0.norm2.weight", 1, { 6 } },
  { "blocks.12.ffn.net.0.proj.weight", 2, { 7, 5 } }, { "condition_embedder.text_embedder.linear_1.weight", 2, { 6, 3 } },
};

static DpWeights *
open_base (void)
{
  g_autofree char *path = write_file ("base.safetensors", base, G_N_ELEMENTS (base));
  DpWeights *weights = dp_weights_open (path, NULL, NULL);

  g_assert_nonnull (weights);
  return weights;
}

/* What a tensor of the base has become, read whole and in odd parts. */
static void
check (const DpWeights *weights, const char *name, const double *want)
{
  const DpTensor *t = dp_weights_find (weights, name);
  int n = t->bytes / sizeof (float);
  float whole[MOST], parts[MOST];

  g_assert_cmpint (t->type, ==, DP_TYPE_F32);
  g_assert_true (dp_weights_read (weights, t, 0, n, whole, NULL));
  for (int first = 0, step = 1; first < n; first += step, step = step % 5 + 1) {
    step = MIN (step, n - first);
    g_assert_true (dp_weights_read (weights, t, first, step, parts + first, NULL));
  }
  for (int i = 0; i < n; i++)
    if (fabs (whole[i] - want[i]) > 1e-6 || parts[i] != whole[i])
      g_error ("%s: number %d is %g and %g, expected %g", name, i, whole[i], parts[i], want[i]);
}

/* want += strength * scale * up . down, by their names in the file. */
static void
add_product (double *want, int rows, int columns, int rank, const char *up, const char *down, double scale)
{
  float u[MOST], d[MOST];

  fill (up, rows * rank, u);
  fill (down, rank * columns, d);
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++)
      for (int k = 0; k < rank; k++)
        want[r * columns + c] += scale * u[r * rank + k] * d[k * columns + c];
}

static void
start (double *want, const char *name, int n)
{
  float numbers[MOST];

  fill (name, n, numbers);
  for (int i = 0; i < n; i++)
    want[i] = numbers[i];
}

static void
test_customs (void)
{
  /* module as it is called, names of the factors, alpha, the tensor it changes with its rows and columns */
  static const struct { const char *module, *down, *up; gboolean alpha; const char *of; int rows, columns; } customs[] = {
    { "diffusion_model.blocks.0.self_attn.q", "lora_down", "lora_up", TRUE, "blocks.0.attn1.to_q.weight", 6, 4 },
    { "diffusion_model.blocks.0.self_attn.q", "lora_A", "lora_B", FALSE, "blocks.0.attn1.to_q.weight", 6, 4 },
    { "base_model.model.blocks.0.attn1.to_q", "lora_A", "lora_B", FALSE, "blocks.0.attn1.to_q.weight", 6, 4 },
    { "transformer.blocks.0.attn1.to_q", "lora_A.default", "lora_B.default", FALSE, "blocks.0.attn1.to_q.weight", 6, 4 },
    { "lora_unet_blocks_0_self_attn_q", "lora_down", "lora_up", TRUE, "blocks.0.attn1.to_q.weight", 6, 4 },
    { "lora_unet_blocks_0_cross_attn_o", "lora_down", "lora_up", TRUE, "blocks.0.attn2.to_out.0.weight", 4, 6 },
    { "lora_unet_blocks_12_ffn_0", "lora_down", "lora_up", FALSE, "blocks.12.ffn.net.0.proj.weight", 7, 5 },
    { "blocks.0.ffn.2", "lora_down", "lora_up", TRUE, "blocks.0.ffn.net.2.weight", 5, 7 },
    { "lora_unet_text_embedding_0", "lora_down", "lora_up", TRUE, "condition_embedder.text_embedder.linear_1.weight", 6, 3 },
    { "model.diffusion_model.text_embedding.0", "lora_A", "lora_B", FALSE, "condition_embedder.text_embedder.linear_1.weight", 6, 3 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (customs); i++) {
    g_autoptr (DpWeights) weights = open_base ();
    g_autoptr (GError) error = NULL;
    g_autofree char *down = g_strdup_printf ("%s.%s.weight", customs[i].module, customs[i].down);
    g_autofree char *up = g_strdup_printf ("%s.%s.weight", customs[i].module, customs[i].up);
    g_autofree char *alpha = g_strconcat (customs[i].module, ".alpha", NULL);
    const Shape shapes[] = { { down, 2, { 2, customs[i].columns } }, { up, 2, { customs[i].rows, 2 } }, { alpha, 0, { 0 } } };
    g_autofree char *path = write_file ("lora.safetensors", shapes, customs[i].alpha ? 3 : 2);
    g_autofree char *spec = g_strconcat (path, ":0.25,", path, ":-2", NULL);
    double want[MOST];

    dp_lora_apply (weights, spec, &error);
    g_assert_no_error (error);
    start (want, customs[i].of, customs[i].rows * customs[i].columns);
    add_product (want, customs[i].rows, customs[i].columns, 2, up, down, (0.25 - 2) * (customs[i].alpha ? 1.5 : 1));
    check (weights, customs[i].of, want);
    g_assert_nonnull (strstr (dp_weights_changes (weights), "lora.safetensors:0.25 "));
  }
}

static void
test_differences (void)
{
  static const Shape shapes[] = {
    { "diffusion_model.blocks.0.norm3.diff", 1, { 6 } }, { "diffusion_model.blocks.0.self_attn.q.diff_b", 1, { 6 } },
    { "diffusion_model.patch_embedding.lora_down.weight", 5, { 3, 2, 1, 2, 2 } },
    { "diffusion_model.patch_embedding.lora_up.weight", 5, { 6, 3, 1, 1, 1 } },
  };
  g_autofree char *path = write_file ("lora.safetensors", shapes, G_N_ELEMENTS (shapes));
  g_autoptr (DpWeights) weights = open_base ();
  g_autoptr (GError) error = NULL;
  double want[MOST];
  float diff[6];

  dp_lora_apply (weights, path, &error);
  g_assert_no_error (error);
  for (int k = 0; k < 2; k++) {
    const char *of = k ? "blocks.0.attn1.to_q.bias" : "blocks.0.norm2.weight";

    start (want, of, 6);
    fill (shapes[k].name, 6, diff);
    for (int i = 0; i < 6; i++)
      want[i] += diff[i];
    check (weights, of, want);
  }
  start (want, "patch_embedding.weight", 48);
  add_product (want, 6, 8, 3, shapes[3].name, shapes[2].name, 1);
  check (weights, "patch_embedding.weight", want);
}

static void
test_refused (void)
{
  static const struct { Shape shapes[3]; int n; const char *says; } bad[] = {
    { { { "blocks.0.self_attn.q.lora_down.weight", 2, { 2, 4 } } }, 1, "the other factor" },
    { { { "blocks.0.self_attn.q.lora_down.weight", 2, { 2, 5 } }, { "blocks.0.self_attn.q.lora_up.weight", 2, { 6, 2 } } }, 2,
        "the shape of what it changes" },
    { { { "blocks.0.self_attn.q.lora_down.weight", 2, { 2, 4 } }, { "blocks.0.self_attn.q.lora_up.weight", 2, { 6, 3 } } }, 2,
        "the shape of what it changes" },
    { { { "blocks.0.cross_attn.k_img.lora_down.weight", 2, { 2, 4 } }, { "blocks.0.cross_attn.k_img.lora_up.weight", 2, { 6, 2 } } }, 2,
        "image-to-video" },
    { { { "blocks.0.self_attn.q.dora_scale", 2, { 6, 1 } } }, 1, "dora_scale: expected a LoRA's" },
    { { { "blocks.0.self_attn.q.diff", 2, { 6, 3 } } }, 1, "as many numbers as what it changes" },
    { { { "blocks.0.self_attn.q.alpha", 0, { 0 } } }, 1, "a product beside it" },
    { { { "blocks.0.self_attn.q.lora_down.weight", 2, { 2, 4 } }, { "blocks.0.self_attn.q.lora_up.weight", 2, { 6, 2 } },
        { "blocks.0.self_attn.q.alpha", 1, { 2 } } }, 3, "one number" },
    { { { "blocks.7.self_attn.q.diff", 2, { 6, 4 } } }, 1, "blocks.7.attn1.to_q.weight" },
  };
  static const char *const specs[] = { "x:1e9", "a,,b", "x:nan" };

  for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autofree char *path = write_file ("lora.safetensors", bad[i].shapes, bad[i].n);
    g_autoptr (DpWeights) weights = open_base ();
    g_autoptr (GError) error = NULL;

    g_assert_false (dp_lora_apply (weights, path, &error));
    g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
    if (strstr (error->message, bad[i].says) == NULL || strstr (error->message, "lora.safetensors") == NULL)
      g_test_fail_printf ("it does not say \"%s\": %s", bad[i].says, error->message);
    g_assert_cmpstr (dp_weights_changes (weights), ==, "");
  }
  g_autofree char *none = write_file ("lora.safetensors", NULL, 0);
  g_autoptr (DpWeights) unchanged = open_base ();
  g_autoptr (GError) empty = NULL;
  g_assert_false (dp_lora_apply (unchanged, none, &empty));
  g_assert_nonnull (strstr (empty->message, "found no tensor"));
  for (guint i = 0; i < G_N_ELEMENTS (specs); i++) {
    g_autoptr (DpWeights) weights = open_base ();
    g_autoptr (GError) error = NULL;

    g_assert_false (dp_lora_apply (weights, specs[i], &error));
    g_assert_true (g_error_matches (error, DP_ERROR, DP_ERROR_SETTINGS) || g_error_matches (error, DP_ERROR, DP_ERROR_NOT_FOUND));
  }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("dp-lora-XXXXXX", NULL);
  g_test_add_func ("/lora/customs", test_customs);
  g_test_add_func ("/lora/differences", test_differences);
  g_test_add_func ("/lora/refused", test_refused);
  int result = g_test_run ();
  for (int i = 0; i < 2; i++) {
    g_autofree char *path = g_build_filename (dir, i ? "lora.safetensors" : "base.safetensors", NULL);

    g_unlink (path);
  }
  g_rmdir (dir);
  g_free (dir);
  return result;
}
