# SPDX-License-Identifier: LGPL-2.1-or-later
"""PNG without libraries, contact sheets, and the sheet of the world: `python3 sheet.py OUT.png`."""
import random
import struct
import sys
import zlib

import numpy as np


def write_png(path, image):
    """image (H, W, 3) uint8."""
    image = np.ascontiguousarray(image)
    h, w = image.shape[:2]
    prior = np.concatenate([np.zeros((1, w, 3), np.uint8), image[:-1]])
    raw = b"".join(b"\x02" + (image[i] - prior[i]).tobytes() for i in range(h))     # filter "up"
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def write_sheet(path, rows, shrink=1):
    """rows: lists of (H, W, 3) uint8 pictures of one size; shrink: averages squares of that many pixels."""
    image = np.concatenate([np.concatenate([np.asarray(p)[..., :3] for p in row], 1) for row in rows], 0)
    if shrink > 1:
        h, w = (n // shrink * shrink for n in image.shape[:2])
        image = image[:h, :w].reshape(h // shrink, shrink, w // shrink, shrink, 3).mean((1, 3)).round().astype(np.uint8)
    write_png(path, image)


def main(path):
    import world

    rng, pictures, inside = random.Random(4), [], ["bounce", "circle", "pulse", "zigzag", "swing", "spin"]
    colours = list(world.COLOURS)
    for i, subject in enumerate(world.SUBJECTS):        # every subject, colour, background and motion, each row one subject
        fixed = dict(subjects=[(subject, colours[i % 10], 0.6)], background=world.BACKGROUNDS[i % 10], relation=None, motion=inside[i % 6])
        pictures.extend(world.clips(rng, 1, 9, **fixed)[0][0, ::8].numpy())
    for i, relation in enumerate(world.RELATIONS):
        pictures.extend(world.clips(rng, 1, 33, relation=relation, background=world.BACKGROUNDS[(2 * i + 1) % 10])[0][0, ::16].numpy())
    write_sheet(path, [pictures[i : i + 6] for i in range(0, len(pictures), 6)], 2)


if __name__ == "__main__":
    main(*sys.argv[1:])
