/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalgenerator.h"

#include "gstdualparalframe.h"
#include "gstdualparalmessages.h"
#include "gstdualparalpreview.h"

#define GST_CAT_DEFAULT gst_dualparal_src_debug

/* The shortest wait for a frame */
#define LEAST_US G_TIME_SPAN_MILLISECOND
/* Of a prompt, in the log */
#define LOGGED_CHARACTERS 100
/* For the conversion of a picture that an application gives */
#define IMAGE_SECONDS 10

struct _GstDualParalGenerator
{
  GstElement *element;
  GstDualParalSettings *settings;

  /* -- protected by lock, which is never held over a wait or a message */
  GMutex lock;
  DpEngine *engine;             /* replaced by the streaming thread only */
  gboolean flushing;
  gboolean prompt_missed;       /* the prompt changed while there was no engine */
  GstDualParalPrompts prompts;  /* those with a time */
  gboolean has_timed;           /* there was one, since stop() */
  GBytes *image;                /* RGB that the application gave, or NULL */
  gint image_width, image_height;

  /* -- set by start(), constant until stop() */
  GStringChunk *storage;
  DpSettings base_settings;     /* the properties, without size, format, prompts */
  DpPlan *base_plan;            /* for those: devices and precision stay */
  guint prebuffer, capacity;

  /* -- owned by the streaming thread */
  DpPlan *plan;                 /* with the negotiated size, once there is one */
  DpFrame frame;                /* in hand */
  gboolean has_frame;
  GHashTable *warned;           /* sentences on sizes, as each is posted once */

  GstDualParalPoster *poster;
  GstDualParalPreview preview;
  /* -- the engine's threads' */
  GstDualParalProgress *progress;
  gint closing;                 /* atomic */
};

GstDualParalGenerator *
gst_dualparal_generator_new (GstElement * element,
    GstDualParalPoster * poster, GstDualParalSettings * settings)
{
  GstDualParalGenerator *gen = g_new0 (GstDualParalGenerator, 1);

  gen->element = element;
  gen->settings = settings;
  gen->poster = poster;
  gen->preview = (GstDualParalPreview) { element, poster };
  g_mutex_init (&gen->lock);
  gen->progress = gst_dualparal_progress_new (element, poster);
  gst_dualparal_prompts_init (&gen->prompts);
  gen->warned = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  return gen;
}

void
gst_dualparal_generator_free (GstDualParalGenerator * gen)
{
  g_mutex_clear (&gen->lock);
  g_clear_pointer (&gen->image, g_bytes_unref);
  gst_dualparal_progress_free (gen->progress);
  gst_dualparal_prompts_clear (&gen->prompts);
  g_hash_table_unref (gen->warned);
  g_free (gen);
}

static void
gst_dualparal_generator_post_error (GstDualParalGenerator * gen, GError * error)
{
  gst_dualparal_post_error (gen->element, error);
  g_error_free (error);
}

static void
gst_dualparal_generator_copy_prompts (GstDualParalGenerator * gen,
    gchar * texts[2])
{
  texts[0] = gst_dualparal_settings_string (gen->settings,
      GST_DUALPARAL_PROP_PROMPT);
  texts[1] = gst_dualparal_settings_string (gen->settings,
      GST_DUALPARAL_PROP_NEGATIVE_PROMPT);
}

/* NULL, which is the model's own, is one */
static gboolean
gst_dualparal_generator_check_prompts (const gchar * prompt,
    const gchar * negative_prompt, GError ** error)
{
  return (!prompt || dp_prompt_check (prompt, error))
      && (!negative_prompt || dp_prompt_check (negative_prompt, error));
}

/* The queue and how much of it is filled before playback */
static gboolean
gst_dualparal_generator_size_queue (GstDualParalGenerator * gen,
    GError ** error)
{
  const DpSettings *resolved = dp_plan_settings (gen->plan);
  const gint asked = gst_dualparal_settings_number (gen->settings,
      GST_DUALPARAL_PROP_PREBUFFER);
  gint most = resolved->max_queue_frames;

  /* A default follows what was asked for */
  if (gen->base_settings.max_queue_frames == 0 && asked > most)
    gen->base_settings.max_queue_frames = most = asked;
  if (asked > most) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "prebuffer is %d frames, "
        "but the queue holds at most max-queue-frames, which is %d; lower the "
        "one or raise the other", asked, most);
    return FALSE;
  }
  gen->capacity = most;
  gen->prebuffer = asked ? asked : MIN (most, resolved->block_latents *
      dp_plan_model (gen->plan)->temporal_scale);
  return TRUE;
}

/* On the streaming thread, which does not post by itself */
static void
gst_dualparal_generator_post_warning (GstDualParalGenerator * gen, gint code,
    const gchar * sentence, const gchar * debug)
{
  GError *warning = g_error_new_literal (GST_RESOURCE_ERROR, code, sentence);

  gst_dualparal_poster_post (gen->poster,
      gst_message_new_warning (GST_OBJECT (gen->element), warning, debug));
  GST_WARNING_OBJECT (gen->element, "%s", sentence);
  g_error_free (warning);
}

/* Once for each start. A GPU is expected to be used. That it is not is a warning and not an error:
 * the video is the same, only slower. */
static void
gst_dualparal_generator_warn_passed_over (GstDualParalGenerator * gen)
{
  const gchar *reason = dp_plan_passed_over (gen->base_plan);

  if (reason)
    GST_ELEMENT_WARNING (gen->element, RESOURCE, NOT_FOUND, ("%s", reason),
        ("set devices to choose, and to end this warning"));
}

/* The prompts with a time: those that were queued before the start, and cues */
static gboolean
gst_dualparal_generator_start_prompts (GstDualParalGenerator * gen,
    GError ** error)
{
  gchar *storyboard = gst_dualparal_settings_string (gen->settings,
      GST_DUALPARAL_PROP_STORYBOARD);
  gboolean ok;

  g_mutex_lock (&gen->lock);
  ok = gst_dualparal_prompts_start (&gen->prompts, storyboard, error);
  gen->has_timed |= storyboard != NULL;
  g_mutex_unlock (&gen->lock);
  g_free (storyboard);
  return ok;
}

gboolean
gst_dualparal_generator_start (GstDualParalGenerator * gen)
{
  const DpSettings *r;
  DpSettings unsized;
  GError *error = NULL;
  gchar *texts[2];
  gboolean ok;

  gen->storage = g_string_chunk_new (1024);
  gst_dualparal_settings_for_engine (gen->settings, &gen->base_settings,
      gen->storage);
  gst_dualparal_generator_copy_prompts (gen, texts);

  /* Errors in the model and the settings are reported now, before any weight is read and whatever
   * the size will be. Measured times are of one size, so they wait until that is known */
  unsized = gen->base_settings;
  unsized.times = NULL;
  gen->base_plan = dp_plan_new (&unsized, &error);
  ok = gen->base_plan
      && gst_dualparal_generator_check_prompts (texts[0], texts[1], &error);
  if (ok) {
    gen->plan = dp_plan_ref (gen->base_plan);
    gst_dualparal_generator_warn_passed_over (gen);
    ok = gst_dualparal_generator_size_queue (gen, &error);
  }
  ok = ok && gst_dualparal_generator_start_prompts (gen, &error);
  g_free (texts[0]);
  g_free (texts[1]);
  if (!ok) {
    gst_dualparal_generator_post_error (gen, error);
    gst_dualparal_generator_stop (gen);
    return FALSE;
  }
  if (dp_plan_unguided (gen->base_plan))
    GST_WARNING_OBJECT (gen->element, "%s", dp_plan_unguided (gen->base_plan));
  if (dp_plan_starved (gen->base_plan))
    GST_WARNING_OBJECT (gen->element, "%s", dp_plan_starved (gen->base_plan));
  r = dp_plan_settings (gen->plan);
  GST_INFO_OBJECT (gen->element, "model %s on %s, %s: seed %" G_GINT64_FORMAT
      ", %d steps, guidance %g, blocks of %d latents, %d in flight, context "
      "%s, a queue of %u frames, %u to begin with", dp_plan_model (gen->plan)->name,
      r->devices, r->precision, r->seed, r->steps, r->guidance_scale,
      r->block_latents, r->queue_blocks, r->context_mode, gen->capacity, gen->prebuffer);
  return TRUE;
}

static void
gst_dualparal_generator_warn_of_trace (GstDualParalGenerator * gen,
    GError * error)
{
  gst_dualparal_generator_post_warning (gen, GST_RESOURCE_ERROR_WRITE,
      error->message, "the video goes on, the trace is not complete");
  g_error_free (error);
}

static void
gst_dualparal_generator_close (GstDualParalGenerator * gen)
{
  DpEngine *engine;
  GError *error = NULL;

  gst_dualparal_generator_release (gen);

  g_mutex_lock (&gen->lock);
  engine = g_steal_pointer (&gen->engine);
  g_mutex_unlock (&gen->lock);

  if (engine && !dp_engine_end_trace (engine, &error))
    gst_dualparal_generator_warn_of_trace (gen, error);
  g_atomic_int_set (&gen->closing, TRUE);
  dp_engine_free (engine);
  g_atomic_int_set (&gen->closing, FALSE);
  if (engine)
    GST_INFO_OBJECT (gen->element, "engine closed");
  /* An application that shows progress waits for the end of it */
  gst_dualparal_progress_reset (gen->progress, "load-model");
}

static void
gst_dualparal_generator_forget_prompts (GstDualParalGenerator * gen)
{
  g_mutex_lock (&gen->lock);
  gst_dualparal_prompts_stop (&gen->prompts);
  gen->has_timed = FALSE;
  g_mutex_unlock (&gen->lock);
}

gboolean
gst_dualparal_generator_rewind (GstDualParalGenerator * gen)
{
  GError *error = NULL;

  if (!gen->engine)
    return TRUE;
  gst_dualparal_generator_close (gen);
  gst_dualparal_generator_forget_prompts (gen);
  if (gst_dualparal_generator_start_prompts (gen, &error))
    return TRUE;
  gst_dualparal_generator_post_error (gen, error);
  return FALSE;
}

void
gst_dualparal_generator_stop (GstDualParalGenerator * gen)
{
  gst_dualparal_generator_close (gen);
  gst_dualparal_generator_forget_prompts (gen);
  g_clear_pointer (&gen->storage, g_string_chunk_free);
  g_clear_pointer (&gen->plan, dp_plan_unref);
  g_clear_pointer (&gen->base_plan, dp_plan_unref);
}

const DpPlan *
gst_dualparal_generator_plan (GstDualParalGenerator * gen)
{
  return gen->plan;
}

void
gst_dualparal_generator_get_queue (GstDualParalGenerator * gen,
    guint * prebuffer, guint * capacity)
{
  *prebuffer = gen->prebuffer;
  *capacity = gen->capacity;
}

/* -- the engine */

/* From the engine's threads, which hold no lock */
static void
gst_dualparal_generator_report_progress (const char *code, const char *text,
    int percent, gpointer user_data)
{
  GstDualParalGenerator *gen = user_data;

  gst_dualparal_progress_report (gen->progress, code, text, percent,
      g_atomic_int_get (&gen->closing));
}

/* A model that has no map for it is still shown */
static void
gst_dualparal_generator_start_preview (GstDualParalGenerator * gen,
    DpEngine * engine)
{
  GError *error = NULL;

  if (!gst_dualparal_settings_number (gen->settings,
          GST_DUALPARAL_PROP_PREVIEW)
      || dp_engine_set_preview (engine, gst_dualparal_preview_post,
          &gen->preview, &error))
    return;
  gst_dualparal_generator_post_warning (gen, GST_RESOURCE_ERROR_SETTINGS,
      error->message, "no preview is posted");
  g_error_free (error);
}

/* A text that is NULL is the model's own, which the engine takes from the model only when it opens.
 * Under the lock. */
static gboolean
gst_dualparal_generator_queue_now (GstDualParalGenerator * gen,
    gchar * const *texts, gint transition_blocks, GError ** error)
{
  const DpSettings *model = dp_plan_settings (gen->base_plan);
  const gboolean low = gst_dualparal_settings_number (gen->settings,
      GST_DUALPARAL_PROP_PROMPT_LATENCY) == GST_DUALPARAL_PROMPT_LATENCY_LOW;

  if (!dp_engine_queue_prompt (gen->engine, &(DpPrompt) {
        .prompt = texts[0] ? texts[0] : model->prompt,.negative_prompt =
          texts[1] ? texts[1] : model->negative_prompt,.at_frame = -1,
          .transition_blocks = transition_blocks,.restart = low}, error))
    return FALSE;
  gst_dualparal_prompts_queued (&gen->prompts, gen->engine);
  return TRUE;
}

static gboolean
gst_dualparal_generator_open_engine (GstDualParalGenerator * gen,
    DpSettings settings, const GstVideoInfo * info, guint64 n_frames,
    GError ** error)
{
  DpEngine *engine = NULL;
  DpPlan *plan;
  GBytes *image = NULL;
  gchar *texts[2], *text;
  gboolean opened;

  g_mutex_lock (&gen->lock);
  gst_dualparal_generator_copy_prompts (gen, texts);
  gst_dualparal_prompts_open (&gen->prompts, n_frames,
      GST_VIDEO_INFO_FPS_N (info), GST_VIDEO_INFO_FPS_D (info), &texts[0],
      &texts[1]);
  gen->prompt_missed = FALSE;
  if (gen->image && n_frames == 0) {
    image = g_bytes_ref (gen->image);
    settings.image_rgb = g_bytes_get_data (image, NULL);
    settings.image_width = gen->image_width;
    settings.image_height = gen->image_height;
  }
  g_mutex_unlock (&gen->lock);

  if (n_frames > 0)             /* a video that continues in another size has begun already */
    settings.image = NULL;
  settings.prompt = texts[0];
  settings.negative_prompt = texts[1];
  plan = dp_plan_with (gen->base_plan, &settings, error);
  if (plan) {
    dp_plan_unref (gen->plan);
    gen->plan = plan;
  }
  opened = plan && dp_engine_open (&engine, plan,
      gst_dualparal_generator_report_progress, gen, error);
  g_free (texts[0]);
  g_free (texts[1]);
  g_clear_pointer (&image, g_bytes_unref);
  if (!opened)
    return FALSE;
  if (dp_plan_unheld (plan))
    gst_dualparal_generator_post_warning (gen, GST_RESOURCE_ERROR_SETTINGS,
        dp_plan_unheld (plan), "the video is made all the same");
  gst_dualparal_generator_start_preview (gen, engine);
  if (dp_plan_untrained (plan)
      && g_hash_table_add (gen->warned, g_strdup (dp_plan_untrained (plan))))
    gst_dualparal_generator_post_warning (gen, GST_RESOURCE_ERROR_SETTINGS,
        dp_plan_untrained (plan), "the caps of downstream set the size");
  text = dp_plan_describe (plan);
  GST_INFO_OBJECT (gen->element, "plan:\n%s", text);
  g_free (text);
  GST_INFO_OBJECT (gen->element, "engine opened for %dx%d %s, from frame %"
      G_GUINT64_FORMAT " on, prompt \"%.100s\"", settings.width,
      settings.height,
      gst_video_format_to_string (GST_VIDEO_INFO_FORMAT (info)), n_frames,
      dp_plan_settings (plan)->prompt);

  g_mutex_lock (&gen->lock);
  gen->engine = engine;
  dp_engine_set_flushing (engine, gen->flushing);
  opened = gst_dualparal_prompts_attach (&gen->prompts, engine, error);
  if (opened && gen->prompt_missed) {
    gst_dualparal_generator_copy_prompts (gen, texts);
    opened = gst_dualparal_generator_queue_now (gen, texts, 0, error);
    g_free (texts[0]);
    g_free (texts[1]);
  }
  g_mutex_unlock (&gen->lock);
  return opened;
}

gboolean
gst_dualparal_generator_open (GstDualParalGenerator * gen,
    const GstVideoInfo * info, guint64 n_frames, gboolean * opened)
{
  const DpSettings *now = dp_plan_settings (gen->plan);
  DpSettings settings = gen->base_settings;
  GError *error = NULL;

  settings.width = GST_VIDEO_INFO_WIDTH (info);
  settings.height = GST_VIDEO_INFO_HEIGHT (info);
  gst_dualparal_frame_format (GST_VIDEO_INFO_FORMAT (info), &settings.format);
  *opened = !gen->engine || settings.width != now->width
      || settings.height != now->height || settings.format != now->format;
  if (!*opened)
    return TRUE;
  gst_dualparal_generator_close (gen);
  /* Frames that went out before a change of size count too */
  settings.first_frame = n_frames;
  if (settings.num_frames > 0)
    settings.num_frames -= n_frames;
  if (gst_dualparal_generator_open_engine (gen, settings, info, n_frames,
          &error))
    return TRUE;
  gst_dualparal_generator_post_error (gen, error);
  return FALSE;
}

/* -- frames */

GstFlowReturn
gst_dualparal_generator_pull (GstDualParalGenerator * gen, gboolean * got)
{
  GError *error = NULL;
  DpFrame frame;
  const gint result = dp_engine_pull (gen->engine, &frame, 0, &error);

  *got = result > 0;
  if (*got) {
    gst_dualparal_generator_release (gen);
    gen->frame = frame;
    gen->has_frame = TRUE;
    if (!dp_engine_check_trace (gen->engine, &error))
      gst_dualparal_generator_warn_of_trace (gen, error);
    return GST_FLOW_OK;
  }
  if (result == 0)
    return GST_FLOW_EOS;
  if (!error)
    return GST_FLOW_OK;
  if (g_error_matches (error, DP_ERROR, DP_ERROR_FLUSHING)) {
    g_error_free (error);
    return GST_FLOW_FLUSHING;
  }
  gst_dualparal_generator_post_error (gen, error);
  return GST_FLOW_ERROR;
}

const DpFrame *
gst_dualparal_generator_frame (GstDualParalGenerator * gen)
{
  return gen->has_frame ? &gen->frame : NULL;
}

void
gst_dualparal_generator_release (GstDualParalGenerator * gen)
{
  if (gen->has_frame)
    dp_engine_release_frame (gen->engine, &gen->frame);
  gen->has_frame = FALSE;
}

guint
gst_dualparal_generator_level (GstDualParalGenerator * gen, gboolean * ended)
{
  DpStats stats;

  dp_engine_get_stats (gen->engine, &stats);
  *ended = stats.ended;
  return stats.queue_frames;
}

gboolean
gst_dualparal_generator_wait (GstDualParalGenerator * gen, guint frames,
    gint64 timeout_us)
{
  /* A clock may stand still, and callers wait for it again */
  return dp_engine_wait (gen->engine, frames, timeout_us < 0 ? -1 :
      MAX (timeout_us, LEAST_US));
}

void
gst_dualparal_generator_wake (GstDualParalGenerator * gen)
{
  g_mutex_lock (&gen->lock);
  if (gen->engine)
    dp_engine_wake (gen->engine);
  g_mutex_unlock (&gen->lock);
}

void
gst_dualparal_generator_set_flushing (GstDualParalGenerator * gen,
    gboolean flushing)
{
  g_mutex_lock (&gen->lock);
  gen->flushing = flushing;
  if (gen->engine)
    dp_engine_set_flushing (gen->engine, flushing);
  g_mutex_unlock (&gen->lock);
}

/* -- prompts and the picture */

/* Takes the error */
static void
gst_dualparal_generator_warn (GstDualParalGenerator * gen, GError * error,
    const gchar * what)
{
  GST_ELEMENT_WARNING (gen->element, RESOURCE, SETTINGS, ("%s",
          error->message), ("the %s stays as it was", what));
  g_error_free (error);
}

/* For the next block, and for the properties. Under the lock. */
static gboolean
gst_dualparal_generator_apply_prompts (GstDualParalGenerator * gen,
    gchar * const *texts, gint transition_blocks, GError ** error)
{
  gchar *prompt, *negative;

  if (!gen->engine)
    gst_dualparal_prompts_queued (&gen->prompts, NULL);
  else if (!gst_dualparal_generator_queue_now (gen, texts, transition_blocks,
          error))
    return FALSE;
  prompt = dp_quote (texts[0] ? texts[0] : "(the model's)", LOGGED_CHARACTERS);
  negative = dp_quote (texts[1] ? texts[1] : "(the model's)", LOGGED_CHARACTERS);
  GST_DEBUG_OBJECT (gen->element, "prompt \"%s\", negative \"%s\", %s, "
      "transition of %d blocks", prompt, negative, gen->engine ?
      "for the next new block" : "for the first block", transition_blocks);
  g_free (prompt);
  g_free (negative);
  gst_dualparal_settings_set_prompts (gen->settings, texts[0], texts[1]);
  gen->prompt_missed = gen->engine == NULL;
  return TRUE;
}

void
gst_dualparal_generator_set_prompt (GstDualParalGenerator * gen, guint prop_id,
    const GValue * value)
{
  const gchar *text = g_value_get_string (value);
  gchar *texts[2], **own;
  gboolean changed, accepted = TRUE;
  GError *error = NULL;

  g_mutex_lock (&gen->lock);
  gst_dualparal_generator_copy_prompts (gen, texts);
  own = &texts[prop_id == GST_DUALPARAL_PROP_PROMPT ? 0 : 1];
  changed = g_strcmp0 (text, *own) != 0;
  g_free (*own);
  *own = g_strdup (text);

  /* The text of a prompt with a time is not in the properties */
  if (changed || gen->has_timed)
    accepted = gst_dualparal_generator_apply_prompts (gen, texts, 0, &error);
  g_mutex_unlock (&gen->lock);

  g_free (texts[0]);
  g_free (texts[1]);
  if (!accepted)
    gst_dualparal_generator_warn (gen, error, "prompt");
}

static GBytes *
gst_dualparal_generator_convert_image (GstSample * sample, gint * width,
    gint * height, GError ** error)
{
  GstCaps *caps, *given = gst_sample_get_caps (sample);
  GstBuffer *buffer = gst_sample_get_buffer (sample);
  GstSample *rgb;
  GstVideoFrame frame;
  GstVideoInfo info;
  GByteArray *pixels;
  gint i;

  /* The conversion takes these for granted */
  if (!given || !buffer || !gst_caps_is_fixed (given)
      || !gst_video_info_from_caps (&info, given)
      || gst_buffer_get_size (buffer) < GST_VIDEO_INFO_SIZE (&info)) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "expected a sample with "
        "caps of raw video, with a size, and a whole picture in its buffer");
    return NULL;
  }
  caps = gst_caps_new_simple ("video/x-raw", "format", G_TYPE_STRING, "RGB",
      "pixel-aspect-ratio", GST_TYPE_FRACTION, 1, 1, NULL);
  rgb = gst_video_convert_sample (sample, caps, IMAGE_SECONDS * GST_SECOND, error);
  gst_caps_unref (caps);
  if (!rgb)
    return NULL;
  if (!gst_video_info_from_caps (&info, gst_sample_get_caps (rgb))
      || !gst_video_frame_map (&frame, &info, gst_sample_get_buffer (rgb),
          GST_MAP_READ)) {
    gst_sample_unref (rgb);
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "its buffer is not a picture");
    return NULL;
  }
  *width = GST_VIDEO_INFO_WIDTH (&info);
  *height = GST_VIDEO_INFO_HEIGHT (&info);
  pixels = g_byte_array_sized_new (3 * *width * *height);
  for (i = 0; i < *height; i++)
    g_byte_array_append (pixels, (guint8 *) GST_VIDEO_FRAME_PLANE_DATA (&frame,
            0) + i * GST_VIDEO_FRAME_PLANE_STRIDE (&frame, 0), 3 * *width);
  gst_video_frame_unmap (&frame);
  gst_sample_unref (rgb);
  return g_byte_array_free_to_bytes (pixels);
}

gboolean
gst_dualparal_generator_set_image (GstDualParalGenerator * gen,
    GstSample * sample)
{
  GError *why = NULL, *error = NULL;
  gint width = 0, height = 0;
  GBytes *image = NULL, *old;

  if (sample) {
    image = gst_dualparal_generator_convert_image (sample, &width, &height, &why);
    if (!image) {
      g_set_error (&error, DP_ERROR, DP_ERROR_SETTINGS, "a picture to begin with "
          "cannot be used: %s", why ? why->message : "it cannot be converted");
      g_clear_error (&why);
      gst_dualparal_generator_warn (gen, error, "picture to begin with");
      return FALSE;
    }
  }
  g_mutex_lock (&gen->lock);
  old = gen->image;
  gen->image = image;
  gen->image_width = width;
  gen->image_height = height;
  g_mutex_unlock (&gen->lock);
  g_clear_pointer (&old, g_bytes_unref);
  return TRUE;
}

gboolean
gst_dualparal_generator_queue_prompt (GstDualParalGenerator * gen,
    const GstDualParalPrompt * prompt)
{
  GError *error = NULL;
  gchar *texts[2];
  gboolean ok;

  ok = prompt->prompt && prompt->transition_blocks >= 0;
  if (!ok)
    g_set_error (&error, DP_ERROR, DP_ERROR_SETTINGS, "a prompt was queued with "
        "%s and a transition of %d blocks; expected a text and at least 0",
        prompt->prompt ? "a text" : "no text", prompt->transition_blocks);
  ok = ok && gst_dualparal_generator_check_prompts (prompt->prompt,
      prompt->negative_prompt, &error);
  if (!ok) {
    gst_dualparal_generator_warn (gen, error, "prompt");
    return FALSE;
  }
  g_mutex_lock (&gen->lock);
  if (prompt->at_frame >= 0) {
    ok = gst_dualparal_prompts_schedule (&gen->prompts, prompt, gen->engine,
        &error);
    gen->has_timed |= ok;
  } else {
    gst_dualparal_generator_copy_prompts (gen, texts);
    g_free (texts[0]);
    texts[0] = g_strdup (prompt->prompt);
    if (prompt->negative_prompt) {
      g_free (texts[1]);
      texts[1] = g_strdup (prompt->negative_prompt);
    }
    ok = gst_dualparal_generator_apply_prompts (gen, texts,
        prompt->transition_blocks, &error);
    g_free (texts[0]);
    g_free (texts[1]);
  }
  g_mutex_unlock (&gen->lock);

  if (!ok)
    gst_dualparal_generator_warn (gen, error, "prompt");
  else if (prompt->at_frame >= 0)
    GST_DEBUG_OBJECT (gen->element, "a prompt for frame %" G_GINT64_FORMAT
        ", transition of %d blocks", prompt->at_frame, prompt->transition_blocks);
  else
    gst_dualparal_settings_notify (G_OBJECT (gen->element),
        GST_DUALPARAL_PROP_PROMPT);
  if (ok && prompt->at_frame < 0 && prompt->negative_prompt)
    gst_dualparal_settings_notify (G_OBJECT (gen->element),
        GST_DUALPARAL_PROP_NEGATIVE_PROMPT);
  return ok;
}

gboolean
gst_dualparal_generator_take_event (GstDualParalGenerator * gen,
    GstEvent * event, gboolean * queued)
{
  const GstStructure *s = gst_event_get_structure (event);
  GstDualParalPrompt prompt = { 0, };
  GError *error = NULL;

  if (GST_EVENT_TYPE (event) != GST_EVENT_CUSTOM_UPSTREAM || !s
      || !gst_structure_has_name (s, "dualparal/set-prompt"))
    return FALSE;
  *queued = gst_dualparal_prompt_parse (s, &prompt, &error);
  if (*queued)
    *queued = gst_dualparal_generator_queue_prompt (gen, &prompt);
  else
    gst_dualparal_generator_warn (gen, error, "prompt");
  return TRUE;
}

void
gst_dualparal_generator_prompt_begins (GstDualParalGenerator * gen,
    guint64 frame)
{
  g_mutex_lock (&gen->lock);
  gst_dualparal_prompts_passed (&gen->prompts, frame);
  g_mutex_unlock (&gen->lock);
}

void
gst_dualparal_generator_get_stats (GstDualParalGenerator * gen, DpStats * stats)
{
  *stats = (DpStats) { 0 };
  g_mutex_lock (&gen->lock);
  if (gen->engine)
    dp_engine_get_stats (gen->engine, stats);
  g_mutex_unlock (&gen->lock);
}

void
gst_dualparal_generator_mark (GstDualParalGenerator * gen, const gchar * what)
{
  dp_engine_mark (gen->engine, what);
}
