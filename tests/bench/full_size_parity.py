#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Is a forward at full size as exact as it can be? This project's velocity and frames, and diffusers' own in bfloat16, against diffusers in float32.

    random_model.py 1.3B /tmp/wan-1.3b
    full_size_parity.py BUILD_DIR --device cuda:0 --model /tmp/wan-1.3b
    full_size_parity.py BUILD_DIR --precision float32 --latents 3                 # the embedded model on the CPU

Prints relative errors in the L2 norm. Passes when ours in bfloat16 is no further from float32 than diffusers' in bfloat16, or ours in float32 within
1e-4. Needs torch, safetensors and diffusers.
"""
import argparse
import contextlib
import gc
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from peer_models import load_transformer, load_vae

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLOAT32_LIMIT = 1e-4            # as in tests/parity


def say(*words):
    print(f"[{time.monotonic() - START:6.1f} s]", *words, flush=True)


def error(x, reference):
    """Relative, in float64 on the CPU: NaN stays NaN."""
    x, reference = x.double().cpu(), reference.double().cpu()
    return ((x - reference).norm() / reference.norm()).item()


def release(device):
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def exact_attention(device):
    """Attention in float32 without a matrix of all logits: on a GPU one kernel can, elsewhere any does."""
    return sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION if device.type == "cuda" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])


def check_attention(device, tokens, heads, dim):
    """The reference's own attention at this length against float64, for 32 queries: is it float32 indeed?"""
    q, k, v = (torch.randn(1, heads, tokens, dim, device=device) * s for s in (3 ** 0.5, 3 ** 0.5, 1))
    with exact_attention(device):
        rows = F.scaled_dot_product_attention(q, k, v)[:, :, -32:]
    exact = torch.softmax(q[:, :, -32:].double() @ k.double().transpose(2, 3) / dim ** 0.5, -1) @ v.double()
    return error(rows, exact)


@torch.no_grad()
def velocity(args, device, dtype, inputs):
    """[L, h, w, C] of diffusers' transformer."""
    model = load_transformer(args.model, dtype, device)
    latents = inputs["latents"].permute(3, 0, 1, 2)[None].to(device, dtype)     # [1, C, L, h, w]
    text = torch.zeros(1, 512, model.config.text_dim, dtype=dtype, device=device)
    text[0, :args.text_tokens] = inputs["prompt_embeds"].to(device, dtype)
    with exact_attention(device) if dtype == torch.float32 else contextlib.nullcontext():
        out = model(latents, inputs["timestep"].to(device), text, return_dict=False)[0]
    return out[0].permute(1, 2, 3, 0).float().cpu()


@torch.no_grad()
def frames(args, device, dtype, inputs):
    """[F, H, W, 3] of diffusers' decoder; the latents are de-normalised as its pipeline does."""
    vae = load_vae(args.model, dtype, device)
    latents = inputs["latents"].permute(3, 0, 1, 2)[None].to(device, dtype)
    mean, std = (torch.tensor(x, device=device, dtype=dtype).view(-1, 1, 1, 1) for x in (vae.config.latents_mean, vae.config.latents_std))
    return vae.decode(latents * std + mean, return_dict=False)[0][0].permute(1, 2, 3, 0).float().cpu()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default=str(ROOT / "models" / "tiny"))
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"), help="ours")
    parser.add_argument("--parts", default="pass,decode", help="pass, decode or both")
    parser.add_argument("--latents", type=int, default=21)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--text-tokens", type=int, default=120)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(1)
    config = json.loads((pathlib.Path(args.model) / "transformer" / "config.json").read_text())
    # Numbers that bfloat16 has: the peer takes its inputs in its own type, and their rounding is nobody's error.
    inputs = {"latents": torch.randn(args.latents, args.height // 8, args.width // 8, config["in_channels"]).bfloat16().float(),
              "prompt_embeds": torch.randn(args.text_tokens, config["text_dim"]).bfloat16().float(),
              "timestep": torch.tensor([750.0])}
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        save_file(inputs, f"{folder}/in.safetensors")
        for part, key, run in (("pass", "velocity", velocity), ("decode", "frames", frames)):
            if part not in args.parts.split(","):
                continue
            command = [f"{args.build}/tests/bench/bench_parts", "--device", args.device, "--model", args.model, "--precision", args.precision,
                       "--parts", part, "--runs", "1", "--input", f"{folder}/in.safetensors", "--output", f"{folder}/out.safetensors"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                say(f"FAIL {part}: {done.stderr.strip()}")
                failed = True
                continue
            ours = load_file(f"{folder}/out.safetensors")[key]
            say(f"{part}: ours done, {done.stdout.strip()}")
            if part == "pass":
                tokens = args.latents * (args.height // 16) * (args.width // 16)
                say(f"attention of {tokens} tokens in float32, as the reference runs it, against float64:",
                    f"{check_attention(device, tokens, config['num_attention_heads'], config['attention_head_dim']):.1e}")
            reference = run(args, device, torch.float32, inputs)
            release(device)
            if part == "decode":
                ours = ours.clamp(-1, 1)                        # as the peer's frames are; ours are when they are packed
            mine = error(ours, reference)
            rms = reference.square().mean().sqrt().item()
            say(f"{part}: ours, {args.precision}, against float32: {mine:.3e}   ({list(reference.shape)}, rms {rms:.3f})")
            limit = FLOAT32_LIMIT
            if args.precision == "bfloat16":
                limit = error(run(args, device, torch.bfloat16, inputs), reference)
                release(device)
                say(f"{part}: diffusers, bfloat16, against float32: {limit:.3e}")
            good = mine <= limit
            failed |= not good
            say(f"{'PASS' if good else 'FAIL'} {part}: {mine:.3e} {'<=' if good else '>'} {limit:.3e}")
    return 1 if failed else 0


START = time.monotonic()
if __name__ == "__main__":
    sys.exit(main())
