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
    "no context in front": ("neighbours.get(block.index - 1) if C > 0 else None", "None"),
    "first latents of the neighbour": ("[:, :, -C:]", "[:, :, :C]"),
    "no cache": ("caches[i] = part(stored, per_frame, 0, lent) if C > 0 else None", "caches[i] = None"),
    "cache not dropped": ("        caches = [None, None]           # of",
                          "        caches = caches if iteration else [None, None]           # of"),
    "cached keys of the neighbour's context": ("caches[i], front.shape[2], own", "caches[i], 0, own"),
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
    "prompt of block 0": ("text_of_block(admitted, iteration), make", "text_of_block(0, iteration), make"),
    "timestep of the block in front": ("t = block.timestep() ",
                                       "t = block.timesteps[min(block.step + lag * (block.index > 0), steps - 1)] "),
    "guidance the other way": ("velocity[1] + scale * (velocity[0] - velocity[1])", "velocity[0] + scale * (velocity[1] - velocity[0])"),
    "guidance in all steps": ("low < block.noise_level() <= high", "True"),
    "guidance one step early": ("self.sigmas[self.told_step()]", "self.sigmas[min(self.told_step() + 1, len(self.sigmas) - 1)]"),
    "guidance: level of the place": ("self.sigmas[self.told_step()]", "self.sigmas[self.step]"),
    "without guidance: older keys behind": ("                caches[1] = caches[0]\n", ""),
    "without guidance: older keys in front": ("tail.append(tail[0])",
                                              "tail.append(block.tail[1] if block.tail else tail[0])"),
    "the second expert at the boundary": ("t < low_noise.boundary", "t <= low_noise.boundary"),
    "one expert": ("expert, scale = second, low_noise.guidance", "scale = low_noise.guidance"),
    "one guidance scale": ("expert, scale = second, low_noise.guidance", "expert = second"),
    "no cache from the other expert": ("            velocity, tail = [], []\n",
                                       "            caches = caches if block is queue[-1] or expert is last else [None, None]\n"
                                       "            last = expert\n            velocity, tail = [], []\n"),
    "block 0 owns B": ("first, count = [], 0, B + C", "first, count = [], 0, B"),
    "restart: told the step": ("self.timesteps[self.told_step()]", "self.timesteps[self.step]"),
    "restart: level of the noise": ("(self.sigmas[self.step] - self.sigmas[0]) * velocity", "0 * velocity"),
    "kept: first latents": ("part(stored, per_frame, own.shape[2] - lent, lent)", "part(stored, per_frame, 0, lent)"),
    "kept: a step older": ("block.tail, block.tail_step = tail, block.step",
                           "block.tail, block.older, block.tail_step = getattr(block, 'older', tail), tail, block.step"),
    "kept: conditional for both": ("own.shape[2], kept[i])", "own.shape[2], kept[0])"),
    "kept: behind": ("caches[i], front.shape[2], own.shape[2], kept[i])", "caches[i] or kept[i], front.shape[2], own.shape[2])"),
    "kept: after a change": ("any(a is not b for a, b in zip(block.text, previous.text))", "False"),
    "kept: after a restart": (" or previous.first_step > 0", ""),
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
    print(f"{'':40}" + " ".join(f"{n.replace('cached-', 'c-')[:12]:>12}" for n in right))
    for title, run in rows:
        cells = []
        for name, latents in right.items():
            try:
                wrong = make_fixtures.run_case(name, run)[1]
                cells.append(f"{((wrong - latents).norm() / latents.norm()).item():12.1e}")
            except AssertionError:                              # the reference itself noticed
                del make_fixtures.models[make_fixtures.CASES[name][0]]
                cells.append(f"{'refused':>12}")
        print(f"{title:40}" + " ".join(cells), flush=True)


if __name__ == "__main__":
    main()
