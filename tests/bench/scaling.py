#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much faster is a ring of 2, 4 and 8 devices than one? The bytes are compared first. Then come speed, memory, the plan's
prediction and a trace.

    random_model.py 1.3B /tmp/wan-1.3b; random_model.py 14B /tmp/wan-14b
    scaling.py BUILD_DIR --model /tmp/wan-1.3b --model /tmp/wan-14b --out results      # on all GPUs
    scaling.py BUILD_DIR --devices cpu,cpu --size 128x80 --steps 4                     # tries it on a CPU with the embedded model

Each row is a run of `dualparal bench`, with decoding. Its JSON goes to the folder of --out, with the traces and the table of measured
times that the predictions are from. A run that fails or takes longer than --limit is a row that says so, and the others go on. Exits
with 1 if anything failed or the bytes differ. Needs no Python package.
"""
import argparse
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

MPI = ["mpirun", "--bind-to", "none", "--oversubscribe"]


def say(*words):
    print(f"[{time.monotonic() - START:5.0f} s]", *words, file=sys.stderr, flush=True)


def gpus():
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as e:
        sys.exit(f"scaling: nvidia-smi lists no GPU ({e}); name --devices")
    return [f"cuda:{i}" for i in range(len(listed.splitlines()))]


def run(args, command):
    """(stdout, None), or (None, why not)."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=args.limit)
    except subprocess.TimeoutExpired:
        return None, f"not done in {args.limit} s"
    said = done.stderr.decode(errors="replace").strip()
    return (done.stdout, None) if done.returncode == 0 else (None, said.splitlines()[-1] if said else f"exit status {done.returncode}")


def rings(devices):
    """1, 2, 4, 8, ... of them, and all."""
    counts = sorted({2 ** i for i in range(len(devices).bit_length())} | {len(devices)})
    return [devices[:n] for n in counts]


# ---- the same bytes ----


def check_bytes(args):
    """Of the embedded model: on a device, on rings of more, and with a process for each stage. Returns whether they are."""
    base = [args.program, "generate", "--frames", "33", "--seed", "3", "--precision", "float32", "--output", "-"]
    ways = [(",".join(ring), base + ["--devices", ",".join(ring)]) for ring in rings(args.devices)]
    if shutil.which("mpirun") and len(args.devices) > 1:
        first, *others = args.devices
        line = MPI + ["-n", "1", *base, "--devices", first, "--ranks", "mpi"]
        for device in others:
            line += [":", "-n", "1", args.program, "worker", "--devices", device]
        ways.append((f"{len(args.devices)} processes", line))
    sums = {}
    for name, command in ways:
        video, why = run(args, command)
        sums[name] = hashlib.md5(video).hexdigest() if video else why
        say(f"{name}: {sums[name]}")
    same = len(set(sums.values())) == 1 and all(re.fullmatch("[0-9a-f]{32}", s) for s in sums.values())
    print(f"The embedded model's bytes on {', '.join(sums)}: {'the same' if same else 'NOT the same: ' + str(sums)}\n")
    return same


# ---- speed ----


def predicted(args, settings, ring):
    """Times as fast as the first device alone, by the plan."""
    text, why = run(args, [args.program, "plan", *settings, "--devices", ",".join(ring), "--times", str(args.times)])
    found = re.search(r"([\d.]+) times as fast as the first device", text.decode()) if text else None
    return found[1] if found else why or ""


def measure(args, model, precision, mode):
    """A row for each number of devices. Returns whether all went well."""
    # So many blocks in flight keep the largest ring busy
    queue = max(4, len(args.devices) + 1)
    settings = ["--width", args.width, "--height", args.height, "--steps", str(max(args.steps, queue)), "--queue-blocks", str(queue),
                "--precision", precision, "--context-mode", mode, "--guidance-scale", "5", "--text-encoder", "streamed",
                *(["--model", model] if model else [])]
    name, one, good = pathlib.Path(model or "embedded").name, None, True
    for ring in rings(args.devices):
        n = len(ring)
        label = f"{name}-{precision}-{mode}-{n}"
        command = [args.program, "bench", "--json", *settings, "--devices", ",".join(ring), "--blocks", str(args.blocks + n)]
        command += ["--add-times", str(args.times)] if n == 1 else ["--times", str(args.times)] if args.times.exists() else []
        if n == len(args.devices):
            command += ["--trace", str(args.out / f"{label}.trace.json")]
        text, why = run(args, command)
        say(label, "done" if text else why)
        if why:
            print(f"| {name} | {precision} | {mode} | {n} | {why} |")
            good = False
            continue
        (args.out / f"{label}.json").write_bytes(text)
        r = json.loads(text)
        speed = r["block_steps_per_second"]
        one = one or (speed if n == 1 else None)
        held = ", ".join(f"{b / 1e9:.2f}" for b in r["stage_bytes"])
        busy = ", ".join(f"{b:.0%}" for b in r["stage_busy"])
        times = f"{speed / one:.2f}" if one else ""
        plan = predicted(args, settings, ring) if n > 1 else ""
        print(f"| {name} | {precision} | {mode} | {n} | {speed:.4g} | {times} | {plan} | {r['first_frame_seconds']:.1f} s | {busy} | {held} | "
              f"{r['decoder_bytes'] / 1e9:.2f} |", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--model", action="append", help="a directory, as often as wanted; the embedded model by default")
    parser.add_argument("--devices", type=lambda s: s.split(","), help="default: all GPUs")
    parser.add_argument("--precisions", default="bfloat16,fp8", help="default: %(default)s; on CPUs float32")
    parser.add_argument("--modes", default="recomputed,cached", help="of the context (default: %(default)s)")
    parser.add_argument("--size", default="832x480")
    parser.add_argument("--steps", type=int, default=8, help="at least as many as blocks in flight (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=2, help="that are measured on each device (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=200, help="seconds for a run (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("scaling"), help="default: ./%(default)s")
    args = parser.parse_args()
    args.program = str(pathlib.Path(args.build) / "engine" / "dualparal")
    args.width, _, args.height = args.size.partition("x")
    args.devices = args.devices or gpus()
    if all(d.startswith("cpu") for d in args.devices):
        args.precisions = "float32"
    args.out.mkdir(parents=True, exist_ok=True)
    args.times = args.out / "times.json"
    good = check_bytes(args)
    print("| model | precision | context | devices | block-steps/s | times | predicted | first frame | stages busy | a stage holds, GB | decoder |")
    print("|---" * 11 + "|")
    for model in args.model or [None]:
        for precision in args.precisions.split(","):
            for mode in args.modes.split(","):
                good &= measure(args, model, precision, mode)
    sys.exit(not good)


if __name__ == "__main__":
    START = time.monotonic()
    main()
