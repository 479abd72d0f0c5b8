"""From an archive to the one plan that is returned: re-score, repair, choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rlprune.problem import Evaluation, projection

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
        The evaluation itself when nothing changes; otherwise one of the repaired widths, whose
        quality still has to be scored (NaN until then).
    """
    dense = np.array([g.width for g in problem.decisions], dtype=np.float64)
    ratios = np.array(evaluation.widths) / dense
    widths = tuple(int(w) for w in projection.project(problem, ratios.tolist()))
    if widths == evaluation.widths:
        return evaluation
    return replace(
        evaluation,
        widths=widths,
        quality=float("nan"),
        costs=dict(problem.costs(widths)),
        violations=dict(problem.violations(widths)),
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
    pool: dict[tuple[int, ...], Evaluation] = {}
    for evaluation in candidates or fallback:
        for version in (evaluation, repair(problem, evaluation)):
            if version.feasible:
                pool.setdefault(version.widths, version)
    finalists = []
    for evaluation in pool.values():
        score = problem.rescore(evaluation.widths)
        scored = replace(evaluation, quality=score) if np.isnan(evaluation.quality) else evaluation
        finalists.append(Finalist(scored, score))
    return sorted(finalists, key=lambda f: -f.score)
