# SPDX-License-Identifier: LGPL-2.1-or-later
"""Are these networks those of diffusers and transformers? Random weights, both sides in float32, relative differences at most 1e-4; with DIR (an
exported model) also the tokenizers, and that WanPipeline loads and runs it; with PROGRAM (build/engine/dualparal) also that WanPipeline and that program make the
same pictures of the same noise, and that this directory's DualParal queue gives that program's latents. Needs diffusers, transformers and sentencepiece: `check.py [DIR [PROGRAM]]`.
"""
import os
import random
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F

import captions
import export
import models
import sample
import world

LIMIT = 1e-4


def same(what, a, b):
    err = ((a - b).norm() / b.norm()).item()
    print(f"{what}: {err:.2e}")
    if not err <= LIMIT:
        sys.exit(f"{what} differs from the reference by {err}, more than {LIMIT}")


@torch.no_grad()
def networks(size):
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(3)
    vae, dit, text = models.build(size, 300)
    for m in (vae, dit, text):
        for p in m.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    cfg = export.configs(size, 300, vae)
    plain = lambda c: {k: v for k, v in c.items() if not k.startswith("_")}
    ref = AutoencoderKLWan(**plain(cfg["vae"]))
    ref.load_state_dict({k: v for k, v in vae.state_dict().items() if k not in ("mean", "std")})
    x = torch.rand(1, 17, 32, 48, 3) * 2 - 1
    mean, _ = vae.encode(x)
    same(f"{size} vae encode", mean, ref.encode(x.permute(0, 4, 1, 2, 3)).latent_dist.mode().permute(0, 2, 3, 4, 1))
    z = torch.randn(1, 5, 4, 6, 16)
    same(f"{size} vae decode", vae.decode(z).clamp(-1, 1), ref.decode(z.permute(0, 4, 1, 2, 3)).sample.permute(0, 2, 3, 4, 1))
    ref = UMT5EncoderModel(UMT5Config(**plain(cfg["text_encoder"]))).eval()
    ref.load_state_dict(text.state_dict(), strict=False)
    ids = torch.zeros(2, captions.TEXT, dtype=torch.long)
    ids[0, :20], ids[1, :7] = torch.randint(3, 300, (20,)), torch.randint(3, 300, (7,))
    rows = text(ids, torch.float32)
    full = F.pad(ids, (0, 512 - captions.TEXT))
    want = ref(full, attention_mask=(full != 0).long()).last_hidden_state * (full != 0)[..., None]
    same(f"{size} text encoder", rows[:, :-1], want[:, : captions.TEXT])
    ref = WanTransformer3DModel(**plain(cfg["transformer"])).eval()
    ref.load_state_dict(dit.state_dict())
    z, t = torch.randn(2, 4, 6, 8, 16), torch.tensor([700.0, 123.4])
    got, _ = dit(z, t, dit.text(rows))
    same(f"{size} transformer", got, ref(z.permute(0, 4, 1, 2, 3), t, want).sample.permute(0, 2, 3, 4, 1))


def tokenizers(directory):
    """Every caption, by the tokenizers that WanPipeline may take, as SentencePiece has it."""
    import sentencepiece
    from transformers import AutoTokenizer, T5TokenizerFast

    spm = sentencepiece.SentencePieceProcessor(model_file=f"{directory}/tokenizer/spiece.model")
    rng = random.Random(77)
    texts = [captions.caption(rng, world.sample(rng)) for _ in range(3000)] + [p["prompt"] for p in captions.prompts()]
    texts += ["", "a cat, riding a BICYCLE!", "two  spaces", "été", "It's 12:30 - really?", "a <pad> in a box"]
    for kind in (T5TokenizerFast, AutoTokenizer):
        tok = kind.from_pretrained(f"{directory}/tokenizer")
        wrong = [t for t in texts if tok(t).input_ids != spm.encode(t) + [1] and "<pad>" not in t]
        print(f"{kind.__name__} ({type(tok).__name__}): {len(wrong)} of {len(texts)} texts differ from SentencePiece")
        if wrong:
            sys.exit(f"first: {wrong[0]!r}: {tok(wrong[0]).input_ids} instead of {spm.encode(wrong[0]) + [1]}")


def pipeline(directory, program):
    """WanPipeline loads it; with a program, both make the same pictures of the same noise, text and settings, in float32."""
    from diffusers import WanPipeline
    from safetensors.torch import load_file, save_file

    prompt, steps, guidance, latents = "a red ball bouncing over a green meadow", 6, 3.0, 5
    pipe = WanPipeline.from_pretrained(directory, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, models.Z, latents, 18, 32, generator=torch.Generator().manual_seed(1))
    frames = pipe(prompt=prompt, negative_prompt="", height=144, width=256, num_frames=4 * latents - 3, num_inference_steps=steps, guidance_scale=guidance, latents=noise,
                  max_sequence_length=512, output_type="pt").frames[0].permute(0, 2, 3, 1)
    print("WanPipeline:", tuple(frames.shape))
    if program:
        with tempfile.TemporaryDirectory() as d:
            save_file({"noise": noise[0].contiguous()}, f"{d}/noise")
            subprocess.run([program, "generate", "--model", directory, "--prompt", prompt, "--negative-prompt", "", "--precision", "float32", "--steps", str(steps), "--devices", "cpu",
                            "--guidance-scale", str(guidance), "--block-latents", str(latents), "--context-latents", "-1", "--queue-blocks", "1", "--frames", str(len(frames)),
                            "--noise", f"{d}/noise", "--dump", f"{d}/dump", "--output", f"{d}/out.y4m"], check=True)
            got = load_file(f"{d}/dump")["frames"]
        psnr = -10 * (got - frames).pow(2).mean().log10().item()
        print(f"its pictures and the program's: {psnr:.1f} dB")
        if not psnr >= 50:
            sys.exit("WanPipeline makes other pictures of the same noise")


@torch.no_grad()
def engine(program):
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    tokenizer, prompt = captions.train_tokenizer(), "a red ball bouncing in the rain"
    vae, dit, text = models.build("smoke", captions.VOCAB)
    for m in (vae, dit, text):
        for p in m.parameters():
            p.copy_((p + torch.randn_like(p) * 0.08).bfloat16())
    shift = sample.shift
    sample.sigma = lambda s, steps: shift(1 - (1 - shift(0.001)) * s / (steps - 1)) if s < steps else 0.0       # Euler's levels; those of UniPC else
    with tempfile.TemporaryDirectory() as d:
        export.write(d, "smoke", vae, dit, text, tokenizer, 1.0)
        rows = dit.text(sample.rows(text, tokenizer, [prompt, ""], "cpu", torch.float32))
        for steps, lag, guidance in ((6, 2, 1.0), (5, 1, 3.0)):
            drawn = []
            z = sample.dualparal(dit, rows[:1], rows[1:], 20, steps, lag, guidance, torch.Generator().manual_seed(5), keep=drawn)
            save_file({"noise": torch.cat(drawn, 1)[0].permute(3, 0, 1, 2).contiguous()}, os.path.join(d, "noise"))
            subprocess.run([program, "generate", "--model", d, "--prompt", prompt, "--sampler", "euler", "--precision", "float32", "--steps", str(steps), "--queue-blocks",
                            str(-(-steps // lag)), "--guidance-scale", str(guidance), "--frames", "77", "--noise", f"{d}/noise", "--dump", f"{d}/dump",
                            "--devices", "cpu", "--output", f"{d}/out.y4m"], check=True)
            same(f"queue, {steps} steps, lag {lag}, guidance {guidance}", z[0].permute(3, 0, 1, 2), load_file(f"{d}/dump")["latents"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for size in models.SIZES:
        networks(size)
    if len(sys.argv) > 1:
        tokenizers(sys.argv[1])
        pipeline(sys.argv[1], *sys.argv[2:3] or [None])
    if len(sys.argv) > 2:
        engine(sys.argv[2])
    print("ok")
