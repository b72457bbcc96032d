# SPDX-License-Identifier: LGPL-2.1-or-later
"""A trained state as a model directory in diffusers layout, bfloat16, and back: `export.py STATE DIR`."""
import base64
import json
import os
import sys

import sentencepiece
import torch
from safetensors.torch import load_file, save_file

import captions
import models
from state import State

PARTS = ("vae", "diffusion_pytorch_model"), ("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")
SHIFT = 5.0         # of the levels of noise, in training as in play: more of them where things find their places
SCHEDULER = {
    "_class_name": "UniPCMultistepScheduler", "_diffusers_version": "0.35.0", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
    "disable_corrector": [], "dynamic_thresholding_ratio": 0.995, "final_sigmas_type": "zero", "flow_shift": SHIFT, "lower_order_final": True,
    "num_train_timesteps": 1000, "predict_x0": True, "prediction_type": "flow_prediction", "rescale_betas_zero_snr": False, "sample_max_value": 1.0,
    "solver_order": 2, "solver_p": None, "solver_type": "bh2", "steps_offset": 0, "thresholding": False, "timestep_spacing": "linspace", "trained_betas": None,
    "use_beta_sigmas": False, "use_exponential_sigmas": False, "use_flow_sigmas": True, "use_karras_sigmas": False,
}
INDEX = {
    "_class_name": "WanPipeline", "_diffusers_version": "0.35.0", "boundary_ratio": None, "expand_timesteps": False,
    "scheduler": ["diffusers", "UniPCMultistepScheduler"], "text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"], "transformer_2": [None, None], "vae": ["diffusers", "AutoencoderKLWan"],
}


def settings(guidance):
    """Eight steps, or the five that play in real time with guidance, which is twice the work."""
    return {
        "name": "tiny", "prompt": "a red ball bouncing over a green meadow", "negative_prompt": "", "width": 256, "height": 144, "trained_sizes": [[256, 144]], "framerate": [16, 1],
        "steps": 8 if guidance == 1 else 5, "guidance_scale": guidance, "block_latents": 4, "context_latents": 4, "queue_blocks": 3, "sampler": "unipc",
        "words": captions.words(), "knows": captions.KNOWS,
    }


def configs(size, vocab, vae):
    s = models.SIZES[size]
    v, d, t = s["vae"], s["dit"], s["text"]
    return {
        "vae": {
            "_class_name": "AutoencoderKLWan", "_diffusers_version": "0.35.0", "attn_scales": [], "base_dim": v["base"], "decoder_base_dim": v["dec"],
            "dim_mult": v["mult"], "dropout": 0.0, "latents_mean": vae.mean.tolist(), "latents_std": vae.std.tolist(), "num_res_blocks": 1,
            "temperal_downsample": [False, True, True], "z_dim": models.Z,
        },
        "transformer": {
            "_class_name": "WanTransformer3DModel", "_diffusers_version": "0.35.0", "added_kv_proj_dim": None, "attention_head_dim": d["head"], "cross_attn_norm": True,
            "eps": 1e-6, "ffn_dim": d["ffn"], "freq_dim": 256, "image_dim": None, "in_channels": models.Z, "num_attention_heads": d["heads"],
            "num_layers": d["layers"], "out_channels": models.Z, "patch_size": [1, 2, 2], "pos_embed_seq_len": None, "qk_norm": "rms_norm_across_heads",
            "rope_max_seq_len": 1024, "text_dim": t["d"],
        },
        "text_encoder": {
            "architectures": ["UMT5EncoderModel"], "classifier_dropout": 0.0, "d_ff": t["ff"], "d_kv": t["kv"], "d_model": t["d"], "decoder_start_token_id": 0,
            "dense_act_fn": "gelu_new", "dropout_rate": 0.0, "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0,
            "is_encoder_decoder": False, "is_gated_act": True, "layer_norm_epsilon": 1e-6, "model_type": "umt5", "num_decoder_layers": t["layers"],
            "num_heads": t["heads"], "num_layers": t["layers"], "pad_token_id": 0, "relative_attention_max_distance": 128,
            "relative_attention_num_buckets": 32, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": False, "vocab_size": vocab,
        },
    }


def tokenizer_json(model):
    """What the tokenizers library has to do to split texts as SentencePiece does with spiece.model."""
    spm = sentencepiece.SentencePieceProcessor(model_proto=model)
    special = [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, c in enumerate(("<pad>", "</s>", "<unk>"))]
    space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, 
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(captions.character_map(model)).decode()},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
        "post_processor": {
            "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}},
                     {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": space, "model": {"type": "Unigram", "unk_id": 2, "vocab": [[spm.id_to_piece(i), spm.get_score(i)] for i in range(spm.get_piece_size())], "byte_fallback": False},
    }


def write(directory, size, vae, dit, text, tokenizer, guidance):
    def put(path, value):
        os.makedirs(os.path.dirname(os.path.join(directory, path)), exist_ok=True)
        with open(os.path.join(directory, path), "w") as f:
            json.dump(value, f, indent=2)
            f.write("\n")

    cfg = configs(size, text.shared.weight.shape[0], vae)
    put("model_index.json", INDEX)
    put("dualparal.json", settings(guidance))
    put("scheduler/scheduler_config.json", SCHEDULER)
    for (part, name), module in zip(PARTS, (vae, dit, text)):
        put(f"{part}/config.json", cfg[part])
        tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in module.state_dict().items() if k not in ("mean", "std")}
        bad = [k for k, v in tensors.items() if not v.isfinite().all()]
        if bad:
            sys.exit(f"{part}: {bad[0]} is not finite")
        path = os.path.join(directory, part, name + ".safetensors")
        save_file(tensors, path, metadata={"format": "pt"})
        os.chmod(path, 0o644)
    put("tokenizer/tokenizer.json", tokenizer_json(tokenizer))
    put("tokenizer/tokenizer_config.json", {"eos_token": "</s>", "extra_ids": 0, "legacy": False, "model_max_length": 512, "pad_token": "<pad>",
                                            "tokenizer_class": "T5Tokenizer", "unk_token": "<unk>"})
    put("tokenizer/special_tokens_map.json", {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"})
    with open(os.path.join(directory, "tokenizer", "spiece.model"), "wb") as f:
        f.write(tokenizer)


def read(directory, size="full"):
    """What write() has written: VAE, transformer and text encoder in float32, and the tokenizer."""
    networks = models.build(size, captions.VOCAB)
    for (part, name), module in zip(PARTS, networks):
        tensors = {k: v.float() for k, v in load_file(os.path.join(directory, part, name + ".safetensors")).items()}
        missing, unknown = module.load_state_dict(tensors, strict=False)
        if unknown or set(missing) - {"mean", "std"}:
            sys.exit(f"{directory}/{part}: not this recipe's network: {unknown or missing}")
    with open(os.path.join(directory, "vae", "config.json")) as f:
        config = json.load(f)
    networks[0].mean.copy_(torch.tensor(config["latents_mean"]))
    networks[0].std.copy_(torch.tensor(config["latents_std"]))
    with open(os.path.join(directory, "tokenizer", "spiece.model"), "rb") as f:
        return *networks, f.read()


if __name__ == "__main__":
    state, directory = sys.argv[1:]
    s = State(state)
    write(directory, s.size, *s.networks("cpu"), s.tokenizer(), s.guidance())
