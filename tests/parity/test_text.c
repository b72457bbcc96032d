/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Prompt cleaning, tokens and the UMT5 encoder against diffusers and transformers.
 */
#include "parity.h"
#include "wan/text_encoder.h"
#include "wan/tokenizer.h"

#include <string.h>

#define TOLERANCE 1e-5

static void
test_tokens (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (ParityCase) c = parity_case_open ("text", "tokens");
  g_autoptr (ParityModel) model = parity_model_open ("odd");
  g_autofree char *dir = g_build_filename (model->dir, "tokenizer", NULL);
  g_autoptr (DpTokenizer) tokenizer = dp_tokenizer_open (dir, model->config.text.vocab, &error);
  g_assert_no_error (error);
  int max = parity_int (c, "max");
  JsonArray *cases = json_object_get_array_member (c->settings, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++) {
    JsonObject *o = json_array_get_object_element (cases, i);
    JsonArray *want = json_object_get_array_member (o, "ids");
    g_autofree char *clean = dp_prompt_clean (json_object_get_string_member (o, "prompt"), &error);
    g_assert_no_error (error);
    g_assert_cmpstr (clean, ==, json_object_get_string_member (o, "clean"));
    g_autofree gint32 *ids = g_new (gint32, max);
    int n = dp_tokenizer_encode (tokenizer, clean, ids, max, &error);
    g_assert_no_error (error);
    g_assert_cmpint (n, ==, json_array_get_length (want));
    for (int k = 0; k < n; k++)
      g_assert_cmpint (ids[k], ==, json_array_get_int_element (want, k));
  }
}

/* Every so manieth row of the embeddings is compared. */
static void
check_encoder (const char *name, const char *device, int max, int every)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (ParityCase) c = parity_case_open ("text", name);
  g_autoptr (ParityModel) model = parity_model_open (json_object_get_string_member (c->settings, "model"));
  g_autoptr (DpWeights) weights = parity_model_weights (model, "text_encoder");
  DpDevice *dev = parity_device_open (device);
  int width = model->config.text.d_model;
  DpTextEncoder *encoders[2];   /* resident, streamed */
  for (int i = 0; i < 2; i++) {
    encoders[i] = dp_text_encoder_new (dev, &model->config.text, weights, DP_TYPE_F32, max, i, &error);
    g_assert_no_error (error);
  }

  JsonArray *lengths = json_object_get_array_member (c->settings, "lengths");
  JsonObject *all_ids = json_object_get_object_member (c->settings, "ids");
  for (guint i = 0; i < json_array_get_length (lengths); i++) {
    int n = json_array_get_int_element (lengths, i);
    g_autofree char *key = g_strdup_printf ("%d", n);
    JsonArray *list = json_object_get_array_member (all_ids, key);
    g_autofree gint32 *ids = g_new (gint32, n);
    for (int k = 0; k < n; k++)
      ids[k] = json_array_get_int_element (list, k);
    gsize kept, count = (gsize) n * width;
    g_autofree float *want = parity_tensor (c, &kept, NULL, "out_%d", n);
    g_autofree float *resident = g_new (float, count), *streamed = g_new (float, count);
    float *got[2] = { resident, streamed };
    for (int k = 0; k < 2; k++) {
      memset (got[k], 0xff, count * sizeof (float));
      dp_text_encoder_encode (encoders[k], &(DpTokens) { ids, n, got[k] }, 1, &error);
      g_assert_no_error (error);
    }
    g_assert_cmpmem (got[1], count * sizeof (float), got[0], count * sizeof (float));
    int rows = (n + every - 1) / every;
    g_assert_cmpuint (kept, ==, (gsize) rows * width);
    for (int k = 0; k < rows; k++)
      memmove (got[0] + (gsize) k * width, got[0] + (gsize) k * every * width, width * sizeof (float));
    g_autofree char *what = g_strdup_printf ("text encoder %s on %s, %d tokens", name, device, n);
    parity_check (what, got[0], want, kept, TOLERANCE);
  }
  for (int i = 0; i < 2; i++)
    dp_text_encoder_free (encoders[i]);
  parity_device_close (dev);
}

/* The name is MODEL-DEVICE. */
static void
test_encoder (gconstpointer data)
{
  g_auto (GStrv) name = g_strsplit (data, "-", 2);

  check_encoder (name[0], name[1], 64, 1);
}

static void
test_long (gconstpointer device)
{
  check_encoder ("odd-long", device, 512, 7);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/parity/tokens", test_tokens);
  parity_add ("/parity/text", test_encoder,
      (const char *const[]) { "odd-cpu", "odd-ref", "wide-cpu", "wide-ref", "deep-cpu", "deep-ref", NULL });
  parity_add ("/parity/text-long", test_long, (const char *const[]) { "cpu", "ref", NULL });
  return g_test_run ();
}
