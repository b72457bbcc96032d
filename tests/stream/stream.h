/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * stream.h: what the stream tests share: small settings that run fast, an engine that must open, frames that must come in order,
 * model directories with one thing wrong, and a look at what the process holds.
 *
 * Everything here ends the test program on failure (g_assert).
 */
#pragma once

#include <glib.h>
#include "dualparal.h"
#include "wan/model.h"
#include "../clock.h"

/** g_test_init(), and takes "--device NAME" out of the arguments: cpu (the default), cuda:0, or several. Skips all tests where there
 *  is no such device. */
void stream_init (int *argc, char ***argv);
/** So many stages on it, or on each in turn where --device named several, which are at least a stage each: "cpu,cpu,cpu". Static. */
const char *stream_devices (int stages);
/** The first of them. */
const char *stream_device (void);

/** How much longer things may take under a sanitizer or valgrind; 1 in a plain build. */
double stream_slowness (void);

/** A model that loads in milliseconds and computes fast, for what does not depend on the picture: random, of tests/parity. On a GPU, whose
 *  kernels are made for real sizes, the embedded one, that is NULL or what DUALPARAL_TEST_MODEL names. */
const char *stream_model (void);

/** stream_model (), 64x48, two steps with guidance (where things are slow 32x32 and without), two threads, on stream_devices (1).
 *  Endless; every field may be changed. */
DpSettings stream_small (void);

/** Plans and opens. */
gboolean stream_try_open (DpEngine **engine, const DpSettings *settings, DpProgress progress, gpointer user_data, GError **error);

DpEngine *stream_open (const DpSettings *settings);

/** The plan for settings that must be good. */
DpPlan *stream_plan (const DpSettings *settings);

/** Lets the first block begin, without waiting for a frame. */
void stream_start (DpEngine *engine);

/** The next frame, which must be the one after the last (its index is *next, which is counted up). FALSE at the end of the video. */
gboolean stream_pull (DpEngine *engine, DpFrame *frame, gint64 *next);

/** Pulls and releases until a frame of `block` has come, which it fills in *frame (released already: use its numbers only). */
void stream_pull_until_block (DpEngine *engine, gint64 block, gint64 *next, DpFrame *frame);

/** Adds the picture to a running SHA-256; the padding of rows does not count. */
void stream_hash_frame (GChecksum *sum, const DpFrame *frame);

/** SHA-256 over all frames of a finite video. */
char *stream_hash (const DpSettings *settings);

/** Seconds since `start`, as a test's clock sees them; fails the test unless they are at most `limit` (times stream_slowness()). */
void stream_check_seconds (const char *what, TestClock start, double limit);

/* ---- waiting ---- */

/** For what is done by threads that do not tell: looks until it is so. The test fails after that many seconds (times stream_slowness()). */
void stream_wait_until (const char *what, gboolean (*is_so) (gpointer data), gpointer data, double seconds);
/** How many threads the process has, once that stays the same: one that was joined is listed for a moment longer. */
int stream_threads (void);

/** How far an engine came, as its callbacks say. Thread-safety: all of its functions. */
typedef struct
{
  GMutex lock;
  GCond cond;
  int percent;                  /* of what has to be loaded */
  int blocks;                   /* finished, and not yet decoded */
} StreamWatch;

/** Opens an engine that is watched; free the engine before the watch goes. */
DpEngine *stream_open_watched (const DpSettings *settings, StreamWatch *watch);
void stream_wait_loaded (StreamWatch *watch, int percent);
void stream_wait_blocks (StreamWatch *watch, int blocks);

/* ---- models with something wrong ---- */

/** A new directory like the embedded model, by links, but for `file` ("vae/config.json"), which holds `data` instead, or is missing when
 *  that is NULL. stream_model_free() removes it. */
char *stream_model_new (const char *file, const void *data, gsize size);
void stream_model_free (char *dir);

/** A file of the embedded model. */
GBytes *stream_model_file (const char *file);

/* ---- the process ---- */

/** Bytes of it in memory, exactly; what it has mapped from files counts only where `all`. */
gsize stream_resident (gboolean all);
/** Open files, and threads. */
int stream_count (const char *what_in_proc_self);
