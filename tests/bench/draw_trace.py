#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A picture of a trace, for the documentation: a row per stage, one for the decoder, and the queue of frames.

    gst-launch-1.0 dualparalsrc is-live=true devices=cpu,cpu,cpu steps=4 queue-blocks=4 num-buffers=80 trace=trace.json \\
      ! video/x-raw,width=224,height=128 ! fakesink sync=true
    draw_trace.py trace.json --seconds 3.5 > docs/trace.svg

A colour is a block, a number the step of a pass. Plain Python, so that it can be run anywhere.
"""
import argparse
import json

WIDTH, LEFT, RIGHT, ROW, GAP = 1080, 112, 16, 34, 10
COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2", "#edc948", "#9c755f"]


def read(path):
    with open(path, encoding="utf-8") as f:
        text = f.read().rstrip()
    return json.loads(text if text.endswith("]") else text.rstrip(",") + "]")     # a program that was killed did not close it


class Picture:
    def __init__(self, start, seconds, rows):
        self.start, self.scale = start, (WIDTH - LEFT - RIGHT) / (seconds * 1e6)
        self.end = start + seconds * 1e6
        self.height = 10 + rows * (ROW + GAP) + 30
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" font-family="sans-serif" font-size="13">',
                      f'<rect width="{WIDTH}" height="{self.height}" fill="#ffffff"/>']

    def x(self, us):
        return LEFT + (us - self.start) * self.scale

    def row(self, index, name):
        y = 10 + index * (ROW + GAP)
        self.parts.append(f'<text x="{LEFT - 8}" y="{y + ROW / 2 + 4:.0f}" text-anchor="end" fill="#333">{name}</text>'
                          f'<rect x="{LEFT}" y="{y}" width="{WIDTH - LEFT - RIGHT}" height="{ROW}" fill="#f3f3f3"/>')
        return y

    def span(self, y, e, block, label, title):
        start, end = max(e["ts"], self.start), min(e["ts"] + e["dur"], self.end)
        if end <= start:
            return
        width = max((end - start) * self.scale, 0.5)
        self.parts.append(f'<g><title>{title}</title><rect x="{self.x(start):.1f}" y="{y}" width="{width:.1f}" height="{ROW}" '
                          f'fill="{COLOURS[block % len(COLOURS)]}" stroke="#fff" stroke-width="0.6"/>')
        if width > 7 * len(label) + 2:
            self.parts.append(f'<text x="{self.x(start) + width / 2:.1f}" y="{y + ROW / 2 + 4:.0f}" text-anchor="middle" fill="#fff">{label}</text>')
        self.parts.append("</g>")

    def level(self, y, samples):
        inside = [s for s in samples if self.start <= s[0] <= self.end]
        before = [s[1] for s in samples if s[0] < self.start]
        top = max([s[1] for s in inside] + [1])
        level = before[-1] if before else 0
        points = [f"M{LEFT},{y + ROW} L{LEFT},{y + ROW * (1 - level / top):.1f}"]
        for ts, value in inside:
            points.append(f"H{self.x(ts):.1f} V{y + ROW * (1 - value / top):.1f}")
        self.parts.append(f'<path d="{" ".join(points)} H{self.x(self.end):.1f} V{y + ROW} Z" fill="#bbb"/>'
                          f'<text x="{WIDTH - RIGHT - 4}" y="{y + 12}" text-anchor="end" fill="#333">{top} at most</text>')

    def axis(self, seconds):
        y = self.height - 26
        step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 600) if seconds / s <= 12)
        for i in range(int(seconds / step) + 1):
            x = self.x(self.start + i * step * 1e6)
            self.parts.append(f'<path d="M{x:.1f},10 V{y}" stroke="#000" stroke-opacity="0.12"/>'
                              f'<text x="{x:.1f}" y="{y + 16}" text-anchor="middle" fill="#333">{i * step:g} s</text>')

    def text(self):
        return "\n".join(self.parts + ["</svg>"])


def draw(events, seconds):
    spans = [e for e in events if e["ph"] == "X"]
    passes = [e for e in spans if e["cat"] == "pass"]
    tracks = sorted({e["tid"] for e in passes})
    start = min(e["ts"] for e in passes)
    seconds = seconds or (max(e["ts"] + e["dur"] for e in spans) - start) / 1e6
    picture = Picture(start, seconds, len(tracks) + 2)
    for i, track in enumerate(tracks):
        y = picture.row(i, f"stage {i}")
        for e in passes:
            if e["tid"] == track:
                block, step = e["args"]["block"], e["args"]["step"]
                picture.span(y, e, block, str(step), f"block {block}, step {step}, {e['dur'] / 1e3:.1f} ms")
    y = picture.row(len(tracks), "decoder")
    for e in spans:
        if e["cat"] == "latent":
            block = e["args"]["block"]
            picture.span(y, e, block, "", f"block {block}, latent {e['args']['latent']}, {e['dur'] / 1e3:.1f} ms")
    y = picture.row(len(tracks) + 1, "frames waiting")
    picture.level(y, [(e["ts"], e["args"]["queue"]) for e in events if e["ph"] == "C"])
    picture.axis(seconds)
    return picture.text()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace")
    parser.add_argument("--seconds", type=float, help="from the first pass on; default: all")
    args = parser.parse_args()
    print(draw(read(args.trace), args.seconds))


if __name__ == "__main__":
    main()
