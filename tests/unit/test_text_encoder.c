/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What must hold without a reference at hand: devices agree, sizing does not matter, ids are checked. tests/parity has the reference's
 * numbers.
 */
#include "engine/wan/text_encoder.h"
#include "engine/dualparal.h"

#include <math.h>
#include <string.h>

enum { N = 37 };

static DpModelConfig config;
static DpWeights *weights;

static void
encode (const char *device, DpType type, int max_tokens, const gint32 *ids, int n, float *out)
{
  const DpTokens text = { ids, n, out };
  g_autoptr (GError) error = NULL;
  DpDevice *dev = dp_device_open (device, 1, (char[256]) { 0 }, 256);
  DpTextEncoder *encoder = dp_text_encoder_new (dev, &config.text, weights, type, max_tokens, FALSE, &error);
  g_autofree float *again = g_new (float, (gsize) n * config.text.d_model);
  size_t allocations;

  g_assert_no_error (error);
  g_assert_true (dp_text_encoder_encode (encoder, &text, 1, &error));
  allocations = dev->allocations;
  g_assert_true (dp_text_encoder_encode (encoder, &(DpTokens) { ids, n, again }, 1, &error));
  g_assert_cmpuint (dev->allocations, ==, allocations);
  g_assert_cmpmem (again, n * config.text.d_model * 4, out, n * config.text.d_model * 4);
  dp_text_encoder_free (encoder);
  dp_device_close (dev);
}

static double
distance (const float *a, const float *b, gsize n)
{
  double difference = 0, norm = 0;

  for (gsize i = 0; i < n; i++) {
    difference += pow (a[i] - b[i], 2);
    norm += pow (b[i], 2);
  }
  return sqrt (difference / norm);
}

static void
test_agreement (void)
{
  gsize n = (gsize) N * config.text.d_model;
  g_autofree float *ref = g_new (float, n), *other = g_new (float, n);
  gint32 ids[N];

  for (int i = 0; i < N; i++)
    ids[i] = i * 7 % 260;
  encode ("ref", DP_TYPE_F32, N, ids, N, ref);
  encode ("ref", DP_TYPE_F32, 512, ids, N, other);
  g_assert_cmpmem (other, n * 4, ref, n * 4);
  encode ("cpu", DP_TYPE_F32, 512, ids, N, other);
  g_assert_true (distance (other, ref, n) <= 1e-5);
  encode ("cpu", DP_TYPE_BF16, 512, ids, N, other);
  g_assert_true (distance (other, ref, n) <= 5e-2);
  encode ("cpu", DP_TYPE_F32, 1, ids, 1, other);
  encode ("ref", DP_TYPE_F32, 1, ids, 1, ref);
  g_assert_true (distance (other, ref, config.text.d_model) <= 1e-5);
}

/* Streamed gives the bits of resident in less memory, two texts at once those of one at a time, and again after the layers went by. */
static void
test_streamed (void)
{
  static const char *const devices[] = { "ref", "cpu", "cuda:0" };
  gsize d = config.text.d_model;
  gint32 ids[N];

  for (int i = 0; i < N; i++)
    ids[i] = i * 11 % 260;
  for (guint i = 0; i < G_N_ELEMENTS (devices); i++)
    for (DpType type = DP_TYPE_F32; type <= DP_TYPE_BF16; type++) {
      g_autoptr (GError) error = NULL;
      char message[256];
      DpDevice *dev = dp_device_open (devices[i], 2, message, sizeof message);
      g_autofree float *want = g_new0 (float, (N + 5) * d), *got = g_new0 (float, (N + 5) * d);
      DpDeviceInfo info;
      gsize bytes[2], layer;

      if (dev == NULL) {
        g_test_message ("not on %s: %s", devices[i], message);
        continue;
      }
      g_assert_true (dp_device_info (devices[i], &info, message, sizeof message));
      for (int streamed = 0; streamed < 2; streamed++) {
        gsize before = dev->bytes, planned = dp_text_encoder_bytes (&config.text, type, N, streamed);
        DpTextEncoder *encoder = dp_text_encoder_new (dev, &config.text, weights, type, N, streamed, &error);
        float *out = streamed ? got : want;

        g_assert_no_error (error);
        bytes[streamed] = dev->bytes - before;
        if (type == DP_TYPE_F32 || info.fast_bf16)      /* else the weights are kept as float32 */
          g_assert_true (bytes[streamed] >= planned && bytes[streamed] <= planned * 11 / 10);
        if (streamed) {
          size_t allocations;

          g_assert_true (dp_text_encoder_encode (encoder, (DpTokens[]) { { ids, N, got }, { ids + 3, 5, got + N * d } }, 2, &error));
          g_assert_cmpmem (got, (N + 5) * d * 4, want, (N + 5) * d * 4);
          allocations = dev->allocations;
          memset (got, 0, (N + 5) * d * 4);
          g_assert_true (dp_text_encoder_encode (encoder, &(DpTokens) { ids + 3, 5, got + N * d }, 1, &error));
          g_assert_true (dp_text_encoder_encode (encoder, &(DpTokens) { ids, N, got }, 1, &error));
          g_assert_cmpuint (dev->allocations, ==, allocations);
          g_assert_cmpmem (got, (N + 5) * d * 4, want, (N + 5) * d * 4);
        } else {
          g_assert_true (dp_text_encoder_encode (encoder, &(DpTokens) { ids, N, out }, 1, &error));
          g_assert_true (dp_text_encoder_encode (encoder, &(DpTokens) { ids + 3, 5, out + N * d }, 1, &error));
        }
        dp_text_encoder_free (encoder);
      }
      /* the other layers' weights are what it is less by */
      layer = dp_type_size (info.fast_bf16 ? type : DP_TYPE_F32) * d * (4 * config.text.heads * config.text.d_kv + 3 * config.text.d_ff);
      g_assert_cmpuint (bytes[0] - bytes[1], >=, (config.text.layers - 1) * layer);
      dp_device_close (dev);
    }
}

/* A bias of its own for each direction: turning the text around must not just turn the answer around. */
static void
test_order (void)
{
  gsize d = config.text.d_model;
  g_autofree float *there = g_new (float, 3 * d), *back = g_new (float, 3 * d);

  encode ("ref", DP_TYPE_F32, 8, (gint32[]) { 5, 6, 7 }, 3, there);
  encode ("ref", DP_TYPE_F32, 8, (gint32[]) { 7, 6, 5 }, 3, back);
  g_assert_true (distance (there, back + 2 * d, d) > 1e-4);
}

static void
test_refused (void)
{
  DpDevice *dev = dp_device_open ("ref", 1, (char[256]) { 0 }, 256);
  g_autoptr (GError) error = NULL;
  size_t before = dev->bytes;
  DpTextEncoder *encoder = dp_text_encoder_new (dev, &config.text, weights, DP_TYPE_F32, 4, FALSE, &error);
  g_autofree float *out = g_new (float, 4 * config.text.d_model);
  DpTextConfig wrong;
  size_t bytes = dev->bytes;

  g_assert_false (dp_text_encoder_encode (encoder, &(DpTokens) { (gint32[]) { 1, config.text.vocab }, 2, out }, 1, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_clear_error (&error);
  g_assert_false (dp_text_encoder_encode (encoder, &(DpTokens) { (gint32[]) { -1 }, 1, out }, 1, &error));
  g_clear_error (&error);
  dp_text_encoder_free (encoder);

  for (int streamed = 0; streamed < 2; streamed++) {
    wrong = config.text;
    wrong.layers++;
    g_assert_null (dp_text_encoder_new (dev, &wrong, weights, DP_TYPE_F32, 4, streamed, &error));
    g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
    g_clear_error (&error);
    wrong = config.text;
    wrong.d_ff *= 2;
    g_assert_null (dp_text_encoder_new (dev, &wrong, weights, DP_TYPE_F32, 4, streamed, &error));
    g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
    g_assert_nonnull (strstr (error->message, "wi_0"));
    g_assert_cmpuint (dev->bytes, <, bytes);
    g_assert_cmpuint (dev->bytes, ==, before);  /* what was built before the failure is gone again */
    g_clear_error (&error);
  }
  dp_text_encoder_free (NULL);
  dp_device_close (dev);
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *dir = NULL, *text = NULL;
  int failed;

  g_test_init (&argc, &argv, NULL);
  dir = g_test_build_filename (G_TEST_DIST, "models", "tiny", NULL);
  text = g_build_filename (dir, "text_encoder", NULL);
  dp_model_config_read (&config, dir, &error);
  g_assert_no_error (error);
  weights = dp_weights_open (text, "model", &error);
  g_assert_no_error (error);
  g_test_add_func ("/text_encoder/agreement", test_agreement);
  g_test_add_func ("/text_encoder/streamed", test_streamed);
  g_test_add_func ("/text_encoder/order", test_order);
  g_test_add_func ("/text_encoder/refused", test_refused);
  failed = g_test_run ();
  dp_weights_free (weights);
  return failed;
}
