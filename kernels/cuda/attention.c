/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Seven ways, by what the heads are like. Long rows of keys in bfloat16, d <= 128: own kernels, in bfloat16 and in e4m3, on the GPUs that
 * they are written for where d is 128, else cuDNN's. Fewer keys, or biases (the text's padding, the text encoder): an own kernel on tensor
 * cores, which needs no plan, so prompts of any length cost nothing to prepare; and one for the few keys of a short prompt. Wide heads (the
 * VAE's single one): two matrix products with a softmax between them, some queries at a time. The rest: an own kernel in float32. Which way
 * is chosen depends on the keys and never on the number of queries.
 */
#include "attention.h"
#include "graph.h"
#include "quantize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum
{
  CUDNN_KEYS = 4096,            /* from this many keys cuDNN's lead is worth compiling a plan for */
  CHUNK_BYTES = 64 << 20,       /* of logits and probabilities at a time, about: the second cache's size */
  BLAS_BYTES = 8 << 20,
};

enum
{
  UID_Q = 1, UID_K, UID_V, UID_OUT, UID_SCALE,
  UID_INVERSE_Q, UID_INVERSE_K, UID_INVERSE_V, UID_P, UID_INVERSE_P, UID_SCALE_OUT, UID_MOST_P, UID_MOST_OUT, UID_INNER
};

/* cuDNN's, or the two products for `rows` queries. */
struct DpAttentionPlan
{
  struct DpAttentionPlan *next;
  DpAttentionArgs shape;        /* its pointers are NULL */
  float scale;

  DpPlan plan;

  cublasLtMatmulDesc_t logits_op, out_op;
  cublasLtMatrixLayout_t q, k, v, s, p, out;
  cublasLtMatmulAlgo_t logits_algo, out_algo;
  int rows;
};

typedef struct DpAttentionPlan Plan;

/* What a plan is made for. */
static DpAttentionArgs
shape_of (const DpAttentionArgs *args)
{
  DpAttentionArgs shape;

  memset (&shape, 0, sizeof shape);     /* compared as bytes */
  shape.type = args->type;
  shape.heads = args->heads;
  shape.head_dim = args->head_dim;
  shape.q_len = args->q_len;
  shape.kv_len = args->kv_len;
  shape.q_stride = args->q_stride;
  shape.k_stride = args->k_stride;
  shape.v_stride = args->v_stride;
  shape.out_stride = args->out_stride;
  shape.scale = args->scale;
  shape.fp8 = args->fp8;
  return shape;
}

static void
plan_free (Plan *plan)
{
  cublasLtMatrixLayout_t layouts[] = { plan->q, plan->k, plan->v, plan->s, plan->p, plan->out };

  for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
    if (layouts[i])
      cublasLtMatrixLayoutDestroy (layouts[i]);
  if (plan->logits_op)
    cublasLtMatmulDescDestroy (plan->logits_op);
  if (plan->out_op)
    cublasLtMatmulDescDestroy (plan->out_op);
  dp_plan_clear (&plan->plan);
  free (plan);
}

void
attention_close_cuda (DpDeviceCuda *dev)
{
  while (dev->attentions) {
    Plan *plan = dev->attentions;

    dev->attentions = plan->next;
    plan_free (plan);
  }
}

/* Found, or made by `build`. NULL and a latched error. */
static Plan *
plan_for (DpDeviceCuda *dev, const DpAttentionArgs *args, bool (*build) (DpDeviceCuda *dev, Plan *plan))
{
  DpAttentionArgs shape = shape_of (args);
  Plan *plan;

  for (plan = dev->attentions; plan; plan = plan->next)
    if (memcmp (&plan->shape, &shape, sizeof shape) == 0)
      return plan;
  dev->base.allocations++;
  plan = calloc (1, sizeof *plan);
  if (plan == NULL) {
    dp_device_fail (&dev->base, "%s: attention: not enough host memory", dev->base.name);
    return NULL;
  }
  plan->shape = shape;
  plan->scale = args->scale;
  if (!build (dev, plan)) {
    plan_free (plan);
    return NULL;
  }
  plan->next = dev->attentions;
  dev->attentions = plan;
  return plan;
}

/* ---- cuDNN ---- */

static size_t
align (size_t bytes)
{
  return (bytes + 255) / 256 * 256;
}

/* Row r, head h at [r * stride + h * d]. */
static cudnnBackendDescriptor_t
heads_tensor (DpGraph *graph, int64_t uid, const DpAttentionArgs *s, int64_t len, int64_t stride)
{
  return dp_graph_tensor (graph, &(DpGraphTensor) { .uid = uid, .type = s->fp8 ? CUDNN_DATA_FP8_E4M3 : CUDNN_DATA_BFLOAT16, .n_dims = 4,
          .dims = { 1, s->heads, len, s->head_dim }, .strides = { len * stride, s->head_dim, stride, 1 } });
}

static bool
build_cudnn (DpDeviceCuda *dev, Plan *plan)
{
  const DpAttentionArgs *s = &plan->shape;
  DpGraph graph = { .handle = dev->cudnn };
  const struct
  {
    cudnnBackendAttributeName_t name;
    cudnnBackendDescriptor_t tensor;
  } parts[] = {
    { CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, heads_tensor (&graph, UID_Q, s, s->q_len, s->q_stride) },
    { CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, heads_tensor (&graph, UID_K, s, s->kv_len, s->k_stride) },
    { CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, heads_tensor (&graph, UID_V, s, s->kv_len, s->v_stride) },
    { CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, heads_tensor (&graph, UID_OUT, s, s->q_len, s->out_stride) },
    { CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, dp_graph_tensor (&graph, &(DpGraphTensor) { .uid = UID_SCALE, .type = CUDNN_DATA_FLOAT,
              .n_dims = 4, .dims = { 1, 1, 1, 1 }, .strides = { 1, 1, 1, 1 }, .by_value = true }) },
  };
  cudnnBackendDescriptor_t op = dp_graph_new (&graph, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
  bool ok;

  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    dp_graph_set (&graph, op, parts[i].name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &parts[i].tensor);
  dp_graph_append (&graph, op);
  ok = dp_plan_build (&plan->plan, &graph);
  if (!ok)
    dp_device_fail (&dev->base, "%s: attention of %d heads of %d, %d queries, %d keys: cuDNN says %s", dev->base.name, s->heads,
        s->head_dim, s->q_len, s->kv_len, graph.error);
  dp_graph_clear (&graph);
  return ok && dp_cuda_workspace (dev, plan->plan.workspace) != NULL;
}

static void
run_cudnn (DpDeviceCuda *dev, const DpAttentionArgs *args)
{
  static const int64_t uids[] = { UID_Q, UID_K, UID_V, UID_OUT, UID_SCALE };
  Plan *plan = plan_for (dev, args, build_cudnn);
  void *workspace = plan ? dp_cuda_workspace (dev, plan->plan.workspace) : NULL;

  if (workspace == NULL)
    return;
  void *pointers[] = { (void *) args->q, (void *) args->k, (void *) args->v, args->out, &plan->scale };
  dp_cuda_cudnn_ok (dev, dp_plan_run (&plan->plan, dev->cudnn, 5, uids, pointers, workspace), "attention");
}

/* ---- cuDNN, in e4m3: its engine wants the whole softmax written out ---- */

/* A number: in device memory, or in the plan. */
static cudnnBackendDescriptor_t
number (DpGraph *graph, int64_t uid)
{
  return dp_graph_tensor (graph, &(DpGraphTensor) { .uid = uid, .type = CUDNN_DATA_FLOAT, .n_dims = 4, .dims = { 1, 1, 1, 1 },
          .strides = { 1, 1, 1, 1 }, .by_value = uid == UID_SCALE });
}

/* What is between two operations: [heads, queries, n]. */
static cudnnBackendDescriptor_t
inner (DpGraph *graph, int64_t *uid, const DpAttentionArgs *s, int64_t n, cudnnDataType_t type)
{
  return dp_graph_tensor (graph, &(DpGraphTensor) { .uid = (*uid)++, .type = type, .n_dims = 4, .dims = { 1, s->heads, s->q_len, n },
          .strides = { s->heads * s->q_len * n, s->q_len * n, n, 1 }, .is_virtual = true });
}

/* x times each of the numbers, the last product being y if that is given. */
static cudnnBackendDescriptor_t
times (DpGraph *graph, int64_t *uid, const DpAttentionArgs *s, int64_t n, cudnnBackendDescriptor_t x, int count, const int64_t *numbers)
{
  for (int i = 0; i < count; i++) {
    cudnnBackendDescriptor_t y = inner (graph, uid, s, n, CUDNN_DATA_FLOAT);

    dp_graph_pointwise (graph, CUDNN_POINTWISE_MUL, x, number (graph, numbers[i]), y);
    x = y;
  }
  return x;
}

static bool
build_fp8 (DpDeviceCuda *dev, Plan *plan)
{
  const DpAttentionArgs *s = &plan->shape;
  int64_t uid = UID_INNER, keys = s->kv_len, d = s->head_dim, width = s->heads * d;
  DpGraph graph = { .handle = dev->cudnn };
  cudnnBackendDescriptor_t q = heads_tensor (&graph, UID_Q, s, s->q_len, width), v = heads_tensor (&graph, UID_V, s, keys, width);
  cudnnBackendDescriptor_t k = dp_graph_tensor (&graph, &(DpGraphTensor) { .uid = UID_K, .type = CUDNN_DATA_FP8_E4M3, .n_dims = 4,
          .dims = { 1, s->heads, d, keys }, .strides = { keys * width, d, 1, width } });
  cudnnBackendDescriptor_t out = heads_tensor (&graph, UID_OUT, s, s->q_len, width);
  cudnnBackendDescriptor_t logits = inner (&graph, &uid, s, keys, CUDNN_DATA_FLOAT), less, exponentials, p, p8, most, sum, log_sum, product;
  bool ok;

  dp_graph_matmul (&graph, q, k, logits);
  logits = times (&graph, &uid, s, keys, logits, 3, (const int64_t[]) { UID_SCALE, UID_INVERSE_Q, UID_INVERSE_K });
  most = inner (&graph, &uid, s, 1, CUDNN_DATA_FLOAT);
  dp_graph_reduce (&graph, CUDNN_REDUCE_TENSOR_MAX, logits, most);
  less = inner (&graph, &uid, s, keys, CUDNN_DATA_FLOAT);
  dp_graph_pointwise (&graph, CUDNN_POINTWISE_SUB, logits, most, less);
  exponentials = inner (&graph, &uid, s, keys, CUDNN_DATA_FLOAT);
  dp_graph_pointwise (&graph, CUDNN_POINTWISE_EXP, less, NULL, exponentials);
  sum = inner (&graph, &uid, s, 1, CUDNN_DATA_FLOAT);
  dp_graph_reduce (&graph, CUDNN_REDUCE_TENSOR_ADD, exponentials, sum);
  log_sum = inner (&graph, &uid, s, 1, CUDNN_DATA_FLOAT);       /* it is not used, but cuDNN finds the engine by it */
  dp_graph_pointwise (&graph, CUDNN_POINTWISE_LOG, sum, NULL, log_sum);
  dp_graph_pointwise (&graph, CUDNN_POINTWISE_ADD, most, log_sum, inner (&graph, &uid, s, 1, CUDNN_DATA_FLOAT));
  p = inner (&graph, &uid, s, keys, CUDNN_DATA_FLOAT);
  dp_graph_pointwise (&graph, CUDNN_POINTWISE_DIV, exponentials, sum, p);
  dp_graph_reduce (&graph, CUDNN_REDUCE_TENSOR_AMAX, p, number (&graph, UID_MOST_P));
  p8 = inner (&graph, &uid, s, keys, CUDNN_DATA_FP8_E4M3);
  dp_graph_pointwise (&graph, CUDNN_POINTWISE_MUL, p, number (&graph, UID_P), p8);
  product = inner (&graph, &uid, s, d, CUDNN_DATA_FLOAT);
  dp_graph_matmul (&graph, p8, v, product);
  product = times (&graph, &uid, s, d, product, 2, (const int64_t[]) { UID_INVERSE_P, UID_INVERSE_V });
  dp_graph_pointwise (&graph, CUDNN_POINTWISE_MUL, product, number (&graph, UID_SCALE_OUT), out);
  dp_graph_reduce (&graph, CUDNN_REDUCE_TENSOR_AMAX, product, number (&graph, UID_MOST_OUT));
  ok = dp_plan_build (&plan->plan, &graph);
  if (!ok)
    dp_device_fail (&dev->base, "%s: attention of %d heads of %d, %d queries, %d keys in e4m3: cuDNN says %s", dev->base.name, s->heads,
        s->head_dim, s->q_len, s->kv_len, graph.error);
  dp_graph_clear (&graph);
  return ok;
}

static void
run_fp8 (DpDeviceCuda *dev, const DpAttentionArgs *args)
{
  static const int64_t uids[] = { UID_Q, UID_K, UID_V, UID_OUT, UID_SCALE, UID_INVERSE_Q, UID_INVERSE_K, UID_INVERSE_V, UID_P,
      UID_INVERSE_P,
    UID_SCALE_OUT, UID_MOST_P, UID_MOST_OUT };
  Plan *plan = plan_for (dev, args, build_fp8);
  size_t width = args->heads * args->head_dim, queries = align (args->q_len * width), keys = align (args->kv_len * width);
  size_t own = plan ? align (plan->plan.workspace) : 0;
  char *workspace = plan ? dp_cuda_workspace (dev, own + 2 * queries + 2 * keys + sizeof (DpAttentionScales)) : NULL;
  char *q = workspace + own, *k = q + queries, *v = k + keys, *out = v + keys;
  DpAttentionScales *scales = (DpAttentionScales *) (out + queries);

  if (workspace == NULL)
    return;
  void *pointers[] = { q, k, v, out, &plan->scale, scales->inverse[0], scales->inverse[1], scales->inverse[2], scales->p, scales->inverse_p,
    scales->out, scales->most_p, scales->most_out };
  dp_cuda_round_attention (dev, args, q, k, v, scales);
  if (dp_cuda_cudnn_ok (dev, dp_plan_run (&plan->plan, dev->cudnn, 13, uids, pointers, workspace), "attention"))
    dp_cuda_widen_attention (dev, args, out, scales);
}

/* ---- wide heads: logits = scale * q . k^T, softmax, out = p . v, for `rows` queries at a time ---- */

static int
pitch_of (const DpAttentionArgs *s)
{
  return (s->kv_len + 63) / 64 * 64;
}

/* Bytes of the logits and of the probabilities of a chunk. */
static size_t
logits_bytes (const Plan *plan)
{
  return align ((size_t) plan->rows * pitch_of (&plan->shape) * sizeof (float));
}

static size_t
wide_workspace (const Plan *plan)
{
  return BLAS_BYTES + logits_bytes (plan) + align ((size_t) plan->rows * pitch_of (&plan->shape) * dp_type_size (plan->shape.type));
}

/* The first algorithm of the library's list for c = a . b, accumulated in float32. */
static bool
find_algo (DpDeviceCuda *dev, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatmulAlgo_t *algo)
{
  cublasLtMatmulPreference_t preference;
  cublasLtMatmulHeuristicResult_t result;
  size_t bytes = BLAS_BYTES;
  int n = 0;
  bool ok;

  if (!dp_cuda_blas_ok (dev, cublasLtMatmulPreferenceCreate (&preference), "attention"))
    return false;
  ok = dp_cuda_blas_ok (dev, cublasLtMatmulPreferenceSetAttribute (preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
      sizeof bytes),
          "attention")
      && dp_cuda_blas_ok (dev, cublasLtMatmulAlgoGetHeuristic (dev->blas, op, a, b, c, c, preference, 1, &result, &n), "attention");
  cublasLtMatmulPreferenceDestroy (preference);
  if (ok && n == 0) {
    dp_device_fail (&dev->base, "%s: attention: cuBLASLt knows no way to multiply these matrices", dev->base.name);
    return false;
  }
  if (ok)
    *algo = result.algo;
  return ok;
}

/* cuBLASLt's matrices are column-major: what is row-major here is transposed there, and logits^T = k . q^T, out^T = v^T . p^T. */
static bool
build_wide (DpDeviceCuda *dev, Plan *plan)
{
  const DpAttentionArgs *s = &plan->shape;
  cudaDataType_t type = s->type == DP_TYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
  cublasOperation_t transposed = CUBLAS_OP_T;
  int pitch = pitch_of (s), fit = CHUNK_BYTES / (pitch * (sizeof (float) + dp_type_size (s->type)));

  plan->rows = fit < 128 ? 128 : fit / 128 * 128;
  if (plan->rows > s->q_len)
    plan->rows = s->q_len;
  return dp_cuda_blas_ok (dev, cublasLtMatmulDescCreate (&plan->logits_op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "attention")
      && dp_cuda_blas_ok (dev, cublasLtMatmulDescSetAttribute (plan->logits_op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
      sizeof transposed),
          "attention")
      && dp_cuda_blas_ok (dev, cublasLtMatmulDescCreate (&plan->out_op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "attention")
      && dp_cuda_blas_ok (dev, cublasLtMatrixLayoutCreate (&plan->q, type, s->head_dim, plan->rows, s->q_stride), "attention")
      && dp_cuda_blas_ok (dev, cublasLtMatrixLayoutCreate (&plan->k, type, s->head_dim, s->kv_len, s->k_stride), "attention")
      && dp_cuda_blas_ok (dev, cublasLtMatrixLayoutCreate (&plan->v, type, s->head_dim, s->kv_len, s->v_stride), "attention")
      && dp_cuda_blas_ok (dev, cublasLtMatrixLayoutCreate (&plan->s, CUDA_R_32F, s->kv_len, plan->rows, pitch), "attention")
      && dp_cuda_blas_ok (dev, cublasLtMatrixLayoutCreate (&plan->p, type, s->kv_len, plan->rows, pitch), "attention")
      && dp_cuda_blas_ok (dev, cublasLtMatrixLayoutCreate (&plan->out, type, s->head_dim, plan->rows, s->out_stride), "attention")
      && find_algo (dev, plan->logits_op, plan->k, plan->q, plan->s, &plan->logits_algo)
      && find_algo (dev, plan->out_op, plan->v, plan->p, plan->out, &plan->out_algo)
      && dp_cuda_workspace (dev, wide_workspace (plan)) != NULL;
}

/* Queries [first, first + plan->rows) of a head. */
static bool
run_chunk (DpDeviceCuda *dev, const Plan *plan, const DpAttentionArgs *args, int head, int first)
{
  size_t size = dp_type_size (args->type), at = head * args->head_dim * size;
  char *blas = dp_cuda_workspace (dev, wide_workspace (plan)), *p = blas + BLAS_BYTES + logits_bytes (plan);
  float *logits = (float *) (blas + BLAS_BYTES);
  const char *q = (const char *) args->q + at + first * size * args->q_stride, *k = (const char *) args->k + at,
      *v = (const char *) args->v + at;
  char *out = (char *) args->out + at + first * size * args->out_stride;
  float one = 1, zero = 0;

  if (blas == NULL || !dp_cuda_blas_ok (dev, cublasLtMatmul (dev->blas, plan->logits_op, &args->scale, k, plan->k, q, plan->q, &zero,
      logits, plan->s,
              logits, plan->s, &plan->logits_algo, blas, BLAS_BYTES, dev->stream), "attention"))
    return false;
  dp_attention_softmax (dev, args, head, first, plan->rows, pitch_of (args), logits, p);
  return dp_cuda_blas_ok (dev, cublasLtMatmul (dev->blas, plan->out_op, &one, v, plan->v, p, plan->p, &zero, out, plan->out, out, plan->out,
          &plan->out_algo, blas, BLAS_BYTES, dev->stream), "attention");
}

static void
run_wide (DpDeviceCuda *dev, const DpAttentionArgs *args)
{
  const Plan *plan = plan_for (dev, args, build_wide);

  if (plan == NULL)
    return;
  for (int head = 0; head < args->heads; head++)
    for (int first = 0; first < args->q_len; first += plan->rows) {
      /* The last chunk overlaps the one before, so that every query is computed by the same kernels. */
      int at = first + plan->rows <= args->q_len ? first : args->q_len - plan->rows;

      if (!run_chunk (dev, plan, args, head, at))
        return;
    }
}

/* ---- choosing ---- */

static bool
is_aligned (const DpAttentionArgs *a)
{
  size_t pointers = (size_t) a->q | (size_t) a->k | (size_t) a->v | (size_t) a->out;
  int strides = a->head_dim | a->q_stride | a->k_stride | a->v_stride | a->out_stride;

  return pointers % 16 == 0 && strides % 8 == 0;
}

static void
run_hopper (DpDeviceCuda *dev, const DpAttentionArgs *args)
{
  void *workspace = dp_cuda_workspace (dev, args->fp8 ? dp_attention_e4m3_workspace (args) : dp_attention_hopper_workspace (args));

  if (workspace && args->fp8)
    dp_attention_e4m3 (dev, args, workspace);
  else if (workspace)
    dp_attention_hopper (dev, args, workspace);
}

void
attention_cuda (DpDevice *base, const DpAttentionArgs *given)
{
  DpDeviceCuda *dev = dp_cuda (base);
  DpAttentionArgs args = *given;
  int width = args.heads * args.head_dim;
  bool biased = args.rel_bias != NULL || args.last_key_bias != 0;

  if (!dp_cuda_enter (dev) || args.q_len == 0)
    return;
  args.q_stride = args.q_stride ? args.q_stride : width;
  args.k_stride = args.k_stride ? args.k_stride : width;
  args.v_stride = args.v_stride ? args.v_stride : width;
  args.out_stride = args.out_stride ? args.out_stride : width;
  args.rel_bias_keys = args.rel_bias_keys ? args.rel_bias_keys : args.kv_len;
  if (args.head_dim > 128 && is_aligned (&args))
    run_wide (dev, &args);
  else if (args.type == DP_TYPE_BF16 && args.head_dim <= 128 && args.kv_len >= CUDNN_KEYS && !biased && is_aligned (&args)) {
    args.fp8 &= dev->capability == DP_CUDA_FP8 && args.head_dim % 16 == 0;
    if (dev->capability == DP_CUDA_HOPPER && args.head_dim == 128 && args.heads <= 64)
      run_hopper (dev, &args);
    else if (args.fp8)
      run_fp8 (dev, &args);
    else
      run_cudnn (dev, &args);
  }
  else if (args.type == DP_TYPE_BF16 && args.head_dim <= 128)
    dp_attention_flash (dev, &args);
  else if (args.head_dim <= DP_ATTENTION_SIMPLE_MAX)
    dp_attention_simple (dev, &args);
  else
    dp_device_fail (base, "%s: attention with heads of %d channels: the most is %d", base->name, args.head_dim, DP_ATTENTION_SIMPLE_MAX);
}
