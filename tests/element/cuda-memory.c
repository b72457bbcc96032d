/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Frames in the memory of a GPU: only for who takes no other, the same pictures as
 * anywhere else, and a sentence where there is no GPU. The model is on the CPU, so
 * that nothing but the memory differs. What needs a GPU is skipped elsewhere.
 */
#include "element.h"

#define ON_GPU "video/x-raw(memory:CUDAMemory)"
#define SET "devices=cpu " FAST
#define SIZE ", format=NV12, width=64, height=48"

#ifdef HAVE_GST_CUDA
#include <gst/cuda/gstcudautils.h>
#define HAVE_GPU gst_cuda_load_library ()
#define IS_ON_GPU(buffer) gst_is_cuda_memory (gst_buffer_peek_memory (buffer, 0))
#else
#define HAVE_GPU FALSE
#define IS_ON_GPU(buffer) FALSE
#endif

static GstBuffer *
first_frame (GstHarness * h)
{
  gst_harness_play (h);
  return gst_harness_pull (h);
}

static GstCapsFeatures *
features_of (GstHarness * h)
{
  GstCaps *caps = gst_pad_get_current_caps (h->sinkpad);
  GstCapsFeatures *features = gst_caps_features_copy (gst_caps_get_features
      (caps, 0));

  gst_caps_unref (caps);
  return features;
}

/* Downstream that takes system memory too, gets that */
GST_START_TEST (test_not_needed)
{
  static const gchar *const downstream[] = { "ANY", "video/x-raw(ANY)" SIZE,
    "video/x-raw" SIZE "; " ON_GPU SIZE, ON_GPU SIZE "; video/x-raw" SIZE
  };
  GstCapsFeatures *features;
  GstBuffer *buffer;
  GstHarness *h;

  h = source_harness (SET, downstream[__i__]);
  buffer = first_frame (h);
  features = features_of (h);
  fail_unless (gst_caps_features_is_equal (features,
          GST_CAPS_FEATURES_MEMORY_SYSTEM_MEMORY));
  fail_if (IS_ON_GPU (buffer));
  gst_caps_features_free (features);
  gst_buffer_unref (buffer);
  gst_harness_teardown (h);
}

GST_END_TEST;

GST_START_TEST (test_without_gpu)
{
  if (!HAVE_GPU)
    assert_not_negotiated (SET, ON_GPU SIZE);
}

GST_END_TEST;

GST_START_TEST (test_same_pictures)
{
  static const gchar *const formats[] = { "NV12", "I420" };
  gchar *sums[2], *caps;
  GstBuffer *buffer;
  GstHarness *h;
  gint i, n;

  if (!HAVE_GPU) {
    GST_INFO ("skipped: no GPU");
    return;
  }
  for (i = 0; i < 2; i++) {
    /* Rows of 48 bytes: not as a GPU would have them */
    caps = g_strdup_printf ("%s, format=%s, width=48, height=32",
        i ? ON_GPU : "video/x-raw", formats[__i__]);
    h = source_harness (SET "num-frames=12", caps);
    gst_harness_play (h);
    for (n = 0; n < 5; n++) {
      buffer = gst_harness_pull (h);
      fail_unless_equals_int (IS_ON_GPU (buffer), i);
      gst_buffer_unref (buffer);
    }
    sums[i] = checksum_frames (h, 5);
    gst_harness_teardown (h);
    g_free (caps);
  }
  fail_unless_equals_string (sums[0], sums[1]);
  g_free (sums[0]);
  g_free (sums[1]);
}

GST_END_TEST;

/* To an element that works there, placeholders and a change of size included */
GST_START_TEST (test_pipeline)
{
  GstElementFactory *factory = gst_element_factory_find ("cudadownload");
  GstElement *pipeline;

  if (!HAVE_GPU || !factory) {
    GST_INFO ("skipped: no GPU, or no elements for it");
    gst_clear_object (&factory);
    return;
  }
  gst_object_unref (factory);
  pipeline = launch ("dualparalsrc is-live=true startup-policy=placeholder "
      SET "num-frames=20 ! " ON_GPU SIZE " ! cudadownload ! fakesink");
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  gst_message_unref (wait_message (pipeline, GST_MESSAGE_EOS, 30));
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);
}

GST_END_TEST;

static Suite *
cuda_memory_suite (void)
{
  Suite *s = suite_create ("cuda-memory");
  TCase *tc = test_case_new (s);

  tcase_add_loop_test (tc, test_not_needed, 0, 4);
  tcase_add_test (tc, test_without_gpu);
  tcase_add_loop_test (tc, test_same_pictures, 0, 2);
  tcase_add_test (tc, test_pipeline);
  return s;
}

GST_CHECK_MAIN (cuda_memory);
