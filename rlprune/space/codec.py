"""Action <-> keep ratio <-> choice <-> plan, around an anchor and onto the budgets."""

from __future__ import annotations

import numpy as np

from rlprune.errors import ConfigError
from rlprune.plan import Plan
from rlprune.space.allocation import allocate
from rlprune.space.costs import CostModel
from rlprune.space.exchange import exchange
from rlprune.space.previews import Previews, forecast
from rlprune.space.priced import Priced
from rlprune.space.space import KEPT, Choice
from rlprune.space.verified import expected, onto_budgets

ANCHORS = ("uniform", "sensitivity")
"""What action 0 stands for: ``uniform``, the largest keep ratio that, used everywhere, meets every
budget; ``sensitivity``, the plan with the least predicted damage that does (uniform where nothing
can be predicted, for want of calibration data)."""

_REMEMBERED = 1024
_CLAMP_BISECTIONS = 12
_BRANCH_REACH = 2.0
_LEAST = 1e-9


class Codec:
    """What action sequences stand for.

    An action in [-1, 1] is a place on a decision's own scale: -1 is its smallest legal ratio, 0
    its anchor, +1 its largest; linear in between, so it is monotone, and 0 everywhere is the
    anchor. A branch changes sides a quarter of the way, so that a search around an anchor tries it.

    Args:
        problem: knows what plans cost.
        anchor: one of :data:`ANCHORS`, or a plan: action 0 is then that plan on the budgets, and
            the other plans keep its units as far as they keep as many.
        project: whether plans are scaled onto the budgets (:func:`rlprune.space.onto_budgets`), or
            taken as they are, feasible or not.
        costs: a cost model that another codec of the problem has built.

    Attributes:
        space: the problem's decisions.
        around: the anchor's name, or the plan.
        project: as given.
        anchor: ``[n]`` ratios that action 0 stands for.
        costs: the cost model.
        damage_roots: per prunable group the root of its predicted damage by kept units,
            ``[width + 1]``; None where nothing is predicted, or the anchor does not need it.

    Raises:
        ConfigError: the anchor is unknown.
        PlanError: the anchor is a plan of another network.
    """

    def __init__(
        self,
        problem: Priced,
        anchor: str | Plan = "uniform",
        *,
        project: bool = True,
        costs: CostModel | None = None,
    ) -> None:
        if not isinstance(anchor, Plan) and anchor not in ANCHORS:
            raise ConfigError(f"anchor must be one of {', '.join(ANCHORS)}, got {anchor!r}")
        self.problem = problem
        self.space = problem.space
        self.around = anchor
        self.project = project
        self.costs = costs or CostModel(problem)
        self.damage_roots: tuple[np.ndarray, ...] | None = None
        self._final: dict[bytes, Choice] = {}
        self._near = anchor if isinstance(anchor, Plan) else None
        choice = self.costs.uniform
        if anchor != "uniform" and problem.sensitivity is not None:
            self.damage_roots = tuple(np.sqrt(curve) for curve in problem.sensitivity)
        if self._near is not None:
            self.space.check(self._near)
            choice = onto_budgets(problem, self.space.ratios(self._near), self.costs)
        elif anchor == "sensitivity" and problem.sensitivity is not None:
            choice = self._least_damage(problem.sensitivity)
        self.anchor = np.array(choice) / self.space.sizes
        reach = np.where(self.space.branches, _BRANCH_REACH, 1.0)
        self._up = reach * (self.space.highest - self.anchor)
        self._down = reach * (self.anchor - self.space.lowest)

    def ratio(self, decision: int, action: float) -> float:
        """Keep ratio that one decision's action in [-1, 1] stands for."""
        return float(self.ratio_of(decision, np.array([action]))[0])

    def ratio_of(self, decision: int, actions: np.ndarray) -> np.ndarray:
        """Keep ratios ``[E]`` that several actions ``[E]`` in [-1, 1] of one decision stand for."""
        up, down = self._up[decision], self._down[decision]
        found = self.anchor[decision] + actions * np.where(actions >= 0, up, down)
        return np.clip(found, 0.0, 1.0) if self.space.branches[decision] else np.asarray(found)

    def ratios(self, actions: np.ndarray) -> np.ndarray:
        """Keep ratios ``[..., n]`` of whole action sequences ``[..., n]``.

        Actions count in single precision, as in the environment's action space.
        """
        actions = np.clip(np.asarray(actions, dtype=np.float32), -1.0, 1.0).astype(np.float64)
        found = self.anchor + actions * np.where(actions >= 0, self._up, self._down)
        return np.clip(found, 0.0, 1.0) if self.space.depth else np.asarray(found)

    def actions(self, ratios: np.ndarray) -> np.ndarray:
        """Actions ``[..., n]`` that stand for keep ratios: the inverse of :meth:`ratios`."""
        span = np.where(ratios >= self.anchor, self._up, self._down)
        return np.clip((ratios - self.anchor) / np.maximum(span, 1e-9), -1.0, 1.0)

    def action(self, decision: int, ratio: float) -> float:
        """The action of one decision that stands for a keep ratio."""
        ratios = self.anchor.copy()
        ratios[decision] = ratio
        return float(self.actions(ratios)[decision])

    def plan(self, actions: np.ndarray) -> Plan:
        """The plan that ``[n]`` actions are evaluated as; calls black boxes where it projects."""
        return self.plan_of(self.ratios(actions))

    def plan_of(self, ratios: np.ndarray) -> Plan:
        """The plan that ``[n]`` keep ratios are evaluated as; see :meth:`plan`."""
        return self._plan(self._choice(ratios))

    def settled(self, choice: Choice) -> Plan:
        """The plan of a choice, which is projected only where it breaks a budget."""
        plan = self._plan(choice)
        if self.project and max(self.problem.violations(plan).values()) > 0:
            return self.plan_of(np.array(choice) / self.space.sizes)
        return plan

    def previews(self, actions: np.ndarray) -> Previews:
        """Forecasts what ``[P, n]`` actions would be evaluated as; free: nothing is measured."""
        return forecast(self.space, self.costs, self.ratios(actions), project=self.project)

    def likely(self, actions: np.ndarray) -> Plan:
        """The plan that ``[n]`` actions lead to; free: nothing is measured.

        It is certain but where a budget without a formula makes the projection a forecast.
        """
        if self.project and any(budget.estimate is None for budget in self.problem.budgets):
            return self._plan(expected(self.problem, self.ratios(actions), self.costs))
        return self.plan(actions)

    def clamped(self, taken: np.ndarray, ratio: float) -> float:
        """The largest ratio of the next decision that leaves room for those after it.

        With it, and everything still to come at its smallest, the cost model stays within every
        limit (AMC, He et al., ECCV 2018, Algorithm 1).

        Args:
            taken: ``[t]`` ratios of the decisions before.
            ratio: what is wished for; the result is no larger.
        """
        decision = len(taken)
        ratios = self.space.lowest.copy()
        ratios[:decision] = taken

        def fits(value: float) -> bool:
            ratios[decision] = value
            return bool(self.costs(ratios[None]).max() <= 1.0)

        if fits(ratio):
            return ratio
        low, high = float(self.space.lowest[decision]), ratio
        if self.space.branches[decision]:
            return low if ratio > KEPT else ratio
        for _ in range(_CLAMP_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def _plan(self, choice: Choice) -> Plan:
        near = self._near
        return self.space.plan(choice) if near is None else self.space.adjusted(near, choice)

    def _choice(self, ratios: np.ndarray) -> Choice:
        if not self.project:
            return self.space.choice(ratios)
        key = ratios.tobytes()
        if key not in self._final:
            if len(self._final) >= _REMEMBERED:
                self._final.clear()
            self._final[key] = onto_budgets(self.problem, ratios, self.costs)
        return self._final[key]

    def _least_damage(self, sensitivity: tuple[np.ndarray, ...]) -> Choice:
        """The choice with the least predicted damage within the budgets.

        Greedy steps do not see that a cost falls by more than one step of a width at a time;
        exchanges do.
        """
        space = self.space
        curves = space.curves(sensitivity)

        def gain(choices: np.ndarray) -> np.ndarray:
            columns = zip(curves, choices.T, strict=True)
            return -np.log(sum((curve[values] for curve, values in columns), np.array(_LEAST)))

        def costs(choices: np.ndarray) -> np.ndarray:
            return self.costs(choices / space.sizes)

        legal = [decision.legal for decision in space.decisions]
        greedy = onto_budgets(
            self.problem, np.array(allocate(curves, legal, costs)) / space.sizes, self.costs
        )
        found = exchange(space, greedy, gain, costs, np.random.default_rng(0))
        return space.choice(space.ratios(self.settled(found[0]))) if found else greedy
