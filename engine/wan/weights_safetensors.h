/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * weights_safetensors.h: the tensors in a .safetensors file: the length of a header, the header, which is json, and the data.
 */
#pragma once

#include "weights_file.h"

/** Also lists types that this code has not heard of. Checks that the data leaves no hole and no overlap. */
DpTensorList dp_safetensors_list;
