/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * noise.h: Gaussian noise that depends on (seed, index) only, and DualParal's coordinated pool of it.
 *
 * Counter-based (Philox 4x32-10, Box-Muller in float64 rounded to float32): any stage on any host can derive any element.
 * The pool holds B + C latent frames. A new block is built from the same patterns in an order that never puts a
 * latent's noise next to itself within the context window (dualparal paper, section 3.3; "coordinated noise initialisation").
 */
#pragma once

#include <glib.h>

/** out[i] = standard normal number of (seed, stream, first + i). Streams are independent. */
void dp_noise_fill (guint64 seed, guint64 stream, guint64 first, gsize n, float *out);

/** Which pool frame each latent of a block starts from. Thread-safety: one thread at a time. */
typedef struct _DpNoisePool DpNoisePool;

/** A pool of block + context frames. */
DpNoisePool *dp_noise_pool_new (guint64 seed, int block_latents, int context_latents);
void dp_noise_pool_free (DpNoisePool *pool);

/** Pool frames of the next block (the first call: block 0) into frames[]; returns how many: B + C for block 0, then B. */
int dp_noise_pool_next (DpNoisePool *pool, int *frames);
