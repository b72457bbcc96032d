/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * scripted.h: an engine behind dualparal.h whose video a test writes down: how
 * many frames are there at which time of a test clock. The suites here compile
 * the element against it instead of the real engine, and give the element the same
 * clock, so that a test says what happens when, to the nanosecond, and takes no
 * longer than the code it tests.
 *
 * There is one script. Every engine that opens plays it from its own opening on,
 * starting with frame 0. Each byte of a picture is the frame's number in the
 * script, modulo 256. Every wait of the element is a wait for the clock, which
 * script_advance() moves.
 */
#pragma once

#include <gst/check/gsttestclock.h>
#include "../element/element.h"
#include "dualparal.h"

/* What a plan has where nothing is set */
#define SCRIPT_FPS 16
#define SCRIPT_BLOCK 8          /* frames a block, but 5 in the first */
#define SCRIPT_QUEUE 17         /* max-queue-frames */
#define SCRIPT_SIZE 32          /* width and height */

/** A case like that of test_case_new(), each test of which begins with an empty
 *  script and a clock that is at 0. */
TCase *script_case_new (Suite * suite);

/** The clock. */
GstTestClock *script_clock (void);

/** `n` more frames are there `time` after an engine opened, not before those that
 *  were added earlier. Any time. */
void script_frames (guint n, GstClockTime time);
/** At that time, once its frames are taken, an engine fails. */
void script_error (DpError code, GstClockTime time);
/** FALSE: it never says that it is loaded. TRUE at first. */
void script_loads (gboolean loads);
/** The numbers that are no counters: those of `stats` are what an engine says. */
void script_stats (const DpStats * stats);

/** Moves the clock to `time`, with a stop at the end of each wait on the way.
 *  Returns when the element waits for something later. */
void script_advance (GstClockTime time);
/** The same in one leap, which is what every wait on the way sees. */
void script_jump (GstClockTime time);
/** Moves it to the end of the next wait, and does not wait for another: there may
 *  be none. */
void script_step (void);

/** Waits until the messages are on the bus that the element had for it so far. */
void script_posted (void);

/** How many engines opened, and how often dp_engine_mark() said this. */
guint script_opened (void);
guint script_marked (const gchar * what);
