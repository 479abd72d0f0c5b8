"""Random blocks over feature maps [b, c, *space]: every coupling of channels a CNN may have."""

from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.structure.grouped_blocks import (
    Depthwise,
    Grouped,
    PixelShuffle,
    Shuffle,
    ShuffleUnit,
    TwiceGrouped,
)
from tests.structure.image_layers import ADAPTIVE, CONV, DECONV, MAX_POOL, Block, body, conv, norm


class Plain(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.out = rng.randint(3, 9)
        self.body = body(rng, rank, c, self.out)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Residual(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m = rng.randint(2, 7)
        self.a = body(rng, rank, c, m)
        self.b = nn.Sequential(conv(rng, rank, m, c), norm(rng, rank, c))
        self.style = rng.choice(["add", "iadd", "sub", "alpha", "stack"])

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        if self.style == "iadd":
            y += x
            return y
        if self.style == "sub":
            return x - y
        if self.style == "alpha":
            return torch.add(x, y, alpha=0.5)
        if self.style == "stack":
            return torch.stack([x, y]).sum(0)
        return x + y


class Projected(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.out = rng.randint(3, 9)
        self.a, self.b = conv(rng, rank, c, self.out), body(rng, rank, c, self.out)
        self.style = rng.choice(["add", "mul", "max", "gate", "where", "lerp"])

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        if self.style == "mul":
            return a * b
        if self.style == "max":
            return torch.maximum(a, b)
        if self.style == "gate":
            return a * torch.sigmoid(b)
        if self.style == "where":
            return torch.where(a > 0, a, b)
        if self.style == "lerp":
            return torch.lerp(a, b, 0.3)
        return a + b


class PaddedShortcut(Block):
    """Option A: the shortcut is padded with zero channels."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.before, self.after = rng.randint(0, 3), rng.randint(1, 3)
        self.out = c + self.before + self.after
        self.body = body(rng, rank, c, self.out)
        self.style = rng.choice(["pad", "cat"])

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "pad":
            y = F.pad(x, [0, 0] * self.rank + [self.before, self.after])
        else:
            low = x.new_zeros(x.shape[0], self.before, *x.shape[2:])
            high = x.new_zeros(x.shape[0], self.after, *x.shape[2:])
            y = torch.cat([low, x, high], 1)
        return self.body(x) + y


class Concat(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m, n = rng.randint(2, 5), rng.randint(2, 5)
        self.a, self.b = body(rng, rank, c, m), body(rng, rank, c, n)
        self.out = c + m + n
        self.order = rng.sample(range(3), 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x, self.a(x), self.b(x)]
        return torch.cat([parts[i] for i in self.order], dim=1)


class ConcatAdd(Block):
    """A concatenation meets another of other borders in an addition."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        sizes = [rng.randint(2, 5) for _ in range(2)]
        self.out = sum(sizes)
        cut = rng.randint(1, self.out - 1)
        self.parts = nn.ModuleList(conv(rng, rank, c, n) for n in sizes)
        self.others = nn.ModuleList(conv(rng, rank, c, n) for n in (cut, self.out - cut))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([p(x) for p in self.parts], 1) + torch.cat([p(x) for p in self.others], 1)


class SqueezeExcite(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m = rng.randint(2, 4)
        self.style = rng.choice(["conv", "linear", "mean", "channel"])
        make = CONV[rank] if self.style in ("conv", "mean") else nn.Linear
        extra = (1,) if self.style in ("conv", "mean") else ()
        self.a, self.b = make(c, m, *extra), make(m, c, *extra)

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "mean":
            s = x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
        else:
            s = ADAPTIVE[self.rank](x, 1)
        if self.style in ("linear", "channel"):
            s = s.flatten(1) if self.style == "linear" else s.view(x.size(0), x.size(1))
        s = torch.sigmoid(self.b(F.relu(self.a(s))))
        return x * s.view(s.shape[0], s.shape[1], *[1] * self.rank)


class Gated(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.out = rng.randint(2, 6)
        self.conv = conv(rng, rank, c, 2 * self.out)
        self.style = rng.choice(["glu", "chunk", "split", "slice", "tensor_split"])

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.style == "glu":
            return F.glu(y, 1)
        if self.style == "chunk":
            a, b = y.chunk(2, dim=1)
        elif self.style == "split":
            a, b = torch.split(y, y.shape[1] // 2, dim=1)
        elif self.style == "tensor_split":
            a, b = y.tensor_split(2, dim=1)
        else:
            half = y.shape[1] // 2
            a, b = y[:, :half], y[:, half:]
        return torch.tanh(a) * torch.sigmoid(b)


class Skip(Block):
    """U-Net: pooled, transformed, brought back up, concatenated with the skip."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m, n = rng.randint(3, 6), rng.randint(2, 5)
        self.down = body(rng, rank, c, m)
        self.style = rng.choice(["deconv", "nearest", "linear"])
        self.up = DECONV[rank](m, n, 2, stride=2) if self.style == "deconv" else None
        self.out = c + (n if self.up is not None else m)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(MAX_POOL[self.rank](x, 2))
        if self.up is not None:
            y = self.up(y)
        elif self.style == "nearest":
            y = F.interpolate(y, scale_factor=2)
        else:
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[self.rank]
            y = F.interpolate(y, size=x.shape[2:], mode=mode, align_corners=False)
        return torch.cat([x, y], 1)


class Unequal(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m, n = rng.randint(2, 4), rng.randint(5, 6)
        self.sizes = [m, n]
        self.conv = conv(rng, rank, c, m + n)
        self.out = rng.randint(3, 6)
        self.a, self.b = conv(rng, rank, m, self.out), conv(rng, rank, n, self.out)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.split(self.conv(x), self.sizes, dim=1)
        return self.a(a) + self.b(b)


class Shared(Block):
    """One module called twice, with its own norms or with the same."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.out = m = rng.randint(3, 7)
        self.first = conv(rng, rank, c, m)
        self.twice = conv(rng, rank, m, m)
        self.n = nn.ModuleList([norm(rng, rank, m), norm(rng, rank, m)])
        self.same = rng.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for i in range(2):
            y = torch.tanh(self.n[0 if self.same else i](self.twice(y)))
        return y


class SharedBranches(Block):
    """One module applied to two different inputs."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m, self.out = rng.randint(3, 6), rng.randint(2, 5)
        self.a, self.b = conv(rng, rank, c, m), body(rng, rank, c, m)
        self.head = conv(rng, rank, m, self.out)
        self.cat = rng.random() < 0.5
        self.out *= 2 if self.cat else 1

    def forward(self, x: Tensor) -> Tensor:
        p, q = self.head(self.a(x)), self.head(self.b(x))
        return torch.cat([p, q], 1) if self.cat else p - q


class Scaled(Block):
    """Layer scale, per-channel shift, a scalar gate."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.gamma = nn.Parameter(torch.randn(c, *[1] * rank))
        self.body = conv(rng, rank, c, c)
        self.style = rng.choice(["all", "buffer", "addcmul", "flat"])
        if self.style == "all":
            self.beta = nn.Parameter(torch.randn(1, c, *[1] * rank))
            self.gain = nn.Parameter(torch.randn(1))
        self.register_buffer("offset", torch.randn(c, *[1] * rank))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.style == "buffer":
            return x + self.gamma * (y - self.offset)
        if self.style == "addcmul":
            return torch.addcmul(x, self.gamma, y)
        if self.style == "flat":
            return x + y * self.gamma.view(1, -1, *[1] * self.rank)
        return x + self.gamma * y * self.gain + self.beta


class SpatialAttention(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.conv = CONV[rank](2, 1, 3, padding=1)
        self.next = conv(rng, rank, c, c)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.next(x) * torch.sigmoid(self.conv(both))


class ConvNext(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m = rng.randint(3, 8)
        self.dw = CONV[rank](c, c, 3, padding=1, groups=c)
        self.norm = nn.LayerNorm(c) if rng.random() < 0.5 else nn.Identity()
        self.a, self.b = nn.Linear(c, m), nn.Linear(m, c)
        self.gamma = nn.Parameter(torch.randn(c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dw(x).movedim(1, -1)
        y = self.b(F.gelu(self.a(self.norm(y)))) * self.gamma
        return x + y.movedim(-1, 1)


class Picked(Block):
    """Channels picked by position: slices, steps, rolls, flips, index lists."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m = rng.randint(5, 8)
        self.stem = body(rng, rank, c, m)
        self.style = rng.choice(["head", "step", "flip", "roll", "list", "split", "narrow"])
        sizes = {"head": 3, "step": (m + 1) // 2, "list": 3, "narrow": 2}
        self.out = rng.randint(3, 6)
        self.next = conv(rng, rank, sizes.get(self.style, m), self.out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        if self.style == "head":
            y = y[:, :3]
        elif self.style == "step":
            y = y[:, ::2]
        elif self.style == "flip":
            y = y.flip(1)
        elif self.style == "roll":
            y = y.roll(1, dims=1)
        elif self.style == "list":
            y = y[:, [0, 3, 1]]
        elif self.style == "narrow":
            y = y.narrow(1, 1, 2)
        elif self.style == "split":
            y = torch.cat([y[:, :2], y[:, 2:]], 1)
        return self.next(y)


class PixelAttention(Block):
    """Non-local block: 1x1 queries, keys, values over pixels."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m = rng.randint(2, 4)
        self.q, self.k, self.v = (CONV[rank](c, n, 1) for n in (m, m, c))
        self.gain = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).flatten(2) for f in (self.q, self.k, self.v))
        weight = torch.softmax(q.transpose(1, 2) @ k, dim=-1)
        return x + self.gain * (v @ weight.transpose(1, 2)).view_as(x)


class HalfInPlace(Block):
    """A residual written in place into a view of half of the channels."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m = rng.randint(2, 4)
        self.out = 2 * m
        self.stem = conv(rng, rank, c, self.out)
        self.style = rng.choice(["chunk", "setitem", "copy"])
        if self.style != "copy":
            self.part = conv(rng, rank, c, m)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x) * 1.0
        if self.style == "chunk":
            y.chunk(2, 1)[0].add_(self.part(x))
        elif self.style == "setitem":
            y[:, : y.shape[1] // 2] = self.part(x)
        else:
            z = torch.zeros_like(y)
            z.copy_(y)
            return z
        return y


BLOCKS: list[type[Block]] = [
    Plain, Residual, Projected, PaddedShortcut, Concat, ConcatAdd, SqueezeExcite, Gated, Shuffle,
    ShuffleUnit, PixelShuffle, Depthwise, Grouped, TwiceGrouped, Skip, Unequal, Shared,
    SharedBranches, Scaled, SpatialAttention, ConvNext, Picked, PixelAttention, HalfInPlace,
]  # fmt: skip
