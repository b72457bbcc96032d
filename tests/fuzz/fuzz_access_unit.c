/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An access unit of H.264 or H.265, behind a byte that says its format.
 */
#include "fuzz.h"
#include "gst/gstdualparalnal.h"

/* What was put in is found, and so not put in again. */
int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const guint8 uuid[16] = "0123456789abcdef";
  GstDualParalNalFormat format = { .h265 = size && data[0] & 1,.length_size = size ? (data[0] >> 1) % 5 : 0 };
  g_autoptr (GByteArray) sei = gst_dualparal_nal_sei_new (&format, uuid, data, size);
  g_autoptr (GByteArray) marked = g_byte_array_new ();
  gsize at;

  g_assert_true (sei || (format.length_size > 0 && format.length_size < 3));
  if (size < 1 || !sei || !gst_dualparal_nal_find (&format, data + 1, size - 1, uuid, &at))
    return 0;
  data++;
  size--;
  g_assert_cmpuint (at, <, size);
  g_byte_array_append (marked, data, at);
  g_byte_array_append (marked, sei->data, sei->len);
  g_byte_array_append (marked, data + at, size - at);
  g_assert_false (gst_dualparal_nal_find (&format, marked->data, marked->len, uuid, &at));
  return 0;
}
