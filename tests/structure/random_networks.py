"""Random small networks and random plans, from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.plan import Plan
from rlprune.structure import Groups
from tests.structure import image_blocks, image_layers, sequence_blocks
from tests.structure.image_layers import AVG_POOL, BATCH_NORM, activation, conv


@dataclass(frozen=True)
class Network:
    """A random network in float64 and what it is called with."""

    model: nn.Module
    inputs: Any


class ImageNetwork(nn.Module):
    """Blocks over feature maps, then a flattening or pooling MLP head."""

    def __init__(self, rng: Random, rank: int, c: int, size: int) -> None:
        super().__init__()
        self.rank, width = rank, rng.randint(3, 6)
        self.stem = conv(rng, rank, c, width)
        self.blocks = nn.ModuleList()
        for _ in range(rng.randint(1, 4)):
            kinds = [k for k in image_blocks.BLOCKS if rank == 2 or k.__name__ != "PixelShuffle"]
            block = rng.choice(kinds)(rng, rank, width)
            self.blocks.append(block)
            width = block.out
        self.head = rng.choice(["flatten", "pool", "reshape", "conv"])
        self.pool = rng.random() < 0.6
        side = size // 2 if self.pool else size
        features = width if self.head in ("pool", "conv") else width * side**rank
        hidden = rng.randint(3, 6)
        if self.head == "conv":
            self.last = image_layers.CONV[rank](width, 3, 1)
            return
        self.norm = nn.BatchNorm1d(features) if rng.random() < 0.3 else nn.Identity()
        self.hidden = nn.Linear(features, hidden)
        self.act = activation(rng)
        self.out = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        if self.pool:
            x = AVG_POOL[self.rank](x, 2)
        if self.head == "conv":
            return {"map": self.last(x)}
        if self.head == "pool":
            x = x.mean(dim=tuple(range(2, x.ndim)))
        elif self.head == "reshape":
            x = x.reshape(x.size(0), -1)
        else:
            x = torch.flatten(x, 1)
        return self.out(self.act(self.hidden(self.norm(x))))


class SequenceNetwork(nn.Module):
    """An embedding or projection, blocks over tokens, a head."""

    def __init__(self, rng: Random, t: int, kind: str, c: int) -> None:
        super().__init__()
        d = rng.choice([4, 5, 6, 8])
        self.kind = kind
        if kind == "tokens":
            self.embed: nn.Module = nn.Embedding(11, d)
        elif kind == "features":
            self.embed = nn.Linear(c, d)
        else:
            self.embed = nn.Conv2d(c, d, 2, stride=2)
        self.cls = nn.Parameter(torch.randn(1, 1, d)) if rng.random() < 0.4 else None
        t += self.cls is not None
        self.position = rng.choice(["none", "learned", "embedding", "constant"])
        if self.position == "learned":
            self.pos = nn.Parameter(torch.randn(1, t, d))
        elif self.position == "embedding":
            self.table = nn.Embedding(t, d)
        self.blocks = nn.ModuleList()
        for _ in range(rng.randint(1, 3)):
            block = rng.choice(sequence_blocks.BLOCKS)(rng, t, d)
            self.blocks.append(block)
            d = block.out
        self.norm = sequence_blocks.norm(rng, d)
        self.head = rng.choice(["mean", "first", "all", "flatten", "max"])
        self.out = nn.Linear(d * t if self.head == "flatten" else d, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        if self.kind == "patches":
            x = x.flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        if self.position == "learned":
            x = x + self.pos
        elif self.position == "embedding":
            x = x + self.table(torch.arange(x.shape[1]))
        elif self.position == "constant":
            x = x + torch.linspace(0, 1, x.shape[1], dtype=x.dtype)[:, None]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.head == "mean":
            x = x.mean(1)
        elif self.head == "first":
            x = x[:, 0]
        elif self.head == "flatten":
            x = x.flatten(1)
        elif self.head == "max":
            x = x.max(1).values
        return (self.out(x),)


class VectorNetwork(nn.Module):
    """MLPs with branches, products, concatenations, and reshapes into maps and back."""

    def __init__(self, rng: Random, c: int) -> None:
        super().__init__()
        n, m = rng.randint(3, 8), rng.randint(3, 8)
        self.a, self.b = nn.Linear(c, n), nn.Linear(c, n)
        self.n = rng.choice([nn.BatchNorm1d(n), nn.LayerNorm(n), nn.Identity()])
        self.act = activation(rng)
        self.style = rng.choice(["add", "mul", "cat", "glu", "maxout", "map", "outer", "bilinear"])
        width = {"cat": 2 * n, "glu": m, "maxout": m, "map": m, "outer": n * n}.get(self.style, n)
        if self.style in ("map", "glu", "maxout"):
            self.c = nn.Linear(n, 4 * m if self.style == "map" else 2 * m)
        if self.style == "map":
            self.conv = nn.Conv2d(m, m, 3, padding=1)
        if self.style == "bilinear":
            self.bilinear = nn.Bilinear(n, n, n)
        self.d = nn.Linear(width, m)
        self.out = nn.Linear(m, 3)

    def forward(self, x: Tensor) -> Any:
        a, b = self.act(self.n(self.a(x))), torch.tanh(self.b(x))
        if self.style == "add":
            y = a + b
        elif self.style == "mul":
            y = a * b
        elif self.style == "cat":
            y = torch.cat([a, b], 1)
        elif self.style == "glu":
            y = F.glu(self.c(a))
        elif self.style == "maxout":
            y = self.c(a).unflatten(1, (2, -1)).amax(1)
        elif self.style == "map":
            y = self.conv(self.c(a).view(x.shape[0], -1, 2, 2)).amax((2, 3))
        elif self.style == "outer":
            y = (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1)
        else:
            y = self.bilinear(a, b)
        return self.out(F.relu(self.d(y)))


def random_network(seed: int) -> Network:
    """The network of a seed: same seed, same network."""
    rng = Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = rng.choice(["image", "image", "image", "sequence", "sequence", "vector"])
        c = rng.randint(1, 4)
        if kind == "image":
            rank = rng.choice([1, 2, 2, 2, 3])
            size = {1: 8, 2: 6, 3: 4}[rank]
            model: nn.Module = ImageNetwork(rng, rank, c, size)
            inputs: Any = torch.randn(2, c, *[size] * rank, dtype=torch.float64)
        elif kind == "sequence":
            style = rng.choice(["tokens", "features", "patches"])
            t = 4 if style == "patches" else rng.randint(3, 5)
            model = SequenceNetwork(rng, t, style, c)
            if style == "tokens":
                inputs = torch.randint(11, (2, t))
            elif style == "features":
                inputs = torch.randn(2, t, c, dtype=torch.float64)
            else:
                inputs = torch.randn(2, c, 4, 4, dtype=torch.float64)
        else:
            c = rng.randint(2, 5)
            model = VectorNetwork(rng, c)
            inputs = torch.randn(3, c, dtype=torch.float64)
        model = model.double()
        _stir(model)
        if rng.random() < 0.5:
            model.eval()
    inputs = {"x": inputs} if rng.random() < 0.2 else inputs
    return Network(model, inputs)


def _stir(model: nn.Module) -> None:
    """Give every normalisation statistics and affine parameters of its own per channel."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, tuple(BATCH_NORM.values())):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, (*BATCH_NORM.values(), nn.GroupNorm, nn.LayerNorm)):
                for parameter in module.parameters():
                    parameter.uniform_(0.5, 1.5)


def random_plan(groups: Groups, seed: int) -> Plan:
    """Random legal widths and random units; now and then the smallest, or one group alone."""
    rng = Random(seed)
    generator = torch.Generator().manual_seed(seed)
    style = rng.choice(["any", "any", "any", "smallest", "one"])
    alone = rng.randrange(max(len(groups.prunable), 1))
    widths = []
    for i, group in enumerate(groups.prunable):
        legal = group.legal_widths()
        if style == "smallest":
            widths.append(legal[0])
        elif style == "one" and i != alone:
            widths.append(group.width)
        else:
            widths.append(rng.choice(legal))
    scores = {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}
    return Plan.from_widths(groups, widths, scores)
