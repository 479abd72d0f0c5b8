"""A problem whose black boxes are stood in for by what was learned of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rlprune.plan import Plan
from rlprune.space.priced import Priced
from rlprune.space.space import Space

if TYPE_CHECKING:
    from rlprune.space.costs import CostModel


class Modelled:
    """The same problem with a formula for every budget; nothing is measured.

    Args:
        problem: the real one.
        costs: what was learned of its black boxes.
        factors: ``[m]`` by which the limits of black boxes are multiplied, to make up for what a
            measurement has shown the model to be off by.
    """

    def __init__(self, problem: Priced, costs: CostModel, factors: np.ndarray) -> None:
        self._problem = problem
        self.budgets = tuple(
            budget
            if budget.estimate is not None
            else replace(budget, limit=budget.limit * factor, estimate=costs.estimate(at))
            for at, (budget, factor) in enumerate(zip(problem.budgets, factors, strict=True))
        )

    @property
    def space(self) -> Space:
        """The decisions."""
        return self._problem.space

    @property
    def sensitivity(self) -> tuple[np.ndarray, ...] | None:
        """As the real problem's."""
        return self._problem.sensitivity

    @property
    def priced(self) -> dict[Plan, dict[str, float]]:
        """Nothing is measured here."""
        return {}

    def costs(self, plan: Plan) -> dict[str, float]:
        """Budget name -> expected value of a plan."""
        widths = list(plan.widths.values())
        return {b.name: b.estimate(widths) for b in self.budgets if b.estimate is not None}

    def violations(self, plan: Plan) -> dict[str, float]:
        """Budget name -> expected ``value / limit - 1`` of a plan."""
        costs = self.costs(plan)
        return {budget.name: budget.violation(costs[budget.name]) for budget in self.budgets}
