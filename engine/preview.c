/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: [h, w, C] of a latent frame.
 */
#include "preview.h"

#define INTERVAL_US 250000      /* at least, from one picture to the next */

struct _DpPreviewer
{
  /* -- immutable -- */
  const DpPlan *plan;

  /* -- protected by lock -- */
  GMutex lock;
  DpPreviewCallback callback;   /* NULL: nobody looks */
  gpointer user_data;
  float *before, *after;        /* [h, w, C] in host memory, once somebody does */
  guint8 *rgb;                  /* [h, w, 3] */
  gint64 shown_us;
};

DpPreviewer *
dp_previewer_new (const DpPlan *plan)
{
  DpPreviewer *p = g_new0 (DpPreviewer, 1);

  p->plan = plan;
  g_mutex_init (&p->lock);
  return p;
}

void
dp_previewer_free (DpPreviewer *p)
{
  if (p == NULL)
    return;
  g_mutex_clear (&p->lock);
  g_free (p->before);
  g_free (p->after);
  g_free (p->rgb);
  g_free (p);
}

gboolean
dp_previewer_set (DpPreviewer *p, DpPreviewCallback callback, gpointer user_data, GError **error)
{
  const DpDefaults *d = &p->plan->model->config.defaults;
  gsize size = dp_plan_latent_size (p->plan);

  if (callback && !d->has_preview) {
    dp_error_set (error, DP_ERROR_SETTINGS, "preview: %s has no preview_map in a dualparal.json; models/preview-map makes one from a video",
        d->name);
    return FALSE;
  }
  g_mutex_lock (&p->lock);
  p->callback = callback;
  p->user_data = user_data;
  if (callback && p->before == NULL) {
    p->before = g_new (float, size);
    p->after = g_new (float, size);
    p->rgb = g_new (guint8, (gsize) p->plan->latent_h * p->plan->latent_w * 3);
  }
  g_mutex_unlock (&p->lock);
  return TRUE;
}

/* After the head's pass of an iteration, the block in front of it has left. */
static gboolean
is_head (const DpPlan *plan, const DpBlockHeader *h)
{
  return h->block == 0 || h->step + plan->lag >= plan->settings.steps;
}

/* after - sigma (after - before) / (sigma - sigma before), through the map; what is not a number is black. */
static void
paint (DpPreviewer *p, double sigma_before, double sigma)
{
  const DpPlan *plan = p->plan;
  const DpDefaults *d = &plan->model->config.defaults;
  float beyond = sigma / (sigma_before - sigma);
  int C = plan->model->latent_channels;

  for (gsize i = 0; i < (gsize) plan->latent_h * plan->latent_w; i++)
    for (int k = 0; k < 3; k++) {
      float level = d->preview[k][C];

      for (int c = 0; c < C; c++) {
        float after = p->after[i * C + c];

        level += d->preview[k][c] * (after + beyond * (after - p->before[i * C + c]));
      }
      p->rgb[i * 3 + k] = level > 0 ? MIN (level, 1) * 255 + 0.5f : 0;
    }
}

void
dp_previewer_look (DpPreviewer *p, DpDevice *dev, const float *before, const DpBlock *b)
{
  const DpPlan *plan = p->plan;
  const DpBlockHeader *h = &b->header;
  gsize size = dp_plan_latent_size (plan);
  gint64 now = g_get_monotonic_time ();

  g_mutex_lock (&p->lock);
  if (p->callback && is_head (plan, h) && now - p->shown_us >= INTERVAL_US) {
    dev->ops->download (dev, p->before, before + h->own / 2 * size, sizeof (float) * size);
    dev->ops->download (dev, p->after, b->latents + (h->context + h->own / 2) * size, sizeof (float) * size);
    if (!dp_device_failed (dev) && !dp_device_cancelled (dev)) {        /* else there is no picture in it */
      paint (p, dp_sampler_sigma (plan->sampler, dp_block_told_step (h->step, h->first_step)),
          dp_sampler_sigma (plan->sampler, h->step + 1));
      p->callback (&(DpPreview) { .block = h->block, .step = h->step + 1, .steps = plan->settings.steps, .width = plan->latent_w,
          .height = plan->latent_h, .rgb = p->rgb }, p->user_data);
    }
    p->shown_us = now;
  }
  g_mutex_unlock (&p->lock);
}
