/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * weights_torch.h: the tensors in a file that torch.save() wrote (.pth, .pt): a zip archive with a pickle, which describes the tensors, and
 * a stored member for each storage.
 *
 * A pickle is a program that may call anything. The one here can only make dicts, lists, numbers, strings and tensors: a name of anything
 * else is refused before it is called.
 */
#pragma once

#include "weights_file.h"

/** Two tensors may share bytes. The tensors are those of the outermost dict or, if it has none, of the one dict in it that has tensors; of
 *  several, of `generator_ema`, else `generator`. */
DpTensorList dp_torch_list;
