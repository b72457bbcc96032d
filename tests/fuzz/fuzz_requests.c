/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a client of the RTSP server sends: messages, and the parameters in their bodies. The source is part of this program because what
 * reads parameters is its own.
 */
#include "fuzz.h"
#include "pipelines/rtsp-clients.c"
#include "pipelines/rtsp-requests.h"

static void
read_parameters (const guint8 *body, gsize size)
{
  GstRTSPMessage request = { 0 };
  g_autofree gchar *prompt = NULL, *copy = g_malloc (size + 1);

  gst_rtsp_message_init_request (&request, GST_RTSP_SET_PARAMETER, "rtsp://localhost/");
  memcpy (copy, body, size);
  copy[size] = 0;
  gst_rtsp_message_set_body (&request, (guint8 *) copy, size + 1);      /* as GStreamer reads one */
  parse_parameters (&request, &prompt);
  g_assert_true (prompt == NULL || strchr (prompt, '\n') == NULL);
  gst_rtsp_message_unset (&request);
}

static gboolean
next_message (GObject *stream, gpointer data)
{
  return G_SOURCE_CONTINUE;
}

/* Everything that goes through came, in order, without a NUL in a header. */
int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autoptr (GInputStream) input = g_memory_input_stream_new_from_data (data, size, NULL);
  g_autoptr (GOutputStream) output = g_memory_output_stream_new_resizable ();
  g_autoptr (GIOStream) client = g_simple_io_stream_new (input, output);
  g_autoptr (RequestStream) stream = request_stream_new (client, "fuzz");
  g_autoptr (GSource) source = g_pollable_input_stream_create_source (G_POLLABLE_INPUT_STREAM (stream), NULL);
  guint8 buffer[64];
  gsize total = 0;

  for (gsize messages = 0; messages <= size;) {
    gssize n = g_pollable_input_stream_read_nonblocking (G_POLLABLE_INPUT_STREAM (stream), buffer, 1 + total % sizeof buffer, NULL, NULL);

    if (n == 0)
      break;
    total += MAX (n, 0);
    if (n < 0) {                /* the next message */
      messages++;
      source->source_funcs->dispatch (source, (GSourceFunc) (void (*) (void)) next_message, NULL);
    }
  }
  g_assert_cmpuint (total, <=, size);
  read_parameters (data, size);
  return 0;
}
