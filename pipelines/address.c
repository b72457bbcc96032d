/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "address.h"

#include <string.h>

GBytes *
address_key (GInetAddress * ip)
{
  const guint8 *bytes = g_inet_address_to_bytes (ip);
  gsize size = g_inet_address_get_native_size (ip);
  static const guint8 mapped[12] = {[10] = 0xff,[11] = 0xff };

  if (size == 16 && memcmp (bytes, mapped, sizeof mapped) == 0)
    return g_bytes_new (bytes + 12, 4);
  return g_bytes_new (bytes, MIN (size, 8));
}
