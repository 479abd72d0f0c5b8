"""Which items a probe is fitted on, chosen by, and tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rlprune.errors import DataError


@dataclass(frozen=True)
class Split:
    """Positions of items; no program has items in two parts.

    Attributes:
        train: what is fitted.
        held: what choices are made by.
        test: what is read once, for the figures that are reported.
    """

    train: np.ndarray
    held: np.ndarray
    test: np.ndarray


def by_group(groups: Any, seed: int = 0, most: tuple[int, int, int] = (4000, 2000, 3000)) -> Split:
    """Split items so that items of one group (a program) stay together: 60, 20, 20 % of them.

    Args:
        groups: ``[items]``.
        seed: of the shuffle.
        most: items kept of each part, drawn at random.

    Raises:
        DataError: There are fewer than three groups.
    """
    generator = np.random.default_rng(seed)
    names, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 3:
        raise DataError(f"items come from {len(names)} programs; at least three are needed")
    order = generator.permutation(len(names))
    ends = np.cumsum(counts[order]) / counts.sum()
    part = np.empty(len(names), dtype=np.int64)
    part[order] = np.digitize(ends - counts[order] / counts.sum() / 2, (0.6, 0.8))
    for missing in range(3):  # few large programs: every part gets one
        if not (part == missing).any():
            part[order[(0, len(order) // 2, -1)[missing]]] = missing
    found = []
    for number, limit in enumerate(most):
        items = np.flatnonzero(part[codes] == number)
        if len(items) > limit:
            items = np.sort(generator.choice(items, limit, replace=False))
        found.append(items)
    return Split(*found)


def unseen(texts: np.ndarray, split: Split) -> np.ndarray:
    """The test items whose text occurs neither in the training nor in the held-out part."""
    known = set(texts[split.train]) | set(texts[split.held])
    return split.test[[text not in known for text in texts[split.test]]]


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of the mean of values that are alike within groups.

    Args:
        values: ``[items]``.
        groups: ``[items]``; sums of the groups' deviations vary independently.
    """
    deviations = np.asarray(values, dtype=np.float64) - values.mean()
    _, codes = np.unique(groups, return_inverse=True)
    sums = np.bincount(codes, deviations)
    count = len(sums)
    return float(np.sqrt((sums**2).sum() * count / max(count - 1, 1)) / len(values))
