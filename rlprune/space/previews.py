"""What ratios would be evaluated as, without paying for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rlprune.space.costs import CostModel
    from rlprune.space.space import Space

_STEPS = 8
_TOLERANCE = 0.003


@dataclass(frozen=True)
class Previews:
    """Cheap forecasts of P wishes.

    Attributes:
        ratios: ``[P, n]`` keep ratios that would be evaluated, projected onto the budgets where
            they will be.
        violations: ``[P, m]`` estimated ``cost / limit - 1`` of what was asked for, before any
            projection.
    """

    ratios: np.ndarray
    violations: np.ndarray


def forecast(space: Space, costs: CostModel, ratios: np.ndarray, *, project: bool) -> Previews:
    """Forecasts the outcome of ``[P, n]`` keep ratios.

    The projection is the common scale factor found on the cost model, without the last greedy
    steps and without dropping branches, so ratios are right to about a percent.
    """
    raw = costs(ratios)
    if not project:
        return Previews(ratios=ratios, violations=raw - 1.0)
    scales = _common_scales(space, costs, ratios, raw.max(axis=1))
    return Previews(ratios=_scaled(space, ratios, scales), violations=raw - 1.0)


def _scaled(space: Space, ratios: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """``[P, n]`` ratios times ``[P]`` factors within the legal range; branches as they are."""
    scaled = np.clip(ratios * scales[:, None], space.lowest, space.highest)
    return np.where(space.branches, ratios, scaled) if space.depth else scaled


def _common_scales(
    space: Space, costs: CostModel, ratios: np.ndarray, peaks: np.ndarray
) -> np.ndarray:
    """Factor on all ratios of each row that brings its tightest budget to the limit, ``[P]``.

    Illinois' false position on log cost over log scale, which is close to a straight line. Rows
    do not depend on one another.
    """

    def excess(rows: np.ndarray, log_scales: np.ndarray) -> np.ndarray:
        peak = costs(_scaled(space, rows, np.exp(log_scales))).max(axis=1)
        return np.asarray(np.log(np.maximum(peak, 1e-9)))

    at_zero = np.log(np.maximum(peaks, 1e-9))
    upward = at_zero <= 0
    free = ~space.branches
    top = np.log((space.highest[free] / ratios[:, free]).max(axis=1))
    bottom = np.log((space.lowest[free] / ratios[:, free]).min(axis=1))
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
