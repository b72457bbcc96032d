/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_bad_input.c: everything that can be wrong with what a user gives, through the engine's front door. Each is answered within a second,
 * with the right code and one sentence that names what was wrong. One piece, though long: all of them ask this by check_refused().
 */
#include "stream.h"
#include "dualparal_testing.h"

#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#define TRANSFORMER "transformer/diffusion_pytorch_model.safetensors"
#define VAE "vae/diffusion_pytorch_model.safetensors"
#define TEXT "text_encoder/model.safetensors"

/* Opens, and pulls where that succeeds: one of the two must fail. */
static GError *
failure_of (const DpSettings *settings)
{
  GError *error = NULL;
  DpEngine *engine = NULL;
  DpFrame frame;
  TestClock start = test_clock ();

  if (stream_try_open (&engine, settings, NULL, NULL, &error)) {
    g_assert_no_error (error);
    int result = dp_engine_pull (engine, &frame, (gint64) (20e6 * stream_slowness ()), &error);

    if (result == 1)
      g_error ("frame %" G_GINT64_FORMAT " came where an error was expected", frame.index);
  } else
    g_assert_null (engine);
  g_assert_nonnull (error);
  dp_engine_free (engine);
  stream_check_seconds (error->message, start, 1);
  return error;
}

/* `needles`: what the sentence must contain, separated by '|'. */
static void
check_sentence (const GError *error, int code, const char *needles)
{
  g_auto (GStrv) words = g_strsplit (needles, "|", -1);

  if (error->domain != DP_ERROR || error->code != code)
    g_test_fail_printf ("code %d of %s, expected %d: %s", error->code, g_quark_to_string (error->domain), code, error->message);
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
  g_assert_null (strchr (error->message, '\n'));
  g_assert_cmpuint (strlen (error->message), >, 20);
  g_assert_cmpuint (strlen (error->message), <, 1000);
  for (int i = 0; words[i]; i++)
    if (strstr (error->message, words[i]) == NULL)
      g_test_fail_printf ("the sentence does not say \"%s\": %s", words[i], error->message);
}

static void
check_refused (const DpSettings *settings, int code, const char *needles)
{
  g_autoptr (GError) error = failure_of (settings);

  check_sentence (error, code, needles);
}

/* ---- settings ---- */

static void
test_values (void)
{
#define FRAMES(n, ...) (DpSettings) { .num_frames = n, __VA_ARGS__ }
#define WITH(...) FRAMES (9, __VA_ARGS__)
  const struct { DpSettings settings; int code; const char *needles; } bad[] = {
    { WITH (.width = 17), DP_ERROR_SETTINGS, "width|17|even number from 16" },
    { WITH (.height = 14), DP_ERROR_SETTINGS, "height|14|16" },
    { WITH (.width = -16), DP_ERROR_SETTINGS, "width|-16" },
    { WITH (.width = 1 << 30), DP_ERROR_SETTINGS, "width|1073741824|8192" },
    { FRAMES (0), DP_ERROR_SETTINGS, "num-frames|0|-1" },
    { FRAMES (-2), DP_ERROR_SETTINGS, "num-frames|-2" },
    { FRAMES (G_MAXINT64), DP_ERROR_SETTINGS, "num-frames|-1" },
    { FRAMES (G_MININT64), DP_ERROR_SETTINGS, "num-frames|-1" },
    { WITH (.block_latents = 2, .context_latents = 3), DP_ERROR_SETTINGS, "context-latents|3|block-latents|2" },
    { WITH (.context_latents = -2), DP_ERROR_SETTINGS, "context-latents|-2" },
    { WITH (.block_latents = -1), DP_ERROR_SETTINGS, "block-latents|-1" },
    { WITH (.block_latents = G_MAXINT), DP_ERROR_SETTINGS, "block-latents" },
    { WITH (.queue_blocks = -1), DP_ERROR_SETTINGS, "queue-blocks|-1" },
    { WITH (.steps = 4, .queue_blocks = 5), DP_ERROR_SETTINGS, "queue-blocks|5|4" },
    { WITH (.steps = -4), DP_ERROR_SETTINGS, "steps|-4" },
    { WITH (.steps = 1001), DP_ERROR_SETTINGS, "steps|1001|1000" },
    { WITH (.guidance_scale = -1), DP_ERROR_SETTINGS, "guidance-scale|-1" },
    { WITH (.guidance_scale = NAN), DP_ERROR_SETTINGS, "guidance-scale" },
    { WITH (.guidance_scale_2 = 3), DP_ERROR_SETTINGS, "guidance-scale-2|3|transformer_2" },
    { WITH (.guidance_scale_2 = NAN), DP_ERROR_SETTINGS, "guidance-scale-2" },
    { WITH (.guidance_interval_low = -0.5), DP_ERROR_SETTINGS, "guidance-interval-low|-0.5|from 0" },
    { WITH (.guidance_interval_low = NAN), DP_ERROR_SETTINGS, "guidance-interval-low|to 1" },
    { WITH (.guidance_interval_high = 1.5), DP_ERROR_SETTINGS, "guidance-interval-high|1.5|to 1" },
    { WITH (.guidance_interval_high = NAN), DP_ERROR_SETTINGS, "guidance-interval-high" },
    { WITH (.guidance_interval_low = 0.5, .guidance_interval_high = 0.4), DP_ERROR_SETTINGS,
        "guidance-interval-low|0.5|guidance-interval-high (0.4)" },
    { WITH (.flow_shift = INFINITY), DP_ERROR_SETTINGS, "flow-shift" },
    { WITH (.sampler = "ddim"), DP_ERROR_SETTINGS, "sampler|ddim|unipc" },
    { WITH (.sampler = "\377"), DP_ERROR_SETTINGS, "sampler|unipc" },
    { WITH (.precision = "int4"), DP_ERROR_SETTINGS, "precision|int4|bfloat16" },
    { WITH (.precision = "fp8"), DP_ERROR_SETTINGS, "precision|fp8|9.0|device cpu|bfloat16" },
    { WITH (.text_encoder = "maybe"), DP_ERROR_SETTINGS, "text-encoder|maybe|auto, resident or streamed" },
    { WITH (.text_encoder = "\377"), DP_ERROR_SETTINGS, "text-encoder|streamed" },
    { WITH (.text_encoder = ""), DP_ERROR_SETTINGS, "text-encoder|streamed" },
    { WITH (.context_mode = "kept"), DP_ERROR_SETTINGS, "context-mode|kept|auto, recomputed or cached" },
    { WITH (.context_mode = "\377"), DP_ERROR_SETTINGS, "context-mode|cached" },
    { WITH (.threads = -1), DP_ERROR_SETTINGS, "threads|-1" },
    { WITH (.threads = 1025), DP_ERROR_SETTINGS, "threads|1025|1024" },
    { WITH (.first_frame = -1), DP_ERROR_SETTINGS, "first-frame|-1" },
    { WITH (.max_queue_frames = -1), DP_ERROR_SETTINGS, "max-queue-frames|-1" },
    { WITH (.text_length = -1), DP_ERROR_SETTINGS, "text-length|-1" },
    { WITH (.format = 99), DP_ERROR_SETTINGS, "format|99" },
    { WITH (.devices = ""), DP_ERROR_SETTINGS, "devices|empty|cpu" },
    { WITH (.devices = "cpu,,cpu"), DP_ERROR_DEVICE, "devices|\"\"|cpu" },
    { WITH (.devices = "gpu"), DP_ERROR_DEVICE, "gpu|cpu|cuda:0" },
    { WITH (.devices = "cpu,\377\376"), DP_ERROR_DEVICE, "devices" },
    { WITH (.devices = "cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu"), DP_ERROR_SETTINGS, "9 stages|layers" },
    { WITH (.prompt = "a \377 ball"), DP_ERROR_SETTINGS, "prompt|UTF-8" },
    { WITH (.negative_prompt = "\300\200"), DP_ERROR_SETTINGS, "prompt|UTF-8" },
    { WITH (.model = "/nowhere/at/all"), DP_ERROR_NOT_FOUND, "/nowhere/at/all|directory" },
    { WITH (.model = ""), DP_ERROR_NOT_FOUND, "directory" },
    { WITH (.model = "/dev/null"), DP_ERROR_BAD_MODEL, "/dev/null|directory" },
    { WITH (.model = "/tmp"), DP_ERROR_NOT_FOUND, "/tmp|model_index.json" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (bad); i++)
    check_refused (&bad[i].settings, bad[i].code, bad[i].needles);
}

/* A picture to begin with that is none. The text of a file that is one: 2 x 1 pixels. */
static void
test_pictures (void)
{
  static const char good[] = "P6 2 1 255\nabcdef", bomb[] = "P6 20000 20000 255\nabc";
  static const struct { const char *text; gsize size; int code; const char *needles; } files[] = {
    { good, sizeof good - 1, 0, NULL },
    { "", 0, DP_ERROR_SETTINGS, "image|cannot be read|PNG or JPEG" },
    { "not a picture at all", 20, DP_ERROR_SETTINGS, "image|cannot be read|PNG or JPEG" },
    { "\x89PNG\r\n\x1a\n", 8, DP_ERROR_SETTINGS, "image|cannot be read|PNG or JPEG" },
    { bomb, sizeof bomb - 1, DP_ERROR_SETTINGS, "image|more than 100 million pixels|scale it down" },
  };
  g_autofree char *dir = g_dir_make_tmp ("dp-picture-XXXXXX", NULL), *path = g_build_filename (dir, "a picture", NULL);
  DpSettings settings = stream_small ();
  settings.num_frames = 5;
  g_autofree char *without = stream_hash (&settings);
  settings.image = path;

  check_refused (&settings, DP_ERROR_NOT_FOUND, "a picture");
  for (guint i = 0; i < G_N_ELEMENTS (files); i++) {
    g_assert_true (g_file_set_contents (path, files[i].text, files[i].size, NULL));
    if (files[i].needles) {
      check_refused (&settings, files[i].code, files[i].needles);
      continue;
    }
    g_autofree char *with = stream_hash (&settings), *again = stream_hash (&settings);
    g_assert_cmpstr (with, ==, again);
    g_assert_cmpstr (with, !=, without);
  }
  settings.image = dir;
  check_refused (&settings, DP_ERROR_BAD_MODEL, "directory");
  /* A file with the decoder alone is enough for a video, but not for this one. */
  g_assert_true (g_file_set_contents (path, good, sizeof good - 1, NULL));
  g_autofree char *odd = g_build_filename (stream_model (), "..", "odd", NULL);
  settings.image = path;
  settings.model = odd;
  check_refused (&settings, DP_ERROR_BAD_MODEL, "vae|no encoder|image");
  g_unlink (path);
  g_rmdir (dir);
}

static void
test_many_stages (void)
{
  g_autoptr (GString) list = g_string_new ("cpu");

  for (int i = 0; i < 1000; i++)
    g_string_append (list, ",cpu");
  check_refused (&WITH (.devices = list->str), DP_ERROR_SETTINGS, "devices|stages");
}

static void
test_no_cuda (void)
{
  DpSettings s = WITH (.devices = "cuda:0");
  g_autoptr (DpPlan) plan = dp_plan_new (&s, NULL);

  if (plan) {
    g_test_skip ("there is a cuda:0 here");
    return;
  }
  check_refused (&s, DP_ERROR_DEVICE, "cuda:0|devices=cpu");
  s.devices = "cpu,cuda:7";
  check_refused (&s, DP_ERROR_DEVICE, "cuda:7|devices=cpu");
}

static void
test_prompts (void)
{
  g_autofree char *long_prompt = g_strnfill (100000, 'x'), *limit = g_strnfill (16384, 'y');
  g_autoptr (GError) error = NULL;
  DpSettings s = stream_small ();

  check_refused (&WITH (.prompt = long_prompt), DP_ERROR_SETTINGS, "prompt|16384");
  check_refused (&WITH (.prompt = "", .negative_prompt = long_prompt), DP_ERROR_SETTINGS, "prompt|16384");

  /* these are fine */
  s.num_frames = 5;
  s.prompt = "";
  g_autofree char *empty = stream_hash (&s);
  s.prompt = limit;
  g_autofree char *longest = stream_hash (&s);
  g_assert_cmpstr (empty, !=, longest);

  s.num_frames = -1;
  g_autoptr (DpEngine) engine = stream_open (&s);
  gint64 next = 0;
  DpFrame frame;
  g_assert_false (dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = long_prompt, .at_frame = -1 }, &error));
  check_sentence (error, DP_ERROR_SETTINGS, "prompt|16384");
  g_clear_error (&error);
  g_assert_false (dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = "\355\240\200", .at_frame = -1 }, &error));
  check_sentence (error, DP_ERROR_SETTINGS, "prompt|UTF-8");
  g_clear_error (&error);
  g_assert_false (dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = "fine", .negative_prompt = "\377", .at_frame = -1 }, &error));
  check_sentence (error, DP_ERROR_SETTINGS, "prompt|UTF-8");
  g_clear_error (&error);
  stream_pull_until_block (engine, 2, &next, &frame);
  g_assert_false (dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = "too late", .at_frame = 1 }, &error));
  check_sentence (error, DP_ERROR_SETTINGS, "frame 1|earliest frame|-1");
  g_assert_cmpuint (frame.prompt_id, ==, 0);    /* none of them took effect */
}

static void
test_noise (void)
{
  DpSettings s = stream_small ();
  g_autofree float *noise = g_new0 (float, 2 * 10 * 16 * 16);

  s.noise = noise;
  s.noise_latents = 2;
  s.num_frames = 13;            /* 4 latents */
  check_refused (&s, DP_ERROR_SETTINGS, "noise|2 latent|13 frames|need 4");
  s.num_frames = -1;            /* runs until it is used up; that is at once here */
  check_refused (&s, DP_ERROR_SETTINGS, "noise|2 latent");
  s.noise_latents = 0;
  check_refused (&s, DP_ERROR_SETTINGS, "noise|0 latent");
  s.noise_latents = 2;
  s.num_frames = 5;
  g_free (stream_hash (&s));
  noise[100] = NAN;
  check_refused (&s, DP_ERROR_SETTINGS, "noise|NaN|latent frames 0 to 1");
}

/* What cannot fit is refused before it is written to, or the system would end the process. */
static void
test_no_memory (void)
{
  gsize before = stream_resident (TRUE);

  check_refused (&WITH (.width = 8192, .height = 8192, .block_latents = 400, .context_latents = 200), DP_ERROR_NO_MEMORY, "MiB|smaller");
  check_refused (&FRAMES (-1, .width = 64, .height = 64, .block_latents = 512, .context_latents = 512), DP_ERROR_SETTINGS,
      "1536|1024|smaller");     /* more positions than the model has */
  if (sysconf (_SC_PHYS_PAGES) * (gsize) sysconf (_SC_PAGESIZE) < (gsize) 40 << 30)
    check_refused (&WITH (.width = 8192, .height = 8192), DP_ERROR_NO_MEMORY, "MiB|smaller");
  check_refused (&WITH (.max_queue_frames = 1 << 20, .format = DP_FORMAT_RGB_F32, .width = 4096, .height = 2048), DP_ERROR_NO_MEMORY,
      "1048577 frames|MiB|max-queue-frames");
  g_test_message ("resident memory grew by %.1f MiB", ((double) stream_resident (TRUE) - before) / 1048576);
}

/* ---- model files ---- */

/* Opens the embedded model with `file` holding `data`. */
static void
check_file (const char *file, const void *data, gsize size, int code, const char *needles)
{
  char *dir = stream_model_new (file, data, size);

  check_refused (&WITH (.model = dir, .width = 64, .height = 64), code, needles);
  stream_model_free (dir);
}

static const char *const weight_files[] = { TRANSFORMER, VAE, TEXT };

static void
test_missing_files (void)
{
  static const char *const files[] = { "model_index.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json", "tokenizer/spiece.model", TRANSFORMER, VAE, TEXT };

  for (guint i = 0; i < G_N_ELEMENTS (files); i++)
    check_file (files[i], NULL, 0, DP_ERROR_NOT_FOUND, files[i]);
}

static void
test_truncated (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (weight_files); i++) {
    g_autoptr (GBytes) bytes = stream_model_file (weight_files[i]);
    gsize size = g_bytes_get_size (bytes);
    const gsize lengths[] = { 0, 4, 9, 1000, size / 2, size - 1 };

    for (guint j = 0; j < G_N_ELEMENTS (lengths); j++)
      check_file (weight_files[i], g_bytes_get_data (bytes, NULL), lengths[j], DP_ERROR_BAD_MODEL, weight_files[i]);
  }
}

/* A weight file with a changed header and the same data. */
typedef enum { PAST_THE_END, OVERLAPPING, GIGANTIC, WRONG_DTYPE, MISSING, LEFT_OVER, MISSHAPEN, NEGATIVE, REVERSED, EDITS } Edit;

static const char *const edit_needles[EDITS] = {
  [PAST_THE_END] = "cut off", [OVERLAPPING] = "overlap", [GIGANTIC] = "expected the bytes of", [WRONG_DTYPE] = "expected type|I16",
  [MISSING] = "missing", [LEFT_OVER] = "lora_A.weight|expected none of this name", [MISSHAPEN] = "expected shape|found [", [NEGATIVE] = "not negative", [REVERSED] = "expected data within",
};

static void
set_ints (JsonObject *tensor, const char *key, const gint64 *values, int n)
{
  JsonArray *array = json_array_new ();

  for (int i = 0; i < n; i++)
    json_array_add_int_element (array, values[i]);
  json_object_set_array_member (tensor, key, array);
}

/* What lies behind it moves to the front. */
static void
remove_tensor (JsonObject *header, const char *name, gint64 begin, gint64 end)
{
  JsonObjectIter iter;
  const char *member;
  JsonNode *node;

  json_object_remove_member (header, name);
  json_object_iter_init (&iter, header);
  while (json_object_iter_next (&iter, &member, &node)) {
    JsonObject *t = json_node_get_object (node);
    JsonArray *offsets = json_object_has_member (t, "data_offsets") ? json_object_get_array_member (t, "data_offsets") : NULL;

    if (offsets && json_array_get_int_element (offsets, 0) >= end)
      set_ints (t, "data_offsets", (gint64[]) { json_array_get_int_element (offsets, 0) - (end - begin),
              json_array_get_int_element (offsets, 1) - (end - begin) }, 2);
  }
}

/* Returns how many bytes of data are none of any tensor's then. */
static gsize
edit_tensor (JsonObject *header, const char *name, Edit edit)
{
  JsonObject *t = json_object_get_object_member (header, name);
  JsonArray *offsets = json_object_get_array_member (t, "data_offsets"), *shape = json_object_get_array_member (t, "shape");
  gint64 begin = json_array_get_int_element (offsets, 0), end = json_array_get_int_element (offsets, 1);
  gint64 first = json_array_get_int_element (shape, 0), second = json_array_get_int_element (shape, 1);

  switch (edit) {
    case PAST_THE_END:
      set_ints (t, "data_offsets", (gint64[]) { begin, end + (G_GINT64_CONSTANT (1) << 40) }, 2);
      break;
    case OVERLAPPING:
      g_assert_cmpint (begin, >=, 64);
      set_ints (t, "data_offsets", (gint64[]) { begin - 64, end - 64 }, 2);
      break;
    case GIGANTIC:
      set_ints (t, "shape", (gint64[]) { G_GINT64_CONSTANT (1) << 62, G_GINT64_CONSTANT (1) << 62 }, 2);
      break;
    case WRONG_DTYPE:
      json_object_set_string_member (t, "dtype", "I16");
      break;
    case MISSING:
      remove_tensor (header, name, begin, end);
      break;
    case LEFT_OVER:
      json_object_ref (t);
      json_object_remove_member (header, name);
      json_object_set_object_member (header, "transformer.blocks.0.attn1.to_q.lora_A.weight", t);
      break;
    case MISSHAPEN:
      set_ints (t, "shape", (gint64[]) { second, first, 3, 3, 3 }, json_array_get_length (shape));
      break;
    case NEGATIVE:
      set_ints (t, "shape", (gint64[]) { -first, -second }, 2);
      break;
    case REVERSED:
      set_ints (t, "data_offsets", (gint64[]) { end, begin }, 2);
      break;
    default:
      g_assert_not_reached ();
  }
  return edit == MISSING ? end - begin : 0;
}

/* The file with header `text`; its data follows, without the last `cut` bytes. */
static GBytes *
with_header (GBytes *file, const char *text, gsize cut)
{
  gsize size;
  const char *data = g_bytes_get_data (file, &size);
  guint64 old, new = strlen (text);
  GByteArray *out = g_byte_array_new ();

  memcpy (&old, data, 8);
  g_byte_array_append (out, (const guint8 *) &new, 8);
  g_byte_array_append (out, (const guint8 *) text, new);
  g_byte_array_append (out, (const guint8 *) data + 8 + old, size - 8 - old - cut);
  return g_byte_array_free_to_bytes (out);
}

static void
test_headers (void)
{
  /* not square; the decoder's has 3, 3, 3 behind the two */
  static const char *const names[] = { "condition_embedder.text_embedder.linear_1.weight", NULL,
      "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight" };

  for (guint i = 0; i < G_N_ELEMENTS (weight_files); i++) {
    g_autoptr (GBytes) file = stream_model_file (weight_files[i]);
    const char *data = g_bytes_get_data (file, NULL);
    guint64 length;

    memcpy (&length, data, 8);
    for (Edit edit = 0; edit < EDITS; edit++) {
      g_autoptr (JsonParser) parser = json_parser_new ();
      const char *name = names[i] ? names[i] : "decoder.conv_in.weight";

      g_assert_true (json_parser_load_from_data (parser, data + 8, length, NULL));
      gsize cut = edit_tensor (json_node_get_object (json_parser_get_root (parser)), name, edit);
      g_autofree char *text = json_to_string (json_parser_get_root (parser), FALSE);
      g_autoptr (GBytes) hostile = with_header (file, text, cut);
      gboolean named = edit != NEGATIVE && edit != OVERLAPPING && edit != LEFT_OVER;
      g_autofree char *needles = g_strdup_printf ("%s|%s%s%s", weight_files[i], edit_needles[edit], named ? "|" : "", named ? name : "");
      check_file (weight_files[i], g_bytes_get_data (hostile, NULL), g_bytes_get_size (hostile),
          edit == MISSING ? DP_ERROR_NOT_FOUND : DP_ERROR_BAD_MODEL, needles);
    }
  }
}

static void
test_times (void)
{
  static const struct { const char *text, *needles; } bad[] = {
    { "{}", "not a table of times" }, { "[1]", "not a table of times" }, { "[", "cannot be read" },
    { "[{\"device\":\"a\",\"memory\":010}]", "cannot be read|decimal" },
    { "[{\"device\":\"a\",\"layer\":[0x10]}]", "cannot be read|decimal" },
  };
  g_autofree char *path = NULL;
  int fd = g_file_open_tmp ("dp-times-XXXXXX", &path, NULL);

  g_assert_cmpint (fd, >=, 0);
  close (fd);
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_assert_true (g_file_set_contents (path, bad[i].text, -1, NULL));
    check_refused (&WITH (.times = path, .devices = "cpu,cpu"), DP_ERROR_BAD_MODEL, bad[i].needles);
  }
  g_unlink (path);
  check_refused (&WITH (.times = path, .devices = "cpu,cpu"), DP_ERROR_NOT_FOUND, "cannot be read");
}

/* ---- NaN and infinity ---- */

/* The file with all numbers of a tensor, or only one, replaced. */
static GBytes *
with_number (GBytes *file, const char *name, gboolean all, float number)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  gsize size;
  char *data = g_memdup2 (g_bytes_get_data (file, NULL), size = g_bytes_get_size (file)), *at;
  guint64 header;
  guint32 bits;

  memcpy (&header, data, 8);
  memcpy (&bits, &number, 4);
  g_assert_true (json_parser_load_from_data (parser, data + 8, header, NULL));
  JsonObject *t = json_object_get_object_member (json_node_get_object (json_parser_get_root (parser)), name);
  JsonArray *offsets = json_object_get_array_member (t, "data_offsets");
  const char *dtype = json_object_get_string_member (t, "dtype");
  gsize begin = json_array_get_int_element (offsets, 0), end = json_array_get_int_element (offsets, 1);
  gsize element = g_str_equal (dtype, "F32") ? 4 : 2;
  guint16 half = g_str_equal (dtype, "BF16") ? bits >> 16 : isnan (number) ? 0x7e00 : isinf (number) ? 0x7c00 : 0x7bff;

  for (gsize i = all ? begin : end - element; i < end; i += element) {
    at = data + 8 + header + i;
    if (element == 4)
      memcpy (at, &bits, 4);
    else
      memcpy (at, &half, 2);
  }
  return g_bytes_new_take (data, size);
}

static void
test_not_finite (void)
{
  static const struct { int file; const char *tensor; } broken[] = {
    { 0, "blocks.1.ffn.net.0.proj.weight" }, { 0, "blocks.0.attn1.to_k.bias" }, { 0, "blocks.0.attn1.norm_q.weight" },
    { 0, "blocks.2.scale_shift_table" }, { 0, "patch_embedding.weight" }, { 0, "patch_embedding.bias" }, { 0, "proj_out.weight" },
    { 0, "scale_shift_table" }, { 0, "condition_embedder.time_proj.bias" },
    { 1, "decoder.conv_in.weight" }, { 1, "decoder.conv_out.bias" }, { 1, "decoder.norm_out.gamma" }, { 1, "post_quant_conv.weight" },
    { 2, "encoder.block.1.layer.1.DenseReluDense.wo.weight" }, { 2, "encoder.final_layer_norm.weight" },
    { 2, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (broken); i++) {
    const char *file = weight_files[broken[i].file];
    g_autoptr (GBytes) good = stream_model_file (file);
    g_autoptr (GBytes) bad = with_number (good, broken[i].tensor, FALSE, i % 2 ? NAN : -INFINITY);
    g_autofree char *needles = g_strdup_printf ("%s|%s|NaN or infinity", file, broken[i].tensor);

    check_file (file, g_bytes_get_data (bad, NULL), g_bytes_get_size (bad), DP_ERROR_BAD_MODEL, needles);
  }
}

/* Read only when a prompt is encoded. */
static void
test_not_finite_streamed (void)
{
  static const struct { const char *tensor; gboolean all; } broken[] = {
    { "encoder.block.1.layer.0.SelfAttention.o.weight", FALSE }, { "shared.weight", TRUE },
  };

  for (guint i = 0; i < G_N_ELEMENTS (broken); i++) {
    g_autoptr (GBytes) good = stream_model_file (TEXT);
    g_autoptr (GBytes) bad = with_number (good, broken[i].tensor, broken[i].all, NAN);
    g_autofree char *needles = g_strdup_printf ("%s|%s|NaN or infinity", TEXT, broken[i].tensor);
    char *dir = stream_model_new (TEXT, g_bytes_get_data (bad, NULL), g_bytes_get_size (bad));

    check_refused (&WITH (.model = dir, .width = 64, .height = 64, .text_encoder = "streamed"), DP_ERROR_BAD_MODEL, needles);
    stream_model_free (dir);
  }
}

/* Weights that are finite themselves, of each part. */
static void
test_overflow (void)
{
  static const struct { int file; const char *tensor, *needles; } broken[] = {
    { 0, "proj_out.weight", "transformer|block 0|last step|NaN or infinity" },
    { 1, "decoder.conv_out.weight", "decoder|block 0|NaN or infinity" },
    { 2, "encoder.final_layer_norm.weight", "text encoder|token 1 of|NaN or infinity" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (broken); i++) {
    const char *file = weight_files[broken[i].file];
    g_autoptr (GBytes) good = stream_model_file (file);
    g_autoptr (GBytes) bad = with_number (good, broken[i].tensor, TRUE, 3e38f);

    check_file (file, g_bytes_get_data (bad, NULL), g_bytes_get_size (bad), DP_ERROR_BAD_MODEL, broken[i].needles);
  }
}

static void
test_deep_json (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (weight_files); i++) {
    g_autoptr (GBytes) file = stream_model_file (weight_files[i]);
    g_autoptr (GString) deep = g_string_new ("{\"a\":");

    for (int j = 0; j < 1000000; j++)
      g_string_append_c (deep, '[');
    g_autoptr (GBytes) hostile = with_header (file, deep->str, 0);
    check_file (weight_files[i], g_bytes_get_data (hostile, NULL), g_bytes_get_size (hostile), DP_ERROR_BAD_MODEL, weight_files[i]);
  }
  g_autofree char *braces = g_strnfill (500000, '{');
  static const char *const configs[] = { "model_index.json", "transformer/config.json", "dualparal.json" };
  for (guint i = 0; i < G_N_ELEMENTS (configs); i++)
    check_file (configs[i], braces, strlen (braces), DP_ERROR_BAD_MODEL, configs[i]);
}

static void
test_tokenizer (void)
{
  g_autoptr (GBytes) good = stream_model_file ("tokenizer/spiece.model");
  g_autofree char *random = g_malloc (250000);
  gsize size = g_bytes_get_size (good);

  for (int i = 0; i < 250000; i++)
    random[i] = (char) g_random_int ();
  check_file ("tokenizer/spiece.model", "", 0, DP_ERROR_BAD_MODEL, "spiece.model");
  check_file ("tokenizer/spiece.model", "this is not a model", 19, DP_ERROR_BAD_MODEL, "spiece.model");
  check_file ("tokenizer/spiece.model", random, 250000, DP_ERROR_BAD_MODEL, "spiece.model");
  check_file ("tokenizer/spiece.model", g_bytes_get_data (good, NULL), size / 2, DP_ERROR_BAD_MODEL, "spiece.model");
}

/* A config file with one value replaced. */
static void
test_configs (void)
{
  static const struct { const char *file, *key, *value, *needles; } bad[] = {
    { "model_index.json", "_class_name", "\"StableDiffusionPipeline\"", "_class_name|WanPipeline|StableDiffusionPipeline" },
    { "model_index.json", "_class_name", "null", "_class_name" },
    { "model_index.json", "boundary_ratio", "0.9", "boundary_ratio|0.9|transformer_2" },
    { "model_index.json", "boundary_ratio", "1.5", "boundary_ratio|1.5|0 to 1" },
    { "model_index.json", "transformer_2", "[\"diffusers\", \"WanTransformer3DModel\"]", "boundary_ratio|transformer_2|nothing" },
    { "model_index.json", "transformer_2", "[\"diffusers\", \"UNet3D\"]", "transformer_2|WanTransformer3DModel|UNet3D" },
    { "transformer/config.json", "num_layers", "0", "num_layers|0" },
    { "transformer/config.json", "num_layers", "100000", "num_layers|100000" },
    { "transformer/config.json", "num_layers", "-8", "num_layers|-8" },
    { "transformer/config.json", "num_layers", "8.5", "num_layers|8.5" },
    { "transformer/config.json", "num_layers", "99999999999999999999999999", "num_layers" },
    { "transformer/config.json", "num_attention_heads", "1073741824", "num_attention_heads" },
    { "transformer/config.json", "attention_head_dim", "\"64\"", "attention_head_dim" },
    { "transformer/config.json", "attention_head_dim", "63", "attention_head_dim|63" },
    { "transformer/config.json", "ffn_dim", "2147483648", "ffn_dim" },
    { "transformer/config.json", "in_channels", "-1", "in_channels|-1" },
    { "transformer/config.json", "text_dim", "4096", "text_dim|4096" },
    { "transformer/config.json", "patch_size", "[2, 2, 2]", "patch_size|[1, 2, 2]" },
    { "transformer/config.json", "image_dim", "1280", "image_dim|1280" },
    { "transformer/config.json", "eps", "1e300", "eps" },
    { "vae/config.json", "z_dim", "0", "z_dim|0" },
    { "vae/config.json", "z_dim", "1000000", "z_dim|1000000" },
    { "vae/config.json", "dim_mult", "[]", "dim_mult" },
    { "vae/config.json", "dim_mult", "[1, 2, 4, 1000000000]", "dim_mult" },
    { "vae/config.json", "latents_mean", "[0.0]", "latents_mean|16" },
    { "vae/config.json", "latents_std", "null", "latents_std" },
    { "vae/config.json", "is_residual", "\"true\"", "is_residual" },
    { "text_encoder/config.json", "d_model", "1000000000", "d_model|1000000000" },
    { "text_encoder/config.json", "num_heads", "0", "num_heads|0" },
    { "text_encoder/config.json", "vocab_size", "-512", "vocab_size|-512" },
    { "text_encoder/config.json", "model_type", "\"t5\"", "model_type|umt5|t5" },
    { "text_encoder/config.json", "relative_attention_num_buckets", "0", "relative_attention_num_buckets" },
    { "scheduler/scheduler_config.json", "_class_name", "\"DDIMScheduler\"", "_class_name|DDIMScheduler" },
    { "scheduler/scheduler_config.json", "flow_shift", "-3", "flow_shift|-3" },
    { "scheduler/scheduler_config.json", "solver_order", "9", "solver_order|9" },
    { "dualparal.json", "width", "-1", "width|-1" },
    { "dualparal.json", "framerate", "[16, 0]", "framerate" },
    { "dualparal.json", "trained_sizes", "[256, 144]", "trained_sizes|256|pairs" },
    { "dualparal.json", "trained_sizes", "[[256, 144], [17, 32]]", "trained_sizes|17|pairs" },
    { "dualparal.json", "trained_sizes", "[]", "trained_sizes|list" },
    { "dualparal.json", "preview_map", "[[1], [2], [3]]", "preview_map|17" },
    { "dualparal.json", "preview_map", "[1, 2, 3]", "preview_map|17" },
    { "dualparal.json", "preview_map", "[[1]]", "preview_map|3" },
    { "dualparal.json", "steps", "1e9", "steps" },
    { "dualparal.json", "prompt", "17", "prompt|17" },
    { "dualparal.json", "guidance_scale_2", "3", "guidance_scale_2|3|transformer_2" },
    { "dualparal.json", "no_such_setting", "1", "no_such_setting" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autoptr (GBytes) file = stream_model_file (bad[i].file);
    g_autoptr (JsonParser) parser = json_parser_new ();
    g_autofree char *needles = g_strdup_printf ("%s|%s", bad[i].file, bad[i].needles);

    g_assert_true (json_parser_load_from_data (parser, g_bytes_get_data (file, NULL), g_bytes_get_size (file), NULL));
    JsonObject *object = json_node_get_object (json_parser_get_root (parser));
    json_object_set_string_member (object, bad[i].key, "@@");
    g_autofree char *text = json_to_string (json_parser_get_root (parser), TRUE);
    g_auto (GStrv) parts = g_strsplit (text, "\"@@\"", 2);
    g_autofree char *edited = g_strconcat (parts[0], bad[i].value, parts[1], NULL);
    check_file (bad[i].file, edited, strlen (edited), DP_ERROR_BAD_MODEL, needles);
  }
  check_file ("vae/config.json", "[1, 2]", 6, DP_ERROR_BAD_MODEL, "vae/config.json|object");
  check_file ("vae/config.json", "{\"z_dim\": ", 10, DP_ERROR_BAD_MODEL, "vae/config.json");
  check_file ("vae/config.json", "\377\376{}", 4, DP_ERROR_BAD_MODEL, "vae/config.json");
}

/* The embedded model's file with one number multiplied and added to. */
static char *
edited_config (const char *file, const char *key, double times, int plus)
{
  g_autoptr (GBytes) bytes = stream_model_file (file);
  g_autofree char *text = g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  g_autoptr (JsonNode) root = json_from_string (text, NULL);
  JsonObject *object = json_node_get_object (root);

  g_assert_true (json_object_has_member (object, key));
  json_object_set_int_member (object, key, json_object_get_int_member (object, key) * times + plus);
  return json_to_string (root, TRUE);
}

/* Configs that are fine each by itself, but describe other weights. */
static void
test_other_weights (void)
{
  static const struct { const char *file, *key; double times; int plus; const char *needles; int code; } bad[] = {
    { "transformer/config.json", "num_layers", 1, 1, "transformer|blocks.|missing", DP_ERROR_NOT_FOUND },
    { "transformer/config.json", "num_attention_heads", 1, 1, "transformer|expected shape", DP_ERROR_BAD_MODEL },
    { "vae/config.json", "decoder_base_dim", 2, 0, "vae|expected shape", DP_ERROR_BAD_MODEL },
    { "text_encoder/config.json", "num_layers", 1, 1, "encoder.block.|missing", DP_ERROR_NOT_FOUND },
    { "text_encoder/config.json", "vocab_size", 0, 1000, "expected shape [1000, ", DP_ERROR_BAD_MODEL },
    { "text_encoder/config.json", "vocab_size", 0, 100, "spiece.model|100", DP_ERROR_BAD_MODEL },
  };

  for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autofree char *edited = edited_config (bad[i].file, bad[i].key, bad[i].times, bad[i].plus);

    check_file (bad[i].file, edited, strlen (edited), bad[i].code, bad[i].needles);
  }
}

/* The embedded model with its transformer as both experts; `file` of the second one holds `text`, or is missing when that is NULL. */
static char *
experts_new (const char *file, const char *text)
{
  g_autoptr (GBytes) bytes = stream_model_file ("model_index.json");
  g_autofree char *index = g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  g_autoptr (JsonNode) root = json_from_string (index, NULL);
  static const char *const names[] = { "config.json", "diffusion_pytorch_model.safetensors" };

  json_object_set_double_member (json_node_get_object (root), "boundary_ratio", 0.9);
  json_object_set_member (json_node_get_object (root), "transformer_2", json_from_string ("[\"diffusers\", \"WanTransformer3DModel\"]",
      NULL));
  g_autofree char *changed = json_to_string (root, FALSE);
  char *dir = stream_model_new ("model_index.json", changed, strlen (changed));
  g_autofree char *second = g_build_filename (dir, "transformer_2", NULL);
  g_assert_cmpint (g_mkdir (second, 0700), ==, 0);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *from = g_build_filename (dp_model_embedded (), "transformer", names[i], NULL);
    g_autofree char *to = g_build_filename (second, names[i], NULL);

    if (g_strcmp0 (file, names[i]) != 0)
      g_assert_cmpint (symlink (from, to), ==, 0);
    else if (text)
      g_assert_true (g_file_set_contents (to, text, -1, NULL));
  }
  return dir;
}

static void
check_experts (const char *file, const char *text, double guidance_2, int code, const char *needles)
{
  char *dir = experts_new (file, text);

  check_refused (&WITH (.model = dir, .width = 64, .height = 64, .guidance_scale_2 = guidance_2), code, needles);
  stream_model_free (dir);
}

static void
test_experts (void)
{
  g_autofree char *more = edited_config ("transformer/config.json", "num_layers", 0, 99);
  DpSettings s = stream_small ();

  check_experts ("config.json", NULL, 0, DP_ERROR_NOT_FOUND, "transformer_2/config.json");
  check_experts ("config.json", "{}", 0, DP_ERROR_BAD_MODEL, "transformer_2/config.json|_class_name");
  check_experts ("config.json", more, 0, DP_ERROR_BAD_MODEL, "transformer_2/config.json|num_layers|found 99");
  check_experts ("diffusion_pytorch_model.safetensors", NULL, 0, DP_ERROR_NOT_FOUND, "transformer_2/diffusion_pytorch_model");
  check_experts ("diffusion_pytorch_model.safetensors", "not weights", 0, DP_ERROR_BAD_MODEL, "transformer_2/diffusion_pytorch_model");
  check_experts (NULL, NULL, 101, DP_ERROR_SETTINGS, "guidance-scale-2|101");
  check_experts (NULL, NULL, -1, DP_ERROR_SETTINGS, "guidance-scale-2|-1");

  /* this is fine, and twice the same expert is that expert; one scale given is both's, also where it turns guidance off */
  char *dir = experts_new (NULL, NULL);
  const double scales[] = { 0, 1, 4 };
  s.num_frames = 41;
  s.steps = 3;
  for (guint i = 0; i < G_N_ELEMENTS (scales); i++) {
    s.guidance_scale = scales[i];
    s.model = NULL;
    g_autofree char *one = stream_hash (&s);
    s.model = dir;
    g_autofree char *two = stream_hash (&s);
    g_assert_cmpstr (one, ==, two);
  }
  stream_model_free (dir);
}

/* A failure is for good, for every puller, and told to the progress callback once. */
typedef struct
{
  GMutex lock;
  int failures;
  char *text;
} Told;

static void
progress (const char *code, const char *text, int percent, gpointer data)
{
  Told *told = data;

  g_mutex_lock (&told->lock);
  if (percent < 0) {
    told->failures++;
    g_free (told->text);
    told->text = g_strdup (text);
  }
  g_mutex_unlock (&told->lock);
}

static void
test_told_once (void)
{
  char *dir = stream_model_new (TEXT, "not weights", 11);
  g_autoptr (GError) error = NULL, again = NULL, embeds_error = NULL;
  DpEngine *engine = NULL;
  Told told = { 0 };
  DpStats stats;
  DpFrame frame;
  float *prompt, *negative;
  int length, dim;

  g_assert_true (stream_try_open (&engine, &WITH (.model = dir, .devices = "cpu,cpu,cpu"), progress, &told, &error));
  g_assert_cmpint (dp_engine_pull (engine, &frame, -1, &error), ==, -1);
  check_sentence (error, DP_ERROR_BAD_MODEL, TEXT);
  g_assert_cmpint (dp_engine_pull (engine, &frame, -1, &again), ==, -1);
  g_assert_cmpstr (error->message, ==, again->message);
  g_assert_false (dp_engine_prompt_embeds (engine, &prompt, &negative, &length, &dim, &embeds_error));
  g_assert_nonnull (embeds_error);
  dp_engine_get_stats (engine, &stats);
  g_assert_true (stats.ended);
  g_assert_cmpuint (stats.frames, ==, 0);
  dp_engine_free (engine);
  g_assert_cmpint (told.failures, ==, 1);
  g_assert_cmpstr (told.text, ==, error->message);
  g_free (told.text);
  stream_model_free (dir);
}

/* Nothing of all that may stay behind: no thread, no open file. */
static int files_before, threads_before;

static gpointer
nothing (gpointer data)
{
  return NULL;
}

static void
count_before (void)
{
  g_thread_join (g_thread_new ("first", nothing, NULL));        /* a sanitizer starts a thread of its own beside the first one */
  files_before = stream_count ("fd");
  threads_before = stream_threads ();
}

static void
test_nothing_left (void)
{
  g_assert_cmpint (stream_count ("fd"), ==, files_before);
  g_assert_cmpint (stream_threads (), ==, threads_before);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  count_before ();
  g_test_add_func ("/bad-input/values", test_values);
  g_test_add_func ("/bad-input/pictures", test_pictures);
  g_test_add_func ("/bad-input/many-stages", test_many_stages);
  g_test_add_func ("/bad-input/no-cuda", test_no_cuda);
  g_test_add_func ("/bad-input/prompts", test_prompts);
  g_test_add_func ("/bad-input/noise", test_noise);
  g_test_add_func ("/bad-input/no-memory", test_no_memory);
  g_test_add_func ("/bad-input/missing-files", test_missing_files);
  g_test_add_func ("/bad-input/truncated", test_truncated);
  g_test_add_func ("/bad-input/headers", test_headers);
  g_test_add_func ("/bad-input/times", test_times);
  g_test_add_func ("/bad-input/not-finite", test_not_finite);
  g_test_add_func ("/bad-input/not-finite-streamed", test_not_finite_streamed);
  g_test_add_func ("/bad-input/overflow", test_overflow);
  g_test_add_func ("/bad-input/deep-json", test_deep_json);
  g_test_add_func ("/bad-input/tokenizer", test_tokenizer);
  g_test_add_func ("/bad-input/configs", test_configs);
  g_test_add_func ("/bad-input/other-weights", test_other_weights);
  g_test_add_func ("/bad-input/experts", test_experts);
  g_test_add_func ("/bad-input/told-once", test_told_once);
  g_test_add_func ("/bad-input/nothing-left", test_nothing_left);
  return g_test_run ();
}
