/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalcuda.h: frames in GPU memory, for encoders and filters that work there. A plugin built
 * without GstCuda has none.
 *
 * A buffer of GstCuda has a copy in host memory too. What is written there is uploaded when an
 * element downstream maps the buffer for the GPU. So the element fills such buffers like others. The
 * GPU need not be the model's, and the model may run on a CPU.
 */
#pragma once

#include <gst/video/video.h>

G_BEGIN_DECLS

/** GstCuda's context for a GPU; the engine has its own. */
typedef struct _GstCudaContext GstCudaContext;

#ifdef HAVE_GST_CUDA

/** After system memory, so that it is used only if downstream accepts nothing else. */
#define GST_DUALPARAL_CUDA_CAPS "; " \
    "video/x-raw(memory:CUDAMemory), format = (string) { I420, NV12 }, " \
    GST_DUALPARAL_FRAME_COMMON ", colorimetry = (string) bt709"

/** Removes the caps that this machine cannot provide. Takes `caps`. */
GstCaps *gst_dualparal_cuda_possible (GstCaps * caps);

/** Whether an allocation query is for such memory. */
gboolean gst_dualparal_cuda_is_asked (GstQuery * query);

/** Answers it: with downstream's pool, or else a new one on the GPU that neighbours or the
 *  application use, or else on the first GPU in `devices` ("cpu,cuda:1"; NULL: none), or else on the
 *  first GPU of the machine. FALSE with a posted error. */
gboolean gst_dualparal_cuda_offer_pool (GstElement * element, GstQuery * query,
    const gchar * devices, GstCudaContext ** context);

/** For GstElement::set_context and for context queries; FALSE for other queries. */
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
