/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * dualparal_testing.h: what only the tests and the program `dualparal` may use of the engine, beside
 * dualparal.h. It counts in blocks and iterations, and shows what is inside. The element may not
 * include it.
 */
#pragma once

#include "dualparal.h"

G_BEGIN_DECLS

/** Called from the decoder thread for each finished block, before its frames are decoded, with the
 *  latents as they left the sampler: [n_latents, h, w, C] float32, normalised. */
typedef void (*DpLatentsCallback) (const float *latents, int n_latents, int h, int w, int channels, gpointer user_data);

/** Set before the first pull. */
void dp_engine_set_latents_callback (DpEngine *engine, DpLatentsCallback callback, gpointer user_data);

/** Queues a prompt for frame -1 with which blocks in flight restart in `iteration` (> 0). That
 *  iteration waits for the encoding, so that a run can be repeated: DpFrame.replanned_at says which
 *  iteration it was. Otherwise like dp_engine_queue_prompt(). */
gboolean dp_engine_queue_prompt_in (DpEngine *engine, const DpPrompt *prompt, gint64 iteration, GError **error);

/** The first frame of a block, as DpFrame numbers them. Thread-safe. */
gint64 dp_engine_first_frame (const DpEngine *engine, gint64 block);

/** The embeddings of the first prompt and its negative, [text_length, text_dim] each, zero past the
 *  real length. Blocks until they are there. Returns new float arrays. */
gboolean dp_engine_prompt_embeds (DpEngine *engine, float **prompt, float **negative, int *length, int *dim, GError **error);

G_END_DECLS
