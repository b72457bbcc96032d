/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * web-http.h: HTTP for clients that nobody knows. It listens, limits connections, the
 * time of a request and its size, and knows whom to let in: a client with the token, or
 * where there is none, one that is no page of somebody else. Handlers get what is left.
 */
#pragma once

#include <libsoup/soup.h>

G_BEGIN_DECLS

/** Thread-safety: the thread of the default main context, which also has to run. */
typedef struct _Http Http;

/** `rest`: what comes in the path behind that of the handler. */
typedef void (*HttpHandler) (SoupServerMessage * msg, const gchar * rest,
    gpointer user_data);

/** Why an address that is not loopback is refused without a token. */
#define HTTP_NEEDS_TOKEN "--address: others can reach it, so --token-file must name a file with " \
    "a secret; \"openssl rand -hex 16 > token\" makes one"

/** The first line of a file, which --token-file names; NULL names none. Warns if others may read
 *  it. Sets `token` also when it is refused. */
gboolean http_read_token (const gchar * file, gchar ** token, GError ** error);

/** `token`: NULL is none. `connections` in all and `per_address` at a time. */
Http *http_new (const gchar * token, guint connections, guint per_address);
/** Requests of `method` for `path`, and for `path` and more if it ends with a slash. A GET
 *  answers HEAD too. Without `secret` no token is needed. */
void http_add (Http * http, const gchar * method, const gchar * path, gboolean secret,
    HttpHandler handler, gpointer user_data);
/** Returns the port, or 0. */
gint http_open (Http * http, const gchar * address, gint port, GError ** error);
/** Nobody gets in any more, and all connections end. */
void http_shut (Http * http);
/** NULL is nothing. */
void http_free (Http * http);

/** Answers with `size` bytes, or a text if that is -1. */
void http_answer (SoupServerMessage * msg, guint status, const gchar * type,
    const gchar * body, gssize size);
/** Answers with a sentence. */
void http_refuse (SoupServerMessage * msg, guint status, const gchar * format,
    ...) G_GNUC_PRINTF (3, 4);
/** From a handler: the answer comes later. Then http_go_on() sends it, if the client is still
 *  there, and takes the reference. */
SoupServerMessage *http_later (SoupServerMessage * msg);
void http_go_on (SoupServerMessage * msg);
/** The body, which is text; NULL when it was not, and is refused. New string. */
gchar *http_text (SoupServerMessage * msg);
/** Whether the type of the body, without parameters, is this one. */
gboolean http_is (SoupServerMessage * msg, const gchar * type);

G_END_DECLS
