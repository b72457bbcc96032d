/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalsettings.h"

#include <string.h>

#define DEFAULT_LINGER 10
#define READY (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | \
    GST_PARAM_MUTABLE_READY)
#define PLAYING (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | \
    GST_PARAM_MUTABLE_PLAYING)

void
gst_dualparal_settings_init (GstDualParalSettings * settings)
{
  memset (settings, 0, sizeof (*settings));
  settings->devices = g_strdup ("auto");
  settings->num_frames = -1;
  settings->linger = DEFAULT_LINGER;
  settings->max_repeat = -1;
  settings->min_framerate_d = 1;
  settings->marking = GST_DUALPARAL_MARKING_ALL;
}

void
gst_dualparal_settings_clear (GstDualParalSettings * settings)
{
  g_clear_pointer (&settings->model, g_free);
  g_clear_pointer (&settings->prompt, g_free);
  g_clear_pointer (&settings->negative_prompt, g_free);
  g_clear_pointer (&settings->devices, g_free);
  g_clear_pointer (&settings->placeholder, g_free);
  g_clear_pointer (&settings->storyboard, g_free);
  g_clear_pointer (&settings->trace, g_free);
}

/* What to make: model, text, noise, sampling */
static void
install_picture_properties (GObjectClass * klass)
{
  /**
   * GstDualParalSrc:model:
   *
   * Directory of a model in diffusers layout. %NULL is the embedded model, a
   * tiny one that plays in real time on a CPU.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_MODEL,
      g_param_spec_string ("model", "Model",
          "Directory of the model in diffusers layout (NULL = the embedded one)",
          NULL, READY));
  /**
   * GstDualParalSrc:prompt:
   *
   * What the video shows, UTF-8 of at most 16 KiB. %NULL is the model's sample
   * prompt.
   *
   * Set while frames flow it takes effect with the next block that enters the
   * generation, so what is in flight and in the queue still shows the old one;
   * see the event and the message above for when it is seen. A text that cannot
   * be used is then answered by a warning message, and the property keeps its
   * value. #GstDualParalSrc::queue-prompt and an event do the same and more.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_PROMPT,
      g_param_spec_string ("prompt", "Prompt",
          "What the video shows (NULL = the model's sample prompt)", NULL,
          PLAYING));
  /**
   * GstDualParalSrc:negative-prompt:
   *
   * What the video should not show; used when #GstDualParalSrc:guidance-scale
   * is not 1. %NULL is the model's default, normally none. Changes like
   * #GstDualParalSrc:prompt.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_NEGATIVE_PROMPT,
      g_param_spec_string ("negative-prompt", "Negative prompt",
          "What the video should not show (NULL = the model's default)", NULL,
          PLAYING));
  /**
   * GstDualParalSrc:prompt-latency:
   *
   * What happens to blocks in flight when a prompt is to show as soon as can be.
   * `smooth` leaves them alone. `low` begins those anew that are still mostly
   * noise, so that the prompt shows a block or more sooner; they are then made in
   * fewer steps. Frames that are ready are played either way:
   * #GstDualParalSrc:max-queue-frames says how many those are.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_PROMPT_LATENCY,
      g_param_spec_enum ("prompt-latency", "Prompt latency",
          "What happens to blocks in flight when the prompt changes",
          GST_TYPE_DUALPARAL_PROMPT_LATENCY,
          GST_DUALPARAL_PROMPT_LATENCY_SMOOTH, PLAYING));
  /**
   * GstDualParalSrc:storyboard:
   *
   * A SubRip file (.srt) whose cues are prompts. A cue takes effect with the first
   * block that begins at its time or later, and holds until the next one; before
   * the first cue #GstDualParalSrc:prompt holds. Times count from the first frame
   * at the framerate that the video begins with.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_STORYBOARD,
      g_param_spec_string ("storyboard", "Storyboard",
          "SubRip file whose cues are prompts (NULL = none)", NULL, READY));
  /**
   * GstDualParalSrc:seed:
   *
   * Same seed, prompts, settings and kind of device: same video, bit for bit,
   * whatever the number of devices. 0 is a seed like any other.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_SEED,
      g_param_spec_uint64 ("seed", "Seed", "Seed of the noise", 0, G_MAXUINT64,
          0, READY));
  /**
   * GstDualParalSrc:steps:
   *
   * Sampling steps: more is slower and usually better.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_STEPS,
      g_param_spec_int ("steps", "Steps",
          "Sampling steps (0 = the model's default)", 0, G_MAXINT, 0, READY));
  /**
   * GstDualParalSrc:guidance-scale:
   *
   * How strictly the prompt is followed. 1 turns classifier-free guidance off
   * and halves the work.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_GUIDANCE_SCALE,
      g_param_spec_double ("guidance-scale", "Guidance scale",
          "How strictly the prompt is followed, 1 = no guidance (0 = the "
          "model's default)", 0, 100, 0, READY));
  /**
   * GstDualParalSrc:guidance-scale-2:
   *
   * #GstDualParalSrc:guidance-scale in the steps of the second transformer, for
   * models that have two (Wan2.2-A14B). When only the other is set, both have
   * its value.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_GUIDANCE_SCALE_2,
      g_param_spec_double ("guidance-scale-2", "Guidance scale 2",
          "The guidance scale of the second of two transformers (0 = the "
          "model's default)", 0, 100, 0, READY));
  /**
   * GstDualParalSrc:flow-shift:
   *
   * Shift of the noise schedule towards high noise; larger pictures want more.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_FLOW_SHIFT,
      g_param_spec_double ("flow-shift", "Flow shift",
          "Shift of the noise schedule (0 = the model's default)", 0, 100, 0,
          READY));
  /**
   * GstDualParalSrc:sampler:
   *
   * How noise becomes a picture.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_SAMPLER,
      g_param_spec_enum ("sampler", "Sampler", "How noise becomes a picture",
          GST_TYPE_DUALPARAL_SAMPLER, GST_DUALPARAL_SAMPLER_AUTO, READY));
  /**
   * GstDualParalSrc:num-frames:
   *
   * Frames of the whole video, after which the element sends EOS; -1 is without
   * end. Unlike #GstBaseSrc:num-buffers it is known to the generation, which
   * then makes no frame too many.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_NUM_FRAMES,
      g_param_spec_int64 ("num-frames", "Number of frames",
          "Frames of the whole video before EOS (-1 = endless)", -1, G_MAXINT64,
          -1, READY));
  /**
   * GstDualParalSrc:marking:
   *
   * How the video says of itself that a model made it. `tags` is for containers,
   * `meta` for whoever looks at frames, `sei` for a `dualparalsei` behind an encoder
   * of H.264 or H.265. None of it survives who wants to remove it, and only the tags
   * survive encoding again.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_MARKING,
      g_param_spec_flags ("marking", "Marking",
          "How the video says that a model made it", GST_TYPE_DUALPARAL_MARKING,
          GST_DUALPARAL_MARKING_ALL, READY));
}

/* How to make it: DualParal, devices, queue */
static void
install_engine_properties (GObjectClass * klass)
{
  /**
   * GstDualParalSrc:block-latents:
   *
   * Latent frames (4 video frames each) that are denoised together.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_BLOCK_LATENTS,
      g_param_spec_int ("block-latents", "Latent frames a block",
          "Latent frames that are denoised together (0 = the model's default)",
          0, G_MAXINT, 0, READY));
  /**
   * GstDualParalSrc:context-latents:
   *
   * Latent frames a block sees of each neighbour: they hide the seams.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_CONTEXT_LATENTS,
      g_param_spec_int ("context-latents", "Latent frames of context",
          "Latent frames a block sees of each neighbour, at most block-latents "
          "(0 = the model's default, -1 = none)", -1, G_MAXINT, 0, READY));
  /**
   * GstDualParalSrc:queue-blocks:
   *
   * Blocks in flight, at most #GstDualParalSrc:steps. More keeps more devices
   * busy, and a new prompt takes longer to be seen.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_QUEUE_BLOCKS,
      g_param_spec_int ("queue-blocks", "Blocks in flight",
          "Most blocks in flight, at most steps (0 = the model's default)", 0,
          G_MAXINT, 0, READY));
  /**
   * GstDualParalSrc:devices:
   *
   * One device a stage, separated by commas: `cpu`, `cpu,cpu`, `cuda:0`; or
   * `auto`, the first GPU where there is one that works, else the CPU.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_DEVICES,
      g_param_spec_string ("devices", "Devices",
          "One device a stage, separated by commas, or auto", "auto", READY));
  /**
   * GstDualParalSrc:max-queue-frames:
   *
   * Frames made ahead of what is played. The queue of them is the only thing
   * that holds the generation back, and what a new prompt has to wait for.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_MAX_QUEUE_FRAMES,
      g_param_spec_int ("max-queue-frames", "Frames in the queue",
          "Most frames made ahead of what is played (0 = the model's default)",
          0, G_MAXINT, 0, READY));
  /**
   * GstDualParalSrc:threads:
   *
   * Threads that all stages on the CPU share.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_THREADS,
      g_param_spec_int ("threads", "Threads",
          "Threads that the stages on the CPU share (0 = one a processor)", 0,
          G_MAXINT, 0, READY));
  /**
   * GstDualParalSrc:linger:
   *
   * For how long a loaded model is kept once the element has stopped. What starts
   * meanwhile in this process with the same model, devices and size does not load
   * it again; whatever else starts has its memory first.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_LINGER,
      g_param_spec_int ("linger", "Linger",
          "Seconds for which the loaded model is kept for the next start", 0,
          G_MAXINT, DEFAULT_LINGER, READY));
  /**
   * GstDualParalSrc:precision:
   *
   * What the model computes in.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_PRECISION,
      g_param_spec_enum ("precision", "Precision", "What the model computes in",
          GST_TYPE_DUALPARAL_PRECISION, GST_DUALPARAL_PRECISION_AUTO, READY));
  /**
   * GstDualParalSrc:text-encoder:
   *
   * Where the text encoder's weights are. Streamed, they take little of the
   * device's memory, and a prompt takes longer to be encoded. The video is the
   * same.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_TEXT_ENCODER,
      g_param_spec_enum ("text-encoder", "Text encoder",
          "Where the text encoder's weights are",
          GST_TYPE_DUALPARAL_TEXT_ENCODER, GST_DUALPARAL_TEXT_ENCODER_AUTO,
          READY));
}

/* How it goes */
static void
install_stats_properties (GObjectClass * klass)
{
  /**
   * GstDualParalSrc:stats:
   *
   * How it goes, in a structure `application/x-dualparal-stats`. Running totals
   * since the generation began:
   *
   * * `blocks`, `passes`, `frames` (#guint64): finished blocks, passes through
   *   all layers, frames decoded
   * * `queue-frames` (#guint): frames decoded and waiting
   * * `first-frame-seconds` (#gdouble): until the first frame was decoded; 0
   *   before it
   * * `realtime-factor` (#gdouble): seconds of video made per second, while
   *   nothing had to wait for frames to be taken
   * * `decode-busy` (#gdouble), `stage-busy` (#GstValueArray of #gdouble):
   *   share of that time that the decoder and each stage worked, 0 to 1
   *
   * Of the latest 256 blocks:
   *
   * * `block-load-mean`, `block-load-p95` (#gdouble): time to make a block in the
   *   time that it plays, as above; over 1 is too slow for real time. The first
   *   block does not count
   * * `block-interval-p50`, `block-interval-p95` (#GstClockTime): from one block
   *   that is there to the next one, whatever the reason
   *
   * Memory, as it is now:
   *
   * * `device-bytes` (#guint64): held on the devices, the sum of
   *   `stage-bytes` (#GstValueArray of #guint64), `decoder-bytes` and
   *   `text-encoder-bytes` (#guint64)
   * * `resident-bytes` (#guint64): of the whole process; 0 where that is not known
   *
   * Since the element was started:
   *
   * * `time-to-first-frame` (#GstClockTime): until the first frame left; 0 before
   * * `buffering-episodes` (#guint64): how often the pipeline was to pause, where
   *   the video is not live
   *
   * Of a live video since it was started:
   *
   * * `repeated`, `placeholders` (#guint64): frames sent once more, placeholders
   *   sent; `frames` counts neither
   * * `underruns` (#guint64): how often the frames ran out
   * * `missed` (#guint64): for how many pictures that were due there was no frame
   * * `deadline-attainment` (#gdouble): the share of pictures for which there was
   *   one in time; 1 before the first
   * * `stall-time` (#GstClockTime): how long nothing was sent for want of a frame
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_STATS,
      g_param_spec_boxed ("stats", "Statistics",
          "Running totals of the generation", GST_TYPE_STRUCTURE,
          G_PARAM_READABLE | G_PARAM_STATIC_STRINGS));
  /**
   * GstDualParalSrc:stats-interval:
   *
   * How often #GstDualParalSrc:stats is posted as an element message, from when
   * the element goes to PAUSED until it goes back to READY, whatever it waits for.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_STATS_INTERVAL,
      g_param_spec_uint ("stats-interval", "Interval of statistics",
          "Milliseconds from one message with the statistics to the next (0 = "
          "none)", 0, G_MAXUINT, 0, READY));
  /**
   * GstDualParalSrc:trace:
   *
   * A file that says what each device did when, for ui.perfetto.dev and
   * chrome://tracing. It is begun anew when the generation begins, is complete
   * when that ends, and at most 64 MiB long. Each element needs its own.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_TRACE,
      g_param_spec_string ("trace", "Trace",
          "File that says what was done when, in Chrome's trace format (NULL = "
          "none)", NULL, READY));
}

/* When to show it */
static void
install_live_properties (GObjectClass * klass)
{
  /**
   * GstDualParalSrc:is-live:
   *
   * Frames leave at their time of the pipeline's clock, as those of a camera do,
   * and not as soon as downstream takes them. For a stream to others: RTSP, WebRTC,
   * RTMP. Can be changed in NULL and READY only.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_IS_LIVE,
      g_param_spec_boolean ("is-live", "Live",
          "Whether frames leave at their time of the pipeline's clock", FALSE,
          READY));
  /**
   * GstDualParalSrc:prebuffer:
   *
   * Frames that are there before a live video begins, at most
   * #GstDualParalSrc:max-queue-frames; its default becomes as many. They are what
   * bridges the time from one block to the next. Of a video that is not live,
   * frames before it goes on after BUFFERING.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_PREBUFFER,
      g_param_spec_int ("prebuffer", "Frames to begin with",
          "Frames that are there before a live video begins (0 = a block)", 0,
          1 << 20, 0, READY));
  /**
   * GstDualParalSrc:underrun-policy:
   *
   * What a live video does when a frame was not made in time. A QOS message is
   * posted for each time a picture was due and not there.
   *
   * * `repeat` sends the frame before again, with the GAP flag, so that the rate
   *   is always that of the caps; see #GstDualParalSrc:max-repeat
   * * `stall` sends nothing; the frame leaves when it is there, with the timestamp
   *   of that time and DISCONT
   * * `gap` sends a GAP event instead of each frame
   * * `slow` plays as slowly as frames are made, not slower than
   *   #GstDualParalSrc:min-framerate, below which it repeats; the caps stay
   * * `error` posts an error and ends the stream
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_UNDERRUN_POLICY,
      g_param_spec_enum ("underrun-policy", "Underrun policy",
          "What a live video does when a frame was not made in time",
          GST_TYPE_DUALPARAL_UNDERRUN_POLICY, GST_DUALPARAL_UNDERRUN_REPEAT,
          PLAYING));
  /**
   * GstDualParalSrc:max-repeat:
   *
   * How often the policy `repeat` sends the same frame again, before it does as
   * `stall` does.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_MAX_REPEAT,
      g_param_spec_int ("max-repeat", "Most repeats",
          "Most repeats of a frame in a row (-1 = without end)", -1, G_MAXINT,
          -1, PLAYING));
  /**
   * GstDualParalSrc:min-framerate:
   *
   * The fewest frames a second that the policy `slow` goes down to.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_MIN_FRAMERATE,
      gst_param_spec_fraction ("min-framerate", "Lowest framerate",
          "What the policy slow goes down to (0/1 = half of the framerate)", 0,
          1, G_MAXINT, 1, 0, 1, PLAYING));
  /**
   * GstDualParalSrc:startup-policy:
   *
   * What a live video shows until the first #GstDualParalSrc:prebuffer frames are
   * there. With `placeholder` pictures flow at once, with the GAP flag; who waits
   * for the first one, such as an RTSP server, need not wait for the model.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_STARTUP_POLICY,
      g_param_spec_enum ("startup-policy", "Startup policy",
          "What a live video shows until its first frames are there",
          GST_TYPE_DUALPARAL_STARTUP_POLICY, GST_DUALPARAL_STARTUP_WAIT,
          READY));
  /**
   * GstDualParalSrc:placeholder:
   *
   * A file with the picture that #GstDualParalSrc:startup-policy shows: PNG, JPEG
   * or whatever GStreamer can decode here. It is scaled into the size of the
   * video. %NULL is dark grey.
   *
   * Since: 0.1
   */
  g_object_class_install_property (klass, GST_DUALPARAL_PROP_PLACEHOLDER,
      g_param_spec_string ("placeholder", "Placeholder",
          "File of the picture shown until the first frames are there (NULL = "
          "dark grey)", NULL, READY));
}

void
gst_dualparal_settings_install_properties (GObjectClass * klass)
{
  install_picture_properties (klass);
  install_live_properties (klass);
  install_engine_properties (klass);
  install_stats_properties (klass);
}

#define FIELD(id, name) \
    {GST_DUALPARAL_PROP_##id, G_STRUCT_OFFSET (GstDualParalSettings, name)}

/* Where the value of a property is, or NULL; its type is the property's */
static gpointer
field_of (GstDualParalSettings * settings, guint prop_id)
{
  static const struct
  {
    guint prop_id;
    gsize offset;
  } fields[] = {
    FIELD (MODEL, model),
    FIELD (PROMPT, prompt),
    FIELD (NEGATIVE_PROMPT, negative_prompt),
    FIELD (PROMPT_LATENCY, prompt_latency),
    FIELD (STORYBOARD, storyboard),
    FIELD (DEVICES, devices),
    FIELD (SEED, seed),
    FIELD (NUM_FRAMES, num_frames),
    FIELD (GUIDANCE_SCALE, guidance_scale),
    FIELD (GUIDANCE_SCALE_2, guidance_scale_2),
    FIELD (FLOW_SHIFT, flow_shift),
    FIELD (SAMPLER, sampler),
    FIELD (PRECISION, precision),
    FIELD (TEXT_ENCODER, text_encoder),
    FIELD (STEPS, steps),
    FIELD (BLOCK_LATENTS, block_latents),
    FIELD (CONTEXT_LATENTS, context_latents),
    FIELD (QUEUE_BLOCKS, queue_blocks),
    FIELD (MAX_QUEUE_FRAMES, max_queue_frames),
    FIELD (THREADS, threads),
    FIELD (LINGER, linger),
    FIELD (IS_LIVE, is_live),
    FIELD (PREBUFFER, prebuffer),
    FIELD (UNDERRUN_POLICY, underrun_policy),
    FIELD (MAX_REPEAT, max_repeat),
    FIELD (MIN_FRAMERATE, min_framerate_n),
    FIELD (STARTUP_POLICY, startup_policy),
    FIELD (PLACEHOLDER, placeholder),
    FIELD (MARKING, marking),
    FIELD (STATS_INTERVAL, stats_interval),
    FIELD (TRACE, trace),
  };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (fields); i++)
    if (fields[i].prop_id == prop_id)
      return G_STRUCT_MEMBER_P (settings, fields[i].offset);
  return NULL;
}

gboolean
gst_dualparal_settings_set (GstDualParalSettings * settings, guint prop_id,
    const GValue * value)
{
  gpointer field = field_of (settings, prop_id);

  if (!field)
    return FALSE;
  switch (G_TYPE_FUNDAMENTAL (G_VALUE_TYPE (value))) {
    case G_TYPE_STRING:
      g_free (*(gchar **) field);
      *(gchar **) field = g_value_dup_string (value);
      break;
    case G_TYPE_BOOLEAN:
      *(gboolean *) field = g_value_get_boolean (value);
      break;
    case G_TYPE_INT:
      *(gint *) field = g_value_get_int (value);
      break;
    case G_TYPE_UINT:
      *(guint *) field = g_value_get_uint (value);
      break;
    case G_TYPE_INT64:
      *(gint64 *) field = g_value_get_int64 (value);
      break;
    case G_TYPE_UINT64:
      *(guint64 *) field = g_value_get_uint64 (value);
      break;
    case G_TYPE_DOUBLE:
      *(gdouble *) field = g_value_get_double (value);
      break;
    case G_TYPE_ENUM:
      *(gint *) field = g_value_get_enum (value);
      break;
    case G_TYPE_FLAGS:
      *(guint *) field = g_value_get_flags (value);
      break;
    default:                   /* the one fraction */
      settings->min_framerate_n = gst_value_get_fraction_numerator (value);
      settings->min_framerate_d = gst_value_get_fraction_denominator (value);
  }
  return TRUE;
}

gboolean
gst_dualparal_settings_get (const GstDualParalSettings * settings,
    guint prop_id, GValue * value)
{
  gconstpointer field = field_of ((GstDualParalSettings *) settings, prop_id);

  if (!field)
    return FALSE;
  switch (G_TYPE_FUNDAMENTAL (G_VALUE_TYPE (value))) {
    case G_TYPE_STRING:
      g_value_set_string (value, *(gchar * const *) field);
      break;
    case G_TYPE_BOOLEAN:
      g_value_set_boolean (value, *(const gboolean *) field);
      break;
    case G_TYPE_INT:
      g_value_set_int (value, *(const gint *) field);
      break;
    case G_TYPE_UINT:
      g_value_set_uint (value, *(const guint *) field);
      break;
    case G_TYPE_INT64:
      g_value_set_int64 (value, *(const gint64 *) field);
      break;
    case G_TYPE_UINT64:
      g_value_set_uint64 (value, *(const guint64 *) field);
      break;
    case G_TYPE_DOUBLE:
      g_value_set_double (value, *(const gdouble *) field);
      break;
    case G_TYPE_ENUM:
      g_value_set_enum (value, *(const gint *) field);
      break;
    case G_TYPE_FLAGS:
      g_value_set_flags (value, *(const guint *) field);
      break;
    default:
      gst_value_set_fraction (value, settings->min_framerate_n,
          settings->min_framerate_d);
  }
  return TRUE;
}

void
gst_dualparal_settings_set_prompts (GstDualParalSettings * settings,
    const gchar * prompt, const gchar * negative_prompt)
{
  g_free (settings->prompt);
  settings->prompt = g_strdup (prompt);
  g_free (settings->negative_prompt);
  settings->negative_prompt = g_strdup (negative_prompt);
}

static const char *
keep (GStringChunk * storage, const gchar * string)
{
  return string ? g_string_chunk_insert (storage, string) : NULL;
}

void
gst_dualparal_settings_for_engine (const GstDualParalSettings * settings,
    DpSettings * engine, GStringChunk * storage)
{
  static const char *const samplers[] = { NULL, "unipc", "euler" };
  static const char *const precisions[] = { NULL, "float32", "bfloat16",
    "fp8"
  };
  static const char *const text_encoders[] = { NULL, "resident", "streamed" };

  memset (engine, 0, sizeof (*engine));
  engine->model = keep (storage, settings->model);
  engine->devices = keep (storage, settings->devices);
  engine->sampler = samplers[settings->sampler];
  engine->precision = precisions[settings->precision];
  engine->text_encoder = text_encoders[settings->text_encoder];
  engine->steps = settings->steps;
  engine->guidance_scale = settings->guidance_scale;
  engine->guidance_scale_2 = settings->guidance_scale_2;
  engine->flow_shift = settings->flow_shift;
  engine->block_latents = settings->block_latents;
  engine->context_latents = settings->context_latents;
  engine->queue_blocks = settings->queue_blocks;
  engine->seed = settings->seed;
  engine->num_frames = settings->num_frames;
  engine->max_queue_frames = settings->max_queue_frames;
  engine->threads = settings->threads;
  engine->linger = settings->linger;
  engine->trace = keep (storage, settings->trace);
}
