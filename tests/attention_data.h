/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * attention_data.h: queries, keys and values with structure, for tests and benches.
 *
 * Independent normal numbers hide errors: attention's result is a mean of noise, small beside its addends. So there are kinds with
 * structure. `values` have a constant a channel, up to 3 times the noise; `keys` likewise. In `groups` each key is one of thirty, and a
 * query looks for one of them, as patches of a picture do. `outliers` have a few channels that are ten times as large.
 */
#pragma once

#include <glib.h>

typedef enum { DATA_NORMAL, DATA_VALUES, DATA_KEYS, DATA_GROUPS, DATA_OUTLIERS, DATA_KINDS } AttentionData;

extern const char *const attention_data_names[DATA_KINDS];

/** Normal numbers that all kinds are made of, 16 MiB; a g_free() frees them. */
float *attention_data_pool (guint64 seed);

/** The number at a row and column of a part, 0: q, 1: k, 2: v, which are `width` wide, at most a million. */
float attention_data_number (const float *pool, AttentionData kind, int width, int row, int part, int column);

/** Whether a column is one of the large ones of `outliers`. */
gboolean attention_data_is_outlier (int column);
