"""Deterministic metrics of a network and the budgets built on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn

from rlprune.budgets.base import CostFunction, Estimate
from rlprune.budgets.holders import BY_MACS, Holders
from rlprune.budgets.metric import METRICS, Metric
from rlprune.budgets.tracing import LifetimeRun, ShapeRun, run_shapes
from rlprune.budgets.units import BYTES, MACS, PARAMETERS
from rlprune.errors import BudgetError
from rlprune.inputs import ExampleInputs, at_length, batch_of, batch_size, map_tensors
from rlprune.once import Once

if TYPE_CHECKING:
    from rlprune.structure import Groups


def count_macs(model: nn.Module, example_inputs: ExampleInputs) -> float:
    """Multiply-accumulates of one sample's forward pass.

    Counts what convolutions, linear layers, matrix products, scaled dot-product attention and
    recurrent layers multiply; biases, normalisation, activations and pooling count as nothing.
    The arithmetic itself is skipped, so the cost is that of Python and element-wise work.

    Args:
        model: The network; its training flags are left as they were.
        example_inputs: What it is called with; the count is divided by their batch size.

    Returns:
        Multiply-accumulates per sample.
    """
    run = ShapeRun()
    run_shapes(run, model, example_inputs)
    return run.macs / batch_size(example_inputs)


def count_params(model: nn.Module, example_inputs: ExampleInputs | None = None) -> float:
    """Number of parameters; a parameter shared by several modules counts once."""
    return float(sum(parameter.numel() for parameter in model.parameters()))


def count_bytes(model: nn.Module, example_inputs: ExampleInputs | None = None) -> float:
    """Bytes of parameters and buffers (normalisation statistics included), shared ones once."""
    tensors = {id(item): item for item in (*model.parameters(), *model.buffers())}
    return float(sum(item.numel() * item.element_size() for item in tensors.values()))


def peak_memory(model: nn.Module, example_inputs: ExampleInputs) -> float:
    """Largest number of activation bytes alive at once in one eval-mode forward.

    Follows the storages of the inputs and of every operator's result from birth to release.
    Parameters and buffers, and scratch space inside an operator, do not count.

    Args:
        model: The network; its training flags are left as they were.
        example_inputs: What it is called with, at the batch size of interest.

    Returns:
        Bytes; the same number on every run.
    """
    inputs = map_tensors(example_inputs, torch.clone)
    run = LifetimeRun(model, inputs)
    run_shapes(run, model, inputs)
    return float(run.peak)


def byte_estimate(groups: Groups) -> Estimate:
    """The exact size of parameters and buffers as a function of the widths.

    Args:
        groups: The network's groups.

    Returns:
        Widths of the prunable groups -> bytes; what lies in a branch of width 0 has none.
    """
    tensors = {id(tensor): (name, tensor) for name, tensor in reversed(groups.tensors.items())}
    column = {group.name: at for at, group in enumerate(groups.prunable)}
    per_unit: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
    for group in groups.prunable:
        for part in groups.slices(group):
            step = (column[group.name], group.width, part.index.shape[1])
            per_unit.setdefault((part.tensor, part.dim), []).append(step)
    sizes = []
    for name, tensor in tensors.values():
        names = groups.aliases.get(name, (name,))
        dims = [
            (size, next((per_unit[n, dim] for n in names if (n, dim) in per_unit), []))
            for dim, size in enumerate(tensor.shape)
        ]
        sizes.append(_Size(names, tensor.element_size(), dims))

    def by_branch() -> list[tuple[int, _Sum]]:
        """First column of every branch, -1 for none, and what it holds."""
        parts: dict[int, list[_Size]] = {}
        for size in sizes:
            inside = (b for b in groups.branches.values() if b.tensors.issuperset(size.names))
            first = next((min(column[g] for g in b.groups) for b in inside), -1)
            parts.setdefault(first, []).append(size)
        return [(first, _Sum(part)) for first, part in parts.items()]

    whole, parts = _Sum(sizes), Once(by_branch)

    def total(columns: Sequence[Any] | np.ndarray) -> Any:
        if np.all(columns):
            return whole(columns)
        return sum(
            part(columns) * (1 if first < 0 else columns[first] != 0) for first, part in parts()
        )

    return Estimate(
        one=lambda widths: float(total(widths)),
        many=lambda widths: np.broadcast_to(total(widths.T.astype(np.float64)), len(widths)),
    )


@dataclass(frozen=True)
class _Size:
    """Bytes of one tensor.

    Attributes:
        names: its state-dict names.
        element: bytes of an entry.
        dims: dense length of every dimension, and (column, dense width, positions per unit) of the
            groups that index it.
    """

    names: tuple[str, ...]
    element: int
    dims: list[tuple[int, list[tuple[int, int, int]]]]

    @property
    def varies(self) -> bool:
        return any(steps for _, steps in self.dims)

    def __call__(self, columns: Sequence[Any] | np.ndarray) -> Any:
        product: Any = self.element
        for length, steps in self.dims:
            gone = sum((dense - columns[at]) * unit for at, dense, unit in steps)
            product = product * (length - gone)
        return product


class _Sum:
    """Bytes of several tensors."""

    def __init__(self, sizes: Sequence[_Size]) -> None:
        self._varying = [size for size in sizes if size.varies]
        self._constant = sum(size(()) for size in sizes if not size.varies)

    def __call__(self, columns: Sequence[Any] | np.ndarray) -> Any:
        return self._constant + sum(size(columns) for size in self._varying)


@METRICS.register("macs")
class Macs(Metric):
    """Multiply-accumulates per sample.

    Args:
        limit: Share of the dense value (``0.5``, ``"50%"``) or an absolute count (``60e6``,
            ``"60M"``).
        name: Shown in reports.
        length: Of the sequences that are counted; None for those of the example inputs.
    """

    unit: ClassVar[str] = MACS.name
    key: ClassVar[str] = "macs"
    title: ClassVar[str] = "MACs"
    field: ClassVar[str] = "macs"
    holders: ClassVar[Holders] = BY_MACS
    function = staticmethod(count_macs)

    def __init__(
        self, limit: float | str = 0.5, name: str | None = None, length: int | None = None
    ) -> None:
        super().__init__(limit, name)
        if length is not None and length < 1:
            raise BudgetError(f"budget {self.name!r}: length must be at least 1, got {length}")
        self.length = length

    def _bind(self, model: nn.Module, example_inputs: ExampleInputs) -> CostFunction:
        if self.length is None:
            return self.fn
        inputs = at_length(example_inputs, self.length)
        return lambda candidate, _: count_macs(candidate, inputs)

    def _estimate(self, groups: Groups) -> Estimate | None:
        if self.length is not None:
            return None  # its formula belongs to the example inputs' length
        return Estimate(groups.macs, groups.formulas["macs"].many)


@METRICS.register("params")
class Params(Metric):
    """Number of parameters.

    Args:
        limit: Share of the dense value (``0.2``, ``"20%"``) or an absolute count (``1e6``,
            ``"1M"``).
        name: Shown in reports.
    """

    unit: ClassVar[str] = PARAMETERS.name
    key: ClassVar[str] = "params"
    title: ClassVar[str] = "parameters"
    field: ClassVar[str] = "params"
    function = staticmethod(count_params)

    def _estimate(self, groups: Groups) -> Estimate | None:
        return Estimate(groups.params, groups.formulas["params"].many)


@METRICS.register("bytes")
class Bytes(Metric):
    """Bytes of parameters and buffers.

    Args:
        limit: Share of the dense value (``0.2``, ``"20%"``) or an absolute size (``2e6``,
            ``"2 MB"``).
        name: Shown in reports.
    """

    unit: ClassVar[str] = BYTES.name
    key: ClassVar[str] = "bytes"
    title: ClassVar[str] = "size"
    field: ClassVar[str] = "bytes"
    function = staticmethod(count_bytes)

    def _estimate(self, groups: Groups) -> Estimate | None:
        return byte_estimate(groups)


@METRICS.register("peak_memory")
class PeakMemory(Metric):
    """Peak activation memory of one forward pass.

    Args:
        limit: Share of the dense value (``0.5``, ``"50%"``) or an absolute size (``1e6``,
            ``"1 MB"``).
        batch_size: Samples in the forward pass.
        name: Shown in reports.
    """

    unit: ClassVar[str] = BYTES.name
    key: ClassVar[str] = "peak_memory"
    title: ClassVar[str] = "peak activation memory"
    function = staticmethod(peak_memory)

    def __init__(
        self, limit: float | str = 0.5, batch_size: int = 1, name: str | None = None
    ) -> None:
        super().__init__(limit, name)
        if batch_size < 1:
            raise BudgetError(
                f"budget {self.name!r}: batch_size must be at least 1, got {batch_size}"
            )
        self.batch_size = batch_size

    def _bind(self, model: nn.Module, example_inputs: ExampleInputs) -> CostFunction:
        inputs = batch_of(example_inputs, self.batch_size)
        return lambda candidate, _: peak_memory(candidate, inputs)
