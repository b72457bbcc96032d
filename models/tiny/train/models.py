# SPDX-License-Identifier: LGPL-2.1-or-later
"""The three networks, with the parameter names of diffusers' AutoencoderKLWan and WanTransformer3DModel and transformers' UMT5EncoderModel, so that a
state_dict() is what those load (check.py compares the outputs). Written for training: whole clips at once, channels last, and the transformer as DualParal
runs it, with the keys and values of the block behind.

B clips, T frames, F latent frames of H/8 x W/8 x 16, L = F * H/16 * W/16 tokens, D width of the transformer. Arithmetic is in the dtype of the input, with
norms, softmax, modulation and rotations in float32; parameters are float32.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

SIZES = {
    "full": dict(vae=dict(base=8, dec=8, mult=[1, 2, 4, 8]), dit=dict(heads=4, head=64, ffn=896, layers=7), text=dict(d=128, kv=32, ff=256, heads=4, layers=3)),
    "smoke": dict(vae=dict(base=4, dec=4, mult=[1, 2, 2, 4]), dit=dict(heads=1, head=48, ffn=64, layers=2), text=dict(d=32, kv=16, ff=32, heads=2, layers=1)),
}
Z = 16              # latent channels
TEXT_ROWS = 512     # rows the transformer sees, nearly all of them zeros


def kind(device):
    """What is computed in."""
    return torch.bfloat16 if device == "cuda" else torch.float32


def causal(x, w, b):
    """x (B, T, H, W, C), w (C', C, 3, k, k) with two frames of zeros in front."""
    x = F.pad(x, (0, 0, 0, 0, 0, 0, w.shape[2] - 1, 0))
    w = w.to(x.dtype).contiguous(memory_format=torch.channels_last_3d)
    return F.conv3d(x.permute(0, 4, 1, 2, 3), w, b.to(x.dtype), padding=(0, w.shape[3] // 2, w.shape[4] // 2)).permute(0, 2, 3, 4, 1)


def spatial(x, conv, stride=1, padding=1):
    b, t, h, w, c = x.shape
    k = conv.weight.to(x.dtype).contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x.reshape(b * t, h, w, c).permute(0, 3, 1, 2), k, conv.bias.to(x.dtype), stride=stride, padding=padding).permute(0, 2, 3, 1)
    return y.reshape(b, t, *y.shape[1:])


class Conv(nn.Conv3d):
    def forward(self, x):
        if self.kernel_size == (1, 1, 1):
            return F.linear(x, self.weight.flatten(1).to(x.dtype), self.bias.to(x.dtype))
        return causal(x, self.weight, self.bias)


def norm_silu(x, g):        # (N, C), (C,)
    x32 = x.float()
    y = x32 * torch.rsqrt(x32.pow(2).sum(-1, keepdim=True).clamp_min(1e-24)) * (g * x.shape[-1] ** 0.5)
    return F.silu(y).to(x.dtype)


fused_norm_silu = None      # compiled, set by fuse()


class Norm(nn.Module):
    def __init__(self, c, images=False):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(c, 1, 1) if images else torch.ones(c, 1, 1, 1))

    def silu(self, x):
        flat = x.reshape(-1, x.shape[-1])
        if fused_norm_silu is None or not x.is_cuda:
            return norm_silu(flat, self.gamma.flatten()).view(x.shape)
        torch._dynamo.mark_dynamic(flat, 0)
        torch._dynamo.mark_static(flat, 1)
        return fused_norm_silu(flat, self.gamma.flatten()).view(x.shape)


class Residual(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = Norm(i), Conv(i, o, 3), Norm(o), Conv(o, o, 3)
        self.conv_shortcut = Conv(i, o, 1) if i != o else nn.Identity()

    def forward(self, x):
        return self.conv2(self.norm2.silu(self.conv1(self.norm1.silu(x)))) + self.conv_shortcut(x)


class Attention2d(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm, self.to_qkv, self.proj = Norm(c, True), nn.Conv2d(c, 3 * c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x):
        b, t, h, w, c = x.shape
        y = (F.normalize(x.float(), dim=-1) * c**0.5 * self.norm.gamma.flatten()).to(x.dtype).reshape(b * t, 1, h * w, c)
        q, k, v = F.linear(y, self.to_qkv.weight.flatten(1).to(y.dtype), self.to_qkv.bias.to(y.dtype)).chunk(3, -1)
        y = F.scaled_dot_product_attention(q.contiguous(), k.contiguous(), v.contiguous())
        return x + F.linear(y, self.proj.weight.flatten(1).to(y.dtype), self.proj.bias.to(y.dtype)).reshape(x.shape)


class Middle(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList([Residual(c, c), Residual(c, c)]), nn.ModuleList([Attention2d(c)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Resample(nn.Module):
    def __init__(self, c, mode):
        super().__init__()
        self.mode, up = mode, mode.startswith("up")
        self.resample = nn.Sequential(nn.Identity(), nn.Conv2d(c, c // 2 if up else c, 3))
        if mode.endswith("3d"):
            self.time_conv = nn.Conv3d(c, 2 * c if up else c, (3, 1, 1))

    def over_time(self, a, b, c):
        w = self.time_conv.weight[:, :, :, 0, 0].permute(0, 2, 1).flatten(1)
        return F.linear(torch.cat([a, b, c], -1), w.to(a.dtype), self.time_conv.bias.to(a.dtype))

    def forward(self, x):
        if self.mode.startswith("down"):
            x = spatial(F.pad(x, (0, 0, 0, 1, 0, 1)), self.resample[1], 2, 0)
            if self.mode == "downsample3d" and x.shape[1] > 1:      # the first frame stays alone
                x = torch.cat([x[:, :1], self.over_time(x[:, 0:-2:2], x[:, 1:-1:2], x[:, 2::2])], 1)
            return x
        if self.mode == "upsample3d" and x.shape[1] > 1:            # likewise; what follows sees zeros before it
            p = F.pad(x[:, 1:], (0, 0, 0, 0, 0, 0, 2, 0))
            y = self.over_time(p[:, :-2], p[:, 1:-1], p[:, 2:])
            b, t, h, w, c = y.shape
            x = torch.cat([x[:, :1], y.view(b, t, h, w, 2, c // 2).permute(0, 1, 4, 2, 3, 5).reshape(b, 2 * t, h, w, c // 2)], 1)
        b, t, h, w, c = x.shape
        return spatial(x.reshape(b, t, h, 1, w, 1, c).expand(b, t, h, 2, w, 2, c).reshape(b, t, 2 * h, 2 * w, c), self.resample[1])


class Encoder(nn.Module):
    def __init__(self, base, mult):
        super().__init__()
        dims, modes, blocks = [base * m for m in [1, *mult]], ["downsample2d", "downsample3d", "downsample3d"], []
        for i, (a, b) in enumerate(zip(dims, dims[1:])):
            blocks += [Residual(a, b)] + ([Resample(b, modes[i])] if i < 3 else [])
        self.conv_in, self.down_blocks, self.mid_block = Conv(3, base, 3), nn.ModuleList(blocks), Middle(dims[-1])
        self.norm_out, self.conv_out = Norm(dims[-1]), Conv(dims[-1], 2 * Z, 3)

    def forward(self, x):
        x = self.conv_in(x)
        for b in self.down_blocks:
            x = b(x)
        return self.conv_out(self.norm_out.silu(self.mid_block(x)))


class Up(nn.Module):
    def __init__(self, i, o, mode):
        super().__init__()
        self.resnets = nn.ModuleList([Residual(i, o), Residual(o, o)])
        self.upsamplers = nn.ModuleList([Resample(o, mode)]) if mode else None

    def forward(self, x):
        for r in self.resnets:
            x = r(x)
        return self.upsamplers[0](x) if self.upsamplers else x


class Decoder(nn.Module):
    def __init__(self, base, mult):
        super().__init__()
        dims, modes = [base * m for m in [mult[-1], *mult[::-1]]], ["upsample3d", "upsample3d", "upsample2d", None]
        self.conv_in, self.mid_block = Conv(Z, dims[0], 3), Middle(dims[0])
        self.up_blocks = nn.ModuleList([Up(a if i == 0 else a // 2, b, modes[i]) for i, (a, b) in enumerate(zip(dims, dims[1:]))])
        self.norm_out, self.conv_out = Norm(dims[-1]), Conv(dims[-1], 3, 3)

    def forward(self, x):
        x = self.mid_block(self.conv_in(x))
        for b in self.up_blocks:
            x = b(x)
        return self.conv_out(self.norm_out.silu(x))


class Vae(nn.Module):
    """mean and std, of the latents of this world, are part of the config in diffusers and are buffers here."""

    def __init__(self, base, dec, mult):
        super().__init__()
        self.encoder, self.quant_conv, self.post_quant_conv, self.decoder = Encoder(base, mult), Conv(2 * Z, 2 * Z, 1), Conv(Z, Z, 1), Decoder(dec, mult)
        self.register_buffer("mean", torch.zeros(Z))
        self.register_buffer("std", torch.ones(Z))

    def encode(self, x):
        """(B, T, H, W, 3) in -1..1 -> mean and log variance (B, F, H/8, W/8, 16), float32, not normalised."""
        mean, logvar = self.quant_conv(self.encoder(x)).float().chunk(2, -1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z)).float()


# ---- text encoder ----


class Rms(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        x32 = x.float()
        return (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight).to(x.dtype)


def linear(x, m):
    return F.linear(x, m.weight.to(x.dtype), None if m.bias is None else m.bias.to(x.dtype))


def weights(i, o, std):
    m = nn.Linear(i, o, bias=False)
    nn.init.normal_(m.weight, std=std)
    return m


class TextAttention(nn.Module):
    def __init__(self, d, kv, heads):
        super().__init__()
        n = heads * kv
        self.heads, self.q, self.k, self.v, self.o = heads, weights(d, n, (d * kv) ** -0.5), weights(d, n, d**-0.5), weights(d, n, d**-0.5), weights(n, d, n**-0.5)
        self.relative_attention_bias = nn.Embedding(32, heads)
        nn.init.normal_(self.relative_attention_bias.weight, std=d**-0.5)

    def forward(self, x, mask):
        b, l, _ = x.shape
        q, k, v = (linear(x, m).view(b, l, self.heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        at = torch.arange(l, device=x.device)
        rel = at[None] - at[:, None]
        far = 8 + (torch.log(rel.abs().clamp_min(1).float() / 8) / math.log(128 / 8) * 8).long()
        bucket = (rel > 0).long() * 16 + torch.where(rel.abs() < 8, rel.abs(), far.clamp_max(15))
        w = (q @ k.transpose(-1, -2)).float() + self.relative_attention_bias(bucket).permute(2, 0, 1)[None]
        w = w.masked_fill(~mask[:, None, None], float("-inf")).softmax(-1).to(x.dtype)
        return linear((w @ v).transpose(1, 2).reshape(b, l, -1), self.o)


class TextFeed(nn.Module):
    def __init__(self, d, ff):
        super().__init__()
        self.wi_0, self.wi_1, self.wo = weights(d, ff, d**-0.5), weights(d, ff, d**-0.5), weights(ff, d, ff**-0.5)

    def forward(self, x):
        return linear(F.gelu(linear(x, self.wi_0), approximate="tanh") * linear(x, self.wi_1), self.wo)


class Part(nn.Module):
    def __init__(self, d, name, module):
        super().__init__()
        setattr(self, name, module)
        self.layer_norm = Rms(d)


class TextLayer(nn.Module):
    def __init__(self, d, kv, ff, heads):
        super().__init__()
        self.layer = nn.ModuleList([Part(d, "SelfAttention", TextAttention(d, kv, heads)), Part(d, "DenseReluDense", TextFeed(d, ff))])

    def forward(self, x, mask):
        a, f = self.layer
        x = x + a.SelfAttention(a.layer_norm(x), mask)
        return x + f.DenseReluDense(f.layer_norm(x))


class TextStack(nn.Module):
    def __init__(self, d, kv, ff, heads, layers):
        super().__init__()
        self.block, self.final_layer_norm = nn.ModuleList([TextLayer(d, kv, ff, heads) for _ in range(layers)]), Rms(d)


class TextEncoder(nn.Module):
    def __init__(self, vocab, d, kv, ff, heads, layers):
        super().__init__()
        self.shared, self.encoder = nn.Embedding(vocab, d), TextStack(d, kv, ff, heads, layers)

    def forward(self, ids, dtype):
        """ids (B, n), 0 behind the end -> (B, n + 1, d), zeros behind the end; the last row stands for all further rows up to 512."""
        mask = ids != 0
        x = (ids[..., None] == torch.arange(self.shared.num_embeddings, device=ids.device)).to(dtype) @ self.shared.weight.to(dtype)
        for b in self.encoder.block:
            x = b(x, mask)
        return F.pad(self.encoder.final_layer_norm(x) * mask[..., None], (0, 0, 0, 1))


# ---- transformer ----


def rms(x, w):
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w


def rotate(x, cos, sin, heads):     # (B, L, D) float32 -> (B, heads, L, D / heads)
    b, l, d = x.shape
    x = x.view(b, l, heads, d // heads // 2, 2)
    r, i = x[..., 0], x[..., 1]
    c, s = cos[None, :l, None], sin[None, :l, None]
    return torch.stack((r * c - i * s, r * s + i * c), -1).view(b, l, heads, d // heads).transpose(1, 2)


def block(x, text, time, cos, sin, behind_k, behind_v, bias, heads, own, cut, p):
    """One layer. Returns x, and K (before norm and rotation) and V of the first `cut` of the last `own` tokens: what the block in front will see behind itself."""
    d, l, t = x.shape[-1], x.shape[1], x.dtype
    lin = lambda v, name: F.linear(v, p[name + ".weight"].to(t), p[name + ".bias"].to(t))
    m = p["scale_shift_table"] + time
    n = (F.layer_norm(x.float(), (d,), eps=1e-6) * (1 + m[:, 1:2]) + m[:, 0:1]).to(t)
    q, k, v = lin(n, "attn1.to_q"), lin(n, "attn1.to_k"), lin(n, "attn1.to_v")
    kept = k[:, l - own : l - own + cut], v[:, l - own : l - own + cut]
    if behind_k is not None:
        k, v = torch.cat((k, behind_k), 1), torch.cat((v, behind_v), 1)
    q = rotate(rms(q, p["attn1.norm_q.weight"]), cos, sin, heads).to(t)
    k = rotate(rms(k, p["attn1.norm_k.weight"]), cos, sin, heads).to(t)
    o = F.scaled_dot_product_attention(q, k, v.unflatten(2, (heads, -1)).transpose(1, 2))
    x = (x.float() + lin(o.transpose(1, 2).flatten(2), "attn1.to_out.0").float() * m[:, 2:3]).to(t)
    n = F.layer_norm(x.float(), (d,), p["norm2.weight"], p["norm2.bias"], 1e-6).to(t)
    q = rms(lin(n, "attn2.to_q"), p["attn2.norm_q.weight"]).to(t).unflatten(2, (heads, -1)).transpose(1, 2)
    k = rms(lin(text, "attn2.to_k"), p["attn2.norm_k.weight"]).to(t).unflatten(2, (heads, -1)).transpose(1, 2)
    v = lin(text, "attn2.to_v").unflatten(2, (heads, -1)).transpose(1, 2)
    w = torch.softmax((q @ k.transpose(-1, -2)).float() * (d // heads) ** -0.5 + bias, -1).to(t)
    x = x + lin((w @ v).transpose(1, 2).flatten(2), "attn2.to_out.0")
    n = (F.layer_norm(x.float(), (d,), eps=1e-6) * (1 + m[:, 4:5]) + m[:, 3:4]).to(t)
    x = (x.float() + lin(F.gelu(lin(n, "ffn.net.0.proj"), approximate="tanh"), "ffn.net.2").float() * m[:, 5:6]).to(t)
    return x, *kept


run_block = block           # compiled by fuse()


def fuse():
    """On a GPU: one compiled layer that all layers share, and the VAE's norm."""
    global run_block, fused_norm_silu
    torch._dynamo.config.recompile_limit = 64
    run_block, fused_norm_silu = torch.compile(block, dynamic=False), torch.compile(norm_silu)


class Scale(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))


class DitAttention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d), nn.ModuleList([nn.Linear(d, d)])
        self.norm_q, self.norm_k = Scale(d), Scale(d)


class Projection(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.proj = nn.Linear(i, o)


class Feed(nn.Module):
    def __init__(self, d, ff):
        super().__init__()
        self.net = nn.ModuleList([Projection(d, ff), nn.Identity(), nn.Linear(ff, d)])


class Layer(nn.Module):
    def __init__(self, d, ff):
        super().__init__()
        self.attn1, self.attn2, self.norm2, self.ffn = DitAttention(d), DitAttention(d), nn.LayerNorm(d), Feed(d, ff)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, d) / d**0.5)


class Embedding2(nn.Module):
    def __init__(self, i, d):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(i, d), nn.Linear(d, d)


class Conditioning(nn.Module):
    def __init__(self, d, text):
        super().__init__()
        self.time_embedder, self.time_proj, self.text_embedder = Embedding2(256, d), nn.Linear(d, 6 * d), Embedding2(text, d)


class Dit(nn.Module):
    def __init__(self, heads, head, ffn, layers, text):
        super().__init__()
        d = heads * head
        self.heads, self.head = heads, head
        self.patch_embedding, self.condition_embedder = nn.Conv3d(Z, d, (1, 2, 2), (1, 2, 2)), Conditioning(d, text)
        self.blocks = nn.ModuleList([Layer(d, ffn) for _ in range(layers)])
        self.scale_shift_table, self.proj_out = nn.Parameter(torch.randn(1, 2, d) / d**0.5), nn.Linear(d, 4 * Z)
        for b in self.blocks:       # small residual branches at the start
            for m in (b.attn1.to_out[0], b.attn2.to_out[0], b.ffn.net[2]):
                nn.init.normal_(m.weight, std=0.02 / math.sqrt(2 * layers))
                nn.init.zeros_(m.bias)
        for m, std in ((self.proj_out, 0.0), (self.condition_embedder.time_proj, 0.01)):
            nn.init.normal_(m.weight, std=std)
            nn.init.zeros_(m.bias)
        self._tables = {}

    def table(self, frames, h, w, device):      # cos and sin of all tokens' angles (L, head / 2)
        key = (frames, h, w, device)
        if key not in self._tables:
            side = 2 * (self.head // 6)
            grid = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (frames, h, w)), indexing="ij")
            angles = [g.reshape(-1, 1) / 10000.0 ** (torch.arange(0, n, 2, dtype=torch.float64) / n) for g, n in zip(grid, (self.head - 2 * side, side, side))]
            a = torch.cat(angles, 1)
            self._tables[key] = a.cos().float().to(device), a.sin().float().to(device)
        return self._tables[key]

    def text(self, rows):
        """Rows of the text encoder (B, n + 1, text) -> (B, n + 1, D): once for all passes of a step."""
        e = self.condition_embedder.text_embedder
        return linear(F.gelu(linear(rows, e.linear_1), approximate="tanh"), e.linear_2)

    def forward(self, z, t, text, own=None, cut=0, behind=None, dtype=None):
        """One DualParal pass. z (B, F, h, w, 16), the last `own` latent frames the block's; t (B,), 1000 sigma; behind: what the pass of the following block
        returned, or None. Returns the velocity (B, F, h, w, 16) float32, and K and V of the first `cut` own latent frames, layer by layer."""
        b, frames, h, w, _ = z.shape
        d, hh, ww, own, dt = self.heads * self.head, h // 2, w // 2, own or frames, text.dtype
        x = z.reshape(b, frames, hh, 2, ww, 2, Z).permute(0, 1, 2, 4, 6, 3, 5).reshape(b, frames * hh * ww, 4 * Z).to(dt)
        x = F.linear(x, self.patch_embedding.weight.flatten(1).to(dt), self.patch_embedding.bias.to(dt))
        ce, f = self.condition_embedder, torch.exp(torch.arange(128, device=z.device) * (-math.log(10000.0) / 128))
        a = t.float()[:, None] * f[None]
        e = torch.cat((a.cos(), a.sin()), 1)
        e = ce.time_embedder.linear_2(F.silu(ce.time_embedder.linear_1(e)))
        time = ce.time_proj(F.silu(e)).view(b, 6, d)
        n = hh * ww
        cos, sin = self.table(frames + (behind[0][0].shape[1] // n if behind else 0), hh, ww, z.device)
        bias = F.pad(torch.zeros(text.shape[1] - 1, device=z.device), (0, 1), value=math.log(TEXT_ROWS - (text.shape[1] - 1)))
        kept = []
        for i, layer in enumerate(self.blocks):
            k, v = behind[i] if behind else (None, None)
            x, *kv = run_block(x, text, time, cos, sin, k, v, bias, self.heads, own * n, cut * n, dict(layer.named_parameters()))
            kept.append(kv)
        shift, scale = (self.scale_shift_table + e[:, None]).chunk(2, 1)
        x = (F.layer_norm(x.float(), (d,), eps=1e-6) * (1 + scale) + shift).to(dt)
        x = linear(x, self.proj_out).float()
        return x.view(b, frames, hh, ww, 2, 2, Z).permute(0, 1, 2, 4, 3, 5, 6).reshape(b, frames, h, w, Z), kept


def build(size, vocab):
    s = SIZES[size]
    return Vae(**s["vae"]), Dit(**s["dit"], text=s["text"]["d"]), TextEncoder(vocab, **s["text"])


class Muon:
    """Momentum made orthogonal, for weights seen as matrices; float32 parameters, bfloat16 products. The rate is a tensor."""

    def __init__(self, params):
        self.groups = {}
        for p in params:
            self.groups.setdefault((p.shape[0], p[0].numel()), []).append(p)
        self.momentum = {k: torch.zeros(len(v), *k, device=v[0].device) for k, v in self.groups.items()}

    @torch.no_grad()
    def step(self, lr, decay):
        for k, ps in self.groups.items():
            g, m = torch.stack([p.grad.reshape(k) for p in ps]), self.momentum[k]
            m.lerp_(g, 0.05)
            x = (g * 0.05 + m * 0.95).to(torch.bfloat16)
            x = x.mT if k[0] > k[1] else x
            x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(x.dtype)
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
            x = (x.mT if k[0] > k[1] else x).float() * (0.2 * max(k) ** 0.5)
            torch._foreach_mul_(ps, 1 - lr * decay)
            torch._foreach_sub_(ps, [u.reshape(p.shape) for u, p in zip((x * lr).unbind(0), ps)])


class Average:
    """Exponential moving average of parameters."""

    def __init__(self, params):
        self.params = list(params)
        self.values = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self, rate):
        off = torch._foreach_sub(self.params, self.values)
        torch._foreach_mul_(off, rate)
        torch._foreach_add_(self.values, off)

    @torch.no_grad()
    def swap(self):
        for p, v in zip(self.params, self.values):
            p.data, v.data = v.data.clone(), p.data.clone()
