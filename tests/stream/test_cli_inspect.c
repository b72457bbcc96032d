/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_cli_inspect.c: what `dualparal inspect` and `plan` say of devices, models and settings, and that it is so.
 */
#include "cli.h"
#include "stream.h"

#include <stdlib.h>
#include <string.h>

static void
test_inspect (void)
{
  g_autofree char *out = cli_ok ("inspect");
  g_auto (CliRun) nowhere = cli_run ("inspect --model /nowhere");      /* the devices are told all the same */

  g_assert_cmpint (nowhere.status, ==, 1);
  g_assert_nonnull (strstr (nowhere.out, "oneDNN"));
  g_assert_nonnull (strstr (nowhere.err, "/nowhere"));

  /* 0 is the default; what is in between is not of this moment, as the free memory is */
  g_autofree char *zeros = cli_ok ("inspect --width 0 --height 0 --steps 0 --guidance-scale 0 --flow-shift 0 --block-latents 0 "
      "--context-latents 0 --queue-blocks 0");
  const char *model = strstr (zeros, "\nmodel "), *room = strstr (zeros, "\nall of it on one device\n");
  g_assert_true (model && room && strncmp (model, strstr (out, "\nmodel "), room - model) == 0);
  const char *chosen = strstr (out, "AVX-512 BF16") ? "\nplan for devices=auto\n  precision     bfloat16\n" :
      "\nplan for devices=auto\n  precision     float32\n";
  const char *const words[] = { "cpu", "oneDNN", "GiB", "cuda:0", "tiny", " layers", "256x144", "unipc", "guidance", chosen,
    "\n  stage 0       cpu, layers 0-7, ", "\n  decoder       cpu, ", "\n  text encoder  cpu, resident, ", " MiB on cpu\n"
  };                            /* where no GPU is visible */

  for (guint i = 0; i < G_N_ELEMENTS (words); i++)
    if (strstr (out, words[i]) == NULL)
      g_test_fail_printf ("inspect does not say \"%s\": %s", words[i], out);
  g_assert_null (strstr (out, "cannot be used"));       /* nothing is wrong with a GPU that is not there */

  g_autofree char *three = cli_ok ("inspect --devices cpu,cpu,cpu --threads 4");
  static const char *const stages[] = { "\n  stage 0       cpu, layers 0-2.5, host threads 1, ",
    "\n  stage 1       cpu, layers 2.5-5, host threads 1, ", "\n  stage 2       cpu, layers 5-7, host threads 1, " };
  for (guint i = 0; i < G_N_ELEMENTS (stages); i++)
    if (strstr (three, stages[i]) == NULL)
      g_test_fail_printf ("inspect does not say \"%s\": %s", stages[i], three);
}

/* Which steps are guided is said where not all are. */
static void
test_interval (void)
{
  g_autofree char *some = cli_ok ("inspect --guidance-scale 3 --guidance-interval-low 0.5 --guidance-interval-high 0.9 --devices cpu");
  g_autofree char *none = cli_ok ("inspect --guidance-scale 3 --guidance-interval-low 0.98 --guidance-interval-high 0.985 --devices cpu");
  g_auto (CliRun) wrong = cli_run ("inspect --guidance-interval-low 0.6 --guidance-interval-high 0.5");

  if (strstr (some, "guidance 3 at noise levels 0.5 to 0.9, ") == NULL || strstr (some, "\n  guidance      in steps 4 to 7 of 8\n") == NULL)
    g_test_fail_printf ("inspect does not say which steps are guided: %s", some);
  if (strstr (none, "\n  no step has guidance: none starts from a noise level above 0.98 and up to 0.985; the steps start from 1, ") == NULL)
    g_test_fail_printf ("inspect does not say that no step is guided: %s", none);
  g_assert_cmpint (wrong.status, ==, 1);
  g_assert_nonnull (strstr (wrong.err, "guidance-interval-low is 0.6, above guidance-interval-high (0.5)"));
}

/* A number behind `before`. */
static double
number_in (const char *text, const char *before)
{
  const char *at = strstr (text, before);

  g_assert_nonnull (at);
  return g_ascii_strtod (at + strlen (before), NULL);
}

/* What is said to be needed is what the engine takes. The room for texts of 512 tokens is in it and the scratch of threads is not: half a
 * MiB for each here. */
static void
test_inspect_room (void)
{
  g_autofree char *said = cli_ok ("inspect --steps 2 --width 160 --height 96");
  g_autofree char *large = cli_ok ("inspect --width 8192 --height 8192 --block-latents 1000");
  g_autofree char *json = cli_ok ("bench --steps 2 --width 160 --height 96 --blocks 1 --threads 2 --json");
  double needed = number_in (said, "  cpu      fits: "), taken = number_in (json, "\"device_bytes\" : ") / 1048576;

  g_test_message ("%.1f MiB, and it took %.1f", needed, taken);
  g_assert_true (needed >= taken && needed <= taken * 1.15);
  g_assert_cmpfloat (number_in (large, "  cpu      does not fit: "), >, 1e6);
}

/* A copy of the tiny model with one fault, made by a shell in its directory: inspect finds what loading finds, and says the same. */
static void
check_inspected (const char *fault, const char *needle)
{
  g_autofree char *command = g_strdup_printf ("rm -rf '%s/faulty' && mkdir '%s/faulty' && cd '%s' && cp -r *.json [a-z]*er vae "
      "'%s/faulty' && cd '%s/faulty' && %s", cli_dir, cli_dir, dp_model_embedded (), cli_dir, cli_dir, fault);

  g_assert_cmpint (system (command), ==, 0);
  g_auto (CliRun) inspected = cli_run ("inspect " SMALL "--model %s/faulty"), loaded = cli_run ("generate " SMALL "--model %s/faulty "
      "--output /dev/null");
  g_test_message ("%s: %s", fault, g_strchomp (inspected.err));
  if (inspected.status != 1 || strstr (inspected.out, "fits") || strstr (inspected.err, needle) == NULL)
    g_test_fail_printf ("%s: %d, \"%s\"", fault, inspected.status, inspected.err);
  g_assert_cmpint (loaded.status, ==, 1);
  g_assert_cmpstr (g_strchomp (loaded.err), ==, inspected.err);
}

static void
test_inspect_faults (void)
{
  static const char *const weights[] = { "transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model" };
#define CONFIG(file, key, value) "sed -i 's/\"" key "\": *[0-9]*/\"" key "\": " value "/' " file "/config.json"

  for (guint i = 0; i < G_N_ELEMENTS (weights); i++) {
    const struct { const char *fault, *needle; } faults[] = {
      { "rm %s.safetensors", "no weights there" }, { "truncate -s -1 %s.safetensors", "cut off" },
      { "truncate -s 0 %s.safetensors", "only 0 bytes" }, { "truncate -s 1000 %s.safetensors", "cut off" },
      { "printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:0\\nsize 9\\n' > %s.safetensors", "Git LFS pointer" },
    };
    for (guint k = 0; k < (i == 0 ? G_N_ELEMENTS (faults) : 2); k++) {
      g_auto (GStrv) parts = g_strsplit (faults[k].fault, "%s", -1);
      g_autofree char *fault = g_strjoinv (weights[i], parts);

      check_inspected (fault, faults[k].needle);
    }
  }
  check_inspected (CONFIG ("transformer", "num_layers", "8"), "tensor blocks.7.");
  check_inspected (CONFIG ("transformer", "num_layers", "6"), "gives 6 layers");
  check_inspected (CONFIG ("transformer", "ffn_dim", "64"), "expected shape");
  check_inspected (CONFIG ("text_encoder", "num_layers", "9"), "tensor encoder.block.");
  check_inspected (CONFIG ("text_encoder", "num_layers", "1"), "gives 1 layers");
  check_inspected (CONFIG ("text_encoder", "vocab_size", "9"), "at most the text encoder's 9 pieces");
  check_inspected (CONFIG ("vae", "num_res_blocks", "9"), "tensor decoder.");
  check_inspected (CONFIG ("transformer", "rope_max_seq_len", "2"), "positions per axis");
  check_inspected ("rm tokenizer/spiece.model", "spiece.model: cannot be read");
  check_inspected ("echo no > tokenizer/spiece.model", "expected a SentencePiece model");
  check_inspected ("truncate -s -1 tokenizer/spiece.model", "expected a SentencePiece model");
}

/* What a program that is not the build tree's says, which finds gpus.c's module; NULL where it would find another. */
static char *
inspect_gpus (const char *environment, const char *devices)
{
  g_autofree char *command = g_strdup_printf ("cd '%s' && cp '" STREAM_CLI "' elsewhere && cp '" GPUS "' libdualparal-cuda.so && "
      "LD_LIBRARY_PATH=. %s ./elsewhere inspect --devices %s --model '%s'", cli_dir, environment, devices, dp_model_embedded ());
  g_autoptr (GError) error = NULL;
  char *out = NULL;
  int status;

  if (g_file_test (MODULE_DIR "/libdualparal-cuda.so", G_FILE_TEST_EXISTS)) {
    g_test_skip ("a module is installed, in " MODULE_DIR);
    return NULL;
  }
  g_spawn_sync (NULL, (char *[]) { "sh", "-c", command, NULL }, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, NULL, &status, &error);
  g_assert_no_error (error);
  g_assert_cmpint (status, ==, 0);
  g_test_message ("%s", out);
  return out;
}

static void
test_inspect_gpus (void)
{
  g_autofree char *out = inspect_gpus ("", "auto");

  if (out == NULL)
    return;
  static const char *const lines[] = { "\n  cuda:0   a GPU; no libraries; 80.0 of 80.0 GiB free\n",
      "\n  cuda:1   device cuda:1: it is too old\n",
    "\n  cuda:2   a GPU; ", "\n  stage 0       cuda:0, layers 0-7, ", "\n  cuda:0   fits: ", "\n  cuda:2   does not fit: ",
    " where 1.0 are free, in bfloat16, text encoder streamed\n" };
  for (guint i = 0; i < G_N_ELEMENTS (lines); i++)
    if (strstr (out, lines[i]) == NULL)
      g_test_fail_printf ("inspect does not say \"%s\"", lines[i]);
  g_assert_null (strstr (out, "cuda:3"));
  g_assert_null (strstr (out, "cannot be used"));
}

/* A GPU that is there and was not taken is told. */
static void
test_inspect_passed_over (void)
{
  g_autofree char *out = inspect_gpus ("GPUS_FIRST_IS_OLD=1", "auto");

  if (out == NULL)
    return;
  g_assert_nonnull (strstr (out, "\n  stage 0       cpu, layers 0-7, "));
  g_assert_nonnull (strstr (out, "\n  devices=auto uses the CPU, because the GPU cannot be used: device cuda:0: it is too old\n"));
}

/* "cuda" is every GPU. */
static void
test_inspect_all_gpus (void)
{
  g_autofree char *out = inspect_gpus ("GPUS_NONE_IS_OLD=1", "cuda"), *some = inspect_gpus ("", "cuda:0,cuda:2");

  if (out == NULL || some == NULL)
    return;
  static const char *const stages[] = { "\n  stage 0       cuda:0, layers 0-", "\n  stage 1       cuda:1, layers ",
    "\n  stage 2       cuda:2, layers ", "\n  decoder       cuda:2, ", "\n  text encoder  cuda:0, " };
  for (guint i = 0; i < G_N_ELEMENTS (stages); i++)
    g_assert_nonnull (strstr (out, stages[i]));
  g_assert_null (strstr (out, "stage 3"));
  g_assert_nonnull (strstr (some, "\n  stage 1       cuda:2, layers "));
}

/* A published model is planned for by its name, without its files; what needs them says how to get them. */
static void
test_published (void)
{
  g_autofree char *plan = cli_ok ("plan --model wan2.1-14b --devices cpu,cpu --precision bfloat16 --text-encoder resident");
  g_autofree char *out = cli_ok ("inspect --model wan2.2-a14b --devices cpu");
  static const char *const lines[] = { "`hf download Wan-AI/Wan2.2-T2V-A14B-Diffusers --local-dir DIR`",
    "\n  transformer_2 40 layers, 40 heads", "\n  boundary      0.875: ", "256384 tokens known\n", "832x480 at 16/1",
    "\n  stage 0       cpu, layers 0-40, " };

  g_assert_nonnull (strstr (plan, "\n  stage 0       cpu, layers 0-20, "));
  double text_mib = g_ascii_strtod (strstr (plan, "resident, ") + strlen ("resident, "), NULL);
  g_assert_cmpfloat (text_mib, >, 8 * 1024);    /* of 5.7 billion parameters, a third in the token table, which stays in its file */
  g_assert_cmpfloat (text_mib, <, 9 * 1024);
  for (guint i = 0; i < G_N_ELEMENTS (lines); i++)
    if (strstr (out, lines[i]) == NULL)
      g_test_fail_printf ("inspect does not say \"%s\"", lines[i]);
  /* 16 x 16 pixels a latent: 720 lines are the middle of 736, which it was not trained for */
  g_autofree char *grid = cli_ok ("plan --model wan2.2-5b --precision bfloat16 --height 720"), *trained = cli_ok ("plan --model wan2.2-5b");
  g_assert_nonnull (strstr (grid, "1280x720, the middle of 1280x736\n"));
  g_assert_nonnull (strstr (grid, "was not trained for 1280x720, so the video may look wrong; it was trained for 1280x704 and 704x1280\n"));
  g_assert_null (strstr (trained, "trained"));
  cli_bad ("generate --model wan2.2-5b --output %s/x.y4m", 1, "`hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers --local-dir DIR`");
  cli_bad ("generate --model wan2.1-1.3b --output %s/x.y4m", 1, "`hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --local-dir DIR`");
  cli_bad ("bench --model wan2.1-14b --blocks 1", 1, "`hf download Wan-AI/Wan2.1-T2V-14B-Diffusers --local-dir DIR`");
  cli_bad ("plan --model wan2.1-5b", 1, "wan2.1-5b: no such directory");
}

/* What one device takes, measured; and what several of them would take. */
static void
test_plan (void)
{
  for (int i = 0; i < 2; i++)
    g_free (cli_ok ("bench " SMALL "--precision float32 --blocks 2 --add-times %s/times.json"));
  g_autofree char *one = cli_ok ("plan " SMALL "--precision float32 --times %s/times.json");
  g_autofree char *three = cli_ok ("plan " SMALL "--precision float32 --queue-blocks 2 --gpus 3 --times %s/times.json");
  g_autoptr (GBytes) bytes = cli_contents ("times.json");
  g_autofree char *table = g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  const char *work = strstr (table, "\"work\"");

  g_assert_nonnull (work);
  g_assert_null (strstr (work + 1, "\"work\""));        /* the second run replaced the first */
  g_assert_nonnull (strstr (one, "1.00 times as fast as the first device alone"));
  g_assert_nonnull (strstr (three, "stage 2       cuda:2, layers "));
  g_assert_nonnull (strstr (three, " for 3 stages"));
  cli_bad ("plan " SMALL "--precision float32 --block-latents 2 --gpus 3 --times %s/times.json", 1, "has no times for any device");
  char *wrong = cli_path ("wrong.json");
  g_assert_true (g_file_set_contents (wrong, "[{\"device\": \"\", \"work\": 3, \"layer\": []}]", -1, NULL));
  g_free (wrong);
  cli_bad ("plan " SMALL "--times %s/wrong.json", 1, "has no times");
  cli_bad ("plan " SMALL "--gpus 3", 1, "--times");
  cli_bad ("plan " SMALL "--times %s/none.json", 1, "none.json");
  cli_bad ("bench " SMALL "--devices cpu,cpu --blocks 1 --add-times %s/times.json", 1, "one device");
}

int
main (int argc, char **argv)
{
  cli_init (&argc, &argv);
  g_test_add_func ("/cli/inspect", test_inspect);
  g_test_add_func ("/cli/inspect/interval", test_interval);
  g_test_add_func ("/cli/inspect/room", test_inspect_room);
  g_test_add_func ("/cli/inspect/faults", test_inspect_faults);
  g_test_add_func ("/cli/inspect/gpus", test_inspect_gpus);
  g_test_add_func ("/cli/plan", test_plan);
  g_test_add_func ("/cli/published", test_published);
  g_test_add_func ("/cli/inspect/all-gpus", test_inspect_all_gpus);
  g_test_add_func ("/cli/inspect/passed-over", test_inspect_passed_over);
  return cli_end (g_test_run ());
}
