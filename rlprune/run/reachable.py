"""Budgets held against the dense and the smallest network, before any training or record."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rlprune.budgets import Budget, Metric, ResolvedBudget
from rlprune.compaction import build, discover
from rlprune.errors import InfeasibleBudgetError
from rlprune.plan import Plan
from rlprune.run.job import Job
from rlprune.run.placing import place
from rlprune.run.spec import RunSpec
from rlprune.space import Space, feasibility
from rlprune.structure import Groups

log = logging.getLogger(__name__)

_SLOW_S = 1.0


class _Outline:
    """The part of a problem that needs neither data nor an order of the units."""

    sensitivity = None
    priced: Mapping[Plan, Mapping[str, float]] = {}

    def __init__(self, space: Space, budgets: Sequence[ResolvedBudget]) -> None:
        self.space, self.budgets = space, tuple(budgets)

    def candidate(self, plan: Plan) -> nn.Module:
        return build(self.space.groups, plan).eval()

    def costs(self, plan: Plan) -> dict[str, float]:
        widths = list(plan.widths.values())
        inputs = self.space.groups.example_inputs
        small = None if all(b.estimate for b in self.budgets) else self.candidate(plan)
        return {
            b.name: b.value(small, inputs, widths)
            if b.estimate is None and small is not None
            else float(b.estimate(widths) if b.estimate else 0.0)
            for b in self.budgets
        }

    def violations(self, plan: Plan) -> dict[str, float]:
        costs = self.costs(plan)
        return {b.name: b.violation(costs[b.name]) for b in self.budgets}


def require_reachable(job: Job) -> None:
    """Refuse budgets that no plan can meet, before anything in the run folder is changed.

    Raises:
        BudgetError: A budget's function fails.
        InfeasibleBudgetError: No plan can meet the budgets; says which, and how near one comes.
    """
    budgets = job.budgets if job.asked.asked().varied is None else job.asked.asked().sets[-1]
    resolved = [b.resolve(job.dense, job.example_inputs, job.groups) for b in budgets]
    _check(job.groups, resolved, job.spec)


def require_measurable(spec: RunSpec, network: nn.Module, example_inputs: Any) -> None:
    """Measure budgets on a network that is yet to be trained, so that mistakes cost no training.

    Every function is called once, also one whose value training will change. What follows from
    the network's shape alone (MACs, parameters, ...) is held against the smallest network as well.

    Args:
        spec: What is asked for.
        network: The dense network, untrained; not changed.
        example_inputs: What it is called with.

    Raises:
        BudgetError: A function raises, or returns something else than a finite number.
        InfeasibleBudgetError: No plan can meet a budget of the shape.
        StructureError: The network cannot be traced.
    """
    dense, inputs = place(network, example_inputs, spec.device)
    groups = discover(dense, inputs, **spec.structure.options())
    shaped = []
    for budget in spec.asked().sets[-1]:
        started = time.perf_counter()
        resolved = _of_untrained(budget, dense, inputs, groups)
        seconds = time.perf_counter() - started
        if resolved is not None and resolved.estimate is not None:
            shaped.append(resolved)
        elif seconds > _SLOW_S:
            log.info(
                "budget %r takes %.1f s a call: %.0f minutes for evaluations=%d",
                budget.name, seconds, spec.evaluations * seconds / 60, spec.evaluations,
            )  # fmt: skip
    if shaped and groups.prunable:
        _check(groups, shaped, spec)


def _of_untrained(
    budget: Budget, dense: nn.Module, inputs: Any, groups: Groups
) -> ResolvedBudget | None:
    """A metric bound to the network; a function of the user's is only called."""
    if isinstance(budget, Metric):
        return budget.resolve(dense, inputs, groups)
    budget.value_of(dense, inputs)
    return None


def _check(groups: Groups, budgets: Sequence[ResolvedBudget], spec: RunSpec) -> None:
    if not groups.prunable:
        broken = [b.name for b in budgets if b.dense > b.limit]
        if broken:
            raise InfeasibleBudgetError(
                f"nothing of this network can be pruned, and it breaks {', '.join(broken)}"
            )
        return
    scores = {group.name: torch.zeros(group.width) for group in groups.prunable}
    feasibility.check(_Outline(Space(groups, scores, **spec.structure.decisions()), budgets))
