/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * weights_safetensors.h: the tensors in a .safetensors file: the length of a header, the header, which is json, and the data.
 */
#pragma once

#include "weights_file.h"

/** Calls `found` for each tensor of the file, also of types that this code has not heard of. Then checks that the data leaves no hole and
 *  no overlap. FALSE where `found` is, or with DP_ERROR_BAD_MODEL or DP_ERROR_NO_MEMORY. */
gboolean dp_safetensors_list (const DpWeightsFile *file, DpTensorFound *found, gpointer user_data, GError **error);
