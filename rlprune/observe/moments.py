"""Streaming moments: sums over rows that arrive batch by batch, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    r"""Mean and spread about the mean of rows, pooled batch by batch (Chan et al., 1979).

    .. math:: S = S_a + S_b + \frac{n_a n_b}{n_a + n_b}\, \delta \delta^T, \qquad
              \delta = m_b - m_a

    Args:
        cross: Whether the spread is a matrix over pairs of units; otherwise it is per unit.

    Attributes:
        count: Number of rows so far.
        mean: ``[n]`` float64.
        spread: Sum of squares or products about the mean, ``[n]`` or ``[n, n]`` float64.
    """

    def __init__(self, cross: bool = True) -> None:
        self.cross = cross
        self.count = 0
        self.mean: Tensor = torch.zeros((), dtype=torch.float64)
        self.spread: Tensor = torch.zeros((), dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take in rows ``[rows, n]``."""
        if not len(rows):
            return
        wide = rows.double()
        mean = wide.mean(0)
        wide = wide - mean
        self.merge(len(rows), mean, wide.T @ wide if self.cross else wide.square().sum(0))

    def merge(self, count: int, mean: Tensor, spread: Tensor) -> None:
        """Take in the moments of other rows."""
        if not self.count:
            self.count, self.mean, self.spread = count, mean, spread
            return
        total = self.count + count
        delta = mean - self.mean
        square = torch.outer(delta, delta) if self.cross else delta**2
        self.mean = self.mean + delta * (count / total)
        self.spread = self.spread + spread + square * (self.count * count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance ``[n, n]``, or variance ``[n]`` without ``cross``."""
        return self.spread / max(self.count - 1, 1)


class SecondMoments:
    """``sum x x^T`` and, where targets come along, ``sum x y^T`` and ``sum y^T y`` over rows.

    Products of a batch are in the precision of its rows, sums over batches in float64.

    Attributes:
        count: Number of rows so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: tuple[Tensor, ...] = ()

    def add(self, x: Tensor, y: Tensor | None = None, count: int | None = None) -> None:
        """Take in rows.

        Args:
            x: ``[rows, n]``.
            y: ``[rows, m]``; with every batch or with none.
            count: How many of the rows count, where others are zero.
        """
        parts = (x.T @ x,) if y is None else (x.T @ x, x.T @ y, y.square().sum())
        wide = tuple(part if part.device.type == "mps" else part.double() for part in parts)
        pairs = zip(self._sums, wide, strict=True)
        self._sums = tuple(a.add_(b) for a, b in pairs) if self._sums else wide
        self.count += len(x) if count is None else count

    @property
    def finite(self) -> bool:
        """Whether all sums are."""
        return all(bool(torch.isfinite(part).all()) for part in self._sums)

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """``sum x x^T``, and ``sum x y^T`` and ``sum y^T y`` if there are targets; the CPU's."""
        return tuple(part.cpu().double() for part in self._sums)

    @property
    def means(self) -> tuple[Tensor, ...]:
        """The sums by the number of rows."""
        return tuple(part / max(1, self.count) for part in self.sums)
