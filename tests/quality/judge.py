# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is to be seen in a video of the embedded model's world, told from its pixels: background, subjects with their colours, how they move.

No network takes part. The background is the drawn one that a frame is nearest to; the subject is what that leaves over; its colour is the hue of
most of its pixels; its name that of the drawn silhouette which covers it best; its motion follows from where it is in each frame. How often that is
right on clips that the renderer drew: `judge.py [CLIPS]`.

Frames are [F, 144, 256, 3] uint8 at 16 a second. Needs numpy and scipy.
"""
import collections
import functools
import pathlib
import random
import sys

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "models" / "tiny" / "train"))
import world  # noqa: E402

STRIDE = 2              # frames from one look to the next
RATE = world.FPS / STRIDE
PHASES = 48             # of each background
COARSE = 4              # pixels, a side, whose mean stands for all when a background is looked for
FOREIGN = 14, 0.08      # levels of 255 by which a pixel that is no background differs from it, and what that grows by with its brightness
SPECK = 60              # pixels of the largest thing that may be of the background after all
SHADE = 0.62            # what the darkest shadow leaves of the light
LEAST = 260             # pixels of a subject
KEPT = 0.5              # of something, at least, that is of no phase of the background: the rest may then not be of it
BACKDROP = 0.7          # of something that is not of a colour looked for, at least, that the background has there in another phase: it is a cloud, and no thing
FIT = 0.7               # what a silhouette has in common with the best one, at least, to have a name
EDGE = 2.2              # pixels of light paper around a subject, as world.cu draws it
MIDDLE = 0.45           # of the radius of a ring, where one looks through it
GRID = 36               # a side of a silhouette
HUES = {"red": 1, "orange": 30, "yellow": 50, "green": 131, "turquoise": 181, "blue": 229, "purple": 277, "pink": 332}

# ---- background ----


def coarse(frames):
    f, h, w, c = frames.shape
    return frames.reshape(f, h // COARSE, COARSE, w // COARSE, COARSE, c).mean((2, 4), dtype=np.float32)


@functools.cache
def backgrounds():
    """[B, P, 144, 256, 3] uint8: each background in each of its phases."""
    scenes = [(b, p / PHASES, 0, 0) for b in range(len(world.BACKGROUNDS)) for p in range(PHASES)]
    drawn = world.draw(scenes, np.zeros((len(scenes), 1, 16)), np.zeros(len(scenes)), 1)[:, 0, :, :, :3]
    return drawn.reshape(len(world.BACKGROUNDS), PHASES, *drawn.shape[1:])


@functools.cache
def coarse_backgrounds():
    drawn = backgrounds()
    return coarse(drawn.reshape(-1, *drawn.shape[2:])).reshape(len(drawn), PHASES, -1)


def nearest_backgrounds(frames):
    """Per frame and background: how far it is (mean difference of a pixel, in levels, each counted up to 60), and in which phase."""
    seen = coarse(frames).reshape(len(frames), -1)
    drawn = coarse_backgrounds()
    distance = np.empty((len(frames), *drawn.shape[:2]), np.float32)
    for i, f in enumerate(seen):
        distance[i] = np.minimum(np.abs(drawn - f), 60).mean(-1)
    return distance.min(2), distance.argmin(2)


# ---- what is in front of it ----


def foreground(frame, back):
    """Mask of the pixels that neither are of the background nor of a shadow on it, without specks and thin gaps. Things of the background may be a pixel or
    two off."""
    frame, back = frame.astype(np.float32), back.astype(np.float32)
    low, high = ndimage.minimum_filter(back, (5, 5, 1)), ndimage.maximum_filter(back, (5, 5, 1))
    light = np.clip((frame * back).sum(-1) / np.maximum((back * back).sum(-1), 1), SHADE, 1)[..., None]
    off = np.maximum(np.maximum(low * light - frame, frame - high * light), 0).max(-1)
    labels, n = ndimage.label(off > FOREIGN[0] + FOREIGN[1] * back.mean(-1))
    large = np.bincount(labels.ravel(), minlength=n + 1) >= SPECK
    large[0] = False
    return ndimage.binary_closing(np.pad(large[labels], 3), iterations=2)[3:-3, 3:-3]


class Blob:
    """A connected part of the foreground."""

    def __init__(self, frame, back, mask, box):
        self.mask, self.back, self.box = mask, back, box
        self.area = int(mask.sum())
        (y, x), (cy, cx) = box, ndimage.center_of_mass(mask)
        self.x, self.y = x.start + cx, y.start + cy
        self.cut = x.start == 0 or y.start == 0 or x.stop == world.WIDTH or y.stop == world.HEIGHT
        self.pixels = frame[box]

    @functools.cached_property
    def elsewhere(self):
        """Mask over its box: what the background has at that place in another phase."""
        others, pixels = backgrounds()[self.back[0]][:, *self.box].astype(np.int16), self.pixels.astype(np.int16)
        return np.abs(others - pixels).max(-1).min(0) <= FOREIGN[0] + FOREIGN[1] * pixels.mean(-1)

    @functools.cached_property
    def votes(self):
        return colour_votes(self)

    @functools.cached_property
    def colour(self):
        return most_common(self.votes)


def trimmed(blob, frame):
    """The blob without what the background has at that place in another phase: a cloud, or a gap between clouds, that is elsewhere than it is drawn. Where that
    would take the most of it, only its rim, or what has its own colour, it is of the subject and stays."""
    labels, n = ndimage.label(ndimage.binary_opening(ndimage.binary_fill_holes(blob.mask & ~blob.elsewhere), iterations=2))
    if not n:
        return blob
    best = np.bincount(labels.ravel())[1:].argmax() + 1
    if not (blob.mask & (labels != best)).any():
        return blob
    rest = Blob(frame, blob.back, blob.mask & (labels != best), blob.box)
    inner = ndimage.find_objects(labels)[best - 1]
    kept = Blob(frame, blob.back, labels[inner] == best, tuple(slice(o.start + i.start, o.start + i.stop) for o, i in zip(blob.box, inner)))
    return blob if kept.area < KEPT * blob.area or rest.colour in ("nothing", kept.colour) else kept


def blobs(frame, back):
    """Largest first, without holes and what is thin. `back`: the background's number and phase."""
    drawn = backgrounds()[back]
    labels, n = ndimage.label(ndimage.binary_opening(ndimage.binary_fill_holes(foreground(frame, drawn)), iterations=2))
    found = [trimmed(Blob(frame, back, labels[box] == i + 1, box), frame) for i, box in enumerate(ndimage.find_objects(labels))]
    return sorted((b for b in found if b.area >= LEAST), key=lambda b: -b.area)


# ---- colour ----


def colour_votes(blob):
    """How many pixels, well inside the edge, have each colour."""
    inside = ndimage.binary_erosion(np.pad(blob.mask, 1), iterations=4)[1:-1, 1:-1]
    p = blob.pixels[inside].astype(np.float32)
    if not len(p):
        return collections.Counter()
    high, low = p.max(1), p.min(1)
    chroma, (r, g, b) = high - low, p.T
    with np.errstate(divide="ignore", invalid="ignore"):
        hue = np.select([high == r, high == g], [(g - b) / chroma % 6, (b - r) / chroma + 2], (r - g) / chroma + 4) * 60
    names = list(HUES)
    distance = np.abs((hue[:, None] - np.array([HUES[n] for n in names]) + 180) % 360 - 180)
    votes = collections.Counter()
    vivid = (chroma > 0.30 * high) & (high > 60)
    for i, n in zip(*np.unique(distance[vivid].argmin(1), return_counts=True)):
        votes[names[i]] += int(n)
    votes["black"] = int((high < 75).sum())
    votes["white"] = int((~vivid & (high > 165)).sum())
    return votes


# ---- shape ----


def silhouette(mask):
    """[GRID * GRID] bool: the mask around its middle, at a scale that makes its area the same as any other's."""
    cy, cx = ndimage.center_of_mass(mask)
    scale = np.sqrt(mask.sum()) / (0.52 * GRID)
    y = np.rint(cy + (np.arange(GRID) - (GRID - 1) / 2) * scale).astype(int)
    x = np.rint(cx + (np.arange(GRID) - (GRID - 1) / 2) * scale).astype(int)
    inside = ((y >= 0) & (y < mask.shape[0]))[:, None] & ((x >= 0) & (x < mask.shape[1]))
    return (mask[np.ix_(y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1))] & inside).ravel()


@functools.cache
def silhouettes():
    """(names [N], masks [N, GRID * GRID], areas [N]): each subject turned and in each phase of what it does by itself."""
    spin, rows, names = float(world.MOTIONS.index("spin")), [], []
    for s, name in enumerate(world.SUBJECTS):
        if name == "ring":      # without its hole a ball
            continue
        for mirror in (1, 2) if name == "fish" else (1,):
            for turn in range(1 if name == "ball" else 36):
                for beat in range(4 if name in ("fish", "butterfly", "ghost") else 1):
                    motion = spin if mirror == 1 else float(world.MOTIONS.index("left"))
                    rotation = turn / 36 * 2 * np.pi
                    row = [s, motion, 0, 0, 0, 40, 128, 72, 0, 0, 0, beat / 4 if beat else 0, 1, rotation, 1, 0]
                    if motion == spin:
                        row[13] -= 2 * np.pi * row[11]      # its phase turns it too
                    else:
                        row[15], row[11], row[12] = 0.0, 0.5, 1 + beat / 2
                    rows.append([row])
                    names.append(name)
    cover = world.draw(np.zeros((len(rows), 4)), rows, np.zeros(len(rows)), 1)[:, 0, :, :, 3] > 0
    masks = np.stack([silhouette(ndimage.binary_fill_holes(c)) for c in cover]).astype(np.float32)
    return np.array(names), masks, masks.sum(1)


def is_ring(blob):
    """Whether something round is a ring: what one sees in its middle is nearer to a drawn ring, of this colour at this place, than to a ball turned in any way."""
    if blob.colour == "nothing":
        return False
    size = np.sqrt(blob.area / np.pi) - EDGE
    row = lambda name, radius, turn: [world.object_row(name, blob.colour, world.MOTIONS.index("spin"), radius, blob.x, blob.y, phase=turn)]
    rows = [row("ring", size / 1.01, 0)] + [row("ball", size, turn / 12) for turn in range(6)]
    drawn = world.draw([(blob.back[0], blob.back[1] / PHASES, 0, 0)] * len(rows), rows, np.zeros(len(rows)), 1)[:, 0, *blob.box, :3]
    y, x = (np.arange(b.start, b.stop) for b in blob.box)
    middle = np.hypot(y[:, None] - blob.y, x - blob.x) < MIDDLE * size
    off = np.abs(drawn.astype(np.float32) - blob.pixels)[:, middle].mean((1, 2))
    return bool(off[0] < off[1:].min())


def name_shape(blob):
    """(name, how much of both is common, 0 to 1): the best of all silhouettes; a ring's is a ball's."""
    names, masks, areas = silhouettes()
    seen = silhouette(blob.mask).astype(np.float32)
    common = masks @ seen
    match = common / (areas + seen.sum() - common)
    best = int(match.argmax())
    return "ring" if names[best] == "ball" and is_ring(blob) else str(names[best]), float(match[best])


# ---- motion ----


def turns(v, least):
    """How often a coordinate turns back, by at least `least` pixels."""
    count, direction, extreme = 0, 0, v[0]
    for value in v[1:]:
        if direction >= 0 and value < extreme - least or direction <= 0 and value > extreme + least:
            count += direction != 0
            direction, extreme = (1, value) if value > extreme else (-1, value)
        elif direction > 0 and value > extreme or direction < 0 and value < extreme:
            extreme = value
    return count


def spread(v):
    low, high = np.percentile(v, (5, 95))
    return high - low


def name_motion(track, crops):
    """`track` [F, 4]: x, y, area, cut; crops: the subject in each frame, at one size. What one subject does."""
    whole = track[:, 3] == 0
    if whole.sum() < 6:
        return "nothing"
    x, y, area = track[whole, :3].T
    steps = np.diff(track[:, :2], axis=0)[whole[1:] & whole[:-1]]
    if not len(steps):
        return "nothing"
    vx, vy = np.median(steps, 0)
    same_x, same_y = np.mean(np.sign(steps[:, 0]) == np.sign(vx)), np.mean(np.sign(steps[:, 1]) == np.sign(vy))
    if abs(vx) > 3 and same_x > 0.9 and spread(y) < 24:
        return "right" if vx > 0 else "left"
    if abs(vy) > 2 and same_y > 0.9 and spread(x) < 24:
        return "fall" if vy > 0 else "rise"
    sx, sy = spread(x), spread(y)
    if sx < 14 and sy < 14:
        if spread(np.sqrt(area)) / np.median(np.sqrt(area)) > 0.3:
            return "pulse"
        return "spin" if crops > 0.5 else "nothing"
    if sx < 14:
        return "bounce"
    if np.corrcoef(y, (x - (x.min() + x.max()) / 2) ** 2)[0, 1] < -0.8:         # highest at both ends
        return "swing"
    return "circle" if turns(y, 0.25 * sy) < 2 * max(1, turns(x, 0.25 * sx)) else "zigzag"


def restlessness(found):
    """Share of pairs of looks, a quarter of a second apart, between which a subject that stays where it is has changed inside by more than its edges tremble."""
    crops = []
    for b in found:
        if b is None or b.cut:
            crops.append(None)
            continue
        y = np.linspace(0, b.mask.shape[0] - 1, GRID).astype(int)
        x = np.linspace(0, b.mask.shape[1] - 1, GRID).astype(int)
        crops.append((ndimage.uniform_filter(b.pixels[np.ix_(y, x)].astype(np.float32), (3, 3, 1)), b.mask[np.ix_(y, x)]))
    changes = []
    for a, b in zip(crops, crops[2:]):
        if a and b:
            both = a[1] & b[1]
            changes.append((np.abs(a[0] - b[0]).max(-1)[both] > 40).mean() + (a[1] != b[1]).mean())
    return float(np.mean(np.array(changes) > 0.06)) if changes else 0.0


def name_relation(tracks):
    """What two subjects do; tracks [2, F, 2], the first named in the prompt first. NaN where one was not seen."""
    seen = ~np.isnan(tracks).any((0, 2))
    if seen.sum() < 8:
        return "nothing"
    (x0, y0), (x1, y1) = (t[seen].T for t in tracks)
    sx0, sy0, sx1, sy1 = map(spread, (x0, y0, x1, y1))
    if sx0 < 20 and sx1 < 20 and sy0 > 20 and sy1 > 20:
        return "dance"
    if sy0 < 20 and sy1 < 20 and sx0 > 20 and sx1 > 20:
        return "bump"
    if sx1 < 24 and sy1 < 24 and sx0 > 40:
        return "orbit"
    if sx0 < 24 and sy0 < 24 and sx1 > 40:
        return "orbited"
    if min(sx0, sx1) > 60 and min(sy0, sy1) > 20:
        return "chase"
    return "nothing"


# ---- all of it ----


def most_common(votes, least=1):
    return votes.most_common(1)[0][0] if sum(votes.values()) >= least else "nothing"


def judge(frames, subjects):
    """A dict of what is seen: background; per subject its colour, name and how well the silhouette fits; motion (one subject)
    or relation (two); in which share of the looks more things than subjects are wholly in the picture. `subjects`: one or two [(name, colour)], which is
    used to tell how many there should be, what is no cloud and which of two is which, and for nothing else."""
    looks = frames[::STRIDE]
    distance, phase = nearest_backgrounds(looks)
    b = int(np.median(distance, 0).argmin())
    things = [blobs(f, (b, p)) for f, p in zip(looks, phase[:, b])]
    colours = {c for _, c in subjects}
    counted = [sum(not t.cut and (t.colour in colours or t.elsewhere[t.mask].mean() < BACKDROP) for t in f) for f in things]
    result = dict(background=world.BACKGROUNDS[b], too_many=float(np.mean(np.array(counted) > len(subjects))))
    found = [f[: len(subjects)] for f in things]
    if len(subjects) == 1:
        best = [f[0] if f else None for f in found]
        colour = most_common(sum((f.votes for f in best if f), collections.Counter()))
        best = [f if f and f.colour == colour else None for f in best]      # while the subject is out of sight a cloud may be the largest
        seen = [f for f in best if f]
        names, fits = collections.Counter(), []
        for f in seen:
            if not f.cut:
                name, fit = name_shape(f)
                names[name] += fit >= FIT
                fits.append(fit)
        track = np.array([(f.x, f.y, f.area, f.cut) for f in seen]).reshape(-1, 4)
        result.update(subjects=[(most_common(names), colour)], fit=float(np.median(fits)) if fits else 0.0,
                      motion=name_motion(track, restlessness(best)) if len(track) > 8 else "nothing")
        return result
    # Two: each blob is whichever of the two it is more like, by colour
    tracks = np.full((2, len(found), 2), np.nan)
    colours, names, fits = [collections.Counter(), collections.Counter()], [collections.Counter(), collections.Counter()], []
    for i, pair in enumerate(found):
        if len(pair) < 2:
            continue
        share = [[f.votes[c] / max(1, sum(f.votes.values())) for f in pair] for _, c in subjects]
        order = (0, 1) if share[0][0] + share[1][1] >= share[0][1] + share[1][0] else (1, 0)
        for k, j in enumerate(order):
            f = pair[j]
            tracks[k, i] = f.x, f.y
            colours[k][f.colour] += 1
            if not f.cut:
                name, fit = name_shape(f)
                names[k][name] += 1
                fits.append(fit)
    result.update(subjects=[(most_common(n), most_common(c)) for n, c in zip(names, colours)], fit=float(np.median(fits)) if fits else 0.0,
                  relation=name_relation(tracks))
    return result


def main():
    """Clips that the renderer drew."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    rng, right, wrong, too_many = random.Random(5), collections.Counter(), collections.Counter(), []
    for i in range(count):
        scene = world.sample(rng, camera=False, **({"relation": None} if i % 4 else {"relation": world.RELATIONS[i // 4 % 4], "motion": None}))
        head, objects = world.scene_rows(rng, scene)
        frames = world.draw(head[None], objects[None], [rng.uniform(0, 60)], 112)[0, ..., :3]
        seen = judge(frames, [(n, c) for n, c, _ in scene["subjects"]])
        too_many.append(seen["too_many"])
        checks = {"background": (seen["background"], scene["background"])}
        for (n, c, _), (name, colour) in zip(scene["subjects"], seen["subjects"]):
            checks[f"subject {n}"], checks[f"colour {c}"] = (name, n), (colour, c)
        kind = "motion" if scene["relation"] is None else "relation"
        checks[f"{kind} {scene[kind]}"] = (seen[kind], scene[kind])
        for what, (a, b) in checks.items():
            (right if a == b else wrong)[what.split()[0]] += 1
            if a != b:
                print(f"clip {i}, {scene['background']}, {scene['subjects']}, {scene[kind]}: {what}: {a}  (fit {seen['fit']:.2f})")
    for what in sorted(right | wrong):
        print(f"{what:12} {right[what] / (right[what] + wrong[what]):6.1%} of {right[what] + wrong[what]}")
    print(f"too many     {np.mean(too_many):6.1%} of the looks")


if __name__ == "__main__":
    main()
