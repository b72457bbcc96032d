/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalsrc.c: the element. The engine's threads make frames into a
 * bounded queue; the streaming thread takes one a buffer. Nothing here blocks
 * but the waits for that frame and, of a live video, for its time; unlock() ends
 * them without touching what is being made.
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
 * gst-launch-1.0 dualparalsrc num-frames=160 seed=7 devices=cpu,cpu ! videoconvert ! x264enc ! dualparalsei ! mp4mux ! filesink location=ball.mp4
 * ]| Ten seconds in a file, made by two stages.
 * |[
 * gst-launch-1.0 dualparalsrc steps=20 ! video/x-raw,width=320,height=192 ! videoconvert ! autovideosink
 * ]| Larger and with more steps. Where that is slower than it plays, the
 * pipeline pauses for a block at a time.
 * |[
 * gst-launch-1.0 dualparalsrc is-live=true startup-policy=placeholder ! queue ! x264enc tune=zerolatency ! flvmux streamable=true ! rtmp2sink location=rtmp://localhost/live/ball
 * ]| A live stream: an even framerate from the start, whatever the machine does.
 *
 * |[
 * gst-launch-1.0 dualparalsrc storyboard=story.srt ! videoconvert ! autovideosink
 * ]| One prompt after the other, at the times of the cues.
 *
 * ## Messages
 * * `PROGRESS`, code `load-model`: the weights are read in the background while
 *   the pipeline prerolls.
 * * `BUFFERING`: a frame was not made in time for a sink that keeps time. As with
 *   any buffering element, the application goes to PAUSED below 100 and back to
 *   PLAYING at 100; no frame is dropped. It is not posted before the first frame,
 *   nor to a recording, which may be as slow as it likes, nor when live.
 * * `QOS`: a picture of a live video was due and not there; see
 *   #GstDualParalSrc:underrun-policy.
 * * `ELEMENT`, structure `application/x-dualparal-stats`: what the property
 *   #GstDualParalSrc:stats is, every #GstDualParalSrc:stats-interval.
 * * `ELEMENT`, structure `dualparal-prompt-applied`: the first frame of a prompt
 *   leaves the element. Fields: `prompt` (string), `prompt-id` (#guint, 0 for the
 *   first), `block` (#gint64), `frame` (#guint64), `timestamp`, `stream-time`,
 *   `running-time` (#GstClockTime).
 *
 * ## Metas
 * As #GstDualParalSrc:marking says, each frame that is no placeholder has
 * * a #GstCustomMeta `GstDualParalMeta`: `block` (#gint64), `frame`, `seed`
 *   (#guint64), `prompt-id` (#guint), `digital-source-type` (string);
 * * a #GstVideoSEIUserDataUnregisteredMeta with the UUID
 *   `f73c05d5-7096-42dd-be2d-9eb4ecd8bab8` and the same and more as JSON, which
 *   #dualparalsei writes behind an encoder.
 *
 * ## Events
 * Right before the first buffer of a prompt, in this order:
 * * a serialized custom downstream event with a structure `dualparal/prompt`:
 *   `prompt`, `prompt-id`, `block` and `frame` as above;
 * * with #GstDualParalSrc:marking a tag event: `title` is the prompt, `comment`
 *   says that a model made this and its seed, steps, guidance and name; `artist`,
 *   `keywords` and `application-name` go with it;
 * * but for the first one, a force-key-unit event, so that encoders begin anew
 *   there.
 *
 * A custom upstream event with a structure `dualparal/set-prompt`, from downstream
 * or sent to the element, queues a prompt as #GstDualParalSrc::queue-prompt does.
 * Fields: `prompt` (string), and where wanted `negative-prompt` (string),
 * `at-frame` and `transition-blocks` (whole numbers).
 *
 * Since: 0.1
 */
#include "gstdualparalsrc.h"

#include "gstdualparalcaps.h"
#include "gstdualparalframe.h"
#include "gstdualparalmessages.h"
#include "gstdualparalplaceholder.h"

GST_DEBUG_CATEGORY_STATIC (gst_dualparal_src_debug);
#define GST_CAT_DEFAULT gst_dualparal_src_debug

/* How often the wait for a frame looks at the clock, and the wait for a full
 * queue at the queue */
#define WAIT_US (100 * G_TIME_SPAN_MILLISECOND)
#define REFILL_US (20 * G_TIME_SPAN_MILLISECOND)
/* Latent frames after the first that are decoded before the first is shown */
#define START_LATENTS 2

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE ("src",
    GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_DUALPARAL_FRAME_CAPS
        GST_DUALPARAL_CUDA_CAPS));

#define gst_dualparal_src_parent_class parent_class
G_DEFINE_TYPE (GstDualParalSrc, gst_dualparal_src, GST_TYPE_PUSH_SRC);
GST_ELEMENT_REGISTER_DEFINE (dualparalsrc, "dualparalsrc", GST_RANK_NONE,
    GST_TYPE_DUALPARAL_SRC);

/* -- properties */

static void
gst_dualparal_src_set_property (GObject * object, guint prop_id,
    const GValue * value, GParamSpec * pspec)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (object);
  gboolean known, refused;

  if (prop_id == GST_DUALPARAL_PROP_PROMPT
      || prop_id == GST_DUALPARAL_PROP_NEGATIVE_PROMPT) {
    gst_dualparal_generator_set_prompt (&self->gen, prop_id, value);
    return;
  }
  GST_OBJECT_LOCK (self);
  /* The base class would act at once */
  refused = prop_id == GST_DUALPARAL_PROP_IS_LIVE
      && MAX (GST_STATE (self), GST_STATE_NEXT (self)) > GST_STATE_READY;
  known = refused
      || gst_dualparal_settings_set (&self->settings, prop_id, value);
  GST_OBJECT_UNLOCK (self);
  if (refused)
    GST_ELEMENT_WARNING (self, RESOURCE, SETTINGS,
        ("is-live can only be changed in NULL and READY."),
        ("it stays as it was"));
  else if (prop_id == GST_DUALPARAL_PROP_IS_LIVE)
    gst_base_src_set_live (GST_BASE_SRC (self), g_value_get_boolean (value));
  if (!known)
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
}

static GstStructure *
gst_dualparal_src_get_stats (GstDualParalSrc * self)
{
  GstStructure *s;
  DpStats stats;

  gst_dualparal_generator_get_stats (&self->gen, &stats);
  s = gst_dualparal_stats_new (&self->stats, &stats);
  gst_dualparal_live_add_stats (&self->live, s);
  gst_dualparal_buffering_add_stats (&self->buffering, s);
  return s;
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

/* -- start and stop */

static gboolean
gst_dualparal_src_start (GstBaseSrc * src)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  gchar *picture = NULL;
  gboolean found;
  guint interval;

  GST_OBJECT_LOCK (self);
  interval = self->settings.stats_interval;
  gst_video_info_init (&self->info);
  self->base_frame = 0;
  self->base_time = 0;
  self->marking = self->settings.marking;
  if (self->settings.is_live
      && self->settings.startup_policy == GST_DUALPARAL_STARTUP_PLACEHOLDER)
    picture = g_strdup (self->settings.placeholder);
  GST_OBJECT_UNLOCK (self);

  self->n_frames = 0;
  self->prompt_id = 0;
  g_atomic_int_set (&self->resync, FALSE);
  gst_dualparal_buffering_start (&self->buffering);

  found = gst_dualparal_placeholder_check (GST_ELEMENT (self), picture);
  g_free (picture);
  if (!found || !gst_dualparal_generator_start (&self->gen))
    return FALSE;
  if (!gst_dualparal_live_start (&self->live)) {
    gst_dualparal_generator_stop (&self->gen);
    return FALSE;
  }
  gst_dualparal_stats_start (&self->stats, interval, &self->gen.model);
  return TRUE;
}

static gboolean
gst_dualparal_src_stop (GstBaseSrc * src)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  GstCudaContext *cuda;

  gst_dualparal_stats_stop (&self->stats);
  gst_dualparal_generator_stop (&self->gen);
  gst_dualparal_buffering_reset (&self->buffering);
  gst_clear_buffer (&self->placeholder);
  /* Somebody may ask for it just now */
  GST_OBJECT_LOCK (self);
  cuda = g_steal_pointer (&self->cuda);
  GST_OBJECT_UNLOCK (self);
  gst_clear_object (&cuda);
  g_clear_pointer (&self->announced, g_free);
  return TRUE;
}

static GstStateChangeReturn
gst_dualparal_src_change_state (GstElement * element, GstStateChange transition)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (element);
  GstStateChangeReturn result;

  if (transition == GST_STATE_CHANGE_PLAYING_TO_PAUSED)
    gst_dualparal_live_pause (&self->live);
  result = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (transition == GST_STATE_CHANGE_PLAYING_TO_PAUSED)
    gst_dualparal_live_paused (&self->live);
  else if (transition == GST_STATE_CHANGE_PAUSED_TO_PLAYING)
    gst_dualparal_live_play (&self->live);
  return result;
}

static gboolean
gst_dualparal_src_unlock (GstBaseSrc * src)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);

  if (!gst_dualparal_live_is_pausing (&self->live)) {
    gst_dualparal_generator_set_flushing (&self->gen, TRUE);
    gst_dualparal_live_unschedule (&self->live);
  }
  return TRUE;
}

static gboolean
gst_dualparal_src_unlock_stop (GstBaseSrc * src)
{
  gst_dualparal_generator_set_flushing (&GST_DUALPARAL_SRC (src)->gen,
      FALSE);
  return TRUE;
}

/* -- streaming */

/* Counted from where the framerate last changed, so that no rounding adds up */
GstClockTime
gst_dualparal_src_time_of (GstDualParalSrc * self, guint64 n)
{
  return self->base_time + gst_util_uint64_scale (n - self->base_frame,
      GST_SECOND * GST_VIDEO_INFO_FPS_D (&self->info),
      GST_VIDEO_INFO_FPS_N (&self->info));
}

/* How many frames are enough to play on: a block, because blocks are what the
 * generation makes. To start it takes but a few, so that the picture is there
 * soon and yet does not stop at the second frame; and so that who takes them
 * all at once is known for a recorder. */
static guint
gst_dualparal_src_frames_wanted (GstDualParalSrc * self)
{
  gint64 frames = self->live.prebuffer;

  if (self->n_frames == 0)
    frames = MIN (1 + START_LATENTS * self->gen.model.temporal_scale,
        self->gen.resolved.max_queue_frames);
  if (self->gen.base_settings.num_frames > 0)
    frames = MIN (frames, self->gen.base_settings.num_frames -
        (gint64) self->n_frames);
  return MAX (frames, 1);
}

/* Holds the frame that is there back until enough others are */
static GstFlowReturn
gst_dualparal_src_refill (GstDualParalSrc * self)
{
  const guint want = gst_dualparal_src_frames_wanted (self);
  gboolean ended;
  guint have;

  while (self->n_frames == 0
      || gst_dualparal_buffering_active (&self->buffering)) {
    have = 1 + gst_dualparal_generator_level (&self->gen, &ended);
    if (ended)
      have = want;
    if (self->n_frames > 0)
      gst_dualparal_buffering_update (&self->buffering, GST_ELEMENT (self),
          have, want);
    if (have >= want)
      break;
    if (!gst_dualparal_generator_wait (&self->gen, REFILL_US))
      return GST_FLOW_FLUSHING;
  }
  return GST_FLOW_OK;
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
  while (!self->gen.has_frame) {
    const GstClockTimeDiff slack = gst_dualparal_src_slack (self);

    switch (gst_dualparal_generator_pull (&self->gen,
            CLAMP (slack / 1000, 0, WAIT_US))) {
      case GST_DUALPARAL_FRAME:
        break;
      case GST_DUALPARAL_NO_FRAME:
        if (gst_dualparal_src_slack (self) <= 0) {
          dp_engine_mark (self->gen.engine, "buffering");
          gst_dualparal_buffering_begin (&self->buffering, GST_ELEMENT (self));
        }
        break;
      case GST_DUALPARAL_END:
        gst_dualparal_buffering_finish (&self->buffering, GST_ELEMENT (self));
        return GST_FLOW_EOS;
      case GST_DUALPARAL_FLUSHING:
        return GST_FLOW_FLUSHING;
      case GST_DUALPARAL_ERROR:
        return GST_FLOW_ERROR;
    }
  }
  return gst_dualparal_src_refill (self);
}

/* When a prompt begins. Serialized events given to the base class go out right
 * before the buffer. */
static void
gst_dualparal_src_announce_prompt (GstDualParalSrc * self, GstClockTime pts)
{
  GstElement *element = GST_ELEMENT (self);
  const GstSegment *segment = &GST_BASE_SRC (self)->segment;
  const gchar *prompt = self->gen.frame.prompt ? self->gen.frame.prompt : "";
  GstStructure *s;

  if (!self->gen.frame.prompt_changed
      && g_strcmp0 (self->announced, prompt) == 0)
    return;
  /* The frame may come by again */
  self->gen.frame.prompt_changed = FALSE;
  if (self->announced)
    self->prompt_id++;
  g_free (self->announced);
  self->announced = g_strdup (prompt);

  s = gst_dualparal_prompt_new ("dualparal/prompt", prompt, self->prompt_id,
      self->gen.frame.block, self->n_frames);
  GST_ELEMENT_CLASS (parent_class)->send_event (element,
      gst_event_new_custom (GST_EVENT_CUSTOM_DOWNSTREAM, s));
  if (self->marking & GST_DUALPARAL_MARKING_TAGS)
    GST_ELEMENT_CLASS (parent_class)->send_event (element,
        gst_event_new_tag (gst_dualparal_marking_tags (prompt,
                &self->gen.resolved, &self->gen.model)));

  if (self->prompt_id > 0)
    GST_ELEMENT_CLASS (parent_class)->send_event (element,
        gst_video_event_new_downstream_force_key_unit (pts,
            gst_segment_to_stream_time (segment, GST_FORMAT_TIME, pts),
            gst_segment_to_running_time (segment, GST_FORMAT_TIME, pts), TRUE,
            self->prompt_id));

  s = gst_dualparal_prompt_new ("dualparal-prompt-applied", prompt,
      self->prompt_id, self->gen.frame.block, self->n_frames);
  gst_structure_set (s, "timestamp", GST_TYPE_CLOCK_TIME, pts,
      "stream-time", GST_TYPE_CLOCK_TIME,
      gst_segment_to_stream_time (segment, GST_FORMAT_TIME, pts),
      "running-time", GST_TYPE_CLOCK_TIME,
      gst_segment_to_running_time (segment, GST_FORMAT_TIME, pts), NULL);
  gst_element_post_message (element, gst_message_new_element (GST_OBJECT (self),
          s));
  gst_dualparal_generator_prompt_begins (&self->gen, self->n_frames);
}

/* What comes next, and when */
static GstFlowReturn
gst_dualparal_src_wait_next (GstDualParalSrc * self, GstDualParalRelease * next)
{
  GstFlowReturn flow;

  if (gst_base_src_is_live (GST_BASE_SRC (self)))
    return gst_dualparal_live_next (&self->live, next);

  flow = gst_dualparal_src_wait_frame (self);
  next->picture = GST_DUALPARAL_FRESH;
  next->pts = gst_dualparal_src_time_of (self, self->n_frames);
  next->duration = gst_dualparal_src_time_of (self, self->n_frames + 1) -
      next->pts;
  next->discont = FALSE;
  return flow;
}

/* A buffer of downstream's with the picture in it */
static GstFlowReturn
gst_dualparal_src_fill (GstDualParalSrc * self, GstDualParalPicture picture,
    GstBuffer ** buffer)
{
  GstFlowReturn flow = GST_FLOW_OK;
  GstBuffer *out = NULL;
  gchar *location;
  gboolean filled;

  if (picture == GST_DUALPARAL_PLACEHOLDER && !self->placeholder) {
    GST_OBJECT_LOCK (self);
    location = g_strdup (self->settings.placeholder);
    GST_OBJECT_UNLOCK (self);
    flow = gst_dualparal_placeholder_new (&self->gen, location, &self->info,
        &self->placeholder);
    g_free (location);
  }
  if (flow == GST_FLOW_OK)
    flow = GST_BASE_SRC_CLASS (parent_class)->alloc (GST_BASE_SRC (self), 0,
        GST_VIDEO_INFO_SIZE (&self->info), &out);
  if (flow != GST_FLOW_OK)
    return flow;

  if (picture == GST_DUALPARAL_PLACEHOLDER)
    filled = gst_dualparal_placeholder_copy (self->placeholder, &self->info,
        out);
  else
    filled = gst_dualparal_frame_copy (&self->gen.frame, &self->info, out);
  if (!filled) {
    GST_ELEMENT_ERROR (self, RESOURCE, WRITE,
        ("The memory that downstream offers cannot be written to."),
        ("%" GST_PTR_FORMAT, out));
    gst_buffer_unref (out);
    return GST_FLOW_ERROR;
  }
  *buffer = out;
  return GST_FLOW_OK;
}

/* Offsets count the frames of the video: a repeated one says which it is */
static void
gst_dualparal_src_stamp (GstDualParalSrc * self,
    const GstDualParalRelease * next, GstBuffer * buffer)
{
  GST_BUFFER_PTS (buffer) = next->pts;
  GST_BUFFER_DTS (buffer) = GST_CLOCK_TIME_NONE;
  GST_BUFFER_DURATION (buffer) = next->duration;
  if (next->picture != GST_DUALPARAL_PLACEHOLDER) {
    GST_BUFFER_OFFSET (buffer) = self->n_frames -
        (next->picture == GST_DUALPARAL_REPEATED);
    GST_BUFFER_OFFSET_END (buffer) = GST_BUFFER_OFFSET (buffer) + 1;
  }
  if (next->picture != GST_DUALPARAL_FRESH)
    GST_BUFFER_FLAG_SET (buffer, GST_BUFFER_FLAG_GAP);
  if (next->discont)
    GST_BUFFER_FLAG_SET (buffer, GST_BUFFER_FLAG_DISCONT);
}

static GstFlowReturn
gst_dualparal_src_create (GstPushSrc * src, GstBuffer ** buffer)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  const gboolean live = gst_base_src_is_live (GST_BASE_SRC (src));
  GstDualParalRelease next;
  GstBuffer *out = NULL;
  GstFlowReturn flow;

  if (live && gst_dualparal_live_take_back (&self->live))
    self->n_frames--;
  if (self->gen.base_settings.num_frames > 0
      && self->n_frames >= (guint64) self->gen.base_settings.num_frames)
    return GST_FLOW_EOS;

  if (self->gen.reopen)
    gst_dualparal_live_restart (&self->live);
  if (!gst_dualparal_generator_open (&self->gen, &self->info, self->n_frames))
    return GST_FLOW_ERROR;
  if (live && g_atomic_int_compare_and_exchange (&self->resync, TRUE, FALSE))
    gst_dualparal_live_reset_time (&self->live);

  flow = gst_dualparal_src_wait_next (self, &next);
  if (flow != GST_FLOW_OK)
    return flow;
  flow = gst_dualparal_src_fill (self, next.picture, &out);
  if (flow != GST_FLOW_OK) {
    gst_dualparal_live_take_back (&self->live);
    return flow;
  }
  gst_dualparal_src_stamp (self, &next, out);

  if (g_atomic_int_compare_and_exchange (&self->resync, TRUE, FALSE)) {
    GstSegment segment = GST_BASE_SRC (src)->segment;

    segment.start = segment.time = segment.position = GST_BUFFER_PTS (out);
    gst_base_src_new_segment (GST_BASE_SRC (src), &segment);
    GST_BUFFER_FLAG_SET (out, GST_BUFFER_FLAG_DISCONT);
  }
  if (next.picture == GST_DUALPARAL_FRESH) {
    gst_dualparal_src_announce_prompt (self, next.pts);
    gst_dualparal_stats_frame_leaves (&self->stats);
    self->n_frames++;
  }
  if (next.picture != GST_DUALPARAL_PLACEHOLDER)
    gst_dualparal_marking_mark (self->marking, out, &self->gen.resolved,
        &self->gen.model, self->gen.frame.block, GST_BUFFER_OFFSET (out),
        self->prompt_id);
  /* A live one may have to be shown again */
  if (!live)
    gst_dualparal_generator_release (&self->gen);
  *buffer = out;
  return GST_FLOW_OK;
}

/* -- events and queries */

static gboolean
gst_dualparal_src_event (GstBaseSrc * src, GstEvent * event)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  GstClockTime latency;
  gboolean queued;

  if (gst_dualparal_generator_take_event (&self->gen, event, &queued))
    return queued;
  if (GST_EVENT_TYPE (event) == GST_EVENT_QOS) {
    gst_dualparal_buffering_saw_qos (&self->buffering);
  } else if (GST_EVENT_TYPE (event) == GST_EVENT_LATENCY) {
    gst_event_parse_latency (event, &latency);
    gst_dualparal_live_set_latency (&self->live, latency);
  }
  return GST_BASE_SRC_CLASS (parent_class)->event (src, event);
}

static gboolean
gst_dualparal_src_send_event (GstElement * element, GstEvent * event)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (element);
  const GstEventType type = GST_EVENT_TYPE (event);
  gboolean reset_time = FALSE, sent;

  if (gst_dualparal_generator_take_event (&self->gen, event, &sent)) {
    gst_event_unref (event);
    return sent;
  }
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

static void
gst_dualparal_src_set_context (GstElement * element, GstContext * context)
{
  gst_dualparal_cuda_set_context (element, context,
      &GST_DUALPARAL_SRC (element)->cuda);
  GST_ELEMENT_CLASS (parent_class)->set_context (element, context);
}

static gboolean
gst_dualparal_src_query (GstBaseSrc * src, GstQuery * query)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  GstFormat from, to;
  GstClockTime min, max;
  GstCudaContext *cuda;
  gint64 in, out;
  gboolean known;

  switch (GST_QUERY_TYPE (query)) {
    case GST_QUERY_DURATION:
      if (gst_dualparal_src_query_duration (self, query))
        return TRUE;
      break;
    case GST_QUERY_LATENCY:
      if (!gst_base_src_is_live (src))
        break;
      if (!gst_dualparal_live_get_latency (&self->live, &min, &max))
        return FALSE;
      gst_query_set_latency (query, TRUE, min, max);
      return TRUE;
    case GST_QUERY_CONTEXT:
      GST_OBJECT_LOCK (self);
      cuda = self->cuda ? gst_object_ref (self->cuda) : NULL;
      GST_OBJECT_UNLOCK (self);
      known = gst_dualparal_cuda_query (GST_ELEMENT (self), query, cuda);
      gst_clear_object (&cuda);
      if (known)
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

static gboolean
gst_dualparal_src_queue_prompt (GstDualParalSrc * self, const gchar * prompt,
    gint64 at_frame, gint transition_blocks)
{
  return gst_dualparal_generator_queue_prompt (&self->gen,
      &(GstDualParalPrompt) {
        prompt, NULL, at_frame, transition_blocks});
}

static void
gst_dualparal_src_finalize (GObject * object)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (object);

  gst_dualparal_settings_clear (&self->settings);
  gst_dualparal_generator_clear (&self->gen);
  gst_dualparal_stats_clear (&self->stats);
  gst_clear_object (&self->cuda);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_dualparal_src_init (GstDualParalSrc * self)
{
  gst_dualparal_settings_init (&self->settings);
  gst_dualparal_stats_init (&self->stats, GST_ELEMENT (self));
  gst_dualparal_generator_init (&self->gen, GST_ELEMENT (self),
      &self->settings);
  gst_dualparal_live_init (&self->live, GST_BASE_SRC (self), &self->gen);
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
  gst_dualparal_marking_register ();

  /**
   * GstDualParalSrc::queue-prompt:
   * @src: the source
   * @prompt: what the video shows
   * @at_frame: the frame of the video from which on it does, or -1 for as soon as
   *   can be, which sets #GstDualParalSrc:prompt too. It takes effect with the
   *   first block that begins there or behind
   * @transition_blocks: over how many blocks it blends in; 0 is at once
   *
   * Queues a prompt, in any state. Those with a frame are forgotten when the
   * element goes to READY.
   *
   * Returns: whether it was queued; if not, a warning message says why, and which
   * frame is not too late
   *
   * Since: 0.1
   */
  g_signal_new_class_handler ("queue-prompt", G_TYPE_FROM_CLASS (klass),
      G_SIGNAL_RUN_LAST | G_SIGNAL_ACTION,
      G_CALLBACK (gst_dualparal_src_queue_prompt), NULL, NULL, NULL,
      G_TYPE_BOOLEAN, 3, G_TYPE_STRING, G_TYPE_INT64, G_TYPE_INT);

  gst_element_class_add_static_pad_template (element_class, &src_template);
  gst_element_class_set_static_metadata (element_class,
      "DualParal video source", "Source/Video",
      "Makes endless video from a prompt by Wan2.1 video diffusion",
      "The gst-dualparal authors");
  element_class->send_event = gst_dualparal_src_send_event;
  element_class->change_state = gst_dualparal_src_change_state;
  element_class->set_context = gst_dualparal_src_set_context;

  base_class->start = gst_dualparal_src_start;
  base_class->stop = gst_dualparal_src_stop;
  base_class->unlock = gst_dualparal_src_unlock;
  base_class->unlock_stop = gst_dualparal_src_unlock_stop;
  gst_dualparal_caps_class_init (base_class);
  base_class->event = gst_dualparal_src_event;
  base_class->query = gst_dualparal_src_query;
  push_class->create = gst_dualparal_src_create;

  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_SAMPLER, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_PRECISION, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_PROMPT_LATENCY, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_TEXT_ENCODER, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_UNDERRUN_POLICY, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_STARTUP_POLICY, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_MARKING, 0);
}
