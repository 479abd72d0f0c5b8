"""Whether any plan meets the budgets, and what stands in the way when none does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rlprune.errors import InfeasibleBudgetError
from rlprune.space.priced import Priced

if TYPE_CHECKING:
    from torch import nn

    from rlprune.budgets import ResolvedBudget
    from rlprune.plan import Plan

_SHOWN = 3


class Buildable(Priced, Protocol):
    """A problem that can show the network of a plan."""

    def candidate(self, plan: Plan) -> nn.Module:
        """The compacted network of a plan."""


def check(problem: Buildable) -> None:
    """Refuse budgets that even the smallest network breaks.

    Args:
        problem: Knows what plans cost, and builds their networks.

    Raises:
        InfeasibleBudgetError: Names the budgets, their smallest reachable values, and the layers
            of the smallest network that hold most of it.
    """
    costs = problem.costs(problem.space.plan(problem.space.smallest))
    broken = [b for b in problem.budgets if b.violation(costs[b.name]) > 0]
    if not broken:
        return
    raise InfeasibleBudgetError(
        "; ".join(_explain(problem, budget, costs[budget.name]) for budget in broken)
    )


def _explain(problem: Buildable, budget: ResolvedBudget, value: float) -> str:
    unit = f" {budget.unit}" if budget.unit else ""
    share = f" ({100 * value / budget.dense:.3g}% of dense)" if budget.dense > 0 else ""
    return (
        f"budget {budget.name!r}: no plan meets the limit {budget.limit:.6g}{unit} "
        f"({budget.spec}); the smallest reachable value is {value:.6g}{unit}{share}, with every "
        f"prunable group at its minimum width{_depth(problem)}. {_holders(problem, budget)}"
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
