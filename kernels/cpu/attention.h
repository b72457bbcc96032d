/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * attention.h: attention on the CPU, between attention.c (what to do) and attention_isa.c (how, once per instruction set).
 *
 * A call first packs k and v: "lanes" are 32 bits, a float32 or two bfloat16 neighbours along the summed dimension, and a
 * panel is 64 of them side by side, so the register tile reads whole vectors in order. Then each task takes DP_ATTN_TASK query
 * rows of one head through all keys, block by block, with a running maximum and sum (online softmax).
 *
 *   keys    [H][ceil (kv / 64)][steps_k][64]    lane (s, j) = K[64 panel + j][s], or the pair s of that key
 *   values  [H][ceil (d / 64)][steps_v][64]     lane (s, c) = V[s][64 panel + c], or keys 2s and 2s + 1 of that channel
 */
#pragma once

#include "cpu.h"

enum
{
  DP_ATTN_PANEL = 64,
  DP_ATTN_TASK = 96,            /* query rows of a task: a panel of keys is reused that often while it is in the first cache */
};

typedef struct
{
  const DpAttentionArgs *args;
  bool pairs;                   /* lanes are bfloat16 pairs */
  int steps_k, steps_v;         /* lanes along d, and along the keys */
  int panels_k, panels_v;
  void *keys, *values;
} DpAttnJob;

typedef struct
{
  bool pairs;                   /* this instruction set multiplies bfloat16 pairs */
  /** Packs keys [64 panel, 64 panel + 64) of one head, and their values. */
  void (*pack) (const DpAttnJob *job, int head, int panel);
  /** Query rows [DP_ATTN_TASK * task, + DP_ATTN_TASK) of one head; scratch holds scratch_size () bytes. */
  void (*task) (const DpAttnJob *job, int head, int task, void *scratch);
  size_t (*scratch_size) (const DpAttnJob *job);
} DpAttnTable;

DP_ISA_DECLARE (const DpAttnTable, dp_attn_table);
