/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalsettings.h"

#define DEFAULT_LINGER 10
#define READY (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | \
    GST_PARAM_MUTABLE_READY)
#define PLAYING (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | \
    GST_PARAM_MUTABLE_PLAYING)

struct _GstDualParalSettings
{
  GMutex lock;
  GValue values[GST_DUALPARAL_N_PROPS]; /* protected by lock; without `stats` */
};

static GParamSpec *props[GST_DUALPARAL_N_PROPS];

GstDualParalSettings *
gst_dualparal_settings_new (void)
{
  GstDualParalSettings *settings = g_new0 (GstDualParalSettings, 1);
  guint i;

  g_mutex_init (&settings->lock);
  for (i = 1; i < GST_DUALPARAL_N_PROPS; i++) {
    if (props[i]->flags & G_PARAM_WRITABLE)
      g_value_copy (g_param_spec_get_default_value (props[i]),
          g_value_init (&settings->values[i], props[i]->value_type));
  }
  return settings;
}

void
gst_dualparal_settings_free (GstDualParalSettings * settings)
{
  guint i;

  for (i = 1; i < GST_DUALPARAL_N_PROPS; i++)
    if (G_IS_VALUE (&settings->values[i]))
      g_value_unset (&settings->values[i]);
  g_mutex_clear (&settings->lock);
  g_free (settings);
}

/* What to make: model, text, noise, sampling */
static void
gst_dualparal_settings_init_picture_props (void)
{
  /**
   * GstDualParalSrc:model:
   *
   * Directory of a model in diffusers layout. %NULL is the embedded model, a tiny one that plays in
   * real time on a CPU.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_MODEL] = g_param_spec_string ("model", "Model",
      "Directory of the model in diffusers layout (NULL = the embedded one)",
      NULL, READY);
  /**
   * GstDualParalSrc:prompt:
   *
   * What the video shows: UTF-8, at most 16 KiB. %NULL is the model's sample prompt.
   *
   * While the video plays, a new prompt takes effect with the next new block. Blocks in flight and
   * frames in the queue still show the old one; the event and the message above say when the new
   * one is seen. If the text cannot be used, a warning message says why, and the property keeps its
   * value. #GstDualParalSrc::queue-prompt and an event do the same and more.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_PROMPT] = g_param_spec_string ("prompt", "Prompt",
      "What the video shows (NULL = the model's sample prompt)", NULL, PLAYING);
  /**
   * GstDualParalSrc:negative-prompt:
   *
   * What the video should not show. It is used if #GstDualParalSrc:guidance-scale is above 1. %NULL
   * is the model's default, normally none. Changes take effect as those of #GstDualParalSrc:prompt
   * do.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_NEGATIVE_PROMPT] =
      g_param_spec_string ("negative-prompt", "Negative prompt",
      "What the video should not show (NULL = the model's default)", NULL,
      PLAYING);
  /**
   * GstDualParalSrc:prompt-latency:
   *
   * What happens to blocks in flight when the prompt changes. `smooth` leaves them alone. `low`
   * restarts those that are still mostly noise: the prompt shows a block or more sooner, and these
   * blocks are made in fewer steps. Finished frames are played in both cases;
   * #GstDualParalSrc:max-queue-frames limits their number.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_PROMPT_LATENCY] =
      g_param_spec_enum ("prompt-latency", "Prompt latency",
      "What happens to blocks in flight when the prompt changes",
      GST_TYPE_DUALPARAL_PROMPT_LATENCY, GST_DUALPARAL_PROMPT_LATENCY_SMOOTH,
      PLAYING);
  /**
   * GstDualParalSrc:storyboard:
   *
   * A SubRip file (.srt) whose cues are prompts. A cue takes effect with the first block that
   * begins at its time or later, and holds until the next one. Before the first cue
   * #GstDualParalSrc:prompt holds. Times count from the first frame, at the framerate that the
   * video begins with.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_STORYBOARD] =
      g_param_spec_string ("storyboard", "Storyboard",
      "SubRip file whose cues are prompts (NULL = none)", NULL, READY);
  /**
   * GstDualParalSrc:seed:
   *
   * The same seed, prompts, settings and kind of device give the same video, bit for bit, for any
   * number of devices. 0 is a seed like any other. -1 draws another one at each start; the tags, the
   * metas and #GstDualParalSrc:stats say which, and that one gives the same video again.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_SEED] = g_param_spec_int64 ("seed", "Seed",
      "Seed of the noise (-1 = draw one at each start)", -1, G_MAXINT64, 0,
      READY);
  /**
   * GstDualParalSrc:steps:
   *
   * Number of sampling steps. More steps are slower and usually better.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_STEPS] = g_param_spec_int ("steps", "Steps",
      "Number of sampling steps (0 = the model's default)", 0, DP_MAX_STEPS, 0,
      READY);
  /**
   * GstDualParalSrc:guidance-scale:
   *
   * How strictly the video follows the prompt. 1 turns classifier-free guidance off and halves the
   * work.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_GUIDANCE_SCALE] =
      g_param_spec_double ("guidance-scale", "Guidance scale",
      "How strictly the video follows the prompt (1 = no guidance, 0 = the "
      "model's default)", 0, DP_MAX_SCALE, 0, READY);
  /**
   * GstDualParalSrc:guidance-scale-2:
   *
   * #GstDualParalSrc:guidance-scale for the steps of the second transformer, in models that have
   * two (Wan2.2-A14B). If only the other one is set, both have its value.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_GUIDANCE_SCALE_2] =
      g_param_spec_double ("guidance-scale-2", "Guidance scale 2",
      "Guidance scale of the second of two transformers (0 = the model's "
      "default)", 0, DP_MAX_SCALE, 0, READY);
  /**
   * GstDualParalSrc:guidance-interval-low:
   *
   * Guidance is used only in the steps that start from a noise level above this one and not above
   * #GstDualParalSrc:guidance-interval-high. 0 is a clean picture, 1 is pure noise. The other steps
   * take half the time. With both ends at 0 the model's defaults are used, and where it has none,
   * guidance in all steps.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_GUIDANCE_INTERVAL_LOW] =
      g_param_spec_double ("guidance-interval-low", "Low end of guidance",
      "Guidance only in steps from noise levels above this", 0, 1, 0, READY);
  /**
   * GstDualParalSrc:guidance-interval-high:
   *
   * The other end of the interval: see #GstDualParalSrc:guidance-interval-low.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_GUIDANCE_INTERVAL_HIGH] =
      g_param_spec_double ("guidance-interval-high", "High end of guidance",
      "Guidance only in steps from noise levels up to this (0 = 1; both ends 0 = "
      "the model's defaults)", 0, 1, 0, READY);
  /**
   * GstDualParalSrc:flow-shift:
   *
   * Shift of the noise schedule towards high noise. Larger pictures need more.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_FLOW_SHIFT] =
      g_param_spec_double ("flow-shift", "Flow shift",
      "Shift of the noise schedule (0 = the model's default)", 0, DP_MAX_SCALE,
      0, READY);
  /**
   * GstDualParalSrc:sampler:
   *
   * Method that turns noise into a picture.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_SAMPLER] = g_param_spec_enum ("sampler", "Sampler",
      "Method that turns noise into a picture", GST_TYPE_DUALPARAL_SAMPLER,
      GST_DUALPARAL_SAMPLER_AUTO, READY);
  /**
   * GstDualParalSrc:num-frames:
   *
   * Number of frames before EOS; -1 is endless. Unlike #GstBaseSrc:num-buffers it tells the
   * generation where to stop, so no frame is made in vain.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_NUM_FRAMES] =
      g_param_spec_int64 ("num-frames", "Number of frames",
      "Number of frames before EOS (-1 = endless)", -1, DP_MAX_FRAMES, -1,
      READY);
  /**
   * GstDualParalSrc:marking:
   *
   * How the video is marked as made by a model. `tags` is for containers, `meta` for elements that
   * look at frames, `sei` for a `dualparalsei` behind an encoder of H.264 or H.265. All of it can
   * be removed on purpose, and only the tags survive another encoding.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_MARKING] = g_param_spec_flags ("marking", "Marking",
      "How the video is marked as made by a model",
      GST_TYPE_DUALPARAL_MARKING, GST_DUALPARAL_MARKING_ALL, READY);
}

/* How to make it: DualParal, devices, queue */
static void
gst_dualparal_settings_init_engine_props (void)
{
  /**
   * GstDualParalSrc:block-latents:
   *
   * Number of latent frames (4 video frames each) that are denoised together.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_BLOCK_LATENTS] =
      g_param_spec_int ("block-latents", "Latent frames in a block",
      "Number of latent frames denoised together (0 = the model's default)", 0,
      DP_MAX_BLOCK_LATENTS, 0, READY);
  /**
   * GstDualParalSrc:context-latents:
   *
   * Number of latent frames a block sees of each neighbour. They hide the seams.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_CONTEXT_LATENTS] =
      g_param_spec_int ("context-latents", "Latent frames of context",
      "Number of latent frames a block sees of each neighbour, at most "
      "block-latents (0 = the model's default, -1 = none)", -1,
      DP_MAX_BLOCK_LATENTS, 0, READY);
  /**
   * GstDualParalSrc:context-mode:
   *
   * How a block sees the one before it. With `cached`, each device keeps what the previous block's
   * own passes computed of its last latents. The video is made faster, and the devices need more
   * memory. `auto` is `cached` if neighbouring blocks stand three steps apart or more. The mode
   * changes the video.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_CONTEXT_MODE] =
      g_param_spec_enum ("context-mode", "Context mode",
      "How a block sees the one before it", GST_TYPE_DUALPARAL_CONTEXT_MODE,
      GST_DUALPARAL_CONTEXT_MODE_AUTO, READY);
  /**
   * GstDualParalSrc:queue-blocks:
   *
   * Maximum number of blocks in flight, not above #GstDualParalSrc:steps. More keep more devices
   * busy, and a new prompt takes longer to show.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_QUEUE_BLOCKS] =
      g_param_spec_int ("queue-blocks", "Blocks in flight",
      "Maximum number of blocks in flight, not above steps (0 = the model's "
      "default)", 0, DP_MAX_STEPS, 0, READY);
  /**
   * GstDualParalSrc:devices:
   *
   * The device of each stage, separated by commas: `cpu`, `cpu,cpu`, `cuda:0`. `auto` is the first
   * GPU if it works, else the CPU.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_DEVICES] = g_param_spec_string ("devices", "Devices",
      "Device of each stage, separated by commas, or auto", "auto", READY);
  /**
   * GstDualParalSrc:ranks:
   *
   * Which processes make the video. With `mpi`, this process must be rank 0 of an MPI job whose
   * other ranks run `dualparal worker`. Each rank is one stage, and #GstDualParalSrc:devices is the
   * one device of rank 0. The video is the same.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_RANKS] = g_param_spec_enum ("ranks", "Ranks",
      "Which processes make the video", GST_TYPE_DUALPARAL_RANKS,
      GST_DUALPARAL_RANKS_NONE, READY);
  /**
   * GstDualParalSrc:max-queue-frames:
   *
   * Maximum number of frames made ahead of playback. Only this queue holds the generation back, and
   * a new prompt waits for the frames in it.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_MAX_QUEUE_FRAMES] =
      g_param_spec_int ("max-queue-frames", "Frames in the queue",
      "Maximum number of frames made ahead of playback (0 = the model's "
      "default)", 0, DP_MAX_QUEUE_FRAMES, 0, READY);
  /**
   * GstDualParalSrc:threads:
   *
   * Number of threads shared by all stages on the CPU.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_THREADS] = g_param_spec_int ("threads", "Threads",
      "Number of threads shared by the stages on the CPU (0 = one per "
      "processor)", 0, DP_MAX_THREADS, 0, READY);
  /**
   * GstDualParalSrc:transformer:
   *
   * A file or a directory with the weights of this part, in place of the model's own.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_TRANSFORMER] =
      g_param_spec_string ("transformer", "Transformer",
      "File or directory of the transformer (NULL = the model's)", NULL,
      READY);
  /**
   * GstDualParalSrc:transformer-2:
   *
   * The same for the second of two transformers.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_TRANSFORMER_2] =
      g_param_spec_string ("transformer-2", "Transformer 2",
      "File or directory of the second of two transformers (NULL = the model's)", NULL,
      READY);
  /**
   * GstDualParalSrc:vae:
   *
   * The same for the VAE.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_VAE] =
      g_param_spec_string ("vae", "VAE",
      "File or directory of the VAE (NULL = the model's)", NULL,
      READY);
  /**
   * GstDualParalSrc:text-encoder-file:
   *
   * The same for the text encoder.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_TEXT_ENCODER_FILE] =
      g_param_spec_string ("text-encoder-file", "Text encoder file",
      "File or directory of the text encoder (NULL = the model's)", NULL,
      READY);
  /**
   * GstDualParalSrc:tokenizer:
   *
   * The same for the tokenizer: its `spiece.model`, or a directory that has one.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_TOKENIZER] =
      g_param_spec_string ("tokenizer", "Tokenizer",
      "File or directory of the tokenizer (NULL = the model's)", NULL,
      READY);
  /**
   * GstDualParalSrc:lora:
   *
   * Small files that change the transformer's weights, each with a strength: `FILE:0.8,FILE`. The
   * strength is 1 where it is not said.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_LORA] = g_param_spec_string ("lora", "LoRA",
      "LoRA files for the transformer, each with a strength: FILE:0.8,FILE "
      "(NULL = none)", NULL, READY);
  /**
   * GstDualParalSrc:image:
   *
   * A PNG or JPEG file that becomes the first frame; the prompt says what happens then. It is scaled, and edges that are over
   * are cut off. Wan2.2-TI2V-5B was trained for it. Other models are held to it while the first block is made.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_IMAGE] = g_param_spec_string ("image", "Image",
      "File of a picture to begin with (NULL = none)", NULL, READY);
  /**
   * GstDualParalSrc:times:
   *
   * A table of times that `dualparal bench --add-times` measured on each kind of device here. Layers
   * are shared out by them. Without it, by what the devices say of themselves. The video is the same.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_TIMES] = g_param_spec_string ("times", "Times",
      "File with measured times of the devices, by which layers are shared out "
      "(NULL = none)", NULL, READY);
  /**
   * GstDualParalSrc:linger:
   *
   * How long the loaded model is kept after the element has stopped. The next element in this
   * process with the same model, devices and size need not load it again. One with others frees it
   * before it loads its own.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_LINGER] = g_param_spec_int ("linger", "Linger",
      "Seconds for which the loaded model is kept after the element has stopped",
      0, G_MAXINT, DEFAULT_LINGER, READY);
  /**
   * GstDualParalSrc:precision:
   *
   * Number format of the computation.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_PRECISION] =
      g_param_spec_enum ("precision", "Precision",
      "Number format of the computation", GST_TYPE_DUALPARAL_PRECISION,
      GST_DUALPARAL_PRECISION_AUTO, READY);
  /**
   * GstDualParalSrc:text-encoder:
   *
   * Where the text encoder's weights are kept. Streamed, they take little of the device's memory,
   * and encoding a prompt takes longer. The video is the same.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_TEXT_ENCODER] =
      g_param_spec_enum ("text-encoder", "Text encoder",
      "Where the text encoder's weights are kept",
      GST_TYPE_DUALPARAL_TEXT_ENCODER, GST_DUALPARAL_TEXT_ENCODER_AUTO, READY);
}

/* Statistics and traces */
static void
gst_dualparal_settings_init_stats_props (void)
{
  /**
   * GstDualParalSrc:stats:
   *
   * A structure `application/x-dualparal-stats`. What was chosen:
   *
   * * `model`, `devices`, `precision` (#gchararray): %NULL before the element was started
   * * `plan` (#gchararray): which device does what, and the memory it takes
   *
   * Running totals since the generation began:
   *
   * * `blocks`, `passes`, `frames` (#guint64): finished blocks, passes through all layers, decoded
   *   frames
   * * `queue-frames` (#guint): decoded frames that wait
   * * `first-frame-seconds` (#gdouble): time until the first frame was decoded; 0 before it
   * * `realtime-factor` (#gdouble): seconds of video made per second, not counting the time the
   *   queue was full
   * * `decode-busy` (#gdouble), `stage-busy` (#GstValueArray of #gdouble): share of that time the
   *   decoder and each stage worked, 0 to 1
   *
   * Over the latest 256 blocks:
   *
   * * `block-load-mean`, `block-load-p95` (#gdouble): time to make a block, divided by the time it
   *   plays; above 1 is too slow for real time. The first block and the time the queue was full do
   *   not count
   * * `block-interval-p50`, `block-interval-p95` (#GstClockTime): time from one finished block to
   *   the next, whatever the reason
   *
   * Memory in use now:
   *
   * * `device-bytes` (#guint64): on the devices, the sum of `stage-bytes` (#GstValueArray of
   *   #guint64), `decoder-bytes` and `text-encoder-bytes` (#guint64)
   * * `resident-bytes` (#guint64): of the whole process; 0 if unknown
   *
   * Since the element was started:
   *
   * * `seed` (#guint64): of the video
   * * `time-to-first-frame` (#GstClockTime): until the first frame left; 0 before
   * * `buffering-episodes` (#guint64): how often buffering paused a video that is not live
   *
   * For a live video, since it was started:
   *
   * * `repeated`, `placeholders` (#guint64): repeated frames and placeholders sent; `frames` counts
   *   neither
   * * `underruns` (#guint64): how often the frames ran out
   * * `missed` (#guint64): number of pictures that were due without a frame
   * * `deadline-attainment` (#gdouble): share of pictures with a frame in time; 1 before the first
   * * `stall-time` (#GstClockTime): how long nothing was sent for lack of a frame
   * * `downstream-delays` (#guint64), `downstream-delay-time` (#GstClockTime): how often downstream
   *   took the next picture so late that its time jumped, and how far it jumped in all
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_STATS] = g_param_spec_boxed ("stats", "Statistics",
      "Statistics of the generation and the playback", GST_TYPE_STRUCTURE,
      G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
  /**
   * GstDualParalSrc:stats-interval:
   *
   * How often #GstDualParalSrc:stats is posted as an element message, between the changes to PAUSED
   * and back to READY, even while the element waits.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_STATS_INTERVAL] =
      g_param_spec_uint ("stats-interval", "Statistics interval",
      "Milliseconds between two messages with statistics (0 = no messages)", 0,
      G_MAXUINT, 0, READY);
  /**
   * GstDualParalSrc:trace:
   *
   * A file that records what each device did, for ui.perfetto.dev and chrome://tracing. It is
   * overwritten when the generation begins, complete when that ends, and at most 64 MiB long. Each
   * element needs its own.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_TRACE] = g_param_spec_string ("trace", "Trace",
      "File for a record of the generation in Chrome's trace format (NULL = "
      "none)", NULL, READY);
  /**
   * GstDualParalSrc:preview:
   *
   * Whether a small picture of the block that is shown next is posted while it is denoised, as an
   * element message `dualparal-preview`, at most four times a second.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_PREVIEW] = g_param_spec_boolean ("preview",
      "Preview", "Whether small pictures of what is being made are posted",
      FALSE, READY);
}

/* When to show it */
static void
gst_dualparal_settings_init_live_props (void)
{
  /**
   * GstDualParalSrc:is-live:
   *
   * Whether each frame leaves at its time on the pipeline's clock, like a camera's, and not as soon
   * as downstream accepts it. For streams to others: RTSP, WebRTC, RTMP. It can only be changed in
   * NULL and READY.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_IS_LIVE] = g_param_spec_boolean ("is-live", "Live",
      "Whether each frame leaves at its time on the pipeline's clock", FALSE,
      READY);
  /**
   * GstDualParalSrc:prebuffer:
   *
   * Frames buffered before a live video starts, at most #GstDualParalSrc:max-queue-frames, whose
   * default rises to it. They bridge the time from one block to the next. If the video is not live:
   * frames buffered before playback continues after BUFFERING.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_PREBUFFER] =
      g_param_spec_int ("prebuffer", "Prebuffered frames",
      "Frames buffered before a live video starts (0 = one block)", 0,
      DP_MAX_QUEUE_FRAMES, 0, READY);
  /**
   * GstDualParalSrc:underrun-policy:
   *
   * What a live video does when a frame is not ready in time. A QOS message is posted for each
   * picture that was due without a frame.
   *
   * * `repeat` sends the previous frame again, with the GAP flag, so the rate is always that of the
   *   caps; see #GstDualParalSrc:max-repeat
   * * `stall` sends nothing. The frame leaves when it is ready, with that time as its timestamp and
   *   DISCONT
   * * `gap` sends a GAP event in place of each frame
   * * `slow` plays as slowly as frames are made, down to #GstDualParalSrc:min-framerate, below
   *   which it repeats; the caps stay
   * * `error` posts an error and ends the stream
   * * `adaptive` does as `repeat` does. When the frames run out a second time before the queue was
   *   full again, it does as `slow` does, until the queue is full
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_UNDERRUN_POLICY] =
      g_param_spec_enum ("underrun-policy", "Underrun policy",
      "What a live video does when a frame is not ready in time",
      GST_TYPE_DUALPARAL_UNDERRUN_POLICY, GST_DUALPARAL_UNDERRUN_REPEAT,
      PLAYING);
  /**
   * GstDualParalSrc:max-repeat:
   *
   * Maximum number of consecutive repeats of a frame by the policy `repeat`. Then it does as
   * `stall` does.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_MAX_REPEAT] =
      g_param_spec_int ("max-repeat", "Maximum repeats",
      "Maximum number of consecutive repeats of a frame (-1 = unlimited)", -1,
      G_MAXINT, -1, PLAYING);
  /**
   * GstDualParalSrc:min-framerate:
   *
   * The lowest framerate that the policies `slow` and `adaptive` go down to.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_MIN_FRAMERATE] =
      gst_param_spec_fraction ("min-framerate", "Minimum framerate",
      "Lowest framerate of the policies slow and adaptive (0/1 = half of the framerate)", 0,
      1, G_MAXINT, 1, 0, 1, PLAYING);
  /**
   * GstDualParalSrc:startup-policy:
   *
   * What a live video shows until the first #GstDualParalSrc:prebuffer frames are ready. With
   * `placeholder`, pictures with the GAP flag flow at once, so an RTSP server need not wait for the
   * model.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_STARTUP_POLICY] =
      g_param_spec_enum ("startup-policy", "Startup policy",
      "What a live video shows until its first frames are ready",
      GST_TYPE_DUALPARAL_STARTUP_POLICY, GST_DUALPARAL_STARTUP_WAIT, READY);
  /**
   * GstDualParalSrc:placeholder:
   *
   * File of the picture for #GstDualParalSrc:startup-policy: PNG, JPEG or any other that the
   * installed plugins can decode. It is scaled to the size of the video. %NULL is dark grey.
   *
   * Since: 0.1
   */
  props[GST_DUALPARAL_PROP_PLACEHOLDER] =
      g_param_spec_string ("placeholder", "Placeholder",
      "File of the picture shown until the first frames are ready (NULL = dark "
      "grey)", NULL, READY);
}

void
gst_dualparal_settings_install_properties (GObjectClass * klass)
{
  gst_dualparal_settings_init_picture_props ();
  gst_dualparal_settings_init_live_props ();
  gst_dualparal_settings_init_engine_props ();
  gst_dualparal_settings_init_stats_props ();
  g_object_class_install_properties (klass, GST_DUALPARAL_N_PROPS, props);

  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_SAMPLER, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_PRECISION, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_PROMPT_LATENCY, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_TEXT_ENCODER, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_CONTEXT_MODE, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_RANKS, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_UNDERRUN_POLICY, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_STARTUP_POLICY, 0);
  gst_type_mark_as_plugin_api (GST_TYPE_DUALPARAL_MARKING, 0);
}

void
gst_dualparal_settings_notify (GObject * object, guint prop_id)
{
  g_object_notify_by_pspec (object, props[prop_id]);
}

/* FALSE for a property without a value */
static gboolean
gst_dualparal_settings_copy (GstDualParalSettings * settings, guint prop_id,
    const GValue * from, GValue * to)
{
  if (prop_id >= GST_DUALPARAL_N_PROPS
      || !G_IS_VALUE (&settings->values[prop_id]))
    return FALSE;
  g_mutex_lock (&settings->lock);
  g_value_transform (from, to);
  g_mutex_unlock (&settings->lock);
  return TRUE;
}

gboolean
gst_dualparal_settings_set (GstDualParalSettings * settings, guint prop_id,
    const GValue * value)
{
  return gst_dualparal_settings_copy (settings, prop_id, value,
      &settings->values[prop_id]);
}

gboolean
gst_dualparal_settings_get (GstDualParalSettings * settings, guint prop_id,
    GValue * value)
{
  return gst_dualparal_settings_copy (settings, prop_id,
      &settings->values[prop_id], value);
}

gint64
gst_dualparal_settings_number (GstDualParalSettings * settings, guint prop_id)
{
  GValue number = G_VALUE_INIT;

  g_value_init (&number, G_TYPE_INT64);
  gst_dualparal_settings_get (settings, prop_id, &number);
  return g_value_get_int64 (&number);
}

static gdouble
gst_dualparal_settings_double (GstDualParalSettings * settings, guint prop_id)
{
  GValue number = G_VALUE_INIT;

  g_value_init (&number, G_TYPE_DOUBLE);
  gst_dualparal_settings_get (settings, prop_id, &number);
  return g_value_get_double (&number);
}

gchar *
gst_dualparal_settings_string (GstDualParalSettings * settings, guint prop_id)
{
  gchar *string;

  g_mutex_lock (&settings->lock);
  string = g_value_dup_string (&settings->values[prop_id]);
  g_mutex_unlock (&settings->lock);
  return string;
}

void
gst_dualparal_settings_min_framerate (GstDualParalSettings * settings,
    gint * fps_n, gint * fps_d)
{
  const GValue *value = &settings->values[GST_DUALPARAL_PROP_MIN_FRAMERATE];

  g_mutex_lock (&settings->lock);
  *fps_n = gst_value_get_fraction_numerator (value);
  *fps_d = gst_value_get_fraction_denominator (value);
  g_mutex_unlock (&settings->lock);
}

void
gst_dualparal_settings_set_prompts (GstDualParalSettings * settings,
    const gchar * prompt, const gchar * negative_prompt)
{
  g_mutex_lock (&settings->lock);
  g_value_set_string (&settings->values[GST_DUALPARAL_PROP_PROMPT], prompt);
  g_value_set_string (&settings->values[GST_DUALPARAL_PROP_NEGATIVE_PROMPT],
      negative_prompt);
  g_mutex_unlock (&settings->lock);
}

static const char *
gst_dualparal_settings_keep (GstDualParalSettings * settings, guint prop_id,
    GStringChunk * storage)
{
  gchar *string = gst_dualparal_settings_string (settings, prop_id);
  const char *kept = string ? g_string_chunk_insert (storage, string) : NULL;

  g_free (string);
  return kept;
}

/* The engine's word for a value: its nick, or NULL for auto */
static const char *
gst_dualparal_settings_word (GstDualParalSettings * settings, guint prop_id)
{
  const gint value = gst_dualparal_settings_number (settings, prop_id);
  GEnumClass *klass = G_PARAM_SPEC_ENUM (props[prop_id])->enum_class;

  return value ? g_enum_get_value (klass, value)->value_nick : NULL;
}

void
gst_dualparal_settings_for_engine (GstDualParalSettings * settings,
    DpSettings * engine, GStringChunk * storage)
{
#define NUMBER(id) \
    gst_dualparal_settings_number (settings, GST_DUALPARAL_PROP_##id)
#define DOUBLE(id) \
    gst_dualparal_settings_double (settings, GST_DUALPARAL_PROP_##id)
#define WORD(id) \
    gst_dualparal_settings_word (settings, GST_DUALPARAL_PROP_##id)
#define STRING(id) \
    gst_dualparal_settings_keep (settings, GST_DUALPARAL_PROP_##id, storage)

  *engine = (DpSettings) {
    .model = STRING (MODEL),
    .devices = STRING (DEVICES),
    .ranks = WORD (RANKS),
    .transformer = STRING (TRANSFORMER),
    .transformer_2 = STRING (TRANSFORMER_2),
    .vae = STRING (VAE),
    .text_encoder_file = STRING (TEXT_ENCODER_FILE),
    .tokenizer = STRING (TOKENIZER),
    .lora = STRING (LORA),
    .image = STRING (IMAGE),
    .times = STRING (TIMES),
    .trace = STRING (TRACE),
    .sampler = WORD (SAMPLER),
    .precision = WORD (PRECISION),
    .text_encoder = WORD (TEXT_ENCODER),
    .context_mode = WORD (CONTEXT_MODE),
    .guidance_scale = DOUBLE (GUIDANCE_SCALE),
    .guidance_scale_2 = DOUBLE (GUIDANCE_SCALE_2),
    .guidance_interval_low = DOUBLE (GUIDANCE_INTERVAL_LOW),
    .guidance_interval_high = DOUBLE (GUIDANCE_INTERVAL_HIGH),
    .flow_shift = DOUBLE (FLOW_SHIFT),
    .steps = NUMBER (STEPS),
    .block_latents = NUMBER (BLOCK_LATENTS),
    .context_latents = NUMBER (CONTEXT_LATENTS),
    .queue_blocks = NUMBER (QUEUE_BLOCKS),
    .seed = NUMBER (SEED),
    .num_frames = NUMBER (NUM_FRAMES),
    .max_queue_frames = NUMBER (MAX_QUEUE_FRAMES),
    .threads = NUMBER (THREADS),
    .linger = NUMBER (LINGER),
  };
}
