"""What plans cost, without measuring any: formulas where there are some, else a product model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlprune.space.projection import uniform
from rlprune.space.space import KEPT, Choice

if TYPE_CHECKING:
    from rlprune.space.priced import Priced


class CostModel:
    """Cheap costs of any ratios.

    The product model is ``cost = dense * prod_i (1 - share_i d_i) ** slope``, where ``d_i`` runs
    from 0 (decision at its size) to 1 (at its smallest) and the slope makes it exact at the
    uniform choice. Building it calls every black box once per decision and once there.

    Args:
        problem: knows what plans cost.

    Attributes:
        uniform: the largest uniform choice that meets every budget.
        shares: ``[n, m]`` relative drop of each cost when one decision alone goes to its smallest
            value.
        slope: ``[m]``, see above.
        limits: ``[m]`` budget limits.
        dense: ``[m]`` costs of the dense network.
    """

    def __init__(self, problem: Priced) -> None:
        space, budgets = problem.space, problem.budgets
        self._problem, self._space = problem, space
        self.uniform: Choice = uniform(problem)[1]
        self.limits = np.array([b.limit for b in budgets], dtype=np.float64)
        self.dense = np.array([b.dense for b in budgets], dtype=np.float64)
        self.shares = np.clip(_shares(problem), 0.0, 0.999)
        self.slope = np.ones(len(budgets))
        costs = problem.costs(space.plan(self.uniform))
        drops = -self.log_drops(np.array(self.uniform) / space.sizes).sum(axis=0)
        relative = np.array([costs[b.name] for b in budgets]) / self.dense
        true = -np.log(np.clip(relative, 1e-6, 1.0))
        slope = np.where(drops > 1e-9, true / np.maximum(drops, 1e-9), 1.0)
        self.slope = np.clip(slope, 0.05, 20.0)

    def log_drops(self, ratios: np.ndarray) -> np.ndarray:
        """Log of the factor by which each decision's ratio lowers each cost.

        What lies in a dropped branch saves nothing more.

        Args:
            ratios: ``[..., n]`` keep ratios.

        Returns:
            ``[..., n, m]``, zero or negative.
        """
        space = self._space
        span = np.maximum(1.0 - space.lowest, 1e-9)
        depth = np.clip((1.0 - ratios) / span, 0.0, 1.0)
        if space.depth:
            idle = (space.inside >= 0) & (ratios[..., space.inside] <= KEPT)
            depth = np.where(idle, 0.0, depth)
        return np.log1p(-self.shares * depth[..., None]) * self.slope

    def guess(self, ratios: np.ndarray) -> np.ndarray:
        """``cost / limit`` ``[..., m]`` of ratios ``[..., n]`` by the product model alone."""
        return np.exp(self.log_drops(ratios).sum(axis=-2)) * (self.dense / self.limits)

    def __call__(self, ratios: np.ndarray) -> np.ndarray:
        """``cost / limit`` ``[P, m]`` of ratios ``[P, n]``; exact where there is a formula."""
        budgets = self._problem.budgets
        formulas = [budget.estimate for budget in budgets]
        widths = self._space.widths(self._space.nearest(ratios))
        if None in formulas:
            estimated = self.guess(ratios)
        else:
            estimated = np.empty((len(ratios), len(formulas)))
        for k, formula in enumerate(formulas):
            if formula is not None:
                estimated[:, k] = formula.many(widths) / budgets[k].limit
        return estimated


def _shares(problem: Priced) -> np.ndarray:
    """``[n, m]``: relative drop of every cost when one decision alone goes to its smallest."""
    space, budgets = problem.space, problem.budgets
    full = problem.costs(space.plan(space.largest))
    shares = np.zeros((len(space), len(budgets)))
    for row, low in enumerate(space.smallest):
        choice = list(space.largest)
        choice[row] = low
        costs = problem.costs(space.plan(choice))
        for column, budget in enumerate(budgets):
            dense = full[budget.name]
            shares[row, column] = (dense - costs[budget.name]) / dense if dense else 0.0
    return shares
