/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "noise.h"

#include <math.h>

/* The pool's permutations draw from a stream no one else uses. */
#define PERMUTATIONS G_MAXUINT64

struct _DpNoisePool
{
  guint64 seed;
  gint64 block;
  int own, context;
  int *frames, *scratch;        /* [own + context] */
};

/* Philox 4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"). */
static void
philox (guint64 seed, guint64 stream, guint64 index, guint32 out[4])
{
  guint32 c0 = index, c1 = index >> 32, c2 = stream, c3 = stream >> 32, k0 = seed, k1 = seed >> 32;

  for (int round = 0; round < 10; round++) {
    guint64 a = (guint64) 0xD2511F53u * c0, b = (guint64) 0xCD9E8D57u * c2;

    c0 = (guint32) (b >> 32) ^ c1 ^ k0;
    c1 = b;
    c2 = (guint32) (a >> 32) ^ c3 ^ k1;
    c3 = a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/* Four normal numbers from one counter. */
static void
normals (guint64 seed, guint64 stream, guint64 index, float out[4])
{
  guint32 bits[4];

  philox (seed, stream, index, bits);
  for (int i = 0; i < 4; i += 2) {
    double radius = sqrt (-2.0 * log ((bits[i] + 0.5) * 0x1p-32)), angle = 2.0 * G_PI * bits[i + 1] * 0x1p-32;

    out[i] = radius * cos (angle);
    out[i + 1] = radius * sin (angle);
  }
}

void
dp_noise_fill (guint64 seed, guint64 stream, guint64 first, gsize n, float *out)
{
  float four[4];

  for (gsize i = 0; i < n; i++) {
    guint64 at = first + i;

    if (i == 0 || at % 4 == 0)
      normals (seed, stream, at / 4, four);
    out[i] = four[at % 4];
  }
}

DpNoisePool *
dp_noise_pool_new (guint64 seed, int block_latents, int context_latents)
{
  DpNoisePool *pool = g_new0 (DpNoisePool, 1);

  g_assert (block_latents > 0 && context_latents >= 0);
  pool->seed = seed;
  pool->own = block_latents;
  pool->context = context_latents;
  pool->frames = g_new (int, block_latents + context_latents);
  pool->scratch = g_new (int, block_latents + context_latents);
  for (int i = 0; i < block_latents + context_latents; i++)
    pool->frames[i] = i;
  return pool;
}

void
dp_noise_pool_free (DpNoisePool *pool)
{
  if (pool == NULL)
    return;
  g_free (pool->frames);
  g_free (pool->scratch);
  g_free (pool);
}

/* A fair number below n, from draw number *draw of this block on. */
static int
draw_below (const DpNoisePool *pool, guint *draw, guint32 n)
{
  guint32 bits[4], fair = G_MAXUINT32 - G_MAXUINT32 % n;        /* a multiple of n */

  do
    philox (pool->seed, PERMUTATIONS, (guint64) pool->block << 20 | (*draw)++, bits);
  while (bits[0] >= fair);
  return bits[0] % n;
}

int
dp_noise_pool_next (DpNoisePool *pool, int *frames)
{
  int n = pool->own + pool->context, skip = pool->block ? pool->context : 0;
  guint draw = 0;

  for (int i = 0; i < n; i++)
    pool->scratch[i] = pool->frames[(i + pool->own) % n];       /* the last C come to the front */
  for (int i = pool->own - 1; i > 0; i--) {
    int j = draw_below (pool, &draw, i + 1), *rest = pool->scratch + pool->context, swap = rest[i];

    rest[i] = rest[j];
    rest[j] = swap;
  }
  for (int i = 0; i < n; i++)
    pool->frames[i] = pool->scratch[i];
  for (int i = skip; i < n; i++)
    frames[i - skip] = pool->frames[i];
  pool->block++;
  return n - skip;
}
