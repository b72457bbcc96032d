#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The parts that cost time: this project beside the same models in diffusers and transformers on PyTorch, same machine, same weights, one run.

    compare_diffusers.py BUILD_DIR                                  a DualParal pass of the embedded model and one block's decode, on the CPU
    compare_diffusers.py BUILD_DIR --device cuda:0 --model DIR --block 21 --context 0 --batch 1 --width 832 --height 480 --text-tokens 512
                                                                    a plain forward, 81 frames' decode, and with --parts text the prompt

The peer is the fastest of its ways: on the CPU float32 and bfloat16, eager and compiled; on a GPU bfloat16, eager and compiled, attention by cuDNN,
and for the decoder channels first or last. With context the pass has the scheme's keys of the following block appended
(tests/parity/dualparal_reference.py). Ours runs before the peer's ways and after them; the mean of its two medians counts. It is timed by the clock from
a device that waits to one that waits again, the peer on a GPU by CUDA events, which leave out what the host does before and after.

Each part is a process of its own, so that none takes another one down. Needs torch, safetensors, diffusers, and transformers for the text.
"""
import argparse
import contextlib
import gc
import json
import multiprocessing
import pathlib
import statistics
import subprocess
import sys
import time
import traceback

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "parity"))
from dualparal_reference import PassState, SelfAttention  # noqa: E402
from peer_models import load_text_encoder, load_transformer, load_vae  # noqa: E402


def median_ms(device, run, n):
    """Median of n runs in ms, after two to warm up."""
    times = []
    for _ in range(n + 2):
        if device.type == "cuda":
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            first.record()
            run()
            last.record()
            last.synchronize()
            times.append(first.elapsed_time(last))
        else:
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[2:])


# ---- what the peer runs: each yields (name, function that measures it in ms) ----


class Pass(torch.nn.Module):
    """One pass of a block in the middle of a stream: keys of the following block behind its own."""

    def __init__(self, args, model, dtype):
        super().__init__()
        self.model, self.attention = model, SelfAttention()
        for layer in model.blocks:
            layer.attn1.set_processor(self.attention)
        frame = (args.height // 16) * (args.width // 16)
        self.tokens, cached = (args.block + args.context) * frame, args.context * frame
        self.rope = model.rope(torch.empty(1, model.config.in_channels, args.block + 2 * args.context, args.height // 8, args.width // 8,
                                           dtype=dtype, device=args.torch_device))
        width = model.config.num_attention_heads * model.config.attention_head_dim
        self.behind = [tuple(torch.randn(args.batch, cached, width, dtype=dtype, device=args.torch_device) for _ in "kv") for _ in model.blocks]
        self.store = slice(cached, 2 * cached)

    def forward(self, latents, timestep, text):
        self.attention.state, self.attention.layer = PassState(self.rope, self.tokens, self.behind, self.store), 0
        return self.model(latents, timestep, text, return_dict=False)[0]


def peer_pass(args, dtype):
    device = args.torch_device
    model = load_transformer(args.model, dtype, device)
    frames, channels = args.block + args.context, model.config.in_channels
    latents = torch.randn(args.batch, channels, frames, args.height // 8, args.width // 8, dtype=dtype, device=device)
    timestep = torch.full((args.batch,), 750, device=device)
    text = torch.zeros(args.batch, 512, model.config.text_dim, dtype=dtype, device=device)
    text[:, :args.text_tokens] = torch.randn(args.batch, args.text_tokens, model.config.text_dim)
    one = Pass(args, model, dtype) if args.context else model

    def measure():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION) if device.type == "cuda" else contextlib.nullcontext():
            return median_ms(device, lambda: one(latents, timestep, text), args.runs)

    yield "eager", measure
    if args.compile == "none":
        return
    if args.context:
        one.model = torch.compile(model, mode=args.compile)
    else:
        model.compile_repeated_blocks(mode=args.compile)        # one layer for all, as diffusers advises
    yield f"compiled {args.compile}", measure


def peer_decode(args, dtype):
    device = args.torch_device
    vae = load_vae(args.model, dtype, device)
    torch.backends.cudnn.benchmark = True                       # picks the fastest convolutions while warming up
    video = [torch.randn(1, vae.config.z_dim, n, args.height // 8, args.width // 8, dtype=dtype, device=device)
             for n in (args.block, 1 + args.block, 1)]

    def measure():
        """The whole video; or, of a block in the middle of a stream, what `block` latents more cost."""
        whole, more, one = (lambda x=x: vae.decode(x, return_dict=False) for x in video)
        if args.context == 0:
            return median_ms(device, whole, args.runs)
        return median_ms(device, more, args.runs) - median_ms(device, one, args.runs)

    yield "eager", measure
    if device.type == "cuda":
        for p in vae.parameters():
            if p.dim() in (4, 5):
                p.data = p.data.to(memory_format=torch.channels_last if p.dim() == 4 else torch.channels_last_3d)
        video[:] = [x.to(memory_format=torch.channels_last_3d) for x in video]
        yield "eager channels last", measure
    if args.compile != "none":
        vae.decoder = torch.compile(vae.decoder, mode=args.compile)
        yield f"compiled {args.compile}{' channels last' if device.type == 'cuda' else ''}", measure


def peer_text(args, dtype):
    device = args.torch_device
    model = load_text_encoder(args.model, dtype, device)
    ids = (torch.arange(args.text_tokens, device=device) * 2654435761 % model.config.vocab_size)[None]
    mask = torch.ones_like(ids)

    def measure():
        return median_ms(device, lambda: model(ids, mask), args.runs)

    yield "eager", measure
    if args.compile != "none":
        model.encoder.compile(mode=args.compile)
        yield f"compiled {args.compile}", measure


PEERS = {"pass": peer_pass, "decode": peer_decode, "text": peer_text}

# ---- measuring ----


def ours(args, part, precision):
    """(ms, GiB) of this project."""
    command = [f"{args.build}/tests/bench/bench_parts", "--device", args.device, "--model", args.model, "--parts", part, "--precision", precision]
    for name in ("threads", "block", "context", "batch", "width", "height", "text_tokens", "runs"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=args.limit)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    result = json.loads(done.stdout)
    return result[f"{part}_ms"], result["device_mib"] / 1024


@torch.no_grad()
def run_part(args, part, results):
    """Sends (who, name, ms, GiB) for each measurement."""
    args.torch_device = torch.device(args.device)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    torch._dynamo.config.recompile_limit = 64  # a decoder has many shapes; none is to fall back to eager
    gpu = args.torch_device.type == "cuda"

    def attempt(who, name, measure):
        try:
            ms, memory = measure()
        except Exception as error:  # a way that does not run is said, not hidden
            print(f"  {part:7} {who:10} {name}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}", flush=True)
            if args.traceback:
                traceback.print_exc()
            return
        print(f"  {part:7} {who:10} {name:40} {ms:10.2f} ms" + (f" {memory:8.2f} GiB" if memory else ""), flush=True)
        results.send((who, name, ms, memory))

    def with_memory(measure):
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        ms = measure()
        memory = torch.cuda.max_memory_allocated() / 2 ** 30 if gpu else 0
        if gpu:
            torch.cuda.empty_cache()
        return ms, memory

    for dtype in (torch.bfloat16,) if gpu else (torch.float32, torch.bfloat16):
        torch._dynamo.reset()
        precision = str(dtype).split(".")[1]
        attempt("ours", precision, lambda: ours(args, part, precision))
        try:
            for name, measure in PEERS[part](args, dtype):
                attempt("transformers" if part == "text" else "diffusers", f"{precision} {name}", lambda: with_memory(measure))
        except Exception as error:
            print(f"  {part:7} {precision}: {type(error).__name__}: {error}", flush=True)
        gc.collect()
        attempt("ours", precision, lambda: ours(args, part, precision))


def collect(args, part):
    """{(who, name): [(ms, GiB)]}, from a process of its own that has `limit` seconds for each measurement."""
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=run_part, args=(args, part, there))
    found = {}
    process.start()
    there.close()
    try:
        while True:
            if not here.poll(args.limit + 30):                  # what ours is given, and the start
                print(f"  {part}: nothing for {args.limit + 30} s, stopped", flush=True)
                process.kill()
                break
            who, name, ms, memory = here.recv()
            found.setdefault((who, name), []).append((ms, memory))
    except EOFError:
        pass
    process.join()
    if process.exitcode != 0:
        print(f"  {part}: ended with {process.exitcode}", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--model", default=str(ROOT / "models" / "tiny"), help="a directory; random_model.py writes one of full size")
    parser.add_argument("--parts", default="pass,decode", help="any of pass, decode, text")
    parser.add_argument("--block", type=int, help="as bench_parts takes it, and so are the following; defaults are the model's")
    parser.add_argument("--context", type=int)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--text-tokens", type=int, default=12)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--compile", default="default", help="mode of torch.compile: default, max-autotune-no-cudagraphs, ...; or none")
    parser.add_argument("--limit", type=int, default=300, help="seconds that one measurement may take")
    parser.add_argument("--traceback", action="store_true")
    args = parser.parse_args()
    file = pathlib.Path(args.model) / "dualparal.json"
    defaults = json.loads(file.read_text()) if file.exists() else {}
    for name, key in (("block", "block_latents"), ("context", "context_latents"), ("width", "width"), ("height", "height")):
        if getattr(args, name) is None:
            if key not in defaults:
                parser.error(f"{args.model} has no defaults: give --{name}")
            setattr(args, name, defaults[key])
    tables = {part: collect(args, part) for part in args.parts.split(",")}
    print(f"\n{'part':8}{'who':14}{'how':42}{'ms':>10}{'GiB':>8}{'  / ours':>9}   each time")
    for part, found in tables.items():
        mean = {key: statistics.mean(ms for ms, _ in rows) for key, rows in found.items()}
        mine = min((ms for (who, _), ms in mean.items() if who == "ours"), default=float("nan"))
        for (who, name), rows in found.items():
            ms = mean[who, name]
            print(f"{part:8}{who:14}{name:42}{ms:10.2f}{rows[0][1]:8.2f}{ms / mine:9.2f}   {' '.join(f'{x:.2f}' for x, _ in rows)}")
        theirs = [(ms, name) for (who, name), ms in mean.items() if who != "ours"]
        if theirs:
            best, name = min(theirs)
            print(f"{part}: {mine:.2f} ms against {best:.2f} ms ({name}): {best / mine:.2f}x")


if __name__ == "__main__":
    main()
