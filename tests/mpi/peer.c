/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * peer transport|cycles COUNT|again|late|start|stranger|traced FILE: what a test under mpirun runs as one of its ranks. The exit status counts.
 */
#include "engine/dualparal.h"
#include "engine/transport_mpi.h"
#include "tests/unit/devices.h"
#include "traced.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- transport: random bytes go around; each stage adds its number ---- */

#define FRAMES 3
#define LATENTS 5
#define TOKENS 20011            /* beyond what MPI sends at once */
#define MESSAGES 300
#define SESSION 1

static DpPostPlace here;
static DpTransport *end;
static guint told_last;
static int n_told;

static void
take_letter (const DpLetter *letter, gpointer data)
{
  if (letter->kind == DP_POST_DOWN)
    end->shut_down (end);
}

static gint bye;                /* atomic */

static void
take_bye (const DpLetter *letter, gpointer data)
{
  if (letter->kind == DP_POST_BYE)
    g_atomic_int_set (&bye, 1);
}

/* A rank that ends before rank 0 does looks like one that died. */
static void
wait_for_bye (void)
{
  while (!g_atomic_int_get (&bye))
    g_usleep (10000);
}

static void
take_gone (int rank, const char *why, gpointer data)
{
  g_error ("rank %d is gone: %s", rank, why);
}

static void
told (DpConditioning *c, gpointer data)
{
  g_assert_cmpint (c->n[0], ==, 2);
  g_assert_cmpfloat (c->embeds[0][c->dim], ==, c->id);
  g_assert_cmpstr (c->prompt, ==, "blå");
  told_last = c->id;
  n_told++;
  if (here.rank < here.ranks - 1)
    end->tell (end, c);
}

static DpConditioning *
conditioning_new (guint id)
{
  DpConditioning *c = g_new0 (DpConditioning, 1);

  c->refs = 1;
  c->id = id;
  c->dim = 100000;
  c->n[0] = 2;
  c->embeds[0] = g_new0 (float, 2 * c->dim);
  c->embeds[0][c->dim] = id;
  c->prompt = g_strdup ("blå");
  return c;
}

static void
add (float *at, gsize n, float value)
{
  for (gsize i = 0; i < n; i++)
    at[i] += value;
}

static void
relay (void)
{
  DpBlock *b = NULL;
  int passed = 0;

  while ((b = end->exchange (end, b, TRUE))) {
    gsize frames = b->header.context + b->header.own;

    g_assert_cmpint (b->header.block, ==, passed++);
    g_assert_cmpuint (told_last, >=, b->header.prompt);
    if (b->header.error)
      continue;
    g_assert_cmpfloat (b->tokens[frames * TOKENS - 1], ==, b->tokens[0]);
    add (b->latents, frames * LATENTS, here.rank);
    add (b->tokens, frames * TOKENS, here.rank);
    if (passed % 64 == here.rank)       /* slow for once, so that blocks pile up */
      g_usleep (3000);
  }
  g_assert_cmpint (passed, ==, MESSAGES);
  g_assert_cmpint (n_told, ==, (MESSAGES + 6) / 7);
}

static void
fill (DpBlock *b, GRand *rand, float *sent, int number)
{
  b->header = (DpBlockHeader) { .block = number, .context = number % FRAMES, .own = 1, .elements = 1, .prompt = number / 7 };
  for (int i = 0; i < FRAMES * LATENTS; i++)
    b->latents[i] = sent[i] = g_rand_int_range (rand, -1000, 1000);
  for (int i = 0; i < FRAMES * TOKENS; i++)
    b->tokens[i] = number;
  if (number % 50 == 49)
    dp_block_fail (b, g_error_new (DP_ERROR, DP_ERROR_NO_MEMORY, "is full"));
}

static void
check (const DpBlock *b, const float *sent, int number)
{
  g_assert_cmpint (b->header.block, ==, number);
  g_assert_cmpint (b->header.error != 0, ==, number % 50 == 49);
  if (b->header.error) {
    g_assert_cmpstr (b->error, ==, "stage 0: is full");
    return;
  }
  for (int i = 0; i < (b->header.context + b->header.own) * LATENTS; i++)
    g_assert_cmpfloat (b->latents[i], ==, sent[i] + here.ranks * (here.ranks - 1) / 2);
}

static void
drive (void)
{
  static float sent[MESSAGES][FRAMES * LATENTS];
  g_autoptr (GRand) rand = g_rand_new_with_seed (here.ranks);
  DpBlock *b;

  for (int in = 0, out = 0; in < MESSAGES;) {
    if (out < MESSAGES && out - in < here.ranks + 1 && (b = end->take (end))) {
      if (out % 7 == 0) {
        DpConditioning *c = conditioning_new (out / 7);

        end->tell (end, c);
        dp_conditioning_unref (c);
      }
      fill (b, rand, sent[out], out);
      out++;
      b = end->exchange (end, b, FALSE);
    } else
      b = end->exchange (end, NULL, TRUE);
    if (b) {
      check (b, sent[in], in);
      end->give (end, b);
      in++;
    }
  }
  for (int i = 1; i < here.ranks; i++)
    dp_post_send (i, DP_POST_DOWN, SESSION, NULL, 0);
  end->shut_down (end);
  g_assert_null (end->exchange (end, NULL, TRUE));
}

static void
transport (void)
{
  static const DpPostListener base = { .letter = take_bye, .gone = take_gone };
  DpDevice *dev = open_device ("cpu");  /* all ranks but one of five treat its memory as a GPU's */
  GError *error = NULL;

  dp_post_open (&here, 0, &error);
  g_assert_no_error (error);
  dp_post_listen (0, &base, NULL);
  end = dp_transport_mpi_new (&(DpTransportMpiSpec) { .rank = here.rank, .ranks = here.ranks, .session = SESSION, .name = "stage 0",
      .letter = take_letter, .gone = take_gone, .as_gpu = here.rank != 2 });
  end->told = told;
  dp_transport_mpi_listen (end);
  if (here.rank == 1)           /* its neighbours are ready long before it */
    g_usleep (100000);
  g_assert_true (end->open (end, dev, &(DpBlockSize) { FRAMES, LATENTS, TOKENS, 1 }, &error));
  if (here.rank == 0)
    drive ();
  else
    relay ();
  end->close (end);
  end->free (end);
  g_assert_cmpuint (dev->bytes, ==, 0);
  dp_device_close (dev);
  if (here.rank > 0)
    wait_for_bye ();
}

/* ---- cycles: engines come and go, at any moment ---- */

static DpEngine *
open_engine (const DpSettings *settings)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (DpPlan) plan = dp_plan_new (settings, &error);
  DpEngine *engine;

  g_assert_no_error (error);
  dp_engine_open (&engine, plan, NULL, NULL, &error);
  g_assert_no_error (error);
  return engine;
}

/* Returns the microseconds that the engine took to go away. */
static gint64
cycle (int width, int height, int frames, gint64 wait_us, gboolean across, GChecksum *sum)
{
  DpSettings settings = { .devices = "cpu", .ranks = across ? "mpi" : "none", .num_frames = -1, .width = width, .height = height,
    .steps = 3, .block_latents = 2, .context_latents = 1, .seed = 5, .format = DP_FORMAT_I420, .linger = 5 };
  g_autoptr (GError) error = NULL;
  DpEngine *engine = open_engine (&settings);
  DpFrame f;

  for (int i = 0; i < frames; i++) {
    g_assert_cmpint (dp_engine_pull (engine, &f, -1, &error), ==, 1);
    for (int y = 0; sum && y < f.height; y++)
      g_checksum_update (sum, f.planes[0] + y * f.strides[0], f.width);
    dp_engine_release_frame (engine, &f);
  }
  if (wait_us >= 0) {           /* the first call starts the generation */
    dp_engine_wait (engine, 1, 0);
    g_usleep (wait_us);
  }
  gint64 start = g_get_monotonic_time ();
  dp_engine_free (engine);
  return g_get_monotonic_time () - start;
}

typedef struct
{
  int files, threads;
  double mib;                   /* resident */
} Held;

static int
count_entries (const char *pid, const char *what)
{
  g_autofree char *path = g_build_filename ("/proc", pid, what, NULL);
  GDir *dir = g_dir_open (path, 0, NULL);
  int n = 0;

  g_assert_nonnull (dir);
  while (g_dir_read_name (dir))
    n++;
  g_dir_close (dir);
  return n;
}

/* What each rank has: they are all children of mpirun. Returns how many. */
static int
look_at_all (int cycle, Held held[8])
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/task/%d/children", getppid (), getppid ()), *children = NULL;
  int n = 0;

  g_usleep (300000);            /* threads end */
  g_assert_true (g_file_get_contents (path, &children, NULL, NULL));
  g_auto (GStrv) pids = g_strsplit (g_strstrip (children), " ", 8);
  for (; pids[n]; n++) {
    g_autofree char *status_path = g_build_filename ("/proc", pids[n], "status", NULL), *status = NULL;

    g_assert_true (g_file_get_contents (status_path, &status, NULL, NULL));
    held[n] = (Held) { count_entries (pids[n], "fd"), count_entries (pids[n], "task"), atoi (strstr (status, "VmRSS:") + 6) / 1024.0 };
    fprintf (stderr, "after %3d engines: process %d has %.1f MiB, %d files, %d threads\n", cycle, n, held[n].mib, held[n].files,
        held[n].threads);
  }
  return n;
}

/* Nothing adds up from the half of the engines to the last. */
static void
cycles (int count)
{
  Held half[8], end[8];
  GChecksum *one = g_checksum_new (G_CHECKSUM_MD5), *many = g_checksum_new (G_CHECKSUM_MD5);
  g_autoptr (GRand) rand = g_rand_new_with_seed (7);
  gint64 longest = 0;

  for (int i = 0; i < count; i++) {
    if (i == count / 2)
      look_at_all (i, half);
    longest = MAX (longest, cycle (128, 64, i % 5 == 2 ? i : 0, i % 4 == 3 ? -1 : g_rand_int_range (rand, 0, i % 2 ? 150000 : 3000), TRUE, NULL));
  }
  for (int n = look_at_all (count, end); n-- > 0;) {
    g_assert_cmpint (end[n].files, ==, half[n].files);
    g_assert_cmpint (end[n].threads, <=, half[n].threads + 1);  /* that of what lingers */
    g_assert_cmpfloat (end[n].mib, <, half[n].mib + 16);
  }
  /* in the middle of a pass that takes seconds */
  longest = MAX (longest, cycle (832, 480, 0, G_USEC_PER_SEC, TRUE, NULL));
  fprintf (stderr, "the longest teardown took %.3f s\n", longest / 1e6);
  g_assert_cmpint (longest, <, G_USEC_PER_SEC);
  cycle (128, 64, 21, -1, TRUE, many);
  cycle (128, 64, 21, -1, FALSE, one);
  g_assert_cmpstr (g_checksum_get_string (many), ==, g_checksum_get_string (one));
  g_checksum_free (one);
  g_checksum_free (many);
}

/* ---- again: a worker that cannot serve one engine is asked by the next one; prints what the last one says ---- */

static void
again (void)
{
  for (int i = 0; i < 3; i++) {
    DpSettings settings = { .devices = "cpu", .ranks = "mpi", .num_frames = -1, .width = 128, .height = 64, .steps = 3 };
    g_autoptr (GError) error = NULL;
    DpEngine *engine = open_engine (&settings);
    DpFrame f;

    g_assert_cmpint (dp_engine_pull (engine, &f, -1, &error), ==, -1);
    dp_engine_free (engine);
    if (i == 2)
      fprintf (stderr, "at last: %s\n", error->message);
  }
}

/* ---- late: a rank dies between plan and engine ---- */

static void
late (void)
{
  DpSettings settings = { .devices = "cpu", .ranks = "mpi", .num_frames = -1, .width = 128, .height = 64, .steps = 3 };
  g_autoptr (GError) error = NULL;
  DpPlan *plan = dp_plan_new (&settings, &error);
  DpEngine *engine;
  DpFrame f;

  g_assert_no_error (error);
  printf ("planned\n");
  fflush (stdout);
  g_usleep (6 * G_USEC_PER_SEC);        /* longer than the silence that makes a rank gone */
  dp_engine_open (&engine, plan, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpint (dp_engine_pull (engine, &f, -1, &error), ==, -1);
  fprintf (stderr, "%s\n", error->message);
  dp_engine_free (engine);
  dp_plan_unref (plan);
  g_assert_null (dp_plan_new (&settings, NULL));
}

/* ---- start: a rank never uses MPI ---- */

static void
start (void)
{
  g_autoptr (GError) error = NULL;

  g_assert_false (dp_post_open (&here, 2, &error));
  fprintf (stderr, "%s\n", error->message);
}

/* ---- stranger: a rank of another version; it stays until rank 0 ends ---- */

static void
stranger (void)
{
  static const DpPostListener listener = { .letter = take_bye, .gone = take_gone };
  struct
  {
    char magic[8];
    guint32 protocol;
    char version[32];
  } hello = { "dualpar", 99, "9.9" };

  g_assert_true (dp_post_open (&here, 0, NULL));
  dp_post_listen (0, &listener, NULL);
  dp_post_send (0, DP_POST_HELLO, 0, &hello, sizeof hello);
  wait_for_bye ();
}

int
main (int argc, char **argv)
{
  const char *role = argc > 1 ? argv[1] : "";

  if (strcmp (role, "transport") == 0)
    transport ();
  else if (strcmp (role, "cycles") == 0)
    cycles (argc > 2 ? atoi (argv[2]) : 16);
  else if (strcmp (role, "stranger") == 0)
    stranger ();
  else if (strcmp (role, "again") == 0)
    again ();
  else if (strcmp (role, "late") == 0)
    late ();
  else if (strcmp (role, "start") == 0)
    start ();
  else if (strcmp (role, "traced") == 0 && argc > 2)
    traced (argv[2]);
  else
    return 2;
  return strcmp (role, "again") == 0 || strcmp (role, "late") == 0 || strcmp (role, "start") == 0;     /* what they ask for cannot be had */
}
