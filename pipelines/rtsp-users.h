/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * rtsp-users.h: who may watch and who may steer. Without any user everybody may do
 * both. Passwords are asked for by digest; an address that gives wrong ones is told to
 * wait, and each is a line of the log.
 */
#pragma once

#include <gst/rtsp-server/rtsp-server.h>
#include "rtsp-door.h"

G_BEGIN_DECLS

/** What a media factory allows its users by */
#define USERS_ROLE "viewer"

/** `door`, which has to stay as long as the users do, counts wrong passwords. */
GstRTSPAuth *users_new (Door * door);
void users_add (GstRTSPAuth * users, const gchar * name, const gchar * password,
    gboolean may_steer);

/** In a request: whether it comes from a user that may steer. Any thread. */
gboolean users_may_steer (GstRTSPContext * ctx);
/** Whom it comes from, for a log. Any thread. */
gchar *users_describe (GstRTSPContext * ctx);

G_END_DECLS
