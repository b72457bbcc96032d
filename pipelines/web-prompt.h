/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * web-prompt.h: what a request for a prompt says, as text or as JSON.
 */
#pragma once

#include <libsoup/soup.h>

G_BEGIN_DECLS

/** Thread-safety: plain data. */
typedef struct
{
  gchar *prompt, *negative_prompt;      /* NULL: none */
  gint64 at_frame;              /* -1: as soon as can be */
  gint64 transition_blocks;
  gint low;                     /* whether prompt-latency is low; -1: as it is */
  gboolean restart;             /* always with a seed, never with a frame */
  gboolean has_seed;
  gint64 seed;
} Prompt;

/** What there is to do, or NULL after the message was answered with what is wrong. */
Prompt *prompt_parse (SoupServerMessage * msg);
void prompt_free (Prompt * prompt);

G_END_DECLS
