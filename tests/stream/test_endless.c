/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_endless.c: what runs without end must not grow. Looks at the process after each block: memory in it, memory on the devices,
 * the devices' count of allocations, and every malloc() of ours.
 *
 * oneDNN keeps the arguments of each call in a hash map and so calls malloc() and free() each time it runs. Those calls are counted
 * apart and printed; what they may not do is add up, which `live` shows.
 */
#include "heap.h"
#include "stream.h"

#include <glib/gstdio.h>
#include <stdlib.h>

#define WARM 1                  /* from the first frame of this block on nothing may be allocated: block 0 is out */

typedef struct
{
  gsize resident;
  DpStats stats;
} Look;

static char *
numbered_prompt (gint64 block)
{
  return g_strdup_printf ("a red ball, number %02d", (int) block);
}

static void
look (DpEngine *engine, gint64 block, Look *at)
{
  dp_engine_get_stats (engine, &at->stats);
  at->resident = stream_resident (TRUE);
  g_test_message ("block %3" G_GINT64_FORMAT ": resident %.2f MiB, devices %.2f MiB in %" G_GUINT64_FORMAT " allocations", block,
      at->resident / 1048576.0, at->stats.device_bytes / 1048576.0, at->stats.allocations);
}

/* The prompt of `block`, queued when the block before it had been pulled, shows in the end: how many blocks later is a matter of how far
 * the engine had run ahead. */
static void
pull_until_prompt (DpEngine *engine, gint64 block, gint64 *next)
{
  g_autofree char *prompt = numbered_prompt (block);
  gboolean shown = FALSE;
  DpFrame frame;

  while (!shown) {
    g_assert_true (stream_pull (engine, &frame, next));
    shown = g_str_equal (frame.prompt, prompt);
    dp_engine_release_frame (engine, &frame);
  }
}

static double
difference (gint64 a, gint64 b)
{
  return ABS (a - b) / 1024.0;
}

/* What malloc() was asked for while frames were pulled. */
typedef struct
{
  gint64 ours, dnnl, others;    /* calls */
  gint64 live;                  /* the least: oneDNN holds some 16 KiB while a call of its runs, but not at every frame */
} Asked;

/* Pulls what is left of the blocks before `block`, and this one's first frame. */
static void
pull_until_block (DpEngine *engine, gint64 block, gint64 *next, Asked *asked)
{
  HeapCounts before, after;
  DpFrame frame;
  gint64 pulled;

  do {
    heap_counts (&before);
    g_assert_true (stream_pull (engine, &frame, next));
    pulled = frame.block;
    dp_engine_release_frame (engine, &frame);
    heap_counts (&after);
    asked->ours += after.ours - before.ours;
    asked->dnnl += after.dnnl - before.dnnl;
    asked->others += after.others - before.others;
    asked->live = MIN (asked->live, after.live);
  } while (pulled < block);
}

/* `blocks` blocks, compared after block `first` and after the last; the heap over as many blocks before both. With `prompts` each block
 * gets a prompt of its own. */
static void
check_endless (const DpSettings *settings, gint64 first, gint64 blocks, gboolean prompts)
{
  g_autoptr (DpEngine) engine = stream_open (settings);
  Look warm, early, last;
  Asked asked = { .live = G_MAXINT64 };
  gint64 next = 0, live = 0;
  DpFrame frame;
  HeapCounts counts;
  gboolean counting = heap_counts (&counts);

  stream_pull_until_block (engine, WARM, &next, &frame);
  look (engine, WARM, &warm);
  for (gint64 block = WARM + 1; block <= blocks; block++) {
    if (prompts) {
      g_autofree char *prompt = numbered_prompt (block);
      g_assert_true (dp_engine_queue_prompt (engine, &(DpPrompt) { .prompt = prompt, .at_frame = -1 }, NULL));
    }
    pull_until_block (engine, block, &next, &asked);
    if (block == first) {
      look (engine, block, &early);
      live = asked.live;
    }
    if (block == MAX (first, blocks - first + WARM))
      asked.live = G_MAXINT64;
  }
  look (engine, blocks, &last);
  g_test_message ("between blocks %" G_GINT64_FORMAT " and %" G_GINT64_FORMAT ": resident by %.0f KiB, heap by %.1f KiB", first, blocks,
      difference (early.resident, last.resident), difference (live, asked.live));
  g_test_message ("malloc calls a block: %.2f ours, %.1f oneDNN's, %.2f of others", asked.ours / (double) (blocks - WARM),
      asked.dnnl / (double) (blocks - WARM), asked.others / (double) (blocks - WARM));

  g_assert_cmpuint (last.stats.blocks, >, blocks);
  if (prompts) {                /* each is encoded, and forgotten behind its last block; a different number of them may be there now and
                                 * then */
    pull_until_prompt (engine, blocks, &next);
    g_assert_cmpfloat (difference (early.stats.device_bytes, last.stats.device_bytes), <, 1024);
  } else {
    g_assert_cmpuint (last.stats.allocations, ==, warm.stats.allocations);
    g_assert_cmpuint (last.stats.device_bytes, ==, early.stats.device_bytes);
  }
  if (!counting)
    return;                     /* a sanitizer's heap keeps what was freed */
  g_assert_cmpfloat (difference (early.resident, last.resident), <, 1024);
  g_assert_cmpfloat (difference (live, asked.live), <, prompts ? 1024 : 16);
  if (!prompts)
    g_assert_cmpint (asked.ours, ==, 0);
}

static void
test_small (void)
{
  DpSettings s = stream_small ();

  check_endless (&s, 10, stream_slowness () > 1 ? 12 : 60, FALSE);
}

static void
test_stages (void)
{
  DpSettings s = stream_small ();

  s.devices = stream_devices (3);
  s.threads = 3;
  check_endless (&s, 10, stream_slowness () > 1 ? 11 : 60, FALSE);
}

/* A trace is written all the time. */
static void
test_traced (void)
{
  g_autofree char *path = g_build_filename (g_get_tmp_dir (), "dp-endless-XXXXXX", NULL);
  DpSettings s = stream_small ();

  g_close (g_mkstemp (path), NULL);
  s.devices = stream_devices (2);
  s.trace = path;
  check_endless (&s, 10, stream_slowness () > 1 ? 11 : 30, FALSE);
  g_unlink (path);
}

static void
test_float32 (void)
{
  DpSettings s = stream_small ();

  s.precision = "float32";
  s.sampler = "euler";
  s.context_latents = -1;
  s.guidance_scale = 1;
  check_endless (&s, 10, stream_slowness () > 1 ? 11 : 30, FALSE);
}

static void
test_prompts (void)
{
  DpSettings s = stream_small ();

  check_endless (&s, 10, stream_slowness () > 1 ? 11 : 60, TRUE);
}

/* The settings everyone gets. */
static void
test_defaults (void)
{
  DpSettings s = { .model = g_getenv ("DUALPARAL_TEST_MODEL"), .devices = stream_devices (1), .num_frames = -1, .format = DP_FORMAT_I420 };

  if (stream_slowness () > 1) {
    g_test_skip ("too slow here");
    return;
  }
  check_endless (&s, 3, 7, FALSE);
}

/* The counter must see what it is there to see. */
static void
test_counter (void)
{
  HeapCounts before, after;

  if (!heap_counts (&before)) {
    g_test_skip ("the heap is the sanitizer's");
    return;
  }
  void *volatile one = g_malloc (1000);
  void *volatile two = aligned_alloc (64, 4096);
  heap_counts (&after);
  g_assert_cmpint (after.ours - before.ours, ==, 2);
  g_assert_cmpint (after.live - before.live, >=, 5096);
  g_free (one);
  free (two);
  heap_counts (&after);
  g_assert_cmpint (after.live, ==, before.live);
}

int
main (int argc, char **argv)
{
  heap_init ();
  stream_init (&argc, &argv);
  g_test_add_func ("/endless/counter", test_counter);
  g_test_add_func ("/endless/small", test_small);
  g_test_add_func ("/endless/stages", test_stages);
  g_test_add_func ("/endless/traced", test_traced);
  g_test_add_func ("/endless/float32", test_float32);
  g_test_add_func ("/endless/prompts", test_prompts);
  g_test_add_func ("/endless/defaults", test_defaults);
  return g_test_run ();
}
