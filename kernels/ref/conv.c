/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: T frames of h x w pixels of C channels.
 */
#include "ref.h"

struct DpConv
{
  DpConvSpec spec;              /* its host pointers are not used after packing */
  float *weights;               /* [co, ci, kt, kh, kw], rounded to type */
  float *biases;                /* [co] */
};

DpConv *
conv_new_ref (DpDevice *dev, const DpConvSpec *spec)
{
  size_t n = (size_t) spec->co * spec->ci * spec->kt * spec->kh * spec->kw;
  DpConv *conv = dp_host_memory_new (dev, sizeof *conv);

  dev->allocations++;
  if (conv == NULL)
    return NULL;
  *conv = (DpConv) {
    .spec = *spec,
    .weights = dp_host_memory_new (dev, n * sizeof (float)),
    .biases = dp_host_memory_new (dev, spec->co * sizeof (float)),
  };
  if (conv->biases != NULL)
    memset (conv->biases, 0, spec->co * sizeof (float));
  if (conv->weights == NULL || conv->biases == NULL || !dp_weight_to_f32 (dev, &spec->weight, 0, n, spec->type, conv->weights)
      || (dp_weight_exists (&spec->bias) && !dp_weight_to_f32 (dev, &spec->bias, 0, spec->co, DP_TYPE_F32, conv->biases))) {
    conv_free_ref (dev, conv);
    return NULL;
  }
  return conv;
}

void
conv_free_ref (DpDevice *dev, DpConv *conv)
{
  if (conv == NULL)
    return;
  dp_host_memory_free (dev, conv->weights);
  dp_host_memory_free (dev, conv->biases);
  dp_host_memory_free (dev, conv);
}

/* The sum over the neighbourhood of pixel (t, y, x) for output channel o. */
static double
convolve (const DpConv *conv, const DpConvArgs *args, int t, int y, int x, int o)
{
  const DpConvSpec *s = &conv->spec;
  const int taps = s->kt * s->kh * s->kw;
  double sum = conv->biases[o];

  for (int a = 0; a < s->kt; a++)
    for (int b = 0; b < s->kh; b++)
      for (int c = 0; c < s->kw; c++) {
        int yy = y + b - s->kh / 2, xx = x + c - s->kw / 2;

        if (yy < 0 || yy >= args->h || xx < 0 || xx >= args->w)
          continue;

        /* Once a pixel: sanitizers check every step of an index */
        const size_t at = ((((size_t) t + a) * args->h + yy) * args->w + xx) * s->ci;
        const float *weight = &conv->weights[(((size_t) o * s->ci * s->kt + a) * s->kh + b) * s->kw + c];

        for (int i = 0; i < s->ci; i++, weight += taps)
          sum += (double) dp_load (s->type, args->x, at + i) * *weight;
      }
  return sum;
}

void
conv_ref (DpDevice *dev, DpConv *conv, const DpConvArgs *args)
{
  const DpConvSpec *s = &conv->spec;

  for (int t = 0; t < args->t - s->kt + 1; t++)
    for (int y = 0; y < args->h && !dp_device_cancelled (dev); y++)
      for (int x = 0; x < args->w; x++)
        for (int o = 0; o < s->co; o++) {
          size_t at = (((size_t) t * args->h + y) * args->w + x) * s->co + o;
          double sum = convolve (conv, args, t, y, x, o);

          if (args->add)
            sum += dp_load (s->type, args->add, at);
          dp_store (s->type, args->y, at, sum);
        }
}
