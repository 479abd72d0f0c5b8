"""Law 2: every budget, measured on the network that is handed over."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from rlprune.budgets import ResolvedBudget
from rlprune.errors import BudgetError

_ROUNDS, _REPEATS, _LEAST = 10, 3, 12
MARGIN = 0.03
"""How far below a measured limit a plan has to be when it is chosen, so that it still holds when
the fine-tuned network is put on the clock."""


def values_of(
    budgets: Sequence[ResolvedBudget], network: nn.Module, example_inputs: Any
) -> dict[str, float]:
    """Run every budget's function on a network.

    A value read from a clock is the median of several measurements, of more when it is over the
    limit, so that one slow moment does not decide.

    Args:
        budgets: The budgets.
        network: The compacted network itself.
        example_inputs: What it is called with.

    Returns:
        Budget name -> value.
    """
    return {budget.name: _measure(budget, network, example_inputs) for budget in budgets}


def over_limit(
    budgets: Sequence[ResolvedBudget], values: Mapping[str, float], margin: float = 0.0
) -> tuple[ResolvedBudget, ...]:
    """The budgets over their limit; where a clock is read, over ``1 - margin`` of it."""
    return tuple(
        budget
        for budget in budgets
        if budget.violation(values[budget.name]) > (-margin if budget.measured else 0.0)
    )


def require_met(
    budgets: Sequence[ResolvedBudget], network: nn.Module, example_inputs: Any, where: str
) -> dict[str, float]:
    """Measure every budget on a network and insist that it is met.

    Args:
        budgets: The budgets.
        network: The compacted network itself.
        example_inputs: What it is called with.
        where: Which network this is, for the message.

    Returns:
        Budget name -> value.

    Raises:
        BudgetError: A budget is not met; says by how much.
    """
    values = values_of(budgets, network, example_inputs)
    over = over_limit(budgets, values)
    if over:
        listed = "; ".join(
            f"{b.name}: {values[b.name]:.6g} {b.unit} over the limit {b.limit:.6g}".replace(
                "  ", " "
            )
            for b in over
        )
        hint = (
            " Measured values differ from run to run: set threads=, raise repeats, or keep the"
            " machine quiet, and run again."
            if any(b.measured for b in over)
            else ""
        )
        raise BudgetError(f"{where} breaks a budget: {listed}.{hint}")
    return values


def _measure(budget: ResolvedBudget, network: nn.Module, example_inputs: Any) -> float:
    if not budget.measured:
        return budget.value(network, example_inputs)
    values: list[float] = []
    for _ in range(_ROUNDS):
        # Copies lie elsewhere in memory, which alone moves a latency by some percent.
        fresh = replace(budget, fn=copy.deepcopy(budget.fn))
        values += [fresh.value(network, example_inputs) for _ in range(_REPEATS)]
        if len(values) >= _LEAST and statistics.median(values) <= budget.limit:
            break
    return statistics.median(values)
