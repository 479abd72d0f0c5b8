"""A small trained network, digits, and the evaluators the tests share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from rlprune import importance
from rlprune.budgets import resolve
from rlprune.compaction import discover
from rlprune.inputs import ExampleInputs
from rlprune.models import create
from rlprune.problem import DataQuality, Problem
from rlprune.space import Space
from rlprune.structure import Groups

INPUTS = torch.zeros(1, 1, 8, 8)


def digits() -> tuple[Tensor, Tensor]:
    """All 1797 digits, ``[N, 1, 8, 8]`` in [0, 1], and their labels."""
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)


def held_out(count: int = 200) -> tuple[Tensor, Tensor]:
    """Digits that the network was not trained on."""
    images, labels = digits()
    return images[-count:], labels[-count:]


@functools.cache
def network() -> nn.Module:
    """A residual digits network after two seconds of training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create("digits_cnn", num_classes=10)
    images, labels = digits()
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        chosen = torch.randint(0, 1500, (128,), generator=generator)
        loss = functional.cross_entropy(net(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@functools.cache
def groups() -> Groups:
    """The network's groups."""
    return discover(network(), INPUTS)


def tiles(model: nn.Module, example_inputs: ExampleInputs) -> int:
    """Tiles of 8 channels that the outputs of all convolutions fill."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return sum(-(-layer.out_channels // 8) for layer in layers)


def evaluator(budgets: Any = None, *, store: Path | None = None, **options: Any) -> Problem:
    """An evaluator of the digits network."""
    quality = options.pop("quality", None)
    quality = quality or DataQuality(network(), held_out(), precision="float32")
    found = options.pop("groups", None) or groups()
    scores = options.pop("scores", None) or importance.scores(found, "l1")
    space = Space(found, scores, tie=options.pop("tie", ()), depth=options.pop("depth", False))
    return Problem(
        space,
        resolve(budgets or {"macs": 0.5}, network(), INPUTS, found),
        quality,
        store=store,
        **options,
    )
