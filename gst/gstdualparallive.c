/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparallive.h"

#include "gstdualparalmessages.h"

#define GST_CAT_DEFAULT gst_dualparal_src_debug

/* Not a result of GStreamer's: look again what is due */
#define AGAIN GST_FLOW_CUSTOM_SUCCESS
/* One late block may be a hiccup; with the second, before the queue was full again, the generation
 * is too slow */
#define SETBACKS 2

struct _GstDualParalLive
{
  GstBaseSrc *src;
  GstDualParalPoster *poster;
  GstDualParalGenerator *gen;
  GstDualParalSettings *settings;

  /* -- protected by lock */
  GMutex lock;
  GCond cond;                   /* paused or flushing changed */
  GstClockID clock_id;
  gboolean paused, flushing;
  GThread *pausing;             /* is on its way to PAUSED */
  GstClockTime latency;         /* of the pipeline: sinks show that much later */
  GstClockTime max_latency;     /* of the source; 0: never started */
  guint64 repeated, placeholders, underruns;
  guint64 in_time, missed;      /* times at which there was a frame, or none */
  GstClockTime stall_time;
  guint64 delays;               /* by downstream, and how long they were in all */
  GstClockTime delay_time;

  /* -- written with lock, by start() and the streaming thread */
  GstClockTime frame_time;      /* that of the caps */

  /* -- owned by the streaming thread; times are running times */
  guint prebuffer, capacity;    /* frames to begin with, and in a full queue */
  GstClockTime due;             /* of the next picture; none: when it is there */
  GstClockTime period;          /* frame_time, or made_period by the policy slow */
  GstClockTime made_period;     /* in which the latest block's frames were made, each */
  guint setbacks;               /* blocks that came too late since the queue was full */
  guint64 setback_taken;        /* frames that were taken at the latest of these */
  gboolean primed;              /* the frames to begin with were there */
  gboolean fresh;               /* the frame in hand was not shown */
  gboolean late;                /* what is due is shown when it is there */
  gboolean discont;
  gboolean rewound;             /* due is 0, whatever the clock says */
  gboolean pushed;              /* nothing was waited for since a picture left, so it is
                                 * downstream that had it until now */
  GstClockTime reported;        /* the latest that was missed and told */
  gboolean missing;             /* since the last fresh one */
  gboolean is_missed;           /* what is due is counted as missed */
  gboolean out_missed;          /* the same of the latest that left */
  gint in_a_row;                /* repeats */
  guint64 taken;                /* frames, in all */
  guint64 mark_made;            /* taken or waiting at mark_time */
  GstClockTime mark_time;
  GstDualParalRelease out;      /* the latest, due at out_due */
  GstClockTime out_due;
  gboolean is_out;
};

GstDualParalLive *
gst_dualparal_live_new (GstBaseSrc * src, GstDualParalPoster * poster,
    GstDualParalGenerator * gen, GstDualParalSettings * settings)
{
  GstDualParalLive *live = g_new0 (GstDualParalLive, 1);

  live->src = src;
  live->poster = poster;
  live->gen = gen;
  live->settings = settings;
  g_mutex_init (&live->lock);
  g_cond_init (&live->cond);
  return live;
}

void
gst_dualparal_live_free (GstDualParalLive * live)
{
  g_mutex_clear (&live->lock);
  g_cond_clear (&live->cond);
  g_free (live);
}

void
gst_dualparal_live_start (GstDualParalLive * live)
{
  const DpModelInfo *model =
      dp_plan_model (gst_dualparal_generator_plan (live->gen));

  gst_dualparal_generator_get_queue (live->gen, &live->prebuffer,
      &live->capacity);
  gst_dualparal_live_set_framerate (live, model->fps_n, model->fps_d);
  gst_dualparal_live_set_latency (live, 0);
  gst_dualparal_live_restart (live);
  live->due = live->reported = GST_CLOCK_TIME_NONE;
  live->taken = 0;
  live->discont = FALSE;

  g_mutex_lock (&live->lock);
  live->paused = TRUE;
  live->repeated = live->placeholders = live->underruns = live->stall_time = 0;
  live->in_time = live->missed = 0;
  live->delays = live->delay_time = 0;
  g_mutex_unlock (&live->lock);
}

gboolean
gst_dualparal_live_set_framerate (GstDualParalLive * live, gint fps_n,
    gint fps_d)
{
  const GstClockTime frame_time =
      gst_util_uint64_scale (GST_SECOND, fps_d, fps_n);
  gboolean changed;

  live->period = live->made_period = frame_time;
  g_mutex_lock (&live->lock);
  changed = live->frame_time != frame_time;
  live->frame_time = frame_time;
  live->max_latency = frame_time * live->capacity;
  g_mutex_unlock (&live->lock);
  return changed;
}

void
gst_dualparal_live_set_latency (GstDualParalLive * live, GstClockTime latency)
{
  g_mutex_lock (&live->lock);
  live->latency = latency;
  g_mutex_unlock (&live->lock);
}

void
gst_dualparal_live_restart (GstDualParalLive * live)
{
  live->primed = live->fresh = live->late = live->missing = live->rewound =
      live->is_out = live->is_missed = live->pushed = FALSE;
  live->in_a_row = 0;
  live->setbacks = 0;
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

/* With the lock */
static void
gst_dualparal_live_wake (GstDualParalLive * live)
{
  if (live->clock_id)
    gst_clock_id_unschedule (live->clock_id);
  g_cond_broadcast (&live->cond);
}

void
gst_dualparal_live_set_paused (GstDualParalLive * live, gboolean paused,
    gboolean on_the_way)
{
  g_mutex_lock (&live->lock);
  live->paused = paused;
  live->pausing = on_the_way ? g_thread_self () : NULL;
  gst_dualparal_live_wake (live);
  g_mutex_unlock (&live->lock);
  gst_dualparal_generator_wake (live->gen);
}

/* The base class of 1.24 and later unlocks on the way to PAUSED and takes that back only before it
 * asks for the next buffer. If we returned FLUSHING, and PLAYING came quickly, it would take that
 * for the end of the stream. */
gboolean
gst_dualparal_live_is_pausing (GstDualParalLive * live)
{
  gboolean pausing;

  g_mutex_lock (&live->lock);
  pausing = live->pausing == g_thread_self ();
  g_mutex_unlock (&live->lock);
  return pausing;
}

void
gst_dualparal_live_set_flushing (GstDualParalLive * live, gboolean flushing)
{
  g_mutex_lock (&live->lock);
  live->flushing = flushing;
  gst_dualparal_live_wake (live);
  g_mutex_unlock (&live->lock);
}

/* -- waiting */

/* The base class of 1.24 and later takes its unlock() of the last PAUSED back in the streaming
 * thread. When that comes late, it also takes back one that was meant to last; the pad is still
 * flushing then. */
static gboolean
gst_dualparal_live_is_flushing (GstDualParalLive * live)
{
  return live->flushing || GST_PAD_IS_FLUSHING (live->src->srcpad);
}

/* Until something is due, and in PLAYING; `now` is the running time then */
static GstFlowReturn
gst_dualparal_live_wait_until_due (GstDualParalLive * live, GstClockTime * now)
{
  GstElement *element = GST_ELEMENT (live->src);
  gboolean flushing, wait;
  GstClock *clock;
  GstClockTime base_time, time;
  GstClockID id;

  for (;;) {
    g_mutex_lock (&live->lock);
    if (live->paused) {
      live->mark_time = GST_CLOCK_TIME_NONE;
      live->pushed = FALSE;
    }
    while (live->paused && !gst_dualparal_live_is_flushing (live))
      g_cond_wait (&live->cond, &live->lock);
    flushing = gst_dualparal_live_is_flushing (live);
    g_mutex_unlock (&live->lock);
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
    g_mutex_lock (&live->lock);
    wait = !live->paused && !gst_dualparal_live_is_flushing (live);
    if (wait)
      live->clock_id = id;
    g_mutex_unlock (&live->lock);
    if (wait)
      gst_clock_id_wait (id, NULL);
    live->pushed = FALSE;
    g_mutex_lock (&live->lock);
    live->clock_id = NULL;
    g_mutex_unlock (&live->lock);
    gst_clock_id_unref (id);
    gst_object_unref (clock);
  }
}

static GstFlowReturn
gst_dualparal_live_take (GstDualParalLive * live)
{
  GstFlowReturn flow = GST_FLOW_OK;

  if (!live->fresh) {
    flow = gst_dualparal_generator_pull (live->gen, &live->fresh);
    live->taken += live->fresh;
  }
  return flow;
}

/* Until there is a frame, for so long (< 0: no limit), or until something else changes */
static GstFlowReturn
gst_dualparal_live_await (GstDualParalLive * live, gint64 timeout_us)
{
  GstFlowReturn flow = GST_FLOW_FLUSHING;

  if (gst_dualparal_generator_wait (live->gen, 1, timeout_us))
    flow = gst_dualparal_live_take (live);
  return flow == GST_FLOW_OK ? AGAIN : flow;
}

/* Whether the prebuffer is full */
static GstFlowReturn
gst_dualparal_live_prime (GstDualParalLive * live)
{
  const GstFlowReturn flow = gst_dualparal_live_take (live);
  gboolean ended;
  guint have;

  if (flow == GST_FLOW_OK && live->fresh) {
    have = 1 + gst_dualparal_generator_level (live->gen, &ended);
    live->primed = ended || have >= live->prebuffer;
    if (live->primed)
      GST_INFO_OBJECT (live->src, "%u frames are ready: the video begins",
          have);
  }
  return flow;
}

/* -- what leaves */

static GstFlowReturn
gst_dualparal_live_leave (GstDualParalLive * live, GstDualParalPicture picture,
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
  g_mutex_lock (&live->lock);
  live->repeated += picture == GST_DUALPARAL_REPEATED;
  live->placeholders += picture == GST_DUALPARAL_PLACEHOLDER;
  live->in_time += picture == GST_DUALPARAL_FRESH && !live->is_missed;
  g_mutex_unlock (&live->lock);
  if (picture == GST_DUALPARAL_REPEATED)
    gst_dualparal_generator_mark (live->gen, "repeated");

  live->discont = live->rewound = FALSE;
  live->out = *release;
  live->out_due = live->due;
  live->is_out = live->pushed = TRUE;
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
  g_mutex_lock (&live->lock);
  live->repeated -= live->out.picture == GST_DUALPARAL_REPEATED;
  live->placeholders -= live->out.picture == GST_DUALPARAL_PLACEHOLDER;
  live->in_time -= live->out.picture == GST_DUALPARAL_FRESH
      && !live->out_missed;
  g_mutex_unlock (&live->lock);
  return live->out.picture == GST_DUALPARAL_FRESH;
}

/* -- underruns and delays */

/* What is due is late; an application tells by the cause whether another model or another encoder
 * would help */
static void
gst_dualparal_live_post_qos (GstDualParalLive * live, GstClockTime now,
    const gchar * cause)
{
  const GstSegment *segment = &live->src->segment;
  const GstClockTime pts = gst_segment_position_from_running_time (segment,
      GST_FORMAT_TIME, live->due);
  GstMessage *message;

  message = gst_message_new_qos (GST_OBJECT (live->src), TRUE, live->due,
      gst_segment_to_stream_time (segment, GST_FORMAT_TIME, pts), pts,
      live->period);
  gst_message_set_qos_values (message, GST_CLOCK_DIFF (live->due, now), 1.0,
      1000000);
  gst_message_set_qos_stats (message, GST_FORMAT_BUFFERS, live->taken,
      live->repeated);
  gst_structure_set (gst_message_writable_structure (message), "cause",
      G_TYPE_STRING, cause, NULL);
  gst_dualparal_poster_post (live->poster, message);
}

static guint
gst_dualparal_live_block_frames (GstDualParalLive * live)
{
  const DpPlan *plan = gst_dualparal_generator_plan (live->gen);

  return dp_plan_settings (plan)->block_latents *
      dp_plan_model (plan)->temporal_scale;
}

/* The frames ran out: a setback, unless it is for the same late block */
static void
gst_dualparal_live_count_setback (GstDualParalLive * live)
{
  if (live->setbacks > 0 && live->taken < live->setback_taken +
      gst_dualparal_live_block_frames (live))
    return;
  live->setback_taken = live->taken;
  live->setbacks++;
  if (live->setbacks == SETBACKS)
    GST_INFO_OBJECT (live->src, "the generation does not keep up; the policy "
        "adaptive slows down until the queue is full");
}

static void
gst_dualparal_live_report_miss (GstDualParalLive * live, GstClockTime now)
{
  if (live->reported == live->due)
    return;
  live->reported = live->due;
  g_mutex_lock (&live->lock);
  live->underruns += !live->missing;
  live->missed++;
  g_mutex_unlock (&live->lock);
  if (!live->missing) {
    gst_dualparal_generator_mark (live->gen, "underrun");
    gst_dualparal_live_count_setback (live);
  }
  live->missing = live->is_missed = TRUE;
  GST_DEBUG_OBJECT (live->src, "no frame for %" GST_TIME_FORMAT ", now %"
      GST_TIME_FORMAT, GST_TIME_ARGS (live->due), GST_TIME_ARGS (now));
  gst_dualparal_live_post_qos (live, now, "generation");
}

/* Downstream asked so late for the next picture that its time is over */
static void
gst_dualparal_live_report_delay (GstDualParalLive * live, GstClockTime now)
{
  GST_DEBUG_OBJECT (live->src, "downstream is %" GST_TIME_FORMAT " too slow",
      GST_TIME_ARGS (now - live->due));
  g_mutex_lock (&live->lock);
  live->delays++;
  live->delay_time += now - live->due;
  g_mutex_unlock (&live->lock);
  gst_dualparal_generator_mark (live->gen, "delayed");
  gst_dualparal_live_post_qos (live, now, "downstream");
}

static void
gst_dualparal_live_add_stall (GstDualParalLive * live, GstClockTime time)
{
  g_mutex_lock (&live->lock);
  live->stall_time += time;
  g_mutex_unlock (&live->lock);
}

/* What was due leaves now */
static void
gst_dualparal_live_catch_up (GstDualParalLive * live, GstClockTime now)
{
  if (live->late && now > live->due) {
    GST_DEBUG_OBJECT (live->src, "nothing left for %" GST_TIME_FORMAT,
        GST_TIME_ARGS (now - live->due));
    gst_dualparal_live_add_stall (live, now - live->due);
    live->due = now;
  }
  live->late = FALSE;
}

/* Nothing leaves until there is a frame */
static GstFlowReturn
gst_dualparal_live_stall (GstDualParalLive * live)
{
  GST_DEBUG_OBJECT (live->src, "stalls until there is a frame");
  live->late = TRUE;
  live->discont = TRUE;
  return gst_dualparal_live_await (live, -1);
}

static GstFlowReturn
gst_dualparal_live_repeat (GstDualParalLive * live, GstClockTime now,
    gint max_repeat, GstDualParalRelease * release)
{
  if (!gst_dualparal_generator_frame (live->gen) || (max_repeat >= 0
          && live->in_a_row >= max_repeat))
    return gst_dualparal_live_stall (live);
  gst_dualparal_live_catch_up (live, now);
  live->in_a_row++;
  return gst_dualparal_live_leave (live, GST_DUALPARAL_REPEATED, release);
}

static GstFlowReturn
gst_dualparal_live_gap (GstDualParalLive * live, GstClockTime now)
{
  GstPad *pad = GST_BASE_SRC_PAD (live->src);
  GstEvent *segment = gst_pad_get_sticky_event (pad, GST_EVENT_SEGMENT, 0);

  /* Nothing may come before the segment, which comes with a buffer */
  if (!segment)
    return gst_dualparal_live_stall (live);
  gst_event_unref (segment);
  gst_dualparal_live_catch_up (live, now);
  GST_DEBUG_OBJECT (live->src, "GAP for %" GST_TIME_FORMAT,
      GST_TIME_ARGS (live->due));
  gst_pad_push_event (pad,
      gst_event_new_gap (gst_segment_position_from_running_time (&live->
              src->segment, GST_FORMAT_TIME, live->due), live->period));
  live->due += live->period;
  live->is_missed = FALSE;
  live->discont = TRUE;
  gst_dualparal_live_add_stall (live, live->period);
  return AGAIN;
}

static GstClockTime
gst_dualparal_live_longest_period (GstDualParalLive * live)
{
  GstClockTime longest = 2 * live->frame_time;
  gint fps_n, fps_d;

  gst_dualparal_settings_min_framerate (live->settings, &fps_n, &fps_d);
  if (fps_n > 0)
    longest = gst_util_uint64_scale (GST_SECOND, fps_d, fps_n);
  return MAX (longest, live->frame_time);
}

/* Waits longer for the frame, which then leaves when it is there */
static GstFlowReturn
gst_dualparal_live_slow (GstDualParalLive * live, GstClockTime now,
    GstClockTime longest, GstDualParalRelease * release)
{
  const GstClockTime last = live->out_due + longest;

  live->late = TRUE;
  if (now >= last)
    return gst_dualparal_live_repeat (live, last, -1, release);
  return gst_dualparal_live_await (live, GST_TIME_AS_USECONDS (last - now));
}

/* Frames come in bursts, so their rate is measured over a block. If the queue is full, all that is
 * known is that the generation is fast enough. */
static void
gst_dualparal_live_measure (GstDualParalLive * live, GstClockTime now,
    GstClockTime longest)
{
  const GstClockTime before = live->made_period;
  gboolean ended;
  const guint level = gst_dualparal_generator_level (live->gen, &ended);
  const guint64 made = live->taken + level;

  if (ended || level >= live->capacity) {
    live->made_period = live->frame_time;
    live->setbacks = 0;
  } else if (GST_CLOCK_TIME_IS_VALID (live->mark_time)
      && made < live->mark_made + gst_dualparal_live_block_frames (live))
    return;
  else if (GST_CLOCK_TIME_IS_VALID (live->mark_time))
    live->made_period = CLAMP ((now - live->mark_time) / (made - live->mark_made),
        live->frame_time, longest);
  live->mark_time = now;
  live->mark_made = made;
  if (live->made_period != before)
    GST_DEBUG_OBJECT (live->src, "a frame takes %" GST_TIME_FORMAT " now",
        GST_TIME_ARGS (live->made_period));
}

static GstFlowReturn
gst_dualparal_live_fail (GstDualParalLive * live)
{
  DpStats stats;

  gst_dualparal_generator_get_stats (live->gen, &stats);
  GST_ELEMENT_ERROR (live->src, STREAM, FAILED,
      ("A frame was not ready in time: the generation runs at %.2f of real time. "
          "Use fewer steps, a smaller size, more devices or another "
          "underrun-policy.", stats.realtime_factor),
      ("due at running time %" GST_TIME_FORMAT, GST_TIME_ARGS (live->due)));
  return GST_FLOW_ERROR;
}

/* -- the loop */

/* The one in force: adaptive is one of two */
static GstDualParalUnderrunPolicy
gst_dualparal_live_policy (GstDualParalLive * live)
{
  const GstDualParalUnderrunPolicy policy = gst_dualparal_settings_number
      (live->settings, GST_DUALPARAL_PROP_UNDERRUN_POLICY);

  if (policy != GST_DUALPARAL_UNDERRUN_ADAPTIVE)
    return policy;
  return live->setbacks >= SETBACKS ? GST_DUALPARAL_UNDERRUN_SLOW :
      GST_DUALPARAL_UNDERRUN_REPEAT;
}

static GstFlowReturn
gst_dualparal_live_show (GstDualParalLive * live, GstClockTime now,
    GstDualParalRelease * release)
{
  const GstClockTime longest = gst_dualparal_live_longest_period (live);
  GstFlowReturn flow;

  gst_dualparal_live_measure (live, now, longest);
  live->period = gst_dualparal_live_policy (live) ==
      GST_DUALPARAL_UNDERRUN_SLOW ? live->made_period : live->frame_time;

  flow = gst_dualparal_live_take (live);
  if (flow != GST_FLOW_OK)
    return flow;
  if (live->fresh)
    return gst_dualparal_live_leave (live, GST_DUALPARAL_FRESH, release);

  gst_dualparal_live_report_miss (live, now);
  switch (gst_dualparal_live_policy (live)) {
    case GST_DUALPARAL_UNDERRUN_REPEAT:
      return gst_dualparal_live_repeat (live, now,
          gst_dualparal_settings_number (live->settings,
              GST_DUALPARAL_PROP_MAX_REPEAT), release);
    case GST_DUALPARAL_UNDERRUN_GAP:
      return gst_dualparal_live_gap (live, now);
    case GST_DUALPARAL_UNDERRUN_SLOW:
      return gst_dualparal_live_slow (live, now, longest, release);
    case GST_DUALPARAL_UNDERRUN_ERROR:
      return gst_dualparal_live_fail (live);
    case GST_DUALPARAL_UNDERRUN_STALL:
    case GST_DUALPARAL_UNDERRUN_ADAPTIVE:      /* is never in force */
      break;
  }
  return gst_dualparal_live_stall (live);
}

GstFlowReturn
gst_dualparal_live_next (GstDualParalLive * live, GstDualParalRelease * release)
{
  const gboolean placeholder = gst_dualparal_settings_number (live->settings,
      GST_DUALPARAL_PROP_STARTUP_POLICY) == GST_DUALPARAL_STARTUP_PLACEHOLDER;
  GstFlowReturn flow;
  GstClockTime now, tolerated;

  /* Without a queue the sink blocks us until it has shown the previous picture */
  g_mutex_lock (&live->lock);
  tolerated = MAX (live->latency, live->period);
  g_mutex_unlock (&live->lock);

  for (;;) {
    flow = gst_dualparal_live_wait_until_due (live, &now);
    if (flow == GST_FLOW_OK && !live->primed)
      flow = gst_dualparal_live_prime (live);
    if (flow != GST_FLOW_OK)
      return flow;

    if (!live->primed && !placeholder) {
      live->due = GST_CLOCK_TIME_NONE;
      if (!gst_dualparal_generator_wait (live->gen, live->fresh ?
              live->prebuffer - 1 : 1, -1))
        return GST_FLOW_FLUSHING;
      continue;
    }
    if (!GST_CLOCK_TIME_IS_VALID (live->due)) {
      live->due = now;
      live->discont = TRUE;
    } else if (live->late) {
      if (live->fresh)
        gst_dualparal_live_catch_up (live, now);
    } else if (!live->rewound && (now > live->due + tolerated
        || live->due > now + 2 * live->period)) {
      GST_DEBUG_OBJECT (live->src, "it is %" GST_TIME_FORMAT ", far from %"
          GST_TIME_FORMAT ": the next picture leaves now", GST_TIME_ARGS (now),
          GST_TIME_ARGS (live->due));
      if (live->pushed && now > live->due)
        gst_dualparal_live_report_delay (live, now);
      live->due = now;
      live->discont = TRUE;
    }
    live->pushed = FALSE;

    if (!live->primed)
      return gst_dualparal_live_leave (live, GST_DUALPARAL_PLACEHOLDER,
          release);
    flow = gst_dualparal_live_show (live, now, release);
    if (flow != AGAIN)
      return flow;
  }
}

gboolean
gst_dualparal_live_get_latency (GstDualParalLive * live, GstClockTime * min,
    GstClockTime * max)
{
  g_mutex_lock (&live->lock);
  *min = live->frame_time;
  *max = live->max_latency;
  g_mutex_unlock (&live->lock);
  return *max > 0;
}

void
gst_dualparal_live_add_stats (GstDualParalLive * live, GstStructure * stats)
{
  guint64 due;

  g_mutex_lock (&live->lock);
  due = live->in_time + live->missed;
  gst_structure_set (stats, "repeated", G_TYPE_UINT64, live->repeated,
      "placeholders", G_TYPE_UINT64, live->placeholders,
      "underruns", G_TYPE_UINT64, live->underruns,
      "missed", G_TYPE_UINT64, live->missed,
      "deadline-attainment", G_TYPE_DOUBLE,
      due > 0 ? (gdouble) live->in_time / due : 1.0,
      "stall-time", GST_TYPE_CLOCK_TIME, live->stall_time,
      "downstream-delays", G_TYPE_UINT64, live->delays,
      "downstream-delay-time", GST_TYPE_CLOCK_TIME, live->delay_time, NULL);
  g_mutex_unlock (&live->lock);
}
