/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalnal.h: user data in the bitstream of H.264 and H.265, as an SEI message "user data
 * unregistered" (H.264 D.1.7, H.265 D.2.7): a UUID and any data. GStreamer's own writers of SEI are
 * in an unstable library, and write no such message in 1.22.
 *
 * An access unit may be any bytes. One without a slice is left alone.
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/** How an access unit is written. */
typedef struct
{
  gboolean h265;                /* else H.264 */
  guint length_size;            /* bytes of the length before each NAL unit, 1 to
                                 * 4; 0: start codes (Annex B) */
} GstDualParalNalFormat;

/** An SEI NAL unit with start code or length; NULL when it is too long for the latter. `uuid` is 16
 *  bytes. */
GByteArray *gst_dualparal_nal_sei_new (const GstDualParalNalFormat * format,
    const guint8 * uuid, const guint8 * data, gsize size);

/** Where an SEI belongs in an access unit: right before the first slice. FALSE when there is no
 *  slice, or an SEI with that UUID before it. */
gboolean gst_dualparal_nal_find (const GstDualParalNalFormat * format,
    const guint8 * data, gsize size, const guint8 * uuid, gsize * offset);

G_END_DECLS
