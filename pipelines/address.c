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

const gchar *
address_refuse_options (const gchar * address, gint port, gint max_sessions,
    gint max_connections, gint max_per_address)
{
  GInetAddress *ip = g_inet_address_new_from_string (address);
  const gchar *wrong = NULL;

  if (!ip)
    wrong = "--address: not an IP address, such as 127.0.0.1, 0.0.0.0 or ::1";
  else if (port < 0 || port > 65535)
    wrong = "--port: expected 0 to 65535";
  else if (max_sessions < 1)
    wrong = "--max-sessions: expected at least 1";
  else if (max_connections < 1)
    wrong = "--max-connections: expected at least 1";
  else if (max_per_address < 1)
    wrong = "--max-per-address: expected at least 1";
  g_clear_object (&ip);
  return wrong;
}
