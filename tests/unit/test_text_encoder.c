/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What must hold without a reference at hand: devices agree, sizing does not matter, ids are checked. tests/parity has the reference's numbers.
 */
#include "engine/text_encoder.h"
#include "engine/dualparal.h"

#include <math.h>
#include <string.h>

enum { N = 37 };

static DpModelConfig config;
static DpWeights *weights;

static void
encode (const char *device, DpType type, int max_tokens, const gint32 *ids, int n, float *out)
{
  g_autoptr (GError) error = NULL;
  DpDevice *dev = dp_device_open (device, 1, (char[256]) { 0 }, 256);
  DpTextEncoder *encoder = dp_text_encoder_new (dev, &config.text, weights, type, max_tokens, &error);
  g_autofree float *again = g_new (float, (gsize) n * config.text.d_model);
  size_t allocations;

  g_assert_no_error (error);
  g_assert_true (dp_text_encoder_encode (encoder, ids, n, out, &error));
  allocations = dev->allocations;
  g_assert_true (dp_text_encoder_encode (encoder, ids, n, again, &error));
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
  DpTextEncoder *encoder = dp_text_encoder_new (dev, &config.text, weights, DP_TYPE_F32, 4, &error);
  g_autofree float *out = g_new (float, 4 * config.text.d_model);
  DpTextConfig wrong = config.text;
  size_t bytes = dev->bytes;

  g_assert_false (dp_text_encoder_encode (encoder, (gint32[]) { 1, config.text.vocab }, 2, out, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_clear_error (&error);
  g_assert_false (dp_text_encoder_encode (encoder, (gint32[]) { -1 }, 1, out, &error));
  g_clear_error (&error);
  dp_text_encoder_free (encoder);

  wrong.layers++;
  g_assert_null (dp_text_encoder_new (dev, &wrong, weights, DP_TYPE_F32, 4, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_NOT_FOUND);
  g_clear_error (&error);
  wrong = config.text;
  wrong.d_ff *= 2;
  g_assert_null (dp_text_encoder_new (dev, &wrong, weights, DP_TYPE_F32, 4, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_assert_nonnull (strstr (error->message, "wi_0"));
  g_assert_cmpuint (dev->bytes, <, bytes);
  bytes = dev->bytes;
  g_clear_error (&error);
  g_assert_null (dp_text_encoder_new (dev, &wrong, weights, DP_TYPE_F32, 4, &error));
  g_assert_cmpuint (dev->bytes, ==, bytes);     /* what was built before the failure is gone again */
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
  g_test_add_func ("/text_encoder/order", test_order);
  g_test_add_func ("/text_encoder/refused", test_refused);
  failed = g_test_run ();
  dp_weights_free (weights);
  return failed;
}
