"""Black boxes that searches are compared on: costs that have no formula here, as of a user's own.

By dotted path, as in ``configs/experiment/black_box_tiles.yaml``. Each runs the network once and
looks at its convolutions and linear layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlprune.inputs import ExampleInputs, call
from rlprune.observe import Call, Watch


@dataclass(frozen=True)
class _Layer:
    """What a layer does for one sample.

    Attributes:
        read: channels or features that it reads.
        written: those that it writes.
        kernel: weights for each pair of them.
        places: positions that it writes.
        inputs: elements that it reads.
    """

    read: int
    written: int
    kernel: int
    places: int
    inputs: int

    @property
    def weights(self) -> int:
        """Weights, the bias left out."""
        return self.read * self.written * self.kernel

    @property
    def outputs(self) -> int:
        """Elements that it writes."""
        return self.written * self.places

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.weights * self.places


def tiles(model: nn.Module, example_inputs: ExampleInputs, side: int = 8) -> float:
    """Products of tiles that a matrix unit of ``side`` x ``side`` works off."""
    return float(
        sum(
            math.ceil(layer.read / side) * math.ceil(layer.written / side)
            * layer.kernel * layer.places
            for layer in _layers(model, example_inputs)
        )
    )  # fmt: skip


def energy(model: nn.Module, example_inputs: ExampleInputs, cache: int = 8192) -> float:
    """MACs, 50 a word of weights, ten times that in layers beyond ``cache`` words, 6 an output."""
    return float(
        sum(
            layer.macs + 50 * layer.weights * (10 if layer.weights > cache else 1)
            + 6 * layer.outputs
            for layer in _layers(model, example_inputs)
        )
    )  # fmt: skip


def working_set(model: nn.Module, example_inputs: ExampleInputs) -> float:
    """The most elements that any layer reads, writes and holds together."""
    return float(
        max(
            layer.inputs + layer.outputs + layer.weights for layer in _layers(model, example_inputs)
        )
    )


def _layers(model: nn.Module, example_inputs: ExampleInputs) -> Iterator[_Layer]:
    found: list[_Layer] = []

    def note(seen: Call) -> None:
        layer: Any = seen.module
        given = seen.args[0]
        samples = given.shape[0]
        if isinstance(layer, nn.Linear):
            read, written, kernel = layer.in_features, layer.out_features, 1
        else:
            read, written = layer.in_channels // layer.groups, layer.out_channels
            kernel = math.prod(layer.kernel_size)
        places = seen.output.numel() // (samples * written)
        found.append(_Layer(read, written, kernel, places, given.numel() // samples))

    watch = Watch(model)
    for path, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            watch.module(path, after=note)
    with torch.no_grad(), watch:
        call(model, example_inputs)
    yield from found
