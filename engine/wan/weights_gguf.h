/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * weights_gguf.h: the tensors in a GGUF file, version 2 or 3: metadata, a description of each tensor, and the data.
 *
 * Of the metadata, only the architecture, the alignment and the shapes that ComfyUI's converter notes (comfy.gguf.orig_shape.NAME) are read.
 */
#pragma once

#include "weights_file.h"

/** Dimensions are in the order of PyTorch, which is not the file's. All of the file is checked before the first tensor is told: types,
 *  offsets, alignment, no overlap and no hole. */
DpTensorList dp_gguf_list;
