# SPDX-License-Identifier: LGPL-2.1-or-later
"""Trains the embedded model from nothing: `train.py --out DIR [--minutes N]`. README.md beside this tells the whole story.

Four stages: vae, dit (transformer and text encoder together), distil (guidance into the weights), decoder (the VAE's, alone). Each has a number of seconds; its learning rates follow
how much of that is over. A call does what fits into its minutes, from where the state in DIR is, and writes the state back. At a stage's beginning in a
call the optimisers start anew from the averaged weights; that costs a few dozen steps and keeps the state small. Where there are several GPUs, each has a process and
its share of every batch.
"""
import argparse
import functools
import math
import os
import random
import sys
import tempfile
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F

import captions
import export
import models
import sample
import sheet
import world
from state import GUIDANCE, PLAN, SETTINGS, STAGES, State, Team

# (steps, lag) that windows are drawn from; the embedded defaults are 8 and 3
SCHEDULES = ([(8, 3)] * 10 + [(8, 2)] * 3 + [(8, 1), (8, 4)] * 2 + [(6, 2)] * 4 + [(6, 3)] * 2
             + [(4, 1), (4, 2), (5, 2), (6, 1), (10, 2), (10, 4), (12, 2), (12, 4), (16, 1), (16, 4), (20, 2), (20, 5), (25, 1), (25, 5)])
SPIN = 0.12             # share of groups of clips in which everything spins, for that is the hardest to learn
OBJECT = 8.0            # how much more a cell with a subject counts where there is no doubt: weight()
FIRST = 4.0             # how much a stream's first latent frame counts: it is a single video frame, the one that is seen first
BLOCK = 4               # latent frames of a block; a window is four of them
CHANGE = 0.12           # share of windows in which the prompt changes from one block to the next


class Launch:
    """A function that only reads and writes tensors which stay where they are; on a GPU a CUDA graph, so that its hundreds of kernels are one launch.

    All graphs share their memory: what a call returns is there until the next call of any."""

    memory = None

    def __init__(self, function, device):
        self.function, self.graph = function, None
        if device == "cuda":
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):      # compiles, chooses algorithms
                    function()
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, pool=Launch.memory, capture_error_mode="thread_local"):
                self.result = function()
            Launch.memory = self.graph.pool()

    def __call__(self):
        if not self.graph:
            return self.function()
        self.graph.replay()
        return self.result


class Run:
    """One stage within one call: the clock, the rates, the optimisers, the average."""

    def __init__(self, state, index, device, deadline, named, matrix, muon, adam, decay, hold, shrink):
        self.s, self.i, self.dev, self.deadline, self.hold, self.team = state, index, device, deadline, hold, state.team
        self.set, self.decay, self.top = state.settings(), decay, (muon, adam)
        params = [p for _, p in named]
        big = [p for n, p in named if matrix(n, p)]
        ids = {id(p) for p in big}
        self.params, self.flat = params, torch.zeros(sum(p.numel() for p in params), device=device)
        for p, g in zip(params, self.flat.split([p.numel() for p in params])):
            p.grad = g.view_as(p)
        self.rates = torch.zeros(3, device=device)      # of Muon, of AdamW, of the average
        self.muon, self.shrink = models.Muon(big), shrink
        small = [p for p in params if id(p) not in ids]
        self.adam = torch.optim.AdamW(small, lr=self.rates[1], betas=(0.9, 0.95), weight_decay=0.0, fused=device == "cuda", capturable=device == "cuda")
        self.average, self.step, self.sums, self.losses, self.events = models.Average(params), 0, {}, {}, []
        self.apply = Launch(self.change, device)
        self.seconds, self.plan = state.data["seconds"][index], state.data["plan"][index]
        self.said = self.last = time.time()

    def part(self):
        return min(1.0, self.seconds / self.plan)

    def goes_on(self):
        now = time.time()
        self.seconds, over = self.team.agree(self.seconds + min(now - self.last, 2.0) * self.team.size, now >= self.deadline)        # longer: it was compiling
        self.last = now
        return self.part() < 1 and not over

    def gradients(self, function):
        loss, said = function()
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, self.params)], out=self.flat)
        return {k: v.detach() for k, v in said.items()}

    @torch.no_grad()
    def change(self):
        """Of the weights, by their gradients."""
        norm = self.flat.norm()
        self.flat *= (1 / (norm + 1e-6)).clamp_max(1)
        self.adam.step()
        self.muon.step(self.rates[0], self.shrink)
        self.average.update(self.rates[2])
        return norm

    def learn(self, key, function):
        """One step. The function gives the loss and a dict of what is to be said about it; those of one `key` are one launch, so they have to do the same."""
        if key not in self.losses:
            self.losses[key] = Launch(lambda: self.gradients(function), self.dev)
        said = self.losses[key]()
        self.note(**said)
        self.team.mean(self.flat)
        part = self.part()
        rate = min(1.0, (self.step + 1) / self.set["warm"]) * (1 if part < self.hold else max(0.01, (1 - part) / (1 - self.hold)))
        average = 1 - min(self.decay, (self.step + 1) / (self.step + 11))
        for at, value in enumerate((self.top[0] * rate, self.top[1] * rate, average)):
            self.rates[at].fill_(value)
        self.note(norm=self.apply())
        self.step += 1
        if self.dev == "cuda":      # not more than two steps ahead of the GPU: the clock is to show what has been done
            self.events.append(torch.cuda.Event())
            self.events[-1].record()
            if len(self.events) > 2:
                self.events.pop(0).synchronize()
        if time.time() - self.said > 20 or self.step in (1, 20):
            self.say(rate)

    def note(self, **values):
        for k, v in values.items():
            total, n = self.sums.get(k, (0.0, 0))
            self.sums[k] = total + v, n + 1

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
        self.losses, self.apply, Launch.memory = {}, None, None
        for p in self.params:
            p.grad = None
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
    return (e.abs() * weight).mean() + 0.5 * edges + 0.75 * (e[:, 1:] - e[:, :-1]).abs().mean() + square, square


def put(clips, key, x):
    """Into the tensor of that name, which stays where it is."""
    if key not in clips:
        clips[key] = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    clips[key].copy_(x)


@torch.no_grad()
def vae_end(state, stage, vae, settings, device, dtype):
    """After the first stage the statistics of latents, without the first of a clip; the quality, a picture, and the weights are kept. By one process for all."""
    if state.team.rank:
        return
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
    state.put_vae(vae)


def train_vae(state, device, deadline):
    dtype, vae = models.kind(device), state.networks(device)[0]
    rng, _ = state.team.seed(state, 0)
    run = Run(state, 0, device, deadline, list(vae.named_parameters()), vae_matrix, 5e-3, 2e-3, 0.997, 0.35, 0.01)
    clips = {}

    def losses(key):
        mean, logvar = vae.encode(signed(clips[key]).to(dtype))
        var = logvar.exp()
        loss, square = decoder_loss(vae, mean, with_noise(mean, var) if key[1] else var, clips[key], dtype)
        kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        loss = loss + 3e-5 * kl
        return loss, dict(loss=loss, square=square, kl=kl)

    while run.goes_on():
        key = run.part() < 0.7, run.part() > 0.5
        if key[0]:          # crops with many edges, then whole pictures
            x = world.crowds(rng, run.set["crops"], 9, rng.choice([1, 2, 4, 4]), device)
            top, left = rng.randrange(17), rng.randrange(129)
            x = x[:, :, top : top + 128, left : left + 128]
        else:
            x = whole_pictures(rng, run.set, device)
        put(clips, key, x)
        run.learn(key, functools.partial(losses, key))
    run.end()
    vae_end(state, 0, vae, run.set, device, dtype)


def train_decoder(state, device, deadline):
    """Sharper pictures of the same latents, so that the transformer may stay as it is."""
    dtype, vae = models.kind(device), state.networks(device)[0]
    rng, _ = state.team.seed(state, 3, 250007)
    named = [(n, p) for n, p in vae.named_parameters() if n.startswith(("decoder.", "post_quant_conv."))]
    run = Run(state, 3, device, deadline, named, vae_matrix, 3e-3, 1e-3, 0.998, 0.3, 0.01)
    clips = {}

    def losses():
        with torch.no_grad():
            mean, logvar = vae.encode(signed(clips[0]).to(dtype))
        loss, square = decoder_loss(vae, mean, with_noise(mean, logvar.exp()), clips[0], dtype)
        return loss, dict(loss=loss, square=square)

    while run.goes_on():
        put(clips, 0, whole_pictures(rng, run.set, device))
        run.learn(0, losses)
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
        self.n, self.at, self.count = 0, 0, torch.zeros((), device=device)
        self.schedules = torch.tensor(SCHEDULES, device=device)
        while self.n < settings["pool"]:
            self.add(min(settings["group"], settings["pool"] - self.n))
        self.empty = torch.tensor(self.tok.ids([""])[0], device=device)

    @torch.no_grad()
    def add(self, count):
        spin = {"relation": None, "motion": "spin"} if self.rng.random() < SPIN else {}
        x, scenes = world.clips(self.rng, count, self.FRAMES, self.dev, **spin)
        mean, _ = self.vae.encode(signed(x).to(self.z.dtype))
        cover = F.max_pool2d((x[..., 3] > 0).flatten(0, 1)[:, None].float(), 8).view(count, self.FRAMES, 18, 32)
        cover = torch.cat((cover[:, :1], cover[:, 1:].view(count, 16, 4, 18, 32).amax(2)), 1)
        count = min(count, self.set["most"] - self.at)
        to = slice(self.at, self.at + count)
        self.z[to] = ((mean - self.vae.mean) / self.vae.std).to(self.z.dtype)[:count]
        self.cover[to] = F.max_pool2d(cover, 3, 1, 1).to(torch.uint8)[:count]
        self.ids[to] = torch.tensor(self.tok.ids([captions.caption(self.rng, s) for s in scenes])[:count], device=self.dev)
        self.n, self.at = max(self.n, self.at + count), (self.at + count) % self.set["most"]
        self.count.fill_(self.n)

    def pick(self, n):
        """The numbers of n clips."""
        return (torch.rand(n, device=self.dev) * self.count).long()

    def take(self, clip, first, count):
        """`count` latent frames of each clip from `first` on (below 0: the first one again, which nobody looks at), and which of their cells have a subject."""
        at = (first[:, None] + torch.arange(count, device=self.dev)).clamp_min(0)
        return self.z[clip[:, None], at].float(), self.cover[clip[:, None], at].float()

    def texts(self, clip):
        drop = torch.rand(len(clip), device=self.dev) < 0.1
        return torch.where(drop[:, None], self.empty, self.ids[clip])


def weight(cover, doubt):
    """What cells count, given which have a subject and how open its place is, 0 to 1: the level of noise. Where it is open all count the same: if the places where
    it happened to be counted more than those where it might have been, there would seem to be more subjects than there are, and two would come where one was asked for."""
    return 1 + OBJECT * cover * (1 - doubt)


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
        clip = pool.pick(n)
        first = torch.rand(n, device=device) < share
        z, cover = pool.take(clip, torch.where(first, context - BLOCK, torch.ones_like(clip)), 4 * BLOCK)
        other = pool.pick(n)
        z2, cover2 = pool.take(other, torch.ones_like(clip), 4 * BLOCK)
        change = torch.where(torch.rand(n, device=device) < CHANGE, torch.randint(1, 4, (n,), device=device), 4)
        self.change = torch.where(first & (change == 1), 4, change)
        mix = ((torch.arange(4 * BLOCK, device=device) - BLOCK * self.change[:, None] + 1) / (BLOCK + 1)).clamp(0, 1).view(n, -1, 1, 1)
        z, self.cover = torch.lerp(z, z2, mix[..., None]), torch.where(mix > 0, torch.maximum(cover, cover2), cover)
        eps = noise(n, first, context, device)
        self.ids, self.want, self.first = torch.cat((pool.texts(clip), pool.texts(other))), eps - z, first
        pick = pool.schedules[torch.randint(len(SCHEDULES), (n,), device=device)]
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
        doubt = self.level[k].view(-1, 1, 1, 1) if want is None else 0.0        # a teacher has none
        e = (v - (self.want[:, span] if want is None else want)).pow(2).mean(-1) * weight(self.cover[:, span], doubt)
        e = e.mean((2, 3))
        own = torch.ones_like(e)
        own[:, : self.c] = self.first[:, None].float() if k == 1 else 0.0
        own[:, 0] *= FIRST
        own = own * self.valid[k][:, None]
        return (e * own).sum() / own.sum().clamp_min(1)


def passes(dice):
    """How many passes a step has, and their context."""
    p = dice.random()
    return 3 if p < 0.78 else 2 if p < 0.89 else 1, dice.choice((4, 4, 3, 3, 2))


SHARE = {3: 0.4, 2: 0.5, 1: 0.6}        # of windows that are a stream's beginning, by the number of passes


def uniform(pool, dit, text, n, device):
    """A whole clip at one level of noise, as WanPipeline has it: 12 latent frames from the first one on."""
    clip = pool.pick(n)
    z, cover = pool.take(clip, torch.zeros_like(clip), 12)
    eps, s = torch.randn_like(z), sample.sigma(torch.rand(n, device=device), 1.0).view(-1, 1, 1, 1, 1)
    v, _ = dit((1 - s) * z + s * eps, 1000 * s.flatten(), dit.text(text(pool.texts(clip), models.kind(device))))
    loss = ((v - (eps - z)).pow(2).mean(-1) * weight(cover, s[..., 0])).mean()
    return loss, dict(uniform=loss)


def chain(pool, dit, text, n, device, count, context, teach=None):
    """`count` passes of a queue. teach(batch) gives a function of the pass's number and inputs, for what is to be learnt in place of the truth."""
    batch, behind, losses = Batch(pool, n, context, count, SHARE[count], device), None, []
    rows, told = dit.text(text(batch.ids, models.kind(device))), teach and teach(batch)
    for k in batch.passes:
        x, t = batch.inputs(k)
        want = told and told(k, x, t)
        v, behind = dit(x, t, batch.text(k, rows), BLOCK, context, behind)
        losses.append(batch.loss(k, v, want))
    loss = sum(losses) / len(losses)
    return loss, {"distil" if teach else "chain" if count == 3 else "start": loss}


def muons(name, p):
    return name.startswith("blocks.") and p.dim() == 2


def tensors(dit, text):
    return {**{"dit." + k: v.to(torch.bfloat16) for k, v in dit.state_dict().items()}, **{"text." + k: v.to(torch.bfloat16) for k, v in text.state_dict().items()}}


def train_dit(state, device, deadline):
    settings, (vae, dit, text) = state.settings(), state.networks(device, "model")
    rng, dice = state.team.seed(state, 1)
    pool = Pool(vae.requires_grad_(False), state.tokenizer(), rng, device, settings)
    named = list(dit.named_parameters()) + [("text." + n, p) for n, p in text.named_parameters()]
    run = Run(state, 1, device, deadline, named, muons, 2e-3, 1e-3, 0.998, 0.6, 0.05)
    about = pool, dit, text, settings["windows"], device
    while run.goes_on():
        key = "uniform" if dice.random() < 0.16 else passes(dice)
        run.learn(key, functools.partial(uniform, *about) if key == "uniform" else functools.partial(chain, *about, *key))
        if run.step % settings["every"] == 0:
            pool.add(settings["fresh"])
    run.end()
    state.put("model", tensors(dit, text))
    return vae, dit, text


def train_distil(state, device, deadline):
    """The student learns to give without guidance what the teacher, the model of the stage before, gives with it and an empty negative prompt."""
    dtype, settings = models.kind(device), state.settings()
    vae, teacher, words = state.networks(device, "model")
    _, dit, text = state.networks(device, "student" if state.has("student") else "model")
    for m in (vae, teacher, words):
        m.requires_grad_(False)
    rng, dice = state.team.seed(state, 2, 500009)
    pool = Pool(vae, state.tokenizer(), rng, device, settings)
    named = list(dit.named_parameters()) + [("text." + n, p) for n, p in text.named_parameters()]
    run = Run(state, 2, device, deadline, named, muons, 6e-4, 3e-4, 0.99, 0.3, 0.0)
    n = settings["windows"]

    @torch.no_grad()
    def teach(batch):
        rows, guided = teacher.text(words(torch.cat((batch.ids, pool.empty[None])), dtype)), None

        @torch.no_grad()
        def told(k, x, t):
            nonlocal guided
            both = torch.cat((batch.text(k, rows[:-1]), rows[-1:].expand(n, -1, -1)))
            v, guided = teacher(torch.cat((x, x)), torch.cat((t, t)), both, BLOCK, batch.c, guided)
            return v[n:] + GUIDANCE * (v[:n] - v[n:])

        return told

    while run.goes_on():
        key = passes(dice)
        run.learn(key, functools.partial(chain, pool, dit, text, n, device, *key, teach))
        if run.step % settings["every"] == 0:
            pool.add(settings["fresh"])
    run.end()
    state.put("student", tensors(dit, text))
    return vae, dit, text


def work(rank, size, meeting, args, begun):
    """One process of the team, from the first stage that is left until time is up."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(rank)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
        torch.backends.cuda.enable_flash_sdp(False)         # cuDNN's attention is faster, forwards and backwards
        models.fuse()
    else:
        torch.set_num_threads(1)
    state = State(args.out, team=Team(rank, size, meeting))
    reserve = 30 if device == "cuda" else 0                 # seconds for statistics, state and pictures
    deadline = begun + 60 * args.minutes - reserve
    while (i := state.stage()) is not None and state.team.agree(time.time() + 2 * reserve < deadline)[0]:
        result = (train_vae, train_dit, train_distil, train_decoder)[i](state, device, deadline)
        state.save()
        if i in (1, 2) and not rank:
            settings, compiled, models.run_block = SETTINGS[state.size], models.run_block, models.block       # few passes of many shapes: not worth compiling
            sample.contact(state.file(f"{STAGES[i]}.png"), *result, state.tokenizer(), state.guidance(), sample.PROMPTS[: settings["prompts"]], settings["latents"])
            models.run_block = compiled
    if state.stage() is None and not rank:
        export.write(state.file("tiny"), state.size, *state.networks("cpu"), state.tokenizer(), state.guidance())
    state.log(stage="end", left=[max(0.0, round(p - s, 1)) for p, s in zip(state.data["plan"], state.data["seconds"])], took=time.time() - begun,
              gb=torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0)
    state.team.agree(0)
    if size > 1:
        dist.destroy_process_group()


def main():
    args = argparse.ArgumentParser(description="trains the embedded model")
    args.add_argument("--out", required=True, help="where the state is and is written; the finished model goes to OUT/tiny")
    args.add_argument("--minutes", type=float, default=1e9, help="what this call may take")
    args.add_argument("--plan", help="seconds of one GPU for the stages, VAE,DIT,DISTIL,DECODER, in place of " + ",".join(map(str, PLAN["full"])))
    args.add_argument("--start", metavar="DIR", help="a model that this recipe has made, to go on from, in an OUT that is empty: with --plan 0,600,200,100 for example")
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--smoke", action="store_true", help="networks of a few thousand weights and seconds of everything, by two processes: does it run?")
    args = args.parse_args()
    begun, gpus = time.time(), torch.cuda.device_count()
    if not gpus and not args.smoke:
        sys.exit("no GPU that PyTorch can use here; --smoke runs without one")
    state = State(args.out, "smoke" if args.smoke else "full", args.seed)
    if args.start:
        if state.has("vae"):
            sys.exit(f"{args.out} is not empty: what is there would be lost to --start")
        vae, dit, text, tokenizer = export.read(args.start, state.size)
        state.start(vae, tensors(dit, text), tokenizer)
    if args.plan:
        state.data["plan"] = [float(v) for v in args.plan.split(",")]
    state.save()
    size = gpus or 2
    with tempfile.TemporaryDirectory() as d:
        meeting = os.path.join(d, "meeting")
        if size == 1:
            work(0, 1, meeting, args, begun)
        else:
            torch.multiprocessing.spawn(work, (size, meeting, args, begun), size)


if __name__ == "__main__":
    main()
