/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "attention.h"

#include <assert.h>

/* Both kinds of chunk of a call: head by head, panels or tasks within it. */
typedef struct
{
  DpAttnJob job;
  const DpAttnTable *table;
  int per_head;
  void **scratch;
} Call;

static void
pack_chunk (void *arg, int chunk, int thread)
{
  Call *call = arg;

  call->table->pack (&call->job, chunk / call->per_head, chunk % call->per_head);
}

static void
task_chunk (void *arg, int chunk, int thread)
{
  Call *call = arg;

  call->table->task (&call->job, chunk / call->per_head, chunk % call->per_head, call->scratch[thread]);
}

void
attention_cpu (DpDevice *dev, const DpAttentionArgs *args)
{
  DpDeviceCpu *cpu = dp_cpu (dev);
  DpAttentionArgs a = *args;
  Call call = { .table = DP_ISA_PICK (cpu->isa, dp_attn_table) };
  DpAttnJob *job = &call.job;
  int per_lane;
  size_t keys_size, values_size;

  assert (a.scale > 0 && a.kv_len > 0 && (a.rel_bias == NULL || a.q_len == a.kv_len));
  a.q_stride = a.q_stride ? a.q_stride : a.heads * a.head_dim;
  a.k_stride = a.k_stride ? a.k_stride : a.heads * a.head_dim;
  a.v_stride = a.v_stride ? a.v_stride : a.heads * a.head_dim;
  a.out_stride = a.out_stride ? a.out_stride : a.heads * a.head_dim;
  a.rel_bias_keys = a.rel_bias_keys ? a.rel_bias_keys : a.kv_len;
  job->args = &a;
  job->pairs = a.type == DP_TYPE_BF16 && call.table->pairs;
  per_lane = job->pairs ? 2 : 1;
  job->steps_k = (a.head_dim + per_lane - 1) / per_lane;
  job->steps_v = (a.kv_len + per_lane - 1) / per_lane;
  job->panels_k = dp_thread_pool_chunks (a.kv_len, DP_ATTN_PANEL);
  job->panels_v = dp_thread_pool_chunks (a.head_dim, DP_ATTN_PANEL);
  keys_size = (size_t) a.heads * job->panels_k * job->steps_k * DP_ATTN_PANEL * 4;
  values_size = (size_t) a.heads * job->panels_v * job->steps_v * DP_ATTN_PANEL * 4;
  if (!dp_cpu_scratch (cpu, call.table->scratch_size (job)) || !dp_cpu_shared (cpu, keys_size + values_size))
    return;
  job->keys = cpu->shared;
  job->values = (char *) cpu->shared + keys_size;
  call.scratch = cpu->scratch;

  call.per_head = job->panels_k;
  dp_thread_pool_run (cpu->team, a.heads * call.per_head, pack_chunk, &call);
  call.per_head = dp_thread_pool_chunks (a.q_len, DP_ATTN_TASK);
  dp_thread_pool_run (cpu->team, a.heads * call.per_head, task_chunk, &call);
}
