/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "web-api.h"

#include <gst/video/video.h>
#include <gst/video/video-sei.h>
#include <json-glib/json-glib.h>
#include <string.h>
#include "console.h"
#include "web-prompt.h"

/* What is remembered for pages */
#define MOST_PROMPTS 200
#define MOST_WARNINGS 8
/* Of prompts for a later frame */
#define MOST_QUEUED 1000
#define SNAPSHOTS_AT_ONCE 4
#define SNAPSHOT_SECONDS 3
/* Prompts that may come at once, and how many more a second */
#define PROMPTS_AT_ONCE 10
#define PROMPTS_A_SECOND 1
/* Separates the messages of two videos on the bus */
#define RESTART_MARK "web-api-restart"

typedef struct
{
  gint64 frame;
  gchar *prompt;
} Entry;

struct _Api
{
  GstElement *source;
  ApiCount count;
  gpointer user_data;
  gboolean allow_prompts;
  GstPad *pictures;
  gulong probe;
  gchar *instance;              /* of this process; a page notices another */
  gint64 started;
  gchar *model, *knows;
  GQueue shown, queued;         /* Entry, by frame */
  GQueue warnings;              /* text */
  guint64 n_warnings, n_prompts;
  gdouble prompts_left;
  gint64 prompts_filled;
  gboolean restarting;          /* then a thread of its own queues prompts */
  guint marks;                  /* RESTART_MARKs to come; until then messages are of an old video */
  GThread *asking;              /* a warning of this thread is why a prompt is refused */
  gchar *refusal;
  guint snapshots;
  GstStructure *preview;        /* the latest message of a block that is being made, or NULL */

  GMutex lock;
  /* -- protected by lock */
  GstBuffer *picture;           /* the latest */
};

static void
entry_free (gpointer data)
{
  Entry *entry = data;

  g_free (entry->prompt);
  g_free (entry);
}

/* -- prompts */

static gboolean
may_prompt (Api * api)
{
  gint64 now = g_get_monotonic_time ();

  api->prompts_left = MIN (api->prompts_left + (now - api->prompts_filled) / 1e6
      * PROMPTS_A_SECOND, PROMPTS_AT_ONCE);
  api->prompts_filled = now;
  if (api->prompts_left < 1)
    return FALSE;
  api->prompts_left--;
  return TRUE;
}

static void
insert (GQueue * entries, gint64 frame, const gchar * prompt)
{
  Entry *entry = g_new0 (Entry, 1);
  GList *l = entries->tail;

  entry->frame = frame;
  entry->prompt = g_strdup (prompt);
  while (l && ((Entry *) l->data)->frame > frame)
    l = l->prev;
  if (l)
    g_queue_insert_after (entries, l, entry);
  else
    g_queue_push_head (entries, entry);
}

/* NULL, or why not. New string. */
static gchar *
queue_prompt (Api * api, const Prompt * prompt)
{
  GstStructure *s = gst_structure_new ("dualparal/set-prompt", "prompt", G_TYPE_STRING,
      prompt->prompt, "at-frame", G_TYPE_INT64, prompt->at_frame, "transition-blocks",
      G_TYPE_INT64, prompt->transition_blocks, NULL);
  gboolean queued;

  if (prompt->negative_prompt)
    gst_structure_set (s, "negative-prompt", G_TYPE_STRING, prompt->negative_prompt, NULL);
  g_atomic_pointer_set (&api->asking, g_thread_self ());
  queued = gst_element_send_event (api->source,
      gst_event_new_custom (GST_EVENT_CUSTOM_UPSTREAM, s));
  g_atomic_pointer_set (&api->asking, NULL);
  if (!queued)
    return api->refusal ? g_steal_pointer (&api->refusal) :
        g_strdup ("the prompt was refused");
  if (prompt->at_frame >= 0)
    insert (&api->queued, prompt->at_frame, prompt->prompt);
  return NULL;
}

void
api_hear (Api * api, GstMessage * message)
{
  GError *error;

  if (GST_MESSAGE_TYPE (message) != GST_MESSAGE_WARNING || g_thread_self () != g_atomic_pointer_get (&api->asking))
    return;
  gst_message_parse_warning (message, &error, NULL);
  g_free (api->refusal);
  api->refusal = g_strdup (error->message);
  g_error_free (error);
}

typedef struct
{
  Api *api;
  SoupServerMessage *msg;
  Prompt *prompt;
} Restart;

static GstPadProbeReturn
hold (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  return GST_PAD_PROBE_OK;
}

/* The video is held before its size is negotiated, so before anything is made: the prompt is there
 * for the first block, and wins over a storyboard's first */
static void
restart_in_thread (GTask * task, gpointer source, gpointer data, GCancellable * none)
{
  Restart *job = data;
  Api *api = job->api;
  gchar *refusal = NULL;
  GstPad *pad = gst_element_get_static_pad (api->source, "src");
  gulong held;

  gst_element_set_state (api->source, GST_STATE_NULL);
  gst_element_post_message (api->source, gst_message_new_element (GST_OBJECT (api->source),
          gst_structure_new_empty (RESTART_MARK)));
  if (job->prompt->has_seed)
    g_object_set (api->source, "seed", job->prompt->seed, NULL);
  held = gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BLOCK_DOWNSTREAM, hold, NULL, NULL);
  if (gst_element_set_state (api->source, GST_STATE_PAUSED) == GST_STATE_CHANGE_FAILURE)
    refusal = g_strdup ("the video does not start; the log says why");
  else if (job->prompt->prompt)
    refusal = queue_prompt (api, job->prompt);
  gst_pad_remove_probe (pad, held);
  gst_object_unref (pad);
  gst_element_sync_state_with_parent (api->source);
  g_task_return_pointer (task, refusal, g_free);
}

static void
restarted (GObject * source, GAsyncResult * result, gpointer user_data)
{
  Restart *job = user_data;
  gchar *refusal = g_task_propagate_pointer (G_TASK (result), NULL);

  job->api->restarting = FALSE;
  if (refusal)
    http_refuse (job->msg, 400, "%s", refusal);
  else
    http_answer (job->msg, 204, NULL, NULL, 0);
  g_free (refusal);
  http_go_on (job->msg);
  prompt_free (job->prompt);
  g_free (job);
}

/* Frames and prompts count from 0 again. Nothing loads again. Takes the prompt. */
static void
restart (Api * api, SoupServerMessage * msg, Prompt * prompt)
{
  Restart *job = g_new0 (Restart, 1);
  GTask *task = g_task_new (NULL, NULL, restarted, job);

  api->restarting = TRUE;
  api->marks++;
  g_queue_clear_full (&api->shown, entry_free);
  g_queue_clear_full (&api->queued, entry_free);
  g_clear_pointer (&api->preview, gst_structure_free);
  job->api = api;
  job->msg = http_later (msg);
  job->prompt = prompt;
  g_task_set_task_data (task, job, NULL);
  g_task_run_in_thread (task, restart_in_thread);
  g_object_unref (task);
}

static void
post_prompt (SoupServerMessage * msg, const gchar * rest, gpointer user_data)
{
  Api *api = user_data;
  Prompt *prompt = prompt_parse (msg);
  gchar *refusal = NULL;

  if (!prompt)
    return;
  if (!api->allow_prompts) {
    http_refuse (msg, 403, "the prompt is not changed from here");
  } else if (!may_prompt (api)) {
    soup_message_headers_replace (soup_server_message_get_response_headers (msg),
        "Retry-After", "1");
    http_refuse (msg, 503, "too many prompts: %d at once and then one a second are taken",
        PROMPTS_AT_ONCE);
  } else if (api->restarting) {
    http_refuse (msg, 503, "the video restarts just now");
  } else if (g_queue_get_length (&api->queued) >= MOST_QUEUED) {
    http_refuse (msg, 503, "%d prompts wait for their frame already", MOST_QUEUED);
  } else {
    if (prompt->low >= 0)
      gst_util_set_object_arg (G_OBJECT (api->source), "prompt-latency",
          prompt->low ? "low" : "smooth");
    if (prompt->prompt || prompt->restart)
      console_say_limited ("%s: %s%s%s", soup_server_message_get_remote_host (msg),
          prompt->restart ? "restart" : "prompt",
          prompt->prompt ? ": " : "", prompt->prompt ? prompt->prompt : "");
    api->n_prompts++;
    if (prompt->restart) {
      restart (api, msg, g_steal_pointer (&prompt));
    } else {
      refusal = prompt->prompt ? queue_prompt (api, prompt) : NULL;
      if (refusal)
        http_refuse (msg, 400, "%s", refusal);
      else
        http_answer (msg, 204, NULL, NULL, 0);
    }
  }
  g_free (refusal);
  g_clear_pointer (&prompt, prompt_free);
}

/* -- statistics */

static GstBuffer *
latest_picture (Api * api)
{
  GstBuffer *picture;

  g_mutex_lock (&api->lock);
  picture = api->picture ? gst_buffer_ref (api->picture) : NULL;
  g_mutex_unlock (&api->lock);
  return picture;
}

static void
add_value (JsonBuilder * json, const GValue * value)
{
  GValue number = G_VALUE_INIT;

  if (GST_VALUE_HOLDS_ARRAY (value)) {
    json_builder_begin_array (json);
    for (guint i = 0; i < gst_value_array_get_size (value); i++)
      add_value (json, gst_value_array_get_value (value, i));
    json_builder_end_array (json);
  } else if (G_VALUE_HOLDS_DOUBLE (value)) {
    json_builder_add_double_value (json, g_value_get_double (value));
  } else {
    g_value_init (&number, G_TYPE_INT64);
    if (g_value_transform (value, &number))
      json_builder_add_int_value (json, g_value_get_int64 (&number));
    else
      json_builder_add_null_value (json);
    g_value_unset (&number);
  }
}

static gboolean
add_field (GQuark field, const GValue * value, gpointer json)
{
  json_builder_set_member_name (json, g_quark_to_string (field));
  add_value (json, value);
  return TRUE;
}

static void
add_entries (JsonBuilder * json, const gchar * name, const GQueue * entries)
{
  json_builder_set_member_name (json, name);
  json_builder_begin_array (json);
  for (GList * l = entries->head; l; l = l->next) {
    Entry *entry = l->data;

    json_builder_begin_object (json);
    json_builder_set_member_name (json, "frame");
    json_builder_add_int_value (json, entry->frame);
    json_builder_set_member_name (json, "prompt");
    json_builder_add_string_value (json, entry->prompt);
    json_builder_end_object (json);
  }
  json_builder_end_array (json);
}

/* What a picture has by its caps and its number; that of a placeholder is null */
static void
add_picture (Api * api, JsonBuilder * json)
{
  GstBuffer *picture = latest_picture (api);
  GstCaps *caps = gst_pad_get_current_caps (api->pictures);
  GstVideoInfo info;

  json_builder_set_member_name (json, "frame");
  if (picture && GST_BUFFER_OFFSET_IS_VALID (picture))
    json_builder_add_int_value (json, GST_BUFFER_OFFSET (picture));
  else
    json_builder_add_null_value (json);
  if (caps && gst_video_info_from_caps (&info, caps)) {
    json_builder_set_member_name (json, "width");
    json_builder_add_int_value (json, GST_VIDEO_INFO_WIDTH (&info));
    json_builder_set_member_name (json, "height");
    json_builder_add_int_value (json, GST_VIDEO_INFO_HEIGHT (&info));
    json_builder_set_member_name (json, "framerate");
    json_builder_add_double_value (json,
        (gdouble) GST_VIDEO_INFO_FPS_N (&info) / GST_VIDEO_INFO_FPS_D (&info));
  }
  gst_clear_caps (&caps);
  gst_clear_buffer (&picture);
}

static void
add_settings (Api * api, const GstStructure * stats, JsonBuilder * json)
{
  guint64 seed = 0;
  gint latency;
  gchar *text;

  /* The property may be -1, which stands for one that was drawn */
  gst_structure_get (stats, "seed", G_TYPE_UINT64, &seed, NULL);
  g_object_get (api->source, "prompt-latency", &latency, NULL);
  text = g_strdup_printf ("%" G_GUINT64_FORMAT, seed);
  json_builder_set_member_name (json, "seed");
  json_builder_add_string_value (json, text);
  json_builder_set_member_name (json, "prompt_latency");
  json_builder_add_string_value (json, latency ? "low" : "smooth");
  g_free (text);
}

static void
add_warnings (Api * api, JsonBuilder * json)
{
  json_builder_set_member_name (json, "warnings");
  json_builder_begin_array (json);
  for (GList * l = api->warnings.head; l; l = l->next)
    json_builder_add_string_value (json, l->data);
  json_builder_end_array (json);
  json_builder_set_member_name (json, "warnings_total");
  json_builder_add_int_value (json, api->n_warnings);
}

/* Of which block /preview.jpg is, and how far that is */
static void
add_preview (Api * api, JsonBuilder * json)
{
  gint64 block = 0;
  gint step = 0, steps = 0;

  json_builder_set_member_name (json, "preview");
  if (!api->preview) {
    json_builder_add_null_value (json);
    return;
  }
  gst_structure_get (api->preview, "block", G_TYPE_INT64, &block, "step", G_TYPE_INT,
      &step, "steps", G_TYPE_INT, &steps, NULL);
  json_builder_begin_object (json);
  json_builder_set_member_name (json, "block");
  json_builder_add_int_value (json, block);
  json_builder_set_member_name (json, "step");
  json_builder_add_int_value (json, step);
  json_builder_set_member_name (json, "steps");
  json_builder_add_int_value (json, steps);
  json_builder_end_object (json);
}

static void
get_stats (SoupServerMessage * msg, const gchar * rest, gpointer user_data)
{
  Api *api = user_data;
  JsonBuilder *json = json_builder_new ();
  JsonNode *root;
  GstStructure *stats;
  gchar *text;

  g_object_get (api->source, "stats", &stats, NULL);
  json_builder_begin_object (json);
  json_builder_set_member_name (json, "instance");
  json_builder_add_string_value (json, api->instance);
  json_builder_set_member_name (json, "viewers");
  json_builder_add_int_value (json, api->count (api->user_data));
  json_builder_set_member_name (json, "model");
  json_builder_add_string_value (json, api->model);
  json_builder_set_member_name (json, "knows");
  json_builder_add_string_value (json, api->knows);
  add_settings (api, stats, json);
  add_picture (api, json);
  add_entries (json, "shown", &api->shown);
  add_entries (json, "queued", &api->queued);
  add_warnings (api, json);
  add_preview (api, json);
  json_builder_set_member_name (json, "stats");
  json_builder_begin_object (json);
  gst_structure_foreach (stats, add_field, json);
  json_builder_end_object (json);
  json_builder_end_object (json);
  root = json_builder_get_root (json);
  text = json_to_string (root, FALSE);
  http_answer (msg, 200, "application/json", text, -1);
  g_free (text);
  json_node_unref (root);
  gst_structure_free (stats);
  g_object_unref (json);
}

/* -- Prometheus */

static const struct
{
  const gchar *field, *metric, *type, *help;
  gdouble unit;
} metrics[] = {
  {"frames", "dualparal_frames_total", "counter", "Frames decoded", 1},
  {"blocks", "dualparal_blocks_total", "counter", "Blocks finished", 1},
  {"passes", "dualparal_passes_total", "counter", "Passes through all layers", 1},
  {"queue-frames", "dualparal_queue_frames", "gauge", "Decoded frames that wait", 1},
  {"realtime-factor", "dualparal_realtime_factor", "gauge",
      "Seconds of video made per second; below 1 is too slow", 1},
  {"block-load-mean", "dualparal_block_load_mean", "gauge",
      "Time to make a block, relative to the time it plays", 1},
  {"block-load-p95", "dualparal_block_load_p95", "gauge", "The same, 95th percentile", 1},
  {"decode-busy", "dualparal_decode_busy", "gauge", "Share of time the decoder worked", 1},
  {"time-to-first-frame", "dualparal_time_to_first_frame_seconds", "gauge",
      "From the start to the first frame of the video", 1e-9},
  {"device-bytes", "dualparal_device_bytes", "gauge", "Memory held on devices", 1},
  {"resident-bytes", "dualparal_resident_bytes", "gauge", "Memory of the process", 1},
  {"underruns", "dualparal_underruns_total", "counter", "How often frames ran out", 1},
  {"missed", "dualparal_missed_total", "counter", "Pictures due without a frame", 1},
  {"repeated", "dualparal_repeated_total", "counter", "Frames sent again", 1},
  {"placeholders", "dualparal_placeholders_total", "counter",
      "Pictures sent before the first frame", 1},
  {"deadline-attainment", "dualparal_deadline_attainment", "gauge",
      "Share of pictures whose frame was ready in time", 1},
  {"downstream-delays", "dualparal_downstream_delays_total", "counter",
      "How often the encoder took a picture too late", 1},
};

static void
add_metric (GString * text, const gchar * metric, const gchar * type,
    const gchar * help, gdouble value)
{
  gchar number[G_ASCII_DTOSTR_BUF_SIZE];

  g_ascii_dtostr (number, sizeof number, value);
  g_string_append_printf (text, "# HELP %s %s.\n# TYPE %s %s\n%s %s\n", metric, help,
      metric, type, metric, number);
}

static void
get_metrics (SoupServerMessage * msg, const gchar * rest, gpointer user_data)
{
  Api *api = user_data;
  GString *text = g_string_new (NULL);
  GstStructure *stats;

  g_object_get (api->source, "stats", &stats, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (metrics); i++) {
    const GValue *value = gst_structure_get_value (stats, metrics[i].field);
    GValue number = G_VALUE_INIT;

    g_value_init (&number, G_TYPE_DOUBLE);
    if (value && g_value_transform (value, &number))
      add_metric (text, metrics[i].metric, metrics[i].type, metrics[i].help,
          g_value_get_double (&number) * metrics[i].unit);
    g_value_unset (&number);
  }
  add_metric (text, "dualparal_viewers", "gauge", "Viewers now",
      api->count (api->user_data));
  add_metric (text, "dualparal_prompts_total", "counter", "Prompts and restarts by HTTP",
      api->n_prompts);
  add_metric (text, "dualparal_warnings_total", "counter", "Warnings of the video",
      api->n_warnings);
  add_metric (text, "dualparal_uptime_seconds", "gauge", "Since the program started",
      (g_get_monotonic_time () - api->started) / 1e6);
  http_answer (msg, 200, "text/plain; version=0.0.4; charset=utf-8", text->str, text->len);
  g_string_free (text, TRUE);
  gst_structure_free (stats);
}

/* -- a picture */

typedef struct
{
  Api *api;
  SoupServerMessage *msg;
  gchar *marking;               /* that a model made it; NULL: a placeholder */
} Snapshot;

static gchar *
read_marking (GstBuffer * picture)
{
  gpointer state = NULL;
  GstMeta *meta = gst_buffer_iterate_meta_filtered (picture, &state,
      GST_VIDEO_SEI_USER_DATA_UNREGISTERED_META_API_TYPE);
  GstVideoSEIUserDataUnregisteredMeta *sei =
      (GstVideoSEIUserDataUnregisteredMeta *) meta;

  return sei ? g_strndup ((const gchar *) sei->data, sei->size) : NULL;
}

/* As a comment, behind JFIF's header, which comes first */
static void
answer_jpeg (SoupServerMessage * msg, const guint8 * data, gsize size,
    const gchar * marking)
{
  GByteArray *jpeg = g_byte_array_new ();
  gsize head = 2, length = marking ? strlen (marking) + 2 : 0;

  if (size > 6 && data[2] == 0xff && data[3] == 0xe0)
    head += 2 + (data[4] << 8 | data[5]);
  head = MIN (head, size);
  g_byte_array_append (jpeg, data, head);
  if (marking && length <= G_MAXUINT16) {
    guint8 comment[] = { 0xff, 0xfe, length >> 8, length & 0xff };

    g_byte_array_append (jpeg, comment, sizeof comment);
    g_byte_array_append (jpeg, (const guint8 *) marking, length - 2);
  }
  g_byte_array_append (jpeg, data + head, size - head);
  http_answer (msg, 200, "image/jpeg", (const gchar *) jpeg->data, jpeg->len);
  g_byte_array_unref (jpeg);
}

static void
take_snapshot (GstSample * sample, GError * error, gpointer user_data)
{
  Snapshot *snapshot = user_data;
  GstMapInfo map;

  snapshot->api->snapshots--;
  if (sample && gst_buffer_map (gst_sample_get_buffer (sample), &map, GST_MAP_READ)) {
    answer_jpeg (snapshot->msg, map.data, map.size, snapshot->marking);
    gst_buffer_unmap (gst_sample_get_buffer (sample), &map);
  } else {
    http_refuse (snapshot->msg, 500, "no JPEG could be made: %s",
        error ? error->message : "out of memory");
  }
  g_clear_pointer (&sample, gst_sample_unref);
  g_clear_error (&error);
  http_go_on (snapshot->msg);
  g_free (snapshot->marking);
  g_free (snapshot);
}

/* `marking`: for its comment, or NULL; taken. */
static void
send_jpeg (Api * api, SoupServerMessage * msg, GstSample * sample, gchar * marking)
{
  GstCaps *jpeg;
  Snapshot *snapshot;

  if (api->snapshots >= SNAPSHOTS_AT_ONCE) {
    http_refuse (msg, 503, "too many ask for a picture");
    g_free (marking);
    return;
  }
  snapshot = g_new0 (Snapshot, 1);
  snapshot->api = api;
  snapshot->msg = http_later (msg);
  snapshot->marking = marking;
  api->snapshots++;
  jpeg = gst_caps_new_empty_simple ("image/jpeg");
  gst_video_convert_sample_async (sample, jpeg, SNAPSHOT_SECONDS * GST_SECOND,
      take_snapshot, snapshot, NULL);
  gst_caps_unref (jpeg);
}

static void
get_snapshot (SoupServerMessage * msg, const gchar * rest, gpointer user_data)
{
  Api *api = user_data;
  GstBuffer *picture = latest_picture (api);
  GstCaps *caps = gst_pad_get_current_caps (api->pictures);
  GstSample *sample;

  if (!picture || !caps) {
    http_refuse (msg, 503, "there is no picture yet");
  } else {
    sample = gst_sample_new (picture, caps, NULL, NULL);
    send_jpeg (api, msg, sample, read_marking (picture));
    gst_sample_unref (sample);
  }
  gst_clear_caps (&caps);
  gst_clear_buffer (&picture);
}

static void
get_preview (SoupServerMessage * msg, const gchar * rest, gpointer user_data)
{
  Api *api = user_data;
  GstSample *sample = NULL;

  if (api->preview)
    gst_structure_get (api->preview, "sample", GST_TYPE_SAMPLE, &sample, NULL);
  if (!sample) {
    http_refuse (msg, 503, "no block was previewed yet; preview=true asks for that");
    return;
  }
  send_jpeg (api, msg, sample, NULL);
  gst_sample_unref (sample);
}

/* -- the storyboard's file, which the page draws; the element has checked it */

static void
get_storyboard (SoupServerMessage * msg, const gchar * rest, gpointer user_data)
{
  Api *api = user_data;
  gchar *file, *text = NULL;

  g_object_get (api->source, "storyboard", &file, NULL);
  if (!file)
    http_answer (msg, 204, NULL, NULL, 0);
  else if (g_file_get_contents (file, &text, NULL, NULL))
    http_answer (msg, 200, "application/x-subrip; charset=utf-8", text, -1);
  else
    http_refuse (msg, 404, "the file of the storyboard is no longer there");
  g_free (file);
  g_free (text);
}

/* -- what the video says */

static void
take_applied (Api * api, const GstStructure * s)
{
  guint64 frame = 0;

  gst_structure_get (s, "frame", G_TYPE_UINT64, &frame, NULL);
  while (api->queued.head && ((Entry *) api->queued.head->data)->frame <= (gint64) frame)
    entry_free (g_queue_pop_head (&api->queued));
  insert (&api->shown, frame, gst_structure_get_string (s, "prompt"));
  while (g_queue_get_length (&api->shown) > MOST_PROMPTS)
    entry_free (g_queue_pop_head (&api->shown));
}

static void
take_warning (Api * api, GstMessage * message)
{
  GError *error;

  gst_message_parse_warning (message, &error, NULL);
  g_queue_push_tail (&api->warnings, g_utf8_make_valid (error->message, -1));
  while (g_queue_get_length (&api->warnings) > MOST_WARNINGS)
    g_free (g_queue_pop_head (&api->warnings));
  api->n_warnings++;
  g_error_free (error);
}

void
api_message (Api * api, GstMessage * message)
{
  const GstStructure *s = gst_message_get_structure (message);

  if (GST_MESSAGE_SRC (message) != GST_OBJECT (api->source))
    return;
  if (GST_MESSAGE_TYPE (message) == GST_MESSAGE_WARNING) {
    take_warning (api, message);
  } else if (gst_message_has_name (message, RESTART_MARK)) {
    api->marks--;
  } else if (api->marks > 0) {
    return;
  } else if (gst_message_has_name (message, "dualparal-prompt-applied")) {
    take_applied (api, s);
  } else if (gst_message_has_name (message, "dualparal-model")) {
    g_free (api->model);
    g_free (api->knows);
    api->model = g_strdup (gst_structure_get_string (s, "name"));
    api->knows = g_strdup (gst_structure_get_string (s, "knows"));
  } else if (gst_message_has_name (message, "dualparal-preview")) {
    g_clear_pointer (&api->preview, gst_structure_free);
    api->preview = gst_structure_copy (s);
  }
}

static GstPadProbeReturn
keep_picture (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  Api *api = user_data;

  g_mutex_lock (&api->lock);
  gst_buffer_replace (&api->picture, GST_PAD_PROBE_INFO_BUFFER (info));
  g_mutex_unlock (&api->lock);
  return GST_PAD_PROBE_OK;
}

Api *
api_new (GstElement * source, GstPad * pictures, gboolean allow_prompts, ApiCount count,
    gpointer user_data, Http * http)
{
  Api *api = g_new0 (Api, 1);

  api->source = source;
  api->allow_prompts = allow_prompts;
  api->count = count;
  api->user_data = user_data;
  api->pictures = pictures;
  api->instance = g_uuid_string_random ();
  api->started = api->prompts_filled = g_get_monotonic_time ();
  api->prompts_left = PROMPTS_AT_ONCE;
  api->model = g_strdup ("");
  api->knows = g_strdup ("");
  g_queue_init (&api->shown);
  g_queue_init (&api->queued);
  g_queue_init (&api->warnings);
  g_mutex_init (&api->lock);
  api->probe = gst_pad_add_probe (pictures, GST_PAD_PROBE_TYPE_BUFFER, keep_picture, api,
      NULL);

  http_add (http, "POST", "/prompt", TRUE, post_prompt, api);
  http_add (http, "GET", "/stats", TRUE, get_stats, api);
  http_add (http, "GET", "/metrics", TRUE, get_metrics, api);
  http_add (http, "GET", "/snapshot.jpg", TRUE, get_snapshot, api);
  http_add (http, "GET", "/preview.jpg", TRUE, get_preview, api);
  http_add (http, "GET", "/storyboard", TRUE, get_storyboard, api);
  return api;
}

void
api_settle (Api * api)
{
  while (api && (api->restarting || api->snapshots))
    g_main_context_iteration (NULL, TRUE);
}

void
api_free (Api * api)
{
  if (!api)
    return;
  gst_pad_remove_probe (api->pictures, api->probe);
  g_queue_clear_full (&api->shown, entry_free);
  g_queue_clear_full (&api->queued, entry_free);
  g_queue_clear_full (&api->warnings, g_free);
  gst_clear_buffer (&api->picture);
  g_clear_pointer (&api->preview, gst_structure_free);
  g_mutex_clear (&api->lock);
  g_free (api->refusal);
  g_free (api->instance);
  g_free (api->model);
  g_free (api->knows);
  g_free (api);
}
