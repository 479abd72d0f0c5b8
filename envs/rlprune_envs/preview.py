"""What an action sequence would be evaluated as, without paying for an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rlprune.evaluator import Evaluator
    from rlprune_envs.setting import Setting

_STEPS = 8
_TOLERANCE = 0.003


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


def forecast(problem: Evaluator, setting: Setting, ratios: np.ndarray, *, project: bool) -> Preview:
    """Forecasts the outcome of ``[n]`` raw keep ratios.

    The projection is the evaluator's common scale factor found on the estimates, without its last
    greedy step, so ratios are right to about a percent.
    """
    raw = relative_costs(problem, setting, ratios)
    if not project:
        return Preview(ratios=ratios, violations=raw - 1.0)
    scale = _common_scale(problem, setting, ratios, float(raw.max()))
    scaled = np.clip(ratios * scale, setting.lowest, setting.highest)
    return Preview(ratios=scaled, violations=raw - 1.0)


def _common_scale(problem: Evaluator, setting: Setting, ratios: np.ndarray, peak: float) -> float:
    """Factor on all ratios that brings the tightest budget to its limit.

    Illinois' false position on log cost over log scale, which is close to a straight line.
    """
    top = float(np.log((setting.highest / ratios).max()))
    bottom = float(np.log((setting.lowest / ratios).min()))

    def excess(log_scale: float) -> float:
        scaled = np.clip(ratios * np.exp(log_scale), setting.lowest, setting.highest)
        return float(np.log(max(relative_costs(problem, setting, scaled).max(), 1e-9)))

    at_zero = float(np.log(max(peak, 1e-9)))
    if at_zero <= 0:
        low, low_value, high = 0.0, at_zero, top
        high_value = excess(high)
        if high_value <= 0:
            return float(np.exp(high))
    else:
        high, high_value, low = 0.0, at_zero, bottom
        low_value = excess(low)
        if low_value > 0:
            return float(np.exp(low))
    for _ in range(_STEPS):
        middle = (low * high_value - high * low_value) / (high_value - low_value)
        value = excess(middle)
        if abs(value) < _TOLERANCE:
            return float(np.exp(middle))
        if value <= 0:
            low, low_value, high_value = middle, value, high_value / 2
        else:
            high, high_value, low_value = middle, value, low_value / 2
    return float(np.exp(low))
