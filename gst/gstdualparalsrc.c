/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalsrc.c: the element. The engine's threads make frames into a
 * bounded queue; the streaming thread takes one a buffer. Nothing here blocks
 * but the wait for that frame, and unlock() ends it without touching what is
 * being made.
 */

/**
 * SECTION:element-dualparalsrc
 * @title: dualparalsrc
 *
 * Turns a prompt into raw video without end: a Wan2.1 video diffusion model,
 * run block by block with the DualParal scheme over any number of devices. The
 * default model is a tiny one that comes with the plugin and plays in real time
 * on a CPU.
 *
 * The size can be negotiated in steps of 16 pixels and the framerate freely;
 * by default both are the model's. Frames are made ahead of time into a queue of
 * #GstDualParalSrc:max-queue-frames, the only thing that holds the generation
 * back.
 *
 * ## Example launch lines
 * |[
 * gst-launch-1.0 dualparalsrc prompt="a red ball bouncing over a green meadow" ! videoconvert ! autovideosink
 * ]| Endless video in a window.
 * |[
 * gst-launch-1.0 dualparalsrc num-frames=160 seed=7 devices=cpu,cpu ! videoconvert ! x264enc ! mp4mux ! filesink location=ball.mp4
 * ]| Ten seconds in a file, made by two stages.
 * |[
 * gst-launch-1.0 dualparalsrc steps=20 ! video/x-raw,width=320,height=192 ! videoconvert ! autovideosink
 * ]| Larger and with more steps. Where that is slower than it plays, the
 * pipeline pauses for a block at a time.
 *
 * ## Messages
 * * `PROGRESS`, code `load-model`: the weights are read in the background while
 *   the pipeline prerolls.
 * * `BUFFERING`: a frame was not made in time for a sink that keeps time. As with
 *   any buffering element, the application goes to PAUSED below 100 and back to
 *   PLAYING at 100; no frame is dropped. It is not posted before the first frame,
 *   nor to a recording, which may be as slow as it likes.
 * * `ELEMENT`, structure `dualparal-prompt-applied`: the first frame of a prompt
 *   leaves the element. Fields: `prompt` (string), `prompt-id` (#guint, 0 for the
 *   first), `block` (#gint64), `frame` (#guint64), `timestamp`, `stream-time`,
 *   `running-time` (#GstClockTime).
 *
 * ## Events
 * Right before the first buffer of a prompt, in this order:
 * * a serialized custom downstream event with a structure `dualparal/prompt`:
 *   `prompt`, `prompt-id`, `block` and `frame` as above;
 * * a tag event: `title` is the prompt, `comment` the seed, steps, guidance and
 *   model.
 *
 * Since: 0.1
 */
#include "gstdualparalsrc.h"

#include "dualparal.h"
#include "gstdualparalbuffering.h"
#include "gstdualparalframe.h"
#include "gstdualparalmessages.h"
#include "gstdualparalsettings.h"

GST_DEBUG_CATEGORY_STATIC (gst_dualparal_src_debug);
#define GST_CAT_DEFAULT gst_dualparal_src_debug

/* How often the wait for a frame looks at the clock, and the wait for a full
 * queue at the queue */
#define WAIT_US (100 * G_TIME_SPAN_MILLISECOND)
#define REFILL_US (20 * G_TIME_SPAN_MILLISECOND)
/* Latent frames after the first that are decoded before the first is shown */
#define START_LATENTS 2

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE ("src",
    GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_DUALPARAL_FRAME_CAPS));

struct _GstDualParalSrc
{
  GstPushSrc parent;

  /* -- protected by the object lock */
  GstDualParalSettings settings;
  GstVideoInfo info;            /* written by the streaming thread only */

  /* -- protected by engine_lock, which is never held over a wait or a message */
  GMutex engine_lock;
  GCond engine_cond;
  DpEngine *engine;             /* replaced by the streaming thread only */
  gboolean flushing;
  gboolean prompt_missed;       /* the prompt changed while there was no engine */

  /* -- set by start(), constant until stop() */
  GStringChunk *storage;
  DpSettings base_settings;     /* the properties, size and format open */
  DpModelInfo model;

  /* -- owned by the streaming thread */
  DpSettings resolved;
  GStringChunk *resolved_storage;
  gboolean reopen;              /* the engine makes other frames than wanted */
  DpFrame frame;                /* taken from the queue, not yet in a buffer */
  gboolean has_frame;
  guint64 n_frames;             /* sent so far */
  guint64 base_frame;           /* with the framerate of now, since this frame */
  GstClockTime base_time;
  gchar *announced;             /* the last prompt that downstream was told */
  guint prompt_id;
  gint resync;                  /* atomic: running time began anew */
  GstDualParalBuffering buffering;

  /* -- the engine's threads' */
  GstDualParalProgress progress;
  gint closing;                 /* atomic */
};

#define gst_dualparal_src_parent_class parent_class
G_DEFINE_TYPE (GstDualParalSrc, gst_dualparal_src, GST_TYPE_PUSH_SRC);
GST_ELEMENT_REGISTER_DEFINE (dualparalsrc, "dualparalsrc", GST_RANK_NONE,
    GST_TYPE_DUALPARAL_SRC);

/* -- properties */

static void
gst_dualparal_src_copy_prompts (GstDualParalSrc * self, gchar ** prompt,
    gchar ** negative_prompt)
{
  GST_OBJECT_LOCK (self);
  *prompt = g_strdup (self->settings.prompt);
  *negative_prompt = g_strdup (self->settings.negative_prompt);
  GST_OBJECT_UNLOCK (self);
}

static void
gst_dualparal_src_set_prompt (GstDualParalSrc * self, guint prop_id,
    const GValue * value)
{
  const gchar *text = g_value_get_string (value);
  gchar *texts[2], **own;
  gboolean changed, accepted = TRUE;
  GError *error = NULL;

  g_mutex_lock (&self->engine_lock);
  gst_dualparal_src_copy_prompts (self, &texts[0], &texts[1]);
  own = &texts[prop_id == GST_DUALPARAL_PROP_PROMPT ? 0 : 1];
  changed = g_strcmp0 (text, *own) != 0;
  g_free (*own);
  *own = g_strdup (text);

  if (changed && self->engine)
    accepted = gst_dualparal_settings_queue_prompt (self->base_settings.model,
        texts[0], texts[1], self->engine, &error);
  if (changed && accepted) {
    GST_OBJECT_LOCK (self);
    gst_dualparal_settings_set (&self->settings, prop_id, value);
    GST_OBJECT_UNLOCK (self);
    self->prompt_missed = self->engine == NULL;
  }
  g_mutex_unlock (&self->engine_lock);

  g_free (texts[0]);
  g_free (texts[1]);
  if (error) {
    GST_ELEMENT_WARNING (self, RESOURCE, SETTINGS, ("%s", error->message),
        ("the prompt stays as it was"));
    g_error_free (error);
  }
}

static void
gst_dualparal_src_set_property (GObject * object, guint prop_id,
    const GValue * value, GParamSpec * pspec)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (object);
  gboolean known;

  if (prop_id == GST_DUALPARAL_PROP_PROMPT
      || prop_id == GST_DUALPARAL_PROP_NEGATIVE_PROMPT) {
    gst_dualparal_src_set_prompt (self, prop_id, value);
    return;
  }
  GST_OBJECT_LOCK (self);
  known = gst_dualparal_settings_set (&self->settings, prop_id, value);
  GST_OBJECT_UNLOCK (self);
  if (!known)
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
}

static GstStructure *
gst_dualparal_src_get_stats (GstDualParalSrc * self)
{
  DpStats stats = { 0, };

  g_mutex_lock (&self->engine_lock);
  if (self->engine)
    dp_engine_get_stats (self->engine, &stats);
  g_mutex_unlock (&self->engine_lock);
  return gst_dualparal_stats_new (&stats);
}

static void
gst_dualparal_src_get_property (GObject * object, guint prop_id, GValue * value,
    GParamSpec * pspec)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (object);
  gboolean known;

  if (prop_id == GST_DUALPARAL_PROP_STATS) {
    g_value_take_boxed (value, gst_dualparal_src_get_stats (self));
    return;
  }
  GST_OBJECT_LOCK (self);
  known = gst_dualparal_settings_get (&self->settings, prop_id, value);
  GST_OBJECT_UNLOCK (self);
  if (!known)
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
}

/* -- the engine's life */

/* From the engine's threads, which hold no lock */
static void
gst_dualparal_src_progress (const char *code, const char *text, int percent,
    gpointer user_data)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (user_data);

  gst_dualparal_progress_report (&self->progress, GST_ELEMENT (self), code,
      text, percent, g_atomic_int_get (&self->closing));
}

static void
gst_dualparal_src_close (GstDualParalSrc * self)
{
  DpEngine *engine;

  if (self->has_frame)
    dp_engine_release_frame (self->engine, &self->frame);
  self->has_frame = FALSE;

  g_mutex_lock (&self->engine_lock);
  engine = g_steal_pointer (&self->engine);
  g_mutex_unlock (&self->engine_lock);

  g_atomic_int_set (&self->closing, TRUE);
  dp_engine_free (engine);
  g_atomic_int_set (&self->closing, FALSE);
  /* Whoever shows progress waits for its end */
  gst_dualparal_progress_reset (&self->progress, GST_ELEMENT (self),
      "load-model");
}

/* Opens an engine for what was negotiated. The weights load in the background;
 * what goes wrong there is told by the first pull. */
static gboolean
gst_dualparal_src_open (GstDualParalSrc * self, GError ** error)
{
  DpSettings settings = self->base_settings;
  DpEngine *engine = NULL;
  gchar *prompt, *negative_prompt;
  gboolean opened;

  g_mutex_lock (&self->engine_lock);
  gst_dualparal_src_copy_prompts (self, &prompt, &negative_prompt);
  self->prompt_missed = FALSE;
  g_mutex_unlock (&self->engine_lock);

  settings.prompt = prompt;
  settings.negative_prompt = negative_prompt;
  settings.width = GST_VIDEO_INFO_WIDTH (&self->info);
  settings.height = GST_VIDEO_INFO_HEIGHT (&self->info);
  gst_dualparal_frame_format (GST_VIDEO_INFO_FORMAT (&self->info),
      &settings.format);
  /* Frames that went out before a change of size count too */
  if (settings.num_frames > 0)
    settings.num_frames -= self->n_frames;

  g_string_chunk_clear (self->resolved_storage);
  self->resolved = settings;
  opened = dp_settings_resolve (&self->resolved, NULL, self->resolved_storage,
      error) && dp_engine_open (&engine, &settings, gst_dualparal_src_progress,
      self, error);
  g_free (prompt);
  g_free (negative_prompt);
  if (!opened)
    return FALSE;

  g_mutex_lock (&self->engine_lock);
  self->engine = engine;
  dp_engine_set_flushing (engine, self->flushing);
  if (self->prompt_missed) {
    gst_dualparal_src_copy_prompts (self, &prompt, &negative_prompt);
    opened = gst_dualparal_settings_queue_prompt (settings.model, prompt,
        negative_prompt, engine, error);
    g_free (prompt);
    g_free (negative_prompt);
  }
  g_mutex_unlock (&self->engine_lock);
  return opened;
}

static gboolean
gst_dualparal_src_start (GstBaseSrc * src)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  DpSettings resolved;
  GError *error = NULL;

  self->storage = g_string_chunk_new (1024);
  self->resolved_storage = g_string_chunk_new (1024);
  GST_OBJECT_LOCK (self);
  gst_dualparal_settings_for_engine (&self->settings, &self->base_settings,
      self->storage);
  gst_video_info_init (&self->info);
  self->base_frame = 0;
  self->base_time = 0;
  GST_OBJECT_UNLOCK (self);

  self->reopen = FALSE;
  self->n_frames = 0;
  self->prompt_id = 0;
  g_atomic_int_set (&self->resync, FALSE);
  gst_dualparal_buffering_reset (&self->buffering);

  /* What is wrong with model and settings is known now, before any weight is
   * read and whatever the size will be */
  resolved = self->base_settings;
  if (!dp_settings_resolve (&resolved, &self->model, self->storage, &error)) {
    gst_dualparal_post_error (GST_ELEMENT (self), error);
    g_error_free (error);
    g_clear_pointer (&self->storage, g_string_chunk_free);
    g_clear_pointer (&self->resolved_storage, g_string_chunk_free);
    return FALSE;
  }
  return TRUE;
}

static gboolean
gst_dualparal_src_stop (GstBaseSrc * src)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);

  gst_dualparal_src_close (self);
  gst_dualparal_buffering_reset (&self->buffering);
  g_clear_pointer (&self->announced, g_free);
  g_clear_pointer (&self->storage, g_string_chunk_free);
  g_clear_pointer (&self->resolved_storage, g_string_chunk_free);
  return TRUE;
}

static void
gst_dualparal_src_set_flushing (GstDualParalSrc * self, gboolean flushing)
{
  g_mutex_lock (&self->engine_lock);
  self->flushing = flushing;
  if (self->engine)
    dp_engine_set_flushing (self->engine, flushing);
  g_cond_broadcast (&self->engine_cond);
  g_mutex_unlock (&self->engine_lock);
}

static gboolean
gst_dualparal_src_unlock (GstBaseSrc * src)
{
  gst_dualparal_src_set_flushing (GST_DUALPARAL_SRC (src), TRUE);
  return TRUE;
}

static gboolean
gst_dualparal_src_unlock_stop (GstBaseSrc * src)
{
  gst_dualparal_src_set_flushing (GST_DUALPARAL_SRC (src), FALSE);
  return TRUE;
}

/* -- caps and memory */

static GstCaps *
gst_dualparal_src_fixate (GstBaseSrc * src, GstCaps * caps)
{
  GstCaps *current = gst_pad_get_current_caps (GST_BASE_SRC_PAD (src));

  caps = gst_dualparal_frame_prefer (caps, current,
      &GST_DUALPARAL_SRC (src)->model);
  gst_clear_caps (&current);
  return GST_BASE_SRC_CLASS (parent_class)->fixate (src, caps);
}

static gboolean
gst_dualparal_src_negotiate (GstBaseSrc * src)
{
  GstCaps *peer;

  if (GST_BASE_SRC_CLASS (parent_class)->negotiate (src))
    return TRUE;
  if (GST_PAD_IS_FLUSHING (GST_BASE_SRC_PAD (src)))
    return FALSE;

  peer = gst_pad_peer_query_caps (GST_BASE_SRC_PAD (src), NULL);
  GST_ELEMENT_ERROR (src, CORE, NEGOTIATION,
      ("No video is both wanted downstream and can be made: width and height "
          "are multiples of 16, pixels square, frames progressive."),
      ("downstream takes %" GST_PTR_FORMAT, peer));
  gst_clear_caps (&peer);
  return FALSE;
}

/* When frame n is shown, counted from where the framerate last changed so that
 * no rounding adds up */
static GstClockTime
gst_dualparal_src_time_of (GstDualParalSrc * self, guint64 n)
{
  return self->base_time + gst_util_uint64_scale (n - self->base_frame,
      GST_SECOND * GST_VIDEO_INFO_FPS_D (&self->info),
      GST_VIDEO_INFO_FPS_N (&self->info));
}

static gboolean
gst_dualparal_src_set_caps (GstBaseSrc * src, GstCaps * caps)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  GstClockTime now = 0;
  GstVideoInfo info;
  DpFormat format;

  if (!gst_video_info_from_caps (&info, caps)
      || !gst_dualparal_frame_format (GST_VIDEO_INFO_FORMAT (&info), &format)
      || GST_VIDEO_INFO_FPS_N (&info) <= 0)
    return FALSE;

  if (self->n_frames > 0)
    now = gst_dualparal_src_time_of (self, self->n_frames);
  if (self->engine && (info.width != self->info.width
          || info.height != self->info.height
          || GST_VIDEO_INFO_FORMAT (&info) !=
          GST_VIDEO_INFO_FORMAT (&self->info)))
    self->reopen = TRUE;

  GST_OBJECT_LOCK (self);
  self->info = info;
  self->base_time = now;
  self->base_frame = self->n_frames;
  GST_OBJECT_UNLOCK (self);
  return TRUE;
}

static gboolean
gst_dualparal_src_decide_allocation (GstBaseSrc * src, GstQuery * query)
{
  gst_dualparal_frame_offer_pool (query);
  /* Sets the pool up once more, and deals with one that refuses */
  return GST_BASE_SRC_CLASS (parent_class)->decide_allocation (src, query);
}

/* -- streaming */

/* How many frames are enough to play on: a block, because blocks are what the
 * generation makes. To start it takes but a few, so that the picture is there
 * soon and yet does not stop at the second frame; and so that who takes them
 * all at once is known for a recorder. */
static guint
gst_dualparal_src_frames_wanted (GstDualParalSrc * self)
{
  const gint scale = self->model.temporal_scale;
  gint64 frames = 1 + START_LATENTS * scale;

  if (self->n_frames > 0)
    frames = (gint64) self->resolved.block_latents * scale;
  frames = MIN (frames, self->resolved.max_queue_frames);
  if (self->base_settings.num_frames > 0)
    frames = MIN (frames, self->base_settings.num_frames -
        (gint64) self->n_frames);
  return MAX (frames, 1);
}

/* Holds the frame that is there back until enough others are */
static GstFlowReturn
gst_dualparal_src_refill (GstDualParalSrc * self)
{
  const guint want = gst_dualparal_src_frames_wanted (self);
  gboolean flushing = FALSE;
  DpStats stats;
  guint have;

  while (!flushing && (self->n_frames == 0
          || gst_dualparal_buffering_active (&self->buffering))) {
    dp_engine_get_stats (self->engine, &stats);
    have = stats.ended ? want : stats.queue_frames + 1;
    if (self->n_frames > 0)
      gst_dualparal_buffering_update (&self->buffering, GST_ELEMENT (self),
          have, want);
    if (have >= want)
      break;

    g_mutex_lock (&self->engine_lock);
    if (!self->flushing)
      g_cond_wait_until (&self->engine_cond, &self->engine_lock,
          g_get_monotonic_time () + REFILL_US);
    flushing = self->flushing;
    g_mutex_unlock (&self->engine_lock);
  }
  return flushing ? GST_FLOW_FLUSHING : GST_FLOW_OK;
}

static GstClockTimeDiff
gst_dualparal_src_slack (GstDualParalSrc * self)
{
  const GstClockTime pts = gst_dualparal_src_time_of (self, self->n_frames);

  /* Before the first frame the pipeline prerolls, which waits by itself */
  if (self->n_frames == 0)
    return G_MAXINT64;
  return gst_dualparal_buffering_slack (&self->buffering, GST_ELEMENT (self),
      gst_segment_to_running_time (&GST_BASE_SRC (self)->segment,
          GST_FORMAT_TIME, pts),
      gst_dualparal_src_time_of (self, self->n_frames + 1) - pts);
}

/* Waits until there is a frame to send. One that was taken stays, whatever
 * interrupts us, so that none is lost. */
static GstFlowReturn
gst_dualparal_src_wait_frame (GstDualParalSrc * self)
{
  GError *error = NULL;
  gboolean flushing;

  while (!self->has_frame) {
    const GstClockTimeDiff slack = gst_dualparal_src_slack (self);
    const gint got = dp_engine_pull (self->engine, &self->frame,
        CLAMP (slack / 1000, 0, WAIT_US), &error);

    if (got > 0) {
      self->has_frame = TRUE;
    } else if (got == 0) {
      gst_dualparal_buffering_finish (&self->buffering, GST_ELEMENT (self));
      return GST_FLOW_EOS;
    } else if (error) {
      flushing = g_error_matches (error, DP_ERROR, DP_ERROR_FLUSHING);
      if (!flushing)
        gst_dualparal_post_error (GST_ELEMENT (self), error);
      g_error_free (error);
      return flushing ? GST_FLOW_FLUSHING : GST_FLOW_ERROR;
    } else if (gst_dualparal_src_slack (self) <= 0) {
      gst_dualparal_buffering_begin (&self->buffering, GST_ELEMENT (self));
    }
  }
  return gst_dualparal_src_refill (self);
}

/* Serialized events given to the base class go out right before the buffer */
static void
gst_dualparal_src_announce_prompt (GstDualParalSrc * self, GstClockTime pts)
{
  GstElement *element = GST_ELEMENT (self);
  const GstSegment *segment = &GST_BASE_SRC (self)->segment;
  const gchar *prompt = self->frame.prompt ? self->frame.prompt : "";
  GstStructure *s;

  if (self->announced)
    self->prompt_id++;
  g_free (self->announced);
  self->announced = g_strdup (prompt);

  s = gst_dualparal_prompt_new ("dualparal/prompt", prompt, self->prompt_id,
      self->frame.block, self->n_frames);
  GST_ELEMENT_CLASS (parent_class)->send_event (element,
      gst_event_new_custom (GST_EVENT_CUSTOM_DOWNSTREAM, s));
  GST_ELEMENT_CLASS (parent_class)->send_event (element,
      gst_event_new_tag (gst_dualparal_prompt_tags (prompt, &self->resolved,
              &self->model)));

  s = gst_dualparal_prompt_new ("dualparal-prompt-applied", prompt,
      self->prompt_id, self->frame.block, self->n_frames);
  gst_structure_set (s, "timestamp", GST_TYPE_CLOCK_TIME, pts,
      "stream-time", GST_TYPE_CLOCK_TIME,
      gst_segment_to_stream_time (segment, GST_FORMAT_TIME, pts),
      "running-time", GST_TYPE_CLOCK_TIME,
      gst_segment_to_running_time (segment, GST_FORMAT_TIME, pts), NULL);
  gst_element_post_message (element, gst_message_new_element (GST_OBJECT (self),
          s));
}

static GstFlowReturn
gst_dualparal_src_create (GstPushSrc * src, GstBuffer ** buffer)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  GError *error = NULL;
  GstBuffer *out = NULL;
  GstFlowReturn flow;

  if (self->base_settings.num_frames > 0
      && self->n_frames >= (guint64) self->base_settings.num_frames)
    return GST_FLOW_EOS;

  if (self->reopen)
    gst_dualparal_src_close (self);
  self->reopen = FALSE;
  if (!self->engine && !gst_dualparal_src_open (self, &error)) {
    gst_dualparal_post_error (GST_ELEMENT (self), error);
    g_error_free (error);
    return GST_FLOW_ERROR;
  }

  flow = gst_dualparal_src_wait_frame (self);
  if (flow != GST_FLOW_OK)
    return flow;
  flow = GST_BASE_SRC_CLASS (parent_class)->alloc (GST_BASE_SRC (src), 0,
      GST_VIDEO_INFO_SIZE (&self->info), &out);
  if (flow != GST_FLOW_OK)
    return flow;
  if (!gst_dualparal_frame_copy (&self->frame, &self->info, out)) {
    GST_ELEMENT_ERROR (self, RESOURCE, WRITE,
        ("The memory that downstream offers cannot be written to."),
        ("%" GST_PTR_FORMAT, out));
    gst_buffer_unref (out);
    return GST_FLOW_ERROR;
  }

  GST_BUFFER_PTS (out) = gst_dualparal_src_time_of (self, self->n_frames);
  GST_BUFFER_DTS (out) = GST_CLOCK_TIME_NONE;
  GST_BUFFER_DURATION (out) = gst_dualparal_src_time_of (self,
      self->n_frames + 1) - GST_BUFFER_PTS (out);
  GST_BUFFER_OFFSET (out) = self->n_frames;
  GST_BUFFER_OFFSET_END (out) = self->n_frames + 1;

  if (g_atomic_int_compare_and_exchange (&self->resync, TRUE, FALSE)) {
    GstSegment segment = GST_BASE_SRC (src)->segment;

    segment.start = segment.time = segment.position = GST_BUFFER_PTS (out);
    gst_base_src_new_segment (GST_BASE_SRC (src), &segment);
    GST_BUFFER_FLAG_SET (out, GST_BUFFER_FLAG_DISCONT);
  }
  if (self->frame.prompt_changed || (self->frame.index == 0
          && g_strcmp0 (self->announced, self->frame.prompt) != 0))
    gst_dualparal_src_announce_prompt (self, GST_BUFFER_PTS (out));

  dp_engine_release_frame (self->engine, &self->frame);
  self->has_frame = FALSE;
  self->n_frames++;
  *buffer = out;
  return GST_FLOW_OK;
}

/* -- events and queries */

static gboolean
gst_dualparal_src_event (GstBaseSrc * src, GstEvent * event)
{
  if (GST_EVENT_TYPE (event) == GST_EVENT_QOS)
    gst_dualparal_buffering_saw_qos (&GST_DUALPARAL_SRC (src)->buffering);
  return GST_BASE_SRC_CLASS (parent_class)->event (src, event);
}

static gboolean
gst_dualparal_src_send_event (GstElement * element, GstEvent * event)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (element);
  const GstEventType type = GST_EVENT_TYPE (event);
  gboolean reset_time = FALSE, sent;

  switch (type) {
    case GST_EVENT_SEEK:
      /* Those from downstream the base class refuses by itself */
      gst_event_unref (event);
      return FALSE;
    case GST_EVENT_FLUSH_STOP:
      /* Running time begins anew and our frames do not, so a new segment has to
       * say so; else the next frame would be waited for as long as we ran */
      gst_event_parse_flush_stop (event, &reset_time);
      if (reset_time)
        g_atomic_int_set (&self->resync, TRUE);
      break;
    default:
      break;
  }
  sent = GST_ELEMENT_CLASS (parent_class)->send_event (element, event);
  /* Nothing comes after it that could end the buffering */
  if (type == GST_EVENT_EOS && sent)
    gst_dualparal_buffering_finish (&self->buffering, element);
  return sent;
}

static gboolean
gst_dualparal_src_query_duration (GstDualParalSrc * self, GstQuery * query)
{
  gint64 frames, duration = -1;
  GstFormat format;

  gst_query_parse_duration (query, &format, NULL);
  GST_OBJECT_LOCK (self);
  frames = self->settings.num_frames;
  if (frames > 0 && format == GST_FORMAT_DEFAULT)
    duration = frames;
  else if (frames > 0 && format == GST_FORMAT_TIME
      && GST_VIDEO_INFO_FPS_N (&self->info) > 0)
    duration = gst_dualparal_src_time_of (self, frames);
  GST_OBJECT_UNLOCK (self);

  if (duration >= 0)
    gst_query_set_duration (query, format, duration);
  return duration >= 0;
}

static gboolean
gst_dualparal_src_query (GstBaseSrc * src, GstQuery * query)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  GstFormat from, to;
  gint64 in, out;
  gboolean known;

  switch (GST_QUERY_TYPE (query)) {
    case GST_QUERY_DURATION:
      if (gst_dualparal_src_query_duration (self, query))
        return TRUE;
      break;
    case GST_QUERY_CONVERT:
      gst_query_parse_convert (query, &from, &in, &to, &out);
      GST_OBJECT_LOCK (self);
      known = GST_VIDEO_INFO_FPS_N (&self->info) > 0
          && gst_video_info_convert (&self->info, from, in, to, &out);
      GST_OBJECT_UNLOCK (self);
      if (known) {
        gst_query_set_convert (query, from, in, to, out);
        return TRUE;
      }
      break;
    default:
      break;
  }
  return GST_BASE_SRC_CLASS (parent_class)->query (src, query);
}

/* -- class */

static void
gst_dualparal_src_finalize (GObject * object)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (object);

  gst_dualparal_settings_clear (&self->settings);
  g_mutex_clear (&self->engine_lock);
  g_cond_clear (&self->engine_cond);
  gst_dualparal_progress_clear (&self->progress);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_dualparal_src_init (GstDualParalSrc * self)
{
  g_mutex_init (&self->engine_lock);
  g_cond_init (&self->engine_cond);
  gst_dualparal_progress_init (&self->progress);
  gst_dualparal_settings_init (&self->settings);
  gst_video_info_init (&self->info);
  gst_base_src_set_format (GST_BASE_SRC (self), GST_FORMAT_TIME);
}

static void
gst_dualparal_src_class_init (GstDualParalSrcClass * klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseSrcClass *base_class = GST_BASE_SRC_CLASS (klass);
  GstPushSrcClass *push_class = GST_PUSH_SRC_CLASS (klass);

  GST_DEBUG_CATEGORY_INIT (gst_dualparal_src_debug, "dualparalsrc", 0,
      "Wan2.1 video diffusion source");

  object_class->set_property = gst_dualparal_src_set_property;
  object_class->get_property = gst_dualparal_src_get_property;
  object_class->finalize = gst_dualparal_src_finalize;
  gst_dualparal_settings_install_properties (object_class);

  gst_element_class_add_static_pad_template (element_class, &src_template);
  gst_element_class_set_static_metadata (element_class,
      "DualParal video source", "Source/Video",
      "Makes endless video from a prompt by Wan2.1 video diffusion",
      "The gst-dualparal authors");
  element_class->send_event = gst_dualparal_src_send_event;

  base_class->start = gst_dualparal_src_start;
  base_class->stop = gst_dualparal_src_stop;
  base_class->unlock = gst_dualparal_src_unlock;
  base_class->unlock_stop = gst_dualparal_src_unlock_stop;
  base_class->fixate = gst_dualparal_src_fixate;
  base_class->negotiate = gst_dualparal_src_negotiate;
  base_class->set_caps = gst_dualparal_src_set_caps;
  base_class->decide_allocation = gst_dualparal_src_decide_allocation;
  base_class->event = gst_dualparal_src_event;
  base_class->query = gst_dualparal_src_query;
  push_class->create = gst_dualparal_src_create;

  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_SAMPLER, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_PRECISION, 0);
}
