/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * element.h: what the element's suites share. They run the embedded model, made
 * fast by size and settings and not by replacing it: a frame of 32x32 goes
 * through all the code that a frame of 1280x720 does.
 */
#pragma once

#include <gst/check/check.h>
#include <gst/check/gstharness.h>
#include <gst/video/video.h>

#include "../clock.h"

#define FAST "steps=1 guidance-scale=1 block-latents=1 context-latents=-1 "
#define SMALL "video/x-raw, width=32, height=32"
/* One pass takes seconds and none is ever done: for what must be interrupted */
#define SLOW "steps=50 guidance-scale=5 block-latents=16 context-latents=-1 "
#define SLOW_SIZE "video/x-raw, width=512, height=512"

/** What gst_parse_launch() makes of a printf format. What a test that failed
 *  leaves running is stopped by the fixture of a case from test_case_new(). */
GstElement *launch (const gchar * format, ...) G_GNUC_PRINTF (1, 2);
TCase *test_case_new (Suite * suite);
/** The same with another fixture around that one. */
TCase *test_case_new_with (Suite * suite, SFun setup, SFun teardown);

/** dualparalsrc with the properties of a launch line. */
GstElement *source_new (const gchar * properties);

/** A harness around source_new(); `caps` is what downstream takes. */
GstHarness *source_harness (const gchar * properties, const gchar * caps);

/** The next message of these types; none within that time: NULL. The warning that SMALL is no size
 *  of the embedded model does not count, here and below; a test of its own looks at it. */
GstMessage *pop_message (GstBus * bus, GstMessageType types,
    GstClockTime timeout);
/** The next message of these types, or fails after `seconds`, times slowness. */
GstMessage *wait_message (GstElement * pipeline, GstMessageType types,
    guint seconds);
/** The next message of a property `stats-interval`, so that time has passed. */
void wait_stats (GstElement * pipeline);
/** Waits until loading has come to that. */
void wait_progress (GstElement * pipeline, GstProgressType type);
/** Waits for an error and asserts on its kind; the message must say something. */
void assert_error (GstElement * pipeline, GQuark domain, gint code);

/** A source with these properties and downstream that takes `caps` come to no
 *  terms, and an error says so. */
void assert_not_negotiated (const gchar * properties, const gchar * caps);

/** Counts the buffers that a sink with signal-handoffs takes. Thread-safety: all of
 *  its functions. */
typedef struct
{
  GMutex lock;
  GCond cond;
  guint frames;
} Counter;

void counter_init (Counter * counter, GstElement * sink);
void counter_clear (Counter * counter);
/** Waits until there were so many. */
void counter_wait (Counter * counter, guint frames);

/** How much slower than usual things may be: check's own CK_TIMEOUT_MULTIPLIER. */
guint slowness (void);

/** A whole number in the property `stats`. */
guint64 stat_of (GstElement * src, const gchar * field);
/** And a number with a fraction. */
gdouble stat_double (GstElement * src, const gchar * field);

/** Seconds since `start_us` of g_get_monotonic_time(). */
gdouble seconds_since (gint64 start_us);

/** Checksums of pixels, whatever their strides: of a buffer, of the next n. */
gchar *checksum_buffer (GstHarness * h, GstBuffer * buffer);
gchar *checksum_frames (GstHarness * h, guint n);
