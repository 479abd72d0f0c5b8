"""Random blocks over feature maps [b, c, *space] whose channels are grouped or shuffled."""

from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.structure.image_layers import CONV, DECONV, Block, body, conv, norm


class Shuffle(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.g = rng.choice([2, 3])
        each = rng.randint(self.g + 1, self.g + 3)
        self.out = self.g * each
        self.conv = conv(rng, rank, c, self.out, groups=1)
        self.next = CONV[rank](self.out, self.out, 3, padding=1, groups=self.g)
        self.style = rng.choice(["view", "op"])

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.style == "op":
            y = F.channel_shuffle(y, self.g)
        else:
            b, c, *space = y.shape
            y = y.view(b, self.g, c // self.g, *space).transpose(1, 2).reshape(b, c, *space)
        return self.next(y)


class ShuffleUnit(Block):
    """ShuffleNet v2: half the channels pass, half are computed, then they are shuffled."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m = rng.randint(2, 5)
        self.out = 2 * m
        self.stem = conv(rng, rank, c, self.out)
        self.branch = body(rng, rank, m, m)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).chunk(2, dim=1)
        y = torch.cat((a, self.branch(b)), dim=1)
        n, c, *space = y.shape
        return y.view(n, 2, c // 2, *space).transpose(1, 2).contiguous().view(n, -1, *space)


class PixelShuffle(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, 2, c)
        self.out = rng.randint(2, 4)
        self.up = nn.Conv2d(c, 4 * self.out, 3, padding=1)
        self.down = rng.choice(["pool", "unshuffle"])
        if self.down == "unshuffle":
            self.mid = nn.Conv2d(self.out, self.out, 1)
            self.out *= 4

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            return x.repeat(1, 1, *[1] * (x.ndim - 2))
        y = F.pixel_shuffle(self.up(x), 2)
        return F.avg_pool2d(y, 2) if self.down == "pool" else F.pixel_unshuffle(self.mid(y), 2)


class Depthwise(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        m, times = rng.randint(3, 8), rng.choice([1, 1, 2, 3])
        self.a = body(rng, rank, c, m)
        make = DECONV if rng.random() < 0.2 else CONV
        self.dw = make[rank](m, m * times, 3, padding=1, groups=m, bias=rng.random() < 0.5)
        self.n = norm(rng, rank, m * times)
        self.out = rng.randint(3, 8)
        self.b = conv(rng, rank, m * times, self.out)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu6(self.n(self.dw(self.a(x)))))


class Grouped(Block):
    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        g = rng.choice([2, 2, 3, 4])
        i, o = rng.randint(1, 5), rng.randint(1, 5)
        self.a = body(rng, rank, c, g * i)
        self.grouped = conv(rng, rank, g * i, g * o, groups=g)
        self.n = norm(rng, rank, g * o)
        self.out = g * o
        self.residual = i == o and rng.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = self.n(self.grouped(y))
        return y + z if self.residual else z


class TwiceGrouped(Block):
    """Grouped convolutions of different group counts in a row."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.out = rng.choice([12, 24])
        self.a = conv(rng, rank, c, self.out)
        g, h = rng.choice([(2, 3), (2, 4), (3, 6), (4, 12), (12, 2)])
        self.b = CONV[rank](self.out, self.out, 1, groups=g)
        self.c = CONV[rank](self.out, self.out, 1, groups=h)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(self.a(x))))
