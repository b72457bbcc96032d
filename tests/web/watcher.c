/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * watcher: a WHEP player without a browser, GStreamer's webrtcbin at the other end.
 *
 * usage: watcher URL SECONDS
 *
 * Prints how many pictures were decoded in that time from the first one on, and the longest time
 * between two, in milliseconds.
 */
#define GST_USE_UNSTABLE_API
#include <gst/gst.h>
#include <gst/sdp/sdp.h>
#include <gst/webrtc/webrtc.h>
#include <libsoup/soup.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OFFER_CAPS "application/x-rtp,media=video,encoding-name=H264,clock-rate=90000," \
    "payload=96,packetization-mode=(string)1,profile-level-id=(string)42e01f"
#define FIRST_SECONDS 20

static GMainLoop *loop;
static GstElement *pipeline, *webrtc;
static const char *url;
static gint pictures;           /* all atomic */
static gint last_ms, gap_ms;
static int seconds;

static G_NORETURN void
die (const gchar * what)
{
  fprintf (stderr, "watcher: %s\n", what);
  exit (1);
}

static gint
now_ms (void)
{
  return g_get_monotonic_time () / 1000;
}

static gboolean
end (gpointer user_data)
{
  g_main_loop_quit (loop);
  return G_SOURCE_REMOVE;
}

static gboolean
begin (gpointer user_data)
{
  g_timeout_add_seconds (seconds, end, NULL);
  return G_SOURCE_REMOVE;
}

static gboolean
give_up (gpointer user_data)
{
  if (!g_atomic_int_get (&pictures))
    die ("no picture");
  return G_SOURCE_REMOVE;
}

static void
count (GstElement * sink, GstBuffer * buffer, GstPad * pad, gpointer user_data)
{
  gint now = now_ms ();

  if (g_atomic_int_add (&pictures, 1) == 0)
    g_idle_add (begin, NULL);
  else if (now - g_atomic_int_get (&last_ms) > g_atomic_int_get (&gap_ms))
    g_atomic_int_set (&gap_ms, now - g_atomic_int_get (&last_ms));
  g_atomic_int_set (&last_ms, now);
}

static void
add_sink (GstElement * element, GstPad * pad, gpointer user_data)
{
  GstElement *bin = gst_parse_bin_from_description ("rtph264depay ! h264parse ! openh264dec "
      "! fakesink name=sink sync=false signal-handoffs=true", TRUE, NULL);
  GstElement *sink = gst_bin_get_by_name (GST_BIN (bin), "sink");
  GstPad *in;

  g_signal_connect (sink, "handoff", G_CALLBACK (count), NULL);
  gst_bin_add (GST_BIN (pipeline), bin);
  gst_element_sync_state_with_parent (bin);
  in = gst_element_get_static_pad (bin, "sink");
  gst_pad_link (pad, in);
  gst_object_unref (in);
  gst_object_unref (sink);
}

static gpointer
ask (const gchar * action, gpointer argument, const gchar * field)
{
  GstPromise *promise = gst_promise_new ();
  gpointer description = NULL;

  g_signal_emit_by_name (webrtc, action, argument, promise);
  gst_promise_wait (promise);
  if (field)
    gst_structure_get (gst_promise_get_reply (promise), field,
        GST_TYPE_WEBRTC_SESSION_DESCRIPTION, &description, NULL);
  gst_promise_unref (promise);
  return description;
}

/* Returns where to leave */
static gchar *
join (SoupSession * session)
{
  GstWebRTCRTPTransceiver *transceiver;
  GstWebRTCSessionDescription *offer;
  GstCaps *caps = gst_caps_from_string (OFFER_CAPS);
  SoupMessage *msg = soup_message_new ("POST", url);
  GstSDPMessage *sdp;
  GBytes *body, *answer;
  gchar *text;

  g_signal_emit_by_name (webrtc, "add-transceiver",
      GST_WEBRTC_RTP_TRANSCEIVER_DIRECTION_RECVONLY, caps, &transceiver);
  offer = ask ("create-offer", NULL, "offer");
  ask ("set-local-description", offer, NULL);
  text = gst_sdp_message_as_text (offer->sdp);
  body = g_bytes_new_take (text, strlen (text));
  soup_message_set_request_body_from_bytes (msg, "application/sdp", body);
  answer = soup_session_send_and_read (session, msg, NULL, NULL);
  if (!answer || soup_message_get_status (msg) != 201)
    die (answer ? g_strndup (g_bytes_get_data (answer, NULL), g_bytes_get_size (answer)) :
        "no answer");
  gst_sdp_message_new (&sdp);
  gst_sdp_message_parse_buffer (g_bytes_get_data (answer, NULL),
      g_bytes_get_size (answer), sdp);
  ask ("set-remote-description",
      gst_webrtc_session_description_new (GST_WEBRTC_SDP_TYPE_ANSWER, sdp), NULL);
  return g_uri_resolve_relative (url,
      soup_message_headers_get_one (soup_message_get_response_headers (msg), "Location"),
      G_URI_FLAGS_NONE, NULL);
}

int
main (int argc, char **argv)
{
  SoupSession *session = soup_session_new ();
  gchar *place;

  gst_init (&argc, &argv);
  if (argc != 3)
    die ("usage: watcher URL SECONDS");
  url = argv[1];
  seconds = atoi (argv[2]);
  loop = g_main_loop_new (NULL, FALSE);
  pipeline = gst_pipeline_new (NULL);
  webrtc = gst_element_factory_make ("webrtcbin", NULL);
  g_object_set (webrtc, "bundle-policy", GST_WEBRTC_BUNDLE_POLICY_MAX_BUNDLE, NULL);
  g_signal_connect (webrtc, "pad-added", G_CALLBACK (add_sink), NULL);
  gst_bin_add (GST_BIN (pipeline), webrtc);
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  place = join (session);
  g_timeout_add_seconds (FIRST_SECONDS, give_up, NULL);
  g_main_loop_run (loop);
  printf ("%d pictures, %d ms\n", pictures, gap_ms);
  soup_session_send_and_read (session, soup_message_new ("DELETE", place), NULL, NULL);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  return 0;
}
