# SPDX-License-Identifier: LGPL-2.1-or-later
"""The peer: diffusers' and transformers' own modules with the weights of a model directory, straight onto a device."""
import json
import pathlib

import torch
from safetensors.torch import load_file


def load_transformer(directory, dtype, device):
    """As a user loads it: what diffusers keeps in float32 stays so."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    return WanTransformer3DModel.from_pretrained(directory, subfolder="transformer", torch_dtype=dtype, device_map={"": str(device)}).eval()


def load_vae(directory, dtype, device):
    """The decoder alone: the files of a model for making video need not have the encoder."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    folder = pathlib.Path(directory) / "vae"
    with torch.device("meta"):
        vae = AutoencoderKLWan.from_config(json.loads((folder / "config.json").read_text()))
    vae.encoder = vae.quant_conv = None
    weights = load_file(folder / "diffusion_pytorch_model.safetensors", device=str(device))
    vae.load_state_dict({name: w.to(dtype) for name, w in weights.items() if name.startswith(("decoder.", "post_quant_conv."))}, assign=True)
    return vae.eval()


def load_text_encoder(directory, dtype, device):
    from transformers.models.umt5.modeling_umt5 import UMT5EncoderModel
    return UMT5EncoderModel.from_pretrained(directory, subfolder="text_encoder", dtype=dtype, device_map={"": str(device)}).eval()
