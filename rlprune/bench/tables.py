"""Numbers with their spread, and figures that need no display."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlprune.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#2f6fb0", "#c8502d", "#3d9457", "#8a5fb0", "#b8912b", "#4aa3a8", "#7a7f87", "#c05a8a")
"""Colours of lines, in order."""


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """The median, with smallest and largest where there are several; ``-`` for none."""
    if not values:
        return "-"
    middle = show(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({show(min(values))} to {show(max(values))})"


def percent(value: float) -> str:
    """A share as a percentage with two digits."""
    return f"{100 * value:.2f}"


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side is constant."""
    a, b = _ranks(np.asarray(left, float)), _ranks(np.asarray(right, float))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else float("nan")


def spearman_interval(
    left: Sequence[float], right: Sequence[float], level: float = 0.9, resamples: int = 1000
) -> tuple[float, float]:
    """Bootstrap interval of Spearman's rank correlation over resampled pairs.

    Args:
        left: One value per plan.
        right: One value per plan.
        level: Share of the resamples inside.
        resamples: How many.

    Returns:
        Lower and upper end.
    """
    generator = np.random.default_rng(0)
    a, b = np.asarray(left, float), np.asarray(right, float)
    draws = generator.integers(0, len(a), size=(resamples, len(a)))
    found = np.array([spearman(a[draw], b[draw]) for draw in draws])
    tail = (1 - level) / 2
    low, high = np.nanquantile(found, [tail, 1 - tail])
    return float(low), float(high)


def figure(width: float, height: float) -> Figure:
    """An empty figure that is drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(made: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically."""
    write_atomically(path, lambda target: made.savefig(target, dpi=130))
    return path


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: np.ndarray = (last - (counts - 1) / 2)[inverse]
    return mean
