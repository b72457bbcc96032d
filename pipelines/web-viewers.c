/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define GST_USE_UNSTABLE_API
#include "web-viewers.h"

#include <gst/sdp/sdp.h>
#include <gst/video/video.h>
#include <gst/webrtc/webrtc.h>
#include <gio/gio.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <string.h>
#include "console.h"

/* Their names are this and what the viewer is called */
#define BIN_NAME "viewer-"
/* Two seconds of pictures. Lost packets may not cost more delay than a picture. What
 * puts several parts into a packet (aggregate-mode) is nothing that Chromium decodes. */
#define BIN "queue name=queue leaky=downstream max-size-buffers=32 max-size-bytes=0 " \
    "max-size-time=0 ! rtph264pay name=pay pt=%d ssrc=%u mtu=1200 config-interval=-1 " \
    "! application/x-rtp,media=video,encoding-name=H264,clock-rate=90000,payload=%d," \
    "ssrc=(uint)%u ! webrtcbin name=webrtc bundle-policy=max-bundle"
/* An offer has one part each for video and sound; what else there may be is refused */
#define MOST_MEDIA 4
#define ANSWER_SECONDS 5
/* From the answer to the connection, and between two reports of a viewer, which come
 * once a second */
#define CONNECT_SECONDS 15
#define SILENT_SECONDS 15

typedef struct
{
  Viewers *viewers;             /* main thread; NULL: removed */
  gchar *id;
  gchar *offer;
  GstElement *bin;
  GstPad *tee_pad;
  gint connected, needs_key, seen;      /* atomic; seconds */
  gint64 since;
  ViewersAnswer answer;
  gpointer user_data;

  GMutex lock;
  GCond changed;
  /* -- protected by lock */
  gboolean gathered;
} Viewer;

struct _Viewers
{
  GstElement *pipeline, *tee;
  gchar *address;
  guint most, pending, watching;
  GHashTable *all;              /* id: Viewer */
};

static Viewer *
viewer_new (void)
{
  Viewer *viewer = g_atomic_rc_box_new0 (Viewer);

  viewer->id = g_uuid_string_random ();
  viewer->needs_key = TRUE;
  g_mutex_init (&viewer->lock);
  g_cond_init (&viewer->changed);
  return viewer;
}

static void
viewer_clear (gpointer data)
{
  Viewer *viewer = data;

  gst_clear_object (&viewer->tee_pad);
  gst_clear_object (&viewer->bin);
  g_free (viewer->id);
  g_free (viewer->offer);
  g_mutex_clear (&viewer->lock);
  g_cond_clear (&viewer->changed);
}

static void
viewer_unref (gpointer viewer)
{
  g_atomic_rc_box_release_full (viewer, viewer_clear);
}

static void
viewer_unref_closure (gpointer viewer, GClosure * closure)
{
  viewer_unref (viewer);
}

static gint
seconds_now (void)
{
  return g_get_monotonic_time () / G_USEC_PER_SEC;
}

/* -- the offer */

/* How well a payload of an offer suits us; 0: not at all. We send constrained baseline,
 * which decoders of other profiles play too. */
static gint
rate_format (const GstSDPMedia * media, gint payload)
{
  GstCaps *caps = gst_sdp_media_get_caps_from_media (media, payload);
  const GstStructure *s = caps ? gst_caps_get_structure (caps, 0) : NULL;
  const gchar *profile;
  gint rate = 0;

  if (s && g_strcmp0 (gst_structure_get_string (s, "encoding-name"), "H264") == 0
      && g_strcmp0 (gst_structure_get_string (s, "packetization-mode"), "1") == 0) {
    profile = gst_structure_get_string (s, "profile-level-id");
    rate = profile && g_ascii_strncasecmp (profile, "42e0", 4) == 0 ? 3 :
        profile && g_str_has_prefix (profile, "42") ? 2 : 1;
  }
  gst_clear_caps (&caps);
  return rate;
}

static gint
choose_payload (const GstSDPMessage * offer)
{
  gint best = 0, chosen = -1;

  for (guint i = 0; i < gst_sdp_message_medias_len (offer); i++) {
    const GstSDPMedia *media = gst_sdp_message_get_media (offer, i);

    if (g_strcmp0 (gst_sdp_media_get_media (media), "video") != 0)
      continue;
    for (guint f = 0; f < gst_sdp_media_formats_len (media); f++) {
      guint64 payload;
      gint rate = 0;

      if (g_ascii_string_to_unsigned (gst_sdp_media_get_format (media, f), 10, 0,
              127, &payload, NULL))
        rate = rate_format (media, payload);
      if (rate > best) {
        best = rate;
        chosen = payload;
      }
    }
  }
  return chosen;
}

static gboolean
has (const GstSDPMessage * offer, const GstSDPMedia * media, const gchar * attribute)
{
  return gst_sdp_media_get_attribute_val (media, attribute)
      || gst_sdp_message_get_attribute_val (offer, attribute);
}

/* NULL, or what is wrong; webrtcbin takes less for granted than it checks */
static const gchar *
check_offer (const GstSDPMessage * offer)
{
  guint n = gst_sdp_message_medias_len (offer), videos = 0;

  if (n == 0 || n > MOST_MEDIA)
    return "the offer has no media, or more than four: expected one of video and at most "
        "some of audio";
  for (guint i = 0; i < n; i++) {
    const GstSDPMedia *media = gst_sdp_message_get_media (offer, i);
    const gchar *kind = gst_sdp_media_get_media (media);

    if (g_strcmp0 (kind, "video") == 0)
      videos++;
    else if (g_strcmp0 (kind, "audio") != 0)
      return "the offer has media that are neither video nor audio";
    if (!strstr (gst_sdp_media_get_proto (media) ? gst_sdp_media_get_proto (media) : "",
            "UDP/TLS/RTP/SAVPF"))
      return "the offer is not one of WebRTC: expected UDP/TLS/RTP/SAVPF";
    if (!has (offer, media, "ice-ufrag") || !has (offer, media, "ice-pwd")
        || !has (offer, media, "fingerprint") || !has (offer, media, "setup")
        || !gst_sdp_media_get_attribute_val (media, "mid"))
      return "the offer lacks one of ice-ufrag, ice-pwd, fingerprint, setup and mid";
  }
  return videos == 1 ? NULL : "expected an offer with one video";
}

/* -- one viewer */

/* Of one that joins or lost pictures: nothing until the next key frame */
static GstPadProbeReturn
wait_for_key (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  Viewer *viewer = user_data;

  if (!g_atomic_int_get (&viewer->connected))
    return GST_PAD_PROBE_DROP;
  if (g_atomic_int_get (&viewer->needs_key)) {
    if (GST_BUFFER_FLAG_IS_SET (GST_PAD_PROBE_INFO_BUFFER (info),
            GST_BUFFER_FLAG_DELTA_UNIT))
      return GST_PAD_PROBE_DROP;
    g_atomic_int_set (&viewer->needs_key, FALSE);
  }
  return GST_PAD_PROBE_OK;
}

static void
ask_for_key (Viewer * viewer)
{
  GstPad *pad = gst_element_get_static_pad (viewer->bin, "sink");

  g_atomic_int_set (&viewer->needs_key, TRUE);
  gst_pad_push_event (pad,
      gst_video_event_new_upstream_force_key_unit (GST_CLOCK_TIME_NONE, TRUE, 0));
  gst_object_unref (pad);
}

static void
on_overrun (GstElement * queue, Viewer * viewer)
{
  if (g_atomic_int_get (&viewer->connected)
      && g_atomic_int_compare_and_exchange (&viewer->needs_key, FALSE, TRUE))
    ask_for_key (viewer);
}

static void remove_viewer (Viewer * viewer, const gchar * why);

static gboolean
remove_closed (gpointer viewer)
{
  remove_viewer (viewer, NULL);
  return G_SOURCE_REMOVE;
}

static void
on_connection (GstElement * webrtc, GParamSpec * spec, Viewer * viewer)
{
  GstWebRTCPeerConnectionState state;

  g_object_get (webrtc, "connection-state", &state, NULL);
  if (state == GST_WEBRTC_PEER_CONNECTION_STATE_CONNECTED) {
    g_atomic_int_set (&viewer->seen, seconds_now ());
    if (g_atomic_int_compare_and_exchange (&viewer->connected, FALSE, TRUE))
      ask_for_key (viewer);
  } else if (state == GST_WEBRTC_PEER_CONNECTION_STATE_FAILED
      || state == GST_WEBRTC_PEER_CONNECTION_STATE_CLOSED) {
    g_idle_add_full (G_PRIORITY_DEFAULT, remove_closed, g_atomic_rc_box_acquire (viewer),
        viewer_unref);
  }
}

static void
on_gathering (GstElement * webrtc, GParamSpec * spec, Viewer * viewer)
{
  GstWebRTCICEGatheringState state;

  g_object_get (webrtc, "ice-gathering-state", &state, NULL);
  g_mutex_lock (&viewer->lock);
  viewer->gathered = state == GST_WEBRTC_ICE_GATHERING_STATE_COMPLETE;
  g_cond_broadcast (&viewer->changed);
  g_mutex_unlock (&viewer->lock);
}

static void
on_report (GstElement * rtpbin, guint session, guint ssrc, Viewer * viewer)
{
  g_atomic_int_set (&viewer->seen, seconds_now ());
}

static void
connect_to (gpointer object, const gchar * signal, gpointer callback, Viewer * viewer)
{
  g_signal_connect_data (object, signal, callback, g_atomic_rc_box_acquire (viewer),
      viewer_unref_closure, 0);
}

/* Where media comes from. Without this ICE would leave loopback out, which is all that a
 * machine without a network has. Browsers that never send from loopback (Firefox) reach
 * the other addresses of their own machine. */
static void
add_addresses (GstElement * webrtc, const gchar * address)
{
  GInetAddress *ip = g_inet_address_new_from_string (address);
  struct ifaddrs *interfaces = NULL;
  GObject *ice, *agent;
  gboolean added;

  g_object_get (webrtc, "ice-agent", &ice, NULL);
  g_object_get (ice, "agent", &agent, NULL);
  /* No router is asked to let others in, which each answer would wait for */
  g_object_set (agent, "upnp", FALSE, NULL);
  g_object_set (ice, "ice-tcp", FALSE, NULL);
  g_object_unref (agent);
  if (!g_inet_address_get_is_loopback (ip) && !g_inet_address_get_is_any (ip)) {
    g_signal_emit_by_name (ice, "add-local-ip-address", address, &added);
  } else if (getifaddrs (&interfaces) == 0) {
    for (struct ifaddrs * i = interfaces; i; i = i->ifa_next) {
      gint family = i->ifa_addr ? i->ifa_addr->sa_family : AF_UNSPEC;
      gchar host[NI_MAXHOST];

      if ((family == AF_INET || family == AF_INET6) && i->ifa_flags & IFF_UP
          && getnameinfo (i->ifa_addr, family == AF_INET ? sizeof (struct sockaddr_in) :
              sizeof (struct sockaddr_in6), host, sizeof host, NULL, 0,
              NI_NUMERICHOST) == 0 && !strchr (host, '%'))
        g_signal_emit_by_name (ice, "add-local-ip-address", host, &added);
    }
    freeifaddrs (interfaces);
  }
  g_object_unref (ice);
  g_object_unref (ip);
}

static gboolean
make_bin (Viewer * viewer, gint payload, GError ** error)
{
  /* webrtcbin would put another one into the answer */
  guint32 ssrc = g_random_int ();
  gchar *line = g_strdup_printf (BIN, payload, ssrc, payload, ssrc),
      *name = g_strconcat (BIN_NAME, viewer->id, NULL);
  GstElement *queue, *webrtc, *rtpbin;
  GstPad *pad;

  viewer->bin = gst_parse_bin_from_description (line, FALSE, error);
  if (viewer->bin) {
    gst_object_ref_sink (viewer->bin);
    gst_object_set_name (GST_OBJECT (viewer->bin), name);
    queue = gst_bin_get_by_name (GST_BIN (viewer->bin), "queue");
    webrtc = gst_bin_get_by_name (GST_BIN (viewer->bin), "webrtc");
    rtpbin = gst_bin_get_by_name (GST_BIN (webrtc), "rtpbin");
    pad = gst_element_get_static_pad (queue, "sink");
    gst_element_add_pad (viewer->bin, gst_ghost_pad_new ("sink", pad));
    gst_object_unref (pad);
    pad = gst_element_get_static_pad (queue, "src");
    gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_BUFFER, wait_for_key,
        g_atomic_rc_box_acquire (viewer), viewer_unref);
    gst_object_unref (pad);
    connect_to (queue, "overrun", on_overrun, viewer);
    connect_to (webrtc, "notify::connection-state", on_connection, viewer);
    connect_to (webrtc, "notify::ice-gathering-state", on_gathering, viewer);
    connect_to (rtpbin, "on-ssrc-active", on_report, viewer);
    gst_object_unref (rtpbin);
    gst_object_unref (webrtc);
    gst_object_unref (queue);
  }
  g_free (line);
  g_free (name);
  return viewer->bin != NULL;
}

/* -- the answer, in a thread of its own */

static gboolean
ask (GstElement * webrtc, const gchar * action, gpointer argument, const gchar * field,
    GstWebRTCSessionDescription ** description, GError ** error)
{
  GstPromise *promise = gst_promise_new ();
  const GstStructure *reply;
  GError *wrong = NULL;

  g_signal_emit_by_name (webrtc, action, argument, promise);
  gst_promise_wait (promise);
  reply = gst_promise_get_reply (promise);
  if (reply && gst_structure_has_field (reply, "error"))
    gst_structure_get (reply, "error", G_TYPE_ERROR, &wrong, NULL);
  if (!wrong && field && (!reply || !gst_structure_get (reply, field,
              GST_TYPE_WEBRTC_SESSION_DESCRIPTION, description, NULL)))
    wrong = g_error_new (GST_CORE_ERROR, GST_CORE_ERROR_FAILED, "no %s was made", field);
  gst_promise_unref (promise);
  if (wrong)
    g_propagate_error (error, wrong);
  return !wrong;
}

static gboolean
wait_gathered (Viewer * viewer)
{
  gint64 until = g_get_monotonic_time () + ANSWER_SECONDS * G_USEC_PER_SEC;
  gboolean gathered;

  g_mutex_lock (&viewer->lock);
  while (!viewer->gathered
      && g_cond_wait_until (&viewer->changed, &viewer->lock, until));
  gathered = viewer->gathered;
  g_mutex_unlock (&viewer->lock);
  return gathered;
}

/* The only transceiver that sends */
static void
send_only (GstElement * webrtc)
{
  GstWebRTCRTPTransceiver *transceiver = NULL;

  g_signal_emit_by_name (webrtc, "get-transceiver", 0, &transceiver);
  g_object_set (transceiver, "direction",
      GST_WEBRTC_RTP_TRANSCEIVER_DIRECTION_SENDONLY, "do-nack", TRUE, NULL);
  gst_object_unref (transceiver);
}

static gchar *
negotiate (Viewer * viewer, GstElement * webrtc, GstSDPMessage * sdp, GError ** error)
{
  GstWebRTCSessionDescription *offer =
      gst_webrtc_session_description_new (GST_WEBRTC_SDP_TYPE_OFFER, sdp), *answer =
      NULL, *local = NULL;
  gchar *text = NULL;

  send_only (webrtc);
  if (ask (webrtc, "set-remote-description", offer, NULL, NULL, error)
      && ask (webrtc, "create-answer", NULL, "answer", &answer, error)
      && ask (webrtc, "set-local-description", answer, NULL, NULL, error)) {
    if (wait_gathered (viewer)) {
      g_object_get (webrtc, "local-description", &local, NULL);
      text = gst_sdp_message_as_text (local->sdp);
      gst_webrtc_session_description_free (local);
    } else {
      g_set_error (error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED,
          "no address to send from was found");
    }
  }
  gst_webrtc_session_description_free (offer);
  if (answer)
    gst_webrtc_session_description_free (answer);
  return text;
}

typedef struct
{
  Viewer *viewer;
  GstElement *pipeline, *tee;
  gchar *address;
  guint status;
  gchar *text;
} Job;

static void
job_free (gpointer data)
{
  Job *job = data;

  viewer_unref (job->viewer);
  g_object_unref (job->pipeline);
  g_object_unref (job->tee);
  g_free (job->address);
  g_free (job->text);
  g_free (job);
}

static void
job_says (Job * job, guint status, const gchar * sentence)
{
  job->status = status;
  job->text = g_strdup (sentence);
}

static void
join (Job * job, gint payload, GstSDPMessage * sdp)
{
  Viewer *viewer = job->viewer;
  GError *error = NULL;
  GstElement *webrtc;
  GstPad *pad;
  gchar *text;

  if (!make_bin (viewer, payload, &error)) {
    gst_sdp_message_free (sdp);
    job_says (job, 500, error->message);
    g_error_free (error);
    return;
  }
  webrtc = gst_bin_get_by_name (GST_BIN (viewer->bin), "webrtc");
  add_addresses (webrtc, job->address);
  gst_bin_add (GST_BIN (job->pipeline), viewer->bin);
  gst_element_sync_state_with_parent (viewer->bin);
  text = negotiate (viewer, webrtc, sdp, &error);
  if (text) {
    viewer->tee_pad = gst_element_request_pad_simple (job->tee, "src_%u");
    pad = gst_element_get_static_pad (viewer->bin, "sink");
    gst_pad_link (viewer->tee_pad, pad);
    gst_object_unref (pad);
    job->status = 201;
    job->text = text;
  } else {
    job_says (job, 400, error->message);
    g_error_free (error);
  }
  gst_object_unref (webrtc);
}

static void
answer_in_thread (GTask * task, gpointer source, gpointer data, GCancellable * none)
{
  Job *job = data;
  GstSDPMessage *sdp;
  const gchar *wrong;
  gint payload;

  gst_sdp_message_new (&sdp);
  if (gst_sdp_message_parse_buffer ((const guint8 *) job->viewer->offer,
          strlen (job->viewer->offer), sdp) != GST_SDP_OK)
    wrong = "the body is not SDP";
  else
    wrong = check_offer (sdp);
  payload = wrong ? -1 : choose_payload (sdp);
  if (payload >= 0) {
    join (job, payload, sdp);   /* takes it */
  } else {
    job_says (job, wrong ? 400 : 406, wrong ? wrong : "the player does not offer H.264 with "
        "packetization-mode=1, which is what there is");
    gst_sdp_message_free (sdp);
  }
  g_task_return_boolean (task, TRUE);
}

/* -- what the first viewer would wait for: plugins that load, a key for DTLS */

static void
warm_in_thread (GTask * task, gpointer source, gpointer data, GCancellable * none)
{
  Job *job = data;
  Viewer *viewer = job->viewer;
  GstWebRTCSessionDescription *offer = NULL;
  GstElement *webrtc;

  if (make_bin (viewer, 96, NULL)) {
    webrtc = gst_bin_get_by_name (GST_BIN (viewer->bin), "webrtc");
    gst_element_set_state (viewer->bin, GST_STATE_READY);
    if (ask (webrtc, "create-offer", NULL, "offer", &offer, NULL))
      gst_webrtc_session_description_free (offer);
    gst_element_set_state (viewer->bin, GST_STATE_NULL);
    gst_object_unref (webrtc);
    gst_clear_object (&viewer->bin);
  }
  g_task_return_boolean (task, TRUE);
}

/* -- leaving, in a thread of its own: threads of the viewer's elements end */

static void
leave_in_thread (GTask * task, gpointer source, gpointer data, GCancellable * none)
{
  Job *job = data;
  Viewer *viewer = job->viewer;
  GstPad *pad;

  if (viewer->tee_pad) {
    pad = gst_element_get_static_pad (viewer->bin, "sink");
    gst_pad_unlink (viewer->tee_pad, pad);
    gst_element_release_request_pad (job->tee, viewer->tee_pad);
    gst_object_unref (pad);
  }
  if (viewer->bin) {
    gst_element_set_locked_state (viewer->bin, TRUE);
    gst_element_set_state (viewer->bin, GST_STATE_NULL);
    if (GST_OBJECT_PARENT (viewer->bin))
      gst_bin_remove (GST_BIN (job->pipeline), viewer->bin);
    /* Its handlers keep the viewer */
    gst_clear_object (&viewer->bin);
  }
  g_task_return_boolean (task, TRUE);
}

static void
run (Viewers * viewers, Viewer * viewer, GTaskThreadFunc work, GAsyncReadyCallback done)
{
  Job *job = g_new0 (Job, 1);
  GTask *task = g_task_new (NULL, NULL, done, viewers);

  job->viewer = g_atomic_rc_box_acquire (viewer);
  job->pipeline = g_object_ref (viewers->pipeline);
  job->tee = g_object_ref (viewers->tee);
  job->address = g_strdup (viewers->address);
  g_task_set_task_data (task, job, job_free);
  viewers->pending++;
  g_task_run_in_thread (task, work);
  g_object_unref (task);
}

static void
left (GObject * source, GAsyncResult * result, gpointer user_data)
{
  ((Viewers *) user_data)->pending--;
}

/* Main thread. Not before its answer is made. */
static void
remove_viewer (Viewer * viewer, const gchar * why)
{
  Viewers *viewers = viewer->viewers;

  if (!viewers || viewer->answer)
    return;
  if (why)
    console_say_limited ("a viewer is removed: %s", why);
  viewer->viewers = NULL;
  run (viewers, viewer, leave_in_thread, left);
  g_hash_table_remove (viewers->all, viewer->id);
}

static void
answered (GObject * source, GAsyncResult * result, gpointer user_data)
{
  Viewers *viewers = user_data;
  Job *job = g_task_get_task_data (G_TASK (result));
  Viewer *viewer = job->viewer;
  ViewersAnswer answer = viewer->answer;

  viewers->pending--;
  viewer->answer = NULL;
  viewer->since = g_get_monotonic_time ();
  answer (job->status, job->status == 201 ? viewer->id : NULL, job->text,
      viewer->user_data);
  if (job->status != 201)
    remove_viewer (viewer, NULL);
}

/* -- all viewers */

static gboolean
watch (gpointer user_data)
{
  Viewers *viewers = user_data;
  GList *all = g_hash_table_get_values (viewers->all);

  for (GList * l = all; l; l = l->next) {
    Viewer *viewer = l->data;
    gint silent = seconds_now () - g_atomic_int_get (&viewer->seen);

    if (viewer->answer)
      continue;
    if (g_atomic_int_get (&viewer->connected) && silent > SILENT_SECONDS)
      remove_viewer (viewer, "nothing is heard from it");
    else if (!g_atomic_int_get (&viewer->connected) && g_get_monotonic_time () -
        viewer->since > CONNECT_SECONDS * G_USEC_PER_SEC)
      remove_viewer (viewer, "it did not connect");
  }
  g_list_free (all);
  return G_SOURCE_CONTINUE;
}

Viewers *
viewers_new (GstElement * pipeline, GstElement * tee, const gchar * address,
    guint most)
{
  Viewers *viewers = g_new0 (Viewers, 1);
  Viewer *none = viewer_new ();

  viewers->pipeline = gst_object_ref (pipeline);
  viewers->tee = gst_object_ref (tee);
  viewers->address = g_strdup (address);
  viewers->most = most;
  viewers->all = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, viewer_unref);
  viewers->watching = g_timeout_add_seconds (1, watch, viewers);
  run (viewers, none, warm_in_thread, left);
  viewer_unref (none);
  return viewers;
}

void
viewers_add (Viewers * viewers, const gchar * offer, ViewersAnswer answer,
    gpointer user_data)
{
  Viewer *viewer;
  gchar *sentence;

  if (g_hash_table_size (viewers->all) >= viewers->most) {
    sentence = g_strdup_printf ("%u watch already, which is the most allowed; "
        "--max-sessions changes that", viewers->most);
    answer (503, NULL, sentence, user_data);
    g_free (sentence);
    return;
  }
  viewer = viewer_new ();
  viewer->viewers = viewers;
  viewer->offer = g_strdup (offer);
  viewer->answer = answer;
  viewer->user_data = user_data;
  g_hash_table_insert (viewers->all, viewer->id, viewer);
  run (viewers, viewer, answer_in_thread, answered);
}

gboolean
viewers_remove (Viewers * viewers, const gchar * id)
{
  Viewer *viewer = g_hash_table_lookup (viewers->all, id);

  if (viewer)
    remove_viewer (viewer, NULL);
  return viewer != NULL;
}

guint
viewers_count (Viewers * viewers)
{
  return g_hash_table_size (viewers->all);
}

gboolean
viewers_failed (Viewers * viewers, GstObject * object, gboolean error)
{
  for (; object; object = GST_OBJECT_PARENT (object))
    if (GST_OBJECT_NAME (object)
        && g_str_has_prefix (GST_OBJECT_NAME (object), BIN_NAME)) {
      if (error)
        viewers_remove (viewers, GST_OBJECT_NAME (object) + strlen (BIN_NAME));
      return TRUE;
    }
  return FALSE;
}

void
viewers_free (Viewers * viewers)
{
  GList *all;

  if (!viewers)
    return;
  g_source_remove (viewers->watching);
  do {
    all = g_hash_table_get_values (viewers->all);
    for (GList * l = all; l; l = l->next)
      remove_viewer (l->data, NULL);
    g_list_free (all);
    if (viewers->pending)
      g_main_context_iteration (NULL, TRUE);
  } while (viewers->pending || g_hash_table_size (viewers->all));
  g_hash_table_unref (viewers->all);
  gst_object_unref (viewers->pipeline);
  gst_object_unref (viewers->tee);
  g_free (viewers->address);
  g_free (viewers);
}
