/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Shapes: t frames of h x w pixels, ci channels in and co out. In bfloat16 with channels in eights a convolution is a graph of cuDNN's:
 * the sum, its bias and what is added, in one pass, planned once for each shape and shared by the layers of that shape. Where the
 * window has no time in it, or time only, the graph has one dimension less, for which cuDNN knows more engines.
 */
#include "conv.h"
#include "graph.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct DpConv
{
  DpConvSpec spec;              /* its host pointers are not used after packing */
  DpConvKind kind;
  void *weights;
  float *bias;                  /* [co], zeros where the layer has none */
};

/* What a plan is made for. */
typedef struct
{
  int ci, co, kt, kh, kw;
  int t, h, w;                  /* of the input */
  int add;
} Shape;

struct DpConvPlan
{
  struct DpConvPlan *next;
  Shape shape;
  bool fused;                   /* bias and add are in it; else dp_conv_finish() follows */
  DpPlan plan;
};

typedef struct DpConvPlan Plan;

enum { UID_X = 1, UID_W, UID_Y, UID_BIAS, UID_ADD, UID_SUM, UID_BIASED };

/* ---- plans ---- */

/* The graph's view of a shape: [n, ci, ...] with `dims` dimensions of space and time. */
typedef struct
{
  int dims;
  int64_t x[5], w[5], y[5], bias[5], pad[3];
} View;

static View
view_of (const Shape *s)
{
  int out_t = s->t - s->kt + 1;

  if (s->kt == 1)
    return (View) { 2, { s->t, s->ci, s->h, s->w }, { s->co, s->ci, s->kh, s->kw }, { s->t, s->co, s->h, s->w }, { 1, s->co, 1, 1 },
      { s->kh / 2, s->kw / 2 } };
  if (s->kh == 1 && s->kw == 1)
    return (View) { 2, { 1, s->ci, s->t, (int64_t) s->h * s->w }, { s->co, s->ci, s->kt, 1 }, { 1, s->co, out_t, (int64_t) s->h * s->w },
      { 1, s->co, 1, 1 }, { 0, 0 } };
  return (View) { 3, { 1, s->ci, s->t, s->h, s->w }, { s->co, s->ci, s->kt, s->kh, s->kw }, { 1, s->co, out_t, s->h, s->w },
    { 1, s->co, 1, 1, 1 }, { 0, s->kh / 2, s->kw / 2 } };
}

/* A tensor whose channels, the second dimension, lie closest together. */
static cudnnBackendDescriptor_t
tensor (DpGraph *graph, int64_t uid, cudnnDataType_t type, int n_dims, const int64_t *dims)
{
  DpGraphTensor t = { .uid = uid, .type = type, .n_dims = n_dims, .is_virtual = uid >= UID_SUM };
  int64_t stride = dims[1];

  memcpy (t.dims, dims, n_dims * sizeof *dims);
  t.strides[1] = 1;
  for (int i = n_dims - 1; i >= 2; i--) {
    t.strides[i] = stride;
    stride *= dims[i];
  }
  t.strides[0] = stride;
  return dp_graph_tensor (graph, &t);
}

static void
append_conv (DpGraph *graph, const View *v, cudnnBackendDescriptor_t y)
{
  cudnnBackendDescriptor_t x = tensor (graph, UID_X, CUDNN_DATA_BFLOAT16, v->dims + 2, v->x);
  cudnnBackendDescriptor_t w = tensor (graph, UID_W, CUDNN_DATA_BFLOAT16, v->dims + 2, v->w);
  cudnnBackendDescriptor_t conv = dp_graph_new (graph, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR), op;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  int64_t ones[3] = { 1, 1, 1 }, dims = v->dims;
  float alpha = 1, beta = 0;

  dp_graph_set (graph, conv, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  dp_graph_set (graph, conv, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  dp_graph_set (graph, conv, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
  dp_graph_set (graph, conv, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, dims, ones);
  dp_graph_set (graph, conv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, dims, ones);
  dp_graph_set (graph, conv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, dims, v->pad);
  dp_graph_set (graph, conv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, dims, v->pad);
  dp_graph_finalize (graph, conv);
  op = dp_graph_new (graph, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &conv);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &alpha);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &beta);
  dp_graph_append (graph, op);
}

static bool
build (DpDeviceCuda *dev, Plan *plan, bool fused, char *error, size_t error_size)
{
  View v = view_of (&plan->shape);
  DpGraph graph = { .handle = dev->cudnn };
  cudnnBackendDescriptor_t y = tensor (&graph, UID_Y, CUDNN_DATA_BFLOAT16, v.dims + 2, v.y);
  bool ok;

  if (fused) {
    cudnnBackendDescriptor_t sum = tensor (&graph, UID_SUM, CUDNN_DATA_FLOAT, v.dims + 2, v.y);
    cudnnBackendDescriptor_t bias = tensor (&graph, UID_BIAS, CUDNN_DATA_FLOAT, v.dims + 2, v.bias), biased = y;

    append_conv (&graph, &v, sum);
    if (plan->shape.add)
      biased = tensor (&graph, UID_BIASED, CUDNN_DATA_FLOAT, v.dims + 2, v.y);
    dp_graph_pointwise (&graph, CUDNN_POINTWISE_ADD, sum, bias, biased);
    if (plan->shape.add)
      dp_graph_pointwise (&graph, CUDNN_POINTWISE_ADD, biased, tensor (&graph, UID_ADD, CUDNN_DATA_BFLOAT16, v.dims + 2, v.y), y);
  } else {
    append_conv (&graph, &v, y);
  }
  ok = dp_plan_build (&plan->plan, &graph);
  plan->fused = fused;
  snprintf (error, error_size, "%s", graph.error);
  dp_graph_clear (&graph);
  return ok;
}

static void
plan_free (Plan *plan)
{
  dp_plan_clear (&plan->plan);
  free (plan);
}

void
conv_close_cuda (DpDeviceCuda *dev)
{
  while (dev->convs) {
    Plan *plan = dev->convs;

    dev->convs = plan->next;
    plan_free (plan);
  }
}

/* Bytes of output in front of an unfused plan's own workspace: where y already holds what is to be added. */
static size_t
scratch_size (const Plan *plan)
{
  const Shape *s = &plan->shape;

  return plan->fused || !s->add ? 0 : ((size_t) (s->t - s->kt + 1) * s->h * s->w * s->co * 2 + 255) / 256 * 256;
}

/* Whether cuDNN is faster with bias and sum inside the graph than dp_conv_finish() is behind it. Its engine for such graphs is a third
 * slower than the plain one at 192 channels (1.77 against 1.23 ms at 192 -> 192, 240x416, on an H200), and as good or better at 96 and
 * 384. */
static bool
fuses_well (const Shape *s)
{
  return s->ci != 192 || s->co > 192;
}

/* Found, or made. NULL and a latched error. */
static Plan *
plan_for (DpDeviceCuda *dev, const DpConv *conv, const DpConvArgs *args)
{
  const DpConvSpec *k = &conv->spec;
  Shape shape = { k->ci, k->co, k->kt, k->kh, k->kw, args->t, args->h, args->w, args->add != NULL };
  char error[160];
  Plan *plan;
  bool fused;

  for (plan = dev->convs; plan; plan = plan->next)
    if (memcmp (&plan->shape, &shape, sizeof shape) == 0)
      return plan;
  dev->base.allocations++;
  plan = calloc (1, sizeof *plan);
  if (plan == NULL) {
    dp_device_fail (&dev->base, "%s: convolution: not enough host memory", dev->base.name);
    return NULL;
  }
  plan->shape = shape;
  fused = fuses_well (&shape);
  if (!build (dev, plan, fused, error, sizeof error) && !build (dev, plan, !fused, error, sizeof error)) {
    dp_device_fail (&dev->base, "%s: convolution of %d to %d channels by %dx%dx%d over %dx%dx%d: cuDNN says %s", dev->base.name, k->ci,
        k->co, k->kt, k->kh, k->kw, args->t, args->h, args->w, error);
    plan_free (plan);
    return NULL;
  }
  if (dp_cuda_workspace (dev, scratch_size (plan) + plan->plan.workspace) == NULL) {
    plan_free (plan);
    return NULL;
  }
  plan->next = dev->convs;
  dev->convs = plan;
  return plan;
}

static void
run_cudnn (DpDeviceCuda *dev, const DpConv *conv, const DpConvArgs *args)
{
  static const int64_t uids[] = { UID_X, UID_W, UID_Y, UID_BIAS, UID_ADD };
  Plan *plan = plan_for (dev, conv, args);
  size_t n = (size_t) (args->t - conv->spec.kt + 1) * args->h * args->w;
  char *scratch = plan ? dp_cuda_workspace (dev, scratch_size (plan) + plan->plan.workspace) : NULL;

  if (scratch == NULL)
    return;
  void *sum = scratch_size (plan) ? scratch : args->y;
  void *pointers[] = { (void *) args->x, conv->weights, sum, conv->bias, (void *) args->add };
  if (dp_cuda_cudnn_ok (dev, dp_plan_run (&plan->plan, dev->cudnn, !plan->fused ? 3 : args->add ? 5 : 4, uids, pointers,
              scratch + scratch_size (plan)), "convolution") && !plan->fused)
    dp_conv_finish (dev, n, conv->spec.co, sum, conv->bias, args->add, args->y);
}

/* ---- layers ---- */

static DpConvKind
kind_of (const DpConvSpec *spec)
{
  if (spec->type != DP_TYPE_BF16 || spec->ci % 8 != 0)
    return DP_CONV_PLAIN;
  if (spec->co <= DP_CONV_NARROW_MAX && spec->kt <= 3 && dp_conv_narrow_chunk (spec) > 0)
    return DP_CONV_NARROW;
  return spec->co % 8 == 0 ? DP_CONV_CUDNN : DP_CONV_PLAIN;
}

static bool
fill (DpDeviceCuda *dev, DpConv *conv, void *staged)
{
  const DpConvSpec *spec = &conv->spec;
  size_t n = (size_t) spec->co * spec->ci * spec->kt * spec->kh * spec->kw;

  if (!dp_cuda_upload_weight (dev, &spec->weight, n, spec->type, staged)
      || (dp_weight_exists (&spec->bias) && !dp_cuda_upload_weight (dev, &spec->bias, spec->co, DP_TYPE_F32, conv->bias))
      || (!dp_weight_exists (&spec->bias) && !dp_cuda_ok (dev, cudaMemsetAsync (conv->bias, 0, spec->co * sizeof (float), dev->stream), "bias")))
    return false;
  dp_conv_pack (dev, conv->kind, spec, staged, conv->weights);
  return true;
}

DpConv *
conv_new_cuda (DpDevice *base, const DpConvSpec *spec)
{
  DpDeviceCuda *dev = dp_cuda (base);
  size_t n = (size_t) spec->co * spec->ci * spec->kt * spec->kh * spec->kw;
  DpConv *conv;
  void *staged;
  bool ok;

  assert (spec->kt >= 1 && spec->kh % 2 == 1 && spec->kw % 2 == 1);
  base->allocations++;
  if (!dp_cuda_enter (dev) || (conv = calloc (1, sizeof *conv)) == NULL)
    return NULL;
  conv->spec = *spec;
  conv->kind = kind_of (spec);
  conv->weights = dp_cuda_memory_new (dev, dp_conv_packed_size (conv->kind, spec), "the weights of a convolution");
  conv->bias = dp_cuda_memory_new (dev, spec->co * sizeof (float), "the weights of a convolution");
  staged = dp_cuda_memory_new (dev, n * dp_type_size (spec->type), "the weights of a convolution");
  ok = conv->weights && conv->bias && staged && fill (dev, conv, staged);
  dp_cuda_memory_free (dev, staged);
  if (!ok) {
    conv_free_cuda (base, conv);
    return NULL;
  }
  return conv;
}

void
conv_free_cuda (DpDevice *base, DpConv *conv)
{
  if (conv == NULL)
    return;
  dp_cuda_memory_free (dp_cuda (base), conv->weights);
  dp_cuda_memory_free (dp_cuda (base), conv->bias);
  free (conv);
}

void
conv_cuda (DpDevice *base, DpConv *conv, const DpConvArgs *args)
{
  DpDeviceCuda *dev = dp_cuda (base);

  if (args->t < conv->spec.kt || !dp_cuda_enter (dev))
    return;
  assert (conv->kind == DP_CONV_PLAIN || (size_t) args->x % 16 == 0);
  if (conv->kind == DP_CONV_CUDNN)
    run_cudnn (dev, conv, args);
  else if (conv->kind == DP_CONV_NARROW)
    dp_conv_narrow (dev, &conv->spec, args, conv->weights, conv->bias);
  else
    dp_conv_plain (dev, &conv->spec, args, conv->weights, conv->bias);
}
