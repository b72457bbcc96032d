# SPDX-License-Identifier: LGPL-2.1-or-later
"""Trains the embedded model from nothing: `train.py --out DIR [--minutes N]`. README.md beside this tells the whole story.

Four stages: vae, dit (transformer and text encoder together), distil (guidance into the weights), decoder (the VAE's, alone). Each has a number of seconds; its learning rates follow
how much of that is over. A call does what fits into its minutes, from where the state in DIR is, and writes the state back. At a stage's beginning in a
call the optimisers start anew from the averaged weights; that costs a few dozen steps and keeps the state small.
"""
import argparse
import base64
import json
import math
import os
import random
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import captions
import export
import models
import sample
import sheet
import world

STAGES = ["vae", "dit", "distil", "decoder"]
PLAN = {"full": [330, 1560, 300, 150], "smoke": [6, 8, 6, 4]}
SETTINGS = {
    "full": dict(crops=16, clips=4, windows=64, pool=3072, most=12288, fresh=32, every=16, stats=96, warm=100, prompts=13, latents=24, group=32),
    "smoke": dict(crops=1, clips=1, windows=1, pool=2, most=3, fresh=1, every=4, stats=2, warm=2, prompts=1, latents=8, group=1),
}
GUIDANCE = 3.0
# (steps, lag) that windows are drawn from; the embedded defaults are 6 and 2
SCHEDULES = [(6, 2)] * 8 + [(6, 1)] * 4 + [(6, 3)] * 2 + [(4, 1), (4, 1), (4, 2), (5, 1), (5, 2), (8, 1), (8, 1), (8, 2), (8, 3), (8, 4), (10, 1), (10, 2), (12, 1),
                                                          (12, 2), (12, 4), (16, 1), (16, 4), (20, 1), (20, 2), (20, 5), (25, 1), (25, 5)]
OBJECT = 3.0            # how much more a cell with a subject counts
BLOCK = 4               # latent frames of a block; a window is four of them
CHANGE = 0.12           # share of windows in which the prompt changes from one block to the next


class State:
    """DIR: state.json, vae.safetensors, model.safetensors and student.safetensors (transformer and text encoder), all bfloat16, log.jsonl, pictures."""

    def __init__(self, directory, size="full", seed=1):
        self.dir, self.path = directory, os.path.join(directory, "state.json")
        if os.path.exists(self.path):
            self.data = json.load(open(self.path))
        else:
            os.makedirs(directory, exist_ok=True)
            self.data = {"size": size, "seed": seed, "seconds": [0.0] * len(STAGES), "steps": [0] * len(STAGES), "plan": PLAN[size],
                         "tokenizer": base64.b64encode(captions.train_tokenizer()).decode()}
        self.size = self.data["size"]

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
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, self.file(name + ".tmp"))
        os.replace(self.file(name + ".tmp"), self.file(name + ".safetensors"))

    def save(self):
        with open(self.path + ".tmp", "w") as f:
            json.dump(self.data, f)
        os.replace(self.path + ".tmp", self.path)

    def log(self, **entry):
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in entry.items()})
        print(line, flush=True)
        with open(self.file("log.jsonl"), "a") as f:
            f.write(line + "\n")


class Run:
    """One stage within one call: the clock, the rates, the optimisers, the average."""

    def __init__(self, state, index, device, deadline, named, matrix, muon, adam, decay, hold):
        self.s, self.i, self.dev, self.deadline, self.hold, self.rates = state, index, device, deadline, hold, (muon, adam)
        self.set = SETTINGS[state.size]
        params = [p for _, p in named]
        big = [p for n, p in named if matrix(n, p)]
        ids = {id(p) for p in big}
        self.params, self.muon = params, models.Muon(big)
        self.adam = torch.optim.AdamW([p for p in params if id(p) not in ids], lr=adam, betas=(0.9, 0.95), weight_decay=0.0, fused=device == "cuda")
        self.average, self.step, self.sums = models.Average(params, decay), 0, {}
        self.seconds, self.plan = state.data["seconds"][index], state.data["plan"][index]
        self.said = self.last = time.time()

    def part(self):
        return min(1.0, self.seconds / self.plan)

    def goes_on(self):
        now = time.time()
        self.seconds += min(now - self.last, 2.0)       # a step that took longer was compiling
        self.last = now
        return self.part() < 1 and now < self.deadline

    def learn(self, loss, decay, /, **sums):
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        part = self.part()
        rate = min(1.0, (self.step + 1) / self.set["warm"]) * (1 if part < self.hold else max(0.01, (1 - part) / (1 - self.hold)))
        for g in self.adam.param_groups:
            g["lr"] = self.rates[1] * rate
        self.adam.step()
        self.muon.step(self.rates[0] * rate, decay)
        for p in self.params:
            p.grad = None
        self.average.update()
        self.step += 1
        for k, v in {**sums, "norm": norm}.items():
            total, n = self.sums.get(k, (0.0, 0))
            self.sums[k] = total + v.detach(), n + 1
        if time.time() - self.said > 20 or self.step in (1, 20):
            self.say(rate)

    def say(self, rate):
        means = {k: (v / n).item() for k, (v, n) in self.sums.items()}
        self.s.log(stage=STAGES[self.i], step=self.s.data["steps"][self.i] + self.step, seconds=self.seconds, rate=rate, **means)
        if not all(math.isfinite(v) for v in means.values()):
            sys.exit("a loss is not finite; the state in the directory is that of before this call")
        self.sums, self.said = {}, time.time()

    def end(self):
        """To be called with the weights still the raw ones: makes them the averaged ones."""
        self.s.data["seconds"][self.i] = self.seconds
        self.s.data["steps"][self.i] += self.step
        self.average.swap()


def signed(x):
    return x[..., :3].float() / 127.5 - 1


# ---- stages 1 and 4: the VAE, and its decoder alone ----


def vae_matrix(name, p):
    return p.dim() >= 4 and p.shape[0] >= 8 and p[0].numel() >= 16


def whole_pictures(rng, settings, device):
    return world.crowds(rng, settings["clips"], 17, rng.choice([1, 1, 2]), device)


def with_noise(mean, var):
    """What a transformer makes is never exact: the decoder has to live with noise. The variance with that of the noise added."""
    strength = (torch.randn(mean.shape[0], 1, 1, 1, 1, device=mean.device).abs() * 0.15).clamp_max(0.5)
    return var + (strength * mean.detach().std((0, 1, 2, 3))).pow(2)


def decoder_loss(vae, mean, var, clip, dtype):
    """(loss, mean square error) of what becomes of latents, for the clip they were made of; subjects count twice."""
    weight, x = 1 + (clip[..., 3:] > 0).float(), signed(clip)
    e = vae.decode((mean + var.sqrt() * torch.randn_like(mean)).to(dtype)) - x
    edges = (e[:, :, 1:] - e[:, :, :-1]).abs().mean() + (e[:, :, :, 1:] - e[:, :, :, :-1]).abs().mean()
    square = e.pow(2).mean()
    return (e.abs() * weight).mean() + 0.5 * edges + 0.25 * (e[:, 1:] - e[:, :-1]).abs().mean() + square, square


@torch.no_grad()
def vae_end(state, stage, vae, settings, device, dtype):
    """After the first stage the statistics of latents, without the first of a clip; the quality, a picture, and the weights are kept."""
    rng, latents, squares, rows = random.Random(77), [], {}, []
    for i in range(settings["stats"]):
        x, scenes = world.clips(rng, 2, 33 if device == "cuda" else 5, device)
        x = signed(x)
        mean, _ = vae.encode(x.to(dtype))
        latents.append(mean[:, 1:].reshape(-1, models.Z))
        y = vae.decode(mean.to(dtype)).clamp(-1, 1)
        for v, w, scene in zip(x, y, scenes):
            squares.setdefault(scene["background"], []).append(((v - w) / 2).pow(2).mean().item())
        if i < 8:
            rows.append([((v[0, -1] + 1) * 127.5).round().to(torch.uint8).cpu().numpy() for v in (x, y)])
    latents = torch.cat(latents)
    if stage == 0:
        vae.mean.copy_(latents.mean(0))
        vae.std.copy_(latents.std(0))
    db = lambda v: -10 * math.log10(sum(v) / len(v))
    state.log(stage=STAGES[stage], step=state.data["steps"][stage], psnr=db(sum(squares.values(), [])), **{f"psnr_{k}": db(v) for k, v in sorted(squares.items())})
    sheet.write_sheet(state.file(f"{STAGES[stage]}.png"), [sum(rows[i : i + 2], []) for i in range(0, len(rows) - 1, 2)])
    state.put("vae", {k: v.to(torch.float32 if k in ("mean", "std") else torch.bfloat16) for k, v in vae.state_dict().items()})


def train_vae(state, device, deadline):
    rng, dtype = random.Random(state.data["seed"] * 1000 + state.data["steps"][0]), models.kind(device)
    vae = state.networks(device)[0]
    run = Run(state, 0, device, deadline, list(vae.named_parameters()), vae_matrix, 5e-3, 2e-3, 0.997, 0.35)
    while run.goes_on():
        if run.part() < 0.7:        # crops with many edges, then whole pictures
            x = world.crowds(rng, run.set["crops"], 9, rng.choice([1, 2, 4, 4]), device)
            top, left = rng.randrange(17), rng.randrange(129)
            x = x[:, :, top : top + 128, left : left + 128]
        else:
            x = whole_pictures(rng, run.set, device)
        mean, logvar = vae.encode(signed(x).to(dtype))
        var = logvar.exp()
        loss, square = decoder_loss(vae, mean, with_noise(mean, var) if run.part() > 0.5 else var, x, dtype)
        kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        loss = loss + 3e-5 * kl
        run.learn(loss, 0.01, loss=loss, square=square, kl=kl)
    run.end()
    vae_end(state, 0, vae, run.set, device, dtype)


def train_decoder(state, device, deadline):
    """Sharper pictures of the same latents, so that the transformer may stay as it is."""
    rng, dtype = random.Random(state.data["seed"] * 1000 + 500 + state.data["steps"][3]), models.kind(device)
    vae = state.networks(device)[0]
    named = [(n, p) for n, p in vae.named_parameters() if n.startswith(("decoder.", "post_quant_conv."))]
    run = Run(state, 3, device, deadline, named, vae_matrix, 3e-3, 1e-3, 0.998, 0.3)
    while run.goes_on():
        x = whole_pictures(rng, run.set, device)
        with torch.no_grad():
            mean, logvar = vae.encode(signed(x).to(dtype))
        loss, square = decoder_loss(vae, mean, with_noise(mean, logvar.exp()), x, dtype)
        run.learn(loss, 0.01, loss=loss, square=square)
    run.end()
    vae_end(state, 3, vae, run.set, device, dtype)


# ---- stages 2 and 3 ----


class Pool:
    """Clips as normalised latents: 17 latent frames each, the first of them of the special kind that stands for one frame. Grows, then is renewed."""

    FRAMES = 65

    def __init__(self, vae, tokenizer, rng, device, settings):
        self.vae, self.tok, self.rng, self.dev, self.set = vae, captions.Tokenizer(tokenizer), rng, device, settings
        most = settings["most"]
        self.z = torch.empty(most, 17, 18, 32, models.Z, dtype=models.kind(device), device=device)
        self.ids = torch.zeros(most, captions.TEXT, dtype=torch.long, device=device)
        self.cover = torch.empty(most, 17, 18, 32, dtype=torch.uint8, device=device)
        self.n, self.at = 0, 0
        while self.n < settings["pool"]:
            self.add(min(settings["group"], settings["pool"] - self.n))
        self.empty = torch.tensor(self.tok.ids([""])[0], device=device)

    @torch.no_grad()
    def add(self, count):
        x, scenes = world.clips(self.rng, count, self.FRAMES, self.dev)
        mean, _ = self.vae.encode(signed(x).to(self.z.dtype))
        cover = F.max_pool2d((x[..., 3] > 0).flatten(0, 1)[:, None].float(), 8).view(count, self.FRAMES, 18, 32)
        cover = torch.cat((cover[:, :1], cover[:, 1:].view(count, 16, 4, 18, 32).amax(2)), 1)
        count = min(count, self.set["most"] - self.at)
        to = slice(self.at, self.at + count)
        self.z[to] = ((mean - self.vae.mean) / self.vae.std).to(self.z.dtype)[:count]
        self.cover[to] = F.max_pool2d(cover, 3, 1, 1).to(torch.uint8)[:count]
        self.ids[to] = torch.tensor(self.tok.ids([captions.caption(self.rng, s) for s in scenes])[:count], device=self.dev)
        self.n, self.at = max(self.n, self.at + count), (self.at + count) % self.set["most"]

    def take(self, clip, first, count):
        """`count` latent frames of each clip from `first` on (below 0: the first one again, which nobody looks at), and what each of their cells counts."""
        at = (first[:, None] + torch.arange(count, device=self.dev)).clamp_min(0)
        return self.z[clip[:, None], at].float(), 1 + OBJECT * self.cover[clip[:, None], at].float()

    def texts(self, clip):
        drop = torch.rand(len(clip), device=self.dev) < 0.1
        return torch.where(drop[:, None], self.empty, self.ids[clip])


def noise(n, first, context, device):
    """Noise of a window as DualParal's pool hands it out: the same latents again and again, in new orders. A quarter of the windows has fresh noise."""
    shape, clip = (18, 32, models.Z), torch.arange(n, device=device)[:, None]
    pools = [torch.randn(n, BLOCK + context, *shape, device=device)]
    for _ in range(3):
        p, order = pools[-1], torch.rand(n, BLOCK, device=device).argsort(1)
        pools.append(torch.cat((p[:, BLOCK:], p[clip, order]), 1))
    inside = torch.cat([p[:, -BLOCK:] for p in pools], 1)
    start = torch.cat((torch.randn(n, BLOCK - context, *shape, device=device), pools[0], pools[1][:, -BLOCK:], pools[2][:, -BLOCK:]), 1)
    choose = lambda mask, a, b: torch.where(mask.view(-1, 1, 1, 1, 1), a, b)
    return choose(torch.rand(n, device=device) < 0.25, torch.randn_like(start), choose(first, start, inside))    # block 0 of a stream owns its whole pool


class Batch:
    """Windows of four blocks b-1, b, b+1, b+2 of a queue, and the passes of the last `passes` of b, b+1, b+2, tail first.

    Blocks stand `lag` steps apart; the last one is the tail in half of the windows (it has done fewer than `lag` steps), else one that is followed by nothing, as at
    the end of a video. Where a window is a stream's beginning, b is block 0: it owns the context in front of it too, and what its first
    latent frame is, is always the special first one of a clip. Otherwise no pass has a first latent frame of its own at its front.

    Where the prompt changes, the first block with the new one is a dissolve from clip to clip.
    """

    def __init__(self, pool, n, context, passes, share, device):
        self.c, self.passes = context, range(passes, 0, -1)
        clip = torch.randint(pool.n, (n,), device=device)
        first = torch.rand(n, device=device) < share
        z, weight = pool.take(clip, torch.where(first, context - BLOCK, torch.ones_like(clip)), 4 * BLOCK)
        other = torch.randint(pool.n, (n,), device=device)
        z2, weight2 = pool.take(other, torch.ones_like(clip), 4 * BLOCK)
        change = torch.where(torch.rand(n, device=device) < CHANGE, torch.randint(1, 4, (n,), device=device), 4)
        self.change = torch.where(first & (change == 1), 4, change)
        mix = ((torch.arange(4 * BLOCK, device=device) - BLOCK * self.change[:, None] + 1) / (BLOCK + 1)).clamp(0, 1).view(n, -1, 1, 1)
        z, self.weight = torch.lerp(z, z2, mix[..., None]), torch.where(mix > 0, torch.maximum(weight, weight2), weight)
        eps = noise(n, first, context, device)
        self.ids, self.want, self.first = torch.cat((pool.texts(clip), pool.texts(other))), eps - z, first
        pick = torch.tensor(SCHEDULES, device=device)[torch.randint(len(SCHEDULES), (n,), device=device)]
        steps, lag = pick[:, 0], pick[:, 1]
        room = torch.where(torch.rand(n, device=device) < 0.5, lag, (steps - (passes - 1) * lag).clamp_min(1))
        done = (torch.rand(n, device=device) * room).long()
        at = [done + (passes - k) * lag for k in range(4)]
        at[0] = torch.where(first, at[1], at[0])
        self.valid = [(a < steps).float() for a in at]
        self.level = [sample.sigma(a, steps).float() for a in at]
        lv = [s.view(n, 1, 1, 1, 1) for s in self.level]
        self.x = [(1 - lv[k]) * z[:, BLOCK * k : BLOCK * (k + 1)] + lv[k] * eps[:, BLOCK * k : BLOCK * (k + 1)] for k in range(4)]

    def text(self, k, rows):
        """Of the rows of all `ids`, those of block b - 1 + k."""
        old, new = rows.chunk(2)
        return torch.where((self.change <= k).view(-1, 1, 1), new, old)

    def inputs(self, k):
        return torch.cat((self.x[k - 1][:, BLOCK - self.c :], self.x[k]), 1), 1000 * self.level[k]

    def loss(self, k, v, want=None):
        span = slice(BLOCK * k - self.c, BLOCK * (k + 1))
        e = (v - (self.want[:, span] if want is None else want)).pow(2).mean(-1) * self.weight[:, span]
        e = e.mean((2, 3))
        own = torch.ones_like(e)
        own[:, : self.c] = self.first[:, None].float() if k == 1 else 0.0
        own = own * self.valid[k][:, None]
        return (e * own).sum() / own.sum().clamp_min(1)


def draw(pool, rng, n, device):
    p = rng.random()
    context = 4 if rng.random() < 0.85 else 2
    if p < 0.78:
        return Batch(pool, n, context, 3, 0.3, device)
    return Batch(pool, n, context, 2, 0.5, device) if p < 0.89 else Batch(pool, n, context, 1, 0.6, device)


def uniform(pool, dit, text, n, device):
    """A whole clip at one level of noise, as WanPipeline has it: 12 latent frames from the first one on."""
    clip = torch.randint(pool.n, (n,), device=device)
    z, weight = pool.take(clip, torch.zeros_like(clip), 12)
    eps, s = torch.randn_like(z), sample.sigma(torch.rand(n, device=device), 1.0).view(-1, 1, 1, 1, 1)
    v, _ = dit((1 - s) * z + s * eps, 1000 * s.flatten(), dit.text(text(pool.texts(clip), models.kind(device))))
    return ((v - (eps - z)).pow(2).mean(-1) * weight).mean()


def muons(name, p):
    return name.startswith("blocks.") and p.dim() == 2


def tensors(dit, text):
    return {**{"dit." + k: v.to(torch.bfloat16) for k, v in dit.state_dict().items()}, **{"text." + k: v.to(torch.bfloat16) for k, v in text.state_dict().items()}}


def train_dit(state, device, deadline):
    seed = state.data["seed"] * 1000003 + state.data["steps"][1]
    rng, dtype, settings = random.Random(seed), models.kind(device), SETTINGS[state.size]
    vae, dit, text = state.networks(device, "model")
    torch.manual_seed(seed)
    pool = Pool(vae.requires_grad_(False), state.tokenizer(), rng, device, settings)
    named = list(dit.named_parameters()) + [("text." + n, p) for n, p in text.named_parameters()]
    run = Run(state, 1, device, deadline, named, muons, 2e-3, 1e-3, 0.998, 0.6)
    n = settings["windows"]
    while run.goes_on():
        if rng.random() < 0.16:
            loss = uniform(pool, dit, text, n, device)
            run.learn(loss, 0.05, uniform=loss)
        else:
            batch, behind, losses = draw(pool, rng, n, device), None, []
            rows = dit.text(text(batch.ids, dtype))
            for k in batch.passes:
                x, t = batch.inputs(k)
                v, behind = dit(x, t, batch.text(k, rows), BLOCK, batch.c, behind)
                losses.append(batch.loss(k, v))
            loss = sum(losses) / len(losses)
            run.learn(loss, 0.05, **({"chain": loss} if len(losses) == 3 else {"start": loss}))
        if run.step % settings["every"] == 0:
            pool.add(settings["fresh"])
    run.end()
    state.put("model", tensors(dit, text))
    return vae, dit, text


def train_distil(state, device, deadline):
    """The student learns to give without guidance what the teacher, the model of the stage before, gives with it and an empty negative prompt."""
    seed = state.data["seed"] * 1000003 + 500009 + state.data["steps"][2]
    rng, dtype, settings = random.Random(seed), models.kind(device), SETTINGS[state.size]
    vae, teacher, words = state.networks(device, "model")
    _, dit, text = state.networks(device, "student" if state.has("student") else "model")
    for m in (vae, teacher, words):
        m.requires_grad_(False)
    torch.manual_seed(seed)
    pool = Pool(vae, state.tokenizer(), rng, device, settings)
    named = list(dit.named_parameters()) + [("text." + n, p) for n, p in text.named_parameters()]
    run = Run(state, 2, device, deadline, named, muons, 6e-4, 3e-4, 0.99, 0.3)
    n = settings["windows"]
    with torch.no_grad():
        none = teacher.text(words(pool.empty[None], dtype))
    while run.goes_on():
        batch, behind, guided, losses = draw(pool, rng, n, device), None, None, []
        rows = dit.text(text(batch.ids, dtype))
        with torch.no_grad():
            told = teacher.text(words(batch.ids, dtype))
        for k in batch.passes:
            x, t = batch.inputs(k)
            with torch.no_grad():
                both = torch.cat((batch.text(k, told), none.expand(n, -1, -1)))
                v, guided = teacher(torch.cat((x, x)), torch.cat((t, t)), both, BLOCK, batch.c, guided)
                want = v[n:] + GUIDANCE * (v[:n] - v[n:])
            v, behind = dit(x, t, batch.text(k, rows), BLOCK, batch.c, behind)
            losses.append(batch.loss(k, v, want))
        loss = sum(losses) / len(losses)
        run.learn(loss, 0.0, distil=loss)
        if run.step % settings["every"] == 0:
            pool.add(settings["fresh"])
    run.end()
    state.put("student", tensors(dit, text))
    return vae, dit, text


def main():
    args = argparse.ArgumentParser(description="trains the embedded model")
    args.add_argument("--out", required=True, help="where the state is and is written; the finished model goes to OUT/tiny")
    args.add_argument("--minutes", type=float, default=1e9, help="what this call may take")
    args.add_argument("--plan", help="seconds of the stages, VAE,DIT,DISTIL,DECODER, in place of " + ",".join(map(str, PLAN["full"])))
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--smoke", action="store_true", help="networks of a few thousand weights and seconds of everything: does it run?")
    args = args.parse_args()
    begun, device = time.time(), "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.smoke:
        sys.exit("no GPU that PyTorch can use here; --smoke runs without one")
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
        torch.backends.cuda.enable_flash_sdp(False)         # cuDNN's attention is faster, forwards and backwards
        models.fuse()
    else:
        torch.set_num_threads(1)
    state = State(args.out, "smoke" if args.smoke else "full", args.seed)
    if args.plan:
        state.data["plan"] = [float(v) for v in args.plan.split(",")]
    state.save()
    torch.manual_seed(state.data["seed"])
    reserve = 30 if device == "cuda" else 0                 # seconds for statistics, state and pictures
    deadline = begun + 60 * args.minutes - reserve
    while (i := state.stage()) is not None and time.time() + 2 * reserve < deadline:
        result = (train_vae, train_dit, train_distil, train_decoder)[i](state, device, deadline)
        state.save()
        if i in (1, 2):
            settings, compiled, models.run_block = SETTINGS[state.size], models.run_block, models.block       # few passes of many shapes: not worth compiling
            sample.contact(state.file(f"{STAGES[i]}.png"), *result, state.tokenizer(), state.guidance(), sample.PROMPTS[: settings["prompts"]], settings["latents"])
            models.run_block = compiled
    if state.stage() is None:
        export.write(state.file("tiny"), state.size, *state.networks("cpu"), state.tokenizer(), state.guidance())
    state.log(stage="end", left=[max(0.0, round(p - s, 1)) for p, s in zip(state.data["plan"], state.data["seconds"])], took=time.time() - begun,
              gb=torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0)


if __name__ == "__main__":
    main()
