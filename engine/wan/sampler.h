/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sampler.h: flow-matching samplers, UniPC (order 1-2, bh1/bh2, multistep) and Euler.
 *
 * A DpSampler is the schedule: noise levels sigma[0..T], the timesteps the model is told, and for every step the few
 * coefficients of a linear combination. It is shared by all blocks; each block carries a DpSamplerState with the tensors its next step
 * needs. Source: diffusers' UniPCMultistepScheduler (use_flow_sigmas, predict_x0) and FlowMatchEulerDiscreteScheduler.
 */
#pragma once

#include <glib.h>
#include "model_config.h"
#include "kernels/device.h"

/* Thread-safety: immutable. */
typedef struct _DpSampler DpSampler;

/** kind "unipc" or "euler". Errors: DP_ERROR_SETTINGS. */
DpSampler *dp_sampler_new (const char *kind, int steps, double flow_shift, const DpSchedulerConfig *config, GError **error);
void dp_sampler_free (DpSampler *sampler);
int dp_sampler_steps (const DpSampler *sampler);
/** sigma[step], step 0..T; sigma[T] is 0. */
double dp_sampler_sigma (const DpSampler *sampler, int step);
/** What the model is conditioned on at `step`, 0..T-1 (0..1000). */
float dp_sampler_timestep (const DpSampler *sampler, int step);

/** One block's history, on a device. Thread-safety: one thread at a time. */
typedef struct
{
  float *buffers[3];            /* last two predictions of the clean latents and the last sample, [n] each */
} DpSamplerState;

/** Bytes of device memory a state of n elements needs (0 for Euler); the caller takes it from its arena. */
gsize dp_sampler_state_bytes (const DpSampler *sampler, gsize n);
void dp_sampler_state_init (const DpSampler *sampler, DpSamplerState *state, void *memory, gsize n);

/** Moves sample[n] from sigma[step] to sigma[step + 1] given the model's velocity[n] there (which is overwritten). Steps of a block are
 *  taken in order from `first`, which is 0, or that of a block that began anew with the others on their way: there the sample is still
 *  noise of sigma[0], and so is what the velocity was asked for. */
void dp_sampler_step (const DpSampler *sampler, DpDevice *dev, DpSamplerState *state, int step, int first, float *velocity, float *sample,
    gsize n);
