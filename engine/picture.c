/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "picture.h"
#include "settings.h"
#include "wan/arena.h"
#include "wan/device_error.h"
#include "wan/found.h"
#include "wan/vae_encoder.h"
#include "kernels/host.h"

#include <gdk-pixbuf/gdk-pixbuf.h>
#include <unistd.h>

#define MAX_PIXELS 100e6        /* of a file: 400 MB once it is unpacked */

struct _DpPicture
{
  const DpPlan *plan;
  const int *cancel;
  float *pixels;                /* [H, W, 3] of the decoder's size, in -1..1 */
};

static gboolean
refuse (const char *path, const char *why, GError **error)
{
  g_autofree char *quoted = dp_quote (path, DP_QUOTE_SENTENCE);

  return dp_settings_refuse (error, "image: %s %s", quoted, why);
}

static GdkPixbuf *
read_file (const char *path, GError **error)
{
  g_autoptr (GError) why = NULL;
  g_autoptr (GdkPixbuf) stored = NULL;
  gint64 size;
  int width = 0, height = 0, file = dp_found_open (path, NULL, &size, error);

  if (file < 0)
    return NULL;
  close (file);
  if (gdk_pixbuf_get_file_info (path, &width, &height) && (double) width * height > MAX_PIXELS) {
    refuse (path, "has more than 100 million pixels; scale it down", error);
    return NULL;
  }
  stored = gdk_pixbuf_new_from_file (path, &why);
  if (stored == NULL) {
    g_autofree char *text = g_strdup_printf ("cannot be read: %s; give it a PNG or JPEG file", why->message);
    refuse (path, text, error);
    return NULL;
  }
  return gdk_pixbuf_apply_embedded_orientation (stored);
}

/* The middle of `whole` that has the aspect of width : height, at that size. */
static GdkPixbuf *
cover (GdkPixbuf *whole, int width, int height)
{
  int w = gdk_pixbuf_get_width (whole), h = gdk_pixbuf_get_height (whole);
  int part_w = CLAMP ((gint64) h * width / height, 1, w), part_h = CLAMP ((gint64) w * height / width, 1, h);
  g_autoptr (GdkPixbuf) part = gdk_pixbuf_new_subpixbuf (whole, (w - part_w) / 2, (h - part_h) / 2, part_w, part_h);

  return gdk_pixbuf_scale_simple (part, width, height, GDK_INTERP_BILINEAR);
}

DpPicture *
dp_picture_open (const DpPlan *plan, const int *cancel, GError **error)
{
  int scale = plan->info.spatial_scale, width = plan->latent_w * scale, height = plan->latent_h * scale;
  const DpSettings *s = &plan->settings;
  g_autoptr (GdkPixbuf) scaled = NULL, whole = s->image_rgb ? gdk_pixbuf_new_from_data (s->image_rgb, GDK_COLORSPACE_RGB, FALSE, 8,
      s->image_width, s->image_height, 3 * s->image_width, NULL, NULL) : read_file (s->image, error);
  float *pixels;
  DpPicture *p;

  if (whole == NULL)
    return NULL;
  pixels = dp_arena_host_new (sizeof (float) * width * height * 3, "the picture to begin with", error);
  scaled = pixels ? cover (whole, width, height) : NULL;
  if (scaled == NULL) {
    if (pixels)
      dp_error_set (error, DP_ERROR_NO_MEMORY, "the picture to begin with cannot be scaled to %dx%d: there is not enough memory", width,
          height);
    g_free (pixels);
    return NULL;
  }
  int channels = gdk_pixbuf_get_n_channels (scaled);    /* what is transparent counts as black, and is scaled as such */
  for (int y = 0; y < height; y++) {
    const guchar *row = gdk_pixbuf_read_pixels (scaled) + (gsize) y * gdk_pixbuf_get_rowstride (scaled);

    for (int x = 0; x < width; x++)
      for (int c = 0; c < 3; c++)
        pixels[((gsize) y * width + x) * 3 + c] = row[x * channels + c] / 255.f * 2 - 1;
  }
  p = g_new (DpPicture, 1);
  *p = (DpPicture) { plan, cancel, pixels };
  return p;
}

void
dp_picture_free (DpPicture *p)
{
  if (p)
    g_free (p->pixels);
  g_free (p);
}

static gboolean
encode (const DpPicture *p, DpDevice *dev, float *latents, GError **error)
{
  const DpPlan *plan = p->plan;
  g_autoptr (DpWeights) weights = dp_model_weights (plan->model, DP_MODEL_VAE, error);
  DpVaeEncoder *encoder;

  if (weights == NULL)
    return FALSE;
  if (dp_weights_bytes (weights, "encoder.") == 0) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: it has a decoder and no encoder, which image needs; use the whole VAE of this model, or "
        "leave image out", dp_weights_path (weights));
    return FALSE;
  }
  dev->cancel = p->cancel;
  encoder = dp_vae_encoder_new (dev, &plan->model->config.vae, weights, plan->latent_h, plan->latent_w, 1, error);
  if (encoder == NULL)
    return FALSE;
  dp_vae_encode (encoder, p->pixels, latents);
  gboolean ok = dp_error_check_device (dev, error, "while the picture to begin with was encoded");
  dp_vae_encoder_free (encoder);
  if (ok && dp_device_cancelled (dev)) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_FLUSHING, "cancelled");
    return FALSE;
  }
  if (!ok || dp_all_finite (DP_TYPE_F32, latents, dp_plan_latent_size (plan)))
    return ok;
  dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: its encoder made NaN or infinity of the picture to begin with; it is damaged",
      dp_weights_path (weights));
  return FALSE;
}

gboolean
dp_picture_encode (gpointer picture, float *latents, GError **error)
{
  const DpPicture *p = picture;
  char why[256];
  DpDevice *dev = dp_device_open ("cpu", p->plan->settings.threads, why, sizeof why);

  if (dev == NULL) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_DEVICE, why);
    return FALSE;
  }
  gboolean ok = encode (p, dev, latents, error);
  dp_device_close (dev);
  return ok;
}
