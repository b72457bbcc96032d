/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory.h"
#include "schedule.h"
#include "wan/text_encoder.h"
#include "part_cache.h"

#include <string.h>

static DpType
type_of (const DpResolved *r)
{
  return r->bfloat16 ? DP_TYPE_BF16 : DP_TYPE_F32;
}

gsize
dp_memory_of_video (const DpResolved *r, const char *device)
{
  const DpSettings *s = &r->settings;
  DpSampler *sampler = dp_sampler_new (s->sampler, s->steps, s->flow_shift, &r->config.scheduler, NULL);
  DpStageSpec stage = dp_settings_stage (r, sampler);
  gsize latent = (gsize) stage.latent_h * stage.latent_w * r->config.vae.z_dim, bytes = 0;
  int first, last;

  if (sampler == NULL)          /* refused in a sentence by whoever opens the engine */
    return 0;
  stage.depth = dp_schedule_depth (s->steps, s->queue_blocks);
  for (int i = 0; i < r->n_devices; i++) {
    if (strcmp (r->devices[i], device) != 0)
      continue;
    dp_ring_layers (r->config.dit.layers, r->n_devices, i, &first, &last);
    bytes += dp_stage_bytes (&stage, first, last);
    bytes += dp_transport_room (r->n_devices) * dp_stage_block_bytes (&stage);
    if (i == 0)
      bytes += dp_schedule_bytes (stage.depth, stage.max_own, latent);
    if (i == r->n_devices - 1)
      bytes += dp_decoder_bytes (&(DpDecoderSpec) { .vae = r->config.vae, .device = device, .bfloat16 = r->bfloat16,
          .latent_h = stage.latent_h, .latent_w = stage.latent_w, .max_queue_frames = s->max_queue_frames, .format = s->format });
  }
  dp_sampler_free (sampler);
  return bytes;
}

gsize
dp_memory_of_text (const DpResolved *r, gboolean streamed)
{
  return dp_text_encoder_bytes (&r->config.text, type_of (r), r->settings.text_length, streamed);
}

gboolean
dp_memory_has_room (const DpResolved *r)
{
  gsize needed = dp_memory_of_video (r, r->devices[0]) + dp_memory_of_text (r, FALSE);
  DpDeviceInfo info;
  char message[256];

  /* A device that cannot be asked cannot be opened either, which will be said then. What lies there warm is either wanted or will be
   * freed. */
  return !dp_device_info (r->devices[0], &info, message, sizeof message) || needed + info.memory_total / 8 <=
    info.memory_free + dp_part_cache_bytes (r->devices[0]);
}
