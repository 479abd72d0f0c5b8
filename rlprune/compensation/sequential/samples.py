"""Which samples and rows the layers of a network are fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from rlprune.batches import Batch
from rlprune.inputs import batch_of, batch_size, call, map_tensors
from rlprune.linear.patches import patch_corners, patches
from rlprune.linear.weights import Consumer
from rlprune.modes import evaluating
from rlprune.observe import Call, Watch


def largest_activations(network: nn.Module, inputs: Any) -> int:
    """Bytes per sample that a forward pass needs at its widest layer.

    As much again as the layer's inputs and outputs is counted for shortcuts that wait meanwhile.

    Args:
        network: Any network.
        inputs: What it is called with; the first sample is run.
    """
    sizes = [1]

    def note(seen: Call) -> None:
        leaves = tree_leaves((seen.args, seen.kwargs, seen.output))
        sizes.append(2 * sum(x.nbytes for x in leaves if isinstance(x, Tensor)))

    watch = Watch(network)
    for path, module in network.named_modules():
        if not list(module.children()):
            watch.module(path, after=note)
    with torch.no_grad(), evaluating(network), watch:
        call(network, batch_of(inputs, 1))
    return max(sizes)


def joined(batches: Sequence[Batch], samples: int) -> Any:
    """The inputs of calibration batches as one batch.

    Args:
        batches: Calibration batches; those shaped unlike the first one are passed over.
        samples: Most samples to take.

    Returns:
        Inputs in the form of the first batch.
    """
    first, spec = tree_flatten(batches[0][0])
    size = batch_size(batches[0][0])
    per_sample = [isinstance(x, Tensor) and x.ndim > 0 and x.shape[0] == size for x in first]
    parts: list[list[Any]] = [[] for _ in first]
    count = 0
    for inputs, _ in batches:
        leaves, found = tree_flatten(inputs)
        like = found == spec and all(
            leaf.shape[1:] == model.shape[1:]
            for leaf, model, own in zip(leaves, first, per_sample, strict=True)
            if own
        )
        if not like or count >= samples:
            continue
        for part, leaf, own in zip(parts, leaves, per_sample, strict=True):
            part.append(leaf[: samples - count] if own else leaf)
        count += batch_size(inputs)
    leaves = [torch.cat(p) if own else p[0] for p, own in zip(parts, per_sample, strict=True)]
    return tree_unflatten(leaves, spec)


def part_of(inputs: Any, part: slice) -> Any:
    """Some of the samples of a batch."""
    size = batch_size(inputs)
    return map_tensors(inputs, lambda x: x[part] if x.ndim and x.shape[0] == size else x)


@dataclass
class Sampler:
    """Picks the same rows of a layer's inputs and outputs in both networks.

    Attributes:
        consumers: The compacted network's layers.
        batch: Samples in the batch.
        rows: Rows wanted per layer.
    """

    consumers: Mapping[str, Consumer]
    batch: int
    rows: int
    at: dict[str, Tensor] = field(default_factory=dict)

    def inputs(self, name: str, x: Tensor) -> Tensor:
        """Rows of a layer's input, [samples, positions, inputs]."""
        consumer = self.consumers[name]
        if consumer.form == "patches":
            assert isinstance(consumer.module, nn.Conv2d)
            return patches(
                consumer.module, x, patch_corners(consumer.module, x.shape)[self.at[name]]
            )
        return self.terms(name, x)

    def outputs(self, name: str, y: Tensor) -> Tensor:
        """Rows of a layer's output, [samples, positions, outputs]; decides which."""
        rows = self._rows(name, y)
        if name not in self.at:
            consumer = self.consumers[name]
            count = max(1, round(max(self.rows, 16 * consumer.inputs) / rows.shape[0]))
            places = torch.arange(rows.shape[1])
            if len(places) > count:
                seed = list(self.consumers).index(name)
                generator = torch.Generator().manual_seed(seed)
                places = torch.randint(len(places), (count,), generator=generator)
            self.at[name] = places
        return rows[:, self.at[name].to(y.device)]

    def terms(self, name: str, value: Tensor) -> Tensor:
        """Rows of what has a layer's positions, such as what its output is added to."""
        return self._rows(name, value)[:, self.at[name].to(value.device)]

    def _rows(self, name: str, value: Tensor) -> Tensor:
        if isinstance(self.consumers[name].module, nn.modules.conv._ConvNd):
            value = value.movedim(1, -1)
        samples = value.shape[0] if value.ndim > 1 and value.shape[0] % self.batch == 0 else 1
        return value.reshape(samples, -1, value.shape[-1])
