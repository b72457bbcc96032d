/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalcuda.h"

#include <gst/cuda/gstcudabufferpool.h>
#include <gst/cuda/gstcudautils.h>
#include <string.h>
#include "gstdualparalmessages.h"

#define GST_CAT_DEFAULT gst_dualparal_src_debug

/* Without a driver GstCuda would search for it each time, and it takes no lock. Its pools need the
 * allocator, which is registered here. */
static gpointer
gst_dualparal_cuda_load (gpointer unused)
{
  if (!gst_cuda_load_library ())
    return GINT_TO_POINTER (FALSE);
  gst_cuda_memory_init_once ();
  return GINT_TO_POINTER (TRUE);
}

static gboolean
gst_dualparal_cuda_is_there (void)
{
  static GOnce once = G_ONCE_INIT;

  return GPOINTER_TO_INT (g_once (&once, gst_dualparal_cuda_load, NULL));
}

static gboolean
gst_dualparal_cuda_is_cuda (const GstCaps * caps, guint i)
{
  return gst_caps_features_contains (gst_caps_get_features (caps, i),
      GST_CAPS_FEATURE_MEMORY_CUDA_MEMORY);
}

GstCaps *
gst_dualparal_cuda_possible (GstCaps * caps)
{
  guint i;

  if (gst_dualparal_cuda_is_there ())
    return caps;
  caps = gst_caps_make_writable (caps);
  for (i = gst_caps_get_size (caps); i > 0; i--) {
    if (gst_dualparal_cuda_is_cuda (caps, i - 1))
      gst_caps_remove_structure (caps, i - 1);
  }
  return caps;
}

gboolean
gst_dualparal_cuda_is_asked (GstQuery * query)
{
  GstCaps *caps;

  gst_query_parse_allocation (query, &caps, NULL);
  return gst_dualparal_cuda_is_cuda (caps, 0);
}

gboolean
gst_dualparal_cuda_offer_pool (GstElement * element, GstQuery * query,
    const gchar * devices, GstCudaContext ** context)
{
  const gchar *gpu = devices ? strstr (devices, "cuda:") : NULL;
  GstBufferPool *pool = NULL;
  GstStructure *config;
  GstVideoInfo info;
  GstCaps *caps;
  guint size, min = 0, max = 0;

  gst_query_parse_allocation (query, &caps, NULL);
  gst_video_info_from_caps (&info, caps);
  if (!gst_cuda_ensure_element_context (element, gpu ?
          (gint) g_ascii_strtoll (gpu + 5, NULL, 10) : -1, context)) {
    GST_ELEMENT_ERROR (element, RESOURCE, OPEN_READ_WRITE,
        ("Downstream asks for GPU memory, but no GPU works."),
        ("devices: %s; without memory:CUDAMemory in the caps no GPU is needed",
            devices ? devices : "auto"));
    return FALSE;
  }

  size = GST_VIDEO_INFO_SIZE (&info);
  if (gst_query_get_n_allocation_pools (query) > 0)
    gst_query_parse_nth_allocation_pool (query, 0, &pool, NULL, &min, &max);
  if (pool && !GST_IS_CUDA_BUFFER_POOL (pool))
    gst_clear_object (&pool);
  if (!pool)
    pool = gst_cuda_buffer_pool_new (*context);

  config = gst_buffer_pool_get_config (pool);
  gst_buffer_pool_config_set_params (config, caps, size, min, max);
  gst_buffer_pool_config_add_option (config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  if (gst_buffer_pool_set_config (pool, config)) {
    /* Rows may be longer than asked for */
    config = gst_buffer_pool_get_config (pool);
    gst_buffer_pool_config_get_params (config, NULL, &size, NULL, NULL);
    gst_structure_free (config);
  }
  while (gst_query_get_n_allocation_pools (query) > 0)
    gst_query_remove_nth_allocation_pool (query, 0);
  gst_query_add_allocation_pool (query, pool, size, min, max);
  gst_object_unref (pool);
  return TRUE;
}

void
gst_dualparal_cuda_set_context (GstElement * element, GstContext * from,
    GstCudaContext ** context)
{
  gst_cuda_handle_set_context (element, from, -1, context);
}

gboolean
gst_dualparal_cuda_query (GstElement * element, GstQuery * query,
    GstCudaContext * context)
{
  return gst_cuda_handle_context_query (element, query, context);
}
