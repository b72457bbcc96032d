/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test_allocations.c: one allocation fails, any of those that a start, ten frames and a stop make. Each is a run of its own, in a child:
 * it must play on, or end with an error's sentence, within seconds. GLib ends the process where g_malloc() fails, by design: this counts,
 * and may happen for small allocations only. Those of oneDNN and of C++ are left alone: where they fail, oneDNN throws through its own
 * C interface, which ends the process, or uses the null pointer.
 *
 *   stream-allocations                 a sample of all, and all of those of 64 KiB and more
 *   stream-allocations --every STEP    every STEPth of all: with 1 each of them, in some minutes
 *   stream-allocations LEAST N         one run, in which the Nth of at least so many bytes fails; N 0 says how many there are
 */
#include "stream.h"

#include <errno.h>
#include <link.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__

int
main (void)
{
  puts ("1..0 # SKIP the sanitizer's malloc is in front");
  return 0;
}

#else

#define LARGE 65536
#define SAYS "the run: "        /* what stands before is GLib's */

/* ---- malloc ---- */

static size_t least;
static long count, failing;     /* atomic; 0: none fails */
static int watching;            /* atomic */

extern void *__libc_malloc (size_t), *__libc_calloc (size_t, size_t), *__libc_realloc (void *, size_t), *__libc_memalign (size_t, size_t);

/* The code of libraries whose allocations do not fail. */
static struct { guintptr from, to; } spared[8];
static int n_spared;

static int
spare (struct dl_phdr_info *info, size_t size, void *data)
{
  const char *name = strrchr (info->dlpi_name, '/') ? strrchr (info->dlpi_name, '/') + 1 : info->dlpi_name;
  gboolean library = g_str_has_prefix (name, "libdnnl") || g_str_has_prefix (name, "libstdc++") || g_str_has_prefix (name, "libgomp");

  for (int i = 0; i < info->dlpi_phnum && library && n_spared < (int) G_N_ELEMENTS (spared); i++) {
    const ElfW (Phdr) *p = &info->dlpi_phdr[i];

    if (p->p_type == PT_LOAD && (p->p_flags & PF_X)) {
      spared[n_spared].from = info->dlpi_addr + p->p_vaddr;
      spared[n_spared++].to = info->dlpi_addr + p->p_vaddr + p->p_memsz;
    }
  }
  return 0;
}

static gboolean
fails_for (size_t bytes, void *caller)
{
  if (!__atomic_load_n (&watching, __ATOMIC_RELAXED) || bytes < least)
    return FALSE;
  for (int i = 0; i < n_spared; i++)
    if ((guintptr) caller >= spared[i].from && (guintptr) caller < spared[i].to)
      return FALSE;
  if (__atomic_add_fetch (&count, 1, __ATOMIC_RELAXED) != failing)
    return FALSE;
  errno = ENOMEM;
  return TRUE;
}

#define fails(bytes) fails_for (bytes, __builtin_return_address (0))

void *
malloc (size_t bytes)
{
  return fails (bytes) ? NULL : __libc_malloc (bytes);
}

void *
calloc (size_t n, size_t size)
{
  return fails (n * size) ? NULL : __libc_calloc (n, size);
}

void *
realloc (void *ptr, size_t bytes)
{
  return fails (bytes) ? NULL : __libc_realloc (ptr, bytes);
}

void *memalign (size_t alignment, size_t bytes);

void *
memalign (size_t alignment, size_t bytes)
{
  return fails (bytes) ? NULL : __libc_memalign (alignment, bytes);
}

void *
aligned_alloc (size_t alignment, size_t bytes)
{
  return fails (bytes) ? NULL : __libc_memalign (alignment, bytes);
}

int
posix_memalign (void **ptr, size_t alignment, size_t bytes)
{
  *ptr = fails (bytes) ? NULL : __libc_memalign (alignment, bytes);
  return *ptr ? 0 : ENOMEM;
}

/* ---- a run, in the child ---- */

static int
run (void)
{
  DpSettings s = stream_small ();
  DpEngine *engine = NULL;
  GError *error = NULL;
  DpFrame frame;
  int result;

  s.num_frames = 10;
  dl_iterate_phdr (spare, NULL);
  watching = 1;
  if (stream_try_open (&engine, &s, NULL, NULL, &error))
    while ((result = dp_engine_pull (engine, &frame, -1, &error)) == 1)
      dp_engine_release_frame (engine, &frame);
  dp_engine_free (engine);
  watching = 0;
  printf (SAYS);
  if (error)
    printf ("%s %d: %s\n", error->domain == DP_ERROR ? "error" : "strange", error->code, error->message);
  else
    puts ("played");
  printf ("%ld\n", count);
  return 0;
}

/* ---- all of them ---- */

static const char *program;
static long step;               /* of --every; 0: a sample */

typedef struct
{
  char *said, *complained;
  int status;
} Outcome;

static Outcome
run_child (size_t bytes, long n)
{
  g_autofree char *b = g_strdup_printf ("%zu", bytes), *i = g_strdup_printf ("%ld", n);
  char *argv[] = { "timeout", "-s", "ABRT", "60", (char *) program, b, i, NULL };
  g_autoptr (GError) error = NULL;
  g_autofree char *all = NULL;
  Outcome o;

  g_assert_true (g_spawn_sync (NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &all, &o.complained, &o.status, &error));
  char *said = strstr (all, SAYS);
  o.said = g_strdup (said ? said + strlen (SAYS) : "");
  return o;
}

static long
number_of (size_t bytes)
{
  Outcome o = run_child (bytes, 0);
  char *line = strchr (o.said, '\n');
  long n = line ? atol (line + 1) : 0;

  if (!g_str_has_prefix (o.said, "played\n") || n < 1)
    g_error ("without a failure: %s%s", o.said, o.complained);
  g_free (o.said);
  g_free (o.complained);
  return n;
}

/* Each is told, and not only the last. */
static void
fail (long n, long all, const char *found)
{
  g_test_message ("allocation %ld of %ld must not end in: %s", n, all, found);
  g_test_fail ();
}

/* Allocations 1, 1 + every, ... of those of at least so many bytes. */
static void
check (size_t bytes, long every)
{
  long all = number_of (bytes), played = 0, told = 0, no_memory = 0, glib = 0;

  for (long n = 1; n <= all; n += every) {
    TestClock start = test_clock ();
    Outcome o = run_child (bytes, n);

    if ((strstr (o.complained, "failed to allocate") || strstr (o.complained, "during 'malloc'")) && bytes < LARGE)
      glib++;
    else if (o.status != 0)
      fail (n, all, o.complained);
    else if (g_str_has_prefix (o.said, "played\n"))
      played++;
    else if (!g_str_has_prefix (o.said, "error "))
      fail (n, all, o.said);
    else {
      g_autofree char *prefix = g_strdup_printf ("error %d: ", DP_ERROR_NO_MEMORY);

      told++;
      no_memory += g_str_has_prefix (o.said, prefix);
      if (bytes >= LARGE && !g_str_has_prefix (o.said, prefix))
        fail (n, all, o.said);
    }
    stream_check_seconds ("a run", start, 20);
    g_free (o.said);
    g_free (o.complained);
  }
  g_test_message ("of %ld allocations of at least %zu bytes, every %ldth: %ld harmless, %ld told (%ld as no memory), %ld where GLib aborts",
      all, bytes, every, played, told, no_memory, glib);
}

static void
test_large (void)
{
  check (LARGE, 1);
}

static void
test_sample (void)
{
  check (0, step > 0 ? step : MAX (1, number_of (0) / 24));
}

int
main (int argc, char **argv)
{
  program = argv[0];
  if (argc == 3 && g_ascii_isdigit (*argv[1])) {
    least = strtoul (argv[1], NULL, 10);
    failing = strtol (argv[2], NULL, 10);
    argc = 1;
    stream_init (&argc, &argv);
    return run ();
  }
  if (argc == 3 && strcmp (argv[1], "--every") == 0) {
    step = strtol (argv[2], NULL, 10);
    argc = 1;
  }
  stream_init (&argc, &argv);
  g_test_add_func ("/allocations/large", test_large);
  g_test_add_func ("/allocations/sample", test_sample);
  return g_test_run ();
}

#endif
