# SPDX-License-Identifier: LGPL-2.1-or-later
"""What training has made so far, and the processes that make it."""
import base64
import json
import os
import random

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

import captions
import models

STAGES = ["vae", "dit", "distil", "decoder"]
PLAN = {"full": [220, 2220, 350, 70], "smoke": [6, 8, 6, 4]}
SETTINGS = {
    "full": dict(crops=16, clips=4, windows=64, pool=3072, most=12288, fresh=32, every=16, stats=96, warm=100, prompts=13, latents=24, group=32),
    "smoke": dict(crops=1, clips=1, windows=1, pool=2, most=3, fresh=1, every=4, stats=2, warm=2, prompts=1, latents=8, group=1),
}
SHARED = ("crops", "clips", "windows", "pool", "most", "fresh")       # what the processes of a team divide
GUIDANCE = 2.0          # with 3, things grow from block to block: README.md


class Team:
    """The processes that train together, one a GPU: `rank` of `size`. They hold the same weights, draw other clips, and add up their gradients."""

    def __init__(self, rank=0, size=1, meeting=None):
        self.rank, self.size = rank, size
        if size > 1:
            cuda = torch.cuda.is_available()
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size,
                                    device_id=torch.device("cuda", rank) if cuda else None)

    def mean(self, tensor):
        """Of everybody's, for all."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size

    def agree(self, *values):
        """The first one's numbers, for all; it is waited for."""
        if self.size > 1:
            said = torch.tensor(values, dtype=torch.float64)
            dist.broadcast(said, 0)
            values = said.tolist()
        return values

    def seed(self, state, stage, offset=0):
        """Of everybody's own: what is drawn from it, and from PyTorch's generator, differs. Returns also a generator of numbers that do not."""
        common = state.data["seed"] * 1000003 + offset + state.data["steps"][stage]
        torch.manual_seed(common + 7919 * self.rank)
        return random.Random(common + 7919 * self.rank), random.Random(common)


class State:
    """DIR: state.json, vae.safetensors, model.safetensors and student.safetensors (transformer and text encoder), all bfloat16, log.jsonl, pictures."""

    def __init__(self, directory, size="full", seed=1, team=Team()):
        self.dir, self.path, self.team = directory, os.path.join(directory, "state.json"), team
        if os.path.exists(self.path):
            self.data = json.load(open(self.path))
        else:
            os.makedirs(directory, exist_ok=True)
            self.data = {"size": size, "seed": seed, "seconds": [0.0] * len(STAGES), "steps": [0] * len(STAGES), "plan": PLAN[size],
                         "tokenizer": base64.b64encode(captions.train_tokenizer()).decode()}
        self.size = self.data["size"]

    def start(self, vae, model, tokenizer):
        """Begins with the weights of a trained model, as what the first two stages have made."""
        self.data["tokenizer"] = base64.b64encode(tokenizer).decode()
        self.put_vae(vae)
        self.put("model", model)

    def settings(self):
        """SETTINGS, batches being this process's share."""
        return {k: max(1, v // self.team.size) if k in SHARED else v for k, v in SETTINGS[self.size].items()}

    def tokenizer(self):
        return base64.b64decode(self.data["tokenizer"])

    def stage(self):
        return next((i for i in range(len(STAGES)) if self.data["seconds"][i] < self.data["plan"][i]), None)

    def guidance(self):
        return 1.0 if self.has("student") else GUIDANCE

    def file(self, name):
        return os.path.join(self.dir, name)

    def has(self, name):
        return os.path.exists(self.file(name + ".safetensors"))

    def networks(self, device, name=None):
        """VAE, transformer and text encoder as they are; `name` model or student, the latter where there is one."""
        torch.manual_seed(self.data["seed"])
        vae, dit, text = models.build(self.size, captions.VOCAB)
        name = name or ("student" if self.has("student") else "model")
        if self.has("vae"):
            vae.load_state_dict({k: v.float() for k, v in load_file(self.file("vae.safetensors")).items()})
        if self.has(name):
            tensors = load_file(self.file(name + ".safetensors"))
            for prefix, m in (("dit.", dit), ("text.", text)):
                m.load_state_dict({k[len(prefix) :]: v.float() for k, v in tensors.items() if k.startswith(prefix)})
        return vae.to(device), dit.to(device), text.to(device)

    def put(self, name, tensors):
        if self.team.rank:
            return
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, self.file(name + ".tmp"))
        os.replace(self.file(name + ".tmp"), self.file(name + ".safetensors"))

    def put_vae(self, vae):
        self.put("vae", {k: v.to(torch.float32 if k in ("mean", "std") else torch.bfloat16) for k, v in vae.state_dict().items()})

    def save(self):
        if self.team.rank:
            return
        with open(self.path + ".tmp", "w") as f:
            json.dump(self.data, f)
        os.replace(self.path + ".tmp", self.path)

    def log(self, **entry):
        if self.team.rank:
            return
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in entry.items()})
        print(line, flush=True)
        with open(self.file("log.jsonl"), "a") as f:
            f.write(line + "\n")
