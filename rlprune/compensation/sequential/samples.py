"""Which samples and rows the layers of a network are fitted to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from rlprune.batches import Batch
from rlprune.inputs import batch_of, batch_size, call_safely, map_tensors
from rlprune.linear.patches import patch_corners, patches
from rlprune.linear.weights import Consumer
from rlprune.modes import evaluating
from rlprune.observe import Call, Watch, attention_mask


class Enough(Exception):  # noqa: N818
    """Ends a forward pass of which nothing more is needed."""


def largest_activations(network: nn.Module, inputs: Any, layers: Collection[str] = ()) -> int:
    """Bytes per sample that a forward pass needs at its widest layer.

    As much again as the layer's inputs and outputs is counted for shortcuts that wait meanwhile.

    Args:
        network: Any network.
        inputs: What it is called with; the first sample is run.
        layers: Only what runs until the last of these counts; empty for all.
    """
    sizes, last = [1], 0

    def note(seen: Call) -> None:
        nonlocal last
        leaves = tree_leaves((seen.args, seen.kwargs, seen.output))
        sizes.append(2 * sum(x.nbytes for x in leaves if isinstance(x, Tensor)))
        last = len(sizes) if not layers or seen.name in layers else last

    watch = Watch(network)
    for path, module in network.named_modules():
        if not list(module.children()):
            watch.module(path, after=note)
    with torch.no_grad(), evaluating(network), watch:
        call_safely(network, batch_of(inputs, 1))
    return max(sizes[: max(1, last)])


def joined(batches: Sequence[Batch], samples: int) -> Any:
    """The inputs of calibration batches as one batch.

    Sequences with an attention mask are padded to the longest.

    Args:
        batches: Calibration batches; those shaped unlike the first one are passed over.
        samples: Most samples to take.

    Returns:
        Inputs in the form of the first batch.
    """
    masks = [attention_mask(inputs) for inputs, _ in batches]
    longest = max((mask.shape[1] for mask in masks if mask is not None), default=0)
    every = [_padded(inputs, longest) for inputs, _ in batches]
    first, spec = tree_flatten(every[0])
    size = batch_size(every[0])
    per_sample = [isinstance(x, Tensor) and x.ndim > 0 and x.shape[0] == size for x in first]
    parts: list[list[Any]] = [[] for _ in first]
    count = 0
    for inputs in every:
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


def _padded(inputs: Any, length: int) -> Any:
    mask = attention_mask(inputs)
    if mask is None or mask.shape[1] == length:
        return inputs
    sequence, missing = mask.shape, length - mask.shape[1]

    def pad(x: Tensor) -> Tensor:
        if x.shape[:2] != sequence:
            return x
        return functional.pad(x, (*(0, 0) * (x.ndim - 2), 0, missing))

    return map_tensors(inputs, pad)


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
        rows: Rows wanted per layer, and at least 16 per input.
        mask: Positions that are no padding, [samples, positions]; None where all count.
        at: By layer the positions that were picked, the same in every sample.
        counted: By layer which of the rows count, [samples, picked]; None where all do.
    """

    consumers: Mapping[str, Consumer]
    batch: int
    rows: int
    mask: Tensor | None = None
    at: dict[str, Tensor] = field(default_factory=dict)
    counted: dict[str, Tensor | None] = field(default_factory=dict)

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
            mask = self._fitting(rows)
            held = rows.shape[0] if mask is None else float(mask.sum()) / max(1, rows.shape[1])
            count = max(1, round(max(self.rows, 16 * consumer.inputs) / max(1, held)))
            places = torch.arange(rows.shape[1])
            if len(places) > count:
                seed = list(self.consumers).index(name)
                generator = torch.Generator().manual_seed(seed)
                places = torch.randint(len(places), (count,), generator=generator)
            self.at[name] = places
            self.counted[name] = None if mask is None else mask[:, places.to(mask.device)]
        return rows[:, self.at[name].to(y.device)]

    def terms(self, name: str, value: Tensor) -> Tensor:
        """Rows of what has a layer's positions, such as what its output is added to."""
        return self._rows(name, value)[:, self.at[name].to(value.device)]

    def _fitting(self, rows: Tensor) -> Tensor | None:
        """The mask of rows [samples, positions, n]; None where all count."""
        if self.mask is None or rows[..., 0].numel() != self.mask.numel():
            return None
        return self.mask.to(rows.device).reshape(rows.shape[:2])

    def _rows(self, name: str, value: Tensor) -> Tensor:
        if isinstance(self.consumers[name].module, nn.modules.conv._ConvNd):
            value = value.movedim(1, -1)
        samples = value.shape[0] if value.ndim > 1 and value.shape[0] % self.batch == 0 else 1
        return value.reshape(samples, -1, value.shape[-1])
