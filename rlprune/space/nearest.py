"""The legal value nearest to a wish: the one rounding rule of the whole program."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np


def nearest(legal: Sequence[int], wish: float) -> int:
    """The legal value closest to ``wish``, the smaller one on a tie.

    Args:
        legal: ascending.
        wish: any number.
    """
    at = bisect_left(legal, wish)
    if at == 0:
        return legal[0]
    if at == len(legal):
        return legal[-1]
    below, above = legal[at - 1], legal[at]
    return below if wish - below <= above - wish else above


class NearestTable:
    """:func:`nearest` for many wishes of several decisions at once.

    The points where the answer changes are whole or half numbers, so one entry for every half
    answers exactly.

    Args:
        legal: legal values of every decision, ascending and not negative.
        sizes: ``[n]`` the largest wish that each may get.
    """

    def __init__(self, legal: Sequence[Sequence[int]], sizes: Sequence[int]) -> None:
        self._top = 2 * np.asarray(sizes, dtype=np.int64)
        self._rows = np.arange(len(legal))
        self._table = np.zeros((len(legal), int(self._top.max(initial=0)) + 1), dtype=np.int64)
        for row, values in zip(self._table, legal, strict=True):
            halves = np.arange(len(row)) / 2
            middles = (np.asarray(values[:-1]) + np.asarray(values[1:])) / 2
            row[:] = np.asarray(values)[np.searchsorted(middles, halves, side="left")]

    def __call__(self, wishes: np.ndarray) -> np.ndarray:
        """Legal values ``[..., n]`` nearest to wishes ``[..., n]``."""
        halves = np.ceil(2.0 * wishes).astype(np.int64)
        clipped = np.minimum(np.maximum(halves, 0), self._top)
        return np.asarray(self._table[self._rows, clipped])
