/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * console.h: what the programs here have in common, a person at a terminal.
 * Arguments are properties of dualparalsrc, each line of standard input is a
 * prompt, and messages of the pipeline that matter to a person become lines of
 * standard error, which begin with g_get_prgname().
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/** A line of standard error, of at most 500 characters, that does not command a
 *  terminal. Any thread. */
void console_say (const gchar * format, ...) G_GNUC_PRINTF (1, 2);
/** The same for what others can cause: at most five lines a second after the first
 *  twenty. The next one says how many were left out. Any thread. */
void console_say_limited (const gchar * format, ...) G_GNUC_PRINTF (1, 2);
/** Says what the message is about: loading, which prompt is shown, a warning, an
 *  error. Other messages are nothing. Any thread. */
void console_message (GstMessage * message);

/** Options and GStreamer's own, of a program that does `what`, a sentence for --help.
 *  FALSE with G_OPTION_ERROR, which also says where the options are listed. */
gboolean console_parse (const gchar * what, const GOptionEntry * options, gint argc,
    gchar ** argv, GError ** error);
/** Raw video of `size`, "WIDTHxHEIGHT" in pixels, and `framerate`, "N" or "N/D" a
 *  second; NULL leaves either open. NULL with G_OPTION_ERROR_BAD_VALUE that names
 *  the option if they are something else. */
GstCaps *console_caps (const gchar * size, const gchar * framerate,
    GError ** error);
/** Sets these, and a key frame every `key_seconds`, in a pipeline with a capsfilter named
 *  "format" and an x264enc named "encoder". `bitrate` is in kbit a second.
 *  G_OPTION_ERROR_BAD_VALUE names the option that is something else. */
gboolean console_set_format (GstElement * pipeline, const gchar * size,
    const gchar * framerate, gint bitrate, gint key_seconds, GError ** error);
/** `settings`: PROPERTY=VALUE, as gst-launch-1.0 takes them, in UTF-8 whatever the
 *  locale (G_OPTION_ARG_FILENAME does not convert them); NULL ends them.
 *  G_OPTION_ERROR_BAD_VALUE names the first that cannot be. */
gboolean console_set_properties (GstElement * source, gchar ** settings,
    GError ** error);
/** As soon as can be. FALSE when it was refused; a warning message says why. Any
 *  thread. */
gboolean console_set_prompt (GstElement * source, const gchar * prompt);
/** From now on the lines of standard input are prompts, until it ends or turns out
 *  not to be text. Lines of more than 16 KiB are reported and left out. Needs a
 *  default main loop that runs; returns at once. */
void console_read_prompts (GstElement * source);

G_END_DECLS
