/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block.h"
#include "wan/device_error.h"

int
dp_block_told_step (int step, int first_step)
{
  return step == first_step ? 0 : step;
}

void
dp_block_fail (DpBlock *b, GError *error)
{
  if (b->header.error == 0) {
    char *end;

    b->header.error = 1 + error->code;
    g_strlcpy (b->error, error->message, sizeof b->error);
    if (!g_utf8_validate (b->error, -1, (const char **) &end))
      *end = 0;                 /* cut within a character */
  }
  g_error_free (error);
}

GError *
dp_block_error (const DpBlock *b)
{
  return g_error_new_literal (DP_ERROR, b->header.error - 1, b->error);
}

gboolean
dp_block_pool_open (DpBlockPool *pool, DpDevice *dev, const DpBlockSize *size, int n, GError **error)
{
  const DpOps *ops = dev->ops;
  gsize latents = sizeof (float) * size->frames * size->latents, tokens = sizeof (float) * size->frames * size->tokens;

  *pool = (DpBlockPool) { .dev = dev, .blocks = g_new0 (DpBlock, n), .idle = g_new0 (DpBlock *, n), .n_blocks = n };
  for (int i = 0; i < n; i++) {
    DpBlock *b = &pool->blocks[i];

    b->latents = ops->alloc (dev, latents);
    b->tokens = ops->alloc (dev, tokens);
    b->computed = ops->mark_new (dev);
    if (b->latents == NULL || b->tokens == NULL || b->computed == NULL) {
      dp_error_no_room (dev, error, latents + tokens, "use more devices, or a smaller width, height "
          "or block-latents", "a block on its way");
      dp_block_pool_close (pool);
      return FALSE;
    }
    dp_block_pool_give (pool, b);
  }
  return TRUE;
}

void
dp_block_pool_close (DpBlockPool *pool)
{
  for (int i = 0; i < pool->n_blocks; i++) {
    DpBlock *b = &pool->blocks[i];

    pool->dev->ops->free (pool->dev, b->latents);
    pool->dev->ops->free (pool->dev, b->tokens);
    pool->dev->ops->mark_free (pool->dev, b->computed);
  }
  g_free (pool->blocks);
  g_free (pool->idle);
  *pool = (DpBlockPool) { 0 };
}

DpBlock *
dp_block_pool_take (DpBlockPool *pool)
{
  return pool->n_idle > 0 ? pool->idle[--pool->n_idle] : NULL;
}

void
dp_block_pool_give (DpBlockPool *pool, DpBlock *b)
{
  g_assert (pool->n_idle < pool->n_blocks);
  b->header.error = 0;
  pool->idle[pool->n_idle++] = b;
}
