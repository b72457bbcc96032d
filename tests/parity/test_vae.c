/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The streaming VAE decoder against AutoencoderKLWan decoding the same latents at once, and the encoder against its encoding.
 */
#include "parity.h"
#include "wan/vae.h"
#include "wan/vae_encoder.h"

#include <string.h>

#define TOLERANCE 1e-5

/* The frames of so many latents, new; *n receives how many floats. */
static float *
decode_some (DpVae *vae, DpDevice *dev, const float *latents, int n_latents, gsize latent_floats, gsize frame_floats, int want_frames,
    gsize *n)
{
  float *input = parity_upload (dev, latents, n_latents * latent_floats);
  const void *frames = NULL;
  int count = dp_vae_decode (vae, input, n_latents, &frames);
  g_assert_cmpint (count, ==, want_frames);
  float *out = parity_download (dev, frames, count * frame_floats);
  dev->ops->free (dev, input);
  *n = count * frame_floats;
  return out;
}

static float *
decode_one (DpVae *vae, DpDevice *dev, const float *latent, gsize latent_floats, gsize frame_floats, int want_frames, gsize *n)
{
  return decode_some (vae, dev, latent, 1, latent_floats, frame_floats, want_frames, n);
}

static int
pixels_of_latent (const ParityModel *model)
{
  return model->config.vae.spatial_scale * model->config.vae.spatial_scale;
}

static DpVae *
open_vae (DpDevice *dev, const ParityModel *model, const DpWeights *weights, int h, int w, int at_once)
{
  g_autoptr (GError) error = NULL;
  DpVae *vae = dp_vae_new (dev, &model->config.vae, weights, DP_TYPE_F32, h, w, at_once, &error);
  g_assert_no_error (error);
  g_assert_cmpint (dp_vae_type (vae), ==, DP_TYPE_F32);
  return vae;
}

/* The name is MODEL-DEVICE. */
static void
test_decode (gconstpointer data)
{
  g_auto (GStrv) name = g_strsplit (data, "-", 2);
  g_autoptr (ParityCase) c = parity_case_open ("vae", name[0]);
  g_autoptr (ParityModel) model = parity_model_open (name[0]);
  g_autoptr (DpWeights) weights = parity_model_weights (model, "vae");
  DpDevice *dev = parity_device_open (name[1]);
  gint64 dims[8];
  gsize n, total;
  g_autofree float *latents = parity_video (c, dims, "latents");        /* [L, h, w, z] */
  g_autofree float *want = parity_tensor (c, &total, NULL, "frames");   /* [4 L - 3, H, W, 3] */
  int L = dims[1], h = dims[2], w = dims[3];
  gsize latent_floats = (gsize) h * w * dims[0], frame_floats = total / (4 * L - 3), at = 0;
  g_assert_cmpuint (frame_floats, ==, (gsize) h * w * pixels_of_latent (model) * 3);
  DpVae *vae = open_vae (dev, model, weights, h, w, 3);

  g_autofree float *got = g_new (float, total);
  for (int i = 0; i < L; i++) {
    g_autofree float *frames = decode_one (vae, dev, latents + i * latent_floats, latent_floats, frame_floats, i ? 4 : 1, &n);
    memcpy (got + at, frames, n * sizeof (float));
    at += n;
  }
  g_autofree char *what = g_strdup_printf ("vae %s, %d latents", (const char *) data, L);
  parity_check (what, got, want, total, TOLERANCE);
  for (int i = 0; i < L; i++) {
    gsize begin = i ? (4 * i - 3) * frame_floats : 0, count = (i ? 4 : 1) * frame_floats;
    g_autofree char *part = g_strdup_printf ("vae %s, latent %d", (const char *) data, i);
    parity_check (part, got + begin, want + begin, count, TOLERANCE);
  }

  /* After a reset, in mid-stream, the past is forgotten: the same bits again. */
  dp_vae_reset (vae);
  at = 0;
  for (int i = 0; i < L; i++) {
    g_autofree float *frames = decode_one (vae, dev, latents + i * latent_floats, latent_floats, frame_floats, i ? 4 : 1, &n);
    parity_check_same ("after a reset", frames, got + at, n * sizeof (float));
    at += n;
  }

  /* Several latents at a time; the first comes alone, and the last ones are as many as there are. */
  dp_vae_reset (vae);
  at = 0;
  for (int i = 0, take; i < L; i += take) {
    take = MIN (L - i, dp_vae_takes (vae));
    g_assert_cmpint (take, ==, i == 0 ? 1 : MIN (L - i, 3));
    g_autofree float *frames = decode_some (vae, dev, latents + i * latent_floats, take, latent_floats, frame_floats, i ? 4 * take : 1, &n);
    parity_check ("several at a time", frames, want + at, n, TOLERANCE);
    at += n;
  }
  g_assert_cmpuint (at, ==, total);
  dp_vae_free (vae);
  parity_device_close (dev);
}

static void
test_stream (gconstpointer data)
{
  g_autoptr (ParityCase) c = parity_case_open ("stream", data);
  g_autoptr (ParityModel) model = parity_model_open (data);
  g_autoptr (DpWeights) weights = parity_model_weights (model, "vae");
  DpDevice *dev = parity_device_open ("cpu");
  gint64 dims[8];
  g_autofree float *latents = parity_video (c, dims, "latents");
  int L = dims[1], h = dims[2], w = dims[3];
  gsize latent_floats = (gsize) h * w * dims[0], frame_floats = (gsize) h * w * pixels_of_latent (model) * 3;
  JsonArray *keep = json_object_get_array_member (c->settings, "keep");
  guint kept = 0;
  DpVae *vae = open_vae (dev, model, weights, h, w, 1);
  for (int i = 0; i < L; i++) {
    gsize n, count;
    g_autofree float *got = decode_one (vae, dev, latents + i * latent_floats, latent_floats, frame_floats, i ? 4 : 1, &n);
    if (kept == json_array_get_length (keep) || json_array_get_int_element (keep, kept) != i)
      continue;
    kept++;
    g_autofree float *want = parity_tensor (c, &count, NULL, "frames_%d", i);
    g_assert_cmpuint (count, ==, n);
    g_autofree char *what = g_strdup_printf ("streaming decode %s, latent %d of %d", (const char *) data, i, L);
    parity_check (what, got, want, n, TOLERANCE);
  }
  g_assert_cmpuint (kept, ==, json_array_get_length (keep));
  dp_vae_free (vae);
  parity_device_close (dev);
}

/* Nine pictures are three latents. The name is MODEL-DEVICE. */
static void
test_encode (gconstpointer data)
{
  g_auto (GStrv) name = g_strsplit (data, "-", 2);
  g_autoptr (ParityCase) c = parity_case_open ("encode", name[0]);
  g_autoptr (ParityModel) model = parity_model_open (name[0]);
  g_autoptr (DpWeights) weights = parity_model_weights (model, "vae");
  g_autoptr (GError) error = NULL;
  DpDevice *dev = parity_device_open (name[1]);
  gint64 dims[8];
  gsize total;
  g_autofree float *pictures = parity_tensor (c, &total, NULL, "pictures");     /* [F, H, W, 3] */
  g_autofree float *want = parity_video (c, dims, "latents");   /* [L, h, w, z] */
  int L = dims[1], h = dims[2], w = dims[3], at = 0;
  gsize latent_floats = (gsize) h * w * dims[0], picture_floats = (gsize) h * w * pixels_of_latent (model) * 3;
  g_autofree float *got = g_new (float, L * latent_floats);
  DpVaeEncoder *encoder = dp_vae_encoder_new (dev, &model->config.vae, weights, h, w, L, &error);
  g_assert_no_error (error);
  for (int i = 0; i < L; i++) {
    int n = dp_vae_encoder_takes (encoder);
    dp_vae_encode (encoder, pictures + at * picture_floats, got + i * latent_floats);
    at += n;
  }
  g_assert_cmpuint (at * picture_floats, ==, total);
  parity_check (data, got, want, L * latent_floats, TOLERANCE);
  dp_vae_encoder_free (encoder);

  /* One picture alone is the first of them, and takes less memory. */
  gsize bytes = dev->bytes;
  encoder = dp_vae_encoder_new (dev, &model->config.vae, weights, h, w, 1, &error);
  g_assert_no_error (error);
  g_autofree float *first = g_new (float, latent_floats);
  dp_vae_encode (encoder, pictures, first);
  parity_check_same ("one picture", first, got, sizeof (float) * latent_floats);
  dp_vae_encoder_free (encoder);
  g_assert_cmpuint (dev->bytes, ==, bytes);
  parity_device_close (dev);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  parity_add ("/parity/vae", test_decode,
      (const char *const[]) { "odd-cpu", "odd-ref", "wide-cpu", "wide-ref", "deep-cpu", "deep-ref", "grid-cpu", "grid-ref", NULL });
  parity_add ("/parity/stream", test_stream, (const char *const[]) { "odd", "deep", "grid", NULL });
  parity_add ("/parity/encode", test_encode, (const char *const[]) { "deep-cpu", "deep-ref", "grid-cpu", "grid-ref", NULL });
  return g_test_run ();
}
