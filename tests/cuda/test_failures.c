/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_failures.c: the engine on a GPU that has no memory left, or breaks while it streams, and what it makes on several devices. All that
 * is the same on every device is in tests/stream, which runs on cuda:0 too. Skipped where there is no GPU. DUALPARAL_TEST_MODEL names the
 * embedded model's directory where it does not lie where this was built.
 */
#include "gpu.h"
#include "noise.h"
#include "stream.h"
#include "part_cache.h"
#include "kernels/device.h"

#include <execinfo.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FRAMES 400              /* of which the checksums are known */

static DpSettings
on_gpu (void)
{
  return (DpSettings) { .model = g_getenv ("DUALPARAL_TEST_MODEL"), .devices = "cuda:0", .num_frames = -1, .seed = 7,
    .format = DP_FORMAT_I420 };
}

/* `needles`: what the sentence must contain, separated by '|'. */
static void
check_sentence (const char *sentence, const char *needles)
{
  g_auto (GStrv) words = g_strsplit (needles, "|", -1);

  g_test_message ("%s", sentence);
  for (int i = 0; words[i]; i++)
    if (strstr (sentence, words[i]) == NULL)
      g_test_fail_printf ("the sentence does not say \"%s\": %s", words[i], sentence);
}

/* Pulls until something other than a frame comes, which must be an error. */
static GError *
pull_until_error (DpEngine *engine)
{
  GError *error = NULL;
  DpFrame frame;
  int result;

  while ((result = dp_engine_pull (engine, &frame, G_USEC_PER_SEC * 20, &error)) == 1)
    dp_engine_release_frame (engine, &frame);
  g_assert_cmpint (result, ==, -1);
  g_assert_nonnull (error);     /* else nothing came in all that time */
  return error;
}

static GError *
failure_of (const DpSettings *settings)
{
  DpEngine *engine = NULL;
  GError *error = NULL;

  if (stream_try_open (&engine, settings, NULL, NULL, &error))
    error = pull_until_error (engine);
  dp_engine_free (engine);
  return error;
}

static void
check_no_memory (const GError *error, const char *needles)
{
  g_assert_error (error, DP_ERROR, DP_ERROR_NO_MEMORY);
  check_sentence (error->message, needles);
}

/* Free memory is what it was, but for a page or two that the driver takes when memory is short and keeps (2 MiB on an H200, however
 * often). */
static void
check_given_back (const char *when, gsize before)
{
  gsize now = gpu_free_bytes () + (4 << 20);

  g_test_message ("%s: %.1f MiB free with the margin, %.1f before", when, now / 1048576.0, before / 1048576.0);
  g_assert_cmpuint (now, >=, before);
}

/* ---- the same video ---- */

static double
squared_difference (const DpFrame *a, const DpFrame *b)
{
  double sum = 0;

  for (int y = 0; y < a->height; y++) {
    const float *p = (const float *) (a->planes[0] + (gsize) y * a->strides[0]);
    const float *q = (const float *) (b->planes[0] + (gsize) y * b->strides[0]);

    for (int x = 0; x < 3 * a->width; x++)
      sum += ((double) p[x] - q[x]) * ((double) p[x] - q[x]);
  }
  return sum;
}

/* Five blocks from the same noise, beside the CPU's in float32. */
static void
test_like_cpu (void)
{
  DpSettings s = on_gpu ();
  g_autoptr (DpPlan) plan = stream_plan (&s);
  const DpSettings resolved = *dp_plan_settings (plan);
  const DpModelInfo info = *dp_plan_model (plan);
  double sum = 0, worst = 0;
  gint64 next[2] = { 0, 0 };
  DpFrame a, b;

  int latents = 5 * resolved.block_latents + MAX (resolved.context_latents, 0);
  gsize n = (gsize) latents * (resolved.width / info.spatial_scale) * (resolved.height / info.spatial_scale) * info.latent_channels;
  g_autofree float *noise = g_new (float, n);
  dp_noise_fill (3, 0, 0, n, noise);
  s.noise = noise;
  s.noise_latents = latents;
  s.num_frames = 1 + (latents - 1) * info.temporal_scale;
  s.format = DP_FORMAT_RGB_F32;
  g_autoptr (DpEngine) gpu = stream_open (&s);
  s.devices = "cpu";
  s.precision = "float32";      /* the exact one: two in bfloat16 are each as far from it */
  g_autoptr (DpEngine) cpu = stream_open (&s);
  while (stream_pull (cpu, &a, &next[0])) {
    g_assert_true (stream_pull (gpu, &b, &next[1]));
    double difference = squared_difference (&a, &b);
    sum += difference;
    worst = fmax (worst, difference);
    g_assert_true (isfinite (difference));
    dp_engine_release_frame (cpu, &a);
    dp_engine_release_frame (gpu, &b);
  }
  g_assert_cmpint (next[0], ==, s.num_frames);
  double values = 3.0 * resolved.width * resolved.height, psnr = -10 * log10 (sum / values / s.num_frames);
  g_test_message ("%d frames: %.1f dB from the CPU's, the worst frame %.1f dB", (int) s.num_frames, psnr, -10 * log10 (worst / values));
  if (!(psnr >= 40))
    g_test_fail_printf ("%.1f dB from the CPU's frames, under 40", psnr);
}

/* ---- no such GPU ---- */

static void
test_no_such_gpu (void)
{
  DpSettings s = on_gpu ();
  int n = gpu_count ();
  g_autofree char *name = g_strdup_printf ("cuda:%d", MAX (n, 9)), *needles = g_strdup_printf ("%s|%d GPU|cuda:%d", name, n, n - 1);

  s.devices = name;
  g_autoptr (GError) error = failure_of (&s);
  g_assert_error (error, DP_ERROR, DP_ERROR_DEVICE);
  check_sentence (error->message, needles);
}

/* Stages on the CPU and on a GPU: a block goes from one to the other. */
static void
test_mixed (void)
{
  static const char *const devices[] = { "cpu,cuda:0", "cuda:0,cpu", "cuda:0,cpu,cuda:0" };

  for (gsize i = 0; i < G_N_ELEMENTS (devices); i++) {
    DpSettings s = on_gpu ();

    s.devices = devices[i];
    s.num_frames = 33;
    g_autofree char *once = stream_hash (&s), *again = stream_hash (&s);
    g_assert_cmpstr (once, ==, again);
  }
}

/* The number of stages and of GPUs changes no bit, and neither does another run. */
static void
test_several (void)
{
  static const char *const devices[] = { "cuda:0", "cuda:0,cuda:0", "cuda:0,cuda:0,cuda:0", "cuda:0,cuda:0,cuda:0,cuda:0", "auto",
    "cuda", "cuda:0,cuda:1", "cuda:1", "cuda:1,cuda:0", "cuda:0,cuda:0,cuda:1" };
  DpSettings s = on_gpu ();

  s.num_frames = 150;
  g_autofree char *one = stream_hash (&s);
  for (gsize i = 0; i < G_N_ELEMENTS (devices); i++) {
    if (strstr (devices[i], "cuda:1") && gpu_count () < 2) {
      g_test_message ("%s: not run, there is one GPU", devices[i]);
      continue;
    }
    s.devices = devices[i];
    g_autofree char *several = stream_hash (&s);
    g_assert_cmpstr (one, ==, several);
  }
}

/* ---- no memory ---- */

/* Opens an engine with so much memory there. Wherever that ends it: a sentence (1), or else the video (0). */
static int
open_with_little (const DpSettings *settings, gsize left)
{
  g_autoptr (GError) error = NULL;
  TestClock start = test_clock ();
  DpEngine *engine = NULL;
  DpFrame frame;
  int result = -1;

  gpu_take (left);
  if (stream_try_open (&engine, settings, NULL, NULL, &error))
    while ((result = dp_engine_pull (engine, &frame, G_USEC_PER_SEC * 20, &error)) == 1)
      dp_engine_release_frame (engine, &frame);
  dp_engine_free (engine);
  gpu_give_back ();
  stream_check_seconds ("the opening ended", start, 5);
  g_assert_true (error != NULL || result == 0);
  if (error == NULL)
    return 0;
  /* dp_device_open() has a sentence and no code */
  g_assert_true (g_error_matches (error, DP_ERROR, DP_ERROR_NO_MEMORY) || g_error_matches (error, DP_ERROR, DP_ERROR_DEVICE));
  check_sentence (error->message, "cuda:0|MiB| free");
  return 1;
}

/* Nothing is kept, and all is well afterwards. The first two rounds do not count: libraries load code that stays, in other places when
 * memory is short. */
static void
test_no_memory (void)
{
  static const gsize left[] = { 2, 40, 100, 130, 200, 300 };    /* MiB */
  DpSettings s = on_gpu ();
  int failures = 0;
  gsize before = 0;

  s.num_frames = 40;
  g_autofree char *expected = stream_hash (&s);
  for (int round = 0; round < 5; round++) {
    if (round == 2)
      before = gpu_free_bytes ();
    for (guint i = 0; i < G_N_ELEMENTS (left); i++)
      failures += open_with_little (&s, left[i] << 20);
    g_test_message ("round %d: %.1f MiB free", round, gpu_free_bytes () / 1048576.0);
  }
  g_assert_cmpint (failures, >=, 15);
  check_given_back ("three rounds later", before);
  g_autofree char *again = stream_hash (&s);
  g_assert_cmpstr (again, ==, expected);
  check_given_back ("after another video", before);
}

/* The engine is loaded, and what the first block needs besides is not there any more. */
static void
test_no_memory_later (void)
{
  g_autofree char *prompt = g_strnfill (4000, 'x');
  DpSettings s = on_gpu ();
  g_autoptr (GError) error = NULL;
  StreamWatch watch;

  s.num_frames = 40;
  s.prompt = prompt;
  g_autofree char *expected = stream_hash (&s);
  gsize before = gpu_free_bytes ();
  DpEngine *engine = stream_open_watched (&s, &watch);
  stream_wait_loaded (&watch, 100);
  gpu_take (0);
  TestClock start = test_clock ();
  error = pull_until_error (engine);
  stream_check_seconds ("the error came", start, 5);
  check_no_memory (error, "cuda:0|MiB| free");
  dp_engine_free (engine);
  gpu_give_back ();
  check_given_back ("with all that was taken given back", before);
  g_autofree char *again = stream_hash (&s);
  g_assert_cmpstr (again, ==, expected);
  check_given_back ("after another video", before);
}

/* An attention whose scratch is more than the device was opened with; the others have to do without it too, and the device lives. */
static void
run_attention (DpDevice *dev, int len, void *memory, gsize part)
{
  char *at = memory;

  dev->ops->attention (dev, &(DpAttentionArgs) { .type = DP_TYPE_BF16, .heads = 1, .head_dim = 384, .q_len = len, .kv_len = len, .q = at,
          .k = at + part, .v = at + 2 * part, .out = at + 3 * part, .scale = 0.05f });
}

static void
test_no_scratch (void)
{
  enum { SMALL = 1024, LARGE = 8192 };
  const gsize part = (gsize) LARGE * 384 * 2, small = (gsize) SMALL * 384 * 2;
  char message[256];
  DpDevice *dev = dp_device_open ("cuda:0", 0, message, sizeof message);
  g_autofree char *input = g_malloc (3 * part), *first = g_malloc (small), *again = g_malloc (small);

  g_assert_nonnull (dev);
  for (gsize i = 0; i < 3 * part / 2; i++)
    ((guint16 *) input)[i] = 0x3e00 + i * 2654435761u % 512;    /* 0.125 to 0.5 */
  char *memory = dev->ops->alloc (dev, 4 * part);
  g_assert_nonnull (memory);
  dev->ops->upload (dev, memory, input, 3 * part);
  run_attention (dev, SMALL, memory, part);
  dev->ops->download (dev, first, memory + 3 * part, small);
  g_assert_true (dp_device_check (dev, message, sizeof message));

  gpu_take (0);
  run_attention (dev, LARGE, memory, part);
  g_assert_false (dp_device_check (dev, message, sizeof message));
  check_sentence (message, "cuda:0|MiB needed| free");
  g_assert_true (dev->no_memory);
  gpu_take (0);                 /* also what it had before */
  run_attention (dev, SMALL, memory, part);
  g_assert_false (dp_device_check (dev, message, sizeof message));
  check_sentence (message, "cuda:0|MiB needed| free");

  gpu_give_back ();
  run_attention (dev, LARGE, memory, part);
  run_attention (dev, SMALL, memory, part);
  dev->ops->download (dev, again, memory + 3 * part, small);
  g_assert_true (dp_device_check (dev, message, sizeof message));
  g_assert_cmpmem (first, small, again, small);
  dev->ops->free (dev, memory);
  dp_device_close (dev);
}

/* ---- warm parts ---- */

/* What an engine leaves is in the way of nobody who has to load something else, and goes without a trace. */
static void
test_warm (void)
{
  DpSettings s = on_gpu (), small = s;

  s.num_frames = small.num_frames = 40;
  small.width = small.height = 64;
  g_free (stream_hash (&s));    /* loads the kernels, which stay */
  g_autofree char *expected = stream_hash (&small);
  gsize before = gpu_free_bytes ();
  s.linger = 3600;
  g_free (stream_hash (&s));
  g_assert_cmpuint (dp_part_cache_bytes ("cuda:0"), >, 0);
  g_assert_cmpuint (gpu_free_bytes () + dp_part_cache_bytes ("cuda:0"), <=, before);

  gpu_take (2 << 20);
  g_autofree char *after = stream_hash (&small);
  g_assert_cmpstr (after, ==, expected);
  gpu_give_back ();
  dp_part_cache_clear ();
  check_given_back ("with nothing kept", before);
}

/* ---- the GPU breaks ---- */

static char *
checksum (const DpFrame *frame)
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);

  stream_hash_frame (sum, frame);
  return g_strdup (g_checksum_get_string (sum));
}

/* Breaks cuda:`gpu` when frame `last` has come, at once where that is -1. Frames that come after it are good ones all the same. */
static void
break_after (const char *devices, int gpu, int last)
{
  g_autofree char *needles = g_strdup_printf ("cuda:%d|lost to this process", gpu);
  g_autoptr (GPtrArray) sums = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL, again = NULL, reopen = NULL;
  DpSettings s = on_gpu ();
  TestClock start;
  gint64 next = 0;
  DpEngine *engine;
  DpFrame frame;
  int result;

  s.num_frames = FRAMES;
  s.devices = devices;
  engine = stream_open (&s);
  while (stream_pull (engine, &frame, &next)) {
    g_ptr_array_add (sums, checksum (&frame));
    dp_engine_release_frame (engine, &frame);
  }
  dp_engine_free (engine);

  s.num_frames = -1;
  engine = stream_open (&s);
  if (last < 0)
    gpu_break (gpu);
  start = test_clock ();
  while ((result = dp_engine_pull (engine, &frame, G_USEC_PER_SEC * 10, &error)) == 1) {
    g_autofree char *sum = checksum (&frame);

    g_assert_cmpint (frame.index, <, FRAMES);   /* it has to end before it could make that many */
    g_assert_cmpstr (sum, ==, g_ptr_array_index (sums, frame.index));
    if (frame.index == last) {
      gpu_break (gpu);
      start = test_clock ();
    }
    dp_engine_release_frame (engine, &frame);
  }
  g_assert_cmpint (result, ==, -1);
  g_assert_error (error, DP_ERROR, DP_ERROR_DEVICE);
  check_sentence (error->message, needles);
  stream_check_seconds ("the error came", start, 2);
  g_assert_cmpint (dp_engine_pull (engine, &frame, -1, &again), ==, -1);
  g_assert_cmpstr (again->message, ==, error->message);
  start = test_clock ();
  dp_engine_free (engine);
  stream_check_seconds ("freed", start, 1);

  /* this process has no GPU any more, and can do without */
  reopen = failure_of (&s);
  g_assert_error (reopen, DP_ERROR, DP_ERROR_DEVICE);
  check_sentence (reopen->message, needles);
  s.devices = "cpu";
  s.num_frames = 1;
  g_autofree char *cpu = stream_hash (&s);
}

/* Libraries abort without a word. Where it was is worth more than that it was. */
static void
print_stack (int signal)
{
  void *calls[64];

  backtrace_symbols_fd (calls, backtrace (calls, G_N_ELEMENTS (calls)), STDERR_FILENO);
}

/* In a process of its own: what is broken stays so. */
static void
in_subprocess (const char *devices, int gpu, int last)
{
  if (g_test_subprocess ()) {
    setvbuf (stdout, NULL, _IONBF, 0);  /* what was said before is not lost */
    signal (SIGABRT, print_stack);      /* abort() goes on behind it */
    break_after (devices, gpu, last);
    return;
  }
  g_test_trap_subprocess (NULL, 60 * G_USEC_PER_SEC, G_TEST_SUBPROCESS_INHERIT_STDERR);
  g_test_trap_assert_passed ();
}

static void
test_break_loading (void)
{
  in_subprocess ("cuda:0", 0, -1);
}

static void
test_break_early (void)
{
  in_subprocess ("cuda:0", 0, 0);
}

static void
test_break (void)
{
  in_subprocess ("cuda:0", 0, 100);
}

static void
test_break_stages (void)
{
  in_subprocess ("cuda:0,cuda:0,cuda:0", 0, 60);
}

/* Each of two GPUs is lost in the middle of a video; the other one is well. */
static void
test_break_one_of_two (gconstpointer gpu)
{
  if (gpu_count () < 2)
    g_test_skip ("there is one GPU");
  else
    in_subprocess ("cuda:0,cuda:1", GPOINTER_TO_INT (gpu), 60);
}

int
main (int argc, char **argv)
{
  if (gpu_count () == 0) {
    g_print ("1..0 # SKIP there is no GPU here\n");
    return 0;
  }
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/cuda/like-cpu", test_like_cpu);
  g_test_add_func ("/cuda/no-such-gpu", test_no_such_gpu);
  g_test_add_func ("/cuda/mixed", test_mixed);
  g_test_add_func ("/cuda/several", test_several);
  g_test_add_func ("/cuda/no-memory", test_no_memory);
  g_test_add_func ("/cuda/no-memory-later", test_no_memory_later);
  g_test_add_func ("/cuda/no-scratch", test_no_scratch);
  g_test_add_func ("/cuda/warm", test_warm);
  g_test_add_func ("/cuda/break-loading", test_break_loading);
  g_test_add_func ("/cuda/break-early", test_break_early);
  g_test_add_func ("/cuda/break", test_break);
  g_test_add_func ("/cuda/break-stages", test_break_stages);
  g_test_add_data_func ("/cuda/break-first-of-two", GINT_TO_POINTER (0), test_break_one_of_two);
  g_test_add_data_func ("/cuda/break-second-of-two", GINT_TO_POINTER (1), test_break_one_of_two);
  return g_test_run ();
}
