"""Random blocks over feature maps [b, c, 8, 8] whose ops networks meet now and then."""

from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d, roi_align

from tests.structure.image_layers import Block, activation

SIDE = 8


class FromVector(Block):
    """DCGAN's first layers: a linear layer, its outputs seen as a map, batch normalisation."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.out = rng.randint(2, 5)
        self.linear = nn.Linear(c, self.out * 16)
        self.norm = rng.choice([nn.BatchNorm2d(self.out), nn.BatchNorm2d(self.out, affine=False)])
        self.act = activation(rng)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.mean((2, 3))).view(x.shape[0], -1, 4, 4)
        return F.interpolate(self.act(self.norm(x)), size=SIDE)


class ReshapedInPlace(Block):
    """Dimensions come, go and change places in place."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.linear = nn.Linear(c, c)
        self.out = c

    def forward(self, x: Tensor) -> Tensor:
        h = x.clone().unsqueeze_(1).squeeze_(1).transpose_(1, 3)
        h = F.relu(self.linear(h)).transpose_(1, 3)
        return h.unsqueeze_(0).squeeze_(0)


class Written(Block):
    """Values written by mask or by number, into activations or a new tensor."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.style = rng.choice(["mask", "rows", "cell", "new", "add"])
        if self.style in ("mask", "cell"):
            self.token = nn.Parameter(torch.randn(c))
        elif self.style == "rows":
            self.rows = nn.Parameter(torch.randn(2, SIDE, c))

    def forward(self, x: Tensor) -> Tensor:
        h = x.permute(0, 2, 3, 1).contiguous()
        rows = torch.tensor([3, 5])
        if self.style == "mask":
            h[torch.ones(h.shape[:3], dtype=torch.bool).tril()] = self.token
        elif self.style == "rows":
            h[:, rows] = self.rows
        elif self.style == "cell":
            h[:, rows, :, :] = 0.0
            h[:, rows, rows] = self.token
        elif self.style == "new":
            other = torch.zeros_like(h)
            other[:, rows] = h[:, rows.flip(0)]
            h = other
        else:
            h.index_put_((torch.tensor([0, 0]),), h[1].clone(), accumulate=True)
        return h.permute(0, 3, 1, 2)


class Scattered(Block):
    """Tokens added into cells by number, as point clouds and graphs do, and read back."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.style = rng.choice(["add", "mean", "set"])

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(2).transpose(1, 2)
        cell = (torch.arange(h.shape[1]) * 7 % 5)[None, :, None].expand_as(h)
        cells = h.new_zeros(h.shape[0], 5, h.shape[2])
        if self.style == "add":
            cells = cells.scatter_add(1, cell, h)
        elif self.style == "mean":
            cells.scatter_reduce_(1, cell, h, "mean")
        else:
            few = h[:, :5]
            cells.scatter_(1, (torch.arange(5) * 2 % 5)[None, :, None].expand_as(few), few)
        return cells.gather(1, cell).transpose(1, 2).reshape(x.shape)


class Folded(Block):
    """Patches transformed and put back, overlapping or not."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.stride = rng.choice([1, 2])
        self.out = rng.randint(2, 4)
        self.linear = nn.Linear(c * 4, self.out * 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, 2, stride=self.stride)
        patches = self.linear(patches.transpose(1, 2)).transpose(1, 2)
        return F.fold(patches, (SIDE, SIDE), 2, stride=self.stride)


class Fourier(Block):
    """GFNet's filter: every channel's spectrum times complex weights; or FNet's mixing."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.style = rng.choice(["filter", "mix", "plain"])
        if self.style == "filter":
            self.weight = nn.Parameter(torch.randn(c, SIDE, SIDE // 2 + 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "mix":
            return torch.fft.fft2(x).real
        spectrum = torch.fft.rfft2(x, norm="ortho")
        if self.style == "filter":
            spectrum = spectrum * torch.view_as_complex(self.weight)
        return torch.fft.irfft2(spectrum, s=(SIDE, SIDE), norm="ortho")


class Deformed(Block):
    """Deformable convolution, with and without mask and bias."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.out = rng.randint(3, 6)
        self.offset = nn.Conv2d(c, 18, 3, padding=1)
        self.mask = nn.Conv2d(c, 9, 3, padding=1) if rng.random() < 0.5 else None
        self.conv = DeformConv2d(c, self.out, 3, padding=1, bias=rng.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        mask = None if self.mask is None else self.mask(x).sigmoid()
        return F.relu(self.conv(x, self.offset(x), mask))


class Regions(Block):
    """Regions of interest of a feature map, brought to one size."""

    def forward(self, x: Tensor) -> Tensor:
        box = torch.tensor([[0.5, 0.5, 6.5, 7.0]], dtype=x.dtype)
        return x + roi_align(x, [box] * x.shape[0], (SIDE, SIDE))


class WeightNormed(Block):
    """A layer with weight normalisation between plain ones: its rows may go, its inputs stay."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        conv = nn.Conv2d(c, rng.randint(3, 6), 3, padding=1, bias=rng.random() < 0.5)
        self.normed = nn.utils.parametrizations.weight_norm(conv)
        self.out = rng.randint(3, 6)
        self.plain = nn.Conv2d(conv.out_channels, self.out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(F.relu(self.normed(x)))


class Ordered(Block):
    """Running extremes, order statistics, triangles and turns of the map."""

    def __init__(self, rng: Random, rank: int, c: int) -> None:
        super().__init__(rng, rank, c)
        self.style = rng.choice(["cummax", "kth", "mode", "aminmax", "tril", "turn", "rrelu"])

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "cummax":
            return torch.cummax(x, 2).values + torch.cummin(x, 3)[0] + torch.logcumsumexp(x, 2)
        if self.style == "kth":
            return x - x.kthvalue(3, dim=3, keepdim=True).values
        if self.style == "mode":
            return x - x.mode(dim=2, keepdim=True).values
        if self.style == "aminmax":
            low, high = torch.aminmax(x, dim=3, keepdim=True)
            return (x - low) / (high - low + 1)
        if self.style == "tril":
            return x.tril() - x.triu(1)
        return F.rrelu(x) if self.style == "rrelu" else torch.rot90(x, 1, (2, 3))


BLOCKS: list[type[Block]] = [
    FromVector, ReshapedInPlace, Written, Scattered, Folded, Fourier, Deformed, Regions,
    WeightNormed, Ordered,
]  # fmt: skip
