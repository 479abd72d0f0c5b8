"""What an action sequence would be evaluated as, without paying for an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rlprune.evaluator import Evaluator
    from rlprune_envs.setting import Setting

_BISECTIONS = 14


@dataclass(frozen=True)
class Preview:
    """Cheap forecast of one action sequence.

    Attributes:
        ratios: ``[n]`` keep ratios that would be evaluated, projected onto the budgets when the
            environment projects.
        violations: ``[m]`` estimated ``cost / limit - 1`` of what was asked for, before any
            projection.
    """

    ratios: np.ndarray
    violations: np.ndarray


def relative_costs(problem: Evaluator, setting: Setting, ratios: np.ndarray) -> np.ndarray:
    """Estimates ``cost / limit`` ``[m]`` for ``[n]`` ratios; exact where a budget has a formula.

    Never calls a budget's black-box function.
    """
    estimated = setting.relative_costs(ratios)
    widths: Sequence[int] | None = None
    for k, budget in enumerate(problem.budgets):
        if budget.estimate is not None:
            widths = setting.widths(ratios) if widths is None else widths
            estimated[k] = budget.estimate(widths) / budget.limit
    return estimated


def forecast(
    problem: Evaluator, setting: Setting, ratios: np.ndarray, *, project: bool
) -> Preview:
    """Forecasts the outcome of ``[n]`` raw keep ratios.

    The projection is the evaluator's common scale factor found on the estimates, without its last
    greedy step, so ratios are right to about a percent.
    """
    raw = relative_costs(problem, setting, ratios)
    if not project:
        return Preview(ratios=ratios, violations=raw - 1.0)
    low, high = 0.0, 1.0
    if raw.max() <= 1.0:
        low, high = 1.0, float(1.0 / max(ratios.min(), 1e-3))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        scaled = np.clip(ratios * middle, setting.lowest, setting.highest)
        if relative_costs(problem, setting, scaled).max() <= 1.0:
            low = middle
        else:
            high = middle
    scaled = np.clip(ratios * low, setting.lowest, setting.highest)
    return Preview(ratios=scaled, violations=raw - 1.0)
