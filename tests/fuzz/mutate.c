/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A fuzzer for compilers that have none: damages good inputs in a fixed random order. `mutate [ROUNDS [SEED]]`, or `mutate FILE...` to
 * replay.
 */
#include "fuzz.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHTS "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}," \
  "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[8,12]},\"c\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[12,16]}}"

/* The first character is the kind of file, as fuzz.h has it. */
static const char *const seeds[] = {
  "0",                          /* WEIGHTS, see make_input() */
  "1{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"w.safetensors\",\"b\":\"w.safetensors\"}}",
  "2{\"_class_name\":\"WanPipeline\",\"boundary_ratio\":null,\"transformer_2\":[null,null],\"vae\":[\"diffusers\",\"AutoencoderKLWan\"]}",
  "2{\"_class_name\":\"WanPipeline\",\"boundary_ratio\":0.9,\"transformer_2\":[\"diffusers\",\"WanTransformer3DModel\"]}",
  "3{\"model_type\":\"umt5\",\"feed_forward_proj\":\"gated-gelu\",\"num_layers\":1,\"d_model\":8,\"d_ff\":8,\"d_kv\":4,\"num_heads\":2,"
      "\"vocab_size\":9,\"layer_norm_epsilon\":1e-06}",
  "4{\"_class_name\":\"WanTransformer3DModel\",\"num_layers\":1,\"num_attention_heads\":1,\"attention_head_dim\":6,\"ffn_dim\":8,"
      "\"in_channels\":1,\"text_dim\":8,\"patch_size\":[1,2,2],\"cross_attn_norm\":true}",
  "5{\"_class_name\":\"AutoencoderKLWan\",\"z_dim\":1,\"base_dim\":8,\"num_res_blocks\":1,\"latents_mean\":[0.5],\"latents_std\":[1],"
      "\"dim_mult\":[1,2],\"temperal_downsample\":[true]}",
  "6{\"_class_name\":\"UniPCMultistepScheduler\",\"prediction_type\":\"flow_prediction\",\"use_flow_sigmas\":true,\"flow_shift\":3.0,"
      "\"disable_corrector\":[],\"solver_type\":\"bh2\"}",
  "7{\"name\":\"t\",\"prompt\":\"a\\u00e9\",\"width\":256,\"height\":144,\"framerate\":[16,1],\"steps\":6,\"guidance_scale\":3.0}",
  "8\357\273\2771\r\n00:00:00,000 --> 00:00:02,500\r\na red ball\r\nover a meadow\r\n\r\n2\n00:00:02,500 --> 100:00:05,000\n<i>a blue "
    "cube</i>\n",
  "90", "91", "92", "93",        /* access_units[] */
};

/* Format, and what it says: parameter sets and a slice, behind start codes and behind lengths */
static const struct
{
  guint8 size, bytes[32];
} access_units[] = {
  { 22, { 0, 0, 0, 0, 1, 9, 0x10, 0, 0, 1, 0x67, 0x42, 0, 0, 3, 1, 0, 0, 1, 0x65, 0x88, 0x84 } },
  { 26, { 1, 0, 0, 0, 1, 0x40, 1, 0x0c, 0, 0, 1, 0x42, 1, 1, 0, 0, 1, 0x4e, 1, 0x88, 0, 0, 1, 0x26, 1, 0xaf } },
  { 15, { 8, 0, 0, 0, 2, 9, 0x10, 0, 0, 0, 4, 0x65, 0x88, 0x84, 0x21 } },
  { 10, { 5, 0, 2, 0x44, 1, 0, 3, 0x26, 1, 0xaf } },
};
static const char *const tokens[] = { "{", "}", "[", "]", "\"", ":", ",", "\\", "\\u0000", "\\ud800", "null", "true", "-1", "0", "1e999",
  "9223372036854775807", "18446744073709551616", "4294967296", "\"a\":", "\377", "\0", "//", "/*", "'", "NaN", "[[[[[[[[[[", "__metadata__",
  "shape", "data_offsets", "F64", "[0,0]", " --> ", "\n\n", "\r", "00:00:02,500" };

static GByteArray *
make_input (const char *seed)
{
  GByteArray *input = g_byte_array_new ();

  g_byte_array_append (input, &(guint8) { seed[0] - '0' }, 1);
  if (seed[0] == '0') {
    guint64 size = strlen (WEIGHTS);

    g_byte_array_append (input, (const guint8 *) &size, 8);
    g_byte_array_append (input, (const guint8 *) WEIGHTS "0123456789abcdef", size + 16);
  } else if (seed[0] == '9') {
    g_byte_array_append (input, access_units[seed[1] - '0'].bytes, access_units[seed[1] - '0'].size);
  } else {
    g_byte_array_append (input, (const guint8 *) seed + 1, strlen (seed + 1));
  }
  return input;
}

static void
insert (GByteArray *input, guint at, const void *data, guint size)
{
  g_byte_array_set_size (input, input->len + size);
  memmove (input->data + at + size, input->data + at, input->len - size - at);
  memcpy (input->data + at, data, size);
}

/* One damage anywhere but in the kind. */
static void
damage (GByteArray *input, GRand *rand)
{
  guint at = input->len > 1 ? g_rand_int_range (rand, 1, input->len) : 1, n = g_rand_int_range (rand, 1, 20);
  const char *token = tokens[g_rand_int_range (rand, 0, G_N_ELEMENTS (tokens))];
  g_autofree guint8 *copy = NULL;

  n = MIN (n, input->len - at);
  switch (at < input->len ? g_rand_int_range (rand, 0, 7) : 4) {
    case 0:
      input->data[at] ^= 1 << g_rand_int_range (rand, 0, 8);
      break;
    case 1:
      input->data[at] = g_rand_int (rand);
      break;
    case 2:
      g_byte_array_set_size (input, at);
      break;
    case 3:
      g_byte_array_remove_range (input, at, n);
      break;
    case 4:
      insert (input, at, token, MAX (strlen (token), 1));
      break;
    case 5:
      copy = g_memdup2 (input->data + at, n);
      insert (input, g_rand_int_range (rand, 1, input->len), copy, n);
      break;
    default:                   /* a digit, most of the time */
      while (at + 1 < input->len && !g_ascii_isdigit (input->data[at]))
        at++;
      input->data[at] = '0' + g_rand_int_range (rand, 0, 10);
  }
}

/* A header that changed its length is told so, or only the length would ever be refused. */
static void
mend (GByteArray *input, GRand *rand)
{
  guint64 size;

  if (input->len < 1 + 8 + 16 || input->data[0] != 0 || g_rand_int_range (rand, 0, 4) == 0)
    return;
  size = input->len - 9 - 16;
  memcpy (input->data + 1, &size, 8);
}

static int
replay (char **paths)
{
  for (; *paths; paths++) {
    g_autofree char *data = NULL;
    gsize size;

    if (!g_file_get_contents (*paths, &data, &size, NULL))
      return 2;
    LLVMFuzzerTestOneInput ((const uint8_t *) data, size);
  }
  return 0;
}

int
main (int argc, char **argv)
{
  int rounds = argc > 1 ? atoi (argv[1]) : 200;
  guint32 seed = argc > 2 ? strtoul (argv[2], NULL, 10) : 1;
  g_autoptr (GRand) rand = g_rand_new_with_seed (seed);

  if (argc > 1 && rounds == 0)
    return replay (argv + 1);
  g_print ("%d rounds, seed %u\n", rounds, seed);
  for (int round = 0; round < rounds; round++)
    for (gsize s = 0; s < G_N_ELEMENTS (seeds); s++) {
      g_autoptr (GByteArray) input = make_input (seeds[s]);
      int times = round == 0 ? 0 : g_rand_int_range (rand, 1, 6);

      for (int i = 0; i < times; i++)
        damage (input, rand);
      mend (input, rand);
      LLVMFuzzerTestOneInput (input->data, input->len);
    }
  return 0;
}
