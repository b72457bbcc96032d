/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * weights.h: files of weights, open for reading: safetensors, PyTorch's and GGUF.
 *
 * A DpWeights is one or several .safetensors files (a sharded model with its index.json) seen as one set of named tensors, or one zip file
 * of torch.save(), see weights_torch.h, or a GGUF file, see weights_gguf.h. The header is checked completely before anything is handed out:
 * sizes, offsets, overlaps, types. A file that is cut off or lies about itself is refused with one sentence: file, tensor, expected, found.
 *
 * Quantised tensors are float32 for the caller: they are unpacked while they are read. fp8 weights have their scales in other tensors,
 * named BASE.scale_weight or BASE.weight_scale for BASE.weight: one for the tensor or one for each row. If any matrix has them, or
 * ComfyUI's mark scaled_fp8 is there, all in fp8 must. Those are not tensors of the set, nor are the scales of activations beside them.
 *
 * Tensors are read when they are wanted and never mapped: a mapped file that becomes shorter ends the process. A file that is written to
 * while it is open is noticed, by its size and its time of modification: whether the bytes are others could only be told by reading all of
 * them, so touching it counts. A file that is replaced by another is read to its end as it was.
 */
#pragma once

#include <glib.h>
#include "kernels/ops.h"
#include "quantized.h"

#define DP_TENSOR_MAX_DIMS 8

/** What is added to a tensor of `columns` numbers a row: scale * up . down; or with rank 0 scale * up, which has the tensor's size. */
typedef struct _DpDelta
{
  struct _DpDelta *next;
  int rank;
  gsize columns;
  float scale;
  float *up, *down;             /* [rows, rank], [rank, columns] */
} DpDelta;

void dp_delta_free (DpDelta *delta);

/** Valid while its DpWeights lives. */
typedef struct
{
  const char *name;
  DpType type;
  int n_dims;
  gint64 dims[DP_TENSOR_MAX_DIMS];
  gsize bytes;                  /* of its elements as `type` */

  /* -- for weights.c -- */
  const void *file;             /* that it lies in */
  guint64 offset;               /* of its first byte in that file */
  const DpQuantized *quantized; /* how it lies there, if not as `type`; or NULL */
  const float *scales;          /* of an fp8 tensor, or NULL */
  gsize per_scale;              /* elements, one after the other, that have one scale */
  DpType stored;                /* the type in the file of one that is not quantised */
  DpDelta *deltas;              /* what is added, or NULL; then `type` is float32 */
} DpTensor;

/* Thread-safety: immutable after open, so readable from any thread; dp_weights_watch() is the exception. */
typedef struct _DpWeights DpWeights;

/** Opens `dir`/`stem`.safetensors, or the shards named by `dir`/`stem`.safetensors.index.json, or `dir`/`stem`.gguf, .pth or
 *  .pt. With stem NULL, `dir` is a file.
 *  Accepts F32, BF16, F16 and fp8 tensors and those of GGUF (others are listed but cannot be got).
 *  Errors: DP_ERROR_NOT_FOUND, DP_ERROR_BAD_MODEL, DP_ERROR_FAILED, DP_ERROR_NO_MEMORY. */
DpWeights *dp_weights_open (const char *dir, const char *stem, GError **error);

/** Whether a file begins as one of weights does, whatever it is called. */
gboolean dp_weights_are_in (const char *path);

/** Whether a file of this name in a part's directory may hold weights. */
gboolean dp_weights_is_named (const char *name);
void dp_weights_free (DpWeights *weights);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (DpWeights, dp_weights_free)

/** Bytes in the files of the tensors whose names begin with `prefix`. */
gsize dp_weights_bytes (const DpWeights *weights, const char *prefix);

/** From now on `read` is called for what is read of any tensor, on the thread that reads; NULL: not any more. While nothing is read. */
void dp_weights_watch (DpWeights *weights, void (*read) (gsize bytes, gpointer user_data), gpointer user_data);

/** The path it was opened from, for messages. */
const char *dp_weights_path (const DpWeights *weights);

/** The tensor of that name, or NULL without an error. */
const DpTensor *dp_weights_find (const DpWeights *weights, const char *name);

/** Gives every tensor the name that `rename` makes of its own, a new string. After weights were renamed, only these names count, but in
 *  what dp_weights_stored_name() says. Before any tensor is looked up. FALSE with DP_ERROR_BAD_MODEL when two would have the same; the weights
 *  can only be freed then. */
gboolean dp_weights_rename (DpWeights *weights, char *(*rename) (const char *name, gpointer user_data), gpointer user_data,
    GError **error);

/** Calls `each` for every tensor that can be got. */
void dp_weights_each (const DpWeights *weights, void (*each) (const DpTensor *tensor, gpointer user_data), gpointer user_data);

/** From now on this is added to a tensor, and freed with the weights. Before it is read. */
void dp_weights_add_delta (DpWeights *weights, const DpTensor *tensor, DpDelta *delta);
/** Remembers that a file changed these weights, so that they are not taken for others. */
void dp_weights_note_change (DpWeights *weights, const char *path, double strength);
/** All that changed them, as text; "" for nothing. */
const char *dp_weights_changes (const DpWeights *weights);

/** What a tensor is called in its file. */
const char *dp_weights_stored_name (const DpWeights *weights, const char *name);

/** The first name, in the alphabet's order, of a tensor of any type that is not `known`; NULL if there is none. */
const char *dp_weights_find_unknown (const DpWeights *weights, gboolean (*known) (const char *name, gpointer user_data), gpointer user_data);

/** The tensor named by the printf-style `format`, checked to have the given shape (n_dims values in dims).
 *  NULL with DP_ERROR_NOT_FOUND (missing) or DP_ERROR_BAD_MODEL (shape or type): file, tensor, expected, found. */
const DpTensor *dp_weights_get (const DpWeights *weights, GError **error, int n_dims, const gint64 *dims, const char *format, ...)
    G_GNUC_PRINTF (5, 6);

/** Whether all files still are as they were when they were opened: FALSE with DP_ERROR_BAD_MODEL that names the one that is not.
 *  Call it after a device has packed, which cannot tell a changed file from a good one. */
gboolean dp_weights_check_unchanged (const DpWeights *weights, GError **error);

/** Elements [first, first + n) of a tensor as float32. FALSE with DP_ERROR_BAD_MODEL (the file is not what it was) or DP_ERROR_FAILED. */
gboolean dp_weights_read (const DpWeights *weights, const DpTensor *tensor, gsize first, gsize n, float *out, GError **error);

/** All of a tensor as float32. FALSE with DP_ERROR_BAD_MODEL that names file and tensor also where a number is NaN or infinite. */
gboolean dp_weights_read_finite (const DpWeights *weights, const DpTensor *tensor, float *out, GError **error);

/** The same check without keeping the numbers: says why a device refused to pack a tensor. */
gboolean dp_weights_check_finite (const DpWeights *weights, const DpTensor *tensor, GError **error);

/** The tensor as something to pack: `rows` output features, read while it is packed. */
DpHostWeight dp_tensor_weight (const DpTensor *tensor, int rows);
