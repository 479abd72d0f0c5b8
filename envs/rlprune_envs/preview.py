"""What action sequences would be evaluated as, without paying for an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rlprune.problem import Problem
    from rlprune_envs.setting import Setting

_STEPS = 8
_TOLERANCE = 0.003


@dataclass(frozen=True)
class Previews:
    """Cheap forecasts of P action sequences.

    Attributes:
        ratios: ``[P, n]`` keep ratios that would be evaluated, projected onto the budgets when the
            environment projects.
        violations: ``[P, m]`` estimated ``cost / limit - 1`` of what was asked for, before any
            projection.
    """

    ratios: np.ndarray
    violations: np.ndarray


def relative_costs(problem: Problem, setting: Setting, ratios: np.ndarray) -> np.ndarray:
    """Estimates ``cost / limit`` ``[P, m]`` for ``[P, n]`` ratios; exact where there is a formula.

    Never calls a budget's black-box function.
    """
    formulas = [budget.estimate for budget in problem.budgets]
    widths = setting.legal(ratios)
    if None in formulas:
        estimated = setting.relative_costs(ratios)
    else:
        estimated = np.empty((len(ratios), len(formulas)))
    for k, formula in enumerate(formulas):
        if formula is not None:
            estimated[:, k] = formula.many(widths) / problem.budgets[k].limit
    return estimated


def forecast(problem: Problem, setting: Setting, ratios: np.ndarray, *, project: bool) -> Previews:
    """Forecasts the outcome of ``[P, n]`` raw keep ratios.

    The projection is the evaluator's common scale factor found on the estimates, without its last
    greedy step, so ratios are right to about a percent.
    """
    raw = relative_costs(problem, setting, ratios)
    if not project:
        return Previews(ratios=ratios, violations=raw - 1.0)
    scales = _common_scales(problem, setting, ratios, raw.max(axis=1))
    scaled = np.clip(ratios * scales[:, None], setting.lowest, setting.highest)
    return Previews(ratios=scaled, violations=raw - 1.0)


def _common_scales(
    problem: Problem, setting: Setting, ratios: np.ndarray, peaks: np.ndarray
) -> np.ndarray:
    """Factor on all ratios of each row that brings its tightest budget to the limit, ``[P]``.

    Illinois' false position on log cost over log scale, which is close to a straight line. Rows
    do not depend on one another.
    """

    def excess(rows: np.ndarray, log_scales: np.ndarray) -> np.ndarray:
        scaled = np.clip(rows * np.exp(log_scales)[:, None], setting.lowest, setting.highest)
        peak = relative_costs(problem, setting, scaled).max(axis=1)
        return np.asarray(np.log(np.maximum(peak, 1e-9)))

    at_zero = np.log(np.maximum(peaks, 1e-9))
    upward = at_zero <= 0
    top = np.log((setting.highest / ratios).max(axis=1))
    bottom = np.log((setting.lowest / ratios).min(axis=1))
    found = np.where(upward, top, bottom)
    beyond = excess(ratios, found)
    rows = np.flatnonzero((beyond <= 0) != upward)
    low, high = np.where(upward, 0.0, bottom)[rows], np.where(upward, top, 0.0)[rows]
    low_value = np.where(upward, at_zero, beyond)[rows]
    high_value = np.where(upward, beyond, at_zero)[rows]
    for _ in range(_STEPS):
        if not len(rows):
            break
        middle = (low * high_value - high * low_value) / (high_value - low_value)
        value = excess(ratios[rows], middle)
        below = value <= 0
        low_value = np.where(below, value, low_value / 2)
        high_value = np.where(below, high_value / 2, value)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
        close = np.abs(value) < _TOLERANCE
        found[rows] = np.where(close, middle, low)
        rows, low, high = rows[~close], low[~close], high[~close]
        low_value, high_value = low_value[~close], high_value[~close]
    return np.asarray(np.exp(found))
