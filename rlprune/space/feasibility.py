"""Whether any plan meets the budgets, and what stands in the way when none does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rlprune.errors import InfeasibleBudgetError
from rlprune.space.priced import Priced

if TYPE_CHECKING:
    from torch import nn

    from rlprune.budgets import ResolvedBudget
    from rlprune.plan import Plan
    from rlprune.space.space import Choice, Space

logger = logging.getLogger(__name__)

_SHOWN = 3


class Buildable(Priced, Protocol):
    """A problem that can show the network of a plan."""

    def candidate(self, plan: Plan) -> nn.Module:
        """The compacted network of a plan."""


def check(problem: Buildable) -> None:
    """Refuse budgets that no network can be seen to meet.

    What has a formula is lowest at the smallest network. A function of the user's own may be lower
    elsewhere (an error falls with size): one that the smallest network breaks is also tried on the
    dense network and on one of half the widths, and is refused only when all three break it.

    Args:
        problem: Knows what plans cost, and builds their networks.

    Raises:
        InfeasibleBudgetError: Names the budgets, their smallest values, and the layers of the
            smallest network that hold most of it.
    """
    space = problem.space
    costs = problem.costs(space.plan(space.smallest))
    reasons = []
    for budget in problem.budgets:
        value = costs[budget.name]
        unknown = budget.estimate is None and not budget.measured and not budget.rising
        rises = unknown and value > budget.dense
        met = budget.violation(value) <= 0
        if not met and budget.estimate is None:
            tried = [value, problem.costs(space.plan(_half(space)))[budget.name], budget.dense]
            met = min(map(budget.violation, tried)) <= 0
            if not met and tried == sorted(tried):
                reasons.append(_explain(problem, budget, value))
            elif not met:
                reasons.append(_explain_black_box(budget, tried))
        elif not met:
            reasons.append(_explain(problem, budget, value))
        if rises and met:
            logger.warning(
                "budget %r does not fall with the network's size: %.6g for the smallest network, "
                "%.6g for the dense one. Plans are scaled onto budgets as if smaller were cheaper; "
                "say Budget(..., rising=True) of one that rises as a network gets smaller",
                budget.name, value, budget.dense,
            )  # fmt: skip
    if reasons:
        raise InfeasibleBudgetError("; ".join(reasons))


def _half(space: Space) -> Choice:
    """About half of every decision, branches kept."""
    return space.choice(np.where(space.branches, 1.0, 0.5))


def _explain_black_box(budget: ResolvedBudget, tried: list[float]) -> str:
    small, half, dense = (f"{value:.6g}" for value in tried)
    unit = f" {budget.unit}" if budget.unit else ""
    return (
        f"budget {budget.name!r}: no network that was tried meets the limit "
        f"{budget.limit:.6g}{unit} ({budget.spec}); the smallest network has {small}{unit}, one of "
        f"half the widths {half}{unit}, the dense one {dense}{unit}"
    )


def _explain(problem: Buildable, budget: ResolvedBudget, value: float) -> str:
    unit = f" {budget.unit}" if budget.unit else ""
    doubt = budget.fractions and budget.limit <= 100 and "%" not in budget.spec
    meant = f" Did you mean {budget.limit:g}%?" if doubt else ""
    share = f" ({100 * value / budget.dense:.3g}% of dense)" if budget.dense > 0 else ""
    return (
        f"budget {budget.name!r}: no plan meets the limit {budget.limit:.6g}{unit} "
        f"({budget.spec}); the smallest reachable value is {value:.6g}{unit}{share}, with every "
        f"prunable group at its minimum width{_depth(problem)}.{meant} {_holders(problem, budget)}"
    )


def _depth(problem: Buildable) -> str:
    if problem.space.branches.any():
        return " and every branch dropped that can be"
    return ""


def _holders(problem: Buildable, budget: ResolvedBudget) -> str:
    small = problem.candidate(problem.space.plan(problem.space.smallest))
    parts = budget.holders.by_layer(small, problem.space.groups.example_inputs)
    what = budget.holders.unit.name
    total = sum(parts.values())
    if not total:
        return ""
    largest = sorted(parts.items(), key=lambda item: -item[1])[:_SHOWN]
    listed = ", ".join(
        f"{name} {100 * value / total:.0f}% ({_why(problem, name)})" for name, value in largest
    )
    return f"Of its {what}: {listed}"


def _why(problem: Buildable, layer: str) -> str:
    """Why a layer cannot get smaller: the groups whose units it produces."""
    for group in problem.space.groups:
        if layer in group.modules[:1] or layer == group.name:
            if not group.prunable:
                return f"{group.kind} frozen: {group.reason}"
            return f"already {group.legal_widths()[0]} of {group.width} {group.kind}"
    for group in problem.space.groups:
        if layer in group.modules and group.prunable:
            return f"group {group.name} already {group.legal_widths()[0]} of {group.width}"
    return "not in any prunable group"
