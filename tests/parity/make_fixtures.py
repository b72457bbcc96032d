# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes everything under fixtures/: models, inputs, and what the reference implementations make of them. See README.md.

    python3 make_fixtures.py            # all of it
    python3 make_fixtures.py sampler    # one group: models, text, long-text, dit, passes, vae, encode, stream, sampler, noise, run, image,
                                        # lora, dualparal

A case is NAME.json (settings) and NAME.safetensors (tensors). Video tensors are channels first, [c, L, h, w], as in diffusers.
"""
import io
import json
import pathlib
import sys
import tempfile

import numpy as np
import sentencepiece
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from transformers import T5TokenizerFast

from dualparal_reference import CachedTransformer, LowNoise, dualparal
from oracle_models import MODELS, Model, make_scheduler

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "fixtures"
NOISE_LATENTS = 24      # per model; a case uses the first L of them
PLAIN = ("odd", "wide", "deep")         # models of one transformer; the parts of the other one are like theirs

PROMPTS = [
    "a red ball bouncing over a green meadow",
    "the moon",
    "  two   boats &amp; a &quot;lighthouse&quot;\n at dusk ",
    "rain",
    "",
    "a blue cube turns slowly on a white table, then a yellow bird lands on it and looks around; soft light, wide shot, "
    "calm sea behind, a boat far away, the sun goes down and the sky turns red, a dog runs along the beach, waves roll in",
]
NEGATIVES = ["blurry, dark", "text, noise"]


def write(group, name, settings, tensors):
    """One case. float32 unless the caller made it something else."""
    folder = OUT / group
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    for k, v in tensors.items():
        assert torch.isfinite(v).all(), (group, name, k)
    save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(settings, indent=1) + "\n")
    rms = {k: round(v.float().pow(2).mean().sqrt().item(), 3) for k, v in tensors.items()}
    print(f"{group}/{name}: rms {rms}")


def randn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise_of(model):
    """[c, NOISE_LATENTS, h, w], the same for all cases of a model."""
    return randn(MODELS[model.name]["seed"] + 7, model.transformer.config.in_channels, NOISE_LATENTS, model.h, model.w)


class Models(dict):
    """Oracle models, made when first asked for."""

    def __missing__(self, name):
        self[name] = Model(name)
        return self[name]


models = Models()


# ---- models ----

def make_tokenizer(folder):
    """A SentencePiece model of a few KB: the published ones carry 240 KB of normalisation rules that nothing here needs."""
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([prompt_clean(p) for p in PROMPTS if p] + NEGATIVES), model_writer=model, vocab_size=160,
        model_type="unigram", normalization_rule_name="identity", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>",
        eos_piece="</s>", unk_piece="<unk>", num_threads=1, hard_vocab_limit=False, minloglevel=2)
    (folder / "spiece.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "extra_ids": 0, "legacy": False,
        "model_max_length": 512, "tokenizer_class": "T5Tokenizer"}, indent=1) + "\n")


def pipeline(name):
    """diffusers' own pipeline over the oracle's modules."""
    m = models[name]
    pipe = WanPipeline(tokenizer=tokenizer(), text_encoder=m.text_encoder, vae=m.vae, scheduler=make_scheduler(name), transformer=m.transformer,
                       transformer_2=m.transformer_2, boundary_ratio=m.boundary_ratio,
                       expand_timesteps=MODELS[name].get("expand_timesteps", False))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tokenizer():
    return T5TokenizerFast.from_pretrained(OUT / "models" / "odd" / "tokenizer")


def make_models():
    with tempfile.TemporaryDirectory() as tmp:
        make_tokenizer(pathlib.Path(tmp) / "tokenizer")
        for name in MODELS:
            models[name].save(OUT / "models" / name, pathlib.Path(tmp) / "tokenizer")
            print("model", name, f"{sum(f.stat().st_size for f in (OUT / 'models' / name).rglob('*') if f.is_file()) / 1e6:.2f} MB")


# ---- modules ----

@torch.no_grad()
def make_text():
    """UMT5: embeddings of the real tokens, with the rest of the 64 masked; and what the tokenizer and the prompt cleaning give."""
    sp = sentencepiece.SentencePieceProcessor(model_file=str(OUT / "models" / "odd" / "tokenizer" / "spiece.model"))
    tok = tokenizer()
    cases = []
    for p in PROMPTS + NEGATIVES:
        clean = prompt_clean(p)
        ids = tok(clean, max_length=64, truncation=True, add_special_tokens=True).input_ids
        assert ids == (sp.encode(clean)[:63] + [1]), (p, ids, sp.encode(clean))
        cases.append({"prompt": p, "clean": clean, "ids": ids})
    write("text", "tokens", {"max": 64, "cases": cases}, {"unused": torch.zeros(1)})

    for name in PLAIN:
        write("text", name, *encoded(name, [1, 7, 31, 64], 64))


def encoded(name, lengths, padded_to, every=1):
    """Settings and tensors of a case: texts of `lengths` tokens, and every so manieth row of their embeddings."""
    tensors, ids = {}, {}
    for n in lengths:
        g = torch.Generator().manual_seed(n)
        row = torch.cat((torch.randint(3, 192, (n - 1,), generator=g), torch.tensor([1])))
        padded = torch.zeros(1, padded_to, dtype=torch.long)
        padded[0, :n] = row
        mask = (torch.arange(padded_to) < n).long()[None]
        out = models[name].text_encoder(padded, mask).last_hidden_state
        tensors[f"out_{n}"] = out[0, :n:every]
        ids[str(n)] = row.tolist()
    return {"model": name, "lengths": lengths, "ids": ids}, tensors


@torch.no_grad()
def make_long_text():
    """UMT5 at lengths whose tokens are further apart than the last buckets of positions; every row is made of all the others, so a few tell."""
    write("text", "odd-long", *encoded("odd", [197, 512], 512, 7))          # the last row is among them


DIT_TIMESTEPS = [999.0, 523.0, 37.25, 0.5]


def dit_inputs(name):
    """Two texts [2, length, text_dim] and how many rows of each are real; latents [c, 5, h, w]."""
    m = models[name]
    config = m.transformer.config
    length, n_real = {"odd": (64, (9, 1)), "wide": (512, (64, 17)), "deep": (64, (64, 30))}[name]
    text = torch.zeros(2, length, config.text_dim)
    for s, n in enumerate(n_real):
        text[s, :n] = randn(11 + s, n, config.text_dim)
    return text, n_real, randn(21, config.in_channels, 5, m.h, m.w)


@torch.no_grad()
def make_dit():
    """One layer; the whole transformer; a pass that stores keys and values, and the pass in front of it that reads them."""
    for name in PLAIN:
        m = models[name]
        tr = m.transformer
        c, dim = tr.config.in_channels, tr.config.num_attention_heads * tr.config.attention_head_dim
        text, n_real, latents = dit_inputs(name)
        length, frames, per_frame, timesteps = text.shape[1], latents.shape[1], m.h * m.w // 4, DIT_TIMESTEPS
        tensors = {"text_0": text[0, :n_real[0]], "text_1": text[1, :n_real[1]], "latents": latents}
        settings = {"model": name, "h": m.h, "w": m.w, "frames": frames, "text_length": length, "timesteps": timesteps,
                    "layers": tr.config.num_layers}

        # One layer, tokens in and out.
        layer, step = tr.config.num_layers // 2, 1
        tokens = randn(31, 1, frames * per_frame, dim)
        _, proj, text_in, _ = tr.condition_embedder(torch.tensor([timesteps[step]]), text[:1], None)
        rope = tr.rope(latents[None])
        settings["layer"], settings["layer_step"] = layer, step
        tensors["layer_in"] = tokens[0]
        tensors["layer_out"] = tr.blocks[layer](tokens, text_in, proj.unflatten(1, (6, -1)), rope)[0]

        # All of it, for every timestep and both texts (the batch of two of classifier-free guidance).
        for i, t in enumerate(timesteps):
            out = tr(latents[None].expand(2, -1, -1, -1, -1), torch.full((2,), t), text, return_dict=False)[0]
            tensors[f"velocity_{i}"] = out                      # [2, c, frames, h, w]

        # Two passes of DualParal: block b+1 (context of 2 in front, 3 own), then block b (4 latents) with its keys and values behind.
        window_next, window = randn(41, 1, c, 5, m.h, m.w), randn(42, 1, c, 4, m.h, m.w)
        cached = CachedTransformer(tr)
        velocity, velocity_next = [], []
        for s in range(2):
            v, stored = cached.forward(window_next, torch.tensor(timesteps[0]), text[s:s + 1], None, 2, 2)
            velocity_next.append(v)
            velocity.append(cached.forward(window, torch.tensor(timesteps[1]), text[s:s + 1], stored, 0, 2)[0])
        tensors.update(window_next=window_next[0], window=window[0], velocity_next=torch.cat(velocity_next), velocity_cached=torch.cat(velocity))
        settings.update(cache_first=2, cache_frames=2, next_step=0, cached_step=1)
        write("dit", name, settings, tensors)
        del models[name]                                        # its attention processors were replaced


@torch.no_grad()
def make_passes():
    """Frames of several steps in one pass; passes with a neighbour's keys and values before them. Texts, latents and timesteps are those of dit/."""
    for name in PLAIN:
        m = models[name]
        tr = m.transformer
        text, _, latents = dit_inputs(name)
        timesteps = torch.tensor(DIT_TIMESTEPS)
        settings = {
            "model": name,
            # Two runs; three, where the last and the first are of the same step; five, no two neighbours alike.
            "mixed": [[0, 0, 1, 1, 1], [2, 0, 0, 1, 2], [3, 1, 3, 0, 1]],
            # Block b-1, whose last two frames are kept; b+1 behind those, whose first two and last one are; b between the kept ones of
            # both; b behind the last one of b+1 alone.
            "previous_steps": [1, 1, 2, 2, 3], "next_steps": [1, 0, 0, 0, 0], "between_steps": [1, 1, 2, 0], "after_steps": [3, 3, 3, 3],
            "previous_tail": [3, 2], "next_head": [0, 2], "next_tail": [4, 1],
        }
        tensors = {}
        for i, steps in enumerate(settings["mixed"]):           # diffusers' own attention
            of_tokens = timesteps[steps].repeat_interleave(m.h * m.w // 4).expand(2, -1)
            tensors[f"velocity_mixed_{i}"] = tr(latents[None].expand(2, -1, -1, -1, -1), of_tokens, text, return_dict=False)[0]

        c, per_frame = tr.config.in_channels, m.h * m.w // 4
        blocks = {"previous": randn(43, 1, c, 5, m.h, m.w), "next": randn(44, 1, c, 5, m.h, m.w), "own": randn(45, 1, c, 4, m.h, m.w)}
        cached = CachedTransformer(tr)
        velocity = {"next": [], "between": [], "after": []}

        def run(block, steps, s, before, behind):
            return cached.forward(blocks[block], timesteps[settings[steps]], text[s:s + 1], behind, 0, blocks[block].shape[2], before)

        def part(stored, frames):
            first, count = settings[frames]
            return [tuple(t[:, first * per_frame:(first + count) * per_frame] for t in layer) for layer in stored]

        for s in range(2):
            previous = run("previous", "previous_steps", s, None, None)[1]
            v, following = run("next", "next_steps", s, part(previous, "previous_tail"), None)
            velocity["next"].append(v)
            velocity["between"].append(run("own", "between_steps", s, part(previous, "previous_tail"), part(following, "next_head"))[0])
            velocity["after"].append(run("own", "after_steps", s, part(following, "next_tail"), None)[0])
        tensors.update({block: x[0] for block, x in blocks.items()})
        tensors.update({f"velocity_{k}": torch.cat(v) for k, v in velocity.items()})
        write("passes", name, settings, tensors)
        del models[name]                                        # its attention processors were replaced


@torch.no_grad()
def decode(vae, latents):
    """AutoencoderKLWan.decode of normalised latents [c, L, h, w] without the clamp: [F, H, W, 3]."""
    z = denormalise(vae, latents[None])
    vae.clear_cache()
    x = vae.post_quant_conv(z)
    out = []
    for i in range(z.shape[2]):
        vae._conv_idx = [0]
        out.append(vae.decoder(x[:, :, i:i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0))
    vae.clear_cache()
    out = torch.cat(out, 2)
    if vae.config.patch_size is not None:
        out = unpatchify(out, vae.config.patch_size)
    assert torch.equal(out.clamp(-1, 1), vae.decode(z, return_dict=False)[0])
    return out[0].permute(1, 2, 3, 0)


def denormalise(vae, z):
    """As WanPipeline does it."""
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    return z / std + mean


def make_vae():
    """A few latents, all at once."""
    for name, count in (("odd", 4), ("wide", 4), ("deep", 5), ("grid", 3)):
        m = models[name]
        latents = randn(51, m.vae.config.z_dim, count, m.h, m.w)
        write("vae", name, {"model": name, "h": m.h, "w": m.w}, {"latents": latents, "frames": decode(m.vae, latents)})


@torch.no_grad()
def make_encode():
    """Pictures [F, H, W, 3] to the latents that a video begins with, as WanImageToVideoPipeline normalises them."""
    for name in ("deep", "grid"):
        m = models[name]
        pictures = torch.rand(9, m.h * m.scale, m.w * m.scale, 3, generator=torch.Generator().manual_seed(71)) * 2 - 1
        z = m.vae.encode(pictures.permute(3, 0, 1, 2)[None]).latent_dist.mode()
        mean, std = (torch.tensor(x).view(1, -1, 1, 1, 1) for x in (m.vae.config.latents_mean, m.vae.config.latents_std))
        write("encode", name, {"model": name, "h": m.h, "w": m.w}, {"pictures": pictures, "latents": ((z - mean) / std)[0]})


def make_stream():
    """Forty latents at once; the frames of a few of them are kept."""
    for name in ("odd", "deep", "grid"):
        m = models[name]
        h, w = 2, 32 // m.scale
        latents = randn(61, m.vae.config.z_dim, 40, h, w)
        frames = decode(m.vae, latents)
        keep = [0, 1, 2, 39]
        tensors = {"latents": latents}
        for i in keep:
            tensors[f"frames_{i}"] = frames[max(0, 4 * i - 3):4 * i + 1]
        write("stream", name, {"model": name, "h": h, "w": w, "latents": 40, "keep": keep}, tensors)


# ---- samplers ----

def make_sampler():
    """Whole trajectories under the velocity a * x + b * s / T + c of step s, elementwise: both sides can compute that exactly.

    diffusers' bh1 divides infinity by itself in the last step, to sigma 0: only the steps before it are kept.
    """
    n = 16
    a, b, c = 0.5 * randn(71, n), randn(72, n), randn(73, n)
    cases = []
    for order in (1, 2):
        for solver in ("bh1", "bh2"):
            cases += [("unipc", order, solver, shift, steps) for shift in (1.0, 3.0, 5.0) for steps in (1, 2, 3, 5, 20, 50)
                      if solver == "bh2" or steps > 1]
    cases += [("euler", 2, "bh2", shift, steps) for shift in (1.0, 3.0, 5.0) for steps in (1, 2, 5, 20, 50)]
    settings, tensors = [], {"a": a, "b": b, "c": c}
    for kind, order, solver, shift, steps in cases:
        if kind == "euler":
            sched = FlowMatchEulerDiscreteScheduler(shift=shift)
        else:
            sched = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift,
                                            solver_order=order, solver_type=solver)
        sched.set_timesteps(steps)
        sched.set_begin_index(0)
        x = randn(74, 1, n)
        tensors["x"] = x[0]
        rows = []
        for s, t in enumerate(sched.timesteps):
            v = a * x + b * np.float32(s / steps) + c
            x = sched.step(v, t, x, return_dict=False)[0]
            rows.append(x[0])
        if solver == "bh1":
            rows.pop()
        name = f"{kind}-{order}-{solver}-{shift:g}-{steps}"
        tensors[name] = torch.stack(rows)                        # [rows, n]: after every step
        tensors[name + "-sigmas"] = sched.sigmas.float()         # [T + 1]
        tensors[name + "-timesteps"] = sched.timesteps.float()   # [T]
        settings.append({"name": name, "sampler": kind, "order": order, "solver": solver, "shift": shift, "steps": steps,
                         "rows": len(rows)})
    write("sampler", "trajectories", {"n": n, "cases": settings}, tensors)


# ---- whole runs ----

def frames_of(name, latents):
    """[F, H, W, 3] in 0..1, stored as float16: good for 70 dB."""
    return (decode(models[name].vae, latents) * 0.5 + 0.5).clamp(0, 1).half()


def second_expert(m, guidance_2):
    """What the reference is told of the low-noise expert of a model that has one."""
    return LowNoise(m.transformer_2, m.boundary_ratio * 1000, guidance_2) if m.transformer_2 is not None else None


def make_run():
    """Plain Wan through diffusers' pipeline: one block, all steps."""
    for name, L, steps, guidance, guidance_2, length in (("odd", 5, 6, 5.0, None, 64), ("wide", 4, 5, 3.0, None, 512),
                                                         ("deep", 3, 8, 1.0, None, 64), ("pair", 4, 6, 4.0, 2.5, 512), ("grid", 4, 6, 5.0, None, 64)):
        pipe = pipeline(name)
        m = models[name]
        noise = noise_of(m)[:, :L]
        settings = {"model": name, "latents": L, "steps": steps, "guidance_scale": guidance, "text_length": length,
                    "prompt": PROMPTS[0], "negative_prompt": NEGATIVES[0], "width": m.w * m.scale, "height": m.h * m.scale}
        if guidance_2 is not None:
            settings["guidance_scale_2"] = guidance_2
        call = dict(prompt=PROMPTS[0], negative_prompt=NEGATIVES[0], height=m.h * m.scale, width=m.w * m.scale, num_frames=4 * L - 3,
                    num_inference_steps=steps, guidance_scale=guidance, guidance_scale_2=guidance_2, max_sequence_length=length,
                    latents=noise[None])
        latents = pipe(**call, output_type="latent").frames[0]
        frames = torch.from_numpy(pipe(**call, output_type="np").frames[0])
        embeds, negative = pipe.encode_prompt(PROMPTS[0], NEGATIVES[0], True, max_sequence_length=length)
        own = frames_of(name, latents)
        assert (own.float() - frames).abs().max() < 1e-3
        # The scheme's reference with a single block is the pipeline.
        again = dualparal(m.transformer, lambda: make_scheduler(name), noise, lambda b, iteration: (embeds, negative),
                          steps=steps, B=L, C=0, queue_blocks=1, guidance=guidance, low_noise=second_expert(m, guidance_2))
        error = ((again - latents).norm() / latents.norm()).item()
        print(f"  dualparal of one block against the pipeline: {error:.1e}")
        assert error < 1e-5
        del models[name]
        real, real_negative = (int(e[0].abs().sum(1).gt(0).sum()) for e in (embeds, negative))
        write("run", name, settings, {"prompt_embeds": embeds[0, :real], "negative_prompt_embeds": negative[0, :real_negative],
                                      "latents": latents, "frames": own})


def change(block, prompt, negative=None, restart_in=0):
    """From `block` on; with `restart_in`, in that iteration, for blocks that restart: `block` must be the first of them."""
    return {"block": block, "prompt": PROMPTS[prompt], "negative_prompt": negative} | ({"restart_in": restart_in} if restart_in else {})


# model, L, B, C, T, Q, guidance (of each expert where there are two), sampler, text length, prompt changes, every 4th frame kept
CASES = {
    # every pairing of C < B and C = B, lag 1 and 3, guidance on and off; five blocks or more
    "small-context-lag1-cfg": ("odd", 17, 3, 2, 5, 5, 5.0, None, 64, [change(3, 1)], False),
    "small-context-lag1": ("wide", 16, 3, 1, 4, 4, 1.0, None, 64, [change(3, 1)], False),
    "small-context-lag3-cfg": ("deep", 16, 3, 1, 7, 3, 3.0, None, 64, [change(2, 1), change(4, 3, NEGATIVES[1])], True),
    "small-context-lag3": ("odd", 15, 3, 2, 6, 2, 1.0, None, 512, [], False),
    "full-context-lag1-cfg": ("wide", 13, 2, 2, 5, 5, 4.0, None, 512, [change(1, 2)], False),
    "full-context-lag1": ("deep", 14, 2, 2, 6, 6, 1.0, None, 64, [change(3, 5)], False),
    "full-context-lag3-cfg": ("odd", 12, 2, 2, 6, 2, 4.0, "euler", 64, [change(3, 4)], False),
    "full-context-lag3": ("wide", 12, 2, 2, 8, 3, 1.0, "euler", 64, [], False),
    # a last block with fewer latents than the context
    "short-last": ("deep", 24, 4, 3, 4, 4, 6.0, "unipc", 64, [change(3, 1)], False),
    # one block in flight: the context is finished, nothing is ever cached
    "one-in-flight": ("deep", 9, 2, 1, 3, 1, 2.0, None, 64, [change(2, 3)], False),
    # no context at all: independent blocks in a queue
    "no-context": ("deep", 10, 2, 0, 3, 3, 2.0, None, 64, [change(3, 1)], False),
    # more blocks in flight than there are, and a queue that does not divide the steps
    "uneven": ("wide", 13, 2, 1, 10, 7, 2.0, None, 64, [change(5, 1, NEGATIVES[1])], False),
    # two experts, neighbours on either side of the boundary; guided both, the first alone, the second alone, neither
    "experts-lag1": ("pair", 14, 2, 2, 6, 6, (4.0, 2.5), None, 64, [change(3, 1)], True),
    "experts-lag2": ("pair", 16, 3, 1, 6, 3, (3.0, 1.0), None, 64, [change(2, 3, NEGATIVES[1])], False),
    "experts-lag3": ("pair", 12, 2, 2, 7, 3, (1.0, 3.0), "euler", 64, [change(3, 1)], False),
    "experts-unguided": ("pair", 11, 2, 1, 6, 6, (1.0, 1.0), None, 512, [change(1, 2)], False),
    # a prompt for which two blocks restart, that have done three steps and one
    "restart": ("wide", 15, 2, 1, 8, 4, 2.0, None, 64, [change(2, 1, restart_in=7)], False),
    # guidance in some steps: neighbours on either side of both borders; a restart from noise, which is outside; with two experts
    "interval-lag1": ("wide", 13, 2, 2, 6, 6, 4.0, None, 64, [change(3, 1)], False),
    "interval-lag3": ("deep", 13, 2, 1, 8, 3, 4.0, "euler", 64, [change(2, 1)], False),
    "interval-restart": ("wide", 15, 2, 1, 8, 4, 3.0, None, 64, [change(2, 1, restart_in=7)], False),
    "interval-experts": ("pair", 12, 2, 2, 7, 3, (4.0, 2.5), None, 64, [change(3, 1)], False),
    # 16 x 16 pixels a latent
    "grid": ("grid", 13, 2, 2, 6, 6, 4.0, None, 64, [change(3, 1)], True),
}
# levels of noise: guidance above the first, up to the second; without a line in all steps
INTERVALS = {"interval-lag1": (0.4, 0.9), "interval-lag3": (0.4, 0.95), "interval-restart": (0.5, 0.98), "interval-experts": (0.5, 0.97)}
# the same ones with a cached context: "cached-NAME"
CACHED = ("small-context-lag1-cfg", "full-context-lag1", "uneven", "small-context-lag3-cfg", "small-context-lag3", "full-context-lag3-cfg",
          "short-last", "one-in-flight", "experts-lag1", "experts-lag2", "experts-lag3", "restart", *INTERVALS)
CASES |= {f"cached-{name}": CASES[name] for name in CACHED}


def run_case(name, variant=None):
    """(settings, latents [c, L, h, w]) of a DualParal case. `variant` may change the reference (sensitivity.py)."""
    model, L, B, C, T, Q, guidance, sampler, length, changes, _ = CASES[name]
    guidance, guidance_2 = guidance if isinstance(guidance, tuple) else (guidance, None)
    pipe = pipeline(model)
    m = models[model]
    settings = {"model": model, "latents": L, "block_latents": B, "context_latents": C, "steps": T, "queue_blocks": Q,
                "guidance_scale": guidance, "sampler": sampler, "flow_shift": MODELS[model]["flow_shift"], "text_length": length,
                "prompt": PROMPTS[0], "negative_prompt": NEGATIVES[0], "changes": changes, "width": m.w * m.scale, "height": m.h * m.scale}
    context = "cached" if name.startswith("cached-") else "recomputed"
    settings["context"] = context
    if guidance_2 is not None:
        settings["guidance_scale_2"] = guidance_2
    interval = INTERVALS.get(name.removeprefix("cached-"), (0, 1))
    if interval != (0, 1):
        settings["guidance_interval"] = interval
    embeds = {}

    def embed(prompt):
        if prompt not in embeds:
            embeds[prompt] = pipe.encode_prompt(prompt, None, False, max_sequence_length=length)[0]
        return embeds[prompt]

    def text_of_block(block, iteration):
        prompt, negative = PROMPTS[0], NEGATIVES[0]
        for c in changes:
            if c["block"] <= block and c.get("restart_in", 0) <= iteration:
                prompt, negative = c["prompt"], c["negative_prompt"] or negative
        return embed(prompt), embed(negative)

    run = variant or dualparal
    latents = run(m.transformer, lambda: make_scheduler(model, sampler), noise_of(m)[:, :L], text_of_block,
                  steps=T, B=B, C=C, queue_blocks=Q, guidance=guidance, guidance_interval=interval, context=context,
                  low_noise=second_expert(m, guidance_2), restart_in=next((c["restart_in"] for c in changes if "restart_in" in c), None))
    del models[model]
    return settings, latents


def make_image():
    """A picture to begin with, which the pipeline keeps in front of all steps."""
    name, L, steps, guidance, length = "grid", 4, 6, 5.0, 64
    m, plain = models[name], pipeline(name)
    pipe = WanImageToVideoPipeline(tokenizer=plain.tokenizer, text_encoder=m.text_encoder, vae=m.vae, scheduler=make_scheduler(name),
                                   transformer=m.transformer, expand_timesteps=True)
    pipe.set_progress_bar_config(disable=True)
    width, height = m.w * m.scale, m.h * m.scale
    y, x = np.mgrid[:height, :width]
    picture = Image.fromarray(np.stack([x * 255 // width, y * 255 // height, (x * y) % 256], -1).astype(np.uint8))
    settings = {"model": name, "latents": L, "steps": steps, "guidance_scale": guidance, "text_length": length, "prompt": PROMPTS[0],
                "negative_prompt": NEGATIVES[0], "width": width, "height": height, "image": f"{name}.png"}
    latents = pipe(picture, prompt=PROMPTS[0], negative_prompt=NEGATIVES[0], height=height, width=width, num_frames=4 * L - 3,
                   num_inference_steps=steps, guidance_scale=guidance, max_sequence_length=length, latents=noise_of(m)[None, :, :L],
                   output_type="latent").frames[0]
    write("image", name, settings, {"latents": latents, "frames": frames_of(name, latents)})
    picture.save(OUT / "image" / f"{name}.png")
    del models[name]


def make_lora():
    """A LoRA on all linear layers of the transformer, as PEFT applies it and diffusers saves it; its factors are not small."""
    name, L, steps, guidance, length, strength = "odd", 3, 4, 5.0, 64, 0.7
    m, pipe = models[name], pipeline(name)
    m.transformer.add_adapter(LoraConfig(r=2, lora_alpha=3, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v", "to_out.0",
                                         "ffn.net.0.proj", "ffn.net.2", "proj_out"]))
    g = torch.Generator().manual_seed(81)
    for key, value in m.transformer.named_parameters():
        if "lora_" in key:
            value.data = torch.randn(value.shape, generator=g) * 0.2
    # PEFT's alpha and rank are folded in, as diffusers writes no alpha
    layers = {k: v * (1.5 if ".lora_B." in k else 1) for k, v in get_peft_model_state_dict(m.transformer).items()}
    m.transformer.set_adapters(["default"], [strength])
    settings = {"model": name, "latents": L, "steps": steps, "guidance_scale": guidance, "text_length": length, "prompt": PROMPTS[0],
                "negative_prompt": NEGATIVES[0], "width": m.w * m.scale, "height": m.h * m.scale, "lora": f"{name}-adapter.safetensors:{strength}"}
    latents = pipe(prompt=PROMPTS[0], negative_prompt=NEGATIVES[0], height=m.h * m.scale, width=m.w * m.scale, num_frames=4 * L - 3,
                   num_inference_steps=steps, guidance_scale=guidance, max_sequence_length=length, latents=noise_of(m)[None, :, :L],
                   output_type="latent").frames[0]
    write("lora", name, settings, {"latents": latents})
    save_file({f"transformer.{k}": v.contiguous() for k, v in layers.items()}, OUT / "lora" / f"{name}-adapter.safetensors")
    del models[name]


def make_noise():
    for name in MODELS:
        write("noise", name, {"model": name}, {"noise": noise_of(models[name])})


def make_dualparal():
    for name, case in CASES.items():
        settings, latents = run_case(name)
        tensors = {"latents": latents}
        if case[-1]:
            tensors["frames"] = frames_of(case[0], latents)[::4]
        write("dualparal", name, settings, tensors)


GROUPS = {"models": make_models, "text": make_text, "long-text": make_long_text, "dit": make_dit, "passes": make_passes, "vae": make_vae,
          "encode": make_encode, "stream": make_stream, "sampler": make_sampler, "noise": make_noise, "run": make_run, "image": make_image, "lora": make_lora,
          "dualparal": make_dualparal}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for group in sys.argv[1:] or GROUPS:
        GROUPS[group]()
    print(f"fixtures: {sum(f.stat().st_size for f in OUT.rglob('*') if f.is_file()) / 1e6:.2f} MB")
