/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_changed.c: a file of weights that becomes shorter, or is written to, while it is loaded or, for the text encoder, while the video
 * plays. Each is answered by an error that names the file; a file that is replaced by renaming is not noticed. The program's own pread()
 * stands before libc's, so the change comes in the middle of reading, at a read that the test names.
 */
#include "stream.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TRUNCATE, OVERWRITE };

/* What happens to which file at which of its reads. Set while no engine is open. */
static struct
{
  char *path;
  dev_t dev;
  ino_t ino;
  int way;
  gint countdown;               /* atomic; the read that finds 1 makes the change */
  gint reads;                   /* atomic */
} plan;

static void
change (void)
{
  struct stat st;
  int fd = open (plan.path, O_WRONLY | O_CLOEXEC);

  g_assert_true (fd >= 0 && fstat (fd, &st) == 0);
  if (plan.way == TRUNCATE) {
    g_assert_cmpint (ftruncate (fd, st.st_size / 8), ==, 0);
  } else {
    /* The clock of a file system is coarse: a change within the same tick would be none. */
    g_usleep (20000);
    g_assert_cmpint (write (fd, "\0", 1), ==, 1);
  }
  close (fd);
}

ssize_t
pread (int fd, void *to, size_t bytes, off_t offset)
{
  struct stat st;

  if (plan.path && fstat (fd, &st) == 0 && st.st_ino == plan.ino && st.st_dev == plan.dev) {
    g_atomic_int_inc (&plan.reads);
    if (g_atomic_int_add (&plan.countdown, -1) == 1)
      change ();
  }
  return syscall (SYS_pread64, fd, to, bytes, offset);
}

static char *
copy_of (const char *file)
{
  g_autoptr (GBytes) bytes = stream_model_file (file);
  gsize size;
  const void *data = g_bytes_get_data (bytes, &size);

  return stream_model_new (file, data, size);
}

static void
watch_file (const char *dir, const char *file, int way, int at)
{
  struct stat st;

  g_free (plan.path);
  plan.path = g_build_filename (dir, file, NULL);
  g_assert_cmpint (stat (plan.path, &st), ==, 0);
  plan.dev = st.st_dev;
  plan.ino = st.st_ino;
  plan.way = way;
  plan.reads = 0;
  plan.countdown = at;
}

static DpSettings
settings_of (const char *model, const char *text_encoder)
{
  DpSettings s = stream_small ();

  s.model = model;
  s.text_encoder = text_encoder;
  s.num_frames = 9;
  s.width = s.height = 32;
  s.steps = s.queue_blocks = 1;
  s.guidance_scale = 1;
  s.block_latents = 1;
  s.context_latents = -1;
  s.text_length = 16;
  return s;
}

/* Opens and plays to the end, or to an error, which is returned. */
static GError *
play (const DpSettings *settings)
{
  DpEngine *engine = NULL;
  GError *error = NULL;
  DpFrame frame;

  if (stream_try_open (&engine, settings, NULL, NULL, &error))
    while (dp_engine_pull (engine, &frame, (gint64) (20e6 * stream_slowness ()), &error) == 1)
      dp_engine_release_frame (engine, &frame);
  dp_engine_free (engine);
  return error;
}

static void
check_named (const GError *error)
{
  g_assert_error (error, DP_ERROR, DP_ERROR_BAD_MODEL);
  g_assert_nonnull (strstr (error->message, plan.path));
  g_assert_nonnull (strstr (error->message, "changed while it was in use"));
}

static const char *const files[] = {
  "transformer/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
};

/* At the first, the last and some reads between of each file. */
static void
test_loading (void)
{
  for (gsize i = 0; i < G_N_ELEMENTS (files); i++) {
    int all;

    g_autofree char *whole = copy_of (files[i]);
    const DpSettings s = settings_of (whole, "resident");
    watch_file (whole, files[i], TRUNCATE, 0);
    g_assert_no_error (play (&s));
    all = plan.reads;
    g_assert_cmpint (all, >, 8);
    stream_model_free (g_steal_pointer (&whole));
    for (int way = TRUNCATE; way <= OVERWRITE; way++)
      for (int step = 0; step <= 3; step++) {
        g_autofree char *dir = copy_of (files[i]);
        const DpSettings broken = settings_of (dir, "resident");
        TestClock start = test_clock ();

        /* The first read is that of the header's length: what a changed header says is another error. */
        watch_file (dir, files[i], way, 3 + (all - 4) * step / 3);
        g_autoptr (GError) error = play (&broken);
        check_named (error);
        stream_check_seconds (error->message, start, 2);
        stream_model_free (g_steal_pointer (&dir));
      }
  }
}

/* Between two prompts, and in the middle of encoding the second; by renaming, which does no harm. */
static void
test_between_prompts (void)
{
  static const char *const modes[] = { "resident", "streamed" };

  for (gsize i = 0; i < 2; i++)
    for (int way = 0; way < 4; way++) {
      g_autofree char *dir = copy_of (files[2]);
      DpSettings s = settings_of (dir, modes[i]);
      g_autoptr (GError) error = NULL;
      gint64 next = 0;
      DpFrame frame;
      int result;

      s.num_frames = -1;
      watch_file (dir, files[2], way == 1 ? OVERWRITE : TRUNCATE, 0);
      DpEngine *engine = stream_open (&s);
      stream_pull_until_block (engine, 1, &next, &frame);
      if (way < 2) {
        change ();
      } else if (way == 2) {
        g_atomic_int_set (&plan.countdown, 2);
      } else {
        g_autofree char *other = copy_of (files[2]), *from = g_build_filename (other, files[2], NULL);

        g_assert_cmpint (g_rename (from, plan.path), ==, 0);
        stream_model_free (g_steal_pointer (&other));
      }
      g_assert_true (dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = "a blue cube", .at_frame = -1 }, &error));
      for (int n = 0; (result = dp_engine_pull (engine, &frame, (gint64) (20e6 * stream_slowness ()), &error)) == 1 && n < 400; n++) {
        const gboolean shown = frame.prompt_id != 0;

        dp_engine_release_frame (engine, &frame);
        if (shown)
          break;
      }
      g_assert_cmpint (result, ==, way == 3 ? 1 : -1);
      if (way == 3)
        g_assert_no_error (error);
      else
        check_named (error);
      dp_engine_free (engine);
      stream_model_free (g_steal_pointer (&dir));
    }
}

int
main (int argc, char **argv)
{
  stream_init (&argc, &argv);
  g_test_add_func ("/changed/loading", test_loading);
  g_test_add_func ("/changed/between-prompts", test_between_prompts);
  return g_test_run ();
}
