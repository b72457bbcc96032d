/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Plain Wan (one block, all steps) through the engine against diffusers' WanPipeline, given the same noise.
 */
#include "parity_engine.h"

#include <string.h>

#define TOLERANCE 1e-4
#define MIN_DB 50

/* The rows of the real tokens are the reference's, the rest are zero. */
static void
check_embeds (const ParityCase *c, const char *what, const char *tensor, const float *got, const ParityVideo *video)
{
  gint64 dims[8];
  gsize n;
  g_autofree float *want = parity_tensor (c, &n, dims, "%s", tensor);
  g_assert_cmpint (video->text_length, ==, parity_int (c, "text_length"));
  g_assert_cmpint (video->text_dim, ==, dims[1]);
  g_autofree char *full = g_strdup_printf ("%s: %s", what, tensor);
  parity_check (full, got, want, n, 1e-5);
  for (gsize i = n; i < (gsize) video->text_length * video->text_dim; i++)
    g_assert_cmpfloat (got[i], ==, 0);
}

/* The case as one block, on one CPU stage. */
static void
in_one_block (const ParityCase *c, DpSettings *settings)
{
  parity_settings (c, settings);
  settings->devices = "cpu";
  settings->block_latents = settings->noise_latents;
  settings->context_latents = -1;
  settings->queue_blocks = 1;
}

static void
test_plain (gconstpointer name)
{
  g_autoptr (ParityCase) c = parity_case_open ("run", name);
  DpSettings settings;
  in_one_block (c, &settings);
  g_autoptr (ParityVideo) video = parity_run (c, &settings);
  g_autofree char *what = g_strdup_printf ("plain run %s", (const char *) name);
  parity_check_latents (what, c, video, TOLERANCE);
  parity_check_frames (what, c, video, 1, MIN_DB);
  check_embeds (c, what, "prompt_embeds", video->embeds, video);
  if (settings.guidance_scale > 1)
    check_embeds (c, what, "negative_prompt_embeds", video->negative, video);

  /* A first block of B + C latents that is the whole video is the same thing. */
  settings.block_latents = settings.noise_latents - 1;
  settings.context_latents = 1;
  settings.queue_blocks = settings.steps;
  g_autoptr (ParityVideo) again = parity_run (c, &settings);
  g_assert_cmpint (again->n_latents, ==, video->n_latents);
  parity_check_same ("one block of B + C", again->latents->data, video->latents->data, video->latents->len * sizeof (float));
  parity_settings_clear (&settings);
}

/* A picture to begin with, against WanImageToVideoPipeline. It is the first frame of every cut of the video, and stages do not matter. */
static void
test_image (gconstpointer name)
{
  g_autoptr (ParityCase) c = parity_case_open ("image", name);
  DpSettings settings;
  in_one_block (c, &settings);
  g_autoptr (ParityVideo) video = parity_run (c, &settings);
  g_autofree char *what = g_strdup_printf ("a picture to begin with, %s", (const char *) name);
  parity_check_latents (what, c, video, TOLERANCE);
  parity_check_frames (what, c, video, 1, MIN_DB);

  settings.block_latents = 1;
  settings.context_latents = 1;
  settings.queue_blocks = settings.steps;
  g_autoptr (ParityVideo) one = parity_run (c, &settings);
  settings.devices = "cpu,cpu";
  g_autoptr (ParityVideo) two = parity_run (c, &settings);
  parity_check_same ("two stages", two->latents->data, one->latents->data, one->latents->len * sizeof (float));
  gsize frame = one->latents->len / one->n_latents;
  parity_check_same ("its first latent", one->latents->data, video->latents->data, frame * sizeof (float));
  parity_settings_clear (&settings);
}

/* A LoRA, against the pipeline with PEFT's layers. */
static void
test_lora (gconstpointer name)
{
  g_autoptr (ParityCase) c = parity_case_open ("lora", name);
  DpSettings settings;
  in_one_block (c, &settings);
  g_autoptr (ParityVideo) video = parity_run (c, &settings);
  g_autofree char *what = g_strdup_printf ("a LoRA, %s", (const char *) name);
  parity_check_latents (what, c, video, TOLERANCE);
  parity_settings_clear (&settings);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  parity_add ("/parity/run", test_plain, (const char *const[]) { "odd", "wide", "deep", "pair", "grid", NULL });
  parity_add ("/parity/lora", test_lora, (const char *const[]) { "odd", NULL });
  parity_add ("/parity/image", test_image, (const char *const[]) { "grid", NULL });
  return g_test_run ();
}
