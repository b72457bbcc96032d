/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "attention_data.h"
#include "engine/noise.h"

#define POOL 4194301            /* numbers */
#define THIRD (POOL / 3)        /* of it: where a part's rows begin, anywhere */
#define N_GROUPS 30

const char *const attention_data_names[DATA_KINDS] = { "normal", "values", "keys", "groups", "outliers" };

static guint32
hash (guint32 x)
{
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  return x ^ x >> 16;
}

float *
attention_data_pool (guint64 seed)
{
  float *pool = g_new (float, POOL);

  dp_noise_fill (seed, 0, 0, POOL, pool);
  return pool;
}

gboolean
attention_data_is_outlier (int column)
{
  return hash (column + 5) % 48 == 0;
}

float
attention_data_number (const float *pool, AttentionData kind, int width, int row, int part, int column)
{
  /* From a third of its own: a query that met its own numbers among 37,440 keys would see nothing else */
  float x = pool[part * THIRD + hash (3 * row + part) % (THIRD - width) + column];

  if ((part == 2 && kind == DATA_VALUES) || (part == 1 && kind == DATA_KEYS))
    return x + 3 * (2 * (hash (column + 77) / 4294967296.0f) - 1);
  if (part < 2 && kind == DATA_GROUPS)
    return 1.6f * pool[hash (900 + row % N_GROUPS) % (POOL - width) + column] + 0.1f * x;
  return kind == DATA_OUTLIERS && attention_data_is_outlier (column) ? 10 * x : x;
}
