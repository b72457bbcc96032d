/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_cli.c: the program `dualparal` as its users see it: what it prints, writes and returns.
 */
#include "stream.h"
#include "wan/weights.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static char *dir;

typedef struct
{
  int status;                   /* what it returned; -1: a signal */
  char *out, *err;
  double seconds;
} Run;

static void
run_clear (Run *r)
{
  g_free (r->out);
  g_free (r->err);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Run, run_clear)

/* Runs it with the words of `line`; %s in it is the test's directory. */
static Run
run (const char *line)
{
  g_autofree char *program = g_shell_quote (STREAM_CLI);
  g_auto (GStrv) parts = g_strsplit (line, "%s", -1);
  g_autofree char *expanded = g_strjoinv (dir, parts), *command = g_strconcat (program, " ", expanded, NULL);
  g_auto (GStrv) argv = NULL;
  g_autoptr (GError) error = NULL;
  TestClock start = test_clock ();
  Run r = { 0 };
  int status;

  g_autofree char *shown = g_strescape (expanded, NULL);        /* some is not UTF-8, which TAP must be */
  g_test_message ("dualparal %s", shown);
  g_assert_true (g_shell_parse_argv (command, NULL, &argv, &error));
  g_assert_true (g_spawn_sync (NULL, argv, NULL, 0, NULL, NULL, &r.out, &r.err, &status, &error));
  g_assert_no_error (error);
  r.status = WIFEXITED (status) ? WEXITSTATUS (status) : -1;
  r.seconds = test_clock_seconds (start);
  return r;
}

static char *
run_ok (const char *line)
{
  Run r = run (line);

  g_assert_cmpstr (r.err, ==, "");
  g_assert_cmpint (r.status, ==, 0);
  g_free (r.err);
  return r.out;
}

/* A video, and a line on standard error for each prompt with words that the model does not know. */
static void
run_warned (const char *line, const char *first, const char *second)
{
  g_auto (Run) r = run (line);
  g_auto (GStrv) lines = g_strsplit (r.err, "\n", -1);
  const char *words[] = { first, second };

  g_test_message ("%s", r.err);
  g_assert_cmpint (r.status, ==, 0);
  g_assert_cmpuint (g_strv_length (lines), ==, second ? 3 : 2);         /* the last one is empty */
  for (int i = 0; i < (second ? 2 : 1); i++)
    g_assert_true (g_str_has_prefix (lines[i], "dualparal: ") && strstr (lines[i], words[i]));
}

/* One line on standard error, beginning with the program's name, and nothing on standard output. */
static void
run_bad (const char *line, int status, const char *needle)
{
  g_auto (Run) r = run (line);

  g_test_message ("%d: %s", r.status, g_strchomp (r.err));
  g_assert_cmpint (r.status, ==, status);
  g_assert_cmpstr (r.out, ==, "");
  g_assert_true (g_str_has_prefix (r.err, "dualparal: "));
  g_assert_null (strchr (r.err, '\n'));
  if (strstr (r.err, needle) == NULL)
    g_test_fail_printf ("the sentence does not say \"%s\"", needle);
  if (!(r.seconds <= stream_slowness ()))
    g_test_fail_printf ("it took %.2f s", r.seconds);
}

static char *
path_of (const char *name)
{
  return g_build_filename (dir, name, NULL);
}

static GBytes *
contents (const char *name)
{
  g_autofree char *path = path_of (name);
  g_autoptr (GError) error = NULL;
  char *data;
  gsize size;

  g_file_get_contents (path, &data, &size, &error);
  g_assert_no_error (error);
  return g_bytes_new_take (data, size);
}

static void
check_same (const char *a, const char *b, gboolean same)
{
  g_autoptr (GBytes) x = contents (a), y = contents (b);

  if (g_bytes_equal (x, y) != same)
    g_test_fail_printf ("%s and %s are %s", a, b, same ? "not the same bytes" : "the same bytes");
}

#define SMALL "--width 64 --height 48 --steps 2 --threads 2 "

static void
test_usage (void)
{
  g_auto (Run) nothing = run (""), unknown = run ("paint"), help = run ("--help"), command_help = run ("generate --help");

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
  g_autoptr (GBytes) file = contents ("trace.json");
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
  g_free (run_ok ("generate " SMALL "--frames 17 --output %s/traced.y4m --trace %s/trace.json"));
  check_trace ("");
  g_free (run_ok ("bench " SMALL "--blocks 2 --json --trace %s/trace.json"));
  check_trace ("");
  run_bad ("generate " SMALL "--frames 17 --output %s/traced.y4m --trace %s/no/where.json", 1, "no/where.json cannot be written");

  /* the video is there, and what is wrong with the trace is said */
  run_bad ("generate " SMALL "--frames 17 --output %s/full.y4m --trace /dev/full", 1,
      "trace: /dev/full ends too early: No space left on device");
  check_same ("traced.y4m", "full.y4m", TRUE);

  /* killed in the middle */
  g_autofree char *file = path_of ("trace.json");
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
  run_bad ("generate", 1, "--output");
  run_bad ("generate --output %s/x.mp4", 1, "| ffmpeg -i - ");
  run_bad ("generate --output %s/x.WEBM", 1, "or use pipelines/record");
  run_bad ("generate --output %s/x.mkv", 1, "raw video only");
  run_bad ("generate a red ball --output %s/x.y4m", 2, "--prompt");
  run_bad ("generate --no-such-option", 2, "--no-such-option");
  run_bad ("generate --seed=-2 --output %s/x.y4m", 2, "--seed is \"-2\"");
  run_bad ("generate --seed 7up --output %s/x.y4m", 2, "--seed is \"7up\"");
  run_bad ("generate --seed '' --output %s/x.y4m", 2, "--seed is \"\"");
  run_bad ("generate --seed 9223372036854775808 --output %s/x.y4m", 2, "from 0 to 9223372036854775807, or -1");
  run_bad ("generate --width wide --output %s/x.y4m", 2, "wide");
  run_bad ("generate --width 17 --output %s/x.y4m", 1, "width is 17");
  run_bad ("generate --frames 0 --output %s/x.y4m", 1, "num-frames is 0");
  run_bad ("generate --frames -1 --dump %s/x.safetensors", 1, "--frames");
  run_bad ("generate --block-latents 2 --context-latents 3 --output %s/x.y4m", 1, "context-latents is 3");
  run_bad ("generate --queue-blocks -1 --steps 6 --output %s/x.y4m", 1, "queue-blocks is -1; it must be from 1 to 6");
  run_bad ("generate --queue-blocks 7 --steps 6 --output %s/x.y4m", 1, "queue-blocks is 7");
  run_bad ("generate --model %s --output %s/x.y4m", 1, "model_index.json");
  run_bad ("generate --model /nowhere --output %s/x.y4m", 1, "/nowhere");
  run_bad ("generate --devices gpu --output %s/x.y4m", 1, "gpu");
  run_bad ("generate --sampler ddim --output %s/x.y4m", 1, "ddim");
  run_bad ("generate --text-encoder both --output %s/x.y4m", 1, "text-encoder is \"both\"");
  run_bad ("generate " SMALL "--frames 5 --output /nowhere/x.y4m", 1, "/nowhere/x.y4m");
  run_bad ("generate " SMALL "--frames 5 --output %s", 1, "directory");
  run_bad ("generate " SMALL "--frames 5 --output /dev/full", 1, "/dev/full");
  run_bad ("generate --frames 100000 --dump /nowhere/x.safetensors", 1, "/nowhere/x.safetensors");       /* not after all that work */
  run_bad ("generate " SMALL "--frames 5 --noise %s/missing --output %s/x.y4m", 1, "missing");
  run_bad ("generate " SMALL "--frames 5 --prompt-at soon --output %s/x.y4m", 1, "soon");
  run_bad ("generate " SMALL "--frames 5 --prompt-at 0=x --output %s/x.y4m", 1, "0=x");
  run_bad ("bench --blocks 0", 1, "--blocks is 0");
  run_bad ("bench --blocks -3", 1, "--blocks is -3");
  run_bad ("bench --width 17", 1, "width is 17");
}

static void
test_y4m (void)
{
  g_autofree char *out = run_ok ("generate " SMALL "--frames 7 --output %s/a.y4m");
  g_autoptr (GBytes) bytes = contents ("a.y4m");
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
  g_autofree char *command = g_strdup_printf ("%s generate " SMALL "--frames 7 --output - > %s/stdout.y4m", program, dir);
  g_assert_cmpint (system (command), ==, 0);
  check_same ("a.y4m", "stdout.y4m", TRUE);

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
  g_free (run_ok ("generate " SMALL "--frames 33 --seed 5 --output %s/r1.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 33 --seed 5 --output %s/r2.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 33 --seed 5 --devices cpu,cpu,cpu --output %s/r3.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 33 --seed 5 --threads 1 --output %s/r4.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 33 --seed 6 --output %s/r5.y4m"));
  check_same ("r1.y4m", "r2.y4m", TRUE);
  check_same ("r1.y4m", "r3.y4m", TRUE);
  check_same ("r1.y4m", "r4.y4m", TRUE);
  check_same ("r1.y4m", "r5.y4m", FALSE);
  g_free (run_ok ("generate " SMALL "--frames 33 --seed 5 --text-encoder streamed --output %s/r6.y4m"));
  check_same ("r1.y4m", "r6.y4m", TRUE);

  /* 0 is the default, which is at most the steps */
  g_free (run_ok ("generate " SMALL "--frames 33 --seed 5 --queue-blocks 0 --output %s/q0.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 33 --seed 5 --queue-blocks 2 --output %s/q2.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 33 --seed 5 --queue-blocks 1 --output %s/q1.y4m"));
  check_same ("r1.y4m", "q0.y4m", TRUE);
  check_same ("r1.y4m", "q2.y4m", TRUE);
  check_same ("r1.y4m", "q1.y4m", FALSE);

  /* a seed that is drawn is said, and makes the same again */
  g_auto (Run) drawn = run ("generate " SMALL "--frames 5 --seed -1 --output %s/d1.y4m");
  guint64 seed = 0;
  g_assert_cmpint (drawn.status, ==, 0);
  g_assert_cmpint (sscanf (drawn.err, "dualparal: the seed is %" G_GUINT64_FORMAT "\n", &seed), ==, 1);
  g_autofree char *again = g_strdup_printf ("generate " SMALL "--frames 5 --seed %" G_GUINT64_FORMAT " --output %%s/d2.y4m", seed);
  g_free (run_ok (again));
  check_same ("d1.y4m", "d2.y4m", TRUE);

  /* all 63 bits of a seed count */
  g_free (run_ok ("generate " SMALL "--frames 5 --seed 9223372036854775807 --output %s/s1.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 5 --seed 9223372036854775807 --output %s/s2.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 5 --seed 4611686018427387903 --output %s/s3.y4m"));
  check_same ("s1.y4m", "s2.y4m", TRUE);
  check_same ("s1.y4m", "s3.y4m", FALSE);
}

static void
test_prompt_at (void)
{
  g_free (run_ok ("generate " SMALL "--frames 61 --prompt-at '1=a blue heart' --prompt-at '2=a = b' --output %s/p1.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 61 --prompt-at '2=a = b' --prompt-at '1=a blue heart' --devices cpu,cpu --output %s/p2.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 61 --output %s/p3.y4m"));
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
    g_free (run_ok ("inspect --prompt '\u00e9' --negative-prompt '\u00e9'"));
    g_free (run_ok ("bench " SMALL "--blocks 1 --prompt '\u00e9' --negative-prompt '\u00e9' --json"));
    run_bad ("bench --sampler '\u00e9'", 1, "sampler is \"\u00e9\"");
    run_bad ("bench --seed '\u00e9'", 2, "--seed is \"\u00e9\"");
    run_bad ("generate " SMALL "--frames 5 --prompt 'caf\xe9' --output %s/x.y4m", 1, "expected UTF-8");
    run_bad ("generate " SMALL "--frames 5 --negative-prompt '\xff' --output %s/x.y4m", 1, "expected UTF-8");
    run_bad ("generate " SMALL "--frames 5 --prompt-at '1=\xc3' --output %s/x.y4m", 1, "expected UTF-8");
    run_bad ("bench " SMALL "--blocks 1 --prompt '\xff'", 1, "expected UTF-8");
  }
  if (before)
    g_setenv ("LC_ALL", before, TRUE);
  else
    g_unsetenv ("LC_ALL");
  g_free (run_ok ("generate " SMALL "--frames 5 --output %s/ascii.y4m"));
  check_same ("locale0.y4m", "locale1.y4m", TRUE);
  check_same ("locale0.y4m", "ascii.y4m", FALSE);
}

static DpWeights *
open_dump (const char *name)
{
  g_autofree char *path = path_of (name);
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
  g_free (run_ok ("generate " SMALL "--frames 9 --dump %s/d.safetensors --output %s/d.y4m"));
  g_free (run_ok ("generate " SMALL "--frames 9 --output %s/plain.y4m"));
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
        "-f rawvideo -pix_fmt rgb24 %s/colours.rgb < /dev/null", dir, dir);
    double error = 0, chroma = 0;

    g_free (run_ok (line));
    g_assert_cmpint (system (command), ==, 0);
    g_autoptr (DpWeights) dump = open_dump ("colours.safetensors");
    g_autofree float *frames = tensor (dump, "frames", 4, (gint64[]) { 9, 144, 256, 3 });
    g_autoptr (GBytes) decoded = contents ("colours.rgb");
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
  g_autofree char *path = path_of ("noise.safetensors"), *other_path = path_of ("other.safetensors"),
      *wrong = path_of ("wrong.safetensors");
  g_autofree float *noise = g_new (float, 16 * 3 * 6 * 8);
  g_autoptr (GRand) rand = g_rand_new_with_seed (11);
  g_autoptr (GError) error = NULL;

  for (int i = 0; i < 16 * 3 * 6 * 8; i++)
    noise[i] = (float) (g_rand_double (rand) + g_rand_double (rand) + g_rand_double (rand) - 1.5) * 2;
  g_assert_true (dp_weights_write (path, &(DpTensorOut) { "noise", 4, { 16, 3, 6, 8 }, noise }, 1, &error));
  g_assert_true (dp_weights_write (wrong, &(DpTensorOut) { "noise", 4, { 16, 3, 8, 6 }, noise }, 1, &error));
  noise[0] += 1;
  g_assert_true (dp_weights_write (other_path, &(DpTensorOut) { "noise", 4, { 16, 3, 6, 8 }, noise }, 1, &error));
  g_free (run_ok ("generate " SMALL "--frames 9 --seed 1 --noise %s/noise.safetensors --dump %s/n1.safetensors"));
  g_free (run_ok ("generate " SMALL "--frames 9 --seed 2 --noise %s/noise.safetensors --dump %s/n2.safetensors"));
  g_free (run_ok ("generate " SMALL "--frames 9 --seed 1 --noise %s/other.safetensors --dump %s/n3.safetensors"));
  check_same ("n1.safetensors", "n2.safetensors", TRUE);
  check_same ("n1.safetensors", "n3.safetensors", FALSE);
  run_bad ("generate " SMALL "--frames 9 --noise %s/wrong.safetensors --dump %s/x.safetensors", 1, "[16, L, 6, 8]");
  run_bad ("generate " SMALL "--frames 13 --noise %s/noise.safetensors --dump %s/x.safetensors", 1, "need 4");
  run_bad ("generate " SMALL "--frames 9 --noise %s/n1.safetensors --dump %s/x.safetensors", 1, "noise");
}

static void
test_inspect (void)
{
  g_autofree char *out = run_ok ("inspect");
  g_auto (Run) nowhere = run ("inspect --model /nowhere");      /* the devices are told all the same */

  g_assert_cmpint (nowhere.status, ==, 1);
  g_assert_nonnull (strstr (nowhere.out, "oneDNN"));
  g_assert_nonnull (strstr (nowhere.err, "/nowhere"));

  /* 0 is the default; what is in between is not of this moment, as the free memory is */
  g_autofree char *zeros = run_ok ("inspect --width 0 --height 0 --steps 0 --guidance-scale 0 --flow-shift 0 --block-latents 0 "
      "--context-latents 0 --queue-blocks 0");
  const char *model = strstr (zeros, "\nmodel "), *room = strstr (zeros, "\nall of it on one device\n");
  g_assert_true (model && room && strncmp (model, strstr (out, "\nmodel "), room - model) == 0);
  static const char *const words[] = { "cpu", "oneDNN", "GiB", "cuda:0", "tiny", " layers", "256x144", "unipc", "guidance",
    "\nplan for devices=auto\n  precision     float32\n", "\n  stage 0       cpu, layers 0-7, ", "\n  decoder       cpu, ",
    "\n  text encoder  cpu, resident, ", " MiB on cpu\n" };       /* where no GPU is to be seen */

  for (guint i = 0; i < G_N_ELEMENTS (words); i++)
    if (strstr (out, words[i]) == NULL)
      g_test_fail_printf ("inspect does not say \"%s\": %s", words[i], out);
  g_assert_null (strstr (out, "cannot be used"));       /* nothing is wrong with a GPU that is not there */

  g_autofree char *three = run_ok ("inspect --devices cpu,cpu,cpu --threads 4");
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
  g_autofree char *some = run_ok ("inspect --guidance-scale 3 --guidance-interval-low 0.5 --guidance-interval-high 0.9 --devices cpu");
  g_auto (Run) wrong = run ("inspect --guidance-interval-low 0.6 --guidance-interval-high 0.5");

  if (strstr (some, "guidance 3 at noise levels 0.5 to 0.9, ") == NULL || strstr (some, "\n  guidance      in steps 4 to 7 of 8\n") == NULL)
    g_test_fail_printf ("inspect does not say which steps are guided: %s", some);
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
  g_autofree char *said = run_ok ("inspect --steps 2 --width 160 --height 96"), *large = run_ok ("inspect --width 8192 --height 8192 --block-latents 1000");
  g_autofree char *json = run_ok ("bench --steps 2 --width 160 --height 96 --blocks 1 --threads 2 --json");
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
      "'%s/faulty' && cd '%s/faulty' && %s", dir, dir, dp_model_embedded (), dir, dir, fault);

  g_assert_cmpint (system (command), ==, 0);
  g_auto (Run) inspected = run ("inspect " SMALL "--model %s/faulty"), loaded = run ("generate " SMALL "--model %s/faulty "
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
      "LD_LIBRARY_PATH=. %s ./elsewhere inspect --devices %s --model '%s'", dir, environment, devices, dp_model_embedded ());
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
  g_autofree char *plan = run_ok ("plan --model wan2.1-14b --devices cpu,cpu --precision bfloat16 --text-encoder resident");
  g_autofree char *out = run_ok ("inspect --model wan2.2-a14b --devices cpu");
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
  run_bad ("generate --model wan2.1-1.3b --output %s/x.y4m", 1, "`hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --local-dir DIR`");
  run_bad ("bench --model wan2.1-14b --blocks 1", 1, "`hf download Wan-AI/Wan2.1-T2V-14B-Diffusers --local-dir DIR`");
  run_bad ("plan --model wan2.1-5b", 1, "wan2.1-5b: no such directory");
}

/* What one device takes, measured; and what several of them would take. */
static void
test_plan (void)
{
  for (int i = 0; i < 2; i++)
    g_free (run_ok ("bench " SMALL "--precision float32 --blocks 2 --add-times %s/times.json"));
  g_autofree char *one = run_ok ("plan " SMALL "--precision float32 --times %s/times.json");
  g_autofree char *three = run_ok ("plan " SMALL "--precision float32 --queue-blocks 2 --gpus 3 --times %s/times.json");
  g_autoptr (GBytes) bytes = contents ("times.json");
  g_autofree char *table = g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  const char *work = strstr (table, "\"work\"");

  g_assert_nonnull (work);
  g_assert_null (strstr (work + 1, "\"work\""));        /* the second run replaced the first */
  g_assert_nonnull (strstr (one, "1.00 times as fast as the first device alone"));
  g_assert_nonnull (strstr (three, "stage 2       cuda:2, layers "));
  g_assert_nonnull (strstr (three, " for 3 stages"));
  run_bad ("plan " SMALL "--precision float32 --block-latents 2 --gpus 3 --times %s/times.json", 1, "has no times for any device");
  char *wrong = path_of ("wrong.json");
  g_assert_true (g_file_set_contents (wrong, "[{\"device\": \"\", \"work\": 3, \"layer\": []}]", -1, NULL));
  g_free (wrong);
  run_bad ("plan " SMALL "--times %s/wrong.json", 1, "has no times");
  run_bad ("plan " SMALL "--gpus 3", 1, "--times");
  run_bad ("plan " SMALL "--times %s/none.json", 1, "none.json");
  run_bad ("bench " SMALL "--devices cpu,cpu --blocks 1 --add-times %s/times.json", 1, "one device");
}

static void
test_bench (void)
{
  g_autofree char *json = run_ok ("bench " SMALL "--blocks 2 --devices cpu,cpu --json"), *table = run_ok ("bench " SMALL "--blocks 2");
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

int
main (int argc, char **argv)
{
  int failed;

  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("dp-cli-XXXXXX", NULL);
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
  g_test_add_func ("/cli/inspect", test_inspect);
  g_test_add_func ("/cli/inspect/interval", test_interval);
  g_test_add_func ("/cli/inspect/room", test_inspect_room);
  g_test_add_func ("/cli/inspect/faults", test_inspect_faults);
  g_test_add_func ("/cli/inspect/gpus", test_inspect_gpus);
  g_test_add_func ("/cli/plan", test_plan);
  g_test_add_func ("/cli/published", test_published);
  g_test_add_func ("/cli/inspect/all-gpus", test_inspect_all_gpus);
  g_test_add_func ("/cli/inspect/passed-over", test_inspect_passed_over);
  g_test_add_func ("/cli/bench", test_bench);
  g_test_add_func ("/cli/progress", test_progress);
  g_test_add_func ("/cli/closed-pipe", test_closed_pipe);
  g_test_add_func ("/cli/full-stdout", test_full_stdout);
  g_test_add_func ("/cli/address-space", test_address_space);
  failed = g_test_run ();
  stream_model_free (dir);
  return failed;
}
