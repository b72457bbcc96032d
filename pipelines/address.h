/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * address.h: where a server listens, and what counts as one client where something is limited by
 * address.
 */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/** The address; of IPv6 the first 64 bits, as one client may choose more than these. An
 *  IPv4 address in IPv6 is the IPv4 address. */
GBytes *address_key (GInetAddress * ip);

/** What is wrong with these options of a server: a sentence that names one, or NULL. */
const gchar *address_refuse_options (const gchar * address, gint port, gint max_sessions,
    gint max_connections, gint max_per_address);

G_END_DECLS
