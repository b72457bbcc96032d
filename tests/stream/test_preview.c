/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Pictures of what is being denoised: whose they are, how many, and that those of a last step are its latents through the model's map.
 */
#include "stream.h"
#include "dualparal_testing.h"

#include <math.h>
#include <string.h>

#define INTERVAL_US 250000
#define SIDE 64                 /* more latents than there are on a side */

typedef struct
{
  GMutex lock;
  DpModel *model;
  int previews, last_steps;     /* how many there were, and of them with all steps done */
  gint64 at_us, block;          /* of the latest; block -1: none */
  guint8 rgb[SIDE * SIDE * 3];  /* of the latest with all steps done */
  gint64 rgb_block, finished;   /* whose that is; the last block that was finished */
  int compared;
} Watch;

static void
show (const DpPreview *preview, gpointer data)
{
  gint64 now = g_get_monotonic_time ();
  Watch *w = data;

  g_mutex_lock (&w->lock);
  g_assert_true (w->previews == 0 || now - w->at_us >= INTERVAL_US * 9 / 10);
  g_assert_cmpint (preview->block, >=, w->block);
  g_assert_cmpint (preview->width, ==, 64 / 8);
  g_assert_cmpint (preview->height, ==, 48 / 8);
  g_assert_cmpint (preview->step, >, 0);
  g_assert_cmpint (preview->step, <=, preview->steps);
  w->at_us = now;
  w->block = preview->block;
  w->previews++;
  if (preview->step == preview->steps) {
    w->last_steps++;
    w->rgb_block = preview->block;
    memcpy (w->rgb, preview->rgb, preview->width * preview->height * 3);
  }
  g_mutex_unlock (&w->lock);
}

/* The picture of the last step comes before the block is finished. */
static void
compare (const float *latents, int n, int h, int width, int channels, gpointer data)
{
  Watch *w = data;
  const DpDefaults *d = &w->model->config.defaults;

  g_mutex_lock (&w->lock);
  latents += (gsize) n / 2 * h * width * channels;
  for (int i = 0; i < h * width * 3 && w->finished == w->rgb_block; i++) {
    double level = d->preview[i % 3][channels];

    for (int c = 0; c < channels; c++)
      level += d->preview[i % 3][c] * latents[i / 3 * channels + c];
    g_assert_cmpfloat (fabs (CLAMP (level, 0, 1) * 255 - w->rgb[i]), <, 0.6);
  }
  w->compared += w->finished++ == w->rgb_block;
  g_mutex_unlock (&w->lock);
}

static DpSettings
settings (void)
{
  DpSettings s = stream_small ();

  s.model = g_getenv ("DUALPARAL_TEST_MODEL");
  s.width = 64;
  s.height = 48;
  s.guidance_scale = 1;
  s.block_latents = 2;
  s.context_latents = 1;
  return s;
}

static void
check_pictures (int stages)
{
  Watch w = { .block = -1, .rgb_block = -1 };
  DpSettings s = settings ();
  DpFrame frame;
  gint64 next = 0;
  int compared = 0, enough = stream_slowness () > 1 ? 1 : 2;

  s.devices = stream_devices (stages);
  g_mutex_init (&w.lock);
  g_autoptr (DpEngine) engine = stream_open (&s);
  w.model = dp_model_open (s.model, NULL, NULL);
  dp_engine_set_latents_callback (engine, compare, &w);
  g_assert_true (dp_engine_set_preview (engine, show, &w, NULL));
  while (compared < enough) {
    g_assert_true (stream_pull (engine, &frame, &next));
    dp_engine_release_frame (engine, &frame);
    g_mutex_lock (&w.lock);
    compared = w.compared;
    g_mutex_unlock (&w.lock);
  }
  g_assert_true (dp_engine_set_preview (engine, NULL, NULL, NULL));
  int previews = w.previews;
  for (int i = 0; i < 20; i++) {
    g_assert_true (stream_pull (engine, &frame, &next));
    dp_engine_release_frame (engine, &frame);
  }
  g_assert_cmpint (w.previews, ==, previews);
  g_clear_pointer (&engine, dp_engine_free);
  g_test_message ("%d previews, %d of them of a last step, %d compared", w.previews, w.last_steps, w.compared);
  dp_model_unref (w.model);
  g_mutex_clear (&w.lock);
}

static void
test_pictures (void)
{
  check_pictures (1);
  check_pictures (2);
}

/* The video is the same. */
static void
test_video (void)
{
  Watch w = { .block = -1, .rgb_block = -1 };
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  DpSettings s = settings ();
  DpFrame frame;
  gint64 next = 0;

  s.num_frames = 60;
  g_autofree char *without = stream_hash (&s);
  g_autoptr (DpEngine) engine = stream_open (&s);
  g_assert_true (dp_engine_set_preview (engine, show, &w, NULL));
  while (stream_pull (engine, &frame, &next)) {
    stream_hash_frame (sum, &frame);
    dp_engine_release_frame (engine, &frame);
  }
  g_assert_cmpint (w.previews, >, 0);
  g_assert_cmpstr (g_checksum_get_string (sum), ==, without);
}

static void
test_no_map (void)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *dir = stream_model_new ("dualparal.json", "{ \"name\": \"plain\" }", 19);
  DpSettings s = settings ();

  s.model = dir;
  g_autoptr (DpEngine) engine = stream_open (&s);
  g_assert_false (dp_engine_set_preview (engine, show, NULL, &error));
  g_assert_error (error, DP_ERROR, DP_ERROR_SETTINGS);
  g_assert_nonnull (strstr (error->message, "plain has no preview_map"));
  g_clear_pointer (&engine, dp_engine_free);
  stream_model_free (g_steal_pointer (&dir));
}

int
main (int argc, char **argv)
{
  stream_init (&argc, &argv);
  g_test_add_func ("/preview/pictures", test_pictures);
  g_test_add_func ("/preview/video", test_video);
  g_test_add_func ("/preview/no-map", test_no_map);
  return g_test_run ();
}
