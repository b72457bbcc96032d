/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalnal.h"

#include <string.h>

#define UUID_SIZE 16
#define SEI_USER_DATA_UNREGISTERED 5

/* Escaped as within a NAL unit: no 0, 0, and then 0 to 3 */
static void
gst_dualparal_nal_put (GByteArray * nal, const guint8 * data, gsize size,
    guint * zeros)
{
  const guint8 escape = 3;
  gsize i;

  for (i = 0; i < size; i++) {
    if (*zeros == 2 && data[i] <= 3) {
      g_byte_array_append (nal, &escape, 1);
      *zeros = 0;
    }
    g_byte_array_append (nal, data + i, 1);
    *zeros = data[i] == 0 ? *zeros + 1 : 0;
  }
}

GByteArray *
gst_dualparal_nal_sei_new (const GstDualParalNalFormat * format,
    const guint8 * uuid, const guint8 * data, gsize size)
{
  static const guint8 start_code[] = { 0, 0, 0, 1 };
  static const guint8 h264_header[] = { 6 };
  static const guint8 h265_header[] = { 39 << 1, 1 };
  const guint prefix = format->length_size ? format->length_size : 4;
  const guint8 type = SEI_USER_DATA_UNREGISTERED, more = 0xff, end = 0x80;
  GByteArray *nal = g_byte_array_new ();
  gsize rest = size + UUID_SIZE, i;
  guint zeros = 0;
  guint8 last;

  g_byte_array_append (nal, start_code, prefix);
  if (format->h265)
    gst_dualparal_nal_put (nal, h265_header, sizeof (h265_header), &zeros);
  else
    gst_dualparal_nal_put (nal, h264_header, sizeof (h264_header), &zeros);
  gst_dualparal_nal_put (nal, &type, 1, &zeros);
  for (; rest >= 255; rest -= 255)
    gst_dualparal_nal_put (nal, &more, 1, &zeros);
  last = rest;
  gst_dualparal_nal_put (nal, &last, 1, &zeros);
  gst_dualparal_nal_put (nal, uuid, UUID_SIZE, &zeros);
  gst_dualparal_nal_put (nal, data, size, &zeros);
  gst_dualparal_nal_put (nal, &end, 1, &zeros);

  if (format->length_size) {
    rest = nal->len - prefix;
    for (i = 0; i < prefix; i++, rest >>= 8)
      nal->data[prefix - 1 - i] = rest;
    if (rest > 0)
      g_clear_pointer (&nal, g_byte_array_unref);
  }
  return nal;
}

/* The next NAL unit from *at on, which goes behind it */
static gboolean
gst_dualparal_nal_next_by_length (guint length_size, const guint8 * data,
    gsize size, gsize * at, const guint8 ** nal, gsize * nal_size)
{
  gsize length = 0;
  guint i;

  if (size - *at < length_size)
    return FALSE;
  for (i = 0; i < length_size; i++)
    length = length << 8 | data[(*at)++];
  if (length > size - *at)
    return FALSE;
  *nal = data + *at;
  *nal_size = length;
  *at += length;
  return TRUE;
}

/* From the 0, 0, 1 at `from` or behind, or `size` where there is none */
static gsize
gst_dualparal_nal_start_code_from (const guint8 * data, gsize size, gsize from)
{
  for (; from + 3 <= size; from++)
    if (data[from] == 0 && data[from + 1] == 0 && data[from + 2] == 1)
      return from;
  return size;
}

static gboolean
gst_dualparal_nal_next_by_start_code (const guint8 * data, gsize size,
    gsize * at, const guint8 ** nal, gsize * nal_size)
{
  const gsize start = gst_dualparal_nal_start_code_from (data, size, *at);

  if (start == size)
    return FALSE;
  *nal = data + start + 3;
  *at = gst_dualparal_nal_start_code_from (data, size, start + 3);
  *nal_size = *at - start - 3;
  /* No unit ends in a zero */
  while (*nal_size > 0 && (*nal)[*nal_size - 1] == 0)
    (*nal_size)--;
  return TRUE;
}

/* A slice, or H.264's prefix of one */
static gboolean
gst_dualparal_nal_is_slice (gboolean h265, guint8 header)
{
  const guint type = h265 ? header >> 1 & 0x3f : header & 0x1f;

  return h265 ? type < 32 : (type >= 1 && type <= 5) || type == 14
      || type == 20;
}

static gboolean
gst_dualparal_nal_is_sei (gboolean h265, guint8 header)
{
  return h265 ? (header >> 1 & 0x3f) == 39 : (header & 0x1f) == 6;
}

gboolean
gst_dualparal_nal_find (const GstDualParalNalFormat * format,
    const guint8 * data, gsize size, const guint8 * uuid, gsize * offset)
{
  const guint8 *nal = NULL;
  gsize nal_size = 0, at = 0, start;

  for (;;) {
    start = at;
    if (format->length_size ?
        !gst_dualparal_nal_next_by_length (format->length_size, data, size, &at,
            &nal, &nal_size)
        : !gst_dualparal_nal_next_by_start_code (data, size, &at, &nal,
            &nal_size))
      return FALSE;
    if (nal_size == 0)
      continue;
    if (gst_dualparal_nal_is_sei (format->h265, *nal)
        && memmem (nal, nal_size, uuid, UUID_SIZE))
      return FALSE;
    if (gst_dualparal_nal_is_slice (format->h265, *nal))
      break;
  }
  if (!format->length_size) {
    start = nal - data - 3;
    /* The longer start code is all of one unit */
    if (start > 0 && data[start - 1] == 0)
      start--;
  }
  *offset = start;
  return TRUE;
}
