#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes names.txt: what every tensor of a small network is called in Wan's own repositories, and in diffusers and transformers.

    make_names.py WAN2.2 > names.txt       # a clone of https://github.com/Wan-Video/Wan2.2

The original names are those of Wan's modules. Pairs are proved: the module of the other library, with the tensors of Wan's under the paired
names, gives what Wan's gives. GGUF names of the text encoder are the gguf package's. Needs torch, diffusers, transformers, gguf, einops, easydict.
"""
import importlib
import re
import sys
import types

import gguf
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

torch.cuda.current_device = lambda: 0           # a default argument of Wan's asks for it


def wan(name):
    return importlib.import_module(f"wan.modules.{name}")


def transformer(name):
    for old, new in (("self_attn.", "attn1."), ("cross_attn.", "attn2.")):
        name = re.sub(rf"{re.escape(old)}([qkv])\.", rf"{new}to_\1.", name)
        name = name.replace(old + "o.", new + "to_out.0.").replace(old, new)
    for old, new in (("time_embedding.0", "condition_embedder.time_embedder.linear_1"), ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
                     ("text_embedding.0", "condition_embedder.text_embedder.linear_1"), ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
                     ("time_projection.1", "condition_embedder.time_proj"), ("head.head", "proj_out"), ("head.modulation", "scale_shift_table"),
                     (".modulation", ".scale_shift_table"), ("ffn.0", "ffn.net.0.proj"), ("ffn.2", "ffn.net.2"), (".norm3.", ".norm2.")):
        name = name.replace(old, new)
    return name


def vae(name):
    for part in ("encoder", "decoder"):
        for old, new in (("conv1.", "conv_in."), ("head.0.", "norm_out."), ("head.2.", "conv_out."), ("middle.0.", "mid_block.resnets.0."),
                         ("middle.1.", "mid_block.attentions.0."), ("middle.2.", "mid_block.resnets.1.")):
            if name.startswith(f"{part}.{old}"):
                name = f"{part}.{new}" + name[len(part) + 1 + len(old):]
    name = re.sub(r"^conv1\.", "quant_conv.", re.sub(r"^conv2\.", "post_quant_conv.", name))
    for list_, blocks, sampler in (("upsamples", "up_blocks", "upsampler"), ("downsamples", "down_blocks", "downsampler")):
        m = re.match(rf"(\w+)\.{list_}\.(\d+)\.{list_}\.(\d+)\.(.*)", name)
        if m:
            inner = sampler if m[4].startswith(("resample", "time_conv")) else f"resnets.{m[3]}"
            name = f"{m[1]}.{blocks}.{m[2]}.{inner}.{m[4]}"
    m = re.match(r"decoder\.upsamples\.(\d+)\.(.*)", name)
    if m:                                       # three residual blocks and an upsampler a level
        level, at = divmod(int(m[1]), 4)
        name = f"decoder.up_blocks.{level}." + ("upsamplers.0" if at == 3 else f"resnets.{at}") + f".{m[2]}"
    name = name.replace("encoder.downsamples", "encoder.down_blocks")
    for old, new in ((".residual.0.", ".norm1."), (".residual.2.", ".conv1."), (".residual.3.", ".norm2."), (".residual.6.", ".conv2."),
                     (".shortcut.", ".conv_shortcut.")):
        name = name.replace(old, new)
    return name


def text_encoder(name):
    for old, new in (("token_embedding", "shared"), ("blocks.", "encoder.block."), (".norm1.", ".layer.0.layer_norm."),
                     (".norm2.", ".layer.1.layer_norm."), (".pos_embedding.embedding.", ".layer.0.SelfAttention.relative_attention_bias."),
                     (".attn.", ".layer.0.SelfAttention."), (".ffn.gate.0.", ".layer.1.DenseReluDense.wi_0."),
                     (".ffn.fc1.", ".layer.1.DenseReluDense.wi_1."), (".ffn.fc2.", ".layer.1.DenseReluDense.wo.")):
        name = name.replace(old, new)
    return "encoder.final_layer_norm.weight" if name == "norm.weight" else name


def paired(network, rename, original, other, ours, theirs):
    """Prints the pairs, after both modules were run."""
    for p in original.parameters():
        p.data = torch.randn_like(p) * 0.2 + (1 if p.ndim == 1 or "gamma" in network else 0) * 0.1
    tensors = {rename(k): v for k, v in original.state_dict().items()}
    extra = {k: v for k, v in other.state_dict().items() if k not in tensors}
    assert all(k == "encoder.embed_tokens.weight" for k in extra), extra.keys()          # the same as shared.weight
    other.load_state_dict(tensors | {k: tensors["shared.weight"] for k in extra})
    with torch.no_grad():
        a, b = ours(original.eval()), theirs(other.eval())
    error = ((a - b).norm() / a.norm()).item()
    print(f"{network}: {len(tensors)} tensors, {error:.1e}", file=sys.stderr)
    assert error < 1e-4, network
    for k in original.state_dict():
        print(f"{network}\t{k}\t{rename(k)}")


def main():
    sys.path.insert(0, sys.argv[1])
    for name in ("wan", "wan.modules"):         # without what their __init__.py want
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [f"{sys.argv[1]}/{name.replace('.', '/')}"]
    torch.manual_seed(1)
    model = wan("model")
    model.flash_attention = lambda q, k, v, k_lens=None, **more: torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    latents, text, t = torch.randn(1, 4, 2, 4, 4), torch.randn(1, 8, 8), torch.tensor([500.0])
    paired("transformer", transformer,
           model.WanModel(model_type="t2v", dim=32, ffn_dim=24, freq_dim=16, text_dim=8, num_heads=2, num_layers=2, in_dim=4, out_dim=4, text_len=8),
           WanTransformer3DModel(num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=8, freq_dim=16, ffn_dim=24,
                                 num_layers=2),
           lambda m: m([latents[0]], t, [text[0]], 8)[0], lambda m: m(latents, t, text, return_dict=False)[0][0])
    # The VAEs with their published levels and blocks
    plain = dict(z_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[], temperal_downsample=[False, True, True])
    latents = torch.randn(1, 4, 2, 2, 2)
    paired("vae 2.1", vae, wan("vae2_1").WanVAE_(dim=4, **plain), AutoencoderKLWan(base_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, **plain),
           lambda m: m.decode(latents, [0, 1]), lambda m: m.decode(latents, return_dict=False)[0])
    paired("vae 2.2", vae, wan("vae2_2").WanVAE_(dim=4, dec_dim=4, **plain),
           AutoencoderKLWan(base_dim=4, decoder_base_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, is_residual=True, patch_size=2,
                            in_channels=12, out_channels=12, scale_factor_spatial=16, **plain),
           lambda m: m.decode(latents, [0, 1]).clamp(-1, 1), lambda m: m.decode(latents, return_dict=False)[0])
    t5, ids = wan("t5"), torch.tensor([[3, 7, 5, 1]])
    config = UMT5Config(vocab_size=12, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, relative_attention_num_buckets=32)
    paired("text encoder", text_encoder, t5.T5Encoder(torch.nn.Embedding(12, 8), 8, 8, 12, 2, 2, 32, shared_pos=False), UMT5EncoderModel(config),
           lambda m: m(ids), lambda m: m(ids).last_hidden_state)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 2)
    for k in UMT5EncoderModel(config).state_dict():
        short = names.get_name(k, try_suffixes=(".weight",))
        if short and k != "encoder.embed_tokens.weight":
            print(f"text encoder GGUF\t{short}\t{k}")


if __name__ == "__main__":
    main()
