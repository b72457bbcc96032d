/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Hostile files: a model's, storyboards, and what is said to be H.264 or H.265. With clang:
 *   clang -fsanitize=fuzzer,address,undefined tests/fuzz/fuzz_files.c engine/{error,json_cursor,weights,config}.c ...
 */
#include "fuzz.h"
#include "engine/wan/model_config.h"
#include "engine/dualparal.h"
#include "engine/wan/weights.h"
#include "gst/gstdualparalnal.h"
#include "gst/gstdualparalstoryboard.h"

#include <glib/gstdio.h>
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

static char *dir;

static void
put (const char *name, const void *data, gsize size)
{
  g_autofree char *path = g_build_filename (dir, name, NULL);
  FILE *file = fopen (path, "wb");

  g_assert_nonnull (file);
  g_assert_cmpuint (fwrite (data, 1, size, file), ==, size);
  g_assert_cmpint (fclose (file), ==, 0);
}

static void
clean_up (void)
{
  static const char *const others[] = { "w.safetensors", "i.safetensors.index.json", "text_encoder", "transformer", "vae", "scheduler",
      "." };

  for (gsize i = 0; i < G_N_ELEMENTS (configs) + G_N_ELEMENTS (others); i++) {
    g_autofree char *path = g_build_filename (dir, i < G_N_ELEMENTS (configs) ? configs[i] : others[i - G_N_ELEMENTS (configs)], NULL);

    g_remove (path);
  }
  g_rmdir (dir);
}

static void
prepare (void)
{
  static const char *const subdirs[] = { "text_encoder", "transformer", "vae", "scheduler" };

  dir = g_dir_make_tmp ("dp-fuzz-XXXXXX", NULL);
  for (gsize i = 0; i < G_N_ELEMENTS (subdirs); i++) {
    g_autofree char *path = g_build_filename (dir, subdirs[i], NULL);

    g_mkdir (path, 0700);
  }
  for (gsize i = 0; i < G_N_ELEMENTS (configs); i++)
    put (configs[i], texts[i], strlen (texts[i]));
  atexit (clean_up);
}

/* Touches every byte that was handed out. */
static void
use_tensor (const DpWeights *weights, const char *name)
{
  const DpTensor *t = dp_weights_find (weights, name);
  gsize n = t ? t->bytes / dp_type_size (t->type) : 0;
  g_autofree float *values = g_new (float, n + 1);

  if (t)
    g_assert_true (dp_weights_read (weights, t, 0, n, values, NULL));
}

static void
check (gboolean ok, const GError *error)
{
  g_assert_true (ok == (error == NULL));
  if (error == NULL)
    return;
  g_assert_true (error->domain == DP_ERROR && g_utf8_validate (error->message, -1, NULL) && strlen (error->message) < 4000);
  for (const char *p = error->message; *p; p = g_utf8_next_char (p))    /* one line that commands no terminal */
    g_assert_false (g_unichar_iscntrl (g_utf8_get_char (p)) || g_unichar_type (g_utf8_get_char (p)) == G_UNICODE_FORMAT);
}

static void
check_storyboard (const char *data, gsize size)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GArray) cues = gst_dualparal_storyboard_parse (data, size, &error);
  guint64 time = 0;

  check (cues != NULL, error);
  for (guint i = 0; cues && i < cues->len; i++) {
    const GstDualParalCue *cue = &g_array_index (cues, GstDualParalCue, i);

    g_assert_cmpuint (cue->time, >=, time);
    g_assert_true (*cue->prompt && g_utf8_validate (cue->prompt, -1, NULL) && strchr (cue->prompt, '\n') == NULL);
    time = cue->time + 1;
  }
}

/* The first byte is the format. What was put in is found, and so not put in again. */
static void
check_access_unit (const guint8 *data, gsize size)
{
  static const guint8 uuid[16] = "0123456789abcdef";
  GstDualParalNalFormat format = { .h265 = size && data[0] & 1,.length_size = size ? (data[0] >> 1) % 5 : 0 };
  g_autoptr (GByteArray) sei = gst_dualparal_nal_sei_new (&format, uuid, data, size);
  g_autoptr (GByteArray) marked = g_byte_array_new ();
  gsize at;

  g_assert_true (sei || (format.length_size > 0 && format.length_size < 3));
  if (size < 1 || !sei || !gst_dualparal_nal_find (&format, data + 1, size - 1, uuid, &at))
    return;
  data++;
  size--;
  g_assert_cmpuint (at, <, size);
  g_byte_array_append (marked, data, at);
  g_byte_array_append (marked, sei->data, sei->len);
  g_byte_array_append (marked, data + at, size - at);
  g_assert_false (gst_dualparal_nal_find (&format, marked->data, marked->len, uuid, &at));
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autoptr (GError) error = NULL;

  if (size == 0)
    return 0;
  if (dir == NULL)
    prepare ();
  guint kind = data[0] % (4 + G_N_ELEMENTS (configs));
  data++;
  size--;
  if (kind < 2) {
    put (kind ? "i.safetensors.index.json" : "w.safetensors", data, size);
    g_autoptr (DpWeights) weights = dp_weights_open (dir, kind ? "i" : "w", &error);
    check (weights != NULL, error);
    if (weights)
      for (char name[] = "a"; *name <= 'h'; name[0]++)
        use_tensor (weights, name);
  } else if (kind == 2 + G_N_ELEMENTS (configs)) {
    check_storyboard ((const char *) data, size);
  } else if (kind == 3 + G_N_ELEMENTS (configs)) {
    check_access_unit (data, size);
  } else {
    DpModelConfig config;

    put (configs[kind - 2], data, size);
    gboolean ok = dp_model_config_read (&config, dir, &error);
    check (ok, error);
    put (configs[kind - 2], texts[kind - 2], strlen (texts[kind - 2]));
  }
  return 0;
}
