"""From an archive to the one plan that is returned: re-score, repair, choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rlprune.plan import Plan
from rlprune.problem import Evaluation
from rlprune.space import project

if TYPE_CHECKING:
    from rlprune.problem import Problem


@dataclass(frozen=True)
class Finalist:
    """A feasible plan and its quality on the larger re-scoring set."""

    evaluation: Evaluation
    score: float


def repair(problem: Problem, evaluation: Evaluation) -> Evaluation:
    """Moves a plan onto the budgets and fills the slack they leave.

    Returns:
        The evaluation itself when nothing changes; otherwise one of the repaired plan, whose
        quality still has to be scored (NaN until then).
    """
    space = problem.space
    ratios = space.ratios(evaluation.plan)
    plan = space.adjusted(evaluation.plan, project(problem, ratios))
    if plan == evaluation.plan:
        return evaluation
    return replace(
        evaluation,
        plan=plan,
        quality=float("nan"),
        costs=dict(problem.costs(plan)),
        violations=dict(problem.violations(plan)),
        cached=False,
    )


def choose(
    problem: Problem, candidates: Sequence[Evaluation], fallback: Sequence[Evaluation]
) -> list[Finalist]:
    """Re-scores candidates and their repaired versions, best first.

    Every returned plan meets every budget.

    Args:
        problem: re-scores on more data than the search did.
        candidates: feasible evaluations, best first.
        fallback: evaluations to repair when there is no candidate, least violating first.
    """
    pool: dict[Plan, Evaluation] = {}
    for evaluation in candidates or fallback:
        for version in (evaluation, repair(problem, evaluation)):
            if version.feasible:
                pool.setdefault(version.plan, version)
    finalists = []
    scores = problem.rescore_many(list(pool))
    for evaluation, score in zip(pool.values(), scores, strict=True):
        scored = replace(evaluation, quality=score) if np.isnan(evaluation.quality) else evaluation
        finalists.append(Finalist(scored, score))
    return sorted(finalists, key=lambda f: -f.score)
