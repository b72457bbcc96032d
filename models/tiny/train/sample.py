# SPDX-License-Identifier: LGPL-2.1-or-later
"""Videos from the PyTorch networks through the DualParal queue on one device, to look at while training: `sample.py STATE OUT.png [GUIDANCE [STEPS [LAG]]]`.

The engine of this project does the same, with UniPC; here a step is Euler's.
"""
import sys

import torch

import captions
import export
import models
import sheet
from state import State

PROMPTS = [
    "a red ball bouncing over a green meadow", "a blue star spinning in a starry night", "an orange fish zigzagging under water",
    "a pink butterfly circling in a blue sky", "a white rocket rising under northern lights", "a purple ghost drifting to the right over a city at dusk",
    "a turquoise heart pulsing in the rain", "a small yellow cube swinging in the desert", "a green ring falling in falling snow",
    "a large black mushroom drifting to the left over the sea at sunset", "a red fish chasing a white butterfly under water",
    "a yellow star orbiting a blue ball in a starry night", "a pink flower and a green triangle bumping into each other on a sunny meadow",
]


def shift(u):
    """Levels of noise, 0 to 1, that were evenly spaced, as the flow shift has them."""
    return export.SHIFT * u / (1 + (export.SHIFT - 1) * u)


def sigma(step, steps):
    """The level of noise after `step` of `steps` steps, tensors or numbers: flow sigmas as diffusers' schedulers space them."""
    return shift(1 - 0.999 * step / steps) * (step < steps)


@torch.no_grad()
def dualparal(dit, text, empty, latents, steps, lag, guidance, generator, h=18, w=32, block=4, context=4, keep=None, cache=True):
    """text (P, n, D): P videos of at least `latents` latent frames, normalised (P, F, h, w, 16); keep: a list that gets the
    noise of each block; without `cache` no block sees the one behind it."""
    P, dev = text.shape[0], text.device
    noise = lambda n: torch.randn(P, n, h, w, 16, device=dev, generator=generator)
    pool, queue, done, before, admitted, iteration = noise(block + context), [], [], None, 0, 0
    both = torch.cat((text, empty.expand_as(text)))
    while sum(z.shape[1] for z in done) < latents:
        if iteration % lag == 0 and admitted < latents:
            if admitted:
                order = torch.randperm(block, device=dev, generator=generator)
                pool = torch.cat((pool[:, -context:], pool[:, :block][:, order]), 1)
            queue.append([pool[:, -block:] if admitted else pool, 0])
            admitted += queue[-1][0].shape[1]
            if keep is not None:
                keep.append(queue[-1][0])
        states, behind = [z for z, _ in queue], None
        for j in range(len(queue) - 1, -1, -1):
            z, s = states[j], queue[j][1]
            front = states[j - 1] if j else before
            x = z if front is None else torch.cat((front[:, -context:], z), 1)
            behind = behind if cache else None
            t = torch.full((P,), 1000.0 * sigma(s, steps), device=dev)
            if guidance == 1:
                v, behind = dit(x, t, text, z.shape[1], context, behind)
            else:
                v, behind = dit(torch.cat((x, x)), torch.cat((t, t)), both, z.shape[1], context, behind)
                v = v[P:] + guidance * (v[:P] - v[P:])
            queue[j] = [z + (sigma(s + 1, steps) - sigma(s, steps)) * v[:, -z.shape[1] :], s + 1]
        if queue[0][1] == steps:
            before = queue.pop(0)[0]
            done.append(before)
        iteration += 1
    return torch.cat(done, 1)[:, :latents]


def rows(text, tokenizer, prompts, device, dtype):
    return text(torch.tensor(captions.Tokenizer(tokenizer).ids(prompts), device=device), dtype)


@torch.no_grad()
def contact(path, vae, dit, text, tokenizer, guidance, prompts=PROMPTS, latents=24, steps=8, lag=3, pictures=8, seed=1):
    """One row a prompt: the first frame and others evenly spaced."""
    dev = vae.mean.device
    dtype = models.kind(dev.type)
    enc = dit.text(rows(text, tokenizer, [*prompts, ""], dev, dtype))
    z = dualparal(dit, enc[:-1], enc[-1:], latents, steps, lag, guidance, torch.Generator(dev).manual_seed(seed))
    out = []
    for v in z:         # one by one: the decoder is small, but a video is not
        frames = vae.decode((v[None] * vae.std + vae.mean).to(dtype))[0].clamp(-1, 1)
        at = torch.linspace(0, frames.shape[0] - 1, pictures).long().tolist()
        out.append([((frames[i] + 1) * 127.5).round().to(torch.uint8).cpu().numpy() for i in at])
    sheet.write_sheet(path, out, 2)


if __name__ == "__main__":
    state, out, *rest = sys.argv[1:]
    s = State(state)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    guidance, steps, lag = (float(rest[0]) if rest else s.guidance()), *(int(v) for v in [*rest[1:], *["8", "3"][max(0, len(rest) - 1) :]])
    contact(out, *s.networks(device), s.tokenizer(), guidance, steps=steps, lag=lag)
