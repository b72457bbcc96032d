/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: T frames of h x w pixels of C channels.
 */
#include "ref.h"

void
upsample_ref (DpDevice *dev, const DpUpsampleArgs *args)
{
  int h = args->h, w = args->w, c = args->channels, frames = args->temporal ? 2 : 1;

  for (int t = 0; t < args->t * frames; t++)
    for (int y = 0; y < 2 * h; y++)
      for (int x = 0; x < 2 * w; x++)
        for (int i = 0; i < c; i++) {
          size_t from = ((((size_t) t / frames) * h + y / 2) * w + x / 2) * c * frames + (t % frames) * c + i;
          size_t to = (((size_t) t * 2 * h + y) * 2 * w + x) * c + i;

          dp_store (args->type, args->y, to, dp_load (args->type, args->x, from));
        }
}

void
pixel_shuffle_ref (DpDevice *dev, const DpPixelShuffleArgs *args)
{
  int frames = args->frames, repeats = 4 * frames * args->co / args->ci;

  assert (4 * frames * args->co % args->ci == 0 && args->skip < frames);
  for (int t = args->skip; t < args->t * frames; t++)
    for (int y = 0; y < 2 * args->h; y++)
      for (int x = 0; x < 2 * args->w; x++)
        for (int o = 0; o < args->co; o++) {
          int place = args->transposed ? x % 2 * 2 + y % 2 : y % 2 * 2 + x % 2;
          size_t pixel = ((size_t) t / frames * args->h + y / 2) * args->w + x / 2;
          size_t from = pixel * args->ci + ((o * frames + t % frames) * 4 + place) / repeats;
          size_t to = (((size_t) (t - args->skip) * 2 * args->h + y) * 2 * args->w + x) * args->co + o;

          dp_store (args->type, args->y, to, dp_load (args->type, args->x, from));
        }
}

/* Channel i of pixel (x, y) in 0..1; what is not a number is black. */
static double
level (const DpPackFrameArgs *args, int y, int x, int i)
{
  double v = (dp_load (args->type, args->x, ((size_t) y * args->x_stride + x) * 3 + i) + 1) / 2;

  return v > 0 ? fmin (v, 1) : 0;
}

static uint8_t
byte (double v)
{
  return floor (v + 0.5);
}

static uint8_t *
row (const DpPackFrameArgs *args, int plane, int y)
{
  return (uint8_t *) args->planes[plane] + (ptrdiff_t) y * args->strides[plane];
}

/* ITU-R BT.709, limited range: luma 16..235, chroma 16..240. */
static void
pack_yuv (const DpPackFrameArgs *args)
{
  for (int y = 0; y < args->h; y++)
    for (int x = 0; x < args->w; x++)
      row (args, 0, y)[x] = byte (16 + 219 * (0.2126 * level (args, y, x, 0) + 0.7152 * level (args, y, x, 1)
              + 0.0722 * level (args, y, x, 2)));
  for (int y = 0; y < args->h; y += 2)
    for (int x = 0; x < args->w; x += 2) {
      double rgb[3], luma;
      uint8_t cb, cr;

      for (int i = 0; i < 3; i++)
        rgb[i] = (level (args, y, x, i) + level (args, y, x + 1, i) + level (args, y + 1, x, i) + level (args, y + 1, x + 1, i)) / 4;
      luma = 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
      cb = byte (128 + 224 * (rgb[2] - luma) / 1.8556);
      cr = byte (128 + 224 * (rgb[0] - luma) / 1.5748);
      if (args->format == DP_PIXELS_NV12) {
        row (args, 1, y / 2)[x] = cb;
        row (args, 1, y / 2)[x + 1] = cr;
      } else {
        row (args, 1, y / 2)[x / 2] = cb;
        row (args, 2, y / 2)[x / 2] = cr;
      }
    }
}

static void
pack_rgb (const DpPackFrameArgs *args)
{
  static const char *const order[] = {
    [DP_PIXELS_RGB] = "RGB", [DP_PIXELS_BGR] = "BGR", [DP_PIXELS_RGBX] = "RGBX", [DP_PIXELS_BGRX] = "BGRX",
    [DP_PIXELS_XRGB] = "XRGB", [DP_PIXELS_XBGR] = "XBGR",
  };
  const char *format = order[args->format];
  int n = strlen (format);

  for (int y = 0; y < args->h; y++)
    for (int x = 0; x < args->w; x++)
      for (int i = 0; i < n; i++)
        row (args, 0, y)[x * n + i] = format[i] == 'X' ? 255
            : byte (255 * level (args, y, x, format[i] == 'R' ? 0 : format[i] == 'G' ? 1 : 2));
}

void
pack_frame_ref (DpDevice *dev, const DpPackFrameArgs *args)
{
  assert (args->h % 2 == 0 && args->w % 2 == 0 && args->x_stride >= args->w);
  if (args->format == DP_PIXELS_I420 || args->format == DP_PIXELS_NV12) {
    pack_yuv (args);
  } else if (args->format == DP_PIXELS_RGB_F32) {
    for (int y = 0; y < args->h; y++)
      for (int x = 0; x < args->w * 3; x++)
        ((float *) row (args, 0, y))[x] = level (args, y, x / 3, x % 3);
  } else {
    pack_rgb (args);
  }
}

/* Where element (t, y, x, c) of the latents lies among the tokens. */
static size_t
token_index (int h, int w, int channels, int t, int y, int x, int c)
{
  size_t token = ((size_t) t * (h / 2) + y / 2) * (w / 2) + x / 2;

  return (token * 4 + (y % 2) * 2 + x % 2) * channels + c;
}

void
patchify_ref (DpDevice *dev, int t, int h, int w, int channels, const float *x, DpType y_type, void *y)
{
  for (int f = 0; f < t; f++)
    for (int i = 0; i < h; i++)
      for (int j = 0; j < w; j++)
        for (int c = 0; c < channels; c++)
          dp_store (y_type, y, token_index (h, w, channels, f, i, j, c), x[(((size_t) f * h + i) * w + j) * channels + c]);
}

void
unpatchify_ref (DpDevice *dev, int t, int h, int w, int channels, const float *x, float *y)
{
  for (int f = 0; f < t; f++)
    for (int i = 0; i < h; i++)
      for (int j = 0; j < w; j++)
        for (int c = 0; c < channels; c++)
          y[(((size_t) f * h + i) * w + j) * channels + c] = x[token_index (h, w, channels, f, i, j, c)];
}
