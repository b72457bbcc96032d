# SPDX-License-Identifier: LGPL-2.1-or-later
"""Would the DualParal cases notice? Runs them with one mistake at a time in the reference and prints how far the latents move.

The tolerance of the tests is 1e-4. A mistake must move at least one case by far more than that; rounding (the last row:
the noise is disturbed by one part in 10^7) must move none by as much. Needs the fixtures' models.
"""
import pathlib

import torch

import dualparal_reference
import make_fixtures

SOURCE = pathlib.Path(dualparal_reference.__file__).read_text()

MISTAKES = {
    "head to tail": ("for block in reversed(queue):", "for block in queue:"),
    "context of this iteration": ("for block in reversed(queue):   # from tail to head",
                                  "for block in queue:\n            before = {x.index: x.latents for x in queue} | "
                                  "({last_left.index: last_left.latents} if last_left else {})"),
    "no context in front": ("if block.index > 0 and C > 0", "if False"),
    "first latents of the neighbour": ("[:, :, -C:]", "[:, :, :C]"),
    "no cache": ("caches[i] = stored if C > 0 else None", "caches[i] = None"),
    "cache not dropped": ("        caches = [None, None]           # of",
                          "        caches = caches if iteration else [None, None]           # of"),
    "cached keys of the neighbour's context": ("caches[i], front.shape[2], min(", "caches[i], 0, min("),
    "conditional cache for both": ("caches[i], front.shape[2]", "caches[0], front.shape[2]"),
    "cached keys at position 0": ("k = rotate(k, cos[:, :k.shape[1]], sin[:, :k.shape[1]])",
                                  "k = torch.cat((rotate(k[:, :s.tokens], cos[:, :s.tokens], sin[:, :s.tokens]), "
                                  "rotate(k[:, s.tokens:], cos[:, :k.shape[1] - s.tokens], sin[:, :k.shape[1] - s.tokens])), 1)"),
    "cached keys rotated twice": ("s.stored.append((k[:, s.store].clone()",
                                  "kk = rotate(k.unflatten(2, (attn.heads, -1)), s.rope[0][:, :s.tokens], s.rope[1][:, :s.tokens]).flatten(2)\n"
                                  "        s.stored.append((kk[:, s.store].clone()"),
    "cached keys one frame off": ("rope = self.transformer.rope(latents.new_empty(1, c, n + cached, h, w))",
                                  "rope = tuple(torch.cat((r[:, :n * per_frame], r[:, (n + 1) * per_frame:]), 1) for r in "
                                  "self.transformer.rope(latents.new_empty(1, c, n + cached + 1, h, w)))"),
    "keys cached before the norm": ("k = attn.norm_k(attn.to_k(hidden_states))",
                                    "raw = attn.to_k(hidden_states)\n        k = attn.norm_k(raw)"),
    "prompt of block 0": ("text_of_block(admitted), make", "text_of_block(0), make"),
    "timestep of the block in front": ("block.scheduler.timesteps[block.step] ",
                                       "block.scheduler.timesteps[min(block.step + lag * (block.index > 0), steps - 1)] "),
    "guidance the other way": ("velocity[1] + scale * (velocity[0] - velocity[1])", "velocity[0] + scale * (velocity[1] - velocity[0])"),
    "the second expert at the boundary": ("t < low_noise.boundary", "t <= low_noise.boundary"),
    "one expert": ("expert, scale = second, low_noise.guidance", "scale = low_noise.guidance"),
    "one guidance scale": ("expert, scale = second, low_noise.guidance", "expert = second"),
    "no cache from the other expert": ("            velocity = []\n",
                                       "            caches = caches if block is queue[-1] or expert is last else [None, None]\n"
                                       "            last = expert\n            velocity = []\n"),
    "block 0 owns B": ("first, count = [], 0, B + C", "first, count = [], 0, B"),
}


def variant(old, new):
    """The reference's dualparal() with `old` replaced by `new` in its source."""
    source = SOURCE
    if old.startswith("k = attn.norm_k"):
        source = source.replace("(k[:, s.store].clone()", "(raw[:, s.store].clone()")
    assert source.count(old) == 1, old
    source = source.replace(old, new)
    scope = {"__name__": "variant"}
    exec(compile(source, "variant", "exec"), scope)
    return scope["dualparal"]


def rounding(transformer, make_scheduler, noise, *args, **kwargs):
    g = torch.Generator().manual_seed(1)
    return dualparal_reference.dualparal(transformer, make_scheduler, noise * (1 + 1e-7 * torch.randn(noise.shape, generator=g)), *args, **kwargs)


def main():
    torch.set_num_threads(1)
    right = {name: make_fixtures.run_case(name)[1] for name in make_fixtures.CASES}
    rows = [(name, variant(*change)) for name, change in MISTAKES.items()] + [("rounding", rounding)]
    print(f"{'':40}" + " ".join(f"{n[:12]:>12}" for n in right))
    for title, run in rows:
        cells = []
        for name, latents in right.items():
            wrong = make_fixtures.run_case(name, run)[1]
            cells.append(f"{((wrong - latents).norm() / latents.norm()).item():12.1e}")
        print(f"{title:40}" + " ".join(cells), flush=True)


if __name__ == "__main__":
    main()
