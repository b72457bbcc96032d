/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparallive.h"

/* How often the start looks at the queue, a stall and the policy `slow` at the
 * clock and for the state */
#define PRIME_US (20 * G_TIME_SPAN_MILLISECOND)
#define STALL_US (100 * G_TIME_SPAN_MILLISECOND)
#define SLOW_US (5 * G_TIME_SPAN_MILLISECOND)

/* Not a result of GStreamer's: look again what is due */
#define AGAIN GST_FLOW_CUSTOM_SUCCESS

void
gst_dualparal_live_init (GstDualParalLive * live, GstBaseSrc * src,
    GstDualParalGenerator * gen)
{
  live->src = src;
  live->gen = gen;
}

gboolean
gst_dualparal_live_start (GstDualParalLive * live)
{
  DpSettings *resolved = &live->gen->resolved;
  const DpModelInfo *model = &live->gen->model;
  gint prebuffer, most;

  GST_OBJECT_LOCK (live->src);
  prebuffer = live->gen->settings->prebuffer;
  GST_OBJECT_UNLOCK (live->src);
  /* A default follows what was asked for */
  if (live->gen->base_settings.max_queue_frames == 0
      && prebuffer > resolved->max_queue_frames)
    live->gen->base_settings.max_queue_frames = resolved->max_queue_frames =
        prebuffer;
  most = resolved->max_queue_frames;
  if (prebuffer > most) {
    GST_ELEMENT_ERROR (live->src, RESOURCE, SETTINGS,
        ("prebuffer is %d frames, and at most max-queue-frames, which is %d, can "
            "wait; lower the one or raise the other.", prebuffer, most), (NULL));
    return FALSE;
  }
  if (prebuffer == 0)
    prebuffer = MIN (most, resolved->block_latents * model->temporal_scale);
  live->prebuffer = prebuffer;
  GST_OBJECT_LOCK (live->src);
  live->capacity = most;
  GST_OBJECT_UNLOCK (live->src);

  gst_dualparal_live_set_framerate (live, model->fps_n, model->fps_d);
  gst_dualparal_live_set_latency (live, 0);
  gst_dualparal_live_restart (live);
  live->due = live->reported = GST_CLOCK_TIME_NONE;
  live->taken = 0;
  live->discont = FALSE;

  g_mutex_lock (&live->gen->lock);
  live->paused = TRUE;
  live->repeated = live->placeholders = live->underruns = live->stall_time = 0;
  live->in_time = live->missed = 0;
  g_mutex_unlock (&live->gen->lock);
  return TRUE;
}

gboolean
gst_dualparal_live_set_framerate (GstDualParalLive * live, gint fps_n,
    gint fps_d)
{
  const GstClockTime frame_time =
      gst_util_uint64_scale (GST_SECOND, fps_d, fps_n);
  gboolean changed;

  GST_OBJECT_LOCK (live->src);
  changed = live->frame_time != frame_time;
  live->frame_time = live->period = frame_time;
  GST_OBJECT_UNLOCK (live->src);
  return changed;
}

void
gst_dualparal_live_set_latency (GstDualParalLive * live, GstClockTime latency)
{
  GST_OBJECT_LOCK (live->src);
  live->latency = latency;
  GST_OBJECT_UNLOCK (live->src);
}

void
gst_dualparal_live_restart (GstDualParalLive * live)
{
  live->primed = live->fresh = live->late = live->missing = live->rewound =
      live->is_out = live->is_missed = FALSE;
  live->in_a_row = 0;
  live->mark_time = GST_CLOCK_TIME_NONE;
}

void
gst_dualparal_live_reset_time (GstDualParalLive * live)
{
  live->due = 0;
  live->mark_time = GST_CLOCK_TIME_NONE;
  live->rewound = live->discont = TRUE;
  live->late = live->is_missed = FALSE;
}

/* -- states */

static void
unschedule (GstDualParalLive * live)
{
  if (live->clock_id)
    gst_clock_id_unschedule (live->clock_id);
}

void
gst_dualparal_live_pause (GstDualParalLive * live)
{
  g_mutex_lock (&live->gen->lock);
  live->paused = TRUE;
  live->pausing = g_thread_self ();
  unschedule (live);
  g_mutex_unlock (&live->gen->lock);
}

void
gst_dualparal_live_paused (GstDualParalLive * live)
{
  g_mutex_lock (&live->gen->lock);
  live->pausing = NULL;
  g_mutex_unlock (&live->gen->lock);
}

void
gst_dualparal_live_play (GstDualParalLive * live)
{
  g_mutex_lock (&live->gen->lock);
  live->paused = FALSE;
  g_cond_broadcast (&live->gen->cond);
  g_mutex_unlock (&live->gen->lock);
}

/* The base class of 1.24 and later unlocks on the way to PAUSED and takes that
 * back only before it asks for the next buffer. Were we to leave with FLUSHING,
 * and PLAYING came quickly, it would take that for the end of the stream. */
gboolean
gst_dualparal_live_is_pausing (GstDualParalLive * live)
{
  gboolean pausing;

  g_mutex_lock (&live->gen->lock);
  pausing = live->pausing == g_thread_self ();
  g_mutex_unlock (&live->gen->lock);
  return pausing;
}

void
gst_dualparal_live_unschedule (GstDualParalLive * live)
{
  g_mutex_lock (&live->gen->lock);
  unschedule (live);
  g_mutex_unlock (&live->gen->lock);
}

/* -- waiting */

/* The base class of 1.24 and later takes its unlock() of the last PAUSED back in
 * the streaming thread, and when that comes late one that was for good with it; the
 * pad says so still */
static gboolean
is_flushing (GstDualParalLive * live)
{
  return live->gen->flushing || GST_PAD_IS_FLUSHING (live->src->srcpad);
}

/* Until something is due, and in PLAYING; `now` is the running time then */
static GstFlowReturn
wait_until_due (GstDualParalLive * live, GstClockTime * now)
{
  GstElement *element = GST_ELEMENT (live->src);
  GstDualParalGenerator *gen = live->gen;
  gboolean flushing, wait;
  GstClock *clock;
  GstClockTime base_time, time;
  GstClockID id;

  for (;;) {
    g_mutex_lock (&gen->lock);
    if (live->paused)
      live->mark_time = GST_CLOCK_TIME_NONE;
    while (live->paused && !is_flushing (live))
      g_cond_wait (&gen->cond, &gen->lock);
    flushing = is_flushing (live);
    g_mutex_unlock (&gen->lock);
    if (flushing)
      return GST_FLOW_FLUSHING;

    clock = gst_element_get_clock (element);
    if (!clock) {
      GST_ELEMENT_ERROR (element, CORE, CLOCK,
          ("A live video needs a clock: put the element into a pipeline, or set "
              "is-live to false."), (NULL));
      return GST_FLOW_ERROR;
    }
    base_time = gst_element_get_base_time (element);
    time = gst_clock_get_time (clock);
    *now = time > base_time ? time - base_time : 0;
    if (!GST_CLOCK_TIME_IS_VALID (live->due) || live->due <= *now
        || live->due > *now + 2 * live->period) {
      gst_object_unref (clock);
      return GST_FLOW_OK;
    }

    id = gst_clock_new_single_shot_id (clock, base_time + live->due);
    g_mutex_lock (&gen->lock);
    wait = !live->paused && !is_flushing (live);
    if (wait)
      live->clock_id = id;
    g_mutex_unlock (&gen->lock);
    if (wait)
      gst_clock_id_wait (id, NULL);
    g_mutex_lock (&gen->lock);
    live->clock_id = NULL;
    g_mutex_unlock (&gen->lock);
    gst_clock_id_unref (id);
    gst_object_unref (clock);
  }
}

static GstDualParalPull
take (GstDualParalLive * live, gint64 timeout_us)
{
  GstDualParalPull got = GST_DUALPARAL_FRAME;

  if (!live->fresh) {
    got = gst_dualparal_generator_pull (live->gen, timeout_us);
    live->fresh = got == GST_DUALPARAL_FRAME;
    live->taken += live->fresh;
  }
  return got;
}

static GstFlowReturn
flow_of (GstDualParalPull got)
{
  switch (got) {
    case GST_DUALPARAL_END:
      return GST_FLOW_EOS;
    case GST_DUALPARAL_FLUSHING:
      return GST_FLOW_FLUSHING;
    case GST_DUALPARAL_ERROR:
      return GST_FLOW_ERROR;
    default:
      return GST_FLOW_OK;
  }
}

/* The first pull is what starts the generation */
static GstFlowReturn
prime (GstDualParalLive * live)
{
  const GstDualParalPull got = take (live, 0);
  gboolean ended;
  guint have;

  if (got == GST_DUALPARAL_FRAME) {
    have = 1 + gst_dualparal_generator_level (live->gen, &ended);
    live->primed = ended || have >= live->prebuffer;
  }
  return flow_of (got);
}

/* -- what leaves */

static GstFlowReturn
leave (GstDualParalLive * live, GstDualParalPicture picture,
    GstDualParalRelease * release)
{
  release->picture = picture;
  release->pts = gst_segment_position_from_running_time (&live->src->segment,
      GST_FORMAT_TIME, live->due);
  release->duration = live->period;
  release->discont = live->discont;
  if (picture == GST_DUALPARAL_FRESH) {
    live->fresh = live->missing = FALSE;
    live->in_a_row = 0;
  }
  g_mutex_lock (&live->gen->lock);
  live->repeated += picture == GST_DUALPARAL_REPEATED;
  live->placeholders += picture == GST_DUALPARAL_PLACEHOLDER;
  live->in_time += picture == GST_DUALPARAL_FRESH && !live->is_missed;
  g_mutex_unlock (&live->gen->lock);
  if (picture == GST_DUALPARAL_REPEATED)
    dp_engine_mark (live->gen->engine, "repeated");

  live->discont = live->rewound = FALSE;
  live->out = *release;
  live->out_due = live->due;
  live->is_out = TRUE;
  live->out_missed = live->is_missed;
  live->is_missed = FALSE;
  live->due += live->period;
  return GST_FLOW_OK;
}

gboolean
gst_dualparal_live_take_back (GstDualParalLive * live)
{
  const gboolean unsent = live->is_out
      && live->src->segment.position != live->out.pts + live->out.duration;

  live->is_out = FALSE;
  if (!unsent)
    return FALSE;

  GST_DEBUG_OBJECT (live->src, "the picture for %" GST_TIME_FORMAT " was not "
      "sent", GST_TIME_ARGS (live->out_due));
  live->due = live->out_due;
  live->discont = live->out.discont;
  live->is_missed = live->out_missed;
  live->fresh |= live->out.picture == GST_DUALPARAL_FRESH;
  live->in_a_row -= live->out.picture == GST_DUALPARAL_REPEATED;
  g_mutex_lock (&live->gen->lock);
  live->repeated -= live->out.picture == GST_DUALPARAL_REPEATED;
  live->placeholders -= live->out.picture == GST_DUALPARAL_PLACEHOLDER;
  live->in_time -= live->out.picture == GST_DUALPARAL_FRESH
      && !live->out_missed;
  g_mutex_unlock (&live->gen->lock);
  return live->out.picture == GST_DUALPARAL_FRESH;
}

/* -- underruns */

static void
report_miss (GstDualParalLive * live, GstClockTime now)
{
  const GstSegment *segment = &live->src->segment;
  GstMessage *message;
  GstClockTime pts;

  if (live->reported == live->due)
    return;
  live->reported = live->due;
  g_mutex_lock (&live->gen->lock);
  live->underruns += !live->missing;
  live->missed++;
  g_mutex_unlock (&live->gen->lock);
  if (!live->missing)
    dp_engine_mark (live->gen->engine, "underrun");
  live->missing = live->is_missed = TRUE;

  pts = gst_segment_position_from_running_time (segment, GST_FORMAT_TIME,
      live->due);
  message = gst_message_new_qos (GST_OBJECT (live->src), TRUE, live->due,
      gst_segment_to_stream_time (segment, GST_FORMAT_TIME, pts), pts,
      live->period);
  gst_message_set_qos_values (message, GST_CLOCK_DIFF (live->due, now), 1.0,
      1000000);
  gst_message_set_qos_stats (message, GST_FORMAT_BUFFERS, live->taken,
      live->repeated);
  gst_element_post_message (GST_ELEMENT (live->src), message);
}

static void
add_stall (GstDualParalLive * live, GstClockTime time)
{
  g_mutex_lock (&live->gen->lock);
  live->stall_time += time;
  g_mutex_unlock (&live->gen->lock);
}

/* What was due leaves now */
static void
catch_up (GstDualParalLive * live, GstClockTime now)
{
  if (live->late && now > live->due) {
    add_stall (live, now - live->due);
    live->due = now;
  }
  live->late = FALSE;
}

/* Nothing leaves until there is a frame */
static GstFlowReturn
stall (GstDualParalLive * live)
{
  const GstFlowReturn flow = flow_of (take (live, STALL_US));

  live->late = TRUE;
  live->discont = TRUE;
  return flow != GST_FLOW_OK ? flow : AGAIN;
}

static GstFlowReturn
repeat (GstDualParalLive * live, GstClockTime now, gint max_repeat,
    GstDualParalRelease * release)
{
  if (!live->gen->has_frame || (max_repeat >= 0
          && live->in_a_row >= max_repeat))
    return stall (live);
  catch_up (live, now);
  live->in_a_row++;
  return leave (live, GST_DUALPARAL_REPEATED, release);
}

static GstFlowReturn
gap (GstDualParalLive * live, GstClockTime now)
{
  GstPad *pad = GST_BASE_SRC_PAD (live->src);
  GstEvent *segment = gst_pad_get_sticky_event (pad, GST_EVENT_SEGMENT, 0);

  /* Nothing may come before the segment, which comes with a buffer */
  if (!segment)
    return stall (live);
  gst_event_unref (segment);
  catch_up (live, now);
  gst_pad_push_event (pad,
      gst_event_new_gap (gst_segment_position_from_running_time (&live->
              src->segment, GST_FORMAT_TIME, live->due), live->period));
  live->due += live->period;
  live->is_missed = FALSE;
  live->discont = TRUE;
  add_stall (live, live->period);
  return AGAIN;
}

static GstClockTime
longest_period (GstDualParalLive * live, gint fps_n, gint fps_d)
{
  GstClockTime longest = 2 * live->frame_time;

  if (fps_n > 0)
    longest = gst_util_uint64_scale (GST_SECOND, fps_d, fps_n);
  return MAX (longest, live->frame_time);
}

/* Waits longer for the frame, which then comes when it is there */
static GstFlowReturn
slow (GstDualParalLive * live, GstClockTime now, GstClockTime longest,
    GstDualParalRelease * release)
{
  const GstClockTime last = live->out_due + longest;
  GstFlowReturn flow;

  live->late = TRUE;
  if (now >= last)
    return repeat (live, last, -1, release);
  flow = flow_of (take (live, SLOW_US));
  return flow != GST_FLOW_OK ? flow : AGAIN;
}

/* Frames come in bursts, so a rate is taken over a block of them. Of one that
 * waits for us nothing is known but that it is fast enough. */
static void
adapt (GstDualParalLive * live, GstClockTime now, GstClockTime longest)
{
  const DpSettings *resolved = &live->gen->resolved;
  const guint block =
      resolved->block_latents * live->gen->model.temporal_scale;
  gboolean ended;
  const guint level = gst_dualparal_generator_level (live->gen, &ended);
  const guint64 made = live->taken + level;

  if (ended || level >= live->capacity)
    live->period = live->frame_time;
  else if (GST_CLOCK_TIME_IS_VALID (live->mark_time)
      && made < live->mark_made + block)
    return;
  else if (GST_CLOCK_TIME_IS_VALID (live->mark_time))
    live->period = CLAMP ((now - live->mark_time) / (made - live->mark_made),
        live->frame_time, longest);
  live->mark_time = now;
  live->mark_made = made;
}

static GstFlowReturn
fail (GstDualParalLive * live)
{
  DpStats stats;

  dp_engine_get_stats (live->gen->engine, &stats);
  GST_ELEMENT_ERROR (live->src, STREAM, FAILED,
      ("A frame was not made in time: the generation runs at %.2f of real time. "
          "Fewer steps, a smaller size or more devices make it faster; another "
          "underrun-policy lives with it.", stats.realtime_factor),
      ("due at running time %" GST_TIME_FORMAT, GST_TIME_ARGS (live->due)));
  return GST_FLOW_ERROR;
}

/* -- the loop */

static GstFlowReturn
show (GstDualParalLive * live, GstClockTime now, GstDualParalRelease * release)
{
  GstDualParalUnderrunPolicy policy;
  gint max_repeat, fps_n, fps_d;
  GstClockTime longest;
  GstFlowReturn flow;

  GST_OBJECT_LOCK (live->src);
  policy = live->gen->settings->underrun_policy;
  max_repeat = live->gen->settings->max_repeat;
  fps_n = live->gen->settings->min_framerate_n;
  fps_d = live->gen->settings->min_framerate_d;
  GST_OBJECT_UNLOCK (live->src);
  longest = longest_period (live, fps_n, fps_d);
  if (policy == GST_DUALPARAL_UNDERRUN_SLOW) {
    adapt (live, now, longest);
  } else {
    live->period = live->frame_time;
    live->mark_time = GST_CLOCK_TIME_NONE;
  }

  flow = flow_of (take (live, 0));
  if (flow != GST_FLOW_OK)
    return flow;
  if (live->fresh)
    return leave (live, GST_DUALPARAL_FRESH, release);

  report_miss (live, now);
  switch (policy) {
    case GST_DUALPARAL_UNDERRUN_REPEAT:
      return repeat (live, now, max_repeat, release);
    case GST_DUALPARAL_UNDERRUN_GAP:
      return gap (live, now);
    case GST_DUALPARAL_UNDERRUN_SLOW:
      return slow (live, now, longest, release);
    case GST_DUALPARAL_UNDERRUN_ERROR:
      return fail (live);
    case GST_DUALPARAL_UNDERRUN_STALL:
      break;
  }
  return stall (live);
}

GstFlowReturn
gst_dualparal_live_next (GstDualParalLive * live, GstDualParalRelease * release)
{
  GstFlowReturn flow;
  GstClockTime now, tolerated;
  gboolean placeholder;

  GST_OBJECT_LOCK (live->src);
  placeholder = live->gen->settings->startup_policy ==
      GST_DUALPARAL_STARTUP_PLACEHOLDER;
  /* Where nothing is queued the sink holds us until it showed the one before */
  tolerated = MAX (live->latency, live->period);
  GST_OBJECT_UNLOCK (live->src);

  for (;;) {
    flow = wait_until_due (live, &now);
    if (flow == GST_FLOW_OK && !live->primed)
      flow = prime (live);
    if (flow != GST_FLOW_OK)
      return flow;

    if (!live->primed && !placeholder) {
      live->due = GST_CLOCK_TIME_NONE;
      if (!gst_dualparal_generator_wait (live->gen, PRIME_US))
        return GST_FLOW_FLUSHING;
      continue;
    }
    if (!GST_CLOCK_TIME_IS_VALID (live->due)) {
      live->due = now;
      live->discont = TRUE;
    } else if (live->late) {
      if (live->fresh)
        catch_up (live, now);
    } else if (!live->rewound && (now > live->due + tolerated
        || live->due > now + 2 * live->period)) {
      GST_DEBUG_OBJECT (live->src, "%" GST_TIME_FORMAT " is far from %"
          GST_TIME_FORMAT, GST_TIME_ARGS (now), GST_TIME_ARGS (live->due));
      live->due = now;
      live->discont = TRUE;
    }

    if (!live->primed)
      return leave (live, GST_DUALPARAL_PLACEHOLDER, release);
    flow = show (live, now, release);
    if (flow != AGAIN)
      return flow;
  }
}

gboolean
gst_dualparal_live_get_latency (GstDualParalLive * live, GstClockTime * min,
    GstClockTime * max)
{
  GST_OBJECT_LOCK (live->src);
  *min = live->frame_time;
  *max = live->frame_time * live->capacity;
  GST_OBJECT_UNLOCK (live->src);
  return *max > 0;
}

void
gst_dualparal_live_add_stats (GstDualParalLive * live, GstStructure * stats)
{
  guint64 due;

  g_mutex_lock (&live->gen->lock);
  due = live->in_time + live->missed;
  gst_structure_set (stats, "repeated", G_TYPE_UINT64, live->repeated,
      "placeholders", G_TYPE_UINT64, live->placeholders,
      "underruns", G_TYPE_UINT64, live->underruns,
      "missed", G_TYPE_UINT64, live->missed,
      "deadline-attainment", G_TYPE_DOUBLE,
      due > 0 ? (gdouble) live->in_time / due : 1.0,
      "stall-time", GST_TYPE_CLOCK_TIME, live->stall_time, NULL);
  g_mutex_unlock (&live->gen->lock);
}
