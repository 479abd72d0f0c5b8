"""From an archive to the one plan that is returned: re-score, repair, choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rlprune.plan import Plan
from rlprune.problem import Evaluation
from rlprune.space import Choice, CostModel, onto_budgets, raised

if TYPE_CHECKING:
    from rlprune.problem import Problem


@dataclass(frozen=True)
class Finalist:
    """A feasible plan and its quality on the larger re-scoring set."""

    evaluation: Evaluation
    score: float


def repair(problem: Problem, evaluation: Evaluation, costs: CostModel) -> Evaluation:
    """Moves a plan onto the budgets and fills the slack they leave.

    Args:
        problem: what was searched.
        evaluation: of the plan.
        costs: what was learned of its budgets.

    Returns:
        The evaluation itself when nothing changes; otherwise one of the repaired plan, whose
        quality still has to be scored (NaN until then).
    """
    space = problem.space
    ratios = space.ratios(evaluation.plan)
    return _with(problem, evaluation, onto_budgets(problem, ratios, costs))


def fill(problem: Problem, evaluation: Evaluation) -> Evaluation:
    """A plan none of whose decisions can be raised any more by a step within every budget.

    Budgets without a formula are measured step by step; see :func:`rlprune.space.raised`.
    """
    space = problem.space
    return _with(problem, evaluation, raised(problem, space.choice(space.ratios(evaluation.plan))))


def _with(problem: Problem, evaluation: Evaluation, choice: Choice) -> Evaluation:
    """The evaluation itself where its plan keeps that much; else one still to be scored (NaN)."""
    plan = problem.space.adjusted(evaluation.plan, choice)
    if plan == evaluation.plan:
        return evaluation
    costs = problem.all_costs(plan)
    return replace(
        evaluation,
        plan=plan,
        quality=float("nan"),
        costs=costs,
        violations={b.name: b.violation(costs[b.name]) for b in problem.budgets},
        cached=False,
    )


def choose(
    problem: Problem,
    candidates: Sequence[Evaluation],
    fallback: Sequence[Evaluation],
    costs: CostModel,
) -> list[Finalist]:
    """Re-scores candidates and their repaired versions, best first.

    Every returned plan meets every budget.

    Args:
        problem: re-scores on more data than the search did.
        candidates: feasible evaluations, best first.
        fallback: evaluations to repair when there is no candidate, least violating first.
        costs: what was learned of the budgets.
    """
    pool: dict[Plan, Evaluation] = {}
    for evaluation in candidates or fallback:
        for version in (evaluation, repair(problem, evaluation, costs)):
            if version.feasible:
                pool.setdefault(version.plan, version)
    finalists = _scored(problem, list(pool.values()))
    if finalists:
        best = fill(problem, finalists[0].evaluation)
        if best.plan not in pool and best.feasible:
            finalists = [*_scored(problem, [best]), *finalists[1:]]
    return finalists


def _scored(problem: Problem, evaluations: Sequence[Evaluation]) -> list[Finalist]:
    """Evaluations with their scores on more data, best first."""
    scores = problem.rescore_many([evaluation.plan for evaluation in evaluations])
    finalists = []
    for evaluation, score in zip(evaluations, scores, strict=True):
        scored = replace(evaluation, quality=score) if np.isnan(evaluation.quality) else evaluation
        finalists.append(Finalist(scored, score))
    return sorted(finalists, key=lambda f: -f.score)
