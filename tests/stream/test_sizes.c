/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Sizes that the model's steps do not divide: the middle of the next larger picture, in every format.
 */
#include "stream.h"

#include <string.h>

#define FRAMES 6

/* A plane of a format: bytes of a column of the picture, columns and rows of the picture that share one. */
typedef struct
{
  int bytes, columns, rows;
} Plane;

static void
planes_of (DpFormat format, Plane planes[3])
{
  static const int bytes[] = { [DP_FORMAT_RGB_F32] = 12, [DP_FORMAT_RGB] = 3, [DP_FORMAT_BGR] = 3, [DP_FORMAT_RGBX] = 4,
    [DP_FORMAT_BGRX] = 4, [DP_FORMAT_XRGB] = 4, [DP_FORMAT_XBGR] = 4 };

  planes[0] = (Plane) { format == DP_FORMAT_I420 || format == DP_FORMAT_NV12 ? 1 : bytes[format], 1, 1 };
  planes[1] = planes[2] = format == DP_FORMAT_NV12 ? (Plane) { 2, 2, 2 } : (Plane) { 1, 2, 2 };
}

static void
check_middle (const DpFrame *whole, const DpFrame *part)
{
  int left = (whole->width - part->width) / 2 & ~1, top = (whole->height - part->height) / 2 & ~1;
  Plane planes[3];

  planes_of (part->format, planes);
  g_assert_cmpint (part->n_planes, ==, whole->n_planes);
  for (int p = 0; p < part->n_planes; p++) {
    const Plane *plane = &planes[p];
    gsize row = (gsize) part->width / plane->columns * plane->bytes;

    for (int y = 0; y < part->height / plane->rows; y++)
      g_assert_cmpmem (part->planes[p] + (gsize) y * part->strides[p], row, whole->planes[p]
          + (gsize) (y + top / plane->rows) * whole->strides[p] + left / plane->columns * plane->bytes, row);
  }
}

static void
check_size (DpFormat format, int width, int height)
{
  DpSettings s = stream_small ();

  s.num_frames = FRAMES;
  s.format = format;
  s.width = width;
  s.height = height;
  g_autoptr (DpEngine) part = stream_open (&s);
  g_autoptr (DpPlan) plan = stream_plan (&s);
  int step = 2 * dp_plan_model (plan)->spatial_scale;
  s.width = (width + step - 1) / step * step;
  s.height = (height + step - 1) / step * step;
  g_autoptr (DpEngine) whole = stream_open (&s);
  gint64 next[2] = { 0, 0 };
  DpFrame frames[2];

  for (int i = 0; i < FRAMES; i++) {
    g_assert_true (stream_pull (part, &frames[0], &next[0]));
    g_assert_true (stream_pull (whole, &frames[1], &next[1]));
    g_assert_cmpint (frames[0].width, ==, width);
    g_assert_cmpint (frames[0].height, ==, height);
    check_middle (&frames[1], &frames[0]);
    dp_engine_release_frame (part, &frames[0]);
    dp_engine_release_frame (whole, &frames[1]);
  }
}

static void
test_formats (void)
{
  for (DpFormat format = DP_FORMAT_RGB_F32; format <= DP_FORMAT_XBGR; format++)
    check_size (format, 38, 26);
}

/* On one side, or by two pixels, or down to the least size. */
static void
test_sizes (void)
{
  check_size (DP_FORMAT_I420, 64, 40);
  check_size (DP_FORMAT_I420, 46, 48);
  check_size (DP_FORMAT_NV12, 50, 34);
  check_size (DP_FORMAT_RGB, 16, 18);
}

/* The plan says so, and everything that goes by the plan counts the larger picture. */
static void
test_plan (void)
{
  DpSettings s = stream_small ();

  s.width = 640;
  s.height = 360;
  g_autoptr (DpPlan) part = stream_plan (&s);
  g_autofree char *text = dp_plan_describe (part);
  s.height = 368;
  g_autoptr (DpPlan) whole = stream_plan (&s);
  g_autofree char *other = dp_plan_describe (whole);

  g_assert_cmpint (dp_plan_settings (part)->height, ==, 360);
  g_assert_nonnull (strstr (text, "640x360, the middle of 640x368\n"));
  g_assert_null (strstr (other, "middle"));
}

int
main (int argc, char **argv)
{
  stream_init (&argc, &argv);
  g_test_add_func ("/sizes/formats", test_formats);
  g_test_add_func ("/sizes/sizes", test_sizes);
  g_test_add_func ("/sizes/plan", test_plan);
  return g_test_run ();
}
