/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * part_cache.h: loaded parts of models that are not in use, kept for the next engine that wants the same.
 *
 * To load is what takes long: weights are read, packed and brought to a device. A *part* is what a thread of the engine loads for itself: a
 * stage's layers, the video decoder, the text encoder, each with its device. Its key says all that it was made from. When its engine is
 * freed, the part may stay for a while, and an engine opened then that has a part with the same key to load finds it done. Which other
 * parts it needs does not matter: another prompt, seed or framerate finds all of them, another size the text encoder.
 *
 * One process has one such store. Loading anything first empties it, so the store never causes an out-of-memory error.
 */
#pragma once

#include <glib.h>
#include "wan/weights.h"
#include "kernels/device.h"

typedef struct _DpPart DpPart;

/** What each kind of part begins with. Its owner fills in what comes behind, then calls dp_part_cache_loaded(). */
struct _DpPart
{
  GString *key;
  void (*free_part) (DpPart *part);     /* frees what comes behind, so far as it is there; not the device */
  DpDevice *dev;
  gboolean loaded;
  gint64 until_us;              /* the store's */
};

/** For keys: which files a directory has, or that of these weights, and that none has changed since; and numbers, without padding between
 *  them. */
void dp_part_cache_key_add_dir (GString *key, const char *path);
void dp_part_cache_key_add_weights (GString *key, const DpWeights *weights);
void dp_part_cache_key_add_numbers (GString *key, gconstpointer numbers, gsize bytes);

/** Between these two an engine takes its parts; dp_part_cache_open_device() waits meanwhile. */
void dp_part_cache_begin (void);
void dp_part_cache_end (void);

/** The part of `size` bytes that has this key (takes it): loaded, or zeroed and to be loaded. Between begin and end. */
gpointer dp_part_cache_take (gsize size, GString *key, void (*free_part) (DpPart *part));

/** Opens the device of a part that is about to be loaded, and frees what the store holds before. FALSE with DP_ERROR_DEVICE. */
gboolean dp_part_cache_open_device (DpPart *part, const char *device, int threads, GError **error);

/** All of it is there. Not if its device was cancelled meanwhile: then what was packed or uploaded last may not be. */
void dp_part_cache_loaded (DpPart *part);

/** Done with it: keeps it for so many seconds, if it is loaded and its device has no failure, else frees it. NULL is fine. Nobody may be
 *  using the device any more. */
void dp_part_cache_give (DpPart *part, int seconds);

/** Bytes that parts in the store hold on a device. */
gsize dp_part_cache_bytes (const char *device);

/** Frees all that is in the store, or waits for another thread that does: then the memory is there. */
void dp_part_cache_clear (void);
