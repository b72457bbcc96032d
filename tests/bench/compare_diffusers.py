#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""One DualParal pass and one block's decode: this project beside the same model in diffusers on PyTorch, same machine, same threads, one run.

Needs torch, diffusers and a built tree: compare_diffusers.py BUILD_DIR [--threads N]. The better of diffusers' float32 and bfloat16, eager and
compiled, is the peer. The pass in diffusers has the scheme's keys of the following block appended too (tests/parity/dualparal_reference.py).
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "parity"))
from dualparal_reference import PassState, SelfAttention  # noqa: E402


def median_ms(run, n):
    """Median of n runs in ms, after two to warm up."""
    times = []
    for i in range(n + 2):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[2:])


class Pass(torch.nn.Module):
    """Conditional and unconditional input of one pass as a batch of two, keys of the following block behind them."""

    def __init__(self, model, block, context, h, w, dtype):
        super().__init__()
        self.model, self.attention = model, SelfAttention()
        for layer in model.blocks:
            layer.attn1.set_processor(self.attention)
        c, frames = model.config.in_channels, block + context
        width = model.config.num_attention_heads * model.config.attention_head_dim
        self.latents = torch.randn(2, c, frames, h, w, dtype=dtype)
        self.text = torch.zeros(2, 512, model.config.text_dim, dtype=dtype)
        self.text[:, :12] = torch.randn(2, 12, model.config.text_dim)
        self.tokens = frames * (h // 2) * (w // 2)
        cached = context * (h // 2) * (w // 2)
        self.rope = model.rope(self.latents.new_empty(1, c, frames + context, h, w))
        self.behind = [(torch.randn(2, cached, width, dtype=dtype), torch.randn(2, cached, width, dtype=dtype)) for _ in model.blocks] if context else None
        self.store = slice(context * (h // 2) * (w // 2), 2 * context * (h // 2) * (w // 2))

    def forward(self):
        self.attention.state, self.attention.layer = PassState(self.rope, self.tokens, self.behind, self.store), 0
        return self.model(self.latents, torch.full((2,), 750), self.text, return_dict=False)[0]


def decoder(vae, block, h, w, dtype):
    """Decoding a block in the middle of a stream: what `block` latents more cost, the first one's special case left out."""
    latents = [torch.randn(1, vae.config.z_dim, n, h, w, dtype=dtype) for n in (1, 1 + block)]
    return lambda i: vae.decode(latents[i], return_dict=False)[0]


@torch.no_grad()
def peer(model_dir, block, context, h, w, runs):
    """{name: (pass_ms, decode_ms)} for every way of running diffusers."""
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        for compiled in (False, True):
            name = f"{str(dtype).split('.')[1]} {'compiled' if compiled else 'eager'}"
            torch._dynamo.reset()
            dit = WanTransformer3DModel.from_pretrained(model_dir, subfolder="transformer", torch_dtype=dtype).eval()
            vae = AutoencoderKLWan.from_pretrained(model_dir, subfolder="vae", torch_dtype=dtype).eval()
            one = Pass(dit, block, context, h, w, dtype)
            decode = decoder(vae, block, h, w, dtype)
            if compiled:
                one.model = torch.compile(one.model)
                vae.decoder = torch.compile(vae.decoder)
            try:
                pass_ms = median_ms(one, runs)
                decode_ms = median_ms(lambda: decode(1), runs) - median_ms(lambda: decode(0), runs)
            except Exception as error:  # a way that does not run is said, not hidden
                print(f"  {name}: {type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            results[name] = (pass_ms, decode_ms)
            print(f"  diffusers {name:20} pass {pass_ms:8.1f} ms   decode {decode_ms:8.1f} ms", flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch._dynamo.config.recompile_limit = 64  # a decoder has many shapes; none is to fall back to eager
    model_dir = ROOT / "models" / "tiny"
    defaults = json.loads((model_dir / "dualparal.json").read_text())
    ours = {}
    for precision in ("float32", "bfloat16"):
        command = [f"{args.build}/tests/bench/bench_parts", "--threads", str(args.threads), "--precision", precision]
        ours[precision] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"  ours      {precision:20} pass {ours[precision]['pass_ms']:8.1f} ms   decode {ours[precision]['decode_ms']:8.1f} ms", flush=True)
    theirs = peer(str(model_dir), defaults["block_latents"], defaults["context_latents"], defaults["height"] // 8, defaults["width"] // 8, args.runs)
    for part, key in (("pass", 0), ("decode", 1)):
        name, best = min(((n, r[key]) for n, r in theirs.items()), key=lambda x: x[1])
        mine = min(o[f"{part}_ms"] for o in ours.values())
        print(f"{part}: {mine:.1f} ms against {best:.1f} ms (diffusers {name}): {best / mine:.2f}x")


if __name__ == "__main__":
    main()
