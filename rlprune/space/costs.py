"""What plans cost: formulas where there are some, models that learn where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlprune.budgets import Estimate
from rlprune.space.layers import Layers
from rlprune.space.learned import LearnedCost, Terms
from rlprune.space.space import KEPT, Choice
from rlprune.space.verified import onto_budgets

if TYPE_CHECKING:
    from rlprune.space.priced import Priced
    from rlprune.space.space import Space

_FIRST = 12
_OFTEN = 20


class CostModel:
    """Cheap costs of any ratios: formulas where there are some, learned models elsewhere.

    A black box is learned from every plan that the search has measured (:class:`LearnedCost`),
    beginning with the dense and the smallest network and a few plans in between, which are measured
    here. Beside it stands a product model that does not change during a search, for what a policy
    observes while it decides: ``cost = dense * prod_i (1 - share_i d_i) ** slope``, where ``d_i``
    runs from 0 (decision at its size) to 1 (at its smallest) and the slope makes it exact at the
    uniform choice.

    Args:
        problem: knows what plans cost.

    Attributes:
        uniform: the largest uniform choice that meets every budget.
        shares: ``[n, m]`` relative drop of each cost when one decision alone goes to its smallest
            value; expected ones of black boxes.
        slope: ``[m]``, see above.
        limits: ``[m]`` budget limits.
        dense: ``[m]`` costs of the dense network.
    """

    def __init__(self, problem: Priced) -> None:
        space, budgets = problem.space, problem.budgets
        self._problem, self._space = problem, space
        self.limits = np.array([b.limit for b in budgets], dtype=np.float64)
        self.dense = np.array([b.dense for b in budgets], dtype=np.float64)
        self._widths = np.array([g.width for g in space.groups.prunable], dtype=np.float64)
        self._learned: dict[int, LearnedCost] = {}
        black = [at for at, budget in enumerate(budgets) if budget.estimate is None]
        if black:
            terms = Terms(Layers(space.groups), self._widths)
            self._learned = {at: LearnedCost(terms, self._widths, self.dense[at]) for at in black}
            for choice in _first(space):
                problem.costs(space.plan(choice))
        self.uniform: Choice = onto_budgets(problem, np.ones(len(space)), self, even=True)
        self.shares = np.clip(self._shares(), 0.0, 0.999)
        self.slope = np.ones(len(budgets))
        costs = problem.costs(space.plan(self.uniform))
        drops = -self.log_drops(np.array(self.uniform) / space.sizes).sum(axis=0)
        unit = np.where(self.dense > 0, self.dense, 1.0)
        relative = np.array([costs[b.name] for b in budgets]) / unit
        true = -np.log(np.clip(relative, 1e-6, 1.0))
        slope = np.where(drops > 1e-9, true / np.maximum(drops, 1e-9), 1.0)
        self.slope = np.clip(slope, 0.05, 20.0)

    def estimate(self, at: int) -> Estimate:
        """The cost of one budget as a function of the widths of the prunable groups."""
        known = self._problem.budgets[at].estimate
        if known is not None:
            return known
        model = self._model(at)
        return Estimate(
            one=lambda widths: float(model(np.array([widths], dtype=np.float64))[0]), many=model
        )

    def _model(self, at: int) -> LearnedCost:
        """What was learned of a black box, brought up to date where much is new."""
        model, priced = self._learned[at], self._problem.priced
        if len(priced) >= model.points + max(1, model.points // _OFTEN):
            name = self._problem.budgets[at].name
            widths = np.array([list(plan.widths.values()) for plan in priced], dtype=np.float64)
            values = np.array([costs[name] for costs in priced.values()])
            model.learn(
                np.vstack([self._widths, widths]), np.concatenate([[self.dense[at]], values])
            )
        return model

    def _shares(self) -> np.ndarray:
        """``[n, m]``: relative drop of every cost when one decision alone goes to its smallest."""
        space = self._space
        choices = np.tile(space.largest, (len(space) + 1, 1))
        at = np.arange(len(space))
        choices[at, at] = space.smallest
        widths = space.widths(choices)
        costs = [self.estimate(k).many(widths) for k in range(len(self.dense))]
        return np.stack([(c[-1] - c[:-1]) / c[-1] if c[-1] else 0 * c[:-1] for c in costs], axis=1)

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
        widths = self._space.widths(self._space.nearest(ratios))
        columns = [self.estimate(k).many(widths) for k in range(len(self.limits))]
        return np.stack(columns, axis=1) / self.limits


def _first(space: Space) -> list[Choice]:
    """Plans to learn the first of a black box from: each decision anywhere in its range."""
    drawn = np.random.default_rng(0).random((_FIRST, len(space)))
    ratios = space.lowest + (space.highest - space.lowest) * drawn
    return [space.choice(row) for row in ratios]
