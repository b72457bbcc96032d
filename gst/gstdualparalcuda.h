/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalcuda.h: frames in the memory of a GPU, for encoders and filters that
 * work there. Where the plugin was built without GstCuda there are none.
 *
 * A buffer of GstCuda's has a side in host memory too, and what is written there
 * is brought over when somebody downstream maps the other one. So whoever fills
 * buffers need not know, and the GPU may be another one than the model's, or the
 * model's device be a CPU.
 */
#pragma once

#include <gst/video/video.h>

G_BEGIN_DECLS

/** Whose GPU it is; not the engine's. */
typedef struct _GstCudaContext GstCudaContext;

#ifdef HAVE_GST_CUDA

/** Behind system memory, so that only those get it who take no other. */
#define GST_DUALPARAL_CUDA_CAPS "; " \
    "video/x-raw(memory:CUDAMemory), format = (string) { I420, NV12 }, " \
    GST_DUALPARAL_FRAME_COMMON ", colorimetry = (string) bt709"

/** The caps without those that cannot be had on this machine. Takes `caps`. */
GstCaps *gst_dualparal_cuda_possible (GstCaps * caps);

/** Whether an allocation query is for such memory. */
gboolean gst_dualparal_cuda_is_asked (GstQuery * query);

/** Answers it: downstream's pool where there is one, else one on the GPU that
 *  neighbours or the application use, else on the first of `devices` that is a
 *  GPU ("cpu,cuda:1"; NULL: none), else on the first there is. FALSE with a
 *  posted error. */
gboolean gst_dualparal_cuda_offer_pool (GstElement * element, GstQuery * query,
    const gchar * devices, GstCudaContext ** context);

/** For GstElement::set_context, and for context queries: FALSE for others. */
void gst_dualparal_cuda_set_context (GstElement * element, GstContext * from,
    GstCudaContext ** context);
gboolean gst_dualparal_cuda_query (GstElement * element, GstQuery * query,
    GstCudaContext * context);

#else

#define GST_DUALPARAL_CUDA_CAPS
#define gst_dualparal_cuda_possible(caps) (caps)
#define gst_dualparal_cuda_is_asked(query) (FALSE)
#define gst_dualparal_cuda_offer_pool(element, query, devices, context) (FALSE)
#define gst_dualparal_cuda_set_context(element, from, context)
#define gst_dualparal_cuda_query(element, query, context) (FALSE)

#endif

G_END_DECLS
