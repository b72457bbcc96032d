# SPDX-License-Identifier: LGPL-2.1-or-later
"""DualParal, slowly and plainly, over diffusers' WanTransformer3DModel.

The transformer runs as diffusers wrote it; only its self-attention's processor is replaced, by one that can put neighbours' keys and values before
and behind the input's. Everything else of the scheme (the queue, who sees what, whose sampler) is the loop of dualparal() below.

Words: B block latents, C context latents, T steps, k lag. A *pass* is one block going once through all layers. The context in front of a block
is *recomputed* where the previous block's last latents go through the pass with it, *cached* where the keys and values are used that the
previous block's own pass of the iteration before made of them.
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
        self.store = store              # slice of the input's tokens whose k and v are kept for the neighbours
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


def part(stored, per_frame, first, count):
    """Of the keys and values that a pass returned, those of frames [first, + count)."""
    return [tuple(t[:, first * per_frame:(first + count) * per_frame] for t in layer) for layer in stored]


class Block:
    """A run of latents that is denoised together, with its own conditioning, sampler and place in the schedule."""

    def __init__(self, index, latents, text, make_scheduler, steps):
        self.index = index
        self.noise = latents
        self.step = 0                   # steps done
        self.start(text, make_scheduler, steps)
        self.tail = None                # keys and values of its last C latents, of the last pass: conditional, unconditional
        self.tail_step = None           # the step of that pass

    def start(self, text, make_scheduler, steps):
        """From its noise; it keeps its place in the schedule."""
        self.text = text                # (conditional, unconditional or None), each [1, length, text_dim]
        self.latents = self.noise.clone()       # [1, c, n, h, w]
        self.first_step = self.step
        s = self.scheduler = make_scheduler()   # this block's alone: it is a multistep method
        s.set_timesteps(steps)
        self.timesteps, self.sigmas = s.timesteps, s.sigmas
        s.timesteps, s.sigmas, s.num_inference_steps = s.timesteps[self.step:], s.sigmas[self.step:], steps - self.step
        s.set_begin_index(0)

    def told_step(self):
        """The step that the model is told: its latents are noise in the first step, wherever that is in the schedule."""
        return 0 if self.step == self.first_step else self.step

    def timestep(self):
        return self.timesteps[self.told_step()]

    def noise_level(self):
        return self.sigmas[self.told_step()]

    def take_step(self, velocity):
        latents = self.latents
        if self.step == self.first_step > 0:    # straight to the level at which its place in the schedule is
            latents = latents + (self.sigmas[self.step] - self.sigmas[0]) * velocity
        self.latents = self.scheduler.step(velocity, self.timesteps[self.step], latents, return_dict=False)[0]
        self.step += 1


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


RESTART_NOISE = 0.8     # least level of noise of a block that restarts


@torch.no_grad()
def dualparal(transformer, make_scheduler, noise, text_of_block, *, steps, B, C, queue_blocks, guidance, guidance_interval=(0, 1),
              context="recomputed", restart_in=None, cached=None, low_noise=None):
    """Denoises a whole video, block by block.

    noise [c, L, h, w]: what latent frame l starts from. make_scheduler() gives a fresh scheduler. text_of_block(b, iteration) gives
    (conditional, unconditional) embeds [1, length, text_dim] of a block that starts then, the same objects for the same prompts; the latter
    is not used with guidance <= 1. guidance_interval: (low, high); there is guidance in the steps from noise levels above low and up to
    high, alone. context: "recomputed" or "cached". restart_in: the iteration in which blocks that are mostly noise restart with the text of
    then, or None. low_noise: a LowNoise, or None: one transformer.
    Returns latents [c, L, h, w] as they leave the sampler (normalised).
    """
    model = cached or CachedTransformer(transformer)
    second = CachedTransformer(low_noise.transformer) if low_noise else None
    low, high = guidance_interval
    per_frame = (noise.shape[2] // 2) * (noise.shape[3] // 2)
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
        if iteration == restart_in:
            for block in queue:
                if block.sigmas[block.step] >= RESTART_NOISE:
                    block.start(text_of_block(block.index, iteration), make_scheduler, steps)
        admitted = len(done) + len(queue)
        if iteration % lag == 0 and admitted < len(pieces):
            first, count = pieces[admitted]
            queue.append(Block(admitted, noise[None, :, first:first + count], text_of_block(admitted, iteration), make_scheduler, steps))

        # Every block's state after the previous iteration: the only state of a neighbour that anyone may see.
        before = {block.index: block.latents.clone() for block in queue}
        neighbours = {block.index: block for block in queue}
        if last_left is not None:
            before[last_left.index] = last_left.latents
            neighbours[last_left.index] = last_left

        caches = [None, None]           # of the block behind: conditional, unconditional. The tail has none behind it.
        for block in reversed(queue):   # from tail to head
            own = block.latents
            previous = neighbours.get(block.index - 1) if C > 0 else None
            front = before[previous.index][:, :, -C:] if previous else own[:, :, :0]
            kept = [None, None]
            if previous and context == "cached" and not is_guarded(block, previous):
                front, kept = front[:, :, :0], previous.tail    # of its pass in the iteration before: it has not been visited in this one
                assert previous.tail_step == min(block.step + lag - 1, steps - 1)
            window = torch.cat((front, own), dim=2)
            t = block.timestep()                                 # the block's own, for every token of the window
            expert, scale = model, guidance
            if low_noise and t < low_noise.boundary:
                expert, scale = second, low_noise.guidance
            guided = scale > 1 and low < block.noise_level() <= high
            velocity, tail = [], []
            for i in range(2 if guided else 1):                  # the keys of neighbours may be the other expert's
                v, stored = expert.forward(window, t, block.text[i], caches[i], front.shape[2], own.shape[2], kept[i])
                velocity.append(v[:, :, front.shape[2]:])
                lent = min(C, own.shape[2])
                caches[i] = part(stored, per_frame, 0, lent) if C > 0 else None
                tail.append(part(stored, per_frame, own.shape[2] - lent, lent))
            v = velocity[0]
            if guided:
                v = velocity[1] + scale * (velocity[0] - velocity[1])
            else:                                                # a neighbour with guidance sees the conditional keys in both elements
                caches[1] = caches[0]
                tail.append(tail[0])
            block.tail, block.tail_step = tail, block.step
            block.take_step(v)
        iteration += 1
    return torch.cat(done, dim=1)


def is_guarded(block, previous):
    """Whether a block's context is recomputed all the same: the kept keys have seen another prompt, or what was there before a restart."""
    return any(a is not b for a, b in zip(block.text, previous.text)) or previous.first_step > 0
