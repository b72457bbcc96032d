/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_cli.c: the program `dualparal` as its users see it: what it prints, writes and returns.
 */
#include "cli.h"
#include "stream.h"
#include "wan/weights_write.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A video, and a line on standard error for each prompt with words that the model does not know. */
static void
run_warned (const char *line, const char *first, const char *second)
{
  g_auto (CliRun) r = cli_run (line);
  g_auto (GStrv) lines = g_strsplit (r.err, "\n", -1);
  const char *words[] = { first, second };

  g_test_message ("%s", r.err);
  g_assert_cmpint (r.status, ==, 0);
  g_assert_cmpuint (g_strv_length (lines), ==, second ? 3 : 2);         /* the last one is empty */
  for (int i = 0; i < (second ? 2 : 1); i++)
    g_assert_true (g_str_has_prefix (lines[i], "dualparal: ") && strstr (lines[i], words[i]));
}

static void
check_same (const char *a, const char *b, gboolean same)
{
  g_autoptr (GBytes) x = cli_contents (a), y = cli_contents (b);

  if (g_bytes_equal (x, y) != same)
    g_test_fail_printf ("%s and %s are %s", a, b, same ? "not the same bytes" : "the same bytes");
}

static void
test_usage (void)
{
  g_auto (CliRun) nothing = cli_run (""), unknown = cli_run ("paint"), help = cli_run ("--help");
  g_auto (CliRun) command_help = cli_run ("generate --help");

  g_assert_cmpint (nothing.status, ==, 2);
  g_assert_nonnull (strstr (nothing.err, "generate"));
  g_assert_cmpstr (nothing.out, ==, "");
  g_assert_cmpint (unknown.status, ==, 2);
  g_assert_nonnull (strstr (unknown.err, "paint"));
  g_assert_cmpint (help.status, ==, 0);
  g_assert_cmpstr (help.err, ==, "");
  g_assert_nonnull (strstr (help.out, "bench"));
  g_assert_cmpint (command_help.status, ==, 0);
  static const char *const options[] = { "--model", "--prompt", "--negative-prompt", "--frames", "--width", "--height", "--steps",
      "--guidance-scale=",
    "--guidance-scale-2", "--guidance-interval-low", "--guidance-interval-high", "--flow-shift", "--sampler", "--seed", "--block-latents",
    "--context-latents", "--context-mode", "--queue-blocks", "--devices", "--ranks",
    "--text-encoder", "--noise", "--dump", "--output", "--trace" };
  for (guint i = 0; i < G_N_ELEMENTS (options); i++)
    if (strstr (command_help.out, options[i]) == NULL)
      g_test_fail_printf ("generate has no %s", options[i]);
}

static void
check_trace (const char *end)
{
  g_autoptr (GBytes) file = cli_contents ("trace.json");
  g_autofree char *text = g_strdup_printf ("%.*s%s", (int) g_bytes_get_size (file), (const char *) g_bytes_get_data (file, NULL), end);
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) error = NULL;

  json_parser_load_from_data (parser, text, -1, &error);
  g_assert_no_error (error);
  g_assert_nonnull (strstr (text, "\"pass\""));
}

static gboolean
is_written (gpointer file)
{
  GStatBuf st;

  return g_stat (file, &st) == 0 && st.st_size >= 100000;
}

static void
test_trace (void)
{
  g_free (cli_ok ("generate " SMALL "--frames 17 --output %s/traced.y4m --trace %s/trace.json"));
  check_trace ("");
  g_free (cli_ok ("bench " SMALL "--blocks 2 --json --trace %s/trace.json"));
  check_trace ("");
  cli_bad ("generate " SMALL "--frames 17 --output %s/traced.y4m --trace %s/no/where.json", 1, "no/where.json cannot be written");

  /* the video is there, and what is wrong with the trace is said */
  cli_bad ("generate " SMALL "--frames 17 --output %s/full.y4m --trace /dev/full", 1,
      "trace: /dev/full ends too early: No space left on device");
  check_same ("traced.y4m", "full.y4m", TRUE);

  /* killed in the middle */
  g_autofree char *file = cli_path ("trace.json");
  char *argv[] = { STREAM_CLI, "generate", "--width=64", "--height=48", "--steps=2", "--frames=-1", "--output=/dev/null", "--trace", file,
      NULL };
  GPid pid;

  g_unlink (file);
  g_assert_true (g_spawn_async (NULL, argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &pid, NULL));
  stream_wait_until ("a trace of some length", is_written, file, 120);
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
  check_trace ("]");
}

static void
test_errors (void)
{
  cli_bad ("generate", 1, "--output");
  cli_bad ("generate --output %s/x.mp4", 1, "| ffmpeg -i - ");
  cli_bad ("generate --output %s/x.WEBM", 1, "or use pipelines/record");
  cli_bad ("generate --output %s/x.mkv", 1, "raw video only");
  cli_bad ("generate a red ball --output %s/x.y4m", 2, "--prompt");
  cli_bad ("generate --no-such-option", 2, "--no-such-option");
  cli_bad ("generate --seed=-2 --output %s/x.y4m", 2, "--seed is \"-2\"");
  cli_bad ("generate --seed 7up --output %s/x.y4m", 2, "--seed is \"7up\"");
  cli_bad ("generate --seed '' --output %s/x.y4m", 2, "--seed is \"\"");
  cli_bad ("generate --seed 9223372036854775808 --output %s/x.y4m", 2, "from 0 to 9223372036854775807, or -1");
  cli_bad ("generate --width wide --output %s/x.y4m", 2, "wide");
  cli_bad ("generate --width 17 --output %s/x.y4m", 1, "width is 17");
  cli_bad ("generate --frames 0 --output %s/x.y4m", 1, "num-frames is 0");
  cli_bad ("generate --frames -1 --dump %s/x.safetensors", 1, "--frames");
  cli_bad ("generate --block-latents 2 --context-latents 3 --output %s/x.y4m", 1, "context-latents is 3");
  cli_bad ("generate --queue-blocks -1 --steps 6 --output %s/x.y4m", 1, "queue-blocks is -1; it must be from 1 to 6");
  cli_bad ("generate --queue-blocks 7 --steps 6 --output %s/x.y4m", 1, "queue-blocks is 7");
  cli_bad ("generate --model %s --output %s/x.y4m", 1, "model_index.json");
  cli_bad ("generate --model /nowhere --output %s/x.y4m", 1, "/nowhere");
  cli_bad ("generate --devices gpu --output %s/x.y4m", 1, "gpu");
  cli_bad ("generate --sampler ddim --output %s/x.y4m", 1, "ddim");
  cli_bad ("generate --text-encoder both --output %s/x.y4m", 1, "text-encoder is \"both\"");
  cli_bad ("generate " SMALL "--frames 5 --output /nowhere/x.y4m", 1, "/nowhere/x.y4m");
  cli_bad ("generate " SMALL "--frames 5 --output %s", 1, "directory");
  cli_bad ("generate " SMALL "--frames 5 --output /dev/full", 1, "/dev/full");
  cli_bad ("generate --frames 100000 --dump /nowhere/x.safetensors", 1, "/nowhere/x.safetensors");       /* not after all that work */
  cli_bad ("generate " SMALL "--frames 5 --noise %s/missing --output %s/x.y4m", 1, "missing");
  cli_bad ("generate " SMALL "--frames 5 --prompt-at soon --output %s/x.y4m", 1, "soon");
  cli_bad ("generate " SMALL "--frames 5 --prompt-at 0=x --output %s/x.y4m", 1, "0=x");
  cli_bad ("bench --blocks 0", 1, "--blocks is 0");
  cli_bad ("bench --blocks -3", 1, "--blocks is -3");
  cli_bad ("bench --width 17", 1, "width is 17");
}

static void
test_y4m (void)
{
  g_autofree char *out = cli_ok ("generate " SMALL "--frames 7 --output %s/a.y4m");
  g_autoptr (GBytes) bytes = cli_contents ("a.y4m");
  const char *header = "YUV4MPEG2 W64 H48 F16:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n", *data;
  gsize size, frame = 64 * 48 * 3 / 2 + 6;

  g_assert_cmpstr (out, ==, "");
  data = g_bytes_get_data (bytes, &size);
  g_assert_cmpuint (size, ==, strlen (header) + 7 * frame);
  g_assert_cmpmem (data, strlen (header), header, strlen (header));
  for (int i = 0; i < 7; i++)
    g_assert_cmpmem (data + strlen (header) + i * frame, 6, "FRAME\n", 6);

  /* the same on standard output */
  g_autofree char *program = g_shell_quote (STREAM_CLI);
  g_autofree char *command = g_strdup_printf ("%s generate " SMALL "--frames 7 --output - > %s/stdout.y4m", program, cli_dir);
  g_assert_cmpint (system (command), ==, 0);
  check_same ("a.y4m", "stdout.y4m", TRUE);

  /* any even size */
  g_free (cli_ok ("generate " SMALL "--width 62 --height 34 --frames 2 --output %s/even.y4m"));
  g_autoptr (GBytes) even = cli_contents ("even.y4m");
  g_assert_true (g_str_has_prefix (g_bytes_get_data (even, &size), "YUV4MPEG2 W62 H34 "));
  g_assert_cmpuint (size, ==, strlen (header) + 2 * (62 * 34 * 3 / 2 + 6));

  /* limited range, and not all one grey */
  guint8 low = 255, high = 0;
  for (gsize i = 0; i < 64 * 48; i++) {
    guint8 y = data[strlen (header) + 6 + i];
    low = MIN (low, y);
    high = MAX (high, y);
  }
  g_test_message ("luma from %d to %d", low, high);
  g_assert_cmpint (low, >=, 16);
  g_assert_cmpint (high, <=, 235);
  g_assert_cmpint (high - low, >, 10);
}

static void
test_reproducible (void)
{
  g_free (cli_ok ("generate " SMALL "--frames 33 --seed 5 --output %s/r1.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 33 --seed 5 --output %s/r2.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 33 --seed 5 --devices cpu,cpu,cpu --output %s/r3.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 33 --seed 5 --threads 1 --output %s/r4.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 33 --seed 6 --output %s/r5.y4m"));
  check_same ("r1.y4m", "r2.y4m", TRUE);
  check_same ("r1.y4m", "r3.y4m", TRUE);
  check_same ("r1.y4m", "r4.y4m", TRUE);
  check_same ("r1.y4m", "r5.y4m", FALSE);
  g_free (cli_ok ("generate " SMALL "--frames 33 --seed 5 --text-encoder streamed --output %s/r6.y4m"));
  check_same ("r1.y4m", "r6.y4m", TRUE);

  /* 0 is the default, which is at most the steps */
  g_free (cli_ok ("generate " SMALL "--frames 33 --seed 5 --queue-blocks 0 --output %s/q0.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 33 --seed 5 --queue-blocks 2 --output %s/q2.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 33 --seed 5 --queue-blocks 1 --output %s/q1.y4m"));
  check_same ("r1.y4m", "q0.y4m", TRUE);
  check_same ("r1.y4m", "q2.y4m", TRUE);
  check_same ("r1.y4m", "q1.y4m", FALSE);

  /* a seed that is drawn is said, and makes the same again */
  g_auto (CliRun) drawn = cli_run ("generate " SMALL "--frames 5 --seed -1 --output %s/d1.y4m");
  guint64 seed = 0;
  g_assert_cmpint (drawn.status, ==, 0);
  g_assert_cmpint (sscanf (drawn.err, "dualparal: the seed is %" G_GUINT64_FORMAT "\n", &seed), ==, 1);
  g_autofree char *again = g_strdup_printf ("generate " SMALL "--frames 5 --seed %" G_GUINT64_FORMAT " --output %%s/d2.y4m", seed);
  g_free (cli_ok (again));
  check_same ("d1.y4m", "d2.y4m", TRUE);

  /* all 63 bits of a seed count */
  g_free (cli_ok ("generate " SMALL "--frames 5 --seed 9223372036854775807 --output %s/s1.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 5 --seed 9223372036854775807 --output %s/s2.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 5 --seed 4611686018427387903 --output %s/s3.y4m"));
  check_same ("s1.y4m", "s2.y4m", TRUE);
  check_same ("s1.y4m", "s3.y4m", FALSE);
}

static void
test_sizes (void)
{
  g_auto (CliRun) small = cli_run ("generate " SMALL "--frames 1 --output %s/size.y4m"), trained = cli_run ("generate --steps 1 --frames 1 "
      "--output %s/size.y4m"), part = cli_run ("generate --steps 1 --width 250 --frames 1 --output %s/size.y4m");
  g_autofree char *plan = cli_ok ("plan " SMALL), *wan = cli_ok ("plan --model wan2.1-1.3b --width 1280 --height 720");
  g_autofree char *larger = cli_ok ("plan --model wan2.1-14b --width 1280 --height 720");

  g_assert_cmpstr (small.size, ==, "dualparal: tiny was not trained for 64x48, so the video may look wrong; it was trained for 256x144");
  g_assert_cmpstr (small.err, ==, "");
  g_assert_null (trained.size);
  g_assert_null (part.size);
  g_assert_nonnull (strstr (plan, "tiny was not trained for 64x48, so"));
  g_assert_nonnull (strstr (wan, "was not trained for 1280x720, so the video may look wrong; it was trained for 832x480 and 480x832\n"));
  g_assert_null (strstr (larger, "trained"));
}

static void
test_prompt_at (void)
{
  g_free (cli_ok ("generate " SMALL "--frames 61 --prompt-at '1=a blue heart' --prompt-at '2=a = b' --output %s/p1.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 61 --prompt-at '2=a = b' --prompt-at '1=a blue heart' --devices cpu,cpu --output %s/p2.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 61 --output %s/p3.y4m"));
  check_same ("p1.y4m", "p2.y4m", TRUE);
  check_same ("p1.y4m", "p3.y4m", FALSE);
}

/* Texts are UTF-8 whatever the locale: containers have none. */
static void
test_locale (void)
{
  static const char *const locales[] = { "C", "C.UTF-8" };
  g_autofree char *before = g_strdup (g_getenv ("LC_ALL"));

  for (guint i = 0; i < G_N_ELEMENTS (locales); i++) {
    g_autofree char *line = g_strdup_printf ("generate " SMALL "--frames 5 --prompt 'un caf\u00e9' --negative-prompt '\u96e8' "
        "--prompt-at '1=\u00e9t\u00e9' --output %%s/locale%u.y4m", i);

    g_setenv ("LC_ALL", locales[i], TRUE);
    run_warned (line, "the model tiny does not know \"un\", \"caf\u00e9\"; it knows subjects: ball, ",
        "--prompt-at 1: the model tiny does not know \"\u00e9t\u00e9\"; ");
    g_free (cli_ok ("inspect --prompt '\u00e9' --negative-prompt '\u00e9'"));
    g_free (cli_ok ("bench " SMALL "--blocks 1 --prompt '\u00e9' --negative-prompt '\u00e9' --json"));
    cli_bad ("bench --sampler '\u00e9'", 1, "sampler is \"\u00e9\"");
    cli_bad ("bench --seed '\u00e9'", 2, "--seed is \"\u00e9\"");
    cli_bad ("generate " SMALL "--frames 5 --prompt 'caf\xe9' --output %s/x.y4m", 1, "expected UTF-8");
    cli_bad ("generate " SMALL "--frames 5 --negative-prompt '\xff' --output %s/x.y4m", 1, "expected UTF-8");
    cli_bad ("generate " SMALL "--frames 5 --prompt-at '1=\xc3' --output %s/x.y4m", 1, "expected UTF-8");
    cli_bad ("bench " SMALL "--blocks 1 --prompt '\xff'", 1, "expected UTF-8");
  }
  if (before)
    g_setenv ("LC_ALL", before, TRUE);
  else
    g_unsetenv ("LC_ALL");
  g_free (cli_ok ("generate " SMALL "--frames 5 --output %s/ascii.y4m"));
  check_same ("locale0.y4m", "locale1.y4m", TRUE);
  check_same ("locale0.y4m", "ascii.y4m", FALSE);
}

static DpWeights *
open_dump (const char *name)
{
  g_autofree char *path = cli_path (name);
  g_autoptr (GError) error = NULL;
  DpWeights *weights = dp_weights_open (path, NULL, &error);

  g_assert_no_error (error);
  return weights;
}

static float *
tensor (const DpWeights *weights, const char *name, int n_dims, const gint64 *dims)
{
  g_autoptr (GError) error = NULL;
  const DpTensor *t = dp_weights_get (weights, &error, n_dims, dims, "%s", name);

  g_assert_no_error (error);
  g_assert_cmpint (t->type, ==, DP_TYPE_F32);
  float *values = g_malloc (t->bytes);
  g_assert_true (dp_weights_read (weights, t, 0, t->bytes / sizeof (float), values, NULL));
  return values;
}

static void
test_dump (void)
{
  g_free (cli_ok ("generate " SMALL "--frames 9 --dump %s/d.safetensors --output %s/d.y4m"));
  g_free (cli_ok ("generate " SMALL "--frames 9 --output %s/plain.y4m"));
  g_autoptr (DpWeights) dump = open_dump ("d.safetensors");
  g_autofree float *embeds = tensor (dump, "prompt_embeds", 2, (gint64[]) { 512, 128 });
  g_autofree float *negative = tensor (dump, "negative_prompt_embeds", 2, (gint64[]) { 512, 128 });
  g_autofree float *latents = tensor (dump, "latents", 4, (gint64[]) { 16, 3, 6, 8 });
  g_autofree float *frames = tensor (dump, "frames", 4, (gint64[]) { 9, 48, 64, 3 });
  double sum = 0;

  for (gsize i = 0; i < 9 * 48 * 64 * 3; i++) {
    g_assert_true (frames[i] >= 0 && frames[i] <= 1);
    sum += frames[i];
  }
  g_assert_cmpfloat (sum, >, 0);
  g_assert_cmpfloat (embeds[0], !=, 0);
  g_assert_cmpfloat (embeds[511 * 128], ==, 0);
  check_same ("d.y4m", "plain.y4m", TRUE);      /* a dump does not change the video */
}

/* What ffmpeg decodes, which is told nothing of colours, is what the engine made. Its quick conversion to RGB, the default, is one level
 * too dark and repeats chroma; the exact one is asked for. */
static void
test_y4m_colours (void)
{
  static const char *const prompts[] = { "a red ball bouncing over a green meadow", "a blue star spinning in a starry night" };
  const gsize n = 9 * 144 * 256 * 3;

  if (system ("ffmpeg -version > /dev/null 2>&1") != 0) {
    g_test_skip ("no ffmpeg here");
    return;
  }
  for (guint p = 0; p < G_N_ELEMENTS (prompts); p++) {
    g_autofree char *line = g_strdup_printf ("generate --steps 4 --threads 2 --frames 9 --prompt '%s' --dump %%s/colours.safetensors "
        "--output %%s/colours.y4m", prompts[p]);
    g_autofree char *command = g_strdup_printf ("ffmpeg -v error -y -i %s/colours.y4m -sws_flags bicubic+accurate_rnd+full_chroma_int "
        "-f rawvideo -pix_fmt rgb24 %s/colours.rgb < /dev/null", cli_dir, cli_dir);
    double error = 0, chroma = 0;

    g_free (cli_ok (line));
    g_assert_cmpint (system (command), ==, 0);
    g_autoptr (DpWeights) dump = open_dump ("colours.safetensors");
    g_autofree float *frames = tensor (dump, "frames", 4, (gint64[]) { 9, 144, 256, 3 });
    g_autoptr (GBytes) decoded = cli_contents ("colours.rgb");
    const guint8 *shown = g_bytes_get_data (decoded, NULL);

    g_assert_cmpuint (g_bytes_get_size (decoded), ==, n);
    for (gsize i = 0; i < n; i++)
      error += ABS (shown[i] - frames[i] * 255) / n;
    for (gsize i = 0; i < n; i += 3)
      chroma += ABS (frames[i] - frames[i + 2]) * 255 / (n / 3);
    g_test_message ("mean error %.2f of 255; red and blue are %.0f apart", error, chroma);
    g_assert_cmpfloat (chroma, >, 20);  /* grey looks the same in every matrix */
    if (!(error <= 1.5))
      g_test_fail_printf ("what ffmpeg decodes is off by %.2f of 255", error);
  }
}

/* The noise given is what the video starts from: with other noise it differs, whatever the seed; with the same it does not. */
static void
test_noise (void)
{
  g_autofree char *path = cli_path ("noise.safetensors"), *other_path = cli_path ("other.safetensors"),
      *wrong = cli_path ("wrong.safetensors");
  g_autofree float *noise = g_new (float, 16 * 3 * 6 * 8);
  g_autoptr (GRand) rand = g_rand_new_with_seed (11);
  g_autoptr (GError) error = NULL;

  for (int i = 0; i < 16 * 3 * 6 * 8; i++)
    noise[i] = (float) (g_rand_double (rand) + g_rand_double (rand) + g_rand_double (rand) - 1.5) * 2;
  g_assert_true (dp_weights_write (path, &(DpTensorOut) { "noise", 4, { 16, 3, 6, 8 }, noise }, 1, &error));
  g_assert_true (dp_weights_write (wrong, &(DpTensorOut) { "noise", 4, { 16, 3, 8, 6 }, noise }, 1, &error));
  noise[0] += 1;
  g_assert_true (dp_weights_write (other_path, &(DpTensorOut) { "noise", 4, { 16, 3, 6, 8 }, noise }, 1, &error));
  g_free (cli_ok ("generate " SMALL "--frames 9 --seed 1 --noise %s/noise.safetensors --dump %s/n1.safetensors"));
  g_free (cli_ok ("generate " SMALL "--frames 9 --seed 2 --noise %s/noise.safetensors --dump %s/n2.safetensors"));
  g_free (cli_ok ("generate " SMALL "--frames 9 --seed 1 --noise %s/other.safetensors --dump %s/n3.safetensors"));
  check_same ("n1.safetensors", "n2.safetensors", TRUE);
  check_same ("n1.safetensors", "n3.safetensors", FALSE);
  cli_bad ("generate " SMALL "--frames 9 --noise %s/wrong.safetensors --dump %s/x.safetensors", 1, "[16, L, 6, 8]");
  cli_bad ("generate " SMALL "--frames 13 --noise %s/noise.safetensors --dump %s/x.safetensors", 1, "need 4");
  cli_bad ("generate " SMALL "--frames 9 --noise %s/n1.safetensors --dump %s/x.safetensors", 1, "noise");
}

static void
test_bench (void)
{
  g_autofree char *json = cli_ok ("bench " SMALL "--blocks 2 --devices cpu,cpu --json"), *table = cli_ok ("bench " SMALL "--blocks 2");
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) error = NULL;
  static const char *const positive[] = { "block_steps_per_second", "frames_per_second", "realtime_factor", "first_frame_seconds",
      "device_bytes",
    "peak_rss_bytes", "decode_busy" };

  json_parser_load_from_data (parser, json, -1, &error);
  g_assert_no_error (error);
  JsonObject *o = json_node_get_object (json_parser_get_root (parser));
  for (guint i = 0; i < G_N_ELEMENTS (positive); i++) {
    g_assert_true (json_object_has_member (o, positive[i]));
    g_assert_cmpfloat (json_object_get_double_member (o, positive[i]), >, 0);
  }
  g_assert_cmpfloat (json_object_get_double_member (o, "stages"), ==, 2);
  g_assert_cmpfloat (json_object_get_double_member (o, "width"), ==, 64);
  JsonArray *busy = json_object_get_array_member (o, "stage_busy");
  g_assert_cmpuint (json_array_get_length (busy), ==, 2);
  for (int i = 0; i < 2; i++) {
    g_assert_cmpfloat (json_array_get_double_element (busy, i), >, 0);
    g_assert_cmpfloat (json_array_get_double_element (busy, i), <=, 1.05);
  }
  static const char *const by_block[] = { "device_bytes_by_block", "in_use_bytes_by_block" };
  for (guint i = 0; i < G_N_ELEMENTS (by_block); i++) {
    JsonArray *bytes = json_object_get_array_member (o, by_block[i]);
    g_assert_cmpuint (json_array_get_length (bytes), ==, 3);    /* blocks 0 to 2 */
    for (int k = 0; k < 3; k++)
      g_assert_cmpfloat (json_array_get_double_element (bytes, k), >, 0);
  }
  JsonArray *held = json_object_get_array_member (o, by_block[0]);
  g_assert_cmpfloat (json_array_get_double_element (held, 2), ==, json_object_get_double_member (o, "device_bytes"));
  g_assert_nonnull (strstr (table, "after block 2"));
  g_assert_nonnull (strstr (table, "frames per second"));
  g_assert_nonnull (strstr (table, "stage 0"));
}

/* What a terminal gets that is standard error and nothing else. */
static char *
run_in_terminal (const char *line, int expected)
{
  g_autofree char *program = g_shell_quote (STREAM_CLI), *command = g_strdup_printf ("stty cols 60; %s %s", program, line);
  char *argv[] = { "script", "-qec", command, "/dev/null", NULL }, *out;
  g_autoptr (GError) error = NULL;
  int status;

  g_assert_true (g_spawn_sync (NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, NULL, &status, &error));
  g_assert_no_error (error);
  g_autofree char *shown = g_strescape (out, NULL);
  g_test_message ("%s: %s", line, shown);
  g_assert_true (WIFEXITED (status));
  g_assert_cmpint (WEXITSTATUS (status), ==, expected);
  g_free (cli_take_size (out));
  return out;
}

/* A line that is written over: no longer than the terminal is wide, and ended, or gone before a message. */
static void
test_progress (void)
{
  g_autofree char *found = g_find_program_in_path ("script");

  if (found == NULL) {
    g_test_skip ("no program script here");
    return;
  }
  g_autofree char *video = run_in_terminal ("generate " SMALL "--frames 33 --output /dev/null", 0);
  g_autofree char *endless = run_in_terminal ("generate " SMALL "--frames -1 --output - | head -c 1000000 > /dev/null", 0);
  g_autofree char *full = run_in_terminal ("generate " SMALL "--frames 33 --output /dev/full", 1);
  g_autofree char *bad = run_in_terminal ("generate " SMALL "--frames 33 --prompt-at soon --output /dev/null", 1);
  g_auto (GStrv) lines = g_strsplit (video, "\r", -1);

  g_assert_true (g_str_has_prefix (lines[1], "loading the model: 0 %"));
  g_assert_nonnull (strstr (video, "\rmodel loaded: 100 %"));
  g_assert_nonnull (strstr (video, "\r33 of 33 frames, 2 of 2 blocks, "));
  g_assert_true (g_str_has_suffix (video, "\r\n") && strchr (video, '\n') == video + strlen (video) - 1);
  for (int i = 0; lines[i]; i++)
    g_assert_cmpuint (strlen (lines[i]), <, 60);
  g_assert_null (strstr (endless, " of "));
  const char *message = strstr (full, "\rdualparal: ");
  g_assert_nonnull (message);
  g_assert_cmpint (message[-1], ==, ' ');       /* over the line */
  g_assert_nonnull (strstr (message, "/dev/full"));
  g_assert_true (strchr (full, '\n') == full + strlen (full) - 1);
  g_assert_nonnull (strstr (bad, " \rdualparal: --prompt-at soon"));
}

/* A reader that goes away ends it; it does not go on for ever. */
static void
test_closed_pipe (void)
{
  g_autofree char *program = g_shell_quote (STREAM_CLI);
  g_autofree char *command = g_strdup_printf ("timeout 60 %s generate " SMALL "--frames -1 --output - 2>/dev/null | head -c 100000 > "
      "/dev/null", program);
  TestClock start = test_clock ();

  g_assert_cmpint (system (command), ==, 0);
  stream_check_seconds ("an endless video into a pipe that closes", start, 5);
}

/* What cannot be written to standard output is an error of every command. */
static void
test_full_stdout (void)
{
  static const char *const lines[] = { "--help", "generate --help", "inspect", "plan " SMALL, "bench " SMALL "--blocks 1",
    "bench " SMALL "--blocks 1 --json", "generate " SMALL "--frames 5 --output -" };

  if (g_access ("/dev/full", W_OK) != 0) {
    g_test_skip ("no /dev/full here");
    return;
  }
  for (gsize i = 0; i < G_N_ELEMENTS (lines); i++) {
    g_autofree char *command = g_strdup_printf ("exec \"$0\" %s > /dev/full", lines[i]), *err = NULL;
    char *argv[] = { "/bin/sh", "-c", command, STREAM_CLI, NULL };
    g_autoptr (GError) error = NULL;
    int status;

    g_assert_true (g_spawn_sync (NULL, argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, NULL, &err, &status, &error));
    g_test_message ("%s: %s", lines[i], err);
    g_assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 1);
    g_free (cli_take_size (err));
    g_assert_true (g_str_has_prefix (err, "dualparal: ") && strchr (err, '\n') == err + strlen (err) - 1);
    g_assert_nonnull (strstr (err, i + 1 < G_N_ELEMENTS (lines) ? "standard output cannot be written" : "No space left"));
  }
}

/* Little address space is refused before a library ends the process for the lack of it. */
static void
test_address_space (void)
{
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
  g_autofree char *program = g_shell_quote (STREAM_CLI);

  for (int mib = 100; mib <= 2000; mib += mib < 400 ? 25 : 400) {
    g_autofree char *line = g_strdup_printf ("ulimit -v %d; exec %s generate --threads 2 --frames 5 --output /dev/null", mib * 1024, program);
    char *argv[] = { "/bin/sh", "-c", line, NULL };
    g_autoptr (GError) error = NULL;
    g_autofree char *err = NULL;
    int status;

    g_assert_true (g_spawn_sync (NULL, argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, NULL, &err, &status, &error));
    g_test_message ("%d MiB: %s", mib, err);
    g_assert_true (WIFEXITED (status) && WEXITSTATUS (status) == (mib < 600));
    if (mib < 600)
      g_assert_nonnull (strstr (err, "`ulimit -v` leaves"));
  }
#else
  g_test_skip ("a sanitizer needs terabytes of address space");
#endif
}

/* Noise that no memory can hold, in a file whose blocks are not there. */
static void
test_large_noise (void)
{
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
  const gint64 latents = 22000000, bytes = latents * 16 * 6 * 8 * 4;
  g_autofree char *program = g_shell_quote (STREAM_CLI), *path = cli_path ("large.safetensors"), *err = NULL;
  g_autofree char *header = g_strdup_printf ("{\"noise\":{\"dtype\":\"F32\",\"shape\":[16,%" G_GINT64_FORMAT ",6,8],\"data_offsets\":[0,%"
      G_GINT64_FORMAT "]}}", latents, bytes);
  g_autofree char *line = g_strdup_printf ("ulimit -v 8000000; exec %s generate " SMALL "--frames 9 --output /dev/null --noise '%s'", program,
      path);
  const guint64 length = strlen (header);
  g_autoptr (GError) error = NULL;
  FILE *file = fopen (path, "wb");
  int status;

  g_assert_true (file && fwrite (&length, 8, 1, file) == 1 && fwrite (header, length, 1, file) == 1 && fflush (file) == 0);
  if (ftruncate (fileno (file), 8 + length + bytes) != 0) {
    fclose (file);
    g_test_skip ("no sparse file of 64 GB here");
    return;
  }
  fclose (file);
  g_assert_true (g_spawn_sync (NULL, (char *[]) { "/bin/sh", "-c", line, NULL }, NULL, G_SPAWN_DEFAULT, NULL, NULL, NULL, &err, &status,
          &error));
  g_test_message ("%s", err);
  g_assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 1);
  g_assert_nonnull (strstr (err, "large.safetensors: there is not enough memory for 22000000 latent frames of noise"));
#else
  g_test_skip ("a sanitizer needs terabytes of address space");
#endif
}

int
main (int argc, char **argv)
{
  cli_init (&argc, &argv);
  g_test_add_func ("/cli/usage", test_usage);
  g_test_add_func ("/cli/errors", test_errors);
  g_test_add_func ("/cli/trace", test_trace);
  g_test_add_func ("/cli/y4m", test_y4m);
  g_test_add_func ("/cli/reproducible", test_reproducible);
  g_test_add_func ("/cli/prompt-at", test_prompt_at);
  g_test_add_func ("/cli/locale", test_locale);
  g_test_add_func ("/cli/dump", test_dump);
  g_test_add_func ("/cli/y4m/colours", test_y4m_colours);
  g_test_add_func ("/cli/noise", test_noise);
  g_test_add_func ("/cli/large-noise", test_large_noise);
  g_test_add_func ("/cli/sizes", test_sizes);
  g_test_add_func ("/cli/bench", test_bench);
  g_test_add_func ("/cli/progress", test_progress);
  g_test_add_func ("/cli/closed-pipe", test_closed_pipe);
  g_test_add_func ("/cli/full-stdout", test_full_stdout);
  g_test_add_func ("/cli/address-space", test_address_space);
  return cli_end (g_test_run ());
}
