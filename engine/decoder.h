/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * decoder.h: finished blocks in, frames out, through a bounded queue.
 *
 * A thread of its own takes the latents of each finished block, decodes them one after the other, converts every frame to the wanted
 * pixel format and puts it into a queue of fixed size. When the queue is full it waits, then stage 0 waits for it: this queue is
 * the engine's only rate limiter.
 */
#pragma once

#include <glib.h>
#include "conditioning.h"
#include "wan/model_config.h"
#include "dualparal_testing.h"
#include "trace.h"
#include "wan/weights.h"
#include "recent.h"
#include "kernels/device.h"

typedef struct
{
  DpVaeConfig vae;
  const DpWeights *weights;     /* must outlive the decoder */
  const char *device;
  int threads;
  DpType type;                  /* of weights and activations */
  int latent_h, latent_w;
  int width, height;            /* of a shown frame, even: the middle of what is decoded, or all of it */
  int max_own;                  /* most latent frames of a block */
  int max_queue_frames;
  DpFormat format;
  gint64 num_frames;            /* shown frames after which the stream ends, -1: endless */
  DpTrace *trace;
  void (*loaded) (gpointer user_data);  /* called from its thread once the weights are in */
  void (*failed) (GError *error, gpointer user_data);   /* called from its thread; takes the error */
  gpointer user_data;
} DpDecoderSpec;

typedef struct
{
  guint64 frames;
  guint queue_frames;
  gboolean ended;               /* no frame will follow those */
  gint64 first_frame_us;        /* g_get_monotonic_time() of the first frame in the queue, 0 until then */
  gint64 last_frame_us;
  gint64 busy_us;
  gint64 held_us;               /* how long dp_decoder_push() waited because the queue of frames was full */
  DpRecent intervals;           /* seconds from the last frame of a block in the queue to that of the next block */
  gsize device_bytes;
  guint64 allocations;
} DpDecoderStats;

/* Thread-safety: every function from any thread, dp_decoder_free() last; pushing and pulling from one thread each. */
typedef struct _DpDecoder DpDecoder;

/** Starts the thread, which loads the weights first where they were not left warm. Between dp_part_cache_begin() and dp_part_cache_end(). Errors:
 *  DP_ERROR_NO_MEMORY. */
DpDecoder *dp_decoder_new (const DpDecoderSpec *spec, GError **error);
/** What was loaded stays warm for `linger` seconds. NULL is fine. */
void dp_decoder_free (DpDecoder *decoder, int linger);

/** Memory that it will hold on its device, the queue of frames included where that is the host's. */
gsize dp_decoder_bytes (const DpDecoderSpec *spec);

/** Called from the decoder's thread before a block is decoded; set before the first push. */
void dp_decoder_set_latents_callback (DpDecoder *decoder, DpLatentsCallback callback, gpointer user_data);

/** Hands over a finished block: n latent frames [n, h, w, C] float32 on `dev`. Copies; waits while two blocks are already waiting.
 *  FALSE after dp_decoder_cancel(), and when `dev` failed, which stays latched there. */
gboolean dp_decoder_push (DpDecoder *decoder, DpDevice *dev, const float *latents, int n, gint64 block, DpConditioning *conditioning);
/** No more blocks will come: the stream ends with the last frame of the last one. */
void dp_decoder_finish (DpDecoder *decoder);

/** See dp_engine_pull(), dp_engine_wait() and those that follow there. */
int dp_decoder_pull (DpDecoder *decoder, DpFrame *frame, gint64 timeout_us, GError **error);
gboolean dp_decoder_wait (DpDecoder *decoder, guint frames, gint64 timeout_us);
void dp_decoder_wake (DpDecoder *decoder);
void dp_decoder_release (DpDecoder *decoder, DpFrame *frame);
void dp_decoder_set_flushing (DpDecoder *decoder, gboolean flushing);

/** Wakes everyone. From now on pulling returns a copy of `error` (after the frames that are already there), or DP_ERROR_FLUSHING when it is
 *  NULL. */
void dp_decoder_cancel (DpDecoder *decoder, const GError *error);

void dp_decoder_get_stats (DpDecoder *decoder, DpDecoderStats *stats);
/** DpDecoderStats' held_us. */
gint64 dp_decoder_held_us (DpDecoder *decoder);
