# SPDX-License-Identifier: LGPL-2.1-or-later
"""DualParal, slowly and plainly, over diffusers' WanTransformer3DModel.

The transformer runs as diffusers wrote it; only its self-attention's processor is replaced, by one that can put neighbours' keys and values before
and behind the input's; the scheme itself puts none before. Everything else of the scheme (the queue, who sees what, whose sampler) is the loop of dualparal() below.

Words: B block latents, C context latents, T steps, k lag. A *pass* is one block going once through all layers.
Source: "Minute-Long Videos with Dual Parallelisms" (arXiv 2505.21070), with a lag between neighbours (k = 1 is the paper).
"""
import collections
import math

import torch
import torch.nn.functional as F


def rotate(x, cos, sin):
    """x [1, L, H, d] turned by interleaved pairs; cos and sin [1, L, 1, d], each angle twice."""
    a, b = x[..., 0::2], x[..., 1::2]
    c, s = cos[..., 0::2], sin[..., 0::2]
    return torch.stack((a * c - b * s, a * s + b * c), dim=-1).flatten(-2).type_as(x)


class PassState:
    """What the self-attention layers of one pass read and write."""

    def __init__(self, rope, tokens, before, behind, store):
        self.rope = rope                # (cos, sin) [1, K + L + K', 1, d]: of the frames before, the input's and those behind
        self.tokens = tokens            # L, of the input
        self.before = before            # per layer (k, v) [1, K, D], k normed and not rotated; or None
        self.behind = behind            # likewise, K'
        self.store = store              # slice of the input's tokens whose k and v are kept for the block in front
        self.stored = []                # per layer (k, v), as above


class SelfAttention:
    """Stands in for diffusers' WanAttnProcessor in the self-attention of every layer."""

    def __init__(self):
        self.state = None               # PassState of the pass that is running
        self.layer = 0

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        s = self.state
        q = attn.norm_q(attn.to_q(hidden_states))               # [1, L, D]
        k = attn.norm_k(attn.to_k(hidden_states))
        v = attn.to_v(hidden_states)
        s.stored.append((k[:, s.store].clone(), v[:, s.store].clone()))
        first = 0                       # position of the input
        if s.before is not None:
            first = s.before[self.layer][0].shape[1]
            k = torch.cat((s.before[self.layer][0], k), dim=1)  # [1, K + L, D]
            v = torch.cat((s.before[self.layer][1], v), dim=1)
        if s.behind is not None:
            k = torch.cat((k, s.behind[self.layer][0]), dim=1)  # [1, K + L + K', D]
            v = torch.cat((v, s.behind[self.layer][1]), dim=1)
        self.layer += 1
        q, k, v = (t.unflatten(2, (attn.heads, -1)) for t in (q, k, v))
        cos, sin = s.rope
        q = rotate(q, cos[:, first:first + s.tokens], sin[:, first:first + s.tokens])
        k = rotate(k, cos[:, :k.shape[1]], sin[:, :k.shape[1]])
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


class CachedTransformer:
    """WanTransformer3DModel with a feature cache. One at a time may be installed on a transformer."""

    def __init__(self, transformer):
        self.transformer = transformer
        self.attention = SelfAttention()
        for block in transformer.blocks:
            block.attn1.set_processor(self.attention)

    def forward(self, latents, timestep, text, behind, store_first, store_frames, before=None):
        """One pass.

        latents [1, c, n, h, w], text [1, length, text_dim]; timestep a 0-dim tensor, or [n]: of each frame; before, behind: what an
        earlier pass returned, or None.
        Returns the velocity [1, c, n, h, w] and, per layer, (k, v) of the input's frames [store_first, + store_frames).
        """
        _, c, n, h, w = latents.shape
        per_frame = (h // 2) * (w // 2)
        cached = sum(side[0][0].shape[1] // per_frame for side in (before, behind) if side is not None)
        rope = self.transformer.rope(latents.new_empty(1, c, n + cached, h, w))
        store = slice(store_first * per_frame, (store_first + store_frames) * per_frame)
        state = PassState(rope, n * per_frame, before, behind, store)
        self.attention.state, self.attention.layer = state, 0
        told = timestep.expand(1) if timestep.ndim == 0 else timestep.repeat_interleave(per_frame)[None]     # or of each token
        velocity = self.transformer(latents, told, text, return_dict=False)[0]
        return velocity, state.stored


class Block:
    """A run of latents that is denoised together, with its own conditioning, sampler and place in the schedule."""

    def __init__(self, index, latents, text, scheduler, steps):
        self.index = index
        self.latents = latents          # [1, c, n, h, w]
        self.text = text                # (conditional, unconditional or None), each [1, length, text_dim]
        self.scheduler = scheduler      # this block's alone: it is a multistep method
        self.scheduler.set_timesteps(steps)
        self.scheduler.set_begin_index(0)
        self.step = 0                   # steps done


def cut(latents, B, C):
    """How a video of `latents` latent frames is cut: [(first, count)] per block. Block 0 owns B + C, the others B, the last what is left."""
    blocks, first, count = [], 0, B + C
    while first < latents:
        count = min(count, latents - first)
        blocks.append((first, count))
        first, count = first + count, B
    return blocks


class LowNoise:
    """The second of two experts: takes the steps whose timestep is under `boundary`."""

    def __init__(self, transformer, boundary, guidance):
        self.transformer = transformer
        self.boundary = boundary        # a timestep
        self.guidance = guidance        # of its steps


@torch.no_grad()
def dualparal(transformer, make_scheduler, noise, text_of_block, *, steps, B, C, queue_blocks, guidance, cached=None, low_noise=None):
    """Denoises a whole video, block by block.

    noise [c, L, h, w]: what latent frame l starts from. make_scheduler() gives a fresh scheduler. text_of_block(b) gives (conditional,
    unconditional) embeds [1, length, text_dim]; the latter is not used with guidance <= 1. low_noise: a LowNoise, or None: one transformer.
    Returns latents [c, L, h, w] as they leave the sampler (normalised).
    """
    model = cached or CachedTransformer(transformer)
    second = CachedTransformer(low_noise.transformer) if low_noise else None
    guided = guidance > 1 or (low_noise is not None and low_noise.guidance > 1)
    lag = math.ceil(steps / queue_blocks)
    pieces = cut(noise.shape[1], B, C)
    queue = collections.deque()         # head (oldest, cleanest) left, tail (newest) right
    done = []                           # latents of the blocks that left, in order
    last_left = None                    # stays readable for its successor until the next one leaves
    iteration = 0
    while len(done) < len(pieces):
        if queue and queue[0].step == steps:
            last_left = queue.popleft()
            done.append(last_left.latents[0])
        admitted = len(done) + len(queue)
        if iteration % lag == 0 and admitted < len(pieces):
            first, count = pieces[admitted]
            queue.append(Block(admitted, noise[None, :, first:first + count].clone(), text_of_block(admitted), make_scheduler(), steps))

        # Every block's state after the previous iteration: the only state of a neighbour that anyone may see.
        before = {block.index: block.latents.clone() for block in queue}
        if last_left is not None:
            before[last_left.index] = last_left.latents

        caches = [None, None]           # of the block behind: conditional, unconditional. The tail has none behind it.
        for block in reversed(queue):   # from tail to head
            own = block.latents
            front = before[block.index - 1][:, :, -C:] if block.index > 0 and C > 0 else own[:, :, :0]
            window = torch.cat((front, own), dim=2)
            t = block.scheduler.timesteps[block.step]            # the block's own, for every token of the window
            expert, scale = model, guidance
            if low_noise and t < low_noise.boundary:
                expert, scale = second, low_noise.guidance
            velocity = []
            for i in range(2 if guided else 1):                  # the keys behind may be the other expert's
                v, stored = expert.forward(window, t, block.text[i], caches[i], front.shape[2], min(C, own.shape[2]))
                velocity.append(v[:, :, front.shape[2]:])
                caches[i] = stored if C > 0 else None
            v = velocity[0] if scale <= 1 else velocity[1] + scale * (velocity[0] - velocity[1])
            block.latents = block.scheduler.step(v, t, own, return_dict=False)[0]
            block.step += 1
        iteration += 1
    return torch.cat(done, dim=1)
