/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalsrc.c: the element: its class, caps, events and queries. The engine's threads put
 * frames into a bounded queue; the streaming thread takes one for each buffer. It blocks only to
 * wait for a frame or, when live, for its time. unlock() ends these waits and leaves the generation
 * alone. Long, because all of it overrides one class and nobody else needs to see its instance; what
 * has a state of its own is in the other files here.
 */

/**
 * SECTION:element-dualparalsrc
 * @title: dualparalsrc
 *
 * Turns a prompt into endless raw video: a Wan2.1 video diffusion model, run block by block with the
 * DualParal scheme on any number of devices. The default model is a tiny one that comes with the
 * plugin and plays in real time on a CPU.
 *
 * Any even size can be negotiated, and any framerate. By default both are the model's. Frames are
 * made ahead of time, into a queue of #GstDualParalSrc:max-queue-frames. Only this queue holds the
 * generation back.
 *
 * ## Example launch lines
 * |[
 * gst-launch-1.0 dualparalsrc prompt="a red ball bouncing over a green meadow" ! videoconvert ! autovideosink
 * ]| Endless video in a window.
 * |[
 * gst-launch-1.0 dualparalsrc num-frames=160 seed=7 devices=cpu,cpu ! videoconvert ! x264enc ! dualparalsei ! mp4mux ! filesink location=ball.mp4
 * ]| Ten seconds in a file, made by two stages.
 * |[
 * gst-launch-1.0 dualparalsrc model=/path/to/Wan2.1-T2V-1.3B-Diffusers ! video/x-raw,width=480,height=832 ! videoconvert ! autovideosink
 * ]| Another model, upright. If generation is slower than playback, the pipeline buffers.
 * |[
 * gst-launch-1.0 dualparalsrc is-live=true startup-policy=placeholder ! queue ! x264enc tune=zerolatency ! flvmux streamable=true ! rtmp2sink location=rtmp://localhost/live/ball
 * ]| A live stream, at an even framerate from the start.
 * |[
 * gst-launch-1.0 dualparalsrc storyboard=story.srt ! videoconvert ! autovideosink
 * ]| One prompt after the other, at the times of the cues.
 *
 * ## Messages
 * * `PROGRESS`, code `load-model`: the weights are read in the background while the pipeline prerolls.
 *   The field `percent` (#gint) counts bytes.
 * * `BUFFERING`: a frame was not ready in time for a sink that keeps time. As with any buffering
 *   element, the application goes to PAUSED below 100 and back to PLAYING at 100; no frame is dropped.
 *   It is not posted before the first frame, when recording, or when live.
 * * `QOS`: a picture of a live video was late. The field `cause` (string) is `generation` if there was
 *   no frame (see #GstDualParalSrc:underrun-policy), or `downstream` if it was taken too late.
 * * `ELEMENT`, structure `application/x-dualparal-stats`: the property #GstDualParalSrc:stats, every
 *   #GstDualParalSrc:stats-interval.
 * * `ELEMENT`, structure `dualparal-model`: the element starts. Fields: `name` (string) and `knows`
 *   (string), what the model was taught, for people; empty if the model does not say.
 * * `ELEMENT`, structure `dualparal-prompt-applied`: the first frame of a prompt leaves the element.
 *   Fields: `prompt` (string), `prompt-id` (#guint, 0 for the first), `block` (#gint64), `frame`
 *   (#guint64), `timestamp`, `stream-time`, `running-time` (#GstClockTime).
 * * `ELEMENT`, structure `dualparal-preview`: see #GstDualParalSrc:preview. Fields: `sample`
 *   (#GstSample), `block` (#gint64), `step`, `steps` (#gint).
 * * `WARNING`: a prompt was refused or has words that the model was never taught, the model was not
 *   trained for the size, a trace is not complete, or devices=auto passed over a GPU.
 *
 * ## Metas
 * As #GstDualParalSrc:marking says, each frame except placeholders has
 * * a #GstCustomMeta `GstDualParalMeta`: `block` (#gint64), `frame`, `seed` (#guint64), `prompt-id`
 *   (#guint), `digital-source-type` (string);
 * * a #GstVideoSEIUserDataUnregisteredMeta with the UUID `f73c05d5-7096-42dd-be2d-9eb4ecd8bab8` and
 *   the same and more as JSON, which #dualparalsei writes behind an encoder.
 *
 * ## Events
 * Right before the first buffer of a prompt, in this order:
 * * a serialized custom downstream event with a structure `dualparal/prompt`: `prompt`, `prompt-id`,
 *   `block` and `frame` as above;
 * * with #GstDualParalSrc:marking a tag event: `title` is the prompt, `comment` says that a model made
 *   this and gives its seed, steps, guidance and name; `artist`, `keywords` and `application-name` go
 *   with it;
 * * except for the first prompt, a force-key-unit event, so that encoders begin a new group there.
 *
 * A custom upstream event with a structure `dualparal/set-prompt`, from downstream or sent to the
 * element, queues a prompt as #GstDualParalSrc::queue-prompt does. Fields: `prompt` (string) and,
 * optionally, `negative-prompt` (string), `at-frame` and `transition-blocks` (whole numbers).
 *
 * Since: 0.1
 */
#include "gstdualparalsrc.h"

#include "gstdualparalbuffering.h"
#include "gstdualparalcuda.h"
#include "gstdualparalframe.h"
#include "gstdualparalgenerator.h"
#include "gstdualparallive.h"
#include "gstdualparalmarking.h"
#include "gstdualparalmessages.h"
#include "gstdualparalplaceholder.h"
#include "gstdualparalposter.h"
#include "gstdualparalpreset.h"
#include "gstdualparalsettings.h"
#include "gstdualparalstats.h"
#include "gstdualparaluri.h"

#define GST_CAT_DEFAULT gst_dualparal_src_debug

/* Downstream may change its caps while they are negotiated */
#define NEGOTIATE_TRIES 5

struct _GstDualParalSrc
{
  GstPushSrc parent;

  /* -- made with the element */
  GstDualParalSettings *settings;
  GstDualParalPoster *poster;
  GstDualParalGenerator *gen;
  GstDualParalBuffering *buffering;     /* not live */
  GstDualParalLive *live;
  GstDualParalStats *stats;
  GstDualParalMarker *marker;

  /* -- protected by the object lock */
  GstVideoInfo info;            /* written by the streaming thread only */
  guint64 base_frame;           /* info has its framerate since this frame */
  GstClockTime base_time;
  GstCudaContext *cuda;         /* of GPU memory; set by GstCuda, which has its own
                                 * lock for that, and taken away under this one */

  /* -- set by start() */
  guint64 num_frames;           /* of the whole video; G_MAXUINT64: endless */
  GstSample *picture;           /* the decoded placeholder; NULL: grey */

  /* -- owned by the streaming thread */
  guint64 n_frames;             /* sent so far */
  gint resync;                  /* atomic: running time restarted */
  GstBuffer *placeholder;       /* of these caps */
};

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE ("src",
    GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS (GST_DUALPARAL_FRAME_CAPS
        GST_DUALPARAL_CUDA_CAPS));

#define gst_dualparal_src_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstDualParalSrc, gst_dualparal_src, GST_TYPE_PUSH_SRC,
    G_IMPLEMENT_INTERFACE (GST_TYPE_URI_HANDLER, gst_dualparal_uri_handler_init)
    G_IMPLEMENT_INTERFACE (GST_TYPE_PRESET, gst_dualparal_preset_init));
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
    gst_dualparal_generator_set_prompt (self->gen, prop_id, value);
    return;
  }
  GST_OBJECT_LOCK (self);
  /* The base class would act at once */
  refused = prop_id == GST_DUALPARAL_PROP_IS_LIVE
      && MAX (GST_STATE (self), GST_STATE_NEXT (self)) > GST_STATE_READY;
  known = refused
      || gst_dualparal_settings_set (self->settings, prop_id, value);
  GST_OBJECT_UNLOCK (self);
  if (refused)
    GST_ELEMENT_WARNING (self, RESOURCE, SETTINGS,
        ("is-live can only be changed in NULL and READY."),
        ("it stays as it was"));
  else if (prop_id == GST_DUALPARAL_PROP_IS_LIVE)
    gst_base_src_set_live (GST_BASE_SRC (self), g_value_get_boolean (value));
  if (!known)
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
  /* A wait may end because of the new value */
  gst_dualparal_generator_wake (self->gen);
}

static GstStructure *
gst_dualparal_src_get_stats (GstDualParalSrc * self)
{
  GstStructure *s;
  DpStats stats;

  gst_dualparal_generator_get_stats (self->gen, &stats);
  s = gst_dualparal_stats_get (self->stats, &stats);
  gst_dualparal_live_add_stats (self->live, s);
  gst_dualparal_buffering_add_stats (self->buffering, s);
  return s;
}

static void
gst_dualparal_src_get_property (GObject * object, guint prop_id, GValue * value,
    GParamSpec * pspec)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (object);

  if (prop_id == GST_DUALPARAL_PROP_STATS)
    g_value_take_boxed (value, gst_dualparal_src_get_stats (self));
  else if (!gst_dualparal_settings_get (self->settings, prop_id, value))
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
}

/* -- start and stop */

static void
gst_dualparal_src_describe_model (GstDualParalSrc * self)
{
  const DpModelInfo *model =
      dp_plan_model (gst_dualparal_generator_plan (self->gen));

  gst_dualparal_poster_post (self->poster,
      gst_message_new_element (GST_OBJECT (self),
          gst_structure_new ("dualparal-model", "name", G_TYPE_STRING,
              model->name, "knows", G_TYPE_STRING, model->knows, NULL)));
}

/* FALSE with a posted error */
static gboolean
gst_dualparal_src_load_placeholder (GstDualParalSrc * self)
{
  gchar *location = gst_dualparal_settings_string (self->settings,
      GST_DUALPARAL_PROP_PLACEHOLDER);
  const gboolean wanted = location && gst_base_src_is_live (GST_BASE_SRC (self))
      && gst_dualparal_settings_number (self->settings,
      GST_DUALPARAL_PROP_STARTUP_POLICY) == GST_DUALPARAL_STARTUP_PLACEHOLDER;

  if (wanted)
    self->picture = gst_dualparal_placeholder_load (GST_ELEMENT (self),
        location);
  g_free (location);
  return !wanted || self->picture;
}

static gboolean
gst_dualparal_src_start (GstBaseSrc * src)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  const gint64 num_frames = gst_dualparal_settings_number (self->settings,
      GST_DUALPARAL_PROP_NUM_FRAMES);

  GST_OBJECT_LOCK (self);
  gst_video_info_init (&self->info);
  self->base_frame = self->base_time = 0;
  GST_OBJECT_UNLOCK (self);
  self->num_frames = num_frames > 0 ? (guint64) num_frames : G_MAXUINT64;
  self->n_frames = 0;
  g_atomic_int_set (&self->resync, FALSE);
  GST_INFO_OBJECT (self, "starts, %s, %" G_GINT64_FORMAT " frames",
      gst_base_src_is_live (src) ? "live" : "not live", num_frames);

  if (!gst_dualparal_src_load_placeholder (self))
    return FALSE;
  if (!gst_dualparal_generator_start (self->gen)) {
    g_clear_pointer (&self->picture, gst_sample_unref);
    return FALSE;
  }
  gst_dualparal_src_describe_model (self);
  gst_dualparal_marking_start (self->marker,
      gst_dualparal_settings_number (self->settings,
          GST_DUALPARAL_PROP_MARKING));
  gst_dualparal_buffering_start (self->buffering);
  gst_dualparal_live_start (self->live);
  gst_dualparal_stats_start (self->stats,
      gst_dualparal_settings_number (self->settings,
          GST_DUALPARAL_PROP_STATS_INTERVAL),
      gst_dualparal_generator_plan (self->gen));
  return TRUE;
}

static gboolean
gst_dualparal_src_stop (GstBaseSrc * src)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  GstCudaContext *cuda;

  gst_dualparal_stats_stop (self->stats);
  gst_dualparal_generator_stop (self->gen);
  gst_dualparal_buffering_stop (self->buffering);
  gst_dualparal_poster_drain (self->poster);
  gst_clear_buffer (&self->placeholder);
  g_clear_pointer (&self->picture, gst_sample_unref);
  /* A query may be using it */
  GST_OBJECT_LOCK (self);
  cuda = g_steal_pointer (&self->cuda);
  GST_OBJECT_UNLOCK (self);
  gst_clear_object (&cuda);
  GST_INFO_OBJECT (self, "stopped after %" G_GUINT64_FORMAT " frames",
      self->n_frames);
  return TRUE;
}

static GstStateChangeReturn
gst_dualparal_src_change_state (GstElement * element, GstStateChange transition)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (element);
  const gboolean pauses = transition == GST_STATE_CHANGE_PLAYING_TO_PAUSED;
  GstStateChangeReturn result;

  if (pauses) {
    gst_dualparal_buffering_set_playing (self->buffering, FALSE);
    gst_dualparal_live_set_paused (self->live, TRUE, TRUE);
  }
  result = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (pauses) {
    gst_dualparal_live_set_paused (self->live, TRUE, FALSE);
  } else if (transition == GST_STATE_CHANGE_PAUSED_TO_PLAYING) {
    gst_dualparal_live_set_paused (self->live, FALSE, FALSE);
    gst_dualparal_buffering_set_playing (self->buffering, TRUE);
  }
  GST_INFO_OBJECT (self, "%s: %s", gst_state_change_get_name (transition),
      gst_element_state_change_return_get_name (result));
  return result;
}

static gboolean
gst_dualparal_src_unlock (GstBaseSrc * src)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);

  GST_DEBUG_OBJECT (self, "unlock");
  if (!gst_dualparal_live_is_pausing (self->live)) {
    gst_dualparal_generator_set_flushing (self->gen, TRUE);
    gst_dualparal_live_set_flushing (self->live, TRUE);
  }
  return TRUE;
}

static gboolean
gst_dualparal_src_unlock_stop (GstBaseSrc * src)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);

  gst_dualparal_generator_set_flushing (self->gen, FALSE);
  gst_dualparal_live_set_flushing (self->live, FALSE);
  return TRUE;
}

/* When frame n is shown, counted from where the framerate last changed, so that no rounding adds
 * up. Streaming thread, or with the object lock. */
static GstClockTime
gst_dualparal_src_time_of (GstDualParalSrc * self, guint64 n)
{
  return self->base_time + gst_util_uint64_scale (n - self->base_frame,
      GST_SECOND * GST_VIDEO_INFO_FPS_D (&self->info),
      GST_VIDEO_INFO_FPS_N (&self->info));
}

/* -- caps and memory. Other caps may come at any time: with another size or format the generation
 * restarts, with another framerate it goes on. */

static GstCaps *
gst_dualparal_src_get_caps (GstBaseSrc * src, GstCaps * filter)
{
  GstCaps *caps = gst_pad_get_pad_template_caps (GST_BASE_SRC_PAD (src)), *some;

  caps = gst_dualparal_cuda_possible (caps);
  if (!filter)
    return caps;
  some = gst_caps_intersect_full (filter, caps, GST_CAPS_INTERSECT_FIRST);
  gst_caps_unref (caps);
  return some;
}

static GstCaps *
gst_dualparal_src_fixate (GstBaseSrc * src, GstCaps * caps)
{
  GstCaps *current = gst_pad_get_current_caps (GST_BASE_SRC_PAD (src));

  GST_DEBUG_OBJECT (src, "possible: %" GST_PTR_FORMAT, caps);
  caps = gst_dualparal_frame_prefer (caps, current,
      dp_plan_model (gst_dualparal_generator_plan (GST_DUALPARAL_SRC
              (src)->gen)));
  gst_clear_caps (&current);
  caps = GST_BASE_SRC_CLASS (parent_class)->fixate (src, caps);
  GST_DEBUG_OBJECT (src, "chosen: %" GST_PTR_FORMAT, caps);
  return caps;
}

static gboolean
gst_dualparal_src_negotiate (GstBaseSrc * src)
{
  GstCaps *peer;
  guint i;

  for (i = 0; i < NEGOTIATE_TRIES; i++) {
    if (GST_BASE_SRC_CLASS (parent_class)->negotiate (src))
      return TRUE;
    if (GST_PAD_IS_FLUSHING (GST_BASE_SRC_PAD (src)))
      return FALSE;
    GST_DEBUG_OBJECT (src, "negotiation failed, attempt %u", i + 1);
  }

  peer = gst_pad_peer_query_caps (GST_BASE_SRC_PAD (src), NULL);
  GST_ELEMENT_ERROR (src, CORE, NEGOTIATION,
      ("Downstream accepts no video that can be made: width and height must be "
          "even and from " G_STRINGIFY (DP_MIN_SIZE) " to "
          G_STRINGIFY (DP_MAX_SIZE) ", pixels square, frames progressive."),
      ("downstream accepts %" GST_PTR_FORMAT, peer));
  gst_clear_caps (&peer);
  return FALSE;
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
      || GST_VIDEO_INFO_FPS_N (&info) <= 0) {
    GST_WARNING_OBJECT (self, "not possible: %" GST_PTR_FORMAT, caps);
    return FALSE;
  }

  if (self->n_frames > 0)
    now = gst_dualparal_src_time_of (self, self->n_frames);
  GST_INFO_OBJECT (self, "caps from frame %" G_GUINT64_FORMAT " on: %"
      GST_PTR_FORMAT, self->n_frames, caps);
  GST_OBJECT_LOCK (self);
  self->info = info;
  self->base_time = now;
  self->base_frame = self->n_frames;
  GST_OBJECT_UNLOCK (self);

  gst_clear_buffer (&self->placeholder);
  gst_dualparal_stats_set_framerate (self->stats,
      GST_VIDEO_INFO_FPS_N (&info), GST_VIDEO_INFO_FPS_D (&info));
  if (gst_dualparal_live_set_framerate (self->live,
          GST_VIDEO_INFO_FPS_N (&info), GST_VIDEO_INFO_FPS_D (&info))
      && gst_base_src_is_live (src))
    gst_dualparal_poster_post (self->poster,
        gst_message_new_latency (GST_OBJECT (self)));
  return TRUE;
}

static gboolean
gst_dualparal_src_decide_allocation (GstBaseSrc * src, GstQuery * query)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  gboolean offered = TRUE;

  if (gst_dualparal_cuda_is_asked (query)) {
    gchar *devices = gst_dualparal_settings_string (self->settings,
        GST_DUALPARAL_PROP_DEVICES);

    offered = gst_dualparal_cuda_offer_pool (GST_ELEMENT (self), query,
        devices, &self->cuda);
    g_free (devices);
  } else {
    gst_dualparal_frame_offer_pool (query);
  }
  GST_DEBUG_OBJECT (self, "allocation: %" GST_PTR_FORMAT, query);
  /* Configures the pool, and replaces one that refuses */
  return offered
      && GST_BASE_SRC_CLASS (parent_class)->decide_allocation (src, query);
}

/* -- streaming */

/* What comes next, and when */
static GstFlowReturn
gst_dualparal_src_wait_next (GstDualParalSrc * self, GstDualParalRelease * next)
{
  if (gst_base_src_is_live (GST_BASE_SRC (self)))
    return gst_dualparal_live_next (self->live, next);

  next->picture = GST_DUALPARAL_FRESH;
  next->pts = gst_dualparal_src_time_of (self, self->n_frames);
  next->duration = gst_dualparal_src_time_of (self, self->n_frames + 1) -
      next->pts;
  next->discont = FALSE;
  return gst_dualparal_buffering_next (self->buffering, self->n_frames,
      self->num_frames - self->n_frames,
      gst_segment_to_running_time (&GST_BASE_SRC (self)->segment,
          GST_FORMAT_TIME, next->pts), next->duration);
}

/* A buffer from the pool with the picture in it */
static GstFlowReturn
gst_dualparal_src_fill (GstDualParalSrc * self, GstDualParalPicture picture,
    GstBuffer ** buffer)
{
  GstFlowReturn flow;
  GstBuffer *out = NULL;
  gboolean filled;

  if (picture == GST_DUALPARAL_PLACEHOLDER && !self->placeholder
      && !(self->placeholder = gst_dualparal_placeholder_new (GST_ELEMENT
              (self), self->picture, &self->info)))
    return GST_FLOW_ERROR;
  flow = GST_BASE_SRC_CLASS (parent_class)->alloc (GST_BASE_SRC (self), 0,
      GST_VIDEO_INFO_SIZE (&self->info), &out);
  if (flow != GST_FLOW_OK)
    return flow;

  if (picture == GST_DUALPARAL_PLACEHOLDER)
    filled = gst_dualparal_placeholder_copy (self->placeholder, &self->info,
        out);
  else
    filled = gst_dualparal_frame_copy (gst_dualparal_generator_frame
        (self->gen), &self->info, out);
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
  const DpFrame *frame;
  GstDualParalRelease next;
  GstBuffer *out = NULL;
  GstFlowReturn flow;
  gboolean opened;

  if (live && gst_dualparal_live_take_back (self->live))
    self->n_frames--;
  if (self->n_frames >= self->num_frames) {
    GST_INFO_OBJECT (self, "EOS: all frames were sent");
    return GST_FLOW_EOS;
  }
  if (!gst_dualparal_generator_open (self->gen, &self->info, self->n_frames,
          &opened))
    return GST_FLOW_ERROR;
  if (opened) {
    gst_dualparal_live_restart (self->live);
    gst_dualparal_stats_set_plan (self->stats,
        gst_dualparal_generator_plan (self->gen));
  }
  if (live && g_atomic_int_compare_and_exchange (&self->resync, TRUE, FALSE))
    gst_dualparal_live_reset_time (self->live);

  flow = gst_dualparal_src_wait_next (self, &next);
  if (flow == GST_FLOW_OK) {
    flow = gst_dualparal_src_fill (self, next.picture, &out);
    if (flow != GST_FLOW_OK)
      gst_dualparal_live_take_back (self->live);
  }
  if (flow != GST_FLOW_OK) {
    GST_INFO_OBJECT (self, "no frame: %s", gst_flow_get_name (flow));
    return flow;
  }
  gst_dualparal_src_stamp (self, &next, out);

  if (g_atomic_int_compare_and_exchange (&self->resync, TRUE, FALSE)) {
    GstSegment segment = GST_BASE_SRC (src)->segment;

    segment.start = segment.time = segment.position = GST_BUFFER_PTS (out);
    gst_base_src_new_segment (GST_BASE_SRC (src), &segment);
    GST_BUFFER_FLAG_SET (out, GST_BUFFER_FLAG_DISCONT);
  }
  frame = gst_dualparal_generator_frame (self->gen);
  if (next.picture == GST_DUALPARAL_FRESH) {
    if (gst_dualparal_marking_announce (self->marker, frame, self->n_frames,
            next.pts, gst_dualparal_generator_plan (self->gen)))
      gst_dualparal_generator_prompt_begins (self->gen, self->n_frames);
    gst_dualparal_stats_frame_leaves (self->stats);
    self->n_frames++;
  }
  if (next.picture != GST_DUALPARAL_PLACEHOLDER)
    gst_dualparal_marking_mark (self->marker, out, frame,
        gst_dualparal_generator_plan (self->gen));
  GST_LOG_OBJECT (self, "%s: %" GST_PTR_FORMAT,
      next.picture == GST_DUALPARAL_FRESH ? "frame" : next.picture ==
      GST_DUALPARAL_REPEATED ? "repeat" : "placeholder", out);
  /* A live one may have to be shown again */
  if (!live)
    gst_dualparal_generator_release (self->gen);
  *buffer = out;
  return GST_FLOW_OK;
}

/* -- events and queries */

/* A live video is of all who watch it: an RTSP server would seek for each viewer that joins */
static gboolean
gst_dualparal_src_is_seekable (GstBaseSrc * src)
{
  return !gst_base_src_is_live (src);
}

/* The only seek: the video starts again */
static gboolean
gst_dualparal_src_is_restart (GstDualParalSrc * self, GstEvent * event)
{
  GstSeekType start_type;
  GstSeekFlags flags;
  GstFormat format;
  gdouble rate;
  gint64 start;
  gboolean restart;

  gst_event_parse_seek (event, &rate, &format, &flags, &start_type, &start,
      NULL, NULL);
  restart = rate == 1 && format == GST_FORMAT_TIME && start == 0
      && (flags & GST_SEEK_FLAG_FLUSH) && start_type == GST_SEEK_TYPE_SET
      && gst_dualparal_src_is_seekable (GST_BASE_SRC (self));
  if (!restart)
    GST_INFO_OBJECT (self, "refused, only a flushing seek to 0 is possible, "
        "and none in live video: %" GST_PTR_FORMAT, event);
  return restart;
}

/* Also called for each activation, when nothing was made yet. Without a streaming thread. */
static gboolean
gst_dualparal_src_do_seek (GstBaseSrc * src, GstSegment * segment)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);

  if (!gst_dualparal_generator_rewind (self->gen))
    return FALSE;
  GST_OBJECT_LOCK (self);
  self->base_frame = self->base_time = 0;
  GST_OBJECT_UNLOCK (self);
  self->n_frames = 0;
  gst_dualparal_buffering_rewind (self->buffering);
  gst_dualparal_marking_start (self->marker,
      gst_dualparal_settings_number (self->settings,
          GST_DUALPARAL_PROP_MARKING));
  segment->position = segment->start;
  return TRUE;
}

static gboolean
gst_dualparal_src_event (GstBaseSrc * src, GstEvent * event)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (src);
  GstClockTime latency;
  gboolean queued;

  if (gst_dualparal_generator_take_event (self->gen, event, &queued))
    return queued;
  if (GST_EVENT_TYPE (event) == GST_EVENT_SEEK
      && !gst_dualparal_src_is_restart (self, event))
    return FALSE;
  if (GST_EVENT_TYPE (event) == GST_EVENT_QOS) {
    gst_dualparal_buffering_saw_qos (self->buffering);
  } else if (GST_EVENT_TYPE (event) == GST_EVENT_LATENCY) {
    gst_event_parse_latency (event, &latency);
    gst_dualparal_live_set_latency (self->live, latency);
  }
  return GST_BASE_SRC_CLASS (parent_class)->event (src, event);
}

static gboolean
gst_dualparal_src_send_event (GstElement * element, GstEvent * event)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (element);
  const GstEventType type = GST_EVENT_TYPE (event);
  gboolean reset_time = FALSE, sent;

  if (gst_dualparal_generator_take_event (self->gen, event, &sent)) {
    gst_event_unref (event);
    return sent;
  }
  switch (type) {
    case GST_EVENT_SEEK:
      if (gst_dualparal_src_is_restart (self, event))
        break;
      gst_event_unref (event);
      return FALSE;
    case GST_EVENT_FLUSH_STOP:
      /* Running time restarts and our frames do not, so a new segment has to say so; else the next
       * frame would be waited for as long as we ran */
      gst_event_parse_flush_stop (event, &reset_time);
      if (reset_time)
        g_atomic_int_set (&self->resync, TRUE);
      break;
    default:
      break;
  }
  sent = GST_ELEMENT_CLASS (parent_class)->send_event (element, event);
  /* No frame comes after it, which would end the buffering */
  if (type == GST_EVENT_EOS && sent)
    gst_dualparal_buffering_finish (self->buffering);
  return sent;
}

static gboolean
gst_dualparal_src_query_duration (GstDualParalSrc * self, GstQuery * query)
{
  const gint64 frames = gst_dualparal_settings_number (self->settings,
      GST_DUALPARAL_PROP_NUM_FRAMES);
  gint64 duration = -1;
  GstFormat format;

  gst_query_parse_duration (query, &format, NULL);
  GST_OBJECT_LOCK (self);
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
    case GST_QUERY_SEEKING:
      gst_query_parse_seeking (query, &from, NULL, NULL, NULL);
      gst_query_set_seeking (query, from, from == GST_FORMAT_TIME
          && gst_dualparal_src_is_seekable (src), 0, 0);
      return TRUE;
    case GST_QUERY_LATENCY:
      if (!gst_base_src_is_live (src))
        break;
      if (!gst_dualparal_live_get_latency (self->live, &min, &max))
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
  return gst_dualparal_generator_queue_prompt (self->gen,
      &(GstDualParalPrompt) {
        prompt, NULL, at_frame, transition_blocks});
}

static gboolean
gst_dualparal_src_set_image (GstDualParalSrc * self, GstSample * sample)
{
  return gst_dualparal_generator_set_image (self->gen, sample);
}

static void
gst_dualparal_src_finalize (GObject * object)
{
  GstDualParalSrc *self = GST_DUALPARAL_SRC (object);

  gst_dualparal_live_free (self->live);
  gst_dualparal_buffering_free (self->buffering);
  gst_dualparal_generator_free (self->gen);
  gst_dualparal_stats_free (self->stats);
  gst_dualparal_marking_free (self->marker);
  gst_dualparal_poster_free (self->poster);
  gst_dualparal_settings_free (self->settings);
  gst_clear_object (&self->cuda);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_dualparal_src_init (GstDualParalSrc * self)
{
  GstElement *element = GST_ELEMENT (self);

  self->settings = gst_dualparal_settings_new ();
  self->poster = gst_dualparal_poster_new (element);
  self->stats = gst_dualparal_stats_new (element, self->poster);
  self->marker = gst_dualparal_marking_new (GST_BASE_SRC (self), self->poster);
  self->gen = gst_dualparal_generator_new (element, self->poster,
      self->settings);
  self->buffering = gst_dualparal_buffering_new (element, self->poster,
      self->gen);
  self->live = gst_dualparal_live_new (GST_BASE_SRC (self), self->poster,
      self->gen, self->settings);
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
   * @at_frame: the frame of the video it begins with, or -1 for as soon as possible, which sets
   *   #GstDualParalSrc:prompt too. It takes effect with the first block that begins there or later
   * @transition_blocks: over how many blocks it blends in; 0 is at once
   *
   * Queues a prompt, in any state. Prompts with a frame are forgotten when the element goes to READY.
   *
   * Returns: whether it was queued; if not, a warning message says why, and which frame is not too
   * late
   *
   * Since: 0.1
   */
  g_signal_new_class_handler ("queue-prompt", G_TYPE_FROM_CLASS (klass),
      G_SIGNAL_RUN_LAST | G_SIGNAL_ACTION,
      G_CALLBACK (gst_dualparal_src_queue_prompt), NULL, NULL, NULL,
      G_TYPE_BOOLEAN, 3, G_TYPE_STRING, G_TYPE_INT64, G_TYPE_INT);
  /**
   * GstDualParalSrc::set-image:
   * @src: the source
   * @sample: (nullable): a picture of any format of raw video that the installed plugins convert
   *
   * Makes the next video begin with a picture, as #GstDualParalSrc:image does with a file. %NULL
   * takes it back. In any state; what plays does not change before it starts again.
   *
   * Returns: whether it can be used; if not, a warning message says why
   *
   * Since: 0.1
   */
  g_signal_new_class_handler ("set-image", G_TYPE_FROM_CLASS (klass),
      G_SIGNAL_RUN_LAST | G_SIGNAL_ACTION,
      G_CALLBACK (gst_dualparal_src_set_image), NULL, NULL, NULL,
      G_TYPE_BOOLEAN, 1, GST_TYPE_SAMPLE);

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
  base_class->get_caps = gst_dualparal_src_get_caps;
  base_class->fixate = gst_dualparal_src_fixate;
  base_class->negotiate = gst_dualparal_src_negotiate;
  base_class->set_caps = gst_dualparal_src_set_caps;
  base_class->decide_allocation = gst_dualparal_src_decide_allocation;
  base_class->is_seekable = gst_dualparal_src_is_seekable;
  base_class->do_seek = gst_dualparal_src_do_seek;
  base_class->event = gst_dualparal_src_event;
  base_class->query = gst_dualparal_src_query;
  push_class->create = gst_dualparal_src_create;
}
