# SPDX-License-Identifier: LGPL-2.1-or-later
"""The world: what there is, and clips of it.

A scene is a plain dict of words (what a caption may speak of); scene_rows() turns it into numbers, with the positions and phases that no caption
mentions; draw() and render() draw them with world.cu, on the CPU or a GPU. All are functions of their arguments and of the `random.Random` given.
"""
import ctypes
import hashlib
import os
import subprocess
import tempfile

import numpy as np

WIDTH, HEIGHT, FPS = 256, 144, 16
SUBJECTS = ["ball", "cube", "triangle", "star", "heart", "ring", "fish", "butterfly", "rocket", "flower", "ghost", "mushroom"]
COLOURS = {
    "red": (0.88, 0.10, 0.12), "orange": (0.98, 0.52, 0.06), "yellow": (0.98, 0.84, 0.12), "green": (0.12, 0.66, 0.22), "turquoise": (0.10, 0.78, 0.80),
    "blue": (0.14, 0.30, 0.92), "purple": (0.54, 0.20, 0.76), "pink": (0.98, 0.46, 0.70), "white": (0.97, 0.97, 0.97), "black": (0.09, 0.09, 0.11),
}
MOTIONS = ["bounce", "circle", "swing", "right", "left", "spin", "pulse", "rise", "fall", "zigzag"]
RELATIONS = ["chase", "orbit", "bump", "dance"]         # two subjects: the first does it to, around, against or with the second
BACKGROUNDS = ["sky", "night", "sea", "meadow", "snow", "desert", "rain", "aurora", "city", "underwater"]
EXTENT = {"fish": (1.16, 0.86), "rocket": (1.22, 1.22), "butterfly": (1.24, 1.05), "ghost": (0.86, 1.06), "mushroom": (1.10, 1.02), "star": (1.10, 1.12)}  # in radii
PERIOD_OF_BEAT = 0.7                                    # seconds between two beats of wings, about
DUO = 0.3                                               # share of scenes with two subjects
CAMERA = 0.2                                            # share of scenes whose camera sways


def sample(rng, **fixed):
    """A scene: subjects [(name, colour, size in 0..1)], motion (one subject) or relation (two), background, camera."""
    duo = fixed["relation"] is not None if "relation" in fixed else rng.random() < DUO
    names, colours = rng.sample(SUBJECTS, 2), rng.sample(list(COLOURS), 2)
    scene = {
        "subjects": [(names[i], colours[i], rng.random()) for i in range(2 if duo else 1)],
        "motion": None if duo else rng.choice(MOTIONS),
        "relation": rng.choice(RELATIONS) if duo else None,
        "background": rng.choice(BACKGROUNDS),
        "camera": rng.random() < CAMERA,
    }
    scene.update(fixed)
    return scene


def object_row(subject, colour, motion, radius, x, y, a=0.0, b=0.0, freq=0.0, phase=0.0, side=1.0, reach=0.0, tint=(0, 0, 0)):
    rgb = [min(1.0, max(0.0, v + d)) for v, d in zip(COLOURS[colour], tint)]
    beats = max(1, round(1 / (PERIOD_OF_BEAT * freq))) if freq else 0
    return [float(SUBJECTS.index(subject)), float(motion), *rgb, radius, x, y, a, b, freq, phase, float(beats), 0.0, side, reach]


def object_rows(rng, scene):
    u = rng.random()
    tints = [[rng.uniform(-0.02, 0.02) for _ in range(3)] for _ in scene["subjects"]]
    if scene["relation"] is None:
        (s, c, size), motion = scene["subjects"][0], scene["motion"]
        r = 26 + 12 * size
        ax, ay = 122 - 1.2 * r, max(16.0, 68 - 1.15 * r)        # how far the middle may go from the centre of the picture
        x, y = 128 + rng.uniform(-0.35, 0.35) * ax, 72 + rng.uniform(-0.4, 0.4) * ay
        row = dict(x=x, y=y, phase=u)
        if motion == "bounce":
            row.update(y=139 - 1.1 * r, a=0.92 * (139 - 2.3 * r), freq=0.7)
        elif motion == "circle":
            row.update(x=128 + rng.uniform(-0.25, 0.25) * ax, y=72, a=0.62 * ax, b=ay, freq=0.3)
        elif motion == "swing":
            row.update(x=128 + rng.uniform(-0.2, 0.2) * ax, y=66 + 0.95 * ay, a=0.85 * ax, freq=0.38)
        elif motion in ("right", "left"):
            reach = EXTENT.get(s, (1.0, 1.0))[0] * r + 3        # never out of sight for longer than a moment
            row.update(freq=62 / (WIDTH + 2 * reach), reach=reach)
        elif motion == "spin":
            row.update(freq=0.3)
        elif motion == "pulse":
            row.update(freq=0.55)
            r *= 0.94
        elif motion in ("rise", "fall"):
            reach = EXTENT.get(s, (1.0, 1.0))[1] * r + 3
            row.update(freq=42 / (HEIGHT + 2 * reach), reach=reach)
        else:
            row.update(x=128, y=72, a=0.85 * ax, b=0.85 * ay, freq=0.15)
        return [object_row(s, c, MOTIONS.index(motion), r, tint=tints[0], **row)]
    (s0, c0, z0), (s1, c1, z1) = scene["subjects"]
    r0, r1 = 22 + 5 * z0, 22 + 5 * z1
    x, y = 128 + rng.uniform(-10, 10), 72 + rng.uniform(-4, 4)
    rows = {
        "chase": [(1, r0, x, y, 84, 36, 0.24, u - 0.27, 1), (1, r1, x, y, 84, 36, 0.24, u, 1)],
        "orbit": [(10, r0 - 3, x, y, 88, 34, 0.26, u, 1), (12, r1 + 4, x, y, 0, 0, 0.26, u, 1)],
        "bump": [(11, r0, x - 1.05 * r0, y + 16, 58, 0, 0.55, u, -1), (11, r1, x + 1.05 * r1, y + 16, 58, 0, 0.55, u, 1)],
        "dance": [(0, r0, x - 50, 138 - 1.1 * r0, 62, 0, 0.7, u, 1), (0, r1, x + 50, 138 - 1.1 * r1, 62, 0, 0.7, u + 0.5, 1)],
    }[scene["relation"]]
    return [object_row(s, c, m, r, px, py, a, b, f, ph % 1.0, side, tint=t)
            for (s, c), (m, r, px, py, a, b, f, ph, side), t in zip(((s0, c0), (s1, c1)), rows, tints)]


def scene_rows(rng, scene, objects=2):
    """(4,), (objects, 16): what render() takes. The objects that the scene lacks have no radius."""
    camera = (rng.uniform(12, 18), rng.random()) if scene["camera"] else (0.0, 0.0)
    head = [float(BACKGROUNDS.index(scene["background"])), rng.random(), *camera]
    rows = object_rows(rng, scene)
    return np.array(head, np.float32), np.array(rows + [[0.0] * 16] * (objects - len(rows)), np.float32)


_source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "world.cu")
_built = {}


def _host():
    if "host" not in _built:
        text = open(_source, "rb").read()
        path = os.path.join(tempfile.gettempdir(), f"world-{os.getuid()}-{hashlib.sha1(text).hexdigest()[:12]}.so")
        if not os.path.exists(path):
            part = f"{path}.{os.getpid()}"
            subprocess.run(["cc", "-O3", "-ffp-contract=off", "-DHOST", "-shared", "-fPIC", "-x", "c", _source, "-o", part, "-lm"], check=True)
            os.rename(part, path)
        _built["host"] = ctypes.CDLL(path).render
    return _built["host"]


def _kernel():
    import torch

    if "cuda" not in _built:
        _built["cuda"] = torch.cuda._compile_kernel(open(_source).read(), "render")      # NVRTC, which PyTorch brings
    return _built["cuda"]


def draw(scenes, objects, t0, frames):
    """scenes (B, 4), objects (B, K, 16), t0 (B,): B clips of `frames` frames from t0 seconds on, as a (B, frames, 144, 256, 4) uint8 array: R, G, B and
    the number of the object that covers the pixel. On the CPU, by one thread."""
    scenes, objects, t0 = (np.ascontiguousarray(v, np.float32) for v in (scenes, objects, t0))
    out = np.empty((len(objects), frames, HEIGHT, WIDTH, 4), np.uint8)
    _host()(*(ctypes.c_void_p(v.ctypes.data) for v in (scenes, objects, t0, out)), len(objects), frames, objects.shape[1])
    return out


def render(scenes, objects, t0, frames, device="cpu"):
    """draw() as a tensor on `device`, drawn there."""
    import torch

    if device == "cpu":
        return torch.from_numpy(draw(scenes, objects, t0, frames))
    scenes, objects, t0 = (torch.as_tensor(np.ascontiguousarray(v, dtype=np.float32)).to(device) for v in (scenes, objects, t0))
    clips, count = objects.shape[:2]
    out = torch.empty(clips, frames, HEIGHT, WIDTH, 4, dtype=torch.uint8, device=device)
    _kernel()(grid=((HEIGHT * WIDTH + 255) // 256, frames, clips), block=(256, 1, 1), args=[scenes, objects, t0, out, frames, count])
    return out


def clips(rng, count, frames, device="cpu", **fixed):
    """(uint8 clips, scenes) at random."""
    scenes = [sample(rng, **fixed) for _ in range(count)]
    rows = [scene_rows(rng, s) for s in scenes]
    t0 = [rng.uniform(0, 60) for _ in scenes]
    return render(np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows]), np.array(t0), frames, device), scenes


def crowds(rng, count, frames, subjects, device="cpu"):
    """Clips of several unrelated subjects: more edges a frame, for the VAE."""
    rows = [scene_rows(rng, sample(rng)) for _ in range(count)]
    objs = [np.stack([scene_rows(rng, sample(rng))[1][0] for _ in range(subjects)]) for _ in range(count)]
    t0 = [rng.uniform(0, 60) for _ in rows]
    return render(np.stack([r[0] for r in rows]), np.stack(objs), np.array(t0), frames, device)


if __name__ == "__main__":      # do both renderers draw the same?
    import random

    rows = [scene_rows(random.Random(i), sample(random.Random(i), background=b)) for i, b in enumerate(BACKGROUNDS * 3)]
    args = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows]), np.arange(len(rows)) * 1.7, 2
    a, b = render(*args), render(*args, device="cuda").cpu()
    off = (a[..., :3].int() - b[..., :3].int()).abs().amax(-1)
    share = (off > 4).float().mean().item()
    print(f"GPU and CPU: {share:.2e} of the pixels differ by more than 4 of 255")
    if not share < 1e-3:
        raise SystemExit("the two renderers differ")
