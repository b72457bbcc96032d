/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "parity.h"

#include <math.h>
#include <string.h>

ParityCase *
parity_case_open (const char *group, const char *name)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *json = g_strdup_printf ("%s/%s/%s.json", PARITY_FIXTURES, group, name);
  g_autofree char *tensors = g_strdup_printf ("%s/%s/%s.safetensors", PARITY_FIXTURES, group, name);
  ParityCase *c = g_new0 (ParityCase, 1);
  c->parser = json_parser_new_immutable ();
  json_parser_load_from_file (c->parser, json, &error);
  g_assert_no_error (error);
  c->settings = json_node_get_object (json_parser_get_root (c->parser));
  c->tensors = dp_weights_open (tensors, NULL, &error);
  g_assert_no_error (error);
  return c;
}

void
parity_case_free (ParityCase *c)
{
  if (!c)
    return;
  dp_weights_free (c->tensors);
  g_object_unref (c->parser);
  g_free (c);
}

int
parity_int (const ParityCase *c, const char *key)
{
  g_assert_true (json_object_has_member (c->settings, key));
  return (int) json_object_get_int_member (c->settings, key);
}

float *
parity_tensor (const ParityCase *c, gsize *n, gint64 *dims, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *name = g_strdup_vprintf (format, args);
  va_end (args);
  const DpTensor *tensor = dp_weights_find (c->tensors, name);
  if (!tensor)
    g_error ("%s: no tensor %s", dp_weights_path (c->tensors), name);
  gsize count = 1;
  for (int i = 0; i < tensor->n_dims; i++) {
    count *= tensor->dims[i];
    if (dims)
      dims[i] = tensor->dims[i];
  }
  float *out = g_new (float, MAX (count, 1));
  g_assert_true (dp_weights_read (c->tensors, tensor, 0, count, out, NULL));
  if (n)
    *n = count;
  return out;
}

float *
parity_channels_last (const float *x, int c, gsize L, int h, int w)
{
  gsize pixels = L * h * w;
  float *out = g_new (float, pixels * c);
  for (gsize p = 0; p < pixels; p++)
    for (int i = 0; i < c; i++)
      out[p * c + i] = x[i * pixels + p];
  return out;
}

float *
parity_video (const ParityCase *c, gint64 *dims, const char *name)
{
  g_autofree float *x = parity_tensor (c, NULL, dims, "%s", name);
  return parity_channels_last (x, dims[0], dims[1], dims[2], dims[3]);
}

double
parity_rel_l2 (const float *got, const float *want, gsize n)
{
  double diff = 0, norm = 0;
  for (gsize i = 0; i < n; i++) {
    double d = (double) got[i] - want[i];
    diff += d * d;
    norm += (double) want[i] * want[i];
  }
  return sqrt (diff) / sqrt (norm);
}

void
parity_check_error (const char *what, double error, double tol)
{
  g_test_message ("%s: %.2e (at most %.0e)", what, error, tol);
  if (!(error <= tol))
    g_test_fail_printf ("%s: error %.3e is over %.0e", what, error, tol);
}

void
parity_check (const char *what, const float *got, const float *want, gsize n, double tol)
{
  g_assert_cmpuint (n, >, 0);
  parity_check_error (what, parity_rel_l2 (got, want, n), tol);
}

void
parity_check_same (const char *what, const void *a, const void *b, gsize bytes)
{
  if (memcmp (a, b, bytes) == 0)
    return;
  gsize i = 0;
  while (((const char *) a)[i] == ((const char *) b)[i])
    i++;
  g_test_fail_printf ("%s: not the same bits, first at byte %" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT, what, i, bytes);
}

char *
parity_model_dir (const char *name)
{
  return g_build_filename (PARITY_FIXTURES, "models", name, NULL);
}

ParityModel *
parity_model_open (const char *name)
{
  g_autoptr (GError) error = NULL;
  ParityModel *model = g_new0 (ParityModel, 1);
  model->dir = parity_model_dir (name);
  dp_model_config_read (&model->config, model->dir, &error);
  g_assert_no_error (error);
  return model;
}

void
parity_model_free (ParityModel *model)
{
  if (!model)
    return;
  g_free (model->dir);
  g_free (model);
}

DpWeights *
parity_model_weights (const ParityModel *model, const char *part)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *dir = g_build_filename (model->dir, part, NULL);
  DpWeights *weights = dp_weights_open (dir, g_str_equal (part, "text_encoder") ? "model" : "diffusion_pytorch_model", &error);
  g_assert_no_error (error);
  return weights;
}

DpDevice *
parity_device_open (const char *name)
{
  char error[256] = "";
  DpDevice *dev = dp_device_open (name, 2, error, sizeof error);
  if (!dev)
    g_error ("%s: %s", name, error);
  return dev;
}

float *
parity_upload (DpDevice *dev, const float *host, gsize n)
{
  float *ptr = dev->ops->alloc (dev, n * sizeof (float));
  g_assert_nonnull (ptr);
  if (host)
    dev->ops->upload (dev, ptr, host, n * sizeof (float));
  return ptr;
}

float *
parity_download (DpDevice *dev, const float *ptr, gsize n)
{
  float *host = g_new (float, n);
  dev->ops->download (dev, host, ptr, n * sizeof (float));
  return host;
}

void
parity_device_close (DpDevice *dev)
{
  char error[256] = "";
  if (!dp_device_check (dev, error, sizeof error))
    g_error ("%s: %s", dev->name, error);
  dp_device_close (dev);
}

void
parity_add (const char *prefix, GTestDataFunc function, const char *const *names)
{
  for (; *names; names++) {
    g_autofree char *path = g_strdup_printf ("%s/%s", prefix, *names);
    g_test_add_data_func (path, *names, function);
  }
}
