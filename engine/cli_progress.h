/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cli_progress.h: a line on standard error that says how far a video is, where that is a terminal.
 * Where it is not, nothing here writes anything.
 *
 * One at a time. Thread-safety: any thread may report loading; the rest is for the thread that pulls.
 */
#pragma once

#include "dualparal.h"
#include "plan.h"

/** Starts it for the video of `plan`, which is borrowed until the end. */
void dp_cli_progress_start (const DpPlan *plan);

/** A DpProgress: shows how much of the model is loaded, until the first frames are told. */
void dp_cli_progress_loading (const char *code, const char *text, int percent, gpointer user_data);

/** Microseconds after which the line should be told of frames again; -1: never, as it is not shown. */
gint64 dp_cli_progress_interval (void);

/** Shows what the engine has made: frames, blocks, frames a second, time left. Cheap: most calls do nothing. */
void dp_cli_progress_frames (DpEngine *engine);

/** Ends it: the line stays, brought up to date, if `engine` is given, and is gone if it is NULL. */
void dp_cli_progress_end (DpEngine *engine);
