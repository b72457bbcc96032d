/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * graph.h: cuDNN's graph API, from C.
 *
 * A DpGraph is a description being written: tensors and the operations between them, each known to cuDNN by a number. Its first
 * failure sticks, makes the rest of the description do nothing, and is read once at the end. dp_plan_build() turns it into a DpPlan:
 * the first engine in the order of cuDNN's heuristics that may be used, for exactly these shapes. No timing takes part, so the
 * same shapes get the same engine, and the same bits, in every run on one kind of GPU.
 *
 * Thread-safety: as DpDevice.
 */
#pragma once

#include <cudnn_graph.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DP_GRAPH_MAX = 96, DP_GRAPH_MAX_OPS = 18, DP_PLAN_MAX = 16 };

/** Starts as { .handle = ... }; ends with dp_graph_clear(). */
typedef struct
{
  cudnnHandle_t handle;
  int n_made, n_ops;
  cudnnBackendDescriptor_t made[DP_GRAPH_MAX], ops[DP_GRAPH_MAX_OPS];
  char error[160];              /* the first failure, or "" */
} DpGraph;

typedef struct
{
  int64_t uid;                  /* its number, any but 0 */
  cudnnDataType_t type;
  int n_dims;
  int64_t dims[5], strides[5];  /* in elements */
  bool is_virtual;              /* between two operations only, never in memory */
  bool by_value;                /* a number in host memory, read when the plan is run */
} DpGraphTensor;

/** An operation's or other descriptor, to be filled with dp_graph_set(). NULL after a failure. */
cudnnBackendDescriptor_t dp_graph_new (DpGraph *graph, cudnnBackendDescriptorType_t type);
void dp_graph_set (DpGraph *graph, cudnnBackendDescriptor_t desc, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
    int n, const void *values);
void dp_graph_finalize (DpGraph *graph, cudnnBackendDescriptor_t desc);

/** Finalizes `op` and appends it to the graph. */
void dp_graph_append (DpGraph *graph, cudnnBackendDescriptor_t op);

/** Pointers and device memory are taken to be 16-byte aligned. */
cudnnBackendDescriptor_t dp_graph_tensor (DpGraph *graph, const DpGraphTensor *tensor);

/** Each appends an operation in float32: y = a (mode) b, or y = mode (a) with b NULL; y = a . b; y = a reduced to y's dimensions. */
void dp_graph_pointwise (DpGraph *graph, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t a, cudnnBackendDescriptor_t b,
    cudnnBackendDescriptor_t y);
void dp_graph_matmul (DpGraph *graph, cudnnBackendDescriptor_t a, cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y);
void dp_graph_reduce (DpGraph *graph, cudnnReduceTensorOp_t mode, cudnnBackendDescriptor_t a, cudnnBackendDescriptor_t y);

void dp_graph_clear (DpGraph *graph);

/** A graph compiled for its shapes. Zeros are one that is not built. */
typedef struct
{
  cudnnBackendDescriptor_t plan;
  size_t workspace;             /* bytes of device memory it needs while it runs */

  /* -- what it was run on last */
  cudnnBackendDescriptor_t pack;
  void *pointers[DP_PLAN_MAX], *pack_workspace;
} DpPlan;

/** True if cuDNN has an engine for the graph that is deterministic and computes in the full precision it was asked for; else false
 *  and the reason is graph->error. May take long: some engines are compiled. */
bool dp_plan_build (DpPlan *plan, DpGraph *graph);

/** Queues the plan. pointers[i] is the memory of tensor uids[i]; the same uids in every call. */
cudnnStatus_t dp_plan_run (DpPlan *plan, cudnnHandle_t handle, int n, const int64_t *uids, void *const *pointers, void *workspace);

/** NULL-safe in its parts; the plan may be built again. */
void dp_plan_clear (DpPlan *plan);
