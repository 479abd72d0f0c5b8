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
from rlprune.compensation.sequential.sums import Sums, Term
from rlprune.inputs import batch_of, batch_size, call, map_tensors
from rlprune.linear.patches import patch_corners, patches
from rlprune.linear.weights import Consumer
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


class Targets:
    """What layers of the compacted network are to answer, a portion of the layers at a time.

    That is the dense layer's output or, where it is added to something (see `Sums`), the sum: what
    the layer has to answer so that the sum comes out right depends on what the compacted network
    adds it to.

    Attributes:
        order: Layers as they are executed.
        sums: The terms whose targets are sums, by layer.
        normalised: Layers whose output goes straight into batch normalisation, which takes off
            its mean.
        left_out: Layers that are not called as modules exactly once, with the reason.
    """

    def __init__(self, dense: nn.Module, inputs: Any, sampler: Sampler, memory: int) -> None:
        self._dense, self._inputs, self._sampler, self._memory = dense, inputs, sampler, memory
        self._kept: dict[str, Tensor] = {}
        self._size = 0
        self.order: list[str] = []
        self.sums: dict[str, Term] = {}
        calls, seen = self._explore()
        self.normalised = seen.normalised
        self.left_out = {
            name: "its module is not called by itself" if not count else "it is called repeatedly"
            for name, count in calls.items()
            if count != 1
        }
        self.order = [name for name in self.order if name not in self.left_out]
        for name, term in list(self.sums.items()):
            if name in self.left_out or (term.norm is not None and not self._own(term.norm, seen)):
                del self.sums[name]
                self._forget(name)
        for name in self.left_out:
            self._forget(name)

    def _own(self, norm: str, seen: Sums) -> bool:
        """Whether a batch normalisation has a scale of its own and serves one layer alone."""
        layer = self._dense.get_submodule(norm)
        shares = [m for m in self._dense.modules() if getattr(m, "weight", None) is layer.weight]
        return layer.weight is not None and seen.calls[norm] == 1 and len(shares) == 1

    def prefer(self, name: str) -> float:
        """Which of two layers that are added has its target corrected: the one that reads more."""
        return self._sampler.consumers[name].inputs

    def _explore(self) -> tuple[dict[str, int], Sums]:
        """Run the dense network a first time; how often each layer is called, and the sums."""
        calls = dict.fromkeys(self._sampler.consumers, 0)

        def after(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                calls[name] += 1
                if calls[name] == 1:
                    self.order.append(name)
                    self._keep(name, output)

            return hook

        def total(term: Term, value: Tensor) -> None:
            if term.layer not in self.sums:
                self.sums[term.layer] = term
                self._replace(term.layer, value)

        sums = Sums(self._dense, calls.keys(), self.prefer, result=total)
        self._run({name: after(name) for name in calls}, sums)
        return calls, sums

    def take(self, name: str) -> Tensor:
        """A layer's target rows, [samples, positions, outputs]; asked for once."""
        if name not in self._kept:
            self._kept.clear()
            self._size = 0
            rest = self.order[self.order.index(name) :]
            summed: set[str] = set()

            def after(layer: str) -> Callable[..., None]:
                return lambda module, args, output: self._keep(layer, output)

            def total(term: Term, value: Tensor) -> None:
                if self.sums.get(term.layer) == term and term.layer not in summed:
                    summed.add(term.layer)
                    self._replace(term.layer, value)

            sums = Sums(self._dense, set(rest), self.prefer, result=total)
            self._run({layer: after(layer) for layer in rest}, sums)
        found = self._kept[name]
        self._forget(name)
        return found

    def _keep(self, name: str, output: Tensor) -> None:
        if self._kept and self._size >= self._memory:
            return
        rows = self._sampler.outputs(name, output.detach()).clone()
        self._kept[name] = rows
        self._size += rows.nbytes

    def _replace(self, name: str, total: Tensor) -> None:
        """Keep the rows of a sum in place of the layer's own, if those were kept."""
        if name in self._kept:
            self._kept[name] = self._sampler.outputs(name, total.detach()).clone()

    def _forget(self, name: str) -> None:
        if name in self._kept:
            self._size -= self._kept.pop(name).nbytes

    def _run(self, hooks: Mapping[str, Callable[..., None]], sums: Sums) -> None:
        with torch.no_grad(), evaluating(self._dense), hooked(self._dense, hooks), sums:
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
