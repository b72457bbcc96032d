/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli_y4m.h"

gboolean
dp_cli_y4m_header (FILE *file, int width, int height, int fps_n, int fps_d)
{
  return fprintf (file, "YUV4MPEG2 W%d H%d F%d:%d Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n", width, height, fps_n, fps_d) > 0;
}

/* Row y as bytes, as the engine rounds them. */
static void
row_to_rgb (const DpFrame *f, DpFormat format, int y, guint8 *rgb)
{
  const guint8 *row = f->planes[0] + (gsize) y * f->strides[0];

  for (int i = 0; i < f->width * 3; i++)
    rgb[i] = format == DP_FORMAT_RGB ? row[i] : (int) (((const float *) row)[i] * 255 + 0.5f);
}

/* ITU-R BT.601, limited range, in units of 2^-16:
 * Y = 16 + 219/255 (0.299 R + 0.587 G + 0.114 B), Cb = 128 + 224/255 (B - luma) / 1.772, Cr = 128 + 224/255 (R - luma) / 1.402 */
static guint8
luma (const guint8 *rgb)
{
  return (16829 * rgb[0] + 33039 * rgb[1] + 6416 * rgb[2] + (16 << 16) + (1 << 15)) >> 16;
}

/* Two rows of RGB to two of luma and one of each chroma, for which the sums of four pixels are taken. */
static void
convert_rows (const guint8 *rgb, int w, guint8 *y, guint8 *cb, guint8 *cr)
{
  for (int x = 0; x < 2 * w; x++)
    y[x] = luma (rgb + 3 * x);
  for (int x = 0; x < w; x += 2) {
    int sum[3];

    for (int c = 0; c < 3; c++)
      sum[c] = rgb[3 * x + c] + rgb[3 * x + 3 + c] + rgb[3 * (w + x) + c] + rgb[3 * (w + x) + 3 + c];
    cb[x / 2] = (-9714 * sum[0] - 19070 * sum[1] + 28784 * sum[2] + (128 << 18) + (1 << 17)) >> 18;
    cr[x / 2] = (28784 * sum[0] - 24103 * sum[1] - 4681 * sum[2] + (128 << 18) + (1 << 17)) >> 18;
  }
}

gboolean
dp_cli_y4m_frame (FILE *file, const DpFrame *f, DpFormat format)
{
  gsize n = (gsize) f->width * f->height;
  g_autofree guint8 *yuv = g_new (guint8, n * 3 / 2), *rgb = g_new (guint8, (gsize) f->width * 6);

  for (int y = 0; y < f->height; y += 2) {
    row_to_rgb (f, format, y, rgb);
    row_to_rgb (f, format, y + 1, rgb + (gsize) f->width * 3);
    guint8 *chroma = yuv + n + (gsize) y * f->width / 4;
    convert_rows (rgb, f->width, yuv + (gsize) y * f->width, chroma, chroma + n / 4);
  }
  return fputs ("FRAME\n", file) >= 0 && fwrite (yuv, n * 3 / 2, 1, file) == 1;
}
