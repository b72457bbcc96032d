#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Does the embedded model make what its prompt says, without seams, and for how long? All through the engine, all from the pixels (judge.py).

    measure.py BUILD_DIR                            the defaults: 120 prompts, those with two subjects with more seeds, prompt changes, 1,025 frames of ten
    measure.py BUILD_DIR --settings [--prompts 40]  a table over settings, and the whole sequence at once as the reference
    measure.py BUILD_DIR --set context-mode=recomputed --parts prompts,changes      some of the first with another setting
    measure.py BUILD_DIR --prompts 40 --parts prompts,pictures      with a picture to begin with, and without

Obedience is the share of prompts of which the named thing is seen: each subject by its silhouette, its colour, what it does, the background. Too many is
the share of looks in which more things are wholly in the picture than the prompt names. The seam ratio is how much frames differ across block borders,
over how much they do elsewhere. Needs numpy and scipy; the rows with and without the feature cache, which the engine always has, are PyTorch's and need
torch and safetensors too.
"""
import argparse
import collections
import contextlib
import functools
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import judge

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPTS = json.loads((ROOT / "models" / "tiny" / "train" / "prompts.json").read_text())
FRAMES = 117            # seven seconds: two blocks and the first one's context more than the slowest motion needs
LONG = 1025
WINDOW = 128            # frames at both ends of a long video that are compared
WHOLE = 45              # frames of the reference: what the model has been trained on in one piece


# ---- videos ----


def rgb(y, u, v):
    """BT.601 in limited range, [F, H, W] and two of half the size, to [F, H, W, 3] uint8."""
    y = (y.astype(np.float32) - 16) / 219
    u, v = (c.repeat(2, 1).repeat(2, 2).astype(np.float32) / 224 - 128 / 224 for c in (u, v))
    out = np.stack((y + 1.402 * v, y - 0.3441 * u - 0.7141 * v, y + 1.772 * u), -1)
    return (out * 255 + 0.5).clip(0, 255).astype(np.uint8)


def read_y4m(data):
    head, rest = data.split(b"\n", 1)
    words = head.split()
    w, h = (int(next(x[1:] for x in words if x[:1] == c)) for c in (b"W", b"H"))
    if words[0] != b"YUV4MPEG2" or not any(x.startswith(b"C420") for x in words):
        raise ValueError(f"expected 4:2:0, found {head!r}")
    size = w * h * 3 // 2
    planes = np.frombuffer(rest, np.uint8).reshape(-1, len(b"FRAME\n") + size)[:, len(b"FRAME\n"):]
    y, u, v = np.split(planes, (w * h, w * h * 5 // 4), 1)
    return rgb(y.reshape(-1, h, w), u.reshape(-1, h // 2, w // 2), v.reshape(-1, h // 2, w // 2))


def make(args, prompt, frames, settings, seed=1, more=()):
    """[F, 144, 256, 3] uint8, by the engine. settings: {option: value}; noise=fresh is no option of it but a file of noise that is new everywhere."""
    command = [args.program, "generate", "--prompt", prompt, "--frames", str(frames), "--seed", str(seed), "--threads", "1", "--output", "-", *more]
    with contextlib.ExitStack() as stack:
        for key, value in (args.set | settings).items():
            if key == "noise":
                value = stack.enter_context(fresh_noise(frames, seed))
            command += [f"--{key}", str(value)]
        if args.model:
            command += ["--model", args.model]
        done = subprocess.run(command, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode().strip()}")
    return read_y4m(done.stdout)


@contextlib.contextmanager
def fresh_noise(frames, seed):
    """The path of a safetensors file with noise [16, L, 18, 32] for a video of so many frames, and as much again."""
    latents = np.random.default_rng(seed).standard_normal((16, 2 * (frames + 2) // 4 + 16, 18, 32), np.float32)
    head = json.dumps({"noise": {"dtype": "F32", "shape": latents.shape, "data_offsets": [0, latents.nbytes]}}).encode()
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as f:
        f.write(len(head).to_bytes(8, "little") + head + latents.tobytes())
        f.flush()
        yield f.name


def defaults(args):
    """The model's, but for what --set says."""
    directory = pathlib.Path(args.model) if args.model else ROOT / "models" / "tiny"
    found = json.loads((directory / "dualparal.json").read_text())
    return found | {k: type(found[k])(v) for k, v in ((k.replace("-", "_"), v) for k, v in args.set.items()) if k in found}


def borders(args, settings, frames):
    """Numbers of the frames that a block begins with, from the second block on."""
    d = defaults(args)
    block, context = (int(settings.get(f"{n}-latents", d[f"{n}_latents"])) for n in ("block", "context"))
    return range(1 + 4 * (block + max(context, 0) - 1), frames, 4 * block)


# ---- obedience and seams ----


def look(job):
    """One prompt: {what: [hits, tries]}, and numbers to be averaged."""
    args, scene, frames, settings, seed = job
    video = make(args, scene["prompt"], frames, settings, seed)
    return assess(video, scene, borders(args, settings, frames))


def assess(video, scene, at):
    seen = judge.judge(video, [tuple(s) for s in scene["subjects"]])
    hits = collections.Counter()
    for (name, colour), (seen_name, seen_colour) in zip(scene["subjects"], seen["subjects"]):
        hits["subject"] += seen_name == name
        hits["colour"] += seen_colour == colour
    kind = "motion" if scene["motion"] else "relation"
    hits["motion"] += seen[kind] == scene[kind]
    hits["background"] += seen["background"] == scene["background"]
    tries = collections.Counter(subject=len(scene["subjects"]), colour=len(scene["subjects"]), motion=1, background=1)
    steps = np.abs(np.diff(video.astype(np.int16), axis=0)).mean((1, 2, 3))    # [i] from frame i to i + 1
    seam = np.zeros(len(steps), bool)
    seam[[b - 1 for b in at]] = True
    return hits, tries, dict(fit=seen["fit"], too_many=seen["too_many"], across=float(steps[seam].mean()) if seam.any() else float("nan"),
                             inside=float(steps[~seam].mean())), (scene, seen)


class Score:
    def __init__(self, results):
        self.hits, self.tries, self.misses = collections.Counter(), collections.Counter(), []
        numbers = collections.defaultdict(list)
        for hits, tries, values, (scene, seen) in results:
            self.hits.update(hits)
            self.tries.update(tries)
            for k, v in values.items():
                numbers[k].append(v)
            if hits != tries:
                self.misses.append((scene, seen))
        self.mean = {k: float(np.mean(v)) for k, v in numbers.items()}

    def share(self, what):
        return self.hits[what] / self.tries[what]

    def row(self):
        seam = self.mean["across"] / self.mean["inside"]
        return [f"{self.share(w):.1%}" for w in ("colour", "subject", "motion", "background")] + [
            f"{self.mean['too_many']:.1%}", f"{self.mean['fit']:.3f}", "" if np.isnan(seam) else f"{seam:.3f}", f"{self.mean['inside']:.2f}"]


COLUMNS = ["colour", "subject", "motion", "background", "too many", "silhouette", "seam", "change a frame"]


def table(rows, columns):
    print("| | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for name, cells in rows:
        print(f"| {name} | " + " | ".join(cells) + " |")


def looks(pool, args, prompts, settings={}, frames=FRAMES, seeds=(1,)):
    """As they become ready, what look() says."""
    return pool.imap_unordered(look, [(args, p, frames, settings, seed) for seed in seeds for p in prompts])


def measure_prompts(pool, args, prompts):
    """What look() said of each."""
    results = list(looks(pool, args, prompts))
    result = Score(results)
    name = ", ".join(f"{k} {v}" for k, v in args.set.items()) or "the defaults"
    print(f"{len(prompts)} prompts, {FRAMES} frames\n")
    table([(name, result.row())], COLUMNS)
    for scene, seen in result.misses if args.misses else ():
        print(f"  {scene['prompt']}: {seen}")
    return results


def measure_two(pool, args, duos, once):
    """`once`: what look() said of the first seed, if it was asked."""
    again = [r for r in once if r[3][0]["relation"]]
    if duos:
        print(f"\nthe {len(duos)} of them with two subjects, four seeds\n")
        table([("two subjects", Score(again + list(looks(pool, args, duos, seeds=(2, 3, 4) if again else (1, 2, 3, 4)))).row())], COLUMNS)


# ---- a long video ----


def long_video(job):
    args, scene = job
    video = make(args, scene["prompt"], LONG, {})
    d = defaults(args)
    first = 1 + 4 * (d["block_latents"] + d["context_latents"] - 1)
    ends = video[first:first + WINDOW], video[-WINDOW:]
    levels = [e.mean((0, 1, 2)) for e in ends]
    contrast = [e.astype(np.float32).mean(-1).std((1, 2)).mean() for e in ends]
    results = [assess(e, scene, range(4 * d["block_latents"] - 1, WINDOW, 4 * d["block_latents"])) for e in ends]
    return np.abs(levels[1] - levels[0]).max() / levels[0].mean(), abs(contrast[1] / contrast[0] - 1), results


def measure_long(pool, args):
    """Ten prompts, each background once."""
    scenes = {s["background"]: s for s in PROMPTS if s["motion"]}
    done = pool.map(long_video, [(args, s) for s in scenes.values()])
    print(f"\n{LONG} frames of {len(done)} prompts, the last {WINDOW} beside {WINDOW} after the first block\n")
    table([("mean", [f"{np.mean([d[0] for d in done]):.1%}", f"{np.mean([d[1] for d in done]):.1%}"]),
           ("worst", [f"{max(d[0] for d in done):.1%}", f"{max(d[1] for d in done):.1%}"])], ["drift of colour", "of contrast"])
    print()
    table([(name, Score([d[2][i] for d in done]).row()) for i, name in enumerate(("beginning", "end"))], COLUMNS)


# ---- a new prompt ----


def change(job):
    """From one prompt to another: frames from the new one's first block until its background, and its colour, are seen for good, and the largest change
    from frame to frame there, as a share of what frames of the two videos differ by."""
    args, old, new = job
    d = defaults(args)
    block = 6
    first = list(borders(args, {}, 10 ** 4))[block - 1]
    video = make(args, old["prompt"], first + WINDOW, {}, more=("--prompt-at", f"{block}={new['prompt']}"))
    distance, _ = judge.nearest_backgrounds(video)
    there = distance.argmin(1) == judge.world.BACKGROUNDS.index(new["background"])
    arrived = next((i for i in range(first - 16, len(there)) if there[i:i + 16].all()), len(there)) - first
    steps = np.abs(np.diff(video[first - 2:first + 8 * d["block_latents"]].astype(np.int16), axis=0)).mean((1, 2, 3))
    apart = np.abs(video[first - 16:first].astype(np.int16) - video[-16:]).mean()
    return arrived, float(steps.max() / apart), assess(video[first + 8 * d["block_latents"]:], new, ())


def measure_changes(pool, args, count):
    rng = np.random.default_rng(3)
    single = [s for s in PROMPTS if s["motion"]]
    pairs = []
    while len(pairs) < count:
        a, b = (single[i] for i in rng.choice(len(single), 2, replace=False))
        if a["background"] != b["background"]:
            pairs.append((args, a, b))
    done = pool.map(change, pairs)
    frames = sorted(d[0] for d in done)
    print(f"\n{count} changes of the prompt: the new background is there {np.median(frames):.0f} frames after its first block has begun (most: {frames[-1]}); the largest step from "
          f"frame to frame is {np.mean([d[1] for d in done]):.0%} of a hard cut (most: {max(d[1] for d in done):.0%}); two blocks later:\n")
    table([("after a change", Score([d[2] for d in done]).row())], COLUMNS)


# ---- a picture to begin with ----

AFTER = (4, 16, 48)     # frames behind the picture


def picture(job):
    """A frame of another video of the prompt, as the beginning. How much frames differ from it, of 255: the first one, some behind it, and those which followed
    it where it is from; and what look() says of the video."""
    args, scene = job
    at = 24
    origin = make(args, scene["prompt"], at + AFTER[-1] + 1, {}, seed=2)
    with tempfile.NamedTemporaryFile(suffix=".ppm") as f:
        f.write(b"P6 256 144 255\n" + origin[at].tobytes())
        f.flush()
        video = make(args, scene["prompt"], FRAMES, {"image": f.name})
    away = [[float(np.abs(frames[k].astype(np.int16) - origin[at]).mean()) for k in (0, *AFTER)] for frames in (video, origin[at:])]
    return away, assess(video, scene, borders(args, {}, FRAMES))


def measure_pictures(pool, args, prompts):
    done = pool.map(picture, [(args, s) for s in prompts])
    print(f"\n{len(prompts)} videos that begin with a picture, a frame of another video of their prompt: how much a frame differs from it, of 255\n")
    table([(name, [f"{np.mean([d[0][i][k] for d in done]):.1f}" for k in range(len(AFTER) + 1)])
           for i, name in enumerate(("the video", "the one that the picture is from"))], ["first frame", *(f"{k} behind it" for k in AFTER)])
    print()
    table([("with a picture", Score([d[1] for d in done]).row())], COLUMNS)


# ---- with and without the feature cache, which the engine always has: the same queue in PyTorch ----


@functools.cache
def networks(directory):
    import torch

    sys.path.insert(0, str(ROOT / "models" / "tiny" / "train"))
    import export
    import sample

    torch.set_num_threads(1)
    return sample, *export.read(directory)


def look_in_torch(job):
    import torch

    args, scene, frames, cache = job
    d = defaults(args)
    sample, vae, dit, text, tokenizer = networks(args.model or str(ROOT / "models" / "tiny"))
    lag = -(-d["steps"] // d["queue_blocks"])
    with torch.no_grad():
        rows = dit.text(sample.rows(text, tokenizer, [scene["prompt"], ""], "cpu", torch.float32))
        z = sample.dualparal(dit, rows[:1], rows[1:], (frames + 3) // 4, d["steps"], lag, d["guidance_scale"], torch.Generator().manual_seed(1),
                             block=d["block_latents"], context=d["context_latents"], cache=cache)
        video = vae.decode(z * vae.std + vae.mean)[0, :frames].clamp(-1, 1)
    return assess(((video + 1) * 127.5).round().to(torch.uint8).numpy(), scene, borders(args, {}, frames))


# ---- the table over settings ----


def real_time(args, settings):
    """Times real time on all processors, alone."""
    command = [args.program, "bench", "--blocks", "10", "--json"] + [x for k, v in (args.set | settings).items() if k != "noise" for x in (f"--{k}", str(v))]
    done = subprocess.run(command + (["--model", args.model] if args.model else []), capture_output=True, check=True)
    return json.loads(done.stdout)["realtime_factor"]


def variants(d):
    """(name, {option: value}): one thing at a time differs from the defaults."""
    steps, lag = d["steps"], -(-d["steps"] // d["queue_blocks"])
    yield "the defaults", {}
    for n in (4, 5, 6, 8, 12, 20):
        if n != steps:
            yield f"{n} steps", {"steps": n, "queue-blocks": -(-n // lag)}
    for k in (1, 2, 3, steps):
        if k != lag:
            yield f"lag {k}" + (": one block after the other" if k == steps else ""), {"queue-blocks": -(-steps // k)}
    yield "context recomputed", {"context-mode": "recomputed"}
    for k in (1, 2):
        yield f"lag {k}, context cached", {"queue-blocks": -(-steps // k), "context-mode": "cached"}
    for b in (2, 3, 6, 8):
        yield f"B {b}", {"block-latents": b, "context-latents": min(b, d["context_latents"])}
    for c in (0, 1, 2, 3):
        yield f"C {c}", {"context-latents": c or -1}
    yield "fresh noise", {"noise": "fresh"}
    yield "Euler", {"sampler": "euler"}
    for g in (1, 2, 3, 4, 6):
        if g != d["guidance_scale"]:
            yield f"guidance {g}", {"guidance-scale": g}


def measure_settings(pool, args, prompts):
    rows = [(name, settings, FRAMES) for name, settings in variants(defaults(args))]
    rows += [(f"{WHOLE} frames in one piece", {"block-latents": (WHOLE + 3) // 4, "context-latents": -1, "queue-blocks": 1}, WHOLE),
             (f"the defaults, {WHOLE} frames", {}, WHOLE)]
    begun = [(name, looks(pool, args, prompts, settings, frames)) for name, settings, frames in rows]
    begun += [(name, pool.imap_unordered(look_in_torch, [(args, p, FRAMES, cache) for p in prompts]))
              for name, cache in (("in PyTorch, Euler's step", True), ("the same without feature cache", False))]
    done = []
    for name, results in begun:
        done.append((name, Score(results).row()))
        print(name, *done[-1][1], file=sys.stderr, flush=True)
    speeds = {name: f"{real_time(args, settings):.2f}" for name, settings, frames in rows if frames == FRAMES}      # when nothing else runs any more
    table([(name, cells + [speeds.get(name, "")]) for name, cells in done], COLUMNS + ["x real time"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--model", help="a directory; the embedded model by default")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="so many of them, evenly spread")
    parser.add_argument("--settings", action="store_true", help="the table over settings")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of `dualparal` for every video")
    parser.add_argument("--parts", default="prompts,two,changes,long", help="which of them (default: %(default)s)")
    parser.add_argument("--misses", action="store_true", help="say what was seen in place of what the prompt says")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)     # a file is to have what is known so far, too
    args.set = dict(s.split("=", 1) for s in args.set)
    parts = args.parts.split(",")
    args.program = os.path.join(args.build, "engine", "dualparal")
    prompts = [PROMPTS[i * len(PROMPTS) // args.prompts] for i in range(args.prompts)]
    judge.backgrounds(), judge.coarse_backgrounds(), judge.silhouettes()      # once, before the processes
    with multiprocessing.get_context("fork").Pool() as pool:
        if args.settings:
            measure_settings(pool, args, prompts)
            return
        once = measure_prompts(pool, args, prompts) if "prompts" in parts else []
        if "two" in parts:
            measure_two(pool, args, [p for p in prompts if p["relation"]], once)
        if "changes" in parts:
            measure_changes(pool, args, 20)
        if "long" in parts:
            measure_long(pool, args)
        if "pictures" in parts:
            measure_pictures(pool, args, prompts)


if __name__ == "__main__":
    main()
