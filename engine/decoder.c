/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "decoder.h"
#include "wan/arena.h"
#include "wan/device_error.h"
#include "wan/vae.h"
#include "part_cache.h"
#include "thread.h"
#include "kernels/host.h"

#include <string.h>

#define JOBS 2                  /* finished blocks that may wait */

/* A DpFormat is handed to pack_frame as the DpPixels of the same number. */
#define SAME(name) G_STATIC_ASSERT ((int) DP_FORMAT_##name == (int) DP_PIXELS_##name)
SAME (RGB_F32);
SAME (I420);
SAME (NV12);
SAME (RGB);
SAME (BGR);
SAME (RGBX);
SAME (BGRX);
SAME (XRGB);
SAME (XBGR);
#undef SAME

typedef struct
{
  float *latents;               /* [max_own, h, w, C] in host memory */
  int n;
  gint64 block;
  DpConditioning *conditioning;
} Job;

typedef struct
{
  guint8 *memory;               /* of the host */
  gint64 block;
  gboolean prompt_changed;
  guint prompt_id;
  DpConditioning *conditioning;
} Slot;

/* What is loaded. */
typedef struct
{
  DpPart warm;
  DpVae *vae;
} Loaded;

/* A ring of indices. */
typedef struct
{
  int *items;
  int first, count, size;
} Fifo;

struct _DpDecoder
{
  /* -- immutable -- */
  DpDecoderSpec spec;
  char *device;
  int decoded_w, decoded_h;     /* pixels, of which spec.width and spec.height are shown */
  int n_planes;
  int strides[3];
  gsize offsets[3], frame_bytes;
  gsize latent_size;            /* floats of a latent frame */
  int n_slots;
  GThread *thread;

  /* -- owned by the thread -- */
  Loaded *loaded;
  DpDevice *dev;                /* these two are the same, once it is */
  DpVae *vae;
  float *latents;               /* what is decoded at a time, [latents_at_once, h, w, C] on the device */
  guint8 *packed;               /* a frame, on the device */
  void *seen;                   /* a decoded frame, in host memory; NULL where the device's is that */
  guint last_prompt;            /* its prompt_id */
  guint n_prompts;              /* that took effect after the first: one replaced in flight never did */
  gint64 block_us;              /* when the last frame of the last block was in the queue, 0: none */

  /* -- protected by lock -- */
  GMutex lock;
  GCond changed;
  Job jobs[JOBS];
  int first_job, n_jobs;
  Slot *slots;
  Fifo ready, unused;
  gint64 pulled;                /* index of the next frame pulled */
  gboolean finished, ended, flushing, cancelled;
  gboolean woken;               /* dp_decoder_wait() returns at once */
  GError *error;
  DpLatentsCallback callback;
  gpointer callback_data;
  DpDecoderStats stats;
  gint64 full_us, full_since;   /* how long the thread waited for room in the queue; since when it does now, 0: it does not */
  gint64 held_from;             /* what full_us was when dp_decoder_push() began to wait, -1: it does not */
  int cancel;                   /* atomic copy of cancelled */
};

static void
fifo_push (Fifo *f, int item)
{
  g_assert (f->count < f->size);
  f->items[(f->first + f->count++) % f->size] = item;
}

static int
fifo_pop (Fifo *f)
{
  int item = f->items[f->first];

  f->first = (f->first + 1) % f->size;
  f->count--;
  return item;
}

static DpDecoder
describe (const DpDecoderSpec *spec)
{
  return (DpDecoder) { .spec = *spec, .decoded_w = spec->latent_w * spec->vae.spatial_scale,
    .decoded_h = spec->latent_h * spec->vae.spatial_scale,
    .latent_size = (gsize) spec->latent_h * spec->latent_w * spec->vae.z_dim,
    .n_slots = spec->max_queue_frames + 1 };    /* one may be lent */
}

/* GStreamer's default layouts, so that a frame can be copied in one piece. */
static void
layout_frame (DpDecoder *d)
{
  int w = d->spec.width, h = d->spec.height, bytes_per_pixel = 4;

  d->n_planes = 1;
  switch (d->spec.format) {
    case DP_FORMAT_I420:
      d->n_planes = 3;
      d->strides[0] = (w + 3) & ~3;
      d->strides[1] = d->strides[2] = (w / 2 + 3) & ~3;
      d->offsets[1] = (gsize) d->strides[0] * h;
      d->offsets[2] = d->offsets[1] + (gsize) d->strides[1] * (h / 2);
      d->frame_bytes = d->offsets[2] + (gsize) d->strides[2] * (h / 2);
      return;
    case DP_FORMAT_NV12:
      d->n_planes = 2;
      d->strides[0] = d->strides[1] = (w + 3) & ~3;
      d->offsets[1] = (gsize) d->strides[0] * h;
      d->frame_bytes = d->offsets[1] + (gsize) d->strides[1] * (h / 2);
      return;
    case DP_FORMAT_RGB_F32:
      bytes_per_pixel = 12;
      break;
    case DP_FORMAT_RGB:
    case DP_FORMAT_BGR:
      bytes_per_pixel = 3;
      break;
    default:
      break;
  }
  d->strides[0] = (w * bytes_per_pixel + 3) & ~3;
  d->frame_bytes = (gsize) d->strides[0] * h;
}

gsize
dp_decoder_bytes (const DpDecoderSpec *spec)
{
  DpDecoder d = describe (spec);
  DpDeviceInfo info;
  char message[256];

  /* A device that is missing is reported when it is opened. */
  dp_device_info (spec->device, &info, message, sizeof message);
  layout_frame (&d);
  return dp_vae_bytes (&spec->vae, spec->type, spec->latent_h, spec->latent_w, info.latents_at_once)
      + sizeof (float) * d.latent_size * info.latents_at_once + d.frame_bytes * (info.host_memory ? 1 + d.n_slots : 1);
}

/* ---- the thread ---- */

static void
free_loaded (DpPart *warm)
{
  dp_vae_free (((Loaded *) warm)->vae);
}

/* All that the part is made from. */
static GString *
loaded_key (const DpDecoder *d)
{
  const DpDecoderSpec *spec = &d->spec;
  GString *key = g_string_new (NULL);

  g_string_printf (key, "decoder, %s, %d threads, type %d, %d x %d", d->device, spec->threads, spec->type, spec->latent_h,
      spec->latent_w);
  dp_part_cache_key_add_numbers (key, &spec->vae, sizeof spec->vae);
  dp_part_cache_key_add_weights (key, spec->weights);
  return key;
}

/* Of a frame as it is decoded. */
static gsize
pixel_bytes (const DpDecoder *d)
{
  return dp_type_size (d->spec.type) * d->decoded_w * d->decoded_h * 3;
}

static gboolean
make_room (DpDecoder *d, GError **error)
{
  d->latents = d->dev->ops->alloc (d->dev, sizeof (float) * d->latent_size * d->dev->latents_at_once);
  d->packed = d->dev->ops->alloc (d->dev, d->frame_bytes);
  if (d->latents == NULL || d->packed == NULL) {
    dp_error_no_room (d->dev, error, d->frame_bytes, "use a smaller width or height", "a frame");
    return FALSE;
  }
  guint8 *memory = d->dev->ops->host_alloc (d->dev, d->frame_bytes * d->n_slots);
  if (memory == NULL) {
    if (dp_error_check_device (d->dev, error, "while the queue of frames was allocated"))
      dp_error_set (error, DP_ERROR_NO_MEMORY,
          "a queue of %d frames needs %.1f MiB, which this machine has not left; use a smaller max-queue-frames, width or height",
          d->n_slots, d->frame_bytes * d->n_slots / 1048576.0);
    return FALSE;
  }
  for (int i = 0; i < d->n_slots; i++)
    d->slots[i].memory = memory + i * d->frame_bytes;
  if (!d->dev->host_memory && (d->seen = d->dev->ops->host_alloc (d->dev, pixel_bytes (d))) == NULL) {
    if (dp_error_check_device (d->dev, error, "while a frame was allocated"))
      dp_error_set (error, DP_ERROR_NO_MEMORY, "a frame needs %.1f MiB, which this machine has not left; use a smaller width or height",
          pixel_bytes (d) / 1048576.0);
    return FALSE;
  }
  return TRUE;
}

/* A GPU makes plans for a shape when it first sees one, which takes seconds in all. Here that is beside the loading of the layers and the
 * first passes; in the first decode the ring would wait for it. The stream's first latent has shapes of its own, and so has the last one of
 * a block with an odd number. */
static gboolean
rehearse (DpDecoder *d, DpVae *vae, GError **error)
{
  const void *frames;

  d->dev->ops->fill (d->dev, d->latents, 0, sizeof (float) * d->latent_size * d->dev->latents_at_once);
  for (int i = 0; i < 3 && !dp_device_cancelled (d->dev); i++)
    dp_vae_decode (vae, d->latents, i < 2 ? dp_vae_takes (vae) : 1, &frames);
  return dp_error_check_device (d->dev, error, "while the decoder was prepared");
}

static gboolean
load (DpDecoder *d, GError **error)
{
  const DpDecoderSpec *spec = &d->spec;
  Loaded *loaded = d->loaded;

  if (!loaded->warm.loaded && !dp_part_cache_open_device (&loaded->warm, d->device, spec->threads, error))
    return FALSE;
  d->dev = loaded->warm.dev;
  d->dev->cancel = &d->cancel;
  if (!make_room (d, error))
    return FALSE;
  if (!loaded->warm.loaded) {
    loaded->vae = dp_vae_new (d->dev, &spec->vae, spec->weights, spec->type, spec->latent_h,
        spec->latent_w, d->dev->latents_at_once, error);
    if (loaded->vae == NULL || (!d->dev->host_memory && !rehearse (d, loaded->vae, error)))
      return FALSE;
    dp_part_cache_loaded (&loaded->warm);
  }
  d->vae = loaded->vae;
  dp_vae_reset (d->vae);
  return TRUE;
}

/* How long the thread waited for room until `now`. */
static gint64
full_until (const DpDecoder *d, gint64 now)
{
  return d->full_us + (d->full_since ? now - d->full_since : 0);
}

/* Waits for room in the queue; -1 when cancelled. */
static int
take_slot (DpDecoder *d, gint64 block)
{
  gint64 since, now = 0;
  int index = -1;

  g_mutex_lock (&d->lock);
  while (!d->cancelled && (d->unused.count == 0 || d->ready.count >= d->spec.max_queue_frames)) {
    if (d->full_since == 0)
      d->full_since = g_get_monotonic_time ();
    g_cond_wait (&d->changed, &d->lock);
  }
  since = d->full_since;
  if (since) {
    now = g_get_monotonic_time ();
    d->full_us = full_until (d, now);
    d->full_since = 0;
  }
  if (!d->cancelled)
    index = fifo_pop (&d->unused);
  g_mutex_unlock (&d->lock);
  if (since)
    dp_trace_span (d->spec.trace, DP_TRACE_DECODER, "queue full", -1, since, now, "\"block\":%" G_GINT64_FORMAT, block);
  return index;
}

static void
put_frame (DpDecoder *d, int index, const Job *job)
{
  Slot *slot = &d->slots[index];

  slot->block = job->block;
  slot->prompt_changed = job->conditioning->prompt_id != d->last_prompt;
  d->last_prompt = job->conditioning->prompt_id;
  d->n_prompts += slot->prompt_changed;
  slot->prompt_id = d->n_prompts;
  dp_conditioning_unref (slot->conditioning);
  slot->conditioning = dp_conditioning_ref (job->conditioning);

  g_mutex_lock (&d->lock);
  fifo_push (&d->ready, index);
  dp_trace_counter (d->spec.trace, "queue", d->ready.count);
  d->stats.last_frame_us = g_get_monotonic_time ();
  if (d->stats.frames++ == 0)
    d->stats.first_frame_us = d->stats.last_frame_us;
  if (d->spec.num_frames >= 0 && d->stats.frames == (guint64) d->spec.num_frames)
    d->ended = TRUE;
  g_cond_broadcast (&d->changed);
  g_mutex_unlock (&d->lock);
}

static void
add_busy (DpDecoder *d, gint64 us)
{
  g_mutex_lock (&d->lock);
  d->stats.busy_us += us;
  g_mutex_unlock (&d->lock);
}

/* Where the shown part of a decoded frame begins. Its row and column are even, so that its chroma is the larger picture's. */
static const void *
shown_part (const DpDecoder *d, const void *pixels)
{
  gsize row = (d->decoded_h - d->spec.height) / 2 & ~1, column = (d->decoded_w - d->spec.width) / 2 & ~1;

  return (const char *) pixels + dp_type_size (d->spec.type) * (row * d->decoded_w + column) * 3;
}

/* FALSE when cancelled, or when the stream has all its frames. */
static gboolean
emit_frame (DpDecoder *d, const void *pixels, const Job *job)
{
  DpPackFrameArgs args = { .type = dp_vae_type (d->vae), .format = (DpPixels) d->spec.format, .h = d->spec.height, .w = d->spec.width,
    .x = shown_part (d, pixels), .x_stride = d->decoded_w };
  int index;

  if (d->ended)
    return FALSE;
  index = take_slot (d, job->block);
  if (index < 0)
    return FALSE;
  gint64 start = g_get_monotonic_time ();
  for (int p = 0; p < d->n_planes; p++) {
    args.planes[p] = d->packed + d->offsets[p];
    args.strides[p] = d->strides[p];
  }
  d->dev->ops->pack_frame (d->dev, &args);
  d->dev->ops->download (d->dev, d->slots[index].memory, d->packed, d->frame_bytes);
  if (dp_device_failed (d->dev) || g_atomic_int_get (&d->cancel))        /* then there is no picture in it */
    return FALSE;
  add_busy (d, g_get_monotonic_time () - start);
  put_frame (d, index, job);
  return TRUE;
}

/* NaN spreads over a block while it is denoised, so it is enough to look once the last step is done. */
static gboolean
latents_are_finite (const DpDecoder *d, const Job *job, GError **error)
{
  if (dp_all_finite (DP_TYPE_F32, job->latents, job->n * d->latent_size) || g_atomic_int_get (&d->cancel))
    return TRUE;
  dp_error_set (error, DP_ERROR_BAD_MODEL, "the transformer made NaN or infinity of block %" G_GINT64_FORMAT ", seen after its last step; "
      "its weights are damaged, or not made for this precision", job->block);
  return FALSE;
}

/* Of n decoded frames. From a GPU only the last frame of a block is fetched: the decoder's past keeps NaN. */
static gboolean
frames_are_finite (DpDecoder *d, const Job *job, const void *frames, int n, gboolean last, GError **error)
{
  const void *seen = frames;
  gsize bytes = pixel_bytes (d);

  if (!d->dev->host_memory) {
    if (!last)
      return TRUE;
    seen = d->seen;
    d->dev->ops->download (d->dev, d->seen, (const char *) frames + (n - 1) * bytes, bytes);
    n = 1;
  }
  if (dp_device_failed (d->dev) || g_atomic_int_get (&d->cancel)
      || dp_all_finite (d->spec.type, seen, n * bytes / dp_type_size (d->spec.type)))
    return TRUE;
  dp_error_set (error, DP_ERROR_BAD_MODEL, "the decoder (vae) made NaN or infinity of block %" G_GINT64_FORMAT ", whose latents are "
      "finite; its weights are damaged, or not made for this precision", job->block);
  return FALSE;
}

static void
count_block (DpDecoder *d, const Job *job, gint64 began)
{
  gint64 end = g_get_monotonic_time ();

  dp_trace_span (d->spec.trace, DP_TRACE_DECODER, "decode", job->block, began, end, "\"block\":%" G_GINT64_FORMAT ",\"latents\":%d",
      job->block, job->n);
  g_mutex_lock (&d->lock);
  if (d->block_us)
    dp_recent_add (&d->stats.intervals, (end - d->block_us) / 1e6);
  d->block_us = end;
  g_mutex_unlock (&d->lock);
}

/* FALSE with an error, or without one when cancelled, when the device failed, and when the stream has all its frames. */
static gboolean
decode_block (DpDecoder *d, const Job *job, GError **error)
{
  gint64 began = g_get_monotonic_time ();

  for (int i = 0, n; i < job->n; i += n) {
    const void *frames;
    gint64 start = g_get_monotonic_time (), end;

    n = MIN (job->n - i, dp_vae_takes (d->vae));
    d->dev->ops->upload (d->dev, d->latents, job->latents + i * d->latent_size, sizeof (float) * d->latent_size * n);
    int n_frames = dp_vae_decode (d->vae, d->latents, n, &frames);
    d->dev->ops->sync (d->dev);
    end = g_get_monotonic_time ();
    add_busy (d, end - start);
    dp_trace_span (d->spec.trace, DP_TRACE_DECODER, "latent", -1, start, end, "\"block\":%" G_GINT64_FORMAT ",\"latent\":%d,\"latents\":%d",
        job->block, i, n);
    if (!frames_are_finite (d, job, frames, n_frames, i + n == job->n, error))
      return FALSE;
    for (int f = 0; f < n_frames; f++) {
      /* Whoever gets the last frame of a video may end the trace */
      if (i + n == job->n && f == n_frames - 1)
        count_block (d, job, began);
      if (!emit_frame (d, (const char *) frames + f * pixel_bytes (d), job))
        return FALSE;
    }
  }
  return TRUE;
}

static void
fail (DpDecoder *d, GError *error)
{
  if (!g_atomic_int_get (&d->cancel))
    d->spec.failed (error, d->spec.user_data);
  else
    g_error_free (error);
}

static void
run (DpDecoder *d)
{
  for (;;) {
    g_mutex_lock (&d->lock);
    while (!d->cancelled && d->n_jobs == 0 && !d->finished)
      g_cond_wait (&d->changed, &d->lock);
    if (d->cancelled || d->n_jobs == 0) {
      d->ended |= d->finished;
      g_cond_broadcast (&d->changed);
      g_mutex_unlock (&d->lock);
      return;
    }
    Job *job = &d->jobs[d->first_job];
    DpLatentsCallback callback = d->callback;
    gpointer callback_data = d->callback_data;
    g_mutex_unlock (&d->lock);

    GError *error = NULL;
    if (callback)
      callback (job->latents, job->n, d->spec.latent_h, d->spec.latent_w, d->spec.vae.z_dim, callback_data);
    if (latents_are_finite (d, job, &error))
      decode_block (d, job, &error);
    if (error)
      fail (d, error);
    else if (!dp_error_check_device (d->dev, &error, "while block %" G_GINT64_FORMAT " was decoded", job->block))
      fail (d, error);

    g_mutex_lock (&d->lock);
    dp_conditioning_unref (job->conditioning);
    job->conditioning = NULL;
    d->first_job = (d->first_job + 1) % JOBS;
    d->n_jobs--;
    d->stats.device_bytes = d->dev->bytes;
    d->stats.allocations = d->dev->allocations;
    g_cond_broadcast (&d->changed);
    g_mutex_unlock (&d->lock);
  }
}

static gpointer
decoder_thread (gpointer data)
{
  DpDecoder *d = data;
  gint64 start = g_get_monotonic_time ();
  GError *error = NULL;

  if (load (d, &error)) {
    dp_trace_span (d->spec.trace, DP_TRACE_DECODER, "load", -1, start, g_get_monotonic_time (), " ");
    d->spec.loaded (d->spec.user_data);
    run (d);
  } else
    fail (d, error);
  return NULL;
}

/* ---- from outside ---- */

DpDecoder *
dp_decoder_new (const DpDecoderSpec *spec, GError **error)
{
  DpDecoder *d = g_new0 (DpDecoder, 1);

  *d = describe (spec);
  d->held_from = -1;
  d->device = g_strdup (spec->device);
  layout_frame (d);
  d->slots = g_new0 (Slot, d->n_slots);
  d->ready = (Fifo) { .items = g_new (int, d->n_slots), .size = d->n_slots };
  d->unused = (Fifo) { .items = g_new (int, d->n_slots), .size = d->n_slots };
  for (int i = 0; i < d->n_slots; i++)
    fifo_push (&d->unused, i);
  g_mutex_init (&d->lock);
  g_cond_init (&d->changed);
  for (int i = 0; i < JOBS; i++) {
    d->jobs[i].latents = dp_arena_host_new (sizeof (float) * spec->max_own * d->latent_size, "a finished block", error);
    if (d->jobs[i].latents == NULL) {
      dp_decoder_free (d, 0);
      return NULL;
    }
  }
  d->loaded = dp_part_cache_take (sizeof (Loaded), loaded_key (d), free_loaded);
  d->thread = dp_thread_new ("dp-decoder", decoder_thread, d, error);
  if (d->thread == NULL) {
    dp_decoder_free (d, 0);
    return NULL;
  }
  return d;
}

void
dp_decoder_free (DpDecoder *d, int linger)
{
  if (d == NULL)
    return;
  dp_decoder_cancel (d, NULL);
  if (d->thread)
    g_thread_join (d->thread);
  for (int i = 0; i < d->n_slots; i++)
    dp_conditioning_unref (d->slots[i].conditioning);
  for (int i = 0; i < JOBS; i++) {
    dp_conditioning_unref (d->jobs[i].conditioning);
    g_free (d->jobs[i].latents);
  }
  if (d->dev) {
    d->dev->ops->host_free (d->dev, d->slots[0].memory);
    d->dev->ops->host_free (d->dev, d->seen);
    d->dev->ops->free (d->dev, d->packed);
    d->dev->ops->free (d->dev, d->latents);
  }
  dp_part_cache_give ((DpPart *) d->loaded, linger);
  g_clear_error (&d->error);
  g_mutex_clear (&d->lock);
  g_cond_clear (&d->changed);
  g_free (d->ready.items);
  g_free (d->unused.items);
  g_free (d->slots);
  g_free (d->device);
  g_free (d);
}

void
dp_decoder_set_latents_callback (DpDecoder *d, DpLatentsCallback callback, gpointer user_data)
{
  g_mutex_lock (&d->lock);
  d->callback = callback;
  d->callback_data = user_data;
  g_mutex_unlock (&d->lock);
}

/* Of the time that dp_decoder_push() waited, what the queue of frames is to blame for. */
static gint64
held_us (const DpDecoder *d)
{
  return d->stats.held_us + (d->held_from >= 0 ? full_until (d, g_get_monotonic_time ()) - d->held_from : 0);
}

gboolean
dp_decoder_push (DpDecoder *d, DpDevice *dev, const float *latents, int n, gint64 block, DpConditioning *conditioning)
{
  gboolean ok;
  Job *job;

  g_mutex_lock (&d->lock);
  if (d->n_jobs == JOBS) {
    d->held_from = full_until (d, g_get_monotonic_time ());
    while (!d->cancelled && d->n_jobs == JOBS)
      g_cond_wait (&d->changed, &d->lock);
    d->stats.held_us = held_us (d);
    d->held_from = -1;
  }
  ok = !d->cancelled;
  job = &d->jobs[(d->first_job + d->n_jobs) % JOBS];
  g_mutex_unlock (&d->lock);
  if (!ok)
    return FALSE;

  /* Nobody else looks at a job that does not count yet, so the device is waited for without the lock. */
  dev->ops->download (dev, job->latents, latents, sizeof (float) * n * d->latent_size);
  if (dp_device_failed (dev))
    return FALSE;
  job->n = n;
  job->block = block;
  job->conditioning = dp_conditioning_ref (conditioning);
  g_mutex_lock (&d->lock);
  d->n_jobs++;
  g_cond_broadcast (&d->changed);
  g_mutex_unlock (&d->lock);
  return TRUE;
}

void
dp_decoder_finish (DpDecoder *d)
{
  g_mutex_lock (&d->lock);
  d->finished = TRUE;
  g_cond_broadcast (&d->changed);
  g_mutex_unlock (&d->lock);
}

/* G_MAXINT64: never. */
static gint64
deadline_after (gint64 timeout_us)
{
  gint64 now = g_get_monotonic_time ();

  return timeout_us < 0 || timeout_us > G_MAXINT64 - now ? G_MAXINT64 : now + timeout_us;
}

/* With the lock; FALSE when the deadline has passed. */
static gboolean
wait_change (DpDecoder *d, gint64 deadline)
{
  if (deadline < G_MAXINT64)
    return g_cond_wait_until (&d->changed, &d->lock, deadline);
  g_cond_wait (&d->changed, &d->lock);
  return TRUE;
}

int
dp_decoder_pull (DpDecoder *d, DpFrame *frame, gint64 timeout_us, GError **error)
{
  gint64 deadline = deadline_after (timeout_us);
  int result = -1;

  g_mutex_lock (&d->lock);
  for (;;) {
    if (d->flushing) {
      g_set_error_literal (error, DP_ERROR, DP_ERROR_FLUSHING, "flushing");
      break;
    }
    if (d->ready.count > 0) {
      int index = fifo_pop (&d->ready);
      Slot *slot = &d->slots[index];

      *frame = (DpFrame) { .index = d->pulled++, .block = slot->block, .prompt_id = slot->prompt_id, .prompt = slot->conditioning->prompt,
        .prompt_changed = slot->prompt_changed, .replanned_at = slot->conditioning->replanned_at, .width = d->spec.width,
        .height = d->spec.height, .format = d->spec.format, .n_planes = d->n_planes, .slot = GINT_TO_POINTER (index) };
      for (int p = 0; p < d->n_planes; p++) {
        frame->planes[p] = slot->memory + d->offsets[p];
        frame->strides[p] = d->strides[p];
      }
      g_cond_broadcast (&d->changed);
      dp_trace_counter (d->spec.trace, "queue", d->ready.count);
      result = 1;
      break;
    }
    if (d->error) {
      g_propagate_error (error, g_error_copy (d->error));
      break;
    }
    if (d->cancelled) {
      g_set_error_literal (error, DP_ERROR, DP_ERROR_FLUSHING, "cancelled");
      break;
    }
    if (d->ended) {
      result = 0;
      break;
    }
    if (!wait_change (d, deadline))
      break;
  }
  g_mutex_unlock (&d->lock);
  if (result == 1)
    dp_trace_instant (d->spec.trace, DP_TRACE_FRAMES, "frame", "\"frame\":%" G_GINT64_FORMAT ",\"block\":%" G_GINT64_FORMAT, frame->index,
        frame->block);
  return result;
}

void
dp_decoder_release (DpDecoder *d, DpFrame *frame)
{
  g_mutex_lock (&d->lock);
  fifo_push (&d->unused, GPOINTER_TO_INT (frame->slot));
  g_cond_broadcast (&d->changed);
  g_mutex_unlock (&d->lock);
  *frame = (DpFrame) { 0 };
}

gboolean
dp_decoder_wait (DpDecoder *d, guint frames, gint64 timeout_us)
{
  gint64 deadline = deadline_after (timeout_us);
  int wanted = MIN (frames, (guint) d->spec.max_queue_frames);
  gboolean flushing;

  g_mutex_lock (&d->lock);
  while (!d->flushing && !d->woken && d->ready.count < wanted && !d->ended && !d->cancelled && wait_change (d, deadline));
  d->woken = FALSE;
  flushing = d->flushing;
  g_mutex_unlock (&d->lock);
  return !flushing;
}

void
dp_decoder_wake (DpDecoder *d)
{
  g_mutex_lock (&d->lock);
  d->woken = TRUE;
  g_cond_broadcast (&d->changed);
  g_mutex_unlock (&d->lock);
}

void
dp_decoder_set_flushing (DpDecoder *d, gboolean flushing)
{
  g_mutex_lock (&d->lock);
  d->flushing = flushing;
  g_cond_broadcast (&d->changed);
  g_mutex_unlock (&d->lock);
}

void
dp_decoder_cancel (DpDecoder *d, const GError *error)
{
  g_mutex_lock (&d->lock);
  if (d->error == NULL && error)
    d->error = g_error_copy (error);
  d->cancelled = TRUE;
  g_atomic_int_set (&d->cancel, 1);
  g_cond_broadcast (&d->changed);
  g_mutex_unlock (&d->lock);
}

void
dp_decoder_get_stats (DpDecoder *d, DpDecoderStats *stats)
{
  g_mutex_lock (&d->lock);
  *stats = d->stats;
  stats->queue_frames = d->ready.count;
  stats->ended = d->ended || d->cancelled;
  stats->held_us = held_us (d);
  g_mutex_unlock (&d->lock);
}

gint64
dp_decoder_held_us (DpDecoder *d)
{
  gint64 us;

  g_mutex_lock (&d->lock);
  us = held_us (d);
  g_mutex_unlock (&d->lock);
  return us;
}
