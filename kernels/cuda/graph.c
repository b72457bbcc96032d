/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "graph.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { MAX_CONFIGS = 32 };      /* engines asked for; more than heuristics know of */

static bool
okay (DpGraph *graph, cudnnStatus_t status, const char *what)
{
  char detail[128] = "";

  if (status == CUDNN_STATUS_SUCCESS)
    return true;
  if (graph->error[0])
    return false;
  cudnnGetLastErrorString (detail, sizeof detail);
  detail[strcspn (detail, "\n")] = 0;
  snprintf (graph->error, sizeof graph->error, "%s: %s %s", what, cudnnGetErrorString (status), detail);
  return false;
}

cudnnBackendDescriptor_t
dp_graph_new (DpGraph *graph, cudnnBackendDescriptorType_t type)
{
  cudnnBackendDescriptor_t desc = NULL;

  assert (graph->n_made < DP_GRAPH_MAX);
  if (graph->error[0] || !okay (graph, cudnnBackendCreateDescriptor (type, &desc), "descriptor"))
    return NULL;
  return graph->made[graph->n_made++] = desc;
}

void
dp_graph_set (DpGraph *graph, cudnnBackendDescriptor_t desc, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int n,
    const void *values)
{
  char what[32];

  if (graph->error[0])
    return;
  snprintf (what, sizeof what, "attribute %d", name);
  okay (graph, cudnnBackendSetAttribute (desc, name, type, n, values), what);
}

void
dp_graph_finalize (DpGraph *graph, cudnnBackendDescriptor_t desc)
{
  if (!graph->error[0])
    okay (graph, cudnnBackendFinalize (desc), "description");
}

void
dp_graph_append (DpGraph *graph, cudnnBackendDescriptor_t op)
{
  assert (graph->n_ops < DP_GRAPH_MAX_OPS);
  dp_graph_finalize (graph, op);
  graph->ops[graph->n_ops++] = op;
}

cudnnBackendDescriptor_t
dp_graph_tensor (DpGraph *graph, const DpGraphTensor *t)
{
  cudnnBackendDescriptor_t desc = dp_graph_new (graph, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  int64_t alignment = t->by_value ? 4 : 16;

  dp_graph_set (graph, desc, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &t->uid);
  dp_graph_set (graph, desc, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &t->type);
  dp_graph_set (graph, desc, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
  dp_graph_set (graph, desc, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, t->n_dims, t->dims);
  dp_graph_set (graph, desc, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, t->n_dims, t->strides);
  dp_graph_set (graph, desc, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &t->is_virtual);
  dp_graph_set (graph, desc, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &t->by_value);
  dp_graph_finalize (graph, desc);
  return desc;
}

void
dp_graph_pointwise (DpGraph *graph, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t a, cudnnBackendDescriptor_t b,
    cudnnBackendDescriptor_t y)
{
  cudnnBackendDescriptor_t how = dp_graph_new (graph, CUDNN_BACKEND_POINTWISE_DESCRIPTOR), op;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;

  dp_graph_set (graph, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  dp_graph_set (graph, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type);
  dp_graph_finalize (graph, how);
  op = dp_graph_new (graph, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &a);
  if (b)
    dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &b);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
  dp_graph_append (graph, op);
}

void
dp_graph_matmul (DpGraph *graph, cudnnBackendDescriptor_t a, cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y)
{
  cudnnBackendDescriptor_t how = dp_graph_new (graph, CUDNN_BACKEND_MATMUL_DESCRIPTOR), op;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;

  dp_graph_set (graph, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  dp_graph_finalize (graph, how);
  op = dp_graph_new (graph, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &a);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &b);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
  dp_graph_append (graph, op);
}

void
dp_graph_reduce (DpGraph *graph, cudnnReduceTensorOp_t mode, cudnnBackendDescriptor_t a, cudnnBackendDescriptor_t y)
{
  cudnnBackendDescriptor_t how = dp_graph_new (graph, CUDNN_BACKEND_REDUCTION_DESCRIPTOR), op;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;

  dp_graph_set (graph, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode);
  dp_graph_set (graph, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  dp_graph_finalize (graph, how);
  op = dp_graph_new (graph, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &a);
  dp_graph_set (graph, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
  dp_graph_append (graph, op);
}

void
dp_graph_clear (DpGraph *graph)
{
  while (graph->n_made > 0)
    cudnnBackendDestroyDescriptor (graph->made[--graph->n_made]);
}

/* ---- plans ---- */

/* Whether a configuration's engine gives the same bits every time, and no less precision than the graph's types. */
static bool
acceptable (cudnnBackendDescriptor_t config)
{
  cudnnBackendDescriptor_t engine = NULL;
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  int64_t n = 0;
  bool ok;

  if (cudnnBackendCreateDescriptor (CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS)
    return false;
  ok = cudnnBackendGetAttribute (config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine) == CUDNN_STATUS_SUCCESS
      && cudnnBackendGetAttribute (engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT,
          &n, notes) == CUDNN_STATUS_SUCCESS;
  for (int i = 0; ok && i < n; i++)
    ok = notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || notes[i] == CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP;
  cudnnBackendDestroyDescriptor (engine);
  return ok;
}

static bool
build_from (DpPlan *plan, DpGraph *graph, cudnnBackendDescriptor_t config)
{
  int64_t n, workspace = 0;

  if (cudnnBackendCreateDescriptor (CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan->plan) == CUDNN_STATUS_SUCCESS
      && cudnnBackendSetAttribute (plan->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &graph->handle)
          == CUDNN_STATUS_SUCCESS
      && cudnnBackendSetAttribute (plan->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config)
          == CUDNN_STATUS_SUCCESS
      && cudnnBackendFinalize (plan->plan) == CUDNN_STATUS_SUCCESS
      && cudnnBackendGetAttribute (plan->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &workspace)
          == CUDNN_STATUS_SUCCESS) {
    plan->workspace = workspace;
    return true;
  }
  dp_plan_clear (plan);
  return false;
}

/* The engines of one heuristic, tried in its order. */
static bool
build_by (DpPlan *plan, DpGraph *graph, cudnnBackendDescriptor_t ops, cudnnBackendHeurMode_t mode)
{
  cudnnBackendDescriptor_t configs[MAX_CONFIGS] = { NULL }, heuristic = dp_graph_new (graph, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  int64_t n = 0;
  bool built = false;

  dp_graph_set (graph, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &ops);
  dp_graph_set (graph, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  dp_graph_finalize (graph, heuristic);
  for (int i = 0; i < MAX_CONFIGS && !graph->error[0]; i++)
    okay (graph, cudnnBackendCreateDescriptor (CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[i]), "engine");
  if (!graph->error[0])
    okay (graph, cudnnBackendGetAttribute (heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, MAX_CONFIGS, &n,
            configs), "engines");
  for (int i = 0; i < n && !built; i++)
    built = acceptable (configs[i]) && build_from (plan, graph, configs[i]);
  for (int i = 0; i < MAX_CONFIGS; i++)
    if (configs[i] != NULL)
      cudnnBackendDestroyDescriptor (configs[i]);
  return built;
}

bool
dp_plan_build (DpPlan *plan, DpGraph *graph)
{
  cudnnBackendDescriptor_t ops = dp_graph_new (graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  bool built;

  *plan = (DpPlan) { NULL };
  dp_graph_set (graph, ops, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, graph->n_ops, graph->ops);
  dp_graph_set (graph, ops, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &graph->handle);
  dp_graph_finalize (graph, ops);
  if (graph->error[0])
    return false;
  built = build_by (plan, graph, ops, CUDNN_HEUR_MODE_A);
  if (!built) {
    graph->error[0] = 0;
    built = build_by (plan, graph, ops, CUDNN_HEUR_MODE_FALLBACK);
  }
  if (!built)
    okay (graph, CUDNN_STATUS_NOT_SUPPORTED, "no engine");
  return built;
}

cudnnStatus_t
dp_plan_run (DpPlan *plan, cudnnHandle_t handle, int n, const int64_t *uids, void *const *pointers, void *workspace)
{
  cudnnStatus_t status = CUDNN_STATUS_SUCCESS;

  assert (n <= DP_PLAN_MAX);
  if (plan->pack == NULL || plan->pack_workspace != workspace || memcmp (plan->pointers, pointers, n * sizeof *pointers) != 0) {
    cudnnBackendDescriptor_t pack;

    if (plan->pack != NULL)
      cudnnBackendDestroyDescriptor (plan->pack);
    plan->pack = NULL;
    status = cudnnBackendCreateDescriptor (CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (status != CUDNN_STATUS_SUCCESS)
      return status;
    if ((status = cudnnBackendSetAttribute (pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, uids)) != CUDNN_STATUS_SUCCESS
        || (status = cudnnBackendSetAttribute (pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, pointers))
            != CUDNN_STATUS_SUCCESS
        || (status = cudnnBackendSetAttribute (pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace))
            != CUDNN_STATUS_SUCCESS
        || (status = cudnnBackendFinalize (pack)) != CUDNN_STATUS_SUCCESS) {
      cudnnBackendDestroyDescriptor (pack);
      return status;
    }
    plan->pack = pack;
    plan->pack_workspace = workspace;
    memcpy (plan->pointers, pointers, n * sizeof *pointers);
  }
  return cudnnBackendExecute (handle, plan->plan, plan->pack);
}

void
dp_plan_clear (DpPlan *plan)
{
  if (plan->pack != NULL)
    cudnnBackendDestroyDescriptor (plan->pack);
  if (plan->plan != NULL)
    cudnnBackendDestroyDescriptor (plan->plan);
  *plan = (DpPlan) { NULL };
}
