/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * `dualparal generate --noise --dump`, the way other programs are compared with this one: against the same fixtures as the engine.
 */
#include "parity.h"

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

static void
add (GPtrArray *argv, const char *format, ...) G_GNUC_PRINTF (2, 3);

static void
add (GPtrArray *argv, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_ptr_array_add (argv, g_strdup_vprintf (format, args));
  va_end (args);
}

/* Runs the program on a case and opens what it dumped. */
static DpWeights *
generate (const ParityCase *c, const char *dump)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) argv = g_ptr_array_new_with_free_func (g_free);
  JsonObject *o = c->settings;
  const char *model = json_object_get_string_member (o, "model");
  gboolean blocks = json_object_has_member (o, "block_latents");
  int latents = parity_int (c, "latents"), context = blocks ? parity_int (c, "context_latents") : 0;
  add (argv, "%s", DUALPARAL);
  add (argv, "generate");
  add (argv, "--model=%s/models/%s", PARITY_FIXTURES, model);
  add (argv, "--noise=%s/noise/%s.safetensors", PARITY_FIXTURES, model);
  add (argv, "--dump=%s", dump);
  add (argv, "--prompt=%s", json_object_get_string_member (o, "prompt"));
  add (argv, "--negative-prompt=%s", json_object_get_string_member (o, "negative_prompt"));
  add (argv, "--frames=%d", 4 * latents - 3);
  add (argv, "--width=%d", parity_int (c, "width"));
  add (argv, "--height=%d", parity_int (c, "height"));
  add (argv, "--steps=%d", parity_int (c, "steps"));
  add (argv, "--guidance-scale=%g", json_object_get_double_member (o, "guidance_scale"));
  if (json_object_has_member (o, "guidance_scale_2"))
    add (argv, "--guidance-scale-2=%g", json_object_get_double_member (o, "guidance_scale_2"));
  add (argv, "--block-latents=%d", blocks ? parity_int (c, "block_latents") : latents);
  add (argv, "--context-latents=%d", context ? context : -1);
  add (argv, "--context-mode=%s", blocks ? json_object_get_string_member (o, "context") : "recomputed");
  add (argv, "--queue-blocks=%d", blocks ? parity_int (c, "queue_blocks") : 1);
  add (argv, "--precision=float32");
  add (argv, "--devices=cpu,cpu");
  if (json_object_has_member (o, "changes")) {
    JsonArray *changes = json_object_get_array_member (o, "changes");
    for (guint i = 0; i < json_array_get_length (changes); i++) {
      JsonObject *change = json_array_get_object_element (changes, i);
      add (argv, "--prompt-at=%d=%s", (int) json_object_get_int_member (change, "block"), json_object_get_string_member (change, "prompt"));
    }
  }
  g_ptr_array_add (argv, NULL);
  g_autoptr (GSubprocess) process = g_subprocess_newv ((const char *const *) argv->pdata, G_SUBPROCESS_FLAGS_STDOUT_SILENCE, &error);
  g_assert_no_error (error);
  g_subprocess_wait_check (process, NULL, &error);
  g_assert_no_error (error);
  DpWeights *out = dp_weights_open (dump, NULL, &error);
  g_assert_no_error (error);
  return out;
}

/* A tensor of the dump as floats, of the given number of elements. */
static float *
dumped (const DpWeights *dump, const char *name, gsize n)
{
  const DpTensor *tensor = dp_weights_find (dump, name);
  if (!tensor)
    g_error ("the dump has no tensor %s", name);
  g_assert_cmpint (tensor->type, ==, DP_TYPE_F32);
  g_assert_cmpuint (tensor->bytes, ==, n * sizeof (float));
  float *out = g_new (float, n);
  g_assert_true (dp_weights_read (dump, tensor, 0, n, out, NULL));
  return out;
}

/* The name is GROUP-CASE; only cases with the program's 512 tokens of text. */
static void
test_generate (gconstpointer data)
{
  g_auto (GStrv) name = g_strsplit (data, "-", 2);
  g_autoptr (GError) error = NULL;
  g_autoptr (ParityCase) c = parity_case_open (name[0], name[1]);
  g_assert_cmpint (parity_int (c, "text_length"), ==, 512);
  g_autofree char *dir = g_dir_make_tmp ("dualparal-XXXXXX", &error);
  g_assert_no_error (error);
  g_autofree char *path = g_build_filename (dir, "dump.safetensors", NULL);
  g_autoptr (DpWeights) dump = generate (c, path);

  gsize n;
  gint64 dims[8];
  g_autofree float *want = parity_tensor (c, &n, NULL, "latents");
  g_autofree float *got = dumped (dump, "latents", n);
  parity_check ("dumped latents", got, want, n, 1e-4);

  if (dp_weights_find (c->tensors, "frames")) {
    g_autofree float *want_frames = parity_tensor (c, &n, NULL, "frames");
    g_autofree float *frames = dumped (dump, "frames", n);
    double e = parity_rel_l2 (frames, want_frames, n);
    parity_check_error ("dumped frames", e, 3e-3);      /* better than 50 dB */
  }
  if (dp_weights_find (c->tensors, "prompt_embeds")) {
    static const char *const embeds[] = { "prompt_embeds", "negative_prompt_embeds" };
    for (int i = 0; i < 2; i++) {
      g_autofree float *want_embeds = parity_tensor (c, &n, dims, "%s", embeds[i]);
      g_autofree float *all = dumped (dump, embeds[i], 512 * dims[1]);
      parity_check (embeds[i], all, want_embeds, n, 1e-5);
      for (gsize k = n; k < (gsize) (512 * dims[1]); k++)
        g_assert_cmpfloat (all[k], ==, 0);
    }
  }
  g_unlink (path);
  g_rmdir (dir);
}

/* A model of two experts says so. */
static void
test_inspect (void)
{
  static const char *const words[] = { "transformer   4 layers", "transformer_2 4 layers", "0.857", "timestep 857", "guidance 4, 3" };
  g_autoptr (GError) error = NULL;
  g_autofree char *model = parity_model_dir ("pair"), *out = NULL;
  g_autoptr (GSubprocess) process = g_subprocess_new (G_SUBPROCESS_FLAGS_STDOUT_PIPE, &error, DUALPARAL, "inspect", "--model", model,
      "--guidance-scale=4", "--guidance-scale-2=3", NULL);

  g_assert_no_error (error);
  g_subprocess_communicate_utf8 (process, NULL, NULL, &out, NULL, &error);
  g_assert_no_error (error);
  g_assert_true (g_subprocess_get_successful (process));
  for (gsize i = 0; i < G_N_ELEMENTS (words); i++)
    if (strstr (out, words[i]) == NULL)
      g_test_fail_printf ("inspect does not say \"%s\": %s", words[i], out);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  parity_add ("/parity/generate", test_generate,
      (const char *const[]) { "run-wide", "run-pair", "dualparal-full-context-lag1-cfg", "dualparal-small-context-lag3",
        "dualparal-cached-small-context-lag3", NULL });
  g_test_add_func ("/parity/inspect", test_inspect);
  return g_test_run ();
}
