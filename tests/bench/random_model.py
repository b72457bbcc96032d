#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes a full-size Wan model of random weights, for speed and memory: random_model.py 1.3B|14B|A14B|5B DIR [--text-encoder].

A14B is Wan2.2's pair of 14B transformers, of which the second is the first one again, by hard links: it takes the memory and time of two, but
room for one on the disk. Shapes and names are the published ones; numbers are Gaussian at a scale that keeps activations finite and lets
attention choose: with queries and keys of unit length each token would see the mean of all others, and no error in attention would show. With
a GPU it takes seconds. The tokenizer is the embedded model's: prompts mean nothing here. Needs torch and safetensors.
"""
import argparse
import json
import os
import pathlib
import shutil

import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIT = {"1.3B": dict(num_layers=30, num_attention_heads=12, ffn_dim=8960), "14B": dict(num_layers=40, num_attention_heads=40, ffn_dim=13824)}
DIT["A14B"] = DIT["14B"]
DIT["5B"] = dict(num_layers=30, num_attention_heads=24, ffn_dim=14336)       # Wan2.2-TI2V-5B, with a VAE of its own
BOUNDARY_RATIO = 0.875  # of the published text-to-video A14B
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def normal(*shape, scale=None):
    """Random weights of the shape; by default of unit gain over the input features."""
    fan_in = 1
    for n in shape[1:]:
        fan_in *= n
    scale = scale if scale is not None else fan_in ** -0.5
    return (torch.randn(*shape, device=DEVICE, dtype=torch.float32) * scale).to(torch.bfloat16).cpu()


def linear(out, name, n, k, *window):
    out[f"{name}.weight"] = normal(n, k, *window)
    out[f"{name}.bias"] = normal(n, scale=0.02)


def transformer(size):
    c = 48 if size == "5B" else 16
    config = dict(_class_name="WanTransformer3DModel", patch_size=[1, 2, 2], attention_head_dim=128, in_channels=c, out_channels=c, text_dim=4096,
                  freq_dim=256, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6, rope_max_seq_len=1024, **DIT[size])
    d, f, w = config["num_attention_heads"] * 128, config["ffn_dim"], {}
    linear(w, "patch_embedding", d, c, 1, 2, 2)
    for name, n, k in (("time_embedder.linear_1", d, 256), ("time_embedder.linear_2", d, d), ("time_proj", 6 * d, d),
                       ("text_embedder.linear_1", d, 4096), ("text_embedder.linear_2", d, d)):
        linear(w, f"condition_embedder.{name}", n, k)
    for i in range(config["num_layers"]):
        p = f"blocks.{i}"
        w[f"{p}.scale_shift_table"] = normal(1, 6, d, scale=0.1)
        for a, sharpness in (("attn1", 3), ("attn2", 2)):       # standard deviation of the logits
            for part in ("to_q", "to_k", "to_v", "to_out.0"):
                linear(w, f"{p}.{a}.{part}", d, d)
            for part in ("norm_q", "norm_k"):
                w[f"{p}.{a}.{part}.weight"] = sharpness ** 0.5 * (1 + normal(d, scale=0.1))
        w[f"{p}.norm2.weight"], w[f"{p}.norm2.bias"] = 1 + normal(d, scale=0.1), normal(d, scale=0.1)
        linear(w, f"{p}.ffn.net.0.proj", f, d)
        linear(w, f"{p}.ffn.net.2", d, f)
    w["scale_shift_table"] = normal(1, 2, d, scale=0.1)
    linear(w, "proj_out", 4 * c, d)
    return config, w


def res_block(w, name, ci, co):
    w[f"{name}.norm1.gamma"], w[f"{name}.norm2.gamma"] = 1 + normal(ci, 1, 1, 1, scale=0.1), 1 + normal(co, 1, 1, 1, scale=0.1)
    linear(w, f"{name}.conv1", co, ci, 3, 3, 3)
    linear(w, f"{name}.conv2", co, co, 3, 3, 3)
    if ci != co:
        linear(w, f"{name}.conv_shortcut", co, ci, 1, 1, 1)


def vae(size):
    residual = size == "5B"
    z, base = (48, 256) if residual else (16, 96)
    config = dict(_class_name="AutoencoderKLWan", base_dim=96, z_dim=z, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
                  temperal_downsample=[False, True, True], dropout=0.0, latents_mean=[0.0] * z, latents_std=[1.0] * z)
    if residual:
        config |= dict(base_dim=160, decoder_base_dim=base, is_residual=True, patch_size=2, in_channels=12, out_channels=12,
                       scale_factor_spatial=16, scale_factor_temporal=4)
    w, c = {}, 4 * base
    linear(w, "post_quant_conv", z, z, 1, 1, 1)
    linear(w, "decoder.conv_in", c, z, 3, 3, 3)
    for i in range(2):
        res_block(w, f"decoder.mid_block.resnets.{i}", c, c)
    w["decoder.mid_block.attentions.0.norm.gamma"] = 1 + normal(c, 1, 1, scale=0.1)
    linear(w, "decoder.mid_block.attentions.0.to_qkv", 3 * c, c, 1, 1)
    linear(w, "decoder.mid_block.attentions.0.proj", c, c, 1, 1)
    for i, (co, temporal) in enumerate(((4 * base, True), (4 * base, True), (2 * base, False), (base, None))):
        for j in range(3):
            res_block(w, f"decoder.up_blocks.{i}.resnets.{j}", c if j == 0 else co, co)
        c = co
        if temporal is not None:
            up = f"decoder.up_blocks.{i}.{'upsampler' if residual else 'upsamplers.0'}"
            if temporal:
                linear(w, f"{up}.time_conv", 2 * c, c, 3, 1, 1)
            linear(w, f"{up}.resample.1", c if residual else c // 2, c, 3, 3)
            if not residual:
                c //= 2
    w["decoder.norm_out.gamma"] = 1 + normal(c, 1, 1, 1, scale=0.1)
    linear(w, "decoder.conv_out", config.get("out_channels", 3), c, 3, 3, 3)
    return config, w


def text_encoder(full):
    """UMT5-XXL, or the same with one layer and a small vocabulary where the text does not matter."""
    layers, vocab = (24, 256384) if full else (1, 512)
    config = dict(architectures=["UMT5EncoderModel"], model_type="umt5", d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=layers,
                  vocab_size=vocab, relative_attention_num_buckets=32, relative_attention_max_distance=128, feed_forward_proj="gated-gelu",
                  dense_act_fn="gelu_new", is_gated_act=True, layer_norm_epsilon=1e-6)
    w = {"shared.weight": normal(vocab, 4096, scale=1.0)}
    for i in range(layers):
        p = f"encoder.block.{i}"
        for part in "qkvo":
            w[f"{p}.layer.0.SelfAttention.{part}.weight"] = normal(4096, 4096, scale=4096 ** -0.5 / (4 if part in "qk" else 1))
        w[f"{p}.layer.0.SelfAttention.relative_attention_bias.weight"] = normal(32, 64, scale=0.1)
        for part in ("wi_0", "wi_1"):
            w[f"{p}.layer.1.DenseReluDense.{part}.weight"] = normal(10240, 4096)
        w[f"{p}.layer.1.DenseReluDense.wo.weight"] = normal(4096, 10240)
        for j in range(2):
            w[f"{p}.layer.{j}.layer_norm.weight"] = 1 + normal(4096, scale=0.1)
    w["encoder.final_layer_norm.weight"] = 1 + normal(4096, scale=0.1)
    return config, w


def write(directory, part, stem, config, weights):
    folder = directory / part
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(weights, folder / f"{stem}.safetensors")


def write_index(directory, size):
    index = json.loads((ROOT / "models" / "tiny" / "model_index.json").read_text()) | {"expand_timesteps": size == "5B"}
    if size == "A14B":
        index |= {"transformer_2": index["transformer"], "boundary_ratio": BOUNDARY_RATIO}
        shutil.rmtree(directory / "transformer_2", ignore_errors=True)
        shutil.copytree(directory / "transformer", directory / "transformer_2", copy_function=os.link)
    (directory / "model_index.json").write_text(json.dumps(index, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=DIT)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--text-encoder", action="store_true", help="the full UMT5-XXL, 11 GB")
    args = parser.parse_args()
    torch.manual_seed(0)
    write(args.directory, "transformer", "diffusion_pytorch_model", *transformer(args.size))
    write(args.directory, "vae", "diffusion_pytorch_model", *vae(args.size))
    write(args.directory, "text_encoder", "model", *text_encoder(args.text_encoder))
    tiny = ROOT / "models" / "tiny"
    for part in ("scheduler", "tokenizer"):
        shutil.copytree(tiny / part, args.directory / part, dirs_exist_ok=True)
    write_index(args.directory, args.size)


if __name__ == "__main__":
    main()
