"""What layers of the dense network answer, sampled as the compacted network's layers are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from rlprune.batches import Batch
from rlprune.compensation.bn import batch_norms
from rlprune.compensation.moments import Consumer, patch_corners, patches
from rlprune.inputs import batch_of, batch_size, call, map_tensors
from rlprune.modes import evaluating


def largest_activations(network: nn.Module, inputs: Any) -> int:
    """Bytes per sample that a forward pass needs at its widest layer.

    As much again as the layer's inputs and outputs is counted for shortcuts that wait meanwhile.

    Args:
        network: Any network.
        inputs: What it is called with; the first sample is run.
    """
    sizes = [1]

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        tensors = [x for x in tree_leaves((args, output)) if isinstance(x, Tensor)]
        sizes.append(2 * sum(tensor.nbytes for tensor in tensors))

    leaves = {name: hook for name, m in network.named_modules() if not list(m.children())}
    with torch.no_grad(), evaluating(network), hooked(network, leaves):
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
        return self._rows(name, x)[:, self.at[name].to(x.device)]

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

    def _rows(self, name: str, value: Tensor) -> Tensor:
        if isinstance(self.consumers[name].module, nn.modules.conv._ConvNd):
            value = value.movedim(1, -1)
        samples = value.shape[0] if value.ndim > 1 and value.shape[0] % self.batch == 0 else 1
        return value.reshape(samples, -1, value.shape[-1])


class Targets:
    """The dense network's outputs, a portion of its layers at a time.

    Attributes:
        order: Layers as they are executed.
        normalised: Layers whose output goes straight into batch normalisation, which takes off
            its mean.
        left_out: Layers that are not called as modules exactly once, with the reason.
    """

    def __init__(self, dense: nn.Module, inputs: Any, sampler: Sampler, memory: int) -> None:
        self._dense, self._inputs, self._sampler, self._memory = dense, inputs, sampler, memory
        self._kept: dict[str, Tensor] = {}
        self._size = 0
        self.order: list[str] = []
        self.normalised: set[str] = set()
        calls = self._explore()
        self.left_out = {
            name: "its module is not called by itself" if not count else "it is called repeatedly"
            for name, count in calls.items()
            if count != 1
        }
        self.order = [name for name in self.order if name not in self.left_out]
        for name in self.left_out.keys() & self._kept.keys():
            self._size -= self._kept.pop(name).nbytes

    def _explore(self) -> dict[str, int]:
        """Run the dense network a first time; how often each layer is called."""
        calls = dict.fromkeys(self._sampler.consumers, 0)
        latest: tuple[str, Any] = ("", None)

        def after(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                nonlocal latest
                latest = (name, output)
                calls[name] += 1
                if calls[name] == 1:
                    self.order.append(name)
                    self._keep(name, output)

            return hook

        def normalise(module: nn.Module, args: Any) -> None:
            if args and args[0] is latest[1]:
                self.normalised.add(latest[0])

        norms = {id(norm) for norm in batch_norms(self._dense)}
        paths = [name for name, module in self._dense.named_modules() if id(module) in norms]
        with hooked(self._dense, dict.fromkeys(paths, normalise), before=True):
            self._run({name: after(name) for name in calls})
        return calls

    def take(self, name: str) -> Tensor:
        """A layer's target rows, [samples, positions, outputs]; asked for once, in order."""
        if name not in self._kept:
            self._kept.clear()
            self._size = 0
            rest = self.order[self.order.index(name) :]

            def after(layer: str) -> Callable[..., None]:
                return lambda module, args, output: self._keep(layer, output)

            self._run({layer: after(layer) for layer in rest})
        found = self._kept.pop(name)
        self._size -= found.nbytes
        return found

    def _keep(self, name: str, output: Tensor) -> None:
        if self._kept and self._size >= self._memory:
            return
        rows = self._sampler.outputs(name, output.detach()).clone()
        self._kept[name] = rows
        self._size += rows.nbytes

    def _run(self, hooks: Mapping[str, Callable[..., None]]) -> None:
        with torch.no_grad(), evaluating(self._dense), hooked(self._dense, hooks):
            call(self._dense, self._inputs)


@contextmanager
def hooked(
    network: nn.Module, hooks: Mapping[str, Callable[..., None]], *, before: bool = False
) -> Iterator[None]:
    """Put forward hooks on modules by path, or hooks before the forward; taken off afterwards."""
    handles = []
    try:
        for name, hook in hooks.items():
            module = network.get_submodule(name)
            add = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(add(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()
