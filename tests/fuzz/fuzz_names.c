/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The names and shapes of a file's tensors, a line each: "blocks.0.modulation 1 6 1536". The file has a hole for numbers. What is taken for
 * a network's config must be in the range that config files are held to.
 */
#include "fuzz.h"
#include "engine/wan/names.h"
#include "engine/wan/shapes.h"

#include <string.h>
#include <unistd.h>

#define MAX_FILE ((guint64) 1 << 40)

static gboolean
put (char *text)
{
  g_autoptr (GString) file = g_string_new ("{");
  guint64 at = 0, length;
  char *line, *rest = text;

  while ((line = strsep (&rest, "\n"))) {
    char *name = strsep (&line, " "), *dim;
    guint64 n = 2;

    for (const char *c = name; *c; c++)
      if (!g_ascii_isalnum (*c) && strchr ("._", *c) == NULL)
        return FALSE;
    g_string_append_printf (file, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[", file->len > 1 ? "," : "", name);
    for (int i = 0; (dim = strsep (&line, " ")); i++) {
      guint64 d = g_ascii_strtoull (dim, NULL, 10);

      if (d > MAX_FILE || __builtin_mul_overflow (n, d, &n) || n > MAX_FILE)
        return FALSE;
      g_string_append_printf (file, "%s%" G_GUINT64_FORMAT, i ? "," : "", d);
    }
    g_string_append_printf (file, "],\"data_offsets\":[%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT "]}", at, at + n);
    at += n;
    if (at > MAX_FILE)
      return FALSE;
  }
  length = g_string_append_c (file, '}')->len;
  g_string_prepend_len (file, (char *) &length, 8);
  fuzz_put ("w.safetensors", file->str, file->len);
  g_autofree char *path = g_build_filename (fuzz_dir (), "w.safetensors", NULL);
  return truncate (path, file->len + at) == 0;
}

/* Gives the network its names and looks at its shapes. */
static gboolean
look (DpWeights *weights, DpNetwork network, DpModelConfig *c, GError **error)
{
  if (!dp_names_apply (weights, network, error))
    return FALSE;
  if (network == DP_NETWORK_TRANSFORMER)
    return dp_shapes_transformer (&c->dit, weights, 0, error);
  return network == DP_NETWORK_VAE ? dp_shapes_vae (&c->vae, weights, error) : dp_shapes_text_encoder (&c->text, weights, error);
}

static void
check_vae (const DpVaeConfig *c)
{
  g_assert_true (c->levels >= 2 && c->levels <= DP_VAE_MAX_LEVELS && c->res_blocks >= 1 && c->res_blocks <= 16 && c->base_dim >= 1);
  g_assert_true (c->spatial_scale >= 2 && c->spatial_scale <= 512 && c->temporal_scale >= 1);
  for (int i = 0; i < c->levels; i++)
    g_assert_true (c->dim_mult[i] >= 1 && c->dim_mult[i] <= 64 && c->base_dim * c->dim_mult[i] <= 8192);
  for (int i = 0; c->residual && i < c->levels - 1; i++) {
    int co = c->dim_mult[c->levels - 1 - i], ci = i == 0 ? co : c->dim_mult[c->levels - i];

    g_assert_cmpint (4 * co * (c->temporal_upsample[i] ? 2 : 1) % ci, ==, 0);
  }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autofree char *text = g_strndup ((const char *) data, size);

  if (!put (text))
    return 0;
  for (DpNetwork network = DP_NETWORK_TRANSFORMER; network <= DP_NETWORK_TEXT_ENCODER; network++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (DpWeights) weights = dp_weights_open (fuzz_dir (), "w", &error);
    DpModelConfig c;
    gboolean ok = weights && look (weights, network, &c, &error);

    fuzz_check_error (ok, error);
    if (weights)
      dp_names_recognise (weights, network);
    if (ok && network == DP_NETWORK_TRANSFORMER)
      g_assert_true (c.dit.layers >= 1 && c.dit.layers <= 256 && c.dit.heads >= 1 && c.dit.heads * c.dit.head_dim <= 16384 && c.dit.ffn >= 1
          && c.dit.in_channels >= 1 && c.dit.freq_dim >= 2 && c.dit.freq_dim % 2 == 0);
    if (ok && network == DP_NETWORK_VAE)
      check_vae (&c.vae);
    if (ok && network == DP_NETWORK_TEXT_ENCODER)
      g_assert_true (c.text.layers >= 1 && c.text.vocab >= 3 && c.text.heads >= 1 && c.text.d_kv >= 1 && c.text.d_kv <= 1024
          && c.text.heads * c.text.d_kv <= 16384 && c.text.buckets >= 4 && c.text.buckets % 4 == 0);
  }
  return 0;
}
