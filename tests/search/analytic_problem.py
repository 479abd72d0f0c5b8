"""A pruning problem in closed form, with the Problem's interface.

Quality falls with every group's damage ``s_i ((1/r_i)^p - 1)`` (convex in the keep ratio, very
different sensitivities ``s_i``); the first budget is a chain of products of neighbouring widths
like MACs, the second a step function of tiles that has no formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rlprune.budgets import Estimate
from rlprune.problem import Evaluation


@dataclass(frozen=True)
class AnalyticGroup:
    """One decision."""

    name: str
    width: int
    min_width: int = 1
    divisor: int = 1

    @property
    def max_width(self) -> int:
        return self.width

    def legal_widths(self) -> tuple[int, ...]:
        return tuple(range(self.min_width, self.width + 1))


@dataclass(frozen=True)
class AnalyticBudget:
    """A resolved budget over widths."""

    name: str
    limit: float
    dense: float
    unit: str
    cost: Callable[[Sequence[int]], float]
    estimate: Estimate | None = None

    def violation(self, value: float) -> float:
        return value / self.limit - 1.0


@dataclass(frozen=True)
class AnalyticPlan:
    """Widths only: there are no units to choose here."""

    widths: dict[str, int]


def chain_cost(widths: Sequence[int], areas: Sequence[float]) -> float:
    """Sum of area * width_in * width_out along a chain."""
    previous = (3, *widths[:-1])
    return float(sum(a * i * o for a, i, o in zip(areas, previous, widths, strict=True)))


def tile_cost(widths: Sequence[int], tile: int = 8) -> float:
    """Number of tiles of ``tile`` units: not differentiable, no formula given to the search."""
    return float(sum(math.ceil(w / tile) for w in widths))


@dataclass
class AnalyticProblem:
    """The analytic problem; see the module's docstring.

    Args:
        decisions_count: number of groups.
        limit: limit of the chain cost, relative to dense.
        tiles: limit of the tile cost relative to dense, or None for one budget only.
        ruggedness: amplitude of a deterministic disturbance of the log damage by the widths.
        seed: draws the sensitivities.
        store: file that every evaluation's widths are appended to (to test replays).
        predicts: whether the damage of every group is known before the search.
    """

    decisions_count: int = 9
    limit: float = 0.5
    tiles: float | None = None
    ruggedness: float = 0.0
    seed: int = 0
    store: Path | None = None
    predicts: bool = False
    ledger: list[Evaluation] = field(default_factory=list)
    calls: int = 0

    def __post_init__(self) -> None:
        n = self.decisions_count
        rng = np.random.default_rng(self.seed)
        dense = [16 * 2 ** (3 * i // n) for i in range(n)]
        self.decisions = tuple(AnalyticGroup(f"conv{i}", w) for i, w in enumerate(dense))
        self.legal = tuple(g.legal_widths() for g in self.decisions)
        self.areas = [4.0 ** -(3 * i // n) for i in range(n)]
        self._fragility = np.exp(rng.normal(-3.0, 1.0, n))
        self.power = rng.uniform(0.6, 1.6, n)
        self._phase = rng.normal(0.0, 1.0, n)
        full = chain_cost(dense, self.areas)
        formula = Estimate(self._chain, lambda rows: np.array([self._chain(row) for row in rows]))
        budgets = [AnalyticBudget("chain", self.limit * full, full, "", self._chain, formula)]
        if self.tiles is not None:
            most = tile_cost(dense)
            budgets.append(AnalyticBudget("tiles", self.tiles * most, most, "", tile_cost))
        self.budgets = tuple(budgets)
        self._cache: dict[tuple[int, ...], Evaluation] = {}
        self._costs: dict[tuple[int, ...], dict[str, float]] = {}
        self.cost_shares = np.array([self._shares(i) for i in range(n)])
        self.features = np.array(
            [[math.log2(w) / 4 - 1, a] for w, a in zip(dense, self.areas, strict=True)]
        )
        self.feature_names = ("log_width", "area")

    @property
    def stats(self) -> dict[str, float]:
        return {"unique": len(self.ledger), "cache_hits": self.calls - len(self.ledger)}

    @property
    def sensitivity(self) -> tuple[np.ndarray, ...] | None:
        if not self.predicts:
            return None
        curves = []
        for group, s, p in zip(self.decisions, self._fragility, self.power, strict=True):
            ratios = np.arange(1, group.width + 1) / group.width
            damage = s * (ratios**-p - 1.0)
            curves.append(np.concatenate([[2 * damage[0]], damage]))
        return tuple(curves)

    def _chain(self, widths: Sequence[int]) -> float:
        return chain_cost(widths, self.areas)

    def _shares(self, index: int) -> list[float]:
        widths = [g.width for g in self.decisions]
        widths[index] = self.decisions[index].min_width
        costs = self.costs(widths)
        return [1.0 - costs[b.name] / b.dense for b in self.budgets]

    def costs(self, widths: Sequence[int]) -> dict[str, float]:
        key = tuple(int(w) for w in widths)
        if key not in self._costs:
            self._costs[key] = {b.name: b.cost(key) for b in self.budgets}
        return self._costs[key]

    def violations(self, widths: Sequence[int]) -> dict[str, float]:
        costs = self.costs(widths)
        return {b.name: costs[b.name] / b.limit - 1.0 for b in self.budgets}

    def rescore(self, widths: Sequence[int]) -> float:
        ratios = np.array(widths) / np.array([g.width for g in self.decisions])
        damage = float((self._fragility * (ratios**-self.power - 1.0)).sum())
        angle = float(np.sin(np.array(widths) * 2.4 + 7 * self._phase).mean())
        return -math.log1p(damage * (1.0 + self.ruggedness * angle))

    def evaluate(self, widths: Sequence[int]) -> Evaluation:
        key = tuple(int(w) for w in widths)
        self.calls += 1
        if key in self._cache:
            return self._cache[key]
        evaluation = Evaluation(
            index=len(self.ledger),
            widths=key,
            quality=self.rescore(key),
            costs=dict(self.costs(key)),
            violations=self.violations(key),
            seconds=0.0,
            cached=False,
        )
        self.ledger.append(evaluation)
        self._cache[key] = evaluation
        if self.store is not None:
            with self.store.open("a") as file:
                file.write(f"{key}\n")
        return evaluation

    def restart(self) -> None:
        self.ledger = []
        self._cache = {}

    def plan(self, widths: Sequence[int]) -> AnalyticPlan:
        return AnalyticPlan({g.name: w for g, w in zip(self.decisions, widths, strict=True)})
