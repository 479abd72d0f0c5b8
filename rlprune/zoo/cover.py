"""How well one network is covered: groups, times, and law 1 on a random plan."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from rlprune.compaction import (
    Workspace,
    build,
    difference,
    discover,
    masked_copy,
    uneven_plan,
)
from rlprune.plan import Plan
from rlprune.structure import Groups, held
from rlprune.zoo.networks import create
from rlprune.zoo.transformers_auto import UnbuiltError


@dataclass(frozen=True)
class Coverage:
    """One line of the coverage table.

    Attributes:
        name: the network.
        parameters: of the dense network.
        groups: number of groups found.
        prunable: how many of them may lose units.
        share: fraction of the parameters that belongs to prunable units.
        trace_seconds: what discovery took, in CPU seconds, as all times here.
        build_ms: an independent compacted network from a plan, the best of three.
        candidate_ms: a candidate in a reused workspace, the best of three.
        kept: fraction of the parameters left by the random plan.
        error: largest difference of masked and compacted outputs in float64, relative to the
            output's scale, of an even and an uneven plan, at two sizes where the network takes
            them; None where the network has no memory to run in.
        failure: why there is no result, "" when there is one.
        built: whether there is a network at all: not every class takes a toy configuration.
        frozen: reasons of frozen groups, with how many groups each holds.
        held: reasons with the share of the parameters that each keeps whole.
    """

    name: str
    parameters: int = 0
    groups: int = 0
    prunable: int = 0
    share: float = 0.0
    trace_seconds: float = 0.0
    build_ms: float | None = None
    candidate_ms: float | None = None
    kept: float | None = None
    error: float | None = None
    failure: str = ""
    frozen: dict[str, int] | None = None
    held: dict[str, float] | None = None
    built: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data."""
        return asdict(self)


def coverage(names: Sequence[str], *, keep: float = 0.5, seed: int = 0) -> Iterator[Coverage]:
    """Measure networks one after the other; a failure becomes part of its row.

    Args:
        names: from `rlprune.zoo.names`.
        keep: keep ratio of every group in the random plan.
        seed: of the weights and of the plan.
    """
    for name in names:
        try:
            row = cover(name, *create(name, seed), keep=keep, seed=seed)
        except UnbuiltError as error:
            row = Coverage(name, failure=str(error), built=False)
        except Exception as error:  # a network that cannot even be built is a row too
            row = Coverage(name, failure=f"{type(error).__name__}: {error}")
        yield row


def random_plan(groups: Groups, keep: float, seed: int) -> Plan:
    """Every group at one keep ratio, the units drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}
    return Plan.uniform(groups, keep, scores)


def cover(
    name: str, model: nn.Module, inputs: Any, *, keep: float = 0.5, seed: int = 0
) -> Coverage:
    """Discover, compact at a random plan, and compare with the masked network."""
    total = sum(p.numel() for p in model.parameters())
    try:
        start = time.process_time()
        groups = discover(model, inputs)
        seconds = time.process_time() - start
    except Exception as error:
        return Coverage(name, total, failure=f"{type(error).__name__}: {error}")
    rest = groups.params([0] * len(groups.prunable)) if groups.prunable else total
    frozen: dict[str, int] = {}
    for group in groups:
        if not group.prunable:
            reason = group.reason.split(": ", 1)[-1]
            frozen[reason] = frozen.get(reason, 0) + 1
    row = Coverage(
        name,
        total,
        len(groups),
        len(groups.prunable),
        1 - rest / total,
        seconds,
        frozen=frozen,
        held=held(groups),
    )
    if next(model.parameters()).is_meta:
        return row
    try:
        return _compacted(row, groups, random_plan(groups, keep, seed))
    except Exception as error:
        return replace(row, failure=f"{type(error).__name__}: {error}")


def _compacted(row: Coverage, groups: Groups, plan: Plan) -> Coverage:
    small = build(groups, plan)
    build_ms = min(_milliseconds(lambda: build(groups, plan)) for _ in range(3))
    error = _error(groups, plan, small)
    uneven = uneven_plan(groups, seed=2)
    error = max(error, _error(groups, uneven, build(groups, uneven)))
    left = sum(p.numel() for p in small.parameters())
    predicted = groups.params(list(plan.widths.values()))
    if round(predicted) != left:
        raise RuntimeError(f"{left} parameters are left where {predicted:.0f} were predicted")
    workspace = Workspace(groups)
    workspace.build(plan)
    candidate_ms = min(_milliseconds(lambda: workspace.build(plan)) for _ in range(3))
    return replace(
        row,
        build_ms=build_ms,
        candidate_ms=candidate_ms,
        kept=left / row.parameters,
        error=error,
    )


def _error(groups: Groups, plan: Plan, small: nn.Module) -> float:
    """Largest relative difference from the masked network, on all inputs that are known."""
    masked = masked_copy(groups, plan)
    known = (groups.example_inputs, groups.other_inputs, *groups.other_values)
    inputs = [x for x in known if x is not None]
    return max(difference(masked, small, x).relative for x in inputs)


def _milliseconds(run: Any) -> float:
    start = time.process_time()
    run()
    return (time.process_time() - start) * 1e3
