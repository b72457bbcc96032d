/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The embedded model in other layouts, with the names of Wan's own files: the same video, to the bit. Which names those are is the
 * unit test's matter (test_names.c).
 */
#include "stream.h"
#include "wan/model.h"
#include "wan/weights_write.h"

#include <glib/gstdio.h>
#include <string.h>

static char *dir, *transformer, *second, *text, *vae, *tokenizer;

/* Diffusers' names to Wan's, in this order. */
static const char *const transformer_names[][2] = {
  { "condition_embedder.time_embedder.linear_1", "time_embedding.0" }, { "condition_embedder.time_embedder.linear_2", "time_embedding.2" },
  { "condition_embedder.time_proj", "time_projection.1" }, { "condition_embedder.text_embedder.linear_1", "text_embedding.0" },
  { "condition_embedder.text_embedder.linear_2", "text_embedding.2" }, { "proj_out", "head.head" }, { ".norm2.", ".norm3." },
  { ".scale_shift_table", ".modulation" }, { "scale_shift_table", "head.modulation" }, { "ffn.net.0.proj", "ffn.0" },
  { "ffn.net.2", "ffn.2" }, { "attn1.to_out.0", "self_attn.o" }, { "attn2.to_out.0", "cross_attn.o" }, { "attn1.to_", "self_attn." },
  { "attn2.to_", "cross_attn." }, { "attn1.", "self_attn." }, { "attn2.", "cross_attn." },
};
static const char *const text_names[][2] = {
  { "shared.", "token_embedding." }, { "encoder.final_layer_norm", "norm" }, { "encoder.block", "blocks" }, { "layer.0.layer_norm", "norm1" },
  { "layer.1.layer_norm", "norm2" }, { "layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding" },
  { "layer.0.SelfAttention", "attn" }, { "layer.1.DenseReluDense.wi_0", "ffn.gate.0" }, { "layer.1.DenseReluDense.wi_1", "ffn.fc1" },
  { "layer.1.DenseReluDense.wo", "ffn.fc2" },
};

typedef struct
{
  const DpWeights *weights;
  const char *const (*names)[2];
  guint n_names;
  const char *prefix;
  float scale;                  /* of its numbers: 1, or it is another model */
  GPtrArray *strings, *data;
  GArray *tensors;
} Copy;

/* Copies every tensor that it is asked about. */
static gboolean
copy_tensor (const char *name, gpointer user_data)
{
  Copy *c = user_data;
  const DpTensor *t = dp_weights_find (c->weights, name);
  g_autoptr (GString) renamed = g_string_new (name);
  gsize n = t->bytes / dp_type_size (t->type);
  float *numbers = g_new (float, n);
  DpTensorOut out = { .n_dims = t->n_dims, .data = numbers };

  memcpy (out.dims, t->dims, sizeof out.dims);
  for (guint i = 0; i < c->n_names; i++)
    g_string_replace (renamed, c->names[i][0], c->names[i][1], 1);
  g_string_prepend (renamed, c->prefix);
  g_assert_true (dp_weights_read (c->weights, t, 0, n, numbers, NULL));
  for (gsize i = 0; i < n; i++)
    numbers[i] *= c->scale;
  out.name = g_strdup (renamed->str);
  g_ptr_array_add (c->strings, (char *) out.name);
  g_ptr_array_add (c->data, numbers);
  g_array_append_val (c->tensors, out);
  return TRUE;
}

/* A part of the model in a single file with other names. */
static char *
write_part (const char *part, const char *stem, const char *const (*names)[2], guint n_names, const char *prefix, float scale,
    const char *as)
{
  g_autofree char *from = g_build_filename (dp_model_embedded (), part, NULL);
  char *path = g_build_filename (dir, as, NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (DpWeights) weights = dp_weights_open (from, stem, &error);
  g_assert_no_error (error);
  Copy c = { weights, names, n_names, prefix, scale, g_ptr_array_new_with_free_func (g_free), g_ptr_array_new_with_free_func (g_free),
    g_array_new (FALSE, FALSE, sizeof (DpTensorOut)) };

  dp_weights_find_unknown (weights, copy_tensor, &c);
  dp_weights_write (path, (const DpTensorOut *) (gpointer) c.tensors->data, c.tensors->len, &error);
  g_assert_no_error (error);
  g_array_unref (c.tensors);
  g_ptr_array_unref (c.strings);
  g_ptr_array_unref (c.data);
  return path;
}

/* What the scheduler of a model in diffusers layout would say is said here. */
static DpSettings
settings (void)
{
  DpSettings s = stream_small ();

  s.model = NULL;
  s.width = s.height = 64;
  s.num_frames = 9;
  s.sampler = "euler";
  s.flow_shift = 3;
  s.precision = "float32";
  s.block_latents = s.context_latents = 2;
  s.negative_prompt = "";
  s.prompt = "a ball";
  return s;
}

static void
check_same (const DpSettings *s, const char *want, const char *what)
{
  g_autofree char *got = stream_hash (s);

  if (strcmp (got, want) != 0)
    g_test_fail_printf ("%s: another video", what);
}

static void
test_same (void)
{
  DpSettings plain = settings (), s;
  g_autofree char *want = stream_hash (&plain), *folder = g_build_filename (dir, "wan", NULL);

  s = plain;
  s.transformer = transformer;
  check_same (&s, want, "a transformer with a prefix");
  s = plain;
  s.text_encoder_file = text;
  s.tokenizer = tokenizer;
  s.vae = vae;
  check_same (&s, want, "text encoder, tokenizer and VAE apart");
  s.transformer = transformer;
  s.model = transformer;
  check_same (&s, want, "a model of single files");
  s = plain;
  s.model = folder;
  s.vae = vae;
  check_same (&s, want, "the layout of Wan's repositories");
}

/* Beside each other lie two transformers: what was kept of one is not taken for the other. */
static void
test_kept_apart (void)
{
  DpSettings s = settings ();

  s.transformer = transformer;
  g_autofree char *one = stream_hash (&s);
  s.transformer = second;
  g_autofree char *other = stream_hash (&s);
  s.linger = 60;
  s.transformer = transformer;
  check_same (&s, one, "the first, to be kept");
  s.transformer = second;
  check_same (&s, other, "the second");
  s.transformer = transformer;
  check_same (&s, one, "the first again");
  g_assert_cmpstr (one, !=, other);
}

static void
check_refused (const DpSettings *s, int code, const char *says)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (DpPlan) plan = dp_plan_new (s, &error);
  DpEngine *engine = NULL;
  DpFrame frame;

  if (plan && dp_engine_open (&engine, plan, NULL, NULL, &error))
    dp_engine_pull (engine, &frame, G_USEC_PER_SEC * 20, &error);
  dp_engine_free (engine);
  g_assert_error (error, DP_ERROR, code);
  if (strstr (error->message, says) == NULL)
    g_test_fail_printf ("it does not say \"%s\": %s", says, error->message);
  g_test_message ("%s", error->message);
}

static void
test_refused (void)
{
  g_autofree char *none = g_build_filename (dir, "none", NULL), *other = g_build_filename (stream_model (), "vae", NULL);
  DpSettings s = settings ();

  s.model = transformer;
  check_refused (&s, DP_ERROR_NOT_FOUND, "no VAE; name its file or directory with vae");
  s.vae = vae;
  check_refused (&s, DP_ERROR_NOT_FOUND, "no text encoder; name its file or directory with text-encoder-file");
  s.text_encoder_file = text;
  check_refused (&s, DP_ERROR_NOT_FOUND, "no tokenizer; name its file or directory with tokenizer");
  s.tokenizer = tokenizer;
  s.text_encoder_file = transformer;
  check_refused (&s, DP_ERROR_BAD_MODEL, "those of a transformer; give them as model or transformer");
  s.text_encoder_file = text;
  s.vae = other;
  check_refused (&s, DP_ERROR_BAD_MODEL, "do not belong together");
  s.vae = none;
  check_refused (&s, DP_ERROR_NOT_FOUND, "none");
  s = settings ();
  s.transformer = text;
  check_refused (&s, DP_ERROR_BAD_MODEL, "those of a text encoder; give them as text-encoder-file");
  s = settings ();
  s.vae = none;
  check_refused (&s, DP_ERROR_NOT_FOUND, "none");
  s = settings ();
  s.transformer_2 = transformer;
  check_refused (&s, DP_ERROR_SETTINGS, "this model has one transformer");
  s = settings ();
  s.model = tokenizer;
  check_refused (&s, DP_ERROR_BAD_MODEL, "spiece.model");
}

static void
copy_file (const char *from, const char *to)
{
  g_autofree char *bytes = NULL;
  gsize size;

  g_assert_true (g_file_get_contents (from, &bytes, &size, NULL));
  g_assert_true (g_file_set_contents (to, bytes, size, NULL));
}

static void
remove_all (const char *path)
{
  g_autoptr (GDir) names = g_dir_open (path, 0, NULL);
  const char *name;

  while (names && (name = g_dir_read_name (names))) {
    g_autofree char *inner = g_build_filename (path, name, NULL);

    remove_all (inner);
  }
  g_remove (path);
}

int
main (int argc, char **argv)
{
  static const char heads[] = "{\"_class_name\": \"WanModel\", \"num_heads\": 4}";

  stream_init (&argc, &argv);
  dir = g_dir_make_tmp ("dp-layouts-XXXXXX", NULL);
  g_autofree char *umt5 = g_build_filename (dir, "wan", "google", "umt5-xxl", NULL), *pieces = g_build_filename (umt5, "spiece.model", NULL);
  g_autofree char *beside = g_build_filename (dir, "config.json", NULL), *in_wan = g_build_filename (dir, "wan", "config.json", NULL);
  g_mkdir_with_parents (umt5, 0700);
  g_assert_true (g_file_set_contents (beside, heads, -1, NULL) && g_file_set_contents (in_wan, heads, -1, NULL));
  tokenizer = g_build_filename (dp_model_embedded (), "tokenizer", "spiece.model", NULL);
  copy_file (tokenizer, pieces);
  vae = g_build_filename (dp_model_embedded (), "vae", NULL);
  transformer = write_part ("transformer", "diffusion_pytorch_model", transformer_names, G_N_ELEMENTS (transformer_names),
      "model.diffusion_model.", 1, "a.safetensors");
  second = write_part ("transformer", "diffusion_pytorch_model", transformer_names, G_N_ELEMENTS (transformer_names), "", 0.5,
      "b.safetensors");
  text = write_part ("text_encoder", "model", text_names, G_N_ELEMENTS (text_names), "", 1, "text.safetensors");
  g_free (write_part ("transformer", "diffusion_pytorch_model", transformer_names, G_N_ELEMENTS (transformer_names), "", 1,
      "wan/diffusion_pytorch_model.safetensors"));
  g_free (write_part ("text_encoder", "model", text_names, G_N_ELEMENTS (text_names), "", 1, "wan/models_t5_umt5-xxl-enc-bf16.pth"));

  g_test_add_func ("/layouts/same", test_same);
  g_test_add_func ("/layouts/kept-apart", test_kept_apart);
  g_test_add_func ("/layouts/refused", test_refused);
  int result = g_test_run ();
  remove_all (dir);
  return result;
}
