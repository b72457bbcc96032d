# SPDX-License-Identifier: LGPL-2.1-or-later
"""Five small Wan models with random weights, in diffusers layout.

Each is the real architecture, built by diffusers and transformers, at sizes that are awkward on purpose. Weights are drawn so that every
term matters: no norm weight is one, no bias, table or gate is zero. They are rounded to the type they are stored in *before*
the oracle runs, which then computes in float32, as the engine does.

| name | DiT                                  | text        | VAE                                | stored                          |
|------|--------------------------------------|-------------|------------------------------------|---------------------------------|
| odd  | 3 heads x 32, ffn 200, 5 layers      | 48 wide     | base 20, 1 res block               | BF16, norms and tables F32      |
| wide | 2 heads x 64, ffn 72, 3 layers       | 64, inner 60| base 4, 1-2-4-4, 2 res blocks      | F16 and BF16, sharded           |
| deep | 1 head x 44, ffn 70, 6 layers, no    | 36          | decoder base 5, own encoder base,  | F32                             |
|      | cross-attention norm, 6 channels     |             | temporal scales at other levels    |                                 |
| pair | two experts of 1 head x 24, ffn 40,  | 16          | base 3                             | BF16, the second expert sharded |
|      | 4 layers                             |             |                                    |                                 |
| grid | 1 head x 24, ffn 40, 4 layers,       | 16          | residual, patch 2, decoder base 4, | BF16                            |
|      | 12 channels                          |             | 1-2-4-4, 2 res blocks              |                                 |

`pair` is Wan2.2-A14B's arrangement: `transformer` takes the steps from the boundary up, `transformer_2` the others. The boundary is the very
timestep of the third of six steps. `grid` is Wan2.2-TI2V-5B's arrangement: 16x16 pixels a latent, `expand_timesteps`.
"""
import json
import math
import pathlib
import shutil

import torch
from diffusers import (AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler,
                       WanTransformer3DModel)
from safetensors.torch import save_file
from transformers import UMT5Config, UMT5EncoderModel

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16

MODELS = {
    "odd": dict(
        seed=101, latent=(4, 6), flow_shift=3.0, sampler="unipc", order=2, solver="bh2",
        dit=dict(num_attention_heads=3, attention_head_dim=32, ffn_dim=200, num_layers=5, in_channels=16, out_channels=16,
                 text_dim=48, freq_dim=256, cross_attn_norm=True, eps=1e-6),
        text=dict(d_model=48, d_kv=16, num_heads=4, d_ff=72, num_layers=2, relative_attention_num_buckets=32,
                  relative_attention_max_distance=128),
        vae=dict(base_dim=20, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]),
        types=dict(transformer=BF16, text_encoder=F32, vae=BF16), shards=dict(transformer=1, text_encoder=1), keep_encoder=False),
    "wide": dict(
        seed=202, latent=(4, 4), flow_shift=5.0, sampler="unipc", order=2, solver="bh2",
        dit=dict(num_attention_heads=2, attention_head_dim=64, ffn_dim=72, num_layers=3, in_channels=16, out_channels=16,
                 text_dim=64, freq_dim=64, cross_attn_norm=True, eps=1e-6),
        text=dict(d_model=64, d_kv=20, num_heads=3, d_ff=100, num_layers=2, relative_attention_num_buckets=32,
                  relative_attention_max_distance=128),
        vae=dict(base_dim=4, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True]),
        types=dict(transformer=F16, text_encoder=BF16, vae=F16), shards=dict(transformer=3, text_encoder=2), keep_encoder=False),
    "deep": dict(
        seed=303, latent=(2, 4), flow_shift=2.0, sampler="euler", order=2, solver="bh2",
        dit=dict(num_attention_heads=1, attention_head_dim=44, ffn_dim=70, num_layers=6, in_channels=6, out_channels=6,
                 text_dim=36, freq_dim=30, cross_attn_norm=False, eps=1e-5),
        text=dict(d_model=36, d_kv=24, num_heads=2, d_ff=60, num_layers=2, relative_attention_num_buckets=16,
                  relative_attention_max_distance=20),
        vae=dict(base_dim=3, decoder_base_dim=5, z_dim=6, dim_mult=[1, 2, 2, 2], num_res_blocks=1,
                 temperal_downsample=[True, True, False]),
        types=dict(transformer=F32, text_encoder=F16, vae=F32), shards=dict(transformer=2, text_encoder=1), keep_encoder=True),
    "pair": dict(
        seed=404, latent=(2, 4), flow_shift=3.0, sampler="unipc", order=2, solver="bh2", boundary_ratio=0.857,
        dit=dict(num_attention_heads=1, attention_head_dim=24, ffn_dim=40, num_layers=4, in_channels=4, out_channels=4,
                 text_dim=16, freq_dim=32, cross_attn_norm=True, eps=1e-6),
        text=dict(d_model=16, d_kv=8, num_heads=2, d_ff=24, num_layers=1, relative_attention_num_buckets=16,
                  relative_attention_max_distance=20),
        vae=dict(base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]),
        types=dict(transformer=BF16, text_encoder=BF16, vae=BF16), shards=dict(transformer=1, transformer_2=2, text_encoder=1),
        keep_encoder=False),
    "grid": dict(
        seed=505, latent=(2, 4), flow_shift=5.0, sampler="unipc", order=2, solver="bh2", expand_timesteps=True,
        dit=dict(num_attention_heads=1, attention_head_dim=24, ffn_dim=40, num_layers=4, in_channels=12, out_channels=12,
                 text_dim=16, freq_dim=32, cross_attn_norm=True, eps=1e-6),
        text=dict(d_model=16, d_kv=8, num_heads=2, d_ff=24, num_layers=1, relative_attention_num_buckets=16,
                  relative_attention_max_distance=20),
        vae=dict(base_dim=2, decoder_base_dim=4, z_dim=12, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True],
                 is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16),
        types=dict(transformer=BF16, text_encoder=BF16, vae=BF16), shards=dict(transformer=1, text_encoder=1), keep_encoder=True),
}
VOCAB = 192             # rows of the token table: more than the tokenizer's pieces, as in the published models


def randomise(model, generator, gain=1.0):
    """Draws every parameter of `model` in place; matrices keep the variance of their input (times gain^2)."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        leaf = name.rsplit(".", 1)[-1]
        if "norm" in name or leaf == "gamma":
            value = 1 + 0.25 * noise if leaf != "bias" else 0.2 * noise
        elif leaf == "scale_shift_table":
            value = 0.5 * noise
        elif "relative_attention_bias" in name or name.startswith("shared"):
            value = noise
        elif leaf == "bias":
            value = 0.15 * noise
        else:
            value = noise * gain / math.sqrt(p[0].numel())
        p.data.copy_(value)


def stored(model, dtype, only=None):
    """The tensors of the file, {name: tensor}; also rounds the model's own weights to what is stored.

    BF16 files keep norms and tables in float32, as diffusers does on request.
    """
    keep = ("norm", "scale_shift_table") if dtype == BF16 else ()
    tensors = {}
    for name, p in model.named_parameters():
        t = F32 if any(k in name for k in keep) else dtype
        p.data.copy_(p.data.to(t).float())
        if only is None or name.startswith(only):
            tensors[name] = p.data.to(t).contiguous().clone()
    return tensors


def write_tensors(folder, stem, tensors, shards):
    """`tensors` to folder/stem.safetensors, or to `shards` files and their index in the Hugging Face naming."""
    if shards == 1:
        save_file(tensors, folder / f"{stem}.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for i in range(shards):
        part = {n: tensors[n] for n in names[i::shards]}         # scattered: a layer's tensors lie in several files
        file = f"{stem}-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def make_scheduler(name, sampler=None, flow_shift=None):
    """A fresh scheduler of model `name`, optionally of the other kind or with another shift, as the engine's settings allow."""
    m = MODELS[name]
    shift = flow_shift if flow_shift is not None else m["flow_shift"]
    if (sampler or m["sampler"]) == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=shift)
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift,
                                   solver_order=m["order"], solver_type=m["solver"])


class Model:
    """One of MODELS: .transformer, .text_encoder, .vae in float32 with the weights as stored, .h, .w of its fixtures, .scale.

    .transformer_2 and .boundary_ratio are None where there is one transformer.
    """

    def __init__(self, name):
        self.name = name
        m = MODELS[name]
        g = torch.Generator().manual_seed(m["seed"])
        self.h, self.w = m["latent"]
        self.scale = m["vae"].get("scale_factor_spatial", 8)     # pixels of a latent
        z = m["vae"]["z_dim"]

        self.transformer = WanTransformer3DModel(**m["dit"]).eval()
        randomise(self.transformer, g)

        self.text_config = UMT5Config(vocab_size=VOCAB, feed_forward_proj="gated-gelu", dropout_rate=0.0, num_decoder_layers=1,
                                      is_encoder_decoder=False, use_cache=False, **m["text"])
        self.text_encoder = UMT5EncoderModel(self.text_config).eval()
        randomise(self.text_encoder, g)
        for block in self.text_encoder.encoder.block:            # there is no 1/sqrt(d_kv) in this attention
            block.layer[0].SelfAttention.q.weight.data *= m["text"]["d_kv"] ** -0.5

        mean = torch.randn(z, generator=g) * 0.4
        std = torch.rand(z, generator=g) * 1.5 + 0.8
        self.vae = AutoencoderKLWan(latents_mean=mean.tolist(), latents_std=std.tolist(), **m["vae"]).eval()
        randomise(self.vae, g, gain=1.2)
        self.vae.decoder.conv_out.weight.data *= 0.3             # pictures mostly within -1..1

        self.boundary_ratio = m.get("boundary_ratio")
        self.transformer_2 = None
        if self.boundary_ratio is not None:
            self.transformer_2 = WanTransformer3DModel(**m["dit"]).eval()
            randomise(self.transformer_2, g)

        t = m["types"]
        self.tensors = {
            "transformer": stored(self.transformer, t["transformer"]),
            "text_encoder": stored(self.text_encoder, t["text_encoder"]),
            "vae": stored(self.vae, t["vae"], None if m["keep_encoder"] else ("decoder.", "post_quant_conv.")),
        }
        self.transformers = {"transformer": self.transformer}
        if self.transformer_2 is not None:
            self.transformers["transformer_2"] = self.transformer_2
            self.tensors["transformer_2"] = stored(self.transformer_2, t["transformer"])

    def save(self, folder, tokenizer):
        """Writes the model directory; `tokenizer` is the folder whose files are copied into it."""
        m = MODELS[self.name]
        folder = pathlib.Path(folder)
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("scheduler", "text_encoder", "vae", *self.transformers):
            (folder / part).mkdir(parents=True)
        shutil.copytree(tokenizer, folder / "tokenizer")
        scheduler = make_scheduler(self.name)
        scheduler.save_config(folder / "scheduler")
        for part, transformer in self.transformers.items():
            transformer.save_config(folder / part)
            write_tensors(folder / part, "diffusion_pytorch_model", self.tensors[part], m["shards"][part])
        self.vae.save_config(folder / "vae")
        self.text_config.architectures = ["UMT5EncoderModel"]
        self.text_config.save_pretrained(folder / "text_encoder")
        write_tensors(folder / "text_encoder", "model", self.tensors["text_encoder"], m["shards"]["text_encoder"])
        write_tensors(folder / "vae", "diffusion_pytorch_model", self.tensors["vae"], 1)
        (folder / "model_index.json").write_text(json.dumps({
            "_class_name": "WanPipeline",
            "_diffusers_version": "0.35.0",
            "boundary_ratio": self.boundary_ratio,
            "expand_timesteps": m.get("expand_timesteps", False),
            "scheduler": ["diffusers", type(scheduler).__name__],
            "text_encoder": ["transformers", "UMT5EncoderModel"],
            "tokenizer": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "WanTransformer3DModel"],
            "transformer_2": [None, None] if self.transformer_2 is None else ["diffusers", "WanTransformer3DModel"],
            "vae": ["diffusers", "AutoencoderKLWan"],
        }, indent=2) + "\n")
        self.check(folder)

    def check(self, folder):
        """What was written is what diffusers and transformers read."""
        for part, transformer in self.transformers.items():
            again = WanTransformer3DModel.from_pretrained(folder / part, torch_dtype=F32)
            for name, p in transformer.state_dict().items():
                assert torch.equal(p, again.state_dict()[name]), name
        again = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=F32)
        for name, p in self.text_encoder.state_dict().items():
            assert torch.equal(p, again.state_dict()[name]), name
