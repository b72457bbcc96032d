/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "parity_engine.h"

#include <math.h>
#include <string.h>

void
parity_video_free (ParityVideo *video)
{
  if (!video)
    return;
  g_array_unref (video->latents);
  g_array_unref (video->frames);
  g_free (video->embeds);
  g_free (video->negative);
  g_free (video);
}

static const char *
string_or_null (JsonObject *o, const char *key)
{
  return json_object_get_null_member (o, key) ? NULL : json_object_get_string_member (o, key);
}

void
parity_settings (const ParityCase *c, DpSettings *settings)
{
  JsonObject *o = c->settings;
  const char *model = json_object_get_string_member (o, "model");
  int latents = parity_int (c, "latents");
  g_autoptr (ParityCase) noise = parity_case_open ("noise", model);
  gint64 dims[8];
  *settings = (DpSettings) {
    .model = parity_model_dir (model),
    .prompt = json_object_get_string_member (o, "prompt"),
    .negative_prompt = json_object_get_string_member (o, "negative_prompt"),
    .width = parity_int (c, "width"),
    .height = parity_int (c, "height"),
    .steps = parity_int (c, "steps"),
    .guidance_scale = json_object_get_double_member (o, "guidance_scale"),
    .num_frames = 4 * latents - 3,
    .max_queue_frames = 8,
    .format = DP_FORMAT_RGB_F32,
    .threads = 2,
    .precision = "float32",
    .text_length = parity_int (c, "text_length"),
    .noise = parity_video (noise, dims, "noise"),
    .noise_latents = latents,
  };
  g_assert_cmpint (latents, <=, dims[1]);
  if (json_object_has_member (o, "image"))
    settings->image = g_build_filename (PARITY_FIXTURES, "image", json_object_get_string_member (o, "image"), NULL);
  if (json_object_has_member (o, "lora"))
    settings->lora = g_build_filename (PARITY_FIXTURES, "lora", json_object_get_string_member (o, "lora"), NULL);
  if (json_object_has_member (o, "guidance_scale_2"))
    settings->guidance_scale_2 = json_object_get_double_member (o, "guidance_scale_2");
  if (json_object_has_member (o, "guidance_interval")) {
    JsonArray *interval = json_object_get_array_member (o, "guidance_interval");
    settings->guidance_interval_low = json_array_get_double_element (interval, 0);
    settings->guidance_interval_high = json_array_get_double_element (interval, 1);
  }
  if (json_object_has_member (o, "block_latents")) {
    int context = parity_int (c, "context_latents");
    settings->block_latents = parity_int (c, "block_latents");
    settings->context_latents = context ? context : -1;
    settings->context_mode = string_or_null (o, "context");
    settings->queue_blocks = parity_int (c, "queue_blocks");
    settings->flow_shift = json_object_get_double_member (o, "flow_shift");
    settings->sampler = string_or_null (o, "sampler");
  }
}

void
parity_settings_clear (DpSettings *settings)
{
  g_free ((char *) settings->model);
  g_free ((char *) settings->image);
  g_free ((char *) settings->lora);
  g_free ((float *) settings->noise);
}

/* Loading may not end before the prompts are queued and the callback is set: what comes out must not depend on timing. */
typedef struct
{
  GMutex lock;
  GCond changed;
  gboolean open;
} Gate;

static void
gate_wait (const char *code, const char *text, int percent, gpointer user_data)
{
  Gate *gate = user_data;
  if (percent <= 0)             /* 0 is reported from within dp_engine_open() */
    return;
  g_mutex_lock (&gate->lock);
  while (!gate->open)
    g_cond_wait (&gate->changed, &gate->lock);
  g_mutex_unlock (&gate->lock);
}

static void
gate_open (Gate *gate)
{
  g_mutex_lock (&gate->lock);
  gate->open = TRUE;
  g_cond_broadcast (&gate->changed);
  g_mutex_unlock (&gate->lock);
}

/* The frame says which prompt its block was made with. */
static void
check_prompt (const ParityCase *c, const DpFrame *frame, gint64 last_block)
{
  const char *prompt = json_object_get_string_member (c->settings, "prompt");
  guint id = 0;
  gboolean changed = FALSE;
  if (json_object_has_member (c->settings, "changes")) {
    JsonArray *changes = json_object_get_array_member (c->settings, "changes");
    for (guint i = 0; i < json_array_get_length (changes); i++) {
      JsonObject *o = json_array_get_object_element (changes, i);
      if (json_object_get_int_member (o, "block") > frame->block)
        break;
      prompt = json_object_get_string_member (o, "prompt");
      changed = json_object_get_int_member (o, "block") == frame->block && last_block < frame->block;
      id++;
    }
  }
  g_assert_cmpuint (frame->prompt_id, ==, id);
  g_assert_cmpint (frame->prompt_changed, ==, changed);
  g_assert_cmpstr (frame->prompt, ==, prompt);
}

static void
take_latents (const float *latents, int n_latents, int h, int w, int channels, gpointer user_data)
{
  ParityVideo *video = user_data;
  g_array_append_vals (video->latents, latents, (guint) (n_latents * h * w * channels));
  video->n_latents += n_latents;
  video->h = h;
  video->w = w;
  video->channels = channels;
}

ParityVideo *
parity_run (const ParityCase *c, const DpSettings *settings)
{
  g_autoptr (GError) error = NULL;
  ParityVideo *video = g_new0 (ParityVideo, 1);
  video->latents = g_array_new (FALSE, FALSE, sizeof (float));
  video->frames = g_array_new (FALSE, FALSE, sizeof (float));
  DpEngine *engine = NULL;
  Gate gate = { .open = FALSE };
  g_mutex_init (&gate.lock);
  g_cond_init (&gate.changed);
  g_autoptr (DpPlan) plan = dp_plan_new (settings, &error);
  g_assert_no_error (error);
  dp_engine_open (&engine, plan, gate_wait, &gate, &error);
  g_assert_no_error (error);
  if (json_object_has_member (c->settings, "changes")) {
    JsonArray *changes = json_object_get_array_member (c->settings, "changes");
    for (guint i = 0; i < json_array_get_length (changes); i++) {
      JsonObject *o = json_array_get_object_element (changes, i);
      DpPrompt prompt = { .prompt = json_object_get_string_member (o, "prompt"), .negative_prompt = string_or_null (o, "negative_prompt"),
        .at_frame = -1 };

      if (json_object_has_member (o, "restart_in")) {
        dp_engine_queue_prompt_in (engine, &prompt, json_object_get_int_member (o, "restart_in"), &error);
      } else {
        prompt.at_frame = dp_engine_first_frame (engine, json_object_get_int_member (o, "block"));
        dp_engine_queue_prompt (engine, &prompt, &error);
      }
      g_assert_no_error (error);
    }
  }
  dp_engine_set_latents_callback (engine, take_latents, video);
  gate_open (&gate);

  DpFrame frame;
  int result;
  gint64 last_block = -1;
  while ((result = dp_engine_pull (engine, &frame, -1, &error)) == 1) {
    g_assert_cmpint (frame.index, ==, video->n_frames);
    g_assert_cmpint (frame.format, ==, DP_FORMAT_RGB_F32);
    int latent = (video->n_frames + 3) / 4, first = settings->block_latents + MAX (settings->context_latents, 0);
    g_assert_cmpint (frame.block, ==, latent < first ? 0 : 1 + (latent - first) / settings->block_latents);
    check_prompt (c, &frame, last_block);
    last_block = frame.block;
    for (int y = 0; y < frame.height; y++)
      g_array_append_vals (video->frames, frame.planes[0] + (gsize) y * frame.strides[0], frame.width * 3);
    video->width = frame.width;
    video->height = frame.height;
    video->n_frames++;
    dp_engine_release_frame (engine, &frame);
  }
  g_assert_no_error (error);
  g_assert_cmpint (result, ==, 0);
  dp_engine_prompt_embeds (engine, &video->embeds, &video->negative, &video->text_length, &video->text_dim, &error);
  g_assert_no_error (error);
  dp_engine_free (engine);
  g_mutex_clear (&gate.lock);
  g_cond_clear (&gate.changed);

  g_assert_cmpint (video->n_frames, ==, settings->num_frames);
  g_assert_cmpint (video->width, ==, settings->width);
  g_assert_cmpint (video->height, ==, settings->height);
  return video;
}

void
parity_check_latents (const char *what, const ParityCase *c, const ParityVideo *video, double tol)
{
  gint64 dims[8];
  g_autofree float *want = parity_video (c, dims, "latents");
  const float *got = (const float *) video->latents->data;
  gsize frame = (gsize) dims[0] * dims[2] * dims[3];
  g_assert_cmpint (video->n_latents, ==, dims[1]);
  g_assert_cmpuint (video->latents->len, ==, frame * dims[1]);
  g_autofree char *whole = g_strdup_printf ("%s: latents", what);
  parity_check (whole, got, want, frame * dims[1], tol);
  double worst = 0;
  int where = 0;
  for (int i = 0; i < dims[1]; i++) {
    double e = parity_rel_l2 (got + i * frame, want + i * frame, frame);
    if (!(e <= worst) && !isnan (worst)) {
      worst = e;
      where = i;
    }
  }
  g_autofree char *one = g_strdup_printf ("%s: worst latent (%d)", what, where);
  parity_check_error (one, worst, tol);
}

void
parity_check_frames (const char *what, const ParityCase *c, const ParityVideo *video, int stride, double min_db)
{
  gint64 dims[8];
  gsize n;
  g_autofree float *want = parity_tensor (c, &n, dims, "frames");       /* [F, H, W, 3] */
  gsize frame = n / dims[0];
  g_assert_cmpint (dims[0], ==, (video->n_frames + stride - 1) / stride);
  g_assert_cmpuint (video->frames->len, ==, frame * video->n_frames);
  double sum = 0;
  for (int i = 0; i < dims[0]; i++) {
    const float *got = (const float *) video->frames->data + (gsize) i * stride * frame;
    for (gsize k = 0; k < frame; k++) {
      double d = (double) got[k] - want[i * frame + k];
      sum += d * d;
    }
  }
  double db = -10 * log10 (sum / n);
  g_test_message ("%s: frames %.1f dB (at least %.0f)", what, db, min_db);
  if (!(db >= min_db))
    g_test_fail_printf ("%s: frames %.1f dB, under %.0f", what, db, min_db);
}
