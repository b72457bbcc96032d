/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A config file of a model, behind a byte that says which, counted from 0.
 */
#include "fuzz.h"
#include "engine/wan/model_config.h"

#include <string.h>

static const char *const configs[] = { "model_index.json", "text_encoder/config.json", "transformer/config.json", "vae/config.json",
  "scheduler/scheduler_config.json", "dualparal.json" };

/* The least each file must say; all but the one under attack are kept like this. */
static const char *const texts[] = {
  "{\"_class_name\":\"WanPipeline\"}",
  "{\"model_type\":\"umt5\",\"feed_forward_proj\":\"gated-gelu\","
      "\"num_layers\":1,\"d_model\":8,\"d_ff\":8,\"d_kv\":4,\"num_heads\":2,\"vocab_size\":9}",
  "{\"_class_name\":\"WanTransformer3DModel\",\"num_layers\":1,\"num_attention_heads\":1,"
      "\"attention_head_dim\":6,\"ffn_dim\":8,\"in_channels\":1,"
      "\"text_dim\":8}",
  "{\"_class_name\":\"AutoencoderKLWan\",\"z_dim\":1,\"base_dim\":8,\"num_res_blocks\":1,"
      "\"latents_mean\":[0],\"latents_std\":[1],\"dim_mult\":[1],"
      "\"temperal_downsample\":[]}",
  "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\"}",
  "{}",
};

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static gboolean prepared;
  g_autoptr (GError) error = NULL;
  DpModelConfig config;

  if (size == 0)
    return 0;
  for (gsize i = 0; i < G_N_ELEMENTS (configs) && !prepared; i++)
    fuzz_put (configs[i], texts[i], strlen (texts[i]));
  prepared = TRUE;
  guint which = data[0] % G_N_ELEMENTS (configs);
  fuzz_put (configs[which], data + 1, size - 1);
  gboolean ok = dp_model_config_read (&config, fuzz_dir (), &error);
  fuzz_check_error (ok, error);
  fuzz_put (configs[which], texts[which], strlen (texts[which]));
  return 0;
}
