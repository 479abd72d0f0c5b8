"""A pruning problem in closed form, with the Problem's interface.

Quality falls with every group's damage ``s_i ((1/r_i)^p - 1)`` (convex in the keep ratio, very
different sensitivities ``s_i``); the first budget is a chain of products of neighbouring widths
like MACs, the second a step function of tiles that has no formula.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from rlprune.budgets import Estimate
from rlprune.compaction import discover
from rlprune.plan import Plan
from rlprune.problem import Evaluation, Ledger, SerialExecutor
from rlprune.space import Space


@dataclass(frozen=True)
class AnalyticBudget:
    """A resolved budget over widths."""

    name: str
    limit: float
    dense: float
    unit: str
    cost: Callable[[Sequence[int]], float]
    estimate: Estimate | None = None
    measured: bool = False
    rising: bool = False

    def violation(self, value: float) -> float:
        return value / self.limit - 1.0


def chain_cost(widths: Sequence[int], areas: Sequence[float]) -> float:
    """Sum of area * width_in * width_out along a chain."""
    previous = (3, *widths[:-1])
    return float(sum(a * i * o for a, i, o in zip(areas, previous, widths, strict=True)))


def tile_cost(widths: Sequence[int], tile: int = 8) -> float:
    """Number of tiles of ``tile`` units: not differentiable, no formula given to the search."""
    return float(sum(math.ceil(w / tile) for w in widths))


def chain(widths: Sequence[int]) -> nn.Sequential:
    """A network whose prunable groups have these widths, in order."""
    layers: dict[str, nn.Module] = {}
    for at, (before, width) in enumerate(zip((3, *widths[:-1]), widths, strict=True)):
        layers[f"conv{at}"] = nn.Conv2d(before, width, 1)
    return nn.Sequential(
        OrderedDict(**layers, flat=nn.Flatten(), head=nn.Linear(4 * widths[-1], 2))
    )


@dataclass
class AnalyticProblem:
    """The analytic problem; see the module's docstring.

    Args:
        decisions_count: number of groups.
        limit: limit of the chain cost, relative to dense.
        tiles: limit of the tile cost relative to dense, or None for one budget only.
        ruggedness: amplitude of a deterministic disturbance of the log damage by the widths.
        seed: draws the sensitivities.
        store: file that every evaluation's plan is appended to (to test replays).
        predicts: whether the damage of every group is known before the search.
    """

    decisions_count: int = 9
    limit: float = 0.5
    tiles: float | None = None
    ruggedness: float = 0.0
    seed: int = 0
    store: Path | None = None
    predicts: bool = False
    calls: int = 0

    def __post_init__(self) -> None:
        n = self.decisions_count
        rng = np.random.default_rng(self.seed)
        dense = [16 * 2 ** (3 * i // n) for i in range(n)]
        groups = discover(chain(dense), torch.zeros(1, 3, 2, 2))
        scores = {group.name: -torch.arange(group.width).float() for group in groups.prunable}
        self.space = Space(groups, scores)
        self.executor = SerialExecutor()
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
        self.space.features = np.array(
            [[math.log2(w) / 4 - 1, a] for w, a in zip(dense, self.areas, strict=True)]
        )
        self.restart()

    @property
    def sensitivity(self) -> tuple[np.ndarray, ...] | None:
        if not self.predicts:
            return None
        curves = []
        groups = self.space.groups.prunable
        for group, s, p in zip(groups, self._fragility, self.power, strict=True):
            ratios = np.arange(1, group.width + 1) / group.width
            damage = s * (ratios**-p - 1.0)
            curves.append(np.concatenate([[2 * damage[0]], damage]))
        return tuple(curves)

    def _chain(self, widths: Sequence[int]) -> float:
        return chain_cost(widths, self.areas)

    def costs(self, plan: Plan) -> dict[str, float]:
        self.space.check(plan)
        costs = {b.name: b.cost(list(plan.widths.values())) for b in self.budgets}
        self.ledger.called(plan, costs, {})
        return costs

    def all_costs(self, plan: Plan) -> dict[str, float]:
        return self.costs(plan)

    @property
    def priced(self) -> Mapping[Plan, Mapping[str, float]]:
        return self.ledger.priced

    def violations(self, plan: Plan) -> dict[str, float]:
        costs = self.costs(plan)
        return {b.name: costs[b.name] / b.limit - 1.0 for b in self.budgets}

    def rescore(self, plan: Plan) -> float:
        ratios = np.array(list(plan.ratios.values()))
        damage = float((self._fragility * (ratios**-self.power - 1.0)).sum())
        widths = np.array(list(plan.widths.values()))
        angle = float(np.sin(widths * 2.4 + 7 * self._phase).mean())
        return -math.log1p(damage * (1.0 + self.ruggedness * angle))

    def rescore_many(self, plans: Sequence[Plan]) -> list[float]:
        return [self.rescore(plan) for plan in plans]

    def evaluate(self, plan: Plan) -> Evaluation:
        self.calls += 1
        known = self.ledger.find(plan)
        if known is not None:
            return known.again()
        evaluation = Evaluation(
            index=len(self.ledger),
            plan=plan,
            quality=self.rescore(plan),
            costs=dict(self.costs(plan)),
            violations=self.violations(plan),
            seconds=0.0,
        )
        self.ledger.add(evaluation)
        if self.store is not None:
            with self.store.open("a") as file:
                file.write(f"{plan.digest}\n")
        return evaluation

    def stream(self, plans: Iterable[Plan]) -> Iterator[Evaluation]:
        yield from map(self.evaluate, list(plans))

    def restart(self) -> None:
        self.ledger = Ledger(b.name for b in self.budgets if b.estimate is None)
