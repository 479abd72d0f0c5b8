"""Random blocks over sequences [b, t, d]: attention in its many spellings, MLPs, mixers."""

from __future__ import annotations

import math
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.structure.image_layers import activation


class Block(nn.Module):
    """A random block over [b, t, d]: gives ``self.out`` features."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__()
        self.out = d


class RMSNorm(nn.Module):
    """Root-mean-square norm spelled out."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def norm(rng: Random, d: int) -> nn.Module:
    return rng.choice([nn.LayerNorm(d), nn.Identity(), RMSNorm(d), nn.LayerNorm(d, bias=False)])


class Mlp(Block):
    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        m = rng.randint(3, 8)
        self.norm = norm(rng, d)
        self.a, self.b = nn.Linear(d, m, bias=rng.random() < 0.5), nn.Linear(m, d)
        self.act = activation(rng)
        self.residual = rng.random() < 0.7
        self.gamma = nn.Parameter(torch.randn(d)) if rng.random() < 0.3 else 1.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.act(self.a(self.norm(x)))) * self.gamma
        return x + y if self.residual else y


class GatedMlp(Block):
    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        m = rng.randint(3, 6)
        self.fused = rng.random() < 0.5
        self.norm = norm(rng, d)
        self.up = nn.Linear(d, 2 * m if self.fused else m, bias=False)
        if not self.fused:
            self.gate = nn.Linear(d, m, bias=False)
        self.down = nn.Linear(m, d)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        if self.fused:
            a, b = self.up(y).chunk(2, -1)
        else:
            a, b = self.up(y), self.gate(y)
        return x + self.down(F.silu(a) * b)


class Attention(Block):
    """Self-attention by hand; sizes come from the tensors, so that heads can be removed."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.heads, self.e = rng.randint(2, 4), rng.randint(2, 3)
        inner = self.heads * self.e
        self.norm = norm(rng, d)
        self.fused = rng.choice(["none", "none", "qkv", "kv"])
        sizes = {"none": [inner] * 3, "qkv": [3 * inner], "kv": [inner, 2 * inner]}[self.fused]
        self.proj = nn.ModuleList(nn.Linear(d, n, bias=rng.random() < 0.7) for n in sizes)
        self.o = nn.Linear(inner, d)
        self.style = rng.choice(["matmul", "sdpa", "einsum", "bmm", "causal", "bias", "mask"])
        if self.style == "bias":
            self.table = nn.Parameter(torch.randn(1, self.heads, t, t))
        self.residual = rng.random() < 0.7
        self.scaling = rng.choice(["q", "scores"])

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.e)).transpose(1, 2)

    def qkv(self, x: Tensor) -> list[Tensor]:
        parts = [p(x) for p in self.proj]
        if self.fused == "qkv":
            parts = list(parts[0].chunk(3, -1))
        elif self.fused == "kv":
            parts = [parts[0], *parts[1].chunk(2, -1)]
        return [self.split(p) for p in parts]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x))
        if self.style == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.style == "causal":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.style == "mask":
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
            scores = (q @ k.transpose(-2, -1)).masked_fill(~mask, -torch.inf)
            y = torch.softmax(scores, -1) @ v
        elif self.style == "einsum":
            scores = torch.einsum("bhte,bhse->bhts", q, k) / math.sqrt(self.e)
            y = torch.einsum("bhts,bhsf->bhtf", scores.softmax(-1), v)
        elif self.style == "bmm":
            flat = [z.reshape(-1, *z.shape[2:]) for z in (q, k, v)]
            scores = torch.bmm(flat[0], flat[1].transpose(1, 2)) / math.sqrt(self.e)
            y = torch.bmm(scores.softmax(-1), flat[2])
            y = y.view(x.shape[0], -1, *y.shape[1:])
        else:
            if self.scaling == "q":
                q = q * self.e**-0.5
            scores = q @ k.transpose(-2, -1)
            if self.scaling == "scores":
                scores = scores / math.sqrt(self.e)
            if self.style == "bias":
                scores = scores + self.table
            y = scores.softmax(-1) @ v
        y = self.o(y.transpose(1, 2).flatten(2))
        return x + y if self.residual else y


class GroupedQuery(Block):
    """Several query heads share one key head."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.e, self.share, kv = 2, rng.choice([2, 3]), rng.randint(1, 3)
        self.q = nn.Linear(d, kv * self.share * self.e)
        self.k, self.v = nn.Linear(d, kv * self.e), nn.Linear(d, kv * self.e)
        self.o = nn.Linear(kv * self.share * self.e, d)
        self.style = rng.choice(["repeat", "expand", "sdpa"])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (-1, self.e)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        if self.style == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return x + self.o(y.transpose(1, 2).flatten(2))
        if self.style == "repeat":
            k, v = (z.repeat_interleave(self.share, 1) for z in (k, v))
        else:
            k, v = (z[:, :, None].expand(-1, -1, self.share, -1, -1).flatten(1, 2) for z in (k, v))
        y = torch.softmax(q @ k.transpose(-2, -1), -1) @ v
        return x + self.o(y.transpose(1, 2).flatten(2))


class Cross(Block):
    """Queries are learned; keys and values come from the sequence."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.queries = nn.Parameter(torch.randn(1, t, d))
        self.k, self.v = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        q = self.queries.expand(x.shape[0], -1, -1)
        return x + torch.softmax(q @ self.k(x).transpose(1, 2), -1) @ self.v(x)


class TokenMixer(Block):
    """MLP-Mixer: a linear layer over time."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        m = rng.randint(2, 6)
        self.a, self.b = nn.Linear(t, m), nn.Linear(m, t)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.gelu(self.a(x.transpose(1, 2)))).transpose(1, 2)


class TimeConv(Block):
    """A 1-D convolution over time, channels first in between."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.out = rng.randint(3, 8)
        self.conv = nn.Conv1d(d, self.out, 3, padding=1)
        self.norm = rng.choice([nn.BatchNorm1d(self.out), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.transpose(1, 2))).transpose(1, 2)


class Einsum(Block):
    """Linear maps spelled as einsum, one of them per head."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        h, e, self.out = rng.randint(2, 3), rng.randint(2, 4), rng.randint(3, 6)
        self.a = nn.Parameter(torch.randn(d, h, e) / math.sqrt(d))
        self.b = nn.Parameter(torch.randn(h, e, e) / math.sqrt(e))
        self.c = nn.Parameter(torch.randn(h, e, self.out) / math.sqrt(h * e))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(torch.einsum("btd,dhe->bthe", x, self.a))
        y = torch.einsum("bthe,hef->bthf", y, self.b)
        return torch.einsum("bthf,hfo->bto", torch.tanh(y), self.c)


class Experts(Block):
    """A dense mixture: every expert runs, a softmax weighs them."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        n = rng.randint(2, 3)
        self.gate = nn.Linear(d, n)
        self.a = nn.ModuleList(nn.Linear(d, rng.randint(2, 5)) for _ in range(n))
        self.b = nn.ModuleList(nn.Linear(a.out_features, d) for a in self.a)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.gate(x).softmax(-1)
        parts = torch.stack([b(F.relu(a(x))) for a, b in zip(self.a, self.b, strict=True)], -1)
        return x + (parts * weight.unsqueeze(-2)).sum(-1)


class LowRank(Block):
    """A weight that is a product of two, and a linear layer with an adapter."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        r, self.out = rng.randint(2, 4), rng.randint(3, 6)
        self.a, self.b = nn.Parameter(torch.randn(r, d)), nn.Parameter(torch.randn(self.out, r))
        self.style = rng.choice(["weight", "adapter", "merged"])
        if self.style != "weight":
            self.base = nn.Linear(d, self.out)

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "weight":
            return F.linear(x, self.b @ self.a)
        if self.style == "merged":
            return F.linear(x, self.base.weight + self.b @ self.a, self.base.bias)
        return self.base(x) + x @ self.a.t() @ self.b.t()


class Tied(Block):
    """One matrix used in both directions, or twice."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        m = rng.randint(3, 7)
        self.w = nn.Parameter(torch.randn(m, d) / math.sqrt(d))
        self.bias = nn.Parameter(torch.randn(m))
        self.act = activation(rng)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.act(F.linear(x, self.w, self.bias)), self.w.t())


class TiedModules(Block):
    """Two modules hold one parameter."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.a, self.b = nn.Linear(d, d), nn.Linear(d, d)
        self.b.weight = self.a.weight
        self.pre = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(self.pre(x))))


BLOCKS: list[type[Block]] = [
    Mlp, Mlp, GatedMlp, Attention, Attention, Attention, GroupedQuery, Cross, TokenMixer, TimeConv,
    Einsum, Experts, LowRank, Tied, TiedModules,
]  # fmt: skip
