"""How far two networks' outputs are apart, each output relative to its own scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import StructureError
from rlprune.inputs import call_safely
from rlprune.modes import attention_spelled_out, evaluating, noise_stilled
from rlprune.structure.outputs import tensors_of

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Law 1: largest difference relative to an output's scale; half types: four units in last place."""
NOISE = 16 * torch.finfo(torch.float64).eps
"""An output so much smaller than the largest one is nothing but rounding, even in float64."""


@dataclass(frozen=True)
class Difference:
    """The output in which two networks differ most, measured by what its type allows.

    Attributes:
        relative: largest difference divided by the output's largest magnitude.
        allowed: the largest value of ``relative`` that law 1 allows.
        output: its number among the tensors of the output.
    """

    relative: float
    allowed: float
    output: int

    @property
    def agrees(self) -> bool:
        """Whether law 1 holds."""
        return self.relative <= self.allowed


def tolerance(*types: torch.dtype) -> float:
    """What law 1 allows for the coarsest of some floating-point types."""
    return max(TOLERANCE.get(t, 4 * torch.finfo(t).eps) for t in types)


def difference(masked: nn.Module, small: nn.Module, example_inputs: Any) -> Difference:
    """Compare two networks' outputs in eval mode, with the same noise where they draw any.

    Integer outputs (classes, counts) are compared where no output is a floating-point number.

    Raises:
        StructureError: the outputs differ in number or shape.
    """
    return between(outputs(masked, example_inputs), outputs(small, example_inputs), masked)


def between(expected: Sequence[Tensor], got: Sequence[Tensor], masked: nn.Module) -> Difference:
    """Compare the outputs of a masked network with those of a compacted one.

    Raises:
        StructureError: they differ in number or shape.
    """
    if len(expected) != len(got):
        raise StructureError(
            f"{len(got)} tensors are returned after compaction, {len(expected)} before"
        )
    for a, b in zip(expected, got, strict=True):
        if a.shape != b.shape:
            raise StructureError(
                f"an output has shape {tuple(b.shape)} after compaction, {tuple(a.shape)} before"
            )
    pairs = [(k, a, b) for k, (a, b) in enumerate(zip(expected, got, strict=True)) if a.numel()]
    inexact = [p for p in pairs if p[1].is_floating_point() or p[1].is_complex()]
    if not inexact:
        wrong = next((k for k, a, b in pairs if not torch.equal(a, b)), None)
        return Difference(0.0, 0.0, 0) if wrong is None else Difference(1.0, 0.0, wrong)
    types = {p.dtype for p in masked.parameters() if p.is_floating_point()}
    gaps = [_gap(a, b) for _, a, b in inexact]
    largest = max(scale for _, scale in gaps)
    found = []
    for (k, a, _), (worst, scale) in zip(inexact, gaps, strict=True):
        own = a.abs().dtype
        allowed = tolerance(own, *types)
        if max(worst, scale) <= NOISE * largest:
            worst = 0.0
        found.append(Difference(worst / scale if worst else 0.0, allowed, k))
    return max(found, key=lambda d: d.relative / d.allowed)


def outputs(model: nn.Module, example_inputs: Any) -> list[Tensor]:
    """The tensors that a network answers with in eval mode, with noise stilled.

    Raises:
        StructureError: there is none.
    """
    with torch.no_grad(), attention_spelled_out(), noise_stilled(), evaluating(model):
        found = tensors_of(call_safely(model, example_inputs))
    if not found:
        raise StructureError("no tensor is found in what the network returns")
    return [x.detach() if x.layout is torch.strided else x.detach().to_dense() for x in found]


def _gap(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Largest difference and largest finite magnitude; values that are not finite must be alike."""
    a, b = (x.to(torch.complex128 if x.is_complex() else torch.float64) for x in (a, b))
    finite = torch.isfinite(a) & torch.isfinite(b)
    alike = (a == b) | (torch.isnan(a) & torch.isnan(b))
    gap = torch.where(finite, (a - b).abs(), torch.where(alike, 0.0, torch.inf))
    scale = torch.where(torch.isfinite(a), a.abs(), 0.0)
    worst, size = float(gap.max()), float(scale.max())
    return worst, size if size else 5e-324
