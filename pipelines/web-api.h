/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * web-api.h: what the page and other programs ask for by HTTP: the prompt, statistics,
 * a picture. It knows the video by its messages and by the pictures on their way to the
 * encoder. docs/web.md has the requests.
 */
#pragma once

#include <gst/gst.h>
#include "web-http.h"

G_BEGIN_DECLS

/** Thread-safety: the thread of the default main context, which also has to run. */
typedef struct _Api Api;

/** How many watch. */
typedef guint (*ApiCount) (gpointer user_data);

/** `pictures`: a pad that raw pictures of `source` pass. Adds its handlers to `http`; without
 *  `allow_prompts`, prompts are refused. All are borrowed, and live longer. */
Api *api_new (GstElement * source, GstPad * pictures, gboolean allow_prompts,
    ApiCount count, gpointer user_data, Http * http);
/** NULL is nothing. Waits until the video that restarts has, and pictures are made. */
void api_settle (Api * api);
/** NULL is nothing. When it is settled and no pictures pass any more. */
void api_free (Api * api);
/** Each message of the pipeline, in the thread that posts it: a warning there may be why a
 *  prompt is refused. Any thread. */
void api_hear (Api * api, GstMessage * message);
/** Each message of the pipeline. */
void api_message (Api * api, GstMessage * message);

G_END_DECLS
