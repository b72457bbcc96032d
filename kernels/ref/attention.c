/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: q_len queries, kv_len keys, H heads of d channels.
 */
#include "ref.h"

#include <stdlib.h>

static double
logit (const DpAttentionArgs *args, int head, int i, int j)
{
  size_t q = (size_t) i * args->q_stride + head * args->head_dim, k = (size_t) j * args->k_stride + head * args->head_dim;
  double sum = 0;

  for (int c = 0; c < args->head_dim; c++)
    sum += (double) dp_load (args->type, args->q, q + c) * dp_load (args->type, args->k, k + c);
  sum *= args->scale;
  if (args->rel_bias)
    sum += args->rel_bias[(size_t) head * (2 * args->kv_len - 1) + j - i + args->kv_len - 1];
  if (j == args->kv_len - 1)
    sum += args->last_key_bias;
  return sum;
}

/* out[i] = sum over j of softmax (logits)[j] * v[j], for one query of one head. */
static void
attend (const DpAttentionArgs *args, int head, int i, double *p)
{
  double max = -INFINITY, total = 0;

  for (int j = 0; j < args->kv_len; j++) {
    p[j] = logit (args, head, i, j);
    max = fmax (max, p[j]);
  }
  for (int j = 0; j < args->kv_len; j++)
    total += p[j] = exp (p[j] - max);
  for (int c = 0; c < args->head_dim; c++) {
    double sum = 0;

    for (int j = 0; j < args->kv_len; j++)
      sum += p[j] * dp_load (args->type, args->v, (size_t) j * args->v_stride + head * args->head_dim + c);
    dp_store (args->type, args->out, (size_t) i * args->out_stride + head * args->head_dim + c, sum / total);
  }
}

void
attention_ref (DpDevice *dev, const DpAttentionArgs *given)
{
  DpAttentionArgs args = *given;
  int width = args.heads * args.head_dim;
  double *p = malloc (args.kv_len * sizeof *p);

  assert (args.rel_bias == NULL || args.q_len == args.kv_len);
  if (p == NULL) {
    dp_device_fail_memory (dev, "attention: not enough memory for %d keys", args.kv_len);
    return;
  }
  args.q_stride = args.q_stride ? args.q_stride : width;
  args.k_stride = args.k_stride ? args.k_stride : width;
  args.v_stride = args.v_stride ? args.v_stride : width;
  args.out_stride = args.out_stride ? args.out_stride : width;
  for (int head = 0; head < args.heads; head++)
    for (int i = 0; i < args.q_len && !dp_device_cancelled (dev); i++)
      attend (&args, head, i, p);
  free (p);
}
